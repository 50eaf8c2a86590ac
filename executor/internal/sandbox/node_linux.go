package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// NodeSpec says how a node starts.
type NodeSpec struct {
	Rung Rung
	Map  IDMap

	// Store becomes /store. The mapped root (Map.HostUID(0), Map.HostGID(0))
	// must be able to search it: when root starts nodes, its group is
	// Map.HostGID(0) and its mode 0710, which shuts out everybody else as
	// 0700 does, for nobody has that group. Every directory above may be closed.
	Store string
	// StoreFile is the store on rung inplace, where Store is no path that the node has.
	StoreFile *os.File

	// Binds are further directories or files of the host, read-only.
	Binds []NodeBind

	// Handlers are lines for binfmt_misc's register file: programs of other kinds
	// that RUNs may execute. They count in this node only, which then has none of
	// the host's. It needs Linux 6.7 and a rung with a user namespace.
	Handlers []string

	Entry string     // key of the map given to Reexec
	Env   []string   // the node's whole environment
	Files []*os.File // inherited, see Inside.Files; still the caller's to close
}

// NodeBind shows Source of the host as Target, an absolute path, in the node.
type NodeBind struct{ Source, Target string }

// Node is a process that StartNode made.
type Node struct {
	pidfd  int
	pid    int
	life   *os.File // while it is open the node may live
	done   chan struct{}
	err    error // once done is closed
	status *status
}

// status collects what the node tells on its way out.
type status struct {
	mu    sync.Mutex
	tail  []byte // of its standard error
	text  string // the error of its entry
	ready bool   // it said so
}

// tailBytes is how much of a node's standard error is kept for the report of its end.
const tailBytes = 16 << 10

func (s *status) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tail = append(s.tail, p...)
	if n := len(s.tail) - tailBytes; n > 0 {
		s.tail = append(s.tail[:0], s.tail[n:]...)
	}
	return len(p), nil
}

// nodeConfig travels in a sealed memory file, descriptor configFD.
type nodeConfig struct {
	Magic    string
	Rung     Rung
	Map      IDMap
	Entry    string
	Store    int // descriptors
	Binds    []boundFD
	Handlers []string
	Files    []int
	Path     string // of the store, on rung inplace
}

type boundFD struct {
	FD     int
	Target string
	Dir    bool
}

const (
	nodeName   = "kaniko-build-node" // argv[0] of a node
	nodeMagic  = "kaniko-build node 1"
	configFD   = 3
	lifeFD     = 4
	statusFD   = 5
	firstExtra = 6
)

// startError is a failure to start a node, for Probe to explain.
type startError struct {
	op    string // "clone", "map", "setup", or "" for a mistake of ours
	errno unix.Errno
	err   error
}

func (e *startError) Error() string {
	if e.err == nil {
		return "start node: " + e.op
	}
	return "start node: " + e.err.Error()
}
func (e *startError) Unwrap() error { return e.err }

func failedStart(op string, err error) *startError {
	e := &startError{op: op, err: err}
	errors.As(err, &e.errno)
	return e
}

// StartNode starts this binary again as a node: process 1 of new user, mount,
// pid, ipc, uts and cgroup namespaces, in a private root that shows the store
// and nothing else of the host. ctx bounds the start only; the node lives
// until it ends by itself, Kill is called, or this process ends.
//
//	outer                              child (a program, see there)      node (this binary)
//	fork(new namespaces) ──────────────> close(life write end)
//	write uid_map, gid_map               read(life): waits
//	  (newuidmap for ordinary users)
//	write(life, 1 byte) ───────────────> open store, binds (as the host's user)
//	                                     setgroups, setgid 0, setuid 0
//	                                     prctl(PDEATHSIG, KILL)
//	                                     poll(life): hung up? exit
//	                                     exec /proc/self/exe ─────────────> check: pid 1, sealed config
//	EOF on report <───────────────────── (report closes)                    tmpfs root, /store, /proc, /dev, pivot_root
//	"ready" on status <─────────────────────────────────────────────────── entry(ctx, Inside)
//	... protocol over Files ...
//	wait <──────────────────────────────────────────────────────────────── exit; the kernel ends all below
//
// On rung inplace there are no namespaces, no map and no root of its own: the
// child is a process in a session of its own, which nobody may trace.
//
// The death signal follows the thread that forked, so that thread stays, in
// wait. The life pipe closes the gap before the signal is armed.
func StartNode(ctx context.Context, spec NodeSpec) (*Node, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	n := &Node{pidfd: -1, done: make(chan struct{}), status: &status{}}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		defer close(n.done)
		n.run(ctx, spec, started)
	}()
	if err := <-started; err != nil { // run watches ctx
		<-n.done
		return nil, err
	}
	return n, nil
}

