package main

import (
	"fmt"
	"io"
	"maps"
	"strings"

	"github.com/spf13/cobra"

	"kaniko-build/cmd/kaniko-build/internal/report"
	"kaniko-build/executor"
	"kaniko-build/graph"
	"kaniko-build/plan"
)

// graphFlags are those of the picture.
type graphFlags struct {
	lookFlags
	format string
}

func newGraph(t terminal) *cobra.Command {
	f := &graphFlags{format: "dot"}
	c := &cobra.Command{
		Use:   "graph [flags] [TARGET...]",
		Short: "Draw what needs what",
		Long: `Draw what needs what: what is needed stands to the left, groups are bands, and the
longest chain is marked. svg and html are pictures to look at, the latter with a
search, and with details at a click; dot is for Graphviz, mermaid for Markdown,
json for programs.

With --affected images are coloured that a change is about, as for plan. With
--explain those whose steps are all known, and of the others those with a step
that will run; registries and caches are asked as for plan --explain.`,
		Example: "  kaniko-build graph --format html > graph.html\n  kaniko-build graph --format mermaid api\n  kaniko-build graph | dot -Tsvg > graph.svg",
		RunE:    func(c *cobra.Command, args []string) error { return f.draw(c, t, args) },
	}
	f.manifestFlags.add(c)
	f.addInputs(c)
	f.cache.add(c)
	f.affected.add(c)
	c.Flags().Lookup("affected").Usage = "colour what changed files affect, BASE or BASE..HEAD (see plan)"
	c.Flags().StringVar(&f.format, "format", f.format, "dot, mermaid, svg, html or json")
	complete(c, "format", "dot", "mermaid", "svg", "html", "json")
	c.Flags().BoolVar(&f.explain, "explain", false, "colour what is known, and what will be built")
	return c
}

func (f *graphFlags) draw(c *cobra.Command, t terminal, selection []string) error {
	formats := map[string]func(*graph.Graph, io.Writer, graph.Look) error{
		"dot": (*graph.Graph).DOT, "mermaid": (*graph.Graph).Mermaid, "svg": (*graph.Graph).SVG, "json": (*graph.Graph).JSON, "html": nil,
	}
	write, ok := formats[f.format]
	if !ok {
		return usageError{fmt.Errorf("no format %q: choose dot, mermaid, svg, html or json", f.format)}
	}
	w, err := f.read(c.Context())
	if err != nil {
		return err
	}
	p, err := w.plan(selection)
	if err != nil {
		return err
	}
	look := p.Look()
	if look.Critical, err = w.critical(p); err != nil {
		return err
	}
	if f.format == "html" {
		write = func(g *graph.Graph, out io.Writer, look graph.Look) error {
			return report.Graph(out, w.manifest.Name, g, look)
		}
	}
	k := &colours{class: map[graph.ID]string{}, note: map[graph.ID]string{}}
	look.Class = func(id graph.ID) string { return k.class[id] }
	look.Note = func(id graph.ID) string { return k.note[id] }
	if f.affected.since != "" {
		causes, err := f.affected.causes(c, t, &f.lookFlags, w, p)
		if err != nil {
			return err
		}
		k.affected(p, causes)
	}
	if !f.explain {
		return write(p.Graph(), t.out, look)
	}
	caches := func(requests []executor.Request) error { return f.cache.set(c, w, p, requests) }
	return f.inspected(c.Context(), t, w, p, caches, func(x *executor.Executor, nodes []*executor.Node) error {
		states, err := x.Explain(c.Context(), nodes)
		if err != nil {
			return err
		}
		k.known(states)
		return write(p.Graph(), t.out, look)
	})
}

// colours is what nodes are and why, as a picture shows it.
type colours struct{ class, note map[graph.ID]string }

// affected marks those that a change is about, all of them without causes.
func (k *colours) affected(p *plan.Plan, causes map[graph.ID]plan.Cause) {
	for _, n := range p.Nodes {
		cause, ok := causes[n.ID]
		if causes == nil || ok {
			k.class[n.ID] = "affected"
		}
		if ok {
			k.note[n.ID] = printable(strings.TrimSpace(cause.Text + " " + cause.Pos.String()))
		}
	}
}

// known marks the others by what is known of their steps.
func (k *colours) known(states []executor.State) {
	marked := maps.Clone(k.class)
	for _, s := range states {
		switch id := graph.ID(s.Node); {
		case marked[id] != "":
		case s.Hit && k.class[id] == "":
			k.class[id] = "cached"
		case !s.Hit && k.class[id] != "affected":
			k.class[id] = "affected"
			k.note[id] = strings.TrimSpace(stepName(s)) + ": " + oneLine(s.Text)
			if s.Why != nil {
				k.note[id] += "\n" + printable(s.Why.Text)
			}
		}
	}
}
