package dropin

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"kaniko-build/cmd/kaniko-build/internal/logtext"
	"kaniko-build/executor"
)

// level says how important a line is; a log shows its own and those before it.
type level int

const (
	levelPanic level = iota
	levelFatal
	levelError
	levelWarn
	levelInfo
	levelDebug
	levelTrace
)

var levels = []struct {
	name  string // as users and logs write it
	word  string // four letters for the colour format
	color int    // of a terminal
}{
	{"panic", "PANI", 31}, {"fatal", "FATA", 31}, {"error", "ERRO", 31}, {"warning", "WARN", 33},
	{"info", "INFO", 36}, {"debug", "DEBU", 37}, {"trace", "TRAC", 37},
}

// logger writes the lines that kaniko writes, in its three formats. What a RUN
// prints goes to out as it is.
type logger struct {
	level      level
	format     string // text, color or json
	timestamps bool
	started    time.Time

	mu  sync.Mutex
	w   io.Writer
	out io.Writer
}

// newLogger checks what --verbosity and --log-format say.
func newLogger(p Program, verbosity, format string, timestamps bool) (*logger, error) {
	l := &logger{format: format, timestamps: timestamps, started: time.Now(), w: p.Err, out: p.Out, level: -1}
	for i, v := range levels {
		if word := strings.ToLower(verbosity); word == v.name || word == "warn" && v.name == "warning" {
			l.level = level(i)
		}
	}
	if l.level < 0 {
		return nil, fmt.Errorf("not a valid logrus Level: %q", verbosity)
	}
	if format != "text" && format != "color" && format != "json" {
		return nil, fmt.Errorf("not a valid log format: %q. Please specify one of (text, color, json)", format)
	}
	return l, nil
}

func (l *logger) infof(format string, args ...any)  { l.line(levelInfo, fmt.Sprintf(format, args...)) }
func (l *logger) warnf(format string, args ...any)  { l.line(levelWarn, fmt.Sprintf(format, args...)) }
func (l *logger) debugf(format string, args ...any) { l.line(levelDebug, fmt.Sprintf(format, args...)) }

func (l *logger) line(at level, msg string) {
	if at > l.level {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = io.WriteString(l.w, l.render(at, time.Now(), msg)) // nobody is left to tell when it is closed
}

func (l *logger) render(at level, now time.Time, msg string) string {
	v := levels[at]
	switch l.format {
	case "json":
		b, err := json.Marshal(map[string]string{"level": v.name, "msg": msg, "time": now.Format(time.RFC3339)})
		if err != nil {
			return "" // strings always encode
		}
		return string(b) + "\n"
	case "color":
		when := fmt.Sprintf("%04d", int(now.Sub(l.started)/time.Second))
		if l.timestamps {
			when = now.Format(time.RFC3339)
		}
		return fmt.Sprintf("\x1b[%dm%s\x1b[0m[%s] %-44s \n", v.color, v.word, when, msg)
	}
	if msg == "" || strings.ContainsFunc(msg, needsQuotes) {
		msg = fmt.Sprintf("%q", msg)
	}
	return fmt.Sprintf("time=%q level=%s msg=%s\n", now.Format(time.RFC3339), v.name, msg)
}

// needsQuotes tells which characters a text log has in quotes only.
func needsQuotes(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._/@^+", r))
}

// event shows what happens in a build in kaniko's words. What a build says cannot
// steer the terminal or the CI.
func (l *logger) event(e executor.Event) {
	e.Text = logtext.Lines(e.Text)
	switch e.Kind {
	case executor.StepStarted:
		l.infof("%s", e.Text)
	case executor.StepCached:
		l.infof("Using caching version of cmd: %s", e.Text)
	case executor.StepDone:
		l.debugf("Done in %s: %s", e.Elapsed.Round(time.Millisecond), e.Text)
	case executor.Walked:
		l.debugf("Looked at %d files in %s", e.Total, e.Elapsed.Round(time.Microsecond))
	case executor.StepFailed:
		l.debugf("Failed after %s: %s", e.Elapsed.Round(time.Millisecond), e.Text)
	case executor.Pulling:
		l.infof("Retrieving image %s", e.Text)
	case executor.Waiting:
		l.infof("Waiting for %s", e.Text)
	case executor.CacheMiss:
		l.infof("No cached layer: %s", e.Text)
	case executor.Warning:
		text := e.Text
		if pos := e.Pos.String(); pos != "" {
			text += " (" + pos + ")"
		}
		l.warnf("%s", text)
	case executor.Log:
		l.mu.Lock()
		defer l.mu.Unlock()
		_, _ = io.WriteString(l.out, logtext.Lines(e.Data))
	}
}
