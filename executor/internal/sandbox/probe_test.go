package sandbox

import (
	"os"
	"os/exec"
	"testing"
)

func TestProbeFindsARungAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	r := Probe(t.Context(), dir, "", false)
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

// A weaker rung that is asked for is tried although a better one would work.
func TestProbeOfOneRung(t *testing.T) {
	for _, rung := range []Rung{Userns, UsernsSingle} {
		for _, c := range Probe(t.Context(), t.TempDir(), rung, false).Rungs {
			if c.Rung != rung {
				if c.Tried || c.OK {
					t.Errorf("asked for %s: %s was tried", rung, c.Rung)
				}
				continue
			}
			if want := rung == UsernsSingle || bestHere() == Userns; c.OK != want {
				t.Errorf("%s: ok %v, want %v: %s", c.Rung, c.OK, want, c.Why)
			}
		}
	}
}

// Where parts of /proc are hidden, as in every container, the kernel refuses
// another; then RUNs have that one.
func TestProbeWhereProcIsMasked(t *testing.T) {
	needRoot(t)
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-c", `mount --bind /dev/null /proc/timer_list && exec "$@"`, "sh",
		os.Args[0], "-test.run=^(TestProbeOfOneRung|TestProbeFindsARungAndLeavesNothing)$", "-test.v")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
