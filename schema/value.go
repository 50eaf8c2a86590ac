package schema

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"kaniko-build/schema/diag"
)

// Caps on what a file may ask of us. They are far above what people write and
// far below what would hurt.
const (
	maxFileSize = 2 << 20  // bytes
	maxDepth    = 40       // values inside values
	maxValues   = 250_000  // with every alias counted as often as it is used
	maxExpanded = 64 << 20 // bytes that references and inheritance make of it, about
	maxProblems = 1000     // before we stop looking for more
	maxRefs     = 1000     // of one target
)

// kind says what a value is.
type kind string

const (
	nullKind   kind = "null"
	boolKind   kind = "true or false"
	intKind    kind = "a number"
	floatKind  kind = "a decimal number"
	stringKind kind = "text"
	listKind   kind = "a list"
	mapKind    kind = "a mapping"
)

// value is one YAML value with its place. Values never change once made, so
// that aliases, templates and targets can share them.
type value struct {
	pos     diag.Pos
	kind    kind
	text    string // scalars: as written, so that 1.10 stays 1.10
	origin  place  // scalars: where text stands in its file
	items   []*value
	entries []entry // mappings: in the order written
	size    int     // values in it, itself included
	depth   int     // how many lie inside each other below it
}

// entry is one key of a mapping.
type entry struct {
	name  string
	pos   diag.Pos
	value *value
}

// place maps an offset in a scalar's text to its position in the file.
type place struct {
	start diag.Pos // of the first character of the text
	lines bool     // line n of the text is line start.Line+n of the file, all indented alike
	exact bool     // the text stands in one line as it is
}

// at is the position of text[offset], or pos where that cannot be told.
func (v *value) at(offset int) diag.Pos {
	p := v.origin.start
	switch {
	case v.origin.exact:
		p.Col += offset
	case v.origin.lines:
		before := v.text[:offset]
		p.Line += strings.Count(before, "\n")
		p.Col += offset - (strings.LastIndexByte(before, '\n') + 1)
	default:
		return v.pos
	}
	return p
}

// get is the value of a key, or nil if it is missing or null, or if there is no v.
func (v *value) get(name string) *value {
	if v == nil {
		return nil
	}
	for _, e := range v.entries {
		if e.name == name && e.value.kind != nullKind {
			return e.value
		}
	}
	return nil
}

func (v *value) isScalar() bool { return v.kind != listKind && v.kind != mapKind && v.kind != nullKind }

// str is the text of a scalar, "" of anything else.
func (v *value) str() string {
	if v == nil || !v.isScalar() {
		return ""
	}
	return v.text
}

// isTrue tells whether v reads as true. That may be a text: references to the
// environment give no other.
func (v *value) isTrue() bool { return strings.EqualFold(v.str(), "true") }

// list is the items of a list, or the one scalar or mapping itself.
func (v *value) list() []*value {
	switch {
	case v == nil || v.kind == nullKind:
		return nil
	case v.kind == listKind:
		return v.items
	default:
		return []*value{v}
	}
}

// strings is the texts of a list of scalars.
func (v *value) strings() []string {
	var out []string
	for _, item := range v.list() {
		out = append(out, item.str())
	}
	return out
}

// newMap and newList make values that hold others.
func newMap(pos diag.Pos, entries []entry) *value {
	v := &value{pos: pos, kind: mapKind, entries: entries, size: 1}
	for _, e := range entries {
		v.size += e.value.size
		v.depth = max(v.depth, 1+e.value.depth)
	}
	return v
}

func newList(pos diag.Pos, items []*value) *value {
	v := &value{pos: pos, kind: listKind, items: items, size: 1}
	for _, item := range items {
		v.size += item.size
		v.depth = max(v.depth, 1+item.depth)
	}
	return v
}

// newText makes a scalar that stands in no file by itself.
func newText(pos diag.Pos, text string) *value {
	return &value{pos: pos, kind: stringKind, text: text, size: 1}
}

