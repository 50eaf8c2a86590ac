package fuzz

import (
	"archive/tar"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kaniko-build/test/rig"
)

// Node is what a context has beside plain files. Nodes are made in their order.
type Node struct {
	Path string
	Kind string // one of the cases of make
	Arg  string
	N    int64
	Tar  []Member // of an archive
}

// Member is an entry of an archive.
type Member struct {
	Header tar.Header
	Body   string
}

// context draws the files of the context and of the named one.
func (m *wide) context(c *Case) {
	for name, text := range contexts {
		c.Files[name] = text
	}
	for _, name := range []string{"hard1", "star*x", "unïcode", "uni\u0065\u0301", "tree/two/f", "tree/two/g"} {
		if m.chance(60) {
			c.Files[name] = name + "\n"
		}
	}
	for range m.IntN(3) {
		c.Files[fmt.Sprintf("dir/n%d", m.IntN(4))] = fmt.Sprintf("%d\n", m.IntN(3))
	}
	if m.chance(10) {
		c.Files["many/"+strings.Repeat("long-name-", 15)+"/"+strings.Repeat("long-name-", 12)] = "long\n"
	}
	c.Files["tree/one/f"], c.Files["trigger.txt"] = "one\n", "for nasty-onbuild\n"
	c.Nodes = []Node{{Path: "lnk", Kind: "symlink", Arg: "dir"}}
	for _, n := range []Node{
		{Path: "abs", Kind: "symlink", Arg: "/etc/passwd"}, {Path: "dangling", Kind: "symlink", Arg: "nowhere"}, {Path: "special/loop", Kind: "symlink", Arg: "loop"},
		{Path: "dir/link", Kind: "symlink", Arg: "../f"}, {Path: "dir/up", Kind: "symlink", Arg: "../../../nested"}, {Path: "special/sym", Kind: "symlink", Arg: "../lnk/sub"},
		{Path: "hard2", Kind: "link", Arg: "f"}, {Path: "dir/hard3", Kind: "link", Arg: "f"}, {Path: "special/pipe", Kind: "fifo"}, {Path: "special/sock", Kind: "socket"}, {Path: "pipe", Kind: "fifo"},
		{Path: "special/null", Kind: "device"}, {Path: "special/sparse", Kind: "sparse", N: 3 << 20}, {Path: "special/colour", Kind: "xattr", Arg: "user.colour"}, {Path: "special/cap", Kind: "capability"},
		{Path: "f", Kind: "mode", N: 0o4751}, {Path: "g", Kind: "mode", N: 0o600}, {Path: "dir/sub", Kind: "mode", N: 0o2770}, {Path: "dir", Kind: "mode", N: 0o1777}, {Path: "nested/deep", Kind: "mode", N: 0o500}, {Path: "dir/empty", Kind: "mode", N: 0},
		{Path: "g", Kind: "time", N: -12345}, {Path: "dir/x.txt", Kind: "time", N: 0}, {Path: "dir/sub", Kind: "time", N: 1234567890}, {Path: "lnk", Kind: "time", N: 1000}, {Path: "run.sh", Kind: "time", N: 4102444800}, {Path: "f", Kind: "owner", N: 1000}, {Path: "nested", Kind: "owner", N: 7},
		{Path: "tree/one", Kind: "time", N: 5},
	} {
		if m.chance(25) {
			c.Nodes = append(c.Nodes, n)
		}
	}
	for _, a := range []string{"plain.tar", "packed.tar.gz", "packed.tar.bz2", "packed.tar.xz", "packed.tar.zst", "joined.tgz"} {
		if m.chance(20) || strings.Contains(m.b.String(), a) {
			c.Nodes = append(c.Nodes, Node{Path: a, Kind: "archive", Arg: strings.TrimPrefix(filepath.Ext(a), "."), Tar: m.members()})
		}
	}
	if m.chance(30) {
		c.Nodes = append(c.Nodes, Node{Path: "arc1.tar", Kind: "archive", Arg: "tar", Tar: m.members()}, Node{Path: "arc2.tar", Kind: "archive", Arg: "tar", Tar: m.members()})
	}
	c.Nodes = append(c.Nodes, Node{Path: "empty.tar", Kind: "archive", Arg: "tar"}, Node{Path: "cut.tar", Kind: "archive", Arg: "cut", Tar: m.members()},
		Node{Path: "tar-no-name", Kind: "archive", Arg: "tar", Tar: m.members()}, Node{Path: "f.gz", Kind: "archive", Arg: "text"})
	c.Files["no.tar.gz"] = "no archive\n"
	if m.chance(35) {
		var b strings.Builder
		for range 1 + m.IntN(4) {
			b.WriteString(m.pick(ignores) + "\n")
		}
		c.Files[m.pick([]string{".dockerignore", ".dockerignore", ".dockerignore", "Dockerfile.dockerignore"})] = b.String()
	}
	for name, text := range map[string]string{"o": "other\n", "sub/p": "p\n", "sub/q/r": "r\n", "h.txt": "h\n"} {
		c.Other[name] = text
	}
	if m.chance(20) {
		c.Other[".dockerignore"] = m.pick([]string{"o\n", "sub/q\n", "*\n!sub/p\n"})
	}
}

