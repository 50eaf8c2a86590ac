package report

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"strings"

	"kaniko-build/cmd/kaniko-build/internal/logtext"
	"kaniko-build/graph"
)

//go:embed page.html
var page string

//go:embed page.css
var style string

//go:embed parts.js
var parts string

//go:embed page.js
var script string

// Style is how pages look, without the picture of a graph: that is graph.SVGStyle.
func Style() string { return style }

// Script is a script that has what all pages have before it: elements, times and sizes
// as people read them, and `drawing`, which gives life to the picture of a graph.
func Script(s string) string { return "\"use strict\";\n(() => {\n" + parts + s + "})();\n" }

// Page writes the page of a run with its graph.
func Page(w io.Writer, r Run, g *graph.Graph, look graph.Look) error {
	data, err := json.Marshal(r) // its strings hold no "<": it becomes an escape
	if err != nil {
		return fmt.Errorf("encode the run: %w", err)
	}
	var svg bytes.Buffer
	if err := g.SVG(&svg, look); err != nil {
		return err
	}
	_, err = strings.NewReplacer(
		"{{title}}", html.EscapeString(r.Title), "{{style}}", style, "{{script}}", Script(script), "{{graph}}", svg.String(), "{{data}}", string(data),
	).WriteString(w, page)
	return err
}

// Graph writes the page of a graph of which nothing was built.
func Graph(w io.Writer, title string, g *graph.Graph, look graph.Look) error {
	r := Run{Title: title}
	reasons := map[[2]graph.ID]string{}
	for _, e := range g.Edges() {
		if at := [2]graph.ID{e.Node, e.Needs}; e.Reason != "" {
			reasons[at] = strings.TrimPrefix(reasons[at]+", "+logtext.Line(e.Reason), ", ")
		}
	}
	for _, id := range g.Order() {
		n := &Node{ID: string(id)}
		if look.Group != nil {
			n.Group = look.Group(id)
		}
		if look.Class != nil {
			n.State = look.Class(id)
		}
		if look.Note != nil {
			n.Note = logtext.Lines(look.Note(id))
		}
		for _, p := range g.Needs(id) {
			n.Needs = append(n.Needs, string(p))
			n.Reasons = append(n.Reasons, reasons[[2]graph.ID{id, p}])
		}
		r.Nodes = append(r.Nodes, n)
	}
	for _, id := range look.Critical {
		r.Critical = append(r.Critical, string(id))
	}
	return Page(w, r, g, look)
}
