package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/store"
)

// FromStore reads what is in a store.
func FromStore(s *store.Store) Source { return storeSource{s} }

type storeSource struct{ s *store.Store }

func (s storeSource) Open(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	b, err := s.s.Open(d.Digest)
	if errors.Is(err, store.ErrMiss) {
		return nil, fmt.Errorf("%w: %w", err, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	if d.Size != b.Size() {
		return nil, errors.Join(fmt.Errorf("blob %s has %d bytes in the store, not %d", d.Digest, b.Size(), d.Size), b.Close())
	}
	return b, nil
}

// First reads from the first source that has what is asked for.
func First(sources ...Source) Source { return first(sources) }

type first []Source

func (f first) Open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	err := error(fmt.Errorf("blob %s: %w", d.Digest, ErrNotFound))
	for _, s := range f {
		var r io.ReadCloser
		if r, err = s.Open(ctx, d); err == nil || !errors.Is(err, ErrNotFound) {
			return r, err
		}
	}
	return nil, err
}

// Verify reads r and ends with io.EOF only if what was read has the size and
// digest of d. It reads no more than one byte beyond that size.
func Verify(r io.ReadCloser, d ocispec.Descriptor) io.ReadCloser {
	return &verifier{r: r, want: d, sum: sha256.New()}
}

type verifier struct {
	r    io.ReadCloser
	want ocispec.Descriptor
	sum  hash.Hash
	n    int64
	done error
}

func (v *verifier) Read(p []byte) (int, error) {
	if v.done != nil {
		return 0, v.done
	}
	if room := v.want.Size - v.n + 1; int64(len(p)) > room {
		p = p[:room]
	}
	n, err := v.r.Read(p)
	v.n += int64(n)
	v.sum.Write(p[:n])
	switch {
	case v.n > v.want.Size:
		v.done = fmt.Errorf("%s has more than the %d bytes that it says", v.want.Digest, v.want.Size)
		return n - 1, v.done
	case err == nil:
		return n, nil
	case !errors.Is(err, io.EOF):
		v.done = err
	case v.n < v.want.Size:
		v.done = fmt.Errorf("%s ends after %d of %d bytes: %w", v.want.Digest, v.n, v.want.Size, io.ErrUnexpectedEOF)
	case hex.EncodeToString(v.sum.Sum(nil)) != v.want.Digest.Encoded():
		v.done = fmt.Errorf("what came for %s has the digest sha256:%x", v.want.Digest, v.sum.Sum(nil))
	default:
		v.done = io.EOF
	}
	return n, v.done
}

func (v *verifier) Close() error { return v.r.Close() }
