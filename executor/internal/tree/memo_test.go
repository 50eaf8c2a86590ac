package tree_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"kaniko-build/executor/internal/tree"
)

// counting is a tree that says how often it was asked.
type counting struct {
	tree.Tree
	lists, stats atomic.Int64
}

func (c *counting) ReadDir(ctx context.Context, name string) ([]tree.Entry, error) {
	c.lists.Add(1)
	return c.Tree.ReadDir(ctx, name)
}

func (c *counting) Lstat(ctx context.Context, name string) (tree.Entry, error) {
	c.stats.Add(1)
	return c.Tree.Lstat(ctx, name)
}

func TestMemoAsksOnceAndStaysWithTheAnswer(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []string{"d/a", "d/b"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(n)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, n), []byte(n), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d, err := tree.OpenDir(dir, tree.DirOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	c := &counting{Tree: d}
	m := tree.Remember(c)
	ctx := t.Context()
	first, err := m.Lstat(ctx, "d/a")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "d/a"), []byte("longer than before"), 0o644); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			list, err := m.ReadDir(ctx, "/d/")
			if err != nil || len(list) != 2 || list[0].Name != "a" || list[0].Size != first.Size {
				t.Errorf("got %v, %v, want a as it was seen first, and b", list, err)
			}
		})
	}
	wg.Wait()
	if err := os.WriteFile(filepath.Join(dir, "d/c"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Lstat(ctx, "d/c"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that came after its directory was listed: got %v", err)
	}
	if e, ok := m.Known("d/b"); !ok || e.Size != 3 {
		t.Errorf("known d/b: got %v %v", e, ok)
	}
	if _, ok := m.Known("other"); ok {
		t.Error("known before it was asked for")
	}
	if l, s := c.lists.Load(), c.stats.Load(); l != 1 || s != 1 {
		t.Errorf("asked for %d lists and %d files, want 1 and 1", l, s)
	}
	for range 2 { // a failure is asked for again
		if _, err := m.ReadDir(ctx, "none"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	}
	if l := c.lists.Load(); l != 3 {
		t.Errorf("%d lists, want 3", l)
	}
}
