package executor

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/layer"
	"kaniko-build/executor/internal/rootfs"
	"kaniko-build/executor/internal/store"
)

// encodeParams says how the store finds a layer that was compressed as c asks,
// with later times set to epoch if there is one.
func encodeParams(c Compression, epoch *int64) (store.Params, error) {
	c, err := c.Normal()
	if err != nil {
		return store.Params{}, err
	}
	return store.Params{MediaType: mediaType(c), Compression: string(c.Type), Level: c.Level, Epoch: epoch}, nil
}

func mediaType(c Compression) string {
	switch c.Type {
	case layer.Zstd:
		return ocispec.MediaTypeImageLayerZstd
	case layer.None:
		return ocispec.MediaTypeImageLayer
	default:
		return ocispec.MediaTypeImageLayerGzip
	}
}

// encode makes sure that the blob of a step's layer can be had, and notes it
// for the result.
func (c *core) encode(ctx context.Context, st *jobStage, s *jobStep, top []rootfs.Layer, m made) error {
	v, err := c.variant(ctx, top, m.DiffID, c.job.Epoch, c.grown(), func(p store.Params) *pieces { return c.piecesOf(st, s, p) })
	if err != nil {
		var spoiled *spoiledError
		if errors.As(err, &spoiled) || ctx.Err() != nil {
			return err
		}
		return fmt.Errorf("compress the layer of %s: %w", s.Pos, err)
	}
	if m.keep != nil {
		c.later.Go(func() { c.keep(c.spare, top, m) })
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.blobs = append(c.blobs, doneLayer{Key: s.Key.String(), DiffID: m.DiffID, Blob: v.Descriptor, Tar: v.Tar, Created: m.Created})
	return nil
}

// variant is a layer in the encoding of the job, with or without times set: in
// the store, with a cache outside, or made now, of what was made before (may be nil).
func (c *core) variant(ctx context.Context, top []rootfs.Layer, id digest.Digest, epoch *int64, tell func(grown), before func(store.Params) *pieces) (store.Variant, error) {
	p, err := encodeParams(c.job.Encode, epoch)
	if err != nil {
		return store.Variant{}, err
	}
	if v, ok := c.store.GetVariant(id, p); ok {
		return v, nil
	}
	if d, ok := c.outsideBlob(id, p); ok {
		return store.Variant{DiffID: id, Params: p, Descriptor: d}, nil
	}
	unlock, err := c.store.Lock(ctx, "encode-"+id.Encoded(), nil)
	if err != nil {
		return store.Variant{}, err
	}
	defer unlock()
	if v, ok := c.store.GetVariant(id, p); ok {
		return v, nil
	}
	if c.near {
		return store.Variant{}, errBox
	}
	var known *pieces
	if before != nil {
		known = before(p)
		defer known.close()
	}
	return c.makeVariant(ctx, top, id, p, tell, known)
}

// keep tells a cache outside of a layer, whose blob is made for that if it has
// to be. That it fails is no failure of the build.
func (c *core) keep(ctx context.Context, top []rootfs.Layer, m made) {
	v, err := c.variant(ctx, top, m.DiffID, nil, nil, nil)
	if err != nil {
		if ctx.Err() == nil {
			c.host.Event(Event{Node: c.job.Node, Kind: Warning, Time: time.Now(), Text: "a layer is not kept in the cache: " + err.Error()})
		}
		return
	}
	k := *m.keep
	k.Entry, k.Blob, k.Params = m.Entry, v.Descriptor, v.Params
	k.Entry.Lines = nil
	c.host.Keep(k)
}

// makeVariant compresses a layer, from its directory or from another blob of it.
func (c *core) makeVariant(ctx context.Context, top []rootfs.Layer, id digest.Digest, p store.Params, tell func(grown), known *pieces) (store.Variant, error) {
	var v store.Variant
	err := c.unpacking(ctx, [][]rootfs.Layer{top}, func() (err error) {
		v, err = encodeVariant(ctx, c.store, id, p, func(w io.Writer) error { return c.tar(ctx, top, id, w) }, tell, known)
		return err
	})
	if _, plain := c.plainBlob(id); err != nil && !plain {
		err = c.blame(ctx, &rootfs.LayerError{DiffID: id, Err: err})
	}
	return v, err
}

// encodeVariant makes the blob of layer id that p asks for, in one pass:
//
//	write ─> digest, which must be id ─┬──────────────────> digest, compressor ─> blob
//	                                   └─ times, if asked ─┘
func encodeVariant(ctx context.Context, st *store.Store, id digest.Digest, p store.Params, write func(w io.Writer) error, tell func(grown), known *pieces) (store.Variant, error) {
	v := store.Variant{DiffID: id, Params: p}
	if p.Epoch != nil {
		plain := write
		write = func(w io.Writer) error { return retime(ctx, w, id, time.Unix(*p.Epoch, 0), plain) }
	}
	d, tar, err := encodeTar(st, p, write, tell, known)
	if err != nil {
		return store.Variant{}, err
	}
	v.Descriptor = d
	if p.Epoch != nil {
		v.Tar = tar
	} else if tar != id {
		return store.Variant{}, changed(id, tar)
	}
	return v, st.PutVariant(v)
}

func changed(id, now digest.Digest) error {
	return fmt.Errorf("internal error: the layer was %s and is now %s", id, now)
}

// encodeTar compresses what write writes into a blob of the store, and gives
// the digest of the tar too. tell hears how it grows, if somebody wants to know; what
// is in known need not be compressed.
func encodeTar(st *store.Store, p store.Params, write func(w io.Writer) error, tell func(grown), known *pieces) (blob ocispec.Descriptor, tar digest.Digest, err error) {
	file, err := st.Writer()
	if err != nil {
		return blob, "", err
	}
	w := &blobWriter{Writer: file, tell: tell}
	defer func() { w.end(blob, err); _ = w.Close() }()
	c, err := layer.CompressWith(w, Compression{Type: layer.Algorithm(p.Compression), Level: p.Level}, known.asPieces())
	if err != nil {
		return blob, "", err
	}
	h := sha256.New()
	var into io.Writer = c
	if p.Compression != string(layer.None) { // else the blob is the tar
		into = io.MultiWriter(h, c)
	}
	if err := errors.Join(write(into), c.Close()); err != nil {
		return blob, "", err
	}
	size := w.Size()
	d, err := w.Commit("")
	if err != nil {
		return blob, "", err
	}
	if tar = d; p.Compression != string(layer.None) {
		tar = digest.NewDigest(digest.SHA256, h)
	}
	known.keep(d)
	return ocispec.Descriptor{MediaType: p.MediaType, Digest: d, Size: size}, tar, nil
}

// tar writes a layer uncompressed.
func (c *core) tar(ctx context.Context, top []rootfs.Layer, id digest.Digest, w io.Writer) error {
	root, ok := c.layers.Has(above(top, id))
	if _, plain := c.plainBlob(id); !ok || plain {
		r, err := c.openLayer(ctx, rootfs.Layer{DiffID: id})
		if err != nil {
			return err
		}
		defer r.Close()
		t, _, err := layer.Decompress(r)
		if err != nil {
			return err
		}
		defer t.Close()
		_, err = io.Copy(w, t)
		return err
	}
	if root == c.layers.Root(id.Encoded()) {
		top = nil // it is kept by its diffID: all that is in it is in the tar
	}
	base, err := c.look(ctx, top)
	if err != nil {
		return err
	}
	defer base.Close()
	owners, err := rootfs.ReadOwners(root)
	if err != nil {
		return err
	}
	_, err = layer.Pack(ctx, w, root, base.view, layer.PackOptions{Owners: owners})
	return err
}

// openLayer opens the blob of a layer: one that was made here, or one of a base
// by way of the host.
func (c *core) openLayer(ctx context.Context, l rootfs.Layer) (io.ReadCloser, error) {
	if d, ok := c.plainBlob(l.DiffID); ok {
		return c.store.Open(d)
	}
	c.mu.Lock()
	b, ok := c.bases[l.DiffID]
	c.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("internal error: layer %s is nowhere", l.DiffID)
	}
	r, err := c.host.Blob(ctx, b)
	if err != nil || !b.Cached {
		return r, err
	}
	return newCapped(r, b.Size)
}

