package copier_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/buildctx"
	"kaniko-build/executor/internal/copier"
	"kaniko-build/executor/internal/layer"
	"kaniko-build/executor/internal/tree"
)

// place copies with the defaults of a COPY of one source.
func place(t *testing.T, src, base, upper, from, to string, m copier.Maker, owners map[string][2]uint32) error {
	t.Helper()
	tr := openDir(t, src)
	items, err := copier.Find(t.Context(), tr, copier.Select{Patterns: []string{from}})
	if err != nil {
		return err
	}
	return copier.Place(t.Context(), tr, items, openDir(t, base), upper, copier.Placement{Dest: to, Make: m, Owners: owners})
}

// three makes a base, a source and an upper.
func three(t *testing.T, base, src []string) (string, string, string) {
	t.Helper()
	top := tempDir(t)
	var out [3]string
	for i, n := range []string{"base", "src", "upper"} {
		out[i] = filepath.Join(top, n)
		if err := os.Mkdir(out[i], 0o755); err != nil {
			t.Fatal(err)
		}
	}
	grow(t, out[0], base)
	grow(t, out[1], src)
	return out[0], out[1], out[2]
}

func TestPlaceKeepsHardLinksOfOneSource(t *testing.T) {
	needRoot(t)
	base, src, upper := three(t, nil, []string{"d d 0755 0:0", "f d/a 0640 7:8 x", "d d/s 0755 0:0", "h d/s/b d/a", "h out d/a"})
	if err := place(t, src, base, upper, "d", "/t", layer.Maker{}, nil); err != nil {
		t.Fatal(err)
	}
	if err := place(t, src, base, upper, "out", "/t/c", layer.Maker{}, nil); err != nil {
		t.Fatal(err)
	}
	var st [3]unix.Stat_t
	for i, n := range []string{"t/a", "t/s/b", "t/c"} {
		if err := unix.Lstat(filepath.Join(upper, n), &st[i]); err != nil {
			t.Fatal(err)
		}
	}
	if st[0].Ino != st[1].Ino || st[0].Nlink != 2 || st[2].Nlink != 1 {
		t.Errorf("inodes %d %d %d, links %d %d: want the first two to be one file", st[0].Ino, st[1].Ino, st[2].Ino, st[0].Nlink, st[2].Nlink)
	}
}

func TestPlaceKeepsTimesToTheNanosecondAndBefore1970(t *testing.T) {
	needRoot(t)
	base, src, upper := three(t, nil, []string{"d d 0755 0:0", "f d/a 0644 0:0 x", "l d/l a", "d d/s 0755 0:0"})
	want := map[string]time.Time{"a": time.Unix(-86400, 123456789), "l": time.Unix(-1, 1), "s": time.Unix(4102444800, 999999999)}
	for n, w := range want {
		ts := unix.Timespec{Sec: w.Unix(), Nsec: int64(w.Nanosecond())}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(src, "d", n), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			t.Fatal(err)
		}
	}
	if err := place(t, src, base, upper, "d", "/t", layer.Maker{}, nil); err != nil {
		t.Fatal(err)
	}
	for n, w := range want {
		e, err := openDir(t, upper).Lstat(t.Context(), "t/"+n)
		if err != nil || !e.ModTime.Equal(w) {
			t.Errorf("%s: %v, %v, want %v", n, e.ModTime, err, w)
		}
	}
}

