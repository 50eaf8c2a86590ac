package copier

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	cloneFrom = 64 << 10 // bytes: smaller files are not worth a try to share their blocks
	chunk     = 16 << 20 // bytes between looks at the context
)

// buffers hold what is copied through memory.
var buffers = sync.Pool{New: func() any { b := make([]byte, 128<<10); return &b }}

// copyData writes src, of about size bytes, to dst, which is empty: by sharing
// blocks if the file system can, else inside the kernel, with holes where the
// source has some.
func copyData(ctx context.Context, dst *os.File, src io.Reader, size int64) error {
	f, ok := src.(*os.File)
	if !ok {
		b := buffers.Get().(*[]byte)
		defer buffers.Put(b)
		_, err := io.CopyBuffer(struct{ io.Writer }{dst}, ctxReader{ctx, src}, *b)
		return err
	}
	if size < cloneFrom {
		return copySmall(ctx, dst, f)
	}
	if unix.IoctlFileClone(int(dst.Fd()), int(f.Fd())) == nil {
		return nil
	}
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil || st.Blocks*512 >= st.Size {
		return copyRange(ctx, dst, f)
	}
	return copySparse(ctx, dst, f, st.Size)
}

// copySmall takes two calls for what fits into a buffer.
func copySmall(ctx context.Context, dst, src *os.File) error {
	b := buffers.Get().(*[]byte)
	defer buffers.Put(b)
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n, err := src.Read(*b)
		if n > 0 {
			if _, err := dst.Write((*b)[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || err == nil && n < len(*b) { // a regular file that gives less has no more
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func copyRange(ctx context.Context, dst, src *os.File) error {
	for {
		n, err := io.Copy(dst, io.LimitReader(src, chunk))
		if err != nil || n == 0 {
			return err
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if n < chunk {
			return nil
		}
	}
}

func copySparse(ctx context.Context, dst, src *os.File, size int64) error {
	for pos := int64(0); pos < size; {
		data, err := unix.Seek(int(src.Fd()), pos, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // a hole to the end
		}
		if errors.Is(err, unix.EINVAL) { // a file system that cannot tell
			return errors.Join(rewind(src, dst), copyRange(ctx, dst, src))
		}
		if err != nil {
			return err
		}
		hole, err := unix.Seek(int(src.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if _, err := src.Seek(data, io.SeekStart); err != nil {
			return err
		}
		if _, err := dst.Seek(data, io.SeekStart); err != nil {
			return err
		}
		for left := hole - data; left > 0; {
			n, err := io.Copy(dst, io.LimitReader(src, min(left, chunk)))
			if err != nil {
				return err
			}
			if n == 0 {
				return dst.Truncate(data) // it has become shorter
			}
			if err := context.Cause(ctx); err != nil {
				return err
			}
			left -= n
		}
		pos = hole
	}
	return dst.Truncate(size)
}

func rewind(files ...*os.File) error {
	for _, f := range files {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
	return nil
}

// ctxReader ends with the context.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r ctxReader) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
