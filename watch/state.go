package watch

import (
	"slices"
	"time"

	"kaniko-build/graph"
	"kaniko-build/watch/notify"
)

// State is what an engine knows at one moment. Events tell when it may have changed.
type State struct {
	Phase   Phase        `json:"phase"`
	Problem string       `json:"problem,omitempty"` // of Stuck
	Nodes   []NodeState  `json:"nodes"`             // parents first
	Watch   notify.State `json:"watch"`
}

// Phase is what an engine does.
type Phase string

// The phases of an engine.
const (
	Opening Phase = "opening"  // nothing is known yet
	Busy    Phase = "building" // a wave is under way
	Idle    Phase = "watching"
	Stuck   Phase = "broken" // until somebody mends what Problem says
	OnHold  Phase = "paused"
)

// NodeState is what is known of one node.
type NodeState struct {
	ID     graph.ID   `json:"id"`
	Needs  []graph.ID `json:"needs,omitempty"`
	State  Status     `json:"state"`
	Cause  Cause      `json:"cause,omitzero"` // of its last build
	Since  time.Time  `json:"since,omitzero"` // when its state began
	Builds int        `json:"builds"`         // that succeeded
	Error  string     `json:"error,omitempty"`
}

// Status is what became of a node.
type Status string

// The states of nodes.
const (
	Waiting  Status = "waiting" // nothing is known of it, or its files changed while it was built
	Building Status = "building"
	Built    Status = "built"
	Failed   Status = "failed"
	Skipped  Status = "skipped" // what it needs failed
)

// State is what the engine knows now.
func (e *Engine) State() State {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.state
	if e.watcher != nil {
		s.Watch = e.watcher.State()
	}
	s.Nodes = slices.Clone(s.Nodes)
	return s
}

// publish makes what Run knows what State tells.
func (e *Engine) publish() {
	s := State{Phase: Idle}
	switch {
	case e.pausing:
		s.Phase = OnHold
	case e.broken != "":
		s.Phase, s.Problem = Stuck, e.broken
	case len(e.waves) > 0:
		s.Phase = Busy
	case e.site == nil:
		s.Phase = Opening
	}
	if e.site != nil {
		for _, id := range e.site.Graph().Order() {
			s.Nodes = append(s.Nodes, e.nodes[id].state)
		}
	}
	e.mu.Lock()
	e.state = s
	e.mu.Unlock()
	if e.opts.Publish != nil {
		if e.watcher != nil {
			s.Watch = e.watcher.State()
		}
		e.opts.Publish(s)
	}
}
