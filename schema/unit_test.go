package schema_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"kaniko-build/schema"
	"kaniko-build/schema/diag"
)

// tree reads files written one after the other, each below "-- name --".
func tree(text string) fstest.MapFS {
	out := fstest.MapFS{}
	for _, part := range strings.Split("\n"+text, "\n-- ")[1:] {
		name, body, _ := strings.Cut(part, " --\n")
		out[name] = &fstest.MapFile{Data: []byte(body + "\n")}
	}
	return out
}

func parseTree(files fstest.MapFS, opts schema.Options) (*schema.Manifest, error) {
	return schema.Parse(files, "kaniko-build.yaml", opts)
}

// env is an environment for tests.
func env(kv ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for i := 0; i < len(kv); i += 2 {
			if kv[i] == name {
				return kv[i+1], true
			}
		}
		return "", false
	}
}

// mistake is one error text of a parse, or what was accepted.
func mistake(m *schema.Manifest, err error) string {
	if err == nil {
		return "accepted as\n" + show(m)
	}
	return err.Error()
}

const monorepo = `-- kaniko-build.yaml --
version: 1
include:
  - services/*/kaniko-build.yaml
  - {path: data/kaniko-build.yaml, prefix: data/}
vars: {registry: {default: localhost/shop}}
secrets: {token: {env: TOKEN}}
defaults: {image: "${vars.registry}/${target.base}", stage: root}
templates:
  go: {context: ., dockerfile: //docker/go.Dockerfile, contexts: {base: "target:base"}, secrets: [token]}
targets:
  base: {context: images/base}
groups: {jobs: ["data/*", "@backend"]}
-- services/api/kaniko-build.yaml --
targets: {api: {extends: [go], groups: [backend]}}
-- services/cart/kaniko-build.yaml --
vars: {port: {default: 80}}
defaults: {stage: cart}
targets:
  cart: {extends: [go], args: {PORT: "${vars.port}"}, contexts: {here: ./files}, needs: [api]}
  cart-db: {}
-- data/kaniko-build.yaml --
vars: {port: {default: 81}}
secrets: {token: {file: token}}
templates: {go: {context: jobs, secrets: [token]}}
targets:
  etl: {extends: [go], needs: [load, base], args: {PORT: "${vars.port}"}}
  load: {}
groups: {all: ["*", "!load"]}
`

// TestIncludesKeepTheirOwnDirectoryAndNames covers what an included file sees.
func TestIncludesKeepTheirOwnDirectoryAndNames(t *testing.T) {
	m, err := parseTree(tree(monorepo), schema.Options{})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/includes.want", show(m))
	for _, c := range []struct{ patterns, want string }{
		{"data/**", "data/etl data/load"}, {"*", "base api cart cart-db"}, {"@jobs", "api data/etl data/load"}, {"@data/all", "data/etl"}, {"data/etl", "data/etl"},
	} {
		if got, err := m.Select(strings.Fields(c.patterns), nil); err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%s is %v %v, want %s", c.patterns, got, err, c.want)
		}
	}
	m, err = parseTree(tree(monorepo), schema.Options{Vars: []schema.Setting{{Name: "port", Value: "9"}}})
	if err != nil || m.Target("cart").Args["PORT"] != "9" || m.Target("data/etl").Args["PORT"] != "9" {
		t.Errorf("--var does not reach variables of included files: %v", err)
	}
}

