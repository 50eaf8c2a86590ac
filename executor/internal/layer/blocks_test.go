package layer_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"kaniko-build/executor/internal/layer"
)

// remembered are pieces in memory.
type remembered struct {
	mu    sync.Mutex
	known map[[32]byte][]byte // of earlier blobs
	made  []madePiece
	asked int
	found int
}

type madePiece struct {
	sum, packed [32]byte
	at          int64
	size        int
}

func (r *remembered) Find(b []byte, sum [32]byte) ([]byte, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	p, ok := r.known[sum]
	if ok {
		r.found++
	}
	return append(b, p...), ok
}

func (r *remembered) Made(sum, packed [32]byte, at int64, size int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.made = append(r.made, madePiece{sum, packed, at, size})
}

// tarOf is a tar of files whose names follow from what they hold.
func tarOf(t *testing.T, files [][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("dir/%x", sha256.Sum256(f[len(f)/2:])), Size: int64(len(f)), Mode: 0o644, ModTime: time.Unix(1e9, 0)}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A blob that is made of pieces of an earlier one is, to the byte, what is made
// without, and after a change of one file nearly all of it is.
func TestPiecesMakeTheSameBlob(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var files [][]byte
	for range 600 {
		f := make([]byte, rnd.IntN(16<<10))
		for i := range f[:len(f)/2] {
			f[i] = byte(rnd.Uint32())
		}
		files = append(files, f)
	}
	files = append(files, sample(3<<20)) // many blocks without a header
	edits := map[string]func(){
		"nothing":       func() {},
		"other bytes":   func() { files[100] = append([]byte("x"), files[100]...)[:len(files[100])] },
		"more bytes":    func() { files[200] = append(bytes.Repeat([]byte("more"), 1000), files[200]...) },
		"a file less":   func() { files = append(files[:300:300], files[301:]...) },
		"the large one": func() { files[len(files)-1][1<<19] ^= 1 },
	}
	for _, c := range []layer.Compression{{}, {Type: layer.Zstd}} {
		known := map[[32]byte][]byte{}
		for i, name := range []string{"nothing", "nothing", "other bytes", "more bytes", "a file less", "the large one"} {
			edits[name]()
			data := tarOf(t, files)
			now := &remembered{known: known}
			blob := compressWith(t, data, c, now, rnd)
			if plain := compressWith(t, data, c, nil, rnd); !bytes.Equal(plain, blob) {
				t.Errorf("%v, %s: %d bytes with pieces, %d others without", c, name, len(blob), len(plain))
			}
			if fresh := now.asked - now.found; i > 0 && fresh > 5 {
				t.Errorf("%v, %s: %d of %d blocks are not as before", c, name, fresh, now.asked)
			}
			r, _, err := layer.Decompress(bytes.NewReader(blob))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%v, %s: it holds something else (%v)", c, name, err)
			}
			for _, p := range now.made {
				form := blob[p.at : p.at+int64(p.size)]
				if sha256.Sum256(form) != p.packed {
					t.Fatalf("%v, %s: the block at %d is another than said", c, name, p.at)
				}
				known[p.sum] = form
			}
		}
	}
}

func compressWith(t *testing.T, data []byte, c layer.Compression, p *remembered, rnd *rand.Rand) []byte {
	t.Helper()
	var b bytes.Buffer
	var pieces layer.Pieces
	if p != nil {
		pieces = p
	}
	w, err := layer.CompressWith(&b, c, pieces)
	if err != nil {
		t.Fatal(err)
	}
	for rest := data; len(rest) > 0; {
		n := min(len(rest), 1+rnd.IntN(300<<10))
		if _, err := w.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// What blocks are compressed to is part of what remembered pieces are: when this
// fails, as it may with another release of the libraries, executor.piecesScheme must be
// another too.
func TestBlocksAreCompressedAsBefore(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var files [][]byte
	for i := range 400 {
		files = append(files, bytes.Repeat(fmt.Appendf(nil, "line %d of a file\n", i), rnd.IntN(400)))
	}
	data := tarOf(t, files)
	got := ""
	for _, c := range []layer.Compression{{}, {Level: 6}, {Type: layer.Zstd}} {
		got += fmt.Sprintf("%x\n", sha256.Sum256(compressWith(t, data, c, nil, rnd)))
	}
	if sum := fmt.Sprintf("%x", sha256.Sum256([]byte(got))); sum != "a0b425ea4fc234f4b7198a2a74dedbee4839523b9010e254c72915f96b08e5dd" {
		t.Errorf("blobs are now\n%swith the sum %s", got, sum)
	}
}
