package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"kaniko-build/executor"
)

// progress shows events as they come. Event is safe for many goroutines.
type progress interface {
	Event(executor.Event)
}

// newProgress makes the view of the given name: plain or json.
func newProgress(name string, w io.Writer) (progress, error) {
	switch name {
	case "", "auto", "plain":
		return &plain{w: w}, nil
	case "json":
		return &jsonLines{w: w}, nil
	case "quiet":
		return quiet{}, nil
	}
	return nil, usageError{fmt.Errorf("no progress view %q: choose plain, json or quiet", name)}
}

type quiet struct{}

func (quiet) Event(executor.Event) {}

// plain prints one line an event, prefixed by its node.
type plain struct {
	mu sync.Mutex
	w  io.Writer
}

func (p *plain) Event(e executor.Event) {
	text := ""
	at := e.Stage
	if e.Step > 0 {
		at = strings.TrimSpace(fmt.Sprintf("%s %d/%d", e.Stage, e.Step, e.Of))
	}
	switch e.Kind {
	case executor.StepStarted:
		text = fmt.Sprintf("[%s] %s", at, oneLine(e.Text))
		if e.Why != "" {
			text += "  (" + printable(e.Why) + ")"
		}
	case executor.StepCached:
		text = fmt.Sprintf("[%s] cached %s", at, oneLine(e.Text))
		if e.From != "" {
			text = fmt.Sprintf("[%s] cached in %s %s", at, cacheName(e.From), oneLine(e.Text))
		}
	case executor.StepDone:
		text = fmt.Sprintf("[%s] done %s", at, seconds(e.Elapsed))
	case executor.StepFailed:
		what, _, _ := strings.Cut(e.Text, "\n") // the hint comes at the end, with the output
		text = fmt.Sprintf("[%s] failed %s: %s", at, seconds(e.Elapsed), printable(what))
	case executor.Log:
		var b strings.Builder
		for line := range strings.Lines(e.Data) {
			fmt.Fprintf(&b, "%s [%s] | %s\n", e.Node, at, printable(strings.TrimRight(line, "\r\n")))
		}
		p.write(b.String())
		return
	case executor.Waiting:
		text = fmt.Sprintf("waiting for %s", e.Text)
	case executor.Pulling:
		text = fmt.Sprintf("pulling %s (%s)", e.Text, size(e.Total))
	case executor.CacheMiss:
		text = printable(e.Text)
	case executor.Warning:
		text = "warning: " + e.Text
		if e.Rule != "" {
			text = fmt.Sprintf("warning: %s: %s", e.Rule, e.Text)
		}
		if pos := e.Pos.String(); pos != "" {
			text += " (" + pos + ")"
		}
	default:
		return
	}
	if e.Node != "" {
		text = e.Node + " " + text
	}
	p.write(text + "\n")
}

// cacheName is a cache without the key of the entry.
func cacheName(entry string) string {
	name := strings.TrimPrefix(entry, "oci-layout://")
	if i := strings.LastIndexByte(name, ':'); i > 0 {
		name = name[:i]
	}
	return name
}

func (p *plain) write(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = io.WriteString(p.w, s) // nobody is left to tell when the output is closed
}

// jsonLines prints each event as one JSON object.
type jsonLines struct {
	mu sync.Mutex
	w  io.Writer
}

func (j *jsonLines) Event(e executor.Event) {
	b, err := json.Marshal(e)
	if err != nil {
		return // an Event is plain data; its strings always encode
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	_, _ = j.w.Write(append(b, '\n'))
}

// oneLine is the first line of an instruction, cut to fit a log.
func oneLine(s string) string {
	line, rest, more := strings.Cut(s, "\n")
	more = more && strings.TrimSpace(rest) != ""
	line = printable(line)
	if r := []rune(line); len(r) > 120 {
		line, more = string(r[:120]), true
	}
	if more {
		line += " …"
	}
	return line
}

// printable keeps what a build prints from steering the terminal or the CI
// that shows it: control characters become visible, and a line that a CI would
// read as a command does not start with its mark (ours starts with the node).
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return r
		case r == 0x1b:
			return '␛'
		case r == '\r':
			return '␍'
		case r < 0x20 || r == 0x7f || r >= 0x80 && r < 0xa0:
			return '�'
		}
		return r
	}, s)
}

func seconds(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%dms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1fs", d.Seconds())
}

// size is a number of bytes for people.
func size(n int64) string {
	const unit = 1000
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, exp := float64(n)/unit, 0
	for f >= unit && exp < 3 {
		f, exp = f/unit, exp+1
	}
	return fmt.Sprintf("%.1f %cB", f, "kMGT"[exp])
}
