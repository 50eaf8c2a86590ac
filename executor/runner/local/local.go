// Package local runs each node in a container of this machine: user, mount,
// pid, ipc, uts and cgroup namespaces made by this very program, with neither
// daemon nor privileges.
//
//	Runner.Start ── this binary again, in namespaces ──> Reexec ──> executor.Core
//	      └──────────── one unix socket, inherited ────────────────────┘
//
// Which kind of isolation a machine gives is found by a small build, once for
// each boot, user and program; the answer lies in the store's directory.
package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"kaniko-build/executor"
	"kaniko-build/executor/internal/sandbox"
	"kaniko-build/executor/internal/store"
)

const coreEntry = "core"

// Reexec must be the first call of main. It does the work of a process that
// Start made and then returns its exit code and true.
func Reexec() (int, bool) {
	return sandbox.Reexec(map[string]sandbox.Entry{coreEntry: func(ctx context.Context, in *sandbox.Inside) error {
		if len(in.Files) == 0 {
			return errors.New("internal error: a node starts without its connection")
		}
		return executor.Core(ctx, in.Files[0], in)
	}})
}

// Runner is an executor.Runner. The zero value works.
type Runner struct {
	// Rung asks for one kind of isolation instead of the best: "userns",
	// "userns-single" or "inplace".
	Rung string
	// Force is a user's word that "/" may be overwritten for the time of a
	// build, where nothing else tells that this is a container.
	Force bool
	// Careful takes the root of a container only when Rung asks for it: somebody
	// may work there.
	Careful bool
	// Path is where static QEMUs are looked for; nil is /usr/local/bin and /usr/bin.
	Path []string
}

// Start starts the core of one node.
func (r *Runner) Start(ctx context.Context, iso executor.Isolation, at executor.Site, conn *os.File) (executor.Container, error) {
	foreign, err := r.emulators(iso, at.Arches)
	if err != nil {
		return nil, err
	}
	if iso.Rung == sandbox.InPlace {
		return startInPlace(ctx, iso, at, conn)
	}
	return start(ctx, iso, at, foreign, conn)
}

// start gives the node files: its connection, and what it is to hold as long as
// it lives.
func start(ctx context.Context, iso executor.Isolation, at executor.Site, foreign emulators, files ...*os.File) (executor.Container, error) {
	n, err := sandbox.StartNode(ctx, sandbox.NodeSpec{
		Rung: iso.Rung, Map: iso.IDs, Store: at.Store, StoreFile: at.StoreFile, Entry: coreEntry,
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, Files: files,
		Binds: foreign.binds, Handlers: foreign.handlers,
	})
	if err != nil {
		return nil, err
	}
	groups := limitedTo(at.Resources, n.PID()) // it has no job yet
	return container{n, sync.OnceValue(func() error { return errors.Join(n.Wait(), n.Close(), groups.close()) })}, nil
}

type container struct {
	node *sandbox.Node
	wait func() error
}

func (c container) Wait() error { return c.wait() }

func (c container) Kill() { c.node.Kill() }

// Probe finds the kind of isolation by a small build in dir, or remembers it.
func (r *Runner) Probe(ctx context.Context, dir string) (executor.Isolation, error) {
	if os.Geteuid() == 0 {
		if err := recoverRoot(dir); err != nil {
			return executor.Isolation{}, err
		}
	}
	memo := memoPath(dir)
	stamp := fmt.Sprint(stamp(), r.Force)
	if iso, ok := recall(memo, stamp, r.Rung); ok {
		return iso, r.agrees(iso, "")
	}
	rep, err := r.Report(ctx, dir)
	if err != nil {
		return executor.Isolation{}, err
	}
	iso, err := r.choose(rep)
	if err != nil {
		return executor.Isolation{}, err
	}
	remember(dir, remembered{Stamp: stamp, Asked: r.Rung, Isolation: iso}) // only saves time
	return iso, r.agrees(iso, rep.Rungs[0].Why)
}

// agrees is an error when the root of a container would be taken that nobody has
// given. why is what the best kind of isolation lacks, if that was found out now.
func (r *Runner) agrees(iso executor.Isolation, why string) error {
	if iso.Rung != sandbox.InPlace || r.Rung != "" || !r.Careful {
		return nil
	}
	what := "this container allows no user namespaces, and its root, which would be overwritten for as long as a build takes, is not taken unasked"
	if why != "" {
		what += ": " + why
	}
	return &executor.MachineError{What: what, Remedy: "--isolation inplace, if nothing else is at work in this container; doctor tells what is in the way of the better kinds"}
}

