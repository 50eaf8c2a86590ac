package watch

import (
	"kaniko-build/test/rig"
	"strings"
	"testing"
)

// served is a target whose image is run: it says what its file holds, and waits.
func served(t testing.TB) map[string]string {
	return map[string]string{
		"kaniko-build.yaml": "version: 1\ntargets:\n  api: {context: api, image: example.test/api}\n",
		"api/Dockerfile":    "FROM scratch\nCOPY --chmod=755 busybox /bin/busybox\nENV WORD=said\nWORKDIR /work\nENTRYPOINT [\"/bin/busybox\", \"sh\", \"-c\"]\nCMD [\"exit 3\"]\nCOPY text /text\n",
		"api/busybox":       rig.Busybox(t), "api/text": "one",
	}
}

// says waits for a line that the process prints.
func (s *session) says(line string) event {
	s.Helper()
	for {
		if e := s.until("log api"); strings.Contains(e.Data, line) {
			return e
		}
	}
}

func TestAProcessIsStartedWithEachImage(t *testing.T) {
	s := prepare(t, served(t))
	s.run("--run", "api", "--", "echo $WORD $(busybox cat /text) in $PWD with $(busybox ls /work); echo > here; exec busybox sleep 1000")
	s.until("watch started")
	s.says("said one in /work with\n") // nothing is left of an earlier one
	s.write(map[string]string{"api/text": "two"})
	s.until("watch started")
	s.says("said two in /work with\n")
	// A build that fails leaves it alone.
	s.sh("rm api/text")
	s.until("watch broken")
	s.write(map[string]string{"api/text": "three"})
	s.says("said three")
	s.stop()
}

func TestAProcessEnds(t *testing.T) {
	s := prepare(t, served(t))
	s.run("--run", "api")
	if e := s.until("watch ended"); !strings.Contains(e.Text, "exit code 3") {
		t.Errorf("it says %q", e.Text)
	}
	s.write(map[string]string{"api/text": "two"})
	s.until("watch started")
}
