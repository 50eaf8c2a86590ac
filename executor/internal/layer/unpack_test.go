package layer_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
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

// member writes one entry; a zero Mode is 0644, or 0755 for a directory.
type member struct {
	tar.Header
	body string
}

func file(name, body string) member {
	return member{tar.Header{Name: name, Typeflag: tar.TypeReg}, body}
}
func dir(name string) member { return member{tar.Header{Name: name, Typeflag: tar.TypeDir}, ""} }
func link(name, to string) member {
	return member{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}, ""}
}
func hard(name, to string) member {
	return member{tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to}, ""}
}
func node(name string, typ byte, major, minor int64) member {
	return member{tar.Header{Name: name, Typeflag: typ, Devmajor: major, Devminor: minor}, ""}
}
func (m member) own(uid, gid int) member { m.Uid, m.Gid = uid, gid; return m }
func (m member) mode(v int64) member     { m.Mode = v; return m }
func (m member) time(t time.Time) member { m.ModTime, m.Format = t, tar.FormatPAX; return m }
func (m member) xattr(k, v string) member {
	m.PAXRecords = maps.Clone(m.PAXRecords)
	if m.PAXRecords == nil {
		m.PAXRecords = map[string]string{}
	}
	m.PAXRecords["SCHILY.xattr."+k] = v
	return m
}

func archive(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := m.Header
		h.Size = int64(len(m.body))
		if h.Mode == 0 {
			if h.Mode = 0o644; h.Typeflag == tar.TypeDir {
				h.Mode = 0o755
			}
		}
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1600000000, 0)
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, m.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func unpack(t testing.TB, o layer.UnpackOptions, members ...member) (string, layer.Unpacked) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	u, err := layer.Unpack(t.Context(), bytes.NewReader(archive(t, members...)), root, o)
	if err != nil {
		t.Fatal(err)
	}
	return root, u
}

