package watch

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"kaniko-build/graph"
	"kaniko-build/watch/notify"
	"kaniko-build/watch/settle"
)

// OnChange says what becomes of a change while something is built.
type OnChange string

// The ways to treat a change while something is built.
const (
	Restart OnChange = "restart" // what it concerns is ended and begun again
	Queue   OnChange = "queue"   // it waits until the build is done
	Ignore  OnChange = "ignore"  // it waits until the build is done and another change comes
)

// Options say how to watch. The zero value is that of the manifest.
type Options struct {
	Quiet    time.Duration // without a change, before one counts; 0 is 300 ms
	Cap      time.Duration // a change waits no longer for quiet; 0 is 10 s
	OnChange OnChange      // "" is Restart
	Manual   bool          // nothing is watched: Engine.Check says when to look
	Retry    time.Duration // between two looks at what is broken; 0 is 2 s
	Notify   notify.Options
	Sink     func(Event) // is called from several goroutines, and does not block
	Publish  func(State) // takes what State tells whenever that may be another, one at a time; it changes nothing of it and does not block
}

func (o *Options) defaults() {
	set := func(d *time.Duration, to time.Duration) {
		if *d <= 0 {
			*d = to
		}
	}
	set(&o.Quiet, 300*time.Millisecond)
	set(&o.Cap, 10*time.Second)
	set(&o.Retry, 2*time.Second)
	if o.OnChange == "" {
		o.OnChange = Restart
	}
	if o.Sink == nil {
		o.Sink = func(Event) {}
	}
}

// Engine builds what changes. New makes it, Run runs it once; the other methods may
// be called meanwhile, from any goroutine.
type Engine struct {
	opts     Options
	shop     Workshop
	commands chan command
	paused   chan bool
	results  chan result
	ended    chan *wave
	missed   chan graph.ID // nodes whose files could not be copied to where they run
	quit     chan struct{}

	// What follows only the goroutine of Run touches.
	site    Site
	nodes   map[graph.ID]*node
	waves   map[*wave]bool
	watcher *notify.Watcher
	shape   string                // of the interest that is watched
	unsure  bool                  // something may have changed before it was watched: look once more
	copies  map[graph.ID][]string // paths to copy, found by causes
	syncing sync.WaitGroup
	order   sync.Mutex // of copies
	broken  string     // why there is no site, or a node cannot be looked at
	held    notify.Set
	again   map[graph.ID]bool // nodes to look at although no path says so
	later   map[graph.ID]bool // the same, with the next change
	told    bool              // that there is nothing to do
	pausing bool

	mu    sync.Mutex
	state State
}

type command int

const (
	rebuild command = iota
	check
)

// node is what is known of one node.
type node struct {
	sum   string // of what is built, or was tried last; "" is nothing
	reads Reads
	wave  *wave // that builds it
	state NodeState
}

// result is what became of a node in a wave.
type result struct {
	wave *wave
	id   graph.ID
	err  error
}

// New makes an engine.
func New(shop Workshop, o Options) *Engine {
	o.defaults()
	return &Engine{
		opts: o, shop: shop, commands: make(chan command), paused: make(chan bool), results: make(chan result), ended: make(chan *wave), missed: make(chan graph.ID), quit: make(chan struct{}),
		nodes: map[graph.ID]*node{}, waves: map[*wave]bool{}, again: map[graph.ID]bool{}, later: map[graph.ID]bool{},
		state: State{Phase: Opening},
	}
}

// Rebuild reads everything anew and builds every node again.
func (e *Engine) Rebuild() { e.command(rebuild) }

// Check looks whether anything changed.
func (e *Engine) Check() { e.command(check) }

func (e *Engine) command(c command) {
	select {
	case e.commands <- c:
	case <-e.quit:
	}
}

// Pause holds changes back until it is called with false.
func (e *Engine) Pause(on bool) {
	select {
	case e.paused <- on:
	case <-e.quit:
	}
}

