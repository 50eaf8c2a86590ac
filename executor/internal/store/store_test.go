package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"kaniko-build/schema/diag"
)

func testOpen(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{Owner: os.Getuid(), Holder: "test " + t.Name()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// The suite runs every method through both ways in.
func TestSuite(t *testing.T) {
	t.Run("open", func(t *testing.T) { suite(t, testOpen(t, filepath.Join(t.TempDir(), "a", "store"))) })
	t.Run("attach", func(t *testing.T) {
		dir := t.TempDir()
		testOpen(t, dir)
		s, err := Attach(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		suite(t, s)
	})
}

func suite(t *testing.T, s *Store) {
	ctx := t.Context()
	data := bytes.Repeat([]byte("layer "), 50_000)
	d := digest.FromBytes(data)

	t.Run("blob", func(t *testing.T) {
		if _, ok := s.Has(d); ok {
			t.Fatal("a blob before it was written")
		}
		if _, err := s.Open(d); !errors.Is(err, ErrMiss) {
			t.Fatalf("open of an absent blob: %v", err)
		}
		w, err := s.Writer()
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if _, err := w.Write([]byte("a first try")); err != nil {
			t.Fatal(err)
		}
		if err := w.Reset(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(w, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		if w.Size() != int64(len(data)) || w.Digest() != d {
			t.Fatalf("wrote %d bytes %s", w.Size(), w.Digest())
		}
		if got, err := w.Commit(d); err != nil || got != d {
			t.Fatal(got, err)
		}
		if _, err := w.Write(data); err == nil {
			t.Error("a write after Commit")
		}
		if size, ok := s.Has(d); !ok || size != int64(len(data)) {
			t.Fatalf("Has: %d %v", size, ok)
		}
		got, err := s.ReadBlob(d, 1<<20)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("read %d bytes, %v", len(got), err)
		}
		if _, err := s.ReadBlob(d, 10); err == nil {
			t.Error("read past the limit")
		}
		f, size, err := s.File(d)
		if err != nil || size != int64(len(data)) {
			t.Fatal(size, err)
		}
		if st, _ := f.Stat(); st.Mode() != 0o644 {
			t.Errorf("mode %v", st.Mode())
		}
		f.Close()
		if got, err := s.PutBlob(data); err != nil || got != d {
			t.Fatal(got, err)
		}
	})
	t.Run("blob with another digest", func(t *testing.T) {
		w, err := s.Writer()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(w, "lie")
		if _, err := w.Commit(digest.FromString("truth")); !errors.Is(err, ErrDigest) {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		for _, x := range []string{"lie", "truth"} {
			if _, ok := s.Has(digest.FromString(x)); ok {
				t.Errorf("kept %q", x)
			}
		}
		for _, bad := range []digest.Digest{"", "sha256:../../x", "sha512:" + digest.Digest(strings.Repeat("a", 128)), "md5:1"} {
			if _, ok := s.Has(bad); ok {
				t.Errorf("has %q", bad)
			}
			if _, err := s.Open(bad); err == nil {
				t.Errorf("opened %q", bad)
			}
			if err := s.RemoveBlob(bad); err == nil {
				t.Errorf("removed %q", bad)
			}
		}
	})
	t.Run("damaged blob", func(t *testing.T) {
		for name, spoil := range map[string]func(string) error{
			"truncated": func(p string) error { return os.Truncate(p, 10) },
			"empty":     func(p string) error { return os.Truncate(p, 0) },
			"zeroes":    func(p string) error { return os.WriteFile(p, make([]byte, len(data)), 0o644) },
			"longer":    func(p string) error { return os.WriteFile(p, append(slices.Clone(data), 0), 0o644) },
		} {
			d, err := s.PutBlob(data)
			if err != nil {
				t.Fatal(err)
			}
			if err := spoil(filepath.Join(s.Dir(), "blobs", "sha256", d.Encoded())); err != nil {
				t.Fatal(err)
			}
			b, err := s.Open(d)
			if err != nil {
				t.Fatal(err)
			}
			_, err = io.Copy(io.Discard, b)
			var m *Miss
			if !errors.As(err, &m) || m.Reason == "" {
				t.Errorf("%s: %v", name, err)
			}
			b.Close()
			if _, ok := s.Has(d); ok {
				t.Errorf("%s: still there", name)
			}
		}
		if _, err := s.PutBlob(data); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(s.Dir(), "blobs", "sha256", d.Encoded()), make([]byte, len(data)), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := s.PutBlob(data); err != nil { // heals
			t.Fatal(err)
		}
		if _, err := s.ReadBlob(d, 1<<20); err != nil {
			t.Error(err)
		}
	})
	t.Run("key", func(t *testing.T) {
		k := KeyOf([]string{"scheme 1", "RUN make"})
		if k == KeyOf([]string{"scheme 1RUN make"}) || k == KeyOf([]string{"scheme 1", "RUN", " make"}) {
			t.Fatal("lines run together")
		}
		if _, err := s.GetKey(k, false); !errors.Is(err, ErrMiss) {
			t.Fatal(err)
		}
		single := Entry{DiffID: d, Layer: "x", Size: 1, Created: time.Unix(5, 0).UTC(), Lines: []string{"scheme 1", "RUN <a> && \"b\"\n\xff"}}
		if err := s.PutKey(k, single); err != nil {
			t.Fatal(err)
		}
		if _, err := s.GetKey(k, true); !errors.Is(err, ErrMiss) {
			t.Fatalf("a single result answers a full lookup: %v", err)
		}
		full := single
		full.Full, full.Size = true, 2
		if err := s.PutKey(k, full); err != nil {
			t.Fatal(err)
		}
		if err := s.PutKey(k, single); err != nil {
			t.Fatal(err)
		}
		for _, want := range []bool{true, false} {
			e, err := s.GetKey(k, want)
			if err != nil || e.Size != 2 || e.DiffID != d || !e.Created.Equal(single.Created) || len(e.Lines) != 2 {
				t.Fatalf("%+v %v", e, err)
			}
		}
		path := filepath.Join(s.Dir(), keyPath(k, true))
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		other, _ := os.ReadFile(filepath.Join(s.Dir(), keyPath(k, false)))
		for name, b := range map[string][]byte{
			"empty":            {},
			"truncated":        whole[:len(whole)/2],
			"zeroes":           make([]byte, len(whole)),
			"tail":             append(slices.Clone(whole), whole...),
			"another key":      bytes.Replace(whole, []byte(k.String()), []byte(Key{}.String()), 1),
			"bad diffID":       bytes.Replace(whole, []byte(d.String()), []byte("sha256:../../etc/passwd"), 1),
			"single":           other,
			"bad key":          bytes.Replace(whole, []byte(k.String()), []byte("12"), 1),
			"negative size":    bytes.Replace(whole, []byte(`"size":2`), []byte(`"size":-2`), 1),
			"another document": []byte("[]"),
		} {
			if err := os.WriteFile(path, b, 0o644); err != nil {
				t.Fatal(err)
			}
			var m *Miss
			if e, err := s.GetKey(k, true); !errors.As(err, &m) || m.Reason == "" {
				t.Errorf("%s: %+v %v", name, e, err)
			}
		}
		if err := s.RemoveKey(k); err != nil {
			t.Fatal(err)
		}
		if _, err := s.GetKey(k, false); !errors.Is(err, ErrMiss) {
			t.Fatal(err)
		}
		var back Key
		if b, _ := k.MarshalText(); back.UnmarshalText(b) != nil || back != k {
			t.Error("a key does not survive text")
		}
	})
	t.Run("variant", func(t *testing.T) {
		blob, err := s.PutBlob([]byte("compressed"))
		if err != nil {
			t.Fatal(err)
		}
		epoch := int64(7)
		p := Params{MediaType: ocispec.MediaTypeImageLayerGzip, Compression: "gzip", Level: 1}
		q := p
		q.Epoch = &epoch
		v := Variant{DiffID: d, Params: p, Descriptor: ocispec.Descriptor{MediaType: p.MediaType, Digest: blob, Size: 10}}
		if err := s.PutVariant(v); err != nil {
			t.Fatal(err)
		}
		if got, ok := s.GetVariant(d, p); !ok || got.Descriptor.Digest != blob || got.Descriptor.Size != 10 {
			t.Fatalf("%+v %v", got, ok)
		}
		if _, ok := s.GetVariant(d, q); ok {
			t.Fatal("times do not tell variants apart")
		}
		w := v
		w.Params = q
		if err := s.PutVariant(w); err != nil {
			t.Fatal(err)
		}
		if l := s.Variants(d); len(l) != 2 {
			t.Fatalf("%+v", l)
		}
		v.Descriptor.Size = 11
		if err := s.PutVariant(v); !errors.Is(err, ErrMiss) {
			t.Errorf("recorded a blob of another size: %v", err)
		}
		if err := s.RemoveBlob(blob); err != nil {
			t.Fatal(err)
		}
		if _, ok := s.GetVariant(d, p); ok || len(s.Variants(d)) != 0 {
			t.Error("a variant without its blob")
		}
		if err := s.RemoveBlob(blob); err != nil {
			t.Error(err)
		}
	})
	t.Run("image", func(t *testing.T) {
		m, err := s.PutBlob([]byte("{}"))
		if err != nil {
			t.Fatal(err)
		}
		long := "localhost/" + strings.Repeat("x", 300) + ":v1"
		for _, n := range []string{"docker.io/library/b:latest", "docker.io/library/a:latest", "127.0.0.1:5000/../x", long} {
			if err := s.PutImage(Image{Name: n, Target: "t", Created: time.Unix(1, 0), Descriptor: ocispec.Descriptor{Digest: m, Size: 2}}); err != nil {
				t.Fatal(err)
			}
			if got, err := s.GetImage(n); err != nil || got.Name != n || got.Target != "t" {
				t.Fatal(got, err)
			}
		}
		list, err := s.Images()
		if err != nil || len(list) != 4 || !slices.IsSortedFunc(list, func(a, b Image) int { return strings.Compare(a.Name, b.Name) }) {
			t.Fatal(list, err)
		}
		if err := s.RemoveImage(long); err != nil {
			t.Fatal(err)
		}
		if err := s.RemoveImage(long); !errors.Is(err, ErrMiss) {
			t.Fatal(err)
		}
		if err := s.PutImage(Image{}); err == nil {
			t.Error("an image without a name")
		}
		if err := s.RemoveBlob(m); err != nil {
			t.Fatal(err)
		}
		var miss *Miss
		if _, err := s.GetImage("docker.io/library/a:latest"); !errors.As(err, &miss) || miss.Reason == "" {
			t.Fatal(err)
		}
		if list, err := s.Images(); err != nil || len(list) != 0 {
			t.Fatal(list, err)
		}
	})
	t.Run("base", func(t *testing.T) {
		m, err := s.PutBlob([]byte("{ }"))
		if err != nil {
			t.Fatal(err)
		}
		b := Base{Name: "docker.io/library/a:latest", Descriptor: ocispec.Descriptor{Digest: m, Size: 3}, Asked: time.Unix(1, 0)}
		if _, err := s.GetBase(b.Name); !errors.Is(err, ErrMiss) {
			t.Fatal(err)
		}
		if err := s.PutBase(b); err != nil {
			t.Fatal(err)
		}
		if got, err := s.GetBase(b.Name); err != nil || got.Descriptor.Digest != m {
			t.Fatal(got, err)
		}
		if err := s.RemoveBlob(m); err != nil {
			t.Fatal(err)
		}
		var miss *Miss
		if _, err := s.GetBase(b.Name); !errors.As(err, &miss) || miss.Reason == "" {
			t.Fatal(err)
		}
	})
	t.Run("follow", func(t *testing.T) {
		w, err := s.Writer()
		if err != nil {
			t.Fatal(err)
		}
		f, err := w.Follow()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fmt.Fprint(w, "one")
		one := make([]byte, 8)
		if n, err := f.Read(one); string(one[:n]) != "one" || err != nil {
			t.Fatalf("%q %v", one[:n], err)
		}
		fmt.Fprint(w, "two")
		if _, err := w.Commit(""); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(f); string(rest) != "two" || err != nil {
			t.Fatalf("%q %v", rest, err)
		}
		if _, err := w.Follow(); err == nil {
			t.Error("followed a finished blob")
		}
	})
	t.Run("shared lock", func(t *testing.T) {
		one, ok, err := s.TryShare("shared")
		if !ok || err != nil {
			t.Fatal(ok, err)
		}
		two, ok, err := s.TryShare("shared")
		if !ok || err != nil {
			t.Fatal("a second holder:", ok, err)
		}
		one()
		if _, ok, err := s.TryLock("shared"); ok || err != nil {
			t.Fatal("somebody has it alone beside the second holder:", ok, err)
		}
		two()
		if _, err := os.Stat(filepath.Join(s.Dir(), dirLocks, escape("shared"))); !errors.Is(err, fs.ErrNotExist) {
			t.Error("the last holder left the file:", err)
		}
		alone, ok, err := s.TryLock("shared")
		if !ok || err != nil {
			t.Fatal("after the last holder:", ok, err)
		}
		defer alone()
		if _, ok, err := s.TryShare("shared"); ok || err != nil {
			t.Fatal("shared with who has it alone:", ok, err)
		}
	})
	t.Run("lock", func(t *testing.T) {
		unlock, err := s.Lock(ctx, "key/../x", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok, err := s.TryLock("key/../x"); ok || err != nil {
			t.Fatal(ok, err)
		}
		cause := errors.New("enough")
		cctx, cancel := context.WithCancelCause(ctx)
		var holder string
		_, err = s.Lock(cctx, "key/../x", func(h string) { holder = h; cancel(cause) })
		if !errors.Is(err, cause) || holder != s.holder {
			t.Fatalf("%v, held by %q", err, holder)
		}
		got := make(chan error, 1)
		waiting := make(chan bool, 1)
		go func() {
			u, err := s.Lock(ctx, "key/../x", func(string) { waiting <- true })
			if err == nil {
				u()
			}
			got <- err
		}()
		<-waiting
		unlock()
		unlock()
		if err := <-got; err != nil {
			t.Fatal(err)
		}
		list, _ := os.ReadDir(filepath.Join(s.Dir(), "locks"))
		if len(list) != 0 {
			t.Errorf("left %v", list)
		}
	})
	t.Run("temp", func(t *testing.T) {
		a, err := s.TempDir("upper")
		if err != nil {
			t.Fatal(err)
		}
		b, err := s.TempDir("upper")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(a.Path, "f"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(b.Path, "g"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		dest := s.LayerDir("userns-0", "abc")
		if won, err := a.Publish(dest); err != nil || !won {
			t.Fatal(won, err)
		}
		if won, err := b.Publish(dest); err != nil || won {
			t.Fatal(won, err)
		}
		if _, err := os.Stat(filepath.Join(dest, "f")); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(b.Path); !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
		if err := errors.Join(a.Remove(), b.Remove()); err != nil {
			t.Error(err)
		}
		f, err := s.TempFile("tar")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(f, "x")
		f.Close()
		// What is alive stays.
		if n, left, err := s.Sweep(ctx, nil); n != 0 || left != nil || err != nil {
			t.Error(n, left, err)
		}
		if _, err := os.Stat(f.Name()); err != nil {
			t.Error(err)
		}
	})
	t.Run("places", func(t *testing.T) {
		for _, p := range []string{s.LayerDir("../..", ".."), s.FilesDir("/etc"), s.MountsDir()} {
			if !strings.HasPrefix(filepath.Clean(p), s.Dir()+"/") {
				t.Error(p)
			}
		}
		u, err := s.Usage(ctx)
		if err != nil || u["blobs"].Files == 0 || u["blobs"].Bytes < int64(len(data)) || u["layers"].Files != 1 {
			t.Error(u, err)
		}
		if w := s.Warnings(); w != nil {
			t.Log(w)
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	problem := func(dir string, o Options, words ...string) {
		t.Helper()
		s, err := Open(dir, o)
		var p *diag.Problem
		if !errors.As(err, &p) || p.Hint == "" {
			t.Errorf("got %v, want a problem with a hint", err)
			if s != nil {
				s.Close()
			}
			return
		}
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q lacks %q", err, w)
			}
		}
	}
	me := Options{Owner: os.Getuid()}
	problem(t.TempDir(), Options{Owner: os.Getuid() + 1}, "belongs to uid", "chown -R")

	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "thesis.tex"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	problem(other, me, "holds other files", "thesis.tex")
	if st, _ := os.Stat(other); st.Mode().Perm() != 0o755 {
		t.Errorf("changed the mode of somebody's directory to %v", st.Mode())
	}

	dir := t.TempDir()
	testOpen(t, dir)
	if st, _ := os.Stat(dir); st.Mode().Perm() != 0o700 {
		t.Errorf("mode %v", st.Mode())
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	problem(dir, me, "others may write", "chmod 700")
	if err := os.Chmod(dir, 0o755); err != nil { // nobody could write: put right
		t.Fatal(err)
	}
	testOpen(t, dir)
	if st, _ := os.Stat(dir); st.Mode().Perm() != 0o700 {
		t.Errorf("mode %v", st.Mode())
	}
	for text, words := range map[string]string{"2\n": "format 2", "\x00\x00": "damaged format"} {
		if err := os.WriteFile(filepath.Join(dir, "format"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		problem(dir, me, words)
		if _, err := Attach(dir, me); err == nil {
			t.Error("attached to a later format")
		}
	}
}

// A node that turned bad cannot make the outer process read or block elsewhere.
func TestLinksAndFifosAreNoBlobs(t *testing.T) {
	s := testOpen(t, t.TempDir())
	secret := []byte("a file of the host")
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	d := digest.FromBytes(secret)
	place := filepath.Join(s.Dir(), "blobs", "sha256", d.Encoded())
	if err := os.Symlink(outside, place); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Has(d); ok {
		t.Error("a link is a blob")
	}
	if _, err := s.ReadBlob(d, 100); err == nil {
		t.Error("read through a link")
	}
	k := Key(sha256.Sum256(nil))
	path := filepath.Join(s.Dir(), keyPath(k, true))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GetKey(k, true); !errors.Is(err, ErrMiss) {
		t.Error(err)
	}
	lock := filepath.Join(s.Dir(), "locks", "l")
	if err := os.Symlink(outside, lock); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lock(t.Context(), "l", nil); err == nil {
		t.Error("locked through a link")
	}
	if b, _ := os.ReadFile(outside); !bytes.Equal(b, secret) {
		t.Errorf("the host's file became %q", b)
	}
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(s.Dir(), "images")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(outside), filepath.Join(s.Dir(), "images")); err != nil {
		t.Fatal(err)
	}
	if err := s.PutImage(Image{Name: "x"}); err == nil {
		t.Error("wrote through a link")
	}
}

func BenchmarkGetKey(b *testing.B) {
	s, err := Open(b.TempDir(), Options{Owner: os.Getuid()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var keys []Key
	for i := range 500 {
		lines := []string{fmt.Sprint("step ", i)}
		for j := range 12 {
			lines = append(lines, fmt.Sprintf("env NAME_%d=some value that is not very long", j))
		}
		k := KeyOf(lines)
		if err := s.PutKey(k, Entry{DiffID: digest.FromString(lines[0]), Content: digest.FromString("c"), Full: true, Created: time.Unix(1e9, 0), Lines: lines}); err != nil {
			b.Fatal(err)
		}
		keys = append(keys, k)
	}
	i := 0
	for b.Loop() {
		if _, err := s.GetKey(keys[i%len(keys)], true); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkMissKey(b *testing.B) {
	s, err := Open(b.TempDir(), Options{Owner: os.Getuid()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for b.Loop() {
		if _, err := s.GetKey(Key{}, true); !errors.Is(err, ErrMiss) {
			b.Fatal(err)
		}
	}
}

func BenchmarkPutKey(b *testing.B) {
	s, err := Open(b.TempDir(), Options{Owner: os.Getuid()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for i := 0; b.Loop(); i++ {
		if err := s.PutKey(KeyOf([]string{fmt.Sprint(i)}), Entry{Full: true, Lines: []string{"one line"}}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenClose(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		s, err := Open(dir, Options{Owner: os.Getuid()})
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}

func BenchmarkLock(b *testing.B) {
	s, err := Open(b.TempDir(), Options{Owner: os.Getuid()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for b.Loop() {
		u, err := s.Lock(b.Context(), "x", nil)
		if err != nil {
			b.Fatal(err)
		}
		u()
	}
}

func BenchmarkWriteBlob(b *testing.B) {
	s, err := Open(b.TempDir(), Options{Owner: os.Getuid()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	data := make([]byte, 64<<20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		w, err := s.Writer()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			b.Fatal(err)
		}
		if _, err := w.Commit(""); err != nil {
			b.Fatal(err)
		}
	}
}
