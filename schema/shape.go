package schema

import (
	"slices"
	"strings"

	"kaniko-build/schema/diag"
)

// shape says what may stand in one place of a manifest. It may allow a scalar,
// a list and a mapping at once; what it allows is what is set.
type shape struct {
	what   string   // for messages: "a list of platforms"
	text   bool     // any scalar, read as written
	bool   bool     // true or false
	int    bool     // a whole number, not negative
	words  []string // with text: the only texts; else texts allowed beside bool and int
	list   *shape   // a list of these
	dict   *shape   // a mapping with keys of the user's choice
	fields []field  // a mapping with keys of ours
}

// field is one key of a mapping.
type field struct {
	name   string
	shape  *shape // nil: a key of the language that is not built yet
	own    bool   // not inherited from defaults and templates
	byID   bool   // list items with the same id replace each other; see itemID
	needed bool   // the mapping is wrong without it
	// insteadOf is the key that this one makes void in weaker bodies.
	insteadOf string
}

// field is the field of that name, or nil.
func (s *shape) field(name string) *field {
	for i := range s.fields {
		if s.fields[i].name == name {
			return &s.fields[i]
		}
	}
	return nil
}

// many tells whether the operators key+ and key- make sense.
func (s *shape) many() bool { return s.list != nil || s.dict != nil }

// takesReference tells whether one reference may stand for the whole value: not
// where names are declared, for those must be known before references are.
func (s *shape) takesReference() bool {
	declares := s.dict != nil && (s.dict.fields != nil || s.dict.list != nil)
	return s.text || s.bool || s.int || s.list != nil || s.dict != nil && !declares
}

// stage tells what a check may still expect in a value.
type stage int

const (
	// written: as in the file. A lone reference may become anything, null removes
	// what is inherited, key+ and key- may stand in bodies.
	written stage = iota
	// resolved: merged and expanded.
	resolved
)

// check reports what in v does not fit and returns the rest, so that later
// checks see only good values; nil if nothing is left. name is the key that
// messages call the value by.
func (s *shape) check(v *value, name string, st stage, l *diag.List) *value {
	switch {
	case st == written && s.takesReference() && v.kind == stringKind && isLoneReference(v.text):
		return v
	case v.kind == mapKind && s.fields != nil:
		return s.checkFields(v, name, st, l)
	case v.kind == mapKind && s.dict != nil:
		return s.checkDict(v, name, st, l)
	case v.kind == listKind && s.list != nil:
		return s.checkList(v, name, st, l)
	case v.isScalar() && s.allows(v, st):
		return v
	}
	hint := ""
	if v.isScalar() && len(s.words) > 0 {
		hint = diag.Suggest(v.text, s.words)
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
	return s.text && st == written && hasReference(v.text)
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

func (s *shape) checkDict(v *value, name string, st stage, l *diag.List) *value {
	entries := make([]entry, 0, len(v.entries))
	for _, e := range v.entries {
		if e.value.kind == nullKind && st == written && s.dict.fields == nil {
			entries = append(entries, e) // removes what is inherited
			continue
		}
		if good := s.dict.check(e.value, name+"."+e.name, st, l); good != nil {
			entries = append(entries, entry{e.name, e.pos, good})
		}
	}
	return newMap(v.pos, entries)
}

func (s *shape) checkFields(v *value, name string, st stage, l *diag.List) *value {
	entries := make([]entry, 0, len(v.entries))
	for _, e := range v.entries {
		f := s.known(e, l)
		if f == nil {
			continue
		}
		sh := f.shape
		if strings.HasSuffix(e.name, "-") {
			sh = removalShape
		}
		if e.value.kind == nullKind {
			entries = append(entries, e) // as if it were not there, or removes what is inherited
			continue
		}
		if good := sh.check(e.value, e.name, st, l); good != nil {
			entries = append(entries, entry{e.name, e.pos, good})
		}
	}
	for _, f := range s.fields {
		if f.needed && v.get(f.name) == nil {
			if st == written { // later it is missing because it failed to expand
				l.Add(v.pos, "", "%q needs the key %q", name, f.name)
			}
			return nil
		}
	}
	return newMap(v.pos, entries)
}

// known finds the field of a key, or reports the key. Keys that start with
// "x-" are the user's own.
func (s *shape) known(e entry, l *diag.List) *field {
	if strings.HasPrefix(e.name, "x-") {
		return nil
	}
	f := s.field(strings.TrimRight(e.name, "+-"))
	switch {
	case f == nil:
		l.Add(e.pos, diag.Suggest(e.name, s.names()), "unknown key %q", e.name)
	case f.shape == nil:
		l.Add(e.pos, "leave it out for now", "key %q is not built yet", f.name)
	case f.name == e.name:
		return f
	case !isOperator(e.name) || len(e.name) != len(f.name)+1:
		l.Add(e.pos, diag.Suggest(e.name, s.names()), "unknown key %q", e.name)
	case !f.shape.many():
		l.Add(e.pos, "write "+f.name+" to replace it", "%q works on lists and mappings, and %q is neither", e.name, f.name)
	default:
		return f
	}
	return nil
}

// names is the keys that can be used, for suggestions.
func (s *shape) names() []string {
	var out []string
	for _, f := range s.fields {
		if f.shape != nil {
			out = append(out, f.name)
		}
	}
	return out
}

// isOperator tells whether a key says what to do with what is inherited.
func isOperator(key string) bool { return strings.HasSuffix(key, "+") || strings.HasSuffix(key, "-") }

// removalShape is what stands beside key-.
var removalShape = &shape{what: "a list of what to take out", list: &shape{what: "text", text: true}}
