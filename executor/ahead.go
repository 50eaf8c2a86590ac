package executor

import (
	"context"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/registry"
	"kaniko-build/executor/internal/store"
)

// A large layer goes up to its repository while it is made. The core tells how much
// of its blob is written, and outside of its container as much is sent:
//
//	pack ─> compress ─> blob in the store ─grown…─> PATCH ─> PUT
//
// Only Push makes sure that the repository has it: it asks for every blob.

const (
	aheadFrom  = 32 << 20 // bytes of a blob from which on it is worth a connection of its own
	aheadEvery = 4 << 20  // bytes between one telling and the next
)

// grown tells how far the blob of a layer is.
type grown struct {
	Name string // of the store's temporary file
	Size int64  // written by now
	// Blob is set when it is whole; Dropped, when there will be none.
	Blob    *ocispec.Descriptor
	Dropped bool
}

// blobWriter writes a blob and tells how it grows, once it is large.
type blobWriter struct {
	*store.Writer
	tell func(grown) // nil: nobody wants to know
	told int64
}

func (w *blobWriter) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	if size := w.Size(); w.tell != nil && size >= aheadFrom && size-w.told >= aheadEvery {
		w.told = size
		w.tell(grown{Name: w.Name(), Size: size})
	}
	return n, err
}

// end tells what became of the blob, if it was told of.
func (w *blobWriter) end(d ocispec.Descriptor, err error) {
	switch {
	case w.told == 0:
	case err != nil:
		w.tell(grown{Name: w.Name(), Dropped: true})
	default:
		w.tell(grown{Name: w.Name(), Size: d.Size, Blob: &d})
	}
}

// grown is whom to tell of a blob of the image; nil is nobody.
func (c *core) grown() func(grown) {
	if !c.job.Ahead {
		return nil
	}
	return c.host.Grown
}

// aheads are the uploads of a node's layers that began before its push.
type aheads struct {
	growing map[string]*registry.Upload // of blobs that are being made, by their files
	all     []*registry.Upload
}

// growAhead sends what there is of a blob that the node's core is making. It does not
// wait for it; ctx is that of the build.
func (x *Executor) growAhead(ctx context.Context, n *Node, g grown) {
	n.mu.Lock()
	defer n.mu.Unlock()
	u := n.ahead.growing[g.Name]
	switch {
	case u == nil && (g.Blob != nil || g.Dropped):
	case u == nil:
		f, err := x.store.Growing(g.Name)
		if err != nil { // it is whole by now, and in its place
			return
		}
		if n.ahead.growing == nil {
			n.ahead.growing = map[string]*registry.Upload{}
			x.onClose(func() error { n.giveUp(); return nil })
		}
		u = x.registry.Upload(ctx, n.Names[0], f)
		n.ahead.growing[g.Name] = u
		n.ahead.all = append(n.ahead.all, u)
		u.Grow(g.Size)
	case g.Blob != nil:
		u.End(*g.Blob)
		delete(n.ahead.growing, g.Name)
	case g.Dropped:
		u.Cancel()
		delete(n.ahead.growing, g.Name)
	default:
		u.Grow(g.Size)
	}
}

// stopGrowing ends the uploads of blobs that nobody will finish: the core has ended.
func (n *Node) stopGrowing() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, u := range n.ahead.growing {
		u.Cancel()
	}
	clear(n.ahead.growing)
}

// giveUp ends the uploads that nobody has waited for.
func (n *Node) giveUp() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, u := range n.ahead.all {
		u.Cancel()
	}
	n.ahead.all = nil
}

// arrived waits for the uploads of a node that is built. Those that failed are made
// good by its push.
func (n *Node) arrived(ctx context.Context) {
	n.mu.Lock()
	all := n.ahead.all
	n.ahead.all = nil
	n.mu.Unlock()
	for _, u := range all {
		_ = u.Wait(ctx)
	}
}
