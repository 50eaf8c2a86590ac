package schema

import (
	"slices"
	"strings"

	"kaniko-build/schema/diag"
)

// setting is one --set: a change to the body of every target that its pattern names.
type setting struct {
	body   *value
	target func(name string) bool
}

// settings reads Options.Sets. names are those of all targets.
func (p *parser) settings(sets []Setting, names []string) []*setting {
	var out []*setting
	for _, one := range sets {
		pos := diag.Pos{File: "--set " + one.Name}
		s := p.setting(one, pos, names)
		if s == nil {
			continue
		}
		if s.body = (&shape{what: "a mapping", body: true}).check(s.body, one.Name, written, p.problems); s.body != nil {
			out = append(out, s)
		}
	}
	return out
}

// setting takes the path of a --set apart: the name of a target may hold dots, and
// so may the last part of a path, where keys are the user's.
func (p *parser) setting(one Setting, pos diag.Pos, names []string) *setting {
	var l diag.List
	v := readYAML(pos.File, []byte(one.Value), &l)
	if strings.TrimSpace(one.Value) == "" {
		v, l = newText(pos, ""), diag.List{}
	}
	if l.Len() > 0 || v == nil {
		p.problems.Add(pos, "write a text, true, or a list such as [a, b]", "%q is not a value in YAML", one.Value)
		return nil
	}
	v = replaced(v, pos)
	known := false
	for i, c := range one.Name {
		if c != '.' {
			continue
		}
		pattern, path := one.Name[:i], one.Name[i+1:]
		first, _, _ := strings.Cut(path, ".")
		f := bodyShape.field(strings.TrimRight(first, "+-"))
		if f == nil || f.shape == nil {
			continue
		}
		known = true
		matches := Glob(pattern)
		if !slices.ContainsFunc(names, matches) {
			continue
		}
		if slices.Contains([]string{"extends", "groups", "matrix", "variant"}, f.name) {
			p.problems.Add(pos, "", "%s says which targets there are, and cannot be set by a flag", f.name)
			return nil
		}
		body, hint, ok := nested(path, v, bodyShape)
		if !ok {
			p.problems.Add(pos, hint, "there is no key %q in a target", path)
			return nil
		}
		return &setting{body, matches}
	}
	if known {
		pattern, _, _ := strings.Cut(one.Name, ".")
		p.problems.Add(pos, diag.Suggest(pattern, names), "no target matches %q", pattern)
		return nil
	}
	if pattern, path, ok := strings.Cut(one.Name, "."); ok && slices.ContainsFunc(names, Glob(pattern)) {
		first, _, _ := strings.Cut(path, ".")
		name, _ := cutOperator(first)
		if hint := diag.Suggest(name, bodyShape.fieldNames()); hint != "" {
			p.problems.Add(pos, hint, "there is no key %q in a target", first)
			return nil
		}
	}
	p.problems.Add(pos, "write --set 'TARGET.KEY=VALUE', such as --set 'api.args.VERSION=2' or --set '*.platforms+=[linux/arm64]'", "the path names no key of a target")
	return nil
}

// nested is a body that has v at a path. One text stands for a list of one. Without
// such a path it is not ok, and hint may say which one was meant.
func nested(path string, v *value, s *shape) (body *value, hint string, ok bool) {
	if s.keys() == nil && s.dict != nil { // the rest is one key of the user's
		return newMap(v.pos, []entry{{path, v.pos, v}}), "", true
	}
	first, rest, more := strings.Cut(path, ".")
	name, op := cutOperator(first)
	f := s.field(name)
	if f == nil || f.shape == nil {
		return nil, diag.Suggest(name, s.fieldNames()), false
	}
	if more {
		if op != "" {
			return nil, "", false
		}
		if v, hint, ok = nested(rest, v, f.shape); !ok {
			return nil, hint, false
		}
	} else if v.isScalar() && f.shape.list != nil && !f.shape.text && !(f.shape.bool && v.kind == boolKind) && !isLoneReference(v.text) || op == "-" && v.isScalar() {
		v = newList(v.pos, []*value{v})
	}
	return newMap(v.pos, []entry{{first, v.pos, v}}), "", true
}

// settingsFor is what --set says of a target, in the order given.
func settingsFor(all []*setting, c *cell) []*value {
	var out []*value
	for _, s := range all {
		if s.target(c.name) || s.target(c.stack.name) {
			out = append(out, s.body)
		}
	}
	return out
}
