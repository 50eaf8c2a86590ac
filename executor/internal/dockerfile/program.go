package dockerfile

import (
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/schema/diag"
)

// Program is a resolved Dockerfile: everything that must be done for one target
// and one platform.
type Program struct {
	// Stages are those the target needs. A stage comes after all it refers to;
	// the last is the target.
	Stages   []Stage          `json:"stages"`
	Platform ocispec.Platform `json:"platform"` // of the image
	// Epoch is SOURCE_DATE_EPOCH in Unix seconds, if set: History carries it already.
	Epoch    *int64    `json:"epoch,omitempty"`
	Warnings []Warning `json:"warnings,omitempty"` // what the linter found, in file order
}

// Target is the stage that becomes the image.
func (p *Program) Target() *Stage { return &p.Stages[len(p.Stages)-1] }

// Images are the images the program reads, each once, in order of use. Other
// than File.Images it knows those that only triggers of a base name.
func (p *Program) Images() []ImageRef {
	var out []ImageRef
	seen := map[string]bool{}
	add := func(s Source) {
		if s.Kind == FromImage && !seen[s.Image.key()] {
			seen[s.Image.key()] = true
			out = append(out, *s.Image)
		}
	}
	for _, st := range p.Stages {
		add(st.Base)
		for _, step := range st.Steps {
			if step.Copy != nil {
				add(step.Copy.From)
			}
			if step.Run != nil {
				for _, m := range step.Run.Mounts {
					add(m.From)
				}
			}
		}
	}
	return out
}

// Stage is one FROM and what follows it.
type Stage struct {
	Name     string           `json:"name,omitempty"` // lower case; "" without AS
	Title    string           `json:"title"`          // Name, or stage-N where N counts all stages of the file
	Pos      diag.Pos         `json:"pos"`            // of the FROM
	Base     Source           `json:"base"`
	Platform ocispec.Platform `json:"platform"` // of its root file system
	Steps    []Step           `json:"steps,omitempty"`
	// Config is the image configuration after the last step, without rootfs,
	// history and creation time. That of the target is as it must be exported.
	Config dockerspec.DockerOCIImage `json:"config"`
	// History has the records of the base, as they are there, and then one for
	// each step. Created of ours is the epoch, or nil: the time of the build.
	History     []ocispec.History `json:"history,omitempty"`
	BaseHistory int               `json:"base_history,omitempty"` // how many of History are those of the base image
}

// Kind says which of the fields of a Source counts.
type Kind string

// The kinds of Source. The zero value of Source is the main context.
const (
	FromContext Kind = ""        // Context; its name "" is the main one
	FromScratch Kind = "scratch" // nothing
	FromImage   Kind = "image"   // Image
	FromStage   Kind = "stage"   // Stage
)

// Source is where files come from.
type Source struct {
	Kind    Kind      `json:"kind,omitempty"`
	Image   *ImageRef `json:"image,omitempty"`
	Stage   int       `json:"stage,omitempty"` // index in Program.Stages
	Context string    `json:"context,omitempty"`
}

// Use is the place in a Dockerfile that names an image.
type Use string

// The uses of an image, a stage or a context.
const (
	UseFrom  Use = "FROM"
	UseCopy  Use = "COPY --from"
	UseMount Use = "RUN --mount=from"
)

// ImageRef is an image that a Dockerfile names.
type ImageRef struct {
	Ref      string           `json:"ref"` // as written after expansion, the familiar form: "busybox", "ghcr.io/a/b:1"
	Platform ocispec.Platform `json:"platform"`
	Pos      diag.Pos         `json:"pos"`
	Use      Use              `json:"use"`
	// Context is the named context that stands for the image. Only the
	// function that Resolve calls sees it set: no image is to be pulled then.
	Context string `json:"context,omitempty"`
}

// key tells apart images, not their uses.
func (r ImageRef) key() string {
	p := r.Platform
	return r.Context + "\x00" + r.Ref + "\x00" + p.OS + "/" + p.Architecture + "/" + p.Variant + "/" + p.OSVersion
}

// Reference is a name in the file that needs something from outside: an image
// or a named context.
type Reference struct {
	Name string   `json:"name"` // familiar form of an image, or the name of the context
	Pos  diag.Pos `json:"pos"`
	Use  Use      `json:"use"`
	// Context is set if the name is that of a named context.
	Context bool `json:"context,omitempty"`
	// Platform is that of FROM --platform, nil without it.
	Platform *ocispec.Platform `json:"platform,omitempty"`
	// Unresolved is set if no name comes out, as an ARG has no value: Name is as written.
	Unresolved bool `json:"unresolved,omitempty"`
}

// Step is one instruction. At most one of Run, Copy and Workdir is set; if none
// is, the step is only in the configuration and the history.
type Step struct {
	Pos     diag.Pos `json:"pos"`
	EndLine int      `json:"end_line"`
	Text    string   `json:"text"`              // as written, lines joined, bodies of heredocs below
	Trigger bool     `json:"trigger,omitempty"` // from an ONBUILD of the base; Pos is that of the FROM

	// For the history record of the step.
	CreatedBy string `json:"created_by"`
	Comment   string `json:"comment"`
	Empty     bool   `json:"empty,omitempty"` // makes no layer

	Run     *Run     `json:"run,omitempty"`
	Copy    *Copy    `json:"copy,omitempty"`
	Workdir *Workdir `json:"workdir,omitempty"`

	// In effect for the step.
	Env  []string `json:"env,omitempty"` // declared ARGs included, as RUN sees it
	User string   `json:"user,omitempty"`
	Dir  string   `json:"dir"` // absolute
}

