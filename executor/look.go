package executor

import (
	"context"
	"errors"
	"sync"

	"github.com/opencontainers/go-digest"

	"kaniko-build/executor/internal/index"
	"kaniko-build/executor/internal/rootfs"
	"kaniko-build/executor/internal/store"
)

// look shows layers to a step that only writes an upper by hand: what is not
// unpacked stays so, and nothing of it is downloaded when its index is known.
func (c *core) look(ctx context.Context, layers []rootfs.Layer) (*stack, error) {
	if c.near {
		return c.lookNear(ctx, layers)
	}
	view, err := c.layers.View(ctx, layers, c.openLayer)
	if errors.Is(err, rootfs.ErrUnpack) {
		return c.open(ctx, layers)
	}
	if err != nil {
		return nil, err
	}
	return &stack{view: view}, nil
}

// lookAtSource is look for layers that files are read from. An index helps there
// only if it is known: else whoever needs it is likely to need the files too.
func (c *core) lookAtSource(ctx context.Context, layers []rootfs.Layer) (*stack, error) {
	if c.near {
		return c.lookNear(ctx, layers)
	}
	view, err := c.layers.View(ctx, layers, nil)
	if errors.Is(err, rootfs.ErrUnpack) {
		return c.open(ctx, layers)
	}
	if err != nil {
		return nil, err
	}
	return &stack{view: view}, nil
}

// unpacking calls f, and again if it needs the content of a file that only an
// index knows: with one stack more unpacked each time, in their order, so that
// those that are not needed stay as they are.
func (c *core) unpacking(ctx context.Context, stacks [][]rootfs.Layer, f func() error) error {
	err := f()
	for _, layers := range stacks {
		if !errors.Is(err, rootfs.ErrUnpack) {
			break
		}
		s, openErr := c.open(ctx, layers)
		if openErr != nil {
			return openErr
		}
		if err := s.Close(); err != nil {
			return err
		}
		err = f()
	}
	return err
}

// indexes keeps indexes in the store, and those in memory that were read.
type indexes struct {
	store *store.Store

	mu    sync.Mutex
	read  map[digest.Digest]*index.Index
	names int // in all of them
}

// maxRead is how many names the indexes in memory may have: about 150 MB.
const maxRead = 1_000_000

func (i *indexes) Index(_ context.Context, id digest.Digest) (*index.Index, error) {
	i.mu.Lock()
	x := i.read[id]
	i.mu.Unlock()
	if x != nil {
		return x, nil
	}
	b, err := i.store.GetIndex(id, index.MaxSize)
	if err != nil {
		return nil, err
	}
	if x, err = index.Decode(b, id); err != nil {
		return nil, errors.Join(err, i.store.RemoveIndex(id)) // it is made anew
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.names += x.Len(); i.names > maxRead || i.read == nil {
		i.read, i.names = map[digest.Digest]*index.Index{}, x.Len()
	}
	i.read[id] = x
	return x, nil
}

func (i *indexes) PutIndex(id digest.Digest, x *index.Index) error {
	if i.store.HasIndex(id) {
		return nil
	}
	return i.store.PutIndex(id, x.Encode(id))
}

// putExact is PutIndex of an index that knows more of times than the layer's tar does.
func (i *indexes) putExact(id digest.Digest, x *index.Index) error {
	i.mu.Lock()
	delete(i.read, id) // names counts them still, which only drops others sooner
	i.mu.Unlock()
	return i.store.PutIndex(id, x.Encode(id))
}
