package e2e

import (
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kaniko-build/test/mirror"
	"kaniko-build/test/rig"
)

// A dry run asks a registry and a cache, and leaves the results of the store and the
// registry as they are, also where an image is to be built, moved or tagged anew.
func TestDryRunWritesNothing(t *testing.T) {
	rig.NeedRoot(t)
	reg := startGate(t, rig.StartMirror(t, mirror.Busybox))
	dir := rig.Space(t, nil)
	rig.Write(t, dir, map[string]string{
		"kaniko-build.yaml": fmt.Sprintf(`version: 1
registries: {docker.io: {mirrors: ["%[1]s"]}, "%[1]s": {onTagExists: skip}}
defaults: {image: "%[1]s/dry/${target.base}", cache: {repo: "%[1]s/dry/cache"}, context: app}
targets:
  app: {}
  kept: {dockerfileInline: "FROM busybox\nCOPY file /kept\n", tags: [one, "in-${input.digest}"]}
  published: {dockerfileInline: "FROM busybox\nCOPY file /published\n", skip: published, tags: [{tag: "in-${input.digest}", role: identity}, new]}
`, reg.addr),
		"app/Dockerfile": "FROM busybox\nCOPY file /app\nRUN echo ran\n",
		"app/file":       "one\n",
	})
	m := newMachine(t, rig.Superuser, dir)
	m.must("apply", "--push")
	rig.Write(t, dir, map[string]string{"app/file": "two\n"})
	before := results(t, m.state)
	reg.open()
	o := m.must("apply", "--push", "--dry-run")
	for _, want := range []string{"app: build, 2 of 2 steps", "file changed", "kept: build, 1 of 1 steps", "/dry/kept:one exists and stays as it is", "3 to build"} {
		if !strings.Contains(o.All(), want) {
			t.Errorf("no %q in\n%s", want, o.Tail(60))
		}
	}
	rig.Write(t, dir, map[string]string{"app/file": "one\n"})
	if o := m.fresh().must("apply", "--push", "--dry-run"); !strings.Contains(o.All(), "published: skip, published already") || !strings.Contains(o.All(), "0 to build") {
		t.Errorf("the cache, or the registry, was not asked:\n%s", o.Tail(60))
	}
	_, requests := reg.seen()
	for _, r := range requests {
		if method, _, _ := strings.Cut(r, " "); method != http.MethodGet && method != http.MethodHead {
			t.Errorf("the registry was asked to %s", r)
		}
	}
	if after := results(t, m.state); !slices.Equal(before, after) {
		t.Errorf("the store was\n%s\nand is\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
}

// results are the files of a store that say what was built.
func results(t *testing.T, state string) []string {
	t.Helper()
	var out []string
	for _, top := range []string{"keys", "layers", "variants", "images", "releases", "caches", "past"} {
		err := filepath.WalkDir(filepath.Join(state, top), func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			fi, err := d.Info()
			out = append(out, fmt.Sprint(p, fi.Size()))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}
