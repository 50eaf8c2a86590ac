package schema

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"kaniko-build/schema/diag"
)

// reference is one ${ns.name} of a text.
type reference struct {
	offset   int    // of its "$" in the text
	raw      string // as written, "${...}"
	ns, name string
	fallback *string // behind ":-"
	message  *string // behind ":?"
	filters  []filter
}

// filter is one |name or |name('a', 'b').
type filter struct {
	name string
	args []string
}

// segment is a stretch of a text: literal, or a reference.
type segment struct {
	literal string
	ref     *reference
}

// textError is a mistake inside a text.
type textError struct {
	offset     int
	what, hint string
}

// Only "${word." starts a reference: neither the shell nor a Dockerfile knows
// dots in names, so their own ${...} pass untouched.
var (
	refStart   = regexp.MustCompile(`^\$\{([A-Za-z_][A-Za-z0-9_]*)\.`)
	refEscape  = regexp.MustCompile(`^\$\$\{[A-Za-z_][A-Za-z0-9_]*\.`)
	refName    = regexp.MustCompile(`^[A-Za-z0-9_.-]+`)
	filterName = regexp.MustCompile(`^\|[ ]*([A-Za-z]+)`)
	filterArg  = regexp.MustCompile(`^[ ]*(?:'([^']*)'|"([^"]*)")[ ]*`)
)

// splitText cuts a text into its segments. "$${word." stands for "${word.".
func splitText(s string) ([]segment, *textError) {
	var out []segment
	var literal strings.Builder
	for i := 0; i < len(s); {
		next := strings.IndexByte(s[i:], '$')
		if next < 0 {
			literal.WriteString(s[i:])
			break
		}
		literal.WriteString(s[i : i+next])
		i += next
		switch {
		case refEscape.MatchString(s[i:]):
			literal.WriteString("${")
			i += len("$${")
		case refStart.MatchString(s[i:]):
			ref, n, err := readReference(s, i)
			if err != nil {
				return nil, err
			}
			if literal.Len() > 0 {
				out = append(out, segment{literal: literal.String()})
				literal.Reset()
			}
			out = append(out, segment{ref: ref})
			i = n
		default:
			literal.WriteByte('$')
			i++
		}
	}
	if literal.Len() > 0 {
		out = append(out, segment{literal: literal.String()})
	}
	return out, nil
}

// readReference reads the reference at s[start:] and returns the offset behind it.
func readReference(s string, start int) (*reference, int, *textError) {
	ref := &reference{offset: start}
	m := refStart.FindStringSubmatch(s[start:])
	ref.ns = m[1]
	i := start + len(m[0])
	ref.name = refName.FindString(s[i:])
	i += len(ref.name)
	if ref.name == "" {
		return nil, 0, badReference(i, "a name is missing")
	}
	if rest := s[i:]; strings.HasPrefix(rest, ":-") || strings.HasPrefix(rest, ":?") {
		text, _, _ := strings.Cut(rest[2:], "}")
		if rest[1] == '-' {
			text, _, _ = strings.Cut(text, "|")
			ref.fallback = &text
		} else {
			ref.message = &text
		}
		if refStart.MatchString(text) || strings.Contains(text, "${") {
			return nil, 0, badReference(i+2, "a reference cannot hold another")
		}
		i += 2 + len(text)
	}
	for i < len(s) && s[i] == '|' {
		f, n, err := readFilter(s, i)
		if err != nil {
			return nil, 0, err
		}
		ref.filters, i = append(ref.filters, f), n
	}
	if i >= len(s) || s[i] != '}' {
		return nil, 0, badReference(i, "it does not end with }")
	}
	ref.raw = s[start : i+1]
	return ref, i + 1, nil
}

