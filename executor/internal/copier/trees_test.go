package copier_test

import (
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/tree"
)

// A tree in a test is a list of lines, parents first:
//
//	d PATH MODE UID:GID          directory
//	f PATH MODE UID:GID CONTENT  file
//	l PATH TARGET                symbolic link
//	h PATH OTHER                 hard link
//	p PATH MODE                  fifo
//	s PATH MODE                  socket
//	c PATH MODE MAJOR:MINOR      character device (b: block device)
//	x PATH KEY=VALUE             extended attribute
//
// Everything gets the time old.
var old = time.Unix(1_200_000_000, 123_456_789)

func grow(t testing.TB, dir string, lines []string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	mode := func(s string) uint32 {
		n, err := strconv.ParseUint(s, 8, 32)
		must(err)
		return uint32(n)
	}
	var made []string
	for _, line := range lines {
		w := strings.SplitN(line, " ", 5)
		p := filepath.Join(dir, w[1])
		own := func(s string) {
			u, g, _ := strings.Cut(s, ":")
			uid, err := strconv.Atoi(u)
			must(err)
			gid, err := strconv.Atoi(g)
			must(err)
			must(os.Lchown(p, uid, gid))
		}
		switch w[0] {
		case "d":
			if err := os.Mkdir(p, 0o700); err != nil && !os.IsExist(err) {
				t.Fatal(err)
			}
			own(w[3])
			must(unix.Chmod(p, mode(w[2])))
		case "f":
			must(os.WriteFile(p, []byte(w[4]), 0o600))
			own(w[3])
			must(unix.Chmod(p, mode(w[2])))
		case "l":
			must(os.Symlink(w[2], p))
		case "h":
			must(os.Link(filepath.Join(dir, w[2]), p))
		case "p":
			must(unix.Mkfifo(p, 0o600))
			must(unix.Chmod(p, mode(w[2])))
		case "s":
			must(unix.Mknod(p, unix.S_IFSOCK|0o600, 0))
			must(unix.Chmod(p, mode(w[2])))
		case "c", "b":
			var major, minor uint32
			_, err := fmt.Sscanf(w[3], "%d:%d", &major, &minor)
			must(err)
			typ := uint32(unix.S_IFCHR)
			if w[0] == "b" {
				typ = unix.S_IFBLK
			}
			must(unix.Mknod(p, typ|0o600, int(unix.Mkdev(major, minor))))
			must(unix.Chmod(p, mode(w[2])))
		case "x":
			k, v, _ := strings.Cut(w[2], "=")
			must(unix.Lsetxattr(p, k, []byte(v), 0))
		default:
			t.Fatalf("line %q", line)
		}
		made = append(made, p)
	}
	ts := []unix.Timespec{{Sec: old.Unix(), Nsec: int64(old.Nanosecond())}, {Sec: old.Unix(), Nsec: int64(old.Nanosecond())}}
	for _, p := range append(made, dir) {
		must(unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW))
	}
}

// look describes one path of a tree as a line of a test has it, with "old" or
// "now" for its time: "f 0644 1:2 old CONTENT".
func look(t testing.TB, tr tree.Tree, name string) string {
	t.Helper()
	e, err := tr.Lstat(t.Context(), name)
	if err != nil {
		return "absent"
	}
	when := "other"
	switch d := time.Since(e.ModTime); {
	case e.ModTime.Equal(old):
		when = "old"
	case d < time.Hour && d > -time.Hour:
		when = "now"
	}
	head := fmt.Sprintf("%04o %d:%d %s", e.Perm(), e.UID, e.GID, when)
	switch e.Type() {
	case unix.S_IFDIR:
		return "d " + head
	case unix.S_IFREG:
		r, err := tr.Open(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return "f " + head + " " + string(b)
	case unix.S_IFLNK:
		return fmt.Sprintf("l %d:%d %s %s", e.UID, e.GID, when, e.Link)
	case unix.S_IFIFO:
		return "p " + head
	case unix.S_IFCHR:
		return fmt.Sprintf("c %s %d:%d", head, unix.Major(e.Rdev), unix.Minor(e.Rdev))
	}
	return fmt.Sprintf("type %o %s", e.Type(), head)
}

// names lists all paths of a tree.
func names(t testing.TB, tr tree.Tree) []string {
	t.Helper()
	var out []string
	err := tree.Walk(t.Context(), tr, "", func(name string, e tree.Entry) error {
		if name != "" {
			out = append(out, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// parts splits "path = rest".
func parts(line string) (name, rest string) {
	name, rest, _ = strings.Cut(line, " = ")
	return path.Clean(name), rest
}
