package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"kaniko-build/executor/internal/index"
	"kaniko-build/executor/internal/layer"
)

// Indexes keeps the indexes of layers. Its methods are called from many
// goroutines.
type Indexes interface {
	// Index finds the index of a layer. Any error means that there is none to use.
	Index(ctx context.Context, id digest.Digest) (*index.Index, error)
	// PutIndex keeps one.
	PutIndex(id digest.Digest, x *index.Index) error
}

// maxViewed is how many names the indexes of one view may have: about 150 MB.
const maxViewed = 1_000_000

// View shows what a chain's layers have without unpacking any: of those that lie
// unpacked the directory, of others the index. Where there is none it is made in
// one pass over the layer's tar, which open gives as for Ensure. What only
// unpacked layers can show, now or in a later call of the view, is an error that
// matches ErrUnpack. So is, with open nil, a layer without an index.
func (l *Layers) View(ctx context.Context, chain []Layer, open func(ctx context.Context, l Layer) (io.ReadCloser, error)) (*View, error) {
	ids := ChainIDs(chain)
	list := make([]Lower, len(chain))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, l.Jobs, runtime.GOMAXPROCS(0)))
	for i, one := range chain {
		if dir, ok := l.find(one, ids[i]); ok && !l.Indexed {
			list[i].Dir = dir
			continue
		}
		g.Go(func() error {
			x, err := l.index(gctx, one, open)
			if err != nil {
				return fmt.Errorf("layer %s: %w", one.DiffID, err)
			}
			list[i].Index = x
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	names := 0
	for _, one := range list {
		if one.Index != nil {
			names += one.Index.Len()
		}
	}
	if names > maxViewed {
		return nil, fmt.Errorf("the layers have %d names: %w", names, ErrUnpack)
	}
	slices.Reverse(list)
	return OpenLowers(list...)
}

// index finds the index of a layer, or makes it.
func (l *Layers) index(ctx context.Context, one Layer, open func(ctx context.Context, l Layer) (io.ReadCloser, error)) (*index.Index, error) {
	if err := one.DiffID.Validate(); err != nil {
		return nil, err
	}
	if l.Indexes == nil {
		return nil, ErrUnpack
	}
	if x, err := l.Indexes.Index(ctx, one.DiffID); err == nil {
		return x, nil
	}
	if open == nil {
		return nil, ErrUnpack
	}
	unlock, err := l.lock(ctx, one.DiffID, "index-"+one.DiffID.Encoded())
	if err != nil {
		return nil, err
	}
	defer unlock()
	if x, err := l.Indexes.Index(ctx, one.DiffID); err == nil { // the holder we waited for made it
		return x, nil
	}
	blob, err := open(ctx, one)
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	r, _, err := layer.Decompress(blob)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	sum := one.DiffID.Algorithm().Digester()
	in := &source{r: io.TeeReader(r, sum.Hash())}
	x, err := index.Scan(ctx, in)
	switch {
	case in.err != nil:
		return nil, in.err
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil: // unpacking takes more, or says better what is wrong
		return nil, fmt.Errorf("%w: %w", err, ErrUnpack)
	}
	if got := sum.Digest(); got != one.DiffID {
		return nil, fmt.Errorf("the tar in the blob has digest %s", got)
	}
	return x, l.Indexes.PutIndex(one.DiffID, x)
}

// source remembers an error of reading.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}