// run is the life of the thread that starts and reaps the node. It sends on
// started once.
func (n *Node) run(ctx context.Context, spec NodeSpec, started chan<- error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		started <- failedStart("", err)
		return
	}
	defer null.Close()
	life, statusPipe, stderr, err := nodePipes()
	if err != nil {
		started <- failedStart("", err)
		return
	}
	defer life.close()
	defer statusPipe.close()
	defer stderr.close()
	rep, err := newReport()
	if err != nil {
		started <- failedStart("", err)
		return
	}

	p := &program{}
	config, err := p.node(spec, null, life, statusPipe, stderr, rep)
	if err != nil {
		rep.r.Close()
		rep.w.Close()
		started <- failedStart("", err)
		return
	}
	defer config.Close()
	runtime.KeepAlive(spec.Files)
	flags := uintptr(unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP)
	if spec.Rung == InPlace {
		flags = 0
	}
	c, err := p.fork(flags, rep)
	if err != nil {
		started <- failedStart("clone", fmt.Errorf("make user namespace: %w", err))
		return
	}
	life.r.Close()
	statusPipe.w.Close()
	stderr.w.Close()

	var readers sync.WaitGroup
	ready := make(chan struct{})
	readers.Go(func() { io.Copy(n.status, stderr.r) })
	readers.Go(func() { n.readStatus(statusPipe.r, ready) })

	killed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { c.kill(); close(killed) })
	begin := func() error {
		if spec.Rung != InPlace {
			if err := writeMap(ctx, c.pid, spec.Map); err != nil {
				return failedStart("map", err)
			}
		}
		if _, err := life.w.Write([]byte{1}); err != nil {
			return failedStart("", fmt.Errorf("wake child: %w", err))
		}
		if err := c.started(p); err != nil {
			return failedStart("exec", err)
		}
		<-ready
		if !n.status.isReady() {
			return failedStart("setup", nil)
		}
		return nil
	}
	err = begin()
	if !stop() {
		<-killed // it uses c
		err = context.Cause(ctx)
	}
	if err != nil {
		c.report.Close()
		c.kill()
		ws, _ := c.wait()
		c.close()
		readers.Wait()
		var e *startError
		if errors.As(err, &e) && e.op == "setup" { // what it said on its way out
			err = failedStart("setup", n.status.err(ws))
		}
		started <- err
		return
	}
	n.pidfd, n.pid = c.pidfd, c.pid
	started <- nil

	ws, err := c.wait()
	readers.Wait()
	if err == nil {
		err = n.status.err(ws)
	}
	n.err = err
}

const readyLine = "ready"

// readStatus reads lines until the node closes its end. The first one says
// whether the node is ready.
func (n *Node) readStatus(r *os.File, ready chan struct{}) {
	all := make([]byte, 0, 256)
	buf := make([]byte, 4096)
	first := true
	for {
		m, err := r.Read(buf)
		all = append(all, buf[:m]...)
		if len(all) > 1<<16 {
			all = all[:1<<16]
		}
		line, rest, ok := bytes.Cut(all, []byte("\n"))
		if first && (ok || err != nil) {
			n.status.mu.Lock()
			if n.status.ready = string(line) == readyLine; !n.status.ready {
				n.status.text = string(line)
			}
			n.status.mu.Unlock()
			all = append([]byte{}, rest...)
			close(ready)
			first = false
		}
		if err != nil {
			break
		}
	}
	n.status.mu.Lock()
	defer n.status.mu.Unlock()
	if text := strings.TrimSpace(string(all)); text != "" {
		n.status.text = text
	}
}

func (s *status) isReady() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ready
}

// err describes how a node ended; nil if it ended well.
func (s *status) err(ws unix.WaitStatus) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ws.Exited() && ws.ExitStatus() == 0 {
		return nil
	}
	what := fmt.Sprintf("exit code %d", ws.ExitStatus())
	if ws.Signaled() {
		what = "signal " + unix.SignalName(ws.Signal())
	}
	var errno unix.Errno
	op := ""
	if s.text != "" {
		var m nodeMessage
		if json.Unmarshal([]byte(s.text), &m) == nil {
			what, errno, op = m.Error, unix.Errno(m.Errno), m.Op
		} else {
			what = s.text
		}
	}
	if tail := strings.TrimSpace(string(s.tail)); tail != "" {
		what += "\n" + tail
	}
	return &nodeError{what: what, errno: errno, op: op}
}

