package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// RunSpec is one command to run in a container of its own. Paths without a
// remark are of the node.
type RunSpec struct {
	// The root file system: an overlay of Lower, topmost first, with Upper and
	// Work on one file system; or, with no Lower, the directory Root as it is.
	Lower       []string
	Upper, Work string
	Root        string

	// Mounts are made in this order, over the standard ones. Their mount
	// points and those of the standard ones must exist: see MountPoints.
	Mounts []Mount

	Argv     []string // Argv[0] is looked up in PATH of Env, in the container
	Env      []string // the whole environment
	Dir      string   // in the container; "" is "/"
	UID, GID uint32
	Groups   []uint32 // supplementary
	Network  Network
	Hostname string // "" is buildkitsandbox, as BuildKit's

	// Devices tells that the root, or a mount, holds empty files that stand for
	// devices (user.kaniko-build.stat), so that stat and the like must be
	// answered for. It costs every one of them some microseconds; without it a
	// device that the RUN makes itself is an empty file to it. Rung
	// userns-single answers anyway.
	Devices bool

	// Stdout and Stderr get the output; nil drops it. If they are equal, one
	// pipe serves both and order is kept, else they are written concurrently.
	Stdout, Stderr io.Writer

	// Started, if set, is called with the number of the process, which leads
	// the session of its command. Rung inplace only.
	Started func(pid int) error `json:"-"`

	// Going, if set, is called with the process once its command was executed. It does
	// not wait. Not on rung inplace.
	Going func(*Process) `json:"-"`
}

// Network of a RUN.
type Network string

const (
	HostNetwork Network = ""     // that of the node, and so of the host
	NoNetwork   Network = "none" // only a loopback of its own
)

// MountKind says what a Mount shows.
type MountKind string

const (
	BindMount  MountKind = "bind"  // Source, or Sub of it
	TmpfsMount MountKind = "tmpfs" // a new memory file system
	FileMount  MountKind = "file"  // Data, in memory
)

// Mount is one mount of a RUN.
type Mount struct {
	Kind     MountKind
	Target   string // absolute in the container; links are followed inside the root
	ReadOnly bool   // with everything below it

	Source string // bind: a path of the node
	Sub    string // bind: a path inside Source, links followed as if Source were "/"

	Size int64  // tmpfs: bytes, 0 for the kernel's default
	Mode uint32 // tmpfs, file: permissions; 0 for a tmpfs: those of the directory that it covers

	Data     []byte // file
	Secret   bool   // file: it must never be on a disk
	UID, GID uint32 // file; bind: who owns Source where the id map has not that owner
}

// MountPoint is a path that must exist in a root before a RUN.
type MountPoint struct {
	Path string // absolute, in the container
	Dir  bool
}

// MountPoints lists what must exist in the root, in the order of mounting: a
// later one may lie on an earlier mount. Those below /dev are made by Run.
func (s RunSpec) MountPoints() []MountPoint {
	points := []MountPoint{{"/proc", true}, {"/dev", true}, {"/sys", true}}
	for _, m := range s.Mounts {
		dir := m.Kind == TmpfsMount
		if m.Kind == BindMount {
			if f, err := m.open(); err == nil {
				dir = f.isDir()
				f.close()
			}
		}
		if target := path.Clean("/" + m.Target); !strings.HasPrefix(target, "/dev/") {
			points = append(points, MountPoint{target, dir})
		}
	}
	return points
}

// Result is how a RUN ended.
type Result struct {
	Exit   int     // 128 + signal if a signal ended it
	Owners []Owner // rung userns-single only: see Owner
}

// ExecError says that the command of a RUN could not be started. Its text is runc's.
type ExecError struct {
	Text string
	Code int // 127 if there is no such command, else 126
	Err  error
}

func (e *ExecError) Error() string { return e.Text }
func (e *ExecError) Unwrap() error { return e.Err }

// grace is how long output may come after the end of a step. All its
// processes are dead by then; only one that handed its pipe to a process
// outside could make us wait.
const grace = time.Second

