package local

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"kaniko-build/executor"
)

// TestCgroups limits a real process by the kernel, where this machine lets us, and
// removes what it made for that.
func TestCgroups(t *testing.T) {
	c := exec.CommandContext(t.Context(), "/bin/sh", "-c", "read go; x=0123456789abcdef; while :; do x=$x$x; done")
	in, err := c.StdinPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	g := limitedTo(executor.Resources{MilliCPU: 500, Memory: 64 << 20}, c.Process.Pid)
	if len(g.dirs) == 0 {
		c.Process.Kill()
		c.Wait()
		t.Skip("no cgroup can be made below that of this process, with the controllers cpu and memory: that takes root, or a delegated group")
	}
	for _, dir := range g.dirs {
		if b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs")); err != nil || strings.TrimSpace(string(b)) == "" {
			t.Errorf("%s has processes %q, %v", dir, b, err)
		}
	}
	quota := ""
	for _, file := range []string{"cpu.max", "cpu.cfs_quota_us"} {
		b, _ := os.ReadFile(filepath.Join(g.dirs[len(g.dirs)-1], file))
		quota += strings.TrimSpace(string(b))
	}
	if quota != "50000 100000" && quota != "50000" {
		t.Errorf("half a CPU is %q", quota)
	}
	in.Write([]byte("go\n"))
	if err := c.Wait(); err == nil || c.ProcessState.Success() {
		t.Error("it grew without end")
	}
	var full *executor.MemoryError
	if err := g.close(); !errors.As(err, &full) || full.Limit != 64<<20 {
		t.Errorf("the end is %v", err)
	}
	for _, dir := range g.dirs {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is left", dir)
		}
	}
}
