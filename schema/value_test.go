package schema

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"kaniko-build/schema/diag"
)

// TestHostileYAMLEndsFast feeds files that cost far more than their size.
func TestHostileYAMLEndsFast(t *testing.T) {
	laughs := "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	for i := 1; i < 20; i++ {
		laughs += fmt.Sprintf("a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	wide := "a: &a {" + numbered("k%d: 1, ", 10_000) + "}\n" + numbered("m%d: {<<: *a}\n", 20_000)
	chain := "a0: &a0 [x]\n"
	for i := 1; i < 100; i++ {
		chain += fmt.Sprintf("a%d: &a%d [*a%d]\n", i, i, i-1)
	}
	for name, c := range map[string]struct{ text, want string }{
		"aliases of aliases":    {laughs, "once its aliases are followed"},
		"merged keys":           {wide, `"<<" copies more than`},
		"aliases below aliases": {chain, "nested deeper than"},
		"deep lists":            {strings.Repeat("[", 5000) + strings.Repeat("]", 5000), "nested deeper than"},
		"deep blocks":           {strings.Repeat("- ", 5000) + "x", "nested deeper than"},
		"too deep for YAML":     {strings.Repeat("[", 100_000), "not YAML"},
		"large":                 {strings.Repeat("#", maxFileSize+1), "is larger than 2 MB"},
		"not text":              {"version: \xff\xfe", "is not UTF-8 text"},
		"binary":                {"\x00\x01\x02", "not YAML"},
		"alias of itself":       {"a: &a [*a]", "leads to a value that holds it"},
		"alias of nothing":      {"a: *b", `f:1:4: alias "b" leads nowhere`},
		"merge of text":         {"a: {<<: x}", `"<<" takes a mapping`},
		"custom tag":            {"a: !custom {}", "is not allowed"},
		"tagged key":            {"!!str a: b", "a key must be plain text"},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			var l diag.List
			readYAML("f", []byte(c.text), &l)
			if l.Len() == 0 || !strings.Contains(l.Err().Error(), c.want) {
				t.Errorf("got %v, want %s", l.Err(), c.want)
			}
			if d := time.Since(start); d > 20*time.Second {
				t.Errorf("took %v", d)
			}
		})
	}
}

// TestHostileManifestsEndFast feeds manifests that make much of little.
func TestHostileManifestsEndFast(t *testing.T) {
	big := strings.Repeat("x", 500_000)
	nested := "version: 1\ntargets: {a: {}}\ngroups:\n  g0: [a]\n"
	for i := 1; i < 60; i++ {
		nested += fmt.Sprintf("  g%d: ['@g%d', '@g%d', '!@g%d']\n", i, i-1, i-1, i-1)
	}
	for name, c := range map[string]struct{ text, want string }{
		"a text of a text": {"version: 1\nvars: {x: {default: " + big + "}}\ntargets: {a: {stage: '" + strings.Repeat("${vars.x}", 100_000) + "'}}", "make more than"},
		"a template for many": {"version: 1\nvars: {x: {default: y}}\ntemplates: {t: {dockerfileInline: '" + big + "${vars.x}'}}\ntargets:\n" +
			numbered("  a%d: {extends: [t]}\n", 20_000), "make more than"},
		"many values for many": {"version: 1\ntemplates: {t: {args: {" + numbered("A%d: 1, ", 20_000) + "}}}\ntargets:\n" +
			numbered("  a%d: {extends: [t]}\n", 20_000), "make more than"},
		"many mistakes":    {"version: 1\ntargets: {a: {dockerfileInline: '" + strings.Repeat("${vars.x}", 200_000) + "'}}", "unknown variable"},
		"images with tags": {"version: 1\ntargets: {a: {image: [" + numbered("a%d, ", 10_000) + "], tags: [" + numbered("t%d, ", 10_000) + "]}}", "which is more than 1000"},
		"groups of groups": {nested, ""},
		"one long line":    {"{version: 1, targets: {" + numbered("tä%d: {}, ", 60_000) + "}}", "is not a name for a target"},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := Parse(fstest.MapFS{"m.yaml": {Data: []byte(c.text)}}, "m.yaml", Options{})
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %.300v, want %s", err, c.want)
			}
			if d := time.Since(start); d > 20*time.Second {
				t.Errorf("took %v", d)
			}
		})
	}
}

func numbered(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// TestPositionsCountBytes looks behind every position for what stands there.
func TestPositionsCountBytes(t *testing.T) {
	text := "\ufeffpläin: wörd\r\n'ä': \"quöted ${x.y}\"\nlist: [ä, ö, last]\nblock: |\n\n  fïrst\n  second ${x.y} end\nfolded: >\n  one\n  two ${x.y}\n"
	var l diag.List
	v := readYAML("f", []byte(text), &l)
	if err := l.Err(); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimPrefix(text, "\ufeff"), "\n")
	for _, c := range []struct {
		pos  diag.Pos
		want string
	}{
		{v.get("pläin").pos, "wörd"},
		{v.get("ä").pos, `"quöted`},
		{at(v.get("ä"), "${"), "${x.y}"},
		{v.get("list").items[2].pos, "last"},
		{v.get("block").pos, "|"},
		{at(v.get("block"), "fïrst"), "fïrst"},
		{at(v.get("block"), "${"), "${x.y} end"},
		{at(v.get("folded"), "${"), ">"},
	} {
		if got := lines[c.pos.Line-1][c.pos.Col-1:]; !strings.HasPrefix(got, c.want) {
			t.Errorf("%v is at %q, want %q", c.pos, got, c.want)
		}
	}
}

