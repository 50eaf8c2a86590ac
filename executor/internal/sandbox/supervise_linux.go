package sandbox

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"unsafe"

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

// ownedFile is a file that cannot carry its record. The descriptor keeps its
// number from being given to another file.
type ownedFile struct {
	fd       int
	uid, gid uint32
}

// baseSlack is the timer slack of credentials 0, in ns: the kernel's default.
const baseSlack = 50000

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

// The ioctls of seccomp_unotify(2) and their structures.
const (
	notifRecv     = 0xc0502100
	notifSend     = 0xc0182101
	notifValid    = 0x40082102
	notifAddFD    = 0x40182103
	notifSetFlags = 0x40082104

	respContinue = 1
	addFDSend    = 2
)

type notification struct {
	ID    uint64
	PID   uint32
	Flags uint32
	NR    int32
	Arch  uint32
	IP    uint64
	Args  [6]uint64
}

type response struct {
	ID    uint64
	Val   int64
	Error int32
	Flags uint32
}

type addFD struct {
	ID         uint64
	Flags      uint32
	SrcFD      uint32
	NewFD      uint32
	NewFDFlags uint32
}

// reply is what becomes of a call.
type reply struct {
	val   int64
	errno unix.Errno
	run   bool // let the kernel do it
	sent  bool // already answered
}

var goOn = reply{run: true}

func failed(err error) reply {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		errno = unix.EIO
	}
	return reply{errno: errno}
}

// serve answers one notification.
func (s *supervisor) serve() error {
	var n notification
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s.listener), notifRecv, uintptr(unsafe.Pointer(&n))); errno != 0 {
		if errno == unix.ENOENT || errno == unix.EINTR { // the caller is gone
			return nil
		}
		return fmt.Errorf("receive system call: %w", errno)
	}
	r := s.call(&n)
	if r.sent {
		return nil
	}
	resp := response{ID: n.ID, Val: r.val, Error: -int32(r.errno)}
	if r.run {
		resp = response{ID: n.ID, Flags: respContinue}
	} else if r.errno != 0 {
		resp.Val = 0
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s.listener), notifSend, uintptr(unsafe.Pointer(&resp))); errno != 0 && errno != unix.ENOENT {
		return fmt.Errorf("answer system call: %w", errno)
	}
	return nil
}

func (s *supervisor) valid(n *notification) bool {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s.listener), notifValid, uintptr(unsafe.Pointer(&n.ID)))
	return errno == 0
}

