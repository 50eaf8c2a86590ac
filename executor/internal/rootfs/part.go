package rootfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/index"
	"kaniko-build/executor/internal/layer"
	"kaniko-build/executor/internal/tree"
)

// dirPart is a layer that lies unpacked.
type dirPart struct {
	dir    *tree.Dir
	root   *os.File
	prefix string // path of the root by its descriptor
	owners map[string][2]uint32
}

func openDirPart(dir string) (_ *dirPart, err error) {
	t, err := tree.OpenDir(dir, tree.DirOptions{})
	if err != nil {
		return nil, fmt.Errorf("open layer: %w", err)
	}
	l := &dirPart{dir: t}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if l.root, err = t.OpenFile("", unix.O_PATH|unix.O_DIRECTORY); err != nil {
		return nil, fmt.Errorf("open layer: %w", err)
	}
	l.prefix = "/proc/self/fd/" + strconv.Itoa(int(l.root.Fd())) + "/"
	if l.owners, err = ReadOwners(dir); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *dirPart) close() error {
	var err error
	if l.root != nil {
		err = l.root.Close()
	}
	return errors.Join(err, l.dir.Close())
}

func (l *dirPart) stat(name string) (e tree.Entry, gone bool, err error) {
	var st unix.Stat_t
	p := name
	if p == "" {
		p = "."
	}
	if err := unix.Fstatat(int(l.root.Fd()), p, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return e, false, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	e = tree.Entry{
		Name: name[strings.LastIndexByte(name, '/')+1:], Mode: st.Mode, UID: st.Uid, GID: st.Gid, Size: st.Size, Rdev: st.Rdev,
		Dev: st.Dev, Ino: st.Ino, Nlink: uint64(st.Nlink), ModTime: time.Unix(st.Mtim.Unix()), Change: time.Unix(st.Ctim.Unix()),
	}
	if !e.IsDir() {
		gone, err = layer.Whiteout(l.prefix+name, e)
	}
	return e, gone, err
}

// complete applies records and adds what stat does not tell.
func (l *dirPart) complete(_ context.Context, name string, e tree.Entry) (tree.Entry, error) {
	if !e.IsRegular() && !e.IsLink() {
		e.Size = 0
	}
	if e.IsLink() {
		link, err := os.Readlink(l.prefix + name)
		if err != nil {
			return e, err
		}
		e.Link = link
	}
	if own, ok := l.owners[name]; ok && !e.IsDir() && !e.IsRegular() {
		e.UID, e.GID = own[0], own[1]
	}
	return layer.Recorded(l.prefix+name, e)
}

func (l *dirPart) opaque(name string) (bool, error) { return layer.Opaque(l.prefix + name) }

func (l *dirPart) names(name string) ([]string, error) {
	f, err := l.dir.OpenFile(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

func (l *dirPart) open(name string) (io.ReadCloser, error) { return l.dir.OpenRegular(name) }

func (l *dirPart) xattrs(ctx context.Context, name string) (map[string][]byte, error) {
	return l.dir.Xattrs(ctx, name)
}

func (l *dirPart) real() (string, error) { return os.Readlink(strings.TrimSuffix(l.prefix, "/")) }

// indexPart is a layer that only its index knows.
type indexPart struct {
	index  *index.Index
	number int
	below  *View     // the layers under it; their parts are not its own
	now    time.Time // of what the layer gives no time, as if it were unpacked now
}

func newIndexPart(x *index.Index, number int) (*indexPart, error) {
	if x.Outside() {
		return nil, fmt.Errorf("it has hard links to layers below: %w", ErrUnpack)
	}
	return &indexPart{index: x, number: number, now: time.Now()}, nil
}

func (l *indexPart) close() error { return nil }

func (l *indexPart) stat(name string) (_ tree.Entry, gone bool, err error) {
	e, ok := l.index.Lookup(name)
	if !ok {
		return tree.Entry{}, false, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	}
	if e.Ino != 0 {
		e.Dev = math.MaxUint64 - uint64(l.number) // no file on disk has it
	}
	if e.ModTime.IsZero() {
		e.ModTime = l.now
	}
	return e.Entry, e.Whiteout, nil
}

// complete lets a directory without an entry look as it does below.
func (l *indexPart) complete(ctx context.Context, name string, e tree.Entry) (tree.Entry, error) {
	b, _, ok, err := l.underneath(ctx, name)
	if err == nil && ok {
		e.Mode, e.UID, e.GID = b.Mode, b.UID, b.GID
	}
	return e, err
}

// underneath finds the directory that one without an entry stands for; ok is
// false if name has an entry, or there is none below.
func (l *indexPart) underneath(ctx context.Context, name string) (_ tree.Entry, real string, ok bool, err error) {
	if e, _ := l.index.Lookup(name); !e.Implicit {
		return tree.Entry{}, "", false, nil
	}
	real, err = tree.Resolve(ctx, l.below, name)
	if errors.Is(err, tree.ErrLoop) {
		return tree.Entry{}, "", false, nil
	}
	if err != nil {
		return tree.Entry{}, "", false, err
	}
	e, err := l.below.Lstat(ctx, real)
	if missing(err) || err == nil && !e.IsDir() {
		return tree.Entry{}, "", false, nil
	}
	return e, real, err == nil, err
}

func (l *indexPart) opaque(name string) (bool, error) {
	e, _ := l.index.Lookup(name)
	return e.Opaque, nil
}

func (l *indexPart) names(name string) ([]string, error) { return l.index.Names(name), nil }

func (l *indexPart) open(name string) (io.ReadCloser, error) {
	b, ok := l.index.Content(name)
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: ErrUnpack}
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (l *indexPart) xattrs(ctx context.Context, name string) (map[string][]byte, error) {
	_, real, ok, err := l.underneath(ctx, name)
	if err != nil {
		return nil, err
	}
	if ok {
		return l.below.Xattrs(ctx, real)
	}
	return l.index.Xattrs(name), nil
}

func (l *indexPart) real() (string, error) { return "", ErrUnpack }
