package schema_test

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"kaniko-build/schema"
	"kaniko-build/schema/diag"
)

var update = flag.Bool("update", false, "rewrite golden files")

// world is the environment and git of the golden files.
var world = schema.Options{
	WorkspaceName: "directory",
	LookupEnv: func(name string) (string, bool) {
		v, ok := map[string]string{"CI_REGISTRY_IMAGE": "reg.example.com/shop", "WORD": "word", "X": "x"}[name]
		return v, ok
	},
	Git: func(fact string) (string, error) {
		return map[string]string{
			"sha": "4f2c9d1e8b7a6c5d4e3f2a1b0c9d8e7f6a5b4c3d", "branch": "Feature/Big Thing", "tag": "v1.4.2+b7", "dirty": "true",
		}[fact], nil
	},
}

// golden compares got with a file, or writes it.
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

func files(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		t.Fatalf("no files %s: %v", pattern, err)
	}
	return found
}

func TestParseResolvesEverything(t *testing.T) {
	for _, file := range files(t, "testdata/good/*.yaml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			m, err := schema.Parse(os.DirFS("testdata/good"), filepath.Base(file), world)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".want", show(m))
		})
	}
}

func TestParseReportsAllMistakesOfAFile(t *testing.T) {
	opts := world
	opts.Git = func(string) (string, error) { return "", errors.New("exit status 128") }
	for _, file := range files(t, "testdata/bad/*.yaml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			m, err := schema.Parse(os.DirFS("testdata/bad"), filepath.Base(file), opts)
			if err == nil {
				t.Fatalf("accepted as\n%s", show(m))
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".want", err.Error()+"\n")
		})
	}
}

