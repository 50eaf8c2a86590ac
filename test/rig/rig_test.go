package rig

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestAccountsAreWhoTheySay(t *testing.T) {
	NeedRoot(t)
	for _, k := range Kinds {
		t.Run(string(k), func(t *testing.T) {
			a := NewAccount(t, k)
			if out := a.Must(t, Call{}, "id", "-u").Stdout; out != fmt.Sprintln(a.UID) {
				t.Errorf("id -u says %q, want %d", out, a.UID)
			}
			out := a.Must(t, Call{Umask: 0o077, Env: []string{"WORD=x"}}, "sh", "-c", "umask; echo $WORD; pwd; touch here").Stdout
			if want := fmt.Sprintf("0077\nx\n%s\n", a.Home); out != want {
				t.Errorf("got %q, want %q", out, want)
			}
			subuid, err := os.ReadFile("/etc/subuid")
			if err != nil {
				t.Fatal(err)
			}
			if has := strings.Contains(string(subuid), a.Name+":"); has != (k == Subuid) {
				t.Errorf("in /etc/subuid: %v", has)
			}
			dir := Space(t, nil)
			Write(t, dir, map[string]string{"f": "1", "d/x": "2"})
			if err := os.Chmod(filepath.Join(dir, "f"), 0o755|os.ModeSetuid); err != nil {
				t.Fatal(err)
			}
			Give(t, dir, a)
			st, err := os.Stat(filepath.Join(dir, "f"))
			if err != nil || st.Mode()&os.ModeSetuid == 0 || !st.ModTime().Equal(Epoch) || int(st.Sys().(*syscall.Stat_t).Uid) != a.UID {
				t.Errorf("after Give: %v, %v", st.Mode(), err)
			}
		})
	}
	if b, _ := os.ReadFile("/etc/passwd"); strings.Contains(string(b), fmt.Sprintf("-%d:", os.Getpid())) {
		t.Error("an account is left")
	}
	if b, _ := os.ReadFile("/etc/subuid"); strings.Contains(string(b), fmt.Sprintf("-%d:", os.Getpid())) {
		t.Error("a range of ids is left")
	}
}

func TestRunTellsHowItEnded(t *testing.T) {
	NeedRoot(t)
	a := NewAccount(t, Superuser)
	if o := a.Run(t, Call{}, "sh", "-c", "echo out; echo err >&2; exit 42"); o.Code != 42 || o.Stdout != "out\n" || o.Stderr != "err\n" {
		t.Errorf("got %+v", o)
	}
	if o := a.Run(t, Call{Timeout: 100 * time.Millisecond}, "sh", "-c", "sleep 100 & sleep 100"); o.Code != -1 || o.Took > 5*time.Second {
		t.Errorf("got %+v", o)
	}
}

func TestKillTreeAndLeftovers(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "tmp"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tmp", "half"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "setsid sh -c 'sleep 1000; : "+dir+"' & wait")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for len(Tree(cmd.Process.Pid)) < 3 {
		time.Sleep(5 * time.Millisecond)
	}
	left := strings.Join(Leftovers(dir), "\n")
	if !strings.Contains(left, "process") || !strings.Contains(left, "half") {
		t.Errorf("left: %s", left)
	}
	KillTree(cmd.Process.Pid)
	cmd.Wait()
	if left := Leftovers(dir); len(left) != 1 {
		t.Errorf("after the kill: %q, want the file only", left)
	}
}

func TestRegistryKeepsAndTells(t *testing.T) {
	r := StartRegistry(t)
	r.Push(t, filepath.Join(Root(t), "test", "conformance", "images"))
	if got := r.Requests(t, `"PUT /v2/library/busybox/manifests/latest`, " 201 "); len(got) != 1 {
		t.Errorf("log lines: %q", got)
	}
	r.Push(t, filepath.Join(Root(t), "test", "conformance", "images"))
	if got := r.Requests(t, `"PUT /v2/library/busybox/manifests/latest`); len(got) != 1 {
		t.Errorf("pushed twice: %q", got)
	}
}

func TestPeakMemoryIsThatOfOurProgram(t *testing.T) {
	sh, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(sh, "-c", "head -c 200000000 /dev/zero | tail -c 150000000 > /dev/null; sleep 0.2; :")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := PeakMemory(cmd.Process.Pid, sh)
	cmd.Wait()
	if peak := stop(); peak == 0 || peak > 20<<20 {
		t.Errorf("peak of a shell beside a large tail is %d", peak)
	}
}
