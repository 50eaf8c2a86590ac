package registry

import (
	"context"
	"errors"
	"sync"
)

// flights do the work for a key once for all who ask while it is under way, and
// keep what succeeded. The work ends when nobody waits for it any more; one
// caller's cancel is that caller's error alone. The zero value is ready.
type flights[K comparable, V any] struct {
	mu sync.Mutex
	m  map[K]*flight[V]
}

type flight[V any] struct {
	done    chan struct{}
	waiting int // guarded by flights.mu
	cancel  context.CancelFunc
	val     V
	err     error
}

func (f *flights[K, V]) do(ctx context.Context, jobs *sync.WaitGroup, key K, work func(context.Context) (V, error)) (V, error) {
	return f.wait(ctx, key, f.enter(ctx, jobs, key, work))
}

// begin is do for one who does not wait.
func (f *flights[K, V]) begin(ctx context.Context, jobs *sync.WaitGroup, key K, work func(context.Context) (V, error)) {
	c := f.enter(ctx, jobs, key, work)
	jobs.Go(func() { _, _ = f.wait(ctx, key, c) })
}

// enter counts the caller as waiting for the work, which it begins if nobody has.
func (f *flights[K, V]) enter(ctx context.Context, jobs *sync.WaitGroup, key K, work func(context.Context) (V, error)) *flight[V] {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.m == nil {
		f.m = map[K]*flight[V]{}
	}
	c := f.m[key]
	if c == nil {
		wctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		c = &flight[V]{done: make(chan struct{}), cancel: cancel}
		f.m[key] = c
		jobs.Go(func() {
			defer cancel()
			val, err := work(wctx)
			f.mu.Lock()
			if err != nil && f.m[key] == c {
				delete(f.m, key) // who asks later tries again
			}
			c.val, c.err = val, err
			close(c.done)
			f.mu.Unlock()
		})
	}
	c.waiting++
	return c
}

// forget lets later calls do the work again. Work that is under way goes on.
func (f *flights[K, V]) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, c := range f.m {
		select {
		case <-c.done:
			delete(f.m, key)
		default:
		}
	}
}

// join waits for work on a key that is under way or succeeded; without any it
// fails at once.
func (f *flights[K, V]) join(ctx context.Context, key K) (V, error) {
	f.mu.Lock()
	c := f.m[key]
	if c == nil {
		f.mu.Unlock()
		var zero V
		return zero, errNoFlight
	}
	c.waiting++
	f.mu.Unlock()
	return f.wait(ctx, key, c)
}

var errNoFlight = errors.New("nobody works on it")

// wait is for one who has been counted as waiting.
func (f *flights[K, V]) wait(ctx context.Context, key K, c *flight[V]) (V, error) {
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		c.waiting--
		select {
		case <-c.done:
		default:
			if c.waiting == 0 {
				c.cancel()
				if f.m[key] == c {
					delete(f.m, key) // who comes now must not get our cancel
				}
			}
		}
	}()
	select {
	case <-c.done:
		return c.val, c.err
	case <-ctx.Done():
		var zero V
		return zero, context.Cause(ctx)
	}
}