// show prints a manifest, a fact a line, positions without the file's name.
func show(m *schema.Manifest) string {
	var b strings.Builder
	at := func(p diag.Pos) string { return fmt.Sprintf("%d:%d", p.Line, p.Col) }
	line := func(pos diag.Pos, format string, args ...any) {
		fmt.Fprintf(&b, "%-6s %s\n", at(pos), fmt.Sprintf(format, args...))
	}
	none := diag.Pos{}
	line(none, "manifest %s version %d", m.Name, m.Version)
	for _, t := range m.Targets {
		line(t.Pos, "target %s internal=%v noCache=%v%q stage=%q", t.Name, t.Internal, t.NoCache, t.NoCacheStages, t.Stage)
		line(t.ContextPos, "  context %s", t.Context)
		line(t.DockerfilePos, "  dockerfile %s", t.Dockerfile)
		if t.Inline != nil {
			line(t.Inline.Pos, "  inline lines=%v %q", t.Inline.Lines, t.Inline.Text)
		}
		for _, k := range slices.Sorted(maps.Keys(t.Args)) {
			line(none, "  arg %s=%s", k, t.Args[k])
		}
		for _, k := range slices.Sorted(maps.Keys(t.Labels)) {
			line(none, "  label %s=%s", k, t.Labels[k])
		}
		for _, c := range t.Contexts {
			line(c.Pos, "  context %s = %s %s", c.Name, c.Kind, c.Value)
		}
		for _, r := range t.Refs {
			line(r.Pos, "  ref %s", r.Name)
		}
		for _, n := range t.Needs {
			line(n.Pos, "  needs %s", n.Name)
		}
		for _, s := range t.Secrets {
			line(s.Pos, "  secret %s as %s", s.ID, s.As)
		}
		for _, s := range t.SSH {
			line(s.Pos, "  ssh %s", s.Name)
		}
		if t.Variant != "" {
			line(none, "  variant %s of %s", t.Variant, t.Base)
		}
		for _, r := range t.InputRefs {
			line(r.Pos, "  input ref %s identity=%v", r.Text, r.Identity)
		}
		for _, r := range t.IdentityRefs {
			line(r.Pos, "  identity ref %s", r.Name)
		}
		for _, a := range t.Annotations {
			line(a.Pos, "  annotation %s %s=%s", a.Level, a.Name, a.Value)
		}
		for _, n := range t.Weak {
			line(n.Pos, "  weak %s", n.Name)
		}
		for _, o := range t.Outputs {
			line(o.Pos, "  output %s %s", o.Type, o.Dest)
		}
		for _, h := range t.Before {
			line(h.Pos, "  before %q%q in %s inputs=%v always=%v", h.Words, h.Line, h.Dir, h.Inputs, h.Always)
		}
		for _, h := range t.After {
			line(h.Pos, "  after %q%q in %s when=%s platforms=%v always=%v", h.Words, h.Line, h.Dir, h.When, h.Platforms, h.Always)
		}
		for _, g := range t.Inputs.Extra {
			line(g.Pos, "  extra input %s", g.Name)
		}
		for _, g := range t.Inputs.Ignore {
			line(g.Pos, "  no input %s", g.Name)
		}
		for _, r := range t.Rules {
			line(r.Pos, "  watch %v: %s to=%q via=%q exec=%q%q", r.Paths, r.Action, r.To, r.Via, r.Exec.Words, r.Exec.Line)
		}
		if t.Infer != schema.InferYes || t.Skip != schema.SkipNever || t.Timeout != 0 || t.Network != "" || t.Resources != (schema.Resources{}) {
			line(none, "  infer=%s skip=%s timeout=%v network=%q %+v", t.Infer, t.Skip, t.Timeout, t.Network, t.Resources)
		}
		if a := t.Attest; a != (schema.Attest{}) {
			line(a.Pos, "  attest provenance=%q sbom=%q", a.Provenance, a.SBOM)
		}
		if e := t.Executor; e.Pos != none {
			line(e.Pos, "  executor %s %d docker=%v reproducible=%v %s %v", e.Compression, e.CompressionLevel, e.Docker, e.Reproducible, e.SnapshotMode, names(e.ExtraArgs))
		}
		line(none, "  platforms %v", t.Platforms)
		if c := t.Cache; c != nil {
			line(c.Pos, "  cache %q from=%q ttl=%v write=%s run=%v copy=%v", c.Repo, c.From, c.TTL, c.Write, c.Run, c.Copy)
		}
	}
	for _, g := range m.Groups {
		line(g.Pos, "group %s", g.Name)
		for _, p := range g.Patterns {
			line(p.Pos, "  %s", p.Name)
		}
	}
	for _, r := range m.Registries {
		line(r.Pos, "registry %s mirrors=%v insecure=%v fallback=%v ca=%q", r.Host, r.Mirrors, r.Insecure, r.Fallback, r.CA)
		if r.Cert != "" || r.Exists != "" || r.Retries >= 0 {
			line(r.Pos, "  cert=%q key=%q exists=%q retries=%d", r.Cert, r.Key, r.Exists, r.Retries)
		}
	}
	for _, s := range m.Secrets {
		line(s.Pos, "secret %s file=%q env=%q optional=%v", s.ID, s.File, s.Env, s.Optional)
	}
	for _, s := range m.SSH {
		line(s.Pos, "ssh %s %v", s.ID, s.Keys)
	}
	line(none, "run %+v", m.Run)
	if p := m.Policy; p.PinBases != schema.LevelOff || p.AllowedBases != nil || p.ForbidTags != nil {
		line(none, "policy pinBases=%s allowedBases=%v forbidTags=%v", p.PinBases, names(p.AllowedBases), names(p.ForbidTags))
	}
	if m.Runner.Pos != none {
		line(m.Runner.Pos, "runner %s context=%q namespace=%q serviceAccount=%q %v %v image=%q %v %v", m.Runner.Type, m.Runner.Context, m.Runner.Namespace, m.Runner.ServiceAccount, m.Runner.NodeSelector, m.Runner.Tolerations, m.Runner.Image, m.Runner.ImagePullSecrets, m.Runner.StartTimeout)
	}
	if a := m.Affected; a.Base != "" || a.Global != nil {
		line(none, "affected %q %v strict=%v", a.Base, names(a.Global), a.Strict)
	}
	if w := m.Watch; w.Trigger != "" {
		line(w.OnSuccess.Pos, "watch %s %v %v %v %s %v %q%q", w.Trigger, w.Debounce, w.MaxWait, w.PollInterval, w.OnChange, w.Ignore, w.OnSuccess.Words, w.OnSuccess.Line)
	}
	if len(m.Files) > 1 {
		line(none, "files %v", m.Files)
	}
	for _, w := range m.Warnings {
		line(w.Pos, "warning %s", w.What)
	}
	return b.String()
}

