package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/layer"
	"kaniko-build/executor/internal/tree"
)

// Target is a place in a container that something is mounted on.
type Target struct {
	Path string // absolute; links are followed inside the root
	File bool   // a file is mounted, not a directory
	// Keep says that what is made for it stays: /proc, /sys, /dev and the
	// working directory, as with BuildKit. What another target lacks goes
	// nevertheless.
	Keep bool
	// Owner, if not nil, makes it no mount point but the working directory: it
	// belongs to him with the parents it lacks, and may be anything if it is there.
	Owner *[2]uint32
}

// Stubs are the mount points that were made in an upper for one step.
type Stubs struct {
	// Paths are those of the targets, in their order, links resolved. One
	// that lies below an earlier target is to be looked up again once that is
	// mounted: nothing was made for it.
	Paths []string

	points []bool // which targets are mount points, not the working directory
	fresh  []bool // which mount points were not there
	upper  string
	list   []string // what Remove looks at, in BuildKit's order; names may repeat
	made   map[string]stub
}

type stub struct {
	id       identity
	whiteout bool // the upper had one in its place
}

// identity tells a file from another that took its name, and perhaps the
// number of its inode.
type identity struct {
	ino  uint64
	typ  uint16
	born unix.StatxTimestamp // zero where the file system does not know
}

func identify(fd int, base string) (identity, error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, base, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BTIME|unix.STATX_INO|unix.STATX_TYPE, &st); err != nil {
		return identity{}, err
	}
	id := identity{ino: st.Ino, typ: st.Mode & unix.S_IFMT}
	if st.Mask&unix.STATX_BTIME != 0 {
		id.born = st.Btime
	}
	return id, nil
}

// Stubs makes what the targets lack in upper, which is not mounted yet: as
// the runtime would, directories 0755 and empty files of root. Directories on
// the way that only layers below have are copied up as an overlay would. A
// target that is there but of the wrong kind is an error.
func (s Stack) Stubs(ctx context.Context, upper string, targets []Target, mk layer.Maker) (*Stubs, error) {
	v, err := OpenViewOver(upper, s.Dirs...)
	if err != nil {
		return nil, fmt.Errorf("make mount points: %w", err)
	}
	defer v.Close()
	up, err := tree.OpenDir(upper, tree.DirOptions{})
	if err != nil {
		return nil, fmt.Errorf("make mount points: %w", err)
	}
	defer up.Close()
	st := &Stubs{upper: upper, made: map[string]stub{}, fresh: make([]bool, len(targets))}
	for _, t := range targets {
		st.points = append(st.points, t.Owner == nil)
		real, err := tree.Resolve(ctx, v, t.Path)
		if err != nil {
			return nil, fmt.Errorf("make mount point %s: %w", t.Path, err)
		}
		if real == "" && t.Owner == nil {
			return nil, fmt.Errorf("make mount point %s: it is the root", t.Path)
		}
		st.Paths = append(st.Paths, "/"+real)
		if t.Keep {
			continue
		}
		for at := real; at != ""; at = parentOf(at) {
			_, err := v.Lstat(ctx, at)
			if err == nil {
				break
			}
			if !missing(err) {
				return nil, fmt.Errorf("make mount point %s: %w", t.Path, err)
			}
			st.list = append(st.list, at)
		}
	}
	m := &stubMaker{ctx: ctx, view: v, up: up, make: mk, stubs: st}
	for i, t := range targets {
		if st.points[i] && st.below(i) {
			continue
		}
		m.owner = [2]uint32{}
		if t.Owner != nil {
			m.owner = *t.Owner
		}
		var err error
		if st.fresh[i], err = m.target(strings.TrimPrefix(st.Paths[i], "/"), t); err != nil {
			return nil, errors.Join(fmt.Errorf("make mount point %s: %w", t.Path, err), st.Remove(ctx))
		}
	}
	return st, nil
}

// Made tells whether target i was not there and had to be made for it alone.
func (st *Stubs) Made(i int) bool { return st.fresh[i] }

// below tells whether target i lies below one that is mounted before it.
func (st *Stubs) below(i int) bool {
	for j, p := range st.Paths[:i] {
		if st.points[j] && strings.HasPrefix(st.Paths[i], p+"/") {
			return true
		}
	}
	return false
}

type stubMaker struct {
	ctx   context.Context
	view  *View
	up    *tree.Dir
	make  layer.Maker
	stubs *Stubs
	owner [2]uint32 // of what is made
}

// target makes what one target lacks, and tells whether it did.
func (m *stubMaker) target(name string, t Target) (made bool, err error) {
	e, err := m.view.Lstat(m.ctx, name)
	switch {
	case err == nil && t.Owner == nil && t.File == e.IsDir():
		if t.File {
			return false, errors.New("a directory is there, and a file is to be mounted")
		}
		return false, errors.New("a file is there, and a directory is to be mounted")
	case missing(err):
		return true, m.create(name, t.File)
	}
	return false, err
}

