package store

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// The test binary is also the other process: what it does is named in the
// environment.
func TestMain(m *testing.M) {
	if role := os.Getenv("STORE_TEST_ROLE"); role != "" {
		if err := child(role, os.Getenv("STORE_TEST_DIR")); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(role, dir string) error {
	ctx := context.Background()
	var s *Store
	var err error
	if role == "node" {
		s, err = Attach(dir, Options{Holder: "the node"})
	} else {
		s, err = Open(dir, Options{Owner: os.Getuid(), Holder: "child " + strconv.Itoa(os.Getpid())})
	}
	if err != nil {
		return err
	}
	if role == "builder" {
		return errors.Join(s.Close(), builder(dir, uint64(os.Getpid()), 600))
	}
	hang := func() { fmt.Println("ready"); _ = unix.Pause() }
	switch role {
	case "killed":
		// Everything begun, nothing finished: a blob before its rename, a
		// directory, a file, a lock.
		w, err := s.Writer()
		if err != nil {
			return err
		}
		fmt.Fprint(w, "half a blob")
		if _, err := s.TempFile("tar"); err != nil {
			return err
		}
		t, err := s.TempDir("upper")
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(t.Path, "a", "b"), 0o755); err != nil {
			return err
		}
		if _, err := s.Lock(ctx, "step", nil); err != nil {
			return err
		}
		hang()
	case "writer": // writes until it is killed
		fmt.Println("ready")
		for i := 0; ; i++ {
			text := fmt.Sprintf("%d %d ", os.Getpid(), i) + strings.Repeat("x", i%5000)
			d, err := s.PutBlob([]byte(text))
			if err != nil {
				return err
			}
			if err := s.PutKey(KeyOf([]string{text}), Entry{DiffID: d, Full: true, Size: int64(len(text)), Lines: []string{text}}); err != nil {
				return err
			}
		}
	case "counter": // adds one under a lock, many times
		for range 200 {
			unlock, err := s.Lock(ctx, "count", nil)
			if err != nil {
				return err
			}
			p := filepath.Join(dir, "files", "count")
			b, _ := os.ReadFile(p)
			n, _ := strconv.Atoi(string(b))
			if err := os.WriteFile(p, []byte(strconv.Itoa(n+1)), 0o644); err != nil {
				return err
			}
			unlock()
		}
	case "node": // as a node does it, with another uid
		if _, err := s.PutBlob([]byte("of the node")); err != nil {
			return err
		}
		if err := s.PutKey(KeyOf([]string{"node"}), Entry{Full: true}); err != nil {
			return err
		}
		if err := s.PutKey(KeyOf([]string{"outer"}), Entry{Full: true, Size: 9}); err != nil {
			return err // over what the outer process wrote
		}
		if _, err := s.ReadBlob(digest.FromString("of the outer process"), 100); err != nil {
			return err
		}
		t, err := s.TempDir("upper")
		if err != nil {
			return err
		}
		if _, err := t.Publish(s.LayerDir("map", "layer")); err != nil {
			return err
		}
		if _, ok, err := s.TryLock("held outside"); ok || err != nil {
			return fmt.Errorf("lock held outside: %v %w", ok, err)
		}
		if unlock, ok, err := s.TryLock("dead"); !ok || err != nil {
			return fmt.Errorf("lock left by a dead process: %v %w", ok, err)
		} else {
			unlock()
		}
		if _, err := s.Lock(ctx, "held inside", nil); err != nil {
			return err
		}
		hang()
	}
	return s.Close()
}

type process struct {
	cmd *exec.Cmd
	out *bufio.Reader
}

func start(t *testing.T, role, dir string, uid int) *process {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	if uid != os.Getuid() {
		// The binary lies where only we may look.
		b, err := os.ReadFile(os.Args[0])
		if err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(t.TempDir(), "node")
		if err := os.WriteFile(copied, b, 0o755); err != nil {
			t.Fatal(err)
		}
		for p := filepath.Dir(copied); p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
			if err := os.Chmod(p, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		cmd = exec.CommandContext(t.Context(), copied)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	cmd.Env = append(os.Environ(), "STORE_TEST_ROLE="+role, "STORE_TEST_DIR="+dir)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if errs.Len() > 0 {
			t.Error(errs.String())
		}
	})
	return &process{cmd, bufio.NewReader(out)}
}

func (p *process) ready(t *testing.T) {
	t.Helper()
	if line, err := p.out.ReadString('\n'); line != "ready\n" {
		t.Fatal(line, err)
	}
}

func (p *process) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.cmd.Wait()
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out
}

