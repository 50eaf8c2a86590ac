package copier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/tree"
)

// Maker gives files owners and makes device nodes: for real, or as records of
// what ought to be there (see tree.OverrideXattr). layer.Maker is one. Methods
// may be called from several goroutines for different names.
type Maker interface {
	// Own gives a new file its owner and mode; mode has the type. kept is
	// false if the owner could neither be set nor recorded.
	Own(dirfd int, name string, mode, uid, gid uint32) (kept bool, err error)
	// Change is Own for a file that may have a record of its own.
	Change(dirfd int, name string, mode, uid, gid uint32) (kept bool, err error)
	// Device makes a device node with its owner and mode.
	Device(dirfd int, name string, mode, uid, gid uint32, rdev uint64) error
}

const opaqueXattr = "user.overlay.opaque"

// upper is the directory that is written to, seen together with its base.
type upper struct {
	top    *dir
	files  *tree.Dir // the same directory, records applied
	base   tree.Tree
	make   Maker
	owners map[string][2]uint32 // see Placement.Owners
}

func openUpper(ctx context.Context, base tree.Tree, name string, m Maker, owners map[string][2]uint32) (*upper, error) {
	f, err := os.OpenFile(name, unix.O_DIRECTORY|os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	files, err := tree.OpenDir(name, tree.DirOptions{Overrides: true})
	if err != nil {
		f.Close()
		return nil, err
	}
	u := &upper{files: files, base: base, make: m, owners: owners}
	if u.owners == nil {
		u.owners = map[string][2]uint32{}
	}
	u.top = newDir(f, "", !opaque(f))
	return u, nil
}

func (u *upper) Close() error {
	u.top.release()
	return u.files.Close()
}

// dir is a directory of the result that is there in upper.
type dir struct {
	f     *os.File
	path  string // in the tree
	lower bool   // a directory of the base shows through
	fresh bool   // made by this item: nothing is in it that we did not put there
	refs  atomic.Int32
}

func newDir(f *os.File, p string, lower bool) *dir {
	d := &dir{f: f, path: p, lower: lower}
	d.refs.Store(1)
	return d
}

func (d *dir) hold() *dir { d.refs.Add(1); return d }

func (d *dir) release() {
	if d.refs.Add(-1) == 0 {
		d.f.Close()
	}
}

func (d *dir) fd() int { return int(d.f.Fd()) }

// at is name in d for calls that take no directory.
func (d *dir) at(name string) string { return "/proc/self/fd/" + strconv.Itoa(d.fd()) + "/" + name }

func (d *dir) join(name string) string { return path.Join(d.path, name) }

func opaque(f *os.File) bool {
	var b [2]byte
	n, err := unix.Fgetxattr(int(f.Fd()), opaqueXattr, b[:])
	return err == nil && n == 1 && b[0] == 'y'
}

// place tells where lookup found a name.
type place int

const (
	nowhere place = iota
	inUpper
	inBase
)

// lookup finds name in d. Metadata of what is in upper are those on disk, not
// those recorded; hides tells whether the base has something of that name
// which upper covers, or would cover if nothing were there.
func (u *upper) lookup(ctx context.Context, d *dir, name string) (e tree.Entry, at place, err error) {
	var st unix.Stat_t
	err = unix.Fstatat(d.fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil {
		if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
			return e, nowhere, nil
		}
		return tree.Entry{Name: name, Mode: st.Mode, UID: st.Uid, GID: st.Gid, Rdev: st.Rdev, Nlink: uint64(st.Nlink), Size: st.Size, ModTime: time.Unix(st.Mtim.Unix())}, inUpper, nil
	}
	if !errors.Is(err, unix.ENOENT) {
		return e, nowhere, &os.PathError{Op: "stat", Path: "/" + d.join(name), Err: err}
	}
	if !d.lower {
		return e, nowhere, nil
	}
	e, err = u.base.Lstat(ctx, d.join(name))
	if missing(err) {
		return tree.Entry{}, nowhere, nil
	}
	if err != nil {
		return e, nowhere, err
	}
	return e, inBase, nil
}

// covers tells whether the base has something at name that only shows while
// upper has nothing there.
func (u *upper) covers(ctx context.Context, d *dir, name string) (bool, error) {
	if !d.lower {
		return false, nil
	}
	_, err := u.base.Lstat(ctx, d.join(name))
	if missing(err) {
		return false, nil
	}
	return err == nil, err
}

// Lstat is lookup by path, with records applied.
func (u *upper) Lstat(ctx context.Context, name string) (tree.Entry, error) {
	name = tree.Clean(name)
	notExist := &os.PathError{Op: "lstat", Path: "/" + name, Err: fs.ErrNotExist}
	lower := u.top.lower
	done := ""
	parts := []string{}
	if name != "" {
		parts = strings.Split(name, "/")
	}
	for i, part := range parts {
		done = path.Join(done, part)
		e, err := u.files.Lstat(ctx, done)
		switch {
		case missing(err):
			if !lower {
				return tree.Entry{}, notExist
			}
			return u.base.Lstat(ctx, name)
		case err != nil:
			return tree.Entry{}, err
		case i == len(parts)-1:
			if e.Type() == unix.S_IFCHR && e.Rdev == 0 { // a whiteout: records say no such thing
				return tree.Entry{}, notExist
			}
			return e, nil
		case !e.IsDir():
			return tree.Entry{}, notExist
		}
		if lower {
			b, err := u.base.Lstat(ctx, done)
			if err != nil && !missing(err) {
				return tree.Entry{}, err
			}
			if lower = err == nil && b.IsDir(); lower {
				f, err := u.files.OpenFile(done, unix.O_RDONLY|unix.O_DIRECTORY)
				if err != nil {
					return tree.Entry{}, err
				}
				lower = !opaque(f)
				f.Close()
			}
		}
	}
	return u.files.Lstat(ctx, "")
}

// links lets tree.Resolve see the result below a directory of it, which is its
// root: only Lstat is asked for.
type links struct {
	tree.Tree
	u   surface
	top string
}

// surface is the result of what is placed, with the base below it.
type surface interface {
	// Lstat describes a name of the result; parents of it that are no directories
	// are as good as none.
	Lstat(ctx context.Context, name string) (tree.Entry, error)
	// mkdirIn makes a directory that is not there in one that is, which is copied up
	// first; when, if not nil, is its time.
	mkdirIn(ctx context.Context, parent, name string, mode uint32, own [2]uint32, when *time.Time) error
}

func (l links) Lstat(ctx context.Context, name string) (tree.Entry, error) {
	return l.u.Lstat(ctx, path.Join(l.top, tree.Clean(name)))
}

// resolve follows all links of name in the result.
func (u *upper) resolve(ctx context.Context, name string) (string, error) {
	return tree.Resolve(ctx, links{u: u}, name)
}

// open opens the directory at name, which must be resolved and be there; it is
// copied up first, with its parents. The caller releases it.
func (u *upper) open(ctx context.Context, name string) (*dir, error) {
	d := u.top.hold()
	if name == "" {
		return d, nil
	}
	for part := range strings.SplitSeq(name, "/") {
		next, err := u.openIn(ctx, d, part)
		d.release()
		if err != nil {
			return nil, err
		}
		d = next
	}
	return d, nil
}

// openIn is open for a name in d.
func (u *upper) openIn(ctx context.Context, d *dir, name string) (*dir, error) {
	e, at, err := u.lookup(ctx, d, name)
	if err != nil {
		return nil, err
	}
	switch {
	case at == nowhere:
		return nil, &os.PathError{Op: "open", Path: "/" + d.join(name), Err: fs.ErrNotExist}
	case !e.IsDir():
		return nil, &os.PathError{Op: "open", Path: "/" + d.join(name), Err: unix.ENOTDIR}
	case at == inBase:
		return u.copyUpDir(ctx, d, name, e)
	}
	return u.descend(ctx, d, name)
}

// descend opens a directory of upper.
func (u *upper) descend(ctx context.Context, d *dir, name string) (*dir, error) {
	fd, err := unix.Openat(d.fd(), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/" + d.join(name), Err: err}
	}
	f := os.NewFile(uintptr(fd), d.join(name))
	lower := d.lower && !opaque(f)
	if lower {
		b, err := u.base.Lstat(ctx, d.join(name))
		if err != nil && !missing(err) {
			f.Close()
			return nil, err
		}
		lower = err == nil && b.IsDir()
	}
	return newDir(f, d.join(name), lower), nil
}

// copyUpDir makes a directory of the base in upper. As with an overlay, the
// time of the directory around it does not change.
func (u *upper) copyUpDir(ctx context.Context, d *dir, name string, e tree.Entry) (*dir, error) {
	x, err := u.base.Xattrs(ctx, d.join(name))
	if err != nil {
		return nil, err
	}
	back, err := d.times()
	if err != nil {
		return nil, err
	}
	if err := unix.Mkdirat(d.fd(), name, 0o700); err != nil {
		return nil, &os.PathError{Op: "mkdir", Path: "/" + d.join(name), Err: err}
	}
	if _, err := u.make.Own(d.fd(), name, e.Mode, e.UID, e.GID); err != nil {
		return nil, fmt.Errorf("copy up /%s: %w", d.join(name), err)
	}
	u.setXattrs(d, name, x)
	if err := setTime(d, name, e.ModTime); err != nil {
		return nil, err
	}
	if err := back(); err != nil {
		return nil, err
	}
	return u.descend(ctx, d, name)
}

// copyUpFile makes a file of the base in upper, so that it can be linked to.
func (u *upper) copyUpFile(ctx context.Context, d *dir, name string, e tree.Entry) error {
	back, err := d.times()
	if err != nil {
		return err
	}
	p := d.join(name)
	x, err := u.base.Xattrs(ctx, p)
	if err != nil {
		return err
	}
	if e.IsRegular() {
		r, err := u.base.Open(ctx, p)
		if err != nil {
			return err
		}
		defer r.Close()
		w, err := d.create(name)
		if err != nil {
			return err
		}
		err = errors.Join(copyData(ctx, w, r, e.Size), w.Close())
		if err != nil {
			return fmt.Errorf("copy up /%s: %w", p, err)
		}
		if _, err := u.make.Own(d.fd(), name, e.Mode, e.UID, e.GID); err != nil {
			return fmt.Errorf("copy up /%s: %w", p, err)
		}
	} else if err := u.special(d, name, e, e.Mode, e.UID, e.GID); err != nil {
		return err
	}
	u.setXattrs(d, name, x)
	if err := setTime(d, name, e.ModTime); err != nil {
		return err
	}
	return back()
}

// special makes a link, fifo or device with its owner and mode.
func (u *upper) special(d *dir, name string, e tree.Entry, mode, uid, gid uint32) error {
	p := d.join(name)
	switch mode & unix.S_IFMT {
	case unix.S_IFCHR, unix.S_IFBLK:
		if err := u.make.Device(d.fd(), name, mode, uid, gid, e.Rdev); err != nil {
			return fmt.Errorf("make device /%s: %w", p, err)
		}
		return nil
	case unix.S_IFLNK:
		if err := unix.Symlinkat(e.Link, d.fd(), name); err != nil {
			return &os.LinkError{Op: "symlink", Old: e.Link, New: "/" + p, Err: err}
		}
	case unix.S_IFIFO:
		if err := unix.Mknodat(d.fd(), name, unix.S_IFIFO|0o600, 0); err != nil {
			return &os.PathError{Op: "mkfifo", Path: "/" + p, Err: err}
		}
	default:
		return fmt.Errorf("/%s: unknown type of file %o", p, mode&unix.S_IFMT)
	}
	return u.own(d, name, mode, uid, gid)
}

// own is Maker.Own; what cannot be kept goes to owners.
func (u *upper) own(d *dir, name string, mode, uid, gid uint32) error {
	kept, err := u.make.Own(d.fd(), name, mode, uid, gid)
	if err != nil {
		return fmt.Errorf("/%s: %w", d.join(name), err)
	}
	if !kept {
		u.owners[d.join(name)] = [2]uint32{uid, gid}
	}
	return nil
}

// mkdir makes a directory that is not there yet. covers says that the base has
// something at its path, which is not to show in it.
func (u *upper) mkdir(ctx context.Context, d *dir, name string, mode, uid, gid uint32, covers bool) (*dir, error) {
	if err := u.unmark(d, name); err != nil {
		return nil, err
	}
	if err := unix.Mkdirat(d.fd(), name, 0o700); err != nil {
		return nil, &os.PathError{Op: "mkdir", Path: "/" + d.join(name), Err: err}
	}
	if covers {
		if err := unix.Lsetxattr(d.at(name), opaqueXattr, []byte("y"), 0); err != nil {
			return nil, &os.PathError{Op: "mark opaque", Path: "/" + d.join(name), Err: err}
		}
	}
	if err := u.own(d, name, unix.S_IFDIR|mode&0o7777, uid, gid); err != nil {
		return nil, err
	}
	fd, err := unix.Openat(d.fd(), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/" + d.join(name), Err: err}
	}
	n := newDir(os.NewFile(uintptr(fd), d.join(name)), d.join(name), false)
	n.fresh = true
	return n, nil
}

// unmark removes a whiteout, if there is one at name.
func (u *upper) unmark(d *dir, name string) error {
	if d.fresh {
		return nil
	}
	var st unix.Stat_t
	err := unix.Fstatat(d.fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		return nil //nolint:nilerr // nothing there
	}
	if err := unix.Unlinkat(d.fd(), name, 0); err != nil {
		return &os.PathError{Op: "remove", Path: "/" + d.join(name), Err: err}
	}
	return nil
}

// mkdirAll makes the directory at name, which must be resolved, and its
// parents, where they are missing. owner nil is root, or the group of a
// set-group-id directory around it.
func (u *upper) mkdirAll(ctx context.Context, name string, perm uint32, owner *[2]uint32, when *time.Time) error {
	return mkdirAll(ctx, u, name, perm, owner, when)
}

func mkdirAll(ctx context.Context, u surface, name string, perm uint32, owner *[2]uint32, when *time.Time) error {
	if e, err := u.Lstat(ctx, name); err == nil {
		if e.IsDir() {
			return nil
		}
		return notDirectory("mkdir", name)
	} else if !missing(err) {
		return err
	}
	parts := strings.Split(name, "/")
	for i := range parts {
		p := strings.Join(parts[:i+1], "/")
		e, err := u.Lstat(ctx, p)
		if err == nil && e.IsDir() {
			continue
		}
		if err == nil {
			return notDirectory("mkdir", p)
		}
		if !missing(err) {
			return err
		}
		up := path.Join(parts[:i]...)
		around, err := u.Lstat(ctx, up)
		if err != nil {
			return err
		}
		mode, own := perm&0o777, [2]uint32{}
		if around.Mode&unix.S_ISGID != 0 {
			mode |= unix.S_ISGID
			own[1] = around.GID
		}
		if owner != nil {
			own = *owner
		}
		if err := u.mkdirIn(ctx, up, parts[i], mode, own, when); err != nil {
			return err
		}
	}
	return nil
}

func (u *upper) mkdirIn(ctx context.Context, parent, name string, mode uint32, own [2]uint32, when *time.Time) error {
	d, err := u.open(ctx, parent)
	if err != nil {
		return err
	}
	defer d.release()
	covers, err := u.covers(ctx, d, name)
	if err != nil {
		return err
	}
	n, err := u.mkdir(ctx, d, name, mode, own[0], own[1], covers)
	if err != nil {
		return err
	}
	n.release()
	if when != nil {
		return setTime(d, name, *when)
	}
	return nil
}

// remove takes away what upper has at name, and tells whether the base has
// something there that upper goes on to cover.
func (u *upper) remove(ctx context.Context, d *dir, name string, e tree.Entry, at place) (covers bool, err error) {
	if at == inUpper {
		p := d.join(name)
		if e.IsDir() {
			err = removeAll(d.fd(), name)
			maps.DeleteFunc(u.owners, func(k string, _ [2]uint32) bool { return strings.HasPrefix(k, p+"/") })
		} else {
			err = unix.Unlinkat(d.fd(), name, 0)
		}
		if err != nil {
			return false, &os.PathError{Op: "remove", Path: "/" + p, Err: err}
		}
		delete(u.owners, p)
	}
	return u.covers(ctx, d, name)
}

// removeAll removes a directory that nobody else writes to.
func removeAll(dirfd int, name string) error {
	fd, err := unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	for {
		names, err := f.Readdirnames(1024)
		for _, n := range names {
			err := unix.Unlinkat(fd, n, 0)
			if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) {
				err = removeAll(fd, n)
			}
			if err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	return unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR)
}

// create makes a file that is not there.
func (d *dir) create(name string) (*os.File, error) {
	fd, err := unix.Openat(d.fd(), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "create", Path: "/" + d.join(name), Err: err}
	}
	return os.NewFile(uintptr(fd), d.join(name)), nil
}

