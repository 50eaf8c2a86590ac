package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrEnded says that a process is asked for something and has ended.
var ErrEnded = errors.New("the process has ended")

// Process is a RUN that goes on, for who has something to do in it. Its methods
// may be called from many goroutines; when Run returns nothing they began is left.
//
//	Process.Run    thread (ends with the command)             child, beside process 1 of the RUN
//	go ──────────> a file system state of its own
//	               setns: mnt, ipc, uts, pid of process 1
//	               write the program ── fork ───────────────> not dumpable, from the first step on
//	copy output    wait for report                            descriptors: 0, 1, 2, report; no others
//	                                                          the rest as in a RUN, after its mounts
//	               EOF or *ExecError <─────────────────────── exec
//	               back into the node's mount namespace
//
// Unlike with a RUN others are there that would look at the child before it has
// given up its rights, and its memory is a copy of the node's.
type Process struct {
	in   *Inside
	spec RunSpec // that of the RUN, without what is mounted

	mu    sync.Mutex
	pidfd int // of process 1; -1 when it has ended
	users sync.WaitGroup
}

func newProcess(in *Inside, spec RunSpec, c *child) *Process {
	spec.Mounts, spec.Upper, spec.Work, spec.Going = nil, "", "", nil
	return &Process{in: in, spec: spec, pidfd: c.pidfd}
}

// over ends what others do in the process, which has ended.
func (p *Process) over() {
	p.mu.Lock()
	p.pidfd = -1
	p.mu.Unlock()
	p.users.Wait()
}

// take is the process for one user, who calls p.users.Done.
func (p *Process) take() (pidfd int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pidfd < 0 || ended(p.pidfd, 0) {
		return -1, ErrEnded
	}
	p.users.Add(1)
	return p.pidfd, nil
}

// ended tells whether the process of a handle is dead, or will be in a moment.
func ended(pidfd int, moment time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, int(moment.Milliseconds()))
	return err == nil && n == 1
}

// Run runs a command beside the process: in its root and namespaces, as its user, with
// its environment and directory, and with no right that a RUN has not. It is in another
// Landlock domain: abstract unix sockets of the process are out of its reach. Output of
// both kinds goes to out. Errors are those of Inside.Run, and ErrEnded.
func (p *Process) Run(ctx context.Context, argv []string, out io.Writer) (Result, error) {
	spec := p.spec
	spec.Argv, spec.Stdout, spec.Stderr = argv, out, out
	if err := spec.check(); err != nil {
		return Result{}, err
	}
	if ctx.Err() != nil {
		return Result{}, context.Cause(ctx)
	}
	pidfd, err := p.take()
	if err != nil {
		return Result{}, err
	}
	defer p.users.Done()
	var result Result
	err = onThread(func() (err error) { result, err = p.run(ctx, pidfd, spec); return err })
	// Its end kills all beside it, and is complete only after theirs.
	moment := time.Duration(0)
	if result.Exit == 128+int(unix.SIGKILL) {
		moment = grace
	}
	if ctx.Err() == nil && (err != nil || moment > 0) && ended(pidfd, moment) {
		err = ErrEnded
	}
	return result, err
}

// Use calls do with the root of the process: a descriptor for openat2 and the like, with
// RESOLVE_IN_ROOT, as names and links in it are the process's own. It is closed
// afterwards. What is written goes through the mounts of the process.
func (p *Process) Use(do func(root *os.File) error) error {
	pidfd, err := p.take()
	if err != nil {
		return err
	}
	defer p.users.Done()
	root := fd(-1)
	err = onThread(func() (err error) {
		leave, err := p.enter(pidfd)
		if err != nil {
			return err
		}
		root, err = openDir("/")
		return errors.Join(err, leave())
	})
	switch {
	case err != nil && ended(pidfd, 0):
		root.close()
		return ErrEnded
	case err != nil:
		root.close()
		return err
	}
	f := os.NewFile(uintptr(root), "root")
	defer f.Close()
	return do(f)
}

// onThread calls do on a thread that ends with it.
func onThread(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: its namespaces are spoilt
		done <- do()
	}()
	return <-done
}

// enter brings the calling thread, and children that it makes, into the namespaces of
// the process. leave brings it back into the node's mount namespace.
func (p *Process) enter(pidfd int) (leave func() error, err error) {
	home, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open mount namespace: %w", err)
	}
	flags := unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWPID
	if p.spec.Network == NoNetwork {
		flags |= unix.CLONE_NEWNET
	}
	err = unix.Unshare(unix.CLONE_FS)
	if err == nil {
		err = unix.Setns(pidfd, flags)
	}
	if err != nil {
		unix.Close(home)
		return nil, fmt.Errorf("enter the namespaces of the process: %w", err)
	}
	return func() error {
		defer unix.Close(home)
		if err := unix.Setns(home, unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("leave mount namespace: %w", err)
		}
		return nil
	}, nil
}

// run is the life of the thread of a command beside a process.
func (p *Process) run(ctx context.Context, pidfd int, spec RunSpec) (_ Result, err error) {
	out, err := newOutput(spec, p.in.Map)
	if err != nil {
		return Result{}, err
	}
	defer out.close()
	super, err := newSupervisor(spec, p.in.Map)
	if err != nil {
		return Result{}, err
	}
	defer super.close()
	leave, err := p.enter(pidfd)
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, leave()) }()
	rep, err := newReport()
	if err != nil {
		return Result{}, err
	}
	prog := &program{}
	prog.call("hide memory", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	prog.confine(spec, p.in.Map, scopeSockets, out, rep, super) // signals are to reach process 1
	c, err := prog.fork(0, rep)
	if err != nil {
		return Result{}, fmt.Errorf("make process: %w", err)
	}
	defer c.close()
	out.started()
	return c.finish(ctx, spec.Argv[0], prog, out, super)
}

// finish serves a child until it has ended and its output is copied.
func (c *child) finish(ctx context.Context, name string, p *program, out *output, super *supervisor) (result Result, err error) {
	killed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { c.kill(); close(killed) })
	execErr := super.attend(c, p)
	status, err := c.wait()
	cancelled := !stop()
	if cancelled {
		<-killed // it uses c
	}
	out.wait()
	var pe *programError
	switch {
	case cancelled:
		return Result{}, context.Cause(ctx)
	case errors.As(execErr, &pe):
		return Result{}, explainExec(pe, name)
	case execErr != nil:
		return Result{}, execErr
	case err != nil:
		return Result{}, err
	case status.Signaled():
		result.Exit = 128 + int(status.Signal())
	default:
		result.Exit = status.ExitStatus()
	}
	result.Owners = super.owners()
	if err := super.settle(); err != nil {
		return Result{}, err
	}
	return result, nil
}
