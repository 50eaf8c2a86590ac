package executor

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/rootfs"
	"kaniko-build/executor/internal/store"
)

// spoiledError says that a layer of a cache outside cannot be had, or is not
// what its entry says. The node is built once more, without that entry.
type spoiledError struct {
	Blob digest.Digest
	Err  error
}

func (e *spoiledError) Error() string { return fmt.Sprintf("cached layer %s: %v", e.Blob, e.Err) }

func (e *spoiledError) Unwrap() error { return e.Err }

// blame finds out whether a layer could not be had because a cache outside has
// something else, or nothing.
func (c *core) blame(ctx context.Context, err error) error {
	var bad *rootfs.LayerError
	if ctx.Err() != nil || !errors.As(err, &bad) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if l, ok := c.bases[bad.DiffID]; ok && l.Cached {
		return &spoiledError{Blob: l.Blob.Digest, Err: bad.Err}
	}
	return err
}

// origin is the cache outside that a layer comes from, "" if none.
func (c *core) origin(id digest.Digest) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.outside[id].Layer.Origin
}

// outsideBlob is the blob that a cache outside has of a layer, if it is encoded
// as p says.
func (c *core) outsideBlob(id digest.Digest, p store.Params) (ocispec.Descriptor, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o, ok := c.outside[id]
	return o.Layer.Blob, ok && o.Params == p
}

// arrived records the blobs of layers from a cache outside that are unpacked now,
// and so have been found to be what they should.
func (c *core) arrived(layers []rootfs.Layer) error {
	for _, l := range layers {
		c.mu.Lock()
		o, ok := c.outside[l.DiffID]
		c.mu.Unlock()
		if _, plain := c.plainBlob(l.DiffID); !ok || plain {
			continue
		}
		if size, ok := c.store.Has(o.Layer.Blob.Digest); !ok || size != o.Layer.Blob.Size {
			continue
		}
		if err := c.store.PutVariant(store.Variant{DiffID: l.DiffID, Params: o.Params, Descriptor: o.Layer.Blob}); err != nil {
			return err
		}
	}
	return nil
}
