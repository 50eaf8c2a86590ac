package rig

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Epoch is the time of files that Write makes, long enough ago that no cache
// takes them for being written just now.
var Epoch = time.Unix(1700000000, 0)

// Write makes files below dir, with parents: name -> content, a name with a
// slash at its end -> an empty directory. Programs begin with "#!" and are
// executable. All have the time Epoch.
func Write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		p := filepath.Join(dir, name)
		mkdir(t, dir, filepath.Dir(p))
		if strings.HasSuffix(name, "/") {
			mkdir(t, dir, p)
			continue
		}
		mode := os.FileMode(0o644)
		if strings.HasPrefix(text, "#!") {
			mode = 0o755
		}
		if err := os.WriteFile(p, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
		touch(t, p)
	}
}

func mkdir(t testing.TB, top, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for ; len(dir) > len(top); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		touch(t, dir)
	}
}

func touch(t testing.TB, p string) {
	t.Helper()
	if err := os.Chtimes(p, Epoch, Epoch); err != nil {
		t.Fatal(err)
	}
}

// Busybox is Debian's static busybox: all that a RUN needs in an image made of nothing.
func Busybox(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Archive is a tar.gz of files, name -> content, which have the time Epoch.
func Archive(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for name, text := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), ModTime: Epoch}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
