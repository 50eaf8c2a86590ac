package rootfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/layer"
)

func TestStackOfManyLayersWithLongPaths(t *testing.T) {
	needMount(t)
	top := filepath.Join(t.TempDir(), strings.Repeat("long-", 40), strings.Repeat("longer", 30), `odd:na,me\ here`)
	if err := os.MkdirAll(top, 0o755); err != nil {
		t.Fatal(err)
	}
	at := func(s string) string { return filepath.Join(top, s) }
	os.Mkdir(at("m"), 0o755)
	for _, n := range []int{0, 1, 2, 130, 400} {
		var dirs, want []string
		for i := range n {
			d := at(fmt.Sprint("l", i))
			os.MkdirAll(filepath.Join(d, "d"), 0o755)
			os.WriteFile(filepath.Join(d, fmt.Sprint("d/", i)), nil, 0o644)
			os.WriteFile(filepath.Join(d, "which"), []byte(fmt.Sprint(i)), 0o644)
			dirs = append(dirs, d)
			want = append(want, fmt.Sprint(i))
		}
		if n > 1 {
			dirs = append(dirs, dirs[1]) // a layer that an image has twice
		}
		s := Stack{dirs}
		check := func(how string) {
			t.Helper()
			list, _ := os.ReadDir(at("m/d"))
			var got []string
			for _, e := range list {
				got = append(got, e.Name())
			}
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("%d layers %s: %d names", n, how, len(got))
			}
			if b, _ := os.ReadFile(at("m/which")); n > 0 && string(b) != "0" {
				t.Errorf("%d layers %s: %q is on top, want 0", n, how, b)
			}
		}
		if err := s.MountReadOnly(t.Context(), at("m"), at("w")); err != nil {
			t.Fatalf("%d layers: %v", n, err)
		}
		check("read-only")
		if err := os.WriteFile(at("m/new"), nil, 0o644); !errors.Is(err, unix.EROFS) {
			t.Errorf("write: %v", err)
		}
		if err := errors.Join(Unmount(at("m")), RemoveWork(at("w"))); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.NewUpper(at("up")), s.Mount(t.Context(), at("m"), at("up"), at("w"))); err != nil {
			t.Fatalf("%d layers: %v", n, err)
		}
		check("with an upper")
		if err := os.WriteFile(at("m/new"), nil, 0o644); err != nil {
			t.Error(err)
		}
		if err := errors.Join(Unmount(at("m")), Unmount(at("m")), RemoveWork(at("w"))); err != nil {
			t.Fatal(err)
		}
		if list, _ := os.ReadDir(at("up")); len(list) != 1 || list[0].Name() != "new" {
			t.Errorf("upper: %v", list)
		}
		os.RemoveAll(at("up"))
		if n == 0 || n > 200 {
			continue
		}
		lower, err := s.lower(at("w"))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Mkdir(at("up"), 0o755), os.Mkdir(at("w"), 0o755), overlayOld(at("m"), lower, at("up"), at("w"), 0)); err != nil {
			t.Fatalf("%d layers, one call: %v", n, err)
		}
		check("by one call")
		if err := errors.Join(Unmount(at("m")), RemoveWork(at("w")), os.RemoveAll(at("up"))); err != nil {
			t.Fatal(err)
		}
	}
	if err := (Stack{make([]string, 1)}).Mount(t.Context(), at("m"), at("up"), at("w")); err == nil {
		t.Error("a layer without a name was mounted")
	}
}

