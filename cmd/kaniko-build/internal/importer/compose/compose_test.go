package compose_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kaniko-build/cmd/kaniko-build/internal/importer"
	"kaniko-build/cmd/kaniko-build/internal/importer/compose"
	"kaniko-build/cmd/kaniko-build/internal/importer/importertest"
)

// read reads the files that others name.
func read(name string) ([]byte, error) {
	switch name {
	case filepath.Join("testdata", "parent.yaml"):
		return os.ReadFile("testdata/parent.yml")
	case filepath.Join("testdata", "more", "compose.yaml"):
		return os.ReadFile("testdata/more.yml")
	}
	return nil, fs.ErrNotExist
}

// imports reads a file, with NAME.override beside it if that is there.
func imports(name string, text []byte, paths *importer.Paths) (*importer.Draft, error) {
	files := []importer.File{{Name: name, Text: text}}
	over := strings.TrimSuffix(name, filepath.Ext(name)) + ".override"
	if more, err := os.ReadFile(over); err == nil {
		files = append(files, importer.File{Name: over, Text: more})
	}
	return compose.Import(files, paths, read)
}

func TestImport(t *testing.T) {
	t.Setenv("NEEDED", "x")
	importertest.Golden(t, "testdata/*.yaml", imports)
}

func TestMistakesHavePlaces(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"services: {a: {image: x}}", "compose.yaml: no service is built\n  hint: services with build: become targets"},
		{"services:\n\ta: 1", "compose.yaml:2: this is no YAML"},
		{"[]", "compose.yaml:1:1: a compose file is a mapping, not a list"},
	} {
		_, err := imports("compose.yaml", []byte(c.text), &importer.Paths{Base: "."})
		importertest.Begins(t, err, c.want)
	}
}

func FuzzImport(f *testing.F) {
	importertest.Fuzz(f, "testdata/*.yaml", "compose.yaml", imports)
}
