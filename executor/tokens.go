package executor

import (
	"context"
	"sync"

	"kaniko-build/graph/queue"
)

// tokens limits how many steps execute at once, over all nodes. Waiting,
// pulling and pushing hold none. Who is on the longest way to the end of the run
// goes first.
type tokens struct {
	weighted bool // a step counts as many CPUs as its node may use; else each is one

	mu    sync.Mutex
	queue *queue.Queue[chan struct{}]
}

// token is the right to execute a step: its channel is closed when it is given.
type token = queue.Ticket[chan struct{}]

const oneStep = 1000 // of a CPU

// newTokens are for n steps; weighted ones for n CPUs.
func newTokens(n int, weighted bool) *tokens {
	return &tokens{weighted: weighted, queue: queue.New[chan struct{}](int64(n) * oneStep)}
}

// take waits for the right to execute a step that uses so many thousandths of a
// CPU, 0 is one CPU.
func (t *tokens) take(ctx context.Context, milliCPU int, priority float64) (*token, error) {
	weight := int64(oneStep)
	if t.weighted && milliCPU > 0 {
		weight = int64(milliCPU)
	}
	given := make(chan struct{})
	t.mu.Lock()
	mine := t.queue.Add(given, weight, priority, 0)
	t.give()
	t.mu.Unlock()
	select {
	case <-given:
		return mine, nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.queue.Drop(mine) { // it came at the last moment
		t.queue.Done(mine)
	}
	t.give() // to whom it stood before
	return nil, context.Cause(ctx)
}

func (t *tokens) put(mine *token) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.queue.Done(mine)
	t.give()
}

// give gives all that can be given. The caller holds mu.
func (t *tokens) give() {
	for next := t.queue.Next(); next != nil; next = t.queue.Next() {
		close(next.Value)
	}
}

// held is what one node holds, so that a node that dies gives it back.
type held struct {
	pool     *tokens
	milliCPU int
	priority float64

	mu   sync.Mutex
	have []*token
}

func (h *held) take(ctx context.Context) error {
	t, err := h.pool.take(ctx, h.milliCPU, h.priority)
	if err != nil {
		return err
	}
	h.mu.Lock()
	h.have = append(h.have, t)
	h.mu.Unlock()
	return nil
}

// release gives one back; all of a node weigh the same.
func (h *held) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.have); n > 0 {
		h.pool.put(h.have[n-1])
		h.have = h.have[:n-1]
	}
}

func (h *held) releaseAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range h.have {
		h.pool.put(t)
	}
	h.have = nil
}
