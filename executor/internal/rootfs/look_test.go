package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/index"
	"kaniko-build/executor/internal/tree"
)

var rounds = flag.Int("rounds", 100, "random chains that are compared")

// encoded keeps indexes as a store does: as bytes.
type encoded struct {
	mu  sync.Mutex
	all map[digest.Digest][]byte
}

func (e *encoded) Index(_ context.Context, id digest.Digest) (*index.Index, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return index.Decode(e.all[id], id)
}

func (e *encoded) PutIndex(id digest.Digest, x *index.Index) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.all == nil {
		e.all = map[digest.Digest][]byte{}
	}
	e.all[id] = x.Encode(id)
	return nil
}

// outline is all that a tree says of names without opening files; times of now
// are those of unpacking, which differ.
func outline(t testing.TB, v tree.Tree, since time.Time) []string {
	t.Helper()
	var out []string
	first := map[[2]uint64]string{}
	err := tree.Walk(t.Context(), v, "", func(name string, e tree.Entry) error {
		x, err := v.Xattrs(t.Context(), name)
		if err != nil {
			return err
		}
		s := fmt.Sprintf("%s %o %d:%d %d %s %d %q", name, e.Mode, e.UID, e.GID, e.Size, e.Link, e.Rdev, x)
		if name != "" && e.ModTime.Before(since) {
			s += fmt.Sprint(" ", e.ModTime.UnixNano())
		}
		if !e.IsDir() && e.Nlink > 1 {
			id := [2]uint64{e.Dev, e.Ino}
			if first[id] == "" {
				first[id] = name
			}
			s += fmt.Sprintf(" %d names, first %s", e.Nlink, first[id])
		}
		if name != "" {
			if one, err := v.Lstat(t.Context(), name); err != nil || one.Mode != e.Mode || one.UID != e.UID || one.Name != path.Base(name) {
				return fmt.Errorf("Lstat(%s) = %+v, %w; ReadDir says %+v", name, one, err, e)
			}
		}
		if !e.IsDir() {
			if _, err := v.ReadDir(t.Context(), name); !errors.Is(err, unix.ENOTDIR) {
				return fmt.Errorf("ReadDir(%s): %v", name, err)
			}
		}
		out = append(out, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// randomLayer is a tar of what may be in a layer, and of what ought not to.
func randomLayer(r *rand.Rand, n int) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	var names []string
	part := func() string { return []string{"a", "b", "c", "etc", "..", "passwd", "."}[r.IntN(7)] }
	name := func() string {
		p := part()
		for range r.IntN(4) {
			p += "/" + part()
		}
		return p
	}
	if r.IntN(5) > 0 { // most layers make sense
		name = func() string {
			p := ""
			for range r.IntN(3) {
				p += []string{"a/", "b/", "etc/"}[r.IntN(3)]
			}
			return p + []string{"f", "g", "passwd", "h", "a", "b"}[r.IntN(6)]
		}
	}
	for range n {
		h := &tar.Header{Name: name(), Mode: int64(r.IntN(0o10000)), Uid: r.IntN(4), Gid: r.IntN(4), Format: tar.FormatPAX, ModTime: time.Unix(int64(r.IntN(1e9)), int64(r.IntN(3))*1e6)}
		var data string
		switch r.IntN(12) {
		case 0, 1, 2:
			h.Typeflag, data = tar.TypeReg, fmt.Sprint(r.IntN(1e6))
			names = append(names, h.Name)
		case 3, 4:
			h.Typeflag = tar.TypeDir
			if r.IntN(3) == 0 {
				h.PAXRecords = map[string]string{"SCHILY.xattr.user.x": fmt.Sprint(r.IntN(9)), "SCHILY.xattr.user.overlay.opaque": "y"}
			}
		case 5, 6:
			h.Typeflag, h.Linkname = tar.TypeSymlink, name()
			if r.IntN(3) == 0 {
				h.Linkname = "/" + h.Linkname
			}
		case 7:
			h.Typeflag, h.Linkname = tar.TypeLink, name()
			if len(names) > 0 && r.IntN(5) > 0 {
				h.Linkname = names[r.IntN(len(names))]
			}
		case 8:
			h.Typeflag = tar.TypeFifo
		case 9:
			h.Typeflag, h.Devmajor, h.Devminor = []byte{tar.TypeChar, tar.TypeBlock}[r.IntN(2)], int64(r.IntN(3)), int64(r.IntN(3))
		case 10:
			h.Name = path.Join(path.Dir(h.Name), ".wh."+part())
		default:
			h.Name = path.Join(path.Dir(h.Name), ".wh..wh..opq")
		}
		h.Size = int64(len(data))
		if w.WriteHeader(h) == nil {
			io.WriteString(w, data)
		}
	}
	w.Close()
	return b.Bytes()
}

// What a view of indexes shows is what one of the unpacked layers shows.
func TestIndexesAgreeWithDirectories(t *testing.T) {
	needMount(t) // owners
	since := time.Now()
	compared, outside := 0, 0
	for seed := range uint64(*rounds) {
		r := rand.New(rand.NewPCG(seed, 3))
		var b blobs
		var chain []Layer
		for range 1 + r.IntN(4) {
			one := randomLayer(r, 1+r.IntN(14))
			for range 10 { // most of those that an index is not for say nothing here
				if x, err := index.Scan(t.Context(), bytes.NewReader(one)); err == nil && !x.Outside() {
					break
				}
				one = randomLayer(r, 1+r.IntN(14))
			}
			chain = append(chain, b.add(one))
		}
		var kept encoded
		l := &Layers{Dir: t.TempDir()}
		dirs, err := l.Ensure(t.Context(), chain, b.open)
		fresh := &Layers{Dir: t.TempDir(), Indexes: &kept}
		v, verr := fresh.View(t.Context(), chain, b.open)
		refers := slices.ContainsFunc(chain, func(one Layer) bool {
			x, err := kept.Index(t.Context(), one.DiffID)
			return err == nil && x.Outside()
		})
		if refers || errors.Is(verr, ErrUnpack) {
			outside++
			continue
		}
		if verr != nil {
			t.Fatalf("seed %d: %v", seed, verr)
		}
		if err != nil {
			t.Fatalf("seed %d: there are indexes, but unpacking says %v", seed, err)
		}
		compared++
		want := outlineOf(t, dirs, since)
		if got := outline(t, v, since); !slices.Equal(got, want) {
			t.Fatalf("seed %d:\ngot  %q\nwant %q", seed, got, want)
		}
		if list, err := os.ReadDir(fresh.Dir); err != nil || len(list) > 0 {
			t.Fatalf("seed %d: something was unpacked: %v, %v", seed, list, err)
		}
		// Those below as indexes, those above as directories.
		if k := r.IntN(len(chain) + 1); k < len(chain) {
			mixed := &Layers{Dir: filepath.Join(t.TempDir(), "mixed"), Indexes: &kept}
			if _, err := mixed.Ensure(t.Context(), chain, b.open); err != nil {
				t.Fatal(err)
			}
			for i, one := range chain[:k] {
				for _, id := range []string{one.DiffID.Encoded(), chainName(ChainIDs(chain)[i])} {
					if err := os.RemoveAll(filepath.Join(mixed.Dir, id)); err != nil {
						t.Fatal(err)
					}
				}
			}
			m, err := mixed.View(t.Context(), chain, nil)
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if got := outline(t, m, since); !slices.Equal(got, want) {
				t.Fatalf("seed %d, %d layers as indexes:\ngot  %q\nwant %q", seed, k, got, want)
			}
			m.Close()
		}
	}
	t.Logf("%d chains are the same, %d need their files", compared, outside)
	if compared < *rounds/3 {
		t.Errorf("only %d chains could be compared", compared)
	}
}

func outlineOf(t testing.TB, dirs []string, since time.Time) []string {
	t.Helper()
	v, err := OpenView(dirs...)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	return outline(t, v, since)
}
