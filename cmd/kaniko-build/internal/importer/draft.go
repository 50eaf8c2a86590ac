package importer

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"kaniko-build/schema/diag"
)

// Draft is a manifest in the making. Paths are relative to the directory of the
// manifest, with slashes.
type Draft struct {
	Includes   []string
	EnvFiles   []string // all optional
	Vars       []Var
	Secrets    []Secret
	SSH        []SSH
	Registries []Registry
	Defaults   *Target
	Templates  []Target
	Targets    []Target
	Groups     []Group
	Profiles   []Profile
	Push       bool // every target is pushed
	Cluster    *Cluster

	Notes     []Note
	Evaluated int // texts that say what the source made of its defaults, and not how
}

// Text is a text of the manifest, with references as ours are. Others' text goes
// through Literal.
type Text struct {
	Value  string
	Null   bool   // takes an inherited value away
	Source string // what it was evaluated from, for a comment; "" if Value says it all
}

// Entry is a key with a text.
type Entry struct {
	Key string
	Text
}

// Var is a variable.
type Var struct {
	Name        string
	Comment     string // lines above it
	Type        string // "" is that of the default
	Default     Text
	List        []Text // the default of one with type list
	Map         []Entry
	None        bool // there is no default
	Enum        []string
	Pattern     string
	Description string
	Env         []string
	Required    bool
}

// Secret is where a secret comes from: one of File and Env.
type Secret struct {
	ID, File, Env string
}

// Paths rebases paths of a source to the directory of the manifest.
type Paths struct {
	Base string // of the source's paths, from the manifest's directory
	Up   int    // directories above the manifest's that some path needed
}

// Rel is a path of the source as the manifest writes it.
func (p *Paths) Rel(s string) string {
	if path.IsAbs(s) {
		return s
	}
	out := path.Join(p.Base, s)
	if up := strings.Count(out+"/", "../"); strings.HasPrefix(out, "..") && up > p.Up {
		p.Up = up
	}
	return out
}

// SSH is an agent made of keys.
type SSH struct {
	ID   string
	Keys []string
}

// Registry is what is said of a registry.
type Registry struct {
	Host     string
	Mirrors  []string
	Insecure bool
	CA       string
}

// Group is a name for targets; those that are groups begin with "@".
type Group struct {
	Name    string
	Targets []string
}

// Profile changes targets by name.
type Profile struct {
	Name     string
	When     string // condition; "" is never by itself
	Defaults *Target
	Targets  []Target
	Push     bool
	Local    bool // nodes run on this machine, whatever the manifest says
	Cluster  *Cluster
}

// Cluster is where pods build.
type Cluster struct {
	Namespace      Text
	ServiceAccount Text
	Labels         []Entry // that a node must have
	Platforms      []string
	Tolerations    [][]Entry
}

// Target is a target or a template.
type Target struct {
	Name       string
	Comment    string // lines above it
	Pos        diag.Pos
	Extends    []string
	Internal   bool
	Context    Text // "" is the default, as everywhere
	Dockerfile Text
	Inline     Text
	Stage      Text
	Args       []Entry
	Contexts   []Entry
	Images     []Text
	Tags       []Tag
	TagList    Text // a reference to a list, instead of Tags
	TagSuffix  *string
	Labels     []Entry
	Annotated  []Entry
	Platforms  []Text
	Platform   Text // a reference to a list, instead of Platforms
	Needs      []string
	Secrets    []Grant
	SSH        []string
	Network    Text
	NoCache    bool
	NoStages   []Text // stages without a cache
	Cache      *Cache
	Provenance string
	SBOM       bool
	NoSBOM     bool // takes an inherited one away
	Outputs    []Output
	Before     []Hook
	After      []Hook
	Executor   []Entry
	ExtraArgs  []string
	Memory     string
	CPU        string
	Timeout    string
	Matrix     []Axis
	Variant    Text
	Rules      []Rule
	Gone       []string // keys that are taken away, of a profile's target
}

