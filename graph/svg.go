package graph

import (
	"bytes"
	"cmp"
	"fmt"
	"html"
	"io"
	"slices"
	"strings"

	"kaniko-build/graph/layout"
)

// Sizes of the picture, in pixels. The font is a monospaced one, so that the
// width of a text is known wherever it is shown.
const (
	letter      = 7.9 // of 13 pixels
	smallLetter = 7.0 // of 11.5 pixels
	padding     = 12.0
	lineHeight  = 16.0
	maxLabel    = 40 // letters
	maxGroup    = 18
)

// SVG writes the graph as a picture: what is needed stands to the left, groups are
// bands, and many nodes that need the same are a table with one line to it. It
// needs no network, follows the reader's choice of light or dark, and shows names
// in full, and why there is a line, under the pointer.
//
// Nodes carry data-id, lines data-edges with `needed>node` for each of their edges,
// so that a page can find them.
func (g *Graph) SVG(w io.Writer, look Look) error {
	names, members := look.groups(g)
	lane := make([]int, len(g.ids))
	for n, name := range names {
		for _, i := range members[name] {
			lane[i] = n
		}
	}
	critical := look.critical(g)
	nodes := make([]layout.Node, len(g.ids))
	labels := make([][]string, len(g.ids))
	for i, id := range g.ids {
		labels[i] = strings.Split(printable(look.label(id)), "\n")
		for n, l := range labels[i] {
			labels[i][n] = cut(l, maxLabel)
		}
		width := 0.0
		for n, l := range labels[i] {
			width = max(width, columns(l)*letterOf(n))
		}
		nodes[i] = layout.Node{Width: width + 2*padding, Height: lineHeight*float64(len(labels[i])) + 16, Lane: lane[i], Apart: critical[id]}
	}
	edges, reasons := g.lines()
	gutter := 0.0
	for _, name := range names {
		if name != "" {
			gutter = max(gutter, columns(cut(printable(name), maxGroup))*smallLetter+padding)
		}
	}
	p := layout.Make(nodes, edges, len(names), gutter)

	var b bytes.Buffer
	classes := look.classes(g)
	legend := 0.0
	if len(classes) > 0 || len(look.Critical) > 0 {
		legend = 36
	}
	width, height := max(p.Width, 560*min(legend, 1)), p.Height+legend
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" class="graph" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" role="img">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, "<title>%d nodes</title>\n<style>%s</style>\n", len(g.ids), SVGStyle)
	b.WriteString(`<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0.8L7 4L0 7.2z"/></marker>` +
		`<marker id="tip-critical" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" markerUnits="userSpaceOnUse" orient="auto"><path class="critical" d="M0 0.8L7 4L0 7.2z"/></marker></defs>` + "\n")
	fmt.Fprintf(&b, `<rect class="paper" width="%.0f" height="%.0f"/>`+"\n", width, height)
	for n, r := range p.Lanes {
		if r.Height == 0 || names[n] == "" {
			continue
		}
		fmt.Fprintf(&b, `<g class="lane"><rect %s rx="10"/>`, at(layout.Rect{X: 2, Y: r.Y, Width: r.Width - 4, Height: r.Height}))
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f">%s<title>%s</title></text></g>`+"\n", padding+2, r.Y+20, xml(cut(printable(names[n]), maxGroup)), xml(names[n]))
	}
	for _, bl := range p.Blocks {
		fmt.Fprintf(&b, `<rect class="block" %s rx="8"/>`+"\n", at(bl.Rect))
	}
	for pass := range 2 { // the critical path lies above the rest
		for _, l := range p.Lines {
			class, why, keys, marked := "line", "", []string{}, false
			for n, e := range l.Edges {
				from, to := g.ids[edges[e].From], g.ids[edges[e].To]
				keys = append(keys, string(from)+">"+string(to))
				marked = marked || look.follows(from, to)
				if n < 12 {
					why += fmt.Sprintf("%s needs %s  %s\n", to, from, reasons[e])
				}
			}
			if more := len(l.Edges) - 12; more > 0 {
				why += fmt.Sprintf("and %d more\n", more)
			}
			if marked != (pass == 1) {
				continue
			}
			tip := "tip"
			if marked {
				class, tip = "line critical", "tip-critical"
			}
			fmt.Fprintf(&b, `<path class="%s" d="%s" marker-end="url(#%s)" data-edges="%s"><title>%s</title></path>`+"\n", class, l.SVG(), tip, xml(strings.Join(keys, " ")), xml(strings.TrimSuffix(why, "\n")))
		}
	}
	for _, i := range g.order {
		id, r := g.ids[i], p.Nodes[i]
		class := "node"
		if c := look.class(id); c != "" {
			class += " " + c
		}
		if critical[id] {
			class += " critical"
		}
		fmt.Fprintf(&b, `<g class="%s" data-id="%s"><rect %s rx="6"/>`, xml(class), xml(string(id)), at(r))
		y := r.Y + r.Height/2 - lineHeight*float64(len(labels[i])-1)/2 + 4.5
		for n, l := range labels[i] {
			small := ""
			if n > 0 {
				small = ` class="small"`
			}
			fmt.Fprintf(&b, `<text%s x="%.1f" y="%.1f">%s</text>`, small, r.X+padding, y+lineHeight*float64(n), xml(l))
		}
		title := string(id)
		if class := look.class(id); class != "" {
			title += "\n" + class
		}
		if look.Note != nil {
			title = strings.TrimSuffix(title+"\n"+look.Note(id), "\n")
		}
		fmt.Fprintf(&b, "<title>%s</title></g>\n", xml(title))
	}
	if legend > 0 {
		x := margin
		if len(look.Critical) > 0 {
			classes = append(classes, "critical path")
		}
		b.WriteString(`<g class="legend">`)
		for _, c := range classes {
			class, _, _ := strings.Cut(c, " ")
			fmt.Fprintf(&b, `<g class="node %s"><rect x="%.1f" y="%.1f" width="18" height="12" rx="3"/><text class="small" x="%.1f" y="%.1f">%s</text></g>`, xml(class), x, p.Height+11, x+26, p.Height+21, xml(c))
			x += 26 + columns(c)*smallLetter + 22
		}
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	_, err := w.Write(b.Bytes())
	return err
}

