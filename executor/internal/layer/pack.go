package layer

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/tree"
)

// PackOptions say what Pack must know beyond the two trees.
type PackOptions struct {
	// Owners of links and fifos in the upper that could not be given them.
	Owners map[string][2]uint32
	// Contents, if set, remembers what the files hold that are packed.
	Contents *Contents
	// Each, if set, is told of each entry of the tar, in order: with the time that the
	// file has, which may be within a second, and the content of a small file. It keeps
	// neither.
	Each func(h *tar.Header, content []byte)
	// Vague, if set, is the error for a file of which the base may not know the time
	// within a second, if it is the same otherwise.
	Vague error
}

// Stats describe a packed layer.
type Stats struct {
	Entries int
	Size    int64 // bytes of the tar
	// Devices tells that the upper holds substitutes of devices, Hides that it holds
	// whiteouts or opaque directories, Same that it holds files that are as in the
	// base: what is not the same in the tar as there.
	Devices, Hides, Same bool
}

const capability = "security.capability"

// Pack writes what the directory upper changes in base as an uncompressed tar,
// by BuildKit's rules:
//
//   - an entry whose type, mode, owner, capability, size, time and (if its time
//     has no fraction of a second) content are those of the base is left out,
//     a directory whatever its time;
//   - the parents of each entry come before it, with the attributes that they
//     have in upper; the root is no entry;
//   - a removed name is a whiteout if the base has it; an opaque directory is
//     compared with the base's, one whiteout for each name that is gone;
//   - the first of several names of a file, in the order of the walk, holds the
//     content, the others are hard links;
//   - sockets are left out; times are whole seconds, of whiteouts 0; no names
//     of users; of all extended attributes only security.capability.
//
// base may be nil: nothing. Records in upper are applied.
func Pack(ctx context.Context, w io.Writer, upper string, base tree.Tree, o PackOptions) (Stats, error) {
	dir, err := tree.OpenDir(upper, tree.DirOptions{})
	if err != nil {
		return Stats{}, err
	}
	defer dir.Close()
	return pack(ctx, w, &packer{upper: upper, dir: dir, base: base}, o, (*packer).all)
}

// PackTree is Pack for an upper that is no directory: without records, whiteouts, opaque
// directories and capabilities.
func PackTree(ctx context.Context, w io.Writer, upper, base tree.Tree, o PackOptions) (Stats, error) {
	return pack(ctx, w, &packer{drawn: upper, base: base}, o, (*packer).all)
}

func (p *packer) all() error {
	if p.base == nil {
		return p.walk("", everything)
	}
	return p.walk("", changes)
}

// Change is a name that a layer is to mention.
type Change struct {
	Name string
	// Entry is what is there now, without any record applied; nil if it is gone.
	Entry *tree.Entry
	// Same marks a further name of a linked file that is as before: it is
	// mentioned only if another name of the file is.
	Same bool
}

// PackChanges is Pack for changes that somebody else found, of the directory
// root, in the order of a walk: a directory before what is in it. The files are
// read once. The content of what changes meanwhile is undefined, not its size.
func PackChanges(ctx context.Context, w io.Writer, root string, changes iter.Seq[Change], o PackOptions) (Stats, error) {
	dir, err := tree.OpenDir(root, tree.DirOptions{})
	if err != nil {
		return Stats{}, err
	}
	defer dir.Close()
	return pack(ctx, w, &packer{upper: root, dir: dir}, o, func(p *packer) error {
		for c := range changes {
			if err := p.change(c); err != nil {
				return err
			}
		}
		return nil
	})
}