// at is the position of a part of a scalar's text.
func at(v *value, part string) diag.Pos { return v.at(strings.Index(v.text, part)) }

func TestSplitText(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"plain $x ${x} ${x:-a.b} $(date) $$ 100$", "'plain $x ${x} ${x:-a.b} $(date) $$ 100$'"},
		{"${vars.a}", "<vars a>"},
		{"a${vars.a}b${env.B}", "'a'<vars a>'b'<env B>"},
		{"$${vars.a}", "'${vars.a}'"},
		{"$$${vars.a} $$$", "'$${vars.a} $$$'"},
		{"${vars.a:-}", "<vars a :->"},
		{"${vars.a:-x y/z:1}", "<vars a :-x y/z:1>"},
		{"${vars.a:-x|slug|lower}", "<vars a :-x |slug |lower>"},
		{"${vars.a:?set a | or b}", "<vars a :?set a | or b>"},
		{`${git.tag|replace('v', "}")}!`, `<git tag |replace("v","}")>'!'`},
		{"${git.tag | slug}", "error at 9: not a reference: it does not end with }"},
		{"${git.tag|replace(a,b)}", "error at 18: not a reference: filter \"replace\" needs quoted arguments and a )"},
		{"${git.}", "error at 6: not a reference: a name is missing"},
		{"x ${git.a", "error at 9: not a reference: it does not end with }"},
		{"${git.a|nope}", `error at 7: unknown filter "nope"`},
		{"${git.a|}", "error at 7: not a reference: a filter's name is missing"},
		{"${git.a|slug('x')}", `error at 7: filter "slug" takes 0 arguments, not 1`},
		{"${git.a:-${env.b}}", "error at 9: not a reference: a reference cannot hold another"},
	} {
		if got := showText(c.text); got != c.want {
			t.Errorf("%s\ngot  %s\nwant %s", c.text, got, c.want)
		}
	}
}

func showText(s string) string {
	segments, bad := splitText(s)
	if bad != nil {
		return fmt.Sprintf("error at %d: %s", bad.offset, bad.what)
	}
	var b strings.Builder
	for _, seg := range segments {
		if seg.ref == nil {
			b.WriteString("'" + seg.literal + "'")
			continue
		}
		b.WriteString("<" + seg.ref.ns + " " + seg.ref.name)
		if seg.ref.fallback != nil {
			b.WriteString(" :-" + *seg.ref.fallback)
		}
		if seg.ref.message != nil {
			b.WriteString(" :?" + *seg.ref.message)
		}
		for _, f := range seg.ref.filters {
			b.WriteString(" |" + f.name)
			if f.args != nil {
				b.WriteString(fmt.Sprintf("(%q,%q)", f.args[0], f.args[1]))
			}
		}
		b.WriteString(">")
	}
	return b.String()
}

func TestFilters(t *testing.T) {
	long := strings.Repeat("ab-", 40)
	for _, c := range []struct{ filter, text, want string }{
		{"slug", "Feature/Big_Thing--x!", "feature-big-thing-x"},
		{"slug", "1.24", "1-24"},
		{"slug", "äöü", ""},
		{"slug", long, long[:62]},
		{"lower", "ABC Ä", "abc ä"},
		{"short", "4f2c9d1e8b7a", "4f2c9d1"},
		{"short", "sha256:4f2c9d1e8b7a", "4f2c9d1"},
		{"short", "abc", "abc"},
		{"semver", "v1.4.2", "1.4.2"},
		{"semver", "1.4.2-rc.1+build.5", "1.4.2-rc.1_build.5"},
		{"semver", "", ""},
	} {
		got, err := filters[c.filter].apply(c.text, nil)
		if err != nil || got != c.want {
			t.Errorf("%q|%s = %q, %v; want %q", c.text, c.filter, got, err, c.want)
		}
	}
	for _, text := range []string{"latest", "v1", "1.2", "1.2.3.4", "1.2.3 "} {
		if got, err := filters["semver"].apply(text, nil); err == nil {
			t.Errorf("%q|semver = %q, want an error", text, got)
		}
	}
}

// FuzzCondition holds: no panic, and a mistake is placed inside the text.
func FuzzCondition(f *testing.F) {
	for _, text := range []string{"git.branch == 'main' && !git.dirty", "env.A =~ '^v[0-9]' || (vars.b|lower != \"x\")", "!(a.b", "a.b == ", "((('x')))", "a.b|replace('x', 'y')"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, bad := parseCondition(text)
		if bad != nil && (bad.offset < 0 || bad.offset > len(text)) {
			t.Fatalf("%q: a mistake at %d", text, bad.offset)
		}
		if (bad == nil) != (c != nil) {
			t.Fatalf("%q: %v %v", text, c, bad)
		}
	})
}

