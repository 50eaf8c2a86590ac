package main

import (
	"fmt"
	"path/filepath"
	"time"

	"kaniko-build/cmd/kaniko-build/internal/livepage"
	"kaniko-build/cmd/kaniko-build/internal/progress"
	"kaniko-build/executor"
	"kaniko-build/plan"
	"kaniko-build/watch"
)

// browse shows the watch in browsers too, and says where. stop ends that.
func (s *stage) browse(addr string, o *watch.Options) (stop func() error, err error) {
	if err := livepage.Loopback("--serve", addr); err != nil {
		return nil, usageError{err}
	}
	page := livepage.New()
	server, err := livepage.Serve(s.ctx, addr, page, livepage.Options{})
	if err != nil {
		return nil, err
	}
	s.page, o.Publish = page, page.Publish
	text := "the page is at " + server.URL()
	if s.flags.progress == "json" {
		s.Event(progress.Event{Event: executor.Event{Kind: progress.Note, Time: time.Now(), Text: text}})
	} else {
		fmt.Fprintln(s.term.err, text) // also with quiet: nobody could know it
	}
	ctx := s.ctx
	return func() error { return server.Close(ctx) }, nil
}

// opened shows a manifest that was read.
func (s *stage) opened(w *workspace, p *plan.Plan) {
	if s.page == nil {
		return
	}
	title := w.manifest.Name
	if title == "" {
		title = filepath.Base(w.root)
	}
	s.page.Opened(title, p.Graph(), p.Look())
}
