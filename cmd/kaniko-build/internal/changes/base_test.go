package changes

import (
	"os"
	"path/filepath"
	"testing"
)

func TestBase(t *testing.T) {
	event := filepath.Join(t.TempDir(), "event.json")
	if err := os.WriteFile(event, []byte(`{"before": "0123"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		env  map[string]string
		want string
	}{
		{"a machine of one's own", nil, ""},
		{"GitLab, a merge request", map[string]string{"CI_MERGE_REQUEST_DIFF_BASE_SHA": "abc", "CI_COMMIT_BEFORE_SHA": noCommit}, "abc"},
		{"GitLab, a push", map[string]string{"CI_COMMIT_BEFORE_SHA": "def"}, "def"},
		{"GitLab, a new branch", map[string]string{"CI_COMMIT_BEFORE_SHA": noCommit}, ""},
		{"GitHub, a pull request", map[string]string{"GITHUB_BASE_REF": "main", "GITHUB_EVENT_PATH": event}, "origin/main"},
		{"GitHub, a push", map[string]string{"GITHUB_EVENT_PATH": event}, "0123"},
		{"GitHub, an event that is gone", map[string]string{"GITHUB_EVENT_PATH": event + ".not"}, ""},
	} {
		r, ok := Base(func(name string) string { return c.env[name] })
		if r.Base != c.want || ok != (c.want != "") {
			t.Errorf("%s: %+v %v, want %q", c.name, r, ok, c.want)
		}
	}
}

func TestParseRange(t *testing.T) {
	for text, want := range map[string][2]string{"main": {"main", ""}, "a..b": {"a", "b"}, "v1.0...HEAD": {"v1.0", "HEAD"}} {
		if r := ParseRange(text); r.Base != want[0] || r.Head != want[1] {
			t.Errorf("%s: %+v", text, r)
		}
	}
}
