package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kaniko-build/test/mirror"
	"kaniko-build/test/rig"
)

// A cache that takes nothing, or never answers an upload, costs one warning and a
// bounded time.
func TestCacheThatTakesNothing(t *testing.T) {
	rig.NeedRoot(t)
	reg := rig.StartMirror(t, mirror.Busybox)
	for _, c := range []struct {
		name   string
		upload http.HandlerFunc
	}{
		{"refuses", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }},
		{"hangs", func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				switch {
				case req.Method == http.MethodPost, req.Method == http.MethodPut, req.Method == http.MethodPatch:
					c.upload(w, req)
				case req.URL.Path != "/v2/":
					w.WriteHeader(http.StatusNotFound)
				}
			}))
			defer srv.Close()
			defer srv.CloseClientConnections()
			dir := cachedShop(t, reg, strings.TrimPrefix(srv.URL, "http://")+"/cache")
			m := newMachine(t, rig.Superuser, dir)
			began := time.Now()
			o := m.must("apply", "--push")
			if d := time.Since(began); d > 20*time.Second {
				t.Errorf("the build took %s beside such a cache", d)
			}
			if n := strings.Count(o.Stderr, "warning: "); n != 1 || !strings.Contains(o.Stderr, "in the cache") {
				t.Errorf("%d warnings, want one about the cache\n%s", n, o.Tail(60))
			}
			if n := executed(o); n != 7 {
				t.Errorf("%d steps were executed, want 7", n)
			}
			accepted(t, reg.Addr+"/shop/app")
		})
	}
}

// raw is a registry's HTTP interface, for what no well-behaved client does.
type raw struct {
	*testing.T
	repo string // http://HOST/v2/PATH
}

func (r raw) do(method, url, kind string, body []byte, want int) []byte {
	r.Helper()
	if !strings.HasPrefix(url, "http://") {
		url = r.repo + "/" + url
	}
	req, err := http.NewRequestWithContext(r.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != want {
		r.Fatalf("%s %s: %s %v\n%s", method, url, resp.Status, err, b)
	}
	if method == http.MethodPost {
		return []byte(resp.Header.Get("Location"))
	}
	return b
}

// blob uploads bytes.
func (r raw) blob(b []byte) string {
	r.Helper()
	at := string(r.do(http.MethodPost, "blobs/uploads/", "", nil, http.StatusAccepted))
	sep := "?"
	if strings.Contains(at, "?") {
		sep = "&"
	}
	d := fmt.Sprintf("sha256:%x", sha256.Sum256(b))
	r.do(http.MethodPut, at+sep+"digest="+d, "application/octet-stream", b, http.StatusCreated)
	return d
}

// A layer in a cache that is not what its entry says is found when it is read:
// the step runs, the image is right, and the reason is shown.
func TestCachedLayersThatAreOthers(t *testing.T) {
	rig.NeedRoot(t)
	reg := rig.StartMirror(t, mirror.Busybox)
	dir := rig.Space(t, nil)
	rig.Write(t, dir, map[string]string{
		"kaniko-build.yaml": fmt.Sprintf("version: 1\nregistries: {docker.io: {mirrors: [%[1]q]}}\ndefaults: {cache: {repo: \"%[1]s/cache\"}}\ntargets:\n  app: {image: %[1]s/app}\n", reg.Addr),
		"Dockerfile":        "FROM busybox\nRUN echo right > /right\n",
	})
	one := newMachine(t, rig.Superuser, dir)
	one.must("apply", "--push")
	r := raw{t, "http://" + reg.Addr + "/v2/cache"}
	var tags struct{ Tags []string }
	if err := json.Unmarshal(r.do(http.MethodGet, "tags/list", "", nil, 200), &tags); err != nil || len(tags.Tags) != 2 {
		t.Fatalf("%v %v, want the step by definition and by content", tags, err)
	}
	rig.Write(t, dir, map[string]string{"Dockerfile": "FROM busybox\nRUN echo right > /right\nRUN cat /right > /copy\n"})
	var evil bytes.Buffer
	z := gzip.NewWriter(&evil)
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Name: "right", Mode: 0o644, Size: 6}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("wrong\n")); err != nil {
		t.Fatal(err)
	}
	wrong := bytes.Clone(flush(t, w, z, &evil))
	const large = 256 << 20
	evil.Reset()
	z.Reset(&evil)
	w = tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Name: "right", Mode: 0o644, Size: large}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(w, zeros{}, large); err != nil {
		t.Fatal(err)
	}
	bomb := flush(t, w, z, &evil)
	for _, c := range []struct {
		name string
		blob []byte
		want string
	}{
		{"another layer", wrong, "the tar in the blob has digest"},
		{"a bomb", bomb, "its tar is larger than its entry says"},
		{"no archive", []byte("nothing of the sort"), "cannot be used"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := raw{t, r.repo}
			d := r.blob(c.blob)
			for _, tag := range tags.Tags {
				var m map[string]any
				if err := json.Unmarshal(r.do(http.MethodGet, "manifests/"+tag, "", nil, 200), &m); err != nil {
					t.Fatal(err)
				}
				l := m["layers"].([]any)[0].(map[string]any)
				l["digest"], l["size"] = d, len(c.blob)
				b, err := json.Marshal(m)
				if err != nil {
					t.Fatal(err)
				}
				r.do(http.MethodPut, "manifests/"+tag, "application/vnd.oci.image.manifest.v1+json", b, http.StatusCreated)
			}
			two := one.fresh()
			two.T = t
			o := two.must("apply", "--push", "--no-push-cache")
			if n := executed(o); n != 2 {
				t.Errorf("%d steps were executed, want 2", n)
			}
			if !strings.Contains(o.Stderr, "cannot be used") || !strings.Contains(o.Stderr, c.want) {
				t.Errorf("the reason %q is not shown\n%s", c.want, o.Tail(40))
			}
			img := describe(t, reg.Addr+"/app")
			for _, name := range []string{"/right", "/copy"} {
				if e, ok := img.Find(name); !ok || e.Text != "right\n" {
					t.Errorf("%s is %+v", name, e)
				}
			}
			if files, err := filepath.Glob(filepath.Join(two.state, "layers", "*", "*", "fs", "right")); err != nil || len(files) != 1 {
				t.Errorf("unpacked: %v %v", files, err)
			} else if st, err := os.Stat(files[0]); err != nil || st.Size() != 6 {
				t.Errorf("%v %v", st, err)
			}
		})
	}
}

func flush(t *testing.T, w *tar.Writer, z *gzip.Writer, b *bytes.Buffer) []byte {
	t.Helper()
	for _, c := range []io.Closer{w, z} {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
