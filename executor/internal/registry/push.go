package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"kaniko-build/executor/internal/image"
	"kaniko-build/executor/internal/retry"
)

// Pushed says what a push had to do.
type Pushed struct {
	Uploaded int   // blobs
	Mounted  int   // blobs, from another repository of the registry
	Existed  int   // blobs
	Bytes    int64 // uploaded
	Known    bool  // the manifest was there, so nothing below it was looked at
}

type pushState int

const (
	existed pushState = iota
	mounted
	uploaded
)

// Push puts an image or an index, with all that it consists of, into the
// repository of ref, by digest: no tag moves (PutTag). What the repository has is
// not sent again. Blobs come from src and, where origins names another
// repository for them ("host/path") on the same registry, are mounted from there
// if the registry allows it.
func (c *Client) Push(ctx context.Context, ref string, d ocispec.Descriptor, src image.Source, origins map[digest.Digest][]string) (Pushed, error) {
	n, err := image.ParseName(ref)
	if err != nil {
		return Pushed{}, err
	}
	p := &push{c: c, n: n, at: c.origin(n), src: src, origins: origins}
	if p.hc, err = c.client(ctx, p.at, "push,pull"); err == nil {
		if p.isTagged(ctx, d) { // one request, where nothing is to be done
			return Pushed{Known: true}, nil
		}
		err = p.manifest(ctx, d, 0)
	}
	if err != nil {
		return Pushed{}, c.explain(ctx, "failed to push "+n.String(), n, p.at, err)
	}
	return Pushed{
		Uploaded: int(p.count[uploaded].Load()), Mounted: int(p.count[mounted].Load()), Existed: int(p.count[existed].Load()),
		Bytes: p.bytes.Load(), Known: p.known.Load(),
	}, nil
}

type push struct {
	c       *Client
	n       image.Name
	at      endpoint
	hc      *http.Client
	src     image.Source
	origins map[digest.Digest][]string
	aside   bool // of a cache, which nobody waits for
	count   [3]atomic.Int64
	bytes   atomic.Int64
	known   atomic.Bool
}

// manifest pushes children first, so that no manifest is ever there without
// what it names.
func (p *push) manifest(ctx context.Context, d ocispec.Descriptor, depth int) error {
	if depth > 4 {
		return errors.New("more than 4 indexes within each other")
	}
	if there, err := headManifest(ctx, p.hc, p.at, d.Digest.String(), ""); err == nil && there.Digest == d.Digest {
		if depth == 0 {
			p.known.Store(true)
		}
		return nil
	} else if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	b, err := image.Read(ctx, p.src, d, image.MaxManifest)
	if err != nil {
		return err
	}
	kind, err := image.Detect(b, d.MediaType)
	if err != nil {
		return fmt.Errorf("read manifest %s: %w", d.Digest, err)
	}
	if image.IsIndex(kind) {
		var idx ocispec.Index
		if err := json.Unmarshal(b, &idx); err != nil {
			return fmt.Errorf("read index %s: %w", d.Digest, err)
		}
		for _, child := range idx.Manifests {
			if err := p.manifest(ctx, child, depth+1); err != nil {
				return err
			}
		}
		return p.put(ctx, d.Digest.String(), kind, b)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return fmt.Errorf("read manifest %s: %w", d.Digest, err)
	}
	if err := p.blobs(ctx, append([]ocispec.Descriptor{m.Config}, m.Layers...)); err != nil {
		return err
	}
	return p.put(ctx, d.Digest.String(), kind, b)
}

// blobs sends those blobs that the repository lacks, side by side.
func (p *push) blobs(ctx context.Context, list []ocispec.Descriptor) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(p.c.o.Jobs)
	for _, blob := range list {
		g.Go(func() error {
			key := p.at.String() + " " + blob.Digest.String()
			if p.aside {
				_, err := p.c.pushed.join(gctx, key)
				if err != nil && gctx.Err() == nil {
					_, err = p.blob(gctx, blob)
				}
				if err != nil {
					return fmt.Errorf("blob %s: %w", blob.Digest, err)
				}
				return nil
			}
			mine := false
			state, err := p.c.pushed.do(gctx, &p.c.jobs, key, func(ctx context.Context) (pushState, error) {
				mine = true
				return p.blob(ctx, blob)
			})
			if err != nil {
				return fmt.Errorf("blob %s: %w", blob.Digest, err)
			}
			if !mine {
				state = existed
			}
			p.count[state].Add(1)
			return nil
		})
	}
	return g.Wait()
}

