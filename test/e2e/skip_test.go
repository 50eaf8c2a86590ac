package e2e

import (
	"fmt"
	"net/http"
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
	digest := func(repo, tag string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+reg.Addr+"/v2/skip/"+repo+"/manifests/"+tag, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.Header.Get("Docker-Content-Digest")
	}
	other := first.fresh()
	o := other.must("apply", "--push", "--progress", "plain", "--var", "tag=two", "one", "two")
	if strings.Contains(o.All(), "ran") || !strings.Contains(o.All(), "2 skipped") {
		t.Errorf("it was built:\n%s", o.Tail(30))
	}
	for _, repo := range []string{"one", "two"} {
		if one, two := digest(repo, "one"), digest(repo, "two"); one == "" || one != two {
			t.Errorf("%s: the new tag is %s, the old one %s", repo, two, one)
		}
	}

	// A child that is not skipped gets its parent all the same.
	o = other.must("apply", "--progress", "plain", "child")
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