// Run watches and builds until ctx ends, and returns its cause when nothing is
// running any more.
func (e *Engine) Run(ctx context.Context) error {
	defer e.syncing.Wait()
	defer close(e.quit)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var others sync.WaitGroup
	defer others.Wait()
	settled := make(chan settle.Batch)
	if !e.opts.Manual {
		o := e.opts.Notify
		note := o.Note
		o.Note = func(text string) {
			e.opts.Sink(Event{Kind: Polling, Time: time.Now(), Text: text})
			if note != nil {
				note(text)
			}
		}
		w := notify.New(o)
		defer w.Close()
		e.mu.Lock()
		e.watcher = w
		e.mu.Unlock()
		others.Go(func() {
			settle.Run(ctx, settle.Options{Quiet: e.opts.Quiet, Cap: e.opts.Cap}, w.Sets(), settled)
		})
		defer cancel(nil)
	}
	retry := time.NewTicker(e.opts.Retry)
	defer retry.Stop()
	e.open(ctx, true, notify.Set{})
	for {
		e.rest(ctx)
		batches := settled
		if e.pausing || len(e.waves) > 0 && e.opts.OnChange == Queue {
			batches = nil
		}
		select {
		case <-ctx.Done():
			e.drain()
			return context.Cause(ctx)
		case b := <-batches:
			e.changed(ctx, b)
		case c := <-e.commands:
			e.obey(ctx, c)
		case on := <-e.paused:
			e.pause(on)
		case r := <-e.results:
			e.result(r)
		case w := <-e.ended:
			delete(e.waves, w)
			w.look.Close()
		case id := <-e.missed: // then it is built
			e.again[id] = true
			e.consider(ctx, notify.Set{})
		case <-retry.C:
			if !e.pausing && len(e.waves) == 0 && (e.broken != "" || len(e.again) > 0) {
				e.consider(ctx, notify.Set{})
			}
		}
	}
}

// drain waits for what runs.
func (e *Engine) drain() {
	for len(e.waves) > 0 {
		select {
		case <-e.results:
		case w := <-e.ended:
			delete(e.waves, w)
			w.look.Close()
		}
	}
}

// open reads the manifest and builds what differs from before. s is what is known
// to have changed.
func (e *Engine) open(ctx context.Context, fresh bool, s notify.Set) {
	site, err := e.shop.Open(ctx, fresh)
	if err != nil {
		e.fail(ctx, err)
		e.interest(ctx)
		return
	}
	before := e.site
	e.site = site
	if before == nil || e.broken != "" || !slices.Equal(before.Graph().Order(), site.Graph().Order()) {
		e.tell(Event{Kind: Opened, Nodes: site.Graph().Order()})
	}
	known := map[graph.ID]*node{}
	causes := map[graph.ID]Cause{}
	for _, id := range site.Graph().Order() {
		n := e.nodes[id]
		if n == nil {
			n = &node{state: NodeState{ID: id, State: Waiting}}
		} else if before != nil {
			if what := site.Redefined(id, before); what != "" {
				causes[id] = Cause{Node: id, Text: what}
				n.sum = ""
			}
		}
		n.state.Needs = site.Graph().Needs(id)
		known[id] = n
		delete(e.nodes, id)
	}
	for id, n := range e.nodes { // that are not there any more
		if n.wave != nil {
			n.wave.give(id)
		}
	}
	e.nodes = known
	for id, c := range e.causes(s) {
		if _, ok := causes[id]; !ok {
			causes[id] = c
		}
	}
	clear(e.again)
	clear(e.later)
	e.look(ctx, site.Graph().Order(), s, causes)
}

// fail tells of what has to be mended, once.
func (e *Engine) fail(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	if text := err.Error(); text != e.broken {
		e.broken = text
		e.tell(Event{Kind: Broken, Text: text})
	}
}

// changed deals with paths that have come to rest.
func (e *Engine) changed(ctx context.Context, b settle.Batch) {
	if len(e.waves) > 0 && e.opts.OnChange == Ignore {
		if e.concerns(b.Set) {
			e.held.Merge(b.Set)
			e.tell(Event{Kind: Held, Text: "a change waits for the next one, as a build is running"})
		}
		return
	}
	set := e.held
	e.held = notify.Set{}
	set.Merge(b.Set)
	e.consider(ctx, set)
}

// concerns tells whether a set has to do with any node.
func (e *Engine) concerns(s notify.Set) bool {
	return s.All || e.site == nil || e.ofSite(s) || len(e.causes(s)) > 0
}

// consider builds what a set of paths changes.
func (e *Engine) consider(ctx context.Context, s notify.Set) {
	if e.site == nil || e.broken != "" || s.All || e.ofSite(s) {
		e.open(ctx, false, s)
		return
	}
	causes := e.causes(s)
	e.copy(ctx, causes)
	if len(causes) > 0 {
		maps.Copy(e.again, e.later)
		clear(e.later)
	}
	for id := range e.again {
		if _, ok := causes[id]; !ok && e.nodes[id] != nil {
			causes[id] = Cause{Node: id}
		}
	}
	clear(e.again)
	if len(causes) == 0 {
		return
	}
	e.look(ctx, e.with(maps.Keys(causes)), s, causes)
}

