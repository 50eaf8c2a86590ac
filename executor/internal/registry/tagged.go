package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/image"
)

// Tagged reads manifest and config of what the tag of ref stands for now, at the
// registry itself, and keeps nothing in the store. Absent is image.ErrNotFound.
// It is for entries of a cache, which are many and mostly not there.
func (c *Client) Tagged(ctx context.Context, ref string) (image.Resolved, error) {
	n, err := image.ParseName(ref)
	if err != nil {
		return image.Resolved{}, err
	}
	at := c.origin(n)
	fail := func(err error) (image.Resolved, error) {
		return image.Resolved{}, c.explain(ctx, "failed to read "+n.String(), n, at, err)
	}
	hc, err := c.client(ctx, at, "pull")
	if err != nil {
		return fail(err)
	}
	b, mediaType, err := getManifest(ctx, hc, at, n.Tag, "")
	if err != nil {
		return fail(err)
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	r, err := image.Resolve(ctx, unkept{hc, at, d, b}, n.String(), d, ocispec.Platform{})
	var status *transport.Error
	switch { // neither is what callers take for absent
	case errors.As(err, &status) && status.StatusCode == http.StatusNotFound:
		return fail(errors.New("the manifest is there, and its config is not"))
	case errors.Is(err, image.ErrNotFound):
		return fail(errors.New(err.Error()))
	}
	if err != nil {
		return fail(err)
	}
	return r, nil
}

// unkept reads an image of one manifest without the store.
type unkept struct {
	hc       *http.Client
	at       endpoint
	top      ocispec.Descriptor
	manifest []byte
}

func (u unkept) Open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	if d.Digest == u.top.Digest {
		return io.NopCloser(bytes.NewReader(u.manifest)), nil
	}
	if image.IsIndex(d.MediaType) || image.IsManifest(d.MediaType) {
		return nil, errors.New("it is an index, not an image")
	}
	return stream(ctx, u.hc, u.at, d)
}

// stream reads a blob as it comes, checked.
func stream(ctx context.Context, hc *http.Client, e endpoint, d ocispec.Descriptor) (io.ReadCloser, error) {
	req, err := request(ctx, http.MethodGet, e, "blobs/"+d.Digest.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := hc.Do(req)
	if err != nil {
		return nil, err
	}
	if err := transport.CheckError(resp, http.StatusOK); err != nil {
		resp.Body.Close()
		return nil, err
	}
	if resp.ContentLength >= 0 && resp.ContentLength != d.Size {
		resp.Body.Close()
		return nil, fmt.Errorf("the registry has %d bytes for %s, and the manifest says %d", resp.ContentLength, d.Digest, d.Size)
	}
	return image.Verify(resp.Body, d), nil
}

// Stream reads a blob of ref: from the store, else as it comes, without keeping
// it. It is for one who hands it on. The reader ends with io.EOF only when size
// and digest are right.
func (c *Client) Stream(ctx context.Context, ref string, d ocispec.Descriptor) (io.ReadCloser, error) {
	n, err := image.ParseName(ref)
	if err != nil {
		return nil, err
	}
	if r, err := image.FromStore(c.store).Open(ctx, d); err == nil || !errors.Is(err, image.ErrNotFound) {
		return r, err
	}
	var failed []error
	for _, e := range c.endpoints(n) {
		hc, err := c.client(ctx, e, "pull")
		if err == nil {
			var r io.ReadCloser
			if r, err = stream(ctx, hc, e, d); err == nil {
				return r, nil
			}
		}
		failed = append(failed, c.explain(ctx, fmt.Sprintf("failed to pull layer %s of %s", d.Digest, n), n, e, err))
	}
	return nil, mostTelling(failed)
}

// HasBlob tells whether the repository of ref has a blob of that size; another
// size is an error.
func (c *Client) HasBlob(ctx context.Context, ref string, d ocispec.Descriptor) error {
	n, err := image.ParseName(ref)
	if err != nil {
		return err
	}
	at := c.origin(n)
	hc, err := c.client(ctx, at, "pull")
	if err == nil {
		err = headBlob(ctx, hc, at, d)
	}
	return c.explain(ctx, fmt.Sprintf("failed to find layer %s of %s", d.Digest, n), n, at, err)
}

func headBlob(ctx context.Context, hc *http.Client, e endpoint, d ocispec.Descriptor) error {
	req, err := request(ctx, http.MethodHead, e, "blobs/"+d.Digest.String(), nil)
	if err != nil {
		return err
	}
	resp, err := hc.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := transport.CheckError(resp, http.StatusOK); err != nil {
		return err
	}
	if resp.ContentLength >= 0 && resp.ContentLength != d.Size {
		return fmt.Errorf("the registry has %d bytes for %s, not %d", resp.ContentLength, d.Digest, d.Size)
	}
	return nil
}

// PutTagged puts an image into the repository of ref and makes its tag stand for
// it in one go: for entries of a cache, which nobody refers to by digest. Blobs
// are had as by Push.
func (c *Client) PutTagged(ctx context.Context, ref string, a image.Assembled, src image.Source, origins map[digest.Digest][]string) error {
	n, err := image.ParseName(ref)
	if err != nil {
		return err
	}
	p := &push{c: c, n: n, at: c.origin(n), src: src, origins: origins, aside: true}
	if p.hc, err = c.client(ctx, p.at, "push,pull"); err == nil {
		blobs := []ocispec.Descriptor{a.Config}
		for _, l := range a.Layers {
			blobs = append(blobs, l.Descriptor)
		}
		if err = p.blobs(ctx, blobs); err == nil {
			err = p.put(ctx, n.Tag, a.Manifest.MediaType, a.RawManifest)
		}
	}
	return c.explain(ctx, "failed to push "+n.String(), n, p.at, err)
}
