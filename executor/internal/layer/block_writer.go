package layer

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
)

// blockWriter compresses a tar in blocks, side by side, and writes them in order:
//
//	tar ─cut─> block ─┬─> pieces? ─ yes ─> as before ─┬─> blob
//	                  └─────────── no ─> compressed ──┘
//
// What becomes of a block depends on nothing but its bytes. Where blocks end depends
// on little but the members of the tar that are near: so a change of one file leaves
// nearly all of them as they were, wherever they have moved to.
type blockWriter struct {
	w      io.Writer
	form   form
	cuts   cuts
	pieces Pieces // nil: there are none

	fill   []byte
	seen   int // bytes of fill in which no end was found
	made   int // blocks so far
	size   int64
	sum    uint32 // CRC-32 of all so far, if the form has one
	at     int64  // in the blob; of the goroutine that writes
	next   chan chan block
	free   chan []byte
	done   chan struct{}
	close  sync.Once
	mu     sync.Mutex
	broken error // the first, of writing
}

// Pieces remembers blocks that were compressed with the same settings before.
type Pieces interface {
	// Find gives the compressed form of the block that has the SHA-256 sum, appended to
	// b; false if it is not known. It is called from many goroutines.
	Find(b []byte, sum [32]byte) ([]byte, bool)
	// Made is told of each block of a blob in order: the sums of the block and of its
	// compressed form, and where that is in the blob.
	Made(sum, packed [32]byte, at int64, size int)
}

// form is what blocks look like.
type form interface {
	// head begins a blob.
	head() []byte
	// pack appends the compressed block to out. It is called from many goroutines.
	pack(out, in []byte) ([]byte, error)
	// tail ends a blob: size bytes with that CRC-32 are in it.
	tail(size int64, sum uint32) []byte
	// empty tells whether a blob without any block is one.
	empty() bool
	end() error
}

type block struct {
	in, out     []byte
	sum, packed [32]byte // if there are pieces
	err         error
}

// cuts are the least and the greatest size of a block, in bytes; both are whole
// records of a tar.
type cuts struct{ min, max int }

const record512 = 512 // bytes of a record of a tar

// ends tells whether a block may end before a record: one in sixteen headers, by the
// name in it.
func ends(record []byte) bool {
	if string(record[257:262]) != "ustar" {
		return false
	}
	h := uint64(14695981039346656037) // FNV-1a
	for _, c := range record[:100] {
		if c == 0 {
			break
		}
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h*0x9e3779b97f4a7c15>>60 == 0
}

func newBlocks(w io.Writer, f form, c cuts, jobs int, pieces Pieces) (*blockWriter, error) {
	b := &blockWriter{
		w: w, form: f, cuts: c, pieces: pieces,
		next: make(chan chan block, max(1, jobs-1)), free: make(chan []byte, jobs+1), done: make(chan struct{}),
	}
	b.fill = b.buffer()
	go b.write()
	return b, nil
}

// write writes what was compressed, in order.
func (b *blockWriter) write() {
	defer close(b.done)
	put := func(p []byte) {
		if b.failed() != nil {
			return
		}
		n, err := b.w.Write(p)
		b.at += int64(n)
		b.fail(err)
	}
	put(b.form.head())
	for result := range b.next {
		one := <-result
		b.fail(one.err)
		at := b.at
		put(one.out)
		if b.pieces != nil && b.failed() == nil {
			b.pieces.Made(one.sum, one.packed, at, len(one.out))
		}
		for _, buf := range [][]byte{one.in, one.out} {
			select {
			case b.free <- buf[:0]:
			default:
			}
		}
	}
}

func (b *blockWriter) failed() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.broken
}

func (b *blockWriter) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken == nil {
		b.broken = err
	}
}

func (b *blockWriter) buffer() []byte {
	select {
	case buf := <-b.free:
		if cap(buf) >= b.cuts.max {
			return buf
		}
	default:
	}
	return make([]byte, 0, b.cuts.max+b.cuts.max/64)
}

const stride = 64 << 10 // bytes that are looked at together

