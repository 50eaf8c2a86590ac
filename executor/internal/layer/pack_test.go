package layer_test

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/layer"
)

// What the fields of a plain header have no room for: sizes over 8 GiB, long names
// and targets, large owners, times before 1970. These go down to whole seconds.
func TestPackOfWhatPlainHeadersCannotHold(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	at := func(name string) string { return filepath.Join(root, name) }
	long := strings.Repeat("long/", 60) + strings.Repeat("n", 255)
	if err := os.MkdirAll(filepath.Dir(at(long)), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a-old", "b-owned", long, "z-huge"} {
		if err := os.WriteFile(at(name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	old := []unix.Timespec{{Sec: -86401, Nsec: 500_000_000}, {Sec: -86401, Nsec: 500_000_000}}
	for _, err := range []error{
		unix.UtimesNanoAt(unix.AT_FDCWD, at("a-old"), old, 0), os.Lchown(at("b-owned"), 3_000_000_000, 2_097_152),
		os.Symlink("/"+long, at("c-link")), os.Truncate(at("z-huge"), 9<<30+1),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}

	r, w := io.Pipe()
	defer r.Close()
	packed := make(chan error, 1)
	go func() {
		_, err := layer.Pack(t.Context(), w, root, nil, layer.PackOptions{})
		w.CloseWithError(err)
		packed <- err
	}()
	seen := map[string]*tar.Header{}
	for tr := tar.NewReader(r); seen["z-huge"] == nil; {
		h, err := tr.Next()
		if err != nil {
			t.Fatal(err)
		}
		seen[h.Name] = h
	}
	enough := errors.New("the reader has seen enough")
	r.CloseWithError(enough)
	if err := <-packed; !errors.Is(err, enough) {
		t.Errorf("got %v, want %v", err, enough)
	}
	if h := seen["a-old"]; h == nil || !h.ModTime.Equal(time.Unix(-86401, 0)) {
		t.Errorf("a-old: %+v", h)
	}
	if h := seen["b-owned"]; h == nil || h.Uid != 3_000_000_000 || h.Gid != 2_097_152 {
		t.Errorf("b-owned: %+v", h)
	}
	if h := seen["c-link"]; h == nil || h.Linkname != "/"+long {
		t.Errorf("c-link: %+v", h)
	}
	if seen[long] == nil {
		t.Error("the long name is not there")
	}
	if h := seen["z-huge"]; h.Size != 9<<30+1 || h.Typeflag != tar.TypeReg {
		t.Errorf("z-huge: %+v", h)
	}
}
