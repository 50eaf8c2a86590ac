package copier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/tree"
	"kaniko-build/schema/diag"
)

// Placement says where and how items are put.
type Placement struct {
	// Dest is absolute; a "/" or "/." at its end says that it is a directory.
	Dest   string
	Owner  *[2]uint32 // of all that is made; nil keeps that of the source
	Chmod  Chmod
	Unpack bool // archives among the items are unpacked, as ADD does
	Make   Maker
	// Owners takes those of links and fifos that Make could not keep, by
	// path in the upper, for the layer. It is kept up to date, so that one
	// map serves all calls for an upper. May be nil.
	Owners map[string][2]uint32
}

// Place puts items into upper over base. What earlier calls put into upper is
// seen as part of the base. --link is a Place over Empty.
func Place(ctx context.Context, src tree.Tree, items []Item, base tree.Tree, upper string, p Placement) (err error) {
	u, err := openUpper(ctx, base, upper, p.Make, p.Owners)
	if err != nil {
		return err
	}
	defer u.Close()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(4, 2*runtime.GOMAXPROCS(0))) // opening may wait for the other side of a connection
	c := &placer{upper: u, src: src, p: p, files: g}
	for _, it := range items {
		if err = c.place(ctx, it); err != nil {
			break
		}
	}
	if werr := g.Wait(); werr != nil {
		return werr // it came first: it may have ended the others
	}
	return err
}

// Empty is a tree without anything in it.
var Empty tree.Tree = empty{}

type empty struct{}

func (empty) Lstat(ctx context.Context, name string) (tree.Entry, error) {
	if tree.Clean(name) == "" {
		return tree.Entry{Mode: unix.S_IFDIR | 0o755, Nlink: 2}, nil
	}
	return tree.Entry{}, &os.PathError{Op: "lstat", Path: name, Err: fs.ErrNotExist}
}

func (e empty) ReadDir(ctx context.Context, name string) ([]tree.Entry, error) {
	_, err := e.Lstat(ctx, name)
	return nil, err
}

func (empty) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	return nil, &os.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func (e empty) Xattrs(ctx context.Context, name string) (map[string][]byte, error) {
	_, err := e.Lstat(ctx, name)
	return nil, err
}

// placer does one Place.
type placer struct {
	*upper
	src   tree.Tree
	p     Placement
	files *errgroup.Group // the files whose content is being copied
	busy  sync.WaitGroup  // the same, to wait for those so far
	links map[[2]uint64]string
}

func notDirectory(op, name string) error {
	return &diag.Problem{What: (&os.PathError{Op: op, Path: "/" + name, Err: unix.ENOTDIR}).Error(), Hint: "it is a file there; choose another destination, or remove it in an earlier step"}
}

// place copies one item.
func (c *placer) place(ctx context.Context, it Item) error {
	if c.p.Unpack && it.Entry.IsRegular() {
		done, err := c.unpackItem(ctx, it)
		if done || err != nil {
			return err
		}
	}
	dest, err := arrive(ctx, c, it, c.p)
	if err != nil {
		return err
	}
	c.links = map[[2]uint64]string{}
	t := target{c: c, it: it}
	defer t.close()
	if dest == "" {
		t.root = c.top.hold()
	} else {
		parent, name := path.Split(dest)
		d, err := c.open(ctx, strings.TrimSuffix(parent, "/"))
		if err != nil {
			return err
		}
		t.stack, t.name = []level{{dir: d}}, name
	}
	return walkItem(ctx, c.src, it, walker{
		enter: func(rel string, e tree.Entry, partial bool) error { return t.enter(ctx, rel, e, partial) },
		leave: func(rel string, e tree.Entry, partial bool) error { return t.leave(e) },
	})
}

// arrive finds out where an item goes, and makes the directories on the way.
func arrive(ctx context.Context, u surface, it Item, p Placement) (dest string, err error) {
	// The directories that the destination names are made first, with links
	// followed.
	ensure := p.Dest
	if dir, last := path.Split(ensure); last != "" && last != "." {
		ensure = dir
	}
	ensure, err = tree.Resolve(ctx, links{u: u}, ensure)
	if err != nil {
		return "", err
	}
	if err := mkdirAll(ctx, u, ensure, p.Chmod.parents(), p.Owner, nil); err != nil {
		return "", err
	}
	dest, err = tree.Resolve(ctx, links{u: u}, path.Clean(p.Dest))
	if err != nil {
		return "", err
	}
	there, err := u.Lstat(ctx, dest)
	exists := err == nil
	if err != nil && !missing(err) {
		return "", err
	}
	contents := it.Entry.IsDir() && !it.literal
	if exists && !contents && (it.Entry.IsDir() || there.IsDir()) {
		dest = path.Join(dest, it.Name)
	}
	parent := path.Join(path.Dir("/" + dest))[1:]
	if contents && !exists {
		parent = dest
	}
	if err := mkdirAll(ctx, u, parent, p.Chmod.parents(), p.Owner, nil); err != nil {
		return "", err
	}
	return dest, nil
}

