package terminal

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"kaniko-build/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// gate lets steps through that ask for /NAME, once NAME is opened.
type gate struct {
	*httptest.Server
	mu    sync.Mutex
	doors map[string]chan struct{}
}

func newGate(t *testing.T) *gate {
	g := &gate{doors: map[string]chan struct{}{}}
	over := make(chan struct{})
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-g.door(strings.TrimPrefix(r.URL.Path, "/")):
		case <-r.Context().Done():
		case <-over:
		}
	}))
	t.Cleanup(func() { close(over); g.Close() })
	return g
}

func (g *gate) door(name string) chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.doors[name] == nil {
		g.doors[name] = make(chan struct{})
	}
	return g.doors[name]
}

func (g *gate) open(names ...string) {
	for _, n := range names {
		close(g.door(n))
	}
}

// screen is a terminal with a shell in it.
type screen struct {
	t   *testing.T
	dir string // the shell's working directory, with the program as ./kb
	tty string // the terminal's device
}

// open starts a terminal of a size, in a directory of files.
func open(t *testing.T, width, height int, files map[string]string, env ...string) *screen {
	t.Helper()
	rig.Need(t, "tmux", "tmux")
	s := &screen{t: t, dir: t.TempDir()}
	rig.Write(t, s.dir, files)
	if err := os.WriteFile(filepath.Join(s.dir, "busybox"), []byte(rig.Busybox(t)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(rig.Binary(t), filepath.Join(s.dir, "kaniko-build")); err != nil {
		t.Fatal(err)
	}
	rc := "PS1='ready> '\n"
	for _, e := range append([]string{"KANIKO_BUILD_STATE=" + filepath.Join(t.TempDir(), "state"), "PATH=" + s.dir + ":" + os.Getenv("PATH"), "CI=", "GITHUB_ACTIONS=", "GITLAB_CI=", "NO_COLOR="}, env...) {
		rc += "export '" + e + "'\n"
	}
	rig.Write(t, s.dir, map[string]string{"rc": rc})
	s.tmux("-f", "/dev/null", "new-session", "-d", "-x", fmt.Sprint(width), "-y", fmt.Sprint(height), "-c", s.dir, "bash", "--noprofile", "--rcfile", "rc")
	t.Cleanup(func() { s.tmux("kill-server") })
	s.tmux("set-option", "-g", "status", "off")
	s.tmux("resize-window", "-x", fmt.Sprint(width), "-y", fmt.Sprint(height)) // a status line had taken one
	s.tty = strings.TrimSpace(s.tmux("display-message", "-p", "#{pane_tty}"))
	s.wait("the prompt", func(now string) bool { return strings.Contains(now, "ready>") })
	return s
}

// tmux runs a command of the server of this test's own.
func (s *screen) tmux(args ...string) string {
	s.t.Helper()
	out, err := exec.Command("tmux", append([]string{"-S", filepath.Join(s.dir, "tmux.sock")}, args...)...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("tmux %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// types sends a line, as typed and entered.
func (s *screen) types(line string) {
	s.tmux("send-keys", "-l", line)
	s.tmux("send-keys", "Enter")
}

// now is what the screen shows; more are flags of capture-pane.
func (s *screen) now(more ...string) string {
	return s.tmux(append([]string{"capture-pane", "-p"}, more...)...)
}

// wait waits for the screen to show something, and answers with it.
func (s *screen) wait(what string, ok func(now string) bool, more ...string) string {
	s.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		now := s.now(more...)
		if ok(now) {
			return now
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("the screen never showed %s; it is\n%s", what, strings.TrimRight(now, "\n"))
		}
		time.Sleep(20 * time.Millisecond) // between two looks
	}
}

// shows waits for all of some texts at once.
func (s *screen) shows(texts ...string) string {
	s.t.Helper()
	return s.wait(fmt.Sprintf("%q", texts), func(now string) bool {
		for _, text := range texts {
			if !strings.Contains(now, text) {
				return false
			}
		}
		return true
	})
}

// modes is how the terminal treats what is typed and printed.
func (s *screen) modes() string {
	s.t.Helper()
	out, err := exec.Command("stty", "-F", s.tty, "-a").CombinedOutput()
	if err != nil {
		s.t.Fatalf("stty: %v\n%s", err, out)
	}
	_, settings, _ := strings.Cut(string(out), ";") // without the speed, rows and columns
	_, settings, _ = strings.Cut(settings, "line = ")
	return settings
}

// shown fails unless the cursor is visible.
func (s *screen) cursor() {
	s.t.Helper()
	if f := strings.TrimSpace(s.tmux("display-message", "-p", "#{cursor_flag}")); f != "1" {
		s.t.Errorf("the cursor is hidden")
	}
}
