package rig

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Docker is Debian's docker.io engine, with data, sockets and a containerd of
// its own. It has no bridge and leaves the firewall alone.
type Docker struct {
	Host string // value for DOCKER_HOST
	Log  string // file with what engine and containerd say

	dir    string
	parent string // cgroup that all its containers are in
}

// dockerClient is Debian's; another may stand earlier in PATH.
const dockerClient = "/usr/bin/docker"

// engine starts the two daemons as process 1 and its children, of a pid and a
// mount namespace: whatever they and their containers leave ends with it.
const engine = `
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
containerd --config "$1/containerd.toml" &
NOTIFY_SOCKET=$1/ready dockerd --config-file "$1/daemon.json" --containerd "$1/containerd.sock" --pidfile "$1/pid" \
	--host "unix://$1/docker.sock" --data-root "$1/data" --exec-root "$1/exec" --cgroup-parent "$2" \
	--bridge none --iptables=false --ip6tables=false --ip-masq=false --ip-forward=false --oom-score-adjust 0 &
wait $!
`

// StartDocker starts an engine without images that ends with the test.
func StartDocker(t testing.TB) *Docker {
	t.Helper()
	return startDocker(t, false)
}

// StartOpenDocker starts an engine whose default containers have no seccomp
// filter, as pods of many clusters: user namespaces are allowed.
func StartOpenDocker(t testing.TB) *Docker {
	t.Helper()
	return startDocker(t, true)
}

func startDocker(t testing.TB, open bool) *Docker {
	t.Helper()
	NeedRoot(t)
	for _, program := range []string{"dockerd", "containerd", "runc", dockerClient} {
		Need(t, program, "docker.io")
	}
	d, stop, err := RunDocker(Space(t, nil), open)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// RunDocker starts an engine for who is no test, with all of its files in dir, an
// empty directory; open leaves the seccomp filter out. It runs until stop.
func RunDocker(dir string, open bool) (_ *Docker, stop func() error, err error) {
	d := &Docker{
		Host: "unix://" + dir + "/docker.sock", Log: filepath.Join(dir, "log"),
		dir: dir, parent: "/" + filepath.Base(dir),
	}
	profile := ""
	if open {
		profile = `, "seccomp-profile": "` + dir + `/seccomp.json"`
	}
	for name, text := range map[string]string{
		"daemon.json":  `{"deprecated-key-path": "` + dir + `/key.json"` + profile + `}`,
		"seccomp.json": `{"defaultAction": "SCMP_ACT_ALLOW"}`,
		"containerd.toml": fmt.Sprintf(`version = 2
root = "%[1]s/containerd"
state = "%[1]s/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "%[1]s/containerd.sock"
`, dir),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, nil, err
		}
	}
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: dir + "/ready"})
	if err != nil {
		return nil, nil, err
	}
	defer ready.Close()
	log, err := os.Create(d.Log)
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	cmd := exec.Command("/bin/sh", "-c", engine, "sh", dir, d.parent)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	done, started := make(chan struct{}), make(chan error)
	go func() {
		// It is killed when the thread ends that started it, so that thread has to
		// be one that nobody else can end.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(done)
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
			ready.Close()
		}
	}()
	if err := <-started; err != nil {
		return nil, nil, err
	}
	stop = func() error {
		cmd.Process.Kill()
		<-done // its namespaces and all that ran in them are gone
		return d.removeCgroups()
	}
	// A daemon tells systemd that it is ready; here it is us.
	err = ready.SetReadDeadline(time.Now().Add(time.Minute))
	for b := make([]byte, 4096); err == nil; {
		var n int
		if n, err = ready.Read(b); strings.Contains(string(b[:n]), "READY=1") {
			return d, stop, nil
		}
	}
	return nil, nil, errors.Join(fmt.Errorf("docker does not start: %w\n%s", err, d.logTail()), stop())
}

func (d *Docker) logTail() string {
	b, _ := os.ReadFile(d.Log)
	return Output{Stdout: string(b)}.Tail(20)
}

// removeCgroups removes the cgroups of its containers, deepest first, in every
// hierarchy of version 1, or in the one of version 2.
func (d *Docker) removeCgroups() error {
	var err error
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		tops, _ := filepath.Glob(pattern + d.parent)
		for _, top := range tops {
			var dirs []string
			filepath.WalkDir(top, func(p string, e os.DirEntry, err error) error {
				if err == nil && e.IsDir() {
					dirs = append(dirs, p)
				}
				return nil
			})
			for _, p := range slices.Backward(dirs) {
				err = errors.Join(err, removeCgroup(p))
			}
		}
	}
	return err
}

// removeCgroup waits for processes in it that are just ending.
func removeCgroup(dir string) error {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := syscall.Rmdir(dir)
		if err == nil || errors.Is(err, syscall.ENOENT) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("rmdir %s: %w", dir, err)
		}
	}
}

