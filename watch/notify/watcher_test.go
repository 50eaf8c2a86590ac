package notify_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"kaniko-build/watch/notify"
)

// watched is a watcher of a temporary directory.
type watched struct {
	*testing.T
	*notify.Watcher
	dir   string
	notes chan string
}

func watch(t *testing.T, o notify.Options, enters func(dir string) bool, dirs ...string) *watched {
	t.Helper()
	w := &watched{T: t, dir: t.TempDir(), notes: make(chan string, 10)}
	w.dir, _ = notify.Resolve(w.dir)
	for _, d := range dirs {
		if err := os.MkdirAll(filepath.Join(w.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	o.Note = func(text string) { w.notes <- text }
	w.Watcher = notify.New(o)
	t.Cleanup(w.Close)
	if err := w.Watch(t.Context(), notify.Interest{Top: w.dir, Trees: []string{filepath.Join(w.dir, "tree")}, Enters: enters}); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *watched) write(name string) {
	w.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(name), 0o644); err != nil {
		w.Fatal(err)
	}
}

// told waits for a path, and returns all that was told up to then.
func (w *watched) told(name string) []string {
	w.Helper()
	var all []string
	for {
		select {
		case s := <-w.Sets():
			all = append(all, s.Paths()...)
			if s.All || slices.Contains(all, filepath.Join(w.dir, name)) {
				return all
			}
		case <-time.After(30 * time.Second):
			w.Fatalf("%s is never told; %q are", name, all)
		}
	}
}

func TestIgnoredDirectoriesAreNotWatched(t *testing.T) {
	w := watch(t, notify.Options{}, func(dir string) bool { return filepath.Base(dir) != "node_modules" }, "tree/src", "tree/node_modules/a/b")
	if got := w.State(); got.Dirs != 3 || got.Polling != "" { // the one that holds the tree, the tree, src
		t.Errorf("it watches %+v", got)
	}
	w.write("tree/node_modules/a/x")
	if err := os.MkdirAll(filepath.Join(w.dir, "tree/src/node_modules/c"), 0o755); err != nil {
		t.Fatal(err)
	}
	w.write("tree/src/node_modules/c/y")
	w.write("tree/src/f")
	for _, p := range w.told("tree/src/f") {
		if base := filepath.Base(p); base == "x" || base == "y" {
			t.Errorf("it tells of %s", p)
		}
	}
	if got := w.State().Dirs; got != 3 {
		t.Errorf("it watches %d directories", got)
	}
}

// TestFilesOfOthersAreCompared says of a directory that it is one of a network file
// system: the kernel tells of its files too, and must not be needed.
func TestFilesOfOthersAreCompared(t *testing.T) {
	w := watch(t, notify.Options{Interval: 20 * time.Millisecond, Network: func(dir string) string {
		if filepath.Base(dir) == "tree" {
			return "NFS"
		}
		return ""
	}}, nil, "tree/deep")
	if got := w.State(); got.Dirs != 1 || got.Polling != "of a network file system: NFS" {
		t.Errorf("it watches %+v", got)
	}
	w.write("tree/deep/f")
	w.told("tree/deep/f")
	if err := os.Remove(filepath.Join(w.dir, "tree/deep/f")); err != nil {
		t.Fatal(err)
	}
	w.told("tree/deep/f")
	if n := len(w.notes); n != 1 {
		t.Errorf("%d notes", n)
	}
}

func TestADirectoryThatMovesKeepsNoOldName(t *testing.T) {
	w := watch(t, notify.Options{}, nil, "tree/a/deep")
	if err := os.Rename(filepath.Join(w.dir, "tree/a"), filepath.Join(w.dir, "tree/b")); err != nil {
		t.Fatal(err)
	}
	w.told("tree/b")
	w.write("tree/b/deep/f")
	for _, p := range w.told("tree/b/deep/f") {
		if p == filepath.Join(w.dir, "tree/a/deep/f") {
			t.Errorf("it tells of %s", p)
		}
	}
	if got := w.State().Dirs; got != 4 {
		t.Errorf("it watches %d directories", got)
	}
}

func TestResolve(t *testing.T) {
	dir, _ := notify.Resolve(t.TempDir())
	for name, target := range map[string]string{"link": "real", "abs": filepath.Join(dir, "real/in"), "loop": "loop", "real/up": "../link"} {
		if err := os.MkdirAll(filepath.Join(dir, "real/in"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		path, real string
		links      []string
	}{
		{"real/in", "real/in", nil},
		{"link/in/none/x", "real/in/none/x", []string{"link"}},
		{"abs", "real/in", []string{"abs"}},
		{"link/up/in", "real/in", []string{"link", "real/up", "link"}},
	} {
		real, links := notify.Resolve(filepath.Join(dir, c.path))
		var want []string
		for _, l := range c.links {
			want = append(want, filepath.Join(dir, l))
		}
		if real != filepath.Join(dir, c.real) || !slices.Equal(links, want) {
			t.Errorf("%s: got %s by %q", c.path, real, links)
		}
	}
	if _, links := notify.Resolve(filepath.Join(dir, "loop")); len(links) > 40 {
		t.Errorf("a loop is followed %d times", len(links))
	}
}

func TestASetIsBounded(t *testing.T) {
	var s notify.Set
	for i := range 100_001 {
		s.Add(filepath.Join("/", string(rune('a'+i%26)), time.Duration(i).String()), false)
	}
	if !s.All || s.Len() != 0 {
		t.Errorf("all %v, %d paths", s.All, s.Len())
	}
}