// pack has p find what is in the tar, while what it has found is read and written.
func pack(ctx context.Context, w io.Writer, p *packer, o PackOptions, find func(*packer) error) (_ Stats, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p.ctx, p.owners, p.contents, p.vague = ctx, o.Owners, o.Contents, o.Vague
	p.buf, p.first, p.unchanged, p.added = make([]byte, 128<<10), map[inode]string{}, map[inode][]string{}, map[string]bool{"": true}
	buffered := bufio.NewWriterSize(w, 256<<10)
	count := &counter{w: buffered}
	p.out = newPipeline(p, count, o.Each)
	written := make(chan error, 1)
	go func() {
		err := p.out.write()
		cancel(err) // nothing more need be found
		written <- err
	}()
	if err = find(p); err != nil {
		cancel(err)
	}
	if cerr := p.out.close(ctx); err == nil {
		err = cerr
	}
	if werr := <-written; werr != nil {
		err = werr // it came first, or is the same
	}
	p.out.readers.Wait()
	if err != nil {
		return Stats{}, fmt.Errorf("pack layer: %w", err)
	}
	if err := buffered.Flush(); err != nil {
		return Stats{}, fmt.Errorf("pack layer: %w", err)
	}
	return Stats{Entries: p.entries, Size: count.n, Devices: p.devices, Hides: p.hides, Same: p.left}, nil
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

type inode struct{ dev, ino uint64 }

type packer struct {
	ctx    context.Context
	upper  string
	dir    *tree.Dir
	drawn  tree.Tree // instead of both
	base   tree.Tree
	owners map[string][2]uint32

	contents *Contents
	vague    error // see PackOptions

	out     *pipeline
	buf     []byte
	entries int
	// Seen were: a substitute, a whiteout or opaque directory, a file that is left out.
	devices, hides, left bool

	first     map[inode]string   // the name that holds a linked file's content
	unchanged map[inode][]string // names of linked files that are as in the base, so far
	added     map[string]bool    // directories that are in the tar
}

// walkMode says how a directory of the upper stands to the base.
type walkMode int

const (
	changes    walkMode = iota // what is not in upper is as in the base
	whole                      // opaque: what is not in upper is gone
	everything                 // the base has no such directory
)

// list reads a directory of the upper, records applied. Whiteouts are kept
// apart.
func (p *packer) list(name string) (entries []tree.Entry, gone map[string]bool, err error) {
	if p.drawn != nil {
		entries, err = p.drawn.ReadDir(p.ctx, name)
		return entries, nil, err
	}
	raw, err := p.dir.ReadDir(p.ctx, name)
	if err != nil {
		return nil, nil, err
	}
	gone = map[string]bool{}
	for i, e := range raw {
		if gone[e.Name], err = Whiteout(p.real(path.Join(name, e.Name)), e); err != nil {
			return nil, nil, err
		} else if gone[e.Name] {
			p.hides = true
			continue
		}
		if raw[i], err = p.recorded(path.Join(name, e.Name), e); err != nil {
			return nil, nil, err
		}
	}
	return raw, gone, nil
}

func (p *packer) recorded(name string, e tree.Entry) (tree.Entry, error) {
	if own, ok := p.owners[name]; ok && !e.IsDir() && !e.IsRegular() {
		e.UID, e.GID = own[0], own[1]
	}
	typ := e.Type()
	e, err := Recorded(p.real(name), e)
	p.devices = p.devices || e.Type() != typ
	return e, err
}

// real is a path on disk. Its parts come from listings of real directories of
// a tree at rest, so that there is no link among them.
func (p *packer) real(name string) string { return p.upper + "/" + name }

func (p *packer) walk(dir string, mode walkMode) error {
	if err := context.Cause(p.ctx); err != nil {
		return err
	}
	entries, gone, err := p.list(dir)
	if err != nil {
		return err
	}
	var lower []tree.Entry // what the base has here, if all of it counts
	if mode == whole {
		if lower, err = p.base.ReadDir(p.ctx, dir); err != nil {
			return fmt.Errorf("read base: %w", err)
		}
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name)
		for len(lower) > 0 && lower[0].Name < e.Name {
			if err := p.whiteout(path.Join(dir, lower[0].Name)); err != nil {
				return err
			}
			lower = lower[1:]
		}
		var old *tree.Entry
		switch {
		case mode == whole && len(lower) > 0 && lower[0].Name == e.Name:
			o := lower[0]
			old, lower = &o, lower[1:]
		case mode == changes:
			if old, err = p.below(name); err != nil {
				return err
			}
		}
		if gone[e.Name] {
			if old != nil {
				if err := p.whiteout(name); err != nil {
					return err
				}
			}
			continue
		}
		if err := p.one(name, e, old, mode); err != nil {
			return err
		}
	}
	for _, e := range lower {
		if err := p.whiteout(path.Join(dir, e.Name)); err != nil {
			return err
		}
	}
	return nil
}

