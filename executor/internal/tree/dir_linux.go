package tree

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// OverrideXattr holds the owner, mode and device number that a file ought to
// have where the file system below could not be given them.
const OverrideXattr = "user.kaniko-build.stat"

// FormatOverride is the value of OverrideXattr for an entry.
func FormatOverride(mode, uid, gid uint32, rdev uint64) []byte {
	return fmt.Appendf(nil, "%o %d %d %d", mode, uid, gid, rdev)
}

// ParseOverride reads what FormatOverride wrote.
func ParseOverride(b []byte) (mode, uid, gid uint32, rdev uint64, err error) {
	f := strings.Fields(string(b))
	if len(f) != 4 {
		return 0, 0, 0, 0, fmt.Errorf("override %q: want four fields", b)
	}
	m, err1 := strconv.ParseUint(f[0], 8, 32)
	u, err2 := strconv.ParseUint(f[1], 10, 32)
	g, err3 := strconv.ParseUint(f[2], 10, 32)
	d, err4 := strconv.ParseUint(f[3], 10, 64)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return 0, 0, 0, 0, fmt.Errorf("override %q: %w", b, err)
	}
	return uint32(m), uint32(u), uint32(g), d, nil
}

// Override applies a record, the value of OverrideXattr, to the entry of the
// file that carries it. Whoever may write to a file may write its record, a RUN
// of an image's ordinary user too. So a record counts where only root could
// have made it, as with the real thing, and else is as good as none:
//
//   - owners, of a file that is really 0:0: a file can be given away by it, not taken;
//   - type, permissions and number of a device, of an empty regular file that
//     is root's and that nobody else may write to;
//   - a character device 0:0 never: overlays take it for the mark of a removed file;
//   - nothing of a value that cannot be read, or that is of another type.
//
// The mode of a file that can have its own is the file's: chmod needs no record.
func (e Entry) Override(record []byte) Entry {
	mode, uid, gid, rdev, err := ParseOverride(record)
	if err != nil || !e.IsRegular() && !e.IsDir() {
		return e
	}
	out := e
	const none = ^uint32(0) // no id: chown takes it for "as it is"
	if e.UID == 0 && e.GID == 0 && uid != none && gid != none {
		out.UID, out.GID = uid, gid
	}
	switch mode & unix.S_IFMT {
	case e.Type():
		return out
	case unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO, unix.S_IFSOCK:
		if !Substitute(e.Mode, e.UID) || mode&unix.S_IFMT == unix.S_IFCHR && rdev == 0 {
			return e
		}
		out.Mode, out.Rdev, out.Size = mode&(unix.S_IFMT|0o7777), rdev, 0
		return out
	}
	return e
}

// SubstituteMode is what a file has that stands for a device; its owner is 0:0.
const SubstituteMode = 0o600

// Substitute tells whether a file of this mode and owner may stand for a
// device, if its record says that it does.
func Substitute(mode, uid uint32) bool {
	return mode&unix.S_IFMT == unix.S_IFREG && uid == 0 && mode&0o022 == 0
}

// HiddenXattr tells whether an attribute steers an overlay or is a record of
// ours: never taken from outside, never exported.
func HiddenXattr(name string) bool {
	return strings.HasPrefix(name, "user.overlay.") || strings.HasPrefix(name, "trusted.overlay.") || name == OverrideXattr
}

// DirOptions say how a Dir reads a directory.
type DirOptions struct {
	// Overrides applies OverrideXattr records: for trees that we unpacked.
	// Trees of users are read as they are.
	Overrides bool
	// Owner, when set, replaces every owner: build contexts belong to 0:0.
	Owner *[2]uint32
}

// Dir is a Tree over a real directory. No lookup leaves it, whatever links or
// races are in it (openat2 with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS).
type Dir struct {
	root *os.File
	opts DirOptions
}

// OpenDir opens the directory at root. The caller closes it.
func OpenDir(root string, opts DirOptions) (*Dir, error) {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: root, Err: err}
	}
	return &Dir{root: os.NewFile(uintptr(fd), root), opts: opts}, nil
}

// Close releases the directory.
func (d *Dir) Close() error { return d.root.Close() }

