package progress

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"kaniko-build/cmd/kaniko-build/internal/logtext"
	"kaniko-build/executor"
)

// quietFor is after how much silence Plain says what is running, so that a CI
// that waits for output goes on waiting.
const quietFor = 30 * time.Second

// Plain prints the lines of each node together, in the order in which nodes
// finish. The lines of a node that is the last to finish, or the only one, come
// as they happen. ci says whose log it is.
func Plain(w io.Writer, ci CI) View {
	return &plain{w: &held{w: w}, ci: ci, blocks: map[string]*block{}}
}

// held is an output with a line that waits to be written: for what comes after it,
// or for nobody, when that says the same.
type held struct {
	w    io.Writer
	line string
}

func (h *held) Write(b []byte) (int, error) {
	h.release()
	return h.w.Write(b)
}

func (h *held) release() {
	if h.line != "" {
		_, _ = io.WriteString(h.w, h.line)
		h.line = ""
	}
}

// plain is the view of that name.
type plain struct {
	ci CI

	mu     sync.Mutex
	w      *held
	blocks map[string]*block // of nodes that are not printed to their end
	order  []string          // of these, as they came
	left   int               // nodes that have not finished; 0 before RunStarted
	live   string            // the node whose lines are printed as they come
	timer  *time.Timer
	closed bool
}

// block is the lines of one node.
type block struct {
	spool
	begun   time.Time // zero: it has not started
	now     string    // what it does
	opened  bool      // its heading is printed
	noticed []Event   // annotations for the CI
}

func (p *plain) Event(e Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		p.print(e.Late(), "")
		return
	}
	p.wake()
	switch e.Kind {
	case RunStarted:
		p.left += len(e.Nodes) // watch may begin a run beside another
		if p.timer == nil {
			p.timer = time.AfterFunc(quietFor, p.beat)
		}
		p.goLive()
		return
	case RunDone:
		if e.Text == "failed" { // what failed last, and why, is what is told next
			p.w.line = ""
		}
		return
	}
	if e.Node == "" {
		p.print(e.Lines(), "")
		p.annotate(e)
		return
	}
	b := p.blocks[e.Node]
	if b == nil {
		b = &block{}
		p.blocks[e.Node] = b
		p.order = append(p.order, e.Node)
	}
	switch e.Kind {
	case NodeStarted:
		b.begun = e.Time
		p.goLive()
	case executor.StepStarted:
		b.now = e.Lines()[0]
	case NodePushing:
		b.now = "pushing " + logtext.Line(e.Text)
	case executor.Warning, executor.StepFailed:
		b.noticed = append(b.noticed, e)
	}
	lines := e.Lines()
	if e.Node == p.live {
		p.open(e.Node, b)
		p.print(lines, "  ")
	} else {
		for _, l := range lines {
			b.add("  " + l + "\n")
		}
	}
	switch e.Kind {
	case NodeDone, NodeFailed, NodeSkipped:
		p.finish(e, b)
	}
}

// finish prints the block of a node with its outcome. Nodes that were only
// skipped are counted at the end of the run, by others.
func (p *plain) finish(e Event, b *block) {
	if e.Kind == NodeFailed {
		b.noticed = append(b.noticed, e)
	}
	if e.Kind != NodeSkipped || b.head.Len() > 0 {
		p.open(e.Node, b)
		_ = b.flush(p.w)
		end := logtext.Line(e.Node) + " " + e.Outcome()
		if e.Kind == NodeDone && e.Image != nil {
			end += ", " + logtext.Seconds(e.Elapsed) + ", " + e.Image.Digest
		} else if e.Kind == NodeFailed {
			what, _, _ := strings.Cut(e.Text, "\n")
			end += ": " + logtext.Line(what)
		}
		p.ci.close(p.w, e.Node, e.Time)
		if e.Kind == NodeFailed {
			p.w.release()
			p.w.line = end + "\n"
		} else {
			p.print([]string{end}, "")
		}
	}
	p.notice(b)
	delete(p.blocks, e.Node)
	p.order = slices.DeleteFunc(p.order, func(n string) bool { return n == e.Node })
	if p.live == e.Node {
		p.live = ""
	}
	p.left--
	p.goLive()
}

// goLive lets the only node that is left print its lines as they come.
func (p *plain) goLive() {
	if p.left != 1 || p.live != "" {
		return
	}
	for name, b := range p.blocks {
		if !b.begun.IsZero() { // of those that are done nothing but late words is left
			p.live = name
			p.open(name, b)
			_ = b.flush(p.w)
		}
	}
}

// open prints the heading of a block once.
func (p *plain) open(node string, b *block) {
	if !b.opened {
		b.opened = true
		begun := b.begun
		if begun.IsZero() {
			begun = time.Now()
		}
		p.ci.open(p.w, node, begun)
	}
}

// notice tells the CI of warnings and failures of a node, once its group is
// closed. A node that failed at a step is told at the step.
func (p *plain) notice(b *block) {
	step := slices.ContainsFunc(b.noticed, func(e Event) bool { return e.Kind == executor.StepFailed })
	for _, e := range b.noticed {
		if e.Kind != NodeFailed || !step {
			p.annotate(e)
		}
	}
	b.noticed = nil
}

func (p *plain) annotate(e Event) {
	if s := p.ci.annotation(e); s != "" {
		_, _ = io.WriteString(p.w, s)
	}
}

// print writes lines; nobody is left to tell when the output is closed.
func (p *plain) print(lines []string, indent string) {
	for _, l := range lines {
		_, _ = fmt.Fprintf(p.w, "%s%s\n", indent, l)
	}
}

// wake puts the next sign of life off.
func (p *plain) wake() {
	if p.timer != nil {
		p.timer.Reset(quietFor)
	}
}

// beat says what runs.
func (p *plain) beat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer == nil {
		return
	}
	p.timer.Reset(quietFor)
	for _, name := range p.order {
		if b := p.blocks[name]; !b.begun.IsZero() {
			p.print([]string{fmt.Sprintf("%s has been running for %s: %s", logtext.Line(name), logtext.Seconds(time.Since(b.begun).Truncate(time.Second)), b.now)}, "")
		}
	}
}

// Close prints the lines of nodes that did not come to an end.
func (p *plain) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.w.release()
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	for _, name := range p.order {
		b := p.blocks[name]
		if b.head.Len() > 0 || b.opened {
			p.open(name, b)
			_ = b.flush(p.w)
			p.ci.close(p.w, name, time.Now())
		}
		p.notice(b)
	}
	p.order, p.blocks = nil, map[string]*block{}
	return nil
}

// Interleaved prints every line as it comes, with the node before it.
func Interleaved(w io.Writer, ci CI) View { return &interleaved{w: w, ci: ci} }

type interleaved struct {
	ci CI

	mu   sync.Mutex
	w    io.Writer
	step map[string]bool // nodes of which a step failed
}

func (p *interleaved) Event(e Event) {
	lines := e.Lines()
	if o := e.Outcome(); o != "" && e.Kind == NodeDone {
		lines = []string{o + ", " + logtext.Seconds(e.Elapsed)}
	}
	var b strings.Builder
	for _, l := range lines {
		if e.Node != "" {
			l = logtext.Line(e.Node) + " " + l
		}
		b.WriteString(l + "\n")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.Kind == executor.StepFailed {
		if p.step == nil {
			p.step = map[string]bool{}
		}
		p.step[e.Node] = true
	}
	if e.Kind != NodeFailed || !p.step[e.Node] {
		b.WriteString(p.ci.annotation(e))
	}
	_, _ = io.WriteString(p.w, b.String())
}

func (p *interleaved) Close() error { return nil }
