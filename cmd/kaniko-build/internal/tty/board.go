package tty

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"

	"kaniko-build/cmd/kaniko-build/internal/logtext"
	"kaniko-build/cmd/kaniko-build/internal/progress"
	"kaniko-build/executor"
)

// tailLines is how many of the last lines of a node's output are shown, and keptLines
// how many are kept for a node that is looked at by itself.
const (
	tailLines = 12
	keptLines = 200
)

// board is what is known of a run. The zero value knows of none; begun is set by
// its maker.
type board struct {
	total   int // nodes
	jobs    int // steps that run at once
	nodes   map[string]*node
	order   []*node // as they came
	doing   string  // what the whole run does, if that is no node
	begun   time.Time
	notices []string // warnings and the like, printed at the end
	focus   string   // a node that is looked at by itself while it runs, and when it failed; "" is none
}

// next looks at the next node by itself that runs or has failed, and after the last at
// all of them.
func (b *board) next() {
	var ids []string
	for _, n := range b.order {
		if n.state == running || n.state == failed {
			ids = append(ids, n.id)
		}
	}
	at := slices.Index(ids, b.focus) + 1
	if b.focus = ""; at < len(ids) {
		b.focus = ids[at]
	}
}

type state int

const (
	waiting state = iota
	running
	finished
	failed
	skipped
)

// node is one node of the board.
type node struct {
	id         string
	state      state
	begun, end time.Time
	steps      int // that it has, as far as that is known
	done       int // of these
	at         string
	text       string    // the step or whatever else it does; "" is nothing
	since      time.Time // when that began
	active     int       // steps that are executed now
	tail       []string
	cached     bool
	outcome    string
	failedAt   string
}

func (b *board) node(id string) *node {
	n := b.nodes[id]
	if n == nil {
		if b.nodes == nil {
			b.nodes = map[string]*node{}
		}
		n = &node{id: id}
		b.nodes[id] = n
		b.order = append(b.order, n)
	}
	return n
}

// event learns what happened.
func (b *board) event(e progress.Event) {
	switch e.Kind {
	case progress.RunStarted:
		b.jobs = e.Jobs
		for _, n := range e.Nodes { // one that is built anew begins anew
			*b.node(n.ID) = node{id: n.ID, steps: n.Steps}
		}
		b.total = len(b.order)
		return
	case progress.Verifying:
		b.doing = "building again without the cache"
		return
	case progress.Tagging:
		b.doing = "putting tags"
		return
	case executor.Warning, executor.CacheMiss, progress.Note:
		b.notices = append(b.notices, e.Late()...)
		return
	}
	if e.Node == "" {
		return
	}
	n := b.node(e.Node)
	at := logtext.Line(strings.TrimSpace(fmt.Sprintf("%s %d/%d", e.Stage, e.Step, e.Of)))
	switch e.Kind {
	case progress.NodeStarted:
		n.state, n.begun, n.since = running, e.Time, e.Time
	case progress.NodeWriting:
		n.says("", "writing "+e.Text, e.Time)
	case progress.NodePushing:
		n.says("", "pushing "+e.Text, e.Time)
	case executor.StepStarted:
		n.active++
		n.tail = nil
		n.says(at, e.Text, e.Time)
	case executor.StepCached:
		n.done++
	case executor.StepDone:
		n.done++
		n.active--
		if n.active <= 0 {
			n.says("", "", e.Time)
		}
	case executor.StepFailed:
		n.active--
		n.failedAt = e.Pos.String()
		n.says(at, e.Text, e.Time)
	case executor.Pulling:
		if n.active <= 0 {
			n.says("", fmt.Sprintf("pulling %s (%s)", e.Text, logtext.Size(e.Total)), e.Time)
		}
	case executor.Placed:
		if n.active <= 0 {
			n.says("", "built in "+e.Text, e.Time)
		}
	case executor.Waiting:
		if n.active <= 0 {
			n.says("", "waiting for "+e.Text, e.Time)
		}
	case executor.Log:
		for line := range strings.Lines(e.Data) {
			if line = logtext.Line(strings.TrimSuffix(line, "\n")); strings.TrimSpace(line) != "" {
				n.tail = append(n.tail, strings.ReplaceAll(line, "\t", "    "))
			}
		}
		if extra := len(n.tail) - keptLines; extra > 0 {
			n.tail = slices.Delete(n.tail, 0, extra)
		}
	case progress.NodeDone:
		n.state, n.end, n.outcome = finished, e.Time, e.Outcome()
		n.cached, n.tail = e.Image != nil && e.Image.Cached, nil
	case progress.NodeFailed:
		n.state, n.end = failed, e.Time
		first, _, _ := strings.Cut(e.Text, "\n")
		n.says(n.at, first, e.Time)
		if n.failedAt == "" {
			n.failedAt = e.Pos.String()
		}
	case progress.NodeSkipped:
		n.state = skipped
	}
}