func names(list []schema.Named) []string {
	var out []string
	for _, n := range list {
		out = append(out, n.Name)
	}
	return out
}

// parse reads text as a manifest.
func parse(text string, opts schema.Options) (*schema.Manifest, error) {
	return schema.Parse(fstest.MapFS{"kaniko-build.yaml": {Data: []byte(text)}}, "kaniko-build.yaml", opts)
}

func TestVarsTakeTheStrongestSource(t *testing.T) {
	const text = `version: 1
vars:
  v: {default: default, env: [FIRST, SECOND]}
  n: {type: int, default: 1}
  b: {type: bool}
  l: {type: list, default: []}
  m: {type: map, default: {}}
targets:
  t:
    stage: ${vars.v}
    platforms: ${vars.l}
    args: {N: "${vars.n}", B: "${vars.b:-unset}", M: "x"}
    labels: ${vars.m}
`
	env := func(kv ...string) func(string) (string, bool) {
		return func(name string) (string, bool) {
			for i := 0; i < len(kv); i += 2 {
				if kv[i] == name {
					return kv[i+1], true
				}
			}
			return "", false
		}
	}
	for _, c := range []struct {
		name string
		opts schema.Options
		want string
	}{
		{"default", schema.Options{}, "default [] N=1 B=unset map[]"},
		{"second name", schema.Options{LookupEnv: env("SECOND", "second")}, "second [] N=1 B=unset map[]"},
		{"first name", schema.Options{LookupEnv: env("SECOND", "second", "FIRST", "first")}, "first [] N=1 B=unset map[]"},
		{"an empty variable is a value", schema.Options{LookupEnv: env("FIRST", "")}, " [] N=1 B=unset map[]"},
		{"our own name", schema.Options{LookupEnv: env("FIRST", "first", "KANIKO_BUILD_VAR_V", "ours")}, "ours [] N=1 B=unset map[]"},
		{"file", schema.Options{LookupEnv: env("KANIKO_BUILD_VAR_V", "ours"), VarFiles: []schema.File{
			{Name: "a", Text: []byte("v: one\nl: [linux/arm64]\n")}, {Name: "b", Text: []byte("v: two\n")}}}, "two [linux/arm64] N=1 B=unset map[]"},
		{"flag", schema.Options{VarFiles: []schema.File{{Name: "a", Text: []byte("v: file")}}, Vars: []schema.Setting{{"v", "one"}, {"v", "${env.X}"}}}, "${env.X} [] N=1 B=unset map[]"},
		{"types", schema.Options{Vars: []schema.Setting{{"n", "7"}, {"b", "true"}, {"l", "linux/amd64, linux/s390x"}, {"m", "{a: b}"}}}, "default [linux/amd64 linux/s390x] N=7 B=true map[a:b]"},
		{"a list as YAML", schema.Options{Vars: []schema.Setting{{"v", "x"}, {"l", "[linux/amd64]"}}}, "x [linux/amd64] N=1 B=unset map[]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := parse(text, c.opts)
			if err != nil {
				t.Fatal(err)
			}
			u := m.Targets[0]
			got := fmt.Sprintf("%s %v N=%s B=%s %v", u.Stage, u.Platforms, u.Args["N"], u.Args["B"], u.Labels)
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
	for _, c := range []struct {
		set  schema.Setting
		want string
	}{
		{schema.Setting{Name: "w", Value: "x"}, `--var sets unknown variable "w"`},
		{schema.Setting{Name: "n", Value: "x"}, `kaniko-build.yaml:4:3: variable "n" must be a whole number, and --var gives "x"`},
		{schema.Setting{Name: "b", Value: "yes"}, `variable "b" must be true or false`},
		{schema.Setting{Name: "m", Value: "a"}, `variable "m" must be a mapping of names to texts`},
		{schema.Setting{Name: "m", Value: "{a"}, `--var gives variable "m" something that is not a mapping`},
		{schema.Setting{Name: "l", Value: "[[a]]"}, `variable "l" must be a list of texts`},
	} {
		if _, err := parse(text, schema.Options{Vars: []schema.Setting{c.set}}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v\ngot  %v\nwant %s", c.set, err, c.want)
		}
	}
	for _, c := range []struct{ text, want string }{
		{"w: 1", `vars.yaml:1:4: vars.yaml sets unknown variable "w"`},
		{"[v]", "vars.yaml:1:1: a file of variables must be a mapping"},
		{"v: [1]", `vars.yaml:1:4: variable "v" must be text`},
	} {
		opts := schema.Options{VarFiles: []schema.File{{Name: "vars.yaml", Text: []byte(c.text)}}}
		if _, err := parse(text, opts); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s\ngot  %v\nwant %s", c.text, err, c.want)
		}
	}
}

func TestGitIsAskedOnceAndOnlyForWhatIsUsed(t *testing.T) {
	asked := map[string]int{}
	opts := schema.Options{Git: func(fact string) (string, error) {
		asked[fact]++
		return "main", nil
	}}
	const text = "version: 1\ndefaults: {tags: ['${git.branch}', '${git.tag}'], labels: {a: '${git.branch}'}}\ntargets: {a: {tags: ['${git.branch}']}, b: {tags: ['${git.branch|slug}']}}\n"
	if _, err := parse(text, opts); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(asked) != "map[branch:1]" {
		t.Errorf("asked %v", asked)
	}
	opts.Git = func(string) (string, error) { return "", fmt.Errorf("look: %w", schema.ErrNoGit) }
	m, err := parse("version: 1\ntargets: {a: {tags: ['${git.short:-dev}', '${git.dirty:-clean}']}}\n", opts)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(m.Targets[0].RefNames(), " "); got != "docker.io/library/a:dev docker.io/library/a:clean" {
		t.Errorf("got %s", got)
	}
}

func TestRefs(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{"{}", "docker.io/library/t:latest"},
		{"{image: shop/t}", "docker.io/shop/t:latest"},
		{"{image: localhost/t, tags: [a, '', a, b]}", "localhost/t:a localhost/t:b"},
		{"{image: [x.io/t, y.io:5000/t], tags: [a, {tag: b}]}", "x.io/t:a x.io/t:b y.io:5000/t:a y.io:5000/t:b"},
		{"{image+: [x.io/t]}", "docker.io/library/t:latest x.io/t:latest"},
		{"{image: null}", "docker.io/library/t:latest"},
		{"{tags: ['x.io/other:1']}", "x.io/other:1"},
		{"{tags: ['x.io/other:1', a]}", "x.io/other:1 docker.io/library/t:a"},
		{"{tags: ['other:1', '']}", "docker.io/library/other:1"},
		{"{tags: [1.10, 2026-01-02, true]}", "docker.io/library/t:1.10 docker.io/library/t:2026-01-02 docker.io/library/t:true"},
	} {
		m, err := parse("version: 1\ntargets: {t: "+c.body+"}\n", schema.Options{})
		if err != nil {
			t.Errorf("%s: %v", c.body, err)
			continue
		}
		if got := strings.Join(m.Targets[0].RefNames(), " "); got != c.want {
			t.Errorf("%s\ngot  %s\nwant %s", c.body, got, c.want)
		}
	}
}

