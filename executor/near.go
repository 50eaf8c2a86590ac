package executor

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"kaniko-build/executor/internal/copier"
	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/executor/internal/index"
	"kaniko-build/executor/internal/inplace"
	"kaniko-build/executor/internal/layer"
	"kaniko-build/executor/internal/rootfs"
	"kaniko-build/executor/internal/store"
	"kaniko-build/executor/internal/tree"
)

// Where nothing is missing of a node but copies of its contexts, a core makes their
// layers without a container, a root or files:
//
//	context ─┐
//	         ├─ draft ─pack─> tar ─compress─> blob of the store
//	indexes ─┘
//
// It sees what is below through indexes alone, runs nothing and writes nothing but
// what the store has for a layer. Whatever it cannot do so, it leaves to a core in a
// container, which finds what it has done.

// errBox says that a container is needed.
var errBox = errors.New("internal error: a container is needed")

// runNear does the job without a container; errBox says that it takes one.
func (s *server) runNear(ctx context.Context, iso Isolation) (coreResult, error) {
	if iso.Afar || iso.takesRoot() || !s.isNear() {
		return coreResult{}, errBox
	}
	j := s.job
	c := &core{
		job: j, host: nearHost{s}, store: s.x.store, near: true, memory: &memoryWatch{}, maker: makerFor(j),
		bases: map[digest.Digest]baseLayer{}, outside: map[digest.Digest]outsideLayer{},
	}
	c.layers = &rootfs.Layers{Dir: filepath.Dir(c.store.LayerDir(j.IDs.String(), "x")), Make: c.maker, Use: c.store.Use, Indexes: &indexes{store: c.store}, Indexed: true}
	started := time.Now()
	r, err := c.do(ctx)
	var step *StepError
	switch {
	case errors.Is(err, errBox):
		return r, errBox
	case ctx.Err() != nil:
		return r, context.Cause(ctx)
	case errors.As(err, &step):
		step.Err = textError(s.mask.hide(step.Err.Error())) // as when it comes out of a container
		return coreResult{}, step
	case err != nil:
		return r, err
	}
	_ = s.x.pace(s.node, time.Since(started), 0, &s.pace) // a poorer guess next time
	return r, nil
}

// isNear tells whether all that is missing of the image, as far as keys tell, can be
// done without a container.
func (s *server) isNear() bool {
	j := &s.job
	if len(j.Stages) == 0 || j.Epoch != nil || len(j.Ignore) > 0 || j.Goes {
		return false
	}
	full := s.x.full()
	for i := len(j.Stages) - 1; i >= 0; i = j.Stages[i].Base.Stage {
		for k := range j.Stages[i].Steps {
			step := &j.Stages[i].Steps[k]
			if len(step.Lines) > 0 && !drawable(&step.Step) && !s.x.isKnown(step, full) {
				return false
			}
		}
	}
	return true
}

// drawable tells whether a step may be done without files on disk.
func drawable(s *dockerfile.Step) bool {
	switch {
	case s.Workdir != nil:
		return true
	case s.Copy == nil || len(s.Copy.Remote) > 0:
		return false
	case len(s.Copy.Sources) == 0:
		return true
	}
	from := s.Copy.From.Kind
	if from == dockerfile.FromStage || from == dockerfile.FromImage {
		return false
	}
	return !s.Copy.Add || s.Copy.Unpack != nil && !*s.Copy.Unpack // what might be an archive is to be unpacked
}

// draw does a step over base and keeps what it changed as a layer of which there is
// but the blob that the image has.
func (c *core) draw(ctx context.Context, st *jobStage, s *jobStep, base *stack) (store.Entry, error) {
	up := &upper{draft: copier.NewDraft(base.view)}
	var err error
	switch {
	case s.Copy != nil && drawable(&s.Step):
		err = c.copy(ctx, st, s, nil, base, up)
	case s.Workdir != nil:
		err = c.workdir(ctx, s.Workdir, base, up)
	default:
		err = errBox
	}
	if errors.Is(err, copier.ErrNotDrawn) {
		err = errBox
	}
	if err != nil {
		return store.Entry{}, err
	}
	p, err := encodeParams(c.job.Encode, nil)
	if err != nil {
		return store.Entry{}, err
	}
	names := index.NewBuilder(ctx)
	var stats layer.Stats
	known := c.piecesOf(st, s, p)
	defer known.close()
	blob, id, err := encodeTar(c.store, p, func(w io.Writer) (err error) {
		stats, err = layer.PackTree(ctx, w, up.draft, base.view, layer.PackOptions{Each: names.Add, Vague: errBox})
		return err
	}, c.grown(), known)
	if err != nil {
		return store.Entry{}, err
	}
	if x, err := names.Index(); err == nil { // else who needs one makes it
		if err := c.layers.Indexes.(*indexes).putExact(id, x); err != nil {
			return store.Entry{}, err
		}
	}
	if err := c.store.PutVariant(store.Variant{DiffID: id, Params: p, Descriptor: blob}); err != nil {
		return store.Entry{}, err
	}
	return store.Entry{DiffID: id, Layer: id.Encoded(), Size: stats.Size, Created: time.Now().UTC(), Full: c.full()}, nil
}

