package buildctx

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"kaniko-build/schema/diag"
)

// Archive unpacks a context that comes as a tar, plain or compressed with gzip
// or zstd, and returns the directory. from is what messages call it. Equal
// archives share a directory in Dir, which nobody changes; it is whole or
// absent. r is read to its end.
//
// Names, link targets and sizes come from outside: a file that would lie outside
// the directory is a mistake, and so is more than MaxSize in all. Devices are
// left out, as they are by COPY. Owners do not count in a context.
func (f *Fetcher) Archive(ctx context.Context, r io.Reader, from string) (string, error) {
	top := filepath.Join(f.Dir, "contexts")
	if err := os.MkdirAll(top, 0o700); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(top, ".tmp-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	sum := sha256.New()
	in := &limited{ctx: ctx, r: io.TeeReader(r, sum), left: f.maxSize()}
	if err := unpackContext(ctx, in, tmp, f.maxSize()); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return "", cause
		}
		var p *diag.Problem
		if errors.As(err, &p) {
			return "", &diag.Problem{What: fmt.Sprintf("context %s: %s", from, p.What), Hint: p.Hint}
		}
		return "", fmt.Errorf("unpack the context %s: %w", from, err)
	}
	if _, err := io.Copy(io.Discard, in); err != nil { // what follows the end of the tar is of the digest too
		return "", fmt.Errorf("read the context %s: %w", from, err)
	}
	dir := filepath.Join(top, hex.EncodeToString(sum.Sum(nil)))
	err = os.Rename(tmp, dir)
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		err = nil // somebody else unpacked the same
	}
	return dir, err
}

func (f *Fetcher) maxSize() int64 {
	if f.MaxSize == 0 {
		return DefaultMaxSize
	}
	return f.MaxSize
}

// limited reads at most so many bytes, until ctx ends.
type limited struct {
	ctx  context.Context // of the call that made it
	r    io.Reader
	left int64
}

func (l *limited) Read(p []byte) (int, error) {
	if err := context.Cause(l.ctx); err != nil {
		return 0, err
	}
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, &diag.Problem{What: "the archive is too large"}
	}
	return n, err
}

// maxNames bounds the files of one context.
const maxNames = 10_000_000

func unpackContext(ctx context.Context, r io.Reader, dir string, limit int64) error {
	plain, err := decompressed(r)
	if err != nil {
		return err
	}
	defer plain.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	u := unpacker{root: root, left: limit, dirs: map[string]dirTime{}}
	for tr, n := tar.NewReader(plain), 0; ; n++ {
		h, err := tr.Next()
		switch {
		case errors.Is(err, io.EOF) && n == 0:
			return &diag.Problem{What: "the archive is empty", Hint: "a context is a tar, plain or compressed with gzip or zstd"}
		case errors.Is(err, io.EOF):
			return u.finish()
		case errors.Is(err, tar.ErrHeader) && n == 0:
			return &diag.Problem{What: "it is not a tar", Hint: "a context is a tar, plain or compressed with gzip or zstd"}
		case errors.Is(err, io.ErrUnexpectedEOF) && n == 0:
			return &diag.Problem{What: "it is not a tar, or cut off: " + err.Error(), Hint: "a context is a tar, plain or compressed with gzip or zstd"}
		case err != nil:
			return err
		case n == maxNames:
			return &diag.Problem{What: fmt.Sprintf("the archive has more than %d files", maxNames)}
		}
		if err := u.entry(h, tr); err != nil {
			return err
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
	}
}

// decompressed finds out by its first bytes how a stream is compressed.
func decompressed(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 1<<16)
	head, err := b.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzip.NewReader(b)
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		d, err := zstd.NewReader(b)
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	}
	return io.NopCloser(b), nil
}

// unpacker writes entries below a root that nothing in them can leave.
type unpacker struct {
	root *os.Root
	left int64              // bytes that files may still have
	dirs map[string]dirTime // modes and times that directories get at the end
}

type dirTime struct {
	mode fs.FileMode
	time time.Time
}

// unixMode is the mode of a header with the bits that Go keeps elsewhere.
func unixMode(h *tar.Header) fs.FileMode {
	return h.FileInfo().Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
}

