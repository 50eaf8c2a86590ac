package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// ErrDigest is returned by Commit for bytes that are not those expected.
var ErrDigest = errors.New("digest does not match")

func blobPath(d digest.Digest) (string, error) {
	if d.Validate() != nil || d.Algorithm() != digest.SHA256 {
		return "", fmt.Errorf("%q is no sha256 digest", d)
	}
	return dirBlobs + "/" + d.Encoded(), nil
}

// Writer takes the bytes of one blob. It is for one goroutine.
type Writer struct {
	s    *Store
	f    *os.File
	name string
	sum  hash.Hash
	size int64
}

// Writer begins a blob. Close it in any case; that leaves nothing behind
// unless Commit was called before.
func (s *Store) Writer() (*Writer, error) {
	f, name, err := s.create("blob")
	if err != nil {
		return nil, err
	}
	return &Writer{s: s, f: f, name: name, sum: sha256.New()}, nil
}

func (w *Writer) Write(p []byte) (int, error) {
	if w.f == nil {
		return 0, fs.ErrClosed
	}
	n, err := w.f.Write(p)
	w.sum.Write(p[:n])
	w.size += int64(n)
	return n, err
}

// Size is the number of bytes written so far.
func (w *Writer) Size() int64 { return w.size }

// Digest is that of the bytes written so far.
func (w *Writer) Digest() digest.Digest {
	return digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(w.sum.Sum(nil)))
}

// Follow opens the bytes for reading from the start while they are written. The
// file stays readable after Commit and Close.
func (w *Writer) Follow() (*os.File, error) {
	if w.f == nil {
		return nil, fs.ErrClosed
	}
	return w.s.Growing(w.name)
}

// Name is what Growing finds the bytes by until Commit or Close.
func (w *Writer) Name() string { return w.name }

// Growing opens the bytes that a Writer of any process on the store is writing, by
// its Name. The file stays readable after Commit and Close.
func (s *Store) Growing(name string) (*os.File, error) {
	if !fs.ValidPath(name) || !strings.HasPrefix(name, dirTemp+"/") {
		return nil, fmt.Errorf("follow blob: %q is no temporary file", name)
	}
	f, _, err := s.openFile(name)
	if err != nil {
		return nil, fmt.Errorf("follow blob: %w", err)
	}
	return f, nil
}

// Reset takes back everything written.
func (w *Writer) Reset() error {
	if _, err := w.f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("rewind blob: %w", err)
	}
	if err := w.f.Truncate(0); err != nil {
		return fmt.Errorf("rewind blob: %w", err)
	}
	w.sum.Reset()
	w.size = 0
	return nil
}

// Commit puts the blob into the store. With a digest in want other bytes are
// ErrDigest and nothing is kept. A blob that is there already is replaced, which
// heals a damaged one.
func (w *Writer) Commit(want digest.Digest) (digest.Digest, error) {
	if w.f == nil {
		return "", fs.ErrClosed
	}
	got := w.Digest()
	if want != "" && got != want {
		return "", errors.Join(fmt.Errorf("%w: %d bytes are %s, not %s", ErrDigest, w.size, got, want), w.Close())
	}
	name, err := blobPath(got)
	if err != nil {
		return "", errors.Join(err, w.Close())
	}
	if err := w.f.Close(); err != nil {
		w.f = nil
		return "", errors.Join(fmt.Errorf("write blob: %w", err), w.s.root.Remove(w.name))
	}
	w.f = nil
	if err := errors.Join(w.s.share(w.name), w.s.rename(w.name, name)); err != nil {
		return "", errors.Join(err, w.s.root.Remove(w.name))
	}
	return got, nil
}

// Close drops a blob that was not committed. It may be called again.
func (w *Writer) Close() error {
	if w.f == nil {
		return nil
	}
	err := errors.Join(w.f.Close(), w.s.root.Remove(w.name))
	w.f = nil
	return err
}

// PutBlob stores a small blob. One that is there and whole is left alone.
func (s *Store) PutBlob(b []byte) (digest.Digest, error) {
	d := digest.FromBytes(b)
	if size, ok := s.Has(d); ok && size == int64(len(b)) {
		if old, err := s.ReadBlob(d, size); err == nil && bytes.Equal(old, b) {
			return d, nil
		}
	}
	w, err := s.Writer()
	if err != nil {
		return "", err
	}
	defer w.Close()
	if _, err := w.Write(b); err != nil {
		return "", fmt.Errorf("write blob: %w", err)
	}
	return w.Commit(d)
}

