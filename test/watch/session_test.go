package watch

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"kaniko-build/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// event is one line of --progress json.
type event struct {
	Node  string
	Kind  string
	Text  string
	Data  string
	Time  time.Time
	seen  time.Time // by the test
	Image struct {
		Cached bool
		Digest string
	}
	Watch struct {
		Kind   string
		Text   string
		Nodes  []string
		Causes []struct{ Node, Path, Text, Needs string }
	}
}

// is tells what an event is: of watching "watch KIND", of a node "KIND NODE".
func (e event) is() string {
	if e.Kind == "watch" {
		return "watch " + e.Watch.Kind
	}
	return strings.TrimSpace(e.Kind + " " + e.Node)
}

// session is a running kaniko-build watch.
type session struct {
	testing.TB
	dir    string
	cmd    *exec.Cmd
	events chan event
	seen   []event // all, for failures
	marks  int
	other  []string // lines that are no events
	as     *rig.Account
	state  string // "" is one in a directory of the test's own
}

const (
	patience = 60 * time.Second
	mark     = "mark" // a target whose change says that all before it was seen
)

// start watches files, with the target mark beside theirs in the manifest.
func start(t testing.TB, files map[string]string, args ...string) *session {
	t.Helper()
	s := prepare(t, files)
	s.run(args...)
	s.until("watch watching")
	return s
}

func prepare(t testing.TB, files map[string]string) *session {
	t.Helper()
	s := &session{TB: t, dir: t.TempDir(), events: make(chan event, 100_000)}
	files["kaniko-build.yaml"] += "  mark: {context: mark}\n"
	files["mark/Dockerfile"] = "FROM scratch\nCOPY mark /\n"
	files["mark/mark"] = "0"
	rig.Write(t, s.dir, files)
	return s
}

// give lets somebody else run the program.
func (s *session) give(a *rig.Account) {
	s.Helper()
	top := rig.Space(s, a)
	s.as, s.state = a, filepath.Join(top, "state")
	dir := filepath.Join(top, "workspace")
	if err := os.CopyFS(dir, os.DirFS(s.dir)); err != nil {
		s.Fatal(err)
	}
	s.dir = dir
	rig.Give(s, top, a)
}

// run starts the program.
func (s *session) run(args ...string) {
	s.Helper()
	s.command(exec.Command(rig.Binary(s), append([]string{"watch", "--progress", "json"}, args...)...))
}

func (s *session) command(c *exec.Cmd) {
	s.Helper()
	s.cmd = c
	c.Dir = s.dir
	if s.state == "" {
		s.state = filepath.Join(s.TempDir(), "state")
	}
	c.Env = append(os.Environ(), "KANIKO_BUILD_STATE="+s.state)
	if s.as != nil {
		c.Env = append(s.as.Env(), "KANIKO_BUILD_STATE="+s.state)
	}
	if c.SysProcAttr == nil {
		c.SysProcAttr = &syscall.SysProcAttr{}
	}
	if s.as != nil && s.as.UID != 0 {
		c.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(s.as.UID), Gid: uint32(s.as.GID)}
	}
	c.SysProcAttr.Pdeathsig = syscall.SIGKILL
	out, err := c.StderrPipe()
	if err != nil {
		s.Fatal(err)
	}
	if err := c.Start(); err != nil {
		s.Fatal(err)
	}
	go func() {
		defer close(s.events)
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 16<<20)
		for lines.Scan() {
			var e event
			if json.Unmarshal(lines.Bytes(), &e) != nil {
				e.Kind, e.Text = "other", lines.Text()
			}
			e.seen = time.Now()
			s.events <- e
		}
	}()
	s.Cleanup(func() {
		if s.cmd.ProcessState == nil {
			s.stop()
		}
		if s.Failed() {
			for _, e := range s.seen[max(0, len(s.seen)-40):] {
				s.Logf("%s %s %s %s", e.Time.Format("05.000"), e.is(), e.Text, e.Watch.Text)
			}
		}
	})
}

// stop interrupts the program and waits for its end.
func (s *session) stop() {
	s.Helper()
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		s.Error(err)
	}
	for e := range s.events {
		s.seen = append(s.seen, e)
	}
	_ = s.cmd.Wait()
	if code := s.cmd.ProcessState.ExitCode(); code != 130 {
		s.Errorf("interrupted it ends with code %d", code)
	}
}

// next is the next event.
func (s *session) next() event {
	s.Helper()
	select {
	case e, ok := <-s.events:
		if !ok {
			s.Fatal("the program has ended")
		}
		s.seen = append(s.seen, e)
		return e
	case <-time.After(patience):
		s.Fatal("nothing happens any more")
	}
	return event{}
}

// until takes events up to one, which it returns.
func (s *session) until(what string) event {
	s.Helper()
	for {
		if e := s.next(); e.is() == what {
			return e
		}
	}
}

// write writes files and gives them the time of now.
func (s *session) write(files map[string]string) {
	s.Helper()
	for name, text := range files {
		p := filepath.Join(s.dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			s.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			s.Fatal(err)
		}
	}
}

// sh runs a line of shell in the workspace.
func (s *session) sh(line string) {
	s.Helper()
	c := exec.Command("sh", "-euc", line)
	c.Dir = s.dir
	if out, err := c.CombinedOutput(); err != nil {
		s.Fatalf("%s: %v\n%s", line, err, out)
	}
}

// built counts the builds of each target since the last call, to the end of one of
// mark, which is not counted; and the reasons that were told.
func (s *session) built() (counts map[string]int, reasons []string) {
	s.Helper()
	s.marks++
	s.write(map[string]string{"mark/mark": fmt.Sprint(s.marks)})
	counts = map[string]int{}
	marked := false
	for {
		e := s.next()
		switch {
		case e.Kind == "node-done" && e.Node == mark:
			marked = true
		case e.Kind == "node-done":
			counts[e.Node]++
		case e.is() == "watch changed":
			reasons = append(reasons, e.Text)
		case e.is() == "watch watching" && marked:
			return counts, reasons
		}
	}
}

// expect fails unless exactly these builds happened, written as "a b b".
func (s *session) expect(what, want string) (reasons []string) {
	s.Helper()
	counts, reasons := s.built()
	wanted := map[string]int{}
	for _, name := range strings.Fields(want) {
		wanted[name]++
	}
	if fmt.Sprint(counts) != fmt.Sprint(wanted) {
		s.Errorf("%s: built %v, want %v; %q", what, counts, wanted, reasons)
	}
	return reasons
}

// tool runs another command of the program in the session's store.
func (s *session) tool(args ...string) (string, error) {
	s.Helper()
	c := exec.Command(rig.Binary(s), args...)
	c.Dir, c.Env = s.dir, s.cmd.Env
	b, err := c.CombinedOutput()
	return string(b), err
}

// image is the file of an image in the store, by the image's name and the file's
// path; absent tells that there is none.
func (s *session) image(name, file string) (text string, absent bool) {
	s.Helper()
	out := filepath.Join(s.TempDir(), "root")
	if b, err := s.tool("unpack", name, out); err != nil {
		s.Fatalf("unpack %s: %v\n%s", name, err, b)
	}
	b, err := os.ReadFile(filepath.Join(out, file))
	if os.IsNotExist(err) {
		return "", true
	}
	if err != nil {
		s.Fatal(err)
	}
	return string(b), false
}
