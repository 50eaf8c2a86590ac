package watch

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"kaniko-build/test/rig"
)

// limited runs the program in a user namespace of its own, with a limit lowered there.
func (s *session) limited(limit string, n int, args ...string) {
	s.Helper()
	c := exec.Command("sh", append([]string{"-ec", fmt.Sprintf("echo %d > /proc/sys/user/%s; exec \"$@\"", n, limit), "sh", rig.Binary(s), "watch", "--progress", "json"}, args...)...)
	all := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1<<32 - 1}}
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: all, GidMappings: all}
	s.command(c)
}

// polled waits for the sentence about a limit, and counts it to the end of the session.
func (s *session) once(words string) {
	s.Helper()
	n := 0
	for _, e := range s.seen {
		if e.is() == "watch polling" {
			if !strings.Contains(e.Text, words) {
				s.Errorf("it says %q", e.Text)
			}
			n++
		}
	}
	if n != 1 {
		s.Errorf("it speaks %d times of %s", n, words)
	}
}

func TestInotifyIsExhausted(t *testing.T) {
	rig.NeedRoot(t)
	for _, c := range []struct {
		limit string
		n     int
		words string
	}{
		{"max_inotify_instances", 0, "sysctl fs.inotify.max_user_instances="},
		{"max_inotify_watches", 3, "sysctl fs.inotify.max_user_watches="},
	} {
		t.Run(c.limit, func(t *testing.T) {
			s := prepare(t, pair())
			s.limited(c.limit, c.n, "--poll-interval", "300ms")
			s.until("watch watching")
			s.sh("echo 2 > C/src/f")
			s.expect("a file", "a b")
			s.sh("touch C/src/f; mkdir C/dist; touch C/dist/x")
			s.expect("nothing", "")
			s.sh("mkdir -p C/src/new/er; echo f > C/src/new/er/f")
			s.expect("new directories", "a b")
			s.sh("rm -r C/src/new")
			s.expect("a deletion", "a b")
			s.sh(`printf 'FROM scratch\nCOPY src /other\n' > C/a.Dockerfile`)
			s.expect("the Dockerfile", "a b")
			s.once(c.words)
		})
	}
	t.Run("later", func(t *testing.T) { // watches run out while watching
		s := prepare(t, pair())
		s.limited("max_inotify_watches", 8, "--poll-interval", "300ms")
		s.until("watch watching")
		s.sh("mkdir C/src/1 C/src/2 C/src/3 C/src/4 C/src/5 C/src/6 C/src/7; echo 1 > C/src/7/f")
		s.expect("more directories than watches", "a b")
		s.sh("echo 2 > C/src/7/f")
		s.expect("a file in the last", "a b")
		s.once("sysctl fs.inotify.max_user_watches=")
	})
}

func TestPoll(t *testing.T) {
	s := start(t, pair(), "--trigger", "poll", "--poll-interval", "200ms")
	s.sh("echo 2 > C/src/f")
	s.expect("a file", "a b")
	s.sh("touch C/src/f")
	s.expect("a touch", "")
	s.sh("mv b/g b/h; echo 3 > b/g")
	s.expect("a file of b", "b")
}

func TestManual(t *testing.T) {
	s := start(t, pair(), "--trigger", "manual")
	s.sh("echo 2 > C/src/f")
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if e := s.until("watch changed"); len(e.Watch.Nodes) != 2 {
		t.Errorf("a signal builds %q", e.Watch.Nodes)
	}
	s.until("watch watching")
}
