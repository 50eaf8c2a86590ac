package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"kaniko-build/test/rig"
)

// A context may be an archive on the web: what is in it counts, not when it came. With its
// digest nobody is asked for it twice.
func TestContextFromTheWeb(t *testing.T) {
	var now atomic.Pointer[[]byte]
	var sent atomic.Int64
	serve := func(b []byte) { now.Store(&b) }
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b := *now.Load()
		w.Header().Set("ETag", fmt.Sprintf("%q", fmt.Sprintf("%x", sha256.Sum256(b))))
		if r.Method == http.MethodGet && r.Header.Get("If-None-Match") == "" {
			sent.Add(1)
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}))
	defer web.Close()
	dir, state, trust := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(trust, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	manifest := func(context string) {
		rig.Write(t, dir, map[string]string{"kaniko-build.yaml": "version: 1\ntargets:\n  app: {context: \"" + context + "\"}\n"})
	}
	call := func(args ...string) (string, error) {
		c := exec.Command(rig.Binary(t), args...)
		c.Dir = dir
		c.Env = append(os.Environ(), "KANIKO_BUILD_STATE="+state, "SSL_CERT_FILE="+trust)
		out, err := c.CombinedOutput()
		return string(out), err
	}
	must := func(want string, args ...string) string {
		t.Helper()
		out, err := call(args...)
		if err != nil || !strings.Contains(out, want) {
			t.Fatalf("%q: %v, want %q in\n%s", args, err, want, out)
		}
		return out
	}
	files := map[string]string{"src-1/Dockerfile": "FROM scratch\nCOPY main /\n", "src-1/main": "one", "src-1/notes": "1"}
	serve(rig.Archive(t, files))
	manifest(web.URL + "/src.tar.gz#:src-1")
	must("1 built", "apply", "--progress", "plain")
	must("0 built", "apply", "--progress", "plain")
	if n := sent.Load(); n != 1 {
		t.Errorf("the archive was sent %d times", n)
	}
	files["src-1/notes"] = "2" // which nothing copies
	serve(rig.Archive(t, files))
	must("0 built", "apply", "--progress", "plain")
	files["src-1/main"] = "two"
	serve(rig.Archive(t, files))
	must("1 built", "apply", "--progress", "plain")

	// As print writes it, it is the same for ever, and needs nobody.
	pinned := ""
	for line := range strings.Lines(must("#sha256:", "print", "app")) {
		if _, at, ok := strings.Cut(line, "context: "); ok {
			pinned = strings.Trim(strings.TrimSpace(at), "'\"")
		}
	}
	manifest(pinned)
	serve(nil)
	before := sent.Load()
	must("0 built", "apply", "--progress", "plain")
	if sent.Load() != before {
		t.Error("a digest is asked for again")
	}

	// What is not what it says, or leads out of itself, is a mistake with its place.
	serve(rig.Archive(t, files))
	for _, c := range []struct {
		fragment string
		files    map[string]string
		want     string
	}{
		{"#sha256:" + strings.Repeat("0", 64), files, "digest mismatch"},
		{"", map[string]string{"../evil": "x"}, `"../evil" leads out of the archive`},
		{"#:none", files, "does not exist"},
	} {
		serve(rig.Archive(t, c.files))
		manifest(web.URL + "/other.tar.gz" + c.fragment)
		if out, err := call("plan"); err == nil || !strings.Contains(out, c.want) || !strings.Contains(out, "kaniko-build.yaml:3:") {
			t.Errorf("%s: %v, want %q in\n%s", c.fragment, err, c.want, out)
		}
	}
}
