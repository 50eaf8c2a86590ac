package sandbox

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// program is what a new process does between fork and exec: a list of system
// calls, written by the parent, run by the child without the Go runtime.
//
// The other way, re-executing this binary as an init, costs every RUN the
// start of a large Go program, and puts that program where the RUN can reach
// it. A list of calls takes well under a millisecond and leaves nothing behind.
//
//	parent                                   child (one thread, copied or borrowed memory)
//	fork(flags) ─────────────────────────────> step 0, 1, 2, ...
//	read(report) ...                            a step fails: write(report, step, errno), exit
//	EOF: the exec happened            <──────── exec closes report
//	8 bytes: *programError
//
// The child must not allocate, lock, grow its stack or meet the scheduler:
// other threads of the parent may have held any lock when it was made. With
// borrow it shares the parent's memory while the parent's thread sleeps until
// exec, as in vfork: copying the memory map of a node takes longer than all
// its steps.
type program struct {
	steps []step
	slots []uintptr // results of steps, arguments of later ones
	keep  []any     // memory that steps point to
}

// step is one system call.
type step struct {
	what    string // for the error: "mount /proc"
	nr      uintptr
	args    [6]uintptr
	slotted uint8 // bit i: args[i] is the index of a slot
	save    int   // slot for the result, -1 for none
	want    int   // a result that is not this one is a failure; -1 for any
	lenient uint8 // which errors are no failure
	skip    int   // steps to leave out after such an error
	report  bool  // args[1] is the report's descriptor from here on
}

// The errors a step may live with.
const (
	lenientNone   uint8 = iota
	lenientAbsent       // ENOENT, ENOTDIR: there is no such thing here
	lenientAccess       // EACCES
	lenientAll
)

// failStep as a system call number ends a program with errno args[0].
const failStep = ^uintptr(0)

// slot is the place of a result.
type slot int

func (p *program) newSlot() slot {
	p.slots = append(p.slots, 0)
	return slot(len(p.slots) - 1)
}

// call appends a step. Arguments: int, uint32, uintptr and the like as they
// are, slot for an earlier result, string for a C string, unsafe.Pointer for
// memory the caller allocated on the heap.
func (p *program) call(what string, nr uintptr, args ...any) *step {
	s := step{what: what, nr: nr, save: -1, want: -1}
	for i, a := range args {
		switch a := a.(type) {
		case int:
			s.args[i] = uintptr(a)
		case uint32:
			s.args[i] = uintptr(a)
		case uint64:
			s.args[i] = uintptr(a)
		case uintptr:
			s.args[i] = a
		case slot:
			s.args[i] = uintptr(a)
			s.slotted |= 1 << i
		case string:
			b := append([]byte(a), 0)
			p.keep = append(p.keep, b)
			s.args[i] = uintptr(unsafe.Pointer(&b[0]))
		case unsafe.Pointer:
			p.keep = append(p.keep, a) // nil is fine
			s.args[i] = uintptr(a)
		default:
			// Only the code of this package calls this; its tests run every call.
			s.nr, s.args[0] = failStep, uintptr(unix.EINVAL)
		}
	}
	p.steps = append(p.steps, s)
	return &p.steps[len(p.steps)-1]
}

// into saves the result of s.
func (s *step) into(to slot) *step { s.save = int(to); return s }

// must makes any other result a failure.
func (s *step) must(result int) *step { s.want = result; return s }

// or lets s fail in one way, and leaves out the next n steps if it does.
func (s *step) or(lenient uint8, n int) *step { s.lenient, s.skip = lenient, n; return s }

// strings makes a null-terminated array of C strings.
func (p *program) strings(list []string) unsafe.Pointer {
	array := make([]*byte, len(list)+1)
	for i, s := range list {
		b := append([]byte(s), 0)
		array[i] = &b[0]
	}
	p.keep = append(p.keep, array)
	return unsafe.Pointer(&array[0])
}