// listing describes a directory as it is on disk: "path type perm" and more.
func listing(t testing.TB, root string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			opaque, err := layer.Opaque(p)
			if err != nil {
				return err
			}
			if rel += "/"; opaque {
				rel += " opaque"
			}
		case unix.S_IFLNK:
			to, _ := os.Readlink(p)
			rel += " -> " + to
		case unix.S_IFREG:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			rel += " " + string(b)
		case unix.S_IFCHR:
			if rel += " char"; st.Rdev == 0 {
				rel = strings.TrimSuffix(rel, " char") + " gone"
			}
		default:
			rel += fmt.Sprintf(" %o", st.Mode&unix.S_IFMT)
		}
		out = append(out, rel)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestUnpack(t *testing.T) {
	for _, c := range []struct {
		name    string
		members []member
		want    []string // listing; nil: an error
		outside []string
	}{
		{name: "whiteouts", members: []member{dir("d"), file("d/.wh.x", ""), file(".wh.y", "")}, want: []string{"d/", "d/x gone", "y gone"}},
		{name: "opaque before and after", members: []member{file("a/.wh..wh..opq", ""), dir("a"), file("a/f", "1"), dir("b"), file("b/f", "2"), file("b/.wh..wh..opq", "")},
			want: []string{"a/ opaque", "a/f 1", "b/ opaque", "b/f 2"}},
		{name: "aufs", members: []member{dir(".wh..wh.plnk"), file(".wh..wh.aufs", "")}, want: []string{}},
		{name: "whiteout and entry of one name, file", members: []member{file(".wh.a", ""), file("a", "1"), file("b", "2"), file(".wh.b", "")}, want: []string{"a 1", "b 2"}},
		{name: "whiteout and entry of one name, directory", members: []member{file(".wh.a", ""), dir("a"), file(".wh.i", ""), file("i/x", "1"), dir("b"), file(".wh.b", "")},
			want: []string{"a/ opaque", "b/ opaque", "i/ opaque", "i/x 1"}},
		{name: "whiteout of nothing", members: []member{file(".wh.", "")}},
		{name: "whiteout of itself", members: []member{dir("d"), file("d/.wh..", "")}},
		{name: "whiteout of above", members: []member{dir("d"), file("d/.wh...", "")}},
		{name: "dot dot and absolute names", members: []member{file("../../a", "1"), file("/b", "2"), dir("/d/../e/"), file("./c/./../f", "3")}, want: []string{"a 1", "b 2", "e/", "f 3"}},
		{name: "root", members: []member{dir("./").mode(0o700), dir("/"), link("..", "/etc")}, want: []string{}},
		{name: "through a link inside", members: []member{dir("usr/lib"), link("lib", "usr/lib"), file("lib/x", "1"), link("abs", "/usr"), file("abs/lib/y", "2")},
			want: []string{"abs -> /usr", "lib -> usr/lib", "usr/", "usr/lib/", "usr/lib/x 1", "usr/lib/y 2"}, outside: []string{"usr"}},
		{name: "through a link out", members: []member{link("out", "../../../../tmp"), file("out/x", "1"), link("etc", "/"), file("etc/y", "2")},
			want: []string{"etc -> /", "out -> ../../../../tmp", "tmp/", "tmp/x 1", "y 2"}, outside: []string{"tmp"}},
		{name: "through a dangling link", members: []member{link("a", "b/c"), file("a/x", "1")}, want: []string{"a -> b/c", "b/", "b/c/", "b/c/x 1"}, outside: []string{"b", "b/c"}},
		{name: "through a loop", members: []member{link("a", "b"), link("b", "a"), file("a/x", "1")}},
		{name: "below a file", members: []member{file("a", "1"), file("a/x", "2")}},
		{name: "onto a link", members: []member{link("a", "/etc/passwd"), file("a", "mine"), link("d", "e"), dir("d")}, want: []string{"a mine", "d/"}},
		{name: "types change", members: []member{dir("a"), file("a/x", "1"), file("a", "2"), file("b", "3"), dir("b"), file("b/y", "4"), dir("c"), dir("c/d"), link("c", "b"), file("c/z", "5")},
			want: []string{"a 2", "b/", "b/y 4", "b/z 5", "c -> b"}},
		{name: "last one wins", members: []member{file("a", "long content"), file("a", "2")}, want: []string{"a 2"}},
		{name: "parents without entries", members: []member{file("x/y/z", "1"), dir("x/y"), file("p/q", "")}, want: []string{"p/", "p/q ", "x/", "x/y/", "x/y/z 1"}, outside: []string{"p", "x"}},
		{name: "hard links", members: []member{file("a", "1"), hard("b", "a"), hard("c", "/b"), link("l", "a"), hard("m", "l"), hard("a", "a")},
			want: []string{"a 1", "b 1", "c 1", "l -> a", "m -> a"}},
		{name: "hard link through a link", members: []member{dir("d"), file("d/f", "1"), link("e", "d"), hard("g", "e/f"), hard("e/h", "../../d/f")}, want: []string{"d/", "d/f 1", "d/h 1", "e -> d", "g 1"}},
		{name: "hard link to later", members: []member{hard("b", "a"), file("a", "1")}, want: []string{"a 1", "b 1"}},
		{name: "hard link to below", members: []member{hard("b", "../etc/passwd"), hard("c", "b"), hard("d", "x"), file("d", "own")}, want: []string{"d own"}, outside: []string{"b -> etc/passwd", "c -> b"}},
		{name: "hard link to a directory", members: []member{dir("d"), hard("e", "d")}},
		{name: "hard link to the root", members: []member{hard("e", "..")}},
		{name: "hard link over its own directory", members: []member{dir("d"), file("d/f", "1"), hard("d", "d/f")}},
		{name: "hard link to a whiteout", members: []member{file(".wh.a", ""), hard("b", "a")}, want: []string{"a gone"}, outside: []string{"b -> a"}},
		{name: "hard link onto a file", members: []member{file("a", "1"), file("b", "2"), hard("b", "a")}, want: []string{"a 1", "b 1"}},
		{name: "fake whiteout devices", members: []member{node("a", tar.TypeChar, 0, 0), node("b", tar.TypeChar, 1, 3), node("c", tar.TypeBlock, 7, 0), node("p", tar.TypeFifo, 0, 0)},
			want: []string{"a ", "b ", "c ", "p 10000"}},
		{name: "odd device number", members: []member{node("a", tar.TypeChar, 1<<33, 0)}},
		{name: "odd owner", members: []member{file("a", "1").own(1<<33, 0)}},
		{name: "long component", members: []member{file(strings.Repeat("n", 300), "")}},
		{name: "unknown type", members: []member{{tar.Header{Name: "a", Typeflag: 'Z'}, ""}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			top := t.TempDir()
			root := filepath.Join(top, "a", "b", "root")
			os.MkdirAll(root, 0o755)
			u, err := layer.Unpack(t.Context(), bytes.NewReader(archive(t, c.members...)), root, layer.UnpackOptions{})
			if (err == nil) != (c.want != nil) {
				t.Fatalf("error %v, want one: %v", err, c.want == nil)
			}
			if err == nil {
				if got := listing(t, root); !slices.Equal(got, c.want) && len(got)+len(c.want) > 0 {
					t.Errorf("got  %q\nwant %q", got, c.want)
				}
				var outside []string
				for _, o := range u.Outside {
					s := o.Path
					if o.Target != "" {
						s += " -> " + o.Target
					}
					outside = append(outside, s)
				}
				if slices.Sort(outside); !slices.Equal(outside, c.outside) {
					t.Errorf("outside %q, want %q", outside, c.outside)
				}
			}
			if got := listing(t, filepath.Join(top)); slices.ContainsFunc(got, func(s string) bool {
				return !strings.HasPrefix(s, "a/b/root/") && s != "a/" && s != "a/b/"
			}) {
				t.Errorf("something is outside the root: %q", got)
			}
		})
	}
}

