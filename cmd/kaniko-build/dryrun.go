package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"kaniko-build/executor"
	"kaniko-build/plan"
	"kaniko-build/schema"
)

// forecast is what a run would do with one node. As JSON its keys are part of what we
// promise: new ones may come, none goes away or changes its meaning.
type forecast struct {
	Node  string           `json:"node"`
	What  string           `json:"what"` // build, cached, join (an index) or skip
	Why   string           `json:"why,omitempty"`
	Of    int              `json:"of"`              // steps that make layers
	Steps []executor.State `json:"steps,omitempty"` // that would be executed; each may still turn out known when those before it have run
	Names []string         `json:"names,omitempty"` // it would get in the store, or when it is pushed in the registry
	Push  bool             `json:"push"`
	Tags  []string         `json:"tags,omitempty"`  // what becomes of tags that exist and are not simply moved
	Write []string         `json:"write,omitempty"` // outputs, as TYPE PLACE
	Hooks []string         `json:"hooks,omitempty"` // that would run before or after it
}

// forecasts says what a run would do, parents first. It looks up all that the run
// itself would look up, and what plan --explain remembers of that is remembered too; no
// hook runs, nothing is built, tagged or pushed.
func (r *run) forecasts(ctx context.Context, requests []executor.Request) ([]forecast, error) {
	if err := r.flags.release.check(); err != nil {
		return nil, err
	}
	nodes, err := r.x.Inspect(ctx, requests)
	if err != nil {
		return nil, r.places.err(err)
	}
	r.nodes = map[string]*executor.Node{}
	for _, n := range nodes {
		r.order, r.nodes[n.ID] = append(r.order, n.ID), n
	}
	r.indexes = r.joins.of(r.nodes)
	if err := r.known(ctx); err != nil {
		return nil, err
	}
	states, err := r.x.Explain(ctx, nodes)
	if err != nil {
		return nil, err
	}
	steps := map[string][]executor.State{}
	for _, s := range states {
		s.Pos = r.places.pos(s.Pos)
		steps[s.Node] = append(steps[s.Node], s)
	}
	var out []forecast
	for _, id := range r.plan.Order {
		f, err := r.forecast(ctx, r.plan.Node(id), steps[string(id)])
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

func (r *run) forecast(ctx context.Context, n *plan.Node, steps []executor.State) (forecast, error) {
	m := r.made(string(n.ID))
	f := forecast{Node: m.id, What: "cached", Of: len(steps), Push: r.flags.push && !r.private[m.id]}
	for _, s := range steps {
		if !s.Hit && (s.Why == nil || s.Why.Kind != executor.ReasonIdle) {
			f.Steps, f.What = append(f.Steps, s), "build"
		}
	}
	skipped := r.idle[m.id]
	switch {
	case skipped:
		f.What, f.Why, f.Steps = "skip", r.why(n), nil
		if found := r.found[m.id]; found != nil && r.flags.push { // its tags are put
			f.Names = found.Names
		}
	case n.Index != nil:
		f.What = "join"
		for _, part := range n.Index {
			f.Why = strings.TrimPrefix(f.Why+", "+string(part), ", ")
		}
	}
	if !skipped && !n.Joined {
		f.Names = m.names
	}
	for _, o := range r.outputs[m.id] {
		dest := o.Dest
		if rel, err := filepath.Rel(r.hooks.w.root, o.Dest); err == nil && filepath.IsLocal(rel) {
			dest = rel
		}
		f.Write = append(f.Write, o.Type+" "+dest)
	}
	for _, h := range n.Target.Before {
		f.Hooks = append(f.Hooks, "before: "+title(h.Command))
	}
	for _, h := range n.Target.After {
		switch some := len(h.Platforms) > 0; {
		case skipped && !h.Always, some && !slices.Contains(h.Platforms, n.Platform), !some && n.Joined:
		case h.When == schema.OnFailure:
			f.Hooks = append(f.Hooks, "after a failure: "+title(h.Command))
		default:
			f.Hooks = append(f.Hooks, "after: "+title(h.Command))
		}
	}
	if !f.Push {
		return f, nil
	}
	for _, name := range f.Names {
		rule := r.flags.release.rule(name)
		if rule != executor.TagSkip && rule != executor.TagFail {
			continue
		}
		there, err := r.x.Find(ctx, name)
		switch {
		case err != nil:
			return f, fmt.Errorf("look for %s: %w", name, err)
		case there != nil && rule == executor.TagSkip:
			f.Tags = append(f.Tags, name+" exists and stays as it is")
		case there != nil:
			f.Tags = append(f.Tags, name+" exists: if it is another image, no tag is put")
		}
	}
	return f, nil
}

// dryRun prints what a run would do.
func (r *run) dryRun(ctx context.Context, requests []executor.Request) error {
	list, err := r.forecasts(ctx, requests)
	if err = errors.Join(err, r.view.Close()); err != nil {
		return err
	}
	if r.flags.progress == "json" {
		return indented(r.term.out, struct {
			Nodes []forecast `json:"nodes"`
		}{list})
	}
	return forecastTable(r.term.out, list)
}

// forecastTable writes a block a node and a line that counts them.
func forecastTable(w io.Writer, list []forecast) error {
	b := bufio.NewWriter(w)
	did := map[string]int{}
	pushed := 0
	for _, f := range list {
		did[f.What]++
		switch f.What {
		case "build":
			fmt.Fprintf(b, "%s: build, %d of %d steps\n", f.Node, len(f.Steps), f.Of)
		case "join":
			fmt.Fprintf(b, "%s: join %s\n", f.Node, f.Why)
		case "skip":
			fmt.Fprintf(b, "%s: skip, %s\n", f.Node, f.Why)
		default:
			fmt.Fprintf(b, "%s: cached\n", f.Node)
		}
		for _, s := range f.Steps {
			fmt.Fprintf(b, "  %s  %s\n", strings.TrimSpace(stepName(s)), oneLine(s.Text))
			if s.Why != nil {
				fmt.Fprintf(b, "    %s\n", printable(s.Why.Text))
			}
		}
		verb := "tag in the store"
		switch {
		case f.Push:
			pushed++
			verb = "push"
			if len(f.Names) == 0 {
				fmt.Fprintf(b, "  push by digest\n")
			}
		case f.What == "skip":
			verb = "tag"
		}
		for _, name := range f.Names {
			fmt.Fprintf(b, "  %s %s\n", verb, printable(name))
		}
		for _, part := range []struct {
			label string
			list  []string
		}{{"", f.Tags}, {"write ", f.Write}, {"hook ", f.Hooks}} {
			for _, text := range part.list {
				fmt.Fprintf(b, "  %s%s\n", part.label, printable(text))
			}
		}
	}
	fmt.Fprintf(b, "\n%d to build, %d cached, %d skipped; %d to push; nothing was done\n", did["build"], did["cached"], did["skip"], pushed)
	return b.Flush()
}
