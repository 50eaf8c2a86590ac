package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/image"
)

// Upload is a blob that goes up to a repository while it is being made:
//
//	POST ─> PATCH of what is written so far … ─> PUT with its digest
//
// (distribution spec, "Pushing a blob in chunks", with one chunk of unknown length,
// as docker push has it.) It is a short cut: Push asks for every blob, and sends
// those that did not arrive.
type Upload struct {
	c      *Client
	ref    string
	r      io.ReadCloser
	ctx    context.Context // of the whole upload
	cancel context.CancelCauseFunc
	done   chan struct{}
	err    error // after done

	mu    sync.Mutex
	there int64         // bytes that are written
	read  int64         // of them
	end   digest.Digest // what they are; "" while there will be more
	more  chan struct{} // is closed when one of the above changes
}

var (
	errUnwanted = errors.New("the upload of a blob was given up")
	errThere    = errors.New("the repository has the blob from elsewhere")
)

// Upload begins to send what r gives to the repository of ref, as far as Grow says
// that it is there. It closes r. End or Cancel must be called.
func (c *Client) Upload(ctx context.Context, ref string, r io.ReadCloser) *Upload {
	u := &Upload{c: c, ref: ref, r: r, done: make(chan struct{}), more: make(chan struct{})}
	u.ctx, u.cancel = context.WithCancelCause(ctx)
	c.jobs.Go(func() {
		if u.err = u.send(); context.Cause(u.ctx) == errThere {
			u.err = nil
		}
		u.err = errors.Join(u.err, r.Close())
		close(u.done)
		u.cancel(nil)
	})
	return u
}

// Grow says how many bytes there are by now.
func (u *Upload) Grow(size int64) { u.change(func() { u.there = max(u.there, size) }) }

// End says what the blob is, now that it is whole. Who pushes it meanwhile to another
// repository of the registry waits, and mounts it. When the repository has it from
// elsewhere the rest is not sent.
func (u *Upload) End(d ocispec.Descriptor) {
	left := int64(0)
	u.change(func() { u.there, u.end, left = d.Size, d.Digest, d.Size-u.read })
	n, err := image.ParseName(u.ref)
	if err != nil {
		return // as send finds too
	}
	at := u.c.origin(n)
	u.c.sent.begin(context.WithoutCancel(u.ctx), &u.c.jobs, at.host+" "+d.Digest.String(), func(ctx context.Context) (string, error) {
		return at.repo, u.Wait(ctx)
	})
	if left < worthAsking {
		return
	}
	u.c.jobs.Go(func() {
		if u.c.HasBlob(u.ctx, u.ref, d) == nil {
			u.cancel(errThere)
		}
	})
}

// worthAsking is how many bytes are sent rather than asking whether they are there.
const worthAsking = 16 << 20

// Cancel gives the upload up, unless it has ended.
func (u *Upload) Cancel() { u.cancel(errUnwanted) }

// Wait waits for the end of the upload. An error means that the repository may not
// have the blob; ctx ends the wait alone.
func (u *Upload) Wait(ctx context.Context) error {
	select {
	case <-u.done:
		return u.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (u *Upload) change(f func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f()
	close(u.more)
	u.more = make(chan struct{})
}

// Read gives what there is of the blob, and waits while there is nothing new.
func (u *Upload) Read(b []byte) (int, error) {
	for {
		u.mu.Lock()
		left, end, more := u.there-u.read, u.end, u.more
		u.mu.Unlock()
		switch {
		case left > 0:
			n, err := u.r.Read(b[:min(int64(len(b)), left)])
			u.mu.Lock()
			u.read += int64(n)
			u.mu.Unlock()
			if errors.Is(err, io.EOF) { // it is shorter than was said
				err = io.ErrUnexpectedEOF
			}
			return n, err
		case end != "":
			return 0, io.EOF
		}
		select {
		case <-more:
		case <-u.ctx.Done():
			return 0, context.Cause(u.ctx)
		}
	}
}

func (u *Upload) send() error {
	n, err := image.ParseName(u.ref)
	if err != nil {
		return err
	}
	p := &push{c: u.c, n: n, at: u.c.origin(n)}
	if p.hc, err = u.c.client(u.ctx, p.at, "push,pull"); err != nil {
		return err
	}
	location, done, err := p.begin(u.ctx, p.hc, nil)
	if err != nil {
		return err
	}
	if done {
		return errEarly
	}
	next, err := p.patch(u.ctx, location, u)
	if err != nil {
		p.abandon(u.ctx, location)
		return err
	}
	u.mu.Lock()
	d := u.end
	u.mu.Unlock()
	last, err := withDigest(next, d)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(u.ctx, http.MethodPut, last, http.NoBody)
	if err != nil {
		return err
	}
	return p.expect(req, http.StatusCreated, http.StatusNoContent, http.StatusOK)
}

// patch sends all that r gives to an upload, and returns where it goes on.
func (p *push) patch(ctx context.Context, location string, r io.Reader) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPatch, location, io.NopCloser(r))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := p.hc.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	return uploadAt(resp, http.StatusAccepted, http.StatusNoContent, http.StatusCreated)
}

// withDigest is the address that ends an upload.
func withDigest(location string, d digest.Digest) (string, error) {
	u, err := url.Parse(location)
	if err != nil {
		return "", fmt.Errorf("the registry gave the bad upload location %q", location)
	}
	q := u.Query()
	q.Set("digest", d.String())
	u.RawQuery = q.Encode()
	return u.String(), nil
}