func (u *unpacker) entry(h *tar.Header, body io.Reader) error {
	name := path.Clean(strings.TrimLeft(h.Name, "/"))
	if name == "." {
		if h.Typeflag == tar.TypeDir {
			u.dirs["."] = dirTime{unixMode(h), h.ModTime}
		}
		return nil
	}
	if !filepath.IsLocal(name) {
		return outside(h.Name)
	}
	if parent := path.Dir(name); parent != "." {
		if err := u.root.MkdirAll(parent, 0o755); err != nil {
			return u.explain(h, err)
		}
	}
	if h.Typeflag != tar.TypeDir { // a later entry replaces an earlier one
		if err := u.root.RemoveAll(name); err != nil {
			return u.explain(h, err)
		}
		delete(u.dirs, name)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if st, err := u.root.Lstat(name); err == nil && !st.IsDir() {
			if err := u.root.Remove(name); err != nil {
				return u.explain(h, err)
			}
		}
		if err := u.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return u.explain(h, err)
		}
		u.dirs[name] = dirTime{unixMode(h), h.ModTime}
		return nil
	case tar.TypeReg:
		return u.explain(h, u.file(name, h, body))
	case tar.TypeSymlink:
		return u.explain(h, errors.Join(u.root.Symlink(h.Linkname, name), u.linkTime(name, h.ModTime)))
	case tar.TypeLink:
		target := path.Clean(strings.TrimLeft(h.Linkname, "/"))
		if !filepath.IsLocal(target) {
			return outside(h.Linkname)
		}
		return u.explain(h, u.root.Link(target, name))
	case tar.TypeFifo:
		return u.explain(h, u.fifo(name, h))
	case tar.TypeChar, tar.TypeBlock, tar.TypeXGlobalHeader:
		return nil
	}
	return &diag.Problem{What: fmt.Sprintf("%q is of a type that a context cannot hold (%q)", h.Name, h.Typeflag)}
}

func (u *unpacker) file(name string, h *tar.Header, body io.Reader) error {
	if u.left -= h.Size; u.left < 0 {
		return &diag.Problem{What: "the files in the archive are too large"}
	}
	f, err := u.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, body)
	for key, value := range h.PAXRecords {
		attr, ok := strings.CutPrefix(key, "SCHILY.xattr.")
		if !ok {
			continue
		}
		// Only root may keep capabilities, and not each file system has attributes.
		if e := unix.Fsetxattr(int(f.Fd()), attr, []byte(value), 0); e != nil && !errors.Is(e, unix.EPERM) && !errors.Is(e, unix.ENOTSUP) {
			err = errors.Join(err, fmt.Errorf("set attribute %s: %w", attr, e))
		}
	}
	return errors.Join(err, f.Chmod(unixMode(h)), f.Close(), u.root.Chtimes(name, h.ModTime, h.ModTime))
}

// in opens the directory that holds name.
func (u *unpacker) in(name string) (dir *os.File, base string, err error) {
	dir, err = u.root.Open(path.Dir(name))
	return dir, path.Base(name), err
}

func (u *unpacker) fifo(name string, h *tar.Header) error {
	dir, base, err := u.in(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Mkfifoat(int(dir.Fd()), base, 0o600); err != nil {
		return err
	}
	return errors.Join(u.root.Chmod(name, unixMode(h)), u.linkTime(name, h.ModTime))
}

// linkTime sets the time of what is not to be followed or opened.
func (u *unpacker) linkTime(name string, t time.Time) error {
	dir, base, err := u.in(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	ts := unix.NsecToTimespec(t.UnixNano())
	return unix.UtimesNanoAt(int(dir.Fd()), base, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// finish gives directories their modes and times, which their files would have
// changed: the innermost first, as one may not be entered afterwards.
func (u *unpacker) finish() error {
	names := slices.SortedFunc(maps.Keys(u.dirs), func(a, b string) int { return strings.Compare(b, a) })
	for _, name := range names {
		d := u.dirs[name]
		err := errors.Join(u.root.Chtimes(name, d.time, d.time), u.root.Chmod(name, d.mode))
		if errors.Is(err, fs.ErrNotExist) { // its parent became something else
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func outside(name string) error {
	return &diag.Problem{What: fmt.Sprintf("%q leads out of the archive", name), Hint: "make the archive anew, with names below its top"}
}

func (u *unpacker) explain(h *tar.Header, err error) error {
	var p *diag.Problem
	switch {
	case err == nil, errors.As(err, &p):
		return err
	case strings.Contains(err.Error(), "path escapes"): // os.Root has no error to compare with
		return outside(h.Name)
	}
	return fmt.Errorf("%q: %w", h.Name, err)
}
