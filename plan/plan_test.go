package plan_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"kaniko-build/graph"
	"kaniko-build/plan"
	"kaniko-build/schema"
	"kaniko-build/schema/diag"
)

var update = flag.Bool("update", false, "rewrite golden files")

// dockerfiles reads Dockerfiles in a file system by the few rules these tests
// need: FROM [--platform=P] NAME, COPY --from=NAME and RUN --mount=from=NAME; a
// name that still holds "$" after ARG NAME=VALUE and the target's args is unresolved.
type dockerfiles struct {
	files fs.FS
	mu    sync.Mutex
	asked []string
}

var instruction = regexp.MustCompile(`^(FROM|COPY|ADD|RUN)(?: --platform=(\S+)| --from=(\S+)| --mount=\S*from=([^ ,]+))?(?: (\S+))?`)

func (d *dockerfiles) References(t schema.Target, platform string) ([]plan.Reference, error) {
	d.mu.Lock()
	d.asked = append(d.asked, t.Name+" "+platform)
	d.mu.Unlock()
	name, first := t.Dockerfile, 1
	var text string
	if t.Inline != nil {
		name, first, text = t.Inline.Pos.File, t.Inline.Pos.Line, t.Inline.Text
	} else {
		b, err := fs.ReadFile(d.files, t.Dockerfile)
		if err != nil {
			return nil, &diag.Problem{Pos: t.Pos, What: "no Dockerfile at " + t.Dockerfile}
		}
		text = string(b)
	}
	values := map[string]string{}
	var out []plan.Reference
	for i, line := range strings.Split(text, "\n") {
		if arg, ok := strings.CutPrefix(line, "ARG "); ok {
			k, v, set := strings.Cut(arg, "=")
			if given, ok := t.Args[k]; ok {
				v, set = given, true
			}
			if set {
				values[k] = v
			}
		}
		m := instruction.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		r := plan.Reference{Pos: diag.Pos{File: name, Line: first + i, Col: 1}, Use: m[1], Platform: m[2]}
		switch {
		case m[3] != "":
			r.Use, r.Name = m[1]+" --from", m[3]
		case m[4] != "":
			r.Use, r.Name = "RUN --mount=from", m[4]
		case m[1] == "FROM":
			r.Name = m[5]
		default:
			continue
		}
		r.Name = os.Expand(r.Name, func(k string) string {
			if v, ok := values[k]; ok {
				return v
			}
			r.Unresolved = true
			return "${" + k + "}"
		})
		if r.Name != "scratch" {
			out = append(out, r)
		}
	}
	return out, nil
}

// workspace reads files written one after the other, each below "-- name --".
func workspace(text string) fstest.MapFS {
	out := fstest.MapFS{}
	for _, part := range strings.Split("\n"+text, "\n-- ")[1:] {
		name, body, _ := strings.Cut(part, " --\n")
		out[name] = &fstest.MapFile{Data: []byte(body + "\n")}
	}
	return out
}

func makePlan(t *testing.T, files fstest.MapFS, facts plan.Facts, selection ...string) (*plan.Plan, error) {
	t.Helper()
	m, err := schema.Parse(files, "kaniko-build.yaml", schema.Options{})
	if err != nil {
		t.Fatalf("the manifest of the test is wrong: %v", err)
	}
	return plan.Make(m, selection, facts, &dockerfiles{files: files})
}

var amd64 = plan.Facts{Platform: "linux/amd64"}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s\ngot\n%s\nwant\n%s", file, got, want)
	}
}

// TestGoldenPlans prints the plan of each workspace in testdata, or its problems.
func TestGoldenPlans(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no workspaces: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			base := strings.TrimSuffix(file, ".txt")
			p, err := makePlan(t, workspace(string(text)), amd64)
			if err != nil {
				golden(t, base+".want", err.Error()+"\n")
				return
			}
			var table, json, again bytes.Buffer
			if err := errors.Join(p.Table(&table), p.JSON(&json)); err != nil {
				t.Fatal(err)
			}
			golden(t, base+".want", table.String())
			golden(t, base+".json", json.String())
			p, err = makePlan(t, workspace(string(text)), amd64)
			if err = errors.Join(err, p.JSON(&again)); err != nil || again.String() != json.String() {
				t.Errorf("a second plan differs: %v\n%s", err, again.String())
			}
		})
	}
}

