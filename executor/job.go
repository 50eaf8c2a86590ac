package executor

import (
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/copier"
	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/executor/internal/layer"
	"kaniko-build/executor/internal/sandbox"
	"kaniko-build/executor/internal/snapshot"
	"kaniko-build/executor/internal/store"
)

// job is what the core is to do, made by Inspect: plain data, sent into the
// container as JSON. Images are already resolved to layers, and the files that
// come from outside to names of trees.
type job struct {
	Node   string
	Store  string // the store's directory, as the core sees it
	IDs    sandbox.IDMap
	Rung   sandbox.Rung
	Stages []jobStage // as in Program.Stages; the last is exported
	Images map[string][]baseLayer
	Walk   bool  // see Isolation
	Memory int64 // bytes that the processes of the node may hold; 0 is no limit
	// Of rung inplace: see Site and Options.SnapshotMode.
	Keep, Ignore []string
	Stay         []string // directories that stay, emptied
	Lent         []string // those of Keep that are read only by way of the host
	Ends         bool     // see Site
	Passing      bool     // the store is a container's, which ends with this node
	Snapshots    snapshot.Mode
	// Encode is how layers of the exported stage are compressed, and Epoch what
	// their later times are set to (Unix seconds; nil leaves them).
	Encode layer.Compression
	Epoch  *int64
	Ahead  bool   // large layers of the exported stage go up while they are made
	Pieces string // what the store remembers pieces of layers by; "" remembers none
	Task   task   // of a node without stages
	Goes   bool   // its RUN is a process that goes on: it needs no token, and what it writes is dropped
}

type jobStage struct {
	Title string
	Base  jobBase
	Steps []jobStep
}

// jobBase is what a stage starts from: another stage, or layers.
type jobBase struct {
	Stage  int // index; -1 for Layers
	Layers []baseLayer
}

type jobStep struct {
	dockerfile.Step
	Number, Of int // for people: instructions of the stage, from 1
	Key        store.Key
	Lines      []string // what Key was made of
	Fresh      bool     // run it even when the key is known
	Why        string   // it runs, for people
	Begun      bool     // that it runs was told
	ByContent  bool     // something before it runs afresh: what was made by its definition says nothing
	Reads      []stageRead

	Outside *outsideLayer // what the node's cache has for Key, which was asked ahead of time
	Missed  string        // why an entry of the cache for Key cannot be used
	Asked   bool          // the cache was asked for Key
	Ask     bool          // the cache may be asked for this step
	Keep    bool          // what it makes is to be kept in the cache
}

// outsideLayer is the result of a step in a cache outside. Its blob is there,
// not here.
type outsideLayer struct {
	Entry  store.Entry // without lines
	Layer  baseLayer
	Params store.Params // how the blob encodes the layer
}

// baseLayer is a layer that the core did not make: from an image in a
// registry, a layout, or another node of the run.
type baseLayer struct {
	DiffID digest.Digest
	Blob   ocispec.Descriptor
	Tar    digest.Digest // diffID of what Blob holds, if its times were set: see core.settle
	Origin string        // where outside finds it; opaque to the core
	Cached bool          // from a cache outside: if it cannot be had, the step that made it is run
	Size   int64         // of the tar, if Cached: there may be no more
}

// stageRead is a line of a step's key that stands for what another stage made.
type stageRead struct {
	Line   int // index in Lines
	Stage  int // index in Stages
	Select copier.Select
}
