package local

import (
	"errors"
	"testing"

	"kaniko-build/executor"
	"kaniko-build/executor/internal/sandbox"
)

// TestTheRootOfAContainerIsNotTakenUnasked has commands of people, and those of
// images that exist to build.
func TestTheRootOfAContainerIsNotTakenUnasked(t *testing.T) {
	for _, c := range []struct {
		runner Runner
		rung   sandbox.Rung
		takes  bool
	}{
		{Runner{}, sandbox.InPlace, true},
		{Runner{Careful: true}, sandbox.InPlace, false},
		{Runner{Careful: true, Rung: "inplace"}, sandbox.InPlace, true},
		{Runner{Careful: true}, sandbox.Userns, true},
	} {
		err := c.runner.agrees(executor.Isolation{Rung: c.rung}, "the kernel says no")
		var machine *executor.MachineError
		if (err == nil) != c.takes || err != nil && (!errors.As(err, &machine) || machine.Remedy == "") {
			t.Errorf("%+v with %s: %v", c.runner, c.rung, err)
		}
	}
}
