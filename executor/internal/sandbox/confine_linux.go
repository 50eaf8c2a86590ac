package sandbox

import (
	"fmt"
	"os"
	"path"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// loopbackUp brings up lo in the network namespace of the calling thread.
func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bring up loopback: %w", err)
	}
	defer unix.Close(s)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("bring up loopback: %w", err)
	}
	req.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bring up loopback: %w", err)
	}
	return nil
}

// What steps of a RUN's program say; explainExec tells them apart.
const (
	sayLookup = "look up command"
	sayStat   = "stat command"
	sayExec   = "execute command"
)

// program writes what the child does.
func (in *Inside) program(p *program, spec RunSpec, at *place, out *output, rep *report, super *supervisor) error {
	// /proc of the new process namespace. No name in it is under the control of the root.
	var proc any = int(at.borrowed)
	if at.borrowed < 0 {
		fs, made := p.newSlot(), p.newSlot()
		p.call("open proc", unix.SYS_FSOPEN, "proc", unix.FSOPEN_CLOEXEC).into(fs)
		p.call("make proc", unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_STRING, "source", "proc", 0)
		p.call("make proc", unix.SYS_FSCONFIG, fs, unix.FSCONFIG_CMD_CREATE, 0, 0, 0)
		p.call("mount proc", unix.SYS_FSMOUNT, fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC).into(made)
		proc = made
	}
	p.call("mount /proc", unix.SYS_MOVE_MOUNT, proc, "", int(at.proc), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	frozen := &unix.MountAttr{Attr_set: sysAttrs}
	for _, name := range frozenProc {
		m := p.newSlot()
		p.call("open /proc/"+name, unix.SYS_OPEN_TREE, proc, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE).into(m).or(lenientAbsent, 2)
		p.call("make read-only /proc/"+name, unix.SYS_MOUNT_SETATTR, m, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, unsafe.Pointer(frozen), int(unsafe.Sizeof(*frozen)))
		p.call("bind /proc/"+name, unix.SYS_MOVE_MOUNT, m, "", proc, name, unix.MOVE_MOUNT_F_EMPTY_PATH)
	}
	for _, m := range at.masks {
		p.call("hide /proc/"+m.path, unix.SYS_MOVE_MOUNT, int(m.mount), "", proc, m.path, unix.MOVE_MOUNT_F_EMPTY_PATH).or(lenientAbsent, 0)
	}

	p.call("enter root", unix.SYS_FCHDIR, int(at.root))
	p.call("change root", unix.SYS_PIVOT_ROOT, ".", ".")
	p.call("enter old root", unix.SYS_FCHDIR, int(at.old))
	p.call("leave old root", unix.SYS_UMOUNT2, ".", unix.MNT_DETACH)
	p.call("enter root", unix.SYS_CHDIR, "/")
	p.confine(spec, in.Map, scopeSockets|scopeSignals, out, rep, super)
	return nil
}

// confine is what follows when a child is where its command is to run: it gives up all
// that a RUN has not, and executes it.
func (p *program) confine(spec RunSpec, ids IDMap, scope uint64, out *output, rep *report, super *supervisor) {
	p.call("start session", unix.SYS_SETSID)
	p.call("join keyring", unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0).or(lenientAll, 0)

	// Abstract sockets and processes outside are out of reach even on the
	// host's network (Linux 6.12 and later; without it, namespaces must do).
	if rules, err := landlockScope(scope); err == nil {
		p.keep = append(p.keep, rules)
		p.call("scope with landlock", unix.SYS_LANDLOCK_RESTRICT_SELF, int(rules.Fd()), 0)
	}

	// No descriptor of the node may live when the working directory is
	// entered: it may be named /proc/self/fd/7.
	reportFD := p.fds([]any{int(out.null.Fd()), out.fds[0], out.fds[1]}, int(rep.w.Fd()), true)
	p.settle(spec.Dir)
	p.bound()
	p.filter(dockerFilter[:], unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW)
	super.program(p, spec, reportFD)
	p.become(spec, ids)
	p.exec(spec)
}

// settle makes the surroundings of a command those that it expects.
func (p *program) settle(dir string) {
	if dir == "" {
		dir = "/"
	}
	p.call(fmt.Sprintf("chdir to %q", dir), unix.SYS_CHDIR, dir)
	p.call("set umask", unix.SYS_UMASK, 0o022)
	p.limits()
	p.signals()
}

// bound leaves no more than Docker's capabilities to be had.
func (p *program) bound() {
	for c := range 64 {
		if defaultCaps&(1<<c) != 0 {
			continue
		}
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0)
		if err != nil {
			break // beyond the last one
		}
		if has != 0 {
			p.call("drop capability", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		}
	}
}

// filter installs a seccomp filter.
func (p *program) filter(f []instruction, flags int) *step {
	prog := &unix.SockFprog{Len: uint16(len(f)), Filter: (*unix.SockFilter)(unsafe.Pointer(&f[0]))}
	return p.call("install seccomp filter", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, unsafe.Pointer(prog))
}

// kernelSince tells whether the kernel is of this version or later.
func kernelSince(major, minor int) bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var a, b int
	if n, _ := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b); n != 2 {
		return false
	}
	return a > major || a == major && b >= minor
}