// Report probes Rung, or until one works, for people.
func (r *Runner) Report(ctx context.Context, dir string) (sandbox.Report, error) {
	// In the store's folder for temporary files, from where a later run sweeps
	// it if this one is killed. The store itself need not be there yet: who
	// owns it depends on the answer.
	parent := filepath.Join(dir, "tmp")
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return sandbox.Report{}, &executor.MachineError{What: fmt.Sprintf("make the folder of the store: %v", err), Remedy: "set KANIKO_BUILD_STATE to a directory that you may write to"}
	}
	tmp, release, err := temporary(parent)
	if err != nil {
		return sandbox.Report{}, &executor.MachineError{What: fmt.Sprintf("the store cannot be written: %v", err), Remedy: "set KANIKO_BUILD_STATE to a directory that you may write to"}
	}
	rep := sandbox.Probe(ctx, tmp, sandbox.Rung(r.Rung), r.Force)
	return rep, release()
}

// temporary makes a folder below the store's one for temporary files. Its lock
// tells the sweep of another build, which may start at the same time, that
// somebody lives; it is taken before there is anything to sweep.
func temporary(parent string) (dir string, release func() error, err error) {
	for {
		f, err := os.CreateTemp(parent, "probe-*"+store.Guard)
		if err != nil {
			return "", nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			continue // a sweep looks at it, and takes it away
		}
		mine, err1 := f.Stat()
		there, err2 := os.Lstat(f.Name())
		if err1 != nil || err2 != nil || !os.SameFile(mine, there) {
			f.Close()
			continue
		}
		dir := strings.TrimSuffix(f.Name(), store.Guard)
		if err := os.Mkdir(dir, 0o700); err != nil {
			return "", nil, errors.Join(err, os.Remove(f.Name()), f.Close())
		}
		return dir, func() error { return errors.Join(os.RemoveAll(dir), os.Remove(f.Name()), f.Close()) }, nil
	}
}

func (r *Runner) choose(rep sandbox.Report) (executor.Isolation, error) {
	if r.Rung == "" {
		if rep.Best == "" {
			return executor.Isolation{}, &executor.MachineError{What: rep.Err().Error()}
		}
		for _, c := range rep.Rungs {
			if c.OK {
				return executor.Isolation{Rung: c.Rung, IDs: c.Map, Walk: c.Walk}, nil
			}
		}
	}
	for _, c := range rep.Rungs {
		if string(c.Rung) == r.Rung {
			if !c.OK {
				return executor.Isolation{}, &executor.MachineError{What: fmt.Sprintf("isolation %s is not to be had: %s", c.Rung, c.Why), Remedy: c.Remedy}
			}
			return executor.Isolation{Rung: c.Rung, IDs: c.Map, Walk: c.Walk}, nil
		}
	}
	return executor.Isolation{}, &executor.MachineError{What: fmt.Sprintf("no kind of isolation %q", r.Rung), Remedy: "choose userns, userns-single or inplace"}
}

type remembered struct {
	Stamp     string
	Asked     string
	Isolation executor.Isolation
}

func memoPath(dir string) string { return filepath.Join(dir, store.Isolation) }

// stamp changes when the answer may: another boot, program, user or table of
// subordinate ids.
func stamp() string {
	parts := []string{fmt.Sprint(os.Getuid())}
	if b, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		parts = append(parts, strings.TrimSpace(string(b)))
	}
	for _, p := range []string{"/proc/self/exe", "/etc/subuid", "/etc/subgid", "/usr/bin/newuidmap"} {
		var st unix.Stat_t
		if unix.Stat(p, &st) == nil {
			parts = append(parts, fmt.Sprintf("%d.%d.%d", st.Ino, st.Size, st.Mtim.Nano()))
		} else {
			parts = append(parts, "-")
		}
	}
	parts = append(parts, sandbox.Container())
	for _, p := range []string{"/proc/sys/user/max_user_namespaces", "/proc/sys/kernel/unprivileged_userns_clone", "/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "/proc/self/uid_map", "/proc/self/attr/current"} {
		b, _ := os.ReadFile(p) // absent on most kernels, and then equal
		parts = append(parts, strings.Join(strings.Fields(string(b)), " "))
	}
	return strings.Join(parts, ";")
}

func recall(memo, stamp, asked string) (executor.Isolation, bool) {
	f, err := os.OpenFile(memo, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return executor.Isolation{}, false
	}
	defer f.Close()
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil || int(st.Uid) != os.Getuid() {
		return executor.Isolation{}, false
	}
	var m remembered
	if json.NewDecoder(f).Decode(&m) != nil || m.Stamp != stamp || m.Asked != asked {
		return executor.Isolation{}, false
	}
	return m.Isolation, true
}

// remember leaves m for the next run, which probes again if that fails. The file is
// whole from when it has its name, and what a killed run leaves of it is swept.
func remember(dir string, m remembered) {
	b, err := json.Marshal(m)
	if err != nil {
		return
	}
	tmp, release, err := temporary(filepath.Join(dir, "tmp"))
	if err != nil {
		return
	}
	if name := filepath.Join(tmp, store.Isolation); os.WriteFile(name, b, 0o600) == nil {
		_ = os.Rename(name, memoPath(dir))
	}
	_ = release()
}