func readFilter(s string, i int) (filter, int, *textError) {
	m := filterName.FindStringSubmatch(s[i:])
	if m == nil {
		return filter{}, 0, badReference(i, "a filter's name is missing")
	}
	f := filter{name: m[1]}
	known, ok := filters[f.name]
	if !ok {
		return f, 0, &textError{i, fmt.Sprintf("unknown filter %q", f.name), suggestFrom(f.name, filterNames())}
	}
	end := i + len(m[0])
	if end < len(s) && s[end] == '(' {
		var ok bool
		if f.args, end, ok = readArgs(s, end+1); !ok {
			return f, 0, badReference(end, fmt.Sprintf("filter %q needs quoted arguments and a )", f.name))
		}
	}
	if len(f.args) != known.args {
		return f, 0, &textError{i, fmt.Sprintf("filter %q takes %d arguments, not %d", f.name, known.args, len(f.args)), known.usage}
	}
	return f, end, nil
}

func readArgs(s string, i int) (args []string, end int, ok bool) {
	for {
		m := filterArg.FindStringSubmatch(s[i:])
		if m == nil {
			return nil, i, false
		}
		args = append(args, m[1]+m[2])
		i += len(m[0])
		switch {
		case strings.HasPrefix(s[i:], ","):
			i++
		case strings.HasPrefix(s[i:], ")"):
			return args, i + 1, true
		default:
			return nil, i, false
		}
	}
}

func badReference(offset int, why string) *textError {
	return &textError{offset, "not a reference: " + why, "write ${vars.name}, or $${vars.name} for the text itself"}
}

// isLoneReference tells whether s is one reference and nothing else, so that it
// keeps the type of what it names.
func isLoneReference(s string) bool {
	if !strings.HasPrefix(s, "${") || !strings.HasSuffix(s, "}") {
		return false
	}
	segments, err := splitText(s)
	return err == nil && len(segments) == 1 && segments[0].ref != nil
}

// hasReference tells whether expanding s may change it.
func hasReference(s string) bool { return strings.Contains(s, "${") }

// expander replaces the references of values.
type expander struct {
	names    names
	problems *diag.List
	budget   *budget
	// late are namespaces whose references stay, to be replaced by Expand. Texts
	// are then left so that Expand makes them what they would be.
	late []string
}

// budget keeps what a manifest makes of itself in bounds: a text of a few bytes
// may stand for megabytes, and a template for as many targets as there are.
type budget struct {
	spent int // bytes, about
	told  bool
}

// spend takes n bytes, and reports at pos when they are not to be had.
func (b *budget) spend(n int, pos diag.Pos, l *diag.List) (ok bool) {
	b.spent += n
	if b.spent > maxExpanded && !b.told {
		b.told = true
		l.Add(pos, "", "references and templates make more than %d MB of this manifest", maxExpanded>>20)
	}
	return b.spent <= maxExpanded && l.Len() < maxProblems
}

// names answers what a reference names: a value, or nil for one that has none;
// an error for a name that does not exist.
type names interface {
	// lookup answers for the file that wrote the reference.
	lookup(file, ns, name string) (*value, error)
}

// expand returns v with every reference replaced, or nil after it has reported
// why that cannot be done. The parts of a list or mapping that fail are left out,
// and so are those that turn out to be null.
func (x expander) expand(v *value) *value {
	switch v.kind {
	case listKind:
		items := make([]*value, 0, len(v.items))
		for _, item := range v.items {
			if done := x.expand(item); done != nil && (done.kind != nullKind || item.kind == nullKind) {
				items = append(items, done)
			}
		}
		return newList(v.pos, items)
	case mapKind:
		entries := make([]entry, 0, len(v.entries))
		for _, e := range v.entries {
			if done := x.expand(e.value); done != nil && (done.kind != nullKind || e.value.kind == nullKind) {
				entries = append(entries, entry{e.name, e.pos, done})
			}
		}
		return newMap(v.pos, entries)
	case stringKind:
		return x.scalar(v)
	default:
		return v
	}
}

// lone expands v if it is one reference; see merger.
func (x expander) lone(v *value) *value {
	if v == nil || v.kind != stringKind || !isLoneReference(v.text) {
		return v
	}
	return x.scalar(v)
}