// What landlockScope confines.
const (
	scopeSockets uint64 = 1 << iota // abstract unix sockets
	scopeSignals
)

// landlockScope makes the rule set that confines abstract unix sockets or signals.
func landlockScope(scope uint64) (*os.File, error) {
	attr := &unix.LandlockRulesetAttr{Scoped: scope}
	f, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(attr)), unsafe.Offsetof(attr.Scoped)+8, 0)
	if errno != 0 {
		return nil, errno
	}
	unix.CloseOnExec(int(f))
	return os.NewFile(f, "landlock"), nil
}

// limits undoes what the Go runtime did to the limit of open files: it raises
// the soft one to the hard one less 1. What it was is not told; 1024 is what
// systems start with, and what programs expect that loop over descriptors.
func (p *program) limits() {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) == nil && l.Cur == l.Max-1 && l.Cur > 1024 {
		set := &unix.Rlimit{Cur: 1024, Max: l.Max}
		p.call("set limit of open files", unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, unsafe.Pointer(set), 0)
	}
}

// signals gives every signal its default action: one that was ignored, as
// by nohup, would stay ignored.
func (p *program) signals() {
	action := make([]byte, 64) // struct sigaction: SIG_DFL, no flags
	for s := 1; s < 32; s++ {
		if s != int(unix.SIGKILL) && s != int(unix.SIGSTOP) {
			p.call("reset signal", unix.SYS_RT_SIGACTION, s, unsafe.Pointer(&action[0]), 0, 8)
		}
	}
}

// become takes on the user. The kernel takes effective and permitted
// capabilities from a user other than 0.
func (p *program) become(spec RunSpec, ids IDMap) {
	if !ids.Single() {
		groups := unsafe.Pointer(nil)
		if len(spec.Groups) > 0 {
			list := append([]uint32{}, spec.Groups...)
			groups = unsafe.Pointer(&list[0])
		}
		p.call("set groups", unix.SYS_SETGROUPS, len(spec.Groups), groups)
		p.call("set group", unix.SYS_SETRESGID, spec.GID, spec.GID, spec.GID)
		p.call("set user", unix.SYS_SETRESUID, spec.UID, spec.UID, spec.UID)
	}
	if spec.UID == 0 || ids.Single() {
		header := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		caps := defaultCaps & permitted()
		low, high := uint32(caps), uint32(caps>>32)
		data := &[2]unix.CapUserData{{Effective: low, Permitted: low}, {Effective: high, Permitted: high}}
		p.call("set capabilities", unix.SYS_CAPSET, unsafe.Pointer(header), unsafe.Pointer(data))
	}
}

// permitted are the capabilities that this process has. A node in a user
// namespace of its own has all of them.
func permitted() uint64 {
	header := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(header, &data[0]) != nil {
		return 0
	}
	return uint64(data[0].Permitted) | uint64(data[1].Permitted)<<32
}

// exec tries the names that the command may have, as runc does: the first in
// PATH that the user may execute.
func (p *program) exec(spec RunSpec) {
	argv, env := p.strings(spec.Argv), p.strings(spec.Env)
	name := spec.Argv[0]
	const fdcwd = unix.AT_FDCWD
	if strings.Contains(name, "/") {
		p.call(sayStat, unix.SYS_FACCESSAT, fdcwd, name, unix.F_OK)
		p.call(sayExec, unix.SYS_EXECVE, name, argv, env)
		return
	}
	search := ""
	for _, e := range spec.Env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			search = v // the last one counts
		}
	}
	for _, dir := range strings.Split(search, ":") {
		if dir == "" {
			continue
		}
		full := path.Join(dir, name)
		p.call(sayLookup, unix.SYS_FACCESSAT2, fdcwd, full, unix.X_OK, unix.AT_EACCESS).or(lenientAll, 1)
		p.call(sayExec, unix.SYS_EXECVE, full, argv, env).or(lenientAccess, 0) // a directory
	}
	p.call(sayLookup, failStep, int(unix.ENOENT))
}

// explainExec turns the failure of a RUN's program into runc's words.
func explainExec(e *programError, name string) error {
	x := &ExecError{Code: 126, Err: e.Errno}
	switch e.What {
	case sayLookup:
		x.Text, x.Code = fmt.Sprintf("exec: %q: executable file not found in $PATH", name), 127
	case sayStat:
		x.Text = fmt.Sprintf("exec: %q: stat %s: %v", name, name, e.Errno)
		if e.Errno == unix.ENOENT {
			x.Code = 127
		}
	case sayExec:
		x.Text = fmt.Sprintf("exec: %q: %v", name, e.Errno)
		if e.Errno == unix.ENOENT { // the interpreter of a script is missing
			x.Text, x.Code = fmt.Sprintf("exec %s: %v", name, e.Errno), 127
		}
	default:
		return fmt.Errorf("start container: %w", e)
	}
	return x
}
