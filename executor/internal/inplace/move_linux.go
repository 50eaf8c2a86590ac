package inplace

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// The helpers here work on paths without links in the middle: they descend into
// real directories only, and nothing else runs meanwhile.

func lstat(p string) (st unix.Stat_t, there bool, err error) {
	err = unix.Lstat(p, &st)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return st, false, nil
	}
	if err != nil {
		return st, false, &os.PathError{Op: "stat", Path: p, Err: err}
	}
	return st, true, nil
}

func isDir(st unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFDIR }

// mover is move, or does more than that.
type mover func(from, to string) error

// move renames from to to. A directory of the container's image cannot be
// renamed on an overlay (EXDEV): one like it is made, its entries are moved,
// and it is removed. To another file system files are copied.
func move(from, to string) error {
	err := unix.Rename(from, to)
	if err == nil {
		return nil
	}
	st, there, serr := lstat(from)
	if serr != nil || !there || !errors.Is(err, unix.EXDEV) {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	if !isDir(st) {
		if err := copyFile(from, to, st); err != nil {
			return err
		}
		return os.Remove(from)
	}
	return moveEntries(from, to, st, move)
}

// moveEntries moves a directory, which is st, as one that is made anew.
func moveEntries(from, to string, st unix.Stat_t, mv mover) error {
	if err := makeLike(from, to); err != nil {
		return err
	}
	names, err := list(from)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := mv(from+"/"+n, to+"/"+n); err != nil {
			return err
		}
	}
	if err := unix.Rmdir(from); err != nil {
		return &os.PathError{Op: "remove", Path: from, Err: err}
	}
	return setTimes(to, st)
}

// copyFile copies what is no directory, with its attributes.
func copyFile(from, to string, st unix.Stat_t) error {
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		err = copyContent(from, to)
	case unix.S_IFLNK:
		var target string
		if target, err = os.Readlink(from); err == nil {
			err = os.Symlink(target, to)
		}
	default:
		if err = unix.Mknod(to, st.Mode, int(st.Rdev)); err != nil {
			err = &os.PathError{Op: "make", Path: to, Err: err}
		}
	}
	if err != nil {
		return err
	}
	if err := unix.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return &os.PathError{Op: "chown", Path: to, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
			return &os.PathError{Op: "chmod", Path: to, Err: err}
		}
	}
	if err := replaceXattrs(from, to); err != nil {
		return err
	}
	return setTimes(to, st)
}

func copyContent(from, to string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}

func list(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// unfinished is the name of a directory that does not look yet as it should.
const unfinished = ".kaniko-build-unfinished"

// makeLike makes the directory to with the attributes of from, unless it is
// there: at once, for whoever looks after a kill.
func makeLike(from, to string) error {
	if _, there, err := lstat(to); err != nil || there {
		return err
	}
	made := path.Dir(to) + "/" + unfinished
	if err := unix.Mkdir(made, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return &os.PathError{Op: "make", Path: to, Err: err}
	}
	if err := copyAttributes(from, made); err != nil {
		return err
	}
	return os.Rename(made, to)
}

// copyAttributes makes a directory look like another: owner, mode, extended
// attributes, times.
func copyAttributes(from, to string) error {
	st, there, err := lstat(from)
	if err != nil || !there {
		return errors.Join(err, fmt.Errorf("stat %s: %w", from, os.ErrNotExist))
	}
	if err := replaceXattrs(from, to); err != nil {
		return err
	}
	if err := unix.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return &os.PathError{Op: "chown", Path: to, Err: err}
	}
	if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
		return &os.PathError{Op: "chmod", Path: to, Err: err}
	}
	return setTimes(to, st)
}

// plainAttributes are those of a directory that somebody made to mount on.
func plainAttributes(dir string) error {
	if err := replaceXattrs("", dir); err != nil {
		return err
	}
	if err := unix.Lchown(dir, 0, 0); err != nil {
		return &os.PathError{Op: "chown", Path: dir, Err: err}
	}
	if err := unix.Chmod(dir, 0o755); err != nil {
		return &os.PathError{Op: "chmod", Path: dir, Err: err}
	}
	return nil
}

func setTimes(p string, st unix.Stat_t) error {
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "set times of", Path: p, Err: err}
	}
	return nil
}

// keepTime runs fn, which changes the directory, and gives it its times back.
func keepTime(dir string, fn func() error) error {
	st, there, err := lstat(dir)
	if err != nil {
		return err
	}
	if err := fn(); err != nil || !there {
		return err
	}
	return setTimes(dir, st)
}

// replaceXattrs gives to the extended attributes of from, as far as they are
// ours to set; "" has none.
func replaceXattrs(from, to string) error {
	old, err := xattrs(to)
	if err != nil {
		return err
	}
	wanted := map[string][]byte{}
	if from != "" {
		if wanted, err = xattrs(from); err != nil {
			return err
		}
	}
	for name := range old {
		if _, ok := wanted[name]; !ok {
			if err := refused(unix.Lremovexattr(to, name)); err != nil {
				return &os.PathError{Op: "remove attribute " + name, Path: to, Err: err}
			}
		}
	}
	for name, val := range wanted {
		if err := refused(unix.Lsetxattr(to, name, val, 0)); err != nil {
			return &os.PathError{Op: "set attribute " + name, Path: to, Err: err}
		}
	}
	return nil
}

// refused drops errors of attributes that are not for us.
func refused(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENODATA) {
		return nil
	}
	return err
}

// xattrs are all extended attributes but the marks of an overlay.
func xattrs(p string) (map[string][]byte, error) {
	size, err := unix.Llistxattr(p, nil)
	if errors.Is(err, unix.ENOTSUP) || size == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "list attributes", Path: p, Err: err}
	}
	buf := make([]byte, size)
	if size, err = unix.Llistxattr(p, buf); err != nil {
		return nil, &os.PathError{Op: "list attributes", Path: p, Err: err}
	}
	out := map[string][]byte{}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:size]), "\x00"), "\x00") {
		if name == "" || strings.HasPrefix(name, "user.overlay.") || strings.HasPrefix(name, "trusted.") {
			continue
		}
		size, err := unix.Lgetxattr(p, name, nil)
		if err == nil && size > 0 {
			val := make([]byte, size)
			if size, err = unix.Lgetxattr(p, name, val); err == nil {
				out[name] = val[:size]
			}
		} else if err == nil {
			out[name] = nil
		}
		if err := refused(err); err != nil {
			return nil, &os.PathError{Op: "read attribute " + name, Path: p, Err: err}
		}
	}
	return out, nil
}