// members draws the entries of an archive, odd ones among them.
func (m *wide) members() []Member {
	var out []Member
	names := []string{"t/", "t/file", "t/sub/", "t/sub/deep", "x", "./dot", "../up", "/abs", "link", "t/link", "a/b", "a/", "orphan/dir/f", "data", "etc/passwd", "in", "b", strings.Repeat("n", 120), "t/./twice", "sp ace"}
	for range 1 + m.IntN(7) {
		name := m.pick(names)
		h := tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: []int64{0o644, 0o755, 0o4755, 0o600, 0o2711}[m.IntN(5)], Uid: []int{0, 0, 5, 1000, 65000}[m.IntN(5)], Gid: []int{0, 0, 6, 1000}[m.IntN(4)],
			ModTime: time.Unix([]int64{1500000000, 0, -5, 1600000001}[m.IntN(4)], int64(m.IntN(2))*123456789), Format: tar.FormatPAX}
		body := ""
		switch k := m.IntN(100); {
		case strings.HasSuffix(name, "/"):
			h.Typeflag, h.Mode = tar.TypeDir, []int64{0o755, 0o700, 0o1777, 0o2750}[m.IntN(4)]
		case k < 62:
			body = fmt.Sprintf("%s %d\n", name, m.IntN(5))
		case k < 74:
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, m.pick([]string{"t", "file", "../x", "/etc/passwd", "nowhere", "/a"}), 0o777
		case k < 84 && len(out) > 0 && out[0].Header.Typeflag == tar.TypeReg:
			h.Typeflag, h.Linkname = tar.TypeLink, out[0].Header.Name
		case k < 88:
			h.Typeflag = tar.TypeFifo
		case k < 91:
			h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, 1, 3
		case k < 94:
			h.PAXRecords = map[string]string{"SCHILY.xattr.user.note": "noted", "SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}
			body = "with attributes\n"
		case k < 96:
			h.Name = ".wh." + filepath.Base(name)
		default:
			h.Uname, h.Gname = "app", "tape"
		}
		h.Size = int64(len(body))
		out = append(out, Member{h, body})
	}
	return out
}

// lay writes files and nodes to dir, and then the times that nodes set.
func lay(t testing.TB, dir string, files map[string]string, nodes []Node) {
	t.Helper()
	rig.Write(t, dir, files)
	for _, n := range nodes {
		p := filepath.Join(dir, n.Path)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := n.make(t, dir, p); err != nil {
			t.Fatalf("%s %s: %v", n.Kind, n.Path, err)
		}
	}
	for _, n := range nodes {
		if n.Kind == "time" {
			ts := []unix.Timespec{{Sec: n.N, Nsec: 987654321}, {Sec: n.N, Nsec: 987654321}}
			if err := unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, n.Path), ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// times are those nodes that only set a time.
func times(nodes []Node) []Node {
	return slices.DeleteFunc(slices.Clone(nodes), func(n Node) bool { return n.Kind != "time" })
}

// settle gives everything below dir the time that rig gives files.
func settle(t testing.TB, dir string) {
	t.Helper()
	var dirs []string
	err := filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err == nil {
			dirs = append(dirs, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	at := []unix.Timespec{{Sec: rig.Epoch.Unix()}, {Sec: rig.Epoch.Unix()}}
	for _, p := range dirs {
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, p, at, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			t.Fatal(err)
		}
	}
}

func (n Node) make(t testing.TB, dir, p string) error {
	switch n.Kind {
	case "symlink":
		return os.Symlink(n.Arg, p)
	case "link":
		return os.Link(filepath.Join(dir, n.Arg), p)
	case "fifo":
		return unix.Mkfifo(p, 0o640)
	case "device":
		return unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))
	case "socket":
		return unix.Mknod(p, unix.S_IFSOCK|0o755, 0)
	case "sparse":
		return hole(p, n.N)
	case "xattr":
		return attribute(p, n.Arg, "blue")
	case "capability": // cap_net_raw=ep
		return attribute(p, "security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	case "mode":
		return unix.Chmod(p, uint32(n.N))
	case "owner":
		return os.Lchown(p, int(n.N), int(n.N))
	case "time":
		return nil
	case "archive":
		return os.WriteFile(p, packed(t, n.Tar, n.Arg), 0o644)
	}
	return fmt.Errorf("unknown kind of node")
}

func hole(p string, size int64) error {
	f, err := os.Create(p)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt([]byte("end"), size)
	return err
}

func attribute(p, name, value string) error {
	if err := os.WriteFile(p, []byte(name+"\n"), 0o644); err != nil {
		return err
	}
	return unix.Lsetxattr(p, name, []byte(value), 0)
}

// packed is an archive, compressed as its name's end says; of kind "cut" it
// ends too early, and "text" is compressed but no archive.
func packed(t testing.TB, members []Member, kind string) []byte {
	t.Helper()
	var b strings.Builder
	w := tar.NewWriter(&b)
	for _, e := range members {
		h := e.Header
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.Body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	plain := b.String()
	through := func(text, program, pkg string) string {
		cmd := exec.CommandContext(t.Context(), rig.Need(t, program, pkg), "-c")
		cmd.Stdin = strings.NewReader(text)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", program, err)
		}
		return string(out)
	}
	switch kind {
	case "gz":
		plain = through(plain, "gzip", "gzip")
	case "bz2":
		plain = through(plain, "bzip2", "bzip2")
	case "xz":
		plain = through(plain, "xz", "xz-utils")
	case "zst":
		plain = through(plain, "zstd", "zstd")
	case "tgz": // two members of gzip
		plain = through(plain[:len(plain)/2], "gzip", "gzip") + through(plain[len(plain)/2:], "gzip", "gzip")
	case "cut":
		plain = plain[:len(plain)-1100]
	case "text":
		plain = through("no archive\n", "gzip", "gzip")
	}
	return []byte(plain)
}
