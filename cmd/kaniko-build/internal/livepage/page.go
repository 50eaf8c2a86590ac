package livepage

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"kaniko-build/cmd/kaniko-build/internal/logtext"
	"kaniko-build/cmd/kaniko-build/internal/progress"
	"kaniko-build/executor"
	"kaniko-build/graph"
	"kaniko-build/watch"
)

// Page is what browsers are shown. It takes what happens from many goroutines and makes
// none of them wait. New makes one.
type Page struct {
	mu      sync.Mutex
	title   string
	graph   *graph.Graph // nil until a manifest was read
	look    graph.Look
	picture int    // number of graph's picture
	shape   string // equal for equal pictures
	phase   phaseView
	order   []graph.ID
	nodes   map[graph.ID]*node
	builds  []*build // the last ones, oldest first
	number  int      // of the last build
	note    *note
	feed    feed
	news    chan struct{} // closed when there is anything new
	closed  bool

	drawing sync.Mutex
	drawn   int // number of svg
	svg     []byte
}

// node is one node with its log.
type node struct {
	view    nodeView        // as browsers have it
	running bool            // it was started, and the engine did not tell of its end yet
	cached  bool            // the last build of it started no container
	known   watch.NodeState // as the engine told last
	build   *build          // that it is not finished in
	log     ring
}

// New makes a page.
func New() *Page {
	return &Page{phase: phaseView{Phase: string(watch.Opening)}, nodes: map[graph.ID]*node{}, news: make(chan struct{})}
}

