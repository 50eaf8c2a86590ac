package rig

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is one entry of /proc.
type Process struct {
	PID, Parent int
	Exe         string // path of its program; "" when it is a zombie or not ours to see
	Cmdline     string
}

// Processes lists what runs.
func Processes() []Process {
	names, _ := filepath.Glob("/proc/[0-9]*")
	var out []Process
	for _, n := range names {
		pid, _ := strconv.Atoi(filepath.Base(n))
		b, err := os.ReadFile(n + "/stat")
		if err != nil {
			continue // it ended
		}
		// The name of the command, in parentheses, may hold anything.
		rest := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if len(rest) < 2 {
			continue
		}
		parent, _ := strconv.Atoi(rest[1])
		exe, _ := os.Readlink(n + "/exe")
		line, _ := os.ReadFile(n + "/cmdline")
		out = append(out, Process{pid, parent, exe, strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))})
	}
	return out
}

// Tree lists pid and all its descendants.
func Tree(pid int) []int {
	kids := map[int][]int{}
	for _, p := range Processes() {
		kids[p.Parent] = append(kids[p.Parent], p.PID)
	}
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		all = append(all, kids[all[i]]...)
	}
	return all
}

// KillTree ends pid and all its descendants at once, as a machine that goes
// down or a CI that loses patience does.
func KillTree(pid int) {
	for _, p := range Tree(pid) {
		syscall.Kill(p, syscall.SIGKILL)
	}
}

// Leftovers lists what a program left: processes that run one of programs or
// have dir in their command line, mounts below dir, files in dir's tmp and
// mounts folders, and locks that somebody holds. It waits a moment for
// processes that are just ending.
func Leftovers(dir string, programs ...string) []string {
	var found []string
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		found = leftovers(dir, programs)
		if len(found) == 0 || time.Now().After(deadline) {
			return found
		}
	}
}

func leftovers(dir string, programs []string) []string {
	var out []string
	for _, p := range Processes() {
		if p.PID != os.Getpid() && (slices.Contains(programs, strings.TrimSuffix(p.Exe, " (deleted)")) || strings.Contains(p.Cmdline, dir)) {
			out = append(out, "process "+strconv.Itoa(p.PID)+": "+p.Cmdline)
		}
	}
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return append(out, err.Error())
	}
	defer mounts.Close()
	for s := bufio.NewScanner(mounts); s.Scan(); {
		if f := strings.Fields(s.Text()); len(f) > 4 && strings.HasPrefix(f[4], dir) {
			out = append(out, "mount "+f[4])
		}
	}
	for _, sub := range []string{"tmp", "mounts"} {
		names, _ := filepath.Glob(filepath.Join(dir, sub, "*"))
		for _, n := range names {
			out = append(out, "file "+n)
		}
	}
	locks, _ := filepath.Glob(filepath.Join(dir, "locks", "*"))
	for _, n := range locks {
		if held(n) {
			out = append(out, "held lock "+n)
		}
	}
	return out
}

func held(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil
}

// PeakMemory samples the largest resident set (VmHWM, in bytes) that any
// process of the tree below pid reaches while it runs our program, which is
// binary or a copy of it in memory. stop ends the sampling and returns it.
func PeakMemory(pid int, binary string) (stop func() int64) {
	ours, err := os.Stat(binary)
	quit, done := make(chan struct{}), make(chan int64)
	go func() {
		var peak int64
		for {
			for _, p := range Tree(pid) {
				exe := "/proc/" + strconv.Itoa(p) + "/exe"
				name, _ := os.Readlink(exe)
				st, statErr := os.Stat(exe)
				if strings.HasPrefix(name, "/memfd:") || err == nil && statErr == nil && os.SameFile(st, ours) {
					peak = max(peak, highWater(p))
				}
			}
			select {
			case <-quit:
				done <- peak
				return
			case <-time.After(25 * time.Millisecond):
			}
		}
	}()
	return func() int64 { close(quit); return <-done }
}

func highWater(pid int) int64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	for _, l := range strings.Split(string(b), "\n") {
		if rest, ok := strings.CutPrefix(l, "VmHWM:"); ok {
			kb, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10
		}
	}
	return 0
}