// nodeMessage is an error on its way out of a node.
type nodeMessage struct {
	Error string
	Errno int
	Op    string `json:",omitempty"`
}

type nodeError struct {
	what  string
	errno unix.Errno
	op    string // of an opError
}

func (e *nodeError) Error() string { return "node ended: " + e.what }
func (e *nodeError) Unwrap() error {
	if e.errno == 0 {
		return nil
	}
	return e.errno
}

// Wait returns when the node and everything in it has ended; nil if its entry
// returned nil. It may be called from several goroutines.
func (n *Node) Wait() error { <-n.done; return n.err }

// PID is the number of the node's first process, here outside. It means nothing once
// the node has ended.
func (n *Node) PID() int { return n.pid }

// Done is closed when Wait would return.
func (n *Node) Done() <-chan struct{} { return n.done }

// Kill ends the node and everything in it, at once. It does not wait. A node
// that has ended is left alone.
func (n *Node) Kill() {
	select {
	case <-n.done:
	default:
		// A handle of a process that has gone answers ESRCH.
		unix.PidfdSendSignal(n.pidfd, unix.SIGKILL, nil, 0)
	}
}

// Close kills the node, waits for its end and frees its handle. The node
// cannot be used afterwards.
func (n *Node) Close() error {
	n.Kill()
	<-n.done
	if n.pidfd >= 0 {
		unix.Close(n.pidfd)
		n.pidfd = -1
	}
	return nil
}

// pipe is a pipe in blocking mode: a child without Go's poller reads it.
type pipe struct{ r, w *os.File }

func (p *pipe) close() { p.r.Close(); p.w.Close() }

func newPipe(name string) (*pipe, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	return &pipe{os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name)}, nil
}

func nodePipes() (life, status, stderr *pipe, err error) {
	if life, err = newPipe("life"); err != nil {
		return nil, nil, nil, err
	}
	if status, err = newPipe("status"); err != nil {
		life.close()
		return nil, nil, nil, err
	}
	if stderr, err = newPipe("stderr"); err != nil {
		life.close()
		status.close()
		return nil, nil, nil, err
	}
	return life, status, stderr, nil
}

// node writes the program of a node's child. The returned file is the
// configuration, to be closed after the fork.
func (p *program) node(spec NodeSpec, null *os.File, life, statusPipe, stderr *pipe, rep *report) (*os.File, error) {
	store, err := filepath.Abs(spec.Store)
	if err != nil {
		return nil, fmt.Errorf("find store: %w", err)
	}
	binds := make([]NodeBind, len(spec.Binds))
	for i, b := range spec.Binds {
		if binds[i].Source, err = filepath.Abs(b.Source); err != nil {
			return nil, fmt.Errorf("find %s: %w", b.Source, err)
		}
		binds[i].Target = b.Target
	}

	p.call("close descriptor", unix.SYS_CLOSE, int(life.w.Fd()))
	wake := make([]byte, 1)
	p.call("wait for id map", unix.SYS_READ, int(life.r.Fd()), unsafe.Pointer(&wake[0]), 1).must(1)

	// The host's user may reach the store where the mapped root may not; a
	// descriptor opened now, in the new mount namespace, can be bound later.
	open := func(path string) slot {
		s := p.newSlot()
		p.call("open "+path, unix.SYS_OPENAT, unix.AT_FDCWD&^0, path, unix.O_PATH|unix.O_CLOEXEC, 0).into(s)
		return s
	}
	fds := []any{int(null.Fd()), int(null.Fd()), int(stderr.w.Fd()), 0 /* config */, int(life.r.Fd()), int(statusPipe.w.Fd())}
	config := nodeConfig{Magic: nodeMagic, Rung: spec.Rung, Map: spec.Map, Entry: spec.Entry, Path: store, Handlers: spec.Handlers}
	if config.Store = len(fds); spec.StoreFile != nil {
		config.Path = fmt.Sprintf("/proc/self/fd/%d", config.Store)
		fds = append(fds, int(spec.StoreFile.Fd()))
	} else {
		fds = append(fds, open(store))
	}
	for _, b := range binds {
		st, err := os.Stat(b.Source)
		if err != nil {
			return nil, err
		}
		config.Binds = append(config.Binds, boundFD{FD: len(fds), Target: b.Target, Dir: st.IsDir()})
		fds = append(fds, open(b.Source))
	}
	for _, f := range spec.Files {
		config.Files = append(config.Files, len(fds))
		fds = append(fds, int(f.Fd()))
	}

	self := p.selfReadOnly()

	// A group list can be dropped only where the map was written by privilege.
	lenient := lenientNone
	if spec.Map.Single() {
		lenient = lenientAll
	}
	p.call("drop groups", unix.SYS_SETGROUPS, 0, 0).or(lenient, 0)
	p.call("become group 0", unix.SYS_SETRESGID, 0, 0, 0)
	p.call("become user 0", unix.SYS_SETRESUID, 0, 0, 0)
	p.call("arm death signal", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, int(unix.SIGKILL), 0, 0, 0)
	poll := &unix.PollFd{Fd: int32(life.r.Fd()), Events: unix.POLLIN}
	now := &unix.Timespec{}
	p.call("see that the parent lives", unix.SYS_PPOLL, unsafe.Pointer(poll), 1, unsafe.Pointer(now), 0, 0).must(0)
	p.call("start session", unix.SYS_SETSID)

	memory, err := sealed(config)
	if err != nil {
		return nil, err
	}
	fds[configFD] = int(memory.Fd())
	p.fds(fds, int(rep.w.Fd()), false)
	argv, env := p.strings([]string{nodeName}), p.strings(spec.Env)
	if self >= 0 {
		p.call(sayExec, unix.SYS_EXECVEAT, self, "", argv, env, unix.AT_EMPTY_PATH).or(lenientAll, 0)
	}
	p.call("execute node", unix.SYS_EXECVE, "/proc/self/exe", argv, env)
	return memory, nil
}