func TestMistakesOfIncludes(t *testing.T) {
	for _, c := range []struct{ name, files, want string }{
		{"a missing file", "-- kaniko-build.yaml --\nversion: 1\ninclude: [a.yaml]\ntargets: {a: {}}\n", "kaniko-build.yaml:2:11: there is no file a.yaml\n  hint: paths count from this file, with // from the workspace root"},
		{"an optional file", "-- kaniko-build.yaml --\nversion: 1\ninclude: [{path: a.yaml, optional: true}]\ntargets: {a: {}}\n", ""},
		{"no match", "-- kaniko-build.yaml --\nversion: 1\ninclude: [x/*.yaml]\ntargets: {a: {}}\n", `no file matches include "x/*.yaml"`},
		{"two targets of one name", "-- kaniko-build.yaml --\nversion: 1\ninclude: [b.yaml]\ntargets: {a: {}}\n-- b.yaml --\ntargets: {a: {}}\n", `b.yaml:1:11: target "a" has the name of the target at kaniko-build.yaml:3:11`},
		{"a circle", "-- kaniko-build.yaml --\nversion: 1\ninclude: [b.yaml]\ntargets: {a: {}}\n-- b.yaml --\ninclude: [c.yaml]\n-- c.yaml --\ninclude: [b.yaml]\n", "c.yaml:1:11: files include each other: b.yaml -> c.yaml -> b.yaml"},
		{"a circle through the root", "-- kaniko-build.yaml --\nversion: 1\ninclude: [b.yaml]\ntargets: {a: {}}\n-- b.yaml --\ninclude: [kaniko-build.yaml]\n", "files include each other: kaniko-build.yaml -> b.yaml -> kaniko-build.yaml"},
		{"a pattern that matches its own file", "-- kaniko-build.yaml --\nversion: 1\ninclude: [\"**/*.yaml\"]\ntargets: {a: {}}\n-- b/c/d.yaml --\ntargets: {b: {}}\n", ""},
		{"a file included twice", "-- kaniko-build.yaml --\nversion: 1\ninclude: [b.yaml, c.yaml]\ntargets: {a: {}}\n-- b.yaml --\ninclude: [c.yaml]\n-- c.yaml --\ntargets: {c: {}}\n", ""},
		{"one file with two prefixes", "-- kaniko-build.yaml --\nversion: 1\ninclude: [{path: b.yaml, prefix: a/}, {path: b.yaml, prefix: b/}]\ntargets: {a: {}}\n-- b.yaml --\ntargets: {b: {}}\n", `file b.yaml is already included with prefix "a/" at kaniko-build.yaml:2:18`},
		{"a bad prefix", "-- kaniko-build.yaml --\nversion: 1\ninclude: [{path: b.yaml, prefix: a}]\ntargets: {a: {}}\n", `"a" is not a prefix for names`},
		{"a key of the root", "-- kaniko-build.yaml --\nversion: 1\ninclude: [b.yaml]\ntargets: {a: {}}\n-- b.yaml --\nrun: {push: true}\n", `b.yaml:1:1: key "run" is for the whole run and cannot stand in an included file`},
		{"a sibling's template", "-- kaniko-build.yaml --\nversion: 1\ninclude: [b.yaml, c.yaml]\ntargets: {a: {}}\n-- b.yaml --\ntemplates: {go: {}}\n-- c.yaml --\ntargets: {c: {extends: [go]}}\n", `c.yaml:1:25: "c" extends template "go", which c.yaml does not see (b.yaml:1:13)`},
		{"a template of what is included", "-- kaniko-build.yaml --\nversion: 1\ninclude: [b.yaml]\ntargets: {a: {extends: [go]}}\n-- b.yaml --\ntemplates: {go: {}}\n", ""},
		{"a sibling's variable", "-- kaniko-build.yaml --\nversion: 1\ninclude: [b.yaml, c.yaml]\ntargets: {a: {}}\n-- b.yaml --\nvars: {x: {default: 1}}\n-- c.yaml --\ntargets: {c: {stage: \"${vars.x}\"}}\n", `c.yaml:1:23: unknown variable "x"`},
		{"a variable of an includer", "-- kaniko-build.yaml --\nversion: 1\ninclude: [b.yaml]\nvars: {x: {default: 1}}\ntargets: {a: {}}\n-- b.yaml --\nvars: {x: {default: 2}}\n", `b.yaml:1:8: variable "x" is already declared at kaniko-build.yaml:3:8`},
		{"a sibling's secret", "-- kaniko-build.yaml --\nversion: 1\ninclude: [b.yaml, c.yaml]\ntargets: {a: {}}\n-- b.yaml --\nsecrets: {x: {env: X}}\n-- c.yaml --\ntargets: {c: {secrets: [x]}}\n", `c.yaml:1:25: target "c" uses unknown secret "x"`},
		{"outside", "-- kaniko-build.yaml --\nversion: 1\ninclude: [../b.yaml]\ntargets: {a: {}}\n", `path "../b.yaml" leaves the workspace`},
		{"a repository", "-- kaniko-build.yaml --\nversion: 1\ninclude: [{git: x, path: b.yaml}]\ntargets: {a: {}}\n", "kaniko-build.yaml:2:17: a repository that is included needs a commit"},
		{"another version", "-- kaniko-build.yaml --\nversion: 1\ninclude: [b.yaml]\ntargets: {a: {}}\n-- b.yaml --\nversion: 2\n", `b.yaml:1:10: version "2" is not one that this program reads`},
		{"a reference", "-- kaniko-build.yaml --\nversion: 1\ninclude: [\"${vars.x}/b.yaml\"]\ntargets: {a: {}}\n", "include cannot hold a reference"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := parseTree(tree(c.files), schema.Options{})
			if c.want == "" && err != nil || c.want != "" && !strings.Contains(mistake(m, err), c.want) {
				t.Errorf("got  %s\nwant %s", mistake(m, err), c.want)
			}
		})
	}
	refused := schema.Options{Trust: func(name string) error {
		return &diag.Problem{What: "belongs to user 7, and you are 0", Hint: "if you trust it, name it with -f"}
	}}
	if _, err := parseTree(tree(monorepo), refused); err == nil || !strings.Contains(err.Error(), "services/api/kaniko-build.yaml belongs to user 7") {
		t.Errorf("a stranger's file is read: %v", err)
	}
}

