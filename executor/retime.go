package executor

import (
	"context"
	"crypto/sha256"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/image"
	"kaniko-build/executor/internal/layer"
	"kaniko-build/executor/internal/store"
)

// retimed is a layer of ours with every time after epoch set to it.
func (x *Executor) retimed(ctx context.Context, l image.SpecLayer, epoch time.Time) (_ store.Variant, err error) {
	p, err := encodeParams(x.opts.Compression)
	if err != nil {
		return store.Variant{}, err
	}
	unix := epoch.Unix()
	p.Epoch = &unix
	if v, ok := x.store.GetVariant(l.DiffID, p); ok {
		return v, nil
	}
	blob, err := x.store.Open(l.Descriptor.Digest)
	if err != nil {
		return store.Variant{}, err
	}
	defer blob.Close()
	tar, _, err := layer.Decompress(blob)
	if err != nil {
		return store.Variant{}, err
	}
	defer tar.Close()
	w, err := x.store.Writer()
	if err != nil {
		return store.Variant{}, err
	}
	defer w.Close()
	z, err := layer.Compress(w, x.opts.Compression)
	if err != nil {
		return store.Variant{}, err
	}
	h := sha256.New()
	if err := layer.Retime(ctx, io.MultiWriter(h, z), tar, epoch); err != nil {
		z.Close()
		return store.Variant{}, err
	}
	if err := z.Close(); err != nil {
		return store.Variant{}, err
	}
	size := w.Size()
	d, err := w.Commit("")
	if err != nil {
		return store.Variant{}, err
	}
	v := store.Variant{
		DiffID: l.DiffID, Params: p, Tar: digest.NewDigest(digest.SHA256, h),
		Descriptor: ocispec.Descriptor{MediaType: p.MediaType, Digest: d, Size: size},
	}
	return v, x.store.PutVariant(v)
}
