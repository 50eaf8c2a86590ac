package image

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
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/store"
)

// files reads a tar as "name" -> what is there: a mode and the data, -> target,
// or = first name.
func files(t *testing.T, b []byte) map[string]string {
	t.Helper()
	out := map[string]string{}
	r := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(h.Name, "/")
		if _, twice := out[name]; twice {
			t.Errorf("%s is there twice", name)
		}
		if dir := filepath.Dir(name); dir != "." && out[dir] == "" {
			t.Errorf("%s comes before its directory", name)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		switch h.Typeflag {
		case tar.TypeSymlink:
			out[name] = "-> " + h.Linkname
		case tar.TypeLink:
			if out[h.Linkname] == "" {
				t.Errorf("%s comes before its target", name)
			}
			out[name] = "= " + h.Linkname
		default:
			out[name] = fmt.Sprintf("%c%o %s", h.Typeflag, h.Mode, data)
		}
	}
}

func TestFlatten(t *testing.T) {
	for _, c := range []struct {
		name   string
		layers [][]file
		want   map[string]string
	}{
		{
			"later layers win",
			[][]file{{dir("d", 0o755), reg("d/a", "1"), reg("d/b", "1")}, {dir("d", 0o700), reg("d/a", "2")}},
			map[string]string{"d": "5700 ", "d/a": "0644 2", "d/b": "0644 1"},
		},
		{
			"whiteouts, wherever they stand in their layer",
			[][]file{{dir("d", 0o755), reg("d/a", "1"), reg("d/b", "1"), reg("e", "1")}, {reg("d/a", "2"), reg("d/.wh.a", ""), reg("d/.wh.b", ""), reg(".wh.e", ""), reg(".wh.absent", ""), reg("no/such/.wh.x", "")}},
			map[string]string{"d": "5755 ", "d/a": "0644 2"},
		},
		{
			"opaque directories keep what their layer brings",
			[][]file{{dir("d", 0o755), reg("d/a", "1"), dir("d/s", 0o755), reg("d/s/x", "1"), reg("d/s/y", "1")}, {reg("d/s/x", "2"), reg("d/.wh..wh..opq", "")}},
			map[string]string{"d": "5755 ", "d/s": "5755 ", "d/s/x": "0644 2"},
		},
		{
			"types change",
			[][]file{{reg("a", "file"), dir("b", 0o755), reg("b/x", "1"), sym("c", "b")}, {dir("a", 0o755), reg("a/x", "2"), reg("b", "file"), reg("c", "file")}},
			map[string]string{"a": "5755 ", "a/x": "0644 2", "b": "0644 file", "c": "0644 file"},
		},
		{
			"a hard link outlives its first name",
			[][]file{{reg("a", "data"), hard("b", "a"), hard("c", "a")}, {reg(".wh.a", "")}},
			map[string]string{"b": "0644 data", "c": "= b"},
		},
		{
			"a hard link to a lower layer",
			[][]file{{reg("a", "data")}, {hard("z", "a")}, {reg("a", "new")}},
			map[string]string{"a": "0644 new", "z": "0644 data"},
		},
		{
			"names cannot leave the tree",
			[][]file{{reg("../../etc/passwd", "x"), reg("/abs", "y"), sym("up", "../../../.."), reg("up/z", "z")}},
			map[string]string{"etc": "5755 ", "etc/passwd": "0644 x", "abs": "0644 y", "up": "-> ../../../..", "z": "0644 z"},
		},
		{
			"a path through a link of its own layer follows it, through a lower one replaces it",
			[][]file{{dir("usr/lib", 0o755), sym("lib", "usr/lib"), reg("lib/a", "1")}, {reg("lib/b", "2")}},
			map[string]string{"usr": "5755 ", "usr/lib": "5755 ", "usr/lib/a": "0644 1", "lib": "5755 ", "lib/b": "0644 2"},
		},
		{
			"the root itself is no entry",
			[][]file{{dir(".", 0o700), reg("./a", "1")}},
			map[string]string{"a": "0644 1"},
		},
		{"no layers", nil, map[string]string{}},
	} {
		s := newStore(t)
		var layers []Layer
		for i, l := range c.layers {
			layers = append(layers, makeLayer(t, s, i%2 == 0, l...))
		}
		var b, again bytes.Buffer
		if err := WriteTar(t.Context(), &b, FromStore(s), layers, nil); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := files(t, b.Bytes()); !maps.Equal(got, c.want) {
			t.Errorf("%s:\ngot  %q\nwant %q", c.name, got, c.want)
		}
		if err := WriteTar(t.Context(), &again, FromStore(s), layers, nil); err != nil || !bytes.Equal(b.Bytes(), again.Bytes()) {
			t.Errorf("%s: other bytes the second time (%v)", c.name, err)
		}
	}
}

