package watch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCommandsAfterABuild runs those of the run and of a target, gives images to an engine, and tells of a
// failure.
func TestCommandsAfterABuild(t *testing.T) {
	files := pair()
	files["kaniko-build.yaml"] = `version: 1
watch:
  onSuccess: {run: "echo all $KANIKO_BUILD_TARGET $KANIKO_BUILD_STATUS >> told"}
  onFailure: {run: [sh, -c, "echo lost $KANIKO_BUILD_TARGET >> told"]}
targets:
  a: {context: C, dockerfile: a.Dockerfile, image: example.test/a}
  b: {context: b, image: example.test/b, watch: {onSuccess: {run: [sh, -c, "echo one $KANIKO_BUILD_TARGET $KANIKO_BUILD_REF $KANIKO_BUILD_DIGEST >> told"]}}}
`
	files["bin/podman"] = "#!/bin/sh\n# An engine that keeps what it is given.\ncase $1 in load) cat > archive; echo loaded;; esac\n"
	s := prepare(t, files)
	t.Setenv("PATH", filepath.Join(s.dir, "bin")+":"+os.Getenv("PATH"))
	s.run("--load-to", "podman")
	s.until("watch watching")
	told := func() string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(s.dir, "told"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if got := told(); !strings.HasPrefix(got, "one b example.test/b:latest sha256:") || !strings.HasSuffix(got, "\nall a b mark success\n") {
		t.Errorf("the commands told %q", got)
	}
	s.sh("rm told archive; echo 2 > b/g")
	s.until("watch changed")
	digest := s.until("node-done b").Image.Digest
	s.until("watch watching")
	if got, want := told(), "one b example.test/b:latest "+digest+"\nall b success\n"; got != want {
		t.Errorf("the commands told %q, want %q", got, want)
	}
	s.sh("tar -tf archive | grep -q manifest.json; rm told")
	s.sh(`printf 'FROM scratch\nRUN ["/nothing"]\n' > b/Dockerfile`)
	s.until("node-failed b")
	s.until("watch watching")
	if got := told(); got != "lost b\n" {
		t.Errorf("the commands told %q", got)
	}
}
