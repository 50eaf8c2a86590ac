package graph

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Look is how nodes are shown. The zero value shows their IDs, in no group.
type Look struct {
	Label func(ID) string // nil: the ID
	Group func(ID) string // the box a node stands in, "" for none; nil: none
	// Class is a word for what a node is, "" for nothing special; nil: nothing. It
	// has a colour if it is one of Classes.
	Class    func(ID) string
	Note     func(ID) string // what is shown under the pointer beside the name; nil: nothing
	Critical []ID            // a path that is marked: each needs the one before
}

// Classes are the classes that have a colour.
var Classes = []string{"affected", "built", "cached", "failed", "skipped"}

// fills are the colours of Classes for Graphviz and Mermaid.
var fills = map[string][2]string{ // fill, line
	"affected": {"#fff3d6", "#d69e2e"}, "built": {"#e0effe", "#4098d7"}, "cached": {"#e3f6ec", "#57ae7f"},
	"failed": {"#ffe3e3", "#d64545"}, "skipped": {"#eceff3", "#9aa5b1"},
}

const criticalColour = "#d9480f"

func (l Look) class(id ID) string {
	if l.Class == nil {
		return ""
	}
	return l.Class(id)
}

// critical is the nodes of the marked path.
func (l Look) critical(g *Graph) map[ID]bool {
	out := map[ID]bool{}
	for _, id := range l.Critical {
		out[id] = true
	}
	return out
}

// follows tells whether two nodes stand one after the other in the marked path.
func (l Look) follows(needed, node ID) bool {
	for i := 1; i < len(l.Critical); i++ {
		if l.Critical[i-1] == needed && l.Critical[i] == node {
			return true
		}
	}
	return false
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
			fmt.Fprintf(&b, "%sn%d [label=%s%s];\n", indent, i, dotText(look.label(g.ids[i])), look.dot(g.ids[i]))
		}
		if name != "" {
			b.WriteString("  }\n")
		}
	}
	for _, e := range g.edges {
		fmt.Fprintf(&b, "  n%d -> n%d", g.index[e.Needs], g.index[e.Node])
		var attributes []string
		if e.Reason != "" {
			attributes = append(attributes, "label="+dotText(e.Reason))
		}
		if look.follows(e.Needs, e.Node) {
			attributes = append(attributes, fmt.Sprintf("color=%q, penwidth=2", criticalColour))
		}
		if len(attributes) > 0 {
			fmt.Fprintf(&b, " [%s]", strings.Join(attributes, ", "))
		}
		b.WriteString(";\n")
	}
	b.WriteString("}\n")
	_, err := w.Write(b.Bytes())
	return err
}

// dot is the attributes of a node that make it look like its class.
func (l Look) dot(id ID) string {
	out := ""
	if c, ok := fills[l.class(id)]; ok {
		out = fmt.Sprintf(", style=filled, fillcolor=%q, color=%q", c[0], c[1])
	}
	if slices.Contains(l.Critical, id) {
		out += fmt.Sprintf(", penwidth=2, color=%q", criticalColour)
	}
	return out
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
	var marked []string
	for n, e := range g.edges {
		arrow := "-->"
		if e.Reason != "" {
			arrow = fmt.Sprintf("-->|\"%s\"|", mermaidText(e.Reason))
		}
		fmt.Fprintf(&b, "  n%d %s n%d\n", g.index[e.Needs], arrow, g.index[e.Node])
		if look.follows(e.Needs, e.Node) {
			marked = append(marked, strconv.Itoa(n))
		}
	}
	for _, class := range look.classes(g) {
		if c, ok := fills[class]; ok {
			fmt.Fprintf(&b, "  classDef %s fill:%s,stroke:%s,color:#1f2933\n", class, c[0], c[1])
			for i, id := range g.ids {
				if look.class(id) == class {
					fmt.Fprintf(&b, "  class n%d %s\n", i, class)
				}
			}
		}
	}
	for _, id := range look.Critical {
		fmt.Fprintf(&b, "  style n%d stroke:%s,stroke-width:3px\n", g.index[id], criticalColour)
	}
	if len(marked) > 0 {
		fmt.Fprintf(&b, "  linkStyle %s stroke:%s,stroke-width:3px\n", strings.Join(marked, ","), criticalColour)
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
//	{"nodes": [{"id", "label", "group", "class", "critical", "level", "needs": [id]}],
//	 "edges": [{"node", "needs", "reason"}],
//	 "levels": [[id]]}
func (g *Graph) JSON(w io.Writer, look Look) error {
	type node struct {
		ID       ID     `json:"id"`
		Label    string `json:"label"`
		Group    string `json:"group,omitempty"`
		Class    string `json:"class,omitempty"`
		Critical bool   `json:"critical,omitempty"`
		Level    int    `json:"level"`
		Needs    []ID   `json:"needs"`
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
		n := node{ID: g.ids[i], Label: look.label(g.ids[i]), Class: look.class(g.ids[i]), Critical: slices.Contains(look.Critical, g.ids[i]), Level: level[g.ids[i]], Needs: g.names(g.needs[i])}
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
