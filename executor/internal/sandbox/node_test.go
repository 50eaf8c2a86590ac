package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func startTestNode(t *testing.T, entry string, files ...*os.File) *Node {
	t.Helper()
	c := here(t)
	store := storeDir(t, c.Map)
	shown := filepath.Join(filepath.Dir(store), "shown")
	if err := errors.Join(os.Mkdir(shown, 0o755), os.WriteFile(filepath.Join(shown, "file"), []byte("shown"), 0o644)); err != nil {
		t.Fatal(err)
	}
	n, err := StartNode(t.Context(), NodeSpec{Rung: c.Rung, Map: c.Map, Store: store, Entry: entry, Env: []string{"A=b"}, Files: files,
		Binds: []NodeBind{{shown, "/shown"}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func TestNodeEndsWithItsError(t *testing.T) {
	if err := startTestNode(t, "fail").Wait(); err == nil || err.Error() != "node ended: did not like it: file does not exist" {
		t.Errorf("got %v", err)
	}
	if err := startTestNode(t, "panic").Wait(); err == nil || !strings.Contains(err.Error(), "panic: on purpose") {
		t.Errorf("got %v", err)
	}
	if err := startTestNode(t, "unknown").Wait(); err == nil || !strings.Contains(err.Error(), `no entry "unknown"`) {
		t.Errorf("got %v", err)
	}
}

func TestNodeSeesNothingOfTheHost(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	n := startTestNode(t, "look", w)
	w.Close()
	data, err := io.ReadAll(r)
	r.Close()
	if err := n.Wait(); err != nil {
		t.Fatal(err)
	}
	got := string(data)
	want := "/: .files .links .root .void dev etc proc shown store sys tmp\nenv: A=b\npids: 1\nfds: ok\nread-only program: true <nil>\nbind: shown <nil>; write: open /shown/new: read-only file system\n"
	if err != nil || got != want {
		t.Errorf("got\n%s\nwant\n%s(%v)", got, want, err)
	}
}

// look is a node that tells what it sees.
func look1(ctx context.Context, in *Inside) error {
	var b bytes.Buffer
	entries, err := os.ReadDir("/")
	if err != nil {
		return err
	}
	fmt.Fprint(&b, "/:")
	for _, e := range entries {
		fmt.Fprint(&b, " ", e.Name())
	}
	fmt.Fprintln(&b, "\nenv:", strings.Join(os.Environ(), " "))
	pids, _ := filepath.Glob("/proc/[0-9]*")
	fmt.Fprintln(&b, "pids:", strings.ReplaceAll(strings.Join(pids, " "), "/proc/", ""))
	fds, _ := filepath.Glob("/proc/self/fd/*")
	state := "ok"
	for _, f := range fds {
		to, _ := os.Readlink(f)
		switch {
		case strings.HasPrefix(to, "pipe:"), strings.HasPrefix(to, "anon_inode:"), to == "/dev/null", strings.HasPrefix(to, "/proc"), strings.HasPrefix(to, "/dev/null"), to == "":
		case strings.HasPrefix(to, "/sys/fs/cgroup/"): // the Go runtime reads the limit of CPUs
		default:
			state += " " + f + "=" + to
		}
	}
	fmt.Fprintln(&b, "fds:", state)
	var fs unix.Statfs_t
	err = unix.Statfs("/proc/self/exe", &fs)
	fmt.Fprintln(&b, "read-only program:", fs.Flags&unix.ST_RDONLY != 0, err)
	data, err := os.ReadFile("/shown/file")
	fmt.Fprintf(&b, "bind: %s %v; write: %v\n", data, err, os.WriteFile("/shown/new", nil, 0o644))
	_, err = in.Files[0].Write(b.Bytes())
	return err
}

func TestNodeKillEndsEverythingBelow(t *testing.T) {
	l := newLab(t)
	bb := l.busybox()
	if err := l.to.Encode(job{Spec: l.spec([]string{bb}, "sleep 1238 & sleep 1239")}); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for len(hostProcesses(t, "sleep\x00123")) < 2 {
		if time.Now().After(deadline) {
			t.Fatal("the step did not start")
		}
		time.Sleep(5 * time.Millisecond)
	}
	begin := time.Now()
	l.node.Kill()
	if err := l.node.Wait(); err == nil || !strings.Contains(err.Error(), "SIGKILL") {
		t.Errorf("wait: %v", err)
	}
	l.killed = true
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
	if p := hostProcesses(t, "sleep\x00123"); len(p) > 0 {
		t.Errorf("left: %v", p)
	}
}

// TestNodeDiesWithItsParent kills the process that started a node.
func TestNodeDiesWithItsParent(t *testing.T) {
	c := here(t)
	store := storeDir(t, c.Map)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "start-node", store)
	cmd.Env = append(os.Environ(), "SANDBOX_TEST_PARENT=1")
	cmd.ExtraFiles = []*os.File{w}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	line := make([]byte, 3)
	if _, err := io.ReadFull(r, line); err != nil {
		cmd.Wait()
		t.Fatalf("no node: %v: %s", err, out.String())
	}
	cmd.Process.Kill()
	cmd.Wait()
	// The node holds the pipe's other end: its end is the pipe's.
	r.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadAll(r); err != nil {
		t.Errorf("the node lives on: %v", err)
	}
}

// startAndHang is the parent in TestNodeDiesWithItsParent.
func startAndHang(store string) int {
	c := Candidates()[0]
	if r := os.Getenv("SANDBOX_TEST_RUNG"); r == string(UsernsSingle) {
		c = Candidates()[1]
	}
	f := os.NewFile(3, "pipe")
	_, err := StartNode(context.Background(), NodeSpec{Rung: c.Rung, Map: c.Map, Store: store, Entry: "hang", Files: []*os.File{f}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	f.WriteString("up\n")
	f.Close()
	select {}
}

func TestNodeStartIsCancelled(t *testing.T) {
	c := here(t)
	store := storeDir(t, c.Map)
	ctx, cancel := context.WithCancel(t.Context())
	for i := range 20 {
		ctx, stop := context.WithTimeout(ctx, time.Duration(i)*time.Millisecond)
		n, err := StartNode(ctx, NodeSpec{Rung: c.Rung, Map: c.Map, Store: store, Entry: "hang"})
		if err == nil {
			n.Close()
		} else if err != context.DeadlineExceeded {
			t.Errorf("got %v", err)
		}
		stop()
	}
	cancel()
}

func TestNodeNeedsAStoreItCanSearch(t *testing.T) {
	needRoot(t)
	c := here(t)
	store := storeDir(t, c.Map)
	if err := os.Chmod(store, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := StartNode(t.Context(), NodeSpec{Rung: c.Rung, Map: c.Map, Store: store, Entry: "hang"})
	if err == nil || !strings.Contains(err.Error(), "mode 0710") {
		t.Errorf("got %v", err)
	}
}

func TestReexecIsNotFooledByAName(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^$")
	cmd.Args[0] = nodeName
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS") {
		t.Errorf("got %v: %s", err, out)
	}
}

// links is a node that mounts an overlay the way older kernels need it.
func links(ctx context.Context, in *Inside) error {
	var lower []string
	for i := range 127 {
		d := fmt.Sprintf("%s/layers/a-layer-with-a-rather-long-name-:,\\-%03d", StorePath, i)
		if err := errors.Join(os.Mkdir(d, 0o755), os.WriteFile(fmt.Sprintf("%s/f%d", d, i), nil, 0o644)); err != nil {
			return err
		}
		lower = append(lower, d)
	}
	upper, work := StorePath+"/layers/up:per,", StorePath+"/layers/work"
	if err := errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755)); err != nil {
		return err
	}
	m, err := overlayByLinks(lower, []option{{"userxattr", ""}, {"upperdir", upper}, {"workdir", work}, {"volatile", ""}}, linkPlace)
	if err != nil {
		return err
	}
	defer m.close()
	for _, want := range []string{"f0", "f126"} {
		if err := unix.Fstatat(int(m), want, &unix.Stat_t{}, 0); err != nil {
			return fmt.Errorf("%s: %w", want, err)
		}
	}
	if left, err := os.ReadDir(linkPlace); err != nil || len(left) > 0 {
		return fmt.Errorf("left: %v, %v", left, err)
	}
	return nil
}

func TestNodeMountsManyLowersOnOldKernels(t *testing.T) {
	if err := startTestNode(t, "links").Wait(); err != nil {
		t.Error(err)
	}
}
