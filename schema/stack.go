package schema

import (
	"slices"
	"strings"

	"kaniko-build/schema/diag"
)

// stack is a target or a template: what each layer of its unit says of it, weakest
// first. Layers stay apart until a target is made of them, for a reference that
// key+ adds to can be expanded only then.
type stack struct {
	name   string // in full
	pos    diag.Pos
	unit   *unit
	layers []*value
}

// stacks is the targets or templates of a unit, as declared.
func (p *parser) stacks(u *unit, key, what string) []*stack {
	var out []*stack
	index := map[string]*stack{}
	drop := func(name string) {
		out = slices.DeleteFunc(out, func(s *stack) bool { return s == index[name] })
		delete(index, name)
	}
	for _, layer := range u.layers {
		for _, section := range layer.entries {
			name, op := cutOperator(section.name)
			switch {
			case name != key:
				continue
			case section.value.kind == nullKind:
				out, index = nil, map[string]*stack{}
			case op == "-":
				for _, gone := range section.value.list() {
					drop(gone.text)
				}
				continue
			}
			for _, e := range section.value.entries {
				s := index[e.name]
				switch {
				case e.value.kind == nullKind && s == nil:
					p.problems.Add(e.value.pos, "write {} for one with nothing of its own", "\"%s.%s\" must be a mapping, not nothing", key, e.name)
					continue
				case e.value.kind == nullKind:
					drop(e.name)
					continue
				case s == nil:
					s = &stack{name: u.prefix + e.name, pos: e.pos, unit: u}
					index[e.name] = s
					out = append(out, s)
				}
				s.layers = append(s.layers, e.value)
			}
		}
	}
	for _, s := range out {
		p.declareName(strings.TrimPrefix(s.name, u.prefix), what, s.pos, u)
	}
	return out
}

// own is a key of the stack itself, merged; nil without one.
func (s *stack) own(key string) *value {
	return mergedKey(s.layers, key, bodyShape, asWritten)
}

// defaults is the layers of a unit's defaults, those of its includers before.
func (p *parser) defaults(u *unit) []*value {
	var out []*value
	if len(u.includers) > 0 {
		out = p.defaults(u.includers[0])
	}
	for _, layer := range u.layers {
		if v := layer.get("defaults"); v != nil && v.kind == mapKind {
			out = append(out, v)
		}
	}
	return out
}

// parents is the templates that a stack names.
func (p *parser) parents(s *stack) []*stack {
	var out []*stack
	for _, parent := range s.own("extends").list() {
		full, d, known := p.find(p.spaces.bodies, parent.text, parent.pos.File, p.seenFrom(parent.pos.File))
		if known && d.what == "template" {
			out = append(out, p.templates[full])
		}
	}
	return out
}

// checkParents reports names in extends that are no template.
func (p *parser) checkParents(s *stack) {
	for _, parent := range s.own("extends").list() {
		file := parent.pos.File
		_, d, known := p.find(p.spaces.bodies, parent.text, file, p.seenFrom(file))
		hidden, _, elsewhere := p.elsewhere(parent.text, "template")
		switch {
		case hasReference(parent.text):
			p.problems.Add(parent.pos, "write the name itself", "extends cannot hold a reference")
		case !known && elsewhere:
			p.problems.Add(parent.pos, "move it to a file that includes this one, or include "+hidden.unit.file+" here",
				"%q extends template %q, which %s does not see (%s)", s.name, parent.text, file, hidden.pos)
		case !known:
			p.problems.Add(parent.pos, suggestFrom(parent.text, namesOf(p.spaces.bodies, "template")), "%q extends unknown template %q", s.name, parent.text)
		case d.what != "template":
			p.problems.Add(parent.pos, "move what they share into a template", "%q extends %q, which is a %s", s.name, parent.text, d.what)
		}
	}
}

// elsewhere is a declaration of that kind with that name in any unit.
func (p *parser) elsewhere(name, what string) (d declaration, full string, known bool) {
	for _, u := range p.units {
		if d, ok := p.spaces.bodies[u.prefix+name]; ok && d.what == what {
			return d, u.prefix + name, true
		}
	}
	return declaration{}, "", false
}

// checkInherited warns of keys in a body that nobody inherits.
func (p *parser) checkInherited(what string, body *value) {
	for _, e := range body.entries {
		name, _ := cutOperator(e.name)
		if f := bodyShape.field(name); f != nil && f.own && f.name != "extends" {
			p.warnings.Add(e.pos, "write it in the target itself", "%q is not inherited, and does nothing in %s", f.name, what)
		}
	}
}

// checkCircle reports a template that is its own ancestor, once for each circle.
func (p *parser) checkCircle(start *stack) {
	seen := map[*stack]bool{}
	var walk func(s *stack, path []string) bool
	walk = func(s *stack, path []string) bool {
		path = append(path, s.name)
		for _, parent := range p.parents(s) {
			if parent == start && start.name == slices.Min(path) {
				pos := s.own("extends").pos
				for _, item := range s.own("extends").list() {
					if full, _, _ := p.find(p.spaces.bodies, item.text, item.pos.File, p.seenFrom(item.pos.File)); full == start.name {
						pos = item.pos
					}
				}
				p.problems.Add(pos, "", "templates extend each other: %s", strings.Join(append(path, start.name), " -> "))
				return true
			}
			if !seen[parent] {
				seen[parent] = true
				if walk(parent, path) {
					return true
				}
			}
		}
		return false
	}
	walk(start, nil)
}

// bodies is everything that a target inherits, weakest first. A template counts
// where it is first met, so that one shared by two parents does not undo what the
// first of them says.
func (p *parser) bodies(t *stack) []*value {
	out := append([]*value{builtins(t)}, p.defaults(t.unit)...)
	met := map[*stack]bool{}
	var add func(s *stack)
	add = func(s *stack) {
		for _, parent := range p.parents(s) {
			if !met[parent] {
				met[parent] = true
				add(parent)
				out = append(out, parent.layers...)
			}
		}
	}
	add(t)
	return out
}

// builtins is what every target has if nobody says otherwise, and what key+
// adds to.
func builtins(t *stack) *value {
	return newMap(t.pos, []entry{{"image", t.pos, newText(t.pos, "${target.base}")}})
}

// inherited is a body without the keys that are only its own.
func inherited(body *value) *value {
	own := func(e entry) bool {
		f := bodyShape.field(strings.TrimRight(e.name, "+-"))
		return f == nil || f.own
	}
	if !slices.ContainsFunc(body.entries, own) {
		return body
	}
	return newMap(body.pos, slices.DeleteFunc(slices.Clone(body.entries), own))
}

// without is a mapping without some keys.
func without(v *value, keys ...string) *value {
	return newMap(v.pos, slices.DeleteFunc(slices.Clone(v.entries), func(e entry) bool { return slices.Contains(keys, e.name) }))
}