func (n *node) says(at, text string, when time.Time) {
	n.at, n.text, n.since = at, logtext.OneLine(text), when
}

// style is how the parts of the picture look. Colours are the terminal's own.
type style struct{ plain, dim, bold, good, bad, accent lipgloss.Style }

func colours() style {
	s := lipgloss.NewStyle()
	return style{
		plain: s, dim: s.Faint(true), bold: s.Bold(true),
		good: s.Foreground(lipgloss.Green), bad: s.Foreground(lipgloss.Red).Bold(true), accent: s.Foreground(lipgloss.Cyan),
	}
}

// frames is what turns while something runs: one in the picture, to be calm.
var frames = []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")

// frame draws the board for a terminal of width columns and height lines: no line
// is wider, and there are fewer lines than it has. Of what does not fit, running
// nodes and failures come first.
func (b *board) frame(width, height int, now time.Time, look style) string {
	room := max(height-1, 1)
	var all [skipped + 1][]*node
	cached := 0
	for _, n := range b.order {
		all[n.state] = append(all[n.state], n)
		if n.cached {
			cached++
		}
	}
	p := painter{width: width, now: now, look: look, names: 8}
	for _, n := range slices.Concat(all[running], all[failed]) {
		p.names = max(p.names, min(ansi.StringWidth(n.id), width/4))
	}
	lines := []string{p.header(b, len(all[finished]), len(all[failed]), len(all[running]))}
	room--
	if n := b.nodes[b.focus]; n != nil && (n.state == running || n.state == failed) {
		if n.state == failed {
			lines = append(lines, p.failure(n))
		} else {
			lines = append(lines, p.run(n))
		}
		for _, l := range n.tail[max(0, len(n.tail)-max(0, room-1)):] {
			lines = append(lines, p.output(l))
		}
		return strings.Join(lines[:min(len(lines), max(height-1, 1))], "\n")
	}

	// Nodes that do something stand before those that wait for their turn.
	slices.SortStableFunc(all[running], func(x, y *node) int {
		return cmp.Or(cmp.Compare(idle(x), idle(y)), x.begun.Compare(y.begun))
	})
	failures, runs := all[failed], all[running]
	footer := len(all[finished])+len(all[skipped]) > 0
	if footer {
		room--
	}
	// Each gets a line as far as that goes; failures at most half of the room.
	shownFailures := fit(len(failures), max(room-len(runs), room/2))
	room -= shownFailures.lines()
	shownRuns := fit(len(runs), room)
	room -= shownRuns.lines()
	// What is left shows output: of failures first, then the last line of what runs.
	for i, n := range failures[:shownFailures.shown] {
		lines = append(lines, p.failure(n))
		tail := n.tail[max(0, len(n.tail)-min(tailLines, max(0, room/(shownFailures.shown-i)))):]
		for _, l := range tail {
			lines = append(lines, p.output(l))
		}
		room -= len(tail)
	}
	if hidden := shownFailures.hidden; hidden > 0 {
		lines = append(lines, p.line(look.bad, fmt.Sprintf("  and %d more failed", hidden)))
	}
	withOutput := room
	for _, n := range runs[:shownRuns.shown] {
		lines = append(lines, p.run(n))
		if n.active > 0 && len(n.tail) > 0 && withOutput > 0 {
			lines = append(lines, p.output(n.tail[len(n.tail)-1]))
			withOutput--
		}
	}
	if hidden := shownRuns.hidden; hidden > 0 {
		lines = append(lines, p.line(look.dim, fmt.Sprintf("  and %d more", hidden)))
	}
	if footer {
		lines = append(lines, p.footer(len(all[finished]), cached, len(all[skipped])))
	}
	return strings.Join(lines[:min(len(lines), max(height-1, 1))], "\n")
}

// idle tells whether a node waits for its turn.
func idle(n *node) int {
	if n.text == "" {
		return 1
	}
	return 0
}

// fitted is how many of some things are shown, and how many a last line counts.
type fitted struct{ shown, hidden int }

func (f fitted) lines() int { return f.shown + min(f.hidden, 1) }

// fit shows n things in room lines.
func fit(n, room int) fitted {
	room = max(room, 0)
	if n <= room {
		return fitted{n, 0}
	}
	return fitted{max(room-1, 0), n - max(room-1, 0)}
}

// painter draws lines of one width.
type painter struct {
	width int
	names int // columns of names
	now   time.Time
	look  style
}

