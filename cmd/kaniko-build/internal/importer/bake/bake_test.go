package bake_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kaniko-build/cmd/kaniko-build/internal/importer"
	"kaniko-build/cmd/kaniko-build/internal/importer/bake"
	"kaniko-build/cmd/kaniko-build/internal/importer/importertest"
)

// imports reads a file, with NAME.override beside it if that is there.
func imports(name string, text []byte, paths *importer.Paths) (*importer.Draft, error) {
	files := []importer.File{{Name: name, Text: text}}
	over := strings.TrimSuffix(name, filepath.Ext(name)) + ".override"
	if more, err := os.ReadFile(over); err == nil {
		files = append(files, importer.File{Name: over, Text: more})
	}
	return bake.Import(files, paths)
}

func TestImport(t *testing.T) {
	importertest.Golden(t, "testdata/*.hcl", imports)
	importertest.Golden(t, "testdata/*.json", imports)
}

func TestMistakesHavePlaces(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`target "a" {`, "f.hcl:1:12: unclosed configuration block"},
		{`group "a" { targets = [] }`, "f.hcl: there is no target"},
		{`{"target": }`, "f.hcl:1:12: missing JSON value"},
	} {
		_, err := imports("f.hcl", []byte(c.text), &importer.Paths{Base: "."})
		importertest.Begins(t, err, c.want)
	}
}

func FuzzImport(f *testing.F) {
	importertest.Fuzz(f, "testdata/*.hcl", "f.hcl", imports)
}