// lookNear shows layers by their indexes.
func (c *core) lookNear(ctx context.Context, layers []rootfs.Layer) (*stack, error) {
	view, err := c.layers.View(ctx, layers, nil)
	if errors.Is(err, rootfs.ErrUnpack) {
		return nil, errBox
	}
	if err != nil {
		return nil, err
	}
	return &stack{view: view}, nil
}

// nearHost is the host of a core in this process.
type nearHost struct{ s *server }

func (h nearHost) Tree(name string) tree.Tree { return nearTree{h.s.node.sources, name} }

func (h nearHost) Moved(_ context.Context, list []inplace.Moved) error {
	h.s.node.sources.noteMoved(list)
	return nil
}

func (h nearHost) Blob(ctx context.Context, l baseLayer) (io.ReadCloser, error) {
	return nil, errBox
}

func (h nearHost) Token(ctx context.Context) (func(), error) {
	return h.s.held.release, h.s.held.take(ctx)
}

func (h nearHost) Secret(context.Context, string) ([]byte, bool, error) { return nil, false, errBox }

func (h nearHost) Agent(context.Context, string) (*os.File, error) { return nil, errBox }

func (h nearHost) Cached(ctx context.Context, k store.Key) (*outsideLayer, error) {
	l, _ := h.s.x.findCached(ctx, h.s.node, k)
	return l, context.Cause(ctx)
}

func (h nearHost) Keep(l keptLayer) { _ = h.s.x.keepCached(h.s.node, l) } // as for one in a container, it is no failure of the build

func (h nearHost) Grown(g grown) { h.s.x.growAhead(h.s.build, h.s.node, g) }

func (h nearHost) Event(e Event) { h.s.event(e) }

// nearTree is a tree of the node's sources.
type nearTree struct {
	s    *sources
	name string
}

func (t nearTree) Lstat(ctx context.Context, name string) (tree.Entry, error) {
	real, err := t.s.tree(ctx, t.name)
	if err != nil {
		return tree.Entry{}, err
	}
	return real.Lstat(ctx, name)
}

func (t nearTree) ReadDir(ctx context.Context, name string) ([]tree.Entry, error) {
	real, err := t.s.tree(ctx, t.name)
	if err != nil {
		return nil, err
	}
	list, err := real.ReadDir(ctx, name)
	return slices.Clone(list), err // it may be shared
}

func (t nearTree) Xattrs(ctx context.Context, name string) (map[string][]byte, error) {
	real, err := t.s.tree(ctx, t.name)
	if err != nil {
		return nil, err
	}
	return real.Xattrs(ctx, name)
}

// Open is that of tree.Tree. That a file is not what its key was made of is an error of
// its Close.
func (t nearTree) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	real, err := t.s.tree(ctx, t.name)
	if err != nil {
		return nil, err
	}
	r, err := real.Open(ctx, name)
	if f, ok := r.(*os.File); ok && err == nil {
		return &checkedFile{File: f, ctx: ctx, t: t, name: name}, nil
	}
	return r, err
}

// checkedFile is a file of a context.
type checkedFile struct {
	*os.File
	ctx  context.Context // of who opened it
	t    nearTree
	name string
}

func (f *checkedFile) Close() error {
	return errors.Join(f.t.s.unchanged(f.ctx, f.t.name, f.name, f.File), f.File.Close())
}

// ReadFile is that of tree.FileReader.
func (t nearTree) ReadFile(ctx context.Context, name string, b []byte) (int, error) {
	d, ok := t.s.shownAs(ctx, t.name)
	if !ok {
		real, err := t.s.tree(ctx, t.name)
		if err != nil {
			return 0, err
		}
		return tree.ReadFile(ctx, real, name, b)
	}
	n, st, err := d.files.ReadFileStat(ctx, name, b)
	if err != nil && !errors.Is(err, tree.ErrLarger) {
		return n, err
	}
	if changed := t.s.unchangedStat(d, name, &st); changed != nil {
		return n, changed
	}
	return n, err
}
