package schema

import (
	"slices"
	"strings"

	"kaniko-build/schema/diag"
)

// shape says what may stand in one place of a manifest. It may allow a scalar,
// a list and a mapping at once; what it allows is what is set.
type shape struct {
	what      string   // for messages: "a list of platforms"
	text      bool     // any scalar, read as written
	bool      bool     // true or false
	int       bool     // a whole number, not negative
	words     []string // with text: the only texts; else texts allowed beside bool and int
	pattern   string   // of texts, for the JSON Schema; who reads the value checks it
	condition bool     // the text is a condition
	list      *shape   // a list of these
	fields    []field  // a mapping with keys of ours
	dict      *shape   // a mapping with keys of the user's choice, beside fields if there are any
	names     bool     // keys of the user's choice are names of targets, templates or groups
	body      bool     // what makes a target: keys may have operators and null. Without fields it is bodyShape
}

// field is one key of a mapping.
type field struct {
	name    string
	about   string // for people who write manifests; whole sentences
	shape   *shape // nil: a key of the language that is not built yet
	dflt    string // as JSON; "" without one, or when about says it
	own     bool   // not inherited from defaults and templates
	byID    bool   // list items with the same id replace each other; see itemID
	needed  bool   // the mapping is wrong without it
	literal bool   // it declares, so that no reference can stand for it
	null    bool   // null is a value of it, and takes nothing away
	// insteadOf is the key that this one makes void in weaker bodies.
	insteadOf string
	// late are namespaces that get their values only when the target is built.
	late []string
}

// keys is the fields of a mapping with keys of ours.
func (s *shape) keys() []field {
	if s.body && s.fields == nil {
		return bodyShape.fields
	}
	return s.fields
}

// field is the field of that name, or nil.
func (s *shape) field(name string) *field {
	fields := s.keys()
	for i := range fields {
		if fields[i].name == name {
			return &fields[i]
		}
	}
	return nil
}

// many tells whether the operators key+ and key- make sense.
func (s *shape) many() bool { return s.list != nil || s.dict != nil }

// stage tells what a check may still expect in a value.
type stage int

const (
	// written: as in the file. A lone reference may become anything, null removes
	// what is inherited, key+ and key- may stand.
	written stage = iota
	// resolved: merged and expanded.
	resolved
)

// check reports what in v does not fit and returns the rest, so that later
// checks see only good values; nil if nothing is left. name is the key that
// messages call the value by.
func (s *shape) check(v *value, name string, st stage, l *diag.List) *value {
	mapping := s.dict != nil || s.keys() != nil
	switch {
	case st == written && !s.condition && (s.text || s.bool || s.int || s.many()) && v.kind == stringKind && isLoneReference(v.text):
		return v
	case v.kind == mapKind && mapping:
		return s.checkMap(v, name, st, l)
	case v.kind == listKind && s.list != nil:
		return s.checkList(v, name, st, l)
	case v.isScalar() && s.allows(v, st):
		if s.condition && st == written {
			if _, bad := parseCondition(v.text); bad != nil {
				l.Add(v.at(bad.offset), bad.hint, "%s", bad.what)
				return nil
			}
		}
		return v
	}
	hint := ""
	if v.isScalar() && len(s.words) > 0 {
		hint = diag.Suggest(v.text, s.words)
	}
	if hint == "" && v.isScalar() && s.list != nil && len(v.text) < 40 && s.list.check(v, name, st, &diag.List{}) != nil {
		hint = "write [" + v.text + "]"
	}
	got := string(v.kind)
	if v.kind == nullKind {
		got = "nothing"
	} else if v.isScalar() && !strings.Contains(v.text, "\n") && len(v.text) < 40 {
		got = quoteAll([]string{v.text}, "")
	}
	l.Add(v.pos, hint, "%q must be %s, not %s", name, s.what, got)
	return nil
}

// allows tells whether a scalar fits. What it reads as counts, not its YAML type:
// references to the environment give texts. A text that holds a reference fits
// any text shape until it is expanded.
func (s *shape) allows(v *value, st stage) bool {
	switch {
	case slices.Contains(s.words, v.text):
		return true
	case s.bool && (strings.EqualFold(v.text, "true") || strings.EqualFold(v.text, "false")):
		return true
	case s.int && isDigits(v.text):
		return true
	case s.text && len(s.words) == 0:
		return true
	}
	return (s.text || s.bool || s.int) && st == written && hasReference(v.text)
}