func (p *push) put(ctx context.Context, id, kind string, b []byte) error {
	req, err := request(ctx, http.MethodPut, p.at, "manifests/"+id, bytes.NewReader(b))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", kind)
	return p.expect(req, http.StatusCreated, http.StatusOK, http.StatusAccepted)
}

func (p *push) expect(req *http.Request, codes ...int) error {
	resp, err := p.hc.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return transport.CheckError(resp, codes...)
}

func (p *push) blob(ctx context.Context, d ocispec.Descriptor) (pushState, error) {
	for try := 1; ; try++ {
		state, err := p.tryBlob(ctx, d, try == 1)
		var sent *uploadError // everything else has been repeated by the retrier
		if err == nil || ctx.Err() != nil || try > max(0, p.c.o.Retries) || !errors.As(err, &sent) || !passing(err) {
			return state, err
		}
		if err := retry.Pause(ctx, try, 0); err != nil {
			return 0, err
		}
	}
}

// uploadError is the failure to send a blob's bytes.
type uploadError struct{ err error }

func (e *uploadError) Error() string { return "upload: " + e.err.Error() }
func (e *uploadError) Unwrap() error { return e.err }

func (p *push) tryBlob(ctx context.Context, d ocispec.Descriptor, mount bool) (pushState, error) {
	there, err := p.has(ctx, d)
	if err != nil {
		return 0, err
	}
	if there {
		return existed, nil
	}
	if !mount {
		return uploaded, p.send(ctx, d)
	}
	if p.mount(ctx, d, p.origins[d.Digest]) {
		return mounted, nil
	}
	return p.share(ctx, d)
}

// has tells whether the repository has a blob.
func (p *push) has(ctx context.Context, d ocispec.Descriptor) (bool, error) {
	req, err := request(ctx, http.MethodHead, p.at, "blobs/"+d.Digest.String(), nil)
	if err != nil {
		return false, err
	}
	resp, err := p.hc.Do(req)
	if err != nil {
		return false, err
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK, transport.CheckError(resp, http.StatusOK, http.StatusNotFound)
}

// share sends a blob once to the registry when several of its repositories get
// it, as those of an image and of a cache do: the others mount it. A cache waits
// for an image, and an image never for a cache, whose upload may be hanging.
func (p *push) share(ctx context.Context, d ocispec.Descriptor) (pushState, error) {
	key := p.at.host + " " + d.Digest.String()
	if p.aside {
		repo, err := p.c.sent.join(ctx, key)
		switch {
		case ctx.Err() != nil:
			return 0, context.Cause(ctx)
		case err == nil && p.mount(ctx, d, []string{p.n.Host + "/" + repo}):
			return mounted, nil
		}
		if err := p.send(ctx, d); err != nil {
			return uploaded, err
		}
		p.c.mu.Lock()
		defer p.c.mu.Unlock()
		p.c.aside[key] = p.at.repo
		return uploaded, nil
	}
	p.c.mu.Lock()
	aside, ok := p.c.aside[key]
	p.c.mu.Unlock()
	if ok && p.mount(ctx, d, []string{p.n.Host + "/" + aside}) {
		return mounted, nil
	}
	mine := false
	repo, err := p.c.sent.do(ctx, &p.c.jobs, key, func(ctx context.Context) (string, error) {
		mine = true
		return p.at.repo, p.send(ctx, d)
	})
	switch {
	case mine:
		return uploaded, err
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case err == nil && p.mount(ctx, d, []string{p.n.Host + "/" + repo}):
		return mounted, nil
	}
	return uploaded, p.send(ctx, d)
}

// send sends the bytes of a blob.
func (p *push) send(ctx context.Context, d ocispec.Descriptor) error {
	location, done, err := p.begin(ctx, p.hc, nil)
	if err != nil {
		return err
	}
	if done {
		return errEarly
	}
	if err := p.upload(ctx, d, location); err != nil {
		return &uploadError{err}
	}
	p.bytes.Add(d.Size)
	return nil
}

var errEarly = errors.New("the registry took an upload before it was made")

// mount takes the blob from a repository ("host/path") that has it, which may be
// a mirror's copy of where it comes from. That it does not work is no error: then
// the blob is sent.
func (p *push) mount(ctx context.Context, d ocispec.Descriptor, origins []string) bool {
	for _, origin := range origins {
		n, err := image.ParseName(origin)
		if err != nil {
			continue
		}
		for _, from := range p.c.endpoints(n) {
			if from.host == p.at.host && from.repo != p.at.repo && p.mountFrom(ctx, d, from) {
				return true
			}
		}
	}
	return false
}

func (p *push) mountFrom(ctx context.Context, d ocispec.Descriptor, from endpoint) bool {
	hc, err := p.c.client(ctx, p.at, "push,pull", from)
	if err != nil {
		return false
	}
	location, done, err := p.begin(ctx, hc, url.Values{"mount": {d.Digest.String()}, "from": {from.repo}})
	if err == nil && !done {
		p.abandon(ctx, location)
	}
	return err == nil && done
}

// begin starts an upload; done says that there is nothing to send.
func (p *push) begin(ctx context.Context, hc *http.Client, q url.Values) (location string, done bool, err error) {
	req, err := request(ctx, http.MethodPost, p.at, "blobs/uploads/", nil)
	if err != nil {
		return "", false, err
	}
	req.URL.RawQuery = q.Encode()
	resp, err := hc.Do(req)
	if err != nil {
		return "", false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusCreated {
		return "", true, nil
	}
	location, err = uploadAt(resp, http.StatusAccepted)
	return location, false, err
}

// uploadAt is where an upload goes on, by an answer that has one of these codes.
func uploadAt(resp *http.Response, codes ...int) (string, error) {
	if err := transport.CheckError(resp, codes...); err != nil {
		return "", err
	}
	u, err := resp.Request.URL.Parse(resp.Header.Get("Location"))
	if err != nil || resp.Header.Get("Location") == "" {
		return "", fmt.Errorf("the registry gave the bad upload location %q", resp.Header.Get("Location"))
	}
	// Layers go elsewhere only under TLS, and never to an address of this machine
	// or its neighbours that the registry made up.
	if u.Host != resp.Request.URL.Host && (u.Scheme != "https" || isLoopback(u.Host)) {
		return "", fmt.Errorf("the registry wants the upload at %s", u.Host)
	}
	return u.String(), nil
}

func (p *push) upload(ctx context.Context, d ocispec.Descriptor, location string) error {
	r, err := p.src.Open(ctx, d)
	if err != nil {
		return err
	}
	u, err := withDigest(location, d.Digest)
	if err != nil {
		return errors.Join(err, r.Close())
	}
	body := &counted{ReadCloser: r, p: p, d: d}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, u, body)
	if err != nil {
		return errors.Join(err, r.Close())
	}
	req.ContentLength = d.Size
	if d.Size == 0 {
		req.Body = http.NoBody
		defer r.Close()
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	err = p.expect(req, http.StatusCreated, http.StatusNoContent, http.StatusOK)
	if bad := body.failed(); bad != nil {
		return bad // of the source, and why the rest failed
	}
	return err
}

// counted tells how far an upload is, and keeps the error of its source, which
// HTTP would hide.
type counted struct {
	io.ReadCloser
	p    *push
	d    ocispec.Descriptor
	n    int64
	told time.Time
	err  atomic.Pointer[error]
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b)
	c.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		c.err.Store(&err)
	}
	if c.p.c.o.Progress != nil && (time.Since(c.told) > tellEvery || c.n == c.d.Size) {
		c.told = time.Now()
		c.p.c.o.Progress(Progress{Ref: c.p.n.String(), Digest: c.d.Digest, Push: true, Done: c.n, Total: c.d.Size})
	}
	return n, err
}

