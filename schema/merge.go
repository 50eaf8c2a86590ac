package schema

import (
	"slices"
	"strings"
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
	out := &bag{}
	if base != nil {
		out.entries = slices.Clone(base.entries)
	}
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
	return newMap(over.pos, out.entries)
}

// plain is what a key without operator makes of base; nil takes the key out.
func (m merger) plain(base, over *value, f *field) *value {
	switch {
	case over.kind == nullKind:
		return nil
	case base == nil:
		return withoutNulls(over)
	case f.byID:
		return appendItems(over, m.lone(base).list(), m.lone(over).list(), itemID)
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
	out := &bag{entries: slices.Clone(base.entries)}
	for _, e := range over.entries {
		out.put(e, e.value)
	}
	return withoutNulls(newMap(over.pos, out.entries))
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
	if f.shape.list == nil {
		return m.dict(base, withoutNulls(over))
	}
	id := canonical
	if f.byID {
		id = itemID
	}
	return appendItems(over, base.list(), over.list(), id)
}

// appendItems is base and then what over adds. An item with the id of an
// earlier one takes its place.
func appendItems(over *value, base, add []*value, id func(*value) string) *value {
	items := slices.Clone(base)
	for _, item := range add {
		if i := slices.IndexFunc(items, func(v *value) bool { return id(v) == id(item) }); i >= 0 {
			items[i] = item
		} else {
			items = append(items, item)
		}
	}
	return newList(over.pos, items)
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
		return id.text
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

// bag is a mapping in the making.
type bag struct{ entries []entry }

func (b *bag) get(name string) *value {
	for _, e := range b.entries {
		if e.name == name {
			return e.value
		}
	}
	return nil
}

// put sets the value of e's key, in its old place if it has one; nil removes it.
func (b *bag) put(e entry, v *value) {
	i := slices.IndexFunc(b.entries, func(old entry) bool { return old.name == e.name })
	switch {
	case v == nil && i < 0:
	case v == nil:
		b.entries = slices.Delete(b.entries, i, i+1)
	case i < 0:
		b.entries = append(b.entries, entry{e.name, e.pos, v})
	default:
		b.entries[i] = entry{e.name, e.pos, v}
	}
}
