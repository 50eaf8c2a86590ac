package sandbox

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// supervisor plays the other 65535 ids for a RUN of rung userns-single. It
// runs on the RUN's thread, which has the RUN's mount namespace and root, and
// answers calls that a second seccomp filter sends it.
//
//	process of the RUN          kernel                     supervisor
//	chown("/x", 5, 5) ────────> filter: notify ──────────> read the path from its memory, open it as it would
//	                                                       chown 0:0 for real (clears setuid, copies up)
//	                                                       set user.kaniko-build.stat "100644 5 5 0"
//	0 <──────────────────────── answer <────────────────── 0
//
// Answered:
//   - setuid, setgid, setreuid, setregid, setresuid, setresgid, setfsuid,
//     setfsgid, setgroups and every get of these: credentials per process, kept
//     over fork and exec; exec of a setuid or setgid file changes them.
//   - chown, lchown, fchown, fchownat: recorded on the file; for links, fifos
//     and sockets in Result.Owners. chmod and its kin keep the record true.
//   - mknod of devices: an empty file with a record. Other files that a user
//     other than 0 makes (open, creat, mkdir, symlink, mknod) are recorded as
//     that user's.
//   - stat, lstat, fstat, newfstatat, statx show what is recorded.
//
// Not answered: permission checks are those of user 0, whoever a process
// believes to be; /proc/PID/status shows user 0; new files do not take the
// group of a directory with the setgid bit; a unix socket made by bind, a file
// of O_TMPFILE and links of lower layers show owner 0; 32-bit programs get the
// kernel's own answers. What the kernel then refuses stays an error.
//
// The credentials of a process are an index into a table, kept in its timer
// slack: the one number that a process passes on by fork and exec, that we can
// set from outside, and that changes nothing (by nanoseconds). So there is no
// race between a fork and our knowledge of it.
//
// None of this is a boundary: to the kernel every process of the RUN is the
// one user anyway. A process that changes a path while we read it fools itself.
//
// On rung userns the kernel does all this but one thing: it refuses device
// nodes to anybody in a user namespace, and the file system of a store may be
// mounted without devices. There the supervisor answers
//
//   - mknod and mknodat of devices, and nothing else: the filter looks at the
//     type, so that a RUN that makes none never waits for us;
//   - with RunSpec.Devices the stat, chown and chmod families too, about files that stand
//     for devices. Without, these look like empty files until the RUN ends.
//
// A substitute is an empty file 0600 of 0:0, and only such a file is believed
// to be one, so that a user of the RUN other than root cannot make devices by
// writing records (see tree.Entry.Override). In a RUN without RunSpec.Devices
// chmod and chown must reach the file itself; settle puts them down at the end.
type supervisor struct {
	full     bool // rung userns: the kernel knows who is who
	devices  bool // of the RunSpec
	made     map[inode]*madeDevice
	listener int
	proc     fd // /proc of the node
	upper    fd // of the RUN, -1 if none
	root     unix.Stat_t
	rootFD   fd
	chrooted bool // somebody may have called chroot: roots differ

	table []creds
	index map[creds]int

	owned map[inode]*ownedFile
	begun func() // called when the command was executed; may be nil
}

type inode struct{ dev, ino uint64 }

// madeDevice is a substitute that shows the mode and owner of the device until
// settle.
type madeDevice struct {
	fd   int
	mode uint32
	rdev uint64
}

// maxMade is how many of them a RUN may make: each holds a descriptor.
const maxMade = 4096

// baseSlack is the timer slack of credentials 0, in ns: the kernel's default.
const baseSlack = 50000

// newSupervisor prepares a supervisor while the thread's root is still the node's.
func newSupervisor(spec RunSpec, ids IDMap) (*supervisor, error) {
	full := !ids.Single()
	s := &supervisor{full: full, devices: spec.Devices, chrooted: full && !spec.Devices, made: map[inode]*madeDevice{}, listener: -1, upper: -1, proc: -1, rootFD: -1, index: map[creds]int{}, owned: map[inode]*ownedFile{}}
	var err error
	if s.proc, err = openDir("/proc"); err != nil {
		return nil, err
	}
	if spec.Upper != "" {
		if s.upper, err = openDir(spec.Upper); err != nil {
			s.close()
			return nil, err
		}
	}
	s.number(newCreds(0, 0, nil))
	if s.full {
		return s, nil
	}
	for _, m := range spec.Mounts {
		if err := s.adopt(m); err != nil {
			s.close()
			return nil, err
		}
	}
	return s, nil
}

