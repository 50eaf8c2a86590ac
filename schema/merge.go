package schema

import (
	"slices"
	"strings"

	"kaniko-build/schema/diag"
)

// merger lays one body over another: mappings deep, scalars and lists replace,
// key+ appends, key- takes out, null deletes.
type merger struct {
	// lone expands a value that is one reference, where its list or mapping is
	// needed; other values come back as they are. It is nil when it has failed.
	lone func(*value) *value
}

// body merges two mappings with the given fields. Either may be nil. Within one
// body the plain key comes first, then key-, then key+.
func (m merger) body(base, over *value, fields *shape) *value {
	if over == nil {
		return base
	}
	out := newBag(base)
	for _, e := range over.entries {
		if f := fields.field(e.name); f != nil && f.insteadOf != "" {
			out.put(entry{name: f.insteadOf}, nil)
		}
	}
	for _, e := range over.entries {
		if !isOperator(e.name) {
			out.put(e, m.plain(out.get(e.name), e.value, fields.field(e.name)))
		}
	}
	for _, op := range []string{"-", "+"} {
		for _, e := range over.entries {
			if name, ok := strings.CutSuffix(e.name, op); ok {
				out.put(entry{name, e.pos, e.value}, m.operate(op, out.get(name), e.value, fields.field(name)))
			}
		}
	}
	return out.mapping(over.pos)
}

// plain is what a key without operator makes of base; nil takes the key out.
func (m merger) plain(base, over *value, f *field) *value {
	switch {
	case over.kind == nullKind:
		return nil
	case f.shape.fields != nil && f.shape.list == nil && over.kind == mapKind && (base == nil || base.kind == mapKind):
		return m.body(base, over, f.shape)
	case base == nil:
		return withoutNulls(over)
	case f.byID:
		return m.byID(base, over)
	case f.shape.dict != nil:
		return m.dict(m.lone(base), m.lone(over))
	default:
		return over
	}
}

// dict merges two mappings whose keys are the user's.
func (m merger) dict(base, over *value) *value {
	if base == nil || over == nil || base.kind != mapKind || over.kind != mapKind {
		return over
	}
	out := newBag(base)
	for _, e := range over.entries {
		out.put(e, e.value)
	}
	return withoutNulls(out.mapping(over.pos))
}

func (m merger) operate(op string, base, over *value, f *field) *value {
	if base != nil {
		base = m.lone(base)
	}
	if over = m.lone(over); over == nil {
		return base
	}
	if op == "-" {
		return removeItems(base, over)
	}
	switch {
	case f.byID:
		return m.byID(base, over)
	case f.shape.list == nil:
		return m.dict(base, withoutNulls(over))
	default:
		return appendItems(over.pos, base.list(), over.list())
	}
}

// byID is the items of base whose ids over does not speak of, and then over's.
func (m merger) byID(base, over *value) *value {
	add := m.lone(over).list()
	spoken := map[string]bool{}
	for _, item := range add {
		spoken[itemID(item)] = true
	}
	items := slices.DeleteFunc(slices.Clone(m.lone(base).list()), func(old *value) bool { return spoken[itemID(old)] })
	return newList(over.pos, append(items, add...))
}

// appendItems is base and then what add has besides.
func appendItems(pos diag.Pos, base, add []*value) *value {
	items := slices.Clone(base)
	have := map[string]bool{}
	for _, item := range base {
		have[canonical(item)] = true
	}
	for _, item := range add {
		if id := canonical(item); !have[id] {
			have[id] = true
			items = append(items, item)
		}
	}
	return newList(pos, items)
}

// removeItems takes out list items, or keys of a mapping, by name.
func removeItems(base, over *value) *value {
	if base == nil {
		return nil
	}
	gone := over.strings()
	if base.kind == mapKind {
		return newMap(base.pos, slices.DeleteFunc(slices.Clone(base.entries), func(e entry) bool {
			return slices.Contains(gone, e.name)
		}))
	}
	return newList(base.pos, slices.DeleteFunc(slices.Clone(base.list()), func(v *value) bool {
		return slices.Contains(gone, itemID(v))
	}))
}

// itemID is what a list item goes by: its text, or its id or tag.
func itemID(v *value) string {
	if v.kind != mapKind {
		return v.text
	}
	if id := v.get("id"); id != nil {
		return id.str()
	}
	return v.get("tag").str()
}

// canonical tells equal items from others.
func canonical(v *value) string {
	if v.kind != mapKind {
		return "text " + v.text
	}
	lines := make([]string, len(v.entries))
	for i, e := range v.entries {
		lines[i] = e.name + "=" + canonical(e.value)
	}
	slices.Sort(lines)
	return "map " + strings.Join(lines, "\n")
}

// withoutNulls leaves out the keys that a mapping wants removed.
func withoutNulls(v *value) *value {
	if v.kind != mapKind {
		return v
	}
	return newMap(v.pos, slices.DeleteFunc(slices.Clone(v.entries), func(e entry) bool { return e.value.kind == nullKind }))
}

// bag is a mapping in the making. Keys keep the place where they first came in.
type bag struct {
	entries []entry // with a nil value where one was taken out
	index   map[string]int
}

func newBag(v *value) *bag {
	b := &bag{index: map[string]int{}}
	if v != nil {
		for _, e := range v.entries {
			b.put(e, e.value)
		}
	}
	return b
}

func (b *bag) get(name string) *value {
	if i, ok := b.index[name]; ok {
		return b.entries[i].value
	}
	return nil
}

// put sets the value of e's key; nil takes it out.
func (b *bag) put(e entry, v *value) {
	e.value = v
	i, ok := b.index[e.name]
	switch {
	case ok:
		b.entries[i] = e
	case v != nil:
		b.index[e.name] = len(b.entries)
		b.entries = append(b.entries, e)
	}
}

// mapping is what is in the bag, as a value at pos.
func (b *bag) mapping(pos diag.Pos) *value {
	return newMap(pos, slices.DeleteFunc(b.entries, func(e entry) bool { return e.value == nil }))
}
