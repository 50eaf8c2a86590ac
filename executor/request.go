package executor

import (
	"encoding/json"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/layer"
	"kaniko-build/schema/diag"
)

// Request says what one node is to build.
type Request struct {
	ID         string            // unique in a run; prefixes log lines
	Dockerfile Text              // the Dockerfile itself
	Ignore     *Text             // <Dockerfile>.dockerignore, which replaces the context's own
	Context    string            // directory of the main context; "" is an empty one
	Contexts   map[string]string // named contexts: a directory, docker-image://REF, oci-layout://DIR or node:ID
	Images     map[string]string // image names as written in the Dockerfile, NAME::PLATFORM for one platform -> ID of the node that builds them
	Stage      string            // "" is the last
	Platform   string            // os/arch[/variant]; "" is the machine's
	Args       map[string]*string
	Labels     map[string]string
	Secrets    []Secret
	SSH        []SSH
	Network    string   // default of RUN --network: "" is the host's
	NoCache    bool     // run every step
	NoCacheFor []string // run every step of these stages
	Names      []string // references that the result is kept under in the store
	Nameless   bool     // Names only tell the repositories to push to: an Index has them
	Format     Format   // of the image
	Attest     Attest   // what is stated beside the image
	Ahead      bool     // large layers go up to the repository of the first name while they are made: the image will be pushed
	Cache      *Cache   // where else than in the store results are looked up and kept; nil is nowhere
	Check      string   // stands for the check directive of a Dockerfile without one, in its syntax
	Resources  Resources
	ExtraHosts []ExtraHost // lines for /etc/hosts of RUN steps
	ShmSize    int64       // of /dev/shm of RUN steps, in bytes; 0 is 64 MB
	Mistake    error       // why there is nothing to build, known to whoever asks: inspecting it gives this
}

// ExtraHost is a name that RUN steps find an address for.
type ExtraHost struct{ Name, IP string }

// Resources is what a node may use, and what it is counted for when others want to
// run beside it. Zero is no limit.
type Resources struct {
	MilliCPU int   // thousandths of a CPU that each of its steps counts for
	Memory   int64 // bytes that the processes of its RUNs and its core may hold together
}

// Format says how a node's image is written. It is no input of any step: layers
// that are known are encoded anew. The zero value is OCI's, with the default of
// Compression.
type Format struct {
	Docker      bool        // Docker's media types, not OCI's
	Inherit     bool        // those of the base image; Docker's for one from scratch
	Compression Compression // of layers that are made here; a base's stay as they are
	// Rewrite sets file times of layers that are made here to the epoch where they
	// are later: SOURCE_DATE_EPOCH, else Epoch. When neither is set they stay.
	Rewrite bool
	Epoch   *int64 // Unix seconds; the image's own times are set to it too
	// Single makes one layer of all that a stage of the image changes.
	Single bool
	// Annotations are those of the manifest, Descriptor those of what points to it: in
	// the index that an image with attestations is in, else in the index.json of an OCI
	// layout. Index and IndexDescriptor are those of that index and of what points to
	// it. Docker's format has none.
	Annotations, Descriptor, Index, IndexDescriptor map[string]string
}

// Check finds what does not go together.
func (f Format) Check() error {
	c, err := f.Compression.Normal()
	if err != nil {
		return &diag.Problem{What: err.Error()}
	}
	if f.Docker && c.Type == layer.Zstd {
		return &diag.Problem{What: "Docker's image format has no layers in zstd", Hint: "use the format oci, or gzip"}
	}
	return nil
}

// Text is a file that was read by the caller, with the name that positions show.
type Text struct {
	Name string
	Data []byte
}

// Cache is where the results of steps are kept outside the machine, so that
// others find them: a repository with one small image a key, or a path with one
// OCI layout directory PATH:KEY each, as kaniko lays them out.
type Cache struct {
	Repo  string        // HOST/PATH without a tag, or oci:PATH; "" is the repository of the first name, with /cache
	From  []string      // further ones, which are only read
	TTL   time.Duration // older results do not count; 0 is two weeks
	Write bool          // keep what steps make
	Run   bool          // for RUN and WORKDIR
	Copy  bool          // for COPY and ADD
}

// Secret is a value that RUN --mount=type=secret may ask for by ID. Exactly
// one of the others is set.
type Secret struct {
	ID   string
	File string // absolute path
	Env  string // name of a variable of the caller's environment

	value []byte // read by Inspect
}

