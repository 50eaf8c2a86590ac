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
// Who shares it comes and goes all the time, and a Trash takes one thing after the other:
// neither would find a gap on a machine where the other is busy. So there is a queue, a lock of the
// directory for temporary files. Whoever shares the gate stands in it, with others, until
// they are in; a Trash waits until nobody does, and lets nobody in until it has the gate.
//
// Neither is waited for longer than gatePatience: who has it may be stopped. A Trash that has
// waited leaves the thing; whoever marks one goes on, and there may be such a moment.
type gate struct {
	mu    sync.Mutex
	n     int      // who share it through this store
	queue *os.File // nil until it is needed
}

const gatePatience = 2 * time.Second

// pass shares the gate until done is called.
func (s *Store) pass() (done func()) {
	g := &s.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.n == 0 && !s.enter() {
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

// enter takes the gate to share it. The caller has the lock of s.gate.
func (s *Store) enter() bool {
	g := &s.gate
	if g.queue == nil {
		fd, err := s.openat(dirTemp)
		if err != nil {
			return flockIn(s.top, unix.LOCK_SH, gatePatience)
		}
		g.queue = os.NewFile(uintptr(fd), dirTemp)
	}
	if flockIn(g.queue, unix.LOCK_SH, gatePatience) {
		defer func() { _ = unix.Flock(int(g.queue.Fd()), unix.LOCK_UN) }()
	}
	return flockIn(s.top, unix.LOCK_SH, gatePatience)
}

// closeGate gives back what enter opened.
func (s *Store) closeGate() error {
	g := &s.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.queue == nil {
		return nil
	}
	err := g.queue.Close()
	g.queue = nil
	return err
}

// shut has the gate alone, once nobody is in the queue, until done is called. Both are
// directories opened by nobody else. ok is false when that takes longer than patience.
func shut(top, queue *os.File, patience time.Duration) (done func(), ok bool) {
	if !flockIn(queue, unix.LOCK_EX, patience) {
		return nil, false
	}
	defer func() { _ = unix.Flock(int(queue.Fd()), unix.LOCK_UN) }()
	if !flockIn(top, unix.LOCK_EX, patience) {
		return nil, false
	}
	return func() { _ = unix.Flock(int(top.Fd()), unix.LOCK_UN) }, true
}

// flockIn takes a lock, unless it takes too long.
func flockIn(f *os.File, how int, patience time.Duration) bool {
	pause := 20 * time.Microsecond
	for begun := time.Now(); flock(f, how) != nil; pause = min(2*pause, time.Millisecond) {
		if time.Since(begun) >= patience {
			return false
		}
		time.Sleep(pause)
	}
	return true
}
