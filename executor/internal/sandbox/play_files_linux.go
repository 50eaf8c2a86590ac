package sandbox

import (
	"path"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// resolve finds files by the caller's eyes: its root, its working directory. do gets a
// directory and a path to use with it; the thread's root is right while it runs.
func (s *supervisor) resolve(n *notification, dirfd int32, name string, do func(dir int, name string) error) error {
	dir := unix.AT_FDCWD
	if !strings.HasPrefix(name, "/") {
		d, err := s.dir(n, dirfd)
		if err != nil {
			return err
		}
		defer unix.Close(d)
		dir = d
	}
	if !s.chrooted {
		return do(dir, name)
	}
	var st unix.Stat_t
	rootName := strconv.Itoa(int(n.PID)) + "/root"
	if err := unix.Fstatat(int(s.proc), rootName, &st, 0); err != nil {
		return err
	}
	if st.Dev != s.root.Dev || st.Ino != s.root.Ino { // it has called chroot
		r, err := unix.Openat(int(s.proc), rootName, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(r)
		if !s.valid(n) {
			return unix.ESRCH
		}
		if err := chrootTo(r); err != nil {
			return err
		}
		defer func() {
			chrootTo(int(s.rootFD))
			unix.Fchdir(int(s.proc))
		}()
		if err := unix.Fchdir(int(s.proc)); err != nil {
			return err
		}
	}
	return do(dir, name)
}

// chrootTo changes the root of this thread alone.
func chrootTo(dir int) error {
	if err := unix.Fchdir(dir); err != nil {
		return err
	}
	return unix.Chroot(".")
}

// target opens the file that a call names. The caller closes it.
func (s *supervisor) target(n *notification, dirfd int32, addr uint64, flags int) (int, error) {
	name := ""
	if addr != 0 {
		var errno unix.Errno
		if name, errno = s.text(n, addr); errno != 0 {
			return -1, errno
		}
	}
	if name == "" {
		if flags&unix.AT_EMPTY_PATH == 0 {
			return -1, unix.ENOENT
		}
		return s.dir(n, dirfd)
	}
	how := unix.O_PATH | unix.O_CLOEXEC
	if flags&unix.AT_SYMLINK_NOFOLLOW != 0 {
		how |= unix.O_NOFOLLOW
	}
	f := -1
	err := s.resolve(n, dirfd, name, func(dir int, name string) (err error) {
		f, err = unix.Openat(dir, name, how, 0)
		if err == unix.ENOENT && how&unix.O_NOFOLLOW == 0 {
			if alias, ok := ownDescriptor(dir, name); ok {
				f, err = s.dir(n, alias)
			}
		}
		return err
	})
	return f, err
}

// ownDescriptor tells which descriptor of the caller a path such as
// /dev/stdout leads to. /proc/self is the caller's to the caller, but not to us.
func ownDescriptor(dir int, name string) (int32, bool) {
	for range 8 {
		for _, p := range []string{"/proc/self/fd/", "/proc/thread-self/fd/", "/dev/fd/"} {
			if rest, ok := strings.CutPrefix(name, p); ok {
				i, err := strconv.ParseUint(rest, 10, 31)
				return int32(i), err == nil
			}
		}
		buf := make([]byte, unix.PathMax)
		m, err := unix.Readlinkat(dir, name, buf)
		if err != nil {
			return 0, false
		}
		to := string(buf[:m])
		if strings.HasPrefix(to, "/") {
			name = to
		} else {
			name = path.Dir(name) + "/" + to
		}
	}
	return 0, false
}

// at does something with a path that means the open file f.
func (s *supervisor) at(f int, do func(path string) error) error {
	// The working directory of this thread is the node's /proc all the time.
	return do("self/fd/" + strconv.Itoa(f))
}

// make lets do make a new file, then gives it to the caller, with substitute
// as its mode if that has a type.
func (s *supervisor) make(n *notification, who creds, dirfd int32, addr uint64, substitute uint32, rdev uint64, do func(dir int, name string) error) reply {
	name, errno := s.text(n, addr)
	if errno != 0 {
		return reply{errno: errno}
	}
	err := s.resolve(n, dirfd, name, func(dir int, name string) error {
		if err := do(dir, name); err != nil {
			return err
		}
		f, err := unix.Openat(dir, strings.TrimRight(name, "/"), unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != nil {
			return err
		}
		defer unix.Close(f)
		x, err := s.look(f)
		if err != nil {
			return err
		}
		x.uid, x.gid = who.uid.fs, who.gid.fs
		if substitute != 0 {
			x.mode, x.rdev = substitute, rdev
		}
		return s.record(f, x)
	})
	if err != nil {
		return failed(err)
	}
	return reply{}
}

// empty makes the file that is to be a substitute.
func empty(dir int, name string) error {
	f, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, substituteMode)
	if err != nil {
		return err
	}
	return unix.Close(f)
}

func (s *supervisor) mknod(n *notification, who creds, dirfd int32, addr uint64, mode uint32, dev uint64) reply {
	typ := mode & unix.S_IFMT
	mode &^= s.umask(n)
	if typ == unix.S_IFCHR || typ == unix.S_IFBLK {
		if !who.privileged() || dev == 0 && typ == unix.S_IFCHR { // 0:0 hides files from overlay
			return reply{errno: unix.EPERM}
		}
		return s.make(n, who, dirfd, addr, mode, dev, empty)
	}
	if who.uid.fs == 0 && who.gid.fs == 0 {
		return goOn
	}
	return s.make(n, who, dirfd, addr, 0, 0, func(dir int, name string) error {
		return unix.Mknodat(dir, name, mode, 0)
	})
}

func (s *supervisor) mkdir(n *notification, who creds, dirfd int32, addr uint64, mode uint32) reply {
	if who.uid.fs == 0 && who.gid.fs == 0 {
		return goOn
	}
	mode &^= s.umask(n)
	return s.make(n, who, dirfd, addr, 0, 0, func(dir int, name string) error {
		return unix.Mkdirat(dir, name, mode)
	})
}

func (s *supervisor) symlink(n *notification, who creds, from uint64, dirfd int32, addr uint64) reply {
	if who.uid.fs == 0 && who.gid.fs == 0 {
		return goOn
	}
	to, errno := s.text(n, from)
	if errno != 0 {
		return reply{errno: errno}
	}
	return s.make(n, who, dirfd, addr, 0, 0, func(dir int, name string) error {
		return unix.Symlinkat(to, dir, name)
	})
}

// open makes the file itself if a user other than 0 is about to: only who
// made it can know that it is new.
func (s *supervisor) open(n *notification, who creds, dirfd int32, addr uint64, how unix.OpenHow) reply {
	if how.Flags&unix.O_CREAT == 0 || who.uid.fs == 0 && who.gid.fs == 0 {
		return goOn
	}
	name, errno := s.text(n, addr)
	if errno != 0 || name == "" {
		return goOn
	}
	mode := uint32(how.Mode) &^ s.umask(n)
	opened := -1
	err := s.resolve(n, dirfd, name, func(dir int, name string) error {
		// O_EXCL follows no link at the end; a name that is there, also as a
		// dangling link, is the kernel's business.
		h := unix.OpenHow{Flags: how.Flags | unix.O_EXCL | unix.O_CLOEXEC, Mode: uint64(mode), Resolve: how.Resolve}
		f, err := unix.Openat2(dir, name, &h)
		if err != nil {
			return err
		}
		x, err := s.look(f)
		if err == nil {
			x.uid, x.gid = who.uid.fs, who.gid.fs
			err = s.record(f, x)
		}
		if err != nil {
			unix.Close(f)
			return err
		}
		opened = f
		return nil
	})
	if err != nil {
		return goOn // there already, or an error that the kernel will give, too
	}
	defer unix.Close(opened)
	add := addFD{ID: n.ID, Flags: addFDSend, SrcFD: uint32(opened), NewFDFlags: uint32(how.Flags & unix.O_CLOEXEC)}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s.listener), notifAddFD, uintptr(unsafe.Pointer(&add))); errno != 0 {
		return reply{errno: errno}
	}
	return reply{sent: true}
}

