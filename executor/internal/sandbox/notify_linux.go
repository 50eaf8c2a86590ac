package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The ioctls of seccomp_unotify(2) and their structures.
const (
	notifRecv     = 0xc0502100
	notifSend     = 0xc0182101
	notifValid    = 0x40082102
	notifAddFD    = 0x40182103
	notifSetFlags = 0x40082104

	respContinue = 1
	addFDSend    = 2
)

type notification struct {
	ID    uint64
	PID   uint32
	Flags uint32
	NR    int32
	Arch  uint32
	IP    uint64
	Args  [6]uint64
}

type response struct {
	ID    uint64
	Val   int64
	Error int32
	Flags uint32
}

type addFD struct {
	ID         uint64
	Flags      uint32
	SrcFD      uint32
	NewFD      uint32
	NewFDFlags uint32
}

// reply is what becomes of a call.
type reply struct {
	val   int64
	errno unix.Errno
	run   bool // let the kernel do it
	sent  bool // already answered
}

var goOn = reply{run: true}

func failed(err error) reply {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		errno = unix.EIO
	}
	return reply{errno: errno}
}

// serve answers one notification.
func (s *supervisor) serve() error {
	var n notification
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s.listener), notifRecv, uintptr(unsafe.Pointer(&n))); errno != 0 {
		if errno == unix.ENOENT || errno == unix.EINTR { // the caller is gone
			return nil
		}
		return fmt.Errorf("receive system call: %w", errno)
	}
	r := s.call(&n)
	if r.sent {
		return nil
	}
	resp := response{ID: n.ID, Val: r.val, Error: -int32(r.errno)}
	if r.run {
		resp = response{ID: n.ID, Flags: respContinue}
	} else if r.errno != 0 {
		resp.Val = 0
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s.listener), notifSend, uintptr(unsafe.Pointer(&resp))); errno != 0 && errno != unix.ENOENT {
		return fmt.Errorf("answer system call: %w", errno)
	}
	return nil
}

func (s *supervisor) valid(n *notification) bool {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s.listener), notifValid, uintptr(unsafe.Pointer(&n.ID)))
	return errno == 0
}

// call decides.
func (s *supervisor) call(n *notification) reply {
	nr, a := uint32(n.NR), n.Args
	if old, ok := oldCalls[nr]; ok {
		nr = old.as
		for i, from := range old.args {
			switch from {
			case fromCwd:
				at := int32(unix.AT_FDCWD)
				a[i] = uint64(uint32(at))
			case zero:
				a[i] = 0
			case noFollow:
				a[i] = unix.AT_SYMLINK_NOFOLLOW
			case creating:
				a[i] = unix.O_CREAT | unix.O_WRONLY | unix.O_TRUNC
			default:
				a[i] = n.Args[from]
			}
		}
	}
	switch nr { // the many calls that need no credentials
	case unix.SYS_FSTAT:
		return s.stat(n, int32(a[0]), 0, a[1], unix.AT_EMPTY_PATH)
	case sysFstatat:
		return s.stat(n, int32(a[0]), a[1], a[2], int(a[3]))
	case unix.SYS_STATX:
		return s.statx(n, int32(a[0]), a[1], int(a[2]), int(a[3]), a[4])
	case unix.SYS_CHROOT:
		s.chrooted = true
		return goOn
	}
	if s.full {
		return s.device(n, nr, a)
	}
	who, ok := s.creds(n)
	if !ok {
		return goOn // it died, or we cannot know it
	}
	switch nr {
	case unix.SYS_FCHOWN:
		return s.chown(n, who, int32(a[0]), 0, uint32(a[1]), uint32(a[2]), unix.AT_EMPTY_PATH)
	case unix.SYS_FCHOWNAT:
		return s.chown(n, who, int32(a[0]), a[1], uint32(a[2]), uint32(a[3]), int(a[4]))
	case unix.SYS_FCHMOD:
		return s.chmod(n, who, int32(a[0]), 0, uint32(a[1]), unix.AT_EMPTY_PATH)
	case unix.SYS_FCHMODAT:
		return s.chmod(n, who, int32(a[0]), a[1], uint32(a[2]), 0)
	case unix.SYS_FCHMODAT2:
		return s.chmod(n, who, int32(a[0]), a[1], uint32(a[2]), int(a[3]))
	case unix.SYS_MKNODAT:
		return s.mknod(n, who, int32(a[0]), a[1], uint32(a[2]), a[3])
	case unix.SYS_MKDIRAT:
		return s.mkdir(n, who, int32(a[0]), a[1], uint32(a[2]))
	case unix.SYS_SYMLINKAT:
		return s.symlink(n, who, a[0], int32(a[1]), a[2])
	case unix.SYS_OPENAT:
		return s.open(n, who, int32(a[0]), a[1], unix.OpenHow{Flags: a[2], Mode: a[3] & 0o7777})
	case unix.SYS_OPENAT2:
		var how unix.OpenHow
		if a[3] < uint64(unsafe.Sizeof(how)) || !s.peek(n, a[2], unsafe.Slice((*byte)(unsafe.Pointer(&how)), unsafe.Sizeof(how))) {
			return goOn
		}
		return s.open(n, who, int32(a[0]), a[1], how)
	case unix.SYS_EXECVE:
		at := int32(unix.AT_FDCWD)
		return s.execute(n, who, at, a[0], 0)
	case unix.SYS_EXECVEAT:
		return s.execute(n, who, int32(a[0]), a[1], int(a[4]))
	}
	return s.credential(n, who, nr, a)
}

