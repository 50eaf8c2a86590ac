package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"kaniko-build/executor/internal/copier"
	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/executor/internal/index"
	"kaniko-build/executor/internal/inplace"
	"kaniko-build/executor/internal/layer"
	"kaniko-build/executor/internal/rootfs"
	"kaniko-build/executor/internal/sandbox"
	"kaniko-build/executor/internal/store"
	"kaniko-build/executor/internal/tree"
	"kaniko-build/schema/diag"
)

// Where rung inplace builds, and the folder for what it puts aside there.
const (
	Root     = "/"
	RootHide = "/.kaniko-build"
)

// Of the executor images: what they have of their own, never the image's that is
// built; and their working directory, without which nothing starts in the container.
var (
	imagePlaces = []string{"/kaniko", "/busybox"}
	imageDirs   = []string{"/workspace"}
)

// keep are the paths that a node in the container's own root leaves alone: what
// is needed outside of it while it runs.
func (x *Executor) keep(n *Node) []string {
	out := append([]string{x.store.Dir(), x.opts.Warmed.Dir, n.Context}, imagePlaces...)
	if exe, err := os.Executable(); err == nil {
		out = append(out, exe)
	}
	for _, c := range n.Contexts {
		out = append(out, strings.TrimPrefix(c, layoutScheme))
	}
	for _, s := range n.SSH {
		out = append(out, s.Paths...)
	}
	return slices.DeleteFunc(out, func(p string) bool { return !filepath.IsAbs(p) })
}

// lent are those of keep that a node reads through host.Tree alone.
func (n *Node) lent() []string {
	out := []string{n.Context}
	for _, c := range n.Contexts {
		if filepath.IsAbs(c) {
			out = append(out, c)
		}
	}
	return out
}

// stay are the directories that are there all the time.
func stay() []string {
	if dir, err := os.Getwd(); err == nil {
		return append([]string{dir}, imageDirs...)
	}
	return imageDirs
}

// ends tells whether this is the first process of a container, with which it ends.
func ends() bool { return os.Getpid() == 1 }

// openRoot makes the root that RUNs of this node share: the container's own, or a
// folder where only an overlay is lacking.
func (c *core) openRoot() (closeRoot func() error, err error) {
	j := c.job
	o := inplace.Options{Dir: Root, Hide: RootHide, Keep: j.Keep, Ignore: j.Ignore, Stay: j.Stay, Lent: j.Lent, Ends: j.Ends, Make: c.maker, Mode: j.Snapshots}
	remove := func() error { return nil }
	if j.Walk {
		temp, err := c.store.TempDir("root")
		if err != nil {
			return nil, err
		}
		if !j.Passing {
			remove = temp.Remove
		}
		o = inplace.Options{Dir: filepath.Join(temp.Path, "root"), Hide: filepath.Join(temp.Path, "hide"), Ends: j.Passing, Make: c.maker, Mode: j.Snapshots}
		for _, p := range j.Ignore {
			o.Ignore = append(o.Ignore, filepath.Join(o.Dir, p))
		}
		if err := os.Mkdir(o.Dir, 0o755); err != nil {
			return nil, errors.Join(fmt.Errorf("make a root: %w", err), remove())
		}
	}
	o.Walked = func(files int, took time.Duration) {
		c.host.Event(Event{Node: j.Node, Kind: Walked, Time: time.Now(), Total: int64(files), Elapsed: took})
	}
	if c.root, err = inplace.Open(o); err != nil {
		return nil, errors.Join(err, remove())
	}
	return func() error { return errors.Join(c.root.Close(), remove()) }, nil
}

// bring makes the root hold the stack top.
func (c *core) bring(ctx context.Context, top []rootfs.Layer) error {
	stack := ids(top)
	return c.root.Bring(ctx, stack, func(ctx context.Context, id digest.Digest) (io.ReadCloser, error) {
		i := slices.Index(stack, id)
		if c.elsewhere(id) {
			return c.openLayer(ctx, top[i])
		}
		r, w := io.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.CloseWithError(c.tar(ctx, top[:i], id, w))
		}()
		return &pipe{r, done}, nil
	})
}

