package buildctx

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/tree"
)

// counting is a tree that counts what is opened.
type counting struct {
	tree.Tree
	opened int
}

func (c *counting) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	c.opened++
	return c.Tree.Open(ctx, name)
}

func TestHasherRemembers(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "sub", "sums")
	p := filepath.Join(dir, "f")
	set := func(text string) {
		t.Helper()
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(p, time.Unix(0, 0), time.Unix(0, 0)); err != nil {
			t.Fatal(err)
		}
	}
	d, err := tree.OpenDir(dir, tree.DirOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	src := &counting{Tree: d}
	ask := func(young time.Duration) string {
		t.Helper()
		h, err := OpenHasher(file)
		if err != nil {
			t.Fatal(err)
		}
		h.young = young
		e, err := d.Lstat(t.Context(), "f")
		if err != nil {
			t.Fatal(err)
		}
		sum, err := h.Hash(t.Context(), src, "f", e)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Save(); err != nil {
			t.Fatal(err)
		}
		return sum
	}
	opened := func(want int, what string) {
		t.Helper()
		if src.opened != want {
			t.Errorf("%s: opened %d times, want %d", what, src.opened, want)
		}
		src.opened = 0
	}
	set("1")
	ask(time.Hour)
	ask(time.Hour)
	opened(2, "a young file is read each time")
	one := ask(-time.Hour)
	if again := ask(-time.Hour); again != one {
		t.Errorf("sums %s and %s of one file", one, again)
	}
	opened(1, "an old file is read once")
	set("2") // same size, same mtime
	two := ask(-time.Hour)
	if two == one {
		t.Error("other content of the same size and time has the same sum")
	}
	opened(1, "a changed file is read")
	if err := os.Rename(p, p+"x"); err != nil {
		t.Fatal(err)
	}
	set("1")
	if ask(-time.Hour) != one {
		t.Error("the same content in another file has another sum")
	}
	opened(1, "a new file is read")
	if err := unix.Lsetxattr(p, "user.note", []byte("v"), 0); err == nil {
		if ask(-time.Hour) == one {
			t.Error("an attribute does not change the sum")
		}
		opened(1, "a file with a new attribute is read")
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, damage := range [][]byte{nil, b[:len(b)/2], append([]byte("x"), b...), append(b[:len(b)-1:len(b)-1], b[len(b)-1]^1)} {
		if err := os.WriteFile(file, damage, 0o644); err != nil {
			t.Fatal(err)
		}
		ask(-time.Hour)
		opened(1, "with a damaged file of sums")
	}
}

func TestHasherOfNoFile(t *testing.T) {
	h, err := OpenHasher(filepath.Join(t.TempDir(), "none"))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Save(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(h.file); !os.IsNotExist(err) {
		t.Errorf("nothing to remember made a file: %v", err)
	}
}
