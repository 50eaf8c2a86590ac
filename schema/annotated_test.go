package schema_test

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"kaniko-build/schema"
)

// TestAnnotatedExample reads the manifest that says everything.
func TestAnnotatedExample(t *testing.T) {
	m, err := schema.Parse(os.DirFS("testdata/annotated"), "kaniko-build.yaml", world)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/annotated.want", show(m))
	var b bytes.Buffer
	if err := m.Print(&b, []string{"api", "web", "migrate", "data/etl"}, true); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/annotated.print", b.String())

	ci := world
	ci.LookupEnv = env("CI", "true")
	m, err = schema.Parse(os.DirFS("testdata/annotated"), "kaniko-build.yaml", ci)
	if err != nil {
		t.Fatal(err)
	}
	if u := m.Target("cart"); !m.Run.Push || !m.Run.KeepGoing || u.Stage != "release" || u.Skip != schema.SkipPublished || len(u.Platforms) != 2 {
		t.Errorf("the profile of CIs does not count: %+v %+v", m.Run, u)
	}
}

// TestRemoteIncludeIsRefusedByName reads the one line of the example that comes last.
func TestRemoteIncludeIsRefusedByName(t *testing.T) {
	text := "version: 1\ninclude:\n  - {git: \"https://git.example.com/plat/images.git\", ref: 4f2c9d1e8b7a6c5d4e3f2a1b0c9d8e7f6a5b4c3d, path: base/kaniko-build.yaml, prefix: plat/}\ntargets: {a: {}}\n"
	_, err := schema.Parse(fstest.MapFS{"kaniko-build.yaml": {Data: []byte(text)}}, "kaniko-build.yaml", schema.Options{})
	if err == nil || !strings.Contains(err.Error(), `kaniko-build.yaml:3:6: key "git" is not built yet`) {
		t.Errorf("got %v", err)
	}
}
