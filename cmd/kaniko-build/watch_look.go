package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"kaniko-build/cmd/kaniko-build/internal/progress"
	"kaniko-build/executor"
	"kaniko-build/graph"
	"kaniko-build/plan"
	"kaniko-build/schema"
	"kaniko-build/watch"
	"kaniko-build/watch/notify"
)

// look is a watch.Look: inspected nodes, and the run that builds them.
type look struct {
	site    *site
	ids     []graph.ID
	nodes   map[string]*executor.Node // of the whole plan, those of ids new
	before  map[string]*executor.Node // of ids
	sums    map[graph.ID]string
	reads   map[graph.ID]watch.Reads
	run     *run
	looked  time.Time // when it began to look: files saved before are in what it sees
	begun   time.Time
	started bool
}

// Look is that of watch.Site.
func (s *site) Look(ctx context.Context, ids []graph.ID, changed notify.Set) (watch.Look, error) {
	unready := map[string]error{}
	touched := !s.hooked
	for _, p := range changed.Paths() {
		rel := s.rel(p)
		touched = touched || slices.ContainsFunc(ids, func(id graph.ID) bool { return s.hookReads(s.p.Node(id).Target, rel) })
	}
	if touched {
		failed, err := s.run.hooks.some(ctx, s.p, ids, func(h schema.Hook) bool { return len(h.Inputs) > 0 || !s.shop.hooked }, true)
		if err != nil {
			return nil, err
		}
		maps.Copy(unready, failed)
		s.hooked, s.shop.hooked = true, true
	}
	l, err := s.inspect(ctx, ids, unready)
	if err != nil {
		return nil, err
	}
	plain := func(h schema.Hook) bool { return len(h.Inputs) == 0 }
	var more []graph.ID // whose hooks run at every build
	for _, id := range ids {
		if !touched && l.sums[id] != s.sums[id] && slices.ContainsFunc(s.p.Node(id).Target.Before, plain) {
			more = append(more, id)
		}
	}
	if len(more) > 0 {
		failed, err := s.run.hooks.some(ctx, s.p, more, plain, true)
		l.Close()
		if err != nil {
			return nil, err
		}
		maps.Copy(unready, failed)
		if l, err = s.inspect(ctx, ids, unready); err != nil {
			return nil, err
		}
	}
	s.nodes, s.in, s.shop.last = l.nodes, l.run.inputs, s
	maps.Copy(s.sums, l.sums)
	return l, nil
}

