package executor

import (
	"context"
	"sync"
)

// tokens limits how many steps execute at once, over all nodes. Waiting,
// pulling and pushing hold none.
type tokens struct {
	free chan struct{}
}

func newTokens(n int) *tokens {
	t := &tokens{free: make(chan struct{}, n)}
	for range n {
		t.free <- struct{}{}
	}
	return t
}

func (t *tokens) take(ctx context.Context) error {
	select {
	case <-t.free:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t *tokens) put() { t.free <- struct{}{} }

// held counts what one node holds, so that a node that dies gives it back.
type held struct {
	pool *tokens

	mu sync.Mutex
	n  int
}

func (h *held) take(ctx context.Context) error {
	if err := h.pool.take(ctx); err != nil {
		return err
	}
	h.mu.Lock()
	h.n++
	h.mu.Unlock()
	return nil
}

func (h *held) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.n > 0 {
		h.n--
		h.pool.put()
	}
}

func (h *held) releaseAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for ; h.n > 0; h.n-- {
		h.pool.put()
	}
}