// one handles an entry of the upper that is no whiteout, and what is below it.
// old is what the base has under its name.
func (p *packer) one(name string, e tree.Entry, old *tree.Entry, mode walkMode) error {
	same := false
	var err error
	if old != nil {
		if same, err = p.same(name, e, *old); err != nil {
			return fmt.Errorf("compare %s: %w", name, err)
		}
	}
	p.left = p.left || same && !e.IsDir()
	linked := !e.IsDir() && e.Nlink > 1
	switch {
	case !same:
		err = p.record(name, e)
	case linked && mode == whole:
		err = p.further(name, e)
	}
	if err != nil {
		return err
	}
	if !e.IsDir() {
		return nil
	}
	opaque := false
	if p.drawn == nil {
		if opaque, err = Opaque(p.real(name)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	p.hides = p.hides || opaque
	next := everything
	if old != nil && old.IsDir() {
		if next = mode; mode == changes && opaque {
			next = whole
		}
	}
	return p.walk(name, next)
}

// further handles an unchanged name of a linked file.
func (p *packer) further(name string, e tree.Entry) error {
	id := inode{e.Dev, e.Ino}
	if _, ok := p.first[id]; ok {
		return p.record(name, e)
	}
	p.unchanged[id] = append(p.unchanged[id], name)
	return nil
}

func (p *packer) change(c Change) error {
	if c.Entry == nil {
		return p.whiteout(c.Name)
	}
	e, err := p.recorded(c.Name, *c.Entry)
	if err != nil {
		return err
	}
	if c.Same {
		return p.further(c.Name, e)
	}
	if e.IsDir() && p.added[c.Name] { // as somebody's parent
		return nil
	}
	return p.record(c.Name, e)
}

func (p *packer) below(name string) (*tree.Entry, error) {
	e, err := p.base.Lstat(p.ctx, name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up %s in the base: %w", name, err)
	}
	return &e, nil
}

// same tells whether a layer need not mention e because old is below it.
func (p *packer) same(name string, e, old tree.Entry) (bool, error) {
	if e.Ino != 0 && e.Ino == old.Ino && e.Dev == old.Dev {
		return true, nil
	}
	if e.Mode != old.Mode || e.UID != old.UID || e.GID != old.GID || e.Rdev != old.Rdev {
		return false, nil
	}
	caps, err := p.capability(name)
	if err != nil {
		return false, err
	}
	x, err := p.base.Xattrs(p.ctx, name)
	if err != nil {
		return false, err
	}
	if !bytes.Equal(caps, x[capability]) {
		return false, nil
	}
	if e.IsDir() {
		return true, nil
	}
	if e.Size != old.Size {
		return false, nil
	}
	if !e.ModTime.Equal(old.ModTime) {
		if p.vague != nil && old.ModTime.Nanosecond() == 0 && e.ModTime.Unix() == old.ModTime.Unix() {
			return false, p.vague
		}
		return false, nil
	}
	if e.ModTime.Nanosecond() != 0 {
		return true, nil // the time is exact: nothing wrote to it
	}
	if e.IsLink() {
		return e.Link == old.Link, nil
	}
	if e.Size == 0 || !e.IsRegular() {
		return true, nil
	}
	a, err := p.open(name)
	if err != nil {
		return false, err
	}
	defer a.Close()
	b, err := p.base.Open(p.ctx, name)
	if err != nil {
		return false, err
	}
	defer b.Close()
	return equal(p.ctx, a, b, p.buf)
}

func equal(ctx context.Context, a, b io.Reader, buf []byte) (bool, error) {
	bufA, bufB := buf[:len(buf)/2], buf[len(buf)/2:]
	for {
		if err := context.Cause(ctx); err != nil {
			return false, err
		}
		n, errA := io.ReadFull(a, bufA)
		m, errB := io.ReadFull(b, bufB)
		if !bytes.Equal(bufA[:n], bufB[:m]) {
			return false, nil
		}
		for _, err := range []error{errA, errB} {
			if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
				return false, err
			}
		}
		if errA != nil || errB != nil { // both at the end, as they are equal
			return true, nil
		}
	}
}

func (p *packer) open(name string) (io.ReadCloser, error) {
	if p.drawn != nil {
		return p.drawn.Open(p.ctx, name)
	}
	return p.dir.OpenRegular(name)
}

func (p *packer) capability(name string) ([]byte, error) {
	if p.drawn != nil {
		return nil, nil
	}
	var buf [256]byte
	n, err := unix.Lgetxattr(p.real(name), capability, buf[:])
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EOVERFLOW):
		return nil, nil // EOVERFLOW: valid in another user namespace only
	case err != nil:
		return nil, fmt.Errorf("read capability of %s: %w", name, err)
	}
	return buf[:n], nil
}