// Run runs one command and returns when it, all processes it left and all its
// mounts are gone. A command that runs and fails is no error: see
// Result.Exit. One that cannot be executed is an *ExecError. When ctx ends, so
// does the step, and context.Cause(ctx) is returned.
//
//	Run            thread (ends with the step)               child = process 1 of the RUN
//	go ──────────> new mnt, ipc, uts (net) namespaces
//	               mount root on /.root, then /dev, /sys,
//	               binds: each target resolved inside the root
//	               write the program ── fork(new pid) ─────> mount /proc, mask it
//	copy output    wait for report                           pivot_root, detach the old root
//	                                                         descriptors: 0, 1, 2, report; no others
//	                                                         landlock scope, chdir, bounding set
//	                                                         seccomp (still CAP_SYS_ADMIN here)
//	                                                         groups, gid, uid, capabilities
//	               EOF or *ExecError <────────────────────── exec
//	ctx done: kill wait ──────────────────────────────────── ends; the kernel kills the rest
//	               back into the node's mount namespace:
//	               the last user of the RUN's one is gone, its mounts with it
//	Result <────── thread ends
func (in *Inside) Run(ctx context.Context, spec RunSpec) (Result, error) {
	if err := spec.check(); err != nil {
		return Result{}, err
	}
	if ctx.Err() != nil {
		return Result{}, context.Cause(ctx)
	}
	type outcome struct {
		result Result
		err    error
	}
	ended := make(chan outcome)
	run := in.run
	if in.Rung == InPlace {
		run = in.runInPlace
	}
	go func() {
		runtime.LockOSThread() // never unlocked: its namespaces are spoilt, it ends with this goroutine
		r, err := run(ctx, spec)
		ended <- outcome{r, err}
	}()
	o := <-ended
	return o.result, o.err
}

func (s RunSpec) check() error {
	switch {
	case len(s.Argv) == 0 || s.Argv[0] == "":
		return errors.New("run: no command")
	case len(s.Lower) == 0 && s.Root == "": // rung inplace has "/"
		return errors.New("internal error: run without a root")
	case len(s.Lower) > 0 && (s.Upper == "") != (s.Work == ""):
		return errors.New("internal error: run with only one of upper and work directory")
	case s.Network != HostNetwork && s.Network != NoNetwork:
		return fmt.Errorf("internal error: network %q", s.Network)
	}
	for _, list := range [][]string{s.Argv, s.Env, {s.Dir}} {
		for _, text := range list {
			if strings.IndexByte(text, 0) >= 0 {
				return fmt.Errorf("run: %.40q contains a zero byte", text)
			}
		}
	}
	return nil
}

// run is the life of a RUN's thread.
func (in *Inside) run(ctx context.Context, spec RunSpec) (result Result, err error) {
	home, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Result{}, fmt.Errorf("open mount namespace: %w", err)
	}
	defer unix.Close(home)
	flags := unix.CLONE_FS | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	if spec.Network == NoNetwork {
		flags |= unix.CLONE_NEWNET
	}
	if err := unix.Unshare(flags); err != nil {
		return Result{}, fmt.Errorf("make namespaces: %w", err)
	}
	// Entering the node's namespace again drops the last reference to the
	// RUN's one: when setns returns, its mounts are gone.
	defer func() {
		if err2 := unix.Setns(home, unix.CLONE_NEWNS); err2 != nil {
			err = errors.Join(err, fmt.Errorf("leave mount namespace: %w", err2))
		}
	}()

	place, err := in.furnish(spec)
	defer place.close()
	if err != nil {
		return Result{}, err
	}
	out, err := newOutput(spec, in.Map)
	if err != nil {
		return Result{}, err
	}
	defer out.close()
	rep, err := newReport()
	if err != nil {
		return Result{}, err
	}
	super, err := newSupervisor(spec, in.Map)
	if err != nil {
		rep.r.Close()
		rep.w.Close()
		return Result{}, err
	}
	defer super.close()
	flags = unix.CLONE_NEWPID | borrow
	if super.early() {
		flags = unix.CLONE_NEWPID // this thread must answer the child before exec
	}
	p := &program{}
	err = in.program(p, spec, place, out, rep, super)
	if err != nil {
		rep.r.Close()
		rep.w.Close()
		return Result{}, err
	}
	c, err := p.fork(uintptr(flags), rep)
	if err != nil {
		return Result{}, fmt.Errorf("make process: %w", err)
	}
	defer c.close()
	place.close()
	out.started()
	if spec.Going != nil {
		going := newProcess(in, spec, c)
		super.begun = func() { spec.Going(going) }
		defer going.over()
	}
	return c.finish(ctx, spec.Argv[0], p, out, super)
}

