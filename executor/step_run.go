package executor

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/copier"
	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/executor/internal/rootfs"
	"kaniko-build/executor/internal/sandbox"
	"kaniko-build/schema/diag"
)

// tailLines is how much of a failed step's output its error repeats.
const tailLines = 20

// run executes a RUN over the stack base, with its changes in up.
func (c *core) run(ctx context.Context, st *jobStage, s *jobStep, sources map[string][]rootfs.Layer, base *stack, up *upper) (err error) {
	r := s.Run
	user, err := copier.LookupUser(ctx, base.view, r.User)
	if err != nil {
		return err
	}
	if err := c.has(user); err != nil {
		return err
	}
	out := &lines{emit: func(data string) { c.event(st, s, Event{Kind: Log, Data: data}) }}
	spec, err := runSpec(r, user, out)
	if err != nil {
		return err
	}
	spec.Lower, spec.Upper, spec.Work, spec.Devices = base.dirs, up.dir, up.work, rootfs.HasDevices(base.dirs)
	if len(base.dirs) == 0 { // an overlay wants something below
		empty := filepath.Join(up.scratch, "empty")
		if err := os.Mkdir(empty, 0o755); err != nil {
			return fmt.Errorf("make an empty root: %w", err)
		}
		spec.Lower = []string{empty}
	}
	m := mounter{core: c, step: s, sources: sources, scratch: up.scratch}
	defer func() { err = errors.Join(err, m.close()) }()
	if err := m.add(ctx, &spec, r); err != nil {
		return err
	}
	stubs, err := c.mountpoints(ctx, &spec, base, up)
	if err != nil {
		return err
	}
	if c.job.Goes {
		spec.Going = func(p *sandbox.Process) { c.going.begin(p, spec.Dir, out.emit) }
	}
	res, err := c.command(ctx, spec, out)
	if err != nil {
		return err
	}
	if err := stubs.Remove(ctx); err != nil {
		return err
	}
	return up.own(ctx, res.Owners)
}

// runSpec is what all RUNs have in common, wherever they happen.
func runSpec(r *dockerfile.Run, user copier.User, out io.Writer) (sandbox.RunSpec, error) {
	spec := sandbox.RunSpec{
		Argv: r.Argv, Env: slices.Concat(r.Env, r.ProxyEnv), Dir: r.Dir, Hostname: r.Hostname,
		UID: user.UID, GID: user.GID, Groups: user.Groups, Stdout: out, Stderr: out,
	}
	if r.Network == "none" {
		spec.Network = sandbox.NoNetwork
	}
	if !hasEnv(spec.Env, "HOME") {
		spec.Env = append(spec.Env, "HOME="+user.Home)
	}
	var err error
	spec.Mounts, err = etcMounts(r)
	return spec, err
}

// command runs what spec says. One that fails is an *exitError.
func (c *core) command(ctx context.Context, spec sandbox.RunSpec, out *lines) (sandbox.Result, error) {
	ctx, stop := c.memory.during(ctx)
	defer stop()
	ends := memoryEnds()
	res, err := c.box.Run(ctx, spec)
	out.flush()
	var exec *sandbox.ExecError
	switch {
	case errors.As(err, &exec):
		return res, &exitError{code: exec.Code, argv: spec.Argv, tail: append(out.tail, exec.Text)}
	case err == nil && res.Exit != 0:
		return res, &exitError{code: res.Exit, argv: spec.Argv, tail: out.tail, starved: memoryEnds() > ends}
	}
	return res, err
}

// mountpoints makes the places that must exist before a RUN. Some stay in the
// image as with BuildKit. The working directory belongs to the RUN's user if no
// WORKDIR made it, or if it is gone.
func (c *core) mountpoints(ctx context.Context, spec *sandbox.RunSpec, base *stack, up *upper) (*rootfs.Stubs, error) {
	targets := []rootfs.Target{{Path: spec.Dir, Keep: true, Owner: &[2]uint32{spec.UID, spec.GID}}}
	points := spec.MountPoints()
	for _, p := range points {
		keep := p.Path == "/proc" || p.Path == "/sys" || p.Path == "/dev"
		targets = append(targets, rootfs.Target{Path: p.Path, File: !p.Dir, Keep: keep})
	}
	stubs, err := rootfs.Stack{Dirs: base.dirs}.Stubs(ctx, up.dir, targets, c.maker)
	if err != nil {
		return nil, err
	}
	for i, p := range points {
		for k := range spec.Mounts {
			m := &spec.Mounts[k]
			if m.Kind == sandbox.TmpfsMount && m.Target == p.Path && stubs.Made(i+1) {
				m.Mode = 0o1777 // one that covers a directory has its mode
			}
		}
	}
	return stubs, nil
}

