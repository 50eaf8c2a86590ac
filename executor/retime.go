package executor

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"kaniko-build/executor/internal/layer"
	"kaniko-build/executor/internal/store"
)

// retime writes layer id, which plain writes as it is, with every time after
// epoch set to it, while plain writes. It is an error if plain writes another
// layer.
func retime(ctx context.Context, w io.Writer, id digest.Digest, epoch time.Time, plain func(w io.Writer) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, pipe := io.Pipe()
	h := sha256.New()
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := plain(io.MultiWriter(h, pipe))
		if now := digest.NewDigest(digest.SHA256, h); err == nil && now != id {
			err = changed(id, now)
		}
		pipe.CloseWithError(err) // nil is the end
	}()
	err := layer.Retime(ctx, w, r, epoch)
	r.CloseWithError(errors.Join(err, context.Canceled))
	<-done
	return err
}

// retimed is a layer of n that was made with its own times, with every time
// after SOURCE_DATE_EPOCH set to it: for an output that asks for what the image
// in the store is not.
func (x *Executor) retimed(ctx context.Context, n *Node, l builtLayer) (store.Variant, error) {
	p, err := encodeParams(n.Format.Compression, n.program.Epoch)
	if err != nil {
		return store.Variant{}, err
	}
	if v, ok := x.store.GetVariant(l.ID, p); ok {
		return v, nil
	}
	return encodeVariant(ctx, x.store, l.ID, p, func(w io.Writer) error {
		blob, err := x.content(n, x.openBlob).Open(ctx, l.Descriptor)
		if err != nil {
			return err
		}
		defer blob.Close()
		tar, _, err := layer.Decompress(blob)
		if err != nil {
			return err
		}
		defer tar.Close()
		_, err = io.Copy(w, tar)
		return err
	}, nil, nil)
}
