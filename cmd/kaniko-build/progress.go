package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"kaniko-build/cmd/kaniko-build/internal/files"
	"kaniko-build/cmd/kaniko-build/internal/logtext"
	"kaniko-build/cmd/kaniko-build/internal/progress"
	"kaniko-build/cmd/kaniko-build/internal/report"
	"kaniko-build/cmd/kaniko-build/internal/tty"
	"kaniko-build/executor"
)

// show makes the view that --progress names, and with it whatever else writes
// down what happens. When ctx ends the view says that the run is stopping. dir is what the positions of events are relative to.
func (f *runFlags) show(ctx context.Context, t terminal, dir string) (progress.View, error) {
	for flag, name := range map[string]string{"metadata-file": f.metadata, "report": f.report} {
		if err := writable(flag, name); err != nil {
			return nil, err
		}
	}
	ci := progress.DetectCI(os.Getenv, dir)
	var views progress.Tee
	switch f.progress {
	case "", "auto", "tty":
		live, err := f.live(ctx, t, ci)
		if err != nil {
			return nil, err
		}
		if live == nil {
			live = progress.Plain(t.err, ci)
		}
		views = append(views, live)
	case "plain":
		views = append(views, progress.Plain(t.err, ci))
	case "interleaved":
		views = append(views, progress.Interleaved(t.err, ci))
	case "json":
		views = append(views, progress.JSON(t.err))
	case "quiet":
	default:
		return nil, usageError{fmt.Errorf("no progress view %q: choose auto, tty, plain, interleaved, json or quiet", f.progress)}
	}
	if f.logDir != "" {
		logs, err := progress.Logs(f.logDir)
		if err != nil {
			return nil, err
		}
		views = append(views, logs)
	}
	if f.report != "" {
		title := filepath.Base(dir)
		if f.name != "" {
			title = f.name
		}
		views = append(views, report.Record(title, func(write func(io.Writer) error) error { return files.Whole(f.report, write) }))
	}
	if f.metadata != "" {
		f.stopwatch = &stopwatch{}
		views = append(views, f.stopwatch)
	}
	return views, nil
}

// writable refuses a directory where a flag names a file to write, before anything is built.
func writable(flag, name string) error {
	if st, err := os.Stat(name); name == "" || err != nil || !st.IsDir() {
		return nil
	}
	return usageError{fmt.Errorf("--%s %s: it is a directory\n  hint: name a file in it", flag, name)}
}

// live is the view for a terminal, nil where there is none that can show it. It
// is an error when it was asked for by its name.
func (f *runFlags) live(ctx context.Context, t terminal, ci progress.CI) (progress.View, error) {
	out, ok := t.err.(*os.File)
	asked := f.progress == "tty"
	if inCI := ci.Kind != "" || os.Getenv("CI") != ""; !ok || !tty.Fits(out, os.Getenv) || inCI && !asked { // a CI may lend a terminal; its log keeps all pictures
		if asked {
			return nil, usageError{errors.New("--progress tty needs a terminal in the foreground, and TERM to say what it can do\n  hint: --progress auto takes plain where there is none")}
		}
		return nil, nil
	}
	view := tty.New(out, os.Environ(), t.stops)
	t.leave.set(view.Leave)
	context.AfterFunc(ctx, view.Stopping)
	return view, nil
}

// leaving is what is to be done to the terminal before the process ends at once.
type leaving struct {
	mu   sync.Mutex
	do   func()
	also func()      // after do
	hup  func() bool // see hangup
}

// hangup tells a command of SIGHUP; it is false if that is to end it.
func (l *leaving) hangup() bool {
	l.mu.Lock()
	hup := l.hup
	l.mu.Unlock()
	return hup != nil && hup()
}

func (l *leaving) set(do func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.do = do
}

func (l *leaving) onHangup(f func() bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hup = f
}

// afterwards adds what is to be done after that.
func (l *leaving) afterwards(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.also = f
}

func (l *leaving) now() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, do := range []func(){l.do, l.also} {
		if do != nil {
			do()
		}
	}
}

// ciHere is the CI whose log this is, for positions relative to the working
// directory.
func ciHere() progress.CI {
	here, err := os.Getwd()
	if err != nil {
		here = "" // positions then count from the root of the repository
	}
	return progress.DetectCI(os.Getenv, here)
}

// said is an event of the executor as one of the run.
func said(view progress.View) executor.Sink {
	return func(e executor.Event) { view.Event(progress.Event{Event: e}) }
}

// tell makes an event of the run.
func (r *run) tell(kind executor.Kind, node, text string) {
	r.view.Event(progress.Event{Event: executor.Event{Node: node, Kind: kind, Time: time.Now(), Text: text}})
}

func oneLine(s string) string        { return logtext.OneLine(s) }
func printable(s string) string      { return logtext.Line(s) }
func printableLines(s string) string { return logtext.Lines(s) }
func seconds(d time.Duration) string { return logtext.Seconds(d) }
func size(n int64) string            { return logtext.Size(n) }
func cacheName(entry string) string  { return progress.CacheName(entry) }