func TestImageMatchMakesEdges(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("0123456789abcdef", 4)
	for _, c := range []struct{ base, line, want string }{
		{"{image: reg.io/shop/base}", "FROM reg.io/shop/base", "base"},
		{"{image: reg.io/shop/base}", "FROM reg.io/shop/base:latest", "base"},
		{"{image: reg.io/shop/base}", "FROM reg.io/shop/base:1", ""},
		{"{image: reg.io/shop/base, tags: ['1', '2']}", "FROM reg.io/shop/base:2", "base"},
		{"{image: reg.io/shop/base, tags: ['1', '2']}", "FROM reg.io/shop/base", "base"},
		{"{image: reg.io/shop/base, tags: ['1', '2']}", "FROM reg.io/shop/base:latest", ""},
		{"{image: reg.io/shop/base}", "FROM reg.io/shop/base" + digest, ""},
		{"{image: reg.io/shop/base}", "FROM reg.io/shop/base:latest" + digest, ""},
		{"{image: reg.io/shop/base}", "FROM reg.io/shop/basement", ""},
		{"{image: reg.io/shop/base}", "FROM shop/base", ""},
		{"{}", "FROM base", "base"},
		{"{}", "FROM docker.io/library/base:latest", "base"},
		{"{}", "FROM index.docker.io/base", "base"},
		{"{image: docker.io/shop/base}", "FROM shop/base", "base"},
		{"{image: [a.io/x, b.io/y]}", "COPY --from=b.io/y /a /a", "base"},
		{"{tags: ['a.io/x:1']}", "RUN --mount=type=bind,from=a.io/x:1 true", "base"},
		{"{image: reg.io/base}", "ARG R=reg.io\nFROM ${R}/base", "base"},
		{"{image: reg.io/base}", "ARG V\nFROM reg.io/${V}", "base"}, // of the target's args
		{"{image: reg.io/base}", "FROM ADD", ""},
		{"{image: reg.io/base}", "FROM not//valid", ""},
	} {
		files := workspace("-- kaniko-build.yaml --\nversion: 1\ntargets:\n  base: " + c.base + "\n  api: {context: api, args: {V: base}}\n-- Dockerfile --\nFROM scratch\n-- api/Dockerfile --\n" + c.line + "\n")
		p, err := makePlan(t, files, amd64, "api")
		if err != nil {
			t.Errorf("%s, %s: %v", c.base, c.line, err)
			continue
		}
		var got []string
		for _, e := range p.Edges {
			got = append(got, string(e.Needs))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s, %s: needs %q, want %q", c.base, c.line, s, c.want)
		}
	}
}

func TestParentsAreNamedAsTheDockerfileNamesThem(t *testing.T) {
	p, err := makePlan(t, workspace(`-- kaniko-build.yaml --
version: 1
targets:
  base: {image: reg.io/base}
  tool: {image: reg.io/tool}
  api: {context: api, contexts: {src: "target:tool", "reg.io/base": "image:alpine", alpine: "target:base"}, needs: [tool]}
-- Dockerfile --
FROM scratch
-- api/Dockerfile --
FROM reg.io/base:latest
COPY --from=src / /
COPY --from=docker.io/library/alpine / /
COPY --from=reg.io/tool:latest / /
`), amd64)
	if err != nil {
		t.Fatal(err)
	}
	n := p.Node("api")
	if got, want := fmt.Sprint(n.Parents), "map[alpine:base reg.io/tool:latest:tool src:tool]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, e := range p.Edges {
		if e.Name == "reg.io/base" || e.Name == "reg.io/base:latest" {
			t.Errorf("an image that a context replaces made the edge %v", e)
		}
	}
	if p.Node("nobody") != nil {
		t.Error("a node that is not there was found")
	}
}

