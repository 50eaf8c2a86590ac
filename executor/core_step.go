package executor

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"kaniko-build/executor/internal/index"
	"kaniko-build/executor/internal/layer"
	"kaniko-build/executor/internal/rootfs"
	"kaniko-build/executor/internal/store"
)

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
