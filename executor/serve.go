package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/sys/unix"
)

// servedBlob is a base blob on its way into a container.
type servedBlob struct {
	done chan struct{}
	err  error // once done is closed
	stop func()
}

func (b *servedBlob) wait(ctx context.Context) error {
	select {
	case <-b.done:
		return b.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// pipes are the blobs that a core reads, each by a pipe.
type pipes struct {
	mu    sync.Mutex
	next  uint64
	blobs map[uint64]*servedBlob
}

// open gives a pipe with the bytes of r, which it closes, and an id for wait. cancel is
// called in any case.
func (p *pipes) open(r io.ReadCloser, cancel func()) (uint64, *os.File, error) {
	pr, pw, err := os.Pipe()
	if err != nil {
		cancel()
		return 0, nil, errors.Join(fmt.Errorf("make a pipe for a blob: %w", err), r.Close())
	}
	_, _ = unix.FcntlInt(pw.Fd(), unix.F_SETPIPE_SZ, 1<<20) // fewer switches; the default works too
	b := &servedBlob{done: make(chan struct{})}
	b.stop = func() { cancel(); pw.Close(); <-b.done }
	go func() {
		defer close(b.done)
		defer cancel()
		_, err := io.Copy(pw, r)
		b.err = errors.Join(err, r.Close())
		pw.Close()
	}()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.blobs == nil {
		p.blobs = map[uint64]*servedBlob{}
	}
	p.next++
	p.blobs[p.next] = b
	return p.next, pr, nil
}

// wait says of a blob, once, whether all of it was given.
func (p *pipes) wait(ctx context.Context, id uint64) error {
	p.mu.Lock()
	b := p.blobs[id]
	delete(p.blobs, id)
	p.mu.Unlock()
	if b == nil {
		return fmt.Errorf("internal error: no blob %d", id)
	}
	return b.wait(ctx)
}

func (p *pipes) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.blobs {
		b.stop()
	}
}

// blob gives the core a pipe with the bytes of a base layer, while they come
// from the store or from where the image is.
func (s *server) blob(ctx context.Context, l baseLayer) (uint64, *os.File, error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // it outlives the call, and ends with the server
	r, err := s.openBlob(ctx, l)
	if err != nil {
		cancel()
		return 0, nil, err
	}
	return s.blobs.open(r, cancel)
}

// openBlob opens a layer, and tells of a download.
func (s *server) openBlob(ctx context.Context, l baseLayer) (io.ReadCloser, error) {
	if _, ok := s.x.store.Has(l.Blob.Digest); !ok {
		s.x.opts.Sink(Event{Node: s.node.ID, Kind: Pulling, Time: now(), Text: l.Origin, Total: l.Blob.Size})
	}
	return s.x.openBlob(ctx, l)
}

// agent connects to the ssh agent that is granted under id: a socket, or keys
// that are served from here.
func (n *Node) agent(ctx context.Context, id string) (*os.File, error) {
	for _, s := range n.SSH {
		if s.ID != id {
			continue
		}
		if len(s.Paths) == 1 {
			if fi, err := os.Stat(s.Paths[0]); err == nil && fi.Mode()&os.ModeSocket != 0 {
				var d net.Dialer
				c, err := d.DialContext(ctx, "unix", s.Paths[0])
				if err != nil {
					return nil, fmt.Errorf("connect to the ssh agent: %w", err)
				}
				defer c.Close()
				return c.(*net.UnixConn).File()
			}
		}
		return serveKeys(s.Paths)
	}
	return nil, nil
}

// serveKeys is one connection to an agent that holds the given private keys
// and can sign with them, nothing else.
func serveKeys(paths []string) (*os.File, error) {
	ring := agent.NewKeyring()
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			return nil, fmt.Errorf("read ssh key: %w", err)
		}
		key, err := ssh.ParseRawPrivateKey(b)
		if err != nil {
			return nil, fmt.Errorf("read ssh key %s: %w", p, err)
		}
		if err := ring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
			return nil, fmt.Errorf("use ssh key %s: %w", p, err)
		}
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket for ssh: %w", err)
	}
	ours := os.NewFile(uintptr(fds[0]), "agent")
	c, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		unix.Close(fds[1])
		return nil, fmt.Errorf("use a socket for ssh: %w", err)
	}
	go func() {
		defer c.Close()
		_ = agent.ServeAgent(signOnly{ring}, c) // ends when the other end is closed
	}()
	return os.NewFile(uintptr(fds[1]), "agent"), nil
}

// signOnly refuses everything that would change the keys.
type signOnly struct{ agent.Agent }

var errReadOnly = errors.New("this agent's keys cannot be changed")

func (signOnly) Add(agent.AddedKey) error   { return errReadOnly }
func (signOnly) Remove(ssh.PublicKey) error { return errReadOnly }
func (signOnly) RemoveAll() error           { return errReadOnly }
func (signOnly) Lock([]byte) error          { return errReadOnly }
func (signOnly) Unlock([]byte) error        { return errReadOnly }
