package copier_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"kaniko-build/executor/internal/copier"
	"kaniko-build/executor/internal/layer"
	"kaniko-build/executor/internal/tree"
)

// members lists a tar, a line for each member; what was made just now has no time.
func members(t *testing.T, data []byte) []string {
	t.Helper()
	var out []string
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		when := h.ModTime.String()
		if d := time.Since(h.ModTime); d < time.Hour && d > -time.Hour {
			when = "now"
		}
		out = append(out, fmt.Sprintf("%c %s %o %d:%d %q %d:%d %s %v %q", h.Typeflag, h.Name, h.Mode, h.Uid, h.Gid, h.Linkname, h.Devmajor, h.Devminor, when, h.PAXRecords, content))
	}
}

// sameAsDraft compares the layer that an upper gives with that of a draft of the same.
func sameAsDraft(t *testing.T, upper string, base tree.Tree, d *copier.Draft) {
	t.Helper()
	var disk, drawn bytes.Buffer
	if _, err := layer.Pack(context.Background(), &disk, upper, base, layer.PackOptions{}); err != nil {
		t.Fatal(err)
	}
	exact := map[string]time.Time{}
	each := func(h *tar.Header, _ []byte) { exact[h.Name] = h.ModTime }
	s, err := layer.PackTree(context.Background(), &drawn, d, base, layer.PackOptions{Each: each})
	if err != nil {
		t.Fatal(err)
	}
	want, got := members(t, disk.Bytes()), members(t, drawn.Bytes())
	if a, b := strings.Join(want, "\n"), strings.Join(got, "\n"); a != b {
		t.Errorf("the layer of the draft is\n%s\nthat of the upper\n%s", b, a)
	}
	if s.Entries != len(exact) || s.Size != int64(drawn.Len()) {
		t.Errorf("stats %+v of %d entries and %d bytes", s, len(exact), drawn.Len())
	}
	for name, when := range exact {
		if e, err := d.Lstat(t.Context(), strings.TrimSuffix(name, "/")); err != nil || !e.ModTime.Equal(when) {
			t.Errorf("%s: told %v, has %v (%v)", name, when, e.ModTime, err)
		}
	}
}

// draft does with a draft what c.place does with an upper.
func (c placing) draft(t *testing.T, base, src tree.Tree) (*copier.Draft, error) {
	t.Helper()
	if c.link {
		base = copier.Empty
	}
	d := copier.NewDraft(base)
	s := c.opts
	s.Patterns = strings.Fields(c.from)
	items, err := copier.Find(t.Context(), src, s)
	if err != nil {
		return d, err
	}
	mode, err := copier.ParseChmod(c.chmod)
	if err != nil {
		return d, err
	}
	return d, d.Place(t.Context(), src, items, copier.Placement{Dest: c.to, Owner: c.owner, Chmod: mode})
}

func TestDraftHasLimits(t *testing.T) {
	dir := tempDir(t)
	src := openDir(t, dir)
	grow(t, dir, []string{"f a.tar 0644 0:0 x"})
	items, err := copier.Find(t.Context(), src, copier.Select{Patterns: []string{"a.tar"}})
	if err != nil {
		t.Fatal(err)
	}
	d := copier.NewDraft(copier.Empty)
	if err := d.Place(t.Context(), src, items, copier.Placement{Dest: "/", Unpack: true}); !errors.Is(err, copier.ErrNotDrawn) {
		t.Errorf("what may be an archive: %v", err)
	}
	if _, err := d.Open(t.Context(), "a.tar"); err == nil {
		t.Error("what was not placed is there")
	}
}