// fds arranges the child's file descriptors: list[i] becomes descriptor i,
// without close-on-exec. The report becomes descriptor len(list), which is
// returned, and with closeRest everything above is closed at once, else on exec.
func (p *program) fds(list []any, report int, closeRest bool) int {
	// First out of the way of the low numbers, then into place.
	high := make([]slot, 0, len(list)+1)
	for _, fd := range append(append([]any{}, list...), report) {
		s := p.newSlot()
		p.call("arrange descriptors", unix.SYS_FCNTL, fd, unix.F_DUPFD_CLOEXEC, 200).into(s)
		high = append(high, s)
	}
	for i, s := range high {
		flags := 0
		if i == len(list) {
			flags = unix.O_CLOEXEC
		}
		p.call("arrange descriptors", unix.SYS_DUP3, s, i, flags).report = i == len(list)
	}
	how := 0
	if !closeRest {
		how = unix.CLOSE_RANGE_CLOEXEC
	}
	p.call("close descriptors", unix.SYS_CLOSE_RANGE, len(high), ^uint32(0), how)
	return len(list)
}

// programError says which step of a child failed.
type programError struct {
	Step  int
	What  string
	Errno unix.Errno
}

func (e *programError) Error() string { return e.What + ": " + e.Errno.Error() }
func (e *programError) Unwrap() error { return e.Errno }

// child is a forked process.
type child struct {
	pid    int
	pidfd  int
	report *os.File
}

// borrow is the flags of a child that uses the parent's memory. The parent's
// thread sleeps in fork until the child executes or exits.
const borrow = unix.CLONE_VM | unix.CLONE_VFORK

// fork starts the program in a new process with the given clone flags. The
// calling goroutine must be locked to its thread when flags or the program
// depend on the state of that thread. report is the pipe made by newReport
// and closed here on every path but for the returned child's end.
func (p *program) fork(flags uintptr, report *report) (*child, error) {
	var pidfd int32 = -1
	fd := &pidfd
	p.keep = append(p.keep, fd, report)
	pid, errno := forkProgram(p.steps, p.slots, flags|unix.CLONE_PIDFD|uintptr(unix.SIGCHLD), fd, uintptr(report.w.Fd()))
	runtime.KeepAlive(p)
	report.w.Close()
	if errno != 0 {
		report.r.Close()
		return nil, errno
	}
	return &child{pid: pid, pidfd: int(*fd), report: report.r}, nil
}

// report is the socket on which a child tells the step that failed. The parent
// of the child learns its number before the program is written.
type report struct{ r, w *os.File }

func newReport() (*report, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make sockets: %w", err)
	}
	return &report{r: os.NewFile(uintptr(fds[0]), "report"), w: os.NewFile(uintptr(fds[1]), "report")}, nil
}

// started waits until the child has executed its command. A step that failed
// is a *programError.
func (c *child) started(p *program) error {
	defer c.report.Close()
	_, _, err := c.news(p)
	return err
}

// notice is the report of a program that goes on. As a step it would be
// beyond the last one.
var notice = [2]uint32{^uint32(0), 0}

// send is a step that sends a notice on the report's descriptor to, with the
// descriptor fd.
func (p *program) send(what string, to, fd int) *step {
	text := notice
	msg := &unix.Msghdr{}
	iov := &unix.Iovec{Base: (*byte)(unsafe.Pointer(&text))}
	iov.SetLen(8)
	rights := unix.UnixRights(fd)
	msg.Iov, msg.Control = iov, &rights[0]
	msg.SetIovlen(1)
	msg.SetControllen(len(rights))
	p.keep = append(p.keep, &text, iov, rights)
	return p.call(what, unix.SYS_SENDMSG, to, unsafe.Pointer(msg), 0)
}