// has tells whether a process can be user here. With a single id it only says
// that it is.
func (c *core) has(user copier.User) error {
	ids := c.job.IDs
	if ids.Single() {
		return nil
	}
	what := ""
	if !ids.ContainsUID(user.UID) {
		what = fmt.Sprintf("user %d", user.UID)
	}
	for _, g := range append(user.Groups, user.GID) {
		if what == "" && !ids.ContainsGID(g) {
			what = fmt.Sprintf("group %d", g)
		}
	}
	if what == "" {
		return nil
	}
	return &diag.Problem{What: fmt.Sprintf("no process can be %s: a build has the ids 0 to 65535 of its own, or what /etc/subuid and /etc/subgid give", what),
		Hint: "set USER to a smaller id for RUN, and to this one after the last RUN"}
}

func hasEnv(env []string, name string) bool {
	return slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
}

// etcMounts are the files by which a RUN finds names: those of the host, as the
// node has them, and a line for the container's own name.
func etcMounts(r *dockerfile.Run) ([]sandbox.Mount, error) {
	var out []sandbox.Mount
	for _, name := range []string{"/etc/resolv.conf", "/etc/hosts"} {
		data, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("read the node's %s: %w", name, err)
		}
		if name == "/etc/hosts" {
			host := r.Hostname
			if host == "" {
				host = "buildkitsandbox"
			}
			data = append(bytes.TrimRight(data, "\n"), []byte("\n127.0.0.1 "+host+"\n")...)
			for _, h := range r.ExtraHosts {
				data = fmt.Appendf(data, "%s %s\n", h.IP, h.Host)
			}
		}
		out = append(out, sandbox.Mount{Kind: sandbox.FileMount, Target: name, ReadOnly: true, Data: data, Mode: 0o644})
	}
	for _, f := range r.Files {
		out = append(out, sandbox.Mount{Kind: sandbox.FileMount, Target: f.Path, ReadOnly: true, Data: []byte(f.Data), Mode: f.Mode})
	}
	return out, nil
}

// mounter prepares what --mount asks for, and takes it away again.
type mounter struct {
	core    *core
	step    *jobStep
	sources map[string][]rootfs.Layer
	scratch string
	short   string // a folder with a short path; "" is /tmp
	n       int
	caches  map[string]string // directories by cacheID
	undo    []func() error
}

func (m *mounter) close() error {
	var err error
	for _, f := range slices.Backward(m.undo) {
		err = errors.Join(err, f())
	}
	return err
}

func (m *mounter) dir() string {
	m.n++
	return filepath.Join(m.scratch, fmt.Sprintf("mount%d", m.n))
}

func (m *mounter) add(ctx context.Context, spec *sandbox.RunSpec, r *dockerfile.Run) error {
	if err := m.holdCaches(ctx, r.Mounts); err != nil {
		return err
	}
	agents := 0
	for i := range r.Mounts {
		mt := &r.Mounts[i]
		var err error
		switch mt.Type {
		case dockerfile.MountTmpfs:
			spec.Mounts = append(spec.Mounts, sandbox.Mount{Kind: sandbox.TmpfsMount, Target: mt.Target, Size: mt.Size})
		case dockerfile.MountSecret:
			err = m.secret(ctx, spec, mt)
		case dockerfile.MountSSH:
			err = m.ssh(ctx, spec, mt, agents)
			agents++
		case dockerfile.MountCache:
			err = m.cache(ctx, spec, mt)
		case dockerfile.MountBind:
			err = m.bind(ctx, spec, mt)
		default:
			err = fmt.Errorf("internal error: mount type %q", mt.Type)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *mounter) secret(ctx context.Context, spec *sandbox.RunSpec, mt *dockerfile.Mount) error {
	value, ok, err := m.core.host.Secret(ctx, mt.ID)
	if err != nil {
		return err
	}
	if !ok {
		if mt.Required {
			return fmt.Errorf("secret %s: not found", mt.ID)
		}
		value = nil
	}
	if mt.Env != "" { // set without a secret too, over one of the image
		spec.Env = slices.DeleteFunc(spec.Env, func(e string) bool { return strings.HasPrefix(e, mt.Env+"=") })
		spec.Env = append(spec.Env, mt.Env+"="+string(value))
	}
	if ok && mt.Target != "" {
		mode := uint32(0o400)
		if mt.Mode != nil {
			mode = *mt.Mode
		}
		spec.Mounts = append(spec.Mounts, sandbox.Mount{Kind: sandbox.FileMount, Target: mt.Target, ReadOnly: true, Secret: true, Data: value, Mode: mode, UID: mt.UID, GID: mt.GID})
	}
	return nil
}

// ssh serves a socket in the container that leads to the agent outside.
func (m *mounter) ssh(ctx context.Context, spec *sandbox.RunSpec, mt *dockerfile.Mount, n int) error {
	probe, err := m.core.host.Agent(ctx, mt.ID)
	if err != nil {
		return err
	}
	if probe == nil {
		if mt.Required {
			return fmt.Errorf("no SSH key %q forwarded from the client", mt.ID)
		}
		return nil
	}
	probe.Close()
	dir, err := os.MkdirTemp(cmp.Or(m.short, "/tmp"), "ssh") // socket paths are short
	if err != nil {
		return fmt.Errorf("make a place for the ssh socket: %w", err)
	}
	m.undo = append(m.undo, func() error { return os.RemoveAll(dir) })
	path := filepath.Join(dir, "agent")
	l, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("listen for ssh: %w", err)
	}
	mode := uint32(0o600)
	if mt.Mode != nil {
		mode = *mt.Mode
	}
	err = os.Lchown(path, int(mt.UID), int(mt.GID))
	if errors.Is(err, unix.EINVAL) { // an owner that we lack: the mount tells
		err = nil
	}
	if err := errors.Join(err, os.Chmod(path, os.FileMode(mode))); err != nil {
		return errors.Join(fmt.Errorf("set owner of the ssh socket: %w", err), l.Close())
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed: the step is over
			}
			wg.Go(func() { m.forward(ctx, conn, mt.ID) })
		}
	})
	m.undo = append(m.undo, func() error { cancel(); err := l.Close(); wg.Wait(); return err })
	target := mt.Target
	if target == "" {
		target = fmt.Sprintf("/run/buildkit/ssh_agent.%d", n)
	}
	spec.Mounts = append(spec.Mounts, sandbox.Mount{Kind: sandbox.BindMount, Target: target, Source: path, UID: mt.UID, GID: mt.GID})
	if !hasEnv(spec.Env, "SSH_AUTH_SOCK") {
		spec.Env = append(spec.Env, "SSH_AUTH_SOCK="+target)
	}
	return nil
}

