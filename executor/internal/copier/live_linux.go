package copier

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Update brings files to dest, a path in a root that a process uses meanwhile: those of
// the archive r, which is not compressed and holds files, links and directories, and
// nothing where gone names something. Names are relative to dest. Links of the root are
// followed as if root were "/", by the kernel: whatever the process does to its directories,
// no name leads out. What is missing of directories is made, 0755. A file is there as a
// whole, in the place of the one before, or not at all; it is root's, with mode and
// time of the archive.
func Update(ctx context.Context, root *os.File, dest string, r io.Reader, gone []string) error {
	l := live{root: root, dest: path.Join("/", dest)}
	top, err := l.mkdirAll(l.dest)
	if err != nil {
		return err
	}
	defer top.Close()
	for _, name := range gone {
		if err := l.remove(ctx, name); err != nil {
			return err
		}
	}
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := l.put(h, t); err != nil {
			return err
		}
	}
}

// live is a root that a process uses.
type live struct {
	root *os.File
	dest string
	made int // temporary names
}

// open opens a path of the root.
func (l *live) open(name string, flags uint64) (*os.File, error) {
	rel := strings.TrimLeft(name, "/")
	if rel == "" {
		rel = "."
	}
	how := &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	f, err := unix.Openat2(int(l.root.Fd()), rel, how)
	for i := 0; err == unix.EAGAIN && i < 100; i++ { // a rename raced with ".."
		f, err = unix.Openat2(int(l.root.Fd()), rel, how)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(f), name), nil
}

func (l *live) dir(name string) (*os.File, error) {
	return l.open(name, unix.O_PATH|unix.O_DIRECTORY)
}

// mkdirAll opens a directory of the root, and makes what is missing of it.
func (l *live) mkdirAll(name string) (*os.File, error) {
	dir, err := l.dir(name)
	if !errors.Is(err, fs.ErrNotExist) || name == "/" {
		return dir, err
	}
	above, err := l.mkdirAll(path.Dir(name))
	if err != nil {
		return nil, err
	}
	defer above.Close()
	if err := unix.Mkdirat(int(above.Fd()), path.Base(name), 0o755); err == unix.EEXIST {
		return nil, &os.PathError{Op: "make directory", Path: name, Err: errors.New("a link to nothing is there")}
	} else if err != nil {
		return nil, &os.PathError{Op: "make directory", Path: name, Err: err}
	}
	return l.dir(name)
}

// put makes one member of an archive.
func (l *live) put(h *tar.Header, r io.Reader) error {
	name := path.Clean(h.Name)
	if name == "." || !filepath.IsLocal(name) {
		return fmt.Errorf("internal error: a file named %q is to be copied", h.Name)
	}
	full := path.Join(l.dest, name)
	if h.Typeflag == tar.TypeDir {
		dir, err := l.mkdirAll(full)
		if err != nil {
			return err
		}
		return dir.Close()
	}
	dir, err := l.mkdirAll(path.Dir(full))
	if err != nil {
		return err
	}
	defer dir.Close()
	fail := func(err error) error { return &os.PathError{Op: "write", Path: full, Err: err} }
	at, temp := int(dir.Fd()), l.temp()
	switch h.Typeflag {
	case tar.TypeReg:
		err = l.file(at, temp, h, r)
	case tar.TypeSymlink:
		err = unix.Symlinkat(h.Linkname, at, temp)
	default:
		return fail(fmt.Errorf("internal error: a member of type %q", h.Typeflag))
	}
	if err == nil {
		when := unix.NsecToTimespec(h.ModTime.UnixNano())
		err = unix.UtimesNanoAt(at, temp, []unix.Timespec{when, when}, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err == nil {
		err = l.replace(at, temp, path.Base(full))
	}
	if err != nil {
		_ = unix.Unlinkat(at, temp, 0) // it may not be there
		return fail(err)
	}
	return nil
}

// temp is a name that nobody else takes.
func (l *live) temp() string {
	l.made++
	return ".kaniko-build-" + strconv.Itoa(os.Getpid()) + "-" + strconv.Itoa(l.made)
}

// file makes a regular file that was not there.
func (l *live) file(dir int, name string, h *tar.Header, r io.Reader) error {
	fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err == unix.EEXIST { // of one that was killed
		if err = unix.Unlinkat(dir, name, 0); err == nil {
			fd, err = unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		}
	}
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Chown(0, 0) // the directory may give its own group
	}
	if err == nil {
		err = unix.Fchmod(fd, uint32(h.Mode)&0o7777)
	}
	return errors.Join(err, f.Close())
}

// replace renames a file over what is there, also a directory.
func (l *live) replace(dir int, temp, name string) error {
	err := unix.Renameat(dir, temp, dir, name)
	if err == unix.EISDIR || err == unix.ENOTEMPTY || err == unix.EEXIST {
		if err = removeTree(dir, name); err == nil {
			err = unix.Renameat(dir, temp, dir, name)
		}
	}
	return err
}

// remove takes away a name below dest with all in it.
func (l *live) remove(ctx context.Context, name string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	name = path.Clean(name)
	if name == "." || !filepath.IsLocal(name) {
		return fmt.Errorf("internal error: a file named %q is to be removed", name)
	}
	full := path.Join(l.dest, name)
	dir, err := l.dir(path.Dir(full))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := removeTree(int(dir.Fd()), path.Base(full)); err != nil {
		return &os.PathError{Op: "remove", Path: full, Err: err}
	}
	return nil
}

// removeTree removes a name of a directory with all in it. No link is followed.
func removeTree(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	fd, openErr := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if openErr != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := removeTree(fd, n); err != nil {
			return err
		}
	}
	if err := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); err != nil && err != unix.ENOENT {
		return err
	}
	return nil
}
