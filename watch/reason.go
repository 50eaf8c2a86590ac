package watch

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"kaniko-build/graph"
	"kaniko-build/watch/notify"
)

// counts tells whether a path may count for anything.
func (e *Engine) counts(path string) bool { return !Temporary(path) && !e.site.Ignored(path) }

// ofSite tells whether one of the paths asks for another reading of the manifest.
func (e *Engine) ofSite(s notify.Set) bool {
	return slices.ContainsFunc(s.Paths(), func(p string) bool { return e.site.Asks(p, s.Below(p)) })
}

// causes finds the nodes that read one of the paths, or looked for it.
func (e *Engine) causes(s notify.Set) map[graph.ID]Cause {
	out := map[graph.ID]Cause{}
	e.copies = map[graph.ID][]string{}
	add := func(id graph.ID, path, text string) {
		if c, ok := out[id]; ok {
			c.More++
			out[id] = c
			return
		}
		c := Cause{Node: id, Path: e.relative(path), Text: text}
		if fi, err := os.Lstat(path); err == nil {
			c.Saved = fi.ModTime()
		} else {
			c.Gone = true
		}
		out[id] = c
	}
	for _, p := range s.Paths() {
		if !e.counts(p) {
			continue
		}
		for _, id := range e.site.Graph().Order() {
			n := e.nodes[id]
			if n == nil || n.reads == nil {
				continue
			}
			if why, ok := n.reads.Of(p); ok {
				switch e.site.Rule(id, p) {
				case Nought:
				case Copy:
					e.copies[id] = append(e.copies[id], p)
				default:
					add(id, p, why)
				}
			} else if s.Below(p) && n.reads.Enters(p) {
				add(id, p, "")
			}
		}
		for _, c := range e.site.Beside(p) {
			add(c.Node, p, c.Text)
		}
	}
	return out
}

// relative is a path as people name it in this workspace.
func (e *Engine) relative(p string) string {
	if rel, err := filepath.Rel(e.site.Top(), p); err == nil && !strings.HasPrefix(rel, "..") {
		return filepath.ToSlash(rel)
	}
	return p
}

// paths names the paths of a set, as many as are worth it.
func (e *Engine) paths(s notify.Set) string {
	list := s.Paths()
	if len(list) == 0 {
		return ""
	}
	text := e.relative(list[0])
	if n := len(list) - 1; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}

// reasons says of nodes that are built why, in their order.
func (e *Engine) reasons(ids []graph.ID, in map[graph.ID]bool, causes map[graph.ID]Cause) []Cause {
	out := make([]Cause, len(ids))
	for i, id := range ids {
		if c, ok := causes[id]; ok {
			out[i] = c
			continue
		}
		out[i] = Cause{Node: id}
		for _, need := range e.site.Graph().Needs(id) {
			if in[need] {
				out[i].Needs, out[i].Text = need, e.site.Reason(id, need)
				break
			}
		}
	}
	return out
}

// clock is how a time is shown.
const clock = "15:04:05"

// String says why, in words that follow the node's name.
func (c Cause) String() string {
	if c.Path == "" {
		return c.Text
	}
	what := "changed"
	if c.Gone {
		what = "removed"
	}
	text := c.Path
	if c.More > 0 {
		text += fmt.Sprintf(" and %d more", c.More)
	}
	text += " " + what
	if !c.Saved.IsZero() {
		text += " (saved " + c.Saved.Format(clock) + ")"
	}
	return text
}

// sentence says what changed and what is built for it.
func (e *Engine) sentence(list []Cause) string {
	var why, what []string
	for _, c := range list {
		name := string(c.Node)
		if c.Needs != "" {
			what = append(what, name+" ("+c.Text+")")
			continue
		}
		what = append(what, name)
		if s := c.String(); s != "" {
			why = append(why, name+": "+s)
		}
	}
	text := "building " + strings.Join(limited(what), ", ")
	if len(why) > 0 {
		text = strings.Join(limited(why), ", ") + "; " + text
	}
	return text
}

// limited is a list that fits into a sentence.
func limited(list []string) []string {
	const most = 8
	if len(list) <= most {
		return list
	}
	return append(list[:most:most], fmt.Sprintf("and %d more", len(list)-most))
}

// wants is what has to be watched now, and its shape.
func (e *Engine) wants() (notify.Interest, string) {
	var shape strings.Builder
	var i notify.Interest
	seen := map[string]bool{}
	tree := func(dir string) {
		if !seen[dir] {
			seen[dir] = true
			i.Trees = append(i.Trees, dir)
		}
		fmt.Fprintln(&shape, dir)
	}
	file := func(name string) {
		i.Files = append(i.Files, name)
		fmt.Fprintln(&shape, name)
	}
	for _, f := range e.shop.Files() {
		file(f)
	}
	if e.site == nil {
		return i, shape.String()
	}
	i.Top = e.site.Top()
	var reads []Reads
	for _, id := range e.site.Graph().Order() {
		n := e.nodes[id]
		if n.reads == nil {
			continue
		}
		reads = append(reads, n.reads)
		for _, dir := range n.reads.Roots() {
			tree(dir)
		}
		fmt.Fprintln(&shape, n.reads.Shape())
	}
	for _, f := range e.site.Files() {
		file(f)
	}
	beside := e.site.Watched()
	for _, dir := range beside.Trees {
		tree(dir)
	}
	site := e.site
	i.Enters = func(dir string) bool {
		if Temporary(dir) || site.Ignored(dir) {
			return false
		}
		for _, r := range reads {
			if r.Enters(dir) {
				return true
			}
		}
		return beside.Enters != nil && beside.Enters(dir)
	}
	return i, shape.String()
}
