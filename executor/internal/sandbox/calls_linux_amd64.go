package sandbox

import "golang.org/x/sys/unix"

const (
	nativeArch = unix.AUDIT_ARCH_X86_64
	compatArch = unix.AUDIT_ARCH_I386

	sysFstatat = unix.SYS_NEWFSTATAT
)

// oldCalls say how calls that newer machines lack are said today. flags are
// ORed to the last argument of the new call.
var oldCalls = map[uint32]oldCall{
	unix.SYS_CHOWN:   {as: unix.SYS_FCHOWNAT, args: [6]int{fromCwd, 0, 1, 2, zero}},
	unix.SYS_LCHOWN:  {as: unix.SYS_FCHOWNAT, args: [6]int{fromCwd, 0, 1, 2, noFollow}},
	unix.SYS_CHMOD:   {as: unix.SYS_FCHMODAT, args: [6]int{fromCwd, 0, 1}},
	unix.SYS_STAT:    {as: sysFstatat, args: [6]int{fromCwd, 0, 1, zero}},
	unix.SYS_LSTAT:   {as: sysFstatat, args: [6]int{fromCwd, 0, 1, noFollow}},
	unix.SYS_MKNOD:   {as: unix.SYS_MKNODAT, args: [6]int{fromCwd, 0, 1, 2}},
	unix.SYS_MKDIR:   {as: unix.SYS_MKDIRAT, args: [6]int{fromCwd, 0, 1}},
	unix.SYS_SYMLINK: {as: unix.SYS_SYMLINKAT, args: [6]int{0, fromCwd, 1}},
	unix.SYS_OPEN:    {as: unix.SYS_OPENAT, args: [6]int{fromCwd, 0, 1, 2}},
	unix.SYS_CREAT:   {as: unix.SYS_OPENAT, args: [6]int{fromCwd, 0, creating, 1}},
}

// createFlag is which argument holds O_CREAT; a call without it need not be looked at.
var createFlag = map[uint32]int{unix.SYS_OPEN: 1, unix.SYS_OPENAT: 2}