const margin = 16.0

// lines is one edge between each two nodes that have any, with its reasons.
func (g *Graph) lines() (out []layout.Edge, reasons []string) {
	met := map[layout.Edge]int{}
	for _, e := range g.edges {
		l := layout.Edge{From: g.index[e.Needs], To: g.index[e.Node]}
		n, ok := met[l]
		if !ok {
			n = len(out)
			met[l] = n
			out, reasons = append(out, l), append(reasons, "")
		}
		if e.Reason != "" {
			reasons[n] = strings.TrimPrefix(reasons[n]+", "+printable(e.Reason), ", ")
		}
	}
	return out, reasons
}

// classes are those of the nodes, sorted.
func (l Look) classes(g *Graph) []string {
	var out []string
	for _, id := range g.ids {
		if c := l.class(id); c != "" {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, cmp.Compare)
	return slices.Compact(out)
}

func letterOf(line int) float64 {
	if line > 0 {
		return smallLetter
	}
	return letter
}

// columns is how many letters wide a text is: those of East Asia are wider, and
// whatever is not known counts as if it were.
func columns(s string) float64 {
	n := 0
	for _, r := range s {
		switch {
		case r < 0x300:
			n++
		default:
			n += 2
		}
	}
	return float64(n)
}

// cut shortens a text in its middle, where names differ least.
func cut(s string, letters int) string {
	r := []rune(s)
	if len(r) <= letters {
		return s
	}
	head := letters / 2
	return string(r[:head]) + "…" + string(r[len(r)-(letters-head-1):])
}

func at(r layout.Rect) string {
	return fmt.Sprintf(`x="%.1f" y="%.1f" width="%.1f" height="%.1f"`, r.X, r.Y, r.Width, r.Height)
}

func xml(s string) string { return html.EscapeString(printable(s)) }

// SVGStyle is how pictures look, in CSS: each holds it, a page may too. The colours of
// classes say what became of a node; they differ in lightness too.
const SVGStyle = `
.graph{--paper:#fff;--ink:#1f2933;--soft:#616e7c;--box:#f5f7fa;--edge:#9aa5b1;--frame:#cbd2d9;--lane:#f5f7fa;--critical:#d9480f;
--cached:#e3f6ec;--cached-edge:#57ae7f;--affected:#fff3d6;--affected-edge:#d69e2e;--built:#e0effe;--built-edge:#4098d7;--failed:#ffe3e3;--failed-edge:#d64545;--skipped:#eceff3;--skipped-edge:#9aa5b1}
@media (prefers-color-scheme:dark){.graph{--paper:#14181d;--ink:#e4e7eb;--soft:#9aa5b1;--box:#1f262e;--edge:#616e7c;--frame:#3e4c59;--lane:#191f25;--critical:#ff922b;
--cached:#17362a;--cached-edge:#57ae7f;--affected:#3d3216;--affected-edge:#d69e2e;--built:#16324a;--built-edge:#4098d7;--failed:#471d1d;--failed-edge:#e66a6a;--skipped:#262c33;--skipped-edge:#616e7c}}
.graph{font:13px/1 ui-monospace,"DejaVu Sans Mono","Liberation Mono",Menlo,Consolas,monospace;background:var(--paper)}
.graph .paper{fill:var(--paper)}
.graph text{fill:var(--ink)}.graph .small,.graph .lane text{font-size:11.5px;fill:var(--soft)}
.graph .lane rect{fill:var(--lane);stroke:var(--frame);stroke-width:.6}.graph .lane text{font-weight:600}
.graph .block{fill:none;stroke:var(--frame);stroke-dasharray:3 3}
.graph .node rect{fill:var(--box);stroke:var(--edge);stroke-width:1}
.graph .node.cached rect{fill:var(--cached);stroke:var(--cached-edge)}.graph .node.affected rect{fill:var(--affected);stroke:var(--affected-edge)}
.graph .node.built rect{fill:var(--built);stroke:var(--built-edge)}.graph .node.failed rect{fill:var(--failed);stroke:var(--failed-edge)}
.graph .node.skipped rect{fill:var(--skipped);stroke:var(--skipped-edge);stroke-dasharray:4 3}
.graph .node.critical rect{stroke:var(--critical);stroke-width:2}
.graph .line{fill:none;stroke:var(--edge);stroke-width:1.1}.graph .line.critical{stroke:var(--critical);stroke-width:2.2}
.graph marker path{fill:var(--edge);fill:context-stroke}.graph marker path.critical{fill:var(--critical)}
.graph .line:hover{stroke:var(--ink);stroke-width:2.2}
`
