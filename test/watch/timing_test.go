package watch

import (
	"fmt"
	"kaniko-build/test/rig"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// gate holds RUN steps that ask for /NAME until NAME is opened, and tells which ask.
type gate struct {
	*httptest.Server
	asked chan string
	mu    sync.Mutex
	doors map[string]chan struct{}
}

func newGate(t *testing.T) *gate {
	g := &gate{asked: make(chan string, 100), doors: map[string]chan struct{}{}}
	over := make(chan struct{})
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, "/")
		g.asked <- name
		select {
		case <-g.door(name):
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

func (g *gate) open(name string) { close(g.door(name)) }

// waits returns when a RUN asks for a name.
func (g *gate) waits(t *testing.T, name string) {
	t.Helper()
	for {
		select {
		case got := <-g.asked:
			if got == name {
				return
			}
		case <-time.After(patience):
			t.Fatalf("nobody asks for %s", name)
		}
	}
}

// held is targets slow and other, whose RUNs wait at the gate for what their files say.
func held(t *testing.T, g *gate) map[string]string {
	files := map[string]string{"kaniko-build.yaml": "version: 1\nrun: {jobs: 4}\ntargets:\n"}
	for _, name := range []string{"slow", "other"} {
		files["kaniko-build.yaml"] += fmt.Sprintf("  %s: {context: %s, image: example.test/%[1]s}\n", name, name)
		files[name+"/busybox"] = rig.Busybox(t)
		files[name+"/f"] = name + "-1"
		files[name+"/Dockerfile"] = "FROM scratch\nCOPY --chmod=755 busybox /bin/busybox\nCOPY f /f\nRUN [\"/bin/busybox\", \"sh\", \"-c\", \"busybox wget -qO /dev/null " + g.URL + "/$(busybox cat /f); busybox cp /f /made\"]\n"
	}
	return files
}

func (s *session) made(name string) string {
	s.Helper()
	text, absent := s.image("example.test/"+name+":latest", "made")
	if absent {
		s.Errorf("%s has no /made", name)
	}
	return text
}

// begin starts a session of held targets whose first build goes through.
func begin(t *testing.T, g *gate, args ...string) *session {
	s := prepare(t, held(t, g))
	g.open("slow-1")
	g.open("other-1")
	s.run(args...)
	s.until("watch watching")
	return s
}

func TestAChangeRestartsThatNodeOnly(t *testing.T) {
	g := newGate(t)
	s := begin(t, g, "--on-change", "restart")
	s.write(map[string]string{"slow/f": "slow-2", "other/f": "other-2"})
	g.waits(t, "slow-2")
	for i := range 2 { // other may ask before or after
		if len(g.asked) > 0 || i > 0 {
			break
		}
		s.until("step-started other")
	}
	s.write(map[string]string{"slow/f": "slow-3"})
	if e := s.until("node-skipped slow"); !strings.Contains(e.Text, "built anew") {
		t.Errorf("slow was given up, as %q", e.Text)
	}
	g.open("other-2") // which went on meanwhile
	g.waits(t, "slow-3")
	g.open("slow-3")
	counts, _ := s.built()
	if counts["slow"] != 1 || counts["other"] != 1 {
		t.Errorf("built %v", counts)
	}
	if got := s.made("slow"); got != "slow-3" {
		t.Errorf("slow holds %q", got)
	}
	if got := s.made("other"); got != "other-2" {
		t.Errorf("other holds %q", got)
	}
	for _, e := range s.seen {
		if e.is() == "node-skipped other" || e.Kind == "node-failed" {
			t.Errorf("%s: %s", e.is(), e.Text)
		}
	}
}

func TestAChangeQueues(t *testing.T) {
	g := newGate(t)
	s := begin(t, g, "--on-change", "queue")
	s.write(map[string]string{"slow/f": "slow-2"})
	g.waits(t, "slow-2")
	s.write(map[string]string{"slow/f": "slow-3"})
	s.write(map[string]string{"other/f": "other-2"})
	g.open("slow-2")
	s.until("node-done slow") // of what it began with
	g.open("slow-3")
	g.open("other-2")
	counts, _ := s.built()
	if counts["slow"] != 1 || counts["other"] != 1 {
		t.Errorf("built %v after that", counts)
	}
	if got := s.made("slow") + s.made("other"); got != "slow-3other-2" {
		t.Errorf("they hold %q", got)
	}
}

func TestAChangeIsIgnoredUntilTheNext(t *testing.T) {
	g := newGate(t)
	s := begin(t, g, "--on-change", "ignore")
	s.write(map[string]string{"slow/f": "slow-2"})
	g.waits(t, "slow-2")
	s.write(map[string]string{"other/f": "other-2"})
	s.until("watch held")
	g.open("slow-2")
	s.until("node-done slow")
	s.until("watch watching")
	g.open("other-2")
	counts, _ := s.built() // the next change is that of mark
	if counts["slow"] != 0 || counts["other"] != 1 {
		t.Errorf("built %v", counts)
	}
}

// TestTheCapEndsWaiting says that changes which never end are built all the same.
func TestTheCapEndsWaiting(t *testing.T) {
	s := start(t, pair(), "--debounce", "400ms", "--max-wait", "2s")
	stop := make(chan struct{})
	var writer sync.WaitGroup
	begun := time.Now()
	writer.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-tick.C:
				_ = os.WriteFile(filepath.Join(s.dir, "b/g"), fmt.Append(nil, n), 0o644)
			}
		}
	})
	e := s.until("watch changed")
	if took := e.Time.Sub(begun); took < 1500*time.Millisecond || took > 8*time.Second {
		t.Errorf("it waited %v", took)
	}
	close(stop)
	writer.Wait()
	s.write(map[string]string{"b/g": "last"})
	s.built()
	if text, _ := s.image("example.test/b:latest", "g"); text != "last" {
		t.Errorf("b holds %q", text)
	}
}

