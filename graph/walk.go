package graph

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"kaniko-build/graph/queue"
)

// Options is how to walk. The zero value runs as many nodes at once as are ready
// and stops after the first failure.
type Options struct {
	Jobs      int  // nodes that run at the same time; 0 or less is no limit
	KeepGoing bool // after a failure go on with what does not depend on it

	// Cost is how long a node is expected to take. Of nodes that are ready the one
	// with the longest way to the end starts first; nil makes no difference.
	Cost func(ID) float64
	// Weight is what a node takes of Capacity while it runs. One that wants more than
	// that has it alone; one that wants nothing always fits. Nil is nothing.
	Weight   func(ID) int64
	Capacity int64 // 0 or less is no limit
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

// Walk runs every node once, each after all that it needs has succeeded, beside the
// others; of nodes that are ready the one with the longest way to the
// end starts first, or the first in topological order. One that does not fit lets
// others go before it, but not for ever (see package queue). A node that fails takes its dependents out of the walk. After a
// failure no node starts any more unless KeepGoing is set, and those that run are
// left to end. A cancelled ctx starts nothing more and reaches those that run; Walk
// returns when they have ended, so run must heed its context.
func (g *Graph) Walk(ctx context.Context, o Options, run func(ctx context.Context, id ID) error) Outcome {
	w := newWalk(g, o)
	ended, next := make(chan end), make(chan *queue.Ticket[int])
	var goroutines sync.WaitGroup
	defer goroutines.Wait()
	defer close(next)
	workers := 0 // goroutines, whose stacks have grown after the first node
	for {
		for ctx.Err() == nil {
			t := w.start()
			if t == nil {
				break
			}
			if w.running <= workers {
				next <- t
				continue
			}
			workers++
			goroutines.Go(func() {
				for t, more := t, true; more; t, more = <-next {
					ended <- end{t, run(ctx, g.ids[t.Value])}
				}
			})
		}
		if w.running == 0 {
			return w.outcome()
		}
		w.end(ctx, <-ended)
	}
}

// end is a node that has ended, with its error.
type end struct {
	ticket *queue.Ticket[int]
	err    error
}

// walk is the state of one Walk. Only the goroutine that called Walk touches it.
type walk struct {
	graph   *Graph
	options Options
	ready   *queue.Queue[int]
	way     []float64 // by node: see Graph.remaining
	missing []int     // by node: needs that have not succeeded
	results []Result  // by node
	running int
	stopped bool
}

func newWalk(g *Graph, o Options) *walk {
	w := &walk{graph: g, options: o, missing: make([]int, len(g.ids)), results: make([]Result, len(g.ids))}
	if o.Weight == nil {
		w.options.Weight = func(ID) int64 { return 0 }
	}
	w.way = make([]float64, len(g.ids))
	if o.Cost != nil {
		w.way = g.remaining(o.Cost)
	}
	w.ready = queue.New[int](o.Capacity)
	for i, id := range g.ids {
		w.results[i] = Result{ID: id, State: NotStarted}
		w.missing[i] = len(g.needs[i])
	}
	for _, i := range g.order {
		if w.missing[i] == 0 {
			w.add(i)
		}
	}
	return w
}

// add lets a node wait for its turn: before those with an equal way that come after
// it in topological order.
func (w *walk) add(i int) {
	w.ready.Add(i, w.options.Weight(w.graph.ids[i]), w.way[i], w.graph.rank[i])
}

// start takes the next node that can start; nil if there is none.
func (w *walk) start() *queue.Ticket[int] {
	if w.stopped || w.options.Jobs > 0 && w.running >= w.options.Jobs {
		return nil
	}
	t := w.ready.Next()
	if t != nil {
		w.running++
	}
	return t
}

// end records what became of a node and of those that wait for it.
func (w *walk) end(ctx context.Context, e end) {
	w.running--
	w.ready.Done(e.ticket)
	node := e.ticket.Value
	r := &w.results[node]
	r.Err = e.err
	switch {
	case e.err == nil:
		r.State = Succeeded
		for _, d := range w.graph.dependents[node] {
			if w.missing[d]--; w.missing[d] == 0 && w.results[d].State == NotStarted {
				w.add(d)
			}
		}
	case isCancel(ctx, e.err):
		r.State = Cancelled
	default:
		r.State = Failed
		w.skipDependents(node, r.ID)
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
