package bake_test

import (
	"testing"

	"kaniko-build/cmd/kaniko-build/internal/importer"
	"kaniko-build/cmd/kaniko-build/internal/importer/bake"
	"kaniko-build/cmd/kaniko-build/internal/importer/importertest"
)

func TestImport(t *testing.T) {
	importertest.Golden(t, "testdata/*.hcl", bake.Import)
	importertest.Golden(t, "testdata/*.json", bake.Import)
}

func TestMistakesHavePlaces(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`target "a" {`, "f.hcl:1:12: unclosed configuration block"},
		{`group "a" { targets = [] }`, "f.hcl: there is no target"},
		{`{"target": }`, "f.hcl:1:12: missing JSON value"},
	} {
		_, err := bake.Import("f.hcl", []byte(c.text), &importer.Paths{Base: "."})
		importertest.Begins(t, err, c.want)
	}
}

func FuzzImport(f *testing.F) {
	importertest.Fuzz(f, "testdata/*.hcl", "f.hcl", bake.Import)
}