// Has tells whether the blob is there, and its size in bytes, and marks it as
// used. It does not read the blob: a caller who knows the size compares it.
func (s *Store) Has(d digest.Digest) (size int64, ok bool) {
	name, err := blobPath(d)
	if err != nil {
		return 0, false
	}
	fd, size, err := s.openFD(name)
	switch {
	case err == nil:
		return size, unix.Close(fd) == nil
	case !errors.Is(err, fs.ErrPermission): // else it belongs to another id
		return 0, false
	}
	st, err := s.root.Lstat(name)
	if err != nil || !st.Mode().IsRegular() {
		return 0, false
	}
	return st.Size(), true
}

// Open reads a blob. The reader ends with io.EOF only when all bytes hash to d;
// else the blob is removed and the last Read returns a Miss.
func (s *Store) Open(d digest.Digest) (*Blob, error) {
	f, size, err := s.File(d)
	if err != nil {
		return nil, err
	}
	return &Blob{s: s, f: f, want: d, size: size, sum: sha256.New()}, nil
}

// File opens a blob without checking its bytes: to seek in it, or to hand it to
// a process that checks.
func (s *Store) File(d digest.Digest) (*os.File, int64, error) {
	name, err := blobPath(d)
	if err != nil {
		return nil, 0, err
	}
	f, size, err := s.openFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, 0, &Miss{What: "blob " + d.String()}
	case err != nil:
		return nil, 0, fmt.Errorf("open blob %s: %w", d, err)
	}
	return f, size, nil
}

// Blob is an open blob that checks itself.
type Blob struct {
	s    *Store
	f    *os.File
	want digest.Digest
	size int64
	sum  hash.Hash
	done error // what the end of the file was found to be
}

// Size is the length of the blob in bytes.
func (b *Blob) Size() int64 { return b.size }

func (b *Blob) Read(p []byte) (int, error) {
	if b.done != nil {
		return 0, b.done
	}
	n, err := b.f.Read(p)
	b.sum.Write(p[:n])
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	if b.done = io.EOF; hex.EncodeToString(b.sum.Sum(nil)) != b.want.Encoded() {
		b.done = b.s.damaged(b.want, b.f)
	}
	return n, b.done
}

// Close closes the file.
func (b *Blob) Close() error { return b.f.Close() }

// ReadBlob is the whole of a small blob, checked. One of more than limit bytes
// is an error.
func (s *Store) ReadBlob(d digest.Digest, limit int64) ([]byte, error) {
	b, err := s.Open(d)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	if b.size > limit {
		return nil, fmt.Errorf("blob %s has %d bytes, more than the %d allowed", d, b.size, limit)
	}
	out := make([]byte, 0, b.size+1)
	buf := bytes.NewBuffer(out)
	if _, err := buf.ReadFrom(b); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// damaged removes a blob whose bytes are not those of its name, unless somebody
// has replaced it since f was opened.
func (s *Store) damaged(d digest.Digest, f *os.File) error {
	miss := &Miss{What: "blob " + d.String(), Reason: "it was damaged and has been removed"}
	name, err := blobPath(d)
	if err != nil {
		return err
	}
	mine, err1 := f.Stat()
	there, err2 := s.root.Lstat(name)
	if err := errors.Join(err1, err2); err != nil || !os.SameFile(mine, there) {
		return miss
	}
	if err := s.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		miss.Reason = "it is damaged and cannot be removed: " + err.Error()
	}
	return miss
}

// RemoveBlob removes a blob; one that is absent is fine.
func (s *Store) RemoveBlob(d digest.Digest) error {
	name, err := blobPath(d)
	if err != nil {
		return err
	}
	if err := s.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove blob %s: %w", d, err)
	}
	return nil
}

// Abandon removes all blobs, of a store that nobody is to open again: what was not
// written to disk yet need not be. Who does open it finds none of them.
func (s *Store) Abandon() error {
	list, err := fs.ReadDir(s.root.FS(), dirBlobs)
	for _, e := range list {
		err = errors.Join(err, s.root.Remove(dirBlobs+"/"+e.Name()))
	}
	if err != nil {
		return fmt.Errorf("abandon the store: %w", err)
	}
	return nil
}
