package tree_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/tree"
)

func open(t *testing.T, root string, o tree.DirOptions) *tree.Dir {
	t.Helper()
	d, err := tree.OpenDir(root, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func link(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

func TestDirNeverLeavesItsRoot(t *testing.T) {
	ctx, top := t.Context(), t.TempDir()
	root := filepath.Join(top, "root")
	os.MkdirAll(filepath.Join(root, "real"), 0o755)
	os.WriteFile(filepath.Join(top, "secret"), []byte("x"), 0o644)
	os.WriteFile(filepath.Join(root, "real", "f"), []byte("hi"), 0o644)
	link(t, "../secret", filepath.Join(root, "out"))
	link(t, "/real", filepath.Join(root, "alias"))
	link(t, "..", filepath.Join(root, "up"))
	d := open(t, root, tree.DirOptions{})
	for _, name := range []string{"out", "up/secret", "alias/f"} {
		if r, err := d.Open(ctx, name); err == nil {
			r.Close()
			t.Errorf("Open(%q) followed a link", name)
		}
	}
	if _, err := d.Lstat(ctx, "../secret"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Lstat(../secret) = %v, want not found below the root", err)
	}
	for name, want := range map[string]string{"alias/f": "real/f", "up/alias/../real/f": "real/f", "alias/none/x": "real/none/x", "out": "secret", "alias": "real"} {
		if got, err := tree.Resolve(ctx, d, name); err != nil || got != want {
			t.Errorf("Resolve(%q) = %q, %v, want %q", name, got, err, want)
		}
	}
	if got, _ := tree.ResolveParent(ctx, d, "alias/../alias"); got != "alias" {
		t.Errorf("ResolveParent keeps the last link: got %q", got)
	}
	link(t, "loop", filepath.Join(root, "loop"))
	if _, err := tree.Resolve(ctx, d, "loop/x"); !errors.Is(err, tree.ErrLoop) {
		t.Errorf("Resolve(loop) = %v, want ErrLoop", err)
	}
}

func TestDirReadsWithoutBlocking(t *testing.T) {
	ctx, root := t.Context(), t.TempDir()
	if err := unix.Mkfifo(filepath.Join(root, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := open(t, root, tree.DirOptions{})
	if _, err := d.Open(ctx, "pipe"); err == nil {
		t.Error("a fifo was opened")
	}
	e, err := d.Lstat(ctx, "pipe")
	if err != nil || e.Type() != unix.S_IFIFO {
		t.Errorf("Lstat(pipe) = %o, %v", e.Mode, err)
	}
}

func TestDirAppliesOverrides(t *testing.T) {
	ctx, root := t.Context(), t.TempDir()
	p := filepath.Join(root, "null")
	os.WriteFile(p, nil, 0o600)
	if err := unix.Lsetxattr(p, tree.OverrideXattr, tree.FormatOverride(unix.S_IFCHR|0o666, 3, 4, unix.Mkdev(1, 3)), 0); err != nil {
		t.Skipf("needs user extended attributes on %s: %v", root, err)
	}
	unix.Lsetxattr(p, "user.note", []byte("v"), 0)
	for _, on := range []bool{true, false} {
		d := open(t, root, tree.DirOptions{Overrides: on})
		list, err := d.ReadDir(ctx, "")
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		one, err := d.Lstat(ctx, "null")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range []tree.Entry{list[0], one} {
			if got := e.Type() == unix.S_IFCHR && e.UID == 3 && e.GID == 4 && e.Rdev == unix.Mkdev(1, 3); got != on {
				t.Errorf("overrides %v: entry %+v", on, e)
			}
		}
		x, err := d.Xattrs(ctx, "null")
		if err != nil || len(x) != 1 || string(x["user.note"]) != "v" {
			t.Errorf("Xattrs = %v, %v, want the user's own alone", x, err)
		}
	}
}

func TestWalkSkipsAndSorts(t *testing.T) {
	root := t.TempDir()
	for _, f := range []string{"b/1", "a/2", "a/1", "c"} {
		os.MkdirAll(filepath.Dir(filepath.Join(root, f)), 0o755)
		os.WriteFile(filepath.Join(root, f), nil, 0o644)
	}
	var got []string
	err := tree.Walk(context.Background(), open(t, root, tree.DirOptions{}), "", func(name string, e tree.Entry) error {
		got = append(got, name)
		if name == "b" {
			return fs.SkipDir
		}
		return nil
	})
	if want := []string{"", "a", "a/1", "a/2", "b", "c"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("Walk = %q, %v, want %q", got, err, want)
	}
	d := open(t, root, tree.DirOptions{Owner: &[2]uint32{7, 8}})
	if e, _ := d.Lstat(t.Context(), "c"); e.UID != 7 || e.GID != 8 || e.Name != "c" {
		t.Errorf("forced owner: %+v", e)
	}
	r, err := d.Open(t.Context(), "a/1")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); err != nil || len(b) != 0 {
		t.Errorf("%q %v", b, err)
	}
}

func TestOverrideCountsWhereOnlyRootCouldHaveMadeIt(t *testing.T) {
	const reg, dir = unix.S_IFREG, unix.S_IFDIR
	for _, c := range []struct {
		mode, uid, gid uint32
		record, want   string
	}{
		{reg | 0o600, 0, 0, "20666 3 4 259", "20666 3:4 259"},
		{reg | 0o600, 0, 0, "60660 0 6 2049", "60660 0:6 2049"},
		{reg | 0o640, 0, 9, "20666 3 4 259", "20666 0:9 259"},
		{reg | 0o600, 5, 0, "20666 0 0 259", "100600 5:0 0"},             // its owner made it up
		{reg | 0o666, 0, 0, "20666 0 0 259", "100666 0:0 0"},             // anybody could have
		{reg | 0o620, 0, 0, "60666 0 0 2049", "100620 0:0 0"},            // or a group
		{reg | 0o600, 0, 0, "20666 0 0 0", "100600 0:0 0"},               // overlay's mark of a removed file
		{reg | 0o600, 0, 0, "20666 7 7 0", "100600 0:0 0"},               // the same
		{reg | 0o600, 0, 0, "60666 0 0 0", "60666 0:0 0"},                // not so as a block device
		{dir | 0o700, 0, 0, "20666 0 0 259", "40700 0:0 0"},              // a directory stands for nothing else
		{reg | 0o600, 0, 0, "120777 0 0 0", "100600 0:0 0"},              // nor a file for a link
		{reg | 0o600, 0, 0, "40755 0 0 0", "100600 0:0 0"},               // nor for a directory
		{reg | 0o4755, 1000, 1000, "104755 0 0 0", "104755 1000:1000 0"}, // would be root's setuid program
		{reg | 0o755, 0, 0, "104755 1000 1001 0", "100755 1000:1001 0"},
		{dir | 0o755, 0, 0, "40700 70000 70000 0", "40755 70000:70000 0"},
		{reg | 0o600, 0, 0, "", "100600 0:0 0"},
		{reg | 0o600, 0, 0, "rubbish", "100600 0:0 0"},
		{reg | 0o600, 0, 0, "20666 0 0", "100600 0:0 0"},
		{reg | 0o600, 0, 0, "20666 -1 0 259", "100600 0:0 0"},
		{reg | 0o600, 0, 0, "20666 0 0 99999999999999999999", "100600 0:0 0"},
		{reg | 0o600, 0, 0, "37777777777 0 0 259", "100600 0:0 0"},
	} {
		e := tree.Entry{Mode: c.mode, UID: c.uid, GID: c.gid}.Override([]byte(c.record))
		if got := fmt.Sprintf("%o %d:%d %d", e.Mode, e.UID, e.GID, e.Rdev); got != c.want {
			t.Errorf("record %q of %o %d:%d: got %s, want %s", c.record, c.mode, c.uid, c.gid, got, c.want)
		}
	}
}

// TestReadFile has what was a regular file when it was looked at, and may be anything now:
// nothing is waited for, and no link is followed.
func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("file", "content")
	write("outside", "secret")
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "root"), 0o755), unix.Mkfifo(filepath.Join(dir, "root/fifo"), 0o600),
		os.Symlink("../outside", filepath.Join(dir, "root/link")), os.Symlink("..", filepath.Join(dir, "root/up"))); err != nil {
		t.Fatal(err)
	}
	write("root/file", "content")
	d, err := tree.OpenDir(filepath.Join(dir, "root"), tree.DirOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, c := range []struct {
		name string
		room int
		want string
		err  error // nil: any, if want is ""
	}{
		{"file", 7, "content", nil},
		{"file", 9, "content", nil},
		{"file", 4, "cont", tree.ErrLarger},
		{"gone", 4, "", fs.ErrNotExist},
		{"fifo", 4, "", nil},
		{"link", 4, "", nil},
		{"up/outside", 4, "", nil},
		{"../outside", 4, "", nil},
		{".", 4, "", nil},
	} {
		b := make([]byte, c.room)
		n, st, err := d.ReadFileStat(c.name, b)
		switch {
		case string(b[:n]) != c.want, c.err != nil && !errors.Is(err, c.err), c.err == nil && (err == nil) != (c.want != ""):
			t.Errorf("%s: %q, %v", c.name, b[:n], err)
		case err == nil && st.Size != 7:
			t.Errorf("%s has %d bytes", c.name, st.Size)
		}
	}
}

// TestReadFileOfALease reads a file that somebody has to himself: as soon as he has been
// told, and gives it back.
func TestReadFileOfALease(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("hi"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "f"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, told := f.Fd(), make(chan os.Signal, 1)
	signal.Notify(told, unix.SIGIO)
	defer signal.Stop(told)
	_, err = unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_WRLCK)
	_, err2 := unix.FcntlInt(fd, unix.F_SETOWN, os.Getpid()) // not the thread, which may end
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	d := open(t, dir, tree.DirOptions{})
	given, read := make(chan error, 1), make(chan struct{})
	go func() {
		select {
		case <-told:
			_, err := unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_UNLCK)
			given <- err
		case <-read:
			given <- errors.New("it was read before the lease was given back")
		}
	}()
	b := make([]byte, 9)
	n, err := d.ReadFile(t.Context(), "f", b)
	close(read)
	if err != nil || string(b[:n]) != "hi" {
		t.Errorf("got %q, %v", b[:n], err)
	}
	if err := <-given; err != nil {
		t.Error(err)
	}
}

// TestDirOfItsRoot changes and reads what has no parent below the root.
func TestDirOfItsRoot(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Setxattr(dir, "user.word", []byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	d := open(t, dir, tree.DirOptions{})
	when := time.Unix(1_000_000, 5)
	for _, name := range []string{"", "/", "."} {
		if err := d.SetTime(name, when); err != nil {
			t.Errorf("SetTime(%q): %v", name, err)
		}
		if e, err := d.Lstat(t.Context(), name); err != nil || !e.ModTime.Equal(when) {
			t.Errorf("Lstat(%q) = %v, %v, want %v", name, e.ModTime, err, when)
		}
		if x, err := d.Xattrs(t.Context(), name); err != nil || string(x["user.word"]) != "x" {
			t.Errorf("Xattrs(%q) = %q, %v", name, x, err)
		}
		when = when.Add(time.Second)
	}
}