// FuzzParse holds: no panic, every position inside its file, a manifest that is
// printed is one again, and a value that is printed reads back as the same value.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/good/*.yaml", "testdata/bad/*.yaml", "testdata/annotated/*/*/kaniko-build.yaml", "../kaniko-build.yaml", "../examples/*/kaniko-build.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(text))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := Parse(fstest.MapFS{"m.yaml": {Data: []byte(text)}}, "m.yaml", Options{})
		var problems diag.Problems
		if err == nil {
			printsAgain(t, m)
		} else if errors.As(err, &problems) {
			for _, p := range problems {
				inside(t, text, p.Pos)
			}
		} else if err != nil {
			t.Fatalf("%T: %v", err, err)
		}
		var l diag.List
		v := readYAML("m.yaml", []byte(text), &l)
		if v == nil || l.Len() > 0 {
			return
		}
		everyPos(v, func(p diag.Pos) { inside(t, text, p) })
		printed := flow(v)
		if len(printed) > maxFileSize {
			return
		}
		if again := readYAML("m.yaml", []byte(printed), &l); l.Len() > 0 || !same(v, again) {
			t.Fatalf("printed as %s\nreads back as %s (%v)", printed, flow(again), l.Err())
		}
	})
}

// printsAgain fails if what a manifest prints is no manifest, or prints something else.
func printsAgain(t *testing.T, m *Manifest) {
	t.Helper()
	if len(m.cells) > 0 { // a group may name a matrix, and cells have no matrix
		return
	}
	var names []string
	for _, u := range m.Targets {
		names = append(names, u.Name)
	}
	var one, two bytes.Buffer
	if err := m.Print(&one, names, false); err != nil {
		t.Fatal(err)
	}
	again, err := Parse(fstest.MapFS{"m.yaml": {Data: one.Bytes()}}, "m.yaml", Options{})
	if err != nil {
		t.Fatalf("printed as\n%s\nwhich is no manifest: %v", one.String(), err)
	}
	if err := again.Print(&two, names, false); err != nil || one.String() != two.String() {
		t.Fatalf("printed as\n%s\nand then as\n%s\n%v", one.String(), two.String(), err)
	}
}

// inside fails for a position that is not in the text.
func inside(t *testing.T, text string, p diag.Pos) {
	t.Helper()
	if p.Line == 0 {
		return
	}
	s := newSource("m.yaml", []byte(strings.TrimPrefix(text, "\ufeff")))
	if p.Line > len(s.lines)+1 || p.Col > len(s.line(p.Line))+1 {
		t.Fatalf("position %v is outside of %q", p, text)
	}
}

func everyPos(v *value, visit func(diag.Pos)) {
	visit(v.pos)
	if v.origin.start.Line > 0 {
		visit(v.at(len(strings.TrimRight(v.text, "\n"))))
	}
	for _, item := range v.items {
		everyPos(item, visit)
	}
	for _, e := range v.entries {
		visit(e.pos)
		everyPos(e.value, visit)
	}
}

// flow prints a value in YAML's flow style.
func flow(v *value) string {
	if v == nil {
		return "<nil>"
	}
	var parts []string
	switch v.kind {
	case listKind:
		for _, item := range v.items {
			parts = append(parts, flow(item))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case mapKind:
		for _, e := range v.entries {
			parts = append(parts, quoted(e.name)+": "+flow(e.value))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case stringKind:
		return quoted(v.text)
	case nullKind:
		return "null"
	default:
		return v.text
	}
}

// quoted is a text in YAML's double quotes.
func quoted(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r < ' ' || r == '"' || r == '\\' || r > '~' {
			fmt.Fprintf(&b, `\U%08X`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return `"` + b.String() + `"`
}

// same tells whether two values mean the same, wherever they stand.
func same(v, w *value) bool {
	if v == nil || w == nil {
		return v == w
	}
	if v.kind != w.kind || v.kind != nullKind && v.text != w.text || len(v.items) != len(w.items) || len(v.entries) != len(w.entries) {
		return false
	}
	for i := range v.items {
		if !same(v.items[i], w.items[i]) {
			return false
		}
	}
	for i, e := range v.entries {
		if w.entries[i].name != e.name || !same(e.value, w.entries[i].value) {
			return false
		}
	}
	return true
}

func TestFlowReadsBack(t *testing.T) {
	var l diag.List
	text := `{a: [1, 1.50, true, null, "x\ty", ` + strconv.Quote("ä$") + `], "k: v": {}}`
	v := readYAML("f", []byte(text), &l)
	if w := readYAML("f", []byte(flow(v)), &l); l.Len() > 0 || !same(v, w) {
		t.Errorf("%s reads back as %s: %v", flow(v), flow(w), l.Err())
	}
}