// Env is what a program needs to use this engine through Debian's client.
func (d *Docker) Env() []string {
	return []string{"DOCKER_HOST=" + d.Host, "DOCKER_CONFIG=" + filepath.Join(d.dir, "client")}
}

// Containerd is the address of the containerd below the engine, for CONTAINERD_ADDRESS.
func (d *Docker) Containerd() string { return filepath.Join(d.dir, "containerd.sock") }

// Client runs the docker command. It is for what a test does beside its
// containers; containers are made by Run and Start.
func (d *Docker) Client(t testing.TB, args ...string) Output {
	t.Helper()
	return d.client(t, nil, 0, args...)
}

func (d *Docker) client(t testing.TB, stdin []byte, timeout time.Duration, args ...string) Output {
	t.Helper()
	root := &Account{Name: "root", Home: d.dir}
	return root.Run(t, Call{Stdin: stdin, Timeout: timeout, Env: d.Env()}, append([]string{dockerClient}, args...)...)
}

func (d *Docker) must(t testing.TB, args ...string) string {
	t.Helper()
	o := d.Client(t, args...)
	if o.Code != 0 {
		t.Fatalf("docker %s: exit code %d\n%s\n%s", strings.Join(args, " "), o.Code, o.All(), d.logTail())
	}
	return o.Stdout
}

// Load takes an image from an archive (docker or OCI with a name).
func (d *Docker) Load(t testing.TB, archive string) {
	t.Helper()
	d.must(t, "load", "--quiet", "--input", archive)
}

// Pull takes an image from a registry; one on loopback may speak http.
func (d *Docker) Pull(t testing.TB, ref string) {
	t.Helper()
	d.must(t, "pull", "--quiet", ref)
}

// Mount shows a file or directory of the machine in a container.
type Mount struct {
	Source   string
	Target   string
	ReadOnly bool
}

// Container is how a container is made: Docker's default one, but that it is in
// the machine's network, as the engine has no other.
type Container struct {
	Image      string
	Entrypoint string // instead of the image's
	Args       []string
	Env        []string
	Mounts     []Mount
	Workdir    string
	User       string
	Memory     int64   // bytes; 0 has no limit. Swap is not added to it
	CPUs       float64 // 0 has no limit
	Stdin      []byte
	Flags      []string // more flags of docker create, but for those that give privilege
	Timeout    time.Duration
}

// privilege are flags that make a container another than the default one.
var privilege = []string{
	"privileged", "cap-add", "security-opt", "device", "device-cgroup-rule", "userns", "pid", "ipc", "uts", "cgroupns",
	"cgroup-parent", "group-add", "runtime", "sysctl", "gpus", "volumes-from",
}

// refused tells which of flags the rig does not pass on.
func refused(flags []string) string {
	for _, f := range flags {
		name, _, _ := strings.Cut(strings.TrimLeft(f, "-"), "=")
		if strings.HasPrefix(f, "--") && slices.Contains(privilege, name) {
			return f
		}
	}
	return ""
}

func (c *Container) args() []string {
	args := []string{"create", "--network", "host", "--interactive"}
	for _, m := range c.Mounts {
		spec := m.Source + ":" + m.Target
		if m.ReadOnly {
			spec += ":ro"
		}
		args = append(args, "--volume", spec)
	}
	for _, e := range c.Env {
		args = append(args, "--env", e)
	}
	if c.Memory > 0 {
		n := strconv.FormatInt(c.Memory, 10)
		args = append(args, "--memory", n, "--memory-swap", n)
	}
	if c.CPUs > 0 {
		args = append(args, "--cpus", strconv.FormatFloat(c.CPUs, 'f', -1, 64))
	}
	for flag, value := range map[string]string{"--entrypoint": c.Entrypoint, "--workdir": c.Workdir, "--user": c.User} {
		if value != "" {
			args = append(args, flag, value)
		}
	}
	return append(append(append(args, c.Flags...), c.Image), c.Args...)
}

// create makes a container that is removed by whoever asked for it.
func (d *Docker) create(t testing.TB, c Container) string {
	t.Helper()
	id, err := d.Create(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// Create makes a container and looks at what the engine made of it: a default
// one, or an error. It is removed by Remove.
func (d *Docker) Create(ctx context.Context, c Container) (id string, err error) {
	if f := refused(c.Flags); f != "" {
		return "", fmt.Errorf("rig: %s makes another container than the default one", f)
	}
	out, err := d.Command(ctx, c.args()...).Output()
	if err != nil {
		return "", d.failed("create", err)
	}
	id = strings.TrimSpace(string(out))
	var got []struct {
		HostConfig struct {
			Privileged                             bool
			CapAdd, SecurityOpt, Devices, GroupAdd []any
			PidMode, UsernsMode, UTSMode           string
		}
	}
	if out, err = d.Command(ctx, "inspect", id).Output(); err != nil {
		return "", d.failed("inspect", err)
	}
	if err := json.Unmarshal(out, &got); err != nil || len(got) != 1 {
		return "", fmt.Errorf("docker inspect: %d answers, %w", len(got), err)
	}
	h := got[0].HostConfig
	if h.Privileged || len(h.CapAdd)+len(h.SecurityOpt)+len(h.Devices)+len(h.GroupAdd) > 0 || h.PidMode+h.UsernsMode+h.UTSMode != "" {
		return "", fmt.Errorf("rig: not a default container: %+v", h)
	}
	return id, nil
}

// Remove ends a container, if it runs, and takes away all of it, also when ctx
// has ended.
func (d *Docker) Remove(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if out, err := d.Command(ctx, "rm", "--force", "--volumes", id).CombinedOutput(); err != nil {
		return fmt.Errorf("docker rm: %w\n%s", err, out)
	}
	return nil
}

// Command prepares a call of the docker command, for who is no test.
func (d *Docker) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, dockerClient, args...)
	cmd.Env = append(os.Environ(), d.Env()...)
	return cmd
}

