package progress_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kaniko-build/cmd/kaniko-build/internal/progress"
	"kaniko-build/executor"
	"kaniko-build/schema/diag"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func event(node string, kind executor.Kind, change ...func(*progress.Event)) progress.Event {
	e := progress.Event{Event: executor.Event{Node: node, Kind: kind, Time: start, Stage: "build", Step: 2, Of: 3}}
	switch kind {
	case progress.RunStarted, progress.NodeStarted, progress.NodeDone, progress.NodeFailed, progress.NodeSkipped, executor.Warning:
		e.Stage, e.Step, e.Of = "", 0, 0
	}
	if kind == progress.NodeDone {
		e.Image = &progress.Image{Digest: "sha256:abc", Steps: 3, Executed: 1}
		e.Elapsed = 1200 * time.Millisecond
	}
	for _, f := range change {
		f(&e)
	}
	return e
}

func text(s string) func(*progress.Event) { return func(e *progress.Event) { e.Text = s } }
func data(s string) func(*progress.Event) { return func(e *progress.Event) { e.Data = s } }
func at(file string, line int) func(*progress.Event) {
	return func(e *progress.Event) { e.Pos = diag.Pos{File: file, Line: line, Col: 1} }
}
func nodes(ids ...string) func(*progress.Event) {
	return func(e *progress.Event) {
		for _, id := range ids {
			e.Nodes = append(e.Nodes, progress.Node{ID: id})
		}
	}
}

func sent(v progress.View, events ...progress.Event) {
	for _, e := range events {
		v.Event(e)
	}
	v.Close()
}

// twoNodes is a run of two nodes at once; the second ends first.
var twoNodes = []progress.Event{
	event("", progress.RunStarted, nodes("api", "web")),
	event("api", executor.Warning, text("the case differs"), at("api/Dockerfile", 1), func(e *progress.Event) { e.Rule = "Casing" }),
	event("api", progress.NodeStarted),
	event("web", progress.NodeStarted),
	event("api", executor.StepStarted, text("RUN make\nmore")),
	event("web", executor.StepCached, text("COPY . .")),
	event("api", executor.Log, data("one\ntwo\n")),
	event("web", progress.NodeDone, func(e *progress.Event) { e.Image.Cached = true }),
	event("api", executor.Log, data("three\n")),
	event("api", executor.StepFailed, text("exit code: 1\n  hint: x"), at("api/Dockerfile", 3)),
	event("api", progress.NodeFailed, text("api/Dockerfile:3:1: exit code: 1"), at("api/Dockerfile", 3)),
}

