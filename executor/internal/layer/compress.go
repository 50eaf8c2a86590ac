package layer

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"runtime"

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
	zstdFrame  = 2 << 20   // bytes, the most that one frame holds
	maxGzip    = 16        // goroutines: 16 blocks in and out are 24 MB
	maxZstd    = 4         // goroutines: 4 frames in and out, and their tables, stay below 64 MB
	readAhead  = 512 << 10 // bytes of a gzip that is read
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
		if high == 0 {
			return c, fmt.Errorf("compression %s has no levels, and %d is given", c.Type, c.Level)
		}
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
	return CompressWith(w, c, nil)
}

// CompressWith is Compress that takes blocks which were compressed before from
// pieces, if that is not nil. The blob is the same.
func CompressWith(w io.Writer, c Compression, pieces Pieces) (io.WriteCloser, error) {
	c, err := c.Normal()
	if err != nil {
		return nil, err
	}
	switch c.Type {
	case Gzip:
		g := &gzipForm{level: c.Level}
		return newBlocks(w, g, cuts{256 << 10, 768 << 10}, min(runtime.GOMAXPROCS(0)+1, maxGzip), pieces)
	case Zstd:
		n := min(runtime.GOMAXPROCS(0), maxZstd)
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(c.Level)), zstd.WithEncoderConcurrency(n),
			zstd.WithWindowSize(zstdFrame), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(true))
		if err != nil {
			return nil, fmt.Errorf("compress: %w", err)
		}
		return newBlocks(w, zstdForm{enc}, cuts{zstdFrame / 2, zstdFrame}, n, pieces)
	default:
		return nopCloser{w}, nil
	}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

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
		z, err := pgzip.NewReaderN(b, readAhead, 4) // reads concatenated members as one
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