func (x expander) scalar(v *value) *value {
	if !hasReference(v.text) {
		return v
	}
	segments, bad := splitText(v.text)
	if bad != nil {
		x.problems.Add(v.at(bad.offset), bad.hint, "%s", bad.what)
		return nil
	}
	if len(segments) == 1 && segments[0].ref != nil && !slices.Contains(x.late, segments[0].ref.ns) {
		return x.loneReference(v, segments[0].ref)
	}
	var b strings.Builder
	failed, lines := false, v.origin.lines
	for _, s := range segments {
		if s.ref == nil {
			b.WriteString(x.literal(s.literal))
			continue
		}
		if slices.Contains(x.late, s.ref.ns) {
			if bad := checkLate(s.ref); bad != nil {
				x.problems.Add(v.at(s.ref.offset), bad.hint, "%s", bad.what)
				failed = true
			}
			b.WriteString(s.ref.raw)
			continue
		}
		got := x.reference(v, s.ref)
		switch {
		case got == nil:
			failed = true
		case got.kind == nullKind:
			x.problems.Add(v.at(s.ref.offset), fmt.Sprintf("let it stand alone, or write ${%s.%s:-}", s.ref.ns, s.ref.name), "%s.%s is null and cannot be part of a text", s.ref.ns, s.ref.name)
			failed = true
		case !got.isScalar():
			x.problems.Add(v.at(s.ref.offset), "let it stand alone", "${%s.%s} is %s and cannot be part of a text", s.ref.ns, s.ref.name, got.kind)
			failed = true
		case !x.budget.spend(len(got.text), v.pos, x.problems):
			return nil
		default:
			lines = lines && !strings.Contains(got.text, "\n")
			b.WriteString(x.literal(got.text))
		}
	}
	if failed || !x.budget.spend(b.Len(), v.pos, x.problems) {
		return nil
	}
	out := newText(v.pos, b.String())
	if lines { // the lines are still those of the file, though not all their columns
		out.origin = place{start: v.origin.start, lines: true}
	}
	return out
}

// literal is text that Expand leaves alone, where it comes later.
func (x expander) literal(text string) string {
	if len(x.late) == 0 || !strings.Contains(text, "${") {
		return text
	}
	return lateEscape.ReplaceAllString(text, "$$$0")
}

var lateEscape = regexp.MustCompile(`\$\{[A-Za-z_][A-Za-z0-9_]*\.`)

// lateFacts is what references can name only when a target is built.
var lateFacts = map[string][]string{"input": {"digest"}, "result": {"ref", "digest"}}

func checkLate(ref *reference) *textError {
	if known := lateFacts[ref.ns]; !slices.Contains(known, ref.name) {
		return &textError{ref.offset, fmt.Sprintf("${%s.%s} is unknown", ref.ns, ref.name), suggestFrom(ref.name, known)}
	}
	return nil
}

// HasLate tells whether a text of the manifest still holds a reference that only
// Expand can replace.
func HasLate(text string) bool {
	segments, bad := splitText(text)
	return bad == nil && slices.ContainsFunc(segments, func(s segment) bool { return s.ref != nil })
}

// Expand replaces the references of a text that Parse had to leave, such as a
// Hook's: facts are by their full name, "input.digest". A missing one is an error.
func Expand(text string, facts map[string]string) (string, error) {
	var l diag.List
	x := expander{names: factNames(facts), problems: &l, budget: &budget{}}
	v := x.expand(newText(diag.Pos{}, text))
	if err := l.Err(); err != nil {
		return "", err
	}
	return v.text, nil
}

// factNames are facts by ns.name.
type factNames map[string]string

func (f factNames) lookup(_, ns, name string) (*value, error) {
	if text, ok := f[ns+"."+name]; ok {
		return newText(diag.Pos{}, text), nil
	}
	return nil, nil
}

// loneReference keeps the type of what is named, and the place that named it.
func (x expander) loneReference(v *value, ref *reference) *value {
	got := x.reference(v, ref)
	if got == nil {
		return nil
	}
	here := *got
	here.pos, here.origin = v.pos, place{}
	if len(x.late) > 0 && here.isScalar() {
		here.text = x.literal(here.text)
	}
	return &here
}

