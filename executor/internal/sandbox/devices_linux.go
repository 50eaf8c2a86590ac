package sandbox

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// caller is what the kernel knows of a process that asks for a device, on rung
// userns.
type caller struct {
	uid, gid uint32 // of the file system
	caps     uint64 // effective
	umask    uint32
}

func (c caller) can(caps ...int) bool {
	for _, n := range caps {
		if c.caps&(1<<n) == 0 {
			return false
		}
	}
	return true
}

// caller reads /proc/PID/status.
func (s *supervisor) caller(n *notification) (caller, error) {
	f, err := unix.Openat(int(s.proc), strconv.Itoa(int(n.PID))+"/status", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return caller{}, err
	}
	file := os.NewFile(uintptr(f), "status")
	defer file.Close()
	buf := make([]byte, 8192)
	m := 0
	for m < len(buf) { // a user in very many groups has a long one
		k, err := file.Read(buf[m:])
		if m += k; err != nil {
			break
		}
	}
	var c caller
	found := 0
	for line := range strings.Lines(string(buf[:m])) {
		key, rest, _ := strings.Cut(line, ":")
		v := strings.Fields(rest)
		var err error
		switch {
		case key == "Umask" && len(v) == 1:
			err = number(v[0], 8, &c.umask)
		case key == "Uid" && len(v) == 4:
			err = number(v[3], 10, &c.uid)
		case key == "Gid" && len(v) == 4:
			err = number(v[3], 10, &c.gid)
		case key == "CapEff" && len(v) == 1:
			c.caps, err = strconv.ParseUint(v[0], 16, 64)
		default:
			continue
		}
		if err != nil {
			return caller{}, fmt.Errorf("read %s of process %d: %w", key, n.PID, err)
		}
		found++
	}
	if found != 4 || !s.valid(n) {
		return caller{}, unix.ESRCH
	}
	return c, nil
}

func number(text string, base int, to *uint32) error {
	v, err := strconv.ParseUint(text, base, 32)
	*to = uint32(v)
	return err
}

// device answers what the filter of rung userns sends, but for stat.
func (s *supervisor) device(n *notification, nr uint32, a [6]uint64) reply {
	switch nr {
	case unix.SYS_MKNODAT:
		return s.makeDevice(n, int32(a[0]), a[1], uint32(a[2]), a[3])
	case unix.SYS_FCHOWN:
		return s.giveDevice(n, int32(a[0]), 0, uint32(a[1]), uint32(a[2]), unix.AT_EMPTY_PATH)
	case unix.SYS_FCHOWNAT:
		return s.giveDevice(n, int32(a[0]), a[1], uint32(a[2]), uint32(a[3]), int(a[4]))
	case unix.SYS_FCHMOD:
		return s.chmodDevice(n, int32(a[0]), 0, uint32(a[1]), unix.AT_EMPTY_PATH)
	case unix.SYS_FCHMODAT:
		return s.chmodDevice(n, int32(a[0]), a[1], uint32(a[2]), 0)
	case unix.SYS_FCHMODAT2:
		return s.chmodDevice(n, int32(a[0]), a[1], uint32(a[2]), int(a[3]))
	}
	return goOn
}

// makeDevice makes a substitute for a caller that could make the device itself
// outside a user namespace.
func (s *supervisor) makeDevice(n *notification, dirfd int32, addr uint64, mode uint32, dev uint64) reply {
	who, err := s.caller(n)
	if err != nil {
		return failed(err)
	}
	// The number arrives as the C library packs it; one of 32 bits is all there is.
	rdev := uint64(uint32(dev))
	if !who.can(unix.CAP_MKNOD, unix.CAP_DAC_OVERRIDE) || rdev == 0 && mode&unix.S_IFMT == unix.S_IFCHR { // 0:0 hides files from overlay
		return reply{errno: unix.EPERM}
	}
	if !s.devices && len(s.made) >= maxMade {
		return reply{errno: unix.ENOSPC}
	}
	name, errno := s.text(n, addr)
	if errno != 0 {
		return reply{errno: errno}
	}
	mode &^= who.umask
	err = s.resolve(n, dirfd, name, func(dir int, name string) error {
		if err := empty(dir, name); err != nil {
			return err
		}
		err := s.dress(dir, name, who, mode, rdev)
		if err != nil {
			return errors.Join(err, unix.Unlinkat(dir, name, 0))
		}
		return nil
	})
	if errors.Is(err, unix.ENOTSUP) { // no attributes: as before
		err = unix.EPERM
	}
	if err != nil {
		return failed(err)
	}
	return reply{}
}

