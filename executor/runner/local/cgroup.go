package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"kaniko-build/executor"
)

// cgroups are the groups of one node, in which the kernel limits what it uses: one in
// the single hierarchy of version 2, or one for each controller of version 1. They are
// made below the group of this process, or the nearest above it that has the
// controllers; where that is not allowed there is none.
type cgroups struct {
	dirs  []string
	limit int64 // of memory, if the kernel keeps it
}

const (
	cgroupPrefix = "kaniko-build-" // then our process id, and a number
	cgroupRoot   = "/sys/fs/cgroup"
	cpuPeriod    = 100_000  // microseconds
	leastSlack   = 64 << 20 // bytes
)

var groups atomic.Int64 // that this process has made

// limitedTo puts a process into groups with limits; what it starts afterwards is in
// them too. Limits that this machine does not let us have are left out.
func limitedTo(r executor.Resources, pid int) *cgroups {
	g := &cgroups{}
	if r == (executor.Resources{}) {
		return g
	}
	quota := strconv.Itoa(r.MilliCPU * cpuPeriod / 1000)
	// A wall behind the node's own limit, which can say which RUN it was: the kernel may
	// choose the core.
	memory := strconv.FormatInt(r.Memory+max(r.Memory/8, leastSlack), 10)
	name := fmt.Sprintf("%s%d-%d", cgroupPrefix, os.Getpid(), groups.Add(1))
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err == nil {
		var wanted []string
		if r.Memory > 0 {
			wanted = append(wanted, "memory")
		}
		if r.MilliCPU > 0 {
			wanted = append(wanted, "cpu")
		}
		if parent := unifiedParent(wanted); parent != "" {
			files := map[string]string{}
			if r.Memory > 0 {
				files["memory.max"] = memory
			}
			if r.MilliCPU > 0 {
				files["cpu.max"] = fmt.Sprintf("%s %d", quota, cpuPeriod)
			}
			if g.join(filepath.Join(parent, name), files, pid) && r.Memory > 0 {
				g.limit = r.Memory
			}
		}
		return g
	}
	if r.Memory > 0 && g.join(filepath.Join(cgroupRoot, "memory", ownGroup("memory"), name), map[string]string{"memory.limit_in_bytes": memory}, pid) {
		g.limit = r.Memory
	}
	if r.MilliCPU > 0 {
		g.join(filepath.Join(cgroupRoot, "cpu", ownGroup("cpu"), name), map[string]string{"cpu.cfs_quota_us": quota}, pid)
	}
	return g
}

// join makes a group with limits and puts a process into it; false leaves nothing.
func (g *cgroups) join(dir string, limits map[string]string, pid int) bool {
	sweepGroups(filepath.Dir(dir))
	if os.Mkdir(dir, 0o755) != nil {
		return false
	}
	var err error
	for file, text := range limits {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644))
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644)
	}
	if err != nil {
		_ = os.Remove(dir)
		return false
	}
	g.dirs = append(g.dirs, dir)
	return true
}

// unifiedParent is the nearest group from ours upward whose children may have
// controllers.
func unifiedParent(controllers []string) string {
	for dir := path.Join("/", ownGroup("")); ; dir = path.Dir(dir) {
		b, _ := os.ReadFile(filepath.Join(cgroupRoot, dir, "cgroup.subtree_control"))
		has := strings.Fields(string(b))
		if !slices.ContainsFunc(controllers, func(c string) bool { return !slices.Contains(has, c) }) {
			return filepath.Join(cgroupRoot, dir)
		}
		if dir == "/" {
			return ""
		}
	}
}

// ownGroup is the group of this process for a controller of version 1, "" for the
// hierarchy of version 2.
func ownGroup(controller string) string {
	b, _ := os.ReadFile("/proc/self/cgroup") // without it nothing is found below
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 && slices.Contains(strings.Split(f[1], ","), controller) {
			return f[2]
		}
	}
	return ""
}

// sweepGroups removes groups whose maker is gone.
func sweepGroups(parent string) {
	list, _ := filepath.Glob(filepath.Join(parent, cgroupPrefix+"*"))
	for _, dir := range list {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), cgroupPrefix), "-")
		if n, err := strconv.Atoi(pid); err == nil && n != os.Getpid() && errors.Is(unix.Kill(n, 0), unix.ESRCH) {
			_ = unix.Rmdir(dir) // one with processes stays
		}
	}
}

// close removes the groups of a node that has ended. It is a *executor.MemoryError
// when the kernel has ended processes of it for its limit.
func (g *cgroups) close() error {
	var out error
	for _, dir := range g.dirs {
		if g.limit > 0 && killed(dir) {
			out = &executor.MemoryError{Limit: g.limit}
		}
		for range 100 { // processes that have just ended may still be in it
			err := unix.Rmdir(dir)
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
	return out
}

// killed tells whether the kernel has ended processes of a group for want of memory.
func killed(dir string) bool {
	for _, file := range []string{"memory.events", "memory.oom_control"} {
		b, _ := os.ReadFile(filepath.Join(dir, file)) // of the other version
		for line := range strings.Lines(string(b)) {
			if n, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok && n != "0" {
				return true
			}
		}
	}
	return false
}
