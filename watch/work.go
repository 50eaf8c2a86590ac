package watch

import (
	"context"
	"time"

	"kaniko-build/graph"
	"kaniko-build/watch/notify"
)

// Workshop is where images are made.
type Workshop interface {
	// Open reads the manifest and plans. It is called again when one of the files
	// changed that it read, one call at a time. fresh asks again also what others said
	// before: registries, the first time anyway.
	Open(ctx context.Context, fresh bool) (Site, error)
	// Files are those whose change may mend an Open that failed, as notify.Interest
	// has them.
	Files() []string
}

// Site is one reading of the manifest. Its methods are called one at a time.
type Site interface {
	Graph() *graph.Graph
	Top() string     // the workspace, without links
	Files() []string // that Asks knows by their names, without links
	// Ignored tells whether a change of a path counts for nothing, beside what
	// everybody ignores.
	Ignored(path string) bool
	// Look finds out what nodes are made of now. ids are parents first; what they need
	// is among them or was looked at before. changed is what is known to have
	// changed, for commands that make files of others.
	Look(ctx context.Context, ids []graph.ID, changed notify.Set) (Look, error)
	// Asks tells whether a change of a path asks for another Open. below tells that the
	// path was a directory, and all in it came or went with it.
	Asks(path string, below bool) bool
	// Beside tells of a path whom it concerns beside those that read it when they are
	// built: whose Dockerfile it is, or an input of whose commands.
	Beside(path string) []Concern
	// Rule says what a change of a path leads to for a node that reads it; Sync brings
	// paths of which it said so to where the image of the node runs. Only Sync may be called
	// beside the others.
	Rule(id graph.ID, path string) Action
	Sync(ctx context.Context, id graph.ID, paths []string) error
	// Watched are patterns' directories for Beside.
	Watched() notify.Interest
	// Redefined tells what of a node's definition differs from that in an earlier
	// site; "" is nothing.
	Redefined(id graph.ID, before Site) string
	// Reason says in few words why a node depends on another: FROM shop/base.
	Reason(id, needs graph.ID) string
}

// Concern is why a path concerns a node.
type Concern struct {
	Node graph.ID
	Text string
}

// Action is what a change leads to.
type Action string

// The actions of a change.
const (
	Build  Action = ""     // the node is built
	Copy   Action = "sync" // the path is copied to where its image runs; the image stays as it is until it is built for another reason
	Nought Action = "none"
)

// Look is some nodes at one moment. Its methods may be called from several
// goroutines, each of Make for a node at most once.
type Look interface {
	Sum(id graph.ID) string // stands for all the node is made of; "" is like nothing else
	Reads(id graph.ID) Reads
	// Same says that nodes are as they were: what became of them before counts.
	Same(ids []graph.ID)
	// Begin tells that nodes will be made, parents first, and End what became of them.
	// Between them Make makes one. superseded tells the causes of those that were given up.
	Begin(ids []graph.ID)
	Schedule(g *graph.Graph) graph.Options // of these nodes
	Make(ctx context.Context, id graph.ID) error
	End(ctx context.Context, out graph.Outcome)
	// Moved tells of a node that could not be made whether that was because its files
	// changed meanwhile.
	Moved(id graph.ID) bool
	// Passing tells of such a node whether the reason was elsewhere, as a registry that is
	// away: it is made again with the next change of any node.
	Passing(id graph.ID) bool
	Close()
}

// Reads is what a node reads, or looks for in vain. Paths are absolute and without
// links.
type Reads interface {
	Roots() []string               // directories
	Of(path string) (string, bool) // why a file counts: the instruction
	Enters(dir string) bool        // whether what is in a directory may count
	Shape() string                 // equal for what reads the same
}

// Kind says what an Event is about.
type Kind string

// The kinds of events. An engine tells Opened first, or Broken, and Watching whenever
// it has nothing to do.
const (
	Opened    Kind = "opened"    // the manifest was read; Nodes are all there are
	Changed   Kind = "changed"   // Causes say why Nodes will be built; Text says so too
	Unchanged Kind = "unchanged" // files were written, and are as they were
	Synced    Kind = "synced"    // files were copied to where the image of Nodes runs; Text names them
	Held      Kind = "held"      // a change waits until the build is done, or for another change
	Broken    Kind = "broken"    // Text is why nothing can be built; it is waited out
	Watching  Kind = "watching"  // everything is as the files are
	Paused    Kind = "paused"    // until Resumed nothing is built
	Resumed   Kind = "resumed"
	Polling   Kind = "polling" // Text is why files are compared, and the remedy

	// What a process is doing that is started with each new image of Nodes; an engine
	// tells nothing of it.
	Started Kind = "started"
	Ended   Kind = "ended" // by itself
)

// Event is one thing that an engine did or found.
type Event struct {
	Kind   Kind       `json:"kind"`
	Time   time.Time  `json:"time"`
	Text   string     `json:"text,omitempty"`
	Nodes  []graph.ID `json:"nodes,omitempty"` // parents first
	Causes []Cause    `json:"causes,omitempty"`
}

// Cause is why a node is built.
type Cause struct {
	Node  graph.ID  `json:"node"`
	Path  string    `json:"path,omitempty"`  // that changed, relative to the workspace; "" is none
	More  int       `json:"more,omitempty"`  // paths that changed too
	Gone  bool      `json:"gone,omitempty"`  // it is not there any more
	Saved time.Time `json:"saved,omitzero"`  // when it was written
	Text  string    `json:"text,omitempty"`  // what reads it, or what else it is
	Needs graph.ID  `json:"needs,omitempty"` // the parent that is built; then there is no path
}
