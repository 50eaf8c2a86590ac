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
// A Trash takes one thing after the other, and on a busy machine those who look now and then
// whether the gate is open would find it shut each time. So they stand in a queue meanwhile,
// a lock of the directory for temporary files that they share, and a Trash waits until
// nobody is in it.
//
// Neither is waited for longer than gatePatience: who has it may be stopped. A Trash that has
// waited leaves the thing; whoever marks one goes on, and there may be such a moment.
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

// enter takes the gate to share it, and stands in the queue while it is shut.
func (s *Store) enter() bool {
	if flock(s.top, unix.LOCK_SH) == nil {
		return true
	}
	if fd, err := s.openat(dirTemp); err == nil {
		queue := os.NewFile(uintptr(fd), dirTemp)
		defer queue.Close()
		if flockIn(queue, unix.LOCK_SH, gatePatience) {
			defer func() { _ = unix.Flock(int(queue.Fd()), unix.LOCK_UN) }() // a process that is just starting has the file too
		}
	}
	return flockIn(s.top, unix.LOCK_SH, gatePatience)
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