// peek fills b from the caller's memory.
func (s *supervisor) peek(n *notification, addr uint64, b []byte) bool {
	local := []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}
	remote := []unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}
	m, err := unix.ProcessVMReadv(int(n.PID), local, remote, 0)
	return err == nil && m == len(b) && s.valid(n)
}

// poke writes b into the caller's memory.
func (s *supervisor) poke(n *notification, addr uint64, b []byte) bool {
	if !s.valid(n) {
		return false
	}
	local := []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}
	remote := []unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}
	m, err := unix.ProcessVMWritev(int(n.PID), local, remote, 0)
	return err == nil && m == len(b)
}

// text reads a path from the caller's memory, page by page: the next page may
// not be there.
func (s *supervisor) text(n *notification, addr uint64) (string, unix.Errno) {
	if addr == 0 {
		return "", unix.EFAULT
	}
	const page = 4096
	var out []byte
	for len(out) <= page {
		b := make([]byte, page-addr%page)
		local := []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}
		m, err := unix.ProcessVMReadv(int(n.PID), local, []unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}, 0)
		if err != nil || m != len(b) {
			return "", unix.EFAULT
		}
		if i := bytes.IndexByte(b, 0); i >= 0 {
			out = append(out, b[:i]...)
			if len(out) >= unix.PathMax {
				break
			}
			if !s.valid(n) {
				return "", unix.ESRCH
			}
			return string(out), 0
		}
		out = append(out, b...)
		addr += uint64(len(b))
	}
	return "", unix.ENAMETOOLONG
}

// dir opens what a dirfd argument means to the caller.
func (s *supervisor) dir(n *notification, dirfd int32) (int, error) {
	name := strconv.Itoa(int(n.PID)) + "/cwd"
	if dirfd != unix.AT_FDCWD {
		name = strconv.Itoa(int(n.PID)) + "/fd/" + strconv.Itoa(int(dirfd))
	}
	f, err := unix.Openat(int(s.proc), name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT && dirfd != unix.AT_FDCWD {
		err = unix.EBADF
	}
	if err == nil && !s.valid(n) { // its number may be another's by now
		unix.Close(f)
		return -1, unix.ESRCH
	}
	return f, err
}
