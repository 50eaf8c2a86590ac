package diag_test

import (
	"errors"
	"fmt"
	"testing"

	"kaniko-build/schema/diag"
)

func TestListSortsAndDropsRepeats(t *testing.T) {
	var l diag.List
	if l.Err() != nil {
		t.Fatal("an empty list is an error")
	}
	l.Add(diag.Pos{File: "b", Line: 1}, "", "second")
	l.Add(diag.Pos{File: "a", Line: 9, Col: 2}, "do this", "unknown key %q", "x")
	l.Add(diag.Pos{File: "b", Line: 1}, "", "second")
	l.AddErr(diag.Pos{File: "c"}, errors.New("third"))
	want := "a:9:2: unknown key \"x\"\n  hint: do this\nb:1: second\nc: third"
	if got := l.Err().Error(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	var again diag.List
	again.AddErr(diag.Pos{}, fmt.Errorf("wrapped: %w", l.Err()))
	if again.Len() != 3 {
		t.Errorf("a wrapped list came back as %d problems, want 3", again.Len())
	}
}

func TestSuggestOnlyWhatIsNear(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{"bse", `did you mean "base"?`}, {"BASE", `did you mean "base"?`}, {"ap", `did you mean "api"?`}, {"zebra", ""}, {"x", ""}, {"etl", `did you mean "data/etl"?`},
	} {
		if got := diag.Suggest(c.got, []string{"api", "base", "data/etl"}); got != c.want {
			t.Errorf("Suggest(%q) = %q, want %q", c.got, got, c.want)
		}
	}
}