// What a layer says about overlays does not reach one.
func TestLayersDoNotSteerTheMount(t *testing.T) {
	needMount(t)
	var b blobs
	low := b.add(archive(member{name: "secret/", typ: '5'}, member{name: "secret/f", data: "low"}, member{name: "keep", data: "low"}))
	var evil bytes.Buffer
	evil.Write(evilTar(t))
	top := b.add(evil.Bytes())
	dirs, err := (&Layers{Dir: t.TempDir()}).Ensure(t.Context(), []Layer{low, top}, b.open)
	if err != nil {
		t.Fatal(err)
	}
	m := t.TempDir()
	if err := (Stack{dirs}).MountReadOnly(t.Context(), m, filepath.Join(t.TempDir(), "w")); err != nil {
		t.Fatal(err)
	}
	defer Unmount(m)
	if b, err := os.ReadFile(filepath.Join(m, "secret/f")); err != nil || string(b) != "low" {
		t.Errorf("secret/f: %q, %v: the layer made its directory opaque or redirected it", b, err)
	}
	if st, err := os.Lstat(filepath.Join(m, "keep")); err != nil || !st.Mode().IsRegular() || st.Size() != 0 {
		t.Errorf("keep: %v, %v: a device 0:0 became a whiteout", st, err)
	}
	for _, p := range []string{"secret", "keep"} {
		var buf [4096]byte
		n, err := unix.Llistxattr(filepath.Join(m, p), buf[:])
		if err != nil || bytes.Contains(buf[:n], []byte("overlay")) {
			t.Errorf("%s: attributes %q, %v", p, buf[:n], err)
		}
	}
}

