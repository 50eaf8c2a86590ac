package copier

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/tree"
	"kaniko-build/schema/diag"
)

// Draft is what Place and Mkdirs make of an upper, without an upper: names, what they
// are, and where their contents can be read. Nothing is written, so it is for layers that
// nobody needs as a directory. It holds a few hundred bytes for each file, is for one
// goroutine while things are placed, and may be read by many afterwards.
//
// As a tree it shows what an upper would have, and nothing of the base. It has no
// extended attributes: it is for contexts, which have none that a layer keeps.
type Draft struct {
	base   tree.Tree
	root   *drawn
	now    time.Time
	names  int
	linked uint64 // files with several names so far
}

var _ tree.Tree = (*Draft)(nil)

// ErrNotDrawn says that something must be placed in an upper.
var ErrNotDrawn = errors.New("a draft does not have it")

// maxDrawn is how many names a draft may have: about 150 MB.
const maxDrawn = 300_000

// NewDraft begins an empty upper over base.
func NewDraft(base tree.Tree) *Draft {
	return &Draft{base: base, root: &drawn{e: tree.Entry{Mode: unix.S_IFDIR | 0o755, Nlink: 1}, lower: true}, now: time.Now()}
}

// drawn is a name of a draft. Several names of one file are the same.
type drawn struct {
	e     tree.Entry
	kids  map[string]*drawn // of a directory
	lower bool              // a directory of the base shows through
	src   tree.Tree         // where from is read; nil is an empty file, or no file
	from  string
}

// find looks up a name in the draft alone.
func (d *Draft) find(name string) *drawn {
	at := d.root
	for rest := tree.Clean(name); at != nil && rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		at = at.kids[part]
	}
	return at
}

func (d *Draft) found(op, name string) (*drawn, error) {
	if n := d.find(name); n != nil {
		return n, nil
	}
	return nil, &os.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}

// Lstat is that of tree.Tree.
func (d *Draft) Lstat(_ context.Context, name string) (tree.Entry, error) {
	n, err := d.found("lstat", name)
	if err != nil {
		return tree.Entry{}, err
	}
	e := n.e
	if e.Name = path.Base(name); n == d.root {
		e.Name = ""
	}
	return e, nil
}

// ReadDir is that of tree.Tree.
func (d *Draft) ReadDir(_ context.Context, name string) ([]tree.Entry, error) {
	n, err := d.found("read directory", name)
	if err != nil {
		return nil, err
	}
	if !n.e.IsDir() {
		return nil, &os.PathError{Op: "read directory", Path: name, Err: unix.ENOTDIR}
	}
	out := make([]tree.Entry, 0, len(n.kids))
	for base, kid := range n.kids {
		e := kid.e
		e.Name = base
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b tree.Entry) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// Open is that of tree.Tree: the file of the source.
func (d *Draft) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	n, err := d.content(name)
	if err != nil {
		return nil, err
	}
	return n.src.Open(ctx, n.from)
}

// ReadFile is that of tree.FileReader.
func (d *Draft) ReadFile(ctx context.Context, name string, b []byte) (int, error) {
	n, err := d.content(name)
	if err != nil {
		return 0, err
	}
	return tree.ReadFile(ctx, n.src, n.from, b)
}

func (d *Draft) content(name string) (*drawn, error) {
	n, err := d.found("open", name)
	if err == nil && n.src == nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: errors.New("not a regular file with content")}
	}
	return n, err
}

// Xattrs is that of tree.Tree.
func (d *Draft) Xattrs(_ context.Context, name string) (map[string][]byte, error) {
	_, err := d.found("listxattr", name)
	return nil, err
}

// merged is the draft with the base below it.
type merged struct{ *Draft }

func (d merged) Lstat(ctx context.Context, name string) (tree.Entry, error) {
	name = tree.Clean(name)
	at := d.root
	for rest := name; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		kid := at.kids[part]
		switch {
		case kid == nil && at.lower:
			return d.base.Lstat(ctx, name)
		case kid == nil, rest != "" && !kid.e.IsDir():
			return tree.Entry{}, &os.PathError{Op: "lstat", Path: "/" + name, Err: fs.ErrNotExist}
		}
		at = kid
	}
	return at.e, nil
}

func (d merged) mkdirIn(ctx context.Context, parent, name string, mode uint32, own [2]uint32, when *time.Time) error {
	around, err := d.open(ctx, parent)
	if err != nil {
		return err
	}
	n := &drawn{e: tree.Entry{Mode: unix.S_IFDIR | mode&0o7777, UID: own[0], GID: own[1], ModTime: d.now, Nlink: 1}}
	if when != nil {
		n.e.ModTime = *when
	}
	return d.put(around, name, n)
}