// with is nodes and all that depend on them, parents first.
func (e *Engine) with(ids func(func(graph.ID) bool)) []graph.ID {
	in := map[graph.ID]bool{}
	for id := range ids {
		in[id] = true
	}
	var out []graph.ID
	g := e.site.Graph()
	for _, id := range g.Order() {
		if in[id] || slices.ContainsFunc(g.Needs(id), func(p graph.ID) bool { return in[p] }) {
			in[id] = true
			out = append(out, id)
		}
	}
	return out
}

// look finds out what nodes are made of now, and builds those that are made of
// something else than before.
func (e *Engine) look(ctx context.Context, ids []graph.ID, s notify.Set, causes map[graph.ID]Cause) {
	look, err := e.site.Look(ctx, ids, s)
	if err != nil {
		e.fail(ctx, err)
		e.interest(ctx)
		return
	}
	e.broken = ""
	var changed, same []graph.ID
	begun := map[graph.ID]bool{}
	for _, id := range ids {
		n := e.nodes[id]
		n.reads = look.Reads(id)
		sum := look.Sum(id)
		if sum != "" && sum == n.sum {
			same = append(same, id)
			continue
		}
		if _, asked := causes[id]; !asked && e.barred(id, begun) {
			continue
		}
		n.sum, begun[id] = sum, true
		changed = append(changed, id)
	}
	look.Same(same)
	e.interest(ctx)
	if len(changed) == 0 {
		look.Close()
		if text := e.paths(s); text != "" {
			e.opts.Sink(Event{Kind: Unchanged, Time: time.Now(), Text: text})
		}
		return
	}
	e.begin(ctx, look, changed, causes)
}

// barred tells of a node that was skipped whether it would be skipped again: what it needs
// is not there, and nothing makes it. It is built when that is.
func (e *Engine) barred(id graph.ID, begun map[graph.ID]bool) bool {
	if e.nodes[id].state.State != Skipped {
		return false
	}
	return slices.ContainsFunc(e.site.Graph().Needs(id), func(need graph.ID) bool {
		parent := e.nodes[need]
		return parent.state.State != Built && parent.wave == nil && !begun[need]
	})
}

// interest watches what the nodes read now.
func (e *Engine) interest(ctx context.Context) {
	if e.watcher == nil {
		return
	}
	i, shape := e.wants()
	if shape == e.shape {
		return
	}
	if err := e.watcher.Watch(ctx, i); err != nil {
		return // ctx has ended
	}
	e.shape, e.unsure = shape, true
}

// rest tells that there is nothing to do, once all is known to be so.
func (e *Engine) rest(ctx context.Context) {
	defer e.publish()
	if len(e.waves) > 0 || e.pausing || ctx.Err() != nil {
		return
	}
	if e.unsure && e.broken == "" && e.site != nil {
		e.unsure = false
		e.look(ctx, e.site.Graph().Order(), notify.Set{}, map[graph.ID]Cause{})
		if len(e.waves) > 0 {
			return
		}
	}
	if !e.told && e.broken == "" && len(e.again) == 0 {
		e.told = true
		e.opts.Sink(Event{Kind: Watching, Time: time.Now()})
	}
}

// tell tells of something; Watching comes again after it.
func (e *Engine) tell(ev Event) {
	ev.Time = time.Now()
	e.told = false
	e.opts.Sink(ev)
}

func (e *Engine) pause(on bool) {
	if on == e.pausing {
		return
	}
	e.pausing = on
	kind := Resumed
	if on {
		kind = Paused
	}
	e.tell(Event{Kind: kind})
}

func (e *Engine) obey(ctx context.Context, c command) {
	if c == rebuild {
		for _, n := range e.nodes {
			n.sum = ""
		}
	}
	e.held, e.broken = notify.Set{}, ""
	e.open(ctx, c == rebuild, notify.Set{})
}

// result takes what became of a node.
func (e *Engine) result(r result) {
	n := e.nodes[r.id]
	if n == nil || n.wave != r.wave {
		return // another wave has it now
	}
	n.wave = nil
	n.state.Since = time.Now()
	switch {
	case r.err == nil:
		n.state.State, n.state.Error = Built, ""
		n.state.Builds++
	case errors.Is(r.err, errNeeds):
		n.state.State, n.state.Error = Skipped, r.err.Error()
		n.sum = "" // it is built when what it needs is
	case errors.Is(r.err, errSuperseded), r.wave.look.Moved(r.id):
		n.state.State = Waiting
		n.sum = ""
		e.again[r.id] = true
	default:
		n.state.State, n.state.Error = Failed, r.err.Error()
		if r.wave.look.Passing(r.id) {
			n.sum = ""
			e.later[r.id] = true
		}
	}
}