// sparse makes a layer of one file in GNU's old sparse format, with size bytes of
// which none are sent. Go's writer does not make these.
func sparse(t *testing.T, s *store.Store, size int64) Layer {
	t.Helper()
	b := make([]byte, 1536)
	copy(b, "hole")
	copy(b[100:], "0000644\x000000000\x000000000\x0000000000000\x0000000000000\x00")
	b[156] = 'S'
	copy(b[257:], "ustar  \x00")
	number := func(at int, n int64) { // base 256
		b[at] = 0x80
		for i := range 8 {
			b[at+11-i] = byte(n >> (8 * i))
		}
	}
	number(386, size) // one piece of no bytes, at the end
	number(398, 0)
	number(483, size)
	copy(b[148:], "        ")
	sum := 0
	for _, c := range b[:512] {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	d, err := s.PutBlob(b)
	if err != nil {
		t.Fatal(err)
	}
	return Layer{Descriptor: ocispec.Descriptor{Digest: d, Size: int64(len(b))}, DiffID: d}
}

func TestFlattenRefuses(t *testing.T) {
	s := newStore(t)
	ok := makeLayer(t, s, true, reg("a", "1"))
	broken := ok
	broken.Descriptor.Size++
	b, err := s.ReadBlob(ok.Descriptor.Digest, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	half, err := s.PutBlob(b[:len(b)/2])
	if err != nil {
		t.Fatal(err)
	}
	cut := ok
	cut.Descriptor.Digest, cut.Descriptor.Size = half, int64(len(b)/2)
	for name, l := range map[string]Layer{
		"link loop":          makeLayer(t, s, false, sym("a", "b"), sym("b", "a"), reg("a/x", "1")),
		"link to nothing":    makeLayer(t, s, false, hard("a", "absent")),
		"link to directory":  makeLayer(t, s, false, dir("d", 0o755), hard("a", "d")),
		"lying size of blob": broken,
		"truncated gzip":     cut,
		"endless zeroes":     sparse(t, s, 1<<50),
		"unknown type":       makeLayer(t, s, false, file{tar.Header{Typeflag: 'Z', Name: "z"}, ""}),
	} {
		err := WriteTar(t.Context(), io.Discard, FromStore(s), []Layer{l}, nil)
		if err == nil {
			t.Errorf("%s: taken", name)
		}
		if name == "endless zeroes" && !strings.Contains(fmt.Sprint(err), "it says it has 1125899906842624 bytes") {
			t.Error(err)
		}
	}
}

func TestFlattenKeepsWhatIsSaid(t *testing.T) {
	s := newStore(t)
	l := makeLayer(t, s, true,
		file{tar.Header{Name: "su", Mode: 0o4755, Uid: 7, Gid: 8, ModTime: time.Unix(5, 500), Format: tar.FormatPAX, PAXRecords: map[string]string{
			"SCHILY.xattr.security.capability": "\x01\x00\x00\x02", "SCHILY.xattr.user.overlay.opaque": "y", "SCHILY.xattr.trusted.overlay.x": "y",
		}}, "x"},
		file{tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3, ModTime: time.Unix(2000, 0)}, ""},
		file{tar.Header{Typeflag: tar.TypeFifo, Name: "pipe", Mode: 0o600, ModTime: time.Unix(2000, 0)}, ""})
	var b bytes.Buffer
	epoch := time.Unix(1000, 0)
	if err := WriteTar(t.Context(), &b, FromStore(s), []Layer{l}, &epoch); err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(&b)
	got := map[string]*tar.Header{}
	for {
		h, err := r.Next()
		if err != nil {
			break
		}
		got[h.Name] = h
	}
	if h := got["su"]; h == nil || h.Mode != 0o4755 || h.Uid != 7 || h.Gid != 8 || !h.ModTime.Equal(time.Unix(5, 500)) || h.PAXRecords["SCHILY.xattr.security.capability"] != "\x01\x00\x00\x02" {
		t.Errorf("%+v", h)
	} else if strings.Contains(fmt.Sprint(h.PAXRecords), "overlay") {
		t.Errorf("overlay's attributes: %v", h.PAXRecords)
	}
	if h := got["null"]; h == nil || h.Devmajor != 1 || h.Devminor != 3 || !h.ModTime.Equal(epoch) {
		t.Errorf("%+v", h)
	}
	if h := got["pipe"]; h == nil || h.Typeflag != tar.TypeFifo {
		t.Errorf("%+v", h)
	}
}

func TestLocal(t *testing.T) {
	s := newStore(t)
	layers := []Layer{
		makeLayer(t, s, true, dir("ro", 0o555), reg("ro/a", "1"), reg("x", "1"), hard("y", "x"), sym("l", "/etc/passwd"), sym("evil", "../../.."),
			file{tar.Header{Name: "su", Mode: 0o4711, Uid: 7, Gid: 8, ModTime: time.Unix(5, 0)}, "s"},
			file{tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3}, ""}),
		makeLayer(t, s, false, reg("l", "no link any more")),
	}
	parent := t.TempDir()
	dest := filepath.Join(parent, "out")
	t.Cleanup(func() {
		if err := removeAll(dest); err != nil { // it has directories that we may not write
			t.Error(err)
		}
	})
	notes, err := WriteLocal(t.Context(), dest, FromStore(s), layers, nil)
	if err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		if b, err := os.ReadFile(filepath.Join(dest, "l")); string(b) != "no link any more" {
			t.Errorf("%q %v", b, err)
		}
		st, err := os.Stat(filepath.Join(dest, "ro"))
		if err != nil || st.Mode().Perm() != 0o555 || st.ModTime().Unix() != 1e9 {
			t.Errorf("%v %v", st, err)
		}
		x, err1 := os.Stat(filepath.Join(dest, "x"))
		y, err2 := os.Stat(filepath.Join(dest, "y"))
		if err1 != nil || err2 != nil || !os.SameFile(x, y) {
			t.Error("the hard link is a copy", err1, err2)
		}
		if to, err := os.Readlink(filepath.Join(dest, "evil")); to != "../../.." {
			t.Error(to, err)
		}
		su, err := os.Stat(filepath.Join(dest, "su"))
		if err != nil || su.Mode() != fs.ModeSetuid|0o711 {
			t.Errorf("%v %v", su.Mode(), err)
		}
		if os.Geteuid() == 0 && su.Sys().(*syscall.Stat_t).Uid != 7 {
			t.Errorf("%+v", su.Sys())
		}
		if list, _ := os.ReadDir(parent); len(list) != 1 {
			t.Errorf("left %v", list)
		}
	}
	check()
	if os.Geteuid() == 0 {
		if notes != nil {
			t.Error(notes)
		}
		if st, err := os.Lstat(filepath.Join(dest, "null")); err != nil || st.Mode()&fs.ModeCharDevice == 0 {
			t.Errorf("%v %v", st, err)
		}
	} else if len(notes) != 2 {
		t.Error(notes)
	}
	// Again, over what is there: other files stay, a directory where a file goes does not.
	if err := os.WriteFile(filepath.Join(dest, "mine"), []byte("m"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(filepath.Join(dest, "x")), os.MkdirAll(filepath.Join(dest, "x", "deep"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if _, err := WriteLocal(t.Context(), dest, FromStore(s), layers, nil); err != nil {
		t.Fatal(err)
	}
	check()
	if b, _ := os.ReadFile(filepath.Join(dest, "mine")); string(b) != "m" {
		t.Errorf("%q", b)
	}
	// A link that is there does not lead us out.
	outside := t.TempDir()
	if err := removeAll(filepath.Join(dest, "ro")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dest, "ro")); err != nil {
		t.Fatal(err)
	}
	if _, err := WriteLocal(t.Context(), dest, FromStore(s), layers, nil); err != nil {
		t.Fatal(err)
	}
	check()
	if list, _ := os.ReadDir(outside); len(list) != 0 {
		t.Errorf("wrote outside: %v", list)
	}
	// A failure changes nothing.
	before := tree(t, dest)
	bad := append(slices.Clone(layers), makeLayer(t, s, false, reg("new", "1"), hard("h", "absent")))
	if _, err := WriteLocal(t.Context(), dest, FromStore(s), bad, nil); err == nil {
		t.Fatal("a bad layer was taken")
	}
	if after := tree(t, dest); !slices.Equal(before, after) {
		t.Errorf("%v became %v", before, after)
	}
}

// Whatever a layer holds, the result is a tar whose names are below its root,
// each once, parents first.
func FuzzFlatten(f *testing.F) {
	s := newStore(f)
	for _, l := range [][]file{
		{dir("d", 0o755), reg("d/a", "1"), hard("d/b", "d/a"), sym("l", "d"), reg("l/x", "2"), reg("d/.wh.a", ""), reg(".wh..wh..opq", "")},
		{reg("../x", "1"), sym("a", ".."), reg("a/b", "1"), sym("loop", "loop")},
	} {
		b, err := s.ReadBlob(makeLayer(f, s, false, l...).Descriptor.Digest, 1<<20)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, b)
	}
	f.Fuzz(func(t *testing.T, one, two []byte) {
		var layers []Layer
		for _, b := range [][]byte{one, two} {
			layers = append(layers, Layer{Descriptor: ocispec.Descriptor{Digest: digest.FromBytes(b), Size: int64(len(b))}})
		}
		var out bytes.Buffer
		if err := WriteTar(t.Context(), &out, memory{one, two}, layers, nil); err != nil {
			return
		}
		for name := range files(t, out.Bytes()) {
			if !fs.ValidPath(name) && !strings.ContainsRune(name, 0xfffd) && filepath.Clean("/"+name) != "/"+name {
				t.Errorf("name %q", name)
			}
		}
	})
}

// memory is a source that has these blobs.
type memory [][]byte

func (m memory) Open(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	for _, b := range m {
		if digest.FromBytes(b) == d.Digest {
			return io.NopCloser(bytes.NewReader(b)), nil
		}
	}
	return nil, ErrNotFound
}

func tree(t *testing.T, dir string) []string {
	var out []string
	_ = filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		out = append(out, p)
		return err
	})
	return out
}

func TestLocalAsAnOrdinaryUser(t *testing.T) {
	if os.Geteuid() == 0 {
		rerunAs(t, 65534)
		return
	}
	TestLocal(t)
}

// Memory must not grow with the size of the files.
func BenchmarkWriteTar(b *testing.B) {
	s := benchStore(b)
	var fl []file
	for i := range 5000 {
		fl = append(fl, reg(fmt.Sprintf("d%d/f%d", i%50, i), strings.Repeat("x", 4000)))
	}
	l := makeLayer(b, s, true, fl...)
	b.SetBytes(5000 * 4000)
	b.ReportAllocs()
	for b.Loop() {
		if err := WriteTar(b.Context(), io.Discard, FromStore(s), []Layer{l}, nil); err != nil {
			b.Fatal(err)
		}
	}
}
