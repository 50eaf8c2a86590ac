package report

import (
	"cmp"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"kaniko-build/cmd/kaniko-build/internal/logtext"
	"kaniko-build/cmd/kaniko-build/internal/progress"
	"kaniko-build/executor"
	"kaniko-build/graph"
)

// Recorder is a view that remembers a run, and writes it as a page when it is
// closed.
type Recorder struct {
	write func(func(io.Writer) error) error

	mu     sync.Mutex
	run    Run
	nodes  map[string]*Node
	early  map[string][]string // warnings of nodes before RunStarted
	closed bool
}

// Record makes a recorder. write is called once, by Close, with what writes the
// page; not at all when no run began.
func Record(title string, write func(func(io.Writer) error) error) *Recorder {
	return &Recorder{write: write, run: Run{Title: title}, nodes: map[string]*Node{}, early: map[string][]string{}}
}

// Event learns what happened.
func (r *Recorder) Event(e progress.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch e.Kind {
	case progress.RunStarted:
		r.run.Started, r.run.Jobs, r.run.Outcome = e.Time, e.Jobs, "interrupted"
		for _, n := range e.Nodes {
			node := &Node{ID: n.ID, Group: n.Group, Needs: n.Needs, Warnings: r.early[n.ID]}
			r.nodes[n.ID] = node
			r.run.Nodes = append(r.run.Nodes, node)
		}
		return
	case progress.RunDone:
		r.run.Outcome, r.run.Elapsed = e.Text, float64(e.Elapsed)/1e6
		return
	}
	n := r.nodes[e.Node]
	if n == nil {
		if e.Kind == executor.Warning || e.Kind == executor.CacheMiss {
			r.early[e.Node] = append(r.early[e.Node], e.Lines()...)
		}
		return
	}
	at := float64(e.Time.Sub(r.run.Started)) / 1e6
	r.run.Elapsed = max(r.run.Elapsed, at)
	switch e.Kind {
	case progress.NodeStarted:
		n.State, n.Begin = "running", at
	case progress.NodeDone:
		n.State, n.End = "built", at
		if i := e.Image; i != nil {
			if i.Cached {
				n.State = "cached"
			}
			n.Digest, n.Names, n.Size = i.Digest, i.Names, i.Size
			for _, l := range i.Layers {
				n.Layers = append(n.Layers, Layer{l.Size, logtext.OneLine(l.Text)})
			}
		}
	case progress.NodeFailed:
		n.State, n.End, n.Error = "failed", at, logtext.Lines(e.Text)
	case progress.NodeSkipped:
		n.State, n.Error = "skipped", logtext.Line(e.Text)
	case executor.StepStarted:
		s := n.step(e)
		s.State, s.Begin, s.Why = "running", at, logtext.Line(e.Why)
	case executor.StepCached:
		s := n.step(e)
		s.State, s.From = "cached", logtext.Line(progress.CacheName(e.From))
	case executor.StepDone:
		s := n.step(e)
		s.State, s.End = "done", at
	case executor.StepFailed:
		s := n.step(e)
		s.State, s.End = "failed", at
		if s.Begin == 0 {
			s.Begin = at - float64(e.Elapsed)/1e6
		}
		s.output.add(e.Text + "\n")
	case executor.Log:
		n.step(e).output.add(e.Data)
	case executor.Warning, executor.CacheMiss, progress.Note:
		n.Warnings = append(n.Warnings, e.Lines()...)
	}
}

// step is the step an event is about.
func (n *Node) step(e progress.Event) *Step {
	stage := logtext.Line(e.Stage)
	for _, s := range n.Steps {
		if s.Stage == stage && s.Step == e.Step {
			return s
		}
	}
	s := &Step{Stage: stage, Step: e.Step, Of: e.Of, Text: logtext.Lines(e.Text), Pos: logtext.Line(e.Pos.String())}
	n.Steps = append(n.Steps, s)
	return s
}

