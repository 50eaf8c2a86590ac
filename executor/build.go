package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"

	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/executor/internal/emulator"
	"kaniko-build/executor/internal/inplace"
	"kaniko-build/executor/internal/sandbox"
	"kaniko-build/executor/internal/snapshot"
	"kaniko-build/executor/internal/store"
	"kaniko-build/executor/internal/wire"
	"kaniko-build/schema/diag"
)

// Build brings a node's image into the store. Its parents have been built.
// When every layer is known already no container is started; those that only a
// cache outside has stay there until somebody reads them. The error of a failing
// instruction is a *StepError.
func (x *Executor) Build(ctx context.Context, n *Node) (Result, error) {
	started := time.Now()
	var r Result
	err := x.withoutSpoiled(ctx, n, func() error {
		before := r.Executed
		c, executed, cached, err := x.chainOf(ctx, n)
		if err != nil {
			r.Executed = before + executed
			return err
		}
		if cached {
			for _, e := range x.cachedEvents(n) {
				x.opts.Sink(e)
			}
		}
		r, err = x.finish(ctx, n, c)
		r.Steps, r.Executed = n.steps(), before+executed
		r.Cached = cached || r.Executed == 0 && r.Steps > 0 // another node may have made it meanwhile
		x.record(n)
		return err
	})
	r.Duration = time.Since(started)
	return r, err
}

// chainOf brings the layers of a node into the store, those of its last stage as
// blobs, unless a cache outside has them so. cached tells that they were known, and
// that no container was started; else executed is the number of steps that ran.
func (x *Executor) chainOf(ctx context.Context, n *Node) (c chain, executed int, cached bool, err error) {
	params, err := encodeParams(n.Format.Compression, n.clamp())
	if err != nil {
		return chain{}, 0, false, err
	}
	if c, ok := x.collect(n, x.fromKeys(x.full(), params)); ok {
		return c, 0, true, nil
	}
	iso, err := x.isolation()
	if err != nil {
		return chain{}, 0, false, err
	}
	done, err := x.runNode(ctx, n, iso)
	if err != nil {
		return chain{}, done.Executed, false, err
	}
	made := map[string]doneLayer{}
	for _, l := range done.Layers {
		made[l.Key] = l
	}
	c, ok := x.collect(n, func(s *jobStep) (builtLayer, bool) {
		l, ok := made[s.Key.String()]
		return newBuiltLayer(s, l.DiffID, l.Tar, l.Blob, l.Created), ok
	})
	if !ok {
		return chain{}, 0, false, fmt.Errorf("internal error: the core of %s did not report all layers", n.ID)
	}
	return c, done.Executed, false, nil
}

// cachedEvents tells of the steps of a node whose result is known.
func (x *Executor) cachedEvents(n *Node) []Event {
	var out []Event
	st := &n.job.Stages[len(n.job.Stages)-1]
	for i := range st.Steps {
		if s := &st.Steps[i]; len(s.Lines) > 0 {
			out = append(out, Event{Node: n.ID, Kind: StepCached, Time: time.Now(), Stage: st.Title, Step: s.Number, Of: s.Of, Text: s.Text, From: x.cachedFrom(s), Pos: s.Pos})
		}
	}
	return out
}