func TestParseRef(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0123456789abcdef", 4)
	for _, c := range []struct{ text, full, familiar string }{
		{"alpine", "docker.io/library/alpine", "alpine"},
		{"alpine:3.22", "docker.io/library/alpine:3.22", "alpine:3.22"},
		{"library/alpine", "docker.io/library/alpine", "alpine"},
		{"docker.io/alpine", "docker.io/library/alpine", "alpine"},
		{"index.docker.io/library/alpine", "docker.io/library/alpine", "alpine"},
		{"shop/api@" + digest, "docker.io/shop/api@" + digest, "shop/api@" + digest},
		{"docker.io/library/a/b", "docker.io/library/a/b", "library/a/b"},
		{"localhost/x", "localhost/x", "localhost/x"},
		{"localhost:5000/x:y", "localhost:5000/x:y", "localhost:5000/x:y"},
		{"[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"},
		{"Reg/x", "Reg/x", "Reg/x"},
		{"reg.example.com/a__b/c-d.e:T_1@" + digest, "reg.example.com/a__b/c-d.e:T_1@" + digest, "reg.example.com/a__b/c-d.e:T_1@" + digest},
	} {
		r, ok := schema.ParseRef(c.text)
		if !ok || r.String() != c.full || r.Familiar() != c.familiar {
			t.Errorf("%s is %v %s (%s), want %s (%s)", c.text, ok, r, r.Familiar(), c.full, c.familiar)
		}
	}
	for _, text := range []string{"", ":", "a b", "UPPER", "a/", "/a", "a//b", "a:", "a:.x", "a@sha256:12", "a@x", "-a", "a-", "a:" + strings.Repeat("x", 129), "http://x/y", "x/" + strings.Repeat("a", 260), "${vars.x}/y"} {
		if r, ok := schema.ParseRef(text); ok {
			t.Errorf("%q is taken as %s", text, r)
		}
	}
}

