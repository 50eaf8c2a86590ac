package bench

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/layout"

	"kaniko-build/test/mirror"
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
			Registry: func(_ context.Context, fn func(reg *rig.Registry) error) error { return fn(reg) },
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

// TestCopiesOntoABigBase looks at what two copies want of a base of 560 MB: all
// of it once, to read names; nothing where these are known; and never a file on disk.
func TestCopiesOntoABigBase(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a base of 560 MB, and no -short")
	}
	rig.NeedRoot(t)
	golang := rig.Mirror(t, mirror.Golang)[0]
	i := slices.IndexFunc(All, func(w Workload) bool { return w.Name == "copies" })
	// The config is read to know what the base is; layers are some MB at least.
	limits := map[string][2]int64{"cold": {sizeOf(t, golang), 64 << 10}, "indexes": {0, 64 << 10}}
	b := Bench{
		Binary: rig.Binary(t), Dir: rig.Space(t, nil), Runs: 1,
		Registry: func(_ context.Context, fn func(reg *rig.Registry) error) error {
			reg := rig.StartRegistry(t)
			reg.Push(t, golang)
			return fn(reg)
		},
		Say: func(s Sample) {
			rig.Report(t, "%s", s)
			want, ok := limits[s.Case]
			if !ok {
				return
			}
			delete(limits, s.Case)
			if over := s.Base.Pulled - want[0]; over < 0 || over > want[1] {
				t.Errorf("%s: %d bytes were pulled, of a base of %d", s.Case, s.Base.Pulled, want[0])
			}
			if s.Base.Unpacked > 0 {
				t.Errorf("%s: %d files of the base were unpacked", s.Case, s.Base.Unpacked)
			}
		},
	}
	if err := b.Measure(t.Context(), All[i]); err != nil {
		t.Fatal(err)
	}
	if len(limits) > 0 {
		t.Errorf("not measured: %v", limits)
	}
}

// sizeOf is the compressed size of the layers of a layout's image, in bytes.
func sizeOf(t *testing.T, dir string) int64 {
	t.Helper()
	l, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	idx, err := l.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	img, err := l.Image(idx.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	var sum int64
	for _, one := range m.Layers {
		sum += one.Size
	}
	return sum
}
