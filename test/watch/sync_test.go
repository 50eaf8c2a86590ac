package watch

import (
	"os"
	"path/filepath"
	"testing"
)

// TestRules copies files to where an image runs, by the program docker, which here runs
// its commands on this machine; leaves others alone; and builds the rest.
func TestRules(t *testing.T) {
	files := pair()
	s := prepare(t, files)
	running := filepath.Join(t.TempDir(), "app")
	s.write(map[string]string{
		"kaniko-build.yaml": `version: 1
targets:
  b:
    context: b
    watch:
      rules:
        - {paths: ["src/keep/**"], action: rebuild}
        - {paths: ["src/**"], action: sync, to: ` + running + `, via: "docker:web", exec: [touch, ` + running + `/reloaded]}
        - {paths: ["docs/**"], action: none}
  mark: {context: mark}
`,
		"b/Dockerfile": "FROM scratch\nCOPY . /app\n", "b/src/a.js": "1", "b/src/keep/k": "1", "b/docs/d": "1", "b/main": "1",
		"bin/docker": "#!/bin/sh\n[ \"$1 $2 $3\" = 'exec -i web' ] || exit 7\nshift 3\nexec \"$@\"\n",
	})
	s.sh("chmod +x bin/docker")
	t.Setenv("PATH", filepath.Join(s.dir, "bin")+":"+os.Getenv("PATH"))
	s.run()
	s.until("watch watching")
	s.write(map[string]string{"b/src/a.js": "2", "b/src/deep/er/b.js": "new"})
	s.until("watch synced")
	for name, want := range map[string]string{"a.js": "2", "deep/er/b.js": "new", "reloaded": ""} {
		if b, err := os.ReadFile(filepath.Join(running, name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	s.sh("rm b/src/a.js")
	s.until("watch synced")
	if _, err := os.Lstat(filepath.Join(running, "a.js")); !os.IsNotExist(err) {
		t.Errorf("a deleted file stays: %v", err)
	}
	s.expect("files that are copied", "")
	s.write(map[string]string{"b/docs/d": "2"})
	s.expect("a file of no account", "")
	s.write(map[string]string{"b/src/keep/k": "2"})
	s.expect("a file whose rule says so", "b")
	s.write(map[string]string{"b/main": "2"})
	s.expect("a file without a rule", "b")
	s.write(map[string]string{"bin/docker": "#!/bin/sh\nexit 1\n", "b/src/c.js": "1"})
	s.expect("a file that cannot be copied", "b")
}
