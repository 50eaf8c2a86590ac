package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// place is a furnished root in the mount namespace of the calling thread.
type place struct {
	root, old fd     // the new "/" and the one to leave
	proc      fd     // where /proc goes
	borrowed  fd     // the detached /proc to put there; -1: one is made by the child
	masks     []mask // of /proc
	readOnly  []string
}

// mask is a detached mount that hides a path of /proc.
type mask struct {
	mount fd
	path  string // relative to /proc
}

func (p *place) close() {
	for _, f := range []*fd{&p.root, &p.old, &p.proc, &p.borrowed} {
		f.close()
		*f = -1
	}
	for _, m := range p.masks {
		m.mount.close()
	}
	p.masks = nil
}

// What Docker hides, and what it shows read-only.
var (
	maskedProc = []string{"acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug", "scsi"}
	maskedSys  = []string{"firmware", "devices/virtual/powercap"}
	frozenProc = []string{"bus", "fs", "irq", "sys", "sysrq-trigger"}
)

// furnish mounts everything but /proc, which must be mounted by a process of
// the namespace that it shows.
func (in *Inside) furnish(spec RunSpec) (*place, error) {
	p := &place{root: -1, old: -1, proc: -1, borrowed: -1}
	var err error
	if p.old, err = openDir("/"); err != nil {
		return p, err
	}
	root, err := spec.root()
	if err != nil {
		return p, err
	}
	here, err := openDir(rootPlace)
	if err != nil {
		root.close()
		return p, err
	}
	defer here.close()
	if err := root.attach(here); err != nil {
		return p, fmt.Errorf("mount root: %w", err)
	}
	if p.root, err = openDir(rootPlace); err != nil {
		return p, err
	}
	b := &builder{root: p.root}
	b.devices("/dev")
	if spec.Network == NoNetwork {
		b.mount("/sys", func() (fd, error) {
			m, err := newMount("sysfs", sysAttrs, option{"source", "sysfs"})
			if in.borrowed && errors.Is(err, unix.EPERM) { // as for /proc
				m, err = cloneMount(unix.AT_FDCWD, "/sys")
			}
			return m, err
		}, sysAttrs)
	} else {
		// A new sysfs shows a network namespace and belongs to its owner: not us.
		b.mount("/sys", func() (fd, error) { return cloneMount(unix.AT_FDCWD, "/sys") }, sysAttrs)
	}
	for _, name := range maskedSys {
		if m, err := cover("/sys/" + name); err == nil {
			b.mount("/sys/"+name, func() (fd, error) { return m, nil }, 0)
		}
	}
	files := false
	for i, m := range spec.Mounts {
		if m.Kind == FileMount && !files {
			files = true
			b.memory()
		}
		made, err := b.point(m)
		if err != nil {
			return p, fmt.Errorf("make mount point %s: %w", m.Target, err)
		}
		if m.Kind == TmpfsMount && m.Mode == 0 {
			m.Mode = openMode
			if !made {
				m.Mode = b.coveredMode(m.Target)
			}
		}
		b.user(m, filesPlace+"/"+strconv.Itoa(i), in.Map)
	}
	if b.err != nil {
		return p, b.err
	}
	if p.proc, err = within(p.root, "/proc", unix.O_DIRECTORY); err != nil {
		return p, fmt.Errorf("find mount point /proc: %w", err)
	}
	if in.borrowed {
		if p.borrowed, err = cloneMount(unix.AT_FDCWD, "/proc"); err != nil {
			return p, fmt.Errorf("bind /proc: %w", err)
		}
	}
	for _, name := range maskedProc {
		if m, err := cover("/proc/" + name); err == nil {
			p.masks = append(p.masks, mask{m, name})
		}
	}
	hostname := spec.Hostname
	if hostname == "" {
		hostname = "buildkitsandbox"
	}
	if err := unix.Sethostname([]byte(hostname)); err != nil {
		return p, fmt.Errorf("set host name: %w", err)
	}
	if spec.Network == NoNetwork {
		if err := loopbackUp(); err != nil {
			return p, err
		}
	}
	return p, nil
}

// root makes the detached mount of the root file system.
func (s RunSpec) root() (fd, error) {
	switch {
	case len(s.Lower) == 0:
		m, err := cloneMount(unix.AT_FDCWD, s.Root)
		if err != nil {
			return -1, fmt.Errorf("bind root %s: %w", s.Root, err)
		}
		return m, nil
	case len(s.Lower) == 1 && s.Upper == "": // no overlay, for the kernel
		m, err := cloneMount(unix.AT_FDCWD, s.Lower[0])
		if err != nil {
			return -1, fmt.Errorf("bind root %s: %w", s.Lower[0], err)
		}
		if err := m.restrict(unix.MOUNT_ATTR_RDONLY); err != nil {
			m.close()
			return -1, fmt.Errorf("make root read-only: %w", err)
		}
		return m, nil
	}
	return overlayMount(s.Lower, s.Upper, s.Work, linkPlace)
}

// cover makes a detached mount that hides path of the node, if there is such
// a path: a null device over a file, an empty directory over a directory.
func cover(path string) (fd, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return -1, err
	}
	with := "/dev/null"
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		with = voidPlace
	}
	m, err := cloneMount(unix.AT_FDCWD, with)
	if err != nil {
		return -1, err
	}
	if err := m.restrict(unix.MOUNT_ATTR_RDONLY); err != nil {
		m.close()
		return -1, err
	}
	return m, nil
}

