package schema

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"kaniko-build/schema/diag"
)

// Manifest is a manifest with everything resolved: parents merged, references
// expanded, paths taken from the workspace root.
type Manifest struct {
	Version    int
	Name       string     // of the workspace
	Targets    []Target   // as declared, each matrix as its cells, those of included files behind
	Groups     []Group    // those of the groups sections as declared, then those only targets name
	Registries []Registry // as declared
	Policy     Policy
	Run        Run
	Runner     Runner
	Affected   Affected
	Watch      Watch
	Lint       Lint
	Secrets    []Secret      // as declared
	SSH        []SSH         // as declared; "default" exists without being here
	Files      []string      // every manifest file that was read, relative to the workspace root
	Warnings   diag.Problems // what may be a mistake; sorted
	// Repositories are those that paths of this manifest lead into.
	Repositories []Repository

	byName map[string]int   // of Targets
	cells  map[string][]int // of Targets, by the name of their matrix
	parts  *printed         // what Print shows besides targets
}

// Target is one image to build.
//
// Paths are slash-separated and relative to the workspace root, "." for the root
// itself; none of them leaves it.
type Target struct {
	Name          string   // of a matrix's cell with its variant
	Base          string   // as written: cells of a matrix share it
	Variant       string   // "" without a matrix
	Pos           diag.Pos // of its name
	Context       string   // directory
	ContextPos    diag.Pos // zero if nobody wrote one
	Dockerfile    string   // file; "" with Inline
	DockerfilePos diag.Pos // zero if nobody wrote one
	Inline        *Inline
	Stage         string // "" is the last one
	Args          map[string]string
	Contexts      []NamedContext // sorted by name
	Refs          []Named        // every image with every tag that is known, each once; none only if there are InputRefs
	InputRefs     []InputRef     // those that name the input digest
	IdentityRefs  []Named        // of Refs, those whose tag has the role identity
	Labels        map[string]string
	Annotations   []Annotation
	Needs         []Named // targets to build before this one
	Weak          []Named // targets whose published image does unless they are in the run
	Infer         Infer
	Internal      bool // built when needed, never pushed
	Platforms     []string
	Secrets       []Grant
	SSH           []Named
	NoCache       bool     // for all stages
	NoCacheStages []string // for these
	Cache         *Cache   // nil is none
	Executor      Executor
	Network       string // of RUN: none, host or "" for the default
	Skip          Skip
	Attest        Attest
	Outputs       []Output
	Before        []Hook
	After         []Hook
	Inputs        Inputs
	Resources     Resources
	Timeout       time.Duration // 0 is none
	Rules         []WatchRule
	OnSuccess     Command // of watch, zero is none

	body *value // resolved, for Print
}

// InputRef is a ref with ${input.digest} in it. Expand gives it its value, 64 hex
// digits.
type InputRef struct {
	Text     string
	Identity bool // its tag has the role identity
	Pos      diag.Pos
}

// Annotation is one annotation at one level.
type Annotation struct {
	Level string // manifest, index, manifest-descriptor, index-descriptor
	Name  string
	Value string
	Pos   diag.Pos
}

// Infer says whether the images that a Dockerfile names make edges.
type Infer string

// The ways to infer edges.
const (
	InferYes    Infer = "true"
	InferNo     Infer = "false"
	InferStrict Infer = "strict" // and a name without a value is a mistake
)

// Skip says when a target is not built at all.
type Skip string

// The reasons to skip a target.
const (
	SkipNever     Skip = "never"
	SkipUnchanged Skip = "unchanged" // the store records the same input digest
	SkipPublished Skip = "published" // the registry has the identity tag
)

// Attest is what is attested beside an image.
type Attest struct {
	Provenance string // min, max or "" for none
	SBOM       string // its format, spdx-json, or "" for none
	Pos        diag.Pos
}

// Output is one thing written besides the registry.
type Output struct {
	Type string // registry, oci, docker, tar, local, none
	Dest string // relative to the workspace root; "" for registry and none
	Pos  diag.Pos
}

// Command is what a hook runs: Words, or Line by the shell.
type Command struct {
	Words []string
	Line  string
	Dir   string // relative to the workspace root
	Pos   diag.Pos
}

// HookTime says after which builds a hook runs.
type HookTime string

// When hooks run.
const (
	OnSuccess HookTime = "success"
	OnFailure HookTime = "failure"
	Always    HookTime = "always"
)

// Hook is a command before or after a build. The texts of its command go through
// Expand when it runs.
type Hook struct {
	Command
	Inputs    []string // patterns, relative to the workspace root: without a change in these it need not run
	When      HookTime
	Platforms []string // none is all
	Always    bool     // run although the target is skipped
}

// Inputs corrects what a target depends on. Patterns are relative to the
// workspace root.
type Inputs struct {
	Extra  []Named
	Ignore []Named
}

// Resources is what a node may use; zero is no limit.
type Resources struct {
	MilliCPU int   // thousandths of a CPU
	Memory   int64 // bytes
}