// place is a furnished root in the mount namespace of the calling thread.
type place struct {
	root, old fd     // the new "/" and the one to leave
	proc      fd     // where /proc goes
	borrowed  fd     // the detached /proc to put there; -1: one is made by the child
	masks     []mask // of /proc
	readOnly  []string
}

// mask is a detached mount that hides a path of /proc.
type mask struct {
	mount fd
	path  string // relative to /proc
}

func (p *place) close() {
	for _, f := range []*fd{&p.root, &p.old, &p.proc, &p.borrowed} {
		f.close()
		*f = -1
	}
	for _, m := range p.masks {
		m.mount.close()
	}
	p.masks = nil
}

// What Docker hides, and what it shows read-only.
var (
	maskedProc = []string{"acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug", "scsi"}
	maskedSys  = []string{"firmware", "devices/virtual/powercap"}
	frozenProc = []string{"bus", "fs", "irq", "sys", "sysrq-trigger"}
)

// furnish mounts everything but /proc, which must be mounted by a process of
// the namespace that it shows.
func (in *Inside) furnish(spec RunSpec) (*place, error) {
	p := &place{root: -1, old: -1, proc: -1, borrowed: -1}
	var err error
	if p.old, err = openDir("/"); err != nil {
		return p, err
	}
	root, err := spec.root()
	if err != nil {
		return p, err
	}
	here, err := openDir(rootPlace)
	if err != nil {
		root.close()
		return p, err
	}
	defer here.close()
	if err := root.attach(here); err != nil {
		return p, fmt.Errorf("mount root: %w", err)
	}
	if p.root, err = openDir(rootPlace); err != nil {
		return p, err
	}
	b := &builder{root: p.root}
	b.devices("/dev")
	if spec.Network == NoNetwork {
		b.mount("/sys", func() (fd, error) {
			m, err := newMount("sysfs", sysAttrs, option{"source", "sysfs"})
			if in.borrowed && errors.Is(err, unix.EPERM) { // as for /proc
				m, err = cloneMount(unix.AT_FDCWD, "/sys")
			}
			return m, err
		}, sysAttrs)
	} else {
		// A new sysfs shows a network namespace and belongs to its owner: not us.
		b.mount("/sys", func() (fd, error) { return cloneMount(unix.AT_FDCWD, "/sys") }, sysAttrs)
	}
	for _, name := range maskedSys {
		if m, err := cover("/sys/" + name); err == nil {
			b.mount("/sys/"+name, func() (fd, error) { return m, nil }, 0)
		}
	}
	files := false
	for i, m := range spec.Mounts {
		if m.Kind == FileMount && !files {
			files = true
			b.memory()
		}
		made, err := b.point(m)
		if err != nil {
			return p, fmt.Errorf("make mount point %s: %w", m.Target, err)
		}
		if m.Kind == TmpfsMount && m.Mode == 0 {
			m.Mode = openMode
			if !made {
				m.Mode = b.coveredMode(m.Target)
			}
		}
		b.user(m, filesPlace+"/"+strconv.Itoa(i), in.Map)
	}
	if b.err != nil {
		return p, b.err
	}
	if p.proc, err = within(p.root, "/proc", unix.O_DIRECTORY); err != nil {
		return p, fmt.Errorf("find mount point /proc: %w", err)
	}
	if in.borrowed {
		if p.borrowed, err = cloneMount(unix.AT_FDCWD, "/proc"); err != nil {
			return p, fmt.Errorf("bind /proc: %w", err)
		}
	}
	for _, name := range maskedProc {
		if m, err := cover("/proc/" + name); err == nil {
			p.masks = append(p.masks, mask{m, name})
		}
	}
	hostname := spec.Hostname
	if hostname == "" {
		hostname = "buildkitsandbox"
	}
	if err := unix.Sethostname([]byte(hostname)); err != nil {
		return p, fmt.Errorf("set host name: %w", err)
	}
	if spec.Network == NoNetwork {
		if err := loopbackUp(); err != nil {
			return p, err
		}
	}
	return p, nil
}

