package executor

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"kaniko-build/executor/internal/buildctx"
	"kaniko-build/executor/internal/copier"
	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/executor/internal/index"
	"kaniko-build/executor/internal/inplace"
	"kaniko-build/executor/internal/layer"
	"kaniko-build/executor/internal/rootfs"
	"kaniko-build/executor/internal/sandbox"
	"kaniko-build/executor/internal/store"
	"kaniko-build/executor/internal/tree"
)

// core executes one job inside its container.
//
//	stage(target) ── for each step: key known? ──yes──> its layer
//	                        │ no
//	                        ├─ stages it reads from (in parallel, each once)
//	                        ├─ known by content? ──yes──> the earlier layer
//	                        └─ execute in a fresh upper ─> diff ─> layer, keys
//
// Stages are evaluated when something needs them: one whose results are all
// known is neither unpacked nor run. Locks are taken only after everything a
// step waits for is there, so that two nodes never wait for each other.
type core struct {
	job    job
	host   host
	store  *store.Store
	layers *rootfs.Layers
	box    *sandbox.Inside
	going  *going        // who wants to know of a RUN that goes on
	near   bool          // it is in no container: see near.go
	root   *inplace.Root // where RUNs happen; nil: each in an overlay of its own
	// uppers are those of steps that go into the root when nothing compares with them
	// any more, by the names of their stacks. Steps of one root follow one another.
	uppers map[string]hereUpper
	maker  layer.Maker
	stages []*stageRun
	spare  context.Context // of later; it ends a moment after the work
	work   *errgroup.Group // everything that runs beside the target's steps
	memory *memoryWatch
	later  sync.WaitGroup // what is only for a cache outside; the result waits a moment for it

	mu       sync.Mutex
	executed int
	bases    map[digest.Digest]baseLayer    // where layers that were not made here can be had
	outside  map[digest.Digest]outsideLayer // those of them that a cache has
	blobs    []doneLayer
}

// stageRun is a stage that is evaluated at most once.
type stageRun struct {
	once sync.Once
	done chan struct{}
	top  []rootfs.Layer // bottom first
	err  error
}

// runCore does the job and returns the layers of its last stage.
func runCore(ctx context.Context, j job, h host, st *store.Store, box *sandbox.Inside, g *going) (_ coreResult, err error) {
	c := &core{job: j, host: h, store: st, box: box, going: g, memory: &memoryWatch{box: box, limit: j.Memory}, maker: makerFor(j), bases: map[digest.Digest]baseLayer{}, outside: map[digest.Digest]outsideLayer{}}
	c.layers = &rootfs.Layers{Dir: filepath.Dir(st.LayerDir(j.IDs.String(), "x")), Make: c.maker, Use: st.Use, Indexes: &indexes{store: st}}
	if err := os.MkdirAll(c.layers.Dir, 0o755); err != nil {
		return coreResult{}, fmt.Errorf("make the folder of layers: %w", err)
	}
	if len(j.Stages) == 0 {
		return c.task(ctx)
	}
	return c.do(ctx)
}

// do does the job, and returns the layers of its last stage.
func (c *core) do(ctx context.Context) (_ coreResult, err error) {
	j := &c.job
	if (j.Rung == sandbox.InPlace || j.Walk) && !c.near {
		closeRoot, err2 := c.openRoot()
		if err2 != nil {
			return coreResult{}, err2
		}
		defer func() {
			for _, up := range c.uppers {
				err = errors.Join(err, up.temp.Remove())
			}
			err = errors.Join(err, closeRoot())
		}()
	}
	for range j.Stages {
		c.stages = append(c.stages, &stageRun{done: make(chan struct{})})
	}
	spare, stop := context.WithCancel(ctx)
	defer func() { stop(); c.later.Wait() }()
	c.spare = spare
	c.work, ctx = errgroup.WithContext(ctx)
	c.work.Go(func() error { _, err := c.stage(ctx, len(j.Stages)-1); return err })
	if err := c.work.Wait(); err != nil {
		return coreResult{Executed: c.executed, Memory: c.memory.most()}, err
	}
	timer := time.AfterFunc(keepGrace, stop)
	c.later.Wait()
	if !timer.Stop() {
		c.host.Event(Event{Node: j.Node, Kind: Warning, Time: time.Now(), Text: fmt.Sprintf("not all results are in the cache: compressing them took more than %s longer than the build", keepGrace)})
	}
	c.memory.look()
	return coreResult{Layers: c.blobs, Executed: c.executed, Memory: c.memory.most()}, nil
}

