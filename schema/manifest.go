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
	Targets    []Target   // as declared
	Groups     []Group    // those of the groups section as declared, then those only targets name
	Registries []Registry // as declared
	Run        Run
	Lint       Lint
	Secrets    []Secret // as declared
	SSH        []SSH    // as declared; "default" exists without being here
}

// Target is one image to build.
//
// Paths are slash-separated and relative to the workspace root, "." for the root
// itself; none of them leaves it.
type Target struct {
	Name          string
	Pos           diag.Pos // of its name
	Context       string   // directory
	ContextPos    diag.Pos // zero if nobody wrote one
	Dockerfile    string   // file; "" with Inline
	DockerfilePos diag.Pos // zero if nobody wrote one
	Inline        *Inline
	Stage         string // "" is the last one
	Args          map[string]string
	Contexts      []NamedContext // sorted by name
	Refs          []Named        // every image with every tag, each once, at least one
	Labels        map[string]string
	Needs         []Named // targets to build before this one
	Internal      bool    // built when needed, never pushed
	Platforms     []string
	Secrets       []Grant
	SSH           []Named
	NoCache       bool     // for all stages
	NoCacheStages []string // for these
	Cache         *Cache   // nil is none
	Executor      Executor
}

// Executor says how a target's image is written.
type Executor struct {
	Pos              diag.Pos // zero if nobody wrote one
	Compression      string   // gzip, zstd, none; "" is the default
	CompressionLevel int      // 0 is the compression's default
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
}

// Run is how apply behaves when no flag says otherwise.
type Run struct {
	Jobs         int // 0: as many as the machine takes
	Push         bool
	KeepGoing    bool   // onFailure: continue
	Progress     string // "" or auto, tty, plain, interleaved, json, quiet
	MetadataFile string // relative to the workspace root
}

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
// root. Mistakes in it come as a diag.Problems, all at once.
func Parse(fsys fs.FS, name string, opts Options) (*Manifest, error) {
	text, err := readFile(fsys, name)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	var l diag.List
	root := readYAML(name, text, &l)
	if root == nil {
		return nil, l.Err()
	}
	if root.kind != mapKind {
		l.Add(root.pos, "the smallest manifest is: version: 1, and targets", "a manifest must be a mapping, not %s", root.kind)
		return nil, l.Err()
	}
	checkVersion(root, &l)
	if l.Len() > 0 && root.get("version").str() != "1" {
		return nil, l.Err() // another version is another language: more would only be noise
	}
	p := &parser{problems: &l, root: manifestShape.check(root, "the manifest", written, &l)}
	m := p.manifest(opts)
	if err := l.Err(); err != nil {
		return nil, err
	}
	return m, nil
}
