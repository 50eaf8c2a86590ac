package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/image"
	"kaniko-build/executor/internal/retry"
	"kaniko-build/executor/internal/store"
)

const (
	stall     = 60 * time.Second // without a byte, after which a transfer is begun again
	tellEvery = 200 * time.Millisecond
)

// Blob reads a blob of ref while it is downloaded into the store, or from the
// store if it is there. The reader ends with io.EOF only when size and digest
// are right, and the blob is in the store then. All who want the same blob share
// one download, over all processes; closing early gives it up only when nobody
// else reads. A slow reader does not slow the download.
func (c *Client) Blob(ctx context.Context, ref string, d ocispec.Descriptor) (io.ReadCloser, error) {
	n, err := image.ParseName(ref)
	if err != nil {
		return nil, err
	}
	if r, err := image.FromStore(c.store).Open(ctx, d); err == nil || !errors.Is(err, image.ErrNotFound) {
		return r, err
	}
	return c.open(ctx, n, c.endpoints(n), d)
}

// FetchBlob is Blob that writes to w until the end. w may be io.Discard, to have
// the blob in the store.
func (c *Client) FetchBlob(ctx context.Context, ref string, d ocispec.Descriptor, w io.Writer) error {
	r, err := c.Blob(ctx, ref, d)
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := io.Copy(w, r); err != nil {
		return fmt.Errorf("pull %s: %w", d.Digest, err)
	}
	return nil
}

// download is one blob on its way into the store.
type download struct {
	c    *Client
	name image.Name
	at   []endpoint
	desc ocispec.Descriptor

	mu      sync.Mutex
	change  chan struct{} // closed and made anew whenever a field below changes
	readers int
	cancel  context.CancelFunc
	writer  *store.Writer // nil until the lock is held
	n       int64         // bytes written
	done    bool
	err     error
}

func (c *Client) open(ctx context.Context, n image.Name, at []endpoint, d ocispec.Descriptor) (io.ReadCloser, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("pull %s: digest %q: %w", n, d.Digest, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	dl := c.downloads[d.Digest]
	if dl == nil || dl.desc.Size != d.Size {
		dctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		dl = &download{c: c, name: n, at: at, desc: d, change: make(chan struct{}), cancel: cancel}
		c.downloads[d.Digest] = dl
		c.jobs.Go(func() {
			defer cancel()
			dl.run(dctx)
		})
	}
	dl.mu.Lock()
	dl.readers++
	dl.mu.Unlock()
	return &follower{ctx: ctx, d: dl}, nil
}

// drop makes sure that nobody joins d any more.
func (c *Client) drop(d *download) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.downloads[d.desc.Digest] == d {
		delete(c.downloads, d.desc.Digest)
	}
}

func (d *download) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
	close(d.change)
	d.change = make(chan struct{})
}

func (d *download) run(ctx context.Context) {
	err := d.fetch(ctx)
	d.c.drop(d)
	d.set(func() { d.done, d.err = true, err })
}

func (d *download) fetch(ctx context.Context) error {
	// The lock is a leaf: nothing else is waited for while it is held but bytes.
	unlock, err := d.c.store.Lock(ctx, "blob-"+d.desc.Digest.Encoded(), nil)
	if err != nil {
		return err
	}
	defer unlock()
	if size, ok := d.c.store.Has(d.desc.Digest); ok && size == d.desc.Size {
		return nil // another process was faster; readers find it in the store
	}
	w, err := d.c.store.Writer()
	if err != nil {
		return err
	}
	d.set(func() { d.writer = w })
	hide := func() { d.set(func() { d.writer = nil }) } // a new follower would race with the end of the file's name
	defer func() {
		hide()
		_ = w.Close() // after Commit it does nothing; else the session's end removes what it cannot
	}()
	var failed []error
	for _, e := range d.at {
		err := d.from(ctx, e, w)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		failed = append(failed, d.c.explain(ctx, fmt.Sprintf("failed to pull layer %s of %s", d.desc.Digest, d.name), d.name, e, err))
	}
	if len(failed) == len(d.at) {
		return mostTelling(failed)
	}
	hide()
	if _, err := w.Commit(d.desc.Digest); err != nil {
		return d.c.explain(ctx, fmt.Sprintf("failed to pull layer %s of %s", d.desc.Digest, d.name), d.name, d.at[len(failed)], err)
	}
	return nil
}

// from reads what is missing of the blob at e, going on after cuts. Each attempt
// that brought something makes room for new ones.
func (d *download) from(ctx context.Context, e endpoint, w *store.Writer) error {
	hc, err := d.c.client(ctx, e, "pull")
	if err != nil {
		return err
	}
	for try := 1; ; try++ {
		before := w.Size()
		err := d.attempt(ctx, hc, e, w)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if w.Size() > before {
			try = 1
		}
		if try > max(0, d.c.o.Retries) || !cut(err) {
			return err
		}
		if err := retry.Pause(ctx, try, 0); err != nil {
			return err
		}
	}
}

// errStalled is the cause when a server sends nothing for long.
var errStalled = &stalled{}

type stalled struct{}

func (*stalled) Error() string   { return fmt.Sprintf("no byte came for %v", stall) }
func (*stalled) Timeout() bool   { return true }
func (*stalled) Temporary() bool { return true }

