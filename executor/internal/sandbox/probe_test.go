package sandbox

import (
	"os"
	"testing"
)

func TestProbeFindsARungAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	r := Probe(t.Context(), dir, false)
	for _, c := range r.Rungs {
		t.Logf("%s %s: ok %v %s (%s)", c.Rung, c.Map, c.OK, c.Why, c.Remedy)
	}
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	if want := bestHere(); r.Best != want {
		t.Errorf("best is %q, want %q", r.Best, want)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left in the directory: %v (%v)", left, err)
	}
}