// Without takes away what an old form of the target says and this one does not, so
// that laid over the old one it is this one.
func (t *Target) Without(old Target) {
	for _, f := range []struct{ now, old *Text }{{&t.Context, &old.Context}, {&t.Dockerfile, &old.Dockerfile}, {&t.Inline, &old.Inline}, {&t.Stage, &old.Stage}, {&t.Network, &old.Network}} {
		if f.now.Value == "" && f.old.Value != "" {
			f.now.Null = true
		}
	}
	for _, f := range []struct {
		now *[]Entry
		old []Entry
	}{{&t.Args, old.Args}, {&t.Contexts, old.Contexts}, {&t.Labels, old.Labels}, {&t.Annotated, old.Annotated}, {&t.Executor, old.Executor}} {
		for _, e := range f.old {
			if !slices.ContainsFunc(*f.now, func(n Entry) bool { return n.Key == e.Key }) {
				*f.now = append(*f.now, Entry{Key: e.Key, Text: Text{Null: true}})
			}
		}
	}
	if len(old.ExtraArgs) > 0 && len(t.ExtraArgs) == 0 {
		t.Executor = append(t.Executor, Entry{Key: "extraArgs", Text: Text{Null: true}})
	}
	for _, f := range []struct {
		key      string
		now, was bool
	}{
		{"image", len(t.Images) > 0, len(old.Images) > 0},
		{"platforms", len(t.Platforms) > 0 || t.Platform.Value != "", len(old.Platforms) > 0 || old.Platform.Value != ""},
		{"secrets", len(t.Secrets) > 0, len(old.Secrets) > 0},
		{"ssh", len(t.SSH) > 0, len(old.SSH) > 0},
		{"noCache", t.NoCache || len(t.NoStages) > 0, old.NoCache || len(old.NoStages) > 0},
		{"cache", t.Cache != nil, old.Cache != nil},
		{"outputs", len(t.Outputs) > 0, len(old.Outputs) > 0},
		{"hooks", len(t.Before)+len(t.After) > 0, len(old.Before)+len(old.After) > 0},
		{"watch", len(t.Rules) > 0, len(old.Rules) > 0},
	} {
		if f.was && !f.now {
			t.Gone = append(t.Gone, f.key)
		}
	}
}

// Tag is a tag, which counts only if a condition holds.
type Tag struct {
	Text
	If   string
	Role string
}

// Grant lets a target use a secret, under another id if As is set.
type Grant struct{ ID, As string }

// Cache is where results are kept.
type Cache struct {
	Repo  Text
	From  []Text
	TTL   string
	Write string
	Copy  string // "false", or the default
	Run   string
}

// Output is what is written besides the registry.
type Output struct {
	Type string
	Dest Text
}

// Hook is a command: words, or one line for the shell.
type Hook struct {
	Words []string
	Line  string
}

// Axis is one name of a matrix.
type Axis struct {
	Name   string
	Values []Text
}

// Rule says what a change of files leads to.
type Rule struct {
	Paths  []string
	Action string
	To     string
	Via    string
	Exec   Hook
}

// Note is something that a person has to know of an import.
type Note struct {
	Pos     diag.Pos
	What    string
	Hint    string
	Dropped bool // the manifest builds something else, or less, without it
}

// Drop notes something that the manifest does not say.
func (d *Draft) Drop(pos diag.Pos, hint, format string, args ...any) {
	d.note(Note{pos, fmt.Sprintf(format, args...), hint, true})
}

// Tell notes something that is said otherwise, or that makes no difference.
func (d *Draft) Tell(pos diag.Pos, hint, format string, args ...any) {
	d.note(Note{pos, fmt.Sprintf(format, args...), hint, false})
}

func (d *Draft) note(n Note) {
	if !slices.Contains(d.Notes, n) {
		d.Notes = append(d.Notes, n)
	}
}

// Sorted is the notes by place, those of what was dropped first.
func (d *Draft) Sorted() []Note {
	out := slices.Clone(d.Notes)
	slices.SortStableFunc(out, func(a, b Note) int {
		if a.Dropped != b.Dropped {
			if a.Dropped {
				return -1
			}
			return 1
		}
		return a.Pos.Compare(b.Pos)
	})
	return out
}

// Dropped is how many notes are of what was dropped.
func (d *Draft) Dropped() int {
	n := 0
	for _, note := range d.Notes {
		if note.Dropped {
			n++
		}
	}
	return n
}