// TestBursts makes many changes at once: one build, of exactly the final state.
func TestBursts(t *testing.T) {
	files := pair()
	files["C/src/dir/deep/f"] = "1"
	files["other/f"] = "moved"
	s := start(t, files)
	final := func(what string) {
		t.Helper()
		s.expect(what, "a b")
		want := listing(t, filepath.Join(s.dir, "C/src"))
		out := filepath.Join(t.TempDir(), "root")
		if b, err := s.tool("unpack", "example.test/a:latest", out); err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		if got := listing(t, filepath.Join(out, "src")); got != want {
			t.Errorf("%s: the image holds\n%s\nwant\n%s", what, got, want)
		}
	}
	s.sh("mkdir -p C/src/n/e/s/t; for i in 1 2 3; do echo $i > C/src/n/e/s/t/$i; echo $i > C/src/n/e/$i; done")
	final("nested new directories")
	s.sh("echo x > C/src/n/e/s/t/x; mkdir C/src/n/e/s/t/u; echo y > C/src/n/e/s/t/u/y")
	final("files in them")
	s.sh("echo 3 > C/src/.new; mv C/src/.new C/src/f")
	final("an atomic rename")
	s.sh("mv C/src/n C/src/m")
	final("a moved directory")
	s.sh("echo z > C/src/m/e/s/t/z")
	final("a file in it, under its new name")
	s.sh("mv C/src/m n; echo out > n/e/1")
	final("a directory that moved away")
	s.sh("echo no > n/e/2")
	s.expect("a file in it, out of the context", "")
	s.sh("mv n C/src/back")
	final("one that comes back")
	s.sh("echo yes > C/src/back/e/s/t/yes")
	final("a file in it")
	s.sh("rm -r C/src/back C/src/dir")
	final("deleted directories")
	s.sh("mv C/src C/src2; mkdir C/src; echo again > C/src/f; rm -r C/src2")
	final("the directory itself replaced")
	s.sh("echo again2 > C/src/f")
	final("a file in the new one")
	s.sh("mv C D; mkdir -p E/src; cp D/a.Dockerfile* E; echo e > E/src/f; mv E C")
	final("the context replaced")
	s.sh("echo f > C/src/g")
	final("a file in the new context")
}

