package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Retime copies a tar and sets every time after epoch to it, as BuildKit's
// rewrite-timestamp does; headers are written anew, the order stays. The input
// is read to its end. It is for layers of ours: those of a base stay as they
// are, byte for byte.
func Retime(ctx context.Context, w io.Writer, r io.Reader, epoch time.Time) error {
	src := &blocks{r: r}
	in, out := tar.NewReader(src), tar.NewWriter(w)
	buf := make([]byte, 128<<10)
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		h, err := src.next(in)
		if err == io.EOF {
			break
		}
		if err != nil && !(errors.Is(err, tar.ErrInsecurePath) && h != nil) {
			return fmt.Errorf("rewrite times: read tar: %w", err)
		}
		for _, t := range []*time.Time{&h.ModTime, &h.AccessTime, &h.ChangeTime} {
			if t.After(epoch) {
				*t = epoch
			}
		}
		if err := out.WriteHeader(h); err != nil {
			return fmt.Errorf("rewrite times: %s: %w", h.Name, err)
		}
		if _, err := io.CopyBuffer(onlyWriter{out}, onlyReader{in}, buf); err != nil {
			return fmt.Errorf("rewrite times: %s: %w", h.Name, err)
		}
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("rewrite times: %w", err)
	}
	if _, err := io.CopyBuffer(io.Discard, src, buf); err != nil {
		return fmt.Errorf("rewrite times: read tar: %w", err)
	}
	return nil
}

// Without their WriteTo and ReadFrom, which would leave the buffer unused.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)
