package progress

import (
	"fmt"
	"strings"

	"kaniko-build/cmd/kaniko-build/internal/logtext"
	"kaniko-build/executor"
)

// Lines says what happened, in as many lines as that takes, none of which
// names the node. It is empty for what a log need not say.
func (e Event) Lines() []string {
	out := e.words()
	for i, l := range out {
		out[i] = logtext.Line(l) // parts that are harmless may not be so side by side
	}
	return out
}

func (e Event) words() []string {
	at := e.Stage
	if e.Step > 0 {
		at = strings.TrimSpace(fmt.Sprintf("%s %d/%d", e.Stage, e.Step, e.Of))
	}
	at = logtext.Line(at)
	switch e.Kind {
	case executor.StepStarted:
		text := fmt.Sprintf("[%s] %s", at, logtext.OneLine(e.Text))
		if e.Why != "" {
			text += "  (" + logtext.Line(e.Why) + ")"
		}
		return []string{text}
	case executor.StepCached:
		if e.From != "" {
			return []string{fmt.Sprintf("[%s] cached in %s %s", at, logtext.Line(CacheName(e.From)), logtext.OneLine(e.Text))}
		}
		return []string{fmt.Sprintf("[%s] cached %s", at, logtext.OneLine(e.Text))}
	case executor.StepDone:
		return []string{fmt.Sprintf("[%s] done %s", at, logtext.Seconds(e.Elapsed))}
	case executor.StepFailed:
		what, _, _ := strings.Cut(e.Text, "\n") // the hint comes at the end, with the output
		return []string{fmt.Sprintf("[%s] failed %s: %s", at, logtext.Seconds(e.Elapsed), logtext.Line(what))}
	case executor.Log:
		var out []string
		for line := range strings.Lines(e.Data) {
			out = append(out, fmt.Sprintf("[%s] | %s", at, logtext.Line(strings.TrimSuffix(line, "\n"))))
		}
		return out
	case executor.Waiting:
		return []string{"waiting for " + logtext.Line(e.Text)}
	case executor.Placed:
		return []string{"built in " + logtext.Line(e.Text)}
	case executor.Pulling:
		return []string{fmt.Sprintf("pulling %s (%s)", logtext.Line(e.Text), logtext.Size(e.Total))}
	case executor.CacheMiss:
		return []string{logtext.Line(e.Text)}
	case executor.Warning:
		return []string{"warning: " + e.warning()}
	case Note:
		return []string{"note: " + logtext.Line(e.Text)}
	}
	return nil
}

// Late is the lines of a warning or a note, each after the name of its node, and
// nothing of any other event.
func (e Event) Late() []string {
	switch e.Kind {
	case executor.Warning, executor.CacheMiss, Note:
	default:
		return nil
	}
	out := e.Lines()
	for i, l := range out {
		out[i] = strings.TrimSpace(logtext.Line(e.Node) + " " + l)
	}
	return out
}

// warning is the sentence of a warning with its rule and place.
func (e Event) warning() string {
	text := logtext.Line(e.Text)
	if e.Rule != "" {
		text = e.Rule + ": " + text
	}
	if pos := e.Pos.String(); pos != "" {
		text += " (" + logtext.Line(pos) + ")"
	}
	return text
}

// Outcome says in a few words what became of a node: "cached", "built, 2 of 3
// steps", "failed", "skipped". It is "" for events that say no such thing.
func (e Event) Outcome() string {
	switch {
	case e.Kind == NodeFailed:
		return "failed"
	case e.Kind == NodeSkipped:
		return "skipped"
	case e.Kind != NodeDone:
		return ""
	case e.Image == nil || e.Image.Cached:
		return "cached"
	case e.Image.Steps == 0: // an index, or an image that changes nothing but its config
		return "built"
	}
	return fmt.Sprintf("built, %d of %d steps", e.Image.Executed, e.Image.Steps)
}

// CacheName is a cache without the key of the entry.
func CacheName(entry string) string {
	name := strings.TrimPrefix(entry, "oci-layout://")
	if i := strings.LastIndexByte(name, ':'); i > 0 {
		name = name[:i]
	}
	return name
}