func TestNormalPlatform(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"linux/amd64", "linux/amd64"}, {"Linux/x86_64", "linux/amd64"}, {"linux/amd64/v1", "linux/amd64"}, {"linux/amd64/v3", "linux/amd64/v3"},
		{"linux/aarch64", "linux/arm64"}, {"linux/arm64/v8", "linux/arm64"}, {"linux/arm", "linux/arm/v7"}, {"linux/arm/v6", "linux/arm/v6"}, {"", ""}, {"linux", "linux"},
	} {
		if got := schema.NormalPlatform(c.in); got != c.want {
			t.Errorf("%q is %q, want %q", c.in, got, c.want)
		}
	}
}

func TestParseOfAMissingFileSaysWhich(t *testing.T) {
	_, err := schema.Parse(fstest.MapFS{}, "kaniko-build.yaml", schema.Options{})
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "kaniko-build.yaml") {
		t.Errorf("got %v", err)
	}
}

// TestInlineKeepsItsLinesOnlyWhileTheyAreTheFiles expands variables in a Dockerfile.
func TestInlineKeepsItsLinesOnlyWhileTheyAreTheFiles(t *testing.T) {
	for _, c := range []struct {
		value string
		lines bool
	}{{"one line", true}, {`two\nlines`, false}} {
		text := "version: 1\nvars: {x: {default: \"" + c.value + "\"}}\ntargets:\n  a:\n    dockerfileInline: |\n      FROM scratch\n      LABEL a=\"${vars.x}\"\n"
		m, err := parse(text, schema.Options{})
		if err != nil {
			t.Fatal(err)
		}
		in := m.Targets[0].Inline
		if in.Lines != c.lines || c.lines && in.Pos != (diag.Pos{File: "kaniko-build.yaml", Line: 6, Col: 7}) {
			t.Errorf("%s: %+v", c.value, in)
		}
	}
}