// elsewhere tells whether a layer's blob can be had; else it was made here and
// lies unpacked.
func (c *core) elsewhere(id digest.Digest) bool {
	if _, plain := c.plainBlob(id); plain {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, base := c.bases[id]
	return base
}

// pipe is the reading end of a stream that a goroutine writes.
type pipe struct {
	*io.PipeReader
	done chan struct{}
}

func (p *pipe) Close() error {
	err := p.PipeReader.Close()
	<-p.done
	return err
}

// runHere executes a RUN in the root, which holds the stack below it, and keeps
// what it changed as a layer.
func (c *core) runHere(ctx context.Context, st *jobStage, s *jobStep, sources map[string][]rootfs.Layer) (_ store.Entry, err error) {
	r := s.Run
	user, err := copier.LookupUser(ctx, c.root.Tree(), r.User)
	if err != nil {
		return store.Entry{}, err
	}
	if err := c.has(user); err != nil {
		return store.Entry{}, err
	}
	out := &lines{emit: func(data string) { c.event(st, s, Event{Kind: Log, Data: data}) }}
	spec, err := runSpec(r, user, out)
	if err != nil {
		return store.Entry{}, err
	}
	spec.Root, spec.Devices = c.root.Dir(), c.root.Devices()
	scratch, err := c.root.Scratch()
	if err != nil {
		return store.Entry{}, err
	}
	if err := os.Mkdir(scratch, 0o755); err != nil {
		return store.Entry{}, fmt.Errorf("make a folder for mounts: %w", err)
	}
	m := mounter{core: c, step: s, sources: sources, scratch: scratch}
	if !c.job.Walk {
		m.short, spec.Started = scratch, c.root.Running
	}
	defer func() { err = errors.Join(err, m.close(), os.RemoveAll(scratch)) }()
	if err := m.add(ctx, &spec, r); err != nil {
		return store.Entry{}, err
	}
	var hidden *inplace.HiddenError
	switch err := c.root.Run(ctx, r.Dir); {
	case errors.As(err, &hidden):
		return store.Entry{}, &diag.Problem{What: err.Error(), Hint: fmt.Sprintf("mount it in another place (and name that with --context), or so that it can be written to, or let the executor leave it out of the image: --ignore-path %s", hidden.Path)}
	case err != nil:
		return store.Entry{}, err
	}
	fresh, err := lacking(ctx, c.root.Tree(), r.Dir)
	if err != nil {
		return store.Entry{}, err
	}
	if err := copier.Mkdirs(ctx, c.root.Tree(), c.root.Dir(), r.Dir, &[2]uint32{user.UID, user.GID}, nil, c.maker); err != nil {
		return store.Entry{}, err
	}
	var mounted *inplace.Mounts
	if c.job.Walk {
		mounted, err = c.points(ctx, &spec, fresh)
	} else {
		mounted, err = c.root.Mount(ctx, imitations(spec.Mounts), fresh...)
	}
	if err != nil {
		return store.Entry{}, err
	}
	_, err = c.command(ctx, spec, out)
	if err := errors.Join(err, mounted.Close()); err != nil {
		return store.Entry{}, err
	}
	return c.snapshot(ctx, st)
}

// context is a context's tree. What commands had put aside in its directory is back
// before it is read.
func (c *core) context(ctx context.Context, name string) (tree.Tree, error) {
	if c.root != nil {
		moved, err := c.root.Yield()
		if err != nil {
			return nil, err
		}
		if len(moved) > 0 {
			if err := c.host.Moved(ctx, moved); err != nil {
				return nil, err
			}
		}
	}
	return c.host.Tree(contextTree(name)), nil
}

// points makes the mount points of a RUN in the root that are not there. Three of them
// stay in the image, as with BuildKit.
func (c *core) points(ctx context.Context, spec *sandbox.RunSpec, fresh []string) (*inplace.Mounts, error) {
	var list []inplace.Point
	for _, p := range spec.MountPoints() {
		list = append(list, inplace.Point{Path: p.Path, Dir: p.Dir, Keep: p.Path == "/proc" || p.Path == "/sys" || p.Path == "/dev"})
	}
	mounted, made, err := c.root.Points(ctx, list, fresh...)
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		if m.Kind == sandbox.TmpfsMount && made[path.Clean("/"+m.Target)] {
			m.Mode = 0o1777 // one that covers a directory has its mode
		}
	}
	return mounted, err
}