func TestPlainKeepsTheLinesOfANodeTogether(t *testing.T) {
	var b strings.Builder
	sent(progress.Plain(&b, progress.CI{}), twoNodes...)
	want := `web
  [build 2/3] cached COPY . .
web cached, 1.2s, sha256:abc
api
  warning: Casing: the case differs (api/Dockerfile:1:1)
  [build 2/3] RUN make …
  [build 2/3] | one
  [build 2/3] | two
  [build 2/3] | three
  [build 2/3] failed 0ms: exit code: 1
api failed: api/Dockerfile:3:1: exit code: 1
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestTheLastNodeIsPrintedAsItRuns(t *testing.T) {
	var b strings.Builder
	v := progress.Plain(&b, progress.CI{})
	for _, e := range twoNodes[:9] { // up to "three"
		v.Event(e)
	}
	if !strings.HasSuffix(b.String(), "| three\n") {
		t.Errorf("what the last node prints waits: %q", b.String())
	}
	v.Close()
}

func TestInterleavedNamesTheNode(t *testing.T) {
	var b strings.Builder
	sent(progress.Interleaved(&b, progress.CI{}), twoNodes...)
	want := `api warning: Casing: the case differs (api/Dockerfile:1:1)
api [build 2/3] RUN make …
web [build 2/3] cached COPY . .
api [build 2/3] | one
api [build 2/3] | two
web cached, 1.2s
api [build 2/3] | three
api [build 2/3] failed 0ms: exit code: 1
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestGitHubHasGroupsAndAnnotations(t *testing.T) {
	var b strings.Builder
	sent(progress.Plain(&b, progress.CI{Kind: progress.GitHub, Dir: "shop"}), twoNodes...)
	want := `::group::web
  [build 2/3] cached COPY . .
::endgroup::
web cached, 1.2s, sha256:abc
::group::api
  warning: Casing: the case differs (api/Dockerfile:1:1)
  [build 2/3] RUN make …
  [build 2/3] | one
  [build 2/3] | two
  [build 2/3] | three
  [build 2/3] failed 0ms: exit code: 1
::endgroup::
api failed: api/Dockerfile:3:1: exit code: 1
::warning file=shop/api/Dockerfile,line=1,col=1,title=api Casing::the case differs
::error file=shop/api/Dockerfile,line=3,col=1,title=api::exit code: 1%0A  hint: x
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestMistakesAreAnnotations(t *testing.T) {
	var l diag.List
	l.Add(diag.Pos{File: "kaniko-build.yaml", Line: 3, Col: 11}, "did you mean \"base\"?", "unknown target %q", "bse")
	l.Add(diag.Pos{}, "", "nowhere")
	ci := progress.CI{Kind: progress.GitHub, Dir: "shop"}
	want := "::error file=shop/kaniko-build.yaml,line=3,col=11::unknown target \"bse\"%0Adid you mean \"base\"?\n"
	if got := ci.Problems("error", fmt.Errorf("read: %w", l.Err())); got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
	one := &diag.Problem{Pos: diag.Pos{File: "x"}, What: "::y"}
	if got := ci.Problems("warning", one); got != "::warning file=shop/x::: :y\n" {
		t.Errorf("got %q", got)
	}
	if got := (progress.CI{}).Problems("error", l.Err()) + ci.Problems("error", nil); got != "" {
		t.Errorf("got %q", got)
	}
}

func TestGitLabHasSections(t *testing.T) {
	var b strings.Builder
	sent(progress.Plain(&b, progress.CI{Kind: progress.GitLab}), event("", progress.RunStarted, nodes("a/b@linux", "c")),
		event("a/b@linux", progress.NodeStarted), event("a/b@linux", executor.StepCached, text("RUN x")), event("a/b@linux", progress.NodeDone))
	want := "\x1b[0Ksection_start:1767323045:kaniko_build_a_b_linux[collapsed=true]\r\x1b[0Ka/b@linux\n" +
		"  [build 2/3] cached RUN x\n" +
		"\x1b[0Ksection_end:1767323045:kaniko_build_a_b_linux\r\x1b[0K\n" +
		"a/b@linux built, 1 of 3 steps, 1.2s, sha256:abc\n"
	if b.String() != want {
		t.Errorf("got\n%q\nwant\n%q", b.String(), want)
	}
}

func TestDetectCI(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		dir  string
		want progress.CI
	}{
		{nil, "/w", progress.CI{}},
		{map[string]string{"CI": "true"}, "/w", progress.CI{}},
		{map[string]string{"GITLAB_CI": "true"}, "/w", progress.CI{Kind: progress.GitLab}},
		{map[string]string{"GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": "/w"}, "/w", progress.CI{Kind: progress.GitHub}},
		{map[string]string{"GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": "/w/"}, "/w/a/b", progress.CI{Kind: progress.GitHub, Dir: "a/b"}},
		{map[string]string{"GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": "/w"}, "/wide", progress.CI{Kind: progress.GitHub}},
	} {
		if got := progress.DetectCI(func(k string) string { return c.env[k] }, c.dir); got != c.want {
			t.Errorf("%v in %s: got %+v, want %+v", c.env, c.dir, got, c.want)
		}
	}
}

// hostile is what a build can say: commands of CIs, escape codes, and text that
// ends our own commands.
const hostile = "::error::x\x1b[2J\x1b]0;t\x07\r\n::set-output name=a::b\n##[group]x ##vso[task.setvariable variable=x]y\n" +
	"\x1b[0Ksection_start:1:x\r\x1b[0Kt\n::endgroup::\n::stop-commands::t\n\u202egpj.exe\n%0A::error::y\n"

// TestHostileTextSpeaksToNobody sends such text in every field of every kind of
// event, to every text view.
func TestHostileTextSpeaksToNobody(t *testing.T) {
	kinds := []executor.Kind{executor.Warning, executor.StepStarted, executor.StepCached, executor.Log, executor.StepDone, executor.Waiting, executor.Placed,
		executor.Pulling, executor.CacheMiss, executor.StepFailed, progress.Note, progress.NodeWriting, progress.NodePushing, progress.NodeFailed}
	send := func(v progress.View) {
		v.Event(event("", progress.RunStarted, nodes("a", "b")))
		v.Event(event("a", progress.NodeStarted))
		for _, k := range kinds {
			for line := range strings.Lines(hostile) {
				for _, s := range []string{hostile, line} {
					e := progress.Event{Event: executor.Event{Node: "a", Kind: k, Time: start, Stage: s, Step: 1, Of: 2, Text: s, Why: s, From: s, Rule: s, Data: s, Pos: diag.Pos{File: s, Line: 1}}}
					if k == progress.NodeFailed && s == hostile {
						continue // it ends the node
					}
					v.Event(e)
					e.Node = ""
					if k != progress.NodeFailed {
						v.Event(e)
					}
				}
			}
		}
		v.Close()
	}
	dir := t.TempDir()
	for name, show := range map[string]func(*strings.Builder) progress.View{
		"plain":       func(b *strings.Builder) progress.View { return progress.Plain(b, progress.CI{}) },
		"interleaved": func(b *strings.Builder) progress.View { return progress.Interleaved(b, progress.CI{}) },
		"github":      func(b *strings.Builder) progress.View { return progress.Plain(b, progress.CI{Kind: progress.GitHub}) },
		"logs": func(b *strings.Builder) progress.View {
			v, err := progress.Logs(dir)
			if err != nil {
				t.Fatal(err)
			}
			return v
		},
	} {
		var b strings.Builder
		send(show(&b))
		out := b.String()
		if name == "logs" {
			file, err := os.ReadFile(filepath.Join(dir, "a.log"))
			if err != nil {
				t.Fatal(err)
			}
			out = string(file)
		}
		if len(out) < 1000 {
			t.Errorf("%s: only %q", name, out)
		}
		for line := range strings.Lines(out) {
			line = strings.TrimSuffix(line, "\n")
			if name == "github" {
				ours := false
				for _, p := range []string{"::group::a", "::endgroup::", "::warning ", "::error "} {
					ours = ours || strings.HasPrefix(line, p)
				}
				if ours {
					if strings.ContainsAny(line, "\r\x1b\x07") {
						t.Errorf("%s: a command has controls: %q", name, line)
					}
					continue
				}
			}
			if strings.HasPrefix(strings.TrimSpace(line), "::") || strings.Contains(line, "##[") || strings.Contains(line, "##vso[") || strings.ContainsAny(line, "\r\x1b\x07\u202e") {
				t.Errorf("%s: %q", name, line)
			}
		}
	}
}

func TestALongLogWaitsInAFile(t *testing.T) {
	var b strings.Builder
	v := progress.Plain(&b, progress.CI{})
	v.Event(event("", progress.RunStarted, nodes("a", "b")))
	v.Event(event("a", progress.NodeStarted))
	line := strings.Repeat("x", 99)
	const n = 20_000
	for i := range n {
		v.Event(event("a", executor.Log, data(fmt.Sprintf("%d %s\n", i, line))))
	}
	if b.Len() > 0 {
		t.Fatal("it does not wait")
	}
	v.Event(event("a", progress.NodeDone))
	v.Close()
	lines := strings.Split(b.String(), "\n")
	if len(lines) != n+3 {
		t.Fatalf("%d lines, want %d", len(lines), n+3)
	}
	for i := range n {
		if !strings.HasSuffix(lines[i+1], fmt.Sprintf("| %d %s", i, line)) {
			t.Fatalf("line %d is %q", i, lines[i+1])
		}
	}
}

func TestPlainSaysWhatRunsWhenAllIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b strings.Builder
		v := progress.Plain(&b, progress.CI{})
		now := func(e *progress.Event) { e.Time = time.Now() }
		v.Event(event("", progress.RunStarted, nodes("a", "b", "c"), now))
		v.Event(event("a", progress.NodeStarted, now))
		v.Event(event("b", progress.NodeStarted, now))
		v.Event(event("a", executor.StepStarted, text("RUN make"), now))
		time.Sleep(61 * time.Second)
		v.Close()
		time.Sleep(time.Hour)
		if got := strings.Count(b.String(), "a has been running for "); got != 2 || !strings.Contains(b.String(), "a has been running for 1m00s: [build 2/3] RUN make\n") {
			t.Errorf("after 61 s: %q", b.String())
		}
	})
}

func TestAnInterruptedRunShowsWhatItHas(t *testing.T) {
	var b strings.Builder
	sent(progress.Plain(&b, progress.CI{}), twoNodes[:7]...)
	if !strings.Contains(b.String(), "| two\n") || !strings.Contains(b.String(), "cached COPY") {
		t.Errorf("lost: %q", b.String())
	}
}

func TestWarningsAfterTheEndAreShown(t *testing.T) {
	var b strings.Builder
	v := progress.Plain(&b, progress.CI{})
	v.Close()
	sent(v, event("api", executor.Warning, text("a layer is not kept")), event("api", executor.StepCached, text("RUN x")))
	if b.String() != "api warning: a layer is not kept\n" {
		t.Errorf("got %q", b.String())
	}
}

func TestJSONPrintsALineAnEvent(t *testing.T) {
	var b strings.Builder
	sent(progress.JSON(&b), append(twoNodes, event("x", executor.Log, data(hostile)))...)
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if len(lines) != len(twoNodes)+1 {
		t.Fatalf("%d lines", len(lines))
	}
	var last, done progress.Event
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.Data != hostile {
		t.Errorf("got %q, %v", last.Data, err)
	}
	want := `{"node":"web","kind":"node-done","time":"2026-01-02T03:04:05Z","elapsed":1200000000,"image":{"digest":"sha256:abc","size":0,"steps":3,"executed":1,"cached":true}}`
	if err := json.Unmarshal([]byte(lines[7]), &done); err != nil || lines[7] != want {
		t.Errorf("got %s\nwant %s", lines[7], want)
	}
}

func TestLogsAreFilesOfNodes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	v, err := progress.Logs(dir)
	if err != nil {
		t.Fatal(err)
	}
	events := append([]progress.Event{event("data/etl@linux/arm64", executor.StepCached, text("RUN x")), event("data/etl@linux/arm64", progress.NodeDone)}, twoNodes...)
	events = append(events, event("web", executor.Warning, text("late")))
	for _, e := range events {
		v.Event(e)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"web.log":                      "03:04:05.000 [build 2/3] cached COPY . .\n03:04:05.000 cached\n03:04:05.000 warning: late\n",
		"data%2Fetl@linux%2Farm64.log": "03:04:05.000 [build 2/3] cached RUN x\n03:04:05.000 built, 1 of 3 steps\n",
	} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v\nwant %q", name, got, err, want)
		}
	}
}

// TestEveryKindIsDocumented reads the kinds from the code.
func TestEveryKindIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../../../docs/progress.md")
	if err != nil {
		t.Fatal(err)
	}
	kind := regexp.MustCompile(`(?m)^\t[A-Z]\w* +(?:executor\.)?Kind += "([a-z-]+)"`)
	met := 0
	for _, file := range []string{"event.go", "../../../../executor/request.go"} {
		code, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range kind.FindAllStringSubmatch(string(code), -1) {
			met++
			if !strings.Contains(string(doc), "`"+m[1]+"`") {
				t.Errorf("docs/progress.md does not say what %s is", m[1])
			}
		}
	}
	if met < 15 {
		t.Errorf("only %d kinds found", met)
	}
}

// What is told again right after the run is not said twice; what others' lines stand
// between is, and nothing is lost where the run was interrupted.
func TestPlainLeavesTheLastFailureToTheSummary(t *testing.T) {
	for end, want := range map[string]string{
		"failed":      "web failed: it is late\napi\n",
		"interrupted": "web failed: it is late\napi\napi failed: no cluster is known\n",
	} {
		var b strings.Builder
		v := progress.Plain(&b, progress.CI{})
		v.Event(progress.Event{Event: executor.Event{Kind: progress.RunStarted}, Nodes: []progress.Node{{ID: "web"}, {ID: "api"}}})
		v.Event(event("web", progress.NodeFailed, text("it is late")))
		v.Event(event("api", progress.NodeStarted))
		v.Event(event("api", progress.NodeFailed, text("no cluster is known\n  hint: x")))
		v.Event(progress.Event{Event: executor.Event{Kind: progress.RunDone, Text: end}})
		v.Close()
		if got := strings.TrimPrefix(b.String(), "web\n"); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", end, got, want)
		}
	}
}
