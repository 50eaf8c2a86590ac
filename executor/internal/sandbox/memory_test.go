package sandbox

import (
	"context"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMemory has a node look at what it holds before and after it has written to
// memory, by each way of finding its processes.
func TestMemory(t *testing.T) {
	if err := startTestNode(t, "memory").Wait(); err != nil {
		t.Error(err)
	}
}

// holding is a node that looks at its own memory.
func holding(_ context.Context, in *Inside) error {
	const size = 64 << 20
	for _, borrowed := range []bool{false, true} {
		for _, exact := range []bool{false, true} {
			at := *in
			at.borrowed = at.borrowed || borrowed
			before, err := at.Memory(exact)
			if err != nil {
				return err
			}
			b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
			if err != nil {
				return err
			}
			for i := range b {
				b[i] = byte(i)
			}
			after, err := at.Memory(exact)
			if err != nil {
				return err
			}
			if err := unix.Munmap(b); err != nil {
				return err
			}
			if got := after - before; before <= 0 || got < size*9/10 || got > size*11/10 {
				return fmt.Errorf("borrowed %v, exact %v: it held %d bytes, and %d more after writing %d", borrowed, exact, before, got, size)
			}
		}
	}
	return nil
}
