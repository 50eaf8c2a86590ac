package rootfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/layer"
	"kaniko-build/executor/internal/tree"
)

func needMount(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount an overlay")
	}
}

// scribble makes random files in root, in the form of an overlay's layer.
func scribble(t testing.TB, r *rand.Rand, root string, n int) {
	t.Helper()
	names := []string{"a", "b", "c", "d"}
	for range n {
		p, depth := root, 1+r.IntN(3)
		for i := range depth {
			if i < depth-1 {
				p = filepath.Join(p, names[r.IntN(len(names))])
				if st, err := os.Lstat(p); err == nil && !st.IsDir() {
					os.Remove(p)
				}
				if err := os.Mkdir(p, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
					t.Fatal(err)
				}
				if r.IntN(8) == 0 {
					unix.Lsetxattr(p, layer.OpaqueXattr, []byte("y"), 0)
				}
			}
		}
		p = filepath.Join(p, names[r.IntN(len(names))])
		if st, err := os.Lstat(p); err == nil && (!st.IsDir() || r.IntN(4) != 0) {
			os.RemoveAll(p)
		}
		switch r.IntN(8) {
		case 0, 1, 2:
			os.WriteFile(p, []byte(fmt.Sprint(r.IntN(1000))), fs.FileMode(0o600+r.IntN(64)))
		case 3:
			os.Mkdir(p, fs.FileMode(0o700+r.IntN(64)))
			if r.IntN(3) == 0 {
				unix.Lsetxattr(p, layer.OpaqueXattr, []byte("y"), 0)
			}
		case 4:
			os.Symlink(names[r.IntN(len(names))], p)
		case 5, 6:
			unix.Mknod(p, unix.S_IFCHR, 0)
		case 7:
			unix.Mkfifo(p, 0o640)
		}
		unix.Lchown(p, r.IntN(3), r.IntN(3))
	}
}

