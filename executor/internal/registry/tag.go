package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/image"
)

// tagged is what a tag stood for when it was asked for; "" is nothing.
type tagged struct {
	digest digest.Digest
	at     time.Time
}

// tagStays is how long TagDigest believes what Push found. A run with nothing to do
// is over by then; in one that goes on, another may move the tag, and the tags of
// a run shall stand for one state.
const tagStays = 3 * time.Second

// isTagged tells whether the tag stands for d already. What it stands for is
// kept for TagDigest, which then need not ask again.
func (p *push) isTagged(ctx context.Context, d ocispec.Descriptor) bool {
	if p.n.Tag == "" {
		return false
	}
	there, err := p.tagDigest(ctx, d.Digest)
	if err != nil {
		return false // who asks next says what is wrong
	}
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	p.c.tags[p.n.String()] = tagged{there, p.c.now()}
	return there == d.Digest
}

// tagDigest asks what the tag stands for; "" is nothing. expected is what it may well
// be, or "".
func (p *push) tagDigest(ctx context.Context, expected digest.Digest) (digest.Digest, error) {
	d, err := headManifest(ctx, p.hc, p.at, p.n.Tag, expected)
	var status *transport.Error
	if errors.As(err, &status) && status.StatusCode == http.StatusNotFound {
		return "", nil
	}
	return d.Digest, err
}

// takeTag is what Push found out about a tag a moment ago, which may be asked for
// once.
func (p *push) takeTag() (there digest.Digest, ok bool) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	found, ok := p.c.tags[p.n.String()]
	delete(p.c.tags, p.n.String())
	return found.digest, ok && p.c.now().Sub(found.at) < tagStays
}

// TagDigest is what the tag of ref stands for at the registry itself, "" if it
// does not exist: as Push found it a moment ago, which counts once, else as it is
// now. A ref without a tag is its own digest. expected is what it may well be, or "".
func (c *Client) TagDigest(ctx context.Context, ref string, expected digest.Digest) (digest.Digest, error) {
	n, err := image.ParseName(ref)
	if err != nil {
		return "", err
	}
	if n.Tag == "" {
		return digest.Digest(n.Digest), nil
	}
	p := &push{c: c, n: n, at: c.origin(n)}
	if there, ok := p.takeTag(); ok {
		return there, nil
	}
	var there digest.Digest
	if p.hc, err = c.client(ctx, p.at, "push,pull"); err == nil {
		there, err = p.tagDigest(ctx, expected)
	}
	if err != nil {
		return "", c.explain(ctx, "failed to push "+n.String(), n, p.at, err)
	}
	return there, nil
}

// HasManifest tells whether the repository of ref has a manifest or an index of
// that digest; what is absent is an error.
func (c *Client) HasManifest(ctx context.Context, ref string, d digest.Digest) error {
	n, err := image.ParseName(ref)
	if err != nil {
		return err
	}
	at := c.origin(n)
	hc, err := c.client(ctx, at, "push,pull")
	if err == nil {
		var there ocispec.Descriptor
		if there, err = headManifest(ctx, hc, at, d.String(), ""); err == nil && there.Digest != d {
			err = fmt.Errorf("the registry has %s in the place of manifest %s", there.Digest, d)
		}
	}
	return c.explain(ctx, "failed to push "+n.String(), n, at, err)
}

// PutTag makes the tag of ref stand for a manifest or index that was pushed
// before; b is its bytes. A tag that does already is left alone.
func (c *Client) PutTag(ctx context.Context, ref string, d ocispec.Descriptor, b []byte) (moved bool, err error) {
	if there, err := c.TagDigest(ctx, ref, d.Digest); err == nil && there == d.Digest {
		return false, nil
	}
	if err := c.SetTag(ctx, ref, d, b); err != nil {
		return false, err
	}
	return true, nil
}

// SetTag is PutTag without looking what the tag stands for. A ref without a tag
// has nothing to set: a digest is its own name.
func (c *Client) SetTag(ctx context.Context, ref string, d ocispec.Descriptor, b []byte) error {
	n, err := image.ParseName(ref)
	if err != nil {
		return err
	}
	if n.Tag == "" {
		return nil
	}
	p := &push{c: c, n: n, at: c.origin(n)}
	if p.hc, err = c.client(ctx, p.at, "push,pull"); err == nil {
		var kind string
		if kind, err = image.Detect(b, d.MediaType); err == nil {
			err = p.put(ctx, n.Tag, kind, b)
		}
	}
	return c.explain(ctx, "failed to push "+n.String(), n, p.at, err)
}

// MoveTag makes the tag of ref stand for a manifest or index that its repository
// has.
func (c *Client) MoveTag(ctx context.Context, ref string, to digest.Digest) error {
	n, err := image.ParseName(ref)
	if err != nil {
		return err
	}
	p := &push{c: c, n: n, at: c.origin(n)}
	if p.hc, err = c.client(ctx, p.at, "push,pull"); err == nil {
		var b []byte
		var kind string
		if b, kind, err = getManifest(ctx, p.hc, p.at, to.String(), to); err == nil {
			err = p.put(ctx, n.Tag, kind, b)
		}
	}
	return c.explain(ctx, "failed to push "+n.String(), n, p.at, err)
}

// DeleteTag takes the tag of ref away, where the registry allows that; one that
// is absent is fine.
func (c *Client) DeleteTag(ctx context.Context, ref string) error {
	n, err := image.ParseName(ref)
	if err != nil {
		return err
	}
	p := &push{c: c, n: n, at: c.origin(n)}
	p.takeTag()
	if p.hc, err = c.client(ctx, p.at, "delete,push,pull"); err == nil {
		var req *http.Request
		if req, err = request(ctx, http.MethodDelete, p.at, "manifests/"+n.Tag, nil); err == nil {
			err = p.expect(req, http.StatusAccepted, http.StatusOK, http.StatusNotFound)
		}
	}
	return c.explain(ctx, "failed to push: delete tag "+n.String(), n, p.at, err)
}

// Manifest is the manifest or index that a tag stands for at the registry itself,
// and its media type; nil if there is none.
func (c *Client) Manifest(ctx context.Context, ref string) (b []byte, kind string, err error) {
	n, err := image.ParseName(ref)
	if err != nil {
		return nil, "", err
	}
	at := c.origin(n)
	hc, err := c.client(ctx, at, "pull")
	if err == nil {
		b, kind, err = getManifest(ctx, hc, at, n.Tag, "")
	}
	var status *transport.Error
	if errors.As(err, &status) && status.StatusCode == http.StatusNotFound {
		return nil, "", nil
	}
	return b, kind, c.explain(ctx, "failed to look for "+n.String(), n, at, err)
}
