package registrytest

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"kaniko-build/test/certificate"
	"kaniko-build/test/port"
)

// Program is what Run starts.
const Program = "docker-registry"

// The one account of a registry with Options.Auth or Options.Tokens.
const (
	User     = "user"
	Password = "secret"

	htpasswd = User + ":$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"
)

// Options say what kind of registry. The zero value is an open one over http.
type Options struct {
	Dir  string // where it keeps its data; "" is a directory that goes away with it
	Auth bool   // basic auth, for pull and push; see User and Password
	// Tokens has it ask for tokens, which a server beside it gives to User, and to
	// anybody for pulling below public/.
	Tokens bool
	TLS    bool // https, with a certificate of its own; see Registry.CA
}

// Registry is one that runs.
type Registry struct {
	Host string // 127.0.0.1:PORT
	CA   []byte // PEM, with Options.TLS

	TokenHost string // with Options.Tokens: where its users get them
	TokenCA   []byte // PEM, with Options.TLS too

	Dir string

	tokens *tokens // with Options.Tokens
	cmd    *exec.Cmd
	done   chan struct{}
	log    *buffer
	stop   sync.Once
	tmp    string
}

// Start runs a registry until the test ends.
func Start(t testing.TB, o Options) *Registry {
	t.Helper()
	if _, err := exec.LookPath(Program); err != nil {
		t.Skipf("needs %s (apt install %s): %v", Program, Program, err)
	}
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("registry %s said:\n%s", r.Host, r.Log())
		}
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// Run starts a registry and waits until it answers. Its port stays its own after Stop,
// while the process lives: nobody answers there then.
func Run(ctx context.Context, o Options) (r *Registry, err error) {
	tmp, err := os.MkdirTemp("", "registrytest-")
	if err != nil {
		return nil, fmt.Errorf("start registry: %w", err)
	}
	r = &Registry{Dir: o.Dir, tmp: tmp, log: &buffer{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	held, err := port.Hold()
	if err != nil {
		return nil, fmt.Errorf("start registry: %w", err)
	}
	r.Host = held.Addr.String()
	defer func() {
		if err != nil {
			err = errors.Join(err, held.Close())
		}
	}()
	if r.Dir == "" {
		r.Dir = filepath.Join(tmp, "data")
	}
	if err := r.start(ctx, o); err != nil {
		return nil, fmt.Errorf("start registry: %w\n%s", err, r.log)
	}
	return r, nil
}

func (r *Registry) start(ctx context.Context, o Options) error {
	config, err := r.config(o)
	if err != nil {
		return err
	}
	path := filepath.Join(r.tmp, "config.yml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return err
	}
	r.cmd = exec.Command(Program, "serve", path)
	r.cmd.Stdout, r.cmd.Stderr = r.log, r.log
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	r.done = make(chan struct{})
	started := make(chan error)
	go func() {
		// It is killed when the thread ends that started it, so that thread has to
		// be one that nobody else can end.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(r.done)
		err := r.cmd.Start()
		started <- err
		if err == nil {
			_ = r.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	if err := r.ready(ctx, o); err != nil {
		_ = r.cmd.Process.Kill()
		<-r.done
		return err
	}
	return nil
}

func (r *Registry) config(o Options) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "version: 0.1\nlog: {level: info}\nstorage:\n  filesystem: {rootdirectory: %q}\n  delete: {enabled: true}\nhttp:\n  addr: %q\n", r.Dir, r.Host)
	if o.TLS {
		cert, key, err := certificate.New()
		if err != nil {
			return "", err
		}
		r.CA = cert
		certFile, keyFile := filepath.Join(r.tmp, "cert.pem"), filepath.Join(r.tmp, "key.pem")
		if err := errors.Join(os.WriteFile(certFile, cert, 0o600), os.WriteFile(keyFile, key, 0o600)); err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "  tls: {certificate: %q, key: %q}\n", certFile, keyFile)
	}
	if o.Tokens {
		if r.tokens == nil {
			var err error
			if r.tokens, err = newTokens(o.TLS); err != nil {
				return "", err
			}
		}
		r.TokenHost, r.TokenCA = strings.TrimPrefix(strings.TrimPrefix(r.tokens.url(), "https://"), "http://"), r.tokens.cert
		auth, err := r.tokens.config(filepath.Join(r.tmp, "tokens.pem"))
		if err != nil {
			return "", err
		}
		b.WriteString(auth)
	}
	if o.Auth {
		file := filepath.Join(r.tmp, "htpasswd")
		if err := os.WriteFile(file, []byte(htpasswd), 0o600); err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "auth:\n  htpasswd: {realm: test, path: %q}\n", file)
	}
	return b.String(), nil
}

// ready waits for an answer, for a minute at most.
func (r *Registry) ready(ctx context.Context, o Options) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	t := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // only to see that it answers
	defer t.CloseIdleConnections()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url(o.TLS)+"/v2/", nil)
		if err != nil {
			return err
		}
		if resp, err := t.RoundTrip(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusUnauthorized {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-r.done:
			return errors.New("it ended at once")
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", context.Cause(ctx))
		}
	}
}

func (r *Registry) url(tls bool) string {
	if tls {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// URL is http://127.0.0.1:PORT, or https.
func (r *Registry) URL() string { return r.url(r.CA != nil) }

// Log is what the registry has said so far.
func (r *Registry) Log() string { return r.log.String() }

// Stop ends the registry and removes its files, but not a Dir that was given. It
// may be called again.
func (r *Registry) Stop() (err error) {
	r.stop.Do(func() {
		_ = r.cmd.Process.Kill() // it may have ended
		<-r.done
		if r.tokens != nil {
			r.tokens.server.Close()
		}
		err = os.RemoveAll(r.tmp)
	})
	return err
}

// buffer keeps the first megabyte of what is written to it.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

var _ io.Writer = (*buffer)(nil)

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.b.Len() < 1<<20 {
		b.b.Write(p)
	}
	return len(p), nil
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