func (d *Docker) failed(what string, err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("docker %s: %w\n%s\n%s", what, err, exit.Stderr, d.logTail())
	}
	return fmt.Errorf("docker %s: %w", what, err)
}

// Run makes a container, runs it to its end and removes it.
func (d *Docker) Run(t testing.TB, c Container) Output {
	t.Helper()
	r := &Running{d: d, ID: d.create(t, c)}
	defer r.remove(t)
	return d.client(t, c.Stdin, c.Timeout, "start", "--attach", "--interactive", r.ID)
}

// Running is a container whose process goes on while a test uses it.
type Running struct {
	ID string
	d  *Docker
}

// Start makes a container and starts it; it is removed when the test ends. Its
// Args have to be something that waits.
func (d *Docker) Start(t testing.TB, c Container) *Running {
	t.Helper()
	r := &Running{d: d, ID: d.create(t, c)}
	t.Cleanup(func() { r.remove(t) })
	d.must(t, "start", r.ID)
	return r
}

// Exec runs one more program in it.
func (r *Running) Exec(t testing.TB, c Call, argv ...string) Output {
	t.Helper()
	args := []string{"exec", "--interactive"}
	for _, e := range c.Env {
		args = append(args, "--env", e)
	}
	if c.Dir != "" {
		args = append(args, "--workdir", c.Dir)
	}
	return r.d.client(t, c.Stdin, c.Timeout, append(append(args, r.ID), argv...)...)
}

// Says waits until the container's first process has written text, for a minute at
// most.
func (r *Running) Says(t testing.TB, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, dockerClient, "logs", "--follow", r.ID)
	cmd.Env = append(os.Environ(), r.d.Env()...)
	out, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.CloseWithError(cmp.Or(cmd.Wait(), io.EOF))
	}()
	defer func() { cancel(); out.Close(); <-done }()
	var all strings.Builder
	for s := bufio.NewScanner(out); s.Scan(); {
		if strings.Contains(s.Text(), text) {
			return
		}
		all.WriteString(s.Text() + "\n")
	}
	t.Fatalf("container %s never said %q:\n%s", r.ID, text, &all)
}

// Kill ends all of the container at once.
func (r *Running) Kill(t testing.TB) {
	t.Helper()
	r.d.must(t, "kill", r.ID)
}

// PID is the container's first process, as the test sees it.
func (r *Running) PID(t testing.TB) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(r.cgroup(t, "pids"), "cgroup.procs"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := bytes.Cut(b, []byte("\n"))
	pid, err := strconv.Atoi(string(first))
	if err != nil {
		t.Fatalf("container %s has no process: %v", r.ID, err)
	}
	return pid
}

// PeakMemory is the most memory, in bytes, that was charged to the container so
// far, with what the kernel keeps of the files that it used. Under a limit the
// kernel gives that up first, so only a limit tells what a program needs.
func (r *Running) PeakMemory(t testing.TB) int64 {
	t.Helper()
	n, err := peakOf(r.cgroup(t, "memory"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// cgroup is the container's directory for a controller.
func (r *Running) cgroup(t testing.TB, controller string) string {
	t.Helper()
	dir := r.d.cgroup(controller, r.ID)
	if dir == "" {
		t.Fatalf("no cgroup of container %s for %s", r.ID, controller)
	}
	return dir
}

// cgroup is the directory of a container's cgroup; "" when there is none.
func (d *Docker) cgroup(controller, id string) string {
	for _, top := range []string{"/sys/fs/cgroup/" + controller, "/sys/fs/cgroup"} {
		dir := filepath.Join(top, d.parent, id)
		if _, err := os.Stat(dir); err == nil {
			return dir
		}
	}
	return ""
}

// remove takes the container away. The test's context may have ended.
func (r *Running) remove(t testing.TB) {
	t.Helper()
	if err := r.d.Remove(t.Context(), r.ID); err != nil {
		t.Error(err)
	}
}