// OpenFile opens name below the root with open(2) flags, following no link.
// It is for callers that need a real file: to hand over, to clone.
func (d *Dir) OpenFile(name string, flags int) (*os.File, error) {
	name = Clean(name)
	if name == "" {
		name = "."
	}
	for {
		fd, err := d.openBelow(name, flags)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN: // EAGAIN: a rename raced with the walk
			continue
		case err == unix.ELOOP: // a link on the way: nothing of that name is here
			err = unix.ENOTDIR
			fallthrough
		case err != nil:
			return nil, &os.PathError{Op: "open", Path: name, Err: err}
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}

// openBelow makes one attempt to open name, as it is, below the root.
func (d *Dir) openBelow(name string, flags int) (int, error) {
	return unix.Openat2(int(d.root.Fd()), name, &unix.OpenHow{
		Flags:   uint64(flags) | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// openParent opens the directory that name is in, and gives name's own name there: "."
// for the root, which has no parent here.
func (d *Dir) openParent(name string) (dir *os.File, base string, err error) {
	parent, base := "", Clean(name)
	if i := strings.LastIndexByte(base, '/'); i >= 0 {
		parent, base = base[:i], base[i+1:]
	}
	if base == "" {
		base = "."
	}
	dir, err = d.OpenFile(parent, unix.O_PATH|unix.O_DIRECTORY)
	return dir, base, err
}

func (d *Dir) Lstat(ctx context.Context, name string) (Entry, error) {
	f, err := d.OpenFile(name, unix.O_PATH)
	if err != nil {
		return Entry{}, err
	}
	defer f.Close()
	e, err := d.describe(int(f.Fd()), "")
	if err != nil {
		return Entry{}, fmt.Errorf("stat %s: %w", name, err)
	}
	if c := Clean(name); c != "" {
		e.Name = c[strings.LastIndexByte(c, '/')+1:]
	}
	return e, nil
}

// describe stats name below dirfd, or dirfd itself when name is "".
func (d *Dir) describe(dirfd int, name string) (Entry, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, name, &st, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return Entry{}, err
	}
	e := Entry{
		Name: name, Mode: st.Mode, UID: st.Uid, GID: st.Gid, Rdev: st.Rdev, Dev: st.Dev, Ino: st.Ino, Nlink: uint64(st.Nlink),
		ModTime: time.Unix(st.Mtim.Unix()), Change: time.Unix(st.Ctim.Unix()),
	}
	if e.IsRegular() || e.IsLink() {
		e.Size = st.Size
	}
	if e.IsLink() {
		link, err := readlinkat(dirfd, name)
		if err != nil {
			return Entry{}, err
		}
		e.Link = link
	}
	if d.opts.Overrides && (e.IsRegular() || e.IsDir()) {
		override(&e, dirfd, name)
	}
	if d.opts.Owner != nil {
		e.UID, e.GID = d.opts.Owner[0], d.opts.Owner[1]
	}
	return e, nil
}

func override(e *Entry, dirfd int, name string) {
	buf := make([]byte, 128)
	var n int
	var err error
	if name == "" { // the descriptor is the file itself, and no link
		n, err = unix.Getxattr("/proc/self/fd/"+strconv.Itoa(dirfd), OverrideXattr, buf)
	} else {
		n, err = unix.Lgetxattr(procPath(dirfd, name), OverrideXattr, buf)
	}
	if err == nil { // else no record, or a file system without them
		*e = e.Override(buf[:n])
	}
}

func readlinkat(dirfd int, name string) (string, error) {
	for size := 256; ; size *= 2 {
		buf := make([]byte, size)
		n, err := unix.Readlinkat(dirfd, name, buf)
		if err != nil {
			return "", err
		}
		if n < size {
			return string(buf[:n]), nil
		}
	}
}

func procPath(dirfd int, name string) string {
	return "/proc/self/fd/" + strconv.Itoa(dirfd) + "/" + name
}

func (d *Dir) ReadDir(ctx context.Context, name string) ([]Entry, error) {
	f, err := d.OpenFile(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("read directory %s: %w", name, err)
	}
	out := make([]Entry, 0, len(names))
	for _, n := range names {
		e, err := d.describe(int(f.Fd()), n)
		if errors.Is(err, unix.ENOENT) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("stat %s/%s: %w", name, n, err)
		}
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

func (d *Dir) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	return d.OpenRegular(name)
}

// OpenRegular opens a regular file for reading. A fifo, socket or device is an
// error and is not opened: it could block, or do something.
func (d *Dir) OpenRegular(name string) (*os.File, error) {
	p, err := d.OpenFile(name, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(p.Fd()), &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, &os.PathError{Op: "open", Path: name, Err: errNotRegular}
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(int(p.Fd())), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (d *Dir) Xattrs(ctx context.Context, name string) (map[string][]byte, error) {
	f, base, err := d.openParent(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ReadXattrs(procPath(int(f.Fd()), base))
}

// ReadXattrs reads the extended attributes at a real path, not following a
// link, without those that HiddenXattr names.
func ReadXattrs(p string) (map[string][]byte, error) {
	list, err := growing(func(b []byte) (int, error) { return unix.Llistxattr(p, b) })
	if errors.Is(err, unix.ENOTSUP) || len(list) == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "listxattr", Path: p, Err: err}
	}
	var out map[string][]byte
	for raw := range bytes.SplitSeq(bytes.TrimSuffix(list, []byte{0}), []byte{0}) {
		key := string(raw)
		if HiddenXattr(key) {
			continue
		}
		val, err := growing(func(b []byte) (int, error) { return unix.Lgetxattr(p, key, b) })
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOTSUP) {
			continue // removed meanwhile, or not ours to see
		}
		if err != nil {
			return nil, &os.PathError{Op: "getxattr " + key, Path: p, Err: err}
		}
		if out == nil {
			out = map[string][]byte{}
		}
		out[key] = val
	}
	return out, nil
}

func growing(read func([]byte) (int, error)) ([]byte, error) {
	for size := 512; ; {
		buf := make([]byte, size)
		n, err := read(buf)
		if errors.Is(err, unix.ERANGE) {
			if n, err = read(nil); err != nil {
				return nil, err
			}
			size = n + 64
			continue
		}
		if err != nil {
			return nil, err
		}
		return buf[:n], nil
	}
}

// ReadFile is that of FileReader.
func (d *Dir) ReadFile(_ context.Context, name string, b []byte) (int, error) {
	n, _, err := d.ReadFileStat(name, b)
	return n, err
}

// ReadFileStat is ReadFile that tells what the file was after it was read. It is for what
// was a regular file a moment ago: what another has put in its place is opened, without
// waiting for anything, and read before it is an error.
func (d *Dir) ReadFileStat(name string, b []byte) (n int, st unix.Stat_t, err error) {
	fd, err := d.openFast(name)
	if err != nil {
		return 0, st, err
	}
	defer unix.Close(fd)
	for n < len(b) {
		got, err := unix.Read(fd, b[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return n, st, &os.PathError{Op: "read", Path: name, Err: err}
		}
		if got == 0 {
			break
		}
		n += got
	}
	switch err := unix.Fstat(fd, &st); {
	case err != nil:
		return n, st, &os.PathError{Op: "stat", Path: name, Err: err}
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return 0, st, &os.PathError{Op: "open", Path: name, Err: errNotRegular}
	case st.Size > int64(n):
		return n, st, &os.PathError{Op: "read", Path: name, Err: ErrLarger}
	}
	return n, st, nil
}

var errNotRegular = errors.New("not a regular file")

// openFast opens a file for reading by one system call, in most cases.
func (d *Dir) openFast(name string) (int, error) {
	fd, err := d.openBelow(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err == nil {
		return fd, nil
	}
	// A rename raced with the walk, or somebody has a lease on the file; or this is an error.
	f, err := d.OpenRegular(name)
	if err != nil {
		return -1, err
	}
	defer f.Close()
	if fd, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return -1, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

// SetTime sets when name was last changed. No link is followed.
func (d *Dir) SetTime(name string, t time.Time) error {
	f, base, err := d.openParent(name)
	if err != nil {
		return err
	}
	defer f.Close()
	when := unix.NsecToTimespec(t.UnixNano())
	if err := unix.UtimesNanoAt(int(f.Fd()), base, []unix.Timespec{when, when}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "set time", Path: name, Err: err}
	}
	return nil
}