// dress makes the empty file at name a substitute.
func (s *supervisor) dress(dir int, name string, who caller, mode uint32, rdev uint64) error {
	f, err := unix.Openat(dir, name, unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	keep := false
	defer func() {
		if !keep {
			unix.Close(f)
		}
	}()
	var st unix.Stat_t
	if err := unix.Fstatat(f, "", &st, unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	gid := who.gid
	if st.Gid != 0 { // its directory gives its group to what is made in it
		gid = st.Gid
	}
	if err := s.put(f, mode, who.uid, gid, rdev); err != nil {
		return err
	}
	if s.devices {
		return unix.Fchownat(f, "", 0, 0, unix.AT_EMPTY_PATH)
	}
	if err := unix.Fchownat(f, "", int(who.uid), int(gid), unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	if err := s.at(f, func(p string) error { return unix.Fchmodat(unix.AT_FDCWD, p, mode&0o7777, 0) }); err != nil {
		return err
	}
	s.made[inode{st.Dev, st.Ino}] = &madeDevice{f, mode, rdev}
	keep = true
	return nil
}

func (s *supervisor) put(f int, mode, uid, gid uint32, rdev uint64) error {
	return s.at(f, func(p string) error {
		return unix.Setxattr(p, overrideXattr, fmt.Appendf(nil, overrideFormat, mode, uid, gid, rdev), 0)
	})
}

// substituted opens the file of a call if it stands for a device.
func (s *supervisor) substituted(n *notification, dirfd int32, addr uint64, flags int) (f int, x seen, ok bool) {
	if s.plain(n, dirfd, addr, flags) {
		return -1, x, false
	}
	f, err := s.target(n, dirfd, addr, flags)
	if err != nil {
		return -1, x, false
	}
	if x, err = s.look(f); err != nil || !x.recorded {
		unix.Close(f)
		return -1, x, false
	}
	return f, x, true
}

func (s *supervisor) giveDevice(n *notification, dirfd int32, addr uint64, uid, gid uint32, flags int) reply {
	if flags&^(unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW) != 0 {
		return goOn
	}
	f, x, ok := s.substituted(n, dirfd, addr, flags)
	if !ok {
		return goOn
	}
	defer unix.Close(f)
	who, err := s.caller(n)
	if err != nil {
		return failed(err)
	}
	if !who.can(unix.CAP_CHOWN) && (uid != keep && uid != x.uid || gid != keep && gid != x.gid) {
		return reply{errno: unix.EPERM}
	}
	return s.give(f, x, uid, gid)
}

func (s *supervisor) chmodDevice(n *notification, dirfd int32, addr uint64, mode uint32, flags int) reply {
	f, x, ok := s.substituted(n, dirfd, addr, flags)
	if !ok {
		return goOn
	}
	defer unix.Close(f)
	who, err := s.caller(n)
	if err != nil {
		return failed(err)
	}
	if who.uid != x.uid && !who.can(unix.CAP_FOWNER) {
		return reply{errno: unix.EPERM}
	}
	// For real, for the time of change and to copy the file up.
	if err := s.at(f, func(p string) error { return unix.Fchmodat(unix.AT_FDCWD, p, substituteMode, 0) }); err != nil {
		return failed(err)
	}
	if err := s.put(f, x.mode&unix.S_IFMT|mode&0o7777, x.uid, x.gid, x.rdev); err != nil {
		return failed(err)
	}
	return reply{}
}

// settle gives the devices that the RUN made the records of what became of
// them, and takes mode and owner off the files. It is called when the RUN's
// processes are gone and its mounts are not.
func (s *supervisor) settle() error {
	for _, m := range s.made {
		var st unix.Stat_t
		if err := unix.Fstatat(m.fd, "", &st, unix.AT_EMPTY_PATH); err != nil {
			return fmt.Errorf("look at a device that was made: %w", err)
		}
		if st.Nlink == 0 {
			continue
		}
		err := s.put(m.fd, m.mode&unix.S_IFMT|st.Mode&0o7777, st.Uid, st.Gid, m.rdev)
		if err == nil {
			err = unix.Fchownat(m.fd, "", 0, 0, unix.AT_EMPTY_PATH)
		}
		if err == nil {
			err = s.at(m.fd, func(p string) error { return unix.Fchmodat(unix.AT_FDCWD, p, substituteMode, 0) })
		}
		if err != nil && err != unix.EROFS {
			return fmt.Errorf("keep a device that was made: %w", err)
		}
	}
	return nil
}
