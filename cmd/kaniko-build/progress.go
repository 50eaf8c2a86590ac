package main

import (
	"fmt"
	"os"
	"time"

	"kaniko-build/cmd/kaniko-build/internal/logtext"
	"kaniko-build/cmd/kaniko-build/internal/progress"
	"kaniko-build/executor"
)

// show makes the view that --progress names, and with it whatever else writes
// down what happens. dir is what the positions of events are relative to.
func (f *runFlags) show(t terminal, dir string) (progress.View, error) {
	ci := progress.DetectCI(os.Getenv, dir)
	var views progress.Tee
	switch f.progress {
	case "", "auto", "plain":
		views = append(views, progress.Plain(t.err, ci))
	case "interleaved":
		views = append(views, progress.Interleaved(t.err, ci))
	case "json":
		views = append(views, progress.JSON(t.err))
	case "quiet":
	default:
		return nil, usageError{fmt.Errorf("no progress view %q: choose auto, plain, interleaved, json or quiet", f.progress)}
	}
	if f.logDir != "" {
		logs, err := progress.Logs(f.logDir)
		if err != nil {
			return nil, err
		}
		views = append(views, logs)
	}
	return views, nil
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