func TestInheritanceOperators(t *testing.T) {
	const head = `version: 1
vars: {list: {default: [linux/amd64, linux/arm64]}, map: {default: {A: var}}, none: {default: []}}
secrets: {s: {env: S}, u: {env: U}}
`
	for _, c := range []struct{ name, defaults, body, want string }{
		{"a plain list replaces", "{platforms: [linux/amd64]}", "{platforms: [linux/arm64]}", "platforms=[linux/arm64]"},
		{"plus appends once", "{platforms: [linux/amd64]}", "{platforms+: [linux/arm64, linux/amd64]}", "platforms=[linux/amd64 linux/arm64]"},
		{"plus on nothing", "{}", "{platforms+: [linux/arm64]}", "platforms=[linux/arm64]"},
		{"minus takes out", "{platforms: [linux/amd64, linux/arm64]}", "{platforms-: [linux/amd64]}", "platforms=[linux/arm64]"},
		{"minus on nothing", "{}", "{platforms-: [linux/arm64]}", "platforms=[]"},
		{"plain, then minus, then plus", "{platforms: [linux/386]}", "{platforms+: [linux/arm64], platforms-: [linux/amd64], platforms: [linux/amd64, linux/s390x]}", "platforms=[linux/s390x linux/arm64]"},
		{"null deletes", "{platforms: [linux/amd64]}", "{platforms: null}", "platforms=[]"},
		{"a reference is expanded to be appended to", "{platforms: '${vars.list}'}", "{platforms+: [linux/s390x]}", "platforms=[linux/amd64 linux/arm64 linux/s390x]"},
		{"a reference can be what is appended", "{platforms: [linux/s390x]}", "{platforms+: '${vars.list}'}", "platforms=[linux/s390x linux/amd64 linux/arm64]"},
		{"a reference can be what is taken out", "{platforms: [linux/s390x, linux/amd64]}", "{platforms-: '${vars.list}'}", "platforms=[linux/s390x]"},
		{"mappings merge", "{args: {A: 1, B: 2}}", "{args: {B: 3, C: 4}}", "args=map[A:1 B:3 C:4]"},
		{"plus on a mapping is the same", "{args: {A: 1, B: 2}}", "{args+: {B: 3, C: null}}", "args=map[A:1 B:3]"},
		{"minus on a mapping takes keys", "{args: {A: 1, B: 2}}", "{args-: [A]}", "args=map[B:2]"},
		{"null deletes a key", "{args: {A: 1, B: 2}}", "{args: {A: null}}", "args=map[B:2]"},
		{"null of nothing is nothing", "{}", "{args: {A: null}}", "args=map[]"},
		{"a reference merges too", "{args: '${vars.map}'}", "{args: {B: 1}}", "args=map[A:var B:1]"},
		{"over a reference", "{args: {A: 1, B: 1}}", "{args: '${vars.map}'}", "args=map[A:var B:1]"},
		{"empty replaces", "{platforms: [linux/amd64]}", "{platforms: '${vars.none}'}", "platforms=[]"},
		{"secrets merge by id", "{secrets: [s, u]}", "{secrets: [{id: s, as: t}]}", "secrets=u:u s:t"},
		{"a secret twice in one list", "{secrets: [u]}", "{secrets: [{id: s, as: t}, s]}", "secrets=u:u s:t s:s"},
		{"secrets go by id", "{secrets: [{id: s, as: t}, u]}", "{secrets-: [s]}", "secrets=u:u"},
		{"all secrets go by null", "{secrets: [s, u]}", "{secrets: null}", ""},
		{"tags go by tag", "{tags: [{tag: a}, b]}", "{tags-: [a]}", "tags=docker.io/library/t:b"},
		{"tags are appended once", "{tags: [{tag: a}, b]}", "{tags+: [b, a]}", "tags=docker.io/library/t:a docker.io/library/t:b"},
		{"true is not a stage", "{noCache: true}", "{}", "noCache=true"},
		{"stages", "{noCache: true}", "{noCache: [a, b]}", "noCache=[a b]"},
		{"a text of the environment can be true", "{}", "{noCache: '${env.X:-true}'}", "noCache=true"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := parse(head+"defaults: "+c.defaults+"\ntargets: {t: "+c.body+"}\n", schema.Options{})
			if err != nil {
				t.Fatal(err)
			}
			u := m.Targets[0]
			var grants []string
			for _, g := range u.Secrets {
				grants = append(grants, g.ID+":"+g.As)
			}
			got := map[string]string{
				"platforms": fmt.Sprint(u.Platforms), "args": fmt.Sprint(u.Args), "secrets": strings.Join(grants, " "),
				"tags": strings.Join(u.RefNames(), " "), "noCache": fmt.Sprint(u.NoCache),
			}
			if u.NoCacheStages != nil {
				got["noCache"] = fmt.Sprint(u.NoCacheStages)
			}
			key, want, _ := strings.Cut(c.want, "=")
			if key == "" {
				key = "secrets"
			}
			if got[key] != want {
				t.Errorf("%s over %s\ngot  %s=%s\nwant %s", c.body, c.defaults, key, got[key], c.want)
			}
		})
	}
}