// line is a text in one style, cut to the width.
func (p painter) line(s lipgloss.Style, text string) string {
	return s.Render(ansi.Truncate(text, p.width, "…"))
}

// header counts: a bar, how many are done, and the time.
func (p painter) header(b *board, done, failures, runs int) string {
	took := p.since(b.begun)
	if b.total == 0 {
		return p.spread(p.spinner()+" "+p.look.bold.Render("looking up what is known"), took)
	}
	left := p.look.bold.Render(fmt.Sprintf("%d of %d", done, b.total))
	switch {
	case b.doing != "":
		left += "  " + b.doing
	case runs > 0:
		left += fmt.Sprintf("  %d running", runs)
	}
	if failures > 0 {
		left += "  " + p.look.bad.Render(fmt.Sprintf("%d failed", failures))
	}
	switch n := len(b.notices); {
	case n == 1:
		left += p.look.dim.Render("  1 warning")
	case n > 1:
		left += p.look.dim.Render(fmt.Sprintf("  %d warnings", n))
	}
	bar := p.bar(min(30, p.width/5), done+failures, b.total)
	return p.spread(p.spinner()+" "+bar+" "+left, took)
}

// run is a node that runs: name, step, time and bar.
func (p painter) run(n *node) string {
	text, mark := n.text, p.look.accent.Render("▸")
	if text == "" {
		text, mark = "waiting for its turn", p.look.dim.Render("·")
		if n.done >= n.steps {
			text = "finishing"
		}
		text = p.look.dim.Render(text)
	}
	if n.at != "" {
		text = p.look.dim.Render("["+n.at+"]") + " " + text
	}
	right := fmt.Sprintf("%6s", p.since(n.since))
	if n.steps > 0 {
		right = p.bar(10, n.done, n.steps) + " " + right
	}
	return p.spread(mark+" "+p.name(n, p.look.bold)+"  "+text, right)
}

// failure is a node that failed, and where.
func (p painter) failure(n *node) string {
	text := n.text
	if n.failedAt != "" && !strings.HasPrefix(text, n.failedAt) {
		text = n.failedAt + ": " + text
	}
	return p.spread(p.look.bad.Render("✗")+" "+p.name(n, p.look.bad)+"  "+text, "")
}

// output is a line that a step printed.
func (p painter) output(text string) string {
	return p.line(p.look.dim, "  │ "+text)
}

func (p painter) footer(done, cached, skipped int) string {
	var parts []string
	if done > 0 {
		s := fmt.Sprintf("%d finished", done)
		if cached > 0 {
			s += fmt.Sprintf(", %d of them cached", cached)
		}
		parts = append(parts, s)
	}
	if skipped > 0 {
		parts = append(parts, fmt.Sprintf("%d skipped", skipped))
	}
	return ansi.Truncate(p.look.good.Render("✓")+" "+p.look.dim.Render(strings.Join(parts, ", ")), p.width, "…")
}

func (p painter) name(n *node, s lipgloss.Style) string {
	name := ansi.Truncate(logtext.Line(n.id), p.names, "…")
	return s.Render(name) + strings.Repeat(" ", max(0, p.names-ansi.StringWidth(name)))
}

func (p painter) spinner() string {
	return p.look.accent.Render(string(frames[int(p.now.UnixMilli()/100)%len(frames)]))
}

// since is how long something has been going on, in whole seconds.
func (p painter) since(begun time.Time) string {
	d := max(0, p.now.Sub(begun))
	if d < time.Minute {
		return fmt.Sprintf("%ds", int(d.Seconds()))
	}
	return logtext.Seconds(d)
}

// height is how many lines the picture will need when much is going on. It says
// so from the beginning: a picture that grows is drawn anew.
func (b *board) height() int {
	nodes := min(b.total, 2*b.jobs+2)
	return 2 + nodes + min(nodes, b.jobs)
}

// bar is n of total in so many columns.
func (p painter) bar(columns, n, total int) string {
	full := columns * min(n, total) / max(total, 1)
	return p.look.good.Render(strings.Repeat("━", full)) + p.look.dim.Render(strings.Repeat("─", columns-full))
}

// spread puts left and right at the ends of a line; left is cut.
func (p painter) spread(left, right string) string {
	space := p.width - ansi.StringWidth(right)
	if right != "" {
		space--
	}
	left = ansi.Truncate(left, max(space, 0), "…")
	if right == "" {
		return left
	}
	return ansi.Truncate(left+strings.Repeat(" ", max(1, p.width-ansi.StringWidth(left)-ansi.StringWidth(right)))+right, p.width, "")
}
