package schema

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestLintRulesAreBuildKits compares the rules that a manifest may leave out with those
// of the linter that the executor has.
func TestLintRulesAreBuildKits(t *testing.T) {
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "github.com/moby/buildkit/frontend/dockerfile/linter").Output()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "ruleset.go"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"all"}
	for _, m := range regexp.MustCompile(`Name: +"(\w+)"`).FindAllStringSubmatch(string(text), -1) {
		want = append(want, m[1])
	}
	slices.Sort(want)
	got := slices.Sorted(slices.Values(lintRules))
	if !slices.Equal(got, want) {
		t.Errorf("rules are %q, and the linter has %q", got, want)
	}
}
