package terminal

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// monorepo is a manifest of a base, n images on it that wait at the gate, and
// one that fails when it is let through.
func monorepo(g *gate, n int) map[string]string {
	files := map[string]string{
		"base/Dockerfile":  "FROM scratch\nCOPY --chmod=755 busybox /bin/busybox\n",
		"fails/Dockerfile": "FROM example.test/base\nRUN [\"/bin/busybox\", \"sh\", \"-c\", \"echo the first words; busybox wget -qO- " + g.URL + "/fails; echo the last words; exit 3\"]\n",
	}
	manifest := "version: 1\nrun: {jobs: 20}\ntargets:\n  base: {context: ., dockerfile: base/Dockerfile, image: example.test/base}\n" +
		"  fails: {context: ., dockerfile: fails/Dockerfile}\n"
	for i := range n {
		name := fmt.Sprintf("svc-%02d", i)
		manifest += fmt.Sprintf("  %s: {context: ., dockerfile: %s/Dockerfile}\n", name, name)
		files[name+"/Dockerfile"] = fmt.Sprintf("FROM example.test/base\nRUN [\"/bin/busybox\", \"sh\", \"-c\", \"printf '\\\\033[31mbuilding %s\\\\033[2J\\\\n'; busybox wget -qO- %s/%s\"]\n", name, g.URL, name)
	}
	files["kaniko-build.yaml"] = manifest
	return files
}

var header = regexp.MustCompile(`(?m)^[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] [━─]+ \d+ of \d+ .*$`)

// whole fails unless the screen has the view exactly once, from its header to
// its last line.
func whole(t *testing.T, s *screen, what string) {
	t.Helper()
	s.wait("one view "+what, func(now string) bool { return len(header.FindAllString(now, -1)) == 1 })
}

func TestTheViewFitsAndFollows(t *testing.T) {
	for _, size := range [][2]int{{60, 15}, {80, 24}, {200, 50}} {
		t.Run(fmt.Sprintf("%dx%d", size[0], size[1]), func(t *testing.T) {
			t.Parallel()
			g := newGate(t)
			s := open(t, size[0], size[1], monorepo(g, 3))
			s.types("kaniko-build apply --keep-going")
			// Steps with their time, bar and output; what is finished is a number.
			now := s.shows("1 of 5", "4 running", "svc-00", "svc-02", "fails", "RUN", "│ building svc-01", "✓ 1 finished")
			if strings.Contains(now, "✗") || strings.Contains(now, "base ") {
				t.Errorf("it shows\n%s", now)
			}
			whole(t, s, "at the start")
			// A failure stays, with its last lines.
			g.open("fails")
			s.shows("1 failed", "✗ fails", "│ the first words", "│ the last words")
			g.open("svc-00")
			s.shows("✗ fails", "│ the last words", "✓ 2 finished")
			if now := s.now(); strings.Contains(now, "svc-00") {
				t.Errorf("what is finished is not collapsed:\n%s", now)
			}
			g.open("svc-01", "svc-02")
			// At the end the view makes way for the results, which say it again.
			now = s.wait("the prompt", func(now string) bool { return strings.HasSuffix(strings.TrimSpace(now), "ready>") }, "-S", "-")
			if header.MatchString(now) || strings.Contains(now, "✓") {
				t.Errorf("the view is left behind:\n%s", now)
			}
			for _, want := range []string{"4 images in", "fails failed at fails/Dockerfile:2:1", "| the last words"} {
				if !strings.Contains(now, want) {
					t.Errorf("the results lack %q:\n%s", want, now)
				}
			}
		})
	}
}

func TestResize(t *testing.T) {
	g := newGate(t)
	s := open(t, 100, 30, monorepo(g, 8))
	before := s.modes()
	s.types("kaniko-build apply --keep-going")
	s.shows("1 of 10", "9 running", "│ building svc-07")
	for _, size := range [][2]int{{60, 15}, {150, 40}, {61, 15}, {80, 50}, {60, 15}} {
		s.tmux("resize-window", "-x", fmt.Sprint(size[0]), "-y", fmt.Sprint(size[1]))
		s.wait("a view of the new size", func(now string) bool {
			found := header.FindAllString(now, -1)
			return len(found) == 1 && len([]rune(found[0])) == size[0] && strings.Count(now, "▸ svc-00") == 1 && strings.Contains(now, "✓ 1 finished")
		})
	}
	g.open("fails", "svc-00", "svc-01", "svc-02", "svc-03", "svc-04", "svc-05", "svc-06", "svc-07")
	s.wait("the end", func(now string) bool { return strings.HasSuffix(strings.TrimSpace(now), "ready>") })
	s.cursor()
	if after := s.modes(); after != before {
		t.Errorf("the terminal was\n%s\nand is\n%s", before, after)
	}
}

