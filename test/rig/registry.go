package rig

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"kaniko-build/test/image"

	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Registry is Debian's docker-registry, listening on loopback.
type Registry struct {
	Addr string // 127.0.0.1:port
	Log  string // file with what it was asked
}

// StartRegistry starts an empty one that ends with the test.
func StartRegistry(t testing.TB) *Registry {
	t.Helper()
	bin := Need(t, "docker-registry", "docker-registry")
	dir := Space(t, nil)
	r := &Registry{Log: filepath.Join(dir, "log")}
	log, err := os.Create(r.Log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	conf := filepath.Join(dir, "config.yml")
	r.Addr = StartServer(t, func(addr string) *exec.Cmd {
		if err := os.WriteFile(conf, []byte(RegistryConfig(addr, filepath.Join(dir, "data"))), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(bin, "serve", conf)
		cmd.Stdout, cmd.Stderr = log, log
		cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
		return cmd
	}, WaitRegistry)
	return r
}

// RegistryConfig is the configuration of a registry with its data in dir.
func RegistryConfig(addr, dir string) string {
	return fmt.Sprintf(`version: 0.1
log: {level: error, accesslog: {disabled: false}}
storage:
  filesystem: {rootdirectory: %q}
  delete: {enabled: true}
http: {addr: %q}
`, dir, addr)
}

// WaitRegistry returns when a registry answers at addr, or an error when it
// does not within a minute or done is closed.
func WaitRegistry(addr string, done <-chan struct{}) error {
	deadline := time.After(time.Minute)
	for {
		resp, err := http.Get("http://" + addr + "/v2/")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-done:
			return fmt.Errorf("the registry at %s ended", addr)
		case <-deadline:
			return fmt.Errorf("no registry answers at %s: %w", addr, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Push puts the images of an OCI layout directory below library/.
func (r *Registry) Push(t testing.TB, layout string) {
	t.Helper()
	if _, err := image.Push(t.Context(), layout, r.Addr); err != nil {
		t.Fatal(err)
	}
}

// Tagged is the digest of the manifest or index that a tag stands for in the registry
// at addr; "" if there is no such tag.
func Tagged(t testing.TB, addr, repo, tag string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodHead, "http://"+addr+"/v2/"+repo+"/manifests/"+tag, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []types.MediaType{types.OCIManifestSchema1, types.OCIImageIndex, types.DockerManifestSchema2, types.DockerManifestList} {
		req.Header.Add("Accept", string(kind))
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return ""
	}
	return resp.Header.Get("Docker-Content-Digest")
}

// Requests lists the lines of the access log that hold every one of words.
func (r *Registry) Requests(t testing.TB, words ...string) []string {
	t.Helper()
	b, err := os.ReadFile(r.Log)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
next:
	for _, l := range strings.Split(string(b), "\n") {
		for _, w := range words {
			if !strings.Contains(l, w) {
				continue next
			}
		}
		out = append(out, l)
	}
	return out
}

// Sent is how many bytes of blobs, configs included, a registry has sent
// according to its access log.
func (r *Registry) Sent() (int64, error) {
	b, err := os.ReadFile(r.Log)
	if err != nil {
		return 0, err
	}
	var sum int64
	for l := range strings.SplitSeq(string(b), "\n") {
		// 127.0.0.1 - - [25/Nov/2026:08:29:21 +0000] "GET /v2/it/blobs/sha256:… HTTP/1.1" 200 1234 "" "…"
		_, rest, ok := strings.Cut(l, "\"GET /v2/")
		what, rest, ended := strings.Cut(rest, "\" ")
		if !ok || !ended || !strings.Contains(what, "/blobs/") {
			continue
		}
		fields := strings.Fields(rest)
		if len(fields) < 2 {
			return 0, fmt.Errorf("a line of %s is cut: %q", r.Log, l)
		}
		n, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("a line of %s has no size: %q", r.Log, l)
		}
		sum += n
	}
	return sum, nil
}

// Need finds a program, or fails with the Debian package that has it.
func Need(t testing.TB, program, pkg string) string {
	t.Helper()
	p, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%s is not installed: `make packages` installs Debian's package %s", program, pkg)
	}
	return p
}

// ReportEnv names a variable with a file that collects what Report says.
const ReportEnv = "KANIKO_BUILD_TEST_REPORT"

// Report says something that whoever ran the tests should see when they pass.
func Report(t testing.TB, format string, args ...any) {
	t.Helper()
	line := fmt.Sprintf(format, args...)
	t.Log(line)
	if name := os.Getenv(ReportEnv); name != "" {
		f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			t.Errorf("report: %v", err)
			return
		}
		defer f.Close()
		fmt.Fprintln(f, line)
	}
}
