package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// fd is an open descriptor with close-on-exec: of a mount, or O_PATH of a
// place to mount on.
type fd int

func (f fd) close() {
	if f >= 0 {
		unix.Close(int(f))
	}
}

// option of a new file system; an empty value is a flag.
type option struct{ key, value string }

// newMount makes a detached mount of a new file system. attrs are MOUNT_ATTR_*.
func newMount(kind string, attrs int, options ...option) (fd, error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open file system %s: %w", kind, err)
	}
	defer unix.Close(fs)
	for _, o := range options {
		if o.value == "" {
			err = unix.FsconfigSetFlag(fs, o.key)
		} else {
			err = unix.FsconfigSetString(fs, o.key, o.value)
		}
		if err != nil {
			return -1, fmt.Errorf("set %s=%s of %s: %w%s", o.key, o.value, kind, err, complaint(fs))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("make file system %s: %w%s", kind, err, complaint(fs))
	}
	m, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return -1, fmt.Errorf("mount %s: %w", kind, err)
	}
	return fd(m), nil
}

// complaint is what the kernel says about a file system context, with a space in front.
func complaint(fs int) string {
	var all []string
	buf := make([]byte, 512)
	for range 8 {
		n, err := unix.Read(fs, buf)
		if err != nil || n <= 0 {
			break
		}
		line := strings.TrimSpace(string(buf[:n]))
		if _, text, ok := strings.Cut(line, " "); ok {
			line = text
		}
		all = append(all, line)
	}
	if len(all) == 0 {
		return ""
	}
	return " (" + strings.Join(all, "; ") + ")"
}

// cloneMount makes a detached copy of the mount, or of the part of it, at path
// below dir; "" is dir itself. Mounts below it come along: on what came from
// another user namespace they cannot be left out.
func cloneMount(dir int, path string) (fd, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_RECURSIVE)
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	m, err := unix.OpenTree(dir, path, flags)
	if err != nil {
		return -1, err
	}
	return fd(m), nil
}

// Detached is a directory for a process elsewhere that sees no path to it: nothing
// above it can be reached from there. It takes the right to mount.
func Detached(dir string) (*os.File, error) {
	f, err := cloneMount(unix.AT_FDCWD, dir)
	if err != nil {
		return nil, &os.PathError{Op: "open_tree", Path: dir, Err: err}
	}
	return os.NewFile(uintptr(f), dir), nil
}

// restrict sets MOUNT_ATTR_* on a mount and all mounts below it.
func (f fd) restrict(attrs uint64) error {
	return unix.MountSetattr(int(f), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: attrs})
}

// attach puts a detached mount on the place that target names and closes it.
func (f fd) attach(target fd) error {
	defer f.close()
	return unix.MoveMount(int(f), "", int(target), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// within opens path below root as a place to mount on. Links are followed as
// if root were "/": no name leads out of it, and none leads through /proc/self/fd.
func within(root fd, path string, flags uint64) (fd, error) {
	path = strings.TrimLeft(path, "/")
	if path == "" {
		path = "."
	}
	f, err := unix.Openat2(int(root), path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC | flags,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	for err == unix.EAGAIN { // a rename raced with "..": nobody does this for long
		f, err = unix.Openat2(int(root), path, &unix.OpenHow{
			Flags:   unix.O_PATH | unix.O_CLOEXEC | flags,
			Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
		})
	}
	if err != nil {
		return -1, err
	}
	return fd(f), nil
}

// openDir opens a directory of the node itself.
func openDir(path string) (fd, error) {
	f, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	return fd(f), nil
}

func (f fd) isDir() bool {
	var st unix.Stat_t
	return unix.Fstatat(int(f), "", &st, unix.AT_EMPTY_PATH) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// tmpfsMount makes a detached tmpfs. size is in bytes, 0 for the kernel's
// default (half of memory).
func tmpfsMount(mode uint32, size int64, attrs int) (fd, error) {
	options := []option{{"mode", "0" + strconv.FormatUint(uint64(mode), 8)}, {"source", "tmpfs"}}
	if size > 0 {
		options = append(options, option{"size", strconv.FormatInt(size, 10)})
	}
	return newMount("tmpfs", attrs, options...)
}

// overlayMount makes a detached overlay. lower is topmost first; upper and
// work may both be empty for a read-only one. scratch is an empty directory
// on a tmpfs of the caller, used on kernels that do not take one lower at a time.
func overlayMount(lower []string, upper, work, scratch string) (fd, error) {
	common := []option{{"source", "overlay"}, {"userxattr", ""}}
	if upper != "" {
		common = append(common, option{"upperdir", upper}, option{"workdir", work}, option{"volatile", ""})
	}
	var options []option
	for _, l := range lower {
		options = append(options, option{"lowerdir+", l})
	}
	m, err := newMount("overlay", 0, append(options, common...)...)
	if err == nil || !errors.Is(err, unix.EINVAL) || scratch == "" {
		return m, err
	}
	// Before Linux 6.7 all lowers are one string of at most 256 bytes here and
	// a page for mount(2): give them short names.
	old, err2 := overlayByLinks(lower, common, scratch)
	if err2 != nil {
		return -1, fmt.Errorf("%w; and with one lowerdir option: %w", err, err2)
	}
	return old, nil
}

// overlayByLinks mounts through links l0, l1, ... in a directory of scratch that it removes.
func overlayByLinks(lower []string, common []option, scratch string) (m fd, err error) {
	scratch, err = os.MkdirTemp(scratch, "")
	if err != nil {
		return -1, err
	}
	defer func() { err = errors.Join(err, os.Remove(scratch)) }()
	data := []string{}
	names := make([]string, len(lower))
	defer func() {
		for _, n := range names {
			if n != "" {
				err = errors.Join(err, os.Remove(n))
			}
		}
	}()
	for i, l := range lower {
		name := filepath.Join(scratch, "l"+strconv.Itoa(i))
		if err := os.Symlink(l, name); err != nil {
			return -1, fmt.Errorf("name a lower directory: %w", err)
		}
		names[i] = name
	}
	data = append(data, "lowerdir="+strings.Join(names, ":"))
	for _, o := range common {
		if o.key == "source" {
			continue
		}
		if o.value == "" {
			data = append(data, o.key)
		} else {
			data = append(data, o.key+"="+strings.NewReplacer(`\`, `\\`, `,`, `\,`, `:`, `\:`).Replace(o.value))
		}
	}
	place := filepath.Join(scratch, "m")
	if err := os.Mkdir(place, 0o700); err != nil {
		return -1, fmt.Errorf("make a mount point: %w", err)
	}
	defer func() { err = errors.Join(err, os.Remove(place)) }()
	text := strings.Join(data, ",")
	if len(text) >= os.Getpagesize() {
		return -1, fmt.Errorf("%d lower directories are more than one mount call can name on this kernel", len(lower))
	}
	if err := unix.Mount("overlay", place, "overlay", 0, text); err != nil {
		return -1, fmt.Errorf("mount overlay: %w", err)
	}
	m, err = cloneMount(unix.AT_FDCWD, place)
	if err2 := unix.Unmount(place, unix.MNT_DETACH); err2 != nil {
		err = errors.Join(err, fmt.Errorf("unmount: %w", err2))
	}
	return m, err
}
