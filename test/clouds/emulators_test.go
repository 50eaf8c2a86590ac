package clouds

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

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

// start runs a server on a free port of loopback until the test ends. argv has
// %s for its port.
func start(t *testing.T, env []string, argv ...string) (addr string) {
	t.Helper()
	for range 5 { // another process may take the port in between
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr = l.Addr().String()
		_, port, _ := net.SplitHostPort(addr)
		l.Close()
		args := make([]string, len(argv))
		for i, a := range argv {
			args[i] = strings.ReplaceAll(a, "%s", port)
		}
		log := &bytes.Buffer{}
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), env...)
		cmd.Stdout, cmd.Stderr = log, log
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { cmd.Wait(); close(done) }()
		if answers(addr, done) {
			t.Cleanup(func() { cmd.Process.Kill(); <-done })
			return addr
		}
		cmd.Process.Kill()
		<-done
		t.Logf("%s: %s", filepath.Base(argv[0]), log)
	}
	t.Fatalf("%s does not answer", argv[0])
	return ""
}

// answers waits until somebody listens at addr.
func answers(addr string, done <-chan struct{}) bool {
	deadline := time.After(time.Minute)
	for {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return true
		}
		select {
		case <-done:
			return false
		case <-deadline:
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// authority is a certificate that signs itself, for some hosts.
type authority struct {
	cert, key string // PEM files
}

func newAuthority(t *testing.T, hosts ...string) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		DNSNames: hosts, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := rig.Space(t, nil)
	a := authority{filepath.Join(dir, "ca.pem"), filepath.Join(dir, "key.pem")}
	for file, block := range map[string]*pem.Block{a.cert: {Type: "CERTIFICATE", Bytes: der}, a.key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o644); err != nil {
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
