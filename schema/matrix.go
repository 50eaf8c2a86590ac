package schema

import (
	"slices"
	"strings"
)

// cell is one target that a matrix makes, or a target without a matrix.
type cell struct {
	*stack
	name    string // in full, with the variant
	variant string
	axes    []entry  // values by axis, as declared; nil without a matrix
	set     []*value // what is different in this cell, weakest first
}

const maxCells = 1000 // of one matrix

// cells is the targets that a stack makes: itself, or its matrix with the first
// axis changing slowest.
func (p *parser) cells(t *stack) []*cell {
	v := t.own("matrix")
	if v == nil || v.kind != mapKind {
		if variant := t.own("variant"); variant != nil {
			p.warnings.Add(variant.pos, "add a matrix, or take it out", "target %q has no matrix, and variant does nothing", t.name)
		}
		return []*cell{{stack: t, name: t.name}}
	}
	x := expander{names: &targetScope{scope: p.scope, base: t.name, name: t.name}, problems: p.problems, budget: p.scope.budget}
	cells := []*cell{{stack: t}}
	var names []string
	for _, e := range v.entries {
		if matrixShape.field(e.name) != nil {
			continue
		}
		if !varName.MatchString(strings.ReplaceAll(e.name, "-", "_")) {
			p.problems.Add(e.pos, "use letters, digits, - and _", "%q is not a name for an axis", e.name)
			continue
		}
		axis := x.expand(e.value)
		if axis == nil {
			return nil
		}
		if axis = matrixShape.dict.check(axis, e.name, resolved, p.problems); axis == nil {
			return nil
		}
		names = append(names, e.name)
		var next []*cell
		for _, c := range cells {
			for _, item := range axis.items {
				next = append(next, &cell{stack: t, axes: append(slices.Clone(c.axes), entry{e.name, e.pos, item})})
			}
		}
		if cells = next; len(cells) > maxCells {
			p.problems.Add(v.pos, "", "the matrix of %q has more than %d cells", t.name, maxCells)
			return nil
		}
	}
	if len(names) == 0 {
		p.problems.Add(v.pos, "write {go: [\"1.24\", \"1.25\"]}", "the matrix of %q has no values", t.name)
		return nil
	}
	m := matrixReader{p, x, t, names}
	if cells = m.include(m.exclude(cells, v.get("exclude")), v.get("include")); len(cells) == 0 {
		p.warnings.Add(v.pos, "give each axis a value", "the matrix of %q has no cell, and nothing is built of it", t.name)
	}
	m.name(cells)
	return cells
}

// matrixReader reads what is beside the axes.
type matrixReader struct {
	*parser
	x    expander
	t    *stack
	axes []string
}

// values is the values that an item of exclude or include gives to axes.
func (m matrixReader) values(item *value) (out []entry, ok bool) {
	for _, e := range item.entries {
		switch {
		case e.name == "set":
			continue
		case e.value.kind == nullKind:
			continue
		case !slices.Contains(m.axes, e.name):
			m.problems.Add(e.pos, suggestFrom(e.name, m.axes), "the matrix of %q has no values %q", m.t.name, e.name)
			return nil, false
		}
		v := m.x.expand(e.value)
		if v == nil || !v.isScalar() {
			return nil, false
		}
		out = append(out, entry{e.name, e.pos, v})
	}
	return out, true
}

// has tells whether a cell has these values.
func (c *cell) has(values []entry) bool {
	return !slices.ContainsFunc(values, func(v entry) bool {
		return !slices.ContainsFunc(c.axes, func(e entry) bool { return e.name == v.name && e.value.text == v.value.text })
	})
}

func (m matrixReader) exclude(cells []*cell, list *value) []*cell {
	for _, item := range list.list() {
		values, ok := m.values(item)
		if !ok || item.kind != mapKind {
			continue
		}
		left := slices.DeleteFunc(slices.Clone(cells), func(c *cell) bool { return c.has(values) })
		if len(left) == len(cells) {
			m.problems.Add(item.pos, "take it out, or correct a value", "no cell of the matrix of %q is like this", m.t.name)
		}
		cells = left
	}
	return cells
}

func (m matrixReader) include(cells []*cell, list *value) []*cell {
	for _, item := range list.list() {
		values, ok := m.values(item)
		if !ok || item.kind != mapKind {
			continue
		}
		set := item.get("set")
		i := slices.IndexFunc(cells, func(c *cell) bool { return len(values) == len(c.axes) && c.has(values) })
		if i < 0 {
			c := &cell{stack: m.t}
			for _, axis := range m.axes {
				at := slices.IndexFunc(values, func(e entry) bool { return e.name == axis })
				if at < 0 {
					m.problems.Add(item.pos, "", "an included cell of the matrix of %q needs a value for %q", m.t.name, axis)
					return cells
				}
				c.axes = append(c.axes, values[at])
			}
			i, cells = len(cells), append(cells, c)
		}
		if set != nil {
			cells[i].set = append(cells[i].set, set)
		}
	}
	return cells
}

// name gives cells their variants and names.
func (m matrixReader) name(cells []*cell) {
	variant := m.t.own("variant")
	first := map[string]bool{}
	for _, c := range cells {
		parts := make([]string, len(c.axes))
		for i, e := range c.axes {
			if parts[i] = e.value.text; !nameText.MatchString(parts[i]) {
				parts[i] = Slug(parts[i])
			}
		}
		c.variant = strings.Join(parts, "-")
		pos := m.t.pos
		if variant != nil {
			pos = variant.pos
			x := m.x
			x.names = &targetScope{scope: m.scope, base: m.t.name, name: m.t.name, matrix: c.axes}
			v := x.expand(variant)
			if v == nil {
				continue
			}
			c.variant = v.str()
		}
		c.name = m.t.name + "-" + c.variant
		switch d, taken := m.spaces.bodies[c.name]; {
		case !nameText.MatchString(c.variant):
			m.problems.Add(pos, "lower-case letters and digits, with single . _ - between; ${matrix.x|slug} makes them of any text", "%q is not a name for a variant", c.variant)
		case first[c.name]:
			m.problems.Add(pos, "name every axis with more than one value in it", "two cells of the matrix are called %q", c.name)
		case taken:
			m.problems.Add(pos, "rename one of them", "a cell of the matrix is called %q, as is the %s at %s", c.name, d.what, d.pos)
		}
		first[c.name] = true
	}
	for name := range first {
		if _, taken := m.spaces.bodies[name]; !taken {
			m.spaces.bodies[name] = declaration{"target", m.t.pos, m.t.unit}
		}
	}
}
