package executor

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// TestTokens takes tokens by priority and weight, and gives back those of who is
// cancelled while waiting.
func TestTokens(t *testing.T) {
	for _, c := range []struct {
		name     string
		weighted bool
		want     string
	}{
		{"steps are counted", false, "whole half | short | |"},
		{"CPUs are counted", true, "whole | half short | |"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pool := newTokens(2, c.weighted)
				var mu sync.Mutex // guards group
				var got, group []string
				take := func() { // those who got theirs meanwhile
					synctest.Wait()
					mu.Lock()
					defer mu.Unlock()
					slices.Sort(group)
					got, group = append(got, group...), nil
				}
				first, err := pool.take(t.Context(), 2000, 0)
				if err != nil {
					t.Fatal(err)
				}
				second := first
				if !c.weighted {
					if second, err = pool.take(t.Context(), 1000, 0); err != nil {
						t.Fatal(err)
					}
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				stop := errors.New("stop")
				took := make(chan *token, 8)
				for i, w := range []struct {
					name     string
					milliCPU int
					priority float64
				}{{"short", 0, 1}, {"whole", 2000, 3}, {"half", 500, 2}, {"cancelled", 2000, 9}} {
					go func() {
						mine := ctx
						if w.name != "cancelled" {
							mine = t.Context()
						}
						h, err := pool.take(mine, w.milliCPU, w.priority)
						if w.name == "cancelled" {
							if !errors.Is(err, stop) {
								t.Errorf("cancelled while waiting: %v", err)
							}
							return
						}
						if err != nil {
							t.Errorf("%d: %v", i, err)
							return
						}
						mu.Lock()
						group = append(group, w.name)
						mu.Unlock()
						took <- h
					}()
					synctest.Wait()
				}
				cancel(stop)
				synctest.Wait()
				pool.put(first)
				take()
				if !c.weighted {
					pool.put(second)
				}
				for range 3 {
					take()
					got = append(got, "|")
					pool.put(<-took)
				}
				take()
				if s := strings.Join(got, " "); s != c.want {
					t.Errorf("got  %s\nwant %s", s, c.want)
				}
				if pool.queue.Len() != 0 {
					t.Errorf("%d still wait", pool.queue.Len())
				}
			})
		})
	}
}