// WatchRule says what a change of some paths leads to.
type WatchRule struct {
	Paths  []string // patterns, relative to the context
	Action string   // sync, rebuild, none
	To     string   // directory in the container
	Via    string   // kubectl:, docker: or compose: and a name
	Exec   Command  // zero is none
	Pos    diag.Pos
}

// Executor says how a target's image is written.
type Executor struct {
	Pos              diag.Pos // zero if nobody wrote one
	Compression      string   // gzip, zstd, none; "" is the default
	CompressionLevel int      // 0 is the compression's default
	SnapshotMode     string   // full, redo, time; "" is the default
	ExtraArgs        []Named  // flags of kaniko's executor
	Docker           bool     // Docker's image format, not OCI's
	Reproducible     bool     // file times of our layers are at most the commit's, or SOURCE_DATE_EPOCH
}

// Cache is where results of steps are kept outside the machine. A place is
// HOST/PATH without a tag, or oci:PATH with a path relative to the workspace root
// or absolute.
type Cache struct {
	Repo  string // "" is to be made of the target's first image
	From  []string
	TTL   time.Duration // 0 if nobody says
	Write WriteMode
	Run   bool
	Copy  bool
	Pos   diag.Pos
}

// WriteMode says when a cache is written.
type WriteMode string

// The modes of writing a cache.
const (
	WriteAuto   WriteMode = "auto" // unless a CI builds a change from outside
	WriteAlways WriteMode = "always"
	WriteNever  WriteMode = "never"
)

// RefNames is the refs without their positions.
func (t *Target) RefNames() []string {
	out := make([]string, len(t.Refs))
	for i, r := range t.Refs {
		out[i] = r.Name
	}
	return out
}

// Named is a name and where it was written.
type Named struct {
	Name string
	Pos  diag.Pos
}

// Inline is a Dockerfile inside the manifest.
type Inline struct {
	Text string
	Pos  diag.Pos // of its first character if Lines, else of the value
	// Lines says that line n of Text (from 1) is line Pos.Line+n-1 of the manifest,
	// moved right by Pos.Col-1 bytes; so that a problem in it can be placed.
	Lines bool
}

// ContextKind says what a named context is.
type ContextKind string

// The kinds of a named context, and what its value is.
const (
	ContextDir    ContextKind = "dir"    // a directory, relative to the workspace root
	ContextTarget ContextKind = "target" // a target's name
	ContextImage  ContextKind = "image"  // a ref
	ContextOCI    ContextKind = "oci"    // an OCI layout: a directory, relative to the workspace root
	ContextGit    ContextKind = "git"    // a git URL, with #ref:directory
	ContextHTTP   ContextKind = "http"   // a URL
)

// NamedContext is one entry of contexts.
type NamedContext struct {
	Name  string
	Kind  ContextKind
	Value string
	Weak  bool     // of a target: its published image does unless it is in the run
	Pos   diag.Pos // of the value
}

// Grant lets a target use a secret.
type Grant struct {
	ID  string
	As  string // the id that the Dockerfile mounts it by
	Pos diag.Pos
}

// Group is a name for a selection.
type Group struct {
	Name     string
	Pos      diag.Pos
	Patterns []Named // as for Select
}

// Registry is what the manifest says of one registry.
type Registry struct {
	Host     string
	Pos      diag.Pos
	Mirrors  []string
	Insecure bool   // plain http, or https with any certificate
	Fallback bool   // ask the registry itself when no mirror has it; true unless switched off
	CA       string // PEM file: absolute, or relative to the workspace root
	Cert     string // PEM file of a client certificate, as CA
	Key      string // PEM file of its key, as CA
	Exists   string // onTagExists: overwrite, skip, fail; "" is the default
	Retries  int    // -1 is the default
}

// Level says how much a broken rule matters.
type Level string

// The levels of policies.
const (
	LevelOff   Level = "off"
	LevelWarn  Level = "warn"
	LevelError Level = "error"
)

// Policy is what base images and tags must be like.
type Policy struct {
	PinBases     Level
	AllowedBases []Named // patterns; none allows all
	ForbidTags   []Named // patterns
}

// Runner is where nodes run.
type Runner struct {
	Type string // local, docker, kubernetes
	Pos  diag.Pos

	// Of the type kubernetes.
	Context          string // of the kubeconfig
	Namespace        string
	ServiceAccount   string
	NodeSelector     map[string]map[string]string // by platform
	Tolerations      []Toleration
	Image            string
	ImagePullSecrets []string
	StartTimeout     time.Duration // 0 is the default
}

// Toleration lets pods run on nodes with a taint.
type Toleration struct{ Key, Operator, Value, Effect string }

// Affected is what changes are looked for since.
type Affected struct {
	Base   string  // a revision; "" leaves it to others
	Global []Named // patterns of files that affect everything, relative to the workspace root
	Strict bool    // onUnknown: error
}

