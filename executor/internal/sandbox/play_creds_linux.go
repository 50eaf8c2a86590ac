package sandbox

import (
	"encoding/binary"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// credential answers calls about the caller's ids.
func (s *supervisor) credential(n *notification, c creds, nr uint32, a [6]uint64) reply {
	root := c.privileged()
	was := c
	var errno unix.Errno
	var to ids
	var val int64
	x, y, z := uint32(a[0]), uint32(a[1]), uint32(a[2])
	switch nr {
	case unix.SYS_GETUID:
		return reply{val: int64(c.uid.real)}
	case unix.SYS_GETEUID:
		return reply{val: int64(c.uid.effective)}
	case unix.SYS_GETGID:
		return reply{val: int64(c.gid.real)}
	case unix.SYS_GETEGID:
		return reply{val: int64(c.gid.effective)}
	case unix.SYS_GETRESUID, unix.SYS_GETRESGID:
		i := c.uid
		if nr == unix.SYS_GETRESGID {
			i = c.gid
		}
		for k, id := range []uint32{i.real, i.effective, i.saved} {
			if !s.poke(n, a[k], binary.LittleEndian.AppendUint32(nil, id)) {
				return reply{errno: unix.EFAULT}
			}
		}
		return reply{}
	case unix.SYS_GETGROUPS:
		count := len(c.groups) / 4
		if int32(a[0]) == 0 {
			return reply{val: int64(count)}
		}
		if int32(a[0]) < int32(count) {
			return reply{errno: unix.EINVAL}
		}
		if count > 0 && !s.poke(n, a[1], []byte(c.groups)) {
			return reply{errno: unix.EFAULT}
		}
		return reply{val: int64(count)}
	case unix.SYS_SETUID:
		to, errno = c.uid.set(x, root)
		c = c.become(to)
	case unix.SYS_SETGID:
		c.gid, errno = c.gid.set(x, root)
	case unix.SYS_SETREUID:
		to, errno = c.uid.setre(x, y, root)
		c = c.become(to)
	case unix.SYS_SETREGID:
		c.gid, errno = c.gid.setre(x, y, root)
	case unix.SYS_SETRESUID:
		to, errno = c.uid.setres(x, y, z, root)
		c = c.become(to)
	case unix.SYS_SETRESGID:
		c.gid, errno = c.gid.setres(x, y, z, root)
	case unix.SYS_SETFSUID:
		val = int64(c.uid.fs)
		c.uid = c.uid.setfs(x, root)
	case unix.SYS_SETFSGID:
		val = int64(c.gid.fs)
		c.gid = c.gid.setfs(x, root)
	case unix.SYS_SETGROUPS:
		if !root {
			return reply{errno: unix.EPERM}
		}
		if a[0] > 65536 {
			return reply{errno: unix.EINVAL}
		}
		list := make([]byte, 4*a[0])
		if len(list) > 0 && !s.peek(n, a[1], list) {
			return reply{errno: unix.EFAULT}
		}
		c.groups = sortGroups(list)
	case unix.SYS_PRCTL: // PR_SET_KEEPCAPS, see supervisorFilter
		c.keepCaps = a[1] == 1
		if c != was {
			if err := s.setCreds(n, c); err != nil {
				return failed(err)
			}
		}
		return goOn
	default:
		return goOn
	}
	if errno != 0 {
		return reply{errno: errno}
	}
	if c != was {
		if err := s.setCreds(n, c); err != nil {
			return failed(err)
		}
	}
	return reply{val: val}
}

// creds are those of the calling thread.
func (s *supervisor) creds(n *notification) (creds, bool) {
	var buf [24]byte
	if len(s.table) == 1 { // nobody is anybody else yet
		return s.table[0], true
	}
	f, err := unix.Openat(int(s.proc), strconv.Itoa(int(n.PID))+"/timerslack_ns", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return creds{}, false
	}
	defer unix.Close(f)
	m, err := unix.Read(f, buf[:])
	if err != nil {
		return creds{}, false
	}
	i, err := strconv.Atoi(strings.TrimSpace(string(buf[:m])))
	if err != nil || i < baseSlack || i >= baseSlack+len(s.table) {
		return s.table[0], true
	}
	return s.table[i-baseSlack], true
}

func (s *supervisor) setCreds(n *notification, c creds) error {
	f, err := unix.Openat(int(s.proc), strconv.Itoa(int(n.PID))+"/timerslack_ns", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(f)
	_, err = unix.Write(f, []byte(strconv.Itoa(baseSlack+s.number(c))))
	return err
}