// readYAML turns the text of one file into a value. Problems go to l; the
// result is nil when nothing of the file can be used.
func readYAML(name string, text []byte, l *diag.List) *value {
	file := diag.Pos{File: name}
	switch {
	case len(text) > maxFileSize:
		l.Add(file, "", "is larger than %d MB", maxFileSize>>20)
		return nil
	case !utf8.Valid(text):
		l.Add(notUTF8(name, text), "save it as UTF-8", "is not UTF-8 text")
		return nil
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) || err == nil && len(doc.Content) == 0 {
		l.Add(file, "the smallest manifest is: version: 1, and targets", "is empty")
		return nil
	} else if err != nil {
		l.AddErr(file, syntaxProblem(name, text, err))
		return nil
	}
	r := &yamlReader{source: newSource(name, text), problems: l, made: map[*yaml.Node]*value{}}
	v := r.read(doc.Content[0], 1)
	var second yaml.Node
	switch err := dec.Decode(&second); {
	case err == nil:
		l.Add(r.source.pos(second.Line, second.Column), "keep one, or split the file", "a second YAML document in one file")
	case !errors.Is(err, io.EOF):
		l.AddErr(file, syntaxProblem(name, text, err))
	}
	return v
}

// notUTF8 is where a text stops being UTF-8.
func notUTF8(name string, text []byte) diag.Pos {
	pos := diag.Pos{File: name, Line: 1, Col: 1}
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		if r == utf8.RuneError && n == 1 {
			break
		}
		if pos.Col += n; r == '\n' {
			pos.Line, pos.Col = pos.Line+1, 1
		}
		text = text[n:]
	}
	return pos
}

var yamlErrorLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

var unknownAnchor = regexp.MustCompile(`unknown anchor '([^']*)' referenced`)

// syntaxProblem gives an error of the YAML parser its position in text.
func syntaxProblem(name string, text []byte, err error) error {
	p := &diag.Problem{Pos: diag.Pos{File: name}}
	m := yamlErrorLine.FindStringSubmatch(err.Error())
	if m == nil {
		p.What = "not YAML: " + err.Error()
		return p
	}
	if m[1] != "" {
		p.Pos.Line, _ = strconv.Atoi(m[1]) // the pattern takes digits only; too many of them leave the line unknown
	}
	p.What = "not YAML: " + strings.TrimPrefix(err.Error(), m[0])
	if a := unknownAnchor.FindStringSubmatch(err.Error()); a != nil { // yaml.v3 does not say where
		p.What = fmt.Sprintf("alias %q leads nowhere", a[1])
		use := regexp.MustCompile(`(?m)(?:^|[\s,:\[{-])\*` + regexp.QuoteMeta(a[1]) + `(?:[\s,\]}]|$)`)
		if at := use.FindIndex(text); at != nil {
			star := at[0] + bytes.IndexByte(text[at[0]:at[1]], '*')
			line := bytes.LastIndexByte(text[:star], '\n') + 1
			p.Pos.Line, p.Pos.Col = bytes.Count(text[:star], []byte("\n"))+1, star-line+1
		}
	}
	if strings.Contains(p.What, "did not find expected ','") {
		p.Hint = "here or in the next line: inside { } and [ ] a text with ${...} needs quotes"
	}
	if strings.Contains(p.What, "cannot start any token") {
		p.Hint = "YAML is indented with spaces, not tabs, and text that begins with @, ` or % needs quotes"
	}
	if strings.Contains(p.What, "incompatible YAML document") {
		p.What, p.Hint = "not a version of YAML that is read", "leave the line with %YAML out"
	}
	return p
}

// yamlReader turns yaml.v3's nodes into values, once for each anchor.
type yamlReader struct {
	source   *source
	problems *diag.List
	made     map[*yaml.Node]*value // anchors; nil while one is being read
	merged   int                   // keys that "<<" has copied so far
}

