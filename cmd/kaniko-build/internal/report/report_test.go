package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"kaniko-build/cmd/kaniko-build/internal/progress"
	"kaniko-build/executor"
	"kaniko-build/schema/diag"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func event(node string, kind executor.Kind, ms int) progress.Event {
	return progress.Event{Event: executor.Event{Node: node, Kind: kind, Time: start.Add(time.Duration(ms) * time.Millisecond)}}
}

func step(node string, kind executor.Kind, n, ms int) progress.Event {
	e := event(node, kind, ms)
	e.Stage, e.Step, e.Of, e.Text, e.Pos = "build", n, 3, fmt.Sprintf("RUN step %d", n), diag.Pos{File: node + "/Dockerfile", Line: n, Col: 1}
	return e
}

// recorded is the data and the page of a run.
func recorded(t *testing.T, events ...progress.Event) (Run, string) {
	t.Helper()
	var page bytes.Buffer
	writes := 0
	r := Record("a <title>", func(write func(io.Writer) error) error { writes++; return write(&page) })
	for _, e := range events {
		r.Event(e)
	}
	for range 2 {
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if writes != 1 {
		t.Fatalf("written %d times", writes)
	}
	m := regexp.MustCompile(`(?s)<script id="data" type="application/json">(.*?)</script>`).FindSubmatch(page.Bytes())
	if m == nil {
		t.Fatal("the page has no data")
	}
	var run Run
	if err := json.Unmarshal(m[1], &run); err != nil {
		t.Fatal(err)
	}
	return run, page.String()
}

func begun(jobs int, nodes ...progress.Node) progress.Event {
	e := event("", progress.RunStarted, 0)
	e.Nodes, e.Jobs = nodes, jobs
	return e
}

func TestARunIsRemembered(t *testing.T) {
	done := event("base", progress.NodeDone, 120)
	done.Image = &progress.Image{Digest: "sha256:abc", Names: []string{"x:1"}, Size: 30, Layers: []progress.Layer{{Size: 10}, {Size: 20, Text: "RUN a"}}}
	why := step("base", executor.StepStarted, 1, 10)
	why.Why = "a.txt changed"
	early := event("api", executor.Warning, -5)
	early.Text, early.Rule = "the case differs", "Casing"
	log := step("api", executor.Log, 1, 150)
	log.Data = "\x1b[31mone\x1b[0m\ntwo\n"
	wrong := step("api", executor.StepFailed, 1, 300)
	wrong.Text = "exit code: 1"
	failed := event("api", progress.NodeFailed, 310)
	failed.Text = "api/Dockerfile:1:1: exit code: 1\n  hint: x"
	skipped := event("web", progress.NodeSkipped, 320)
	skipped.Text = "needs api"
	end := event("", progress.RunDone, 330)
	end.Text, end.Elapsed = "failed", 330*time.Millisecond
	run, page := recorded(t, early,
		begun(2, progress.Node{ID: "base", Group: "g"}, progress.Node{ID: "api", Needs: []string{"base"}}, progress.Node{ID: "web", Needs: []string{"api"}}),
		event("base", progress.NodeStarted, 0), why, step("base", executor.StepDone, 1, 100), done,
		event("api", progress.NodeStarted, 125), step("api", executor.StepStarted, 1, 130), log, wrong, failed, skipped, end)
	want := Run{
		Title: "a <title>", Started: start, Elapsed: 330, Outcome: "failed", Jobs: 2, Slots: 1, Critical: []string{"base", "api"},
		Nodes: []*Node{
			{ID: "base", Group: "g", State: "built", End: 120, Digest: "sha256:abc", Names: []string{"x:1"}, Size: 30, Layers: []Layer{{10, ""}, {20, "RUN a"}},
				Steps: []*Step{{Stage: "build", Step: 1, Of: 3, Text: "RUN step 1", Pos: "base/Dockerfile:1:1", State: "done", Begin: 10, End: 100, Slot: 1, Why: "a.txt changed"}}},
			{ID: "api", Needs: []string{"base"}, State: "failed", Begin: 125, End: 310, Error: "api/Dockerfile:1:1: exit code: 1\n  hint: x", Warnings: []string{"warning: Casing: the case differs"},
				Steps: []*Step{{Stage: "build", Step: 1, Of: 3, Text: "RUN step 1", Pos: "api/Dockerfile:1:1", State: "failed", Begin: 130, End: 300, Slot: 1, Log: "one\ntwo\nexit code: 1"}}},
			{ID: "web", Needs: []string{"api"}, State: "skipped", Error: "needs api"},
		},
	}
	got, _ := json.MarshalIndent(run, "", " ")
	need, _ := json.MarshalIndent(want, "", " ")
	if string(got) != string(need) {
		t.Errorf("got\n%s\nwant\n%s", got, need)
	}
	if !strings.Contains(page, "<title>a &lt;title&gt;</title>") {
		t.Error("the title is not text")
	}
}

// TestThePageNeedsNothing looks for what would load anything.
func TestThePageNeedsNothing(t *testing.T) {
	_, page := recorded(t, begun(1, progress.Node{ID: "a"}), event("a", progress.NodeStarted, 0))
	for _, bad := range []string{" src=", "@import", "<link", "fetch(", "XMLHttpRequest", "import(", "{{"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	for _, url := range regexp.MustCompile(`\bhttps?://[^"'\s<]*`).FindAllString(page, -1) {
		if url != "http://www.w3.org/2000/svg" { // a name, not a place
			t.Errorf("the page names %s", url)
		}
	}
	if !strings.Contains(page, `content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"`) {
		t.Error("the page may load what it likes")
	}
}

func TestTextOfBuildsIsNoMarkup(t *testing.T) {
	hostile := "</script><script>alert(1)</script><!--<img src=x onerror=alert(1)>\u2028{{graph}}"
	events := []progress.Event{begun(1, progress.Node{ID: hostile, Group: hostile}), event(hostile, progress.NodeStarted, 0)}
	for _, k := range []executor.Kind{executor.StepStarted, executor.Log, executor.StepFailed, executor.Warning, progress.NodeFailed} {
		e := step(hostile, k, 1, 10)
		e.Stage, e.Text, e.Why, e.Data, e.Pos.File, e.Rule = hostile, hostile, hostile, hostile+"\n", hostile, hostile
		events = append(events, e)
	}
	_, page := recorded(t, events...)
	if n := strings.Count(page, "<script"); n != 2 {
		t.Errorf("%d scripts", n)
	}
	for _, bad := range []string{"<img", "<!--", "alert(1)</script>"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
}

func TestSlotsAreAsManyAsJobs(t *testing.T) {
	events := []progress.Event{begun(2, progress.Node{ID: "a"})}
	for _, s := range [][3]int{{1, 0, 100}, {2, 0, 150}, {3, 95, 200}, {4, 150, 300}, {5, 210, 400}} { // the third begins before the first has said that it ended
		events = append(events, step("a", executor.StepStarted, s[0], s[1]), step("a", executor.StepDone, s[0], s[2]))
	}
	run, _ := recorded(t, events...)
	var got []int
	for _, s := range run.Nodes[0].Steps {
		got = append(got, s.Slot)
	}
	if fmt.Sprint(got) != "[1 2 1 2 1]" || run.Slots != 2 {
		t.Errorf("slots %v of %d", got, run.Slots)
	}
}

func TestOutputKeepsBothEnds(t *testing.T) {
	var o output
	for i := range 100_000 {
		o.add(fmt.Sprintf("line %d\n", i))
	}
	got := o.text(headBytes + tailBytes)
	if len(got) > headBytes+tailBytes+100 || !strings.HasPrefix(got, "line 0\nline 1\n") || !strings.HasSuffix(got, "line 99999") || !strings.Contains(got, "left out …") {
		t.Errorf("%d bytes: %.60q … %q", len(got), got, got[len(got)-60:])
	}
	if got := o.text(shortTail); len(got) > shortTail+100 || !strings.HasSuffix(got, "line 99999") {
		t.Errorf("short: %d bytes", len(got))
	}
	var small output
	small.add("a\n")
	small.add("b\n")
	if got := small.text(headBytes + tailBytes); got != "a\nb" {
		t.Errorf("got %q", got)
	}
}

// TestManyLogsFit has nodes that print more than a page may hold.
func TestManyLogsFit(t *testing.T) {
	const n = 600
	first := begun(2)
	events := []progress.Event{}
	line := strings.Repeat("x", 120) + "\n"
	for i := range n {
		id := fmt.Sprintf("n%03d", i)
		first.Nodes = append(first.Nodes, progress.Node{ID: id})
		log := step(id, executor.Log, 1, 10)
		log.Data = strings.Repeat(line, 300)
		last := step(id, executor.StepDone, 1, 20)
		if i == n-1 {
			last.Kind, last.Text = executor.StepFailed, "the failure"
		}
		events = append(events, event(id, progress.NodeStarted, 0), step(id, executor.StepStarted, 1, 5), log, last)
	}
	run, page := recorded(t, append([]progress.Event{first}, events...)...)
	if len(page) > allBytes+8<<20 || !run.Cut {
		t.Errorf("%d bytes", len(page))
	}
	if log := run.Nodes[n-1].Steps[0].Log; len(log) < tailBytes || !strings.HasSuffix(log, "the failure") {
		t.Errorf("the log of the failure has %d bytes", len(log))
	}
}
