package retry

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// Reader reads a body that may be cut, and goes on where it was.
type Reader struct {
	open   func(ctx context.Context, offset int64) (io.ReadCloser, error)
	ctx    context.Context
	body   io.ReadCloser
	offset int64
	try    int // since there was something to read
}

// NewReader begins with a body that is open. open answers with what comes from an offset
// on, in bytes: of the same body, or an error. ctx is for that.
func NewReader(ctx context.Context, body io.ReadCloser, open func(ctx context.Context, offset int64) (io.ReadCloser, error)) *Reader {
	return &Reader{open: open, ctx: ctx, body: body}
}

// Read is that of io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	for {
		n, err := r.body.Read(p)
		r.offset += int64(n)
		if n > 0 {
			r.try = 0
		}
		if err == nil || errors.Is(err, io.EOF) || !Passing(err) {
			return n, err
		}
		if n > 0 {
			return n, nil // the error comes again, or the rest does
		}
		if r.try++; r.try >= Attempts {
			return 0, err
		}
		if perr := Pause(r.ctx, r.try, 0); perr != nil {
			return 0, perr
		}
		body, oerr := r.open(r.ctx, r.offset)
		if oerr != nil {
			return 0, fmt.Errorf("%w, and then: %w", err, oerr)
		}
		r.body.Close()
		r.body = body
	}
}

// Close is that of io.Closer.
func (r *Reader) Close() error { return r.body.Close() }