// runNode does without a container if that will do. Else it starts the node's, and
// serves it until its core is done.
func (x *Executor) runNode(ctx context.Context, n *Node, iso Isolation) (done coreResult, err error) {
	j := n.job
	j.Rung, j.IDs, j.Walk = iso.Rung, iso.IDs, iso.Walk
	j.Keep, j.Ignore, j.Stay, j.Lent, j.Ends, j.Snapshots = x.keep(n), x.opts.IgnorePaths, stay(), n.lent(), ends(), snapshot.Mode(x.opts.SnapshotMode)
	if iso.Elsewhere { // nothing of this machine is there
		j.Keep, j.Stay, j.Lent, j.Ends = imagePlaces, imageDirs, nil, true
	}
	j.Passing = x.opts.Passing || iso.Afar
	j.Memory = n.Resources.Memory
	if x.of != nil || x.builtBefore(n) { // else nobody knows whether it will be built again
		j.Pieces = n.pastID()
	}
	j.Stages = x.unspoiled(j.Stages)
	why := x.why(n)
	for i := range j.Stages {
		for k := range j.Stages[i].Steps {
			j.Stages[i].Steps[k].Why = why[stepPlace{i, k}]
		}
		b := n.program.Stages[i].Base
		if b.Image != nil {
			if j.Stages[i].Base.Layers, err = x.layersOf(n.images[imageKey(*b.Image)]); err != nil {
				return coreResult{}, err
			}
		}
	}
	for key, b := range n.images {
		if b == nil {
			continue
		}
		if j.Images[key], err = x.layersOf(b); err != nil {
			return coreResult{}, err
		}
	}
	if iso.Afar {
		if err := x.knownAfar(&j); err != nil {
			return coreResult{}, err
		}
	}
	build := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	started := time.Now()
	s := &server{x: x, node: n, job: j, build: build, held: &held{pool: x.tokens, milliCPU: n.Resources.MilliCPU, priority: n.Priority}, done: make(chan coreDone, 1), mask: newMasker(n.secretValues())}
	defer s.close()
	defer func() {
		n.stopGrowing()
		if err != nil {
			n.giveUp()
		}
	}()
	beside, err := s.runNear(ctx, iso)
	if !errors.Is(err, errBox) {
		return beside, err
	}
	defer func() { done.Executed += beside.Executed }()
	started = time.Now()
	at := Site{
		Store: x.store.Dir(), Keep: j.Keep, Ignore: j.Ignore, Ends: j.Ends, Arches: n.arches(), Resources: n.Resources,
		Waiting: func() {
			x.opts.Sink(Event{Node: n.ID, Kind: Waiting, Time: time.Now(), Text: "another image, which is built in the root of this container"})
		},
	}
	var exit, serveErr error
	if iso.Afar {
		at.Node, at.Platform, at.Arches = n.ID, platforms.Format(n.program.Platform), n.runs()
		at.Tell = func(text string) { x.opts.Sink(Event{Node: n.ID, Kind: Waiting, Time: time.Now(), Text: text}) }
		at.Placed = func(text, why string) {
			x.opts.Sink(Event{Node: n.ID, Kind: Placed, Time: time.Now(), Text: text, Why: why})
		}
		exit, err = x.startAfar(ctx, s, at), nil
	} else {
		exit, serveErr, err = x.startHere(ctx, s, iso, at)
	}
	if err != nil {
		return coreResult{}, err
	}
	cancel()
	select {
	case d := <-s.done:
		if len(j.Stages) > 0 {
			_ = x.pace(n, time.Since(started), d.Result.Memory, &s.pace) // a poorer guess next time
		}
		if d.Step != nil {
			if full := (*MemoryError)(nil); errors.As(exit, &full) {
				d.Step.Err = errors.Join(d.Step.Err, full)
			} else if d.Step.Starved {
				d.Step.Err = errors.Join(d.Step.Err, errStarved)
			}
			return coreResult{}, d.Step
		}
		if d.Spoiled != "" {
			return d.Result, &spoiledError{Blob: d.Spoiled, Err: textError(d.Err)}
		}
		if d.Err != "" {
			return coreResult{}, errors.New(d.Err)
		}
		return d.Result, nil
	default:
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return coreResult{}, cause
	}
	if serveErr != nil && !errors.Is(serveErr, context.Canceled) {
		exit = errors.Join(exit, serveErr)
	}
	if exit == nil {
		exit = errors.New("internal error: its core ended without a result")
	}
	if iso.Afar {
		return coreResult{}, exit
	}
	return coreResult{}, fmt.Errorf("the container of %s: %w", n.ID, exit)
}

// startHere starts a node's container on this machine and serves it until it ends. exit
// is how it ended.
func (x *Executor) startHere(ctx context.Context, s *server, iso Isolation, at Site) (exit, serveErr, err error) {
	n := s.node
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ours, theirs, err := wire.Pair()
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()
	conn, err := wire.New(ours, s.handle)
	if err != nil {
		return nil, nil, err
	}
	if iso.Elsewhere {
		dir, err2 := x.store.TempDir("node")
		if err2 != nil {
			conn.Close()
			return nil, nil, err2
		}
		defer func() { err2 := dir.Remove(); err = errors.Join(err, err2) }()
		at.Temp = dir.Path
	}
	if iso.takesRoot() { // credentials are put aside with the rest
		back, err := x.keys.Away(imagePlaces[0])
		if err != nil {
			conn.Close()
			return nil, nil, err
		}
		defer back()
	}
	container, err := x.opts.Runner.Start(ctx, iso, at, theirs)
	if err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("start its container: %w", err)
	}
	theirs.Close()
	served := make(chan error, 1)
	go func() { served <- conn.Run(ctx) }()
	if n.going != nil {
		n.going(&Process{conn})
	}
	// A cancelled core sees its connection end, stops its steps and removes what
	// it has begun; one that takes too long is killed.
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(cancelGrace, container.Kill)
		go func() { _ = container.Wait(); timer.Stop() }()
	})
	defer stop()
	exit = container.Wait()
	cancel()
	return exit, <-served, nil
}

// cancelGrace is how long a cancelled core may clean up: Ctrl-C is to end within
// two seconds.
const cancelGrace = 1200 * time.Millisecond