func (b *blockWriter) Write(p []byte) (int, error) {
	total := len(p)
	b.size += int64(total)
	if g, ok := b.form.(*gzipForm); ok {
		b.sum = g.update(b.sum, p)
	}
	for len(p) > 0 {
		n := min(len(p), b.cuts.max-len(b.fill), stride)
		b.fill, p = append(b.fill, p[:n]...), p[n:]
		if !b.cut() {
			continue
		}
		if err := b.failed(); err != nil {
			return total - len(p), err
		}
	}
	return total, nil
}

// cut hands over a block if there is the end of one.
func (b *blockWriter) cut() bool {
	at := max(b.seen, b.cuts.min)
	for ; at+record512 <= len(b.fill); at += record512 {
		if ends(b.fill[at : at+record512]) {
			rest := b.fill[at:]
			b.hand(b.fill[:at])
			b.fill = append(b.buffer(), rest...)
			b.seen = 0
			return true
		}
	}
	b.seen = at
	if len(b.fill) < b.cuts.max {
		return false
	}
	b.hand(b.fill)
	b.fill, b.seen = b.buffer(), 0
	return true
}

// hand has a block compressed.
func (b *blockWriter) hand(in []byte) {
	b.made++
	out := b.buffer()
	result := make(chan block, 1)
	b.next <- result // waits while enough blocks are under way
	go func() { result <- b.compress(in, out) }()
}

func (b *blockWriter) compress(in, out []byte) (one block) {
	one.in, one.out = in, out
	if b.pieces == nil {
		one.out, one.err = b.form.pack(out, in)
		return one
	}
	one.sum = sha256.Sum256(in)
	known, ok := b.pieces.Find(out, one.sum)
	if one.out = known; !ok {
		one.out, one.err = b.form.pack(out, in)
	}
	one.packed = sha256.Sum256(one.out)
	return one
}

func (b *blockWriter) Close() error {
	b.close.Do(func() {
		if len(b.fill) > 0 || b.made == 0 && !b.form.empty() {
			b.hand(b.fill)
		}
		close(b.next)
		<-b.done
		if b.failed() == nil {
			_, err := b.w.Write(b.form.tail(b.size, b.sum))
			b.fail(err)
		}
		b.fail(b.form.end())
	})
	return b.failed()
}

// gzipForm is one member: blocks are flushed one by one, and none refers to another.
type gzipForm struct {
	level int
	free  sync.Pool // of *flate.Writer
}

func (g *gzipForm) head() []byte { return []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255} }

func (g *gzipForm) update(sum uint32, p []byte) uint32 { return crc32.Update(sum, crc32.IEEETable, p) }

func (g *gzipForm) pack(out, in []byte) ([]byte, error) {
	w := bytes.NewBuffer(out)
	z, _ := g.free.Get().(*flate.Writer)
	if z == nil {
		var err error
		if z, err = flate.NewWriter(w, g.level); err != nil {
			return out, fmt.Errorf("compress: %w", err)
		}
	} else {
		z.Reset(w)
	}
	_, err := z.Write(in)
	if err = errors.Join(err, z.Flush()); err != nil {
		return out, fmt.Errorf("compress: %w", err)
	}
	g.free.Put(z)
	return w.Bytes(), nil
}

func (g *gzipForm) tail(size int64, sum uint32) []byte {
	out := []byte{3, 0} // a last block with nothing in it
	out = binary.LittleEndian.AppendUint32(out, sum)
	return binary.LittleEndian.AppendUint32(out, uint32(size))
}

func (g *gzipForm) empty() bool { return true }

func (g *gzipForm) end() error { return nil }

// zstdForm has a frame for each block. Frames that follow one another are one stream
// to every reader.
type zstdForm struct{ enc *zstd.Encoder }

func (z zstdForm) head() []byte { return nil }

func (z zstdForm) pack(out, in []byte) ([]byte, error) { return z.enc.EncodeAll(in, out), nil }

func (z zstdForm) tail(int64, uint32) []byte { return nil }

func (z zstdForm) empty() bool { return false }

func (z zstdForm) end() error { return z.enc.Close() }