// root makes the detached mount of the root file system.
func (s RunSpec) root() (fd, error) {
	switch {
	case len(s.Lower) == 0:
		m, err := cloneMount(unix.AT_FDCWD, s.Root)
		if err != nil {
			return -1, fmt.Errorf("bind root %s: %w", s.Root, err)
		}
		return m, nil
	case len(s.Lower) == 1 && s.Upper == "": // no overlay, for the kernel
		m, err := cloneMount(unix.AT_FDCWD, s.Lower[0])
		if err != nil {
			return -1, fmt.Errorf("bind root %s: %w", s.Lower[0], err)
		}
		if err := m.restrict(unix.MOUNT_ATTR_RDONLY); err != nil {
			m.close()
			return -1, fmt.Errorf("make root read-only: %w", err)
		}
		return m, nil
	}
	return overlayMount(s.Lower, s.Upper, s.Work, linkPlace)
}

// cover makes a detached mount that hides path of the node, if there is such
// a path: a null device over a file, an empty directory over a directory.
func cover(path string) (fd, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return -1, err
	}
	with := "/dev/null"
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		with = voidPlace
	}
	m, err := cloneMount(unix.AT_FDCWD, with)
	if err != nil {
		return -1, err
	}
	if err := m.restrict(unix.MOUNT_ATTR_RDONLY); err != nil {
		m.close()
		return -1, err
	}
	return m, nil
}

// memory mounts the file system for FileMounts on the thread's filesPlace.
func (b *builder) memory() {
	if b.err != nil {
		return
	}
	m, err := tmpfsMount(0o700, 0, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		b.fail("mount", filesPlace, err)
		return
	}
	here, err := openDir(filesPlace)
	if err != nil {
		m.close()
		b.fail("mount", filesPlace, err)
		return
	}
	defer here.close()
	b.fail("mount", filesPlace, m.attach(here))
}

// point makes the mount point of a mount where the caller could not: below /dev,
// and in what an earlier mount shows, never in the root itself. It is 0755, or an
// empty file, as with runc.
func (b *builder) point(m Mount) (made bool, err error) {
	if b.err != nil {
		return false, nil
	}
	target := path.Clean("/" + m.Target)
	there, err := within(b.root, target, 0)
	if err == nil {
		there.close()
		return false, nil
	}
	var lacking []string // the innermost first
	var dir fd
	for at := target; errors.Is(err, unix.ENOENT) && at != "/"; {
		lacking = append(lacking, path.Base(at))
		at = path.Dir(at)
		dir, err = within(b.root, at, unix.O_DIRECTORY)
	}
	if err != nil {
		return false, err
	}
	defer func() { dir.close() }()
	if same, err := sameMount(dir, b.root); err != nil || same {
		return false, errors.Join(unix.ENOENT, err)
	}
	for _, name := range slices.Backward(lacking[1:]) {
		if err := unix.Mkdirat(int(dir), name, 0o755); err != nil {
			return false, err
		}
		next, err := unix.Openat(int(dir), name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return false, err
		}
		dir.close()
		dir = fd(next)
	}
	isDir := m.Kind == TmpfsMount
	if m.Kind == BindMount {
		source, err := m.open()
		if err != nil {
			return false, err
		}
		isDir = source.isDir()
		source.close()
	}
	if isDir {
		return true, unix.Mkdirat(int(dir), lacking[0], 0o755)
	}
	return true, unix.Mknodat(int(dir), lacking[0], unix.S_IFREG|0o644, 0)
}

// sameMount tells whether two directories are on one mount. Before Linux 5.8, it
// takes mounts of one file system for one.
func sameMount(a, b fd) (bool, error) {
	var x, y unix.Statx_t
	for f, st := range map[fd]*unix.Statx_t{a: &x, b: &y} {
		if err := unix.Statx(int(f), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, st); err != nil {
			return false, fmt.Errorf("statx: %w", err)
		}
	}
	if x.Mask&y.Mask&unix.STATX_MNT_ID == 0 {
		return x.Dev_major == y.Dev_major && x.Dev_minor == y.Dev_minor, nil
	}
	return x.Mnt_id == y.Mnt_id, nil
}

// coveredMode is the mode of a tmpfs that takes that of the directory it covers.
func (b *builder) coveredMode(name string) uint32 {
	f, err := within(b.root, name, 0)
	if err != nil {
		return openMode // the mount will fail
	}
	defer f.close()
	var st unix.Stat_t
	if err := unix.Fstatat(int(f), "", &st, unix.AT_EMPTY_PATH); err != nil {
		return openMode
	}
	return st.Mode & 0o7777
}

