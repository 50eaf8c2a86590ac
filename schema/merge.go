package schema

import (
	"fmt"
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

// asWritten is the lone of a merger before there is anything to expand with.
func asWritten(v *value) *value { return v }

// body merges two mappings with the given fields. Either may be nil. Within one
// body the plain key comes first, then key-, then key+.
func (m merger) body(base, over *value, s *shape) *value {
	if over == nil {
		return base
	}
	out := newBag(base)
	operators := false
	for _, e := range over.entries {
		if f := s.field(e.name); f != nil && f.insteadOf != "" {
			out.put(entry{name: f.insteadOf}, nil)
		}
	}
	for _, e := range over.entries {
		if f := s.field(e.name); f != nil && f.null && e.value.kind == nullKind {
			out.put(e, e.value)
		} else if f != nil {
			out.put(e, m.plain(out.get(e.name), e.value, f.shape, f.byID))
		} else if _, op := cutOperator(e.name); op != "" && s.field(e.name[:len(e.name)-1]) != nil {
			operators = true
		} else if s.dict != nil {
			out.put(e, m.plain(out.get(e.name), e.value, s.dict, false))
		}
	}
	for _, op := range []string{"-", "+"} {
		if !operators {
			break
		}
		for _, e := range over.entries {
			name, is := cutOperator(e.name)
			if f := s.field(name); is == op && f != nil {
				out.put(entry{name, e.pos, e.value}, m.operate(op, out.get(name), e.value, f.shape, f.byID))
			}
		}
	}
	return out.mapping(over.pos)
}

// plain is what a key without operator makes of base; nil takes the key out.
func (m merger) plain(base, over *value, s *shape, byID bool) *value {
	switch {
	case over.kind == nullKind:
		return nil
	case s.keys() != nil && over.kind == mapKind && (base == nil || base.kind == mapKind):
		return m.body(base, over, s)
	case s.keys() == nil && s.dict != nil && (base != nil || over.kind == mapKind):
		return m.dict(base, over, s.dict)
	case base == nil:
		return withoutNulls(over)
	case byID:
		return m.byID(base, over)
	default:
		return over
	}
}

// dict merges two mappings whose keys are the user's. Values that are lists have
// operators, as keys of ours have.
func (m merger) dict(base, over *value, item *shape) *value {
	if base = m.lone(base); base != nil && base.kind != mapKind {
		base = nil
	}
	if over = m.lone(over); over == nil || over.kind != mapKind {
		return over
	}
	out := newBag(base)
	operators := false
	for _, e := range over.entries {
		if _, op := cutOperator(e.name); op != "" && item.many() {
			operators = true
			continue
		}
		out.put(e, m.plain(out.get(e.name), e.value, item, false))
	}
	for _, op := range []string{"-", "+"} {
		if !operators {
			break
		}
		for _, e := range over.entries {
			if name, is := cutOperator(e.name); is == op && item.many() {
				out.put(entry{name, e.pos, e.value}, m.operate(op, out.get(name), e.value, item, false))
			}
		}
	}
	return out.mapping(over.pos)
}

func (m merger) operate(op string, base, over *value, s *shape, byID bool) *value {
	if base != nil {
		base = m.lone(base)
	}
	if over.kind == nullKind {
		return base
	}
	if over = m.lone(over); over == nil {
		return base
	}
	if op == "-" {
		return removeItems(base, over)
	}
	switch {
	case byID:
		return m.byID(base, over)
	case s.list == nil || s.dict != nil && (over.kind == mapKind || base != nil && base.kind == mapKind):
		return m.dict(base, over, s.dict)
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

// itemID is what a list item goes by: its text, or its id, tag or path.
func itemID(v *value) string {
	if v.kind != mapKind {
		return v.text
	}
	for _, key := range []string{"id", "tag"} {
		if id := v.get(key); id != nil {
			return id.str()
		}
	}
	return v.get("path").str()
}

// canonical tells equal items from others.
func canonical(v *value) string {
	if v.kind == listKind {
		var b strings.Builder
		b.WriteString("list")
		for _, item := range v.items {
			fmt.Fprintf(&b, " %q", canonical(item))
		}
		return b.String()
	}
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
	if v.kind != mapKind || !slices.ContainsFunc(v.entries, func(e entry) bool { return e.value.kind == nullKind }) {
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
