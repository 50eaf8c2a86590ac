package watch

import (
	"strings"
	"testing"

	"kaniko-build/test/rig"
)

// TestARealEngine gives images to an engine as they are saved, and copies files into a
// container of one of them.
func TestARealEngine(t *testing.T) {
	d := rig.StartDocker(t)
	for _, e := range d.Env() {
		name, value, _ := strings.Cut(e, "=")
		t.Setenv(name, value)
	}
	s := prepare(t, map[string]string{
		"kaniko-build.yaml": `version: 1
targets:
  web:
    context: web
    image: example.test/watch/web
    watch:
      rules:
        - {paths: ["src/**"], action: sync, to: /app/src, via: "docker:watched-web", exec: "cat /app/src/*.js >> /told"}
`,
		"web/Dockerfile": "FROM scratch\nCOPY --chmod=755 busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nCOPY main src /app/src/\nCOPY main /app/\nCMD [\"cat\"]\n",
		"web/busybox":    rig.Busybox(t), "web/main": "one", "web/src/a.js": "first\n",
	})
	s.run("--load-to", "docker")
	s.until("watch watching")
	says := func(files ...string) string {
		t.Helper()
		o := d.Run(t, rig.Container{Image: "example.test/watch/web", Args: append([]string{"cat"}, files...)})
		if o.Code != 0 {
			t.Fatalf("a container of the image: %+v", o)
		}
		return o.Stdout
	}
	if got := says("/app/main"); got != "one" {
		t.Errorf("the engine has an image of %q", got)
	}
	s.write(map[string]string{"web/main": "two"})
	s.expect("a save", "web")
	if got := says("/app/main"); got != "two" {
		t.Errorf("after a save the engine has an image of %q", got)
	}

	c := d.Start(t, rig.Container{Image: "example.test/watch/web", Flags: []string{"--name", "watched-web"}})
	within := func(line, want string) {
		t.Helper()
		if o := c.Exec(t, rig.Call{}, "sh", "-c", line); o.Code != 0 || o.Stdout != want {
			t.Errorf("%s in the container: %+v, want %q", line, o, want)
		}
	}
	s.write(map[string]string{"web/src/a.js": "second\n", "web/src/deep/er/b.js": "new\n"})
	s.until("watch synced")
	within("cat /app/src/a.js /app/src/deep/er/b.js /told", "second\nnew\nsecond\n")
	s.sh("rm web/src/a.js; echo third > web/src/c.js")
	s.until("watch synced")
	within("ls /app/src; cat /told", "c.js\ndeep\nmain\nsecond\nthird\n")
	s.expect("files that are copied", "")

	// The image has them with the next build, and the container is left alone.
	s.write(map[string]string{"web/main": "three"})
	s.expect("a file without a rule", "web")
	if got := says("/app/src/c.js", "/app/main"); got != "third\nthree" {
		t.Errorf("the engine has an image of %q", got)
	}
	within("cat /app/main", "two")
	// A container that has ended takes no files: they are built.
	c.Kill(t)
	s.write(map[string]string{"web/src/c.js": "fourth\n"})
	s.until("node-done web")
	s.expect("a file that was built", "")
	if got := says("/app/src/c.js"); got != "fourth\n" {
		t.Errorf("without the container the engine has an image of %q", got)
	}
}