// create makes name, which the view lacks, with the parents it lacks.
func (m *stubMaker) create(name string, file bool) error {
	dir := parentOf(name)
	e, err := m.view.Lstat(m.ctx, dir)
	switch {
	case missing(err):
		err = m.create(dir, false)
	case err == nil && !e.IsDir():
		err = fmt.Errorf("/%s is no directory", dir)
	case err == nil:
		err = m.copyUp(dir)
	}
	if err != nil {
		return err
	}
	f, err := m.up.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer f.Close()
	fd, base := int(f.Fd()), path.Base(name)
	var one stub
	if err := unix.Unlinkat(fd, base, 0); err == nil {
		one.whiteout = true // all that can be there, as the view lacks the name
	} else if !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("replace whiteout of /%s: %w", name, err)
	}
	mode := uint32(unix.S_IFDIR | 0o755)
	if file {
		mode = unix.S_IFREG | 0o755
		err = unix.Mknodat(fd, base, unix.S_IFREG|0o600, 0)
	} else {
		err = unix.Mkdirat(fd, base, 0o755)
	}
	if err != nil {
		return fmt.Errorf("make /%s: %w", name, err)
	}
	if _, err := m.make.Own(fd, base, mode, m.owner[0], m.owner[1]); err != nil {
		return err
	}
	if one.whiteout && !file {
		if err := unix.Lsetxattr(procName(fd, base), layer.OpaqueXattr, []byte("y"), 0); err != nil {
			return fmt.Errorf("mark /%s opaque: %w", name, err)
		}
	}
	if one.id, err = identify(fd, base); err != nil {
		return fmt.Errorf("stat /%s: %w", name, err)
	}
	m.stubs.made[name] = one
	return nil
}

// copyUp makes the directory name, which the view has, in the upper, unless
// it is there.
func (m *stubMaker) copyUp(name string) error {
	if name == "" {
		return nil
	}
	if _, err := m.up.Lstat(m.ctx, name); err == nil || !missing(err) {
		return err
	}
	dir := parentOf(name)
	if err := m.copyUp(dir); err != nil {
		return err
	}
	e, err := m.view.Lstat(m.ctx, name)
	if err != nil {
		return err
	}
	x, err := m.view.Xattrs(m.ctx, name)
	if err != nil {
		return err
	}
	f, err := m.up.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer f.Close()
	return keepTime(int(f.Fd()), func() error {
		fd, base := int(f.Fd()), path.Base(name)
		if err := unix.Mkdirat(fd, base, 0o700); err != nil {
			return fmt.Errorf("copy up /%s: %w", name, err)
		}
		if _, err := m.make.Own(fd, base, e.Mode, e.UID, e.GID); err != nil {
			return fmt.Errorf("copy up /%s: %w", name, err)
		}
		for k, val := range x {
			err := unix.Lsetxattr(procName(fd, base), k, val, 0)
			if err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOTSUP) {
				return fmt.Errorf("copy up /%s: set %s: %w", name, k, err)
			}
		}
		ts := unix.Timespec{Sec: e.ModTime.Unix(), Nsec: int64(e.ModTime.Nanosecond())}
		return unix.UtimesNanoAt(fd, base, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	})
}

func procName(fd int, base string) string { return "/proc/self/fd/" + strconv.Itoa(fd) + "/" + base }

// keepTime runs fn, which changes the directory fd, and gives it its times back.
func keepTime(fd int, fn func() error) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if err := fn(); err != nil {
		return err
	}
	return unix.UtimesNanoAt(fd, "", []unix.Timespec{st.Atim, st.Mtim}, unix.AT_EMPTY_PATH)
}

// Remove takes the stubs out of the upper, which is unmounted: those that are
// still what was made, and empty. Missing parents that were
// made go too when nothing else came into them, as with BuildKit. The times of
// the directories above stay. A repeat is harmless.
func (st *Stubs) Remove(ctx context.Context) error {
	up, err := tree.OpenDir(st.upper, tree.DirOptions{})
	if err != nil {
		return fmt.Errorf("remove mount points: %w", err)
	}
	defer up.Close()
	for _, name := range st.list {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := st.remove(up, name); err != nil {
			return fmt.Errorf("remove mount point /%s: %w", name, err)
		}
	}
	return nil
}

func (st *Stubs) remove(up *tree.Dir, name string) error {
	one, ok := st.made[name]
	if !ok {
		return nil
	}
	f, err := up.OpenFile(parentOf(name), unix.O_RDONLY|unix.O_DIRECTORY) // through no link
	if missing(err) {
		return nil // moved or replaced by the command
	}
	if err != nil {
		return err
	}
	defer f.Close()
	fd, base := int(f.Fd()), path.Base(name)
	now, err := identify(fd, base)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if now != one.id {
		return nil // the command put something else there
	}
	flags := unix.AT_REMOVEDIR // which fails when it is not empty
	if now.typ != unix.S_IFDIR {
		flags = 0
		var st unix.Stat_t
		if err := unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if st.Size != 0 {
			return nil
		}
	}
	return keepTime(fd, func() error {
		err := unix.Unlinkat(fd, base, flags)
		if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
			return nil
		}
		if err != nil {
			return err
		}
		delete(st.made, name)
		if one.whiteout {
			return unix.Mknodat(fd, base, unix.S_IFCHR, 0)
		}
		return nil
	})
}