// lacking lists what t has not of the directory name, outermost first.
func lacking(ctx context.Context, t tree.Tree, name string) ([]string, error) {
	real, err := tree.Resolve(ctx, t, name)
	if err != nil {
		return nil, err
	}
	var out []string
	for at := real; at != ""; at = strings.TrimPrefix(path.Dir("/"+at), "/") {
		_, err := t.Lstat(ctx, at)
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		out = append(out, at)
	}
	slices.Reverse(out)
	return out, nil
}

// imitations are mounts for a root in which nothing can be mounted.
func imitations(list []sandbox.Mount) []inplace.Mount {
	var out []inplace.Mount
	for _, m := range list {
		i := inplace.Mount{Target: m.Target, Mode: m.Mode, UID: m.UID, GID: m.GID, Secret: m.Secret}
		switch m.Kind {
		case sandbox.BindMount:
			i.Source = filepath.Join(m.Source, filepath.Join("/", m.Sub))
		case sandbox.FileMount:
			if i.Data = m.Data; i.Data == nil {
				i.Data = []byte{}
			}
		}
		out = append(out, i)
	}
	return out
}

// snapshot makes what was changed in the root a layer. The files are read now,
// before anything may touch them again.
func (c *core) snapshot(ctx context.Context, st *jobStage) (store.Entry, error) {
	changes, err := c.root.Changes(ctx)
	if err != nil {
		return store.Entry{}, err
	}
	e, stats, err := c.keepHere(ctx, st, func(w io.Writer) (layer.Stats, error) {
		return layer.PackChanges(ctx, w, c.root.Dir(), slices.Values(changes), layer.PackOptions{Contents: c.root.Contents()})
	})
	if err == nil {
		c.root.Keep(e.DiffID, stats.Devices)
	}
	return e, err
}

// hereUpper is an upper whose layer lies in the store as a blob.
type hereUpper struct {
	*upper
	stats layer.Stats
}

// commitHere makes the upper a layer of its own. stays says that it is kept: for
// what is compared with it (its times are exact, those of a tar are not), and to be moved
// into the root, so that its files are written once.
func (c *core) commitHere(ctx context.Context, st *jobStage, top []rootfs.Layer, base *stack, up *upper) (_ store.Entry, stays bool, err error) {
	if err := up.leaveOut(c.job.Ignore); err != nil {
		return store.Entry{}, false, err
	}
	e, stats, err := c.keepHere(ctx, st, func(w io.Writer) (layer.Stats, error) {
		return layer.Pack(ctx, w, up.dir, base.view, layer.PackOptions{Owners: up.owners, Contents: c.root.Contents()})
	})
	if err != nil {
		return e, false, err
	}
	made := above(top, e.DiffID)
	name := fmt.Sprint(ids(made))
	if _, again := c.uppers[name]; again || len(made) == 1 || stats.Devices || len(up.owners) > 0 {
		_, err := c.layers.Adopt(ctx, made, up.dir, up.owners, stats.Devices)
		return e, false, err
	}
	c.layers.Near(made, up.dir)
	if c.uppers == nil {
		c.uppers = map[string]hereUpper{}
	}
	c.uppers[name] = hereUpper{up, stats}
	return e, true, nil
}

// offer gives uppers of the stack top to the root, if they have just what their
// layers have.
func (c *core) offer(top []rootfs.Layer) {
	for i := range top {
		stack := top[:i+1]
		up, ok := c.uppers[fmt.Sprint(ids(stack))]
		if !ok || up.stats.Same || c.root.Holds(ids(top)) && c.root.Has(ids(stack)) {
			continue
		}
		if dir, ok := c.layers.Far(stack); ok {
			c.root.Offer(ids(stack), dir, up.stats.Hides)
		}
	}
}

