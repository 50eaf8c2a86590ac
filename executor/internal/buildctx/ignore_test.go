package buildctx

import (
	"testing"

	"github.com/moby/patternmatcher"
)

// TestQuickAnswersAgree: what is told by how a pattern begins and ends is what the
// pattern itself says, with backslashes too, which are those of regular expressions.
func TestQuickAnswersAgree(t *testing.T) {
	for _, pattern := range []string{`a\b`, `x\d`, `\w`, `\*`, `a\*`, `x\x31`, `\Qa*\E`, `a?`, `[ab]*b`, `**/b`, `a*b`, `*.b`} {
		pm, err := patternmatcher.New([]string{pattern})
		if err != nil {
			t.Fatalf("%s: %v", pattern, err)
		}
		m := &matcher{PatternMatcher: pm, ends: []ends{endsOf(pattern)}}
		for _, name := range []string{"a", "b", "ab", "a*", "*", "x1", "x.b", "axb", "x"} {
			if matches, err := pm.MatchesOrParentMatches(name); err != nil || matches && m.none(name) {
				t.Errorf("%s matches %s, and no pattern is said to (%v)", pattern, name, err)
			}
		}
	}
}
