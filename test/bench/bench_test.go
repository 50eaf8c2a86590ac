package bench

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"kaniko-build/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// TestWorkloadsAreTheSameEveryTime writes the small ones twice.
func TestWorkloadsAreTheSameEveryTime(t *testing.T) {
	for _, w := range All {
		if w.Name == "bigctx" {
			continue // 160 MB
		}
		t.Run(w.Name, func(t *testing.T) {
			var sums [2]string
			for i := range sums {
				dir := filepath.Join(t.TempDir(), w.Name)
				if err := w.Write(dir, "127.0.0.1:5000"); err != nil {
					t.Fatal(err)
				}
				sums[i] = sum(t, dir)
				for _, c := range w.Changes {
					if _, err := os.Stat(filepath.Join(dir, c.File)); err != nil {
						t.Errorf("change %s: %v", c.Name, err)
					}
				}
			}
			if sums[0] != sums[1] {
				t.Error("two writes differ")
			}
		})
	}
}

func sum(t *testing.T, dir string) string {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		rel, _ := filepath.Rel(dir, p)
		fmt.Fprintf(h, "%s %d\n%s", rel, len(b), b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// TestMemoryOfABigLayer builds a layer of 2 GB with every process of ours
// below its limit.
func TestMemoryOfABigLayer(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a minute, 5 GB of disk, and no -short")
	}
	rig.NeedRoot(t)
	reg := rig.StartMirror(t, "debian")
	for _, w := range All {
		if w.Name != "biglayer2" {
			continue
		}
		b := Bench{
			Binary: rig.Binary(t), Dir: rig.Space(t, nil), Runs: 1,
			Registry: func(_ context.Context, fn func(addr string) error) error { return fn(reg.Addr) },
			Say: func(s Sample) {
				rig.Report(t, "%s", s)
				if s.TooMuch() {
					t.Errorf("%s, %s: a process of ours used %d MB, more than %d", s.Workload, s.Case, s.Peak>>20, s.Memory>>20)
				}
			},
		}
		if err := b.Measure(t.Context(), w); err != nil {
			t.Fatal(err)
		}
	}
}