// keepGrace is how long a finished node goes on compressing layers that only a
// cache wants.
const keepGrace = 5 * time.Second

// coreResult is what the core tells when it is done.
type coreResult struct {
	Layers   []doneLayer
	Executed int   // steps
	Memory   int64 // bytes that the processes of the node held at most, as far as was seen

	Sizes   map[string]int64 // of a task
	Removed []string
}

func makerFor(j job) layer.Maker {
	if j.Rung == sandbox.InPlace {
		return layer.Maker{IDs: j.IDs, Devices: true}
	}
	n := layer.IDRange(65536)
	if j.IDs.Single() {
		n = 1
	}
	return layer.Maker{IDs: n}
}

// stage is the stack of layers that stage i ends with. It may be called from
// several goroutines; the first call does the work.
func (c *core) stage(ctx context.Context, i int) ([]rootfs.Layer, error) {
	s := c.stages[i]
	s.once.Do(func() {
		defer close(s.done)
		s.top, s.err = c.evaluate(ctx, i)
	})
	select {
	case <-s.done:
		return s.top, s.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (c *core) evaluate(ctx context.Context, i int) ([]rootfs.Layer, error) {
	st := &c.job.Stages[i]
	var top []rootfs.Layer
	if st.Base.Stage >= 0 {
		below, err := c.stage(ctx, st.Base.Stage)
		if err != nil {
			return nil, err
		}
		top = append(top, below...)
	}
	for _, l := range st.Base.Layers {
		top = append(top, c.baseLayer(l, top))
	}
	missed, exported := false, c.exported(st)
	for k := range st.Steps {
		step := &st.Steps[k]
		if step.Copy == nil && step.Run == nil && step.Workdir == nil {
			continue
		}
		if _, ok := c.known(ctx, step, top); !ok && !missed {
			missed = true
			if err := c.prefetch(ctx, st.Steps[k:]); err != nil {
				return nil, err
			}
		}
		made, err := c.step(ctx, st, step, top)
		if err != nil {
			return nil, err
		}
		below := top
		if step.Copy != nil && step.Copy.Link {
			below = nil // as when it was packed
		}
		switch {
		case exported:
			c.work.Go(func() error { return c.encode(ctx, st, step, below, made) })
		case made.keep != nil:
			c.later.Go(func() { c.keep(c.spare, below, made) })
		}
		top = above(top, made.DiffID)
	}
	return top, nil
}

// prefetch starts the stages that steps will read from, side by side; where all
// share one root it does them now, one after the other.
func (c *core) prefetch(ctx context.Context, steps []jobStep) error {
	for i := range steps {
		for _, src := range stepSources(&steps[i].Step) {
			switch {
			case src.Kind != dockerfile.FromStage:
			case c.root == nil:
				c.work.Go(func() error { _, err := c.stage(ctx, src.Stage); return err })
			default:
				if _, err := c.stage(ctx, src.Stage); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// stepSources are the places a step reads from, in its order.
func stepSources(s *dockerfile.Step) []dockerfile.Source {
	var out []dockerfile.Source
	if s.Copy != nil && len(s.Copy.Sources) > 0 {
		out = append(out, s.Copy.From)
	}
	if s.Run != nil {
		for _, m := range s.Run.Mounts {
			if m.Type == dockerfile.MountBind || m.Type == dockerfile.MountCache {
				out = append(out, m.From)
			}
		}
	}
	return out
}

// made is what a step made.
type made struct {
	store.Entry
	keep *keptLayer // what a cache outside is to be told of it; nil is nothing
}

// known finds what a step made by its definition: here, else in a cache outside.
func (c *core) known(ctx context.Context, s *jobStep, top []rootfs.Layer) (made, bool) {
	if s.Fresh || s.ByContent {
		return made{}, false
	}
	if e, ok := c.lookup(s.Key, top); ok {
		return made{Entry: e}, true
	}
	if s.Ask && !s.Asked {
		s.Outside, _ = c.host.Cached(ctx, s.Key) // an error is a miss; when the node ends, the next call says so
		s.Asked = true
	}
	if s.Outside == nil {
		return made{}, false
	}
	return made{Entry: c.adopt(*s.Outside)}, true
}

// adopt makes the layer of a cache outside one that can be had.
func (c *core) adopt(o outsideLayer) store.Entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bases[o.Layer.DiffID] = o.Layer
	c.outside[o.Layer.DiffID] = o
	return o.Entry
}

// remember records the result of a step that a cache outside has: it holds here
// once the layer is here.
func (c *core) remember(s *jobStep, m made) error {
	c.mu.Lock()
	_, ok := c.outside[m.DiffID]
	c.mu.Unlock()
	if !ok {
		return nil
	}
	m.Entry.Lines = s.Lines
	return c.store.PutKey(s.Key, m.Entry)
}

func (c *core) full() bool { return !c.job.IDs.Single() }

// settle is an entry whose layer can be had here, on top of top. Where only a
// blob with times set is left of the layer, the entry becomes one of that: the
// same but for times. Its epoch must not be earlier than the one asked for, nor
// may none be asked for: either would show in the image.
func (c *core) settle(e store.Entry, top []rootfs.Layer) (store.Entry, bool) {
	if _, ok := c.layers.Has(above(top, e.DiffID)); ok {
		return e, true
	}
	all := c.store.Variants(e.DiffID)
	if _, ok := plainOf(all); ok {
		return e, true
	}
	late, ok := latest(all, c.job.Epoch)
	if !ok {
		return e, false
	}
	e.DiffID, e.Layer = late.Tar, late.Tar.Encoded()
	p := late.Params
	p.Epoch = nil
	return e, c.store.PutVariant(store.Variant{DiffID: late.Tar, Params: p, Descriptor: late.Descriptor}) == nil
}

// above is a stack with one layer more.
func above(top []rootfs.Layer, id digest.Digest) []rootfs.Layer {
	return append(top[:len(top):len(top)], rootfs.Layer{DiffID: id})
}

// step gives what one step made: known, or made now.
func (c *core) step(ctx context.Context, st *jobStage, s *jobStep, top []rootfs.Layer) (made, error) {
	started := time.Now()
	fail := func(err error) (made, error) {
		if ctx.Err() != nil {
			return made{}, context.Cause(ctx)
		}
		if errors.Is(err, errBox) {
			return made{}, err // who does it in a container tells what becomes of it
		}
		var already *StepError
		var spoiled *spoiledError
		if errors.As(err, &already) || errors.As(err, &spoiled) {
			return made{}, err
		}
		e := &StepError{Node: c.job.Node, Stage: st.Title, Pos: s.Pos, Text: s.Text, Err: err}
		var exit *exitError
		if errors.As(err, &exit) {
			e.Exit, e.Tail, e.Starved = exit.code, exit.tail, exit.starved
		}
		c.event(st, s, Event{Kind: StepFailed, Text: err.Error(), Elapsed: time.Since(started)})
		return made{}, e
	}
	cached := func(m made) (made, error) {
		if err := c.remember(s, m); err != nil {
			return fail(err)
		}
		c.event(st, s, Event{Kind: StepCached, From: c.origin(m.DiffID)})
		return m, nil
	}
	if m, ok := c.known(ctx, s, top); ok {
		return cached(m)
	}
	sources, err := c.sources(ctx, &s.Step)
	if err != nil {
		return made{}, err
	}
	lines, err := c.contentLines(ctx, s, sources, top)
	if err != nil {
		return fail(err)
	}
	byContent := hashLines(lines)
	keep := &keptLayer{Key: s.Key, ByContent: byContent, Lines: lines}
	if !s.Keep {
		keep = nil
	}
	if !s.Fresh {
		unlock, err := c.store.Lock(ctx, "step-"+s.Key.String(), func(holder string) {
			c.event(st, s, Event{Kind: Waiting, Text: holder})
		})
		if err != nil {
			return fail(err)
		}
		defer unlock()
		if m, ok := c.known(ctx, s, top); ok { // the holder we waited for made it
			return cached(m)
		}
		e, ok := c.lookup(byContent, top)
		if !ok && s.Ask {
			o, err := c.host.Cached(ctx, byContent)
			if err == nil && o != nil {
				e, ok = c.adopt(*o), true
				if keep != nil {
					keep.Lines = nil
				}
			}
		}
		if ok {
			e.Lines, e.ByContent = s.Lines, &byContent
			if err := c.store.PutKey(s.Key, e); err != nil {
				return fail(err)
			}
			c.event(st, s, Event{Kind: StepCached, From: c.origin(e.DiffID)})
			return made{e, keep}, nil
		}
	}
	if s.Copy != nil && s.Copy.Link {
		top = nil // a linked copy sees nothing of what is there
	}
	stacks := slices.Collect(maps.Values(sources)) // where files are read; of what is below only those that look like what is copied
	stacks = append(stacks, top)
	begun := s.Begun
	var e store.Entry
	err = c.unpacking(ctx, stacks, func() error {
		base, err := c.ready(ctx, st, s, sources, top)
		if err != nil {
			return err
		}
		defer base.Close()
		if !c.job.Goes {
			release, err := c.host.Token(ctx)
			if err != nil {
				return err
			}
			defer release()
		}
		if !begun {
			begun, s.Begun, started = true, true, time.Now()
			c.event(st, s, Event{Kind: StepStarted, Why: s.Why})
		}
		e, err = c.execute(ctx, st, s, sources, base, top)
		return err
	})
	if err != nil {
		return fail(err)
	}
	e.Lines, e.ByContent = s.Lines, &byContent
	if err := c.store.PutKey(s.Key, e); err != nil {
		return fail(err)
	}
	e.Lines, e.ByContent = lines, nil
	if err := c.store.PutKey(byContent, e); err != nil {
		return fail(err)
	}
	c.mu.Lock()
	c.executed++
	c.mu.Unlock()
	c.event(st, s, Event{Kind: StepDone, Elapsed: time.Since(started)})
	return made{e, keep}, nil
}

func (c *core) lookup(k store.Key, top []rootfs.Layer) (store.Entry, bool) {
	e, err := c.store.GetKey(k, c.full())
	if err != nil {
		return e, false
	}
	return c.settle(e, top)
}

func (c *core) event(st *jobStage, s *jobStep, e Event) {
	e.Node, e.Time, e.Stage, e.Step, e.Of, e.Pos = c.job.Node, time.Now(), st.Title, s.Number, s.Of, s.Pos
	if e.Text == "" {
		e.Text = s.Text
	}
	c.host.Event(e)
}

// ready makes sure that a step can begin, and opens what lies below it. A RUN
// has all of it unpacked; for others a look at it does. That may wait for
// downloads: no token is held meanwhile.
func (c *core) ready(ctx context.Context, st *jobStage, s *jobStep, sources map[string][]rootfs.Layer, top []rootfs.Layer) (*stack, error) {
	open, read := c.look, c.lookAtSource
	if s.Run != nil {
		open, read = c.open, c.open
	}
	for _, layers := range sources {
		s, err := read(ctx, layers)
		if err != nil {
			return nil, err
		}
		if err := s.Close(); err != nil {
			return nil, err
		}
	}
	if s.Run != nil && c.root != nil {
		if !c.compares(st, s) {
			c.offer(top)
		}
		return &stack{}, c.bring(ctx, top)
	}
	return open(ctx, top)
}

// execute runs a step over base, which is the stack top, and keeps what it
// changed as a layer.
func (c *core) execute(ctx context.Context, st *jobStage, s *jobStep, sources map[string][]rootfs.Layer, base *stack, top []rootfs.Layer) (_ store.Entry, err error) {
	if c.near {
		return c.draw(ctx, st, s, base)
	}
	if s.Run != nil && c.root != nil {
		return c.runHere(ctx, st, s, sources)
	}
	up, err := c.newUpper(base)
	if err != nil {
		return store.Entry{}, err
	}
	stays := false
	defer func() {
		if !stays {
			err = errors.Join(err, up.temp.Remove())
		}
	}()
	switch {
	case s.Run != nil:
		if err = c.run(ctx, st, s, sources, base, up); err == nil && c.job.Goes {
			err = errEnded
		}
	case s.Copy != nil:
		err = c.copy(ctx, st, s, sources, base, up)
	default:
		err = c.workdir(ctx, s.Workdir, base, up)
	}
	if err != nil {
		return store.Entry{}, err
	}
	if c.root == nil || c.job.Walk {
		return c.commit(ctx, top, base, up)
	}
	var e store.Entry
	e, stays, err = c.commitHere(ctx, st, top, base, up)
	return e, err
}

// stack is a list of layers.
type stack struct {
	dirs []string // top first, as overlay wants them; nil from look
	view *rootfs.View
}

func (s *stack) Close() error {
	if s.view == nil {
		return nil
	}
	return s.view.Close()
}

// open makes sure that layers lie unpacked, and looks at them.
func (c *core) open(ctx context.Context, layers []rootfs.Layer) (*stack, error) {
	if c.near {
		return nil, errBox
	}
	dirs, err := c.layers.Ensure(ctx, layers, c.openLayer)
	if err != nil {
		return nil, c.blame(ctx, err)
	}
	if err := c.arrived(layers); err != nil {
		return nil, err
	}
	view, err := rootfs.OpenView(dirs...)
	if err != nil {
		return nil, err
	}
	return &stack{dirs: dirs, view: view}, nil
}

// sources are the stacks of the stages and images that a step reads from.
func (c *core) sources(ctx context.Context, s *dockerfile.Step) (map[string][]rootfs.Layer, error) {
	out := map[string][]rootfs.Layer{}
	for _, src := range stepSources(s) {
		switch src.Kind {
		case dockerfile.FromStage:
			top, err := c.stage(ctx, src.Stage)
			if err != nil {
				return nil, err
			}
			out[sourceKey(src)] = top
		case dockerfile.FromImage:
			var top []rootfs.Layer
			for _, l := range c.job.Images[imageKey(*src.Image)] {
				top = append(top, c.baseLayer(l, top))
			}
			out[sourceKey(src)] = top
		}
	}
	return out, nil
}

// tree opens a source for reading; close ends that. The content of a file in it
// may be rootfs.ErrUnpack.
func (c *core) tree(ctx context.Context, src dockerfile.Source, sources map[string][]rootfs.Layer) (t tree.Tree, closeTree func(), err error) {
	switch src.Kind {
	case dockerfile.FromStage, dockerfile.FromImage:
		s, err := c.lookAtSource(ctx, sources[sourceKey(src)])
		if err != nil {
			return nil, nil, err
		}
		if c.root != nil && !c.job.Walk {
			return rootView{s.view, c.root, ids(sources[sourceKey(src)])}, func() { s.Close() }, nil
		}
		return s.view, func() { s.Close() }, nil
	case dockerfile.FromScratch:
		return newInlineTree(nil), func() {}, nil
	default:
		t, err := c.context(ctx, src.Context)
		return t, func() {}, err
	}
}

// contentLines are the lines of a step's key by content: those of its
// definition, with what other steps made replaced by what it is.
func (c *core) contentLines(ctx context.Context, s *jobStep, sources map[string][]rootfs.Layer, top []rootfs.Layer) ([]string, error) {
	ids := make([]digest.Digest, len(top))
	for i, l := range top {
		ids[i] = l.DiffID
	}
	lines := append([]string{parentLine(contentParent(ids))}, s.Lines[1:]...)
	if s.Copy != nil && s.Copy.Link {
		lines[0] = "no parent"
	}
	for _, r := range s.Reads {
		src := dockerfile.Source{Kind: dockerfile.FromStage, Stage: r.Stage}
		err := c.unpacking(ctx, [][]rootfs.Layer{sources[sourceKey(src)]}, func() error {
			t, done, err := c.tree(ctx, src, sources)
			if err != nil {
				return err
			}
			defer done()
			items, err := copier.Find(ctx, t, r.Select)
			if err == nil {
				lines[r.Line], err = contentLine(ctx, t, items, s.Copy != nil && s.Copy.Chown != "")
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return lines, nil
}

// commit makes the upper a layer of its own.
func (c *core) commit(ctx context.Context, top []rootfs.Layer, base *stack, up *upper) (store.Entry, error) {
	if err := up.leaveOut(c.job.Ignore); err != nil {
		return store.Entry{}, err
	}
	h := sha256.New()
	names := index.NewWriter(ctx)
	defer names.Index()
	stats, err := layer.Pack(ctx, io.MultiWriter(h, names), up.dir, base.view, layer.PackOptions{Owners: up.owners})
	if err != nil {
		return store.Entry{}, err
	}
	id := digest.NewDigest(digest.SHA256, h)
	if x, err := names.Index(); err == nil { // else it does without: it lies unpacked
		if err := c.layers.Indexes.PutIndex(id, x); err != nil {
			return store.Entry{}, err
		}
	}
	root, err := c.layers.Adopt(ctx, above(top, id), up.dir, up.owners, stats.Devices)
	if err != nil {
		return store.Entry{}, err
	}
	return store.Entry{DiffID: id, Layer: filepath.Base(filepath.Dir(root)), Size: stats.Size, Created: time.Now().UTC(), Full: c.full()}, nil
}

// exitError is a process that ended with a code other than 0.
type exitError struct {
	code    int
	argv    []string
	tail    []string
	starved bool // the kernel ended processes meanwhile, as memoryEnds counts them
}

func (e *exitError) Error() string {
	return fmt.Sprintf("process %q did not complete successfully: exit code: %d", strings.Join(e.argv, " "), e.code)
}

// contextTree names the tree of a context for host.Tree.
func contextTree(name string) string { return "context:" + name }

// remoteTreeName names the tree of a source that ADD fetches.
func remoteTreeName(stage string, step, i int) string {
	return fmt.Sprintf("remote:%s:%d:%d", stage, step, i)
}

// sourceKey tells apart the sources of a program.
func sourceKey(s dockerfile.Source) string {
	switch s.Kind {
	case dockerfile.FromImage:
		return "image " + imageKey(*s.Image)
	case dockerfile.FromStage:
		return fmt.Sprintf("stage %d", s.Stage)
	default:
		return string(s.Kind) + " " + s.Context
	}
}

// contentLine stands for the content of items that another stage made.
func contentLine(ctx context.Context, t tree.Tree, items []copier.Item, owned bool) (string, error) {
	h, err := buildctx.OpenHasher("")
	if err != nil {
		return "", err
	}
	lines, err := copier.KeyLines(ctx, t, items, owned, h.Hash)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("content %x", store.KeyOf(lines)), nil
}

// sweep removes what only a process with the node's ids can: the rest of killed
// builds.
func (c *core) sweep(ctx context.Context) error {
	_, left, err := c.store.Sweep(ctx, nil)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("remove what a killed build left: %s", strings.Join(left, ", "))
	}
	return errors.Join(err, c.layers.Sweep(ctx))
}
