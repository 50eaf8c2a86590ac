package settle_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"kaniko-build/watch/notify"
	"kaniko-build/watch/settle"
)

func TestSettle(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name string
		at   []time.Duration // of changes
		want []time.Duration // of batches
		size []int
	}{
		{"one change waits for quiet", []time.Duration{0}, []time.Duration{300 * ms}, []int{1}},
		{"each change puts it off", []time.Duration{0, 200 * ms, 400 * ms}, []time.Duration{700 * ms}, []int{3}},
		{"after quiet comes another batch", []time.Duration{0, 1000 * ms}, []time.Duration{300 * ms, 1300 * ms}, []int{1, 1}},
		{"the cap ends waiting", every(210*ms, 60), []time.Duration{10 * time.Second, 12690 * ms}, []int{48, 12}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in, out := make(chan notify.Set), make(chan settle.Batch)
				begun := time.Now()
				go settle.Run(t.Context(), settle.Options{Quiet: 300 * ms, Cap: 10 * time.Second}, in, out)
				go func() {
					for i, at := range c.at {
						time.Sleep(at - time.Since(begun))
						var s notify.Set
						s.Add(fmt.Sprint("/", i), false)
						in <- s
					}
				}()
				for i, want := range c.want {
					b := <-out
					if got := time.Since(begun); got != want || b.Len() != c.size[i] {
						t.Errorf("batch %d has %d paths after %v, want %d after %v", i, b.Len(), got, c.size[i], want)
					}
				}
			})
		})
	}
}

func every(d time.Duration, n int) (out []time.Duration) {
	for i := range n {
		out = append(out, time.Duration(i)*d)
	}
	return out
}

// TestNobodyTakes says that what comes while a batch waits goes with it.
func TestNobodyTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := make(chan notify.Set), make(chan settle.Batch)
		go settle.Run(t.Context(), settle.Options{Quiet: time.Second, Cap: time.Minute}, in, out)
		for i := range 5 {
			var s notify.Set
			s.Add(fmt.Sprint("/", i), false)
			in <- s
			time.Sleep(2 * time.Second)
		}
		if b := <-out; b.Len() != 5 {
			t.Errorf("got %q", b.Paths())
		}
	})
}