// setXattrs sets what can be set here; BuildKit ignores what cannot.
func (u *upper) setXattrs(d *dir, name string, x map[string][]byte) {
	for _, k := range slices.Sorted(maps.Keys(x)) {
		if !tree.HiddenXattr(k) {
			_ = unix.Lsetxattr(d.at(name), k, x[k], 0)
		}
	}
}

// times returns a function that sets the directory's times back to those of now.
func (d *dir) times() (func() error, error) {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd(), &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: "/" + d.path, Err: err}
	}
	return func() error {
		if err := unix.UtimesNanoAt(d.fd(), ".", []unix.Timespec{st.Atim, st.Mtim}, 0); err != nil {
			return &os.PathError{Op: "set time", Path: "/" + d.path, Err: err}
		}
		return nil
	}, nil
}

func (d *dir) setTime(t time.Time) error {
	ts := unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
	if err := unix.UtimesNanoAt(d.fd(), ".", []unix.Timespec{ts, ts}, 0); err != nil {
		return &os.PathError{Op: "set time", Path: "/" + d.path, Err: err}
	}
	return nil
}

func setTime(d *dir, name string, t time.Time) error {
	ts := unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
	if err := unix.UtimesNanoAt(d.fd(), name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "set time", Path: "/" + d.join(name), Err: err}
	}
	return nil
}