// adopt notes the owner of what a mount shows, if it says one: sockets cannot
// carry a record.
func (s *supervisor) adopt(m Mount) error {
	if m.Kind != BindMount || m.UID == 0 && m.GID == 0 {
		return nil
	}
	f, err := m.open()
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(f), "", &st, unix.AT_EMPTY_PATH); err != nil {
		f.close()
		return fmt.Errorf("look at %s: %w", m.Source, err)
	}
	s.owned[inode{st.Dev, st.Ino}] = &ownedFile{int(f), m.UID, m.GID}
	return nil
}

// listenerFD is where the listener is in the child.
const listenerFD = 10

// early tells that calls come before the exec: it is one of them.
func (s *supervisor) early() bool { return !s.full }

// program writes how the child puts itself under supervision.
//
//	userns-single                            userns
//	notice with the listener; this thread    notice with the listener; this thread
//	takes it and answers                     sleeps until exec, then reads it
//
// A filter with a listener can be refused, by a listener that is there already
// when we run in a container; on rung userns that costs only devices.
func (s *supervisor) program(p *program, spec RunSpec, reportFD int) {
	if s.early() {
		me := s.number(newCreds(spec.UID, spec.GID, spec.Groups))
		p.call("set user", unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, baseSlack+me, 0, 0, 0)
	}
	l := p.newSlot()
	flags := unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	if kernelSince(5, 19) { // else a signal may interrupt a call that we answer, and repeat it
		flags |= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	}
	install := p.filter(s.filter(), flags).into(l)
	if s.full {
		install.or(lenientAll, 2)
	}
	p.call("move listener", unix.SYS_DUP3, l, listenerFD, unix.O_CLOEXEC)
	p.send("hand over listener", reportFD, listenerFD)
}

// number is the index of c in the table.
func (s *supervisor) number(c creds) int {
	if n, ok := s.index[c]; ok {
		return n
	}
	s.table = append(s.table, c)
	s.index[c] = len(s.table) - 1
	return len(s.table) - 1
}

// close gives up all descriptors: those of the RUN's mounts keep them alive.
func (s *supervisor) close() {
	for _, o := range s.owned {
		unix.Close(o.fd)
	}
	s.owned = nil
	for _, m := range s.made {
		unix.Close(m.fd)
	}
	s.made = nil
	for _, f := range []*fd{&s.proc, &s.upper, &s.rootFD} {
		f.close()
		*f = -1
	}
	if s.listener >= 0 {
		unix.Close(s.listener)
		s.listener = -1
	}
}

// listen takes the listener l, which the child sent.
func (s *supervisor) listen(l int) (err error) {
	if l < 0 {
		return errors.New("internal error: the child's notice came without a seccomp listener")
	}
	s.listener = l
	// A hint for the scheduler, Linux 6.6 and later: we and they take turns.
	unix.Syscall(unix.SYS_IOCTL, uintptr(l), notifSetFlags, 1)
	if s.rootFD, err = openDir("/"); err != nil { // the RUN's: its pivot_root moved us along
		return err
	}
	if err := unix.Fstat(int(s.rootFD), &s.root); err != nil {
		return err
	}
	return unix.Fchdir(int(s.proc))
}

// attend serves the RUN until its process 1 has ended. Its error is that of
// the exec, or of the service, which ends the RUN.
func (s *supervisor) attend(c *child, p *program) error {
	defer c.report.Close()
	const reports, notifications, end = 0, 1, 2
	fds := []unix.PollFd{
		reports:       {Fd: int32(c.report.Fd()), Events: unix.POLLIN},
		notifications: {Fd: -1, Events: unix.POLLIN},
		end:           {Fd: int32(c.pidfd), Events: unix.POLLIN},
	}
	var result error
	for {
		if _, err := unix.Poll(fds, -1); err != nil {
			if err == unix.EINTR {
				continue
			}
			c.kill()
			return fmt.Errorf("wait for system calls: %w", err)
		}
		switch {
		case fds[notifications].Revents&unix.POLLIN != 0:
			if err := s.serve(); err != nil {
				c.kill()
				return err
			}
		case fds[reports].Revents != 0:
			ready, l, err := c.news(p)
			if ready {
				if err := s.listen(l); err != nil {
					c.kill()
					return err
				}
				fds[notifications].Fd = int32(s.listener)
				continue
			}
			result = err
			fds[reports].Fd = -1
			if err == nil && s.begun != nil {
				s.begun()
			}
		case fds[end].Revents != 0:
			return result
		case fds[notifications].Revents != 0: // hung up: nobody is left to ask
			fds[notifications].Fd = -1
		}
	}
}