// call decides.
func (s *supervisor) call(n *notification) reply {
	nr, a := uint32(n.NR), n.Args
	if old, ok := oldCalls[nr]; ok {
		nr = old.as
		for i, from := range old.args {
			switch from {
			case fromCwd:
				at := int32(unix.AT_FDCWD)
				a[i] = uint64(uint32(at))
			case zero:
				a[i] = 0
			case noFollow:
				a[i] = unix.AT_SYMLINK_NOFOLLOW
			case creating:
				a[i] = unix.O_CREAT | unix.O_WRONLY | unix.O_TRUNC
			default:
				a[i] = n.Args[from]
			}
		}
	}
	switch nr { // the many calls that need no credentials
	case unix.SYS_FSTAT:
		return s.stat(n, int32(a[0]), 0, a[1], unix.AT_EMPTY_PATH)
	case sysFstatat:
		return s.stat(n, int32(a[0]), a[1], a[2], int(a[3]))
	case unix.SYS_STATX:
		return s.statx(n, int32(a[0]), a[1], int(a[2]), int(a[3]), a[4])
	case unix.SYS_CHROOT:
		s.chrooted = true
		return goOn
	}
	if s.full {
		return s.device(n, nr, a)
	}
	who, ok := s.creds(n)
	if !ok {
		return goOn // it died, or we cannot know it
	}
	switch nr {
	case unix.SYS_FCHOWN:
		return s.chown(n, who, int32(a[0]), 0, uint32(a[1]), uint32(a[2]), unix.AT_EMPTY_PATH)
	case unix.SYS_FCHOWNAT:
		return s.chown(n, who, int32(a[0]), a[1], uint32(a[2]), uint32(a[3]), int(a[4]))
	case unix.SYS_FCHMOD:
		return s.chmod(n, who, int32(a[0]), 0, uint32(a[1]), unix.AT_EMPTY_PATH)
	case unix.SYS_FCHMODAT:
		return s.chmod(n, who, int32(a[0]), a[1], uint32(a[2]), 0)
	case unix.SYS_FCHMODAT2:
		return s.chmod(n, who, int32(a[0]), a[1], uint32(a[2]), int(a[3]))
	case unix.SYS_MKNODAT:
		return s.mknod(n, who, int32(a[0]), a[1], uint32(a[2]), a[3])
	case unix.SYS_MKDIRAT:
		return s.mkdir(n, who, int32(a[0]), a[1], uint32(a[2]))
	case unix.SYS_SYMLINKAT:
		return s.symlink(n, who, a[0], int32(a[1]), a[2])
	case unix.SYS_OPENAT:
		return s.open(n, who, int32(a[0]), a[1], unix.OpenHow{Flags: a[2], Mode: a[3] & 0o7777})
	case unix.SYS_OPENAT2:
		var how unix.OpenHow
		if a[3] < uint64(unsafe.Sizeof(how)) || !s.peek(n, a[2], unsafe.Slice((*byte)(unsafe.Pointer(&how)), unsafe.Sizeof(how))) {
			return goOn
		}
		return s.open(n, who, int32(a[0]), a[1], how)
	case unix.SYS_EXECVE:
		at := int32(unix.AT_FDCWD)
		return s.execute(n, who, at, a[0], 0)
	case unix.SYS_EXECVEAT:
		return s.execute(n, who, int32(a[0]), a[1], int(a[4]))
	}
	return s.credential(n, who, nr, a)
}

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

// peek fills b from the caller's memory.
func (s *supervisor) peek(n *notification, addr uint64, b []byte) bool {
	local := []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}
	remote := []unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}
	m, err := unix.ProcessVMReadv(int(n.PID), local, remote, 0)
	return err == nil && m == len(b) && s.valid(n)
}

// poke writes b into the caller's memory.
func (s *supervisor) poke(n *notification, addr uint64, b []byte) bool {
	if !s.valid(n) {
		return false
	}
	local := []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}
	remote := []unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}
	m, err := unix.ProcessVMWritev(int(n.PID), local, remote, 0)
	return err == nil && m == len(b)
}

// text reads a path from the caller's memory, page by page: the next page may
// not be there.
func (s *supervisor) text(n *notification, addr uint64) (string, unix.Errno) {
	if addr == 0 {
		return "", unix.EFAULT
	}
	const page = 4096
	var out []byte
	for len(out) <= page {
		b := make([]byte, page-addr%page)
		local := []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}
		m, err := unix.ProcessVMReadv(int(n.PID), local, []unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}, 0)
		if err != nil || m != len(b) {
			return "", unix.EFAULT
		}
		if i := bytes.IndexByte(b, 0); i >= 0 {
			out = append(out, b[:i]...)
			if len(out) >= unix.PathMax {
				break
			}
			if !s.valid(n) {
				return "", unix.ESRCH
			}
			return string(out), 0
		}
		out = append(out, b...)
		addr += uint64(len(b))
	}
	return "", unix.ENAMETOOLONG
}

