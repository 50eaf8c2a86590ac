package bench

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"kaniko-build/test/rig"
)

// Sample is what was measured of one case of a workload.
type Sample struct {
	Workload string
	Case     string        // cold, no-op, not pushed, a step, first line, or the name of a change
	Took     time.Duration // the median
	CPU      time.Duration // of our processes and the steps', the median; it depends less on what else runs
	Runs     int           // that they are the medians of
	Budget   time.Duration // for Took; 0 is none
	Peak     int64         // bytes; the largest process of ours; 0 was not looked at
	Memory   int64         // the budget for Peak; 0 is none
	Base     *Base         // nil was not looked at
}

// Base is what a build wanted of its base images.
type Base struct {
	Pulled   int64 // bytes that the registry sent
	Unpacked int   // files
}

// Header stands above lines of samples.
const Header = "workload   case           time   budget            CPU  median of  largest process  of the bases"

// String is a line of a table.
func (s Sample) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-10s %-11s %7s", s.Workload, s.Case, short(s.Took))
	switch {
	case s.Budget == 0:
		b.WriteString("                  ")
	case s.Slow():
		fmt.Fprintf(&b, "  %7s over    ", short(s.Budget))
	default:
		fmt.Fprintf(&b, "  %7s PASS    ", short(s.Budget))
	}
	cpu := ""
	if s.CPU > 0 {
		cpu = short(s.CPU)
	}
	fmt.Fprintf(&b, "%7s %10d", cpu, s.Runs)
	if s.Peak > 0 {
		fmt.Fprintf(&b, "  %6d MB", s.Peak>>20)
	}
	if s.Memory > 0 {
		word := "PASS"
		if s.TooMuch() {
			word = "over"
		}
		fmt.Fprintf(&b, " of %d %s", s.Memory>>20, word)
	}
	if s.Base != nil {
		fmt.Fprintf(&b, "  %s pulled, %d files unpacked", size(s.Base.Pulled), s.Base.Unpacked)
	}
	return b.String()
}

// size is a number of bytes for people.
func size(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d kB", (n+999)/1000)
	}
	return fmt.Sprintf("%d MB", n>>20)
}

