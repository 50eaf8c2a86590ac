package watch

import (
	"strings"
	"testing"

	"kaniko-build/test/rig"
)

// pair is images a and b, b on a; a's ignore file leaves src only.
func pair() map[string]string {
	return map[string]string{
		"kaniko-build.yaml":           "version: 1\ntargets:\n  a: {context: C, dockerfile: a.Dockerfile, image: example.test/a}\n  b: {context: b, image: example.test/b}\n",
		"C/a.Dockerfile":              "FROM scratch\nCOPY src /src\n",
		"C/a.Dockerfile.dockerignore": "*\n!src\n",
		"C/src/f":                     "1",
		"b/Dockerfile":                "FROM example.test/a\nCOPY g /g\n",
		"b/g":                         "1",
	}
}

// TestOnlyWhatChangedIsBuilt is BR-39.
func TestOnlyWhatChangedIsBuilt(t *testing.T) {
	s := start(t, pair())
	s.sh("touch C/x")
	s.expect("an ignored file", "")
	s.sh("mkdir C/dist; echo 1 > C/dist/f")
	s.expect("an ignored directory", "")
	s.sh("touch C/src/f")
	s.expect("a touch", "")
	s.sh("printf 1 > C/src/f")
	s.expect("a save without a change", "")
	for _, name := range []string{"f~", ".f.swp", "4913", ".#f", "#f#", "f___jb_tmp___"} {
		s.write(map[string]string{"C/src/" + name: "x"})
	}
	s.sh("rm C/src/*~ C/src/.f.swp C/src/4913 C/src/.#f C/src/#f# C/src/*___")
	s.expect("temporary files of editors", "")
	s.sh("echo 2 > C/src/f")
	why := s.expect("a file", "a b")
	if len(why) == 0 || !strings.Contains(why[0], "a: C/src/f changed (saved ") || !strings.Contains(why[0], "building a, b (FROM example.test/a)") {
		t.Errorf("reasons: %q", why)
	}
	s.sh(`printf 'FROM scratch\nCOPY src /new\n' > C/a.Dockerfile`)
	why = s.expect("the Dockerfile", "a b")
	if len(why) == 0 || !strings.Contains(why[0], "C/a.Dockerfile changed") {
		t.Errorf("reasons: %q", why)
	}
	if text, absent := s.image("example.test/b:latest", "new/f"); absent || text != "2\n" {
		t.Errorf("b was built of old text: %q, %v", text, absent)
	}
	s.sh("echo 2 > b/g")
	s.expect("a file of b", "b")
	s.sh("echo '!x' >> C/a.Dockerfile.dockerignore")
	s.expect("the ignore file, without an effect", "")
	s.sh("echo '# a comment' >> C/a.Dockerfile")
	s.expect("a comment", "")
	s.sh("chmod +x C/src/f")
	s.expect("a mode", "a b")
}

// TestAMountOverADirectory: what was watched is hidden then, and nothing tells of that
// but the table of mounts.
func TestAMountOverADirectory(t *testing.T) {
	rig.NeedRoot(t)
	s := start(t, pair())
	s.sh("mkdir other; echo mounted > other/f")
	s.sh("mount --bind other C/src")
	t.Cleanup(func() { s.sh("umount -l C/src") })
	s.until("watch changed")
	s.until("watch watching")
	s.sh("echo 2 > C/src/f")
	s.expect("a file in what was mounted", "a b")
}
