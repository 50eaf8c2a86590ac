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
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if code, ok := Reexec(map[string]Entry{"jobs": jobs, "hang": hang, "fail": failing, "panic": panicking, "look": look1, "many": many, "links": links, "memory": holding}); ok {
		os.Exit(code)
	}
	if len(os.Args) == 3 && os.Args[1] == "start-node" && os.Getenv("SANDBOX_TEST_PARENT") != "" {
		os.Exit(startAndHang(os.Args[2]))
	}
	os.Exit(m.Run())
}

// job is one RUN that a test wants done in a node; answer is what came of it.
type job struct {
	Spec   RunSpec
	Cancel time.Duration // after the first output
	Beside [][]string    // commands that run beside it after its first output
}

type answer struct {
	Exit         int
	Out, Err     string
	Error        string
	ExecCode     int
	Took         time.Duration
	Owners       []Owner
	MountsBefore int
	MountsAfter  int
	Processes    []string // left after the RUN, seen by the node
	Beside       []string // what came of each command
}

// jobs is a node that runs the jobs it is told on Files[0] and answers on Files[1].
func jobs(ctx context.Context, in *Inside) error {
	d, e := json.NewDecoder(in.Files[0]), json.NewEncoder(in.Files[1])
	for {
		var j job
		if err := d.Decode(&j); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := e.Encode(perform(ctx, in, j)); err != nil {
			return err
		}
	}
}

func perform(ctx context.Context, in *Inside, j job) answer {
	a := answer{MountsBefore: countMounts()}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var out, errOut bytes.Buffer
	j.Spec.Stdout, j.Spec.Stderr = &out, &errOut
	if j.Cancel > 0 {
		j.Spec.Stdout = writerFunc(func(p []byte) (int, error) {
			time.AfterFunc(j.Cancel, cancel)
			return out.Write(p)
		})
	}
	wait := func() {}
	if len(j.Beside) > 0 {
		wait = beside(ctx, &j, &out, &a)
	}
	begin := time.Now()
	r, err := in.Run(ctx, j.Spec)
	wait()
	a.Took = time.Since(begin)
	a.Exit, a.Owners, a.Out, a.Err = r.Exit, r.Owners, out.String(), errOut.String()
	if err != nil {
		a.Error = err.Error()
		var x *ExecError
		if errors.As(err, &x) {
			a.ExecCode = x.Code
		}
	}
	a.MountsAfter = countMounts()
	procs, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, p := range procs {
		if p != "/proc/1/comm" {
			a.Processes = append(a.Processes, p)
		}
	}
	return a
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func countMounts() int {
	data, _ := os.ReadFile("/proc/self/mountinfo")
	return bytes.Count(data, []byte("\n"))
}

func hang(ctx context.Context, in *Inside) error { select {} }

func failing(ctx context.Context, in *Inside) error {
	return fmt.Errorf("did not like it: %w", os.ErrNotExist)
}

func panicking(ctx context.Context, in *Inside) error { panic("on purpose") }

// lab is a node for a test, with a store directory.
type lab struct {
	t     testing.TB
	m     IDMap
	store string // as the host sees it
	node  *Node
	to    *json.Encoder
	from  *json.Decoder
	n     int

	killed bool // by the test
}

// bestHere is the rung the user of the test must get, see TestAsOrdinaryUsers.
func bestHere() Rung {
	if r := os.Getenv("SANDBOX_TEST_RUNG"); r != "" {
		return Rung(r)
	}
	return Userns
}

// here is the candidate for the test's user.
func here(t testing.TB) Candidate {
	t.Helper()
	for _, c := range Candidates() {
		if c.Rung == bestHere() {
			if c.Why != "" {
				t.Skipf("needs user namespaces: %s (%s)", c.Why, c.Remedy)
			}
			return c
		}
	}
	t.Fatal("no candidate")
	return Candidate{}
}

// full skips a test on a rung with one id.
func (l *lab) full() {
	l.t.Helper()
	if l.m.Single() {
		l.t.Skip("needs a range of ids")
	}
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skipf("needs root; this is user %d", os.Geteuid())
	}
}

// storeDir makes a store for a map, reachable through closed directories only.
func storeDir(t testing.TB, m IDMap) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "sandbox-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		removeAll(dir)
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s cannot be removed", dir)
		}
	})
	store := filepath.Join(dir, "store")
	if err := os.Mkdir(store, 0o710); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		gid, _ := m.HostGID(0)
		uid, _ := m.HostUID(0)
		if err := os.Chown(store, 0, int(gid)); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(store, "layers"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(store, "layers"), int(uid), int(gid)); err != nil {
			t.Fatal(err)
		}
	} else if err := os.Mkdir(filepath.Join(store, "layers"), 0o755); err != nil {
		t.Fatal(err)
	}
	return store
}

// removeAll removes what the node left, with overlay's closed directories.
func removeAll(dir string) {
	filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if e != nil && e.IsDir() {
			os.Chmod(p, 0o700)
		}
		return nil
	})
	os.RemoveAll(dir)
}

func newLab(t testing.TB) *lab { return newLabOn(t, here(t)) }

