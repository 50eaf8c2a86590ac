package sandbox

import "golang.org/x/sys/unix"

const (
	nativeArch = unix.AUDIT_ARCH_AARCH64
	compatArch = unix.AUDIT_ARCH_ARM

	sysFstatat = unix.SYS_FSTATAT
)

// oldCalls: this machine has none.
var oldCalls = map[uint32]oldCall{}

// createFlag is which argument holds O_CREAT; a call without it need not be looked at.
var createFlag = map[uint32]int{unix.SYS_OPENAT: 2}