// SSH is an agent that RUN --mount=type=ssh may ask for by ID: a socket, or
// private keys that are served by an agent of our own.
type SSH struct {
	ID    string
	Paths []string // one socket, or key files; absolute
}

// Result is an image that lies in the store.
type Result struct {
	Node     string             `json:"node"`
	Manifest ocispec.Descriptor `json:"manifest"`       // what the names stand for: with platform, or of an index
	Image    ocispec.Descriptor `json:"image,omitzero"` // with platform; Manifest, or in its index. None of an Index
	Config   ocispec.Descriptor `json:"config"`
	Size     int64              `json:"size"` // bytes of config and layers, compressed
	Layers   int                `json:"layers"`
	Attested ocispec.Descriptor `json:"attested,omitzero"` // manifest of the attestations
	Names    []string           `json:"names,omitempty"`
	Steps    int                `json:"steps"`    // that make layers, in the stages that were needed
	Executed int                `json:"executed"` // of these
	Cached   bool               `json:"cached"`   // nothing was executed
	Duration time.Duration      `json:"duration"` // nanoseconds
}

// Kind says what an Event is about.
type Kind string

// The kinds of events.
const (
	StepStarted Kind = "step-started"
	StepCached  Kind = "step-cached"
	StepDone    Kind = "step-done"
	StepFailed  Kind = "step-failed"
	Log         Kind = "log"        // Data holds whole lines of a step's output
	Waiting     Kind = "waiting"    // for another process that does the same work; Text names it
	Placed      Kind = "placed"     // on another machine: Text says where, and how RUNs are isolated there; Why what a better isolation lacks
	Pulling     Kind = "pulling"    // Text is the reference; Total and Done in bytes
	Walked      Kind = "walked"     // all files of the root were looked at, to find what a RUN changed; Total of them
	CacheMiss   Kind = "cache-miss" // Text says why an entry of Request.Cache cannot be used; the step is executed
	Warning     Kind = "warning"    // Text is the sentence, Rule the linter's name for it
)

// Event is one thing that happened while a node was built.
type Event struct {
	Node    string        `json:"node"`
	Kind    Kind          `json:"kind"`
	Time    time.Time     `json:"time"`
	Stage   string        `json:"stage,omitempty"`
	Step    int           `json:"step,omitempty"` // from 1, in its stage
	Of      int           `json:"of,omitempty"`
	Text    string        `json:"text,omitempty"`
	Why     string        `json:"why,omitempty"`  // of a step that starts: the first input that differs
	From    string        `json:"from,omitempty"` // of a cached step: the cache that has it; "" is the store
	Rule    string        `json:"rule,omitempty"`
	Pos     diag.Pos      `json:"pos,omitzero"`
	Elapsed time.Duration `json:"elapsed,omitempty"`
	Data    string        `json:"data,omitempty"`
	Done    int64         `json:"done,omitempty"`
	Total   int64         `json:"total,omitempty"`
}

// Sink takes events. It is called from many goroutines and does not block.
type Sink func(Event)

// StepError is the failure of one instruction.
type StepError struct {
	Node  string
	Stage string
	Pos   diag.Pos
	Text  string // the instruction
	Exit  int    // of a RUN's process; 0 when it was something else
	Err   error
	Tail  []string // the last lines of the step's output
	// Starved says that the kernel ended processes of this machine for want of memory
	// while it ran: maybe one of the RUN's.
	Starved bool
}

func (e *StepError) Error() string { return e.Pos.String() + ": " + e.Err.Error() }

func (e *StepError) Unwrap() error { return e.Err }

// MarshalJSON lets the error cross from the core to its caller.
func (e *StepError) MarshalJSON() ([]byte, error) {
	p := plainStepError{Node: e.Node, Stage: e.Stage, Pos: e.Pos, Text: e.Text, Exit: e.Exit, Tail: e.Tail, Starved: e.Starved}
	if e.Err != nil {
		p.Err = e.Err.Error()
	}
	return json.Marshal(p)
}

// UnmarshalJSON reads what MarshalJSON wrote; the cause comes back as its text.
func (e *StepError) UnmarshalJSON(b []byte) error {
	var p plainStepError
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	*e = StepError{Node: p.Node, Stage: p.Stage, Pos: p.Pos, Text: p.Text, Exit: p.Exit, Tail: p.Tail, Starved: p.Starved, Err: textError(p.Err)}
	return nil
}

type plainStepError struct {
	Node, Stage string
	Pos         diag.Pos
	Text        string
	Exit        int
	Err         string
	Tail        []string
	Starved     bool
}

type textError string

func (e textError) Error() string { return string(e) }
