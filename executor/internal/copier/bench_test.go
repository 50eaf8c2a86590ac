package copier_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"kaniko-build/executor/internal/buildctx"
	"kaniko-build/executor/internal/copier"
	"kaniko-build/executor/internal/layer"
)

// bigTree makes 20,000 small files in 200 directories, and an ignore file as
// projects have them.
func bigTree(b *testing.B) string {
	b.Helper()
	dir := b.TempDir()
	for i := range 200 {
		d := filepath.Join(dir, fmt.Sprintf("pkg%02d", i/10), fmt.Sprintf("sub%d", i%10))
		if err := os.MkdirAll(d, 0o755); err != nil {
			b.Fatal(err)
		}
		for j := range 100 {
			if err := os.WriteFile(filepath.Join(d, fmt.Sprintf("file%d.go", j)), fmt.Appendf(nil, "package x // %d %d\n", i, j), 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
	ignore := "**/*.log\n.git\nnode_modules\n**/*.tmp\n!keep.tmp\n"
	if err := os.WriteFile(filepath.Join(dir, ".dockerignore"), []byte(ignore), 0o644); err != nil {
		b.Fatal(err)
	}
	return dir
}

// BenchmarkKeyLines is the key of COPY . / over 20,000 files: cold, and with
// all of them remembered.
func BenchmarkKeyLines(b *testing.B) {
	dir := bigTree(b)
	file := filepath.Join(b.TempDir(), "sums")
	lines := func(b *testing.B, h *buildctx.Hasher) {
		d, err := buildctx.Open(b.Context(), dir, buildctx.Options{})
		if err != nil {
			b.Fatal(err)
		}
		defer d.Close()
		items, err := copier.Find(b.Context(), d, copier.Select{Patterns: []string{"."}})
		if err != nil {
			b.Fatal(err)
		}
		l, err := copier.KeyLines(b.Context(), d, items, false, h.Hash)
		if err != nil || len(l) < 20000 {
			b.Fatal(len(l), err)
		}
	}
	open := func(b *testing.B, file string) *buildctx.Hasher {
		h, err := buildctx.OpenHasher(file)
		if err != nil {
			b.Fatal(err)
		}
		return h
	}
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			lines(b, open(b, ""))
		}
	})
	b.Run("remembered", func(b *testing.B) {
		time.Sleep(3 * time.Second) // the files must be older than what is too young to trust
		h := open(b, file)
		lines(b, h)
		if err := h.Save(); err != nil {
			b.Fatal(err)
		}
		b.ResetTimer()
		for b.Loop() {
			lines(b, open(b, file))
		}
	})
}

// BenchmarkPlace copies 20,000 files.
func BenchmarkPlace(b *testing.B) {
	src, err := buildctx.Open(b.Context(), bigTree(b), buildctx.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer src.Close()
	for b.Loop() {
		b.StopTimer()
		upper := b.TempDir()
		b.StartTimer()
		items, err := copier.Find(b.Context(), src, copier.Select{Patterns: []string{"."}})
		if err != nil {
			b.Fatal(err)
		}
		if err := copier.Place(b.Context(), src, items, copier.Empty, upper, copier.Placement{Dest: "/x/", Make: layer.Maker{}}); err != nil {
			b.Fatal(err)
		}
	}
}