// put makes a new name in a directory, which changes now.
func (d *Draft) put(dir *drawn, name string, n *drawn) error {
	if d.names++; d.names > maxDrawn {
		return fmt.Errorf("more than %d names: %w", maxDrawn, ErrNotDrawn)
	}
	if dir.kids == nil {
		dir.kids = map[string]*drawn{}
	}
	dir.kids[name], dir.e.ModTime = n, d.now
	return nil
}

// open finds the directory at name, which must be resolved and be there; it is
// copied up first, with its parents.
func (d *Draft) open(ctx context.Context, name string) (*drawn, error) {
	at, done := d.root, ""
	for rest := name; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		done = join(done, part)
		kid, err := d.openIn(ctx, at, done, part)
		if err != nil {
			return nil, err
		}
		at = kid
	}
	return at, nil
}

// openIn is open for a name in dir; full is its path.
func (d *Draft) openIn(ctx context.Context, dir *drawn, full, name string) (*drawn, error) {
	kid := dir.kids[name]
	if kid == nil {
		e, err := d.below(ctx, dir, full)
		if err != nil {
			return nil, err
		}
		if e == nil {
			return nil, &os.PathError{Op: "open", Path: "/" + full, Err: fs.ErrNotExist}
		}
		kid = &drawn{e: tree.Entry{Mode: e.Mode, UID: e.UID, GID: e.GID, ModTime: e.ModTime, Nlink: 1}, lower: true}
		if e.IsDir() { // copied up; as with an overlay, the time of the directory around it stays
			before := dir.e.ModTime
			err := d.put(dir, name, kid)
			if dir.e.ModTime = before; err != nil {
				return nil, err
			}
		}
	}
	if !kid.e.IsDir() {
		return nil, &os.PathError{Op: "open", Path: "/" + full, Err: unix.ENOTDIR}
	}
	return kid, nil
}

// below is what the base shows in a directory; nil is nothing.
func (d *Draft) below(ctx context.Context, dir *drawn, full string) (*tree.Entry, error) {
	if !dir.lower {
		return nil, nil
	}
	e, err := d.base.Lstat(ctx, full)
	if missing(err) {
		return nil, nil
	}
	return &e, err
}

// Mkdirs is Mkdirs for the draft.
func (d *Draft) Mkdirs(ctx context.Context, name string, owner *[2]uint32, when *time.Time) error {
	real, err := tree.Resolve(ctx, links{u: merged{d}}, name)
	if err != nil {
		return err
	}
	return mkdirAll(ctx, merged{d}, real, 0o755, owner, when)
}

// Place is Place for the draft, over what was placed before. The contents of items are
// read from src when the draft is. Make and Owners of the placement are not used. An
// archive that is to be unpacked is ErrNotDrawn, as is what is too large.
func (d *Draft) Place(ctx context.Context, src tree.Tree, items []Item, p Placement) error {
	for _, it := range items {
		if p.Unpack && it.Entry.IsRegular() { // it would have to be read to know
			return fmt.Errorf("/%s may be an archive: %w", it.Path, ErrNotDrawn)
		}
		if err := d.place(ctx, src, it, p); err != nil {
			return err
		}
	}
	return nil
}

func (d *Draft) place(ctx context.Context, src tree.Tree, it Item, p Placement) error {
	dest, err := arrive(ctx, merged{d}, it, p)
	if err != nil {
		return err
	}
	t := &drawing{Draft: d, src: src, it: it, p: p, dest: dest, links: map[[2]uint64]*drawn{}}
	if dest != "" {
		parent, _ := path.Split(dest)
		dir, err := d.open(ctx, strings.TrimSuffix(parent, "/"))
		if err != nil {
			return err
		}
		t.stack = []drawnLevel{{n: dir}}
	}
	return walkItem(ctx, src, it, walker{
		enter: func(rel string, e tree.Entry, partial bool) error { return t.enter(ctx, rel, e, partial) },
		leave: func(_ string, e tree.Entry, _ bool) error { t.leave(e); return nil },
	})
}

// drawing is one item while it is placed: see target.
type drawing struct {
	*Draft
	src   tree.Tree
	it    Item
	p     Placement
	dest  string // of the item; "" is the root
	stack []drawnLevel
	links map[[2]uint64]*drawn
}

type drawnLevel struct {
	n    *drawn
	time bool // gets that of its source in the end
}