// selfReadOnly opens this program through a read-only mount of its own and
// returns the slot, or -1. What runs below the node may get hold of
// /proc/PID/exe, and must not be able to change the file through it; where this
// cannot be had, an executed file is still protected from writing.
func (p *program) selfReadOnly() slot {
	var byPath, running unix.Stat_t
	name, err := os.Executable()
	if err != nil || unix.Stat(name, &byPath) != nil || unix.Stat("/proc/self/exe", &running) != nil ||
		byPath.Dev != running.Dev || byPath.Ino != running.Ino { // replaced meanwhile
		return -1
	}
	self := p.newSlot()
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	p.slots[self] = ^uintptr(0) // no descriptor
	p.call("clone mount of program", unix.SYS_OPEN_TREE, unix.AT_FDCWD, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC).into(self).or(lenientAll, 1)
	p.call("make program read-only", unix.SYS_MOUNT_SETATTR, self, "", unix.AT_EMPTY_PATH, unsafe.Pointer(attr), int(unsafe.Sizeof(*attr))).or(lenientAll, 0)
	return self
}

// sealed puts v as JSON into a memory file that nobody can change any more.
func sealed(v any) (*os.File, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("internal error: encode node configuration: %w", err)
	}
	m, err := unix.MemfdCreate("kaniko-build-node", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make memory file: %w", err)
	}
	f := os.NewFile(uintptr(m), "config")
	if _, err := f.Write(data); err != nil {
		f.Close()
		return nil, fmt.Errorf("write node configuration: %w", err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, configSeals); err != nil {
		f.Close()
		return nil, fmt.Errorf("seal node configuration: %w", err)
	}
	return f, nil
}

const configSeals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// writeMap gives the child its ids. Who may not write the map itself asks
// newuidmap and newgidmap, which check /etc/subuid and /etc/subgid.
func writeMap(ctx context.Context, pid int, m IDMap) error {
	dir := "/proc/" + strconv.Itoa(pid) + "/"
	if m.Single() {
		if err := os.WriteFile(dir+"setgroups", []byte("deny"), 0); err != nil {
			return fmt.Errorf("deny setgroups: %w", err)
		}
	}
	err := os.WriteFile(dir+"uid_map", []byte(lines(m.UIDs)), 0)
	if errors.Is(err, unix.EPERM) && !m.Single() {
		return runMapHelpers(ctx, pid, m)
	}
	if err != nil {
		return fmt.Errorf("write user id map: %w", err)
	}
	if err := os.WriteFile(dir+"gid_map", []byte(lines(m.GIDs)), 0); err != nil {
		return fmt.Errorf("write group id map: %w", err)
	}
	return nil
}

func runMapHelpers(ctx context.Context, pid int, m IDMap) error {
	for _, h := range []struct {
		name   string
		ranges []Range
	}{{"newuidmap", m.UIDs}, {"newgidmap", m.GIDs}} {
		args := []string{strconv.Itoa(pid)}
		args = append(args, strings.Fields(text(h.ranges, " "))...)
		args = strings.Fields(strings.ReplaceAll(strings.Join(args, " "), "_", " "))
		out, err := exec.CommandContext(ctx, h.name, args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", h.name, err, bytes.TrimSpace(out))
		}
	}
	return nil
}
