package watch

import (
	"strings"
	"testing"
)

// TestSettingsThatHoldFromTheNextStart are told of once when the manifest has others.
func TestSettingsThatHoldFromTheNextStart(t *testing.T) {
	s := start(t, pair(), "--on-change", "queue")
	set := func(watch, want string) {
		t.Helper()
		before := len(s.seen)
		s.sh(`sed -i '/^watch:/d' kaniko-build.yaml; echo '` + watch + `' >> kaniko-build.yaml`)
		s.expect(watch, "")
		var told []string
		for _, e := range s.seen[before:] {
			if e.Kind == "warning" {
				told = append(told, e.Text)
			}
		}
		if got := strings.Join(told, "\n"); got != want {
			t.Errorf("%s: told %q, want %q", watch, got, want)
		}
	}
	set("watch: {debounce: 1s, trigger: poll}", "watch: trigger, debounce of the manifest is another than at the start: it holds when watch is started anew")
	set("watch: {debounce: 2s, trigger: poll}", "")
	set("watch: {onChange: restart}", "")
}