// compares tells whether a step that writes an upper may follow the step s on its
// stack: what it writes is compared with what is there.
func (c *core) compares(st *jobStage, s *jobStep) bool {
	after := false
	for i := range st.Steps {
		one := &st.Steps[i]
		if after && (one.Copy != nil || one.Workdir != nil) {
			return true
		}
		after = after || one == s
	}
	return slices.ContainsFunc(c.job.Stages, func(other jobStage) bool {
		return other.Base.Stage >= 0 && &c.job.Stages[other.Base.Stage] == st
	})
}

// rootView shows a stack, with what files hold read from the root where only an
// index is there: a stage that was just made need not be unpacked to be copied from.
type rootView struct {
	tree.Tree
	root  *inplace.Root
	stack []digest.Digest
}

func (v rootView) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	f, err := v.Tree.Open(ctx, name)
	if errors.Is(err, rootfs.ErrUnpack) {
		if f, ok := v.root.Reads(ctx, v.stack, name); ok {
			return f, nil
		}
	}
	return f, err
}

// ids are the diffIDs of layers.
func ids(layers []rootfs.Layer) []digest.Digest {
	out := make([]digest.Digest, len(layers))
	for i, l := range layers {
		out[i] = l.DiffID
	}
	return out
}

// keepHere makes what write writes a layer that lies in the store as a blob. Where
// the image has it, it is compressed as it comes, if that is about as quick as to
// write the tar down and to compress it beside the next steps.
func (c *core) keepHere(ctx context.Context, st *jobStage, write func(w io.Writer) (layer.Stats, error)) (store.Entry, layer.Stats, error) {
	encode := Compression{Type: layer.None}
	var tell func(grown)
	if c.exported(st) && c.job.Epoch == nil && c.job.Encode.Quick() {
		encode, tell = c.job.Encode, c.grown()
	}
	var stats layer.Stats
	p, err := encodeParams(encode, nil)
	if err != nil {
		return store.Entry{}, stats, err
	}
	names := index.NewWriter(ctx)
	defer names.Index()
	blob, id, err := encodeTar(c.store, p, func(w io.Writer) (err error) {
		stats, err = write(io.MultiWriter(w, names))
		return err
	}, tell, nil)
	if err != nil {
		return store.Entry{}, stats, err
	}
	if x, err := names.Index(); err == nil { // else who needs one makes it
		if err := c.layers.Indexes.PutIndex(id, x); err != nil {
			return store.Entry{}, stats, err
		}
	}
	if err := c.store.PutVariant(store.Variant{DiffID: id, Params: p, Descriptor: blob}); err != nil {
		return store.Entry{}, stats, err
	}
	return store.Entry{DiffID: id, Layer: id.Encoded(), Size: stats.Size, Created: time.Now().UTC(), Full: c.full()}, stats, nil
}

// copied shows files of a context, stage or image as a copy.
func (m *mounter) copied(ctx context.Context, spec *sandbox.RunSpec, mt *dockerfile.Mount) error {
	t, done, err := m.core.tree(ctx, mt.From, m.sources)
	if err != nil {
		return err
	}
	defer done()
	dir := m.dir()
	if err := (rootfs.Stack{}).NewUpper(dir); err != nil {
		return err
	}
	source := mt.Source
	if mt.From.Kind != dockerfile.FromScratch {
		real, err := lookup(ctx, t, mt.Source)
		if err != nil {
			return err
		}
		if err := copyOut(ctx, t, mt, dir, m.core.maker); err != nil {
			return err
		}
		source = real
	}
	spec.Mounts = append(spec.Mounts, sandbox.Mount{Kind: sandbox.BindMount, Target: mt.Target, Source: dir, Sub: source, ReadOnly: mt.ReadOnly})
	return nil
}