// TestDocumentsMerge lays further files over a manifest.
func TestDocumentsMerge(t *testing.T) {
	const root = `-- kaniko-build.yaml --
version: 1
vars: {list: {default: [linux/amd64]}, v: {type: string, default: root, enum: [root, over]}}
secrets: {s: {env: S}, u: {env: U}}
registries: {docker.io: {mirrors: [a.example], fallback: false}}
defaults: {args: {A: 1, B: 1}, platforms: "${vars.list}"}
templates: {go: {args: {C: 1}}}
targets:
  t: {extends: [go], platforms+: [linux/s390x], stage: "${vars.v}"}
  gone: {}
groups: {g: [t], default: ["*"]}
run: {jobs: 3, push: true}
`
	for _, c := range []struct{ name, over, want string }{
		{"nothing", "{}", "t gone [linux/amd64 linux/s390x] A=1 B=1 C=1 root jobs=3 push=true mirrors=[a.example] fallback=false"},
		{"mappings are merged deep", "{run: {jobs: 4}, targets: {t: {args: {D: 1}}}, registries: {docker.io: {fallback: true}}}", "t gone [linux/amd64 linux/s390x] A=1 B=1 C=1 D=1 root jobs=4 push=true mirrors=[a.example] fallback=true"},
		{"plus adds to what is inherited and added", "{targets: {t: {platforms+: [linux/arm64]}}}", "t gone [linux/amd64 linux/s390x linux/arm64] A=1 B=1 C=1 root jobs=3 push=true mirrors=[a.example] fallback=false"},
		{"minus takes out", "{targets: {t: {platforms-: [linux/s390x]}}, registries: {docker.io: {mirrors-: [a.example], mirrors+: [b.example]}}}", "t gone [linux/amd64] A=1 B=1 C=1 root jobs=3 push=true mirrors=[b.example] fallback=false"},
		{"a plain list replaces", "{targets: {t: {platforms: [linux/386]}}}", "t gone [linux/386] A=1 B=1 C=1 root jobs=3 push=true mirrors=[a.example] fallback=false"},
		{"null deletes", "{targets: {gone: null, t: {extends: null}}, run: {push: null}}", "t [linux/amd64 linux/s390x] A=1 B=1 root jobs=3 push=false mirrors=[a.example] fallback=false"},
		{"minus deletes", "{targets-: [gone], defaults: {args-: [A]}}", "t [linux/amd64 linux/s390x] B=1 C=1 root jobs=3 push=true mirrors=[a.example] fallback=false"},
		{"defaults and templates are laid over", "{defaults: {args: {A: 2}}, templates: {go: {args: {B: 2}}}}", "t gone [linux/amd64 linux/s390x] A=2 B=2 C=1 root jobs=3 push=true mirrors=[a.example] fallback=false"},
		{"a variable keeps its type", "{vars: {v: {default: over}, list: {default+: [linux/riscv64]}}}", "t gone [linux/amd64 linux/riscv64 linux/s390x] A=1 B=1 C=1 over jobs=3 push=true mirrors=[a.example] fallback=false"},
		{"a new target", "{targets: {new: {}}}", "t gone new [linux/amd64 linux/s390x] A=1 B=1 C=1 root jobs=3 push=true mirrors=[a.example] fallback=false"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := parseTree(tree(root), schema.Options{Over: []schema.File{{Name: "over.yaml", Text: []byte(c.over)}}})
			if err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			for _, u := range m.Targets {
				b.WriteString(u.Name + " ")
			}
			u := m.Target("t")
			fmt.Fprint(&b, u.Platforms)
			for _, k := range []string{"A", "B", "C", "D"} {
				if v, ok := u.Args[k]; ok {
					fmt.Fprintf(&b, " %s=%s", k, v)
				}
			}
			fmt.Fprintf(&b, " %s jobs=%d push=%v mirrors=%v fallback=%v", u.Stage, m.Run.Jobs, m.Run.Push, m.Registries[0].Mirrors, m.Registries[0].Fallback)
			if b.String() != c.want {
				t.Errorf("got  %s\nwant %s", b.String(), c.want)
			}
		})
	}
	over := func(text string) schema.Options {
		return schema.Options{Over: []schema.File{{Name: "ci/over.yaml", Text: []byte(text)}}}
	}
	if m, err := parseTree(tree(root), over("groups: {g+: [gone], default-: ['*'], default+: [t]}\ntargets: {t: {context: here}}")); err != nil {
		t.Error(err)
	} else if got := fmt.Sprintf("%v %v %s", names(m.Groups[0].Patterns), names(m.Groups[1].Patterns), m.Target("t").Context); got != "[t gone] [t] ci/here" {
		t.Errorf("got %s", got)
	}
	for _, c := range []struct{ over, want string }{
		{"targets: {none: null}", `ci/over.yaml:1:17: "targets.none" must be a mapping, not nothing`},
		{"targets: {gone: null}\ngroups: {g: [gone]}", `ci/over.yaml:2:14: unknown target "gone"`},
		{"[]", "ci/over.yaml:1:1: a manifest must be a mapping, not a list"},
		{"targts: {}", `ci/over.yaml:1:1: unknown key "targts"`},
	} {
		if m, err := parseTree(tree(root), over(c.over)); !strings.Contains(mistake(m, err), c.want) {
			t.Errorf("%s\ngot  %s\nwant %s", c.over, mistake(m, err), c.want)
		}
	}
}

