package tty

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"

	"kaniko-build/cmd/kaniko-build/internal/progress"
	"kaniko-build/executor"
	"kaniko-build/schema/diag"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// plainStyle draws without escape codes.
func plainStyle() style {
	s := lipgloss.NewStyle()
	return style{s, s, s, s, s, s}
}

func event(node string, kind executor.Kind, after time.Duration) progress.Event {
	return progress.Event{Event: executor.Event{Node: node, Kind: kind, Time: start.Add(after)}}
}

func step(node string, kind executor.Kind, n int, text string, after time.Duration) progress.Event {
	e := event(node, kind, after)
	e.Stage, e.Step, e.Of, e.Text, e.Pos = "build", n, 4, text, diag.Pos{File: node + "/Dockerfile", Line: n + 1, Col: 1}
	return e
}

// monorepo is a board of n nodes: some are finished, some failed, some run.
func monorepo(n, done, failures, running int) *board {
	b := &board{begun: start}
	e := event("", progress.RunStarted, 0)
	id := func(i int) string { return fmt.Sprintf("service-with-a-long-name-%03d@linux/arm64", i) }
	for i := range n {
		e.Nodes = append(e.Nodes, progress.Node{ID: id(i), Steps: 4})
	}
	b.event(e)
	for i := range done + failures + running {
		b.event(event(id(i), progress.NodeStarted, 0))
		switch {
		case i < done:
			e := event(id(i), progress.NodeDone, time.Second)
			e.Image = &progress.Image{Cached: i%2 == 0}
			b.event(e)
		default:
			b.event(step(id(i), executor.StepCached, 1, "COPY . .", 0))
			b.event(step(id(i), executor.StepStarted, 2, "RUN npm ci && npm run build -- --production && 日本語日本語日本語日本語日本語日本語日本語日本語日本語", time.Second))
			e := step(id(i), executor.Log, 2, "", time.Second)
			for l := range 20 {
				e.Data += fmt.Sprintf("line %d \x1b[31mof\x1b[0m %d\t日本語 and so on, as long as it takes to be wider than any terminal %s\n", l, i, strings.Repeat("x", 300))
			}
			b.event(e)
			if i < done+failures {
				b.event(step(id(i), executor.StepFailed, 2, "exit code: 1", 2*time.Second))
				e := event(id(i), progress.NodeFailed, 2*time.Second)
				e.Text = "exit code: 1\nhint"
				b.event(e)
			}
		}
	}
	return b
}

func TestTheFrameFitsAnyTerminal(t *testing.T) {
	for _, size := range [][2]int{{60, 15}, {61, 16}, {80, 24}, {100, 30}, {200, 60}, {400, 100}, {20, 5}, {1, 1}, {10, 2}, {60, 3}} {
		for _, c := range [][4]int{{0, 0, 0, 0}, {1, 0, 0, 1}, {60, 0, 0, 6}, {60, 30, 1, 6}, {60, 10, 30, 6}, {1000, 500, 3, 100}, {60, 59, 1, 0}} {
			for name, look := range map[string]style{"plain": plainStyle(), "coloured": colours()} {
				b := monorepo(c[0], c[1], c[2], c[3])
				got := b.frame(size[0], size[1], start.Add(90*time.Minute), look)
				lines := strings.Split(got, "\n")
				if len(lines) > max(size[1]-1, 1) {
					t.Errorf("%v %v %s: %d lines", size, c, name, len(lines))
				}
				for _, l := range lines {
					if w := ansi.StringWidth(l); w > size[0] {
						t.Errorf("%v %v %s: %d columns: %q", size, c, name, w, l)
					}
				}
			}
		}
	}
}

func TestTheFrame(t *testing.T) {
	b := &board{begun: start}
	look := plainStyle()
	draw := func(width, height int, after time.Duration) string {
		var out strings.Builder
		for l := range strings.Lines(b.frame(width, height, start.Add(after), look)) {
			out.WriteString("|" + strings.TrimRight(l, " \n") + "\n")
		}
		return out.String()
	}
	expect := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
	warning := event("api", executor.Warning, 0)
	warning.Text = "the case differs"
	b.event(warning)
	expect(draw(60, 15, 300*time.Millisecond), "|⠸ looking up what is known                                0s\n")

	run := event("", progress.RunStarted, 0)
	for _, id := range []string{"base", "api", "web", "worker"} {
		run.Nodes = append(run.Nodes, progress.Node{ID: id, Steps: 4})
	}
	b.event(run)
	done := event("base", progress.NodeDone, time.Second)
	done.Image = &progress.Image{Cached: true}
	log := step("api", executor.Log, 2, "", time.Second)
	log.Data = "one\n\x1b[1mtwo\x1b[0m\n\n"
	for _, e := range []progress.Event{
		event("base", progress.NodeStarted, 0), done,
		event("web", progress.NodeStarted, time.Second), event("worker", progress.NodeStarted, time.Second), event("api", progress.NodeStarted, time.Second),
		step("api", executor.StepCached, 1, "COPY . .", time.Second),
		step("api", executor.StepStarted, 2, "RUN make all && make check", time.Second), log,
		step("worker", executor.StepStarted, 1, "RUN sleep", 2*time.Second),
	} {
		b.event(e)
	}
	expect(draw(60, 15, 4*time.Second), `|⠋ ━━━───────── 1 of 4  3 running  1 warning               4s
|▸ api       [build 2/4] RUN make all && m… ━━────────     3s
|  │ two
|▸ worker    [build 1/4] RUN sleep          ──────────     2s
|· web       waiting for its turn           ──────────     3s
|✓ 1 finished, 1 of them cached
`)
	b.event(step("api", executor.StepFailed, 2, "exit code: 2\n hint", 4*time.Second))
	failed := event("api", progress.NodeFailed, 4*time.Second)
	failed.Text = "api/Dockerfile:3:1: exit code: 2\n  hint: x"
	b.event(failed)
	skip := event("web", progress.NodeSkipped, 4*time.Second)
	b.event(skip)
	expect(draw(60, 15, 5*time.Second), `|⠋ ━━━━━━────── 1 of 4  1 running  1 failed  1 warning     5s
|✗ api       api/Dockerfile:3:1: exit code: 2
|  │ one
|  │ two
|▸ worker    [build 1/4] RUN sleep          ──────────     3s
|✓ 1 finished, 1 of them cached, 1 skipped
`)
}

func TestOneNodeByItself(t *testing.T) {
	b := monorepo(6, 2, 1, 3)
	draw := func() string { return b.frame(100, 30, start.Add(time.Minute), plainStyle()) }
	nodes := func(frame string) int { return strings.Count(frame, "\n▸ ") + strings.Count(frame, "\n✗ ") }
	for _, want := range []int{2, 3, 4, 5} { // failed, running
		b.next()
		got := draw()
		if nodes(got) != 1 || strings.Count(got, fmt.Sprintf(" of %d ", want)) < 20 || strings.Count(got, "│ line ") != 20 {
			t.Errorf("of node %d it shows\n%s", want, got)
		}
	}
	b.next()
	if got := draw(); b.focus != "" || nodes(got) != 4 {
		t.Errorf("after the last it shows\n%s", got)
	}
}
