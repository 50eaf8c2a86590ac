package schema_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"kaniko-build/schema"
)

func TestConditions(t *testing.T) {
	opts := schema.Options{
		LookupEnv: env("CI", "true", "EMPTY", "", "V", "v1.4", "NO", "false"),
		Git: func(fact string) (string, error) {
			return map[string]string{"branch": "main", "dirty": "false", "sha": "4f2c9d1e8b7a6c5d", "tag": ""}[fact], nil
		},
	}
	for _, c := range []struct {
		cond string
		want bool
	}{
		{"env.CI == 'true'", true}, {`env.CI == "true"`, true}, {"'true' == env.CI", true}, {"env.CI != 'true'", false}, {"env.CI", true}, {"!env.CI", false},
		{"env.EMPTY", false}, {"env.NONE", false}, {"env.NONE == ''", true}, {"env.NONE == env.EMPTY", true}, {"env.NO", false}, {"!env.NO", true}, {"''", false}, {"'x'", true},
		{"env.V =~ '^v[0-9]'", true}, {"env.V !~ '^v[0-9]'", false}, {"env.NONE =~ '^$'", true},
		{"git.branch == 'main' && !git.dirty", true}, {"git.branch == 'main' && git.dirty", false}, {"git.tag || git.branch", true},
		{"env.CI && env.NO || env.V", true}, {"env.CI && (env.NO || env.EMPTY)", false}, {"!(env.NO || env.EMPTY)", true}, {"! ! env.CI", true},
		{"env.V|replace('v', '') == '1.4'", true}, {"git.sha|short == '4f2c9d1'", true}, {"target.name == 't' && matrix.x == '1'", true}, {"vars.b", true}, {"vars.n == '7'", true},
		{"env.CI=='true'&&env.V!='x'", true}, {"env.CI == 'a && b' || env.V == 'v1.4'", true},
	} {
		text := "version: 1\nvars: {b: {default: true}, n: {default: 7}}\ntargets:\n  t:\n    matrix: {x: [1]}\n    variant: only\n    tagSuffix: ''\n    tags:\n      - tag: yes\n        if: " + fmt.Sprintf("%q", c.cond) + "\n"
		if strings.Contains(c.cond, "target.name") {
			text = strings.Replace(text, "target.name == 't'", "target.name == 't-only'", 1)
			text = strings.Replace(text, `target.name == 't'`, `target.name == 't-only'`, 1)
		}
		m, err := parse(text, opts)
		if err != nil {
			t.Errorf("%s: %v", c.cond, err)
			continue
		}
		if got := strings.HasSuffix(m.Targets[0].Refs[0].Name, ":yes"); got != c.want {
			t.Errorf("%s is %v", c.cond, got)
		}
	}
	for _, c := range []struct{ cond, want string }{
		{"", "the condition ends where there should be a name"}, {"env.CI ==", "the condition ends"}, {"env.CI == true", `"t" stands in the condition where`},
		{"env.CI = 'x'", `"=" stands`}, {"(env.CI", "should be a )"}, {"env.CI)", `")" stands`}, {"env.CI env.V", `"e" stands`}, {"env.CI == 'x", "has no end"},
		{"env.CI =~ env.V", "=~ needs a regular expression in quotes"}, {"env.CI =~ '('", "not a regular expression: missing closing )"}, {"env.CI|slugg", `unknown filter "slugg"`},
		{"vars.none", `unknown variable "none"`}, {"project.x == 'a'", `names unknown namespace "project"`}, {"git.brunch == 'x'", "${git.brunch} is unknown"},
		{"vars.l == 'x'", "vars.l is a list and cannot be compared"}, {"input.digest == ''", "input.digest is not known before the build"}, {strings.Repeat("(", 3000), "at most 2000 characters"},
		{"env.CI || vars.none", `unknown variable "none"`},
	} {
		m, err := parse("version: 1\nvars: {l: {default: [a]}}\ntargets: {t: {tags: [{tag: a, if: "+fmt.Sprintf("%q", c.cond)+"}]}}\n", opts)
		if !strings.Contains(mistake(m, err), c.want) {
			t.Errorf("%q\ngot  %s\nwant %s", c.cond, mistake(m, err), c.want)
		}
	}
}