func TestPlaceKeepsCapabilitiesOverTheChangeOfOwner(t *testing.T) {
	needRoot(t)
	base, src, upper := three(t, nil, []string{"f f 0755 0:0 x"})
	capability := []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	if err := unix.Lsetxattr(filepath.Join(src, "f"), "security.capability", capability, 0); err != nil {
		t.Skipf("needs file capabilities: %v", err)
	}
	tr := openDir(t, src)
	items, err := copier.Find(t.Context(), tr, copier.Select{Patterns: []string{"f"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := copier.Place(t.Context(), tr, items, openDir(t, base), upper, copier.Placement{Dest: "/f", Owner: &[2]uint32{7, 8}, Make: layer.Maker{}}); err != nil {
		t.Fatal(err)
	}
	x, err := openDir(t, upper).Xattrs(t.Context(), "f")
	if err != nil || !bytes.Equal(x["security.capability"], capability) {
		t.Errorf("capability %x, %v, want %x", x["security.capability"], err, capability)
	}
}

func TestPlaceCopiesLargeAndSparseFiles(t *testing.T) {
	base, src, upper := three(t, nil, nil)
	f, err := os.Create(filepath.Join(src, "big"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(200 << 20); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{0, 90<<20 + 17, 200<<20 - 3} {
		if _, err := f.WriteAt([]byte("abc"), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := place(t, src, base, upper, "big", "/big", layer.Maker{}, nil); err != nil {
		t.Fatal(err)
	}
	var a, b unix.Stat_t
	if err := unix.Stat(filepath.Join(src, "big"), &a); err != nil {
		t.Fatal(err)
	}
	if err := unix.Stat(filepath.Join(upper, "big"), &b); err != nil {
		t.Fatal(err)
	}
	if a.Size != b.Size || b.Blocks > 2*a.Blocks+64 {
		t.Errorf("size %d and %d blocks, want %d and about %d", b.Size, b.Blocks, a.Size, a.Blocks)
	}
	if !sameContent(t, filepath.Join(src, "big"), filepath.Join(upper, "big")) {
		t.Error("the content differs")
	}
}

func sameContent(t *testing.T, a, b string) bool {
	t.Helper()
	sum, err := buildctx.OpenHasher("")
	if err != nil {
		t.Fatal(err)
	}
	var s [2]string
	for i, p := range []string{a, b} {
		if s[i], err = sum.Hash(t.Context(), openDir(t, filepath.Dir(p)), filepath.Base(p), tree.Entry{Mode: unix.S_IFREG}); err != nil {
			t.Fatal(err)
		}
	}
	return s[0] == s[1]
}

// TestPlaceRecordsOwnersThatAreNotMapped is userns-single: only id 0 is real.
func TestPlaceRecordsOwnersThatAreNotMapped(t *testing.T) {
	needRoot(t)
	base, src, upper := three(t, []string{"d g 2755 5:6"}, []string{"d d 0755 0:0", "f d/f 4750 7:8 x", "l d/l f", "p d/p 0600", "d d/s 0700 9:9", "c d/c 0600 1:3"})
	if err := os.Lchown(filepath.Join(src, "d/l"), 7, 8); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(filepath.Join(src, "d/p"), 3, 4); err != nil {
		t.Fatal(err)
	}
	owners := map[string][2]uint32{}
	if err := place(t, src, base, upper, "d", "/g/t", layer.Maker{IDs: layer.IDRange(1)}, owners); err != nil {
		t.Fatal(err)
	}
	tr := openDir(t, upper)
	for name, want := range map[string]string{
		"g": "d 2755 5:6 now", "g/t": "d 2755 0:6 old", "g/t/f": "f 4750 7:8 old x", "g/t/s": "d 0700 9:9 old", "g/t/c": "c 0600 0:0 old 1:3",
	} {
		if got := look(t, tr, name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if len(owners) != 2 || owners["g/t/l"] != [2]uint32{7, 8} || owners["g/t/p"] != [2]uint32{3, 4} {
		t.Errorf("owners that could not be kept: %v", owners)
	}
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(upper, "g/t/f"), &st); err != nil || st.Uid != 0 || st.Gid != 0 {
		t.Errorf("on disk the owner is %d:%d, %v", st.Uid, st.Gid, err)
	}
	// What takes the link's place is not kept under its name.
	grow(t, src, []string{"f plain 0644 0:0 y"})
	if err := place(t, src, base, upper, "plain", "/g/t/l2", layer.Maker{IDs: layer.IDRange(1)}, owners); err != nil {
		t.Fatal(err)
	}
	grow(t, src, []string{"d e 0755 0:0", "f e/l 0644 0:0 z"})
	if err := place(t, src, base, upper, "e", "/g/t", layer.Maker{IDs: layer.IDRange(1)}, owners); err != nil {
		t.Fatal(err)
	}
	if _, ok := owners["g/t/l"]; ok {
		t.Error("a file that replaced a link has the link's owner")
	}
}

func TestMkdirs(t *testing.T) {
	needRoot(t)
	base, _, upper := three(t, []string{"d a 0700 5:6", "l ln /a", "f file 0644 0:0 x", "d g 2775 5:6"}, nil)
	when := time.Unix(1_200_000_000, 123_456_789)
	m := layer.Maker{}
	for _, mask := range []int{0o022, 0o077} {
		oldMask := unix.Umask(mask)
		defer unix.Umask(oldMask)
		for path, owner := range map[string]*[2]uint32{"/ln/b/c": {7, 9}, "/a": {1, 1}, "/g/x": nil} {
			if err := copier.Mkdirs(t.Context(), openDir(t, base), upper, path, owner, &when, m); err != nil {
				t.Fatal(err)
			}
		}
	}
	sameAsKernel(t, []string{upper, base})
	tr := openDir(t, upper)
	for name, want := range map[string]string{"a": "d 0700 5:6 now", "a/b": "d 0755 7:9 now", "a/b/c": "d 0755 7:9 old", "g/x": "d 2755 0:6 old", "ln": "absent"} {
		if got := look(t, tr, name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	err := copier.Mkdirs(t.Context(), openDir(t, base), upper, "/file/x", nil, nil, m)
	if err == nil || !strings.Contains(err.Error(), "mkdir /file: not a directory") {
		t.Errorf("below a file: %v", err)
	}
}

// TestMkdirsOfWhatIsThereChangesNothing: such a WORKDIR makes an empty layer.
func TestMkdirsOfWhatIsThereChangesNothing(t *testing.T) {
	base, _, upper := three(t, []string{"d a 0755 0:0"}, nil)
	if err := copier.Mkdirs(t.Context(), openDir(t, base), upper, "/a/", nil, nil, layer.Maker{}); err != nil {
		t.Fatal(err)
	}
	if got := names(t, openDir(t, upper)); len(got) != 0 {
		t.Errorf("upper holds %q", got)
	}
}

// TestSourcesAndDestinationsCannotLeadOut copies through links and names that
// point at a secret beside the trees.
func TestSourcesAndDestinationsCannotLeadOut(t *testing.T) {
	needRoot(t)
	base, src, upper := three(t, []string{"l out ../../secret", "l dir ../..", "d t 0755 0:0", "l t/f ../../../secret"},
		[]string{"f f 0644 0:0 x", "l s ../secret", "l up ..", "d d 0755 0:0", "f d/f 0644 0:0 y", "d e 0755 0:0", "l e/out ../../secret"})
	secret := filepath.Join(filepath.Dir(src), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, abs := range []string{"abs", "t/abs"} {
		if err := os.Symlink(secret, filepath.Join(base, abs)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ from, to string }{
		{"s", "/x"}, {"up/secret", "/x"}, {"../secret", "/x"}, {"f", "/out"}, {"f", "/dir/secret"}, {"f", "/dir/../../secret"},
		{"f", "/abs"}, {"f", "/../../secret"}, {"d", "/t"}, {"f", "/t/abs"}, {"e", "/t"}, {"f", "/t/out"},
	} {
		t.Run(c.from+" "+c.to, func(t *testing.T) {
			err := place(t, src, base, upper, c.from, c.to, layer.Maker{}, nil)
			b, rerr := os.ReadFile(secret)
			if rerr != nil || string(b) != "secret" {
				t.Fatalf("the file outside is now %q, %v", b, rerr)
			}
			if got := look(t, openDir(t, upper), "x"); strings.Contains(got, "secret") {
				t.Errorf("copied from outside: %s, %v", got, err)
			}
		})
	}
	if got, err := os.ReadDir(filepath.Dir(src)); err != nil || len(got) != 4 {
		t.Errorf("beside the trees there are now %v, %v", got, err)
	}
}

func TestPlaceEndsWhenCancelled(t *testing.T) {
	base, src, upper := three(t, nil, []string{"f f 0644 0:0 x"})
	tr := openDir(t, src)
	items, err := copier.Find(t.Context(), tr, copier.Select{Patterns: []string{"f"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := contextWithCause()
	cancel(errStop)
	if err := copier.Place(ctx, tr, items, openDir(t, base), upper, copier.Placement{Dest: "/f", Make: layer.Maker{}}); err != errStop {
		t.Errorf("error %v, want the cause", err)
	}
}

func TestLookupOwner(t *testing.T) {
	dir := tempDir(t)
	grow(t, dir, []string{"d etc 0755 0:0", "d real 0755 0:0", "f real/passwd 0644 0:0 root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n4242:x:7:7:::\ntwin:x:1000:5::/home/twin:/bin/sh\n",
		"f etc/group 0644 0:0 tape:x:26:\napp:x:1001:\nmany:x:50:app,other\nmore:x:51:app\n", "l etc/passwd /real/passwd"})
	tr := openDir(t, dir)
	for spec, want := range map[string]string{
		"": "<nil>", "app": "&[1000 1001]", "app:tape": "&[1000 26]", "7": "&[7 7]", "7:8": "&[7 8]", ":8": "&[0 8]", "4242": "&[4242 4242]",
		"root": "&[0 0]", "root:app": "&[0 1001]", "nobody": "&[0 0]", "app:none": "&[1000 1001]", "app:": "&[1000 0]", "7:": "&[7 0]", "0:tape": "&[0 26]",
	} {
		got, err := copier.LookupOwner(t.Context(), tr, spec)
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("LookupOwner(%q) = %v, %v, want %s", spec, got, err, want)
		}
	}
	for spec, want := range map[string]string{
		"": "{0 0 [0] /root}", "app": "{1000 1001 [1001 50 51] /home/app}", "app:tape": "{1000 26 [26] /home/app}", "1000": "{1000 1001 [1001 50 51] /home/app}",
		"twin": "{1000 5 [5] /home/app}", "7": "{7 7 [7] }", // the home is that of the number, and may be empty
		"5": "{5 0 [0] /}", "5:6": "{5 6 [6] /}", "1000:6": "{1000 6 [6] /home/app}", "5:tape": "{5 26 [26] /}", "root:root": "{0 0 [0] /root}",
	} {
		got, err := copier.LookupUser(t.Context(), tr, spec)
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("LookupUser(%q) = %v, %v, want %s", spec, got, err, want)
		}
	}
	for _, spec := range []string{"nobody", "app:nogroup", "5:nogroup"} {
		if _, err := copier.LookupUser(t.Context(), tr, spec); err == nil || !strings.Contains(err.Error(), "unable to find") {
			t.Errorf("LookupUser(%q): %v", spec, err)
		}
	}
	if got, err := copier.LookupUser(t.Context(), copier.Empty, ""); err != nil || fmt.Sprint(got) != "{0 0 [0] /}" {
		t.Errorf("in an empty tree: %v, %v", got, err)
	}
}

func TestParseChmodRefuses(t *testing.T) {
	for _, s := range []string{"8", "10000", "0999", "u+q", "rwx", "u=rw,", "-1"} {
		if m, err := copier.ParseChmod(s); err == nil {
			t.Errorf("ParseChmod(%q) = %v", s, m)
		}
	}
}

// TestKeyLines changes one thing at a time.
func TestKeyLines(t *testing.T) {
	needRoot(t)
	plain := []string{"d d 0755 0:0", "f d/a 0644 1:1 x", "f d/b 0644 1:1 y", "l d/l a", "d d/s 0755 0:0", "p d/p 0600", "c d/c 0600 1:3"}
	key := func(lines []string, owned bool) []string {
		dir := tempDir(t)
		grow(t, dir, lines)
		h, err := buildctx.OpenHasher("")
		if err != nil {
			t.Fatal(err)
		}
		tr := openDir(t, dir)
		items, err := copier.Find(t.Context(), tr, copier.Select{Patterns: []string{"d"}})
		if err != nil {
			t.Fatal(err)
		}
		out, err := copier.KeyLines(t.Context(), tr, items, owned, h.Hash)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	first := key(plain, false)
	if again := key(plain, false); !slices.Equal(first, again) {
		t.Errorf("two directories with the same content: %q and %q", first, again)
	}
	replace := func(old string, with ...string) []string {
		i := slices.Index(plain, old)
		return slices.Concat(plain[:i], with, plain[i+1:])
	}
	for what, lines := range map[string][]string{
		"content":         replace("f d/a 0644 1:1 x", "f d/a 0644 1:1 z"),
		"name":            replace("f d/a 0644 1:1 x", "f d/A 0644 1:1 x"),
		"mode":            replace("f d/a 0644 1:1 x", "f d/a 0600 1:1 x"),
		"owner":           replace("f d/a 0644 1:1 x", "f d/a 0644 2:1 x"),
		"target":          replace("l d/l a", "l d/l b"),
		"type":            replace("l d/l a", "f d/l 0777 0:0 a"),
		"mode below":      replace("d d/s 0755 0:0", "d d/s 0700 0:0"),
		"an empty folder": append(slices.Clone(plain), "d d/e 0755 0:0"),
		"device":          replace("c d/c 0600 1:3", "c d/c 0600 1:5"),
		"attribute":       append(slices.Clone(plain), "x d/a user.note=v"),
		"attribute of it": append(slices.Clone(plain), "x d/s user.note=v"),
		"hard link":       replace("f d/b 0644 1:1 y", "h d/b d/a"),
	} {
		if got := key(lines, false); slices.Equal(got, first) {
			t.Errorf("another %s gives the same key", what)
		}
	}
	for what, lines := range map[string][]string{
		"mode of the top":   replace("d d 0755 0:0", "d d 0700 7:7"),
		"link from outside": append(slices.Clone(plain), "h out d/a"),
	} {
		if got := key(lines, false); !slices.Equal(got, first) {
			t.Errorf("another %s gives another key: %q, not %q", what, got, first)
		}
	}
	if !slices.Equal(key(plain, true), key(replace("f d/a 0644 1:1 x", "f d/a 0644 2:1 x"), true)) {
		t.Error("with --chown the owner is part of the key")
	}
	// Names that spell what other lines are.
	a := key([]string{"d d 0755 0:0", "f d/a\" 0644 0:0 x"}, false)
	if len(a) != 2 || strings.Count(strings.Join(a, "\n"), "\n") != 1 {
		t.Errorf("lines %q", a)
	}
}
