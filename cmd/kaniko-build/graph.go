package main

import (
	"fmt"
	"io"
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

With --explain images whose steps are all known are coloured, and those with a
step that will run; registries and caches are asked as for plan --explain.`,
		Example: "  kaniko-build graph --format html > graph.html\n  kaniko-build graph --format mermaid api\n  kaniko-build graph | dot -Tsvg > graph.svg",
		RunE:    func(c *cobra.Command, args []string) error { return f.draw(c, t, args) },
	}
	f.manifestFlags.add(c)
	f.addInputs(c)
	f.cache.add(c)
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
	look.Critical = p.Graph().CriticalPath(nil)
	if f.format == "html" {
		write = func(g *graph.Graph, out io.Writer, look graph.Look) error {
			return report.Graph(out, w.manifest.Name, g, look)
		}
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
		known(&look, p, states)
		return write(p.Graph(), t.out, look)
	})
}

// known colours nodes by what is known of their steps.
func known(look *graph.Look, p *plan.Plan, states []executor.State) {
	why := map[graph.ID]string{}
	class := map[graph.ID]string{}
	for _, n := range p.Nodes {
		class[n.ID] = "cached"
	}
	for _, s := range states {
		id := graph.ID(s.Node)
		if s.Hit || class[id] == "affected" {
			continue
		}
		class[id] = "affected"
		why[id] = strings.TrimSpace(stepName(s)) + ": " + oneLine(s.Text)
		if s.Why != nil {
			why[id] += "\n" + printable(s.Why.Text)
		}
	}
	look.Class = func(id graph.ID) string { return class[id] }
	look.Note = func(id graph.ID) string { return why[id] }
}