func TestUnpackAttributes(t *testing.T) {
	needRoot(t)
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	caps := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	times := map[string]time.Time{
		"old": time.Unix(-86400, 500_000_000), "exact": time.Unix(1234567890, 123456789), "d": time.Unix(1000, 5), "d/sub": time.Unix(-7, 0), "l": time.Unix(77, 0), "future": time.Unix(5_000_000_000, 0),
	}
	root, u := unpack(t, layer.UnpackOptions{},
		dir("d").own(7, 8).mode(0o3775).time(times["d"]), dir("d/sub").time(times["d/sub"]), file("d/sub/f", ""),
		file("suid", "x").own(1000, 1000).mode(0o6755).xattr("security.capability", caps).xattr("user.note", "v"),
		file("old", "").time(times["old"]), file("exact", "").time(times["exact"]), file("future", "").time(times["future"]),
		link("l", "exact").own(5, 6).time(times["l"]).xattr("user.note", "not on links"),
		file("evil", "").xattr("user.overlay.opaque", "y").xattr("trusted.overlay.redirect", "/etc").xattr(tree.OverrideXattr, "100755 0 0 0").xattr("trusted.x", "y"),
		dir("evild").xattr("user.overlay.opaque", "y").xattr("user.overlay.redirect", "/etc"),
		member{tar.Header{Name: "sparse", Typeflag: tar.TypeReg, Mode: 0o600}, strings.Repeat("\x00", 1<<20) + "end" + strings.Repeat("\x00", 1<<20)},
		hard("suid2", "suid").own(1, 2).mode(0o4711),
	)
	stat := func(name string) (st unix.Stat_t) {
		t.Helper()
		if err := unix.Lstat(filepath.Join(root, name), &st); err != nil {
			t.Fatal(err)
		}
		return st
	}
	for name, want := range times {
		if st := stat(name); !time.Unix(st.Mtim.Unix()).Equal(want) {
			t.Errorf("%s: time %v, want %v", name, time.Unix(st.Mtim.Unix()), want)
		}
	}
	for name, want := range map[string][3]uint32{"d": {0o3775, 7, 8}, "suid": {0o4711, 1, 2}, "suid2": {0o4711, 1, 2}, "l": {0o777, 5, 6}, "d/sub": {0o755, 0, 0}} {
		if st := stat(name); st.Mode&0o7777 != want[0] || st.Uid != want[1] || st.Gid != want[2] {
			t.Errorf("%s: %o %d:%d, want %o %d:%d", name, st.Mode&0o7777, st.Uid, st.Gid, want[0], want[1], want[2])
		}
	}
	for name, want := range map[string]int{"suid": 1, "evil": 0, "evild": 0} {
		x, err := tree.ReadXattrs(filepath.Join(root, name))
		if err != nil || len(x) != want {
			t.Errorf("%s: attributes %q, %v", name, x, err)
		}
		if opaque, _ := layer.Opaque(filepath.Join(root, name)); opaque {
			t.Errorf("%s is opaque: the layer steers the overlay", name)
		}
	}
	if u.Ignored != 7 {
		t.Errorf("%d attributes ignored, want 7", u.Ignored)
	}
	if st := stat("sparse"); st.Size != 2<<20+3 || st.Blocks*512 > 1<<20 {
		t.Errorf("sparse file: %d bytes in %d blocks", st.Size, st.Blocks)
	}
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give files away")
	}
}

