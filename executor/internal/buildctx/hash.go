package buildctx

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/tree"
)

// Hasher remembers what was in files, as git's index does: a file whose device,
// inode, size and times are those of then still has the content of then. Any
// write, and any change of an attribute, moves the change time, which nobody
// can set. Files that changed just before they were read are not remembered:
// they could change again within one tick of the clock of their file system.
type Hasher struct {
	file  string
	old   []byte // records sorted by key, as on disk
	young time.Duration

	used atomic.Int64 // records of old that were asked for

	mu    sync.Mutex
	added map[recordKey][sumSize]byte
}

const (
	hashMagic  = "kaniko-build sums 1\n"
	keySize    = 5 * 8
	sumSize    = 2 * sha256.Size // content, attributes
	recordSize = keySize + sumSize

	// tooYoung is more than the tick of any file system, and than the
	// difference between its clock and ours ought to be.
	tooYoung = 2 * time.Second

	// Records that a build did not ask for are dropped when a file is written
	// in which they are more than this, and more than the others.
	maxUnused = 100_000
)

type recordKey [keySize]byte

func keyOf(e tree.Entry) recordKey {
	var k recordKey
	for i, v := range []uint64{e.Dev, e.Ino, uint64(e.Size), uint64(e.ModTime.UnixNano()), uint64(e.Change.UnixNano())} {
		binary.BigEndian.PutUint64(k[i*8:], v)
	}
	return k
}

// OpenHasher reads what is remembered in file, which need not be there. A
// damaged file is as good as none. file "" remembers nothing over builds.
func OpenHasher(file string) (*Hasher, error) {
	h := &Hasher{file: file, young: tooYoung, added: map[recordKey][sumSize]byte{}}
	if file == "" {
		return h, nil
	}
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return h, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read remembered sums: %w", err)
	}
	n := len(b) - len(hashMagic) - sha256.Size
	if n < 0 || n%recordSize != 0 || !bytes.HasPrefix(b, []byte(hashMagic)) {
		return h, nil
	}
	if sum := sha256.Sum256(b[:len(b)-sha256.Size]); !bytes.Equal(sum[:], b[len(b)-sha256.Size:]) {
		return h, nil
	}
	h.old = b[len(hashMagic) : len(b)-sha256.Size]
	return h, nil
}

// Hash is a text that is equal for files with equal content and attributes. It
// is a copier.HashFunc.
func (h *Hasher) Hash(ctx context.Context, t tree.Tree, name string, e tree.Entry) (string, error) {
	if e.Ino == 0 || e.Change.IsZero() {
		s, _, err := sumOf(ctx, t, name, e)
		return text(s), err
	}
	k := keyOf(e)
	if s, ok := h.lookup(k); ok {
		return text(s), nil
	}
	began := time.Now()
	s, same, err := sumOf(ctx, t, name, e)
	if err != nil {
		return "", err
	}
	if same && began.Sub(e.Change) >= h.young {
		h.mu.Lock()
		h.added[k] = s
		h.mu.Unlock()
	}
	return text(s), nil
}

// lookup finds a record.
func (h *Hasher) lookup(k recordKey) (s [sumSize]byte, ok bool) {
	lo, hi := 0, len(h.old)/recordSize
	for lo < hi {
		mid := (lo + hi) / 2
		r := h.old[mid*recordSize:]
		switch c := bytes.Compare(k[:], r[:keySize]); {
		case c == 0:
			h.used.Add(1)
			return [sumSize]byte(r[keySize:recordSize]), true
		case c < 0:
			hi = mid
		default:
			lo = mid + 1
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s, ok = h.added[k]
	return s, ok
}

// text shows the half for attributes only if there are any.
func text(s [sumSize]byte) string {
	var out [2*sumSize + 1]byte
	n := hex.Encode(out[:], s[:sha256.Size])
	if attrs := s[sha256.Size:]; !allZero(attrs) {
		out[n] = '+'
		n += 1 + hex.Encode(out[n+1:], attrs)
	}
	return string(out[:n])
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// sumOf reads the file. Only regular files have content; without attributes
// the second half is zero. same tells whether the file is still the one that e
// describes.
func sumOf(ctx context.Context, t tree.Tree, name string, e tree.Entry) (s [sumSize]byte, same bool, err error) {
	ask := true // for attributes
	if e.IsRegular() {
		r, err := t.Open(ctx, name)
		if err != nil {
			return s, false, err
		}
		defer r.Close()
		sum := sha256.New()
		b := hashBuffers.Get().(*[]byte)
		defer hashBuffers.Put(b)
		if _, err := io.CopyBuffer(sum, struct{ io.Reader }{r}, *b); err != nil {
			return s, false, fmt.Errorf("read %s: %w", name, err)
		}
		sum.Sum(s[:0])
		if f, ok := r.(*os.File); ok {
			n, err := unix.Flistxattr(int(f.Fd()), nil)
			ask = err != nil || n > 0
			same = unchanged(f, e)
		}
	} else {
		now, err := t.Lstat(ctx, name)
		same = err == nil && keyOf(now) == keyOf(e)
	}
	if !ask {
		return s, same, nil
	}
	x, err := t.Xattrs(ctx, name)
	if err != nil || len(x) == 0 {
		return s, same, err
	}
	sum := sha256.New()
	for _, k := range slices.Sorted(maps.Keys(x)) {
		fmt.Fprintf(sum, "%d %s%d %s", len(k), k, len(x[k]), x[k])
	}
	sum.Sum(s[:sha256.Size])
	return s, same, nil
}

// unchanged tells whether an open file is what e describes, to the change time.
func unchanged(f *os.File, e tree.Entry) bool {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return false
	}
	return keyOf(tree.Entry{Dev: st.Dev, Ino: st.Ino, Size: st.Size, ModTime: time.Unix(st.Mtim.Unix()), Change: time.Unix(st.Ctim.Unix())}) == keyOf(e)
}

var hashBuffers = sync.Pool{New: func() any { b := make([]byte, 128<<10); return &b }}

// Save writes what was learnt, if anything was. The file is replaced as a
// whole; of two processes the last one wins.
func (h *Hasher) Save() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.file == "" || len(h.added) == 0 {
		return nil
	}
	records := make([][]byte, 0, len(h.old)/recordSize+len(h.added))
	used := int(h.used.Load())
	if unused := len(h.old)/recordSize - used; unused <= max(maxUnused, used+len(h.added)) {
		for r := range slices.Chunk(h.old, recordSize) {
			records = append(records, r)
		}
	}
	for k, s := range h.added {
		records = append(records, append(k[:], s[:]...))
	}
	slices.SortFunc(records, bytes.Compare)
	b := []byte(hashMagic)
	for _, r := range records {
		b = append(b, r...)
	}
	sum := sha256.Sum256(b)
	if err := replaceFile(h.file, append(b, sum[:]...)); err != nil {
		return fmt.Errorf("remember sums: %w", err)
	}
	h.old = b[len(hashMagic):]
	h.used.Add(int64(len(h.added)))
	clear(h.added)
	return nil
}

// replaceFile writes a file so that it is whole or as it was.
func replaceFile(name string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".tmp-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone after the rename
	_, err = f.Write(b)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