// short is a duration for people: "12 ms", "3.42 s".
func short(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

// Slow tells whether it took longer than the budget, which is for an idle
// machine.
func (s Sample) Slow() bool { return s.Budget > 0 && s.Took > s.Budget }

// TooMuch tells whether a process used more memory than the budget.
func (s Sample) TooMuch() bool { return s.Memory > 0 && s.Peak > s.Memory }

// Bench measures workloads.
type Bench struct {
	Binary string
	Dir    string // for workloads and states
	Runs   int    // each time is the median of as many; cold builds of big workloads run once
	// Registry runs fn beside a registry that has the bases and nothing else.
	Registry func(ctx context.Context, fn func(reg *rig.Registry) error) error
	Say      func(Sample)
}

// Measure applies w cold (no state, and nothing of it in the registry), again,
// after each change, and cold where only Workload.Knows of the state is left, and
// says what it found.
func (b *Bench) Measure(ctx context.Context, w Workload) error {
	runs := b.Runs
	if w.Big {
		runs = 1
	}
	var cold samples
	for i := range runs {
		err := b.Registry(ctx, func(reg *rig.Registry) error {
			m := b.measuring(w)
			one, base, err := m.cold(ctx, reg)
			if err != nil {
				return fmt.Errorf("cold: %w", err)
			}
			cold = append(cold, one)
			if i < runs-1 {
				return m.remove()
			}
			s := m.sample("cold", cold)
			s.Base = base
			b.Say(s)
			if w.Steps[1] > 0 {
				b.Say(m.sample("a step", cold.steps()))
			}
			if err := m.warm(ctx); err != nil {
				return err
			}
			if w.Knows == "" {
				return m.remove()
			}
			return m.forget()
		})
		if err != nil {
			return fmt.Errorf("%s: %w", w.Name, err)
		}
	}
	if w.Knows == "" {
		return nil
	}
	return b.Registry(ctx, func(reg *rig.Registry) error {
		m := b.measuring(w)
		one, base, err := m.cold(ctx, reg)
		if err != nil {
			return fmt.Errorf("%s: only %s known: %w", w.Name, w.Knows, err)
		}
		s := m.sample(w.Knows, samples{one})
		s.Base = base
		b.Say(s)
		return m.remove()
	})
}

func (b *Bench) measuring(w Workload) *measuring {
	return &measuring{Bench: b, w: w, work: filepath.Join(b.Dir, w.Name), state: filepath.Join(b.Dir, w.Name+"-state")}
}

// measuring is a workload on disk.
type measuring struct {
	*Bench
	w           Workload
	work, state string
}

func (m *measuring) remove() error {
	if err := os.RemoveAll(m.work); err != nil {
		return err
	}
	return os.RemoveAll(m.state)
}

// forget leaves in the state what the workload says that another machine knows.
func (m *measuring) forget() error {
	if err := os.RemoveAll(m.work); err != nil {
		return err
	}
	all, err := os.ReadDir(m.state)
	for _, e := range all {
		if e.Name() != m.w.Knows {
			err = errors.Join(err, os.RemoveAll(filepath.Join(m.state, e.Name())))
		}
	}
	return err
}

// cold writes the workload for a registry and applies it there.
func (m *measuring) cold(ctx context.Context, reg *rig.Registry) (measured, *Base, error) {
	if err := m.w.Write(m.work, reg.Addr); err != nil {
		return measured{}, nil, err
	}
	before, err := reg.Sent()
	if err != nil {
		return measured{}, nil, err
	}
	one, err := m.apply(ctx, true)
	if err != nil {
		return one, nil, err
	}
	after, err := reg.Sent()
	if err != nil {
		return one, nil, err
	}
	files, err := m.unpacked()
	return one, &Base{Pulled: after - before, Unpacked: files}, err
}

// unpacked counts the files of layers that were unpacked from a blob: those have
// the name of their digest, and what a step made has another.
func (m *measuring) unpacked() (int, error) {
	n := 0
	roots, err := filepath.Glob(filepath.Join(m.state, "layers", "*", strings.Repeat("[0-9a-f]", 64), "fs"))
	if err != nil {
		return 0, err
	}
	for _, root := range roots {
		err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
			if p != root {
				n++
			}
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	return n, nil
}

// warm measures everything but the first build.
func (m *measuring) warm(ctx context.Context) error {
	if err := m.firstLine(ctx); err != nil {
		return fmt.Errorf("first line: %w", err)
	}
	same := func(int) error { return nil }
	if err := m.repeat(ctx, "no-op", same); err != nil {
		return err
	}
	if m.w.Budgets[notPushed] > 0 {
		if err := m.repeat(ctx, notPushed, same, "--push=false"); err != nil {
			return err
		}
	}
	for _, c := range m.w.Changes {
		p := filepath.Join(m.work, c.File)
		old, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		err = m.repeat(ctx, c.Name, func(i int) error {
			return os.WriteFile(p, append(bytes.Clone(old), strings.ReplaceAll(c.Data, "%d", fmt.Sprint(i))...), 0o644)
		})
		if err != nil {
			return err
		}
		if err := os.WriteFile(p, old, 0o644); err != nil {
			return err
		}
		if _, err := m.apply(ctx, false); err != nil { // the next change starts from here
			return err
		}
	}
	return nil
}

// repeat measures memory once, and then time without looking at processes, which
// costs some.
func (m *measuring) repeat(ctx context.Context, name string, prepare func(i int) error, flags ...string) error {
	var all samples
	var peak int64
	for i := range m.Runs + 1 {
		if err := prepare(i); err != nil {
			return err
		}
		one, err := m.apply(ctx, i == 0, flags...)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if i == 0 {
			peak = one.peak
			continue
		}
		all = append(all, one)
	}
	s := m.sample(name, all)
	s.Peak = peak
	m.Say(s)
	return nil
}

// firstLine measures how long a plan takes to say something.
func (m *measuring) firstLine(ctx context.Context) error {
	if m.w.Budgets[firstLine] == 0 {
		return nil
	}
	var all samples
	for range m.Runs {
		cmd := m.command(ctx, "plan")
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		start := time.Now()
		if err := cmd.Start(); err != nil {
			return err
		}
		_, err = bufio.NewReader(out).ReadByte()
		all = append(all, measured{took: time.Since(start)})
		if werr := cmd.Wait(); err != nil || werr != nil {
			return fmt.Errorf("plan: %w", cmp.Or(werr, err))
		}
	}
	m.Say(m.sample(firstLine, all))
	return nil
}

// measured is one apply.
type measured struct {
	took time.Duration
	cpu  time.Duration
	step time.Duration // of each of the workload's Steps
	peak int64
}

type samples []measured

// steps are samples of a step.
func (s samples) steps() samples {
	out := make(samples, len(s))
	for i, one := range s {
		out[i].took = one.step
	}
	return out
}

func (m *measuring) sample(name string, all samples) Sample {
	out := Sample{Workload: m.w.Name, Case: name, Runs: len(all), Budget: m.w.Budgets[name]}
	var took, cpu []time.Duration
	for _, one := range all {
		took, cpu = append(took, one.took), append(cpu, one.cpu)
		out.Peak = max(out.Peak, one.peak)
	}
	out.Took, out.CPU = median(took), median(cpu)
	if name != firstLine && name != "a step" {
		out.Memory = memoryLimit
	}
	return out
}

func median(all []time.Duration) time.Duration {
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
}

func (m *measuring) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, m.Binary, args...)
	cmd.Dir = m.work
	cmd.Env = append(os.Environ(), "KANIKO_BUILD_STATE="+m.state)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (m *measuring) apply(ctx context.Context, memory bool, flags ...string) (measured, error) {
	cmd := m.command(ctx, append([]string{"apply", "--progress", "json"}, flags...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return measured{}, err
	}
	peak := func() int64 { return 0 }
	if memory {
		peak = rig.PeakMemory(cmd.Process.Pid, m.Binary)
	}
	err := cmd.Wait()
	s := measured{took: time.Since(start), cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), peak: peak()}
	if err != nil {
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		return s, fmt.Errorf("apply: %w\n%s", err, strings.Join(lines[max(0, len(lines)-20):], "\n"))
	}
	s.step = m.perStep(out.String())
	return s, nil
}

// perStep is the time from the start of the first of the workload's Steps to the
// end of the last, over their number: what is between them counts.
func (m *measuring) perStep(events string) time.Duration {
	var first, last time.Time
	for line := range strings.Lines(events) {
		var e struct {
			Kind string
			Step int
			Time time.Time
		}
		if json.Unmarshal([]byte(line), &e) != nil {
			continue
		}
		switch {
		case e.Kind == "step-started" && e.Step == m.w.Steps[0]:
			first = e.Time
		case e.Kind == "step-done" && e.Step == m.w.Steps[1]:
			last = e.Time
		}
	}
	return last.Sub(first) / time.Duration(m.w.Steps[1]-m.w.Steps[0]+1)
}