func (m *mounter) forward(ctx context.Context, conn net.Conn, id string) {
	defer conn.Close()
	f, err := m.core.host.Agent(ctx, id)
	if err != nil || f == nil {
		return // the client sees a closed agent
	}
	agent, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return
	}
	defer agent.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close(); agent.Close() })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(agent, conn); agent.Close() })
	_, _ = io.Copy(conn, agent)
	conn.Close()
	wg.Wait()
}

// bind shows files of a context, stage or image. What a RUN writes there is
// seen by it alone and dropped.
func (m *mounter) bind(ctx context.Context, spec *sandbox.RunSpec, mt *dockerfile.Mount) error {
	if m.core.root != nil {
		return m.copied(ctx, spec, mt)
	}
	var dirs []string
	switch mt.From.Kind {
	case dockerfile.FromStage, dockerfile.FromImage:
		s, err := m.core.open(ctx, m.sources[sourceKey(mt.From)])
		if err != nil {
			return err
		}
		defer s.Close()
		if _, err := lookup(ctx, s.view, mt.Source); err != nil {
			return err
		}
		dirs = s.dirs
		spec.Devices = spec.Devices || rootfs.HasDevices(dirs)
	case dockerfile.FromScratch:
	default:
		dir := m.dir()
		if err := m.core.materialize(ctx, mt, dir); err != nil {
			return err
		}
		dirs = []string{dir}
	}
	at, err := m.overlay(ctx, dirs, !mt.ReadOnly)
	if err != nil {
		return err
	}
	spec.Mounts = append(spec.Mounts, sandbox.Mount{Kind: sandbox.BindMount, Target: mt.Target, Source: at, Sub: mt.Source, ReadOnly: mt.ReadOnly})
	return nil
}

// overlay mounts layers for a bind; with write they get an upper to lose.
func (m *mounter) overlay(ctx context.Context, dirs []string, write bool) (string, error) {
	if len(dirs) == 0 {
		empty := m.dir()
		if err := os.Mkdir(empty, 0o755); err != nil {
			return "", fmt.Errorf("make an empty root: %w", err)
		}
		dirs = []string{empty}
	}
	at, scratch := m.dir(), m.dir()
	for _, d := range []string{at, scratch} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return "", fmt.Errorf("make a mount point: %w", err)
		}
	}
	stack := rootfs.Stack{Dirs: dirs}
	var err error
	if write {
		upper := filepath.Join(scratch, "upper")
		if err := stack.NewUpper(upper); err != nil {
			return "", err
		}
		err = stack.Mount(ctx, at, upper, filepath.Join(scratch, "work"))
	} else {
		err = stack.MountReadOnly(ctx, at, filepath.Join(scratch, "none"))
	}
	if err != nil {
		return "", err
	}
	m.undo = append(m.undo, func() error { return rootfs.Unmount(at) })
	return at, nil
}

// lines cuts output into whole lines for events and remembers the last ones.
type lines struct {
	emit func(string)

	mu   sync.Mutex
	part []byte
	tail []string
}

const maxLine = 64 << 10 // a line beyond it is shown in parts

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.part = append(l.part, p...)
	end := bytes.LastIndexByte(l.part, '\n') + 1
	if end == 0 && len(l.part) > maxLine {
		end = len(l.part)
	}
	if end > 0 {
		l.send(string(l.part[:end]))
		l.part = append(l.part[:0], l.part[end:]...)
	}
	return len(p), nil
}

func (l *lines) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.part) > 0 {
		l.send(string(l.part) + "\n")
		l.part = nil
	}
}

func (l *lines) send(data string) {
	for line := range strings.Lines(data) {
		l.tail = append(l.tail, strings.TrimRight(line, "\r\n"))
	}
	if extra := len(l.tail) - tailLines; extra > 0 {
		l.tail = append(l.tail[:0], l.tail[extra:]...)
	}
	l.emit(data)
}