func TestMatrixMakesCells(t *testing.T) {
	m, err := parse(`version: 1
vars: {versions: {default: ["1.24", "1.25"]}}
templates: {go: {image: "x.io/${target.base}", tags: [a, "y.io/${target.name}:b"], args: {GO: "${matrix.go:-none}"}}}
targets:
  worker:
    extends: [go]
    groups: [all]
    matrix:
      go: ${vars.versions}
      flavor: [slim, full]
      exclude: [{go: "1.24", flavor: full}]
      include:
        - {go: "1.25", flavor: debug, set: {stage: debug, platforms+: [linux/arm64]}}
        - {go: "1.24", flavor: slim, set: {args: {OLD: "${matrix.go}"}}}
    variant: go${matrix.go|slug}-${matrix.flavor}
    platforms: [linux/amd64]
  plain: {matrix: {os: [linux/amd64, "Big Name", 7]}, tagSuffix: "", tags: ["${matrix.os|slug}"]}
  child: {needs: [worker]}
groups: {debug: ["worker-*-debug"], w: [worker]}
`, schema.Options{})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/matrix.want", show(m))
	for _, c := range []struct{ patterns, want string }{
		{"worker", "worker-go1-24-slim worker-go1-25-slim worker-go1-25-full worker-go1-25-debug"}, {"@debug", "worker-go1-25-debug"}, {"@all !worker-go1-24-slim", "worker-go1-25-slim worker-go1-25-full worker-go1-25-debug"},
		{"@w", "worker-go1-24-slim worker-go1-25-slim worker-go1-25-full worker-go1-25-debug"}, {"plain-7", "plain-7"},
	} {
		if got, err := m.Select(strings.Fields(c.patterns), nil); err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%s is %v %v, want %s", c.patterns, got, err, c.want)
		}
	}
	for _, c := range []struct{ body, want string }{
		{"{matrix: {}}", `the matrix of "t" has no values`},
		{"{matrix: {a: [1, 2]}, variant: same}", `two cells of the matrix are called "t-same"`},
		{"{matrix: {a: [1, 2]}, variant: '${matrix.b}'}", "${matrix.b} is unknown"},
		{"{matrix: {a: [A b]}, variant: '${matrix.a}'}", `"A b" is not a name for a variant`},
		{"{matrix: {a: [1], exclude: [{b: 1}]}}", `the matrix of "t" has no values "b"`},
		{"{matrix: {a: [1], exclude: [{a: 2}]}}", "no cell of the matrix of \"t\" is like this"},
		{"{matrix: {a: [1], b: [1], include: [{a: 2}]}}", `needs a value for "b"`},
		{"{matrix: {a: [1], include: [{a: 2, set: {stge: x}}]}}", `unknown key "stge"`},
		{"{matrix: {a: [[1]]}}", `"matrix.a" must be text, not a list`},
		{"{matrix: {a: x}}", `"matrix.a" must be a list of values, not "x"`},
		{"{matrix: {a: [" + numbered("%d, ", 40) + "], b: [" + numbered("%d, ", 40) + "]}}", "has more than 1000 cells"},
		{"{matrix: {a: [x]}}, t-x: {}", `a cell of the matrix is called "t-x", as is the target at`},
		{"{matrix: {a: [1]}, stage: '${matrix.z}'}", "${matrix.z} is unknown\n  hint: there is \"a\""},
		{"{stage: '${matrix.z}'}", `target "t" has no matrix`},
	} {
		m, err := parse("version: 1\ntargets: {t: "+c.body+"}\n", schema.Options{})
		if !strings.Contains(mistake(m, err), c.want) {
			t.Errorf("%s\ngot  %s\nwant %s", c.body, mistake(m, err), c.want)
		}
	}
}

