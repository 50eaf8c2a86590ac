package watch

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"kaniko-build/test/rig"
)

// cyclesEnv names a variable with how many saves TestNothingGrows makes: 200 without it,
// 2,000 with `make soak`.
const cyclesEnv = "KANIKO_BUILD_SOAK"

// TestNothingGrows saves a file many times, now and then in a way that needs other
// watches, and compares what the program holds at a quarter of them with the end.
func TestNothingGrows(t *testing.T) {
	cycles := 200
	if text := os.Getenv(cyclesEnv); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		cycles = n
	}
	s := start(t, pair(), "--debounce", "20ms")
	var first, last holding
	for n := range cycles {
		switch n % 10 {
		case 3:
			s.sh(fmt.Sprintf("mkdir -p C/src/n%d/deep; echo %d > C/src/n%d/deep/f", n, n, n))
		case 4:
			s.sh(fmt.Sprintf("mv C/src/n%d C/src/m%d", n-1, n))
		case 5:
			s.sh(fmt.Sprintf("rm -r C/src/m%d", n-1))
		case 7:
			s.sh(fmt.Sprintf(`printf 'FROM scratch\nCOPY src /at%d\n' > C/a.Dockerfile`, n))
		default:
			s.write(map[string]string{"C/src/f": fmt.Sprint("cycle ", n)})
		}
		s.until("node-done a")
		s.until("watch watching")
		switch {
		case n == cycles/4:
			first = s.holds()
		case n == cycles-1:
			last = s.holds()
		}
		s.seen = nil
	}
	rig.Report(t, "watch: %d cycles: %v, at a quarter of them %v", cycles, last, first)
	if last.files > first.files || last.watches > first.watches || last.threads > first.threads+8 {
		t.Errorf("it holds %v, and held %v", last, first)
	}
	if last.memory > first.memory+first.memory/2 { // collection is lazy below 96 MB
		t.Errorf("it holds %d kB, and held %d", last.memory, first.memory)
	}
}

// holding is what a process holds.
type holding struct {
	files, watches, threads int
	memory                  int // kB, resident
}

func (h holding) String() string {
	return fmt.Sprintf("%d files, %d watches, %d threads, %d kB", h.files, h.watches, h.threads, h.memory)
}

// holds is what the program holds now.
func (s *session) holds() holding {
	s.Helper()
	proc := fmt.Sprintf("/proc/%d/", s.cmd.Process.Pid)
	var h holding
	list, err := os.ReadDir(proc + "fd")
	if err != nil {
		s.Fatal(err)
	}
	h.files = len(list)
	for _, e := range list {
		if target, _ := os.Readlink(proc + "fd/" + e.Name()); target == "anon_inode:inotify" {
			info, err := os.ReadFile(proc + "fdinfo/" + e.Name())
			if err != nil {
				s.Fatal(err)
			}
			h.watches = strings.Count(string(info), "inotify wd:")
		}
	}
	f, err := os.Open(proc + "status")
	if err != nil {
		s.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		words := strings.Fields(lines.Text())
		for name, to := range map[string]*int{"VmRSS:": &h.memory, "Threads:": &h.threads} {
			if words[0] == name {
				*to, _ = strconv.Atoi(words[1])
			}
		}
	}
	return h
}