// read returns nil after it has reported why n cannot be used.
func (r *yamlReader) read(n *yaml.Node, depth int) *value {
	pos := r.source.pos(n.Line, n.Column)
	if depth > maxDepth {
		r.problems.Add(pos, "", "is nested deeper than %d levels", maxDepth)
		return nil
	}
	if n.Kind == yaml.AliasNode {
		return r.alias(n, pos, depth)
	}
	if n.Style&yaml.TaggedStyle != 0 {
		r.problems.Add(pos, "leave it out: the field says what type its value has", "YAML tag %q is not allowed", n.Tag)
		return nil
	}
	if n.Anchor != "" {
		r.made[n] = nil
	}
	var v *value
	switch n.Kind {
	case yaml.ScalarNode:
		v = r.scalar(n, pos)
	case yaml.SequenceNode:
		v = r.sequence(n, pos, depth)
	case yaml.MappingNode:
		v = r.mapping(n, pos, depth)
	}
	if v != nil && v.size > maxValues {
		r.problems.Add(pos, "", "holds more than %d values once its aliases are followed", maxValues)
		v = nil
	}
	if n.Anchor != "" {
		r.made[n] = v
	}
	return v
}

func (r *yamlReader) alias(n *yaml.Node, pos diag.Pos, depth int) *value {
	v, seen := r.made[n.Alias]
	switch {
	case !seen: // a target of an alias always stands before it
		r.problems.Add(pos, "", "alias %q leads nowhere", n.Value)
	case v == nil:
		r.problems.Add(pos, "", "alias %q leads to a value that holds it, or that is wrong itself", n.Value)
	case depth+v.depth > maxDepth:
		r.problems.Add(pos, "", "is nested deeper than %d levels", maxDepth)
	default:
		return v
	}
	return nil
}

func (r *yamlReader) scalar(n *yaml.Node, pos diag.Pos) *value {
	v := &value{pos: pos, text: n.Value, size: 1}
	switch n.ShortTag() {
	case "!!null":
		v.kind = nullKind
	case "!!bool":
		v.kind = boolKind
	case "!!int":
		v.kind = intKind
	case "!!float":
		v.kind = floatKind
	default: // timestamps too: what they mean is for the field to say
		v.kind = stringKind
	}
	v.origin = r.source.place(n, pos)
	return v
}

func (r *yamlReader) sequence(n *yaml.Node, pos diag.Pos, depth int) *value {
	var items []*value
	for _, c := range n.Content {
		if item := r.read(c, depth+1); item != nil {
			items = append(items, item)
		}
	}
	return newList(pos, items)
}

func (r *yamlReader) mapping(n *yaml.Node, pos diag.Pos, depth int) *value {
	var own []entry
	var merged []*value
	first := map[string]diag.Pos{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, c := n.Content[i], n.Content[i+1]
		at := r.source.pos(k.Line, k.Column)
		if isMergeKey(k) {
			merged = append(merged, r.mergeSources(c, depth)...)
			continue
		}
		if k.Kind != yaml.ScalarNode || k.ShortTag() == "!!null" || k.Style&yaml.TaggedStyle != 0 {
			r.problems.Add(at, "", "a key must be plain text")
			continue
		}
		if old, twice := first[k.Value]; twice {
			r.problems.Add(at, "keep one of them", "key %q is already given in line %d", k.Value, old.Line)
			continue
		}
		first[k.Value] = at
		if v := r.read(c, depth+1); v != nil {
			own = append(own, entry{k.Value, at, v})
		}
	}
	return newMap(pos, r.withMerged(pos, own, merged, first))
}

func isMergeKey(k *yaml.Node) bool {
	return k.Kind == yaml.ScalarNode && k.Value == "<<" && k.Style == 0
}

// mergeSources reads what stands beside "<<": a mapping or a list of them.
func (r *yamlReader) mergeSources(n *yaml.Node, depth int) []*value {
	v := r.read(n, depth+1)
	var out []*value
	for _, m := range v.list() {
		if m.kind != mapKind {
			r.problems.Add(m.pos, "", "\"<<\" takes a mapping or a list of mappings, not %s", m.kind)
			continue
		}
		out = append(out, m)
	}
	return out
}