func numbered(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

func TestTagsHaveConditionsFormsAndRoles(t *testing.T) {
	opts := schema.Options{
		LookupEnv: env("GITHUB_ACTIONS", "true", "GITHUB_REF", "refs/pull/17/merge", "GITHUB_HEAD_REF", "fix/it", "GITHUB_RUN_ID", "99"),
		Git: func(fact string) (string, error) {
			return map[string]string{"sha": "4f2c9d1e8b7a6c5d", "tag": "v1.4.2"}[fact], nil
		},
		Now: time.Date(2026, 11, 28, 18, 5, 27, 0, time.UTC),
	}
	for _, c := range []struct{ tags, want string }{
		{`[{tag: "${git.tag|semver}", expand: [major, minor]}]`, "1.4.2 1 1.4"},
		{`[{tag: "${git.tag}", expand: [minor]}]`, "v1.4.2 v1.4"},
		{`[{tag: 1.4.2-rc.1, expand: [major]}]`, "1.4.2-rc.1"},
		{`["${build.date}", "${build.time}"]`, "2026-11-28 20261128T180527Z"},
		{`["${git.branch|slug}", "pr-${ci.request}", "${ci.name}-${ci.run}"]`, "fix-it pr-17 github-99"},
		{`["in-${input.digest}"]`, "in-${input.digest}"},
		{`["in-${input.digest|short}", {tag: a, role: identity}]`, "identity=a a in-${input.digest|short}"},
		{`[{tag: "in-${input.digest}", role: identity}]`, "identity=in-${input.digest} in-${input.digest}"},
		{`["$${vars.x}"]`, "error"},
		{`["", {tag: "${ci.tag:-}"}]`, "latest"},
		{`[{tag: x, if: "ci.name == 'gitlab'"}]`, "latest"},
		{`[{tag: nonsense, expand: [major]}]`, `error "nonsense" is not a version such as 1.4.2`},
		{`[{tag: 1.0.0, expand: [patch]}]`, `error "expand" must be major or minor, not "patch"`},
		{`["${input.digst}"]`, "error ${input.digst} is unknown"},
		{`["${result.ref}"]`, "error ${result.ref} has a meaning only in hooks"},
		{`[{tag: a, role: identiy}]`, "error \"role\" must be identity, not \"identiy\"\n  hint: did you mean \"identity\"?"},
	} {
		m, err := parse("version: 1\ntargets: {t: {image: x.io/t, tags: "+c.tags+"}}\n", opts)
		if want, bad := strings.CutPrefix(c.want, "error"); bad {
			if err == nil || !strings.Contains(err.Error(), strings.TrimSpace(want)) {
				t.Errorf("%s\ngot  %s\nwant %s", c.tags, mistake(m, err), c.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.tags, err)
			continue
		}
		var got []string
		u := m.Targets[0]
		for _, r := range u.IdentityRefs {
			got = append(got, "identity="+strings.TrimPrefix(r.Name, "x.io/t:"))
		}
		for _, r := range u.InputRefs {
			if r.Identity {
				got = append(got, "identity="+strings.TrimPrefix(r.Text, "x.io/t:"))
			}
		}
		for _, r := range u.RefNames() {
			got = append(got, strings.TrimPrefix(r, "x.io/t:"))
		}
		for _, r := range u.InputRefs {
			got = append(got, strings.TrimPrefix(r.Text, "x.io/t:"))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s\ngot  %v\nwant %s", c.tags, got, c.want)
		}
	}
}

func TestHooksKeepWhatIsKnownLater(t *testing.T) {
	m, err := parse(`version: 1
vars: {v: {default: "$${result.ref}"}}
targets:
  t: {hooks: {after: [{run: [echo, "$HOME $${result.ref} ${result.ref} ${vars.v} ${result.digest|short}"]}]}}
`, schema.Options{})
	if err != nil {
		t.Fatal(err)
	}
	text := m.Targets[0].After[0].Words[1]
	got, err := schema.Expand(text, map[string]string{"result.ref": "x.io/t@sha256:1", "result.digest": "sha256:0123456789"})
	if want := "$HOME ${result.ref} x.io/t@sha256:1 ${result.ref} 0123456"; err != nil || got != want {
		t.Errorf("%q is\n%q %v, want\n%q", text, got, err, want)
	}
	if _, err := schema.Expand(text, nil); err == nil || !strings.Contains(err.Error(), "result.ref has no value") {
		t.Errorf("got %v", err)
	}
}

func TestSetChangesTargets(t *testing.T) {
	const text = `version: 1
templates: {go: {args: {A: 1}, platforms: [linux/amd64]}}
targets:
  api: {extends: [go], secrets: [s]}
  web.v2: {extends: [go]}
  worker: {matrix: {go: [1, 2]}}
secrets: {s: {env: S}}
`
	for _, c := range []struct{ set, target, want string }{
		{"api.args.A=2", "api", "A=2"}, {"api.args={A: 3, B: 4}", "api", "A=3 B=4"}, {"api.args-=[A]", "api", ""}, {"api.args-=A", "api", ""}, {"api.args.A=null", "api", ""},
		{"*.platforms+=[linux/arm64]", "api", "A=1 [linux/amd64 linux/arm64]"}, {"*.platforms+=linux/arm64", "web.v2", "A=1 [linux/amd64 linux/arm64]"}, {"*.platforms=linux/s390x", "worker-1", "[linux/s390x]"},
		{"web.v2.args.A=7", "web.v2", "A=7"}, {"web.*.args.A=7", "web.v2", "A=7"}, {"worker.stage=x", "worker-2", "stage=x"}, {"worker-2.stage=x", "worker-1", ""},
		{"api.labels.org.example.name=a: b", "api", "error"}, {"api.labels.org.example.name=x=y", "api", "A=1 org.example.name=x=y"}, {"api.executor.compression=zstd", "api", "A=1 zstd"},
		{"api.args.A=", "api", "A="}, {"api.args.A=${target.name}", "api", "A=api"}, {"api.context=a/b", "api", "A=1 context=a/b"}, {"api.secrets=null", "api", "A=1 no secrets"},
		{"wrker.stage=x", "api", `error --set wrker.stage: no target matches "wrker"`}, {"api.stge=x", "api", "error --set api.stge: there is no key \"stge\" in a target\n  hint: did you mean \"stage\"?"},
		{"api.executor.compresion=x", "api", "error there is no key \"executor.compresion\" in a target\n  hint: did you mean \"compression\"?"}, {"api.stage=[x]", "api", `error --set api.stage: "stage" must be text, not a list`}, {"stage=x", "api", "error the path names no key"},
		{"api.extends=[go]", "api", "error extends says which targets there are"}, {"api.platforms=[", "api", `error "[" is not a value in YAML`}, {"run.push=true", "api", "error the path names no key"},
	} {
		name, value, _ := strings.Cut(c.set, "=")
		if strings.Contains(c.set, "+=") || strings.Contains(c.set, "-=") {
			name, value, _ = strings.Cut(c.set, "=")
		}
		m, err := parse(text, schema.Options{Sets: []schema.Setting{{Name: name, Value: value}}})
		if want, bad := strings.CutPrefix(c.want, "error"); bad {
			if err == nil || !strings.Contains(err.Error(), strings.TrimSpace(want)) {
				t.Errorf("%s\ngot  %s\nwant %s", c.set, mistake(m, err), c.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.set, err)
			continue
		}
		u := m.Target(c.target)
		var got []string
		for _, k := range []string{"A", "B"} {
			if v, ok := u.Args[k]; ok {
				got = append(got, k+"="+v)
			}
		}
		if v, ok := u.Labels["org.example.name"]; ok {
			got = append(got, "org.example.name="+v)
		}
		if p := fmt.Sprint(u.Platforms); p != "[linux/amd64]" && p != "[]" {
			got = append(got, p)
		}
		if u.Stage != "" {
			got = append(got, "stage="+u.Stage)
		}
		if u.Executor.Compression != "" {
			got = append(got, u.Executor.Compression)
		}
		if u.Context != "." {
			got = append(got, "context="+u.Context)
		}
		if c.target == "api" && len(u.Secrets) == 0 {
			got = append(got, "no secrets")
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s\ngot  %v\nwant %s", c.set, got, c.want)
		}
	}
}

// TestWhatAMatrixDoesNotDoIsAWarning looks for targets that nobody would miss at once.
func TestWhatAMatrixDoesNotDoIsAWarning(t *testing.T) {
	for _, c := range []struct{ targets, want string }{
		{"{a: {matrix: {x: [1]}, variant: v1}}", ""},
		{"{a: {variant: v1}}", `kaniko-build.yaml:2:24: target "a" has no matrix, and variant does nothing`},
		{"{a: {}, b: {matrix: {x: [], y: [1]}}}", `kaniko-build.yaml:2:30: the matrix of "b" has no cell, and nothing is built of it`},
		{"{a: {}, b: {matrix: {x: [1], exclude: [{x: 1}]}}}", `the matrix of "b" has no cell`},
	} {
		m, err := parse("version: 1\ntargets: "+c.targets, schema.Options{})
		if err != nil {
			t.Errorf("%s: %v", c.targets, err)
			continue
		}
		if got := m.Warnings.Error(); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s\ngot  %s\nwant %s", c.targets, got, c.want)
		}
	}
}
