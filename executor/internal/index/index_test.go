package index

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

const id = digest.Digest("sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")

func archive(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		body := h.Uname // the test's own place for it
		h.Uname = ""
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1_600_000_000, 0)
		}
		h.Format = tar.FormatPAX
		h.Size = max(h.Size, int64(len(body)))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// list is everything that an index says.
func list(x *Index) []string {
	var out []string
	var walk func(dir string)
	one := func(name string) {
		e, _ := x.Lookup(name)
		c, kept := x.Content(name)
		out = append(out, fmt.Sprintf("%s %+v %q %q %v", name, e, x.Xattrs(name), c, kept))
		if e.IsDir() {
			walk(name)
		}
	}
	walk = func(dir string) {
		for _, base := range x.Names(dir) {
			one(path.Join(dir, base))
		}
	}
	one("")
	return append(out, fmt.Sprint(x.Len(), x.Outside()))
}

func everything(t testing.TB) []byte {
	return archive(t,
		tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755},
		tar.Header{Name: "etc/passwd", Mode: 0o644, Uname: "root:x:0:0:::\n"},
		tar.Header{Name: "etc/group", Mode: 0o644},
		tar.Header{Name: "usr/bin/sudo", Mode: 0o4755, Uname: "elf", Uid: 4_000_000_000, PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02", "SCHILY.xattr.user.overlay.opaque": "y", "SCHILY.xattr.trusted.x": "y"}},
		tar.Header{Name: "usr/bin/edit", Typeflag: tar.TypeLink, Linkname: "usr/bin/sudo", Mode: 0o4711},
		tar.Header{Name: "bin", Typeflag: tar.TypeSymlink, Linkname: "usr/bin"},
		tar.Header{Name: "bin/more\xff", Mode: 0o600, ModTime: time.Unix(-5, 7)},
		tar.Header{Name: "dev/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666},
		tar.Header{Name: "dev/none", Typeflag: tar.TypeChar},
		tar.Header{Name: "pipe", Typeflag: tar.TypeFifo},
		tar.Header{Name: "old/.wh.gone"},
		tar.Header{Name: "new/.wh..wh..opq"},
	)
}

func TestScan(t *testing.T) {
	x, err := Scan(t.Context(), bytes.NewReader(everything(t)))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]func(e Entry) bool{
		"etc":              func(e Entry) bool { return e.IsDir() && !e.Implicit && e.ModTime.Unix() == 1_600_000_000 },
		"usr":              func(e Entry) bool { return e.Implicit && e.Mode == unix.S_IFDIR|0o755 && e.ModTime.IsZero() },
		"usr/bin/sudo":     func(e Entry) bool { return e.Perm() == 0o4711 && e.Nlink == 2 },
		"usr/bin/more\xff": func(e Entry) bool { return e.ModTime.Equal(time.Unix(-5, 7)) },
		"bin":              func(e Entry) bool { return e.Link == "usr/bin" && e.Size == 7 },
		"dev/null":         func(e Entry) bool { return e.Type() == unix.S_IFCHR && e.Rdev == unix.Mkdev(1, 3) },
		"dev/none":         func(e Entry) bool { return e.IsRegular() && e.Size == 0 },
		"old/gone":         func(e Entry) bool { return e.Whiteout },
		"new":              func(e Entry) bool { return e.Opaque },
	}
	for name, ok := range want {
		if e, found := x.Lookup(name); !found || !ok(e) {
			t.Errorf("%s: %+v, %v", name, e, found)
		}
	}
	a, _ := x.Lookup("usr/bin/sudo")
	b, _ := x.Lookup("usr/bin/edit")
	if a.Ino == 0 || a.Ino != b.Ino {
		t.Errorf("hard links: %+v and %+v", a, b)
	}
	if c, ok := x.Content("etc/passwd"); !ok || string(c) != "root:x:0:0:::\n" {
		t.Errorf("content of etc/passwd: %q, %v", c, ok)
	}
	if c, ok := x.Content("etc/group"); !ok || len(c) != 0 {
		t.Errorf("content of an empty file: %q, %v", c, ok)
	}
	if _, ok := x.Content("usr/bin/sudo"); ok {
		t.Error("content is kept of a file that nobody looks into")
	}
	if got := x.Xattrs("usr/bin/sudo"); len(got) != 1 || string(got["security.capability"]) != "\x01\x00\x00\x02" {
		t.Errorf("attributes: %q", got)
	}
	if got := x.Names(""); !slices.Equal(got, []string{"bin", "dev", "etc", "new", "old", "pipe", "usr"}) {
		t.Errorf("names of the root: %q", got)
	}
}

