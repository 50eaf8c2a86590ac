package schema

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"kaniko-build/schema/diag"
)

// printed is what Print shows besides targets.
type printed struct {
	name     string
	sections []entry // resolved, of all units
}

// show remembers a resolved section; those of several units become one.
func (p *parser) show(key string, v *value) {
	if v.kind != mapKind {
		return
	}
	prefix := ""
	if u := p.scope.unit(v.pos.File); u != nil {
		prefix = u.prefix
	}
	if prefix != "" && (key == "secrets" || key == "ssh") {
		var entries []entry
		for _, e := range v.entries {
			entries = append(entries, entry{prefix + e.name, e.pos, e.value})
		}
		v = newMap(v.pos, entries)
	}
	for i, old := range p.shown {
		if old.name == key {
			p.shown[i].value = newMap(old.value.pos, slices.Concat(old.value.entries, v.entries))
			return
		}
	}
	p.shown = append(p.shown, entry{key, v.pos, v})
}

// showVars remembers the values of variables, each where it comes from.
func (p *parser) showVars() {
	var entries []entry
	p.scope.all(func(v *variable) {
		if got := v.value; got != nil && got != failedValue {
			entries = append(entries, entry{v.name, v.pos, newMap(v.pos, []entry{{"type", v.pos, newText(v.pos, v.typ)}, {"default", got.pos, got}})})
		}
	})
	if entries != nil {
		p.shown = append(p.shown, entry{"vars", entries[0].pos, newMap(entries[0].pos, entries)})
	}
}

// shown is a resolved body fit to be read anywhere: contexts and Dockerfile from the
// workspace root, tags as they are.
func (d decoder) shown(t *Target) *value {
	var out []entry
	if t.ContextPos == (diag.Pos{}) && t.Context != "." { // where the file is
		out = append(out, entry{"context", t.Pos, newText(t.Pos, d.shownPath(t.Context))})
	}
	for _, e := range d.body.entries {
		v := e.value
		switch e.name {
		case "context":
			v = moved(v, d.shownPath(t.Context))
		case "dockerfile":
			if inside, ok := strings.CutPrefix(t.Dockerfile, t.Context+"/"); ok && rootOf(t.Context) != "" {
				v = moved(v, inside)
			} else {
				v = moved(v, "//"+t.Dockerfile)
			}
		case "contexts":
			v = d.shownContexts(v, t)
		case "needs":
			v = shownNames(v, t.Needs)
		case "deps":
			if weak := v.get("weak"); weak != nil {
				v = replaceKey(v, "weak", shownNames(weak, t.Weak))
			}
		case "ssh":
			v = shownNames(v, t.SSH)
		case "secrets":
			v = shownGrants(v, t.Secrets)
		case "tags", "tagSuffix":
			continue
		case "image":
			v = shownRefs(t, v.pos)
			e.name = "tags"
		}
		out = append(out, entry{e.name, e.pos, v})
	}
	order := func(e entry) int {
		return slices.IndexFunc(bodyShape.fields, func(f field) bool { return f.name == e.name })
	}
	slices.SortStableFunc(out, func(a, b entry) int { return cmp.Compare(order(a), order(b)) })
	return newMap(d.body.pos, out)
}

// shownNames is a list of names in full.
func shownNames(v *value, names []Named) *value {
	var items []*value
	for _, n := range names {
		items = append(items, newText(n.Pos, n.Name))
	}
	return newList(v.pos, items)
}

// shownGrants is a list of secrets by their full ids.
func shownGrants(v *value, grants []Grant) *value {
	var items []*value
	for _, g := range grants {
		id, as := g.Pos, g.Pos
		for _, written := range v.list() {
			if written.pos == g.Pos && written.get("as") != nil {
				id, as = written.get("id").pos, written.get("as").pos
			}
		}
		item := newText(id, g.ID)
		if g.As != g.ID {
			item = newMap(g.Pos, []entry{{"id", id, item}, {"as", as, newText(as, g.As)}})
		}
		items = append(items, item)
	}
	return newList(v.pos, items)
}

// replaceKey is a mapping with another value for one of its keys.
func replaceKey(v *value, key string, with *value) *value {
	entries := slices.Clone(v.entries)
	for i := range entries {
		if entries[i].name == key {
			entries[i].value = with
		}
	}
	return newMap(v.pos, entries)
}

// moved is a path as it is from the workspace root.
func moved(v *value, text string) *value {
	if strings.HasPrefix(text, "//.") || strings.HasPrefix(text, "///") {
		text = strings.TrimPrefix(text, "//") // the root itself, or outside of it
	}
	return &value{pos: v.pos, kind: stringKind, text: text, size: 1}
}

func (d decoder) shownContexts(v *value, t *Target) *value {
	var out []entry
	for _, e := range v.entries {
		for _, c := range t.Contexts {
			if c.Name != e.name {
				continue
			}
			text := e.value.text
			switch c.Kind {
			case ContextDir:
				text = d.shownPath(path.Clean(c.Value))
			case ContextTarget:
				text = "target:" + c.Value
				if c.Weak {
					text = "target?:" + c.Value
				}
			}
			out = append(out, entry{e.name, e.pos, moved(e.value, text)})
		}
	}
	return newMap(v.pos, out)
}