func (c *counted) failed() error {
	if e := c.err.Load(); e != nil && !strings.Contains((*e).Error(), "closed") {
		return *e
	}
	return nil
}

// abandon gives an upload back; it is only politeness.
func (p *push) abandon(ctx context.Context, location string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, location, nil)
	if err != nil {
		return
	}
	if resp, err := p.hc.Do(req); err == nil {
		resp.Body.Close()
	}
}

// PermissionCheck tells whether we may push to ref, by beginning an upload and
// giving it up.
func (c *Client) PermissionCheck(ctx context.Context, ref string) error {
	n, err := image.ParseName(ref)
	if err != nil {
		return err
	}
	p := &push{c: c, n: n, at: c.origin(n)}
	if p.hc, err = c.client(ctx, p.at, "push,pull"); err == nil {
		var location string
		if location, _, err = p.begin(ctx, p.hc, nil); err == nil && location != "" {
			p.abandon(ctx, location)
		}
	}
	return c.explain(ctx, "failed to push "+n.String(), n, p.at, err)
}

// Origins lists, for Push, where the layers of images that were resolved come
// from.
func Origins(resolved ...image.Resolved) map[digest.Digest][]string {
	out := map[digest.Digest][]string{}
	for _, r := range resolved {
		n, err := image.ParseName(r.Name)
		if err != nil {
			continue
		}
		for _, l := range r.Layers {
			if d := l.Descriptor.Digest; !slices.Contains(out[d], n.Context()) {
				out[d] = append(out[d], n.Context())
			}
		}
	}
	return out
}
