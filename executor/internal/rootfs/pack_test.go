package rootfs

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
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

const capNetRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// meddle does what a RUN might do in a mounted root.
func meddle(t testing.TB, r *rand.Rand, root string, n int) {
	t.Helper()
	var all []string // without the root
	list := func() {
		all = nil
		filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
			if err == nil && p != root {
				all = append(all, p)
			}
			return nil
		})
	}
	pick := func() string {
		if list(); len(all) == 0 {
			return root
		}
		return all[r.IntN(len(all))]
	}
	fresh := func() string {
		dir := root
		if p := pick(); r.IntN(4) != 0 {
			if st, err := os.Lstat(p); err == nil && st.IsDir() {
				dir = p
			} else {
				dir = filepath.Dir(p)
			}
		}
		return filepath.Join(dir, []string{"a", "b", "c", "d", "e", "new"}[r.IntN(6)])
	}
	for range n {
		switch r.IntN(17) {
		case 0, 1:
			if p := pick(); p != root {
				os.RemoveAll(p)
			}
		case 2:
			p := fresh()
			os.RemoveAll(p)
			os.WriteFile(p, []byte("new"), 0o644)
		case 3:
			p := fresh()
			if r.IntN(2) == 0 {
				os.RemoveAll(p)
			}
			os.Mkdir(p, 0o755)
		case 4:
			p := fresh()
			os.RemoveAll(p)
			os.Symlink("a", p)
		case 5:
			os.Link(pick(), fresh())
		case 6:
			os.Chmod(pick(), fs.FileMode(0o600+r.IntN(128)))
		case 7:
			unix.Lchown(pick(), r.IntN(3), r.IntN(3))
		case 8:
			ts := unix.Timespec{Sec: int64(r.IntN(3)-1) * 1000, Nsec: int64(r.IntN(2)) * 500}
			unix.UtimesNanoAt(unix.AT_FDCWD, pick(), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
		case 9: // moved away and back: copied up unchanged
			p := pick()
			os.Rename(p, p+".moved")
			os.Rename(p+".moved", p)
		case 10:
			os.Rename(pick(), fresh())
		case 11: // the same size at the same time
			p := pick()
			var st unix.Stat_t
			if unix.Lstat(p, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
				os.WriteFile(p, bytes.Repeat([]byte("x"), int(st.Size)), 0)
				unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
			}
		case 12:
			unix.Mkfifo(fresh(), 0o644)
		case 13:
			unix.Mknod(fresh(), unix.S_IFBLK|0o600, int(unix.Mkdev(7, 3)))
		case 14:
			if l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh()}); err == nil {
				l.SetUnlinkOnClose(false)
				l.Close()
			}
		case 15:
			p := pick()
			if st, err := os.Lstat(p); err == nil && st.Mode().IsRegular() {
				unix.Lsetxattr(p, "security.capability", []byte(capNetRaw), 0)
				unix.Lsetxattr(p, "user.note", []byte("x"), 0)
			}
		case 16: // a directory removed and made again
			if p := pick(); p != root {
				if st, err := os.Lstat(p); err == nil && st.IsDir() {
					os.RemoveAll(p)
					os.Mkdir(p, st.Mode().Perm())
					os.WriteFile(filepath.Join(p, "a"), nil, 0o644)
				}
			}
		}
	}
}

// steps makes a random chain of layers with a last one on top, in an upper.
func steps(t testing.TB, seed uint64) (upper string, below []string) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 2))
	top := t.TempDir()
	var dirs []string
	for i := range 1 + r.IntN(4) {
		s := Stack{dirs}
		at := func(name string) string { return filepath.Join(top, fmt.Sprint(name, i)) }
		if err := s.NewUpper(at("upper")); err != nil {
			t.Fatal(err)
		}
		os.Mkdir(at("mnt"), 0o755)
		if err := s.Mount(t.Context(), at("mnt"), at("upper"), at("work")); err != nil {
			t.Fatal(err)
		}
		meddle(t, r, at("mnt"), 5+r.IntN(40))
		if err := errors.Join(Unmount(at("mnt")), RemoveWork(at("work"))); err != nil {
			t.Fatal(err)
		}
		if r.IntN(2) == 0 { // as if it came from a registry
			whole := archiveOf(t, at("upper"), dirs)
			os.RemoveAll(at("upper"))
			if err := s.NewUpper(at("upper")); err != nil {
				t.Fatal(err)
			}
			if _, err := layer.Unpack(t.Context(), bytes.NewReader(whole), at("upper"), layer.UnpackOptions{Make: layer.Maker{Devices: true}}); err != nil {
				t.Fatal(err)
			}
		}
		dirs = slices.Insert(dirs, 0, at("upper"))
	}
	return dirs[0], dirs[1:]
}