// memory mounts the file system for FileMounts on the thread's filesPlace.
func (b *builder) memory() {
	if b.err != nil {
		return
	}
	m, err := tmpfsMount(0o700, 0, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		b.fail("mount", filesPlace, err)
		return
	}
	here, err := openDir(filesPlace)
	if err != nil {
		m.close()
		b.fail("mount", filesPlace, err)
		return
	}
	defer here.close()
	b.fail("mount", filesPlace, m.attach(here))
}

// point makes the mount point of a mount where the caller could not: below /dev,
// and in what an earlier mount shows, never in the root itself. It is 0755, or an
// empty file, as with runc.
func (b *builder) point(m Mount) (made bool, err error) {
	if b.err != nil {
		return false, nil
	}
	target := path.Clean("/" + m.Target)
	there, err := within(b.root, target, 0)
	if err == nil {
		there.close()
		return false, nil
	}
	var lacking []string // the innermost first
	var dir fd
	for at := target; errors.Is(err, unix.ENOENT) && at != "/"; {
		lacking = append(lacking, path.Base(at))
		at = path.Dir(at)
		dir, err = within(b.root, at, unix.O_DIRECTORY)
	}
	if err != nil {
		return false, err
	}
	defer func() { dir.close() }()
	if same, err := sameMount(dir, b.root); err != nil || same {
		return false, errors.Join(unix.ENOENT, err)
	}
	for _, name := range slices.Backward(lacking[1:]) {
		if err := unix.Mkdirat(int(dir), name, 0o755); err != nil {
			return false, err
		}
		next, err := unix.Openat(int(dir), name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return false, err
		}
		dir.close()
		dir = fd(next)
	}
	isDir := m.Kind == TmpfsMount
	if m.Kind == BindMount {
		source, err := m.open()
		if err != nil {
			return false, err
		}
		isDir = source.isDir()
		source.close()
	}
	if isDir {
		return true, unix.Mkdirat(int(dir), lacking[0], 0o755)
	}
	return true, unix.Mknodat(int(dir), lacking[0], unix.S_IFREG|0o644, 0)
}

// sameMount tells whether two directories are on one mount. Before Linux 5.8, it
// takes mounts of one file system for one.
func sameMount(a, b fd) (bool, error) {
	var x, y unix.Statx_t
	for f, st := range map[fd]*unix.Statx_t{a: &x, b: &y} {
		if err := unix.Statx(int(f), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, st); err != nil {
			return false, fmt.Errorf("statx: %w", err)
		}
	}
	if x.Mask&y.Mask&unix.STATX_MNT_ID == 0 {
		return x.Dev_major == y.Dev_major && x.Dev_minor == y.Dev_minor, nil
	}
	return x.Mnt_id == y.Mnt_id, nil
}

// coveredMode is the mode of a tmpfs that takes that of the directory it covers.
func (b *builder) coveredMode(name string) uint32 {
	f, err := within(b.root, name, 0)
	if err != nil {
		return openMode // the mount will fail
	}
	defer f.close()
	var st unix.Stat_t
	if err := unix.Fstatat(int(f), "", &st, unix.AT_EMPTY_PATH); err != nil {
		return openMode
	}
	return st.Mode & 0o7777
}

// openMode is that of a tmpfs that covers nothing.
const openMode = 0o1777

// user makes one mount of a RunSpec. file is where the data of a FileMount may lie.
func (b *builder) user(m Mount, file string, ids IDMap) {
	var attrs uint64
	if m.ReadOnly {
		attrs = unix.MOUNT_ATTR_RDONLY
	}
	b.mount(m.Target, func() (fd, error) {
		switch m.Kind {
		case TmpfsMount:
			return tmpfsMount(m.Mode, m.Size, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
		case FileMount:
			if err := writeFile(file, m, ids); err != nil {
				return -1, err
			}
			return cloneMount(unix.AT_FDCWD, file)
		case BindMount:
			source, err := m.open()
			if err != nil {
				return -1, err
			}
			defer source.close()
			return cloneMount(int(source), "")
		}
		return -1, fmt.Errorf("internal error: kind %q of mount", m.Kind)
	}, attrs)
}

// open opens what a bind mount shows.
func (m Mount) open() (fd, error) {
	f, err := unix.Open(m.Source, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", m.Source, err)
	}
	if m.Sub == "" {
		return fd(f), nil
	}
	defer unix.Close(f)
	sub, err := within(fd(f), m.Sub, 0)
	if err != nil {
		return -1, fmt.Errorf("find %s in %s: %w", m.Sub, m.Source, err)
	}
	return sub, nil
}

func writeFile(name string, m Mount, ids IDMap) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(m.Data)
	if err == nil && ids.Contains(m.UID, m.GID) {
		err = f.Chown(int(m.UID), int(m.GID))
	} else if err == nil {
		// Where a tmpfs has attributes (Linux 6.6 and later) the RUN sees it.
		unix.Fsetxattr(int(f.Fd()), overrideXattr, fmt.Appendf(nil, overrideFormat, unix.S_IFREG|m.Mode, m.UID, m.GID, 0), 0)
	}
	if err == nil {
		err = unix.Fchmod(int(f.Fd()), m.Mode&0o7777)
	}
	return errors.Join(err, f.Close())
}