func TestProfiles(t *testing.T) {
	const root = `-- kaniko-build.yaml --
version: 1
vars: {stage: {default: dev, env: [STAGE]}}
targets: {a: {stage: "${vars.stage}"}}
profiles:
  ci: {when: "env.CI == 'true'", vars: {stage: {default: release}}, run: {push: true}}
  debug: {vars: {stage: {default: debug}}, defaults: {args: {DEBUG: 1}}, targets: {b: {}}}
`
	for _, c := range []struct{ profiles, env, want string }{
		{"", "", "dev push=false a"},
		{"", "CI=true", "release push=true a"},
		{"none", "CI=true", "dev push=false a"},
		{"none ci", "CI=true", "release push=true a"},
		{"ci", "", "release push=true a"},
		{"debug", "CI=true", "debug push=true a b"},
		{"debug ci", "", "debug push=true a b"},
		{"debug", "STAGE=mine", "mine push=false a b"},
	} {
		k, v, _ := strings.Cut(c.env, "=")
		m, err := parseTree(tree(root), schema.Options{Profiles: strings.Fields(c.profiles), LookupEnv: env(k, v)})
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		got := fmt.Sprintf("%s push=%v", m.Target("a").Stage, m.Run.Push)
		for _, u := range m.Targets {
			got += " " + u.Name
		}
		if got != c.want {
			t.Errorf("--profile %s, %s\ngot  %s\nwant %s", c.profiles, c.env, got, c.want)
		}
	}
	if m, err := parseTree(tree(root), schema.Options{Profiles: []string{"debgu"}}); !strings.Contains(mistake(m, err), "--profile names unknown profile \"debgu\"\n  hint: did you mean \"debug\"?") {
		t.Errorf("got %s", mistake(m, err))
	}
	for _, c := range []struct{ profiles, want string }{
		{"{p: {when: vars.stage == 'x'}}", "vars.stage is not known yet where profiles are read"},
		{"{none: {}}", `"none" is not a name for a profile`},
		{"{p: {profiles: {}}}", `unknown key "profiles"`},
		{"{p: {when: env.CI = 'x'}}", `"=" stands in the condition where there should be an operator such as == or &&`},
	} {
		m, err := parse("version: 1\ntargets: {a: {}}\nprofiles: "+c.profiles+"\n", schema.Options{})
		if !strings.Contains(mistake(m, err), c.want) {
			t.Errorf("%s\ngot  %s\nwant %s", c.profiles, mistake(m, err), c.want)
		}
	}
}