// news reads one report: of a failed step, as error, or a notice with the
// descriptor that came with it, else -1. It is false and nil when the program
// has ended in exec.
func (c *child) news(p *program) (noticed bool, fd int, err error) {
	var answer [2]uint32
	buf := unsafe.Slice((*byte)(unsafe.Pointer(&answer)), 8)
	rights := make([]byte, unix.CmsgSpace(4))
	n, m, _, _, err := unix.Recvmsg(int(c.report.Fd()), buf, rights, unix.MSG_CMSG_CLOEXEC)
	for err == unix.EINTR {
		n, m, _, _, err = unix.Recvmsg(int(c.report.Fd()), buf, rights, unix.MSG_CMSG_CLOEXEC)
	}
	if err != nil || n != 8 {
		return false, -1, nil //nolint:nilerr // nobody is left to tell anything
	}
	if answer == notice {
		fd = -1
		if list, err := unix.ParseSocketControlMessage(rights[:m]); err == nil && len(list) == 1 {
			if fds, err := unix.ParseUnixRights(&list[0]); err == nil && len(fds) == 1 {
				fd = fds[0]
			}
		}
		return true, fd, nil
	}
	e := &programError{Step: int(answer[0]), Errno: unix.Errno(answer[1])}
	if e.Step < len(p.steps) {
		e.What = p.steps[e.Step].what
	}
	return false, -1, e
}

// kill ends the child, and with it everything in its process namespace.
func (c *child) kill() {
	unix.PidfdSendSignal(c.pidfd, unix.SIGKILL, nil, 0) // it may be gone
}

// close frees the handle.
func (c *child) close() { unix.Close(c.pidfd) }

// wait reaps the child. Call it once.
func (c *child) wait() (unix.WaitStatus, error) {
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(c.pid, &status, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("wait for process %d: %w", c.pid, err)
		}
		return status, nil
	}
}

// rawClone is clone(2). See the remarks in assembly.
//
//go:noescape
func rawClone(flags, pidfd uintptr) (pid, errno uintptr)

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()

// forkProgram forks. It returns in the parent only.
//
//go:norace
//go:noinline
func forkProgram(steps []step, slots []uintptr, flags uintptr, pidfd *int32, report uintptr) (int, unix.Errno) {
	beforeFork()
	pid, errno := rawFork(steps, slots, flags, pidfd, report)
	afterFork()
	return pid, errno
}

//go:norace
//go:nosplit
//go:noinline
//go:nocheckptr
func rawFork(steps []step, slots []uintptr, flags uintptr, pidfd *int32, report uintptr) (int, unix.Errno) {
	pid, no := rawClone(flags, uintptr(unsafe.Pointer(pidfd)))
	if no != 0 || pid != 0 {
		return int(pid), unix.Errno(no)
	}
	afterForkInChild() // default signal handlers, the signal mask as it was

	var answer [2]uint32
	for i := 0; i < len(steps); i++ {
		s := &steps[i]
		var errno unix.Errno
		var result uintptr
		if s.nr == failStep {
			errno = unix.Errno(s.args[0])
		} else {
			a := s.args
			for j := range a {
				if s.slotted&(1<<j) != 0 {
					a[j] = slots[a[j]]
				}
			}
			result, _, errno = unix.RawSyscall6(s.nr, a[0], a[1], a[2], a[3], a[4], a[5])
			if errno == unix.EINTR {
				i--
				continue
			}
			if errno == 0 && s.want >= 0 && result != uintptr(s.want) {
				errno = unix.EPIPE
			}
		}
		if errno == 0 {
			if s.save >= 0 {
				slots[s.save] = result
			}
			if s.report {
				report = s.args[1]
			}
			continue
		}
		switch {
		case s.lenient == lenientAll,
			s.lenient == lenientAbsent && (errno == unix.ENOENT || errno == unix.ENOTDIR),
			s.lenient == lenientAccess && errno == unix.EACCES:
			i += s.skip
			continue
		}
		answer[0], answer[1] = uint32(i), uint32(errno)
		unix.RawSyscall6(unix.SYS_WRITE, report, uintptr(unsafe.Pointer(&answer)), 8, 0, 0, 0)
		break
	}
	for {
		unix.RawSyscall6(unix.SYS_EXIT_GROUP, 127, 0, 0, 0, 0, 0)
	}
}