// Opened takes a manifest that was read.
func (p *Page) Opened(title string, g *graph.Graph, look graph.Look) {
	var shape strings.Builder
	group := func(id graph.ID) string {
		if look.Group == nil {
			return ""
		}
		return look.Group(id)
	}
	label := func(id graph.ID) string {
		if look.Label == nil {
			return string(id)
		}
		return look.Label(id)
	}
	for _, id := range g.Order() {
		fmt.Fprintf(&shape, "%q %q %q\n", id, group(id), label(id))
	}
	for _, e := range g.Edges() {
		fmt.Fprintf(&shape, "%q %q %q\n", e.Node, e.Needs, e.Reason)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.graph != nil && p.shape == shape.String() && p.title == title {
		return
	}
	p.title, p.graph, p.look, p.shape, p.order = title, g, look, shape.String(), g.Order()
	p.picture++
	before := p.nodes
	p.nodes = map[graph.ID]*node{}
	for _, id := range p.order {
		n := before[id]
		if n == nil {
			n = &node{known: watch.NodeState{State: watch.Waiting}, view: nodeView{ID: string(id), State: string(watch.Waiting)}}
		}
		delete(before, id)
		n.view.Group, n.view.Needs = group(id), nil
		for _, need := range g.Needs(id) {
			n.view.Needs = append(n.view.Needs, string(need))
		}
		p.nodes[id] = n
	}
	now := time.Now()
	for _, n := range before {
		p.finish(n, "gone", now)
	}
	p.send("snapshot", p.snapshot())
}

// snapshot is what is known now.
func (p *Page) snapshot() snapshot {
	s := snapshot{Title: p.title, Picture: p.picture, Phase: p.phase, Builds: make([]*build, len(p.builds)), Nodes: []nodeView{}, Note: p.note}
	for _, id := range p.order {
		s.Nodes = append(s.Nodes, p.nodes[id].view)
	}
	for i, b := range p.builds {
		s.Builds[i] = b.copy()
	}
	return s
}

func (b *build) copy() *build {
	c := *b
	c.Counts = maps.Clone(b.Counts)
	return &c
}

// Watched takes what an engine tells.
func (p *Page) Watched(e watch.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e.Kind {
	case watch.Changed:
		p.begin(e)
	case watch.Unchanged:
		p.notice(e.Time, "as it was: "+e.Text)
	case watch.Held, watch.Polling, watch.Synced, watch.Started, watch.Ended:
		p.notice(e.Time, e.Text)
	}
}

func (p *Page) notice(at time.Time, text string) {
	p.note = &note{at.UnixMilli(), logtext.Lines(text)}
	p.send("note", p.note)
}

// begin takes what a change asks for.
func (p *Page) begin(e watch.Event) {
	p.number++
	b := &build{Number: p.number, Time: e.Time.UnixMilli(), Text: logtext.Line(e.Text), Total: len(e.Nodes), Counts: map[string]int{}}
	causes := map[graph.ID]watch.Cause{}
	for _, c := range e.Causes {
		causes[c.Node] = c
	}
	for _, id := range e.Nodes {
		if len(b.Nodes) < maxListed {
			b.Nodes = append(b.Nodes, string(id))
		}
		n := p.nodes[id]
		if n == nil {
			continue // a manifest that is gone again
		}
		p.finish(n, "given up", e.Time)
		n.build, n.running = b, false // an older build of it may only be ending
		b.left++
		why := logtext.Line(causes[id].String())
		n.log.add(strings.TrimRight("── "+e.Time.Format(time.TimeOnly)+" "+why, " "))
	}
	if p.builds = append(p.builds, b); len(p.builds) > maxBuilds {
		p.builds = slices.Delete(p.builds, 0, len(p.builds)-maxBuilds)
	}
	p.send("build", b)
}

// finish tells what became of a node in its build.
func (p *Page) finish(n *node, what string, now time.Time) {
	b := n.build
	if b == nil {
		return
	}
	n.build = nil
	b.Counts[what]++
	if b.left--; b.left == 0 {
		b.Took = max(1, float64(now.UnixMilli()-b.Time))
		p.send("build", b)
	}
}

// Publish takes what an engine knows.
func (p *Page) Publish(s watch.State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if v := (phaseView{string(s.Phase), logtext.Lines(s.Problem)}); v != p.phase {
		p.phase = v
		p.send("phase", v)
	}
	var changed []nodeView
	now := time.Now()
	for _, state := range s.Nodes {
		n := p.nodes[state.ID]
		if n == nil || n.knows(state) {
			continue // so it is with almost all of them, for each result of a wave
		}
		before := n.view
		n.known = state
		n.view.Cause, n.view.Builds, n.view.Error = logtext.Line(state.Cause.String()), state.Builds, logtext.Lines(state.Error)
		if !state.Since.IsZero() {
			n.view.Since = state.Since.UnixMilli()
		}
		n.settle()
		if state.State != watch.Building {
			n.running = false
			what := n.view.State
			if state.State == watch.Waiting {
				what = "given up"
			}
			p.finish(n, what, now)
		}
		if !reflect.DeepEqual(before, n.view) {
			changed = append(changed, n.view)
		}
	}
	if len(changed) > 0 {
		p.send("nodes", changed)
	}
}

// knows tells whether the engine told the same before.
func (n *node) knows(s watch.NodeState) bool {
	k := &n.known
	return k.State == s.State && k.Since.Equal(s.Since) && k.Builds == s.Builds && k.Error == s.Error && k.Cause == s.Cause
}

// settle makes what the engine and the run say of a node one state.
func (n *node) settle() {
	status := n.known.State
	n.view.State = string(status)
	switch {
	case status == watch.Building && !n.running:
		n.view.State = "queued"
	case status == watch.Built && n.cached:
		n.view.State = "cached"
	}
	if status != watch.Building {
		n.view.Step = ""
	}
}

// Event takes an event of a run.
func (p *Page) Event(e progress.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.nodes[graph.ID(e.Node)]
	if n == nil {
		if e.Node == "" && e.Kind == executor.Warning {
			p.notice(e.Time, strings.Join(e.Lines(), "\n"))
		}
		return
	}
	before := n.view
	lines := e.Lines()
	switch e.Kind {
	case progress.NodeStarted:
		n.running = true
	case progress.NodeDone:
		n.view.Took = float64(e.Elapsed) / 1e6
		lines = []string{e.Outcome() + " " + logtext.Seconds(e.Elapsed)}
		if i := e.Image; i != nil {
			n.cached, n.view.Digest, n.view.Names, n.view.Size = i.Cached, i.Digest, i.Names, i.Size
		}
	case progress.NodeFailed:
		n.view.Took = float64(e.Elapsed) / 1e6
		lines = strings.Split(logtext.Lines(e.Text), "\n")
	case progress.NodeSkipped:
		lines = []string{"not built: " + logtext.Line(e.Text)} // of which build the engine knows
	case progress.NodePushing:
		lines = []string{"pushing " + logtext.Line(e.Text)}
	case executor.StepStarted:
		n.view.Step = logtext.Line(fmt.Sprintf("%s %d/%d", e.Stage, e.Step, e.Of)) + " " + logtext.OneLine(e.Text)
	}
	n.settle()
	for _, l := range lines {
		n.log.add(l)
	}
	if !reflect.DeepEqual(before, n.view) {
		p.send("nodes", []nodeView{n.view})
	} else if len(lines) > 0 {
		p.wake()
	}
}

// Process takes what the process of an image prints, in whole lines.
func (p *Page) Process(id, data string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.nodes[graph.ID(id)]
	if n == nil {
		return // of several platforms, or gone
	}
	for l := range strings.Lines(data) {
		n.log.add("running | " + logtext.Line(strings.TrimSuffix(l, "\n")))
	}
	p.wake()
}

// send puts a message into the feed.
func (p *Page) send(kind string, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		return // a view is plain data; its strings always encode
	}
	p.feed.add(message{kind, data})
	p.wake()
}

// wake tells whoever waits that there is something new.
func (p *Page) wake() {
	close(p.news)
	p.news = make(chan struct{})
}

// end tells browsers that the watch is over.
func (p *Page) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		p.wake()
	}
}

// draw is the picture of the graph, without colours; nil while there is none.
func (p *Page) draw() ([]byte, error) {
	p.drawing.Lock() // one at a time, as it takes a second for some thousand nodes
	defer p.drawing.Unlock()
	p.mu.Lock()
	g, look, number := p.graph, p.look, p.picture
	p.mu.Unlock()
	if g == nil || number == p.drawn {
		return p.svg, nil
	}
	var b bytes.Buffer
	if err := g.SVG(&b, look); err != nil {
		return nil, err
	}
	own := []byte("<style>" + graph.SVGStyle + "</style>") // the page's sheet has it; the policy lets no other in
	p.drawn, p.svg = number, bytes.Replace(b.Bytes(), own, nil, 1)
	return p.svg, nil
}
