package copier

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
)

// maxWindow bounds the memory that a compressed stream can ask for, in bytes:
// twice what "xz -9" needs.
const maxWindow = 128 << 20

// IsArchive tells whether a stream is something that ADD unpacks: a tar with
// at least one entry, plain or compressed with gzip, bzip2, xz or zstd. An
// error is one of reading that says nothing about the content.
func IsArchive(r io.Reader) (bool, error) {
	src := &sourceReader{r: r}
	d, err := decompress(src)
	if err == nil {
		_, err = tar.NewReader(d).Next()
		d.Close()
	}
	if src.err != nil {
		return false, src.err
	}
	return err == nil, nil
}

// sourceReader remembers an error of the source itself.
type sourceReader struct {
	r   io.Reader
	err error
}

func (s *sourceReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// decompress reads a stream whatever it is compressed with.
func decompress(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	head, err := b.Peek(10)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b\x08")):
		return gzip.NewReader(b)
	case bytes.HasPrefix(head, []byte("BZh")):
		return io.NopCloser(bzip2.NewReader(b)), nil
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		x, err := xz.NewReader(b, maxWindow)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(x), nil
	case isZstd(head):
		z, err := zstd.NewReader(b, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(b), nil
}

// isZstd tells whether a stream begins with a frame of zstd, a skippable one too.
func isZstd(head []byte) bool {
	if bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")) {
		return true
	}
	return len(head) >= 8 && binary.LittleEndian.Uint32(head)&^0xf == 0x184d2a50
}
