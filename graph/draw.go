package graph

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// Look is how nodes are shown. The zero value shows their IDs, in no group.
type Look struct {
	Label func(ID) string // nil: the ID
	Group func(ID) string // the box a node stands in, "" for none; nil: none
}

func (l Look) label(id ID) string {
	if l.Label == nil {
		return string(id)
	}
	return l.Label(id)
}

// groups is the nodes by group, in the order the groups first appear; those
// without a group come first, under "".
func (l Look) groups(g *Graph) (names []string, members map[string][]int) {
	names, members = []string{""}, map[string][]int{}
	for i, id := range g.ids {
		name := ""
		if l.Group != nil {
			name = l.Group(id)
		}
		if _, met := members[name]; !met && name != "" {
			names = append(names, name)
		}
		members[name] = append(members[name], i)
	}
	return names, members
}

// DOT writes the graph for Graphviz, an arrow from each node to those that need it.
func (g *Graph) DOT(w io.Writer, look Look) error {
	var b bytes.Buffer
	b.WriteString("digraph {\n  rankdir=LR;\n  node [shape=box];\n")
	names, members := look.groups(g)
	for n, name := range names {
		indent := "  "
		if name != "" {
			indent = "    "
			fmt.Fprintf(&b, "  subgraph cluster_%d {\n    label=%s;\n", n, dotText(name))
		}
		for _, i := range members[name] {
			fmt.Fprintf(&b, "%sn%d [label=%s];\n", indent, i, dotText(look.label(g.ids[i])))
		}
		if name != "" {
			b.WriteString("  }\n")
		}
	}
	for _, e := range g.edges {
		fmt.Fprintf(&b, "  n%d -> n%d", g.index[e.Needs], g.index[e.Node])
		if e.Reason != "" {
			fmt.Fprintf(&b, " [label=%s]", dotText(e.Reason))
		}
		b.WriteString(";\n")
	}
	b.WriteString("}\n")
	_, err := w.Write(b.Bytes())
	return err
}

// dotText quotes a text so that Graphviz shows it as it is.
func dotText(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "&", "&amp;", "\n", `\n`).Replace(printable(s)) + `"`
}

// Mermaid writes the graph as a Mermaid flowchart, an arrow from each node to
// those that need it.
func (g *Graph) Mermaid(w io.Writer, look Look) error {
	var b bytes.Buffer
	b.WriteString("flowchart LR\n")
	names, members := look.groups(g)
	for n, name := range names {
		indent := "  "
		if name != "" {
			indent = "    "
			fmt.Fprintf(&b, "  subgraph g%d[\"%s\"]\n", n, mermaidText(name))
		}
		for _, i := range members[name] {
			fmt.Fprintf(&b, "%sn%d[\"%s\"]\n", indent, i, mermaidText(look.label(g.ids[i])))
		}
		if name != "" {
			b.WriteString("  end\n")
		}
	}
	for _, e := range g.edges {
		arrow := "-->"
		if e.Reason != "" {
			arrow = fmt.Sprintf("-->|\"%s\"|", mermaidText(e.Reason))
		}
		fmt.Fprintf(&b, "  n%d %s n%d\n", g.index[e.Needs], arrow, g.index[e.Node])
	}
	_, err := w.Write(b.Bytes())
	return err
}

// mermaidText is a text for inside double quotes. Mermaid writes characters that
// mean something as #code;, and takes a leading backtick for Markdown.
func mermaidText(s string) string {
	var b strings.Builder
	for _, r := range printable(s) {
		switch {
		case r == '\n':
			b.WriteString("<br/>")
		case strings.ContainsRune("\"#&<>`;\\{}[]|", r):
			fmt.Fprintf(&b, "#%d;", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// printable replaces control characters, but for line ends, and bytes that are no
// text, so that a name cannot speak to the terminal or the page that shows it.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// JSON writes nodes in topological order, edges as given, and levels:
//
//	{"nodes": [{"id", "label", "group", "level", "needs": [id]}],
//	 "edges": [{"node", "needs", "reason"}],
//	 "levels": [[id]]}
func (g *Graph) JSON(w io.Writer, look Look) error {
	type node struct {
		ID    ID     `json:"id"`
		Label string `json:"label"`
		Group string `json:"group,omitempty"`
		Level int    `json:"level"`
		Needs []ID   `json:"needs"`
	}
	type edge struct {
		Node   ID     `json:"node"`
		Needs  ID     `json:"needs"`
		Reason string `json:"reason,omitempty"`
	}
	out := struct {
		Nodes  []node `json:"nodes"`
		Edges  []edge `json:"edges"`
		Levels [][]ID `json:"levels"`
	}{Nodes: []node{}, Edges: []edge{}, Levels: g.Levels()}
	level := map[ID]int{}
	for n, ids := range out.Levels {
		for _, id := range ids {
			level[id] = n
		}
	}
	for _, i := range g.order {
		n := node{ID: g.ids[i], Label: look.label(g.ids[i]), Level: level[g.ids[i]], Needs: g.names(g.needs[i])}
		if look.Group != nil {
			n.Group = look.Group(n.ID)
		}
		out.Nodes = append(out.Nodes, n)
	}
	for _, e := range g.edges {
		out.Edges = append(out.Edges, edge(e))
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}