func TestNamedContextsBeatImages(t *testing.T) {
	for _, c := range []struct{ context, line, want string }{
		{"reg.io/base", "FROM reg.io/base:latest", ""},
		{"'reg.io/base:latest'", "FROM reg.io/base", ""},
		{"'reg.io/base:1'", "FROM reg.io/base", "base"},
		{"'reg.io/base::linux/amd64'", "FROM reg.io/base", ""},
		{"'reg.io/base::linux/arm64'", "FROM reg.io/base", "base"},
		{"other", "FROM reg.io/base", "base"},
	} {
		p, err := makePlan(t, workspace("-- kaniko-build.yaml --\nversion: 1\ntargets:\n  base: {image: reg.io/base}\n  api: {context: api, contexts: {"+c.context+": 'image:alpine'}}\n"+
			"-- Dockerfile --\nFROM scratch\n-- api/Dockerfile --\n"+c.line+"\n"), amd64, "api")
		if err != nil {
			t.Errorf("%s, %s: %v", c.context, c.line, err)
			continue
		}
		got := ""
		for _, e := range p.Edges {
			got += string(e.Needs)
		}
		if got != c.want {
			t.Errorf("context %s, %s: needs %q, want %q", c.context, c.line, got, c.want)
		}
	}
	p, err := makePlan(t, workspace("-- kaniko-build.yaml --\nversion: 1\ntargets:\n  base: {}\n  api: {contexts: {'x::linux/arm64': 'target:base', y: 'target:base'}}\n-- Dockerfile --\nFROM scratch\n"), amd64, "api")
	if err != nil || fmt.Sprint(p.Node("api").Parents) != "map[y:base]" {
		t.Errorf("a context for another platform makes a parent: %v, %v", p, err)
	}
}

const platforms = `-- kaniko-build.yaml --
version: 1
targets:
  base: {image: reg.io/base, platforms: [linux/amd64, linux/arm64]}
  plain: {image: reg.io/plain}
  api: {context: api, platforms: [linux/arm64, linux/amd64]}
  tool: {context: tool, needs: [api]}
-- Dockerfile --
FROM scratch
-- api/Dockerfile --
FROM --platform=linux/amd64 reg.io/plain
FROM reg.io/base
-- tool/Dockerfile --
FROM reg.io/base
`