func TestUnpackRecordsWhatTheMapLacks(t *testing.T) {
	root, u := unpack(t, layer.UnpackOptions{Make: layer.Maker{IDs: layer.IDRange(1)}},
		dir("d").own(7, 0).mode(0o2755), file("f", "x").own(1000, 1001).mode(0o4750), file("mine", "y"),
		link("l", "f").own(3, 4), link("l0", "f"), node("pipe", tar.TypeFifo, 0, 0).own(5, 6), node("null", tar.TypeChar, 1, 3).own(9, 9).mode(0o666),
		node("zero", tar.TypeChar, 0, 0), hard("f2", "f").own(2000, 2001).mode(0o4750), hard("null2", "null").own(0, 0).mode(0o600), link("was", "x").own(3, 4), file("was", ""),
	)
	if want := map[string][2]uint32{"l": {3, 4}, "pipe": {5, 6}}; !maps.Equal(u.Owners, want) {
		t.Errorf("owners %v, want %v", u.Owners, want)
	}
	d := openTree(t, root)
	for name, want := range map[string]string{
		"d": "42755 7:0 0", "f": "104750 2000:2001 0", "f2": "104750 2000:2001 0", "mine": "100644 0:0 0",
		"null": fmt.Sprintf("20600 0:0 %d", unix.Mkdev(1, 3)), "null2": fmt.Sprintf("20600 0:0 %d", unix.Mkdev(1, 3)), "zero": "100644 0:0 0",
	} {
		e, err := d.Lstat(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if gone, err := layer.Whiteout(filepath.Join(root, name), e); err != nil || gone {
			t.Errorf("%s is a whiteout, %v", name, err)
		}
		e, err = layer.Recorded(filepath.Join(root, name), e)
		if got := fmt.Sprintf("%o %d:%d %d", e.Mode, e.UID, e.GID, e.Rdev); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", name, got, err, want)
		}
	}
	// A chmod after the record counts.
	if err := os.Chmod(filepath.Join(root, "f"), 0o640); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := layer.Pack(t.Context(), &b, root, nil, layer.PackOptions{Owners: u.Owners}); err != nil {
		t.Fatal(err)
	}
	got := entries(t, &b)
	want := []string{"5 d/ 2755 7:0", "0 f 640 2000:2001", "1 f2 640 2000:2001 -> f", "2 l 777 3:4 -> f", "2 l0 777 0:0 -> f", "0 mine 644 0:0",
		"3 null 600 0:0", "1 null2 600 0:0 -> null", "6 pipe 644 5:6", "0 was 644 0:0", "0 zero 644 0:0"}
	if !slices.Equal(got, want) {
		t.Errorf("packed\n%q\nwant\n%q", got, want)
	}
}

