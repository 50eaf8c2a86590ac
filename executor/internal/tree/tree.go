// Package tree reads file trees without trusting what is in them.
//
//	build context ─┐
//	stage rootfs  ─┼─> Tree: Lstat, ReadDir, Readlink, Open, Xattrs ──> key, copy, pack
//	archive, git  ─┘
//
// A path here is slash-separated and relative to the tree's root: "" or "."
// is the root itself, "etc/passwd" a file in it. No method follows a symbolic
// link in any component of the path; Resolve does, inside the root.
package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Entry is what lstat(2) says of one file, with the overrides of the tree
// applied (see Dir).
type Entry struct {
	Name    string // base name; "" for the root
	Mode    uint32 // st_mode: type and permission bits
	UID     uint32
	GID     uint32
	Size    int64 // bytes; 0 but for regular files and links
	ModTime time.Time
	Change  time.Time // st_ctime; zero where there is none
	Rdev    uint64    // device nodes
	Link    string    // target of a symbolic link, as written
	Dev     uint64    // with Ino: equal for names of one file
	Ino     uint64    // 0 where there is none
	Nlink   uint64
}

// Type is the S_IFMT part of the mode.
func (e Entry) Type() uint32 { return e.Mode & unix.S_IFMT }

// Perm is the permission part of the mode with setuid, setgid and sticky.
func (e Entry) Perm() uint32 { return e.Mode & 0o7777 }

// IsDir tells whether e is a directory.
func (e Entry) IsDir() bool { return e.Type() == unix.S_IFDIR }

// IsRegular tells whether e is a regular file.
func (e Entry) IsRegular() bool { return e.Type() == unix.S_IFREG }

// IsLink tells whether e is a symbolic link.
func (e Entry) IsLink() bool { return e.Type() == unix.S_IFLNK }

// Tree is a read-only view of a file tree. Errors for what is not there match
// fs.ErrNotExist. Methods may be called from several goroutines.
type Tree interface {
	// Lstat describes name.
	Lstat(ctx context.Context, name string) (Entry, error)
	// ReadDir lists a directory, sorted by name (bytes). What is no
	// directory is an error that matches unix.ENOTDIR.
	ReadDir(ctx context.Context, name string) ([]Entry, error)
	// Open reads a regular file; anything else is an error and is never opened.
	Open(ctx context.Context, name string) (io.ReadCloser, error)
	// Xattrs are the extended attributes of name without those that control
	// an overlay or hold our own records; nil when there are none.
	Xattrs(ctx context.Context, name string) (map[string][]byte, error)
}

// Clean makes the canonical form of a path below the root: no leading slash,
// no "." and no ".." left, "" for the root. ".." at the root stays there, as
// in a chroot. Links are not considered.
func Clean(name string) string {
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}

const maxLinks = 255 // as many as BuildKit and securejoin follow

// ErrLoop is returned by Resolve for too many links.
var ErrLoop = errors.New("too many levels of symbolic links")

// Resolve follows every symbolic link in name inside the tree, the last one
// too, and returns the path of what is there. Absolute targets start at the
// root and ".." stops there. The part of name that does not exist is appended
// as it is, and the error is nil: callers that need it to exist call Lstat.
func Resolve(ctx context.Context, t Tree, name string) (string, error) {
	return resolve(ctx, t, name, true)
}

// ResolveParent is Resolve for all but the last component.
func ResolveParent(ctx context.Context, t Tree, name string) (string, error) {
	return resolve(ctx, t, name, false)
}

func resolve(ctx context.Context, t Tree, name string, last bool) (string, error) {
	rest := strings.Split(name, "/")
	done := ""
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			done = Clean(path.Dir("/" + done))
			continue
		}
		next := path.Join(done, part)
		if !last && !hasName(rest) {
			return next, nil
		}
		e, err := t.Lstat(ctx, next)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			done = next // nothing below it can be a link
			continue
		}
		if err != nil {
			return "", err
		}
		if !e.IsLink() {
			done = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("resolve %s: %w", name, ErrLoop)
		}
		if strings.HasPrefix(e.Link, "/") {
			done = ""
		}
		rest = append(strings.Split(e.Link, "/"), rest...)
	}
	return done, nil
}

func hasName(parts []string) bool {
	for _, p := range parts {
		if p != "" && p != "." {
			return true
		}
	}
	return false
}

// Walk calls fn for name and everything below it, parents first, in the order
// of ReadDir. fn's fs.SkipDir leaves out a directory.
func Walk(ctx context.Context, t Tree, name string, fn func(name string, e Entry) error) error {
	e, err := t.Lstat(ctx, name)
	if err != nil {
		return err
	}
	if err := walk(ctx, t, Clean(name), e, fn); err != nil && !errors.Is(err, fs.SkipDir) {
		return err
	}
	return nil
}

func walk(ctx context.Context, t Tree, name string, e Entry, fn func(string, Entry) error) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := fn(name, e); err != nil || !e.IsDir() {
		return err
	}
	list, err := t.ReadDir(ctx, name)
	if err != nil {
		return err
	}
	for _, c := range list {
		if err := walk(ctx, t, path.Join(name, c.Name), c, fn); err != nil && !errors.Is(err, fs.SkipDir) {
			return err
		}
	}
	return nil
}

// FileReader is a tree that reads small files as a whole, in fewer steps than Open
// takes.
type FileReader interface {
	// ReadFile reads the regular file at name into b, and tells how much there was: a
	// file that has more than b is an error that matches ErrLarger.
	ReadFile(ctx context.Context, name string, b []byte) (int, error)
}

// ErrLarger says that a file is larger than it was thought to be.
var ErrLarger = errors.New("the file is larger than it was")

// ReadFile is FileReader's for any tree.
func ReadFile(ctx context.Context, t Tree, name string, b []byte) (_ int, err error) {
	if f, ok := t.(FileReader); ok {
		return f.ReadFile(ctx, name, b)
	}
	r, err := t.Open(ctx, name)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	n, err := io.ReadFull(r, b)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return n, nil
	case err != nil:
		return n, err
	}
	var more [1]byte
	if n, err := r.Read(more[:]); n > 0 {
		return len(b), &fs.PathError{Op: "read", Path: name, Err: ErrLarger}
	} else if err != nil && !errors.Is(err, io.EOF) {
		return len(b), err
	}
	return len(b), nil
}
