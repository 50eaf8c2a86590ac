package executor

import (
	"context"
	"io"
	"time"

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
	d, id, err := encodeTar(x.store, x.opts.Compression, p, func(w io.Writer) error { return layer.Retime(ctx, w, tar, epoch) })
	if err != nil {
		return store.Variant{}, err
	}
	v := store.Variant{DiffID: l.DiffID, Params: p, Tar: id, Descriptor: d}
	return v, x.store.PutVariant(v)
}
