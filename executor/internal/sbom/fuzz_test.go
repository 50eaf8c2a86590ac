package sbom

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// fuzzed judges what a parser made of a file: whatever it is, all of it passes the
// checks of a layer, and a document is made of it.
func fuzzed(t *testing.T, name string, b []byte, find func([]byte, *File) error) {
	var f File
	_ = find(b, &f)
	s := &scan{files: map[string]File{}}
	s.keep(name, strings.Repeat("0", 40), f)
	l := s.layer()
	lines, err := l.Lines()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseLines(lines); err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		if strings.Contains(line, "\n") {
			t.Errorf("line %q", line)
		}
	}
	if _, err := Merge([]Layer{l}).Document(Image{Digest: digest.FromString(""), Created: time.Unix(0, 0)}); err != nil {
		t.Fatal(err)
	}
}

func fuzz(f *testing.F, name string, find func([]byte, *File) error, seeds ...string) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) { fuzzed(t, name, b, find) })
}

func FuzzDpkg(f *testing.F)    { fuzz(f, "var/lib/dpkg/status", readDpkg, dpkgStatus, ": \n", "\tx:y") }
func FuzzApk(f *testing.F)     { fuzz(f, "lib/apk/db/installed", readApk, apkInstalled) }
func FuzzPython(f *testing.F)  { fuzz(f, "x.egg-info", readPython, "Name: x\nVersion: 1\n\nName: y") }
func FuzzRelease(f *testing.F) { fuzz(f, "etc/os-release", readRelease, "ID=\"x\"\nVERSION_ID='1'\n") }

func FuzzNpm(f *testing.F) {
	fuzz(f, "node_modules/x/package.json", readNpm, `{"name":"x","version":"1","license":{"type":"MIT"}}`, `[]`)
}

func FuzzNpmLock(f *testing.F) {
	fuzz(f, "package-lock.json", readNpmLock, `{"packages":{"node_modules/@a/b":{"version":"1"}}}`, `{"dependencies":{"a":{"version":"1","dependencies":{"b":{"version":"2"}}}}}`)
}

func FuzzRpm(f *testing.F) {
	f.Add(unzip(f, "small.sqlite.gz"))
	fuzz(f, "var/lib/rpm/Packages", readRpm, string(ndbOf(rpmHeaders())), string(bdbOf(rpmHeaders())))
}

func FuzzRpmHeader(f *testing.F) {
	read := func(b []byte, f *File) error {
		p, err := rpmHeader(b)
		f.Packages = append(f.Packages, p)
		return err
	}
	fuzz(f, "var/lib/rpm/Packages", read, string(rpmHeaders()[0]))
}

// FuzzSQLite has small pages, so that a little changes much.
func FuzzSQLite(f *testing.F) {
	f.Add(unzip(f, "small.sqlite.gz"))
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		_ = sqliteBlobs(b, "Packages", func(row []byte) error { total += len(row); return nil })
		if total > 2*len(b) { // a page is read once, but cells of one may lie over each other
			t.Logf("%d bytes of rows in %d bytes", total, len(b))
		}
	})
}

func FuzzGoProgram(f *testing.F) {
	f.Add([]byte(infoMagic+"\x08\x02"+strings.Repeat("\x00", 16)+"\x06go1.26\x00"), uint8(0))
	f.Fuzz(func(t *testing.T, b []byte, before uint8) {
		program := append(bytes.Repeat([]byte{0}, int(before)), b...)
		info, err := findBuildInfo(t.Context(), bytes.NewReader(program), make([]byte, 0, infoBlock+maxInfo))
		if err != nil {
			t.Fatal(err)
		}
		if info == nil {
			return
		}
		fuzzed(t, "x", nil, func(_ []byte, f *File) error { return goPackages(info, f) })
	})
}

// FuzzLayer is a layer as a whole; what is kept of it is read back as it was.
func FuzzLayer(f *testing.F) {
	f.Add(layerOf(f, "var/lib/dpkg/status", dpkgStatus, "a/.wh.b", "", "a/.wh..wh..opq", "", "d/", ""))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := Scan(t.Context(), bytes.NewReader(b))
		if err != nil {
			return
		}
		lines, err := l.Lines()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseLines(lines)
		if err != nil || len(again.Names) != len(l.Names) || len(again.Gone) != len(l.Gone) {
			t.Fatalf("%v: %+v is %+v", err, l, again)
		}
	})
}

// FuzzLines reads any record of a layer.
func FuzzLines(f *testing.F) {
	f.Add("f {\"path\":\"x\"}\ng \"Zg==\"\nn 0000000000000001\nend")
	f.Fuzz(func(t *testing.T, s string) {
		if l, err := ParseLines(strings.Split(s, "\n")); err == nil {
			Merge([]Layer{l, l})
		}
	})
}