func TestEnvFilesAreWeakerThanTheEnvironment(t *testing.T) {
	files := tree(`-- kaniko-build.yaml --
version: 1
envFiles: [a.env, {path: none.env, optional: true}, {path: dir/b.env}]
vars: {v: {default: d, env: [FIRST, SECOND]}, q: {env: [QUOTED]}}
targets: {t: {args: {V: "${vars.v}", Q: "${vars.q}", E: "${env.ONLY}", N: "${env.NOTE}", P: "${env.VCPKG}${env.LAST}", K: "${env.KEY}"}}}
-- a.env --
# a comment
export SECOND=a
ONLY = a
QUOTED="one\ntwo # \"x\""
NOTE=x # comment
VCPKG="9b96"   # a comment
KEY="-----BEGIN
# none
-----END"
LAST=1
-- dir/b.env --
ONLY='b # c'
`)
	for _, c := range []struct {
		env  []string
		want string
	}{
		{nil, "map[E:b # c K:-----BEGIN\n# none\n-----END N:x P:9b961 Q:one\ntwo # \"x\" V:a]"},
		{[]string{"FIRST", "process", "ONLY", "process"}, "map[E:process K:-----BEGIN\n# none\n-----END N:x P:9b961 Q:one\ntwo # \"x\" V:process]"},
		{[]string{"SECOND", "process"}, "map[E:b # c K:-----BEGIN\n# none\n-----END N:x P:9b961 Q:one\ntwo # \"x\" V:process]"},
	} {
		m, err := parseTree(files, schema.Options{LookupEnv: env(c.env...)})
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(m.Targets[0].Args); got != c.want {
			t.Errorf("%v\ngot  %s\nwant %s", c.env, got, c.want)
		}
	}
	files["a.env"] = &fstest.MapFile{Data: []byte("X=1\nnonsense\nZ='a' b\nY='open\n")}
	delete(files, "dir/b.env")
	want := "a.env:2: not the line of a file of variables\n  hint: write NAME=VALUE\na.env:3: there is more behind the value of Z\n  hint: close its quote at the end of the value\na.env:4: the value of Y has no end\n  hint: close its quote\nkaniko-build.yaml:2:60: there is no file dir/b.env"
	if m, err := parseTree(files, schema.Options{}); !strings.HasPrefix(mistake(m, err), want) {
		t.Errorf("got\n%s\nwant\n%s", mistake(m, err), want)
	}
}

