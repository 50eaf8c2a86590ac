package plan_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestWeakEdgesCountOnlyInTheRun builds a child with and without its parent.
func TestWeakEdgesCountOnlyInTheRun(t *testing.T) {
	files := workspace(`-- kaniko-build.yaml --
version: 1
targets:
  base: {context: d, image: x.io/base, tags: [v1, {tag: id, role: identity}]}
  other: {context: d, contexts: {b: "target:base"}}
  child: {context: child, contexts: {ctx: "target?:base", strong: "target:lib"}}
  dep: {context: child, contexts: {ctx: "target:base"}, deps: {weak: [base]}}
  named: {context: named, deps: {weak: [base]}}
  lib: {context: d}
  late: {context: d, image: x.io/late, tags: [v1, {tag: "in-${input.digest}", role: identity}]}
  later: {context: child, contexts: {ctx: "target?:late"}}
-- d/Dockerfile --
FROM scratch
-- child/Dockerfile --
FROM scratch
-- named/Dockerfile --
FROM x.io/base:v1
`)
	for _, c := range []struct{ selection, want string }{
		{"child", "child lib | child>lib | child.ctx=x.io/base:id"},
		{"child base", "base child lib | child>base child>lib |"},
		{"child other", "base other child lib | child>base child>lib other>base |"},
		{"dep", "dep | | dep.ctx=x.io/base:id"},
		{"dep base", "base dep | dep>base |"},
		{"named", "named | |"},
		{"named base", "base named | named>base |"},
		{"later", "later | | later.ctx=x.io/late:in-${input.digest}"},
	} {
		p, err := makePlan(t, files, amd64, strings.Fields(c.selection)...)
		if err != nil {
			t.Errorf("%s: %v", c.selection, err)
			continue
		}
		var nodes, edges, published []string
		for _, n := range p.Nodes {
			nodes = append(nodes, string(n.ID))
			for name, image := range n.Published {
				published = append(published, fmt.Sprintf("%s.%s=%s", n.ID, name, image.Image))
			}
		}
		for _, e := range p.Edges {
			edges = append(edges, fmt.Sprintf("%s>%s", e.Node, e.Needs))
			if strings.Contains(p.Node(e.Node).Target.Name, "named") && p.Node(e.Node).Parents["x.io/base:v1"] != "base" {
				t.Errorf("the image is not handed over: %v", p.Node(e.Node).Parents)
			}
		}
		got := strings.TrimSpace(strings.ReplaceAll(fmt.Sprintf("%s | %s | %s", strings.Join(nodes, " "), sorted(edges), strings.Join(published, " ")), "  ", " "))
		want := c.want
		if got != want {
			t.Errorf("%s\ngot  %s\nwant %s", c.selection, got, want)
		}
	}
}

func sorted(list []string) string {
	slices.Sort(list)
	return strings.Join(list, " ")
}

func TestInferAndMatrixEdges(t *testing.T) {
	const rest = `
-- base/Dockerfile --
FROM scratch
-- child/Dockerfile --
FROM x.io/base
-- open/Dockerfile --
ARG V
FROM x.io/base:${V}
`
	for _, c := range []struct{ name, targets, want string }{
		{"inferred", "{base: {context: base, image: x.io/base}, c: {context: child}}", "c>base"},
		{"not inferred", "{base: {context: base, image: x.io/base}, c: {context: child, deps: {infer: false}}}", ""},
		{"not inferred and open", "{base: {context: base, image: x.io/base}, c: {context: open, deps: {infer: false}}}", ""},
		{"open is a warning", "{base: {context: base, image: x.io/base}, c: {context: open}}", "warning open/Dockerfile:2:1: target \"c\": FROM x.io/base:${V} has no value here"},
		{"strict", "{base: {context: base, image: x.io/base}, c: {context: open, deps: {infer: strict}}}", "error open/Dockerfile:2:1: target \"c\": FROM x.io/base:${V} has no value here, and infer is strict"},
		{"needs all cells", "{base: {context: base, matrix: {v: [1, 2]}}, c: {context: base, image: c, needs: [base]}}", "c>base-1 c>base-2"},
		{"a context of one cell", "{base: {context: base, matrix: {v: [1]}}, c: {context: base, image: c, contexts: {b: 'target:base'}}}", "c>base-1"},
		{"a context of several cells", "{base: {context: base, matrix: {v: [1, 2]}}, c: {context: base, image: c, contexts: {b: 'target:base'}}}", "error target \"c\": \"base\" is a matrix of several targets: base-1, base-2"},
		{"an image of several cells", "{base: {context: base, image: x.io/base, matrix: {v: [1, 2]}}, c: {context: child}}", "error FROM x.io/base is the image of several targets: base-1, base-2"},
	} {
		p, err := makePlan(t, workspace("-- kaniko-build.yaml --\nversion: 1\ntargets: "+c.targets+rest), amd64)
		var got []string
		if err == nil {
			for _, e := range p.Edges {
				got = append(got, fmt.Sprintf("%s>%s", e.Node, e.Needs))
			}
		}
		want, bad := strings.CutPrefix(c.want, "error ")
		warning, warned := strings.CutPrefix(c.want, "warning ")
		switch {
		case bad && (err == nil || !strings.Contains(err.Error(), want)), !bad && err != nil:
			t.Errorf("%s\ngot  %v\nwant %s", c.name, err, c.want)
		case warned && !strings.Contains(p.Warnings.Error(), warning):
			t.Errorf("%s\ngot  %v\nwant %s", c.name, p.Warnings, c.want)
		case !bad && !warned && strings.Join(got, " ") != c.want:
			t.Errorf("%s\ngot  %v\nwant %s", c.name, got, c.want)
		}
	}
}