// Watch is how the command watch behaves. Zero times are the defaults.
type Watch struct {
	Trigger                         string // notify, poll, manual
	Debounce, MaxWait, PollInterval time.Duration
	OnChange                        string   // restart, queue, ignore
	Ignore                          []string // patterns, relative to the workspace root
	OnSuccess, OnFailure            Command  // zero is none
}

// Run is how apply behaves when no flag says otherwise.
type Run struct {
	Jobs         int // 0: as many as the machine takes
	Push         bool
	Publish      Publish
	KeepGoing    bool   // onFailure: continue
	Progress     string // "" or auto, tty, plain, interleaved, json, quiet
	MetadataFile string // relative to the workspace root
	DigestDir    string // relative to the workspace root
}

// Publish says when tags are put.
type Publish string

// The times to put tags.
const (
	PublishTogether Publish = "together" // when every image is there
	PublishEach     Publish = "each"     // when its own image is
)

// Lint is how the lint rules apply to Dockerfiles that have no check directive of
// their own.
type Lint struct {
	Skip           []string // rules, or "all"
	FailOnWarnings bool     // what a rule finds is a mistake
}

// Secret is where a secret comes from: exactly one of File and Env is set.
type Secret struct {
	ID       string
	Pos      diag.Pos
	File     string // absolute, below "~/", or relative to the workspace root
	Env      string
	Optional bool
}

// SSH is a set of keys for RUN --mount=type=ssh. Without keys it is the agent.
type SSH struct {
	ID   string
	Pos  diag.Pos
	Keys []string // files, as Secret.File
}

// Options is what a manifest may ask of the world around it. The zero value is a
// world without git, environment and flags.
type Options struct {
	// WorkspaceName is ${workspace.name} of a manifest without a name: the name of
	// its directory.
	WorkspaceName string
	// LookupEnv is os.LookupEnv or a stand-in.
	LookupEnv func(name string) (string, bool)
	// Git tells one fact: sha (of HEAD, in full), branch ("" when detached), tag (of
	// HEAD, "" without), url (of the remote), dirty ("true" or "false"). It is asked at
	// most once for each, and only for those the manifest uses. An error that wraps
	// ErrNoGit means the fact has no value; any other one fails the Parse.
	Git func(fact string) (string, error)
	// Vars is --var in the order given; the last of a name wins.
	Vars []Setting
	// VarFiles is --var-file in the order given: YAML mappings of names to values.
	VarFiles []File
	// Over is what is merged over the manifest, weakest first: an override file,
	// further files of -f. Names are relative to the workspace root, and the paths
	// in a file count from where its name says it is.
	Over []File
	// Profiles is --profile; "none" switches off those that a condition turns on.
	Profiles []string
	// Sets is --set in the order given: a target or pattern with a path, and YAML.
	Sets []Setting
	// AllowFS is directories outside of the workspace that paths may lead to, each
	// absolute or, as a path that starts with "..", relative to the workspace root.
	AllowFS []string
	// Repository brings a commit of a git repository: the files of it, and its full
	// ID. ref is a commit, branch or tag, "" for the default branch. What it answers
	// with must not lead out of the repository by links. nil refuses all.
	Repository func(url, ref string) (files fs.FS, commit string, err error)
	// Archive brings an archive from the web, and answers with the SHA-256 of its bytes, in
	// hex; sum is the one that it must have, "" for any. nil refuses all.
	Archive func(url, sum string) (string, error)
	// Guest says that the manifest is that of another repository, which the root only
	// includes: variables given by name are its own, and what it says of a whole run
	// does not count.
	Guest bool
	// Allow is what files of other repositories may do besides; see Allowances.
	Allow []string
	// Trust tells whether an included file may be used, by its name in the fs.FS; a
	// *diag.Problem says why not. nil trusts all.
	Trust func(name string) error
	// Now is ${build.date}; the zero time gives it no value.
	Now time.Time
}

// Setting is a name and its value.
type Setting struct{ Name, Value string }

// File is a file that has been read.
type File struct {
	Name string
	Text []byte
}

// ErrNoGit says that there is no repository, or no commit in it.
var ErrNoGit = errors.New("no git commit")

func (o Options) lookupEnv(name string) (string, bool) {
	if o.LookupEnv == nil {
		return "", false
	}
	return o.LookupEnv(name)
}

// Parse reads the manifest of that name in fsys, whose root is the workspace
// root, with all that it includes. Mistakes come as a diag.Problems, all at once.
func Parse(fsys fs.FS, name string, opts Options) (*Manifest, error) {
	text, err := readFile(fsys, name)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	var l diag.List
	repos := newRepositories(fsys, opts)
	fsys = repos
	files := &loader{fsys: fsys, repos: repos, opts: opts, problems: &l}
	root := files.root(name, text)
	if root == nil {
		return nil, l.Err()
	}
	p := &parser{pathReader: pathReader{&l, opts.AllowFS}, fsys: fsys, repos: repos, root: root}
	m := p.manifest(opts, files)
	if err := l.Err(); err != nil {
		return nil, err
	}
	return m, nil
}