// target is the copy of one item while it is made: the directories that are
// open, the innermost last.
type target struct {
	c     *placer
	it    Item
	root  *dir   // the item is copied to the root of the tree
	name  string // else this is its name in stack[0]
	stack []level
}

type level struct {
	dir  *dir
	time bool // gets that of its source in the end
}

func (t *target) close() {
	for _, l := range t.stack {
		l.dir.release()
	}
	if t.root != nil {
		t.root.release()
	}
}

func (t *target) enter(ctx context.Context, rel string, e tree.Entry, partial bool) error {
	if rel == "" && t.root != nil {
		if !e.IsDir() {
			return notDirectory("copy", "")
		}
		t.stack = append(t.stack, level{dir: t.root.hold(), time: true})
		return nil
	}
	d, name := t.stack[len(t.stack)-1].dir, path.Base(rel)
	if rel == "" {
		name = t.name
	}
	from := path.Join(t.it.Path, rel)
	if e.IsDir() {
		return t.enterDir(ctx, d, name, from, e, rel == "", partial)
	}
	return t.c.file(ctx, d, name, from, e)
}

// enterDir makes a directory or takes the one that is there. The top one of
// those that are there keeps all but its time; one that is only on the way to
// what is copied takes over the mode.
func (t *target) enterDir(ctx context.Context, d *dir, name, from string, e tree.Entry, top, partial bool) error {
	c := t.c
	var there tree.Entry
	at := nowhere
	if !d.fresh {
		var err error
		if there, at, err = c.lookup(ctx, d, name); err != nil {
			return err
		}
	}
	uid, gid := c.ids(e)
	if at == nowhere {
		covers, err := c.covers(ctx, d, name)
		if err != nil {
			return err
		}
		n, err := c.mkdir(ctx, d, name, c.p.Chmod.apply(e.Mode), uid, gid, covers)
		if err != nil {
			return err
		}
		t.stack = append(t.stack, level{dir: n, time: !partial})
		if err := c.xattrs(ctx, d, name, from); err != nil {
			return err
		}
		return n.setTime(e.ModTime)
	}
	if !there.IsDir() {
		return &diag.Problem{What: "cannot copy to non-directory: /" + d.join(name), Hint: "a directory cannot take the place of a file; remove the file in an earlier step"}
	}
	n, err := c.openIn(ctx, d, name)
	if err != nil {
		return err
	}
	t.stack = append(t.stack, level{dir: n, time: !partial})
	switch {
	case top:
		return nil
	case partial:
		old, err := c.Lstat(ctx, n.path)
		if err != nil {
			return err
		}
		if _, err := c.make.Change(d.fd(), name, e.Mode, old.UID, old.GID); err != nil {
			return fmt.Errorf("/%s: %w", n.path, err)
		}
		return nil
	}
	if _, err := c.make.Change(d.fd(), name, c.p.Chmod.apply(e.Mode), uid, gid); err != nil {
		return fmt.Errorf("/%s: %w", n.path, err)
	}
	return c.xattrs(ctx, d, name, from)
}

// leave gives a directory the time of its source, once everything is in it.
func (t *target) leave(e tree.Entry) error {
	l := t.stack[len(t.stack)-1]
	t.stack = t.stack[:len(t.stack)-1]
	defer l.dir.release()
	if !l.time {
		return nil
	}
	return l.dir.setTime(e.ModTime)
}

// ids is the owner of the copy of e.
func (c *placer) ids(e tree.Entry) (uid, gid uint32) {
	if o := c.p.Owner; o != nil {
		return o[0], o[1]
	}
	return e.UID, e.GID
}

func (c *placer) xattrs(ctx context.Context, d *dir, name, from string) error {
	x, err := c.src.Xattrs(ctx, from)
	if err != nil {
		return err
	}
	c.setXattrs(d, name, x)
	return nil
}