func (p *packer) whiteout(name string) error {
	dir, base := path.Split(name)
	if err := p.parents(strings.TrimSuffix(dir, "/")); err != nil {
		return err
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: dir + whPrefix + base, ModTime: time.Unix(0, 0)}
	return p.header(name, h, h.ModTime)
}

// header puts an entry into the tar, with its content if it has some; when is its time
// to the nanosecond.
func (p *packer) header(name string, h *tar.Header, when time.Time) error {
	p.entries++
	return p.out.add(p.ctx, name, h, when)
}

// parents puts the directory dir, and what is above it, into the tar, if they
// are not in it.
func (p *packer) parents(dir string) error {
	if p.added[dir] {
		return nil
	}
	if p.drawn != nil {
		e, err := p.drawn.Lstat(p.ctx, dir)
		if err != nil {
			return err
		}
		return p.record(dir, e)
	}
	e, err := p.dir.Lstat(p.ctx, dir)
	if err != nil {
		return err
	}
	if e, err = p.recorded(dir, e); err != nil {
		return err
	}
	return p.record(dir, e)
}

// record writes an entry, with its parents first.
func (p *packer) record(name string, e tree.Entry) error {
	if e.Type() == unix.S_IFSOCK {
		return nil
	}
	h, err := Header(name, e)
	if err != nil {
		return err
	}
	h.ModTime = time.Unix(e.ModTime.Unix(), 0) // down, also before 1970
	var more []string                          // earlier names of the file, now that it is in the tar
	if !e.IsDir() && e.Nlink > 1 {
		id := inode{e.Dev, e.Ino}
		if first, ok := p.first[id]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		} else {
			p.first[id] = name
			more = p.unchanged[id]
			delete(p.unchanged, id)
		}
	}
	caps, err := p.capability(name)
	if err != nil {
		return err
	}
	if p.drawn == nil {
		p.contents.capable(inode{e.Dev, e.Ino}, caps)
	}
	if len(caps) > 0 {
		AddXattrs(h, map[string][]byte{capability: caps})
	}
	dir := strings.TrimSuffix(path.Dir("/" + name)[1:], "/")
	if err := p.parents(dir); err != nil {
		return err
	}
	if e.IsDir() {
		p.added[name] = true
	}
	if err := p.header(name, h, e.ModTime); err != nil {
		return err
	}
	for _, extra := range more {
		if err := p.parents(strings.TrimSuffix(path.Dir("/" + extra)[1:], "/")); err != nil {
			return err
		}
		link := *h
		link.Name, link.Typeflag, link.Linkname, link.Size = extra, tar.TypeLink, name, 0
		if err := p.header(extra, &link, e.ModTime); err != nil {
			return err
		}
	}
	return nil
}