func TestPathsOutsideNeedAllowance(t *testing.T) {
	const text = "version: 1\ntargets: {a: {context: ../shared/a, contexts: {b: /srv/b}}}\n"
	for _, c := range []struct{ allow, want string }{
		{"", "leaves the workspace"}, {"../shared", `path "/srv/b" leaves`}, {"../share /srv", `path "../shared/a" leaves`}, {"../shared /srv/b", ""}, {"/ ../shared", ""},
	} {
		m, err := parse(text, schema.Options{AllowFS: strings.Fields(c.allow)})
		if c.want == "" && err != nil || c.want != "" && !strings.Contains(mistake(m, err), c.want) {
			t.Errorf("%s: got %v", c.allow, err)
		}
		if c.want == "" && (m.Targets[0].Context != "../shared/a" || m.Targets[0].Contexts[0].Value != "/srv/b") {
			t.Errorf("got %+v", m.Targets[0])
		}
	}
}

func TestUnusedIsAWarning(t *testing.T) {
	m, err := parse(`version: 1
vars: {used: {default: 1}, cond: {default: 1}, free: {default: "${vars.used}"}, off: {}}
secrets: {s: {env: S}, t: {env: T}, u: {env: U}}
ssh: {a: {keys: [k]}, b: {keys: [k]}}
templates: {x: {secrets: [s], ssh+: [a], internal: true}}
targets: {a: {secrets+: [{id: t, as: x}], tags: [{tag: x, if: "vars.cond == '1'"}]}}
profiles: {p: {targets: {a: {stage: "${vars.off}"}}}}
`, schema.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := `kaniko-build.yaml:2:48: variable "free" is not used
  hint: write ${vars.free} where it counts, or take it out
kaniko-build.yaml:3:37: secret "u" is not used
  hint: grant it to a target with secrets: [u], or take it out
kaniko-build.yaml:4:23: ssh agent "b" is not used
  hint: grant it to a target with ssh: [b], or take it out
kaniko-build.yaml:5:42: "internal" is not inherited, and does nothing in a template
  hint: write it in the target itself`
	if m.Warnings.Error() != want {
		t.Errorf("got\n%s\nwant\n%s", m.Warnings.Error(), want)
	}
}

func TestManifestMayBeAnyFileSystem(t *testing.T) {
	broken := errors.New("disk on fire")
	if _, err := schema.Parse(failing{broken}, "kaniko-build.yaml", schema.Options{}); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

type failing struct{ err error }

func (f failing) Open(string) (fs.File, error) { return nil, f.err }

// TestPrintNamesWhatIsMeant has names with a prefix, lists with nothing in them and
// text that others read as true.
func TestPrintNamesWhatIsMeant(t *testing.T) {
	m, err := parseTree(tree(`-- kaniko-build.yaml --
version: 1
include: [{path: data/kaniko-build.yaml, prefix: data/}]
targets: {api: {}}
-- data/kaniko-build.yaml --
secrets: {s: {env: S}, t: {env: T}}
ssh: {k: {}}
targets:
  lib: {}
  etl:
    needs: [lib, api]
    deps: {weak: [lib]}
    secrets: [s, {id: t, as: u}]
    ssh: [k]
    platforms: []
    labels: {a: "yes"}
`), schema.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := m.Print(&b, []string{"data/etl"}, true); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"- data/lib # data/kaniko-build.yaml:6:13", "- api #", "weak:\n        - data/lib #", "- id: data/s #", "- id: data/t #", "as: u #", "- data/k #", "platforms: [] # data/kaniko-build.yaml:10:16\n", `a: "yes" #`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("there is no %q in\n%s", want, b.String())
		}
	}
}
