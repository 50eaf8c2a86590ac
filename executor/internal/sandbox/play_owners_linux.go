package sandbox

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ownedFile is a file that cannot carry its record. The descriptor keeps its
// number from being given to another file.
type ownedFile struct {
	fd       int
	uid, gid uint32
}

// seen is a file and what is recorded of it.
type seen struct {
	st       unix.Stat_t
	recorded bool
	mode     uint32 // with type
	uid, gid uint32
	rdev     uint64
}

// The attribute that holds owner, mode and device of a file, see package tree.
const (
	overrideXattr  = "user.kaniko-build.stat"
	overrideFormat = "%o %d %d %d"
	substituteMode = 0o600
)

// look finds what is recorded of the open file f.
func (s *supervisor) look(f int) (seen, error) {
	var x seen
	if err := unix.Fstatat(f, "", &x.st, unix.AT_EMPTY_PATH); err != nil {
		return x, err
	}
	x.mode, x.uid, x.gid, x.rdev = x.st.Mode, x.st.Uid, x.st.Gid, x.st.Rdev
	typ := x.st.Mode & unix.S_IFMT
	if o := s.owned[inode{x.st.Dev, x.st.Ino}]; o != nil {
		x.recorded, x.uid, x.gid = true, o.uid, o.gid
		return x, nil
	}
	if typ != unix.S_IFREG && typ != unix.S_IFDIR {
		return x, nil
	}
	var buf [128]byte
	var m int
	err := s.at(f, func(p string) (err error) {
		m, err = unix.Getxattr(p, overrideXattr, buf[:])
		return err
	})
	if err != nil {
		return x, nil //nolint:nilerr // no record
	}
	var mode, uid, gid uint32
	var rdev uint64
	if k, err := fmt.Sscanf(string(buf[:m]), overrideFormat, &mode, &uid, &gid, &rdev); err != nil || k != 4 {
		return x, nil //nolint:nilerr // not one of ours
	}
	switch {
	case mode&unix.S_IFMT == typ:
		if s.full {
			return x, nil // owners are the kernel's business
		}
	case typ != unix.S_IFREG || x.st.Uid != 0 || x.st.Mode&0o022 != 0 || rdev == 0 && mode&unix.S_IFMT == unix.S_IFCHR:
		return x, nil // nobody is fooled, see tree.Entry.Override
	default:
		x.mode, x.rdev = mode, rdev
	}
	if x.st.Uid == 0 && x.st.Gid == 0 {
		x.uid, x.gid = uid, gid
	}
	x.recorded = true
	return x, nil
}

// substitute tells that the file stands for a device.
func (x seen) substitute() bool { return x.mode&unix.S_IFMT != x.st.Mode&unix.S_IFMT }

