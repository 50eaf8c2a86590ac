package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"kaniko-build/executor/internal/sandbox"
	"kaniko-build/schema/diag"
)

// How often is looked at what a node holds: soon after a RUN begins, later seldom,
// and often where there is a limit.
const (
	firstLook   = 10 * time.Millisecond
	oftenLook   = 50 * time.Millisecond
	seldomLook  = 250 * time.Millisecond
	looksBeyond = 2 // in a row, before RUNs are ended: a process may be about to become another
)

// memoryWatch looks at how much memory the processes of a node hold while RUNs are
// executed, and ends these when it is more than they may. That needs neither a
// privilege nor a cgroup; but what comes and goes between two looks is not seen.
type memoryWatch struct {
	box   *sandbox.Inside
	limit int64 // bytes; 0 is none

	mu   sync.Mutex
	peak int64 // bytes
}

// during watches while a RUN is executed, until stop is called. The context ends
// when the node holds more than it may.
func (w *memoryWatch) during(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		wait, last, beyond := firstLook, seldomLook, 0
		if w.limit > 0 {
			last = oftenLook
		}
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			wait = min(2*wait, last)
			held, over := w.look()
			if !over {
				beyond = 0
				continue
			}
			if beyond++; beyond >= looksBeyond {
				cancel(&diag.Problem{What: fmt.Sprintf("what runs in this image holds %d MiB of memory, and %d MiB are allowed", held>>20, w.limit>>20),
					Hint: "raise the memory of its resources, or have it use less"})
				return
			}
		}
	}()
	return ctx, func() { cancel(nil); <-done }
}

// look notes what the node holds now, and tells whether it is more than it may. That
// it cannot be told is no failure of a build.
func (w *memoryWatch) look() (held int64, over bool) {
	if w.box == nil { // no process of its own
		return 0, false
	}
	held, err := w.box.Memory(false)
	if err == nil && w.limit > 0 && held > w.limit { // pages may have been counted twice
		held, err = w.box.Memory(true)
	}
	if err != nil {
		return 0, false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.peak = max(w.peak, held)
	return held, w.limit > 0 && held > w.limit
}

// most is the most that was seen.
func (w *memoryWatch) most() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.peak
}

// errStarved explains the end of a RUN that the kernel has probably a part in.
var errStarved = errors.New("while it ran, the kernel ended a process on this machine for want of memory, probably one of this RUN\n  hint: raise the memory of its resources, or of the machine or container that builds, or have fewer images built at once with -j")

// memoryEnds is how many processes the kernel has ended for want of memory since it
// began, on the whole machine: also for the limits of cgroups, which a process cannot
// see from everywhere. It is 0 where /proc has no such number (before Linux 4.13).
func memoryEnds() int64 {
	b, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), "\noom_kill ")
	line, _, _ := strings.Cut(rest, "\n")
	n, _ := strconv.ParseInt(line, 10, 64) // 0 where there is none
	return n
}
