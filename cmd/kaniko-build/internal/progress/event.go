package progress

import (
	"kaniko-build/executor"
	"kaniko-build/watch"
)

// The kinds of events that a run adds to those of the executor. Every run that
// comes to building begins with one RunStarted and ends with one RunDone; each
// node of it has one NodeStarted and one NodeDone or NodeFailed, or only one
// NodeSkipped.
const (
	RunStarted  executor.Kind = "run-started"  // Nodes and Jobs are set
	NodeStarted executor.Kind = "node-started" // its parents are done
	NodeWriting executor.Kind = "node-writing" // an output; Text is where
	NodePushing executor.Kind = "node-pushing" // to a registry; Text is the name
	NodeDone    executor.Kind = "node-done"    // Image is set, and Elapsed
	NodeFailed  executor.Kind = "node-failed"  // Text is the error, Pos where it is, if that is known; Elapsed
	NodeSkipped executor.Kind = "node-skipped" // Text says why: "needs NODE", which failed, "not started", or that it is unchanged
	Tagging     executor.Kind = "tagging"      // the tags are put now, last of all
	Verifying   executor.Kind = "verifying"    // --verify-cache builds again what was built
	Note        executor.Kind = "note"         // Text is a sentence about an output
	RunDone     executor.Kind = "run-done"     // Text is "done", "failed" or "interrupted"; Elapsed
	Watch       executor.Kind = "watch"        // Watch says what watching did; runs come and go between these
)

// Event is one thing that happened in a run. `--progress json` prints each as one
// JSON object on a line of its own, in the order they happened; keys without a
// value are left out. New kinds and keys may come; none goes away or changes its
// meaning.
//
// The keys, beside those of an [executor.Event]:
//
//	node     which node; "" is the whole run
//	kind     what it is about: one of the kinds above, or the executor's step-started,
//	         step-cached, step-done, step-failed, log, waiting, pulling, cache-miss, warning
//	time     when, RFC 3339 with nanoseconds
//	stage, step, of   the step: its stage, its number there, and how many the stage has
//	text     the instruction, sentence or name
//	why      of step-started: the first input that differs from the build before
//	from     of step-cached: the cache outside that has it; "" is the store
//	rule     of warning: the linter's name for it
//	pos      where in which file: {"file", "line", "col"}
//	elapsed  nanoseconds
//	data     of log: whole lines as the step printed them, control characters included
//	done, total   of pulling: bytes
//	nodes, jobs   of run-started
//	image    of node-done
//	watch    of watch: {"kind", "time", "text", "nodes", "causes"}, see watch.Event
type Event struct {
	executor.Event
	Nodes []Node       `json:"nodes,omitempty"` // of RunStarted: parents first
	Jobs  int          `json:"jobs,omitempty"`  // of RunStarted: steps that run at once
	Image *Image       `json:"image,omitempty"` // of NodeDone
	Watch *watch.Event `json:"watch,omitempty"` // of Watch
}

// Node is one node of a run.
type Node struct {
	ID    string   `json:"id"`
	Group string   `json:"group,omitempty"`
	Needs []string `json:"needs,omitempty"` // IDs
	Steps int      `json:"steps"`           // that make a layer, in all stages it needs
}

// Image is what a node made.
type Image struct {
	Digest   string   `json:"digest"` // of the manifest
	Names    []string `json:"names,omitempty"`
	Size     int64    `json:"size"`     // bytes of config and layers, compressed
	Steps    int      `json:"steps"`    // that make layers, in the stages that were needed
	Executed int      `json:"executed"` // of these
	Cached   bool     `json:"cached"`   // no container started
	Layers   []Layer  `json:"layers,omitempty"`
}

// Layer is one layer of an image, those of the base first.
type Layer struct {
	Digest string `json:"digest"`
	Size   int64  `json:"size"`           // bytes, compressed
	Text   string `json:"text,omitempty"` // the instruction; "" of a base's
}

// View shows events.
type View interface {
	// Event is called from many goroutines. It keeps nothing of the event that the
	// caller changes afterwards.
	Event(Event)
	// Close shows what is still held back and gives the terminal back. It may be
	// called more than once. Of events that come after it warnings are shown, at once.
	Close() error
}

// Tee gives every event to several views.
type Tee []View

func (t Tee) Event(e Event) {
	for _, v := range t {
		v.Event(e)
	}
}

func (t Tee) Close() error {
	var first error
	for _, v := range t {
		if err := v.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// Quiet shows nothing.
type Quiet struct{}

func (Quiet) Event(Event)  {}
func (Quiet) Close() error { return nil }
