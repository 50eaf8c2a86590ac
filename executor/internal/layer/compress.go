package layer

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
	"github.com/opencontainers/go-digest"
)

// Algorithm names a compression as image tools do.
type Algorithm string

const (
	Gzip Algorithm = "gzip"
	Zstd Algorithm = "zstd"
	None Algorithm = "none"
)

// Compression says how a blob is made from a tar. Equal values make equal
// blobs of equal tars, on any machine, with one release of this program.
type Compression struct {
	Type  Algorithm // "" is Gzip
	Level int       // 0 is the algorithm's default; gzip 1..9, zstd 1..22
}

// Defaults, by BenchmarkCompress on 300 MB of Debian's /usr/bin and libraries,
// 2 cores: gzip 2 makes 427 MB/s and 40.1 % of the size, 3: 354 and 38.8, 4: 269
// and 37.8, 6: 211 and 36.5, 9: 20 and 35.6; zstd 1: 469 and 36.8, 3: 343 and
// 34.6, 9: 87 and 33.6. Compression is what a cold build waits for: beyond gzip 3
// a second of it buys less than a slow registry link would give back.
const (
	DefaultGzipLevel = 3
	DefaultZstdLevel = 3
)

const (
	gzipBlock  = 512 << 10 // bytes compressed by one goroutine at a time; part of what makes the output
	zstdFrame  = 2 << 20   // the same for zstd: each is a frame of its own
	maxGzip    = 16        // goroutines: 16 blocks in and out are 16 MB
	maxZstd    = 4         // goroutines: 4 frames in and out, and their tables, stay below 64 MB
	maxZWindow = 128 << 20 // what zstd --ultra -22 needs
)

// Normal fills in the defaults, so that the value can be part of a key.
func (c Compression) Normal() (Compression, error) {
	low, high := 0, 0
	switch c.Type {
	case Gzip, "":
		c.Type, low, high = Gzip, 1, 9
		if c.Level == 0 {
			c.Level = DefaultGzipLevel
		}
	case Zstd:
		low, high = 1, 22
		if c.Level == 0 {
			c.Level = DefaultZstdLevel
		}
	case None:
	default:
		return c, fmt.Errorf("compression %q is not known: gzip, zstd and none are", c.Type)
	}
	if c.Level < low || c.Level > high {
		return c, fmt.Errorf("%s has no compression level %d: %d to %d are possible", c.Type, c.Level, low, high)
	}
	return c, nil
}

// Quick tells whether compressing takes about as long as hashing does, see the
// numbers above: nothing is gained by doing it later.
func (c Compression) Quick() bool {
	c, err := c.Normal()
	return err == nil && (c.Type == None || c.Type == Gzip && c.Level <= 6 || c.Type == Zstd && c.Level <= 3)
}

// Compress returns a writer that compresses into w on all CPUs. Close it to
// get the end of the blob; it does not close w.
func Compress(w io.Writer, c Compression) (io.WriteCloser, error) {
	c, err := c.Normal()
	if err != nil {
		return nil, err
	}
	switch c.Type {
	case Gzip:
		z, err := pgzip.NewWriterLevel(w, c.Level)
		if err != nil {
			return nil, fmt.Errorf("compress: %w", err)
		}
		if err := z.SetConcurrency(gzipBlock, min(runtime.GOMAXPROCS(0)+1, maxGzip)); err != nil {
			return nil, fmt.Errorf("compress: %w", err)
		}
		return z, nil
	case Zstd:
		return newZstdWriter(w, c.Level)
	default:
		return nopCloser{w}, nil
	}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// zstdWriter compresses frames of a fixed size side by side. Concatenated
// frames are one zstd stream to every reader.
type zstdWriter struct {
	enc   *zstd.Encoder
	fill  []byte
	next  chan chan zstdChunk // frames in order, each a channel that gets its result
	free  chan []byte
	done  chan struct{}
	close sync.Once

	mu  sync.Mutex
	err error // the first, of writing
}

type zstdChunk struct{ in, out []byte }

func newZstdWriter(w io.Writer, level int) (*zstdWriter, error) {
	n := min(runtime.GOMAXPROCS(0), maxZstd)
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)), zstd.WithEncoderConcurrency(n),
		zstd.WithWindowSize(zstdFrame), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(true))
	if err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	z := &zstdWriter{
		enc: enc, fill: make([]byte, 0, zstdFrame),
		next: make(chan chan zstdChunk, n-1), free: make(chan []byte, n+1), done: make(chan struct{}),
	}
	go func() {
		defer close(z.done)
		for result := range z.next {
			c := <-result
			if z.failed() == nil {
				if _, err := w.Write(c.out); err != nil {
					z.mu.Lock()
					z.err = err
					z.mu.Unlock()
				}
			}
			for _, b := range [][]byte{c.in, c.out} {
				select {
				case z.free <- b[:0]:
				default:
				}
			}
		}
	}()
	return z, nil
}