func newLabOn(t testing.TB, c Candidate) *lab {
	t.Helper()
	rung, m := c.Rung, c.Map
	l := &lab{t: t, m: m, store: storeDir(t, m)}
	toR, toW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fromR, fromW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	l.node, err = StartNode(t.Context(), NodeSpec{Rung: rung, Map: m, Store: l.store, Entry: "jobs", Env: []string{"SECRET_OF_NODE=1"}, Files: []*os.File{toR, fromW}})
	toR.Close()
	fromW.Close()
	if err != nil {
		t.Fatal(err)
	}
	l.to, l.from = json.NewEncoder(toW), json.NewDecoder(fromR)
	t.Cleanup(func() {
		toW.Close()
		select {
		case <-l.node.Done():
			if err := l.node.Wait(); err != nil && !l.killed {
				t.Errorf("node: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the node did not end")
		}
		l.node.Close()
		fromR.Close()
	})
	return l
}

// dir makes a fresh directory in the store, owned by the map's root, and
// returns its path in the node.
func (l *lab) dir() string {
	l.t.Helper()
	l.n++
	name := fmt.Sprintf("%03d", l.n)
	l.mkdir(filepath.Join("layers", name), 0o755)
	return StorePath + "/layers/" + name
}

// host is the host's path of a path of the node's store.
func (l *lab) host(p string) string {
	return filepath.Join(l.store, strings.TrimPrefix(p, StorePath))
}

func (l *lab) own(path string) {
	if os.Geteuid() == 0 {
		r, _ := l.m.HostUID(0)
		if err := os.Lchown(path, int(r), int(r)); err != nil {
			l.t.Fatal(err)
		}
	}
}

func (l *lab) mkdir(name string, mode os.FileMode) {
	l.t.Helper()
	p := filepath.Join(l.store, name)
	if err := os.Mkdir(p, mode); err != nil {
		l.t.Fatal(err)
	}
	if err := os.Chmod(p, mode); err != nil {
		l.t.Fatal(err)
	}
	l.own(p)
}

// busybox lays out a small root and returns its path in the node.
func (l *lab) busybox() string {
	l.t.Helper()
	dir := l.dir()
	rel := strings.TrimPrefix(dir, StorePath+"/")
	for _, d := range []string{"bin", "dev", "etc", "proc", "sys", "run", "usr", "usr/bin", "root", "home", "home/u"} {
		l.mkdir(filepath.Join(rel, d), 0o755)
	}
	l.mkdir(filepath.Join(rel, "tmp"), 0o777|os.ModeSticky)
	data, err := os.ReadFile("/bin/busybox")
	if err != nil {
		l.t.Skipf("needs /bin/busybox of busybox-static: %v", err)
	}
	l.write(dir+"/bin/busybox", string(data), 0o755)
	for _, n := range []string{"sh", "true", "false", "cat", "ls", "id", "echo", "stat", "du", "chown", "chmod", "mkdir", "sleep", "mount", "grep", "ip", "ps", "test", "env", "find", "readlink", "hostname", "touch", "rm", "ln", "mv", "cp", "mknod", "kill", "umask", "pwd", "sed", "tr", "sort", "wc", "su", "unshare", "chroot", "dd", "adduser", "addgroup", "mkfifo", "chpasswd", "nc", "ulimit", "tar", "chgrp", "install", "xargs", "head", "seq", "date"} {
		if err := os.Symlink("busybox", l.host(dir+"/bin/"+n)); err != nil {
			l.t.Fatal(err)
		}
		l.own(l.host(dir + "/bin/" + n))
	}
	l.write(dir+"/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\n", 0o644)
	l.write(dir+"/etc/group", "root:x:0:\nu:x:1000:\n", 0o644)
	l.write(dir+"/etc/shadow", "root:*:1::::::\nu:*:1::::::\n", 0o640)
	l.write(dir+"/etc/hosts", "", 0o644)
	l.write(dir+"/etc/resolv.conf", "", 0o644)
	return dir
}

// write puts a file, given by its path in the node, into the store.
func (l *lab) write(path, data string, mode os.FileMode) {
	l.t.Helper()
	p := l.host(path)
	if err := os.WriteFile(p, []byte(data), 0o644); err != nil {
		l.t.Fatal(err)
	}
	l.own(p)
	if err := os.Chmod(p, mode); err != nil {
		l.t.Fatal(err)
	}
}

// spec is a shell command on an overlay over lower.
func (l *lab) spec(lower []string, script string) RunSpec {
	l.t.Helper()
	return RunSpec{Lower: lower, Upper: l.dir(), Work: l.dir(), Argv: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/bin:/usr/bin"}}
}

func (l *lab) do(j job) answer {
	l.t.Helper()
	if err := l.to.Encode(j); err != nil {
		l.t.Fatalf("send job: %v", err)
	}
	var a answer
	if err := l.from.Decode(&a); err != nil {
		l.node.Kill()
		l.t.Fatalf("read answer: %v; node: %v", err, l.node.Wait())
	}
	if len(a.Processes) > 0 {
		l.t.Errorf("processes left: %v", a.Processes)
	}
	if a.MountsAfter != a.MountsBefore {
		l.t.Errorf("mounts: %d before, %d after", a.MountsBefore, a.MountsAfter)
	}
	return a
}

// sh runs a script that must succeed and returns what it prints.
func (l *lab) sh(lower []string, script string) string {
	l.t.Helper()
	a := l.do(job{Spec: l.spec(lower, script)})
	if a.Error != "" || a.Exit != 0 {
		l.t.Fatalf("%s: exit %d, error %q, output %q %q", script, a.Exit, a.Error, a.Out, a.Err)
	}
	return strings.TrimSpace(a.Out)
}

// helperPath is the static test program, see testdata/helper.
func helperPath(t testing.TB) string {
	t.Helper()
	if p := os.Getenv("SANDBOX_TEST_HELPER"); p != "" {
		return p
	}
	p := filepath.Join(t.TempDir(), "helper")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", p, "./testdata/helper")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("needs the go command: %v: %s", err, out)
	}
	return p
}

// helper puts the test program into a root as /helper.
func (l *lab) helper(root string) {
	l.t.Helper()
	data, err := os.ReadFile(helperPath(l.t))
	if err != nil {
		l.t.Fatal(err)
	}
	l.write(root+"/helper", string(data), 0o755)
}