// reference is the value of one reference, filters applied; nil when it failed.
func (x expander) reference(v *value, ref *reference) *value {
	got, err := x.names.lookup(v.pos.File, ref.ns, ref.name)
	if got == failedValue {
		return nil
	}
	if err == nil && got != nil && got.kind == nullKind {
		if ref.fallback == nil && ref.message == nil {
			return got // whatever the filters
		}
		got = nil
	}
	if err == nil && got != nil && len(ref.filters) == 0 && (!got.isScalar() || got.text != "") {
		return got // without a look for its position, which costs a pass through the text
	}
	pos := v.at(ref.offset)
	if err != nil {
		x.problems.AddErr(pos, placed(err, pos))
		return nil
	}
	if got == nil || got.isScalar() && got.text == "" {
		switch {
		case ref.fallback != nil:
			got = newText(pos, *ref.fallback)
		case ref.message != nil:
			x.problems.Add(pos, "", "${%s.%s}: %s", ref.ns, ref.name, *ref.message)
			return nil
		case got == nil:
			x.problems.Add(pos, fmt.Sprintf("give it one, or write ${%s.%s:-default}", ref.ns, ref.name), "%s.%s has no value", ref.ns, ref.name)
			return nil
		}
	}
	for _, f := range ref.filters {
		if !got.isScalar() {
			x.problems.Add(pos, "", "filter %q needs text, and ${%s.%s} is %s", f.name, ref.ns, ref.name, got.kind)
			return nil
		}
		text, err := filters[f.name].apply(got.text, f.args)
		if err != nil {
			x.problems.Add(pos, "", "${%s.%s}: %v", ref.ns, ref.name, err)
			return nil
		}
		got = newText(pos, text)
	}
	return got
}

// placed gives a Problem without a position one.
func placed(err error, pos diag.Pos) error {
	var p *diag.Problem
	if errors.As(err, &p) && p.Pos == (diag.Pos{}) {
		return &diag.Problem{Pos: pos, What: p.What, Hint: p.Hint}
	}
	return err
}

// filters is what may stand behind a "|".
var filters = map[string]struct {
	args  int
	usage string
	apply func(text string, args []string) (string, error)
}{
	"slug":  {apply: func(s string, _ []string) (string, error) { return Slug(s), nil }},
	"lower": {apply: func(s string, _ []string) (string, error) { return strings.ToLower(s), nil }},
	"short": {apply: func(s string, _ []string) (string, error) { return short(s), nil }},
	"semver": {apply: func(s string, _ []string) (string, error) {
		return semver(s)
	}},
	"replace": {args: 2, usage: "write |replace('old', 'new')", apply: func(s string, a []string) (string, error) {
		return strings.ReplaceAll(s, a[0], a[1]), nil
	}},
}

func filterNames() []string {
	return []string{"lower", "replace", "semver", "short", "slug"}
}

var notSlug = regexp.MustCompile(`[^a-z0-9]+`)

// Slug makes a text fit for a tag, a host name and a file name, by the rule of
// GitLab's CI_COMMIT_REF_SLUG: lower case, "-" for the rest, 63 characters.
func Slug(s string) string {
	s = strings.Trim(notSlug.ReplaceAllString(strings.ToLower(s), "-"), "-")
	return strings.TrimRight(s[:min(len(s), 63)], "-")
}

// short is the first seven characters, as git abbreviates, of a digest those
// behind its "sha256:".
func short(s string) string {
	s = s[strings.IndexByte(s, ':')+1:]
	r := []rune(s)
	return string(r[:min(len(r), 7)])
}

var semverText = regexp.MustCompile(`^v?(\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?)(?:\+([0-9A-Za-z.-]+))?$`)

// semver is a version without its "v". Tags know no "+", so "_" stands for it,
// as helm has it. The empty text stays empty.
func semver(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	m := semverText.FindStringSubmatch(s)
	switch {
	case m == nil:
		return "", fmt.Errorf("%q is not a semantic version such as v1.4.2", s)
	case m[2] != "":
		return m[1] + "_" + m[2], nil
	default:
		return m[1], nil
	}
}

// maxListed is how many names a hint may list.
const maxListed = 20

// suggestFrom is a suggestion, or the whole list when nothing is near and it is short.
func suggestFrom(got string, names []string) string {
	if hint := diag.Suggest(got, names); hint != "" || len(names) == 0 || len(names) > maxListed {
		return hint
	}
	names = slices.Sorted(slices.Values(names))
	return "there is " + quoteAll(names, "and")
}