// openMode is that of a tmpfs that covers nothing.
const openMode = 0o1777

// user makes one mount of a RunSpec. file is where the data of a FileMount may lie.
func (b *builder) user(m Mount, file string, ids IDMap) {
	var attrs uint64
	if m.ReadOnly {
		attrs = unix.MOUNT_ATTR_RDONLY
	}
	b.mount(m.Target, func() (fd, error) {
		switch m.Kind {
		case TmpfsMount:
			return tmpfsMount(m.Mode, m.Size, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
		case FileMount:
			if err := writeFile(file, m, ids); err != nil {
				return -1, err
			}
			return cloneMount(unix.AT_FDCWD, file)
		case BindMount:
			source, err := m.open()
			if err != nil {
				return -1, err
			}
			defer source.close()
			return cloneMount(int(source), "")
		}
		return -1, fmt.Errorf("internal error: kind %q of mount", m.Kind)
	}, attrs)
}

// open opens what a bind mount shows.
func (m Mount) open() (fd, error) {
	f, err := unix.Open(m.Source, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", m.Source, err)
	}
	if m.Sub == "" {
		return fd(f), nil
	}
	defer unix.Close(f)
	sub, err := within(fd(f), m.Sub, 0)
	if err != nil {
		return -1, fmt.Errorf("find %s in %s: %w", m.Sub, m.Source, err)
	}
	return sub, nil
}

func writeFile(name string, m Mount, ids IDMap) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(m.Data)
	if err == nil && ids.Contains(m.UID, m.GID) {
		err = f.Chown(int(m.UID), int(m.GID))
	} else if err == nil {
		// Where a tmpfs has attributes (Linux 6.6 and later) the RUN sees it.
		unix.Fsetxattr(int(f.Fd()), overrideXattr, fmt.Appendf(nil, overrideFormat, unix.S_IFREG|m.Mode, m.UID, m.GID, 0), 0)
	}
	if err == nil {
		err = unix.Fchmod(int(f.Fd()), m.Mode&0o7777)
	}
	return errors.Join(err, f.Close())
}

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

// output is the standard streams of a RUN.
type output struct {
	null  *os.File
	pipes []*stream
	fds   [2]int // of the child: stdout, stderr
	copy  sync.WaitGroup
}

type stream struct {
	r, w *os.File
	to   io.Writer
}

func newOutput(spec RunSpec, ids IDMap) (*output, error) {
	o := &output{}
	var err error
	if o.null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		return nil, err
	}
	for i, w := range []io.Writer{spec.Stdout, spec.Stderr} {
		switch {
		case w == nil:
			o.fds[i] = int(o.null.Fd())
			continue
		case i == 1 && sameWriter(spec.Stdout, w):
			o.fds[i] = o.fds[0]
			continue
		}
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
			o.close()
			return nil, fmt.Errorf("make pipe: %w", err)
		}
		// Our end works with deadlines; the child's one blocks, as programs expect.
		unix.SetNonblock(fds[0], true)
		s := &stream{r: os.NewFile(uintptr(fds[0]), "output"), w: os.NewFile(uintptr(fds[1]), "output"), to: w}
		o.pipes = append(o.pipes, s)
		o.fds[i] = fds[1]
		// The user of the RUN may open /dev/stdout again.
		if ids.ContainsUID(spec.UID) && spec.UID != 0 {
			if err := unix.Fchown(fds[1], int(spec.UID), -1); err != nil {
				o.close()
				return nil, fmt.Errorf("give output to user %d: %w", spec.UID, err)
			}
		}
	}
	return o, nil
}

func sameWriter(a, b io.Writer) bool {
	defer func() { recover() }() // an incomparable type
	return a == b
}

// started closes the child's ends and copies until they are closed everywhere.
func (o *output) started() {
	for _, s := range o.pipes {
		s.w.Close()
		o.copy.Go(func() {
			if _, err := io.Copy(s.to, s.r); err != nil {
				io.Copy(io.Discard, s.r) // a reader that fails must not stop the step
			}
		})
	}
}

// wait returns when all output has been copied.
func (o *output) wait() {
	for _, s := range o.pipes {
		s.r.SetReadDeadline(time.Now().Add(grace))
	}
	o.copy.Wait()
}

func (o *output) close() {
	for _, s := range o.pipes {
		s.w.Close()
		s.r.Close()
	}
	o.null.Close()
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
