package local

import (
	"errors"
	"os"
	"sync"
	"testing"

	"kaniko-build/executor"
	"kaniko-build/executor/internal/sandbox"
	"kaniko-build/executor/internal/store"
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

// TestAStoreIsOneWhileIsolationIsRemembered opens stores while others leave in them what
// they found: no file of theirs is a stranger's.
func TestAStoreIsOneWhileIsolationIsRemembered(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/tmp", 0o700); err != nil { // where they probed
		t.Fatal(err)
	}
	m := remembered{Stamp: "now", Asked: "userns", Isolation: executor.Isolation{Rung: sandbox.Userns}}
	remember(dir, m)
	var group sync.WaitGroup
	defer group.Wait()
	done := make(chan struct{})
	defer close(done)
	for range 4 {
		group.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					remember(dir, m)
				}
			}
		})
	}
	for range 200 {
		s, err := store.Open(dir, store.Options{Owner: os.Getuid()})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if iso, ok := recall(memoPath(dir), m.Stamp, m.Asked); !ok || iso.Rung != sandbox.Userns {
			t.Fatalf("it remembers %+v, %v", iso, ok)
		}
	}
}
