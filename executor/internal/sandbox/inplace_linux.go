package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// enterInPlace makes a process a node that stays where it is.
func enterInPlace(nodeConfig) error {
	unix.Umask(0o022)
	if err := Untraceable(); err != nil {
		return err
	}
	// What a RUN leaves running becomes our child, and is ended.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("adopt what a RUN leaves running: %w", err)
	}
	return nil
}

// Untraceable shuts other processes of the same user out of the memory, the
// environment and the files of this one: of a RUN that is root beside it.
func Untraceable() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid to trace this process: %w", err)
	}
	return nil
}

// runInPlace runs a command in "/" as it is, as a process of a session of its own.
//
//	thread                                child
//	write the program ── fork ──────────> session
//	                                      descriptors: 0, 1, 2, report; no others
//	                                      chdir, bounding set, groups, gid, uid, capabilities,
//	                                      death signal, which a change of user takes away;
//	                                      is the node still the parent?
//	EOF or *ExecError <────────────────── exec
//	ctx done: kill
//	wait; then kill and wait for all children that are left, which
//	the kernel gives us as their parents die
func (in *Inside) runInPlace(ctx context.Context, spec RunSpec) (result Result, err error) {
	if spec.Network == NoNetwork {
		return Result{}, errors.New("--network=none needs a network namespace, which this container may not make: the kernel answers EPERM (rung inplace)")
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
	p := &program{}
	p.call("start session", unix.SYS_SETSID)
	p.fds([]any{int(out.null.Fd()), out.fds[0], out.fds[1]}, int(rep.w.Fd()), true)
	p.settle(spec.Dir)
	p.bound()
	p.become(spec, in.Map)
	p.call("arm death signal", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, int(unix.SIGKILL), 0, 0, 0)
	p.call("see that the node lives", unix.SYS_GETPPID).must(os.Getpid())
	p.exec(spec)
	c, err := p.fork(borrow, rep)
	if err != nil {
		return Result{}, fmt.Errorf("make process: %w", err)
	}
	defer c.close()
	out.started()
	if spec.Started != nil {
		if err = spec.Started(c.pid); err != nil {
			c.kill()
		}
	}
	killed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { c.kill(); close(killed) })
	execErr := c.started(p)
	status, waitErr := c.wait()
	cancelled := !stop()
	if cancelled {
		<-killed // it uses c
	}
	leftErr := endChildren()
	out.wait()
	var pe *programError
	switch {
	case cancelled:
		return Result{}, context.Cause(ctx)
	case err != nil:
		return Result{}, err
	case errors.As(execErr, &pe):
		return Result{}, errors.Join(explainExec(pe, spec.Argv[0]), leftErr)
	case waitErr != nil || leftErr != nil:
		return Result{}, errors.Join(waitErr, leftErr)
	case status.Signaled():
		result.Exit = 128 + int(status.Signal())
	default:
		result.Exit = status.ExitStatus()
	}
	return result, nil
}

// endChildren kills all children of this process and those that it inherits
// from them, and returns when there are none.
func endChildren() error {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		switch {
		case err == unix.EINTR || pid > 0:
			continue
		case err == unix.ECHILD:
			return nil
		case err != nil:
			return fmt.Errorf("wait for what a RUN left running: %w", err)
		}
		pids, err := children(os.Getpid())
		if err != nil {
			return err
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL) // its number is not given to another before we have waited for it
		}
		if _, err := unix.Wait4(-1, &status, 0, nil); err != nil && err != unix.EINTR && err != unix.ECHILD {
			return fmt.Errorf("wait for what a RUN left running: %w", err)
		}
	}
}

// children are the processes whose parent is pid.
func children(pid int) ([]int, error) {
	names, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	parent := strconv.Itoa(pid)
	var out []int
	for _, n := range names {
		id, err := strconv.Atoi(n.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + n.Name() + "/stat")
		if err != nil {
			continue // gone
		}
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if len(f) > 1 && f[1] == parent {
			out = append(out, id)
		}
	}
	return out, nil
}