// inspect looks at nodes.
func (s *site) inspect(ctx context.Context, ids []graph.ID, unready map[string]error) (_ *look, err error) {
	x := s.x.Round()
	l := &look{site: s, ids: ids, looked: time.Now(), nodes: maps.Clone(s.nodes), before: map[string]*executor.Node{}, sums: map[graph.ID]string{}, reads: map[graph.ID]watch.Reads{}}
	l.run = s.again(x, unready)
	defer func() {
		if err != nil {
			err = errors.Join(s.run.places.err(err), x.Close(ctx))
		}
	}()
	var requests []executor.Request
	for _, id := range ids {
		if r, ok := s.requests[id]; ok {
			requests = append(requests, r)
		}
	}
	inspected, err := x.InspectBeside(ctx, requests, s.nodes)
	if err != nil {
		return nil, err
	}
	r := l.run
	for _, n := range inspected {
		l.before[n.ID] = s.nodes[n.ID]
		l.nodes[n.ID] = n
		r.order = append(r.order, n.ID)
	}
	for _, id := range ids {
		r.only[string(id)] = true
	}
	r.nodes, r.indexes = l.nodes, r.joins.of(l.nodes)
	r.inputs = inputs{maps.Clone(s.in.digests), maps.Clone(s.in.why)}
	if err := s.w.moreInputs(r.inputs, s.p, ids, l.nodes); err != nil {
		return nil, err
	}
	if err := r.nameByInputs(); err != nil {
		return nil, err
	}
	for _, id := range ids {
		if l.sums[id], err = l.sum(id); err != nil {
			return nil, err
		}
		if l.reads[id], err = l.readsOf(ctx, id); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// again is a run of some nodes of the site.
func (s *site) again(x *executor.Executor, unready map[string]error) *run {
	t := s.run
	return &run{
		x: x, term: t.term, flags: t.flags, keep: true, outputs: t.outputs, private: t.private, joins: t.joins, places: t.places, view: s.shop.stage,
		groups: t.groups, quiet: true, plan: t.plan, hooks: t.hooks, unready: unready, digests: t.digests, only: map[string]bool{},
		idle: map[string]bool{}, found: map[string]*executor.Found{}, lines: map[string]string{}, results: map[string]executor.Result{}, errs: map[string]error{}, unpushed: map[string]bool{},
	}
}

// sum stands for all that a node is made of.
func (l *look) sum(id graph.ID) (string, error) {
	if l.run.unready[string(id)] != nil {
		return "", nil
	}
	if d := l.run.inputs.digests[string(id)]; d != "" {
		return d, nil
	}
	if n := l.nodes[string(id)]; n != nil {
		return n.Definition()
	}
	var parts []string
	for _, part := range l.site.p.Node(id).Index {
		d, err := l.nodes[string(part)].Definition()
		if err != nil {
			return "", err
		}
		parts = append(parts, d)
	}
	sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
	return hex.EncodeToString(sum[:]), nil
}

func (l *look) Sum(id graph.ID) string        { return l.sums[id] }
func (l *look) Reads(id graph.ID) watch.Reads { return l.reads[id] }

// Same is that of watch.Look.
func (l *look) Same(ids []graph.ID) {
	for _, id := range ids {
		if before, n := l.before[string(id)], l.nodes[string(id)]; before != nil && n != nil {
			n.Stands(before)
		}
	}
}

// Begin is that of watch.Look.
func (l *look) Begin(ids []graph.ID) {
	l.site.shop.stage.enter()
	l.begun = time.Now()
	r := l.run
	r.given = func(ctx context.Context, node string) string {
		if watch.Superseded(ctx) {
			return anew
		}
		if l.Moved(graph.ID(node)) {
			return "its files changed while it was built"
		}
		return ""
	}
	e := progress.Event{Event: executor.Event{Kind: progress.RunStarted, Time: l.begun}, Jobs: r.x.Jobs()}
	for _, id := range ids {
		n := progress.Node{ID: string(id), Group: r.groups[string(id)]}
		if node := r.nodes[string(id)]; node != nil {
			n.Steps = node.Steps()
		}
		for _, need := range l.site.Graph().Needs(id) {
			n.Needs = append(n.Needs, string(need))
		}
		e.Nodes = append(e.Nodes, n)
	}
	r.view.Event(e)
}

// Schedule is that of watch.Look.
func (l *look) Schedule(g *graph.Graph) graph.Options { return l.run.schedule(g) }

// anew is said of a node that is given up.
const anew = "its files changed: it is built anew"

// Make is that of watch.Look.
func (l *look) Make(ctx context.Context, id graph.ID) error { return l.run.node(ctx, id) }

// Moved is that of watch.Look.
func (l *look) Moved(id graph.ID) bool {
	n := l.nodes[string(id)]
	return n != nil && n.ContextChanged()
}

// Passing is that of watch.Look.
func (l *look) Passing(id graph.ID) bool {
	l.run.mu.Lock()
	defer l.run.mu.Unlock()
	return l.run.unpushed[string(id)]
}

// End is that of watch.Look.
func (l *look) End(ctx context.Context, out graph.Outcome) {
	r := l.run
	for _, o := range out {
		if watch.Needs(o.Err) { // of another wave
			r.tell(progress.NodeSkipped, string(o.ID), o.Err.Error())
		}
	}
	r.skipped(out)
	kept := graph.Outcome{} // what was not given up
	for _, o := range out {
		if _, lost := r.errs[string(o.ID)]; o.State == graph.Succeeded || lost && !l.Moved(o.ID) && ctx.Err() == nil && !watch.GivenUp(o.Err) {
			kept = append(kept, o)
		}
	}
	err := kept.Err()
	ready := l.site.shop.tags.settle(kept, l.site.Graph().Order(), r.made)
	if len(ready) > 0 && r.flags.push && r.flags.release.publish == together && ctx.Err() == nil {
		if e := r.release(ctx, ready...); e != nil {
			err = errors.Join(err, e)
			l.site.shop.stage.after(func() { fmt.Fprintf(r.term.err, "\n%s\n", printableLines(e.Error())) })
		} else {
			l.site.shop.tags.put(ready)
		}
	}
	if ctx.Err() == nil {
		err = errors.Join(err, l.hand(ctx, kept, err))
	}
	if err == nil && r.digests != "" {
		err = r.writeDigests()
	}
	if r.flags.metadata != "" {
		r.flags.stopwatch = l.site.shop.f.stopwatch
		err = errors.Join(err, r.writeMetadata(kept))
	}
	text := "done"
	switch {
	case errors.Is(context.Cause(ctx), errInterrupted), errors.Is(context.Cause(ctx), errQuit):
		text = "interrupted"
	case err != nil:
		text = "failed"
	}
	r.view.Event(progress.Event{Event: executor.Event{Kind: progress.RunDone, Time: time.Now(), Text: text, Elapsed: time.Since(l.begun)}})
	if r.flags.progress != "json" && kept.Err() != nil {
		l.site.shop.stage.after(func() { _ = r.failure(ctx, kept) }) // it prints; the error is told
	}
	l.site.shop.stage.leave()
}

// Close is that of watch.Look.
func (l *look) Close() {
	_ = l.run.x.Close(context.Background()) // directories that were only read
}

// redefined tells what of a target is not what it was: what its image is made of, and
// what becomes of the image.
func redefined(before, now *schema.Target) string {
	if what := plan.Redefined(before, now); what != "" {
		return what
	}
	if !slices.Equal(before.RefNames(), now.RefNames()) {
		return "its names in the manifest"
	}
	return ""
}
