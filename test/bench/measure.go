package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"kaniko-build/test/rig"
)

// Sample is one measured apply.
type Sample struct {
	Workload string
	Case     string // cold, no-op, or the name of a change
	Took     time.Duration
	Peak     int64 // bytes; the largest process of ours
	TooMuch  bool  // Peak passes what the workload allows
}

// String is a line of a table.
func (s Sample) String() string {
	warn := ""
	if s.TooMuch {
		warn = "  more than allowed"
	}
	return fmt.Sprintf("%-10s %-9s %8.2f s %6d MB%s", s.Workload, s.Case, s.Took.Seconds(), s.Peak>>20, warn)
}

// Measure writes w below dir, applies it cold (no state, and nothing of it in
// the registry), again, and after each change, and tells say what it found.
func Measure(ctx context.Context, binary, dir, registry string, w Workload, say func(Sample)) error {
	work, state := filepath.Join(dir, w.Name), filepath.Join(dir, w.Name+"-state")
	if err := w.Write(work, registry); err != nil {
		return fmt.Errorf("write %s: %w", w.Name, err)
	}
	apply := func(name string) error {
		s, err := apply(ctx, binary, work, state)
		if err != nil {
			return fmt.Errorf("%s, %s: %w", w.Name, name, err)
		}
		s.Workload, s.Case = w.Name, name
		s.TooMuch = w.Memory > 0 && s.Peak > w.Memory
		say(s)
		return nil
	}
	for _, name := range []string{"cold", "no-op"} {
		if err := apply(name); err != nil {
			return err
		}
	}
	for _, c := range w.Changes {
		p := filepath.Join(work, c.File)
		old, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if err := os.WriteFile(p, append(bytes.Clone(old), c.Data...), 0o644); err != nil {
			return err
		}
		if err := apply(c.Name); err != nil {
			return err
		}
		if err := os.WriteFile(p, old, 0o644); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	return os.RemoveAll(state)
}

func apply(ctx context.Context, binary, dir, state string) (Sample, error) {
	cmd := exec.CommandContext(ctx, binary, "apply", "--progress", "plain")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "KANIKO_BUILD_STATE="+state)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return Sample{}, err
	}
	peak := rig.PeakMemory(cmd.Process.Pid, binary)
	err := cmd.Wait()
	s := Sample{Took: time.Since(start), Peak: peak()}
	if err != nil {
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		return s, fmt.Errorf("apply: %w\n%s", err, strings.Join(lines[max(0, len(lines)-20):], "\n"))
	}
	return s, nil
}
