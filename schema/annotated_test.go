package schema_test

import (
	"bytes"
	"os"
	"testing"

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
