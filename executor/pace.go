package executor

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"sync"
	"time"

	"kaniko-build/executor/internal/store"
)

// Pace is what a node took when steps of it were executed last. Nothing depends on
// it but what runs when.
type Pace struct {
	Memory int64 `json:"memory"` // bytes that its processes held at most
	// Took is how long the node was built, from its container's start on, when
	// Executed of its steps were executed.
	Took     time.Duration            `json:"took"`
	Executed int                      `json:"executed"`
	Steps    map[string]time.Duration `json:"steps"` // by stepName: how long it took
}

// stepName tells steps apart whose inputs change.
func stepName(stage, text string) string {
	sum := sha256.Sum256([]byte(stage + "\x00" + text))
	return hex.EncodeToString(sum[:8])
}

// Paces is what is remembered of nodes in the store at state, which need not be
// there, by their IDs. It asks nobody and makes nothing.
func Paces(state string, requests []Request) map[string]Pace {
	out := map[string]Pace{}
	st, err := store.Attach(state, store.Options{})
	if err != nil {
		return out
	}
	defer st.Close()
	for i := range requests {
		var p Pace
		if st.GetPast(requests[i].paceID(), &p) == nil {
			out[requests[i].ID] = p
		}
	}
	return out
}

func (r *Request) paceID() string { return "pace " + r.pastID() }

// Outlook is what building a node is expected to take.
type Outlook struct {
	Runs   bool          // steps will be executed, as far as is known
	Took   time.Duration // of these, as they took last; 0 if nothing is remembered
	Memory int64         // bytes; 0 if nothing is remembered
}

// Outlook tells what building a node is expected to take. Of one that nothing will be
// executed for it reads one record of the store.
func (x *Executor) Outlook(n *Node) Outlook {
	if !x.runs(n) {
		return Outlook{}
	}
	out := Outlook{Runs: true}
	var p Pace
	if x.store.GetPast(n.paceID(), &p) != nil {
		return out
	}
	out.Memory = p.Memory
	full, all := x.full(), true
	for _, st := range n.job.Stages {
		for i := range st.Steps {
			switch s := &st.Steps[i]; {
			case len(s.Lines) == 0:
			case x.isKnown(s, full):
				all = false
			default:
				out.Took += p.Steps[stepName(st.Title, s.Text)]
			}
		}
	}
	if all && p.Executed > 0 {
		out.Took = max(out.Took, p.Took) // with what is no step: pulling, unpacking, packing
	}
	return out
}

// builtBefore tells whether something of a node was executed with this store.
func (x *Executor) builtBefore(n *Node) bool {
	var p Pace
	return x.store.GetPast(n.paceID(), &p) == nil
}

// runs tells whether something of a node will be executed, by the key of its last step.
func (x *Executor) runs(n *Node) bool {
	if len(n.job.Stages) == 0 {
		return false
	}
	steps := n.job.Stages[len(n.job.Stages)-1].Steps
	for i := len(steps) - 1; i >= 0; i-- {
		if len(steps[i].Lines) > 0 {
			return !x.isKnown(&steps[i], x.full())
		}
	}
	return false
}

// isKnown tells whether the result of a step is known by its definition.
func (x *Executor) isKnown(s *jobStep, full bool) bool {
	if x.cached(s) != nil {
		return true
	}
	if s.Fresh || s.ByContent {
		return false
	}
	_, err := x.store.GetKey(s.Key, full)
	return err == nil
}

// pacer notes how long the steps of a node take.
type pacer struct {
	mu    sync.Mutex
	steps map[string]time.Duration
}

func (p *pacer) note(e Event) {
	if e.Kind != StepDone {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.steps == nil {
		p.steps = map[string]time.Duration{}
	}
	p.steps[stepName(e.Stage, e.Text)] = e.Elapsed
}

// pace remembers what a node took. Steps that were not executed now took what they
// took before. A node that nothing was executed for leaves no record.
func (x *Executor) pace(n *Node, took time.Duration, memory int64, p *pacer) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.steps) == 0 {
		return nil
	}
	now := Pace{Memory: memory, Took: took, Executed: len(p.steps), Steps: p.steps}
	var then Pace
	var miss *store.Miss
	if err := x.store.GetPast(n.paceID(), &then); err != nil && !errors.As(err, &miss) {
		return err
	}
	for _, st := range n.job.Stages {
		for i := range st.Steps {
			name := stepName(st.Title, st.Steps[i].Text)
			if d, ok := then.Steps[name]; ok && now.Steps[name] == 0 {
				now.Steps[name] = d
			}
		}
	}
	if then.Executed > now.Executed {
		now.Executed, now.Took = then.Executed, then.Took
		now.Memory = max(now.Memory, then.Memory) // of steps that were not executed now
	}
	return x.store.PutPast(n.paceID(), "", now)
}
