package clouds

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"kaniko-build/test/certificate"
	"kaniko-build/test/rig"
)

// emulator finds a program that `make emulators` made.
func emulator(t *testing.T, name string) string {
	t.Helper()
	p := filepath.Join(rig.Root(t), ".cache/emulators", name)
	if _, err := os.Stat(p); err != nil {
		t.Fatalf("%s is not there: run `make emulators`", name)
	}
	return p
}

// start runs an emulator until the test ends. argv has %s for its port.
func start(t *testing.T, env []string, argv ...string) (addr string) {
	t.Helper()
	var log *bytes.Buffer
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s: %s", filepath.Base(argv[0]), log)
		}
	})
	return rig.StartServer(t, func(addr string) *exec.Cmd {
		_, port, _ := net.SplitHostPort(addr)
		cmd := exec.Command(argv[0])
		for _, a := range argv[1:] {
			cmd.Args = append(cmd.Args, strings.ReplaceAll(a, "%s", port))
		}
		log = &bytes.Buffer{}
		cmd.Env = append(os.Environ(), env...)
		cmd.Stdout, cmd.Stderr = log, log
		return cmd
	}, rig.Listens)
}

// authority is a certificate that signs itself, for some hosts.
type authority struct {
	cert, key string // PEM files
}

func newAuthority(t *testing.T, hosts ...string) authority {
	t.Helper()
	cert, key, err := certificate.New(hosts...)
	if err != nil {
		t.Fatal(err)
	}
	dir := rig.Space(t, nil)
	a := authority{filepath.Join(dir, "ca.pem"), filepath.Join(dir, "key.pem")}
	for file, text := range map[string][]byte{a.cert: cert, a.key: key} {
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// pool holds the one authority.
func (a authority) pool(t *testing.T) *x509.CertPool {
	t.Helper()
	b, err := os.ReadFile(a.cert)
	if err != nil {
		t.Fatal(err)
	}
	p := x509.NewCertPool()
	p.AppendCertsFromPEM(b)
	return p
}

// startTunnel is a proxy that leads every CONNECT to addr, whatever host was
// asked for, as the names of a cloud's servers lead nowhere here.
func startTunnel(t *testing.T, addr string) (url string) {
	t.Helper()
	var pipes sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "only CONNECT", http.StatusMethodNotAllowed)
			return
		}
		there, err := net.Dial("tcp", addr)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		here, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			there.Close()
			return
		}
		context.AfterFunc(ctx, func() { here.Close(); there.Close() })
		fmt.Fprint(here, "HTTP/1.1 200 OK\r\n\r\n")
		pipes.Go(func() { io.Copy(there, here); there.Close() })
		pipes.Go(func() { io.Copy(here, there); here.Close() })
	}))
	t.Cleanup(func() { s.Close(); stop(); pipes.Wait() })
	return s.URL
}