func TestEncodeAndDecode(t *testing.T) {
	x, err := Scan(t.Context(), bytes.NewReader(everything(t)))
	if err != nil {
		t.Fatal(err)
	}
	b := x.Encode(id)
	y, err := Decode(b, id)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := list(y), list(x); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if again := y.Encode(id); !bytes.Equal(again, b) {
		t.Error("the bytes are others after a round trip")
	}
	if _, err := Decode(b, "sha256:"+digest.Digest(strings.Repeat("0", 64))); err == nil {
		t.Error("taken for the index of another layer")
	}
	for n := 0; n < len(b); n += 3 { // whatever is cut off or changed is noticed
		if _, err := Decode(b[:n], id); err == nil {
			t.Fatalf("the first %d of %d bytes are taken", n, len(b))
		}
		bad := slices.Clone(b)
		bad[n] ^= 0x10
		if z, err := Decode(bad, id); err == nil && !slices.Equal(list(z), list(x)) {
			t.Fatalf("with byte %d changed it says something else", n)
		}
	}
}

func TestScanLimits(t *testing.T) {
	long := strings.Repeat("n", 256)
	for what, h := range map[string]tar.Header{
		"name":      {Name: long},
		"path":      {Name: strings.Repeat("d/", 2100) + "f"},
		"link":      {Name: "l", Typeflag: tar.TypeSymlink, Linkname: strings.Repeat("d/", 2100)},
		"no parent": {Name: "f/x"},
		"itself":    {Name: "h", Typeflag: tar.TypeLink, Linkname: "/"},
		"whiteout":  {Name: ".wh."},
	} {
		if _, err := Scan(t.Context(), bytes.NewReader(archive(t, tar.Header{Name: "f"}, h))); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	big := archive(t, tar.Header{Name: "etc/passwd", Uname: strings.Repeat("x", maxContent+1)})
	x, err := Scan(t.Context(), bytes.NewReader(big))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := x.Content("etc/passwd"); ok {
		t.Error("a large file is kept")
	}
	var many []tar.Header
	for i := range 220 {
		many = append(many, tar.Header{Name: fmt.Sprint(i, strings.Repeat("/d", 1900))})
	}
	if _, err := Scan(t.Context(), bytes.NewReader(archive(t, many...))); !errors.Is(err, ErrTooLarge) {
		t.Errorf("very many names: %v", err)
	}
}

func TestWriter(t *testing.T) {
	b := everything(t)
	w := NewWriter(t.Context())
	for part := range slices.Chunk(b, 700) {
		if _, err := w.Write(part); err != nil {
			t.Fatal(err)
		}
	}
	x, err := w.Index()
	if err != nil {
		t.Fatal(err)
	}
	y, err := Scan(t.Context(), bytes.NewReader(b))
	if err != nil || !slices.Equal(list(x), list(y)) {
		t.Errorf("it is not what Scan makes: %v", err)
	}
	bad := NewWriter(t.Context())
	for range 1000 {
		if _, err := bad.Write(bytes.Repeat([]byte("no tar "), 100)); err != nil {
			t.Fatalf("a write fails: %v", err)
		}
	}
	if _, err := bad.Index(); err == nil {
		t.Error("an index of no tar")
	}
}

func FuzzDecode(f *testing.F) {
	x, err := Scan(f.Context(), bytes.NewReader(everything(f)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(plainOf(f, x)))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &reader{s: string(b)}
		x, err := r.index()
		if err != nil {
			return
		}
		for _, s := range list(x) { // ends, and has no name that leads elsewhere
			if strings.HasPrefix(s, "/") || strings.Contains(s, "/../") {
				t.Fatal(s)
			}
		}
		y, err := Decode(x.Encode(id), id)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(list(x), list(y)) {
			t.Fatalf("got  %q\nwant %q", list(y), list(x))
		}
	})
}

func FuzzScan(f *testing.F) {
	f.Add(everything(f))
	f.Add(archive(f, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "l/../l"}, tar.Header{Name: "l/x"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := Scan(t.Context(), bytes.NewReader(b))
		if err != nil {
			return
		}
		if _, err := Decode(x.Encode(id), id); err != nil {
			t.Fatal(err)
		}
	})
}

// plainOf is an encoding before it is compressed.
func plainOf(t testing.TB, x *Index) string {
	t.Helper()
	return string(x.plain())
}

func BenchmarkSmall(b *testing.B) {
	raw := everything(b)
	for b.Loop() {
		x, err := Scan(b.Context(), bytes.NewReader(raw))
		if err != nil {
			b.Fatal(err)
		}
		x.Encode(id)
	}
}

func BenchmarkDecode(b *testing.B) {
	var raw bytes.Buffer
	w := tar.NewWriter(&raw)
	for d := range 1000 {
		for f := range 100 {
			h := &tar.Header{Name: fmt.Sprintf("usr/lib/directory-%d/file-%d.so", d, f), Size: 0, Mode: 0o644, ModTime: time.Unix(int64(1e9+d*f), 0), Typeflag: tar.TypeReg}
			if err := w.WriteHeader(h); err != nil {
				b.Fatal(err)
			}
		}
	}
	w.Close()
	x, err := Scan(b.Context(), &raw)
	if err != nil {
		b.Fatal(err)
	}
	enc := x.Encode(id)
	b.ReportMetric(float64(len(enc)), "bytes")
	for b.Loop() {
		if _, err := Decode(enc, id); err != nil {
			b.Fatal(err)
		}
	}
}