func (d *download) attempt(ctx context.Context, hc *http.Client, e endpoint, w *store.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(stall, func() { cancel(errStalled) })
	defer watch.Stop()
	req, err := request(ctx, http.MethodGet, e, "blobs/"+d.desc.Digest.String(), nil)
	if err != nil {
		return err
	}
	have := w.Size()
	if have > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", have))
	}
	resp, err := hc.Do(req)
	if err != nil {
		return stallOr(ctx, err)
	}
	defer resp.Body.Close()
	if err := transport.CheckError(resp, http.StatusOK, http.StatusPartialContent); err != nil {
		return err
	}
	skip := have
	if resp.StatusCode == http.StatusPartialContent {
		if start, ok := rangeStart(resp.Header.Get("Content-Range")); !ok || start != have {
			return fmt.Errorf("the registry sent the range %q, and we asked for one from %d", resp.Header.Get("Content-Range"), have)
		}
		skip = 0
	} else if resp.ContentLength >= 0 && resp.ContentLength != d.desc.Size {
		return fmt.Errorf("the registry has %d bytes for %s, and the manifest says %d", resp.ContentLength, d.desc.Digest, d.desc.Size)
	}
	buf := make([]byte, 256<<10)
	told := time.Now()
	for {
		n, rerr := resp.Body.Read(buf)
		watch.Reset(stall)
		p := buf[:n]
		if drop := min(skip, int64(n)); drop > 0 { // the registry knows no ranges: these we have
			p, skip = p[drop:], skip-drop
		}
		if w.Size()+int64(len(p)) > d.desc.Size {
			return fmt.Errorf("more than the %d bytes of the manifest came for %s", d.desc.Size, d.desc.Digest)
		}
		if len(p) > 0 {
			if _, err := w.Write(p); err != nil {
				return fmt.Errorf("write blob: %w", err)
			}
			d.set(func() { d.n = w.Size() })
			if d.c.o.Progress != nil && (time.Since(told) > tellEvery || w.Size() == d.desc.Size) {
				told = time.Now()
				d.c.o.Progress(Progress{Ref: d.name.String(), Digest: d.desc.Digest, Done: w.Size(), Total: d.desc.Size})
			}
		}
		switch {
		case rerr == nil:
		case !errors.Is(rerr, io.EOF):
			return stallOr(ctx, rerr)
		case w.Size() < d.desc.Size:
			return fmt.Errorf("%d of %d bytes of %s came: %w", w.Size(), d.desc.Size, d.desc.Digest, io.ErrUnexpectedEOF)
		default:
			return nil
		}
	}
}

func stallOr(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errStalled) {
		return errStalled
	}
	return err
}

// rangeStart reads "bytes 5-9/10".
func rangeStart(h string) (int64, bool) {
	rest, ok := strings.CutPrefix(h, "bytes ")
	if !ok {
		return 0, false
	}
	first, _, ok := strings.Cut(rest, "-")
	n, err := strconv.ParseInt(first, 10, 64)
	return n, ok && err == nil
}

// follower reads a download from its start. It is for one goroutine.
type follower struct {
	ctx    context.Context // of who opened it
	d      *download
	f      *os.File      // the file being written
	whole  io.ReadCloser // or the blob in the store
	off    int64
	closed bool
}

func (f *follower) Read(p []byte) (int, error) {
	if f.closed {
		return 0, os.ErrClosed
	}
	for {
		if f.whole != nil {
			return f.whole.Read(p)
		}
		f.d.mu.Lock()
		n, done, err, change := f.d.n, f.d.done, f.d.err, f.d.change
		if f.f == nil && f.d.writer != nil {
			var ferr error
			if f.f, ferr = f.d.writer.Follow(); ferr != nil {
				f.d.mu.Unlock()
				return 0, ferr
			}
		}
		f.d.mu.Unlock()
		switch {
		case done && err != nil:
			return 0, err
		case done && f.f == nil: // it came into the store before we looked
			if f.whole, err = image.FromStore(f.d.c.store).Open(f.ctx, f.d.desc); err != nil {
				return 0, err
			}
			continue
		case f.f != nil && f.off < n:
			got, err := f.f.Read(p[:min(int64(len(p)), n-f.off)])
			f.off += int64(got)
			if got > 0 || len(p) == 0 {
				return got, nil
			}
			if err != nil && !errors.Is(err, io.EOF) {
				return 0, err
			}
			return 0, io.ErrUnexpectedEOF
		case done:
			return 0, io.EOF
		}
		select {
		case <-change:
		case <-f.ctx.Done():
			return 0, context.Cause(f.ctx)
		}
	}
}

func (f *follower) Close() error {
	if f.closed {
		return nil
	}
	f.closed = true
	f.d.mu.Lock()
	f.d.readers--
	last := f.d.readers == 0 && !f.d.done
	f.d.mu.Unlock()
	if last {
		f.d.giveUp()
	}
	var err error
	if f.f != nil {
		err = f.f.Close()
	}
	if f.whole != nil {
		err = errors.Join(err, f.whole.Close())
	}
	return err
}

// giveUp ends the download unless somebody has joined it.
func (d *download) giveUp() {
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.readers > 0 {
		return
	}
	if d.c.downloads[d.desc.Digest] == d {
		delete(d.c.downloads, d.desc.Digest)
	}
	d.cancel()
}
