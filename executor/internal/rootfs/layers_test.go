package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

type member struct {
	name, data, link string
	typ              byte
	mode             int64
	uid              int
}

func archive(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := &tar.Header{Name: m.name, Typeflag: m.typ, Mode: m.mode, Uid: m.uid, Gid: m.uid, Size: int64(len(m.data)), Linkname: m.link, ModTime: time.Unix(1600000000, 0)}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o755
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

type blobs map[digest.Digest][]byte

func (b blobs) add(tar []byte) Layer {
	id := digest.FromBytes(tar)
	b[id] = tar
	return Layer{DiffID: id}
}

func (b blobs) open(ctx context.Context, l Layer) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(b[l.DiffID])), nil
}

func TestSmoke(t *testing.T) {
	b := blobs{}
	one := b.add(archive(t, member{name: "etc/", typ: tar.TypeDir, mode: 0o750, uid: 5}, member{name: "etc/a", data: "A"}, member{name: "etc/b", data: "B"}))
	two := b.add(archive(t, member{name: "etc/.wh.a"}, member{name: "etc/c", data: "C"}, member{name: "etc/d", typ: tar.TypeLink, link: "etc/b"}))
	l := &Layers{Dir: t.TempDir()}
	dirs, err := l.Ensure(t.Context(), []Layer{one, two}, b.open)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(dirs)
	top := t.TempDir()
	s := Stack{dirs}
	if err := s.NewUpper(filepath.Join(top, "upper")); err != nil {
		t.Fatal(err)
	}
	os.Mkdir(filepath.Join(top, "m"), 0o755)
	if err := s.Mount(t.Context(), filepath.Join(top, "m"), filepath.Join(top, "upper"), filepath.Join(top, "work")); err != nil {
		t.Fatal(err)
	}
	defer Unmount(filepath.Join(top, "m"))
	list, _ := os.ReadDir(filepath.Join(top, "m/etc"))
	for _, e := range list {
		i, _ := e.Info()
		t.Log(e.Name(), i.Mode(), i.Sys())
	}
	v, err := OpenView(dirs...)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	es, err := v.ReadDir(t.Context(), "etc")
	t.Log(es, err)
	e, err := v.Lstat(t.Context(), "etc")
	t.Log(e, err)
}
