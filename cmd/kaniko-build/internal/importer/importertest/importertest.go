// Package importertest tests importers the same way.
//
//	testdata/NAME.EXT ─ Import ─> manifest and notes ── equal to testdata/NAME.EXT.want
//	                                  └─ schema ──> no mistakes
//
// Run with -update it rewrites what is wanted.
package importertest

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"kaniko-build/cmd/kaniko-build/internal/importer"
	"kaniko-build/schema"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Import is what is tested: it reads a file whose paths are rebased.
type Import = func(name string, text []byte, paths *importer.Paths) (*importer.Draft, error)

// Golden imports every file of a pattern, and compares manifest and notes. The
// manifest must be one that schema takes.
func Golden(t *testing.T, pattern string, read Import) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %v, %v", pattern, files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			d, err := read(file, text, &importer.Paths{Base: "src"})
			if err != nil {
				t.Fatal(err)
			}
			got := shown(t, d)
			want, err := os.ReadFile(file + ".want")
			if *update {
				err = os.WriteFile(file+".want", got, 0o644)
				want = got
			}
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// shown is a draft's manifest, which must be a good one, and its notes.
func shown(t *testing.T, d *importer.Draft) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := d.Write(&b); err != nil {
		t.Fatal(err)
	}
	fsys := fstest.MapFS{"kaniko-build.yaml": {Data: b.Bytes()}}
	at := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	git := func(fact string) (string, error) { return "v1.0.0", nil }
	for _, profile := range append([]importer.Profile{{Name: "none"}}, d.Profiles...) {
		o := schema.Options{WorkspaceName: "shop", Git: git, Now: at, LookupEnv: os.LookupEnv, Profiles: []string{profile.Name}}
		if _, err := schema.Parse(fsys, "kaniko-build.yaml", o); err != nil {
			t.Errorf("the manifest is not one with profile %s: %v", profile.Name, err)
		}
	}
	fmt.Fprintf(&b, "--- %d evaluated\n", d.Evaluated)
	for _, n := range d.Sorted() {
		fmt.Fprintf(&b, "%s: %s (dropped: %t)\n", n.Pos, n.What, n.Dropped)
	}
	return b.Bytes()
}

// Begins tells when an error is not the one that is wanted.
func Begins(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

// Fuzz reads what comes: no panic, and what is written is YAML that can be read
// again.
func Fuzz(f *testing.F, pattern, name string, read Import) {
	f.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := read(name, text, &importer.Paths{Base: "."})
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := d.Write(&b); err != nil {
			t.Fatal(err)
		}
		if _, err := importer.ReadYAML("kaniko-build.yaml", b.Bytes()); err != nil {
			t.Fatalf("%v in\n%s", err, b.Bytes())
		}
	})
}