// Close writes the page.
func (r *Recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.run.Started.IsZero() {
		return nil
	}
	r.closed = true
	g, err := r.run.finish()
	if err != nil {
		return err
	}
	return r.write(func(w io.Writer) error { return Page(w, r.run, g, r.run.look()) })
}

// finish orders what was recorded and computes what follows from it: slots, the
// critical path, the logs that fit. It returns the graph.
func (r *Run) finish() (*graph.Graph, error) {
	ids, edges := []graph.ID{}, []graph.Edge{}
	byID := map[graph.ID]*Node{}
	for _, n := range r.Nodes {
		ids = append(ids, graph.ID(n.ID))
		byID[graph.ID(n.ID)] = n
		for _, p := range n.Needs {
			edges = append(edges, graph.Edge{Node: graph.ID(n.ID), Needs: graph.ID(p)})
		}
		slices.SortStableFunc(n.Steps, func(a, b *Step) int { return cmp.Compare(a.Begin, b.Begin) })
		if n.State == "running" {
			n.End = r.Elapsed
		}
		for _, s := range n.Steps {
			if s.State == "running" {
				s.End = r.Elapsed
			}
		}
	}
	g, err := graph.New(ids, edges)
	if err != nil {
		return nil, err
	}
	for _, id := range g.CriticalPath(func(id graph.ID) float64 { return max(0, byID[id].End-byID[id].Begin) }) {
		r.Critical = append(r.Critical, string(id))
	}
	r.slots()
	r.logs()
	return g, nil
}

// late is how much later than its slot is free a step may tell of its end.
const late = 100.0

// slots gives each step that was executed the first slot that is free when it
// begins. There are as many as jobs: what seems to run beside them ended already,
// and has not said so yet.
func (r *Run) slots() {
	var steps []*Step
	for _, n := range r.Nodes {
		for _, s := range n.Steps {
			if s.State != "cached" {
				steps = append(steps, s)
			}
		}
	}
	slices.SortStableFunc(steps, func(a, b *Step) int { return cmp.Compare(a.Begin, b.Begin) })
	var free []float64 // by slot: since when
	for _, s := range steps {
		i := slices.IndexFunc(free, func(since float64) bool { return since <= s.Begin })
		if i < 0 && len(free) >= r.Jobs && len(free) > 0 {
			i = slices.Index(free, slices.Min(free))
			if free[i] > s.Begin+late {
				i = -1
			}
		}
		if i < 0 {
			i = len(free)
			free = append(free, 0)
		}
		free[i] = s.End
		s.Slot = i + 1
	}
	r.Slots = len(free)
}

// logs takes over what steps printed, those of failures first, as far as a page
// has room.
func (r *Run) logs() {
	room := allBytes
	take := func(failed bool) {
		for _, n := range r.Nodes {
			for _, s := range n.Steps {
				if (s.State == "failed") != failed {
					continue
				}
				most := headBytes + tailBytes
				if room <= 0 {
					most, r.Cut = shortTail, true
				}
				s.Log = s.output.text(most)
				room -= len(s.Log)
			}
		}
	}
	take(true)
	take(false)
}

// look colours nodes by what became of them.
func (r *Run) look() graph.Look {
	nodes := map[graph.ID]*Node{}
	look := graph.Look{}
	for _, n := range r.Nodes {
		nodes[graph.ID(n.ID)] = n
	}
	for _, id := range r.Critical {
		look.Critical = append(look.Critical, graph.ID(id))
	}
	look.Group = func(id graph.ID) string { return nodes[id].Group }
	look.Class = func(id graph.ID) string { return strings.Replace(nodes[id].State, "running", "failed", 1) }
	look.Note = func(id graph.ID) string {
		n := nodes[id]
		if n.End > n.Begin {
			return logtext.Seconds(time.Duration((n.End - n.Begin) * 1e6))
		}
		return ""
	}
	return look
}
