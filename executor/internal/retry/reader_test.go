package retry

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// TestReaderGivesUp reads what is cut again and again: as long as something comes each
// time it goes on, and not for ever where nothing does.
func TestReaderGivesUp(t *testing.T) {
	const text = "012"
	piece := func(from int) io.ReadCloser {
		return io.NopCloser(io.MultiReader(strings.NewReader(text[from:min(from+1, len(text))]), iotest.ErrReader(io.ErrUnexpectedEOF)))
	}
	opened := 0
	b, err := io.ReadAll(NewReader(t.Context(), piece(0), func(_ context.Context, offset int64) (io.ReadCloser, error) {
		opened++
		return piece(int(offset)), nil
	}))
	if string(b) != text || !errors.Is(err, io.ErrUnexpectedEOF) || opened != len(text)-1+Attempts-1 {
		t.Errorf("got %q, %v, opened %d times", b, err, opened)
	}
	gone := errors.New("gone")
	if _, err := io.ReadAll(NewReader(t.Context(), piece(0), func(context.Context, int64) (io.ReadCloser, error) { return nil, gone })); !errors.Is(err, gone) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	if _, err := io.ReadAll(NewReader(t.Context(), io.NopCloser(iotest.ErrReader(gone)), nil)); !errors.Is(err, gone) {
		t.Errorf("an error that stays: %v", err)
	}
}
