package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"kaniko-build/cmd/kaniko-build/internal/livepage"
	"kaniko-build/cmd/kaniko-build/internal/progress"
	"kaniko-build/cmd/kaniko-build/internal/tty"
	"kaniko-build/executor"
	"kaniko-build/watch"
)

// stage is where watching is shown: a progress.View that opens another one while
// something is built, and prints lines between.
type stage struct {
	ctx   context.Context
	flags *watchFlags
	term  terminal
	page  *livepage.Page // nil: nobody asked for one

	mu     sync.Mutex
	root   string
	places places
	view   progress.View // nil while nothing is built
	inside int           // waves
	late   []func()      // printed when the view is closed
	told   map[string]bool
	nodes  int
	keys   string // what they do

	focused string // the image that the live view shows by itself

	service *service // nil is none
}

// begin takes what a manifest says of places.
func (s *stage) begin(w *workspace) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.root, s.places, s.told = w.root, w.places(), map[string]bool{}
}

// enter opens the view, unless it is open.
func (s *stage) enter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inside++; s.view != nil {
		return
	}
	view, err := s.flags.show(s.ctx, s.term, s.root)
	if err != nil {
		fmt.Fprintln(s.term.err, printableLines(err.Error())) // a build goes on without a picture of it
		view = progress.Quiet{}
	}
	s.view = view
	if picture := s.picture(); picture != nil {
		picture.Focus(s.focused)
	}
}

// picture is the live view, nil if there is none.
func (s *stage) picture() *tty.View {
	all, _ := s.view.(progress.Tee)
	for _, v := range all {
		if picture, ok := v.(*tty.View); ok {
			return picture
		}
	}
	return nil
}

// focus shows the next image by itself.
func (s *stage) focus() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if picture := s.picture(); picture != nil {
		s.focused = picture.Next()
	}
}

// leave closes the view when nobody needs it any more.
func (s *stage) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inside--; s.inside > 0 {
		return
	}
	_ = s.view.Close() // a terminal that went away is no reason to stop
	s.view = nil
	for _, f := range s.late {
		f()
	}
	s.late = nil
}

// after calls f when the terminal is free.
func (s *stage) after(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late = append(s.late, f)
}

// Event is that of progress.View.
func (s *stage) Event(e progress.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.Kind == executor.Warning { // of every look the same
		key := fmt.Sprint(e.Node, e.Rule, e.Text, e.Pos)
		if s.told[key] {
			return
		}
		if s.told == nil {
			s.told = map[string]bool{}
		}
		s.told[key] = true
	}
	if s.page != nil {
		s.page.Event(e)
	}
	switch {
	case s.view != nil:
		s.view.Event(e)
	case s.flags.progress == "json":
		progress.JSON(s.term.err).Event(e)
	case s.flags.progress != "quiet":
		for _, l := range e.Late() {
			fmt.Fprintln(s.term.err, l)
		}
	}
}

// Close is that of progress.View: the view is closed by leave.
func (s *stage) Close() error { return nil }

func (s *stage) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.view == nil {
		return nil
	}
	return s.view.Close()
}

// executed takes the executor's events.
func (s *stage) executed(e executor.Event) {
	if s.running(e) {
		return
	}
	s.mu.Lock()
	e.Pos = s.places.pos(e.Pos)
	s.mu.Unlock()
	s.Event(progress.Event{Event: e})
}

func (s *stage) warn(text string) {
	s.Event(progress.Event{Event: executor.Event{Kind: executor.Warning, Time: time.Now(), Text: text}})
}

// watched shows what the engine tells.
func (s *stage) watched(e watch.Event) {
	if s.page != nil {
		s.page.Watched(e)
	}
	if s.flags.progress == "json" {
		s.mu.Lock()
		defer s.mu.Unlock()
		progress.JSON(s.term.err).Event(progress.Event{Event: executor.Event{Kind: progress.Watch, Time: e.Time, Text: e.Text}, Watch: &e})
		return
	}
	var text string
	switch e.Kind {
	case watch.Opened:
		s.mu.Lock()
		s.nodes = len(e.Nodes)
		s.mu.Unlock()
	case watch.Changed, watch.Synced, watch.Held, watch.Started, watch.Ended:
		text = e.Text
	case watch.Broken:
		text = e.Text + "\n  it is waited for"
	case watch.Watching:
		s.mu.Lock()
		if text = "watching " + counted(s.nodes, "image"); s.keys != "" {
			text += ": " + s.keys
		}
		s.mu.Unlock()
	case watch.Paused:
		text = "paused: p goes on"
	case watch.Resumed:
		text = "going on"
	case watch.Polling:
		text = e.Text
	}
	if text == "" || s.flags.progress == "quiet" && e.Kind != watch.Broken {
		return
	}
	s.say(text)
}

// say prints a text where it does not disturb.
func (s *stage) say(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.view != nil && s.live() {
		s.view.Event(progress.Event{Event: executor.Event{Kind: progress.Note, Time: time.Now(), Text: strings.ReplaceAll(text, "\n", " ")}})
		return
	}
	fmt.Fprintln(s.term.err, printableLines(text))
}

// live tells whether the view draws a picture.
func (s *stage) live() bool {
	return isTerminal(s.term.err) && s.flags.progress != "plain" && s.flags.progress != "interleaved"
}
