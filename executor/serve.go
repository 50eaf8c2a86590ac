package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

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
