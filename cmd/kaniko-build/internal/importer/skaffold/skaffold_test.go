package skaffold_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"kaniko-build/cmd/kaniko-build/internal/importer"
	"kaniko-build/cmd/kaniko-build/internal/importer/importertest"
	"kaniko-build/cmd/kaniko-build/internal/importer/skaffold"
)

// read reads the configs that others require.
func read(name string) ([]byte, error) {
	if name == filepath.Join("testdata", "other", "skaffold.yaml") {
		return os.ReadFile("testdata/other.yml")
	}
	return nil, fs.ErrNotExist
}

func imports(name string, text []byte, paths *importer.Paths) (*importer.Draft, error) {
	return skaffold.Import(name, text, paths, read)
}

func TestImport(t *testing.T) {
	t.Setenv("NEEDED", "x")
	importertest.Golden(t, "testdata/*.yaml", imports)
}

func TestMistakesHavePlaces(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"apiVersion: skaffold/v1\nbuild: {artifacts: [{image: a, ko: {}}]}", "skaffold.yaml: nothing is built by Docker or kaniko"},
		{"apiVersion: skaffold/v1\n\tx: 1", "skaffold.yaml:2: this is no YAML"},
	} {
		_, err := imports("skaffold.yaml", []byte(c.text), &importer.Paths{Base: "."})
		importertest.Begins(t, err, c.want)
	}
}

func FuzzImport(f *testing.F) {
	importertest.Fuzz(f, "testdata/*.yaml", "skaffold.yaml", imports)
}
