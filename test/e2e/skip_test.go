package e2e

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"kaniko-build/test/mirror"
	"kaniko-build/test/rig"
)

// What a registry has under the identity tag is given the other tags, and neither
// built nor pushed, on a machine that has never seen it.
func TestSkipPublishedTagsWhatTheRegistryHas(t *testing.T) {
	rig.NeedRoot(t)
	reg := rig.StartMirror(t, mirror.Busybox)
	dir := rig.Space(t, nil)
	rig.Write(t, dir, map[string]string{
		"kaniko-build.yaml": fmt.Sprintf(`version: 1
registries: {docker.io: {mirrors: ["%[1]s"]}}
vars: {tag: {type: string, default: one}}
defaults:
  image: "%[1]s/skip/${target.base}"
  tags: ["${vars.tag}", {tag: "in-${input.digest}", role: identity}]
  skip: published
targets:
  one: {context: app}
  two: {context: app, platforms: [linux/amd64, linux/arm64], dockerfileInline: "FROM scratch\nCOPY file /app\n"}
  child: {context: app, skip: never, dockerfileInline: "FROM base\nCOPY file /app\n", contexts: {base: "target:one"}}
`, reg.Addr),
		"app/Dockerfile": "FROM busybox\nCOPY file /app\nRUN echo ran\n",
		"app/file":       "one\n",
	})
	first := newMachine(t, rig.Superuser, dir)
	first.must("apply", "--push", "one", "two")
	digest := func(repo, tag string) string { return rig.Tagged(t, reg.Addr, "skip/"+repo, tag) }
	other := first.fresh()
	o := other.must("apply", "--push", "--var", "tag=two", "one", "two")
	if strings.Contains(o.All(), "ran") || !strings.Contains(o.All(), "2 skipped") {
		t.Errorf("it was built:\n%s", o.Tail(30))
	}
	for _, repo := range []string{"one", "two"} {
		if one, two := digest(repo, "one"), digest(repo, "two"); one == "" || one != two {
			t.Errorf("%s: the new tag is %s, the old one %s", repo, two, one)
		}
	}

	// A child that is not skipped gets its parent all the same.
	o = other.must("apply", "child")
	if !strings.Contains(o.All(), "child ") {
		t.Errorf("no child:\n%s", o.Tail(30))
	}

	// Other inputs are another image.
	rig.Write(t, dir, map[string]string{"app/file": "two\n"})
	other.must("apply", "--push", "--var", "tag=three", "one", "two")
	for _, repo := range []string{"one", "two"} {
		if one, three := digest(repo, "one"), digest(repo, "three"); three == "" || one == three {
			t.Errorf("%s: changed inputs gave %s again", repo, three)
		}
	}
	// And the first ones are there still.
	rig.Write(t, dir, map[string]string{"app/file": "one\n"})
	o = first.fresh().must("apply", "--push", "--publish", "each", "--var", "tag=four", "one")
	if one, four := digest("one", "one"), digest("one", "four"); one != four || !strings.Contains(o.All(), "1 skipped") {
		t.Errorf("the first image is %s, and what has its inputs %s\n%s", one, four, o.Tail(20))
	}
}

// A child gets a parent that is published as the registry has it, also where the store
// is empty: the parent is not built. With --affected that is so for every parent with an
// identity tag that the change is not about, and a weak parent is named by its inputs.
func TestPublishedParentsAreNotBuilt(t *testing.T) {
	rig.NeedRoot(t)
	reg := rig.StartMirror(t, mirror.Busybox)
	dir := rig.Space(t, nil)
	rig.Write(t, dir, map[string]string{
		"kaniko-build.yaml": fmt.Sprintf(`version: 1
registries: {docker.io: {mirrors: ["%[1]s"]}}
vars: {skip: {type: string, default: published}}
defaults:
  image: "%[1]s/parent/${target.base}"
  tags: [latest, {tag: "in-${input.digest}", role: identity}]
targets:
  root: {context: base, internal: true, dockerfileInline: "FROM busybox\nRUN echo root ran; echo root > /root-file\n"}
  base: {context: base, skip: "${vars.skip}", contexts: {root: "target:root"}}
  kid: {context: kid}
  weak: {context: kid, contexts: {base: "target?:base"}, dockerfileInline: "FROM base\nCOPY file /weak\n"}
`, reg.Addr),
		"base/Dockerfile": "FROM root\nCOPY file /base\nRUN echo base ran; cat /base /root-file > /made\nENV A=b\n",
		"base/file":       "base\n",
		"kid/Dockerfile":  "FROM " + reg.Addr + "/parent/base\nCOPY file /kid\nRUN echo kid ran; cat /made /kid > /all; echo $A $(cat /all)\n",
		"kid/file":        "kid\n",
	})
	git := func(args ...string) {
		t.Helper()
		c := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@b"}, args...)...)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	git("init", "-q")
	git("add", ".")
	git("commit", "-q", "-m", "first")
	first := newMachine(t, rig.Superuser, dir)
	first.must("apply", "--push", "--set", "*.skip=never", "base", "kid")

	check := func(o rig.Output, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if not, bad := strings.CutPrefix(want, "!"); bad == strings.Contains(o.All(), not) {
				t.Errorf("%s:\n%s", want, o.Tail(40))
			}
		}
	}
	rig.Write(t, dir, map[string]string{"kid/file": "other\n"})
	steps := regexp.MustCompile(`(?m)^\d\S+ \S+ +(?:-|\S+ \S+) +\S+ +`)
	history := func(m *machine) string {
		t.Helper()
		return steps.ReplaceAllString(m.call("history", reg.Addr+"/parent/kid").Stdout, "")
	}
	built := first.fresh()
	check(built.must("apply", "--var", "skip=never", "kid"), "root ran", "base ran", "kid ran", "b base root other")
	adopted := first.fresh()
	o := adopted.must("apply", "kid")
	check(o, "!root ran", "!base ran", "kid ran", "b base root other", "1 skipped: published already", "1 skipped: needed by nothing that is built")
	if a, b := history(built), history(adopted); a != b || !strings.Contains(a, "base ran") || !strings.Contains(a, "root ran") {
		t.Errorf("the image has the history\n%s\nand on its published parent\n%s", a, b)
	}
	adopted.must("apply", "--push", "kid")

	rig.Write(t, dir, map[string]string{"kid/file": "third\n"})
	check(first.fresh().must("apply", "--var", "skip=never", "--affected=HEAD"), "!root ran", "!base ran", "kid ran", "skipped: published already")
	check(first.fresh().must("apply", "weak"), "!base ran", "weak ")

	// Where the registry has no such image the parent is built.
	rig.Write(t, dir, map[string]string{"base/file": "new\n"})
	check(first.fresh().must("apply", "kid"), "root ran", "base ran", "kid ran")
	if o := first.fresh().run("apply", "weak"); o.Code == 0 || !strings.Contains(o.All(), "/parent/base:in-") {
		t.Errorf("an image that nobody published was found:\n%s", o.Tail(20))
	}
}
