package watch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"kaniko-build/graph"
)

// errSuperseded is the cause of a node that is built anew elsewhere.
var errSuperseded = errors.New("its files changed: it is built anew")

// errNeeds is a node that cannot be built because of another.
var errNeeds = errors.New("needs")

// Superseded tells whether a node was given up because it is built anew.
func Superseded(ctx context.Context) bool { return errors.Is(context.Cause(ctx), errSuperseded) }

// GivenUp tells whether a node ended because it is built anew.
func GivenUp(err error) bool { return errors.Is(err, errSuperseded) }

// Needs tells whether a node ended because what it needs is not there.
func Needs(err error) bool { return errors.Is(err, errNeeds) }

// wave is nodes that are built together.
type wave struct {
	look  Look
	parts map[graph.ID]*part
}

// part is one node of a wave.
type part struct {
	before  *part         // an earlier build of it that has to be over
	parents []parentPart  // that other waves build
	needs   graph.ID      // a parent that is not built, for which nobody waits
	over    chan struct{} // closed when it is over, or will never begin
	ok      bool          // it was made; read after over

	mu     sync.Mutex
	given  bool
	begun  bool
	cancel context.CancelCauseFunc
}

// parentPart is what a node waits for in another wave.
type parentPart struct {
	id graph.ID
	*part
}

// give gives a node up.
func (w *wave) give(id graph.ID) {
	p := w.parts[id]
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.given {
		return
	}
	p.given = true
	if !p.begun {
		close(p.over)
		return
	}
	p.cancel(errSuperseded)
}

func (p *part) givenUp() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.given
}

// start takes a node that is to be made; ok is false if it was given up.
func (p *part) start(ctx context.Context) (_ context.Context, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.given {
		return ctx, false
	}
	p.begun = true
	ctx, p.cancel = context.WithCancelCause(ctx)
	return ctx, true
}

// begin makes a wave of nodes, parents first, and ends what builds them now.
func (e *Engine) begin(ctx context.Context, look Look, ids []graph.ID, causes map[graph.ID]Cause) {
	g := e.site.Graph()
	w := &wave{look: look, parts: map[graph.ID]*part{}}
	in := map[graph.ID]bool{}
	for _, id := range ids {
		in[id] = true
	}
	var edges []graph.Edge
	now := time.Now()
	for _, id := range ids {
		n := e.nodes[id]
		p := &part{over: make(chan struct{})}
		if old := n.wave; old != nil {
			old.give(id)
			p.before = old.parts[id]
		}
		for _, need := range g.Needs(id) {
			parent := e.nodes[need]
			switch {
			case in[need]:
				edges = append(edges, graph.Edge{Node: id, Needs: need})
			case parent.wave != nil:
				p.parents = append(p.parents, parentPart{need, parent.wave.parts[need]})
			case parent.state.State != Built:
				p.needs = need
			}
		}
		w.parts[id] = p
	}
	list := e.reasons(ids, in, causes)
	for i, id := range ids {
		n := e.nodes[id]
		n.wave = w
		n.state.State, n.state.Since, n.state.Cause = Building, now, list[i]
	}
	sub, err := graph.New(ids, edges)
	if err != nil { // a part of a graph has no circle that the whole has not
		e.fail(ctx, err)
		return
	}
	e.tell(Event{Kind: Changed, Text: e.sentence(list), Nodes: ids, Causes: list})
	e.waves[w] = true
	go e.run(ctx, w, sub, ids)
}

// run makes the nodes of a wave.
func (e *Engine) run(ctx context.Context, w *wave, g *graph.Graph, ids []graph.ID) {
	w.look.Begin(ids)
	o := w.look.Schedule(g)
	o.KeepGoing = true // what is asked for later does not wait for what fails now
	out := g.Walk(ctx, o, func(ctx context.Context, id graph.ID) error {
		p := w.parts[id]
		nctx, ok := p.start(ctx)
		if !ok {
			return errSuperseded
		}
		defer p.cancel(nil)
		err := e.make(nctx, w, p, id)
		p.ok = err == nil
		close(p.over)
		e.results <- result{w, id, err}
		return err
	})
	for _, r := range out {
		if r.State == graph.Skipped || r.State == graph.NotStarted {
			p := w.parts[r.ID]
			if _, ok := p.start(ctx); ok {
				p.cancel(nil)
				close(p.over)
				err := fmt.Errorf("%w %s", errNeeds, r.Cause)
				if c := w.parts[r.Cause]; c != nil && c.givenUp() { // it only comes after that one
					err = errSuperseded
				}
				e.results <- result{w, r.ID, err}
			}
		}
	}
	w.look.End(ctx, out)
	e.ended <- w
}

// make makes one node, when what it waits for is over.
func (e *Engine) make(ctx context.Context, w *wave, p *part, id graph.ID) error {
	if p.before != nil {
		<-p.before.over // it was given up
	}
	for _, parent := range p.parents {
		select {
		case <-parent.over:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if !parent.ok {
			return fmt.Errorf("%w %s", errNeeds, parent.id)
		}
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if p.needs != "" {
		return fmt.Errorf("%w %s", errNeeds, p.needs)
	}
	return w.look.Make(ctx, id)
}