// file puts what is no directory at name in d. The content of a regular file,
// and what must come after it, is left to another goroutine.
func (c *placer) file(ctx context.Context, d *dir, name, from string, e tree.Entry) error {
	if !d.fresh {
		there, at, err := c.lookup(ctx, d, name)
		if err != nil {
			return err
		}
		if at != nowhere && there.IsDir() {
			return &diag.Problem{What: fmt.Sprintf("cannot replace to directory /%s with file", d.join(name)), Hint: "a file cannot take the place of a directory; remove the directory in an earlier step"}
		}
		if at == inUpper {
			c.busy.Wait() // a source before this one may have made it
			if _, err := c.remove(ctx, d, name, there, at); err != nil {
				return err
			}
		}
	}
	uid, gid := c.ids(e)
	mode := c.p.Chmod.apply(e.Mode)
	switch e.Type() {
	case unix.S_IFREG:
		if e.Nlink > 1 && e.Ino != 0 {
			id := [2]uint64{e.Dev, e.Ino}
			if old, ok := c.links[id]; ok {
				if err := c.unmark(d, name); err != nil {
					return err
				}
				if err := unix.Linkat(c.top.fd(), old, d.fd(), name, 0); err != nil {
					return &os.LinkError{Op: "link", Old: "/" + old, New: "/" + d.join(name), Err: err}
				}
				return nil
			}
			c.links[id] = d.join(name)
		}
		return c.regular(ctx, d, name, from, e, mode, uid, gid)
	case unix.S_IFSOCK: // becomes an empty file
		e.Size = 0
		return c.regular(ctx, d, name, from, e, unix.S_IFREG|mode&0o7777, uid, gid)
	case unix.S_IFBLK: // as BuildKit does, by accident
		mode = unix.S_IFCHR | mode&0o7777
	}
	if err := c.unmark(d, name); err != nil {
		return err
	}
	if err := c.special(d, name, e, mode, uid, gid); err != nil {
		return err
	}
	if err := c.xattrs(ctx, d, name, from); err != nil {
		return err
	}
	return setTime(d, name, e.ModTime)
}

func (c *placer) regular(ctx context.Context, d *dir, name, from string, e tree.Entry, mode, uid, gid uint32) error {
	w, err := d.create(name)
	if errors.Is(err, fs.ErrExist) { // a whiteout, as nothing else is there
		if err := c.unmark(d, name); err != nil {
			return err
		}
		w, err = d.create(name)
	}
	if err != nil {
		return err
	}
	d.hold()
	c.busy.Add(1)
	c.files.Go(func() error {
		defer c.busy.Done()
		defer d.release()
		plain, err := c.content(ctx, w, from, e.Size)
		if err := errors.Join(err, w.Close()); err != nil {
			return fmt.Errorf("copy /%s: %w", from, err)
		}
		// The owner after the content, as both take away privileges; the
		// capabilities after the owner.
		if _, err := c.make.Own(d.fd(), name, mode, uid, gid); err != nil {
			return fmt.Errorf("/%s: %w", d.join(name), err)
		}
		if !plain {
			if err := c.xattrs(ctx, d, name, from); err != nil {
				return err
			}
		}
		return setTime(d, name, e.ModTime)
	})
	return nil
}

// content copies what is in a file. plain is true if it is known to have no
// extended attributes, which saves a question to the source.
func (c *placer) content(ctx context.Context, w *os.File, from string, size int64) (plain bool, err error) {
	if size == 0 {
		return false, context.Cause(ctx)
	}
	r, err := c.src.Open(ctx, from)
	if err != nil {
		return false, err
	}
	defer r.Close()
	if f, ok := r.(*os.File); ok {
		n, err := unix.Flistxattr(int(f.Fd()), nil)
		plain = err == nil && n == 0
	}
	return plain, copyData(ctx, w, r, size)
}

// unpackItem unpacks an item if it is an archive.
func (c *placer) unpackItem(ctx context.Context, it Item) (bool, error) {
	open := func() (io.ReadCloser, error) { return c.src.Open(ctx, it.Path) }
	r, err := open()
	if err != nil {
		return false, err
	}
	ok, err := IsArchive(r)
	r.Close()
	if err != nil || !ok {
		return false, err
	}
	if r, err = open(); err != nil {
		return false, err
	}
	defer r.Close()
	c.busy.Wait()
	if err := c.unpack(ctx, r, c.p); err != nil {
		return false, fmt.Errorf("unpack /%s: %w", it.Path, err)
	}
	return true, nil
}

// Mkdirs makes the directory at name and those on the way to it, as WORKDIR
// does: links are followed, what is there is left alone. owner nil is root;
// when, if not nil, is the time of what is made.
func Mkdirs(ctx context.Context, base tree.Tree, upper, name string, owner *[2]uint32, when *time.Time, m Maker) error {
	u, err := openUpper(ctx, base, upper, m, nil)
	if err != nil {
		return err
	}
	defer u.Close()
	real, err := u.resolve(ctx, name)
	if err != nil {
		return err
	}
	return u.mkdirAll(ctx, real, 0o755, owner, when)
}