// listing is all that a directory holds, and what.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil || e.IsDir() {
			fmt.Fprintln(&b, rel+"/")
			return err
		}
		text, err := os.ReadFile(p)
		fmt.Fprintf(&b, "%s %q\n", rel, text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestACheckout switches between two branches that differ in 20,000 files.
func TestACheckout(t *testing.T) {
	s := prepare(t, map[string]string{
		"kaniko-build.yaml": "version: 1\ntargets:\n  all: {context: ., dockerfile: all.Dockerfile, image: example.test/all}\n",
		"all.Dockerfile":    "FROM scratch\nCOPY big /big\n", ".dockerignore": "*\n!big\n", ".gitignore": "mark\n",
	})
	files := func(text string) {
		for d := range 100 {
			dir := filepath.Join(s.dir, "big", fmt.Sprint("d", d))
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			for f := range 200 {
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(f)), fmt.Append(nil, text, d, f), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	git := "git -c user.name=t -c user.email=t@example.test "
	files("one")
	s.sh("git init -q -b one; git add -A; " + git + "commit -qm one; git checkout -q -b two")
	files("two")
	s.sh("git rm -rq --cached big/d99; rm -r big/d99; mkdir -p big/new/deep; echo n > big/new/deep/f; git add -A; " + git + "commit -qm two; git checkout -q one")
	s.run()
	s.until("watch watching")
	s.sh("git checkout -q two")
	s.expect("a checkout of 20,000 files", "all")
	out := filepath.Join(t.TempDir(), "root")
	if b, err := s.tool("unpack", "example.test/all:latest", out); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	if got, want := listing(t, filepath.Join(out, "big")), listing(t, filepath.Join(s.dir, "big")); got != want {
		t.Error("the image is not what is checked out")
	}
}

// TestLinkedDirectories follows links to what is copied.
func TestLinkedDirectories(t *testing.T) {
	files := pair()
	files["C/a.Dockerfile.dockerignore"] = "out\n"
	files["C/a.Dockerfile"] = "FROM scratch\nCOPY link /src\n"
	files["C/real/f"] = "1"
	files["C/more/f"] = "more"
	s := prepare(t, files)
	s.sh("ln -s real C/link; mv b b.real; ln -s b.real b")
	s.run()
	s.until("watch watching")
	s.sh("echo 2 > C/real/f")
	s.expect("a file that a link leads to", "a b")
	s.sh("echo m > C/more/f")
	s.expect("a file that no link leads to", "")
	s.sh("ln -sfn more C/link")
	s.expect("a link that leads elsewhere", "a b")
	s.sh("echo 3 > C/more/f")
	s.expect("a file that it leads to now", "a b")
	s.sh("echo 3 > C/real/f")
	s.expect("a file that it does not lead to any more", "")
	s.sh("echo 2 > b.real/g")
	s.expect("a file of a context that is a link", "b")
	s.sh("cp -r b.real b.new; echo new > b.new/g; ln -sfn b.new b")
	s.expect("a context that is another link", "b")
	s.sh("echo newer > b.new/g")
	s.expect("a file in it", "b")
}

// TestMistakesAreWaitedOut breaks one thing after the other.
func TestMistakesAreWaitedOut(t *testing.T) {
	s := start(t, pair())
	broken := func(what, line string) {
		t.Helper()
		s.sh(line)
		if e := s.until("watch broken"); e.Text == "" {
			t.Errorf("%s: no reason", what)
		}
	}
	broken("a Dockerfile", "cp C/a.Dockerfile keep; echo FROO > C/a.Dockerfile")
	s.sh("mv keep C/a.Dockerfile")
	s.expect("mended", "")
	broken("a context that is gone", "mv b b.away")
	s.sh("mv b.away b")
	s.expect("back", "")
	broken("a file that is gone", "rm b/g")
	s.sh("echo new > b/g")
	s.expect("another", "b")
	broken("the manifest", "cp kaniko-build.yaml keep; head -c 60 keep > kaniko-build.yaml")
	s.sh("mv keep kaniko-build.yaml")
	s.expect("whole again", "")
	broken("the manifest is gone", "mv kaniko-build.yaml keep")
	s.sh("sed 's,  b: .*,&\\n  c: {context: c},' keep > new; mkdir c; printf 'FROM example.test/b\\nCOPY h /\\n' > c/Dockerfile; echo h > c/h; mv new kaniko-build.yaml")
	s.expect("a new target", "c")
	s.sh("echo 2 > c/h")
	s.expect("a file of it", "c")
	s.sh("echo 3 > b/g")
	s.expect("what it stands on", "b c")
	s.sh("printf 'FROM example.test/a\\nCOPY h /\\n' > c/Dockerfile")
	s.expect("another edge", "c")
	s.sh("echo 4 > b/g")
	s.expect("what it stood on", "b")
}

// TestEventsAreLost stops the reader until the kernel's queue is full.
func TestEventsAreLost(t *testing.T) {
	s := start(t, pair())
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s.sh("mkdir -p C/src/many C/src/late/er; i=0; while [ $i -lt 20000 ]; do : > C/src/many/$i; i=$((i+1)); done; rm -r C/src/many; echo lost > C/src/late/er/f")
	if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	s.expect("lost events", "a b")
	if text, _ := s.image("example.test/a:latest", "src/late/er/f"); text != "lost\n" {
		t.Errorf("a holds %q", text)
	}
	s.sh("echo found > C/src/late/er/f")
	s.expect("a file after that", "a b")
}
