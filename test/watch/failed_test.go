package watch

import (
	"slices"
	"testing"
)

// TestAFailedFirstBuild starts with a mistake: what stands on it is skipped once, and built
// when it is mended.
func TestAFailedFirstBuild(t *testing.T) {
	s := prepare(t, map[string]string{
		"kaniko-build.yaml": "version: 1\ntargets:\n  base: {context: base, image: example.test/base}\n  api: {context: api, image: example.test/api}\n  web: {context: web}\n",
		"base/Dockerfile":   "FROM scratch\nCOPY f /f\nRUN [\"/none\"]\n", "base/f": "1",
		"api/Dockerfile": "FROM example.test/base\nCOPY f /g\n", "api/f": "1",
		"web/Dockerfile": "FROM example.test/api\nCOPY f /h\n", "web/f": "1",
	})
	s.run()
	s.until("watch watching")
	var waves [][]string
	told := func() {
		for _, e := range s.seen {
			if e.is() == "watch changed" {
				waves = append(waves, e.Watch.Nodes)
			}
		}
		s.seen = nil
	}
	told()
	if len(waves) != 1 || len(waves[0]) != 4 {
		t.Errorf("at the start there are waves of %q", waves)
	}
	// Something else does not ask for them again, and their own change says why they wait.
	s.built()
	waves = nil
	told()
	if len(waves) != 1 || !slices.Equal(waves[0], []string{mark}) {
		t.Errorf("a change of something else builds %q", waves)
	}
	s.write(map[string]string{"api/f": "2"})
	if e := s.until("node-skipped api"); e.Text != "needs base" {
		t.Errorf("it is skipped, as it %s", e.Text)
	}
	s.until("watch watching")
	s.write(map[string]string{"base/Dockerfile": "FROM scratch\nCOPY f /f\n"})
	counts, _ := s.built()
	if counts["base"] != 1 || counts["api"] != 1 || counts["web"] != 1 {
		t.Errorf("when it is mended %v are built", counts)
	}
}