func TestNodesAreTargetsTimesPlatforms(t *testing.T) {
	p, err := makePlan(t, workspace(platforms), amd64, "tool")
	if err != nil {
		t.Fatal(err)
	}
	var edges []string
	for _, e := range p.Edges {
		edges = append(edges, fmt.Sprintf("%s>%s", e.Node, e.Needs))
	}
	want := "base>base@linux/amd64 base>base@linux/arm64 " +
		"api@linux/arm64>plain api@linux/arm64>base@linux/arm64 api@linux/amd64>plain api@linux/amd64>base@linux/amd64 " +
		"api>api@linux/arm64 api>api@linux/amd64 " +
		"tool>base@linux/amd64 tool>api@linux/arm64 tool>api@linux/amd64"
	if got := strings.Join(edges, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	var selected []graph.ID
	for _, n := range p.Nodes {
		if n.Selected {
			selected = append(selected, n.ID)
		}
	}
	if !slices.Equal(selected, []graph.ID{"tool"}) || p.Node("tool").Platform != "linux/amd64" {
		t.Errorf("selected %v, tool is for %q", selected, p.Node("tool").Platform)
	}
}

// TestImagesAreWrittenOnceInAPlan plans targets that are other forms of one image.
func TestImagesAreWrittenOnceInAPlan(t *testing.T) {
	files := fstest.MapFS{
		"kaniko-build.yaml": {Data: []byte("version: 1\ntargets:\n  here: {image: reg.io/a}\n  all: {image: reg.io/a, platforms: [linux/amd64, linux/arm64]}\n  both: {needs: [here, all]}\ngroups: {default: [here]}\n")},
		"Dockerfile":        {Data: []byte("FROM scratch\n")},
	}
	for _, selection := range [][]string{nil, {"here"}, {"all"}} {
		if _, err := makePlan(t, files, amd64, selection...); err != nil {
			t.Errorf("%v: %v", selection, err)
		}
	}
	for _, selection := range [][]string{{"here", "all"}, {"both"}} {
		if _, err := makePlan(t, files, amd64, selection...); err == nil || !strings.Contains(err.Error(), `targets "here" and "all" are both reg.io/a:latest`) {
			t.Errorf("%v: %v", selection, err)
		}
	}
}

func TestParentsMustCoverPlatforms(t *testing.T) {
	for _, c := range []struct {
		name, base, api, line string
		facts                 plan.Facts
		want                  string
	}{
		{"missing", "[linux/amd64]", "[linux/arm64]", "FROM reg.io/base", amd64,
			"api/Dockerfile:1:1: target \"api\" needs \"base\" for linux/arm64, which is built for linux/amd64 only\n  hint: add linux/arm64 to the platforms of \"base\""},
		{"by FROM", "[linux/amd64]", "[linux/amd64]", "FROM --platform=linux/s390x reg.io/base", amd64, "for linux/s390x"},
		{"the machine's own", "null", "[linux/arm64]", "FROM reg.io/base", amd64, "built for linux/amd64 only"},
		{"an unknown machine is trusted", "null", "[linux/arm64]", "FROM reg.io/base", plan.Facts{}, ""},
		{"spelt otherwise", "[linux/arm64/v8]", "[linux/arm64]", "FROM --platform=linux/aarch64 reg.io/base", amd64, ""},
		{"two at once", "[linux/amd64, linux/arm64]", "[linux/arm64]", "FROM --platform=linux/amd64 reg.io/base\nFROM reg.io/base", amd64, ""},
		{"one of two", "[linux/amd64]", "[linux/amd64]", "FROM --platform=linux/arm64 reg.io/base\nFROM reg.io/base", amd64, "for linux/arm64"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := makePlan(t, workspace("-- kaniko-build.yaml --\nversion: 1\ntargets:\n  base: {image: reg.io/base, platforms: "+c.base+"}\n  api: {context: api, platforms: "+c.api+"}\n-- Dockerfile --\nFROM scratch\n-- api/Dockerfile --\n"+c.line+"\n"), c.facts, "api")
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestOnlyNeededDockerfilesAreRead(t *testing.T) {
	files := workspace(platforms)
	m, err := schema.Parse(files, "kaniko-build.yaml", schema.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		selection []string
		asked     string
	}{
		{[]string{"plain"}, "plain linux/amd64"},
		{[]string{"base"}, "base linux/amd64, base linux/arm64"},
		{[]string{"...plain"}, "api linux/amd64, api linux/arm64, base linux/amd64, base linux/arm64, plain linux/amd64, tool linux/amd64"},
	} {
		d := &dockerfiles{files: files}
		if _, err := plan.Make(m, c.selection, amd64, d); err != nil {
			t.Errorf("%v: %v", c.selection, err)
		}
		slices.Sort(d.asked)
		if got := strings.Join(d.asked, ", "); got != c.asked {
			t.Errorf("%v\ngot  %s\nwant %s", c.selection, got, c.asked)
		}
	}
}

// TestMakeTrustsNoManifest gives Make what schema.Parse would have refused.
func TestMakeTrustsNoManifest(t *testing.T) {
	m := &schema.Manifest{Targets: []schema.Target{{
		Name: "api", Dockerfile: "Dockerfile", Needs: []schema.Named{{Name: "apo"}, {Name: "api"}},
	}}}
	_, err := plan.Make(m, nil, plan.Facts{}, &dockerfiles{files: workspace("-- Dockerfile --\nFROM scratch\n")})
	want := "target \"api\" depends on unknown target \"apo\"\n  hint: did you mean \"api\"?\ntarget \"api\" needs itself"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestSelectionMistakesAreProblems(t *testing.T) {
	_, err := makePlan(t, workspace(platforms), amd64, "tol", "@none")
	var problems diag.Problems
	if !errors.As(err, &problems) || len(problems) != 2 {
		t.Fatalf("got %v", err)
	}
}

// TestNamesCannotSpeakToTheTerminal puts escape sequences where names go.
func TestNamesCannotSpeakToTheTerminal(t *testing.T) {
	p, err := makePlan(t, workspace("-- kaniko-build.yaml --\nversion: 1\ntargets:\n  base: {}\n  api: {context: api, contexts: {\"\\e[31m\": 'target:base'}}\n"+
		"-- Dockerfile --\nFROM scratch\n-- api/Dockerfile --\nFROM \x1b[2J${X}\n"), amd64)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := errors.Join(p.Table(&b), p.JSON(&b), p.Graph().DOT(&b, p.Look()), p.Graph().JSON(&b, p.Look())); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "\x1b") || len(p.Warnings) != 1 || strings.Contains(p.Warnings[0].Error(), "\x1b") {
		t.Errorf("an escape sequence comes through: %q %q", b.String(), p.Warnings)
	}
}

func TestDrawingsShowGroups(t *testing.T) {
	p, err := makePlan(t, workspace("-- kaniko-build.yaml --\nversion: 1\ntargets: {a: {groups: [g]}, b: {needs: [a]}}\n-- Dockerfile --\nFROM scratch\n"), amd64)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := p.Graph().Mermaid(&b, p.Look()); err != nil {
		t.Fatal(err)
	}
	want := "flowchart LR\n  n1[\"b\"]\n  subgraph g1[\"g\"]\n    n0[\"a\"]\n  end\n  n0 -->|\"needs a\"| n1\n"
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func ExampleMake() {
	files := fstest.MapFS{
		"kaniko-build.yaml": {Data: []byte("version: 1\ntargets:\n  base: {context: base, image: reg.example.com/base}\n  api: {context: api}\n")},
		"base/Dockerfile":   {Data: []byte("FROM scratch\n")},
		"api/Dockerfile":    {Data: []byte("FROM reg.example.com/base\n")},
	}
	m, err := schema.Parse(files, "kaniko-build.yaml", schema.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	p, err := plan.Make(m, []string{"api"}, plan.Facts{Platform: "linux/amd64"}, &dockerfiles{files: files})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(p.Order)
	for _, e := range p.Edges {
		fmt.Printf("%s: %s needs %s: %s\n", e.Pos, e.Node, e.Needs, e.Reason())
	}
	// Output:
	// [base api]
	// api/Dockerfile:1:1: api needs base: FROM reg.example.com/base
}

// BenchmarkMake1000 plans a thousand targets in layers of a hundred.
func BenchmarkMake1000(b *testing.B) {
	var y strings.Builder
	y.WriteString("version: 1\ntargets:\n")
	files := fstest.MapFS{}
	for i := range 1000 {
		fmt.Fprintf(&y, "  t%d: {context: t%d}\n", i, i)
		from := "scratch"
		if i >= 100 {
			from = fmt.Sprintf("t%d", i-100)
		}
		files[fmt.Sprintf("t%d/Dockerfile", i)] = &fstest.MapFile{Data: []byte("FROM " + from + "\n")}
	}
	files["kaniko-build.yaml"] = &fstest.MapFile{Data: []byte(y.String())}
	for b.Loop() {
		m, err := schema.Parse(files, "kaniko-build.yaml", schema.Options{})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := plan.Make(m, nil, amd64, &dockerfiles{files: files}); err != nil {
			b.Fatal(err)
		}
	}
}
