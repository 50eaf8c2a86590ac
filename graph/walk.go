package graph

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"sync"
)

// Options is how to walk. The zero value runs as many nodes at once as are ready
// and stops after the first failure.
type Options struct {
	Jobs      int  // nodes that run at the same time; 0 or less is no limit
	KeepGoing bool // after a failure go on with what does not depend on it
}

// State is what became of a node.
type State string

// The states of a node after a walk.
const (
	Succeeded  State = "succeeded"
	Failed     State = "failed"      // run returned an error
	Skipped    State = "skipped"     // needs, maybe through others, a node that failed
	Cancelled  State = "cancelled"   // ran when the context was cancelled, and ended with its error
	NotStarted State = "not started" // the walk had stopped before
)

// Result is what became of one node.
type Result struct {
	ID    ID
	State State
	Err   error // of Failed and Cancelled: what run returned
	Cause ID    // of Skipped: the node that failed
}

// Outcome is what became of every node, in topological order.
type Outcome []Result

// Of is the results in a state.
func (o Outcome) Of(s State) []Result {
	var out []Result
	for _, r := range o {
		if r.State == s {
			out = append(out, r)
		}
	}
	return out
}

// Err is nil if every node succeeded. Otherwise it joins the errors of those that
// failed, each with its node's name; without failures it is the cause of the stop.
func (o Outcome) Err() error {
	var errs []error
	for _, r := range o.Of(Failed) {
		errs = append(errs, fmt.Errorf("%s: %w", r.ID, r.Err))
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	for _, r := range o.Of(Cancelled) {
		return r.Err
	}
	if len(o.Of(NotStarted)) > 0 {
		return context.Canceled
	}
	return nil
}

// Walk runs every node once, each after all that it needs has succeeded, in a
// goroutine of its own; of nodes that are ready the first in topological order
// starts first. A node that fails takes its dependents out of the walk. After a
// failure no node starts any more unless KeepGoing is set, and those that run are
// left to end. A cancelled ctx starts nothing more and reaches those that run; Walk
// returns when they have ended, so run must heed its context.
func (g *Graph) Walk(ctx context.Context, o Options, run func(ctx context.Context, id ID) error) Outcome {
	w := newWalk(g, o)
	ended := make(chan end)
	var goroutines sync.WaitGroup
	defer goroutines.Wait()
	for {
		for ctx.Err() == nil && w.canStart() {
			i := w.start()
			goroutines.Go(func() { ended <- end{i, run(ctx, g.ids[i])} })
		}
		if w.running == 0 {
			return w.outcome()
		}
		w.end(ctx, <-ended)
	}
}

// end is a node that has ended, with its error.
type end struct {
	node int
	err  error
}

// walk is the state of one Walk. Only the goroutine that called Walk touches it.
type walk struct {
	graph   *Graph
	options Options
	ready   intHeap  // ranks of nodes that can start
	missing []int    // by node: needs that have not succeeded
	results []Result // by node
	running int
	stopped bool
}

func newWalk(g *Graph, o Options) *walk {
	w := &walk{graph: g, options: o, missing: make([]int, len(g.ids)), results: make([]Result, len(g.ids))}
	for i, id := range g.ids {
		w.results[i] = Result{ID: id, State: NotStarted}
		if w.missing[i] = len(g.needs[i]); w.missing[i] == 0 {
			heap.Push(&w.ready, g.rank[i])
		}
	}
	return w
}

func (w *walk) canStart() bool {
	return !w.stopped && w.ready.Len() > 0 && (w.options.Jobs <= 0 || w.running < w.options.Jobs)
}

// start takes the next node out of ready.
func (w *walk) start() int {
	w.running++
	return w.graph.order[heap.Pop(&w.ready).(int)]
}

// end records what became of a node and of those that wait for it.
func (w *walk) end(ctx context.Context, e end) {
	w.running--
	r := &w.results[e.node]
	r.Err = e.err
	switch {
	case e.err == nil:
		r.State = Succeeded
		for _, d := range w.graph.dependents[e.node] {
			if w.missing[d]--; w.missing[d] == 0 && w.results[d].State == NotStarted {
				heap.Push(&w.ready, w.graph.rank[d])
			}
		}
	case isCancel(ctx, e.err):
		r.State = Cancelled
	default:
		r.State = Failed
		w.skipDependents(e.node, r.ID)
		w.stopped = !w.options.KeepGoing
	}
}

// isCancel tells whether a node ended with err because ctx had been cancelled.
func isCancel(ctx context.Context, err error) bool {
	return ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx)))
}

func (w *walk) skipDependents(node int, cause ID) {
	for _, d := range w.graph.dependents[node] {
		if w.results[d].State == NotStarted {
			w.results[d] = Result{ID: w.graph.ids[d], State: Skipped, Cause: cause}
			w.skipDependents(d, cause)
		}
	}
}

func (w *walk) outcome() Outcome {
	out := make(Outcome, len(w.results))
	for i, r := range w.results {
		out[w.graph.rank[i]] = r
	}
	return out
}
