package sandbox

import (
	"slices"

	"golang.org/x/sys/unix"
)

// oldCall says how to understand a call of an older kind.
type oldCall struct {
	as   uint32
	args [6]int // arguments: number of the old one, or one of the following
}

const (
	fromCwd = 100 + iota
	zero
	noFollow
	creating
)

// credentialCalls are all sent to the supervisor.
var credentialCalls = []uint32{
	unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID, unix.SYS_GETRESUID, unix.SYS_GETRESGID, unix.SYS_GETGROUPS,
	unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETREUID, unix.SYS_SETREGID, unix.SYS_SETRESUID, unix.SYS_SETRESGID,
	unix.SYS_SETFSUID, unix.SYS_SETFSGID, unix.SYS_SETGROUPS, unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_CHROOT,
}

var fileCalls = []uint32{
	unix.SYS_FCHOWN, unix.SYS_FCHOWNAT, unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FCHMODAT2, unix.SYS_MKNODAT,
	unix.SYS_MKDIRAT, unix.SYS_SYMLINKAT, unix.SYS_OPENAT, unix.SYS_OPENAT2,
	unix.SYS_FSTAT, sysFstatat, unix.SYS_STATX,
}

// deviceCalls are those that see or change what a substitute stands for.
var deviceCalls = []uint32{
	unix.SYS_FSTAT, sysFstatat, unix.SYS_STATX,
	unix.SYS_FCHOWN, unix.SYS_FCHOWNAT, unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FCHMODAT2,
	unix.SYS_CHROOT,
}

// filter sends the calls above to the listener.
func (s *supervisor) filter() []instruction {
	if s.full {
		return deviceFilter(s.devices)
	}
	return singleFilter()
}

// deviceFilter is that of rung userns.
func deviceFilter(seen bool) []instruction {
	spec := filterSpec{other: unix.SECCOMP_RET_ALLOW, above: unix.SECCOMP_RET_ALLOW}
	mknod := func(nr uint32, arg int) {
		r := callRule{nr: nr, other: unix.SECCOMP_RET_ALLOW}
		for _, typ := range []uint64{unix.S_IFCHR, unix.S_IFBLK} {
			r.alts = append(r.alts, alternative{[]condition{{arg: arg, mask: unix.S_IFMT, value: typ}}, unix.SECCOMP_RET_USER_NOTIF})
		}
		spec.calls = append(spec.calls, r)
	}
	mknod(unix.SYS_MKNODAT, 2)
	for nr, old := range oldCalls {
		switch {
		case old.as == unix.SYS_MKNODAT:
			mknod(nr, 1)
		case seen && slices.Contains(deviceCalls, old.as):
			spec.calls = append(spec.calls, callRule{nr: nr, other: unix.SECCOMP_RET_USER_NOTIF})
		}
	}
	if seen {
		for _, nr := range deviceCalls {
			spec.calls = append(spec.calls, callRule{nr: nr, other: unix.SECCOMP_RET_USER_NOTIF})
		}
	}
	open := filterSpec{other: unix.SECCOMP_RET_ALLOW, above: unix.SECCOMP_RET_ALLOW}
	return compile([]uint32{nativeArch, compatArch}, map[uint32]filterSpec{nativeArch: spec, compatArch: open})
}

func singleFilter() []instruction {
	spec := filterSpec{other: unix.SECCOMP_RET_ALLOW, above: unix.SECCOMP_RET_ALLOW}
	add := func(nr uint32) {
		r := callRule{nr: nr, other: unix.SECCOMP_RET_USER_NOTIF}
		if arg, ok := createFlag[nr]; ok {
			r.other = unix.SECCOMP_RET_ALLOW
			r.alts = []alternative{{[]condition{{arg: arg, mask: unix.O_CREAT, value: unix.O_CREAT}}, unix.SECCOMP_RET_USER_NOTIF}}
		}
		spec.calls = append(spec.calls, r)
	}
	for _, nr := range credentialCalls {
		add(nr)
	}
	for _, nr := range fileCalls {
		add(nr)
	}
	for nr := range oldCalls {
		add(nr)
	}
	// The timer slack is ours; a process that sets it is told that it did.
	spec.calls = append(spec.calls, callRule{nr: unix.SYS_PRCTL, other: unix.SECCOMP_RET_ALLOW,
		alts: []alternative{
			{[]condition{{arg: 0, mask: ^uint64(0), value: unix.PR_SET_TIMERSLACK}}, errnoAction(0)},
			{[]condition{{arg: 0, mask: ^uint64(0), value: unix.PR_SET_KEEPCAPS}}, unix.SECCOMP_RET_USER_NOTIF},
		}})
	open := filterSpec{other: unix.SECCOMP_RET_ALLOW, above: unix.SECCOMP_RET_ALLOW}
	return compile([]uint32{nativeArch, compatArch}, map[uint32]filterSpec{nativeArch: spec, compatArch: open})
}