// TestScalarsReadAsTheirFieldWants covers texts that must read as something.
func TestScalarsReadAsTheirFieldWants(t *testing.T) {
	opts := schema.Options{LookupEnv: func(name string) (string, bool) {
		v, ok := map[string]string{"PUSH": "true", "JOBS": "7", "WORD": "word"}[name]
		return v, ok
	}}
	m, err := parse("version: 1\ntargets: {t: {}}\nrun: {push: '${env.PUSH}', jobs: '${env.JOBS}'}\n", opts)
	if err != nil || !m.Run.Push || m.Run.Jobs != 7 {
		t.Errorf("got %+v, %v", m, err)
	}
	_, err = parse("version: 1\ntargets: {t: {}}\nrun: {push: '${env.WORD}', jobs: '${env.WORD}', progress: '${env.WORD}'}\n", opts)
	want := `kaniko-build.yaml:3:13: "push" must be true or false, not "word"
kaniko-build.yaml:3:34: "jobs" must be auto or a number, not "word"
kaniko-build.yaml:3:59: "progress" must be auto, tty, plain, interleaved, json or quiet, not "word"`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestNullIsAValueOfVariables(t *testing.T) {
	text := `version: 1
vars:
  go: {default: null, env: [GO]}
  other: {default: "${vars.go}"}
  none: {default: null}
defaults: {stage: "${vars.go}"}
targets:
  t:
    args: {GO: "${vars.go}", OTHER: "${vars.other}", KEPT: "${vars.go:-none}", LOWER: "${vars.go|lower}"}
    platforms: ["${vars.none}", "${env.NONE:-}"]
    tags: [{tag: "v${vars.go:-}", if: "vars.go != ''"}, b]
`
	for _, c := range []struct {
		env               schema.Options
		args, stage, refs string
	}{
		{schema.Options{}, "map[KEPT:none]", "", "docker.io/library/t:b"},
		{schema.Options{LookupEnv: env("GO", "1.A")}, "map[GO:1.A KEPT:1.A LOWER:1.a OTHER:1.A]", "1.A", "docker.io/library/t:v1.A docker.io/library/t:b"},
	} {
		m, err := parse(text, c.env)
		if err != nil {
			t.Fatal(err)
		}
		got := m.Targets[0]
		if fmt.Sprint(got.Args) != c.args || got.Stage != c.stage || strings.Join(got.RefNames(), " ") != c.refs || len(got.Platforms) != 0 {
			t.Errorf("args %v, stage %q, refs %v, platforms %v", got.Args, got.Stage, got.RefNames(), got.Platforms)
		}
	}
	for _, c := range []struct{ text, want string }{
		{"vars: {a: {default: null}}\ntargets: {t: {tags: [\"x${vars.a}\"]}}", "vars.a is null and cannot be part of a text"},
		{"vars: {a: {default: null, required: true}}\ntargets: {t: {args: {A: \"${vars.a}\"}}}", `variable "a" is required and has no value`},
		{"vars: {a: {}}\ntargets: {t: {args: {A: \"${vars.a}\"}}}", "vars.a has no value"},
	} {
		if m, err := parse("version: 1\n"+c.text+"\n", schema.Options{}); !strings.Contains(mistake(m, err), c.want) {
			t.Errorf("%s\ngot  %s\nwant %s", c.text, mistake(m, err), c.want)
		}
	}
}
