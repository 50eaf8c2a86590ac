package layer_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/layer"
	"kaniko-build/executor/internal/tree"
)

func lstat(t *testing.T, dir *tree.Dir, name string) *tree.Entry {
	t.Helper()
	e, err := dir.Lstat(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return &e
}

// What was found in another way makes the same layer as an upper does.
func TestPackChangesWritesParentsLinksAndWhiteouts(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{"a/b", "c"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "a/b/f"), []byte("text"), 0o640); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"a/same", "c/link"} {
		if err := os.Link(filepath.Join(root, "a/b/f"), filepath.Join(root, n)); err != nil {
			t.Fatal(err)
		}
	}
	d := openTree(t, root)
	changes := []layer.Change{
		{Name: "a/b", Entry: lstat(t, d, "a/b")},
		{Name: "a/b/f", Entry: lstat(t, d, "a/b/f")},
		{Name: "a/b/gone"},
		{Name: "a/same", Entry: lstat(t, d, "a/same"), Same: true},
		{Name: "c/link", Entry: lstat(t, d, "c/link")},
	}
	var b bytes.Buffer
	if _, err := layer.PackChanges(t.Context(), &b, root, slices.Values(changes), layer.PackOptions{}); err != nil {
		t.Fatal(err)
	}
	got := entries(t, &b)
	want := []string{"5 a/ 755 0:0", "5 a/b/ 755 0:0", "0 a/b/f 640 0:0", "0 a/b/.wh.gone 0 0:0", "1 a/same 640 0:0 -> a/b/f", "5 c/ 755 0:0", "1 c/link 640 0:0 -> a/b/f"}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestContentsComparesWhatTimesCannot(t *testing.T) {
	c := layer.NewContents()
	root, _ := unpack(t, layer.UnpackOptions{Contents: c}, file("f", "one"), file("g", "one"))
	d := openTree(t, root)
	for _, x := range []struct {
		text string
		time time.Time
		want bool
	}{
		{"one", time.Unix(5, 0), true},
		{"two", time.Unix(5, 0), false},
		{"two", time.Unix(5, 1), true}, // exact times are believed, as by BuildKit
	} {
		old := *lstat(t, d, "f")
		if err := os.WriteFile(filepath.Join(root, "f"), []byte(x.text), 0); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(root, "f"), x.time, x.time); err != nil {
			t.Fatal(err)
		}
		got, err := c.Equal(t.Context(), d, "f", old, *lstat(t, d, "f"))
		if err != nil || got != x.want {
			t.Errorf("%s at %v: %v, %v", x.text, x.time, got, err)
		}
	}
	old := *lstat(t, d, "g")
	if err := unix.Lsetxattr(filepath.Join(root, "g"), "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0); err != nil {
		t.Fatal(err)
	}
	if same, err := c.Equal(context.Background(), d, "g", old, *lstat(t, d, "g")); err != nil || same {
		t.Errorf("a capability: %v, %v", same, err)
	}
}

// A container's own root takes no device 0:0: removed names have another mark there.
func TestAnEmptyFileCanBeAWhiteout(t *testing.T) {
	root := t.TempDir()
	for name, set := range map[string]bool{"gone": true, "closed": false} {
		p := filepath.Join(root, name)
		if err := os.WriteFile(p, nil, 0); err != nil {
			t.Fatal(err)
		}
		if set {
			if err := unix.Lsetxattr(p, layer.WhiteoutXattr, []byte("y"), 0); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := layer.Whiteout(p, *lstat(t, openTree(t, root), name)); err != nil || got != set {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}
