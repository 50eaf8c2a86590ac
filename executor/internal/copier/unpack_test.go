package copier_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"kaniko-build/executor/internal/copier"
	"kaniko-build/executor/internal/layer"
)

var errStop = errors.New("stop")

func contextWithCause() (context.Context, context.CancelCauseFunc) {
	return context.WithCancelCause(context.Background())
}

type member struct {
	name, link, data string
	typ              byte
	mode             int64
	uid              int
	x                map[string]string
}

func pack(t testing.TB, members []member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := &tar.Header{Name: m.name, Linkname: m.link, Typeflag: m.typ, Mode: m.mode, Uid: m.uid, Gid: m.uid, Size: int64(len(m.data)), ModTime: old, Format: tar.FormatPAX, Devmajor: 1, Devminor: 3}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		for k, v := range m.x {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords["SCHILY.xattr."+k] = v
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(m.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestUnpack(t *testing.T) {
	needRoot(t)
	d, l, s := byte(tar.TypeDir), byte(tar.TypeLink), byte(tar.TypeSymlink)
	for _, c := range []struct {
		rule    string
		base    []string
		members []member
		to      string
		owner   *[2]uint32
		want    []string
		fails   string
	}{
		{rule: "owners and modes are those of the archive, missing parents are root's", to: "/t/",
			members: []member{{name: "a/b", uid: 7, mode: 0o4711, data: "x"}, {name: "d", typ: d, uid: 7, mode: 0o2750}},
			want:    []string{"t = d 0755 0:0 now", "t/a = d 0755 0:0 now", "t/a/b = f 4711 7:7 old x", "t/d = d 2750 7:7 old"}},
		{rule: "--chown is the owner of all, parents in the archive excepted", to: "/t", owner: &[2]uint32{1, 2},
			members: []member{{name: "a/b", uid: 7, data: "x"}, {name: "l", typ: s, link: "b", uid: 7}},
			want:    []string{"t = d 0755 1:2 now", "t/a = d 0755 0:0 now", "t/a/b = f 0644 1:2 old x", "t/l = l 1:2 old b"}},
		{rule: "the entry . changes nothing of the destination", base: []string{"d t 0711 3:4"}, to: "/t",
			members: []member{{name: "./", typ: d, mode: 0o700, uid: 7}, {name: "./f", data: "x"}},
			want:    []string{"t = d 0711 3:4 now", "t/f = f 0644 0:0 old x"}},
		{rule: "existing directories are merged and take what the archive says of them", base: []string{"d t 0711 3:4", "d t/s 0700 3:4", "f t/s/keep 0600 3:4 k"}, to: "/t",
			members: []member{{name: "s", typ: d, mode: 0o755, uid: 7}, {name: "s/f", data: "x"}},
			want:    []string{"t/s = d 0755 7:7 old", "t/s/keep = f 0600 3:4 old k", "t/s/f = f 0644 0:0 old x"}},
		{rule: "a file replaces a directory, and a directory then does not show what was there", base: []string{"d t 0755 0:0", "d t/s 0700 3:4", "f t/s/gone 0600 3:4 k"}, to: "/t",
			members: []member{{name: "s", data: "x"}, {name: "s", typ: d, mode: 0o755}, {name: "s/new", data: "n"}},
			want:    []string{"t/s = d 0755 0:0 old", "t/s/gone = absent", "t/s/new = f 0644 0:0 old n"}},
		{rule: "a directory replaces a link to one", base: []string{"d t 0755 0:0", "d real 0755 0:0", "l t/s /real"}, to: "/t",
			members: []member{{name: "s", typ: d, mode: 0o755}, {name: "s/f", data: "x"}},
			want:    []string{"t/s/f = f 0644 0:0 old x", "real/f = absent"}},
		{rule: "a hard link to a file of the base takes it along", base: []string{"d t 0755 0:0", "f t/f 0600 3:4 b"}, to: "/t",
			members: []member{{name: "h", typ: l, link: "f", mode: 0o640, uid: 9}},
			want:    []string{"t/f = f 0640 9:9 old b", "t/h = f 0640 9:9 old b"}},
		{rule: "a hard link to what is not there is an error", to: "/t", members: []member{{name: "h", typ: l, link: "none"}}, fails: "link /none /t/h: no such file"},
		{rule: "a hard link to a directory is an error", to: "/t", members: []member{{name: "d", typ: d, mode: 0o755}, {name: "h", typ: l, link: "d"}}, fails: "link /d /t/h: operation not permitted"},
		{rule: "links inside the destination are followed for members below them, with the destination as root", base: []string{"d t 0755 0:0", "d t/real 0755 0:0", "l t/ln /real"}, to: "/t",
			members: []member{{name: "ln/f", data: "x"}},
			want:    []string{"t/real/f = f 0644 0:0 old x", "t/ln = l 0:0 old /real"}},
		{rule: "a member below a link that leads nowhere is an error", to: "/t", members: []member{{name: "ln", typ: s, link: "nowhere"}, {name: "ln/f", data: "x"}}, fails: "open /ln: no such file"},
		{rule: "a member below a file is an error", to: "/t", members: []member{{name: "f", data: "x"}, {name: "f/g", data: "x"}}, fails: "not a directory"},
		{rule: "sparse members of GNU tar are an error in BuildKit's words", to: "/t", members: []member{{name: "f", typ: 'S'}}, fails: "unhandled tar header type 83"},
		{rule: "attributes are set, those that steer an overlay are not", to: "/t",
			members: []member{{name: "d", typ: d, mode: 0o755, x: map[string]string{"user.overlay.opaque": "y", "user.note": "n", "trusted.overlay.opaque": "y"}}},
			want:    []string{"t/d = d 0755 0:0 old"}},
		{rule: "a device and a fifo", to: "/t", members: []member{{name: "c", typ: tar.TypeChar, mode: 0o666}, {name: "p", typ: tar.TypeFifo, mode: 0o600}},
			want: []string{"t/c = c 0666 0:0 old 1:3", "t/p = p 0600 0:0 old"}},
	} {
		t.Run(c.rule, func(t *testing.T) {
			base, _, upper := three(t, c.base, nil)
			var b bytes.Buffer
			if c.members[0].typ == 'S' {
				raw := pack(t, []member{{name: "f", data: "x"}})
				h := raw[:512]
				h[156] = 'S'
				b.Write(checksummed(raw))
			} else {
				b.Write(pack(t, c.members))
			}
			err := copier.Unpack(t.Context(), &b, openDir(t, base), upper, copier.Placement{Dest: c.to, Owner: c.owner, Make: layer.Maker{Devices: true}})
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Errorf("error %v, want %q", err, c.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			sameAsKernel(t, []string{upper, base})
			result := openDir(t, mount(t, []string{upper, base}, false))
			for _, line := range c.want {
				name, want := parts(line)
				if got := look(t, result, name); got != want {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
		})
	}
}

// checksummed is a tar whose first header has its checksum made anew, as GNU
// tar's format has no place for what PAX puts there.
func checksummed(raw []byte) []byte {
	for len(raw) > 512 && (raw[156] == 'x' || raw[156] == 'g') {
		raw = raw[1024:]
	}
	h := raw[:512]
	h[156] = 'S'
	copy(h[257:265], "ustar  \x00")
	clear(h[345:512])
	copy(h[148:156], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:156], []byte{byte('0' + sum>>15&7), byte('0' + sum>>12&7), byte('0' + sum>>9&7), byte('0' + sum>>6&7), byte('0' + sum>>3&7), byte('0' + sum&7), 0, ' '})
	return raw
}

func TestUnpackBoundsTimes(t *testing.T) {
	base, _, upper := three(t, nil, nil)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "f", Mode: 0o644, ModTime: time.Unix(-100, 0), Format: tar.FormatPAX}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := copier.Unpack(t.Context(), &b, openDir(t, base), upper, copier.Placement{Dest: "/", Make: layer.Maker{}}); err != nil {
		t.Fatal(err)
	}
	if e, err := openDir(t, upper).Lstat(t.Context(), "f"); err != nil || e.ModTime.Unix() != 0 {
		t.Errorf("time %v, %v, want 1970", e.ModTime, err)
	}
}

// TestHostileArchivesStayInside unpacks archives that point at a file outside.
func TestHostileArchivesStayInside(t *testing.T) {
	s, l := byte(tar.TypeSymlink), byte(tar.TypeLink)
	up := strings.Repeat("../", 20)
	for name, members := range map[string][]member{
		"dots":                {{name: up + "secret", data: "evil"}},
		"dots in the middle":  {{name: "a/b/" + up + "secret", data: "evil"}},
		"absolute":            {{name: "/secret", data: "evil"}},
		"link up":             {{name: "l", typ: s, link: up}, {name: "l/secret", data: "evil"}},
		"link absolute":       {{name: "l", typ: s, link: "SECRET"}, {name: "l", data: "evil"}},
		"write through":       {{name: "l", typ: s, link: "SECRET"}, {name: "l/x", data: "evil"}},
		"hard link":           {{name: "l", typ: l, link: up + "secret"}, {name: "l", data: "evil"}},
		"hard link and write": {{name: "l", typ: s, link: up + "secret"}, {name: "h", typ: l, link: "l"}, {name: "h", data: "evil"}},
		"loop":                {{name: "a", typ: s, link: "b"}, {name: "b", typ: s, link: "a"}, {name: "a/secret", data: "evil"}},
		"root as file":        {{name: "..", data: "evil"}},
		"root as dots":        {{name: "../", typ: tar.TypeDir, mode: 0o777, uid: 5}, {name: up + "secret", data: "evil"}},
		"link to proc":        {{name: "p", typ: s, link: "/proc/self/root"}, {name: "p/tmp/evil", data: "evil"}},
	} {
		t.Run(name, func(t *testing.T) {
			base, _, upper := three(t, []string{"d t 0755 0:0", "l t/out ../../secret"}, nil)
			top := filepath.Dir(base)
			secret := filepath.Join(top, "secret")
			if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
				t.Fatal(err)
			}
			for i := range members {
				members[i].link = strings.ReplaceAll(members[i].link, "SECRET", secret)
			}
			err := copier.Unpack(t.Context(), bytes.NewReader(pack(t, members)), openDir(t, base), upper, copier.Placement{Dest: "/t", Make: layer.Maker{}})
			if b, rerr := os.ReadFile(secret); rerr != nil || string(b) != "secret" {
				t.Fatalf("the file outside is now %q, %v (%v)", b, rerr, err)
			}
			if st, _ := os.Stat(secret); st.Mode() != 0o600 {
				t.Errorf("the file outside has mode %v", st.Mode())
			}
			if got, err := os.ReadDir(top); err != nil || len(got) != 4 {
				t.Errorf("beside the trees there are now %v, %v", got, err)
			}
			if got := names(t, openDir(t, base)); len(got) != 2 {
				t.Errorf("the base holds %q", got)
			}
			if _, err := os.Lstat("/tmp/evil"); err == nil {
				t.Error("/tmp/evil was made")
			}
		})
	}
}

func TestIsArchive(t *testing.T) {
	whole := pack(t, []member{{name: "f", data: strings.Repeat("x", 5000)}})
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	w.Write(whole)
	w.Close()
	for name, c := range map[string]struct {
		data []byte
		want bool
	}{
		"tar": {whole, true}, "gzip": {z.Bytes(), true}, "empty": {nil, false}, "text": {[]byte("hello"), false},
		"empty tar": {make([]byte, 10240), false}, "cut header": {whole[:300], false}, "header only": {whole[:1536], true},
		"gzip magic alone": {[]byte("\x1f\x8b\x08"), false}, "xz magic alone": {[]byte("\xfd7zXZ\x00"), false}, "zstd magic alone": {[]byte("\x28\xb5\x2f\xfd"), false},
		"bzip2 magic alone": {[]byte("BZh9"), false}, "truncated gzip": {z.Bytes()[:20], false},
	} {
		if got, err := copier.IsArchive(bytes.NewReader(c.data)); err != nil || got != c.want {
			t.Errorf("%s: %v, %v, want %v", name, got, err, c.want)
		}
	}
}

// A truncated archive is an error, not a shorter tree.
func TestUnpackOfATruncatedArchiveFails(t *testing.T) {
	whole := pack(t, []member{{name: "f", data: strings.Repeat("x", 5000)}})
	base, _, upper := three(t, nil, nil)
	if err := copier.Unpack(t.Context(), bytes.NewReader(whole[:3000]), openDir(t, base), upper, copier.Placement{Dest: "/", Make: layer.Maker{}}); err == nil {
		t.Error("a truncated archive was unpacked")
	}
}

// FuzzUnpack throws bytes at Unpack: it may fail but not panic, and nothing
// appears outside.
func FuzzUnpack(f *testing.F) {
	for _, m := range [][]member{
		{{name: "a/b", data: "x"}, {name: "d", typ: tar.TypeDir, mode: 0o755}},
		{{name: "l", typ: tar.TypeSymlink, link: "/"}, {name: "l/f", data: "x"}},
		{{name: "f", data: "x"}, {name: "h", typ: tar.TypeLink, link: "f"}, {name: "f", typ: tar.TypeDir, mode: 0o700}, {name: "f/g", data: "y"}},
		{{name: "../..", typ: tar.TypeDir}, {name: "p", typ: tar.TypeFifo}},
	} {
		f.Add(pack(f, m))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		top := t.TempDir()
		upper := filepath.Join(top, "upper")
		if err := os.Mkdir(upper, 0o755); err != nil {
			t.Fatal(err)
		}
		_ = copier.Unpack(t.Context(), bytes.NewReader(data), copier.Empty, upper, copier.Placement{Dest: "/t", Make: layer.Maker{}})
		if got, err := os.ReadDir(top); err != nil || len(got) != 1 {
			t.Errorf("beside upper there are now %v, %v", got, err)
		}
	})
}