// layersOf is an image's layers, those of a node after it was built.
func (x *Executor) layersOf(b *baseImage) ([]baseLayer, error) {
	if b.node == nil {
		return b.layers, nil
	}
	built := b.node.built()
	if built == nil && b.node.Result() == nil {
		return nil, fmt.Errorf("internal error: %s is not built yet", b.node.ID)
	}
	var out []baseLayer
	for _, l := range built {
		out = append(out, x.whereabouts(b.node, l))
	}
	return out, nil
}

// whereabouts tells where a layer of a node's image can be had: a cache outside,
// an image outside, or the store.
func (x *Executor) whereabouts(n *Node, l builtLayer) baseLayer {
	b := baseLayer{DiffID: l.ID, Blob: l.Descriptor, Tar: l.tar()}
	if in := x.caches.get(l.Descriptor.Digest); in.origin != "" {
		b.Origin, b.Cached, b.Size = in.origin, true, in.size
	} else {
		b.Origin = n.origin(l.Descriptor.Digest)
	}
	return b
}

// arches are the architectures that RUNs of the node have programs of, other than
// the machine's.
func (n *Node) arches() []string {
	set := map[string]bool{}
	for _, st := range n.program.Stages {
		arch := st.Platform.Architecture
		if arch != "" && !emulator.Native(runtime.GOARCH, arch) && slices.ContainsFunc(st.Steps, func(s dockerfile.Step) bool { return s.Run != nil }) {
			set[arch] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// origin finds where a blob of a node's image came from: an image outside, or ""
// for the store. Two images may have one layer in two encodings, so that its
// diffID does not tell.
func (n *Node) origin(blob digest.Digest) string {
	if n.adopted != "" && n.standsOn(blob) {
		return n.adopted
	}
	for _, b := range n.images {
		if b == nil {
			continue
		}
		for _, l := range b.layers {
			if l.Blob.Digest == blob {
				return l.Origin
			}
		}
		if b.node != nil {
			if o := b.node.origin(blob); o != "" {
				return o
			}
		}
	}
	return ""
}

// server answers the core of one node.
type server struct {
	x     *Executor
	node  *Node
	job   job
	build context.Context // of the whole build, which goes on when the core has ended
	held  *held
	mask  masker
	done  chan coreDone
	pace  pacer

	// Of a node afar: where it runs, and what its container said of its end.
	afar  bool
	site  Site
	ended string

	blobs pipes
}

// coreDone is the last thing a core says.
type coreDone struct {
	Result  coreResult
	Step    *StepError    `json:",omitempty"`
	Spoiled digest.Digest `json:",omitempty"` // a blob of a cache that cannot be used; Err says why
	Err     string        `json:",omitempty"`
}

func (s *server) close() {
	s.held.releaseAll()
	s.blobs.stop()
}

func (s *server) handle(ctx context.Context, method string, arg json.RawMessage) (any, []*os.File, error) {
	switch method {
	case callJob:
		return s.job, nil, nil
	case callEvent:
		var e Event
		if err := json.Unmarshal(arg, &e); err != nil {
			return nil, nil, err
		}
		s.event(e)
		return nil, nil, nil
	case callDone:
		var d coreDone
		if err := json.Unmarshal(arg, &d); err != nil {
			return nil, nil, err
		}
		if d.Step != nil {
			for i, l := range d.Step.Tail {
				d.Step.Tail[i] = s.mask.hide(l)
			}
		}
		select {
		case s.done <- d:
		default: // it says so once
		}
		return nil, nil, nil
	case callToken:
		return nil, nil, s.held.take(ctx)
	case callRelease:
		s.held.release()
		return nil, nil, nil
	case callSecret:
		var id string
		if err := json.Unmarshal(arg, &id); err != nil {
			return nil, nil, err
		}
		v, ok := s.node.secret(id)
		return secretReply{Value: v, OK: ok}, nil, nil
	case callAgent:
		var id string
		if err := json.Unmarshal(arg, &id); err != nil {
			return nil, nil, err
		}
		f, err := s.node.agent(ctx, id)
		if f == nil || err != nil {
			return nil, nil, err
		}
		return nil, []*os.File{f}, nil
	case callBlob:
		var l baseLayer
		if err := json.Unmarshal(arg, &l); err != nil {
			return nil, nil, err
		}
		id, f, err := s.blob(ctx, l)
		if err != nil {
			return nil, nil, err
		}
		return id, []*os.File{f}, nil
	case callBlobEnd:
		var id uint64
		if err := json.Unmarshal(arg, &id); err != nil {
			return nil, nil, err
		}
		return nil, nil, s.blobs.wait(ctx, id)
	case callCached:
		var k store.Key
		if err := json.Unmarshal(arg, &k); err != nil {
			return nil, nil, err
		}
		if s.afar {
			if l := s.cachedAfar(k); l != nil {
				return l, nil, nil
			}
		}
		l, _ := s.x.findCached(ctx, s.node, k)
		return l, nil, context.Cause(ctx)
	case callKeep:
		var l keptLayer
		if err := json.Unmarshal(arg, &l); err != nil {
			return nil, nil, err
		}
		return nil, nil, s.x.keepCached(s.node, l)
	case callGrown:
		var g grown
		if err := json.Unmarshal(arg, &g); err != nil {
			return nil, nil, err
		}
		s.x.growAhead(s.build, s.node, g)
		return nil, nil, nil
	case callMoved:
		var list []inplace.Moved
		if err := json.Unmarshal(arg, &list); err != nil {
			return nil, nil, err
		}
		s.node.sources.noteMoved(list)
		return nil, nil, nil
	case callLstat, callReadDir, callXattrs, callOpen:
		return treeCall(ctx, s.node.sources, method, arg)
	}
	return nil, nil, fmt.Errorf("internal error: no method %q", method)
}

// event hands on what a core tells.
func (s *server) event(e Event) {
	s.pace.note(e)
	e.Data, e.Text, e.Why = s.mask.hide(e.Data), s.mask.hide(e.Text), s.mask.hide(e.Why)
	s.x.opts.Sink(e)
}

// grants checks that what a Dockerfile may mount can be had, before anything runs.
func (n *Node) grants(getenv func(string) string) error {
	var l diag.List
	n.Secrets = slices.Clone(n.Secrets)
	for i, s := range n.Secrets {
		switch {
		case s.Env != "":
			v := getenv(s.Env)
			n.Secrets[i].value = []byte(v)
		default:
			b, err := os.ReadFile(s.File)
			if err != nil {
				l.Add(diag.Pos{}, "name a file that can be read", "secret %q: %v", s.ID, err)
				continue
			}
			if len(b) > maxSecret {
				l.Add(diag.Pos{}, "", "secret %q: %s is larger than the %d bytes allowed", s.ID, s.File, maxSecret)
				continue
			}
			n.Secrets[i].value = b
		}
	}
	return l.Err()
}

const maxSecret = 500 << 10 // bytes, as with BuildKit

func (r Request) secret(id string) ([]byte, bool) {
	for _, s := range r.Secrets {
		if s.ID == id {
			return s.value, true
		}
	}
	return nil, false
}

// granted tells whether a mount's secret or agent is there: presence, not
// value, is an input of a step.
func (n *Node) granted(m dockerfile.Mount) bool {
	if m.Type == dockerfile.MountSecret {
		_, ok := n.secret(m.ID)
		return ok
	}
	return slices.ContainsFunc(n.SSH, func(s SSH) bool { return s.ID == m.ID })
}

func (n *Node) secretValues() []string {
	var out []string
	for _, s := range n.Secrets {
		out = append(out, string(s.value))
	}
	return out
}

// masker hides the values of secrets in what is shown.
type masker struct{ r *strings.Replacer }

func newMasker(values []string) masker {
	var pairs []string
	for _, v := range values {
		for _, line := range append([]string{v}, strings.Split(v, "\n")...) {
			if len(strings.TrimSpace(line)) >= 4 { // shorter ones would blank out ordinary text
				pairs = append(pairs, line, "***")
			}
		}
	}
	return masker{strings.NewReplacer(pairs...)}
}

func (m masker) hide(s string) string { return m.r.Replace(s) }

// Core is the inside of a node: it asks for its job over conn, does it, and
// reports. It is called in the container that a Runner starts.
func Core(ctx context.Context, conn *os.File, in *sandbox.Inside) error {
	g := newGoing()
	c, err := wire.New(conn, g.handle)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		if err := c.Run(ctx); err != nil && ctx.Err() == nil {
			cancel(err)
		}
		cancel(wire.ErrClosed)
	}()
	defer func() { c.Close(); <-ran }()
	var j job
	if _, err := c.Call(ctx, callJob, nil, &j); err != nil {
		return fmt.Errorf("ask for the job: %w", err)
	}
	st, err := store.Attach(in.Store, store.Options{Holder: "node " + j.Node})
	if err != nil {
		return err
	}
	res, err := runCore(ctx, j, &remote{conn: c}, st, in, g)
	g.end()
	err = errors.Join(err, st.Close())
	d := coreDone{Result: res}
	var spoiled *spoiledError
	switch {
	case err == nil, errors.As(err, &d.Step):
	case errors.As(err, &spoiled):
		d.Spoiled, d.Err = spoiled.Blob, spoiled.Err.Error()
	default:
		d.Err = err.Error()
	}
	_, err = c.Call(ctx, callDone, d, nil)
	return err
}
