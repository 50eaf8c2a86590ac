package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
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

	files  sync.Mutex                                   // guards copied
	copied map[*schema.WatchRule]map[syncFile]time.Time // since the image that runs was looked at, and when
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

// start ends the process that runs, and starts one with the image of a node, whose files
// were looked at from a time on: it may not have what was copied after that.
func (s *service) start(ctx context.Context, x *executor.Executor, n *executor.Node, looked time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop != nil {
		s.stop()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	over := make(chan struct{})
	go func() {
		defer close(over)
		var late sync.WaitGroup
		exit, err := x.Start(ctx, n, s.name(), s.args, func(p *executor.Process) {
			s.process.Store(p)
			late.Go(func() { s.again(ctx, looked) })
		})
		s.process.Store(nil)
		late.Wait()
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
	s.files.Lock()
	if s.copied == nil {
		s.copied = map[*schema.WatchRule]map[syncFile]time.Time{}
	}
	if s.copied[rule] == nil {
		s.copied[rule] = map[syncFile]time.Time{}
	}
	for _, f := range files {
		s.copied[rule][f] = time.Now() // before it is read
	}
	s.files.Unlock()
	return s.copy(ctx, rule, files)
}

func (s *service) copy(ctx context.Context, rule *schema.WatchRule, files []syncFile) error {
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

// again copies, into a process that begins, what was copied into the one before while its
// image was built.
func (s *service) again(ctx context.Context, looked time.Time) {
	s.files.Lock()
	list := map[*schema.WatchRule][]syncFile{}
	for rule, files := range s.copied {
		maps.DeleteFunc(files, func(_ syncFile, when time.Time) bool { return when.Before(looked) })
		if len(files) == 0 {
			delete(s.copied, rule)
			continue
		}
		list[rule] = slices.SortedFunc(maps.Keys(files), func(a, b syncFile) int { return strings.Compare(a.at, b.at) })
	}
	s.files.Unlock()
	for _, rule := range slices.SortedFunc(maps.Keys(list), func(a, b *schema.WatchRule) int { return a.Pos.Line - b.Pos.Line }) {
		if err := s.copy(ctx, rule, list[rule]); err != nil && ctx.Err() == nil {
			s.stage.warn(fmt.Sprintf("%s: what was saved while it was built cannot be copied: %v; save it again", s.target, err))
		}
	}
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
