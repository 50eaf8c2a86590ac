package plan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"

	"kaniko-build/graph"
	"kaniko-build/schema/diag"
)

// Table writes the plan for people: the nodes in the order they run, then the
// edges with their reasons, then the warnings.
func (p *Plan) Table(w io.Writer) error {
	var b bytes.Buffer
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row(t, "#", "NODE", "PLATFORM", "BECAUSE", "DOCKERFILE", "IMAGES")
	for i, id := range p.Order {
		n := p.Node(id)
		because := "needed"
		switch {
		case n.Cause != nil:
			because = n.Cause.Text
		case n.Selected:
			because = "selected"
		}
		row(t, strconv.Itoa(i+1), string(id), orDash(n.Platform), because, dockerfileOf(n), strings.Join(imagesOf(n), ", "))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(p.Edges) > 0 {
		b.WriteString("\n")
		row(t, "NODE", "NEEDS", "BECAUSE OF", "IN")
		for _, e := range p.Edges {
			row(t, string(e.Node), string(e.Needs), e.Reason(), orDash(e.Pos.String()))
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	for i, warning := range p.Warnings {
		if i == 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "warning: %s\n", warning)
	}
	_, err := w.Write(b.Bytes())
	return err
}

// row writes cells that cannot break the table.
func row(w io.Writer, cells ...string) {
	for i, c := range cells {
		cells[i] = printable(c)
	}
	fmt.Fprintln(w, strings.Join(cells, "\t")) // a tabwriter keeps its error for Flush
}

// printable is a text from a manifest or a Dockerfile that cannot speak to the
// terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// imagesOf is the refs of a node, those that name its input digest as written.
func imagesOf(n *Node) []string {
	if n.Joined {
		return []string{} // its index has them
	}
	out := n.Target.RefNames()
	for _, r := range n.Target.InputRefs {
		out = append(out, r.Text)
	}
	return out
}

// dockerfileOf is the Dockerfile, or where in the manifest it stands.
func dockerfileOf(n *Node) string {
	if n.Index != nil {
		return "-"
	}
	if n.Target.Inline != nil {
		return n.Target.Inline.Pos.String()
	}
	return n.Target.Dockerfile
}

// JSON writes the plan for programs. Its keys are part of what we promise: new
// ones may come, none goes away or changes its meaning.
//
//	{"nodes": [{"id", "target", "platform", "selected", "internal", "context",
//	            "dockerfile", "stage", "args", "images", "parents": {name: id},
//	            "published": {name: image}, "index": [id], "cause"}],
//	 "edges": [{"node", "needs", "kind", "use", "name", "weak", "at": {"file", "line", "col"}}],
//	 "order": [id], "levels": [[id]],
//	 "warnings": [{"at", "text", "hint"}]}
func (p *Plan) JSON(w io.Writer) error {
	type node struct {
		ID         graph.ID             `json:"id"`
		Target     string               `json:"target"`
		Platform   string               `json:"platform,omitempty"`
		Selected   bool                 `json:"selected"`
		Internal   bool                 `json:"internal"`
		Context    string               `json:"context"`
		Dockerfile string               `json:"dockerfile"`
		Inline     bool                 `json:"inline,omitempty"`
		Stage      string               `json:"stage,omitempty"`
		Args       map[string]string    `json:"args,omitempty"`
		Images     []string             `json:"images"`
		Parents    map[string]graph.ID  `json:"parents,omitempty"`
		Published  map[string]Published `json:"published,omitempty"`
		Index      []graph.ID           `json:"index,omitempty"`
		Cause      string               `json:"cause,omitempty"`
	}
	type edge struct {
		Node  graph.ID `json:"node"`
		Needs graph.ID `json:"needs"`
		Kind  EdgeKind `json:"kind"`
		Use   string   `json:"use"`
		Name  string   `json:"name"`
		Weak  bool     `json:"weak,omitempty"`
		At    diag.Pos `json:"at"`
	}
	type warning struct {
		At   diag.Pos `json:"at"`
		Text string   `json:"text"`
		Hint string   `json:"hint,omitempty"`
	}
	out := struct {
		Nodes    []node       `json:"nodes"`
		Edges    []edge       `json:"edges"`
		Order    []graph.ID   `json:"order"`
		Levels   [][]graph.ID `json:"levels"`
		Warnings []warning    `json:"warnings,omitempty"`
	}{Nodes: []node{}, Edges: []edge{}, Order: p.Order, Levels: p.graph.Levels()}
	for _, n := range p.Nodes {
		t := n.Target
		cause := ""
		if n.Cause != nil {
			cause = n.Cause.Text
		}
		out.Nodes = append(out.Nodes, node{
			ID: n.ID, Target: t.Name, Platform: n.Platform, Selected: n.Selected, Internal: t.Internal,
			Context: t.Context, Dockerfile: dockerfileOf(&n), Inline: t.Inline != nil, Stage: t.Stage,
			Args: t.Args, Images: imagesOf(&n), Parents: n.Parents, Published: n.Published, Index: n.Index, Cause: cause,
		})
	}
	for _, e := range p.Edges {
		out.Edges = append(out.Edges, edge{e.Node, e.Needs, e.Kind, e.Use, e.Name, e.Weak, e.Pos})
	}
	for _, problem := range p.Warnings {
		out.Warnings = append(out.Warnings, warning{problem.Pos, problem.What, problem.Hint})
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}