// plain tells, by one call in most cases, that nothing is recorded of a file:
// the attribute is looked up by a path through the caller's /proc directory.
func (s *supervisor) plain(n *notification, dirfd int32, addr uint64, flags int) bool {
	if len(s.owned) > 0 || s.chrooted {
		return false
	}
	name := ""
	if addr != 0 {
		var errno unix.Errno
		if name, errno = s.text(n, addr); errno != 0 {
			return true // the kernel says what is wrong
		}
	}
	get := unix.Getxattr
	switch {
	case strings.HasPrefix(name, "/"):
		if flags&unix.AT_SYMLINK_NOFOLLOW != 0 {
			get = unix.Lgetxattr
		}
	case name == "" && flags&unix.AT_EMPTY_PATH == 0:
		return true
	default:
		base := strconv.Itoa(int(n.PID)) + "/cwd"
		if dirfd != unix.AT_FDCWD {
			base = strconv.Itoa(int(n.PID)) + "/fd/" + strconv.Itoa(int(dirfd))
		}
		if name != "" {
			base += "/" + name
			if flags&unix.AT_SYMLINK_NOFOLLOW != 0 {
				get = unix.Lgetxattr
			}
		}
		name = base
	}
	var buf [1]byte
	_, err := get(name, overrideXattr, buf[:])
	return err != nil && err != unix.ERANGE // no such file, no attribute: the kernel answers as well as we could
}