// record puts down what x says of the open file f, or takes the record away
// if the file shows it by itself.
func (s *supervisor) record(f int, x seen) error {
	typ := x.st.Mode & unix.S_IFMT
	plain := x.uid == 0 && x.gid == 0 && x.mode&unix.S_IFMT == typ
	if typ == unix.S_IFREG || typ == unix.S_IFDIR {
		err := s.at(f, func(p string) error {
			if plain {
				err := unix.Removexattr(p, overrideXattr)
				if err == unix.ENODATA || err == unix.ENOTSUP {
					err = nil
				}
				return err
			}
			return unix.Setxattr(p, overrideXattr, fmt.Appendf(nil, overrideFormat, x.mode, x.uid, x.gid, x.rdev), 0)
		})
		if err != unix.ENOTSUP {
			return err
		}
	}
	key := inode{x.st.Dev, x.st.Ino}
	if old := s.owned[key]; old != nil {
		unix.Close(old.fd)
		delete(s.owned, key)
	}
	if plain {
		return nil
	}
	held, err := unix.FcntlInt(uintptr(f), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	s.owned[key] = &ownedFile{held, x.uid, x.gid}
	return nil
}

func (s *supervisor) chown(n *notification, who creds, dirfd int32, addr uint64, uid, gid uint32, flags int) reply {
	if flags&^(unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW) != 0 {
		return reply{errno: unix.EINVAL}
	}
	f, err := s.target(n, dirfd, addr, flags)
	if err != nil {
		return failed(err)
	}
	defer unix.Close(f)
	x, err := s.look(f)
	if err != nil {
		return failed(err)
	}
	if who.uid.fs != 0 {
		owner := x.uid == who.uid.fs
		if uid != keep && (!owner || uid != x.uid) || gid != keep && (!owner || gid != x.gid && !who.inGroup(gid)) {
			return reply{errno: unix.EPERM}
		}
	}
	return s.give(f, x, uid, gid)
}

// give changes the owner of the file f, as x, that is really 0:0.
func (s *supervisor) give(f int, x seen, uid, gid uint32) reply {
	// For real, as far as it goes: read-only mounts say no, setuid bits go,
	// the time of change is set, overlay copies the file up.
	if err := unix.Fchownat(f, "", 0, 0, unix.AT_EMPTY_PATH); err != nil {
		return failed(err)
	}
	if err := unix.Fstatat(f, "", &x.st, unix.AT_EMPTY_PATH); err != nil {
		return failed(err)
	}
	if x.mode&unix.S_IFMT == x.st.Mode&unix.S_IFMT {
		x.mode = x.st.Mode
	}
	if uid != keep {
		x.uid = uid
	}
	if gid != keep {
		x.gid = gid
	}
	if err := s.record(f, x); err != nil {
		return failed(err)
	}
	return reply{}
}

func (s *supervisor) chmod(n *notification, who creds, dirfd int32, addr uint64, mode uint32, flags int) reply {
	f, err := s.target(n, dirfd, addr, flags)
	if err != nil {
		return goOn
	}
	defer unix.Close(f)
	x, err := s.look(f)
	if err != nil {
		return goOn
	}
	if who.uid.fs != 0 && who.uid.fs != x.uid {
		return reply{errno: unix.EPERM}
	}
	if !x.recorded || x.mode&unix.S_IFMT == unix.S_IFLNK {
		return goOn
	}
	real := mode & 0o7777
	if x.substitute() {
		real = substituteMode
	}
	if err := s.at(f, func(p string) error { return unix.Fchmodat(unix.AT_FDCWD, p, real, 0) }); err != nil {
		return failed(err)
	}
	x.mode = x.mode&unix.S_IFMT | mode&0o7777
	if s.owned[inode{x.st.Dev, x.st.Ino}] != nil {
		return reply{} // links, fifos: only the owner is kept for them
	}
	if err := s.record(f, x); err != nil {
		return failed(err)
	}
	return reply{}
}

// umask of the caller.
func (s *supervisor) umask(n *notification) uint32 {
	f, err := unix.Openat(int(s.proc), strconv.Itoa(int(n.PID))+"/status", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0o022
	}
	file := os.NewFile(uintptr(f), "status")
	defer file.Close()
	buf := make([]byte, 256) // it is the second line
	m, _ := file.Read(buf)
	for line := range strings.Lines(string(buf[:m])) {
		if v, ok := strings.CutPrefix(line, "Umask:"); ok {
			if mask, err := strconv.ParseUint(strings.TrimSpace(v), 8, 32); err == nil {
				return uint32(mask)
			}
		}
	}
	return 0o022
}

// owners lists the files of the upper that cannot carry their owner. It is
// called when the RUN's processes are gone.
func (s *supervisor) owners() []Owner {
	var out []Owner
	if s.upper < 0 {
		return nil
	}
	for _, o := range s.owned {
		var st unix.Stat_t
		if unix.Fstatat(o.fd, "", &st, unix.AT_EMPTY_PATH) != nil || st.Nlink == 0 || st.Dev != s.root.Dev {
			continue // removed, or on another mount
		}
		buf := make([]byte, unix.PathMax)
		var m int
		err := s.at(o.fd, func(p string) (err error) {
			m, err = unix.Readlink(p, buf)
			return err
		})
		if err != nil {
			continue
		}
		f, err := unix.Openat2(int(s.upper), strings.TrimLeft(string(buf[:m]), "/"), &unix.OpenHow{
			Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
		if err != nil {
			continue
		}
		if unix.Fstatat(f, "", &st, unix.AT_EMPTY_PATH) == nil {
			out = append(out, Owner{Dev: st.Dev, Ino: st.Ino, UID: o.uid, GID: o.gid})
		}
		unix.Close(f)
	}
	return out
}