// shape is all that a tree says about itself.
func shape(t testing.TB, v tree.Tree) []string {
	t.Helper()
	var out []string
	err := tree.Walk(t.Context(), v, "", func(name string, e tree.Entry) error {
		s := fmt.Sprintf("%s %o %d:%d %d %s", name, e.Mode, e.UID, e.GID, e.Size, e.Link)
		if name != "" {
			s += fmt.Sprint(" ", e.ModTime.UnixNano())
			if one, err := v.Lstat(t.Context(), name); err != nil || one.Mode != e.Mode || one.ModTime != e.ModTime || one.Name != path.Base(name) {
				return fmt.Errorf("Lstat(%s) = %+v, %w; ReadDir says %+v", name, one, err, e)
			}
		}
		if e.IsRegular() {
			f, err := v.Open(t.Context(), name)
			if err != nil {
				return err
			}
			b, err := io.ReadAll(f)
			f.Close()
			if err != nil {
				return err
			}
			s += " " + string(b)
		} else if !e.IsDir() {
			if _, err := v.Lstat(t.Context(), name+"/a"); !missing(err) {
				return fmt.Errorf("something is below %s: %v", name, err)
			}
			if _, err := v.ReadDir(t.Context(), name); !errors.Is(err, unix.ENOTDIR) {
				return fmt.Errorf("ReadDir(%s): %v", name, err)
			}
		}
		out = append(out, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestViewAgreesWithTheKernel(t *testing.T) {
	needMount(t)
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		top := t.TempDir()
		var dirs []string
		for i := range 1 + r.IntN(6) {
			d := filepath.Join(top, fmt.Sprint("l", i))
			os.Mkdir(d, 0o755)
			scribble(t, r, d, 1+r.IntN(25))
			dirs = append(dirs, d)
		}
		mnt := filepath.Join(top, "mnt")
		os.Mkdir(mnt, 0o755)
		if err := (Stack{dirs}).MountReadOnly(t.Context(), mnt, filepath.Join(top, "scratch")); err != nil {
			t.Fatal(err)
		}
		kernel, err := tree.OpenDir(mnt, tree.DirOptions{})
		if err != nil {
			t.Fatal(err)
		}
		want := shape(t, kernel)
		kernel.Close()
		if err := Unmount(mnt); err != nil {
			t.Fatal(err)
		}
		for _, live := range []bool{false, true} {
			v, err := openView(lowers(dirs), live)
			if err != nil {
				t.Fatal(err)
			}
			if got := shape(t, v); !slices.Equal(got, want) {
				t.Errorf("seed %d, live %v:\ngot  %q\nwant %q", seed, live, got, want)
			}
			for range 200 { // names that may not be there
				name := path.Join(string(rune('a'+r.IntN(5))), string(rune('a'+r.IntN(5))), string(rune('a'+r.IntN(5))))
				_, err := v.Lstat(t.Context(), name)
				if there := slices.ContainsFunc(want, func(s string) bool { return len(s) > len(name) && s[:len(name)+1] == name+" " }); (err == nil) != there {
					t.Errorf("seed %d: Lstat(%s): %v, there: %v", seed, name, err, there)
				}
			}
			v.Close()
		}
	}
}

func TestViewOfNothing(t *testing.T) {
	v, err := OpenView()
	if err != nil {
		t.Fatal(err)
	}
	if e, err := v.Lstat(t.Context(), "/"); err != nil || !e.IsDir() || e.Perm() != 0o755 {
		t.Errorf("root: %+v, %v", e, err)
	}
	if l, err := v.ReadDir(t.Context(), ""); err != nil || len(l) != 0 {
		t.Error(l, err)
	}
	for _, name := range []string{"a", "a/b"} {
		if _, err := v.Lstat(t.Context(), name); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		if _, err := v.ReadDir(t.Context(), name); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		if _, err := v.Open(t.Context(), name); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
	if x, err := v.Xattrs(t.Context(), ""); err != nil || x != nil {
		t.Error(x, err)
	}
}

func TestViewOverSeesWhatComes(t *testing.T) {
	low, up := t.TempDir(), t.TempDir()
	os.MkdirAll(filepath.Join(low, "d/sub"), 0o755)
	os.WriteFile(filepath.Join(low, "d/f"), []byte("low"), 0o644)
	v, err := OpenViewOver(up, low)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	read := func(name string) string {
		f, err := v.Open(t.Context(), name)
		if err != nil {
			return "no"
		}
		defer f.Close()
		b, _ := io.ReadAll(f)
		return string(b)
	}
	steps := []struct {
		do   func() error
		want string
	}{
		{func() error { return nil }, "low"},
		{func() error { return os.Mkdir(filepath.Join(up, "d"), 0o700) }, "low"},
		{func() error { return os.WriteFile(filepath.Join(up, "d/f"), []byte("up"), 0o644) }, "up"},
		{func() error { return os.Remove(filepath.Join(up, "d/f")) }, "low"},
		{func() error { return unix.Lsetxattr(filepath.Join(up, "d"), layer.OpaqueXattr, []byte("y"), 0) }, "no"},
		{func() error { return os.Remove(filepath.Join(up, "d")) }, "low"},
		{func() error { return unix.Mknod(filepath.Join(up, "d"), unix.S_IFCHR, 0) }, "no"},
		{func() error {
			return errors.Join(os.Remove(filepath.Join(up, "d")), os.Symlink("x", filepath.Join(up, "d")))
		}, "no"},
	}
	for i, s := range steps {
		if err := s.do(); err != nil {
			t.Fatal(err)
		}
		if got := read("d/f"); got != s.want {
			t.Errorf("step %d: %q, want %q", i, got, s.want)
		}
	}
	if p, err := v.Real("d"); err != nil || p != filepath.Join(up, "d") {
		t.Errorf("Real(d) = %q, %v", p, err)
	}
}

func BenchmarkView(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	top := b.TempDir()
	var dirs []string
	for i := range 20 {
		d := filepath.Join(top, fmt.Sprint(i))
		for j := range 20 {
			p := filepath.Join(d, fmt.Sprint("usr/share/", r.IntN(50), "/", j))
			os.MkdirAll(p, 0o755)
			os.WriteFile(filepath.Join(p, "f"), nil, 0o644)
		}
		dirs = append(dirs, d)
	}
	b.Run("walk-20-layers", func(b *testing.B) {
		n := 0
		for b.Loop() {
			v, err := OpenView(dirs...)
			if err != nil {
				b.Fatal(err)
			}
			n = 0
			tree.Walk(b.Context(), v, "", func(string, tree.Entry) error { n++; return nil })
			v.Close()
		}
		b.ReportMetric(float64(n), "entries")
	})
	b.Run("lstat-20-layers", func(b *testing.B) {
		v, err := OpenView(dirs...)
		if err != nil {
			b.Fatal(err)
		}
		defer v.Close()
		for b.Loop() {
			v.Lstat(b.Context(), "usr/share/7/3/f")
		}
	})
}