// A RUN writes what it likes into the records of its files.
func TestPackOfForgedRecords(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give files away")
	}
	dir := t.TempDir()
	for name, c := range map[string]struct {
		mode   os.FileMode
		uid    int
		record string
	}{
		"dev":     {0o600, 0, fmt.Sprint("20666 0 5 ", unix.Mkdev(1, 3))},
		"hole":    {0o600, 0, "20000 0 0 0"},
		"open":    {0o666, 0, fmt.Sprint("20666 0 0 ", unix.Mkdev(1, 3))},
		"setuid":  {0o755 | os.ModeSetuid, 9, "104755 0 0 0"},
		"theirs":  {0o600, 9, fmt.Sprint("60666 9 9 ", unix.Mkdev(8, 0))},
		"junk":    {0o600, 0, "junk"},
		"long":    {0o600, 0, "20666 0 0 " + strings.Repeat("1", 1000)},
		"link":    {0o600, 0, "120777 0 0 0"},
		"dirlike": {0o600, 0, "40777 0 0 0"},
		"socket":  {0o600, 0, "140777 0 0 0"},
		"big":     {0o644, 0, "100644 4294967295 4294967295 0"},
	} {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(p, []byte("x"), 0o600), os.Chown(p, c.uid, c.uid), os.Chmod(p, c.mode),
			unix.Setxattr(p, tree.OverrideXattr, []byte(c.record), 0)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "d"), 0o755), unix.Setxattr(filepath.Join(dir, "d"), tree.OverrideXattr, []byte("20666 0 0 259"), 0)); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	s, err := layer.Pack(t.Context(), &b, dir, nil, layer.PackOptions{})
	if err != nil || !s.Devices {
		t.Fatalf("%+v, %v", s, err)
	}
	want := []string{"0 big 644 0:0", "5 d/ 755 0:0", "3 dev 666 0:5", "0 dirlike 600 0:0", "0 hole 600 0:0", "0 junk 600 0:0", "0 link 600 0:0", "0 long 600 0:0",
		"0 open 666 0:0", "0 setuid 4755 9:9", "0 theirs 600 9:9"}
	if got := entries(t, &b); !slices.Equal(got, want) {
		t.Errorf("packed\n%q\nwant\n%q", got, want)
	}
}

