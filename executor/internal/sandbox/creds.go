package sandbox

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// creds are the credentials that a process of rung userns-single believes to
// have. The rules are those of credentials(7); who has effective user 0 has
// the capabilities that change them.
type creds struct {
	uid, gid ids
	groups   string // supplementary, 4 bytes each

	// keepCaps is PR_SET_KEEPCAPS; held says that it made capabilities outlive
	// the change to a user other than 0, until exec.
	keepCaps, held bool
}

// ids are one kind of id of a process.
type ids struct{ real, effective, saved, fs uint32 }

const keep = ^uint32(0) // "leave this id as it is", in calls

func (c creds) privileged() bool { return c.uid.effective == 0 || c.held }

// become changes the user ids and what follows from them.
func (c creds) become(uid ids) creds {
	if c.uid.has(0) && !uid.has(0) {
		c.held = c.keepCaps
	}
	c.uid = uid
	return c
}

func (i ids) has(id uint32) bool { return id == i.real || id == i.effective || id == i.saved }

// set is setuid and setgid.
func (i ids) set(id uint32, privileged bool) (ids, unix.Errno) {
	switch {
	case id == keep:
		return i, unix.EINVAL
	case privileged:
		return ids{id, id, id, id}, 0
	case id == i.real || id == i.saved:
		i.effective, i.fs = id, id
		return i, 0
	}
	return i, unix.EPERM
}

// setre is setreuid and setregid.
func (i ids) setre(real, effective uint32, privileged bool) (ids, unix.Errno) {
	n := i
	if real != keep {
		if !privileged && real != i.real && real != i.effective {
			return i, unix.EPERM
		}
		n.real = real
	}
	if effective != keep {
		if !privileged && !i.has(effective) {
			return i, unix.EPERM
		}
		n.effective = effective
	}
	if real != keep || (effective != keep && effective != i.real) {
		n.saved = n.effective
	}
	n.fs = n.effective
	return n, 0
}

// setres is setresuid and setresgid.
func (i ids) setres(real, effective, saved uint32, privileged bool) (ids, unix.Errno) {
	n := i
	for _, s := range []struct {
		to *uint32
		id uint32
	}{{&n.real, real}, {&n.effective, effective}, {&n.saved, saved}} {
		if s.id == keep {
			continue
		}
		if !privileged && !i.has(s.id) {
			return i, unix.EPERM
		}
		*s.to = s.id
	}
	n.fs = n.effective
	return n, 0
}

// setfs is setfsuid and setfsgid, which cannot fail.
func (i ids) setfs(id uint32, privileged bool) ids {
	if id != keep && (privileged || i.has(id) || id == i.fs) {
		i.fs = id
	}
	return i
}

// packGroups sorts, as the kernel does: getgroups shows it.
func packGroups(groups []uint32) string {
	var b []byte
	for _, g := range slices.Sorted(slices.Values(groups)) {
		b = binary.LittleEndian.AppendUint32(b, g)
	}
	return string(b)
}

// sortGroups is packGroups of what setgroups was given.
func sortGroups(list []byte) string {
	groups := make([]uint32, 0, len(list)/4)
	for i := 0; i+4 <= len(list); i += 4 {
		groups = append(groups, binary.LittleEndian.Uint32(list[i:]))
	}
	return packGroups(groups)
}

// inGroup tells whether gid is among the groups that count for files.
func (c creds) inGroup(gid uint32) bool {
	if gid == c.gid.fs {
		return true
	}
	for i := 0; i+4 <= len(c.groups); i += 4 {
		if binary.LittleEndian.Uint32([]byte(c.groups[i:])) == gid {
			return true
		}
	}
	return false
}

// executed is what exec of a file makes of c.
func (c creds) executed(mode, uid, gid uint32) creds {
	if mode&unix.S_ISUID != 0 {
		c.uid.effective = uid
	}
	if mode&(unix.S_ISGID|0o010) == unix.S_ISGID|0o010 {
		c.gid.effective = gid
	}
	c.uid.saved, c.uid.fs = c.uid.effective, c.uid.effective
	c.gid.saved, c.gid.fs = c.gid.effective, c.gid.effective
	c.keepCaps, c.held = false, false
	return c
}

func newCreds(uid, gid uint32, groups []uint32) creds {
	return creds{uid: ids{uid, uid, uid, uid}, gid: ids{gid, gid, gid, gid}, groups: packGroups(groups)}
}