func TestPolicyJudgesBases(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0", 64)
	for _, c := range []struct{ name, policy, from, want string }{
		{"no policy", "{}", "alpine", ""},
		{"not pinned", "{pinBases: warn}", "alpine:3.22", `warning child/Dockerfile:1:1: target "c": FROM alpine:3.22 is not pinned` + "\n  hint: name it by its digest, as alpine:3.22@sha256:..."},
		{"not pinned, an error", "{pinBases: error}", "alpine:3.22", `error target "c": FROM alpine:3.22 is not pinned`},
		{"pinned", "{pinBases: error}", "alpine:3.22@" + digest, ""},
		{"a target is no base", "{pinBases: error, allowedBases: [none]}", "x.io/base", ""},
		{"scratch is no base", "{pinBases: error, allowedBases: [none]}", "scratch", ""},
		{"allowed", "{allowedBases: ['docker.io/library/*', 'x.io/**']}", "alpine", ""},
		{"allowed below", "{allowedBases: ['docker.io/library/*', 'y.io/**']}", "y.io/a/b:1", ""},
		{"allowed by tag", "{allowedBases: ['docker.io/library/alpine:3.*']}", "alpine:3.22", ""},
		{"another tag", "{allowedBases: ['docker.io/library/alpine:3.*']}", "alpine:4", "error is not an allowed base\n  hint: the policy allows docker.io/library/alpine:3.*"},
		{"another host", "{allowedBases: ['docker.io/library/*']}", "y.io/library/alpine", `error target "c": FROM y.io/library/alpine is not an allowed base`},
		{"one star is one level", "{allowedBases: ['y.io/*']}", "y.io/a/b", "error is not an allowed base"},
	} {
		p, err := makePlan(t, workspace("-- kaniko-build.yaml --\nversion: 1\npolicy: "+c.policy+"\ntargets: {base: {context: base, image: x.io/base}, c: {context: child}}\n-- base/Dockerfile --\nFROM scratch\n-- child/Dockerfile --\nFROM "+c.from+"\n"), amd64)
		want, bad := strings.CutPrefix(c.want, "error ")
		warning, warned := strings.CutPrefix(c.want, "warning ")
		switch {
		case bad && (err == nil || !strings.Contains(err.Error(), want)), !bad && err != nil:
			t.Errorf("%s\ngot  %v\nwant %s", c.name, err, c.want)
		case !bad && p.Warnings.Error() != warning, warned && len(p.Warnings) == 0:
			t.Errorf("%s\ngot  %v\nwant %s", c.name, p.Warnings, c.want)
		}
	}
}

// TestInternalTargetsAreBuiltForWhoNeedsThem has parents for fewer platforms.
func TestInternalTargetsAreBuiltForWhoNeedsThem(t *testing.T) {
	files := workspace(`-- kaniko-build.yaml --
version: 1
targets:
  root: {context: d, image: x.io/root, internal: true}
  base: {context: d, internal: true, contexts: {r: "target:root"}}
  child: {context: d, platforms: [linux/amd64, linux/arm64], contexts: {b: "target:base"}}
  one: {context: d, contexts: {b: "target:base"}}
  public: {context: d}
  wrong: {context: d, platforms: [linux/arm64], contexts: {b: "target:public"}}
-- d/Dockerfile --
FROM scratch
`)
	for _, c := range []struct{ selection, want string }{
		{"one", "[root base one]"},
		{"child", "[root@linux/amd64 root@linux/arm64 base@linux/amd64 base@linux/arm64 child@linux/amd64 child@linux/arm64 child]"},
		{"wrong", `kaniko-build.yaml:8:63: target "wrong" needs "public" for linux/arm64, which is built for linux/amd64 only` + "\n  hint: add linux/arm64 to the platforms of \"public\""},
	} {
		p, err := makePlan(t, files, amd64, c.selection)
		got := fmt.Sprint(err)
		if err == nil {
			got = fmt.Sprint(p.Order)
		}
		if got != c.want {
			t.Errorf("%s\ngot  %s\nwant %s", c.selection, got, c.want)
		}
	}
}