func archiveOf(t testing.TB, upper string, below []string) []byte {
	t.Helper()
	v, err := OpenView(below...)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	var b bytes.Buffer
	if _, err := layer.Pack(t.Context(), &b, upper, v, layer.PackOptions{}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A layer packed and unpacked again shows, on its base, what the upper showed;
// and it is a well-formed one.
func TestPackAndUnpackShowTheSame(t *testing.T) {
	needMount(t)
	for seed := range uint64(60) {
		upper, below := steps(t, seed)
		packed := archiveOf(t, upper, below)
		if again := archiveOf(t, upper, below); !bytes.Equal(packed, again) {
			t.Fatalf("seed %d: two packs differ", seed)
		}
		checkLayer(t, seed, packed, below)
		dir := filepath.Join(t.TempDir(), "again")
		if err := (Stack{below}).NewUpper(dir); err != nil {
			t.Fatal(err)
		}
		u, err := layer.Unpack(t.Context(), bytes.NewReader(packed), dir, layer.UnpackOptions{Make: layer.Maker{Devices: true}})
		if err != nil || len(u.Outside) > 0 {
			t.Fatalf("seed %d: %v, outside %v", seed, err, u.Outside)
		}
		want, sockets := summary(t, upper, below)
		got, _ := summary(t, dir, below)
		got = slices.DeleteFunc(got, func(s string) bool { // what a socket hid shows again, as with BuildKit
			return slices.ContainsFunc(sockets, func(k string) bool { return strings.HasPrefix(s, k+" ") || strings.HasPrefix(s, k+"/") })
		})
		if !slices.Equal(got, want) {
			t.Errorf("seed %d:\ngot  %q\nwant %q", seed, got, want)
		}
		if twice := archiveOf(t, dir, below); !bytes.Equal(packed, twice) {
			// Files that are as in the base may be left out the second time only
			// if their times had fractions of a second; entries may not appear.
			a, b := names(t, packed), names(t, twice)
			for _, n := range b {
				if !slices.Contains(a, n) {
					t.Errorf("seed %d: %s appears in the second pack", seed, n)
				}
			}
		}
	}
}

func names(t testing.TB, b []byte) (out []string) {
	t.Helper()
	tr := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, h.Name)
	}
}

// checkLayer looks for what other tools reject or do not expect.
func checkLayer(t testing.TB, seed uint64, packed []byte, below []string) {
	t.Helper()
	v, err := OpenView(below...)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	seen := map[string]byte{}
	tr := tar.NewReader(bytes.NewReader(packed))
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		name := tree.Clean(h.Name)
		if _, ok := seen[name]; ok {
			t.Errorf("seed %d: %s twice", seed, name)
		}
		seen[name] = h.Typeflag
		if p := parentOf(name); p != "" && seen[p] != tar.TypeDir {
			t.Errorf("seed %d: %s before its parent", seed, name)
		}
		if h.Typeflag == tar.TypeLink && seen[h.Linkname] == 0 {
			t.Errorf("seed %d: hard link %s before %s", seed, name, h.Linkname)
		}
		base := name[len(parentOf(name)):]
		if base = tree.Clean(base); len(base) > 4 && base[:4] == ".wh." {
			if _, err := v.Lstat(t.Context(), parentOf(name)+"/"+base[4:]); err != nil {
				t.Errorf("seed %d: whiteout %s of nothing: %v", seed, name, err)
			}
		}
		if h.Uname+h.Gname != "" || h.ModTime.Nanosecond() != 0 {
			t.Errorf("seed %d: %+v", seed, h)
		}
	}
}

