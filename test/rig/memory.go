package rig

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Memory is the most that a container used, in bytes.
type Memory struct {
	// Held is what cannot be given up: anonymous memory and shared memory of all
	// its processes, and what the kernel has for it, where inodes and names of
	// files are most of it. The largest of samples.
	Held int64
	// All has the pages of files, too, which the kernel gives up when it needs them.
	All int64
}

// sampled is how long a peak of Held may last unseen.
const sampled = 10 * time.Millisecond

// WatchMemory looks at a container's memory, from before its start until stop.
func (d *Docker) WatchMemory(id string) (stop func() Memory) {
	quit, done := make(chan struct{}), make(chan Memory)
	go func() {
		var m Memory
		dir := ""
		for tick := time.NewTicker(sampled); ; {
			if dir == "" {
				dir = d.cgroup("memory", id)
			}
			if dir != "" {
				m.Held = max(m.Held, heldV1(dir), heldV2(dir))
				if n, err := peakOf(dir); err == nil {
					m.All = max(m.All, n)
				}
			}
			select {
			case <-tick.C:
			case <-quit:
				tick.Stop()
				done <- m
				return
			}
		}
	}()
	return func() Memory { close(quit); return <-done }
}

// heldV1 is Memory.Held now, in a cgroup of version 1; 0 in others.
func heldV1(dir string) int64 {
	kernel, err := number(filepath.Join(dir, "memory.kmem.usage_in_bytes"))
	if err != nil {
		return 0
	}
	return kernel + stat(dir, "total_rss", "total_shmem")
}

// heldV2 is the same in a cgroup of version 2.
func heldV2(dir string) int64 { return stat(dir, "anon", "shmem", "kernel") }

// stat sums lines of a memory.stat.
func stat(dir string, names ...string) int64 {
	b, err := os.ReadFile(filepath.Join(dir, "memory.stat"))
	if err != nil {
		return 0 // the container ended
	}
	var sum int64
	for line := range strings.Lines(string(b)) {
		key, val, _ := strings.Cut(strings.TrimSpace(line), " ")
		for _, n := range names {
			if key == n {
				v, _ := strconv.ParseInt(val, 10, 64)
				sum += v
			}
		}
	}
	return sum
}

// peakOf is the most memory that was charged to a cgroup.
func peakOf(dir string) (int64, error) {
	for _, name := range []string{"memory.max_usage_in_bytes", "memory.peak"} {
		if n, err := number(filepath.Join(dir, name)); err == nil || !os.IsNotExist(err) {
			return n, err
		}
	}
	return 0, fmt.Errorf("no peak of memory in %s", dir)
}

func number(file string) (int64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}