// capped reads the tar of a blob and fails when it is larger than said: a small
// blob may hold a tar that fills the disk.
type capped struct {
	io.ReadCloser
	blob io.Closer
	left int64
}

func newCapped(blob io.ReadCloser, size int64) (io.ReadCloser, error) {
	tar, _, err := layer.Decompress(blob)
	if err != nil {
		return nil, errors.Join(err, blob.Close())
	}
	return &capped{tar, blob, size}, nil
}

func (r *capped) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if r.left -= int64(n); r.left < 0 {
		return 0, errors.New("its tar is larger than its entry says")
	}
	return n, err
}

func (r *capped) Close() error { return errors.Join(r.ReadCloser.Close(), r.blob.Close()) }

// plainBlob finds a blob of a layer as it is, without times set.
func (c *core) plainBlob(id digest.Digest) (digest.Digest, bool) {
	for _, v := range c.store.Variants(id) {
		if v.Tar == "" {
			return v.Descriptor.Digest, true
		}
	}
	return "", false
}

// baseLayer remembers where a layer can be had and gives it as part of a stack.
// Of one whose times were set, and that nobody has any more as it was, it is the
// layer with its times set: the same but for times.
func (c *core) baseLayer(l baseLayer, top []rootfs.Layer) rootfs.Layer {
	if l.Tar != "" {
		_, unpacked := c.layers.Has(above(top, l.DiffID))
		if _, plain := c.plainBlob(l.DiffID); !unpacked && !plain {
			l.DiffID = l.Tar
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bases[l.DiffID] = l
	return rootfs.Layer{DiffID: l.DiffID}
}

// exported tells whether the layers of a stage are part of the image.
func (c *core) exported(st *jobStage) bool {
	for k := len(c.job.Stages) - 1; k >= 0; k = c.job.Stages[k].Base.Stage {
		if &c.job.Stages[k] == st {
			return true
		}
	}
	return false
}

// doneLayer is what the core reports for each step of the exported stage.
type doneLayer struct {
	Key     string
	DiffID  digest.Digest
	Blob    ocispec.Descriptor
	Tar     digest.Digest // diffID of what Blob holds, if its times were set
	Created time.Time
}
