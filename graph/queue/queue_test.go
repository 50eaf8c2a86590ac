package queue_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"kaniko-build/graph/queue"
)

func TestQueueOrder(t *testing.T) {
	q := queue.New[string](2)
	for _, w := range []struct {
		name     string
		weight   int64
		priority float64
	}{{"late", 1, 0}, {"first", 1, 5}, {"second", 1, 5}, {"huge", math.MaxInt64, 1}, {"nothing", 0, -1}} {
		q.Add(w.name, w.weight, w.priority, 0)
	}
	var got []string
	var have []*queue.Ticket[string]
	next := func() {
		for x := q.Next(); x != nil; x = q.Next() {
			got, have = append(got, x.Value), append(have, x)
		}
		got = append(got, "|")
	}
	next()
	for _, name := range []string{"first", "second"} {
		q.Done(have[slices.IndexFunc(have, func(x *queue.Ticket[string]) bool { return x.Value == name })])
		next()
	}
	// One share is free after first ends: late fits, huge does not.
	want := []string{"first", "second", "nothing", "|", "late", "|", "|"}
	if !slices.Equal(got, want) {
		t.Fatalf("got  %v\nwant %v", got, want)
	}
	q.Done(have[3])
	if x := q.Next(); x == nil || x.Value != "huge" {
		t.Fatalf("huge wants all there is and does not get it: %v", x)
	}
	if q.Next() != nil || q.Len() != 0 {
		t.Error("somebody is left")
	}
}

// TestQueueRandom plays all who came through queues of many sizes: what is given out
// is never more than there is, nobody is overtaken too often, of those who fit the
// first goes, and all get their turn however many come after them.
func TestQueueRandom(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 7))
		capacity := int64(r.IntN(20)) // 0 is no limit
		q := queue.New[int](capacity)
		type client struct {
			weight    int64
			priority  float64
			place     int
			ticket    *queue.Ticket[int]
			overtaken int
		}
		var all []*client
		var waiting, having []int // waiting as it ought to be ordered
		used := int64(0)
		share := func(c *client) int64 {
			if capacity > 0 {
				return min(c.weight, capacity)
			}
			return c.weight
		}
		fits := func(c *client) bool { return capacity == 0 || share(c) == 0 || used+share(c) <= capacity }
		for len(all) < 150 || len(waiting) > 0 || len(having) > 0 {
			switch n := r.IntN(10); {
			case len(all) < 150 && n < 4:
				c := &client{weight: int64(r.IntN(25)), priority: float64(r.IntN(4)), place: r.IntN(3)}
				c.ticket = q.Add(len(all), c.weight, c.priority, c.place)
				i := 0
				for i < len(waiting) && (all[waiting[i]].priority > c.priority || all[waiting[i]].priority == c.priority && all[waiting[i]].place <= c.place) {
					i++
				}
				waiting = slices.Insert(waiting, i, len(all))
				all = append(all, c)
			case len(waiting) > 0 && n == 4:
				i := r.IntN(len(waiting))
				if !q.Drop(all[waiting[i]].ticket) || q.Drop(all[waiting[i]].ticket) {
					t.Fatalf("seed %d: drop", seed)
				}
				waiting = slices.Delete(waiting, i, i+1)
			case len(having) > 0 && n < 8:
				i := r.IntN(len(having))
				c := all[having[i]]
				q.Done(c.ticket)
				used -= share(c)
				having = slices.Delete(having, i, i+1)
			}
			for {
				want := -1
				for i, id := range waiting {
					if fits(all[id]) {
						want = i
						break
					}
					if all[id].overtaken >= queue.Overtakes {
						break
					}
				}
				x := q.Next()
				if x == nil != (want < 0) || x != nil && x.Value != waiting[want] {
					t.Fatalf("seed %d: next is %+v, want %d of %v", seed, x, want, waiting)
				}
				if x == nil {
					break
				}
				for _, id := range waiting[:want] {
					if all[id].overtaken++; all[id].overtaken > queue.Overtakes {
						t.Fatalf("seed %d: %d was overtaken %d times", seed, id, all[id].overtaken)
					}
				}
				used += share(all[x.Value])
				if capacity > 0 && used > capacity {
					t.Fatalf("seed %d: %d of %d are given out", seed, used, capacity)
				}
				waiting = slices.Delete(waiting, want, want+1)
				having = append(having, x.Value)
			}
			if q.Len() != len(waiting) {
				t.Fatalf("seed %d: %d wait, want %d", seed, q.Len(), len(waiting))
			}
			if len(having) == 0 && len(waiting) > 0 {
				t.Fatalf("seed %d: nobody has a share and %d wait", seed, len(waiting))
			}
		}
	}
}
