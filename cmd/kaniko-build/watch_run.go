package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"kaniko-build/cmd/kaniko-build/internal/logtext"
	"kaniko-build/cmd/kaniko-build/internal/progress"
	"kaniko-build/executor"
	"kaniko-build/graph"
	"kaniko-build/plan"
	"kaniko-build/schema"
	"kaniko-build/schema/diag"
	"kaniko-build/watch"
)

// service is a process that is started with each new image of a target.
type service struct {
	target string
	args   []string
	stage  *stage

	mu   sync.Mutex // held while one takes the place of another
	stop func()     // ends the process that runs, and waits for that; nil is none

	process atomic.Pointer[executor.Process] // nil: none runs
}

// errReplaced is why a process ends.
var errReplaced = errors.New("its image is another")

// name is what events of the process are told of.
func (s *service) name() string { return s.target + " process" }

// node is the node of a plan whose image is run.
func (s *service) node(p *plan.Plan) (graph.ID, error) {
	for _, n := range p.Nodes {
		if n.Target.Name == s.target && n.Index == nil && (!n.Joined || n.Platform == executor.HostPlatform()) {
			return n.ID, nil
		}
	}
	return "", &diag.Problem{What: fmt.Sprintf("--run: target %q is not among those that are built", s.target), Hint: "name it as an argument too"}
}

// start ends the process that runs, and starts one with the image of a node.
func (s *service) start(ctx context.Context, x *executor.Executor, n *executor.Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop != nil {
		s.stop()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	over := make(chan struct{})
	go func() {
		defer close(over)
		exit, err := x.Start(ctx, n, s.name(), s.args, s.process.Store)
		s.process.Store(nil)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			s.stage.process(watch.Ended, s.target, "cannot be started: "+err.Error())
		default:
			s.stage.process(watch.Ended, s.target, fmt.Sprintf("has ended with exit code %d; it is started again with the next image", exit))
		}
	}()
	s.stop = func() { cancel(errReplaced); <-over }
}

// update copies files of a rule into the process that runs, and runs the rule's command there.
func (s *service) update(ctx context.Context, rule *schema.WatchRule, files []syncFile) error {
	p := s.process.Load()
	if p == nil {
		return executor.ErrProcessEnded
	}
	archive, gone, err := packFiles(files, executor.MaxSync)
	if err != nil {
		return err
	}
	return p.Update(ctx, executor.Update{To: rule.To, Files: archive.Bytes(), Gone: gone, Exec: wordsOf(rule.Exec)})
}

// end ends the process.
func (s *service) end() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop != nil {
		s.stop()
		s.stop = nil
	}
}

// process tells of the process of a target.
func (s *stage) process(kind watch.Kind, target, text string) {
	s.watched(watch.Event{Kind: kind, Time: time.Now(), Text: target + " " + text, Nodes: []graph.ID{graph.ID(target)}})
}

// running shows what a process does; it is false for events of others.
func (s *stage) running(e executor.Event) bool {
	run := s.service
	if run == nil || e.Node != run.name() {
		return false
	}
	switch e.Kind {
	case executor.StepStarted:
		s.process(watch.Started, run.target, "is running")
	case executor.Log:
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.page != nil {
			s.page.Process(run.target, e.Data)
		}
		if s.flags.progress == "json" {
			e.Node, e.Stage = run.target, "run"
			progress.JSON(s.term.err).Event(progress.Event{Event: e})
			return true
		}
		var b strings.Builder
		for line := range strings.Lines(e.Data) {
			fmt.Fprintf(&b, "%s | %s\n", printable(run.target), logtext.Line(strings.TrimSuffix(line, "\n")))
		}
		print := func() { fmt.Fprint(s.term.err, b.String()) }
		if s.view != nil && s.live() {
			s.late = append(s.late, print)
		} else {
			print()
		}
	}
	return true
}