func isDigits(s string) bool {
	return s != "" && len(s) < 10 && strings.Trim(s, "0123456789") == ""
}

func (s *shape) checkList(v *value, name string, st stage, l *diag.List) *value {
	items := make([]*value, 0, len(v.items))
	for _, item := range v.items {
		if good := s.list.check(item, name, st, l); good != nil {
			items = append(items, good)
		}
	}
	return newList(v.pos, items)
}

func (s *shape) checkMap(v *value, name string, st stage, l *diag.List) *value {
	entries := make([]entry, 0, len(v.entries))
	for _, e := range v.entries {
		sh, label := s.at(e, name, l)
		if sh == nil {
			continue
		}
		if e.value.kind == nullKind {
			entries = append(entries, e) // as if it were not there, or takes away what is inherited
			continue
		}
		if good := sh.check(e.value, label, st, l); good != nil {
			entries = append(entries, entry{e.name, e.pos, good})
		}
	}
	out := newMap(v.pos, entries)
	for _, f := range s.keys() {
		if f.needed && out.get(f.name) == nil {
			if st == written && v.get(f.name) == nil { // later it is missing because it failed to expand
				l.Add(v.pos, "", "%q needs the key %q", name, f.name)
			}
			return nil
		}
	}
	return out
}

// at is the shape of the value of an entry, and what messages call it; nil after
// the key has been reported, and for keys that start with "x-", which are the
// user's own.
func (s *shape) at(e entry, name string, l *diag.List) (*shape, string) {
	key, op := cutOperator(e.name)
	if (s.keys() == nil || !strings.HasPrefix(e.name, "x-")) && keyReference(e.name) {
		l.Add(e.pos, "references stand in values only: write the key itself", "key %q holds a reference", e.name)
		return nil, ""
	}
	if s.keys() == nil { // names of the user's choice
		if op != "" && s.dict.many() {
			return operand(op, s.dict), name + "." + e.name
		}
		return s.dict, name + "." + e.name
	}
	if strings.HasPrefix(e.name, "x-") {
		return nil, ""
	}
	f := s.field(key)
	switch {
	case f == nil && s.dict != nil && op == "":
		return s.dict, name + "." + e.name
	case f == nil:
		l.Add(e.pos, diag.Suggest(e.name, s.fieldNames()), "unknown key %q", e.name)
	case f.shape == nil:
		l.Add(e.pos, "leave it out for now", "key %q is not built yet", f.name)
	case f.literal && e.value.kind == stringKind && isLoneReference(e.value.text):
		l.Add(e.value.pos, "references stand in values only", "%q must be %s, not %q", e.name, f.shape.what, e.value.text)
	case op == "":
		return f.shape, e.name
	case !f.shape.many():
		l.Add(e.pos, "write "+f.name+" to replace it", "%q works on lists and mappings, and %q is neither", e.name, f.name)
	default:
		return operand(op, f.shape), e.name
	}
	return nil, ""
}

// keyReference tells whether a key holds what would be a reference in a value.
func keyReference(key string) bool {
	segments, bad := splitText(key)
	return bad != nil && strings.Contains(key, "${") || slices.ContainsFunc(segments, func(s segment) bool {
		return s.ref != nil && slices.Contains(namespaces, s.ref.ns)
	})
}

// operand is the shape of what stands beside key+ or key-.
func operand(op string, s *shape) *shape {
	if op == "-" {
		return removalShape
	}
	return s
}

// fieldNames is the keys that can be used, for suggestions.
func (s *shape) fieldNames() []string {
	var out []string
	for _, f := range s.keys() {
		if f.shape != nil {
			out = append(out, f.name)
		}
	}
	return out
}

// cutOperator takes the operator off a key: what to do with what is inherited.
func cutOperator(key string) (name, op string) {
	if n := len(key) - 1; n > 0 && (key[n] == '+' || key[n] == '-') {
		return key[:n], key[n:]
	}
	return key, ""
}

// removalShape is what stands beside key-.
var removalShape = &shape{what: "a list of what to take out", list: &shape{what: "text", text: true}}
