#include "textflag.h"

// func rawClone(flags, pidfd uintptr) (pid, errno uintptr)
//
// The child of CLONE_VM shares this stack and goes on with the caller's frame
// while the parent sleeps. The return address is in a register here anyway.
TEXT ·rawClone(SB),NOSPLIT|NOFRAME,$0-32
	MOVD	flags+0(FP), R0
	MOVD	$0, R1
	MOVD	pidfd+8(FP), R2
	MOVD	$0, R3
	MOVD	$0, R4
	MOVD	$0, R5
	MOVD	$220, R8 // clone
	SVC
	CMN	$4095, R0
	BCC	ok
	MOVD	$0, R4
	MOVD	R4, pid+16(FP)
	NEG	R0, R0
	MOVD	R0, errno+24(FP)
	RET
ok:
	MOVD	R0, pid+16(FP)
	MOVD	$0, R4
	MOVD	R4, errno+24(FP)
	RET
