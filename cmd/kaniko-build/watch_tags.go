package main

import (
	"sync"

	"kaniko-build/graph"
)

// tags are those of all that is watched: they are put together when every image is
// made, whichever build made it. The zero value is ready.
type tags struct {
	mu   sync.Mutex
	owed map[graph.ID]made // whose tags were not put since
	lost map[graph.ID]bool // nodes that could not be made
}

// settle notes what became of nodes. When all nodes of order are made it tells which
// of them, in that order, have tags to be put.
func (t *tags) settle(out graph.Outcome, order []graph.ID, image func(id string) made) (ready []made) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.owed == nil {
		t.owed, t.lost = map[graph.ID]made{}, map[graph.ID]bool{}
	}
	for _, o := range out {
		delete(t.owed, o.ID)
		if t.lost[o.ID] = o.State != graph.Succeeded; !t.lost[o.ID] {
			t.owed[o.ID] = image(string(o.ID))
		}
	}
	for _, id := range order { // others are not in the manifest any more
		if t.lost[id] {
			return nil
		}
		if m, ok := t.owed[id]; ok {
			ready = append(ready, m)
		}
	}
	return ready
}

// put notes that tags were put.
func (t *tags) put(ready []made) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range ready {
		if t.owed[graph.ID(m.id)].image == m.image { // else it was made again meanwhile
			delete(t.owed, graph.ID(m.id))
		}
	}
}