func TestStubs(t *testing.T) {
	needMount(t)
	base := archive(member{name: "etc/", typ: '5', mode: 0o711, uid: 4}, member{name: "etc/hosts", data: "h"}, member{name: "run", typ: '2', link: "var/run"},
		member{name: "var/", typ: '5'}, member{name: "resolv", data: "r"}, member{name: "dangling", typ: '2', link: "/far/away"}, member{name: "out", typ: '2', link: "../../../../../../tmp/rootfs-stub"})
	usual := []Target{{Path: "/proc", Keep: true}, {Path: "/dev", Keep: true}, {Path: "/sys", Keep: true}, {Path: "/etc/resolv.conf", File: true}, {Path: "/etc/hosts", File: true}}
	for _, c := range []struct {
		name    string
		base    []byte
		targets []Target
		during  func(in func(string) string) error
		made    []string // in the upper, before the command
		left    []string // after
		packed  []string
		err     bool
	}{
		{name: "usual", base: base, targets: usual, made: []string{"dev", "etc", "etc/resolv.conf", "proc", "sys"}, left: []string{"dev", "etc", "proc", "sys"}, packed: []string{"dev/", "proc/", "sys/"}},
		{name: "from nothing", base: archive(), targets: usual, made: []string{"dev", "etc", "etc/hosts", "etc/resolv.conf", "proc", "sys"}, left: []string{"dev", "proc", "sys"}, packed: []string{"dev/", "proc/", "sys/"}},
		{name: "parents go too", base: base, targets: []Target{{Path: "/a/b/c"}, {Path: "/a/b/d/f", File: true}}, made: []string{"a", "a/b", "a/b/c", "a/b/d", "a/b/d/f"}},
		{name: "through links", base: base, targets: []Target{{Path: "/run/secrets/x", File: true}, {Path: "/dangling/z"}, {Path: "/out"}}, made: []string{"far", "far/away", "far/away/z", "tmp", "tmp/rootfs-stub", "var", "var/run", "var/run/secrets", "var/run/secrets/x"}, left: []string{"var"}},
		{name: "below each other", base: base, targets: []Target{{Path: "/dev", Keep: true}, {Path: "/dev/x"}, {Path: "/c"}, {Path: "/c/d"}}, made: []string{"c", "dev"}},
		{name: "there already", base: base, targets: []Target{{Path: "/etc"}, {Path: "/resolv", File: true}}},
		{name: "filled", base: base, targets: []Target{{Path: "/a/b"}}, made: []string{"a", "a/b"}, during: func(in func(string) string) error { return os.WriteFile(in("a/new"), nil, 0o644) }, left: []string{"a", "a/new"}, packed: []string{"a/", "a/new"}},
		{name: "replaced", base: base, targets: []Target{{Path: "/a/f", File: true}, {Path: "/b"}}, made: []string{"a", "a/f", "b"}, during: func(in func(string) string) error {
			return errors.Join(os.Rename(in("a"), in("moved")), os.Mkdir(in("a"), 0o755), os.WriteFile(in("a/f"), nil, 0o600), os.Remove(in("b")), os.Symlink("/etc", in("b")))
		}, left: []string{"a", "a/f", "b", "moved", "moved/f"}, packed: []string{"a/", "a/f", "b", "moved/", "moved/f"}},
		{name: "link out", base: base, targets: []Target{{Path: "/a/f", File: true}}, made: []string{"a", "a/f"}, during: func(in func(string) string) error {
			return errors.Join(os.RemoveAll(in("a")), os.Symlink("/tmp", in("a")))
		}, left: []string{"a"}, packed: []string{"a"}},
		{name: "removed", base: base, targets: []Target{{Path: "/a/f", File: true}}, made: []string{"a", "a/f"}, during: func(in func(string) string) error { return os.RemoveAll(in("a")) }},
		{name: "file for a directory", base: base, targets: []Target{{Path: "/etc", File: true}}, err: true},
		{name: "directory for a file", base: base, targets: []Target{{Path: "/made"}, {Path: "/resolv"}}, err: true},
		{name: "below a file", base: base, targets: []Target{{Path: "/resolv/x"}}, err: true},
		{name: "root", base: base, targets: []Target{{Path: "/var/.."}}, err: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b blobs
			dirs, err := (&Layers{Dir: filepath.Join(t.TempDir(), "layers")}).Ensure(t.Context(), []Layer{b.add(c.base)}, b.open)
			if err != nil {
				t.Fatal(err)
			}
			top := t.TempDir()
			at := func(s string) string { return filepath.Join(top, s) }
			s := Stack{dirs}
			if err := errors.Join(s.NewUpper(at("up")), os.Mkdir(at("m"), 0o755)); err != nil {
				t.Fatal(err)
			}
			find := func() []string { return paths(t, []string{at("up")}) }
			stubs, err := s.Stubs(t.Context(), at("up"), c.targets, layer.Maker{})
			if (err != nil) != c.err {
				t.Fatalf("error %v, want one: %v", err, c.err)
			}
			if err != nil {
				if got := find(); len(got) > 0 {
					t.Errorf("left after an error: %q", got)
				}
				return
			}
			if got := find(); !slices.Equal(got, c.made) {
				t.Errorf("made %q, want %q", got, c.made)
			}
			if err := s.Mount(t.Context(), at("m"), at("up"), at("w")); err != nil {
				t.Fatal(err)
			}
			for i, p := range stubs.Paths {
				if stubs.below(i) {
					continue
				}
				if st, err := os.Lstat(at("m" + p)); err != nil || st.IsDir() == c.targets[i].File {
					t.Errorf("%s: %v, %v", p, st, err)
				}
			}
			if c.during != nil {
				if err := c.during(func(p string) string { return at("m/" + p) }); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(Unmount(at("m")), stubs.Remove(t.Context()), stubs.Remove(t.Context())); err != nil {
				t.Fatal(err)
			}
			if got := find(); !slices.Equal(got, c.left) {
				t.Errorf("left %q, want %q", got, c.left)
			}
			if got := names(t, archiveOf(t, at("up"), dirs)); !slices.Equal(got, c.packed) {
				t.Errorf("packed %q, want %q", got, c.packed)
			}
		})
	}
}

// A stub in the place of a whiteout hides what the whiteout hid, and gives way
// to it again.
func TestStubsOverWhiteouts(t *testing.T) {
	low, up := t.TempDir(), t.TempDir()
	os.MkdirAll(filepath.Join(low, "d/below"), 0o755)
	if err := unix.Mknod(filepath.Join(up, "d"), unix.S_IFCHR, 0); err != nil {
		t.Skipf("needs to make whiteouts: %v", err)
	}
	s := Stack{[]string{low}}
	stubs, err := s.Stubs(t.Context(), up, []Target{{Path: "/d/x"}}, layer.Maker{})
	if err != nil {
		t.Fatal(err)
	}
	if got := paths(t, []string{up, low}); !slices.Equal(got, []string{"d", "d/x"}) {
		t.Errorf("shows %q", got)
	}
	if err := stubs.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := shapeOf(t, []string{up, low}); len(got) != 1 {
		t.Errorf("shows %q", got)
	}
}
