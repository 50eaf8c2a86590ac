package settle

import (
	"context"
	"time"

	"kaniko-build/watch/notify"
)

// Batch is what changed until things were quiet.
type Batch struct {
	notify.Set
	First, Last time.Time // when the first and the last of it was told
}

// Options are times, each more than 0.
type Options struct {
	Quiet time.Duration // without a change, before a batch is ready
	Cap   time.Duration // after the first change: ready even if more come
}

// Run makes batches of sets until ctx ends.
func Run(ctx context.Context, o Options, in <-chan notify.Set, out chan<- Batch) {
	var b Batch
	timer := time.NewTimer(o.Quiet)
	timer.Stop()
	defer timer.Stop()
	ready := false
	for {
		var to chan<- Batch
		if ready {
			to = out
		}
		select {
		case <-ctx.Done():
			return
		case s := <-in:
			now := time.Now()
			if b.Empty() {
				b.First = now
			}
			b.Merge(s)
			b.Last = now
			ready = false
			timer.Reset(min(o.Quiet, max(0, o.Cap-now.Sub(b.First))))
		case <-timer.C:
			ready = true
		case to <- b:
			b, ready = Batch{}, false
		}
	}
}