func (t *drawing) enter(ctx context.Context, rel string, e tree.Entry, partial bool) error {
	if rel == "" && t.dest == "" {
		if !e.IsDir() {
			return notDirectory("copy", "")
		}
		t.stack = append(t.stack, drawnLevel{t.root, true})
		return nil
	}
	dir, full := t.stack[len(t.stack)-1].n, join(t.dest, rel)
	if rel == "" {
		full = t.dest
	}
	name := path.Base(full)
	uid, gid := e.UID, e.GID
	if o := t.p.Owner; o != nil {
		uid, gid = o[0], o[1]
	}
	there := dir.kids[name]
	var old *tree.Entry
	if there != nil {
		old = &there.e
	} else {
		var err error
		if old, err = t.below(ctx, dir, full); err != nil {
			return err
		}
	}
	if e.IsDir() {
		return t.directory(ctx, dir, name, full, e, old, [2]uint32{uid, gid}, rel == "", partial)
	}
	if old != nil && old.IsDir() {
		return &diag.Problem{What: fmt.Sprintf("cannot replace to directory /%s with file", full), Hint: "a file cannot take the place of a directory; remove the directory in an earlier step"}
	}
	if there != nil {
		t.unlink(there)
	}
	if first := t.another(e); first != nil {
		if first.e.Ino == 0 {
			t.linked++
			first.e.Dev, first.e.Ino = math.MaxUint64, t.linked // nothing in a base has such
		}
		first.e.Nlink++
		return t.put(dir, name, first)
	}
	n := &drawn{e: e}
	n.e.Mode, n.e.UID, n.e.GID, n.e.Dev, n.e.Ino, n.e.Nlink, n.e.Change = t.p.Chmod.apply(e.Mode), uid, gid, 0, 0, 1, time.Time{}
	switch e.Type() {
	case unix.S_IFREG:
		if e.Size > 0 {
			n.src, n.from = t.src, path.Join(t.it.Path, rel)
		}
		if e.Nlink > 1 && e.Ino != 0 {
			t.links[[2]uint64{e.Dev, e.Ino}] = n
		}
	case unix.S_IFLNK:
		n.e.Mode = unix.S_IFLNK | 0o777
	case unix.S_IFSOCK: // becomes an empty file
		n.e.Mode, n.e.Size = unix.S_IFREG|n.e.Perm(), 0
	case unix.S_IFCHR, unix.S_IFBLK: // as BuildKit does, by accident
		if n.e.Mode = unix.S_IFCHR | n.e.Perm(); e.Type() == unix.S_IFCHR && e.Rdev == 0 {
			n.e.Mode = unix.S_IFREG | n.e.Perm()
		}
	}
	return t.put(dir, name, n)
}

// another is the copy of another name of the file that e is.
func (t *drawing) another(e tree.Entry) *drawn {
	if !e.IsRegular() || e.Nlink < 2 || e.Ino == 0 {
		return nil
	}
	return t.links[[2]uint64{e.Dev, e.Ino}]
}

func (t *drawing) unlink(n *drawn) { n.e.Nlink-- }

// directory makes a directory or takes the one that is there: see target.enterDir.
func (t *drawing) directory(ctx context.Context, dir *drawn, name, full string, e tree.Entry, old *tree.Entry, own [2]uint32, top, partial bool) error {
	mode := unix.S_IFDIR | t.p.Chmod.apply(e.Mode)&0o7777
	if old == nil {
		n := &drawn{e: tree.Entry{Mode: mode, UID: own[0], GID: own[1], ModTime: e.ModTime, Nlink: 1}}
		t.stack = append(t.stack, drawnLevel{n, !partial})
		return t.put(dir, name, n)
	}
	if !old.IsDir() {
		return &diag.Problem{What: "cannot copy to non-directory: /" + full, Hint: "a directory cannot take the place of a file; remove the file in an earlier step"}
	}
	n, err := t.openIn(ctx, dir, full, name)
	if err != nil {
		return err
	}
	t.stack = append(t.stack, drawnLevel{n, !partial})
	switch {
	case top:
	case partial:
		n.e.Mode = unix.S_IFDIR | e.Perm()
	default:
		n.e.Mode, n.e.UID, n.e.GID = mode, own[0], own[1]
	}
	return nil
}

func (t *drawing) leave(e tree.Entry) {
	l := t.stack[len(t.stack)-1]
	t.stack = t.stack[:len(t.stack)-1]
	if l.time {
		l.n.e.ModTime = e.ModTime
	}
}