// withMerged adds the keys of merged mappings that are not there yet, earlier
// mappings first.
func (r *yamlReader) withMerged(pos diag.Pos, own []entry, merged []*value, have map[string]diag.Pos) []entry {
	for _, m := range merged {
		if r.merged += len(m.entries); r.merged > maxValues {
			r.problems.Add(pos, "", "\"<<\" copies more than %d keys in this file", maxValues)
			return own
		}
		for _, e := range m.entries {
			if _, ok := have[e.name]; !ok {
				have[e.name] = e.pos
				own = append(own, e)
			}
		}
	}
	return own
}

// source is the text of a file, by lines.
type source struct {
	name  string
	text  []byte
	lines []int // offset of the first byte of each

	// The last position that was asked for: the next one mostly follows in the same
	// line, and a line may be as long as the file.
	lastLine, lastChar int
	last               diag.Pos
}

var lineBreak = regexp.MustCompile("\r\n|\n|\r|\u0085|\u2028|\u2029") // YAML's

func newSource(name string, text []byte) *source {
	s := &source{name: name, text: text, lines: []int{0}}
	for _, m := range lineBreak.FindAllIndex(text, -1) {
		s.lines = append(s.lines, m[1])
	}
	return s
}

// pos is a position whose column counts characters, as yaml.v3 does, in bytes.
func (s *source) pos(line, col int) diag.Pos {
	p, char := diag.Pos{File: s.name, Line: line, Col: 1}, 1
	if line == s.lastLine && col >= s.lastChar {
		p, char = s.last, s.lastChar
	}
	rest := s.line(line)
	rest = rest[min(p.Col-1, len(rest)):]
	for ; char < col && len(rest) > 0; char++ {
		_, n := utf8.DecodeRune(rest)
		rest, p.Col = rest[n:], p.Col+n
	}
	s.lastLine, s.lastChar, s.last = line, char, p
	return p
}

// line is the text from the start of a line (counted from 1) to the end of the file.
func (s *source) line(n int) []byte {
	if n < 1 || n > len(s.lines) {
		return nil
	}
	return s.text[s.lines[n-1]:]
}

// place finds where the text of a scalar stands: behind its quote, below its
// "|", or right at pos; or nowhere as it is (escapes, folded lines).
func (s *source) place(n *yaml.Node, pos diag.Pos) place {
	start := pos
	switch {
	case n.Style&yaml.LiteralStyle != 0:
		return s.blockPlace(n.Value, pos)
	case n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0:
		start.Col++
	}
	rest := s.line(start.Line)
	if start.Col-1 <= len(rest) && bytes.HasPrefix(rest[start.Col-1:], []byte(n.Value)) && !strings.Contains(n.Value, "\n") {
		return place{start: start, exact: true}
	}
	return place{}
}

// blockPlace finds the text of a literal block in the lines below pos.
func (s *source) blockPlace(text string, pos diag.Pos) place {
	start := diag.Pos{File: pos.File, Line: pos.Line + 1, Col: 1}
	first, _, _ := strings.Cut(strings.TrimLeft(text, "\n"), "\n")
	skipped := strings.Count(text[:len(text)-len(strings.TrimLeft(text, "\n"))], "\n")
	at, _, _ := bytes.Cut(s.line(start.Line+skipped), []byte("\n"))
	if i := bytes.Index(at, []byte(first)); i >= 0 && first != "" {
		start.Col += i
		return place{start: start, lines: true}
	}
	return place{}
}

// quoteAll joins names for a message: "a", "b" and "c".
func quoteAll(names []string, last string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = strconv.Quote(n)
	}
	if len(quoted) < 2 {
		return strings.Join(quoted, "")
	}
	return fmt.Sprintf("%s %s %s", strings.Join(quoted[:len(quoted)-1], ", "), last, quoted[len(quoted)-1])
}