// dir opens what a dirfd argument means to the caller.
func (s *supervisor) dir(n *notification, dirfd int32) (int, error) {
	name := strconv.Itoa(int(n.PID)) + "/cwd"
	if dirfd != unix.AT_FDCWD {
		name = strconv.Itoa(int(n.PID)) + "/fd/" + strconv.Itoa(int(dirfd))
	}
	f, err := unix.Openat(int(s.proc), name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT && dirfd != unix.AT_FDCWD {
		err = unix.EBADF
	}
	if err == nil && !s.valid(n) { // its number may be another's by now
		unix.Close(f)
		return -1, unix.ESRCH
	}
	return f, err
}

// resolve finds files by the caller's eyes: its root, its working directory. do gets a
// directory and a path to use with it; the thread's root is right while it runs.
func (s *supervisor) resolve(n *notification, dirfd int32, name string, do func(dir int, name string) error) error {
	dir := unix.AT_FDCWD
	if !strings.HasPrefix(name, "/") {
		d, err := s.dir(n, dirfd)
		if err != nil {
			return err
		}
		defer unix.Close(d)
		dir = d
	}
	if !s.chrooted {
		return do(dir, name)
	}
	var st unix.Stat_t
	rootName := strconv.Itoa(int(n.PID)) + "/root"
	if err := unix.Fstatat(int(s.proc), rootName, &st, 0); err != nil {
		return err
	}
	if st.Dev != s.root.Dev || st.Ino != s.root.Ino { // it has called chroot
		r, err := unix.Openat(int(s.proc), rootName, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(r)
		if !s.valid(n) {
			return unix.ESRCH
		}
		if err := chrootTo(r); err != nil {
			return err
		}
		defer func() {
			chrootTo(int(s.rootFD))
			unix.Fchdir(int(s.proc))
		}()
		if err := unix.Fchdir(int(s.proc)); err != nil {
			return err
		}
	}
	return do(dir, name)
}

// chrootTo changes the root of this thread alone.
func chrootTo(dir int) error {
	if err := unix.Fchdir(dir); err != nil {
		return err
	}
	return unix.Chroot(".")
}

// target opens the file that a call names. The caller closes it.
func (s *supervisor) target(n *notification, dirfd int32, addr uint64, flags int) (int, error) {
	name := ""
	if addr != 0 {
		var errno unix.Errno
		if name, errno = s.text(n, addr); errno != 0 {
			return -1, errno
		}
	}
	if name == "" {
		if flags&unix.AT_EMPTY_PATH == 0 {
			return -1, unix.ENOENT
		}
		return s.dir(n, dirfd)
	}
	how := unix.O_PATH | unix.O_CLOEXEC
	if flags&unix.AT_SYMLINK_NOFOLLOW != 0 {
		how |= unix.O_NOFOLLOW
	}
	f := -1
	err := s.resolve(n, dirfd, name, func(dir int, name string) (err error) {
		f, err = unix.Openat(dir, name, how, 0)
		if err == unix.ENOENT && how&unix.O_NOFOLLOW == 0 {
			if alias, ok := ownDescriptor(dir, name); ok {
				f, err = s.dir(n, alias)
			}
		}
		return err
	})
	return f, err
}

// ownDescriptor tells which descriptor of the caller a path such as
// /dev/stdout leads to. /proc/self is the caller's to the caller, but not to us.
func ownDescriptor(dir int, name string) (int32, bool) {
	for range 8 {
		for _, p := range []string{"/proc/self/fd/", "/proc/thread-self/fd/", "/dev/fd/"} {
			if rest, ok := strings.CutPrefix(name, p); ok {
				i, err := strconv.ParseUint(rest, 10, 31)
				return int32(i), err == nil
			}
		}
		buf := make([]byte, unix.PathMax)
		m, err := unix.Readlinkat(dir, name, buf)
		if err != nil {
			return 0, false
		}
		to := string(buf[:m])
		if strings.HasPrefix(to, "/") {
			name = to
		} else {
			name = path.Dir(name) + "/" + to
		}
	}
	return 0, false
}

// at does something with a path that means the open file f.
func (s *supervisor) at(f int, do func(path string) error) error {
	// The working directory of this thread is the node's /proc all the time.
	return do("self/fd/" + strconv.Itoa(f))
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

// make lets do make a new file, then gives it to the caller, with substitute
// as its mode if that has a type.
func (s *supervisor) make(n *notification, who creds, dirfd int32, addr uint64, substitute uint32, rdev uint64, do func(dir int, name string) error) reply {
	name, errno := s.text(n, addr)
	if errno != 0 {
		return reply{errno: errno}
	}
	err := s.resolve(n, dirfd, name, func(dir int, name string) error {
		if err := do(dir, name); err != nil {
			return err
		}
		f, err := unix.Openat(dir, strings.TrimRight(name, "/"), unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != nil {
			return err
		}
		defer unix.Close(f)
		x, err := s.look(f)
		if err != nil {
			return err
		}
		x.uid, x.gid = who.uid.fs, who.gid.fs
		if substitute != 0 {
			x.mode, x.rdev = substitute, rdev
		}
		return s.record(f, x)
	})
	if err != nil {
		return failed(err)
	}
	return reply{}
}

// empty makes the file that is to be a substitute.
func empty(dir int, name string) error {
	f, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, substituteMode)
	if err != nil {
		return err
	}
	return unix.Close(f)
}

func (s *supervisor) mknod(n *notification, who creds, dirfd int32, addr uint64, mode uint32, dev uint64) reply {
	typ := mode & unix.S_IFMT
	mode &^= s.umask(n)
	if typ == unix.S_IFCHR || typ == unix.S_IFBLK {
		if !who.privileged() || dev == 0 && typ == unix.S_IFCHR { // 0:0 hides files from overlay
			return reply{errno: unix.EPERM}
		}
		return s.make(n, who, dirfd, addr, mode, dev, empty)
	}
	if who.uid.fs == 0 && who.gid.fs == 0 {
		return goOn
	}
	return s.make(n, who, dirfd, addr, 0, 0, func(dir int, name string) error {
		return unix.Mknodat(dir, name, mode, 0)
	})
}

func (s *supervisor) mkdir(n *notification, who creds, dirfd int32, addr uint64, mode uint32) reply {
	if who.uid.fs == 0 && who.gid.fs == 0 {
		return goOn
	}
	mode &^= s.umask(n)
	return s.make(n, who, dirfd, addr, 0, 0, func(dir int, name string) error {
		return unix.Mkdirat(dir, name, mode)
	})
}

func (s *supervisor) symlink(n *notification, who creds, from uint64, dirfd int32, addr uint64) reply {
	if who.uid.fs == 0 && who.gid.fs == 0 {
		return goOn
	}
	to, errno := s.text(n, from)
	if errno != 0 {
		return reply{errno: errno}
	}
	return s.make(n, who, dirfd, addr, 0, 0, func(dir int, name string) error {
		return unix.Symlinkat(to, dir, name)
	})
}

// open makes the file itself if a user other than 0 is about to: only who
// made it can know that it is new.
func (s *supervisor) open(n *notification, who creds, dirfd int32, addr uint64, how unix.OpenHow) reply {
	if how.Flags&unix.O_CREAT == 0 || who.uid.fs == 0 && who.gid.fs == 0 {
		return goOn
	}
	name, errno := s.text(n, addr)
	if errno != 0 || name == "" {
		return goOn
	}
	mode := uint32(how.Mode) &^ s.umask(n)
	opened := -1
	err := s.resolve(n, dirfd, name, func(dir int, name string) error {
		// O_EXCL follows no link at the end; a name that is there, also as a
		// dangling link, is the kernel's business.
		h := unix.OpenHow{Flags: how.Flags | unix.O_EXCL | unix.O_CLOEXEC, Mode: uint64(mode), Resolve: how.Resolve}
		f, err := unix.Openat2(dir, name, &h)
		if err != nil {
			return err
		}
		x, err := s.look(f)
		if err == nil {
			x.uid, x.gid = who.uid.fs, who.gid.fs
			err = s.record(f, x)
		}
		if err != nil {
			unix.Close(f)
			return err
		}
		opened = f
		return nil
	})
	if err != nil {
		return goOn // there already, or an error that the kernel will give, too
	}
	defer unix.Close(opened)
	add := addFD{ID: n.ID, Flags: addFDSend, SrcFD: uint32(opened), NewFDFlags: uint32(how.Flags & unix.O_CLOEXEC)}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s.listener), notifAddFD, uintptr(unsafe.Pointer(&add))); errno != 0 {
		return reply{errno: errno}
	}
	return reply{sent: true}
}

// plain tells, by one call in most cases, that nothing is recorded of a file:
// the attribute is looked up by a path through the caller's /proc directory.
func (s *supervisor) plain(n *notification, dirfd int32, addr uint64, flags int) bool {
	if len(s.owned) > 0 || s.chrooted {
		return false
	}
	name := ""
	if addr != 0 {
		var errno unix.Errno
		if name, errno = s.text(n, addr); errno != 0 {
			return true // the kernel says what is wrong
		}
	}
	get := unix.Getxattr
	switch {
	case strings.HasPrefix(name, "/"):
		if flags&unix.AT_SYMLINK_NOFOLLOW != 0 {
			get = unix.Lgetxattr
		}
	case name == "" && flags&unix.AT_EMPTY_PATH == 0:
		return true
	default:
		base := strconv.Itoa(int(n.PID)) + "/cwd"
		if dirfd != unix.AT_FDCWD {
			base = strconv.Itoa(int(n.PID)) + "/fd/" + strconv.Itoa(int(dirfd))
		}
		if name != "" {
			base += "/" + name
			if flags&unix.AT_SYMLINK_NOFOLLOW != 0 {
				get = unix.Lgetxattr
			}
		}
		name = base
	}
	var buf [1]byte
	_, err := get(name, overrideXattr, buf[:])
	return err != nil && err != unix.ERANGE // no such file, no attribute: the kernel answers as well as we could
}

func (s *supervisor) stat(n *notification, dirfd int32, addr, to uint64, flags int) reply {
	if s.plain(n, dirfd, addr, flags) {
		return goOn
	}
	f, err := s.target(n, dirfd, addr, flags)
	if err != nil {
		return goOn
	}
	defer unix.Close(f)
	x, err := s.look(f)
	if err != nil || !x.recorded {
		return goOn
	}
	x.st.Mode, x.st.Uid, x.st.Gid, x.st.Rdev = x.mode, x.uid, x.gid, x.rdev
	if !s.poke(n, to, unsafe.Slice((*byte)(unsafe.Pointer(&x.st)), unsafe.Sizeof(x.st))) {
		return reply{errno: unix.EFAULT}
	}
	return reply{}
}

func (s *supervisor) statx(n *notification, dirfd int32, addr uint64, flags, mask int, to uint64) reply {
	if s.plain(n, dirfd, addr, flags) {
		return goOn
	}
	f, err := s.target(n, dirfd, addr, flags)
	if err != nil {
		return goOn
	}
	defer unix.Close(f)
	x, err := s.look(f)
	if err != nil || !x.recorded {
		return goOn
	}
	var st unix.Statx_t
	if err := unix.Statx(f, "", flags&^unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH, mask, &st); err != nil {
		return failed(err)
	}
	st.Mode, st.Uid, st.Gid = uint16(x.mode), x.uid, x.gid
	st.Rdev_major, st.Rdev_minor = unix.Major(x.rdev), unix.Minor(x.rdev)
	if !s.poke(n, to, unsafe.Slice((*byte)(unsafe.Pointer(&st)), unsafe.Sizeof(st))) {
		return reply{errno: unix.EFAULT}
	}
	return reply{}
}

// execute takes the ids of a setuid or setgid file before the kernel executes
// it, and settles the saved ones.
func (s *supervisor) execute(n *notification, who creds, dirfd int32, addr uint64, flags int) reply {
	next := who.executed(0, 0, 0)
	if who.uid != (ids{}) {
		if f, err := s.target(n, dirfd, addr, flags); err == nil {
			if x, err := s.look(f); err == nil && x.mode&unix.S_IFMT == unix.S_IFREG && x.mode&0o111 != 0 {
				next = who.executed(x.mode, x.uid, x.gid)
			}
			unix.Close(f)
		}
	}
	if next != who {
		if err := s.setCreds(n, next); err != nil {
			return failed(err)
		}
	}
	return goOn
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