// recorded opens what a stat is about, where something else is recorded of it than the
// kernel would say. The caller closes it if ok.
func (s *supervisor) recorded(n *notification, dirfd int32, addr uint64, flags int) (f int, x seen, ok bool) {
	if s.plain(n, dirfd, addr, flags) {
		return -1, seen{}, false
	}
	f, err := s.target(n, dirfd, addr, flags)
	if err != nil {
		return -1, seen{}, false
	}
	if x, err = s.look(f); err != nil || !x.recorded {
		unix.Close(f)
		return -1, seen{}, false
	}
	return f, x, true
}

func (s *supervisor) stat(n *notification, dirfd int32, addr, to uint64, flags int) reply {
	f, x, ok := s.recorded(n, dirfd, addr, flags)
	if !ok {
		return goOn
	}
	defer unix.Close(f)
	x.st.Mode, x.st.Uid, x.st.Gid, x.st.Rdev = x.mode, x.uid, x.gid, x.rdev
	if !s.poke(n, to, unsafe.Slice((*byte)(unsafe.Pointer(&x.st)), unsafe.Sizeof(x.st))) {
		return reply{errno: unix.EFAULT}
	}
	return reply{}
}

func (s *supervisor) statx(n *notification, dirfd int32, addr uint64, flags, mask int, to uint64) reply {
	f, x, ok := s.recorded(n, dirfd, addr, flags)
	if !ok {
		return goOn
	}
	defer unix.Close(f)
	var st unix.Statx_t
	if err := unix.Statx(f, "", flags&^unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH, mask, &st); err != nil {
		return failed(err)
	}
	st.Mode, st.Uid, st.Gid = uint16(x.mode), x.uid, x.gid
	st.Rdev_major, st.Rdev_minor = unix.Major(x.rdev), unix.Minor(x.rdev)
	if !s.poke(n, to, unsafe.Slice((*byte)(unsafe.Pointer(&st)), unsafe.Sizeof(st))) {
		return reply{errno: unix.EFAULT}
	}
	return reply{}
}

// execute takes the ids of a setuid or setgid file before the kernel executes
// it, and settles the saved ones.
func (s *supervisor) execute(n *notification, who creds, dirfd int32, addr uint64, flags int) reply {
	next := who.executed(0, 0, 0)
	if who.uid != (ids{}) {
		if f, err := s.target(n, dirfd, addr, flags); err == nil {
			if x, err := s.look(f); err == nil && x.mode&unix.S_IFMT == unix.S_IFREG && x.mode&0o111 != 0 {
				next = who.executed(x.mode, x.uid, x.gid)
			}
			unix.Close(f)
		}
	}
	if next != who {
		if err := s.setCreds(n, next); err != nil {
			return failed(err)
		}
	}
	return goOn
}
