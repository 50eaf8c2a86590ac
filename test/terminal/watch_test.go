package terminal

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWatching edits, sees, resizes and quits, as a person does.
func TestWatching(t *testing.T) {
	g := newGate(t)
	files := map[string]string{
		"kaniko-build.yaml": "version: 1\ntargets:\n  base: {context: ., dockerfile: base/Dockerfile, image: example.test/base}\n  api: {context: api, image: example.test/api}\n",
		"base/Dockerfile":   "FROM scratch\nCOPY --chmod=755 busybox /bin/busybox\n",
		"api/Dockerfile":    "FROM example.test/base\nCOPY main /\nRUN [\"/bin/busybox\", \"sh\", \"-c\", \"echo made of $(busybox cat /main); busybox wget -qO- " + g.URL + "/$(busybox cat /main)\"]\n",
		"api/main":          "one",
	}
	s := open(t, 100, 30, files)
	before := s.modes()
	save := func(text string) {
		if err := os.WriteFile(filepath.Join(s.dir, "api/main"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.types("kaniko-build watch")
	s.shows("1 of 2", "▸ api", "│ made of one")
	g.open("one")
	s.shows("watching 2 images: r builds all again, f shows one by itself, p pauses, q ends")
	if s.modes() == before {
		t.Error("what is typed would be echoed")
	}
	// Edit, and see it.
	save("two")
	s.shows("api: api/main changed (saved ", "building api", "│ made of two")
	s.tmux("resize-window", "-x", "130", "-y", "20")
	s.wait("a view of the new size", func(now string) bool {
		found := header.FindAllString(now, -1)
		return len(found) == 1 && len([]rune(found[0])) == 130
	})
	s.tmux("send-keys", "f") // nothing else runs: it is the same with all of its log
	s.shows("│ made of two")
	// An edit meanwhile: it is begun again.
	save("three")
	s.shows("│ made of three")
	g.open("three")
	s.wait("the end of the build", func(now string) bool { return strings.HasSuffix(strings.TrimSpace(now), "q ends") })
	// Pause, and go on.
	s.tmux("send-keys", "p")
	s.shows("paused")
	save("four")
	s.tmux("send-keys", "p")
	s.shows("going on", "│ made of four")
	g.open("four")
	s.wait("the end of the build", func(now string) bool { return strings.HasSuffix(strings.TrimSpace(now), "q ends") })
	// Stop, and go on.
	s.tmux("send-keys", "C-z")
	s.shows("Stopped")
	s.types("fg")
	save("five")
	s.shows("│ made of five")
	g.open("five")
	s.wait("the end of the build", func(now string) bool { return strings.HasSuffix(strings.TrimSpace(now), "q ends") })
	s.tmux("send-keys", "q")
	s.wait("the prompt", func(now string) bool { return strings.HasSuffix(strings.TrimSpace(now), "ready>") })
	s.types("echo code $?")
	now := s.shows("code 0")
	if header.MatchString(now) {
		t.Errorf("the view is left behind:\n%s", now)
	}
	s.cursor()
	if after := s.modes(); after != before {
		t.Errorf("the terminal was\n%s\nand is\n%s", before, after)
	}
}

// TestStoppingBeforeThereIsAView stops the program while it builds, by the time that its
// first picture has not come yet.
func TestStoppingBeforeThereIsAView(t *testing.T) {
	s := open(t, 80, 24, map[string]string{
		"kaniko-build.yaml": "version: 1\nwatch: {onSuccess: {run: 'if [ -e stop ]; then rm stop; kill -TSTP $PPID; fi'}}\ntargets:\n  a: {context: a}\n",
		"a/Dockerfile":      "FROM scratch\nCOPY f /\n", "a/f": "1",
	})
	s.types("kaniko-build watch")
	s.shows("watching 1 image")
	for _, file := range [][2]string{{"stop", ""}, {"a/f", "2"}} {
		if err := os.WriteFile(filepath.Join(s.dir, file[0]), []byte(file[1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.shows("Stopped", "ready>")
	s.cursor()
	s.types("fg")
	// The line that ends a build came before the stop or comes now: a third build tells
	// that watching goes on.
	if err := os.WriteFile(filepath.Join(s.dir, "a/f"), []byte("3"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.wait("a third build", func(now string) bool {
		return strings.Count(now, "a/f changed") == 2 && strings.HasSuffix(strings.TrimSpace(now), "q ends")
	})
	s.tmux("send-keys", "q")
	s.wait("the prompt", func(now string) bool { return strings.HasSuffix(strings.TrimSpace(now), "ready>") })
	s.cursor()
}
