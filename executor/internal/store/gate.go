package store

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// gate is a lock of the store's directory, which all processes and nodes have. Who marks a
// thing or puts one in its place shares it; a Trash has it alone while it looks at a mark and
// takes the thing away. So what was found is not away for a moment, until the Trash has
// looked at the mark once more and put it back.
//
// It is not waited for longer than gatePatience: who has it may be stopped. Then there
// may be such a moment.
type gate struct {
	mu sync.Mutex
	n  int // who share it through this store
}

const gatePatience = 2 * time.Second

// pass shares the gate until done is called.
func (s *Store) pass() (done func()) {
	g := &s.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.n == 0 && !flockSoon(s.top, unix.LOCK_SH) {
		return func() {}
	}
	g.n++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.n--; g.n == 0 {
			_ = unix.Flock(int(s.top.Fd()), unix.LOCK_UN)
		}
	}
}

// shut has the gate of a directory, opened by nobody else, alone until done is called.
func shut(top *os.File) (done func()) {
	if !flockSoon(top, unix.LOCK_EX) {
		return func() {}
	}
	return func() { _ = unix.Flock(int(top.Fd()), unix.LOCK_UN) }
}

// flockSoon takes a lock, unless it takes too long.
func flockSoon(f *os.File, how int) bool {
	pause := 20 * time.Microsecond
	for begun := time.Now(); flock(f, how) != nil; pause = min(2*pause, time.Millisecond) {
		if time.Since(begun) > gatePatience {
			return false
		}
		time.Sleep(pause)
	}
	return true
}