// shownRefs is every ref of a target, as tags that are whole names.
func shownRefs(t *Target, pos diag.Pos) *value {
	var items []*value
	for _, r := range t.Refs {
		v := newText(r.Pos, r.Name)
		if slices.Contains(t.IdentityRefs, r) {
			v = newMap(r.Pos, []entry{{"tag", r.Pos, v}, {"role", r.Pos, newText(r.Pos, "identity")}})
		}
		items = append(items, v)
	}
	for _, r := range t.InputRefs {
		v := newText(r.Pos, r.Text)
		if r.Identity {
			v = newMap(r.Pos, []entry{{"tag", r.Pos, v}, {"role", r.Pos, newText(r.Pos, "identity")}})
		}
		items = append(items, v)
	}
	return newList(pos, items)
}

// Print writes the resolved manifest with these targets as YAML: documents and
// parents merged, references replaced, contexts from the workspace root, a target for
// each cell of a matrix. With origin every value has the place it comes from as a
// comment.
func (m *Manifest) Print(w io.Writer, targets []string, origin bool) error {
	doc := m.tree(targets)
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(yamlNode(doc, origin)); err != nil {
		return fmt.Errorf("encode the manifest: %w", err)
	}
	_, err := w.Write(b.Bytes())
	return err
}

// tree is what Print prints.
func (m *Manifest) tree(targets []string) *value {
	none := diag.Pos{}
	out := []entry{{"version", none, &value{kind: intKind, text: "1", size: 1}}, {"name", none, newText(none, m.parts.name)}}
	out = append(out, m.parts.sections...)
	var bodies, groups []entry
	for _, t := range m.Targets {
		if slices.Contains(targets, t.Name) {
			bodies = append(bodies, entry{t.Name, t.Pos, t.body})
		}
	}
	for _, g := range m.Groups {
		var items []*value
		for _, p := range g.Patterns {
			items = append(items, newText(p.Pos, p.Name))
		}
		groups = append(groups, entry{g.Name, g.Pos, newList(g.Pos, items)})
	}
	if groups != nil {
		out = append(out, entry{"groups", none, newMap(none, groups)})
	}
	return newMap(none, append(out, entry{"targets", none, newMap(none, bodies)}))
}

// yamlNode is a value for the encoder, with its place as a comment.
func yamlNode(v *value, origin bool) *yaml.Node {
	n := &yaml.Node{}
	switch v.kind {
	case mapKind:
		n.Kind = yaml.MappingNode
		for _, e := range v.entries {
			k := &yaml.Node{}
			k.SetString(e.name)
			child := yamlNode(e.value, origin)
			n.Content = append(n.Content, k, child)
			if len(child.Content) == 0 && child.Kind != yaml.ScalarNode {
				child.Style = yaml.FlowStyle
				comment(child, e.value.pos, origin)
			}
		}
		return n
	case listKind:
		n.Kind = yaml.SequenceNode
		for _, item := range v.items {
			n.Content = append(n.Content, yamlNode(item, origin))
		}
		return n
	case stringKind:
		n.SetString(v.text)
		if oldBool.MatchString(v.text) {
			n.Style = yaml.DoubleQuotedStyle
		}
	default:
		n.Kind, n.Value = yaml.ScalarNode, v.text
	}
	comment(n, v.pos, origin)
	return n
}

// oldBool is text that older readers of YAML take for true or false.
var oldBool = regexp.MustCompile(`^(?i:y|yes|n|no|on|off)$`)

func comment(n *yaml.Node, pos diag.Pos, origin bool) {
	if s := pos.String(); origin && s != "" {
		n.LineComment = "# " + s
	}
}

// PrintJSON is Print for programs: the same tree, and with origin each scalar as
// {"value": ..., "at": "file:line:col"}.
func (m *Manifest) PrintJSON(w io.Writer, targets []string, origin bool) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(jsonTree(m.tree(targets), origin))
}

func jsonTree(v *value, origin bool) any {
	switch v.kind {
	case mapKind:
		return jsonMap{v.entries, origin}
	case listKind:
		out := []any{}
		for _, item := range v.items {
			out = append(out, jsonTree(item, origin))
		}
		return out
	}
	var scalar any = v.text
	switch v.kind {
	case boolKind:
		scalar = v.isTrue()
	case intKind, floatKind:
		if n := json.Number(v.text); json.Valid([]byte(n)) {
			scalar = n
		}
	}
	if !origin {
		return scalar
	}
	return map[string]any{"value": scalar, "at": v.pos.String()}
}

// jsonMap is a mapping whose keys keep their order.
type jsonMap struct {
	entries []entry
	origin  bool
}

func (m jsonMap) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, e := range m.entries {
		if i > 0 {
			b.WriteByte(',')
		}
		key, err := json.Marshal(e.name)
		if err != nil {
			return nil, err
		}
		v, err := json.Marshal(jsonTree(e.value, m.origin))
		if err != nil {
			return nil, err
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(v)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}
