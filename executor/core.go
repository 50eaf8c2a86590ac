package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/executor/internal/inplace"
	"kaniko-build/executor/internal/layer"
	"kaniko-build/executor/internal/rootfs"
	"kaniko-build/executor/internal/sandbox"
	"kaniko-build/executor/internal/store"
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

func (c *core) full() bool { return !c.job.IDs.Single() }

// sweep removes what only a process with the node's ids can: the rest of killed
// builds.
func (c *core) sweep(ctx context.Context) error {
	_, left, err := c.store.Sweep(ctx, nil)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("remove what a killed build left: %s", strings.Join(left, ", "))
	}
	return errors.Join(err, c.layers.Sweep(ctx))
}
