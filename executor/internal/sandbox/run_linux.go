package sandbox

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

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