// summary is what a stack shows, less what a layer does not carry: fractions of
// seconds, sockets, times of directories that nothing else changed in.
func summary(t testing.TB, top string, below []string) (out, sockets []string) {
	t.Helper()
	v, err := OpenView(append([]string{top}, below...)...)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	base, err := OpenView(below...)
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	links := map[uint64]string{}
	err = tree.Walk(t.Context(), v, "", func(name string, e tree.Entry) error {
		if e.Type() == unix.S_IFSOCK {
			sockets = append(sockets, name)
		}
		if name == "" || e.Type() == unix.S_IFSOCK {
			return nil
		}
		s := fmt.Sprintf("%s %o %d:%d %d %s", name, e.Mode, e.UID, e.GID, e.Size, e.Link)
		if !e.IsDir() {
			s += fmt.Sprint(" ", e.ModTime.Unix())
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
			x, err := v.Xattrs(t.Context(), name)
			if err != nil {
				return err
			}
			s += fmt.Sprintf(" %s %x", b, x["security.capability"])
		}
		if old, err := base.Lstat(t.Context(), name); err != nil || old.Ino != e.Ino {
			if e.Nlink > 1 && !e.IsDir() {
				first, ok := links[e.Ino]
				if !ok {
					links[e.Ino] = name
				}
				s += " link of " + first
			}
		}
		out = append(out, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out, sockets
}

func TestPackRules(t *testing.T) {
	needMount(t)
	base := func(root string) error {
		for _, d := range []string{"etc", "usr/lib", "d/sub", "home"} {
			if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
				return err
			}
		}
		for _, f := range []string{"etc/passwd", "usr/lib/x", "d/1", "d/2", "d/sub/3", "file"} {
			if err := os.WriteFile(filepath.Join(root, f), []byte(f), 0o644); err != nil {
				return err
			}
		}
		return errors.Join(os.Symlink("usr/lib", filepath.Join(root, "lib")), filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
			ts := unix.NsecToTimespec(1e18)
			return unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
		}))
	}
	for _, c := range []struct {
		name string
		run  func(in func(string) string) error
		want []string
	}{
		{"nothing", func(in func(string) string) error { return nil }, nil},
		{"time of a directory", func(in func(string) string) error { return os.Chtimes(in("home"), time.Now(), time.Now()) }, nil},
		{"made and removed", func(in func(string) string) error {
			return errors.Join(os.WriteFile(in("etc/t"), nil, 0o644), os.Remove(in("etc/t")))
		}, nil},
		{"root's mode and owner", func(in func(string) string) error {
			return errors.Join(os.Chmod(in("."), 0o700), os.Chown(in("."), 5, 6))
		}, nil},
		{"mode of a directory", func(in func(string) string) error { return os.Chmod(in("d"), 0o700) }, []string{"d/"}},
		{"a change and its parents", func(in func(string) string) error { return os.WriteFile(in("usr/lib/x"), []byte("new"), 0) }, []string{"usr/", "usr/lib/", "usr/lib/x"}},
		{"removed", func(in func(string) string) error { return errors.Join(os.RemoveAll(in("d")), os.Remove(in("file"))) }, []string{".wh.d", ".wh.file"}},
		{"removed below", func(in func(string) string) error { return os.Remove(in("d/sub/3")) }, []string{"d/", "d/sub/", "d/sub/.wh.3"}},
		{"removed and made again", func(in func(string) string) error {
			return errors.Join(os.RemoveAll(in("d")), os.MkdirAll(in("d/new"), 0o755), os.WriteFile(in("d/2"), nil, 0o600))
		}, []string{"d/", "d/.wh.1", "d/2", "d/new/", "d/.wh.sub"}},
		{"made again as it was", func(in func(string) string) error {
			return errors.Join(os.RemoveAll(in("d")), os.Mkdir(in("d"), 0o755))
		}, []string{"d/", "d/.wh.1", "d/.wh.2", "d/.wh.sub"}},
		{"file becomes directory", func(in func(string) string) error {
			return errors.Join(os.Remove(in("file")), os.Mkdir(in("file"), 0o755), os.WriteFile(in("file/x"), nil, 0o644))
		}, []string{"file/", "file/x"}},
		{"directory becomes file", func(in func(string) string) error {
			return errors.Join(os.RemoveAll(in("d")), os.WriteFile(in("d"), nil, 0o644))
		}, []string{"d"}},
		{"link becomes directory", func(in func(string) string) error {
			return errors.Join(os.Remove(in("lib")), os.Mkdir(in("lib"), 0o755), os.WriteFile(in("lib/x"), []byte("usr/lib/x"), 0o644),
				os.Chtimes(in("lib/x"), time.Unix(1e9, 0), time.Unix(1e9, 0)))
		}, []string{"lib/", "lib/x"}},
		{"hard link to the base", func(in func(string) string) error { return os.Link(in("etc/passwd"), in("pw")) }, []string{"pw"}},
		{"hard links", func(in func(string) string) error {
			return errors.Join(os.WriteFile(in("z"), []byte("1"), 0o644), os.Link(in("z"), in("home/a")), os.Link(in("z"), in("b")))
		}, []string{"b", "home/", "home/a=b", "z=b"}},
		{"moved away and back", func(in func(string) string) error {
			return errors.Join(os.Rename(in("file"), in("x")), os.Rename(in("x"), in("file")))
		}, nil},
		{"same bytes again", func(in func(string) string) error {
			return errors.Join(os.WriteFile(in("file"), []byte("file"), 0), os.Chtimes(in("file"), time.Unix(1e9, 0), time.Unix(1e9, 0)))
		}, nil},
		{"same size, same time", func(in func(string) string) error {
			return errors.Join(os.WriteFile(in("file"), []byte("FILE"), 0), os.Chtimes(in("file"), time.Unix(1e9, 0), time.Unix(1e9, 0)))
		}, []string{"file"}},
		{"touched", func(in func(string) string) error { return os.Chtimes(in("file"), time.Unix(7, 0), time.Unix(7, 0)) }, []string{"file"}},
		{"capability alone", func(in func(string) string) error {
			return unix.Setxattr(in("file"), "security.capability", []byte(capNetRaw), 0)
		}, []string{"file+cap"}},
		{"other attribute alone", func(in func(string) string) error { return unix.Setxattr(in("file"), "user.x", []byte("y"), 0) }, nil},
		{"socket", func(in func(string) string) error {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: in("home/s")})
			if err == nil {
				l.SetUnlinkOnClose(false)
				err = l.Close()
			}
			return err
		}, nil},
		{"order", func(in func(string) string) error {
			return errors.Join(os.Mkdir(in("home/a"), 0o755), os.WriteFile(in("home/a/b"), nil, 0o644), os.WriteFile(in("home/a.b"), nil, 0o644), os.WriteFile(in("home/A"), nil, 0o644))
		}, []string{"home/", "home/A", "home/a/", "home/a/b", "home/a.b"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			top := t.TempDir()
			in := func(s string) string { return filepath.Join(top, s) }
			os.Mkdir(in("base"), 0o755)
			os.Mkdir(in("m"), 0o755)
			if err := base(in("base")); err != nil {
				t.Fatal(err)
			}
			s := Stack{[]string{in("base")}}
			if err := s.NewUpper(in("up")); err != nil {
				t.Fatal(err)
			}
			if err := s.Mount(t.Context(), in("m"), in("up"), in("w")); err != nil {
				t.Fatal(err)
			}
			err := c.run(func(p string) string { return in("m/" + p) })
			if err := errors.Join(err, Unmount(in("m"))); err != nil {
				t.Fatal(err)
			}
			var got []string
			tr := tar.NewReader(bytes.NewReader(archiveOf(t, in("up"), s.Dirs)))
			for {
				h, err := tr.Next()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				n := h.Name
				if h.Typeflag == tar.TypeLink {
					n += "=" + h.Linkname
				}
				if h.PAXRecords["SCHILY.xattr.security.capability"] == capNetRaw {
					n += "+cap"
				}
				if len(h.PAXRecords) > 1 {
					t.Errorf("%s: records %q", n, h.PAXRecords)
				}
				got = append(got, n)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
