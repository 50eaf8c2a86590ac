package hosts

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

// Emulator finds a program that `make emulators` made.
func Emulator(t testing.TB, name string) string {
	t.Helper()
	p := filepath.Join(rig.Root(t), ".cache/emulators", name)
	if _, err := os.Stat(p); err != nil {
		t.Fatalf("%s is not there: run `make emulators`", name)
	}
	return p
}

// StartEmulator runs an emulator until the test ends. argv has %s for its port.
func StartEmulator(t testing.TB, env []string, argv ...string) (addr string) {
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

// Authority is a certificate that signs itself, for some hosts.
type Authority struct {
	Cert, Key string // PEM files
}

// NewAuthority makes one.
func NewAuthority(t testing.TB, hosts ...string) Authority {
	t.Helper()
	cert, key, err := certificate.New(hosts...)
	if err != nil {
		t.Fatal(err)
	}
	dir := rig.Space(t, nil)
	a := Authority{filepath.Join(dir, "ca.pem"), filepath.Join(dir, "key.pem")}
	for file, text := range map[string][]byte{a.Cert: cert, a.Key: key} {
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// Pool holds the one authority.
func (a Authority) Pool(t testing.TB) *x509.CertPool {
	t.Helper()
	b, err := os.ReadFile(a.Cert)
	if err != nil {
		t.Fatal(err)
	}
	p := x509.NewCertPool()
	p.AppendCertsFromPEM(b)
	return p
}

// StartTunnel is a proxy that leads every CONNECT to addr, whatever host was
// asked for, as the names of a cloud's servers lead nowhere here.
func StartTunnel(t testing.TB, addr string) (url string) {
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