func TestSweepRemovesWhatTheKilledLeft(t *testing.T) {
	dir := t.TempDir()
	s := testOpen(t, dir)
	dead, alive := start(t, "killed", dir, os.Getuid()), (*process)(nil)
	dead.ready(t)

	var holder string
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := s.Lock(ctx, "step", func(h string) { holder = h; cancel() }); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if want := "child " + strconv.Itoa(dead.cmd.Process.Pid); holder != want {
		t.Errorf("held by %q, want %q", holder, want)
	}
	dead.kill(t)

	unlock, err := s.Lock(t.Context(), "step", nil) // dies with its holder
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	alive = start(t, "killed", dir, os.Getuid())
	alive.ready(t)

	boom := errors.New("not ours to remove")
	n, left, err := s.Sweep(t.Context(), func(context.Context, string) error { return boom })
	if n != 0 || len(left) != 1 || err != nil {
		t.Fatal(n, left, err)
	}
	if n, left, err := s.Sweep(t.Context(), nil); n != 1 || left != nil || err != nil {
		t.Fatal(n, left, err)
	}
	if got := names(t, filepath.Join(dir, "tmp")); len(got) != 2 { // directory and lock of the living
		t.Errorf("tmp has %v", got)
	}
	if got := names(t, filepath.Join(dir, "locks")); len(got) != 1 {
		t.Errorf("locks has %v", got)
	}
	if got := names(t, filepath.Join(dir, "blobs", "sha256")); len(got) != 0 {
		t.Errorf("blobs has %v", got)
	}
	alive.kill(t)
	if n, left, err := s.Sweep(t.Context(), nil); n != 1 || left != nil || err != nil {
		t.Fatal(n, left, err)
	}
	if got := append(names(t, filepath.Join(dir, "tmp")), names(t, filepath.Join(dir, "locks"))...); len(got) != 0 {
		t.Errorf("left %v", got)
	}
}

func TestKillAtAnyMomentLeavesOnlyWholeThings(t *testing.T) {
	dir := t.TempDir()
	s := testOpen(t, dir)
	for range 5 {
		a, b := start(t, "writer", dir, os.Getuid()), start(t, "writer", dir, os.Getuid())
		a.ready(t)
		b.ready(t)
		before := len(names(t, filepath.Join(dir, "blobs", "sha256")))
		for len(names(t, filepath.Join(dir, "blobs", "sha256"))) < before+100 {
			// The event is that both are writing.
		}
		a.kill(t)
		b.kill(t)
		if _, left, err := s.Sweep(t.Context(), nil); left != nil || err != nil {
			t.Fatal(left, err)
		}
	}
	if got := names(t, filepath.Join(dir, "tmp")); len(got) != 0 {
		t.Errorf("left %v", got)
	}
	for _, h := range names(t, filepath.Join(dir, "blobs", "sha256")) {
		b, err := s.ReadBlob(digest.NewDigestFromEncoded(digest.SHA256, h), 1<<20)
		if err != nil {
			t.Error(err)
		}
		if e, err := s.GetKey(KeyOf([]string{string(b)}), true); err != nil && err.Error() != (&Miss{What: "key " + KeyOf([]string{string(b)}).String()}).Error() {
			t.Errorf("%+v %v", e, err)
		}
	}
}

func TestLockCountsAcrossProcesses(t *testing.T) {
	dir := t.TempDir()
	s := testOpen(t, dir)
	var all []*process
	for range 4 {
		all = append(all, start(t, "counter", dir, os.Getuid()))
	}
	for _, p := range all {
		if line, _ := p.out.ReadString('\n'); line != "" {
			t.Error(line)
		}
		if err := p.cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "files", "count")); string(b) != "800" {
		t.Errorf("counted %s, want 800", b)
	}
	if got := names(t, filepath.Join(s.Dir(), "locks")); len(got) != 0 {
		t.Errorf("left %v", got)
	}
}

func TestRootSharesWithItsNodes(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, who maps ids to a range of others; this is uid", os.Getuid())
	}
	const node = 1_700_000_000
	dir := t.TempDir()
	for p := dir; p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	plain := testOpen(t, dir) // opened by a command that starts no nodes, before
	if err := plain.PutKey(KeyOf([]string{"outer"}), Entry{Full: true, Size: 1}); err != nil {
		t.Fatal(err)
	}
	killed := start(t, "killed", dir, 0)
	killed.ready(t)
	killed.kill(t)
	if err := os.Rename(filepath.Join(dir, "locks", "step"), filepath.Join(dir, "locks", "dead")); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, Options{Owner: 0, NodeOwner: &[2]int{node, node}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.PutBlob([]byte("of the outer process")); err != nil {
		t.Fatal(err)
	}
	unlock, err := s.Lock(t.Context(), "held outside", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	p := start(t, "node", dir, node)
	p.ready(t)

	var holder string
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if _, err := s.Lock(ctx, "held inside", func(h string) { holder = h; cancel() }); !errors.Is(err, context.Canceled) || holder != "the node" {
		t.Errorf("%v, held by %q", err, holder)
	}
	if e, err := s.GetKey(KeyOf([]string{"outer"}), true); err != nil || e.Size != 9 {
		t.Errorf("%+v %v", e, err)
	}
	if _, err := s.ReadBlob(digest.FromString("of the node"), 100); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	os.Remove(filepath.Join(dir, "x"))
	st, err := os.Stat(dir)
	if err != nil || st.Mode().Perm() != 0o750 || st.Sys().(*unixStat).Uid != 0 || st.Sys().(*unixStat).Gid != node {
		t.Errorf("%v %+v %v", st.Mode(), st.Sys(), err)
	}
	later := testOpen(t, dir) // leaves the door open for the nodes
	for i := range 20 {
		k := KeyOf([]string{fmt.Sprint(i)})
		if err := later.PutKey(k, Entry{Full: true}); err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(filepath.Dir(filepath.Join(dir, keyPath(k, true))))
		if err != nil || st.Sys().(*unixStat).Uid != node {
			t.Fatalf("%+v %v", st.Sys(), err)
		}
	}
	if st, _ := os.Stat(dir); st.Mode().Perm() != 0o750 {
		t.Errorf("mode %v", st.Mode())
	}
	p.kill(t)
	if n, left, err := s.Sweep(t.Context(), nil); n != 2 || left != nil || err != nil { // the node's, and that of the process before
		t.Error(n, left, err)
	}
}