func TestUnpackLimits(t *testing.T) {
	many := []member{file("a", "12345"), file("b", "678")}
	for _, o := range []layer.UnpackOptions{{MaxSize: 7}, {MaxEntries: 1}} {
		_, err := layer.Unpack(t.Context(), bytes.NewReader(archive(t, many...)), t.TempDir(), o)
		if !errors.Is(err, layer.ErrTooLarge) {
			t.Errorf("%+v: %v, want ErrTooLarge", o, err)
		}
	}
	if _, err := layer.Unpack(t.Context(), bytes.NewReader(archive(t, many...)), t.TempDir(), layer.UnpackOptions{MaxSize: 8, MaxEntries: 2}); err != nil {
		t.Error(err)
	}
	whole := archive(t, file("a", strings.Repeat("x", 3000)), file("b", ""))
	for _, n := range []int{100, 512, 700, 2000, 3000, 3583} {
		if _, err := layer.Unpack(t.Context(), bytes.NewReader(whole[:n]), t.TempDir(), layer.UnpackOptions{}); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut to %d bytes: %v, want an unexpected end", n, err)
		}
	}
	// A header that lies about its size, with a good checksum.
	lying := bytes.Clone(whole)
	copy(lying[124:], "77777777777\x00")
	copy(lying[148:], "        ")
	sum := 0
	for _, c := range lying[:512] {
		sum += int(c)
	}
	copy(lying[148:], fmt.Sprintf("%06o\x00 ", sum))
	if _, err := layer.Unpack(t.Context(), bytes.NewReader(lying), t.TempDir(), layer.UnpackOptions{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("lying size: %v", err)
	}
	if _, err := layer.Unpack(t.Context(), bytes.NewReader(archive(t, file("a", "").xattr("user.big", strings.Repeat("x", 200_000)))), t.TempDir(), layer.UnpackOptions{}); err == nil {
		t.Error("an attribute of 200 kB was accepted")
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	if _, err := layer.Unpack(ctx, bytes.NewReader(whole), t.TempDir(), layer.UnpackOptions{}); !errors.Is(err, why) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestUnpackReadsToTheEnd(t *testing.T) {
	r := io.MultiReader(bytes.NewReader(archive(t, file("a", "1"))), bytes.NewReader(make([]byte, 100_000)), strings.NewReader("tail"))
	n := &readCounter{r: r}
	if _, err := layer.Unpack(t.Context(), n, t.TempDir(), layer.UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	if want := 2048 + 100_000 + 4; n.n != want {
		t.Errorf("read %d bytes, want %d: the caller's hash would be wrong", n.n, want)
	}
}

type readCounter struct {
	r io.Reader
	n int
}

func (c *readCounter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

func TestUnpackGNUAndBigHeaders(t *testing.T) {
	long := strings.Repeat("component/", 30) + "end"
	root, _ := unpack(t, layer.UnpackOptions{},
		member{tar.Header{Name: long, Typeflag: tar.TypeReg, Format: tar.FormatGNU}, "gnu"},
		member{tar.Header{Name: "p" + long, Typeflag: tar.TypeReg, Format: tar.FormatPAX}, "pax"},
		member{tar.Header{Name: "short", Typeflag: tar.TypeReg, Format: tar.FormatUSTAR, Uname: "somebody"}, "ustar"},
		link("far", strings.Repeat("x/", 1000)+"y"))
	for name, want := range map[string]string{long: "gnu", "p" + long: "pax", "short": "ustar"} {
		if b, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	// Old GNU sparse: 3 bytes of data, 9 GiB of file.
	h := make([]byte, 512)
	copy(h, "huge")
	copy(h[100:], "0000644\x000000000\x000000000\x0000000001000\x0000000000000\x00")
	copy(h[148:], "        ")
	h[156] = 'S'
	copy(h[257:], "ustar  \x00")
	copy(h[386:], "00000001000\x0000000001000\x00") // one piece of 512 bytes at 512
	copy(h[483:], "\x80\x00\x00\x00\x00\x00\x00\x02\x40\x00\x00\x00")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	stream := append(append(h, bytes.Repeat([]byte("d"), 512)...), make([]byte, 1024)...)
	dir := t.TempDir()
	if _, err := layer.Unpack(t.Context(), bytes.NewReader(stream), dir, layer.UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "huge"), &st); err != nil || st.Size != 9<<30 || st.Blocks > 1024 {
		t.Errorf("size %d in %d blocks, %v, want 9 GiB in few", st.Size, st.Blocks, err)
	}
	if _, err := layer.Unpack(t.Context(), bytes.NewReader(stream), t.TempDir(), layer.UnpackOptions{MaxSize: 1 << 30}); !errors.Is(err, layer.ErrTooLarge) {
		t.Errorf("9 GiB with a limit of 1: %v", err)
	}
}

func TestFinish(t *testing.T) {
	needRoot(t)
	base, _ := unpack(t, layer.UnpackOptions{},
		dir("etc").own(3, 4).mode(0o750).xattr("user.k", "v").time(time.Unix(5000, 6)), file("etc/passwd", "root").own(1, 2).mode(0o640),
		dir("usr").time(time.Unix(100, 0)), dir("usr/lib").mode(0o711), link("lib", "usr/lib"), link("lib64", "usr/lib"), file("usr/lib/so", "elf"), file("gone", "x"), dir("dir"))
	top := filepath.Join(t.TempDir(), "top")
	os.Mkdir(top, 0o755)
	stream := archive(t,
		dir("own").time(time.Unix(42, 0)), hard("own/pw", "etc/passwd").own(7, 8).mode(0o604), hard("again", "own/pw").mode(0o600),
		file("lib/x", "1"), file("new/y", "2"), hard("so", "lib64/so").mode(0o755))
	u, err := layer.Unpack(t.Context(), bytes.NewReader(stream), top, layer.UnpackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := layer.Finish(t.Context(), top, openTree(t, base), &u, layer.UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	if len(u.Outside) != 0 {
		t.Errorf("still outside: %v", u.Outside)
	}
	want := []string{"again root", "etc/", "etc/passwd root", "lib/", "lib/x 1", "new/", "new/y 2", "own/", "own/pw root", "so elf", "usr/", "usr/lib/", "usr/lib/so elf"}
	if got := listing(t, top); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	for name, want := range map[string]string{
		"etc/passwd": "600 0:0 1600000000.000000000", "own": "755 0:0 42.000000000",
		"usr/lib/so": "755 0:0 1600000000.000000000", "etc": "750 3:4 now", "lib": "711 0:0 now", "usr": "755 0:0 now",
	} {
		var st unix.Stat_t
		unix.Lstat(filepath.Join(top, name), &st)
		if got := fmt.Sprintf("%o %d:%d %d.%09d", st.Mode&0o7777, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec); got != want && !(strings.HasSuffix(want, " now") && strings.HasPrefix(got, want[:len(want)-3]) && time.Since(time.Unix(st.Mtim.Unix())) < time.Hour) {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if x, _ := tree.ReadXattrs(filepath.Join(top, "etc")); string(x["user.k"]) != "v" {
		t.Errorf("attributes of etc: %q", x)
	}
	for name, members := range map[string][]member{
		"nowhere":   {hard("a", "none")},
		"removed":   {file(".wh.gone", ""), hard("a", "gone")},
		"directory": {hard("a", "dir")},
	} {
		dir, u := unpack(t, layer.UnpackOptions{}, members...)
		if err := layer.Finish(t.Context(), dir, openTree(t, base), &u, layer.UnpackOptions{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	caps := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	for _, m := range [][]member{
		{dir("d"), file("d/f", "1"), hard("h", "d/f"), file("d/.wh.x", ""), file("d/.wh..wh..opq", "")},
		{link("l", "../../.."), file("l/x", "1"), hard("l/y", "l/x"), node("n", tar.TypeChar, 0, 0)},
		{file("a", "").xattr("user.overlay.opaque", "y").xattr("security.capability", caps), file(".wh.a", "")},
	} {
		f.Add(archive(f, m...))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		top := t.TempDir()
		root, bait := filepath.Join(top, "x", "y", "root"), filepath.Join(top, "bait")
		os.MkdirAll(root, 0o755)
		os.WriteFile(bait, []byte("bait"), 0o640)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		u, err := layer.Unpack(ctx, bytes.NewReader(stream), root, layer.UnpackOptions{MaxSize: 1 << 20, MaxEntries: 100})
		if b, rerr := os.ReadFile(bait); rerr != nil || string(b) != "bait" {
			t.Fatalf("the bait is %q, %v", b, rerr)
		}
		if list, _ := os.ReadDir(top); len(list) != 2 {
			t.Fatalf("something is outside the root: %v", list)
		}
		if list, _ := os.ReadDir(filepath.Join(top, "x", "y")); len(list) != 1 {
			t.Fatalf("something is outside the root: %v", list)
		}
		if err != nil {
			return
		}
		// What was unpacked packs, and packs the same again after a round trip.
		var one, two bytes.Buffer
		if _, err := layer.Pack(ctx, &one, root, nil, layer.PackOptions{Owners: u.Owners}); err != nil {
			t.Fatalf("pack: %v", err)
		}
		again := filepath.Join(top, "again")
		os.Mkdir(again, 0o755)
		v, err := layer.Unpack(ctx, bytes.NewReader(one.Bytes()), again, layer.UnpackOptions{})
		if err != nil {
			t.Fatalf("unpack what was packed: %v", err)
		}
		if _, err := layer.Pack(ctx, &two, again, nil, layer.PackOptions{Owners: v.Owners}); err != nil {
			t.Fatalf("pack again: %v", err)
		}
		if !bytes.Equal(one.Bytes(), two.Bytes()) {
			t.Fatal("packed otherwise after a round trip")
		}
	})
}