func TestInterruptLeavesTheTerminalAsItWas(t *testing.T) {
	for _, c := range []struct {
		name string
		keys []string
	}{{"once", []string{"C-c"}}, {"twice", []string{"C-c", "C-c"}}} {
		t.Run(c.name, func(t *testing.T) {
			g := newGate(t)
			s := open(t, 80, 24, monorepo(g, 2))
			before := s.modes()
			s.types("kaniko-build apply; echo code $?")
			s.shows("1 of 4", "│ building svc-01")
			if s.modes() == before {
				t.Error("what is typed would be echoed into the view")
			}
			s.tmux("send-keys", "-l", "xyz")
			s.tmux(append([]string{"send-keys"}, c.keys...)...)
			now := s.shows("code 130", "ready>")
			if header.MatchString(now) {
				t.Errorf("the view is left behind:\n%s", now)
			}
			s.cursor()
			if after := s.modes(); after != before {
				t.Errorf("the terminal was\n%s\nand is\n%s", before, after)
			}
		})
	}
}

func TestStopAndGoOn(t *testing.T) {
	g := newGate(t)
	s := open(t, 80, 24, monorepo(g, 1))
	s.types("kaniko-build apply --keep-going")
	s.shows("1 of 3", "│ building svc-00")
	s.tmux("send-keys", "C-z")
	s.shows("Stopped", "ready>")
	s.cursor()
	s.types("echo typed$((40+2))")
	s.shows("echo typed", "typed42")
	s.types("fg")
	s.wait("the view below what was typed", func(now string) bool {
		_, after, ok := strings.Cut(now, "typed42\n")
		return ok && header.MatchString(after) && strings.Contains(after, "│ building svc-00")
	})
	g.open("svc-00", "fails")
	s.shows("images in", "fails failed at", "ready>")
	s.cursor()
}

func TestNoColor(t *testing.T) {
	colour := regexp.MustCompile(`\x1b\[[0-9;]*(3[0-7]|38|4[0-7]|48|9[0-7])[0-9;]*m`)
	for _, c := range []struct {
		env  string
		want bool
	}{{"NO_COLOR=1", false}, {"NO_COLOR=", true}} {
		g := newGate(t)
		s := open(t, 80, 24, monorepo(g, 1), c.env)
		s.types("kaniko-build apply")
		s.shows("1 of 3", "│ building svc-00")
		if got := colour.MatchString(s.now("-e")); got != c.want {
			t.Errorf("with %s colours are %v:\n%q", c.env, got, s.now("-e"))
		}
	}
}

// TestNoFlicker reads what is sent to the terminal while nothing happens but
// time: small differences, and never the whole screen anew.
func TestNoFlicker(t *testing.T) {
	g := newGate(t)
	s := open(t, 80, 24, monorepo(g, 8))
	s.types("kaniko-build apply --keep-going")
	s.shows("1 of 10", "9 running")
	s.wait("what all steps say", func(now string) bool {
		return strings.Count(now, "│ building svc-") == 8 && strings.Contains(now, "│ the first words")
	})
	raw := filepath.Join(t.TempDir(), "raw")
	s.tmux("pipe-pane", "-o", "cat > "+raw)
	pictures, last := 0, ""
	s.wait("30 pictures more", func(now string) bool {
		if spinner := header.FindString(now)[:3]; spinner != last {
			pictures, last = pictures+1, spinner
		}
		return pictures > 30
	})
	s.tmux("pipe-pane")
	b, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, clear := range []string{"\x1b[2J", "\x1b[J", "\x1b[0J", "\x1b[3J", "\x1bc", "\x1b[?1049"} {
		if strings.Contains(string(b), clear) {
			t.Errorf("the screen is cleared by %q", clear)
		}
	}
	// The spinner turns, and once a second times change.
	drawn := 0
	for _, r := range string(b) {
		if strings.ContainsRune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", r) {
			drawn++
		}
	}
	if per := len(b) / max(drawn, 1); drawn < 20 || per < 5 || per > 200 {
		t.Errorf("%d pictures of %d bytes:\n%q", drawn, per, b)
	}
	if n := strings.Count(string(b), "building svc"); n > 0 {
		t.Errorf("what did not change is drawn again, %d times", n)
	}
}

// TestAShortRunShowsItsResults builds what is known.
func TestAShortRunShowsItsResults(t *testing.T) {
	g := newGate(t)
	s := open(t, 80, 24, monorepo(g, 1))
	s.types("kaniko-build apply base --progress quiet >/dev/null && clear && kaniko-build apply base")
	now := s.shows("1 image in", "ready>")
	if !strings.HasPrefix(now, "IMAGE ") {
		t.Errorf("it shows\n%s", now)
	}
}

// TestWithoutATerminal runs where there is none, or one that is a log.
func TestWithoutATerminal(t *testing.T) {
	g := newGate(t)
	s := open(t, 80, 60, monorepo(g, 1))
	s.types("kaniko-build apply base 2>err; kaniko-build apply base --progress tty 2>>err; echo code $?; TERM=dumb kaniko-build apply base; CI=true kaniko-build apply base")
	now := s.wait("two logs", func(now string) bool {
		return strings.Contains(now, "code 2") && strings.Count(now, "base cached") == 2
	})
	if header.MatchString(now) {
		t.Errorf("it shows\n%s", now)
	}
	b, err := os.ReadFile(filepath.Join(s.dir, "err"))
	if err != nil || strings.Contains(string(b), "\x1b") || !strings.Contains(string(b), "--progress auto takes plain where there is none") {
		t.Errorf("standard error is %q, %v", b, err)
	}
}
