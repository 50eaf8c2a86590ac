package sbom

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	spdxjson "github.com/spdx/tools-golang/json"
)

// layerOf is the tar of files: a name that ends in a slash is a directory, one with an
// arrow a link.
func layerOf(t testing.TB, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: files[i], Mode: 0o755, Size: int64(len(files[i+1]))}
		if name, to, ok := strings.Cut(files[i], "->"); ok {
			h.Typeflag, h.Name, h.Linkname = tar.TypeSymlink, name, to
		} else if strings.HasSuffix(files[i], "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, files[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func scanOf(t testing.TB, files ...string) Layer {
	t.Helper()
	l, err := Scan(t.Context(), bytes.NewReader(layerOf(t, files...)))
	if err != nil {
		t.Fatal(err)
	}
	lines, err := l.Lines()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := ParseLines(lines); err != nil || !reflect.DeepEqual(again, l) {
		t.Errorf("as lines it is %+v, %v, not %+v", again, err, l)
	}
	return l
}

// purls are the package URLs of an image of layers.
func purls(layers ...Layer) []string {
	var out []string
	c := Merge(layers)
	for _, f := range c.Files {
		for _, p := range f.Packages {
			out = append(out, p.PURL(c.Release))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

const dpkgStatus = `Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc (2.36-9)
Version: 2.36-9+deb12u9
Description: C library
 Package: not this
 .
 more

Package: gone
Status: deinstall ok config-files
Version: 1

Package: hello
Status: install ok installed
Architecture: all
Version: 1:2.10-3
`

const apkInstalled = `C:Q1abc=
P:musl
V:1.2.5-r0
A:x86_64
L:MIT
o:musl
F:lib
R:ld-musl-x86_64.so.1

P:ssl_client
V:1.36.1-r2
A:x86_64
o:busybox

`

// Each kind of file gives the packages it tells of, with the URLs that the
// specification's examples and other scanners have for such.
func TestFiles(t *testing.T) {
	debian, alpine := "ID=debian\nVERSION_ID=\"12\"\n", "ID=alpine\nVERSION_ID=3.22.0\n"
	for name, c := range map[string]struct{ files, want []string }{
		"dpkg": {[]string{"usr/lib/os-release", debian, "etc/os-release->../usr/lib/os-release", "", "var/lib/dpkg/status", dpkgStatus},
			[]string{"pkg:deb/debian/hello@1:2.10-3?arch=all&distro=debian-12", "pkg:deb/debian/libc6@2.36-9%2Bdeb12u9?arch=amd64&distro=debian-12&upstream=glibc"}},
		"distroless": {[]string{"./var/lib/dpkg/status.d/base", "Package: base-files\nVersion: 12.4\nArchitecture: amd64\n", "./var/lib/dpkg/status.d/base.md5sums", "Package: no\n"},
			[]string{"pkg:deb/debian/base-files@12.4?arch=amd64"}},
		"apk": {[]string{"etc/os-release", alpine, "lib/apk/db/installed", apkInstalled},
			[]string{"pkg:apk/alpine/musl@1.2.5-r0?arch=x86_64&distro=alpine-3.22.0", "pkg:apk/alpine/ssl_client@1.36.1-r2?arch=x86_64&distro=alpine-3.22.0&upstream=busybox"}},
		"python": {[]string{"usr/lib/python3/Foo_Bar-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: Foo_Bar\nVersion: 1.0\n\nName: no\n",
			"opt/x.egg-info/PKG-INFO", "Name: x\nVersion: 2\n", "opt/y.egg-info", "Name: y\nVersion: 3\n"},
			[]string{"pkg:pypi/foo-bar@1.0", "pkg:pypi/x@2", "pkg:pypi/y@3"}},
		"npm": {[]string{"app/node_modules/@a/b/package.json", `{"name":"@a/b","version":"1.2.3","license":{"type":"MIT"}}`, "app/node_modules/c/package.json", `{"name":"c","version":"2.0.0","license":"MIT"}`,
			"app/node_modules/c/lib/package.json", `{"name":"no","version":"1.0.0"}`, "app/package.json", `{"name":"app","version":"1.0.0"}`, "app/node_modules/c/esm/package.json", `{"type":"module"}`},
			[]string{"pkg:npm/%40a/b@1.2.3", "pkg:npm/c@2.0.0"}},
		"package-lock": {[]string{"app/package-lock.json", `{"lockfileVersion":3,"packages":{"":{"name":"app","version":"1.0.0","dependencies":{"d":"^1"}},"node_modules/d":{"version":"1.0.1","dependencies":{"e":"*"}},` +
			`"node_modules/d/node_modules/@s/e":{"version":"2.0.0"},"node_modules/t":{"version":"9.0.0","dev":true},"w":{"version":"1.0.0"},"node_modules/w":{"link":true}}}`},
			[]string{"pkg:npm/%40s/e@2.0.0", "pkg:npm/d@1.0.1"}},
		"old package-lock": {[]string{"package-lock.json", `{"dependencies":{"d":{"version":"1.0.1","dependencies":{"e":{"version":"2.0.0"}}},"t":{"version":"9.0.0","dev":true}}}`},
			[]string{"pkg:npm/d@1.0.1", "pkg:npm/e@2.0.0"}},
		"rpm": {[]string{"etc/os-release", "ID=fedora\nVERSION_ID=40\n", "usr/lib/sysimage/rpm/rpmdb.sqlite", string(unzip(t, "rpmdb.sqlite.gz"))},
			[]string{"pkg:rpm/fedora/demo1@1.1-1.fc40?arch=noarch&distro=fedora-40&upstream=demo1-1.1-1.fc40.src.rpm", "pkg:rpm/fedora/demo2@1.2-2.fc40?arch=noarch&distro=fedora-40&upstream=demo2-1.2-2.fc40.src.rpm",
				"pkg:rpm/fedora/demo3@1.3-3.fc40?arch=noarch&distro=fedora-40&epoch=2&upstream=demo3-1.3-3.fc40.src.rpm"}},
		"older rpms": {[]string{"var/lib/rpm/Packages.db", string(ndbOf(rpmHeaders())), "usr/share/rpm/Packages", string(bdbOf(rpmHeaders()))},
			[]string{"pkg:rpm/big@1-1", "pkg:rpm/small@1-1?epoch=3"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := scanOf(t, c.files...)
			if got := purls(l); !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
			if len(l.Notes) > 0 {
				t.Errorf("notes: %q", l.Notes)
			}
		})
	}
}

func unzip(t testing.TB, name string) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// rpmHeaders are two headers: of few bytes, and of more than a page.
func rpmHeaders() [][]byte {
	make := func(name, padding string, epoch uint32) []byte {
		data := name + "\x001\x001\x00"
		data += strings.Repeat("\x00", 4-len(data)%4)
		at := uint32(len(data))
		data = string(binary.BigEndian.AppendUint32([]byte(data), epoch)) + padding
		entries := [][4]uint32{{tagName, typeString, 0, 1}, {tagVersion, typeString, uint32(len(name)) + 1, 1}, {tagRelease, typeString, uint32(len(name)) + 3, 1}, {tagEpoch, typeInt32, at, 1}}
		b := binary.BigEndian.AppendUint32(nil, uint32(len(entries)))
		b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
		for _, e := range entries {
			for _, n := range e {
				b = binary.BigEndian.AppendUint32(b, n)
			}
		}
		return append(b, data...)
	}
	return [][]byte{make("small", "", 3), make("big", strings.Repeat("x", 10_000), 0)}
}

// ndbOf is a database of rpm's own kind.
func ndbOf(headers [][]byte) []byte {
	le := binary.LittleEndian
	b := make([]byte, 4096)
	copy(b, "RpmP")
	le.PutUint32(b[12:], 1)
	for i := 32; i < len(b); i += 16 {
		copy(b[i:], "Slot")
	}
	for i, h := range headers {
		slot := b[32+32*i:] // every other one is free
		le.PutUint32(slot[4:], uint32(i+1))
		le.PutUint32(slot[8:], uint32(len(b)/16))
		b = append(b, "BlbS"...)
		b = le.AppendUint32(b, uint32(i+1))
		b = le.AppendUint32(b, 7)
		b = le.AppendUint32(b, uint32(len(h)))
		b = append(b, h...)
		b = append(b, make([]byte, 16-len(b)%16)...)
	}
	return b
}

// bdbOf is a hash of Berkeley DB with values in pages of their own.
func bdbOf(headers [][]byte) []byte {
	le := binary.LittleEndian
	const size = 4096
	b := make([]byte, 2*size)
	le.PutUint32(b[12:], bdbMagic)
	le.PutUint32(b[20:], size)
	hash := func() []byte { return b[size : 2*size] }
	hash()[25] = bdbHash
	le.PutUint16(hash()[20:], uint16(2*len(headers)))
	at := size
	for i, h := range headers {
		at -= 12
		le.PutUint16(hash()[bdbHead+4*i+2:], uint16(at))
		hash()[at] = bdbOffPage
		le.PutUint32(hash()[at+4:], uint32(len(b)/size))
		le.PutUint32(hash()[at+8:], uint32(len(h)))
		for len(h) > 0 {
			p := make([]byte, size)
			p[25] = bdbOverflow
			n := copy(p[bdbHead:], h)
			h = h[n:]
			le.PutUint16(p[22:], uint16(n))
			if b = append(b, p...); len(h) > 0 {
				le.PutUint32(b[len(b)-size+16:], uint32(len(b)/size))
			}
		}
	}
	return b
}

// Rows of any size in a table of any shape are read as SQLite wrote them.
func TestSQLite(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal("python3 is not installed: `make packages` installs Debian's package python3")
	}
	for _, page := range []int{512, 4096, 65536} {
		name := filepath.Join(t.TempDir(), "db")
		script := fmt.Sprintf(`
import sqlite3
db = sqlite3.connect(%q)
db.execute("PRAGMA page_size=%d")
db.execute("CREATE TABLE other (a)")
db.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)")
db.execute("CREATE INDEX x ON Packages(blob)")
for i in range(3000):
    db.execute("INSERT INTO Packages (blob) VALUES (?)", (b"%%d " %% i + b"x" * (i * 7 %% 2500),))
db.execute("INSERT INTO Packages (blob) VALUES (?)", (b"3000 " + b"x" * 300000,))
db.execute("DELETE FROM Packages WHERE hnum %% 5 = 0")
db.commit()
`, name, page)
		if out, err := exec.Command(python, "-c", script).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		want := 0
		err = sqliteBlobs(b, "Packages", func(row []byte) error {
			for (want+1)%5 == 0 {
				want++
			}
			n := want * 7 % 2500
			if want == 3000 {
				n = 300_000
			}
			if text := fmt.Sprintf("%d %s", want, strings.Repeat("x", n)); string(row) != text {
				t.Fatalf("page %d: row %d is %.20q… of %d bytes, want %d", page, want, row, len(row), len(text))
			}
			want++
			return nil
		})
		if err != nil || want < 3000 {
			t.Errorf("page %d: ended at row %d: %v", page, want, err)
		}
		if err := sqliteBlobs(b, "nothing", nil); err == nil {
			t.Error("a table that is not there is read")
		}
	}
}

// A program of Go tells of its modules, wherever its build information lies in the
// stream; one that only looks like a program tells of nothing.
func TestGoProgram(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"main.go": "package main\n\nimport _ \"example.com/dep\"\n\nfunc main() {}\n", "go.mod": "module example.com/prog\n\ngo 1.24\n\nrequire example.com/dep v1.2.3\n\nreplace example.com/dep => ./dep\n",
		"dep/dep.go": "package dep\n", "dep/go.mod": "module example.com/dep\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "build", "-o", "prog", ".")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	small, err := os.ReadFile(filepath.Join(dir, "prog"))
	if err != nil {
		t.Fatal(err)
	}
	l := scanOf(t, "bin/prog", string(small), "bin/other", "\x7fELF"+infoMagic+"\x08\x02"+strings.Repeat("\x00", 100), "bin/short", "\x7f")
	got := purls(l)
	if len(got) != 2 || got[0] != "pkg:golang/example.com/prog" || !strings.HasPrefix(got[1], "pkg:golang/stdlib@1.") {
		t.Errorf("got %q, notes %q", got, l.Notes)
	}
	// That of this test lies at every place of a block, and across two.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, []byte(infoMagic))
	if at < 0 {
		t.Fatal("the test has no build information")
	}
	for _, padding := range []int{0, 256<<10 - at%(256<<10) - 16, 256<<10 - at%(256<<10)} { // across blocks too
		padding -= padding % infoAlign
		text := "\x7fELF" + strings.Repeat("\x00", padding+infoAlign-4) + string(b)
		if got := purls(scanOf(t, "x", text)); !slices.Contains(got, "pkg:golang/kaniko-build") {
			t.Errorf("with %d bytes before it: %q", padding, got)
		}
	}
}

// What a layer above hides is not in the image.
func TestMerge(t *testing.T) {
	base := func(more ...string) Layer {
		return scanOf(t, append([]string{"var/lib/dpkg/status", "Package: a\nVersion: 1\n", "app/node_modules/n/package.json", `{"name":"n","version":"1.0.0"}`}, more...)...)
	}
	a, n := "pkg:deb/debian/a@1", "pkg:npm/n@1.0.0"
	for name, c := range map[string]struct {
		above []string
		want  []string
	}{
		"nothing":                         {nil, []string{a, n}},
		"directories only":                {[]string{"var/", "", "app/node_modules/", "", "app/node_modules/n/", ""}, []string{a, n}},
		"a newer file":                    {[]string{"var/lib/dpkg/status", "Package: a\nVersion: 2\n"}, []string{"pkg:deb/debian/a@2", n}},
		"an empty file":                   {[]string{"./var/lib/dpkg/status", ""}, []string{n}},
		"a whiteout":                      {[]string{"var/lib/dpkg/.wh.status", ""}, []string{n}},
		"a whiteout of a directory":       {[]string{"app/.wh.node_modules", ""}, []string{a}},
		"an opaque directory":             {[]string{"app/.wh..wh..opq", ""}, []string{a}},
		"an opaque root":                  {[]string{".wh..wh..opq", ""}, nil},
		"a file instead of a directory":   {[]string{"app", "x"}, []string{a}},
		"a link instead of a directory":   {[]string{"app->elsewhere", ""}, []string{a}},
		"a directory instead of the file": {[]string{"var/lib/dpkg/status/", ""}, []string{n}},
		"links in names":                  {[]string{"l->/var", "", "m->./l/../l/lib", "", "m/dpkg/status", "Package: a\nVersion: 3\n", "app/x->../app", "", "app/x/.wh.node_modules", ""}, []string{"pkg:deb/debian/a@3"}},
		"what aufs keeps":                 {[]string{".wh..wh.plnk", "", "app/.wh..wh.aufs", ""}, []string{a, n}},
		"a whiteout beside its own file":  {[]string{"app/node_modules/.wh.n", "", "app/node_modules/n/package.json", `{"name":"n","version":"2.0.0"}`}, []string{a, "pkg:npm/n@2.0.0"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := purls(base(), scanOf(t, c.above...)); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	if got := purls(scanOf(t, "app/node_modules/n/package.json", `{"name":"n","version":"1.0.0"}`, "app/node_modules/n/package.json", "{}")); len(got) != 0 {
		t.Errorf("an earlier entry of the same name counts: %q", got)
	}
}

// endless is a reader of zeros.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// A program of 4 EB in 4 KB, as GNU tar writes files with holes, is not read.
func TestSparse(t *testing.T) {
	pad := func(s string) string { return s + strings.Repeat("\x00", (512-len(s)%512)%512) }
	head := func(name string, size int, kind byte) string {
		h := make([]byte, 512)
		copy(h, name)
		copy(h[100:], "0000755\x000000000\x000000000\x00")
		copy(h[124:], fmt.Sprintf("%011o\x0000000000000\x00        ", size))
		h[156] = kind
		copy(h[257:], "ustar\x0000")
		sum := 0
		for _, c := range h {
			sum += int(c)
		}
		copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
		return string(h)
	}
	records := ""
	for _, r := range []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=bin/x", "GNU.sparse.realsize=4611686018427387904"} {
		records += fmt.Sprintf("%d %s\n", len(r)+4, r) // two digits, a space, a line break
	}
	data := pad("1\n0\n4\n") + pad("\x7fELF")
	archive := head("PaxHeaders/x", len(records), 'x') + pad(records) + head("x", len(data), '0') + data + strings.Repeat("\x00", 1024)
	h, err := tar.NewReader(strings.NewReader(archive)).Next()
	if err != nil || h.Name != "bin/x" || h.Size != 1<<62 {
		t.Fatalf("%v: %+v", err, h)
	}
	if _, err := Scan(t.Context(), strings.NewReader(archive)); err != nil {
		t.Error(err)
	}
}

// A document is SPDX 2.3 that its own library reads, and the same each time.
func TestDocument(t *testing.T) {
	layers := []Layer{scanOf(t, "etc/os-release", "ID=debian\nVERSION_ID=12\n", "var/lib/dpkg/status", dpkgStatus), scanOf(t, "app/node_modules/c/package.json", `{"name":"c","version":"2.0.0","license":"MIT OR whatever"}`, "x.egg-info", "Name: ü \"x\"\nVersion: <1>\n")}
	about := Image{Name: "reg.example.com/a:1", PURL: "pkg:docker/reg.example.com/a@1", Digest: digest.FromString("m"), Layers: []digest.Digest{digest.FromString("0"), digest.FromString("1")}, Created: time.Unix(1_700_000_000, 0)}
	c := Merge(layers)
	b, err := c.Document(about)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Merge(layers).Document(about); err != nil || !bytes.Equal(again, b) {
		t.Errorf("made again it differs: %v", err)
	}
	doc, err := spdxjson.Read(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if len(doc.Packages) != 5 || len(doc.Files) != 3 || doc.CreationInfo.Created != "2023-11-14T22:13:20Z" {
		t.Errorf("%d packages, %d files, created %s", len(doc.Packages), len(doc.Files), doc.CreationInfo.Created)
	}
	ids := map[string]bool{"DOCUMENT": true}
	for _, p := range doc.Packages {
		ids[string(p.PackageSPDXIdentifier)] = true
	}
	for _, f := range doc.Files {
		ids[string(f.FileSPDXIdentifier)] = true
		layer := map[bool]int{true: 0, false: 1}[f.FileName == "/var/lib/dpkg/status"]
		if want := "layerID: " + about.Layers[layer].String(); f.FileComment != want {
			t.Errorf("%s has the comment %q, want %q", f.FileName, f.FileComment, want)
		}
	}
	if len(ids) != 9 {
		t.Errorf("identifiers are not unique: %v", ids)
	}
	for _, r := range doc.Relationships {
		if !ids[string(r.RefA.ElementRefID)] || !ids[string(r.RefB.ElementRefID)] {
			t.Errorf("relationship of unknown %+v", r)
		}
	}
	other := about
	other.Digest = digest.FromString("n")
	b2, err := c.Document(other)
	if err != nil {
		t.Fatal(err)
	}
	var x, y struct{ DocumentNamespace string }
	if err := json.Unmarshal(b, &x); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b2, &y); err != nil || x == y {
		t.Errorf("two documents share the namespace %s: %v", x.DocumentNamespace, err)
	}
}

// Whatever is in a layer, the scan ends with an answer: what cannot be read is a note,
// and the rest is found.
func TestHostileLayers(t *testing.T) {
	good := []string{"var/lib/dpkg/status.d/ok", "Package: ok\nVersion: 1\n"}
	deep := strings.Repeat(`{"dependencies":{"a":`, 9_000)
	sqlite := unzip(t, "rpmdb.sqlite.gz")
	cut := sqlite[:len(sqlite)/2]
	for name, files := range map[string][]string{
		"broken JSON":         {"node_modules/x/package.json", `{"name":`},
		"deep JSON":           {"package-lock.json", deep},
		"a list for a name":   {"node_modules/x/package.json", `{"name":["x"],"version":1}`},
		"a long line":         {"var/lib/dpkg/status", "Package: " + strings.Repeat("x", 2<<20)},
		"a long name":         {"var/lib/dpkg/status", "Package: " + strings.Repeat("x", 2000) + "\nVersion: 1\n"},
		"escapes":             {"var/lib/dpkg/status", "Package: a\x1b[31m\nVersion: 1\n"},
		"not text":            {"lib/apk/db/installed", "P:\xff\xfe\nV:1\n\n"},
		"half a database":     {"var/lib/rpm/rpmdb.sqlite", string(cut)},
		"no database":         {"var/lib/rpm/Packages", strings.Repeat("x", 5000)},
		"an empty header":     {"var/lib/rpm/Packages.db", string(ndbOf([][]byte{{}}))},
		"a header that lies":  {"var/lib/rpm/Packages.db", string(ndbOf([][]byte{bytes.Repeat([]byte{0xff}, 64)}))},
		"an ndb without end":  {"var/lib/rpm/Packages.db", "RpmP\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff" + strings.Repeat("\x00", 5000)},
		"a program of magics": {"x", "\x7fELF            " + strings.Repeat(infoMagic+"\x08\x02"+strings.Repeat("\xff", 16), 1000)},
	} {
		t.Run(name, func(t *testing.T) {
			l := scanOf(t, append(files, good...)...)
			if got := purls(l); len(got) == 0 || got[0] != "pkg:deb/debian/ok@1" || len(got) > 1 && name != "half a database" {
				t.Errorf("got %.300q", got)
			}
			if len(l.Notes) != 1 && name != "a program of magics" {
				t.Errorf("notes %.300q", l.Notes)
			}
		})
	}
	// A cycle of pages ends.
	loop := slices.Clone(sqlite)
	for at := 4096; at+4096 <= len(loop); at += 4096 {
		if loop[at] == 13 || loop[at] == 5 {
			loop[at] = 5
			binary.BigEndian.PutUint32(loop[at+8:], uint32(at/4096+1))
		}
	}
	if l := scanOf(t, "var/lib/rpm/rpmdb.sqlite", string(loop)); len(l.Notes) != 1 {
		t.Errorf("notes %q", l.Notes)
	}
	// A whiteout that would hide the directory it is in is refused, as by unpacking.
	for _, name := range []string{"app/.wh.", "app/.wh..", "app/.wh..."} {
		if _, err := Scan(t.Context(), bytes.NewReader(layerOf(t, name, ""))); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	// Links in a circle end.
	if _, err := Scan(t.Context(), bytes.NewReader(layerOf(t, "a->b", "", "b->a", "", "a/x", ""))); err == nil {
		t.Error("links in a circle are followed")
	}
	// A scan that nobody waits for ends.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Scan(ctx, endless{}); !errors.Is(err, context.Canceled) {
		t.Errorf("without end and reader: %v", err)
	}
	// More packages than a statement may hold are left out, and the document says so.
	var many strings.Builder
	for i := range maxPackages - 1 {
		fmt.Fprintf(&many, "Package: p%d\nVersion: 1\n\n", i)
	}
	c := Merge([]Layer{scanOf(t, "z.egg-info", "Name: a\nVersion: 1\n", "var/lib/dpkg/status", many.String())})
	if doc, err := c.Document(Image{Digest: digest.FromString("")}); err != nil || len(c.Files) != 1 || !bytes.Contains(doc, []byte("The list is not complete")) {
		t.Errorf("%d files, %v, notes %q", len(c.Files), err, c.Notes)
	}
	flood := Layer{}
	for i := range maxMentions {
		flood.Files = append(flood.Files, File{Path: fmt.Sprintf("p%05d.egg-info", i), Packages: []Package{{Kind: PyPI, Name: "a", Version: "1"}}})
	}
	if c := Merge([]Layer{scanOf(t, "var/lib/dpkg/status", dpkgStatus), flood}); len(c.Files) != maxMentions-1 || c.Files[len(c.Files)-1].Path != "var/lib/dpkg/status" || len(c.Notes) != 1 {
		t.Errorf("%d files, notes %.300q", len(c.Files), c.Notes)
	}
	// An archive that is cut is an error.
	b := layerOf(t, "var/lib/dpkg/status", dpkgStatus)
	if _, err := Scan(t.Context(), bytes.NewReader(b[:700])); err == nil {
		t.Error("half an archive is an answer")
	}
}
