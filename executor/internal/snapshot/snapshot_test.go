package snapshot_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/snapshot"
)

// long ago, so that no file is young.
var past = time.Unix(1_600_000_000, 0)

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(name, past, past); err != nil {
		t.Fatal(err)
	}
}

func take(t *testing.T, dir string, skip snapshot.Skip) *snapshot.Snapshot {
	t.Helper()
	s, err := snapshot.Take(t.Context(), dir, skip)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// changes lists what Diff tells: + new, - gone, * other, = same; and which
// files it asks about with ?.
func changes(t *testing.T, a, b *snapshot.Snapshot, mode snapshot.Mode, equal bool) []string {
	t.Helper()
	var out []string
	ask := func(name string, old, now *snapshot.File) (bool, error) {
		if !equal {
			out = append(out, "?"+name)
		}
		return equal, nil
	}
	err := snapshot.Diff(a, b, mode, ask, func(c snapshot.Change) error {
		mark := "*"
		switch {
		case c.New == nil:
			mark = "-"
		case c.Old == nil:
			mark = "+"
		case c.Same:
			mark = "="
		}
		out = append(out, mark+c.Name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDiffTellsWhatACommandDid(t *testing.T) {
	for name, c := range map[string]struct {
		change func(dir string) error
		want   string
	}{
		"nothing":          {func(d string) error { return nil }, ""},
		"a new tree":       {func(d string) error { return os.MkdirAll(d+"/b/x/y", 0o755) }, "+b/x +b/x/y"},
		"a file goes":      {func(d string) error { return os.Remove(d + "/a/1") }, "-a/1"},
		"a tree goes":      {func(d string) error { return os.RemoveAll(d + "/a") }, "-a"},
		"a mode":           {func(d string) error { return os.Chmod(d+"/a/1", 0o600) }, "*a/1"},
		"a directory mode": {func(d string) error { return os.Chmod(d+"/a", 0o700) }, "*a"},
		"an owner":         {func(d string) error { return os.Lchown(d+"/link", 3, 4) }, "*link"},
		"a link":           {func(d string) error { return os.Link(d+"/a/1", d+"/b/l") }, "+b/l"},
		"a file becomes a directory": {func(d string) error {
			if err := os.Remove(d + "/a/1"); err != nil {
				return err
			}
			return os.MkdirAll(d+"/a/1/x", 0o755)
		}, "*a/1 +a/1/x"},
		"a directory is renamed": {func(d string) error { return os.Rename(d+"/a", d+"/c") }, "-a +c +c/1 +c/2"},
		"a time of a directory":  {func(d string) error { return os.Chtimes(d+"/a", past, past) }, ""},
		"a link elsewhere": {func(d string) error {
			var st unix.Stat_t
			if err := unix.Lstat(d+"/link", &st); err != nil {
				return err
			}
			if err := os.Remove(d + "/link"); err != nil {
				return err
			}
			if err := os.Symlink("a/2", d+"/link"); err != nil {
				return err
			}
			return unix.UtimesNanoAt(unix.AT_FDCWD, d+"/link", []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
		}, "*link"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir+"/a/1", "one")
			write(t, dir+"/a/2", "two")
			write(t, dir+"/b/3", "three")
			if err := os.Symlink("a/1", dir+"/link"); err != nil {
				t.Fatal(err)
			}
			before := take(t, dir, nil)
			if err := c.change(dir); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(changes(t, before, take(t, dir, nil), snapshot.Full, true), " "); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// A file that was written twice in one tick of the clock has the same times
// both times; only its content can tell.
func TestYoungAndTouchedFilesAreCompared(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/f", "one")
	before := take(t, dir, nil)
	if got := changes(t, before, take(t, dir, nil), snapshot.Full, false); !slices.Equal(got, []string{"?f", "*f"}) {
		t.Errorf("a young file: %v", got)
	}
	for { // until the file is no longer young
		if before = take(t, dir, nil); len(changes(t, before, before, snapshot.Full, false)) == 0 {
			break
		}
	}
	if err := os.WriteFile(dir+"/f", []byte("two"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(dir+"/f", past, past); err != nil {
		t.Fatal(err)
	}
	now := take(t, dir, nil)
	if got := changes(t, before, now, snapshot.Full, false); !slices.Equal(got, []string{"?f", "*f"}) {
		t.Errorf("a file whose time was set back: %v", got)
	}
	for _, mode := range []snapshot.Mode{snapshot.Redo, snapshot.Late} {
		if got := changes(t, before, now, mode, false); len(got) > 0 {
			t.Errorf("mode %s looks at more than it should: %v", mode, got)
		}
	}
}

func TestLinkedFilesOfARenewedDirectoryAreMentioned(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/d/1", "one")
	write(t, dir+"/e/x", "x")
	if err := os.Link(dir+"/d/1", dir+"/d/2"); err != nil {
		t.Fatal(err)
	}
	before := take(t, dir, nil)
	if err := os.Rename(dir+"/d", dir+"/old"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir+"/d", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"1", "2"} {
		if err := os.Rename(dir+"/old/"+n, dir+"/d/"+n); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(dir + "/old"); err != nil {
		t.Fatal(err)
	}
	if got := changes(t, before, take(t, dir, nil), snapshot.Full, true); !slices.Equal(got, []string{"=d/1", "=d/2"}) {
		t.Errorf("got %v", got)
	}
}

func TestSkip(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/etc/hosts", "")
	write(t, dir+"/etc/deep/kept", "")
	write(t, dir+"/proc/1", "")
	write(t, dir+"/usr/f", "")
	skip := func(name string) snapshot.Verdict {
		switch name {
		case "etc/hosts", "etc/deep/kept", "proc":
			return snapshot.Ignore
		case "etc", "etc/deep", "usr":
			return snapshot.Hollow
		}
		return snapshot.Look
	}
	s := take(t, dir, skip)
	for name, want := range map[string]bool{"etc": false, "proc": false, "usr": true, "usr/f": true} {
		if got := s.Find(name) != nil; got != want {
			t.Errorf("%s: found is %v, want %v", name, got, want)
		}
	}
	write(t, dir+"/etc/mine", "")
	if got := changes(t, s, take(t, dir, skip), snapshot.Full, true); !slices.Equal(got, []string{"+etc", "+etc/mine"}) {
		t.Errorf("got %v", got)
	}
}

func BenchmarkTake(b *testing.B) {
	dir := b.TempDir()
	const dirs, files = 1000, 100
	for i := range dirs {
		d := fmt.Sprintf("%s/%d/%d", dir, i%30, i)
		if err := os.MkdirAll(d, 0o755); err != nil {
			b.Fatal(err)
		}
		for k := range files {
			if err := os.WriteFile(fmt.Sprintf("%s/%d", d, k), nil, 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
	for b.Loop() {
		if _, err := snapshot.Take(b.Context(), dir, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(dirs*files, "files")
}
