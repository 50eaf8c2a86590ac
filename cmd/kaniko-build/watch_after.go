package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"kaniko-build/executor"
	"kaniko-build/graph"
	"kaniko-build/schema"
)

// hand does something with what was built: it is given to an engine, and commands are
// told. failed is why not all of it was built. What goes wrong is shown here.
func (l *look) hand(ctx context.Context, out graph.Outcome, failed error) error {
	s, r := l.site.shop.stage, l.run
	var errs []error
	tell := func(err error) {
		if err != nil && ctx.Err() == nil {
			errs = append(errs, err)
			s.after(func() { fmt.Fprintf(r.term.err, "\n%s\n", printableLines(err.Error())) })
		}
	}
	if run := s.service; run != nil && ctx.Err() == nil {
		if id, err := run.node(l.site.p); err == nil && r.results[string(id)].Node != "" {
			run.start(s.ctx, l.site.x, l.nodes[string(id)], l.looked)
		}
	}
	var names []string
	var last hookResult
	for _, o := range out.Of(graph.Succeeded) {
		n := l.site.p.Node(o.ID)
		res := r.results[string(o.ID)]
		if n.Joined && n.Platform != executor.HostPlatform() {
			continue
		}
		if l.site.shop.engine != nil && n.Index == nil && !n.Target.Internal && len(res.Names) > 0 {
			tell(l.load(ctx, string(o.ID)))
		}
		if n.Joined {
			continue // its index speaks for it
		}
		told := r.hookResult(n, res, nil)
		if n.Selected {
			names, last = append(names, n.Target.Name), told
		}
		if isCommand(n.Target.OnSuccess) {
			tell(r.hooks.command(ctx, string(o.ID), n.Target.Name, n.Target.OnSuccess, told))
		}
	}
	if failed == nil && len(errs) == 0 {
		if c := l.site.w.manifest.Watch.OnSuccess; isCommand(c) {
			if len(names) != 1 {
				last = hookResult{status: string(schema.OnSuccess)}
			}
			tell(r.hooks.command(ctx, "", strings.Join(names, " "), c, last))
		}
		return errors.Join(errs...)
	}
	if c := l.site.w.manifest.Watch.OnFailure; isCommand(c) {
		var lost []string
		for _, o := range out.Of(graph.Failed) {
			lost = append(lost, string(o.ID))
		}
		tell(r.hooks.command(ctx, "", strings.Join(lost, " "), c, hookResult{status: string(schema.OnFailure)}))
	}
	if l.site.shop.f.bell && isTerminal(r.term.err) {
		s.after(func() { fmt.Fprint(r.term.err, "\a") })
	}
	return errors.Join(errs...)
}

func isCommand(c schema.Command) bool { return c.Line != "" || len(c.Words) > 0 }

// load gives the image of a node to an engine. What the engine says goes to the node's
// log.
func (l *look) load(ctx context.Context, id string) error {
	out := &hookOutput{log: func(lines string) { l.run.hooks.log(id, lines) }}
	err := load(ctx, terminal{out: out, err: out}, l.site.shop.engine.takes(false), func(w io.Writer) error {
		_, err := l.run.made(id).export(ctx, executor.Output{Type: "docker", Dest: "-", Stdout: w})
		return err
	})
	out.flush()
	if err != nil {
		return fmt.Errorf("load %s: %w", id, err)
	}
	return nil
}