func (z *zstdWriter) failed() error {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.err
}

func (z *zstdWriter) buffer() []byte {
	select {
	case b := <-z.free:
		if cap(b) >= zstdFrame {
			return b
		}
	default:
	}
	return make([]byte, 0, zstdFrame+zstdFrame/64)
}

func (z *zstdWriter) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		n := min(len(p), zstdFrame-len(z.fill))
		z.fill, p = append(z.fill, p[:n]...), p[n:]
		if len(z.fill) == zstdFrame {
			z.flush()
			if err := z.failed(); err != nil {
				return total - len(p), err
			}
		}
	}
	return total, nil
}

func (z *zstdWriter) flush() {
	in, out := z.fill, z.buffer()
	result := make(chan zstdChunk, 1)
	z.next <- result // waits while enough frames are under way
	go func() { result <- zstdChunk{in, z.enc.EncodeAll(in, out)} }()
	z.fill = z.buffer()
}

func (z *zstdWriter) Close() error {
	z.close.Do(func() {
		z.flush() // the last one, perhaps empty: an empty blob is a frame too
		close(z.next)
	})
	<-z.done
	return errors.Join(z.failed(), z.enc.Close())
}

// Decompress finds out by its first bytes how r is compressed and returns what
// is in it. Closing the result does not close r. A blob that ends early is
// io.ErrUnexpectedEOF.
func Decompress(r io.Reader) (io.ReadCloser, Algorithm, error) {
	b := bufio.NewReaderSize(r, 256<<10)
	head, err := b.Peek(4)
	if err != nil && err != io.EOF {
		return nil, "", fmt.Errorf("read blob: %w", err)
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := pgzip.NewReaderN(b, gzipBlock, 4) // reads concatenated members as one
		if err != nil {
			return nil, "", fmt.Errorf("read gzip: %w", unexpected(err))
		}
		return z, Gzip, nil
	case isZstd(head):
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZWindow))
		if err != nil {
			return nil, "", fmt.Errorf("read zstd: %w", err)
		}
		return z.IOReadCloser(), Zstd, nil
	default:
		return io.NopCloser(b), None, nil
	}
}

// isZstd knows the magic number of a frame and those of skippable frames,
// which some tools put first.
func isZstd(b []byte) bool {
	return len(b) == 4 && (bytes.Equal(b, []byte{0x28, 0xb5, 0x2f, 0xfd}) || b[0]&0xf0 == 0x50 && b[1] == 0x2a && b[2] == 0x4d && b[3] == 0x18)
}

// DiffID reads a blob, compressed or not, and returns the digest and size of
// the tar in it.
func DiffID(blob io.Reader) (id digest.Digest, size int64, err error) {
	r, _, err := Decompress(blob)
	if err != nil {
		return "", 0, err
	}
	defer r.Close()
	h := digest.Canonical.Digester()
	size, err = io.Copy(h.Hash(), r)
	if err != nil {
		return "", 0, fmt.Errorf("read layer: %w", err)
	}
	return h.Digest(), size, nil
}