// Run executes a command.
type Run struct {
	Argv   []string `json:"argv"`
	Mounts []Mount  `json:"mounts,omitempty"` // sorted by target; secrets and ssh in the order of the file behind them
	// Network is "" (the default), "none" or "host".
	Network string `json:"network,omitempty"`
	// Env is that of the process, without ProxyEnv, which is appended to it
	// and is no input of the result: what it sets is not part of any key.
	Env        []string     `json:"env"`
	ProxyEnv   []string     `json:"proxy_env,omitempty"`
	User       string       `json:"user,omitempty"`
	Dir        string       `json:"dir"`
	Files      []InlineFile `json:"files,omitempty"` // to be mounted read-only: a heredoc that is a script
	Hostname   string       `json:"hostname,omitempty"`
	ExtraHosts []ExtraHost  `json:"extra_hosts,omitempty"`
	ShmSize    int64        `json:"shm_size,omitempty"` // bytes; 0 is the default
	Devices    []Device     `json:"devices,omitempty"`
}

// ExtraHost is a line of /etc/hosts.
type ExtraHost struct {
	Host string `json:"host"`
	IP   string `json:"ip"`
}

// Device is a CDI device of RUN --device that the command can do without: one
// that is required is a problem.
type Device struct {
	Name string `json:"name"`
}

// The types of mounts.
const (
	MountBind   = "bind"
	MountCache  = "cache"
	MountTmpfs  = "tmpfs"
	MountSecret = "secret"
	MountSSH    = "ssh"
)

// Mount is one --mount of a RUN with all defaults filled in.
type Mount struct {
	Type   string `json:"type"`
	From   Source `json:"from"`             // bind and cache: what lies below
	Source string `json:"source,omitempty"` // bind and cache: absolute path in From
	Target string `json:"target,omitempty"` // absolute; "" for a secret that is only a variable

	ReadOnly bool   `json:"readonly,omitempty"`
	ID       string `json:"id,omitempty"`      // cache, secret and ssh
	Sharing  string `json:"sharing,omitempty"` // cache: shared, private or locked
	Required bool   `json:"required,omitempty"`
	// Env is the variable that holds the secret; it is set and empty if the
	// secret is not given and not Required.
	Env string `json:"env,omitempty"`
	// Mode, UID and GID are those of a secret or socket, or of the top directory
	// of a new cache; Mode nil is a cache without any of the three.
	Mode *uint32 `json:"mode,omitempty"`
	UID  uint32  `json:"uid,omitempty"`
	GID  uint32  `json:"gid,omitempty"`
	Size int64   `json:"size,omitempty"` // tmpfs: bytes; 0 is no limit
}

// InlineFile is a file whose content stands in the Dockerfile.
type InlineFile struct {
	Path string `json:"path"` // in a Run: where it is mounted; in a Copy: its name
	Mode uint32 `json:"mode"`
	Data []byte `json:"data"` // as it stands there: any bytes
}

// Copy is COPY or ADD.
type Copy struct {
	Add     bool         `json:"add,omitempty"`
	From    Source       `json:"from"`
	Sources []string     `json:"sources,omitempty"` // patterns in From, expanded; with their pivot "/./" if Parents
	Places  []diag.Pos   `json:"-"`                 // where Sources are written, or their instruction
	Remote  []Remote     `json:"remote,omitempty"`
	Inline  []InlineFile `json:"inline,omitempty"` // copied after Sources and Remote
	// Dest is absolute and clean; it ends in "/" or "/." if that was written.
	Dest    string   `json:"dest"`
	Chown   string   `json:"chown,omitempty"`
	Chmod   string   `json:"chmod,omitempty"` // octal or symbolic, checked
	Link    bool     `json:"link,omitempty"`  // does not see what is there; not set beside Chmod, where BuildKit ignores it
	Parents bool     `json:"parents,omitempty"`
	Exclude []string `json:"exclude,omitempty"`
	// Unpack is what --unpack says; nil: archives of Sources if Add, none of Remote.
	Unpack *bool `json:"unpack,omitempty"`
}

// Remote is a source of ADD that is fetched. Exactly one of URL and Git is set.
type Remote struct {
	Before   int    `json:"before,omitempty"` // how many of Copy.Sources are copied earlier
	URL      string `json:"url,omitempty"`
	Name     string `json:"name,omitempty"`     // of the file that URL becomes
	Checksum string `json:"checksum,omitempty"` // digest of the file
	Git      *Git   `json:"git,omitempty"`
}

// Git is a source in a repository.
type Git struct {
	Remote        string `json:"remote"`           // for the git command, without query and fragment
	Ref           string `json:"ref,omitempty"`    // branch, tag, full ref or commit; "" is the default branch
	Subdir        string `json:"subdir,omitempty"` // relative
	Checksum      string `json:"checksum,omitempty"`
	KeepGitDir    bool   `json:"keep_git_dir,omitempty"`
	NoSubmodules  bool   `json:"no_submodules,omitempty"`
	FetchByCommit bool   `json:"fetch_by_commit,omitempty"` // Checksum is the commit to fetch
}

// Workdir makes a directory with its parents, owned by User.
type Workdir struct {
	Path string `json:"path"` // absolute
	User string `json:"user,omitempty"`
	// Epoch is SOURCE_DATE_EPOCH in Unix seconds, if set: the time of what is made.
	Epoch *int64 `json:"epoch,omitempty"`
}

// Warning is what a rule of BuildKit's linter found.
type Warning struct {
	Rule string   `json:"rule"`
	URL  string   `json:"url,omitempty"`
	Pos  diag.Pos `json:"pos"`
	Text string   `json:"text"`
	// Detail says what the rule is about.
	Detail string `json:"detail,omitempty"`
}
