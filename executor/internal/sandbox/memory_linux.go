package sandbox

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Memory is how many bytes the node and all that runs in it hold: memory that they
// have written, without files' pages, files in memory and what is swapped out. A page
// that a process shares with the one it was forked from counts for each; exact counts
// it once, as far as the kernel tells, and takes some ten times as long.
func (in *Inside) Memory(exact bool) (int64, error) {
	pids, err := in.processes()
	if err != nil {
		return 0, err
	}
	sum := int64(0)
	for _, pid := range pids {
		n, ok := int64(0), false
		if exact {
			n, ok = anonymousShare(pid)
		}
		if !ok {
			n = anonymous(pid)
		}
		sum += n
	}
	return sum, nil
}

// processes are those of the node, as /proc names them. Where that is the node's own
// it has no others; else they are what descends from this process.
func (in *Inside) processes() ([]string, error) {
	f, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []string
	for _, n := range names {
		if n[0] >= '1' && n[0] <= '9' {
			pids = append(pids, n)
		}
	}
	if in.Rung != InPlace && !in.borrowed {
		return pids, nil
	}
	self, err := os.Readlink("/proc/self")
	if err != nil {
		return nil, fmt.Errorf("find this process: %w", err)
	}
	children := map[string][]string{}
	for _, pid := range pids {
		b, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			continue // gone
		}
		if f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])); len(f) > 1 {
			children[f[1]] = append(children[f[1]], pid)
		}
	}
	out := []string{self}
	for i := 0; i < len(out); i++ {
		out = append(out, children[out[i]]...)
	}
	return out, nil
}

// anonymous is the second field of statm less the third, in bytes; 0 of a process
// that is gone.
func anonymous(pid string) int64 {
	b, err := os.ReadFile("/proc/" + pid + "/statm")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b))
	if len(f) < 3 {
		return 0
	}
	resident, _ := strconv.ParseInt(f[1], 10, 64) // the kernel's own numbers
	shared, _ := strconv.ParseInt(f[2], 10, 64)
	return (resident - shared) * int64(os.Getpagesize())
}

// anonymousShare is a process's part of what it shares with others.
func anonymousShare(pid string) (int64, bool) {
	b, err := os.ReadFile("/proc/" + pid + "/smaps_rollup")
	if err != nil {
		return 0, false
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), "Pss_Anon:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10, err == nil
		}
	}
	return 0, false
}
