package schema

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"

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
}

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
	Progress     string // "" or auto, tty, plain, json, quiet
	MetadataFile string // relative to the workspace root
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

// readFile reads at most what readYAML takes, and one byte more.
func readFile(fsys fs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFileSize+1))
}

// checkVersion reports a version that is not 1, before anything else is looked at.
func checkVersion(root *value, l *diag.List) {
	v := root.get("version")
	switch {
	case v == nil:
		l.Add(root.pos, "begin the file with version: 1", "the manifest has no version")
	case v.kind != intKind || v.text != "1":
		l.Add(v.pos, "write version: 1", "version %s is not one that this program reads", describe(v))
	}
}

// parser holds what the sections of one manifest share.
type parser struct {
	problems *diag.List
	root     *value
	scope    *scope
	expander expander // for what is outside of targets
	declared map[string]declaration
}

// declaration is a name of the space that targets, templates and groups share.
type declaration struct {
	what string
	pos  diag.Pos
}

func (p *parser) manifest(opts Options) *Manifest {
	p.scope = &scope{
		opts: opts, workspace: opts.WorkspaceName, problems: p.problems, budget: &budget{},
		vars: map[string]*variable{}, given: map[string]given{}, values: map[string]*value{}, git: map[string]*value{},
	}
	p.expander = p.scope.expander()
	p.scope.declare(p.root.get("vars"))
	p.scope.override()
	p.scope.settle()
	m := &Manifest{Version: 1, Name: opts.WorkspaceName}
	if v := p.resolved("name", textShape); v != nil {
		m.Name = v.text
		p.scope.workspace = v.text
	}
	p.declare()
	m.Secrets, m.SSH = p.secrets(), p.ssh()
	m.Registries, m.Run = p.registries(), p.run()
	m.Targets = p.targets(m)
	m.Groups = p.groups()
	p.checkNames(m)
	return m
}

// resolved is a section with its references expanded and its shape checked again.
func (p *parser) resolved(key string, sh *shape) *value {
	v := p.root.get(key)
	if v == nil || v.kind == nullKind {
		return nil
	}
	if v = p.expander.expand(v); v == nil {
		return nil
	}
	return sh.check(v, key, resolved, p.problems)
}

var nameText = regexp.MustCompile(`^[a-z0-9]+([._-][a-z0-9]+)*$`)

// declare collects the names of targets, templates and groups.
func (p *parser) declare() {
	p.declared = map[string]declaration{}
	for _, section := range []struct{ key, what string }{{"targets", "target"}, {"templates", "template"}, {"groups", "group"}} {
		v := p.root.get(section.key)
		if v == nil {
			continue
		}
		for _, e := range v.entries {
			p.declareName(e.name, section.what, e.pos)
		}
	}
	if v := p.root.get("targets"); v == nil || len(v.entries) == 0 {
		p.problems.Add(p.root.pos, "add targets: {name: {context: directory}}", "the manifest has no targets")
	}
}

func (p *parser) declareName(name, what string, pos diag.Pos) {
	if !nameText.MatchString(name) {
		p.problems.Add(pos, "use lower-case letters and digits, with single . _ - between", "%q is not a name for a %s", name, what)
	}
	if old, taken := p.declared[name]; taken {
		p.problems.Add(pos, "rename one of them", "%s %q has the name of the %s at %s", what, name, old.what, old.pos)
		return
	}
	p.declared[name] = declaration{what, pos}
}

// namesOf is the declared names of a kind, for suggestions.
func (p *parser) namesOf(what string) []string {
	var out []string
	for name, d := range p.declared {
		if d.what == what {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func (p *parser) secrets() []Secret {
	section := p.resolved("secrets", manifestShape.field("secrets").shape)
	if section == nil {
		return nil
	}
	var out []Secret
	for _, e := range section.entries {
		file, env := e.value.get("file"), e.value.get("env")
		s := Secret{ID: e.name, Pos: e.pos, Env: env.str(), Optional: e.value.get("optional").isTrue()}
		if file != nil {
			s.File = p.outsidePath(file)
		}
		if (file == nil) == (env == nil) {
			p.problems.Add(e.pos, "write {env: NAME} or {file: PATH}", "secret %q needs either file or env", e.name)
		}
		out = append(out, s)
	}
	return out
}

func (p *parser) ssh() []SSH {
	section := p.resolved("ssh", manifestShape.field("ssh").shape)
	if section == nil {
		return nil
	}
	var out []SSH
	for _, e := range section.entries {
		s := SSH{ID: e.name, Pos: e.pos}
		for _, key := range e.value.get("keys").list() {
			s.Keys = append(s.Keys, p.outsidePath(key))
		}
		out = append(out, s)
	}
	return out
}

func (p *parser) registries() []Registry {
	section := p.resolved("registries", manifestShape.field("registries").shape)
	if section == nil {
		return nil
	}
	var out []Registry
	for _, e := range section.entries {
		r := Registry{Host: e.name, Pos: e.pos, Insecure: e.value.get("insecure").isTrue(), Fallback: true}
		p.checkHost(e.name, e.pos)
		if f := e.value.get("fallback"); f != nil {
			r.Fallback = f.isTrue()
		}
		for _, mirror := range e.value.get("mirrors").list() {
			p.checkHost(mirror.text, mirror.pos)
			r.Mirrors = append(r.Mirrors, mirror.text)
		}
		if ca := e.value.get("ca"); ca != nil {
			r.CA = p.outsidePath(ca)
		}
		out = append(out, r)
	}
	return out
}

// mirrorText is a registry's host, with a path for mirrors that keep several
// registries apart.
var mirrorText = regexp.MustCompile(`^(?:` + hostPattern + `)(?:/` + pathPattern + `)*$`)

func (p *parser) checkHost(host string, pos diag.Pos) {
	if !mirrorText.MatchString(host) {
		p.problems.Add(pos, "write the host as it stands in an image's name, such as docker.io or localhost:5000", "%q is not a registry", host)
	}
}

func (p *parser) run() Run {
	v := p.resolved("run", runShape)
	r := Run{
		Push:      v.get("push").isTrue(),
		KeepGoing: v.get("onFailure").str() == "continue",
		Progress:  v.get("progress").str(),
	}
	if jobs := v.get("jobs"); jobs != nil && jobs.text != "auto" {
		r.Jobs, _ = strconv.Atoi(jobs.text) // the shape lets only short numbers through
		if r.Jobs == 0 {
			p.problems.Add(jobs.pos, "write auto, or leave it out", "jobs must be at least 1")
		}
	}
	if f := v.get("metadataFile"); f != nil {
		r.MetadataFile = p.path(f)
	}
	return r
}

// groups is the groups section, and then the groups that targets say they are in.
func (p *parser) groups() []Group {
	var out []Group
	if section := p.resolved("groups", manifestShape.field("groups").shape); section != nil {
		for _, e := range section.entries {
			g := Group{Name: e.name, Pos: e.pos}
			for _, item := range e.value.list() {
				g.Patterns = append(g.Patterns, Named{item.text, item.pos})
			}
			out = append(out, g)
		}
	}
	targets := p.root.get("targets")
	if targets == nil {
		return out
	}
	for _, e := range targets.entries {
		for _, g := range p.expandedList(e.value.get("groups")) {
			i := slices.IndexFunc(out, func(old Group) bool { return old.Name == g.text })
			if i < 0 {
				i = len(out)
				out = append(out, Group{Name: g.text, Pos: g.pos})
				p.declareName(g.text, "group", g.pos)
			}
			out[i].Patterns = append(out[i].Patterns, Named{e.name, g.pos})
		}
	}
	return out
}

// expandedList is the scalars of a list with their references expanded.
func (p *parser) expandedList(v *value) []*value {
	if v == nil || v.kind == nullKind {
		return nil
	}
	if v = p.expander.expand(v); v == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(v.list()), func(item *value) bool { return !item.isScalar() })
}

// checkNames reports names that no target, secret or ssh agent has.
func (p *parser) checkNames(m *Manifest) {
	secrets, agents := make([]string, 0, len(m.Secrets)), []string{"default"}
	for _, s := range m.Secrets {
		secrets = append(secrets, s.ID)
	}
	for _, s := range m.SSH {
		agents = append(agents, s.ID)
	}
	for i := range m.Targets {
		t := &m.Targets[i]
		for _, n := range t.Needs {
			p.checkTarget(t.Name, n.Name, n.Pos)
		}
		for _, c := range t.Contexts {
			if c.Kind == ContextTarget {
				p.checkTarget(t.Name, c.Value, c.Pos)
			}
		}
		for _, g := range t.Secrets {
			if !slices.Contains(secrets, g.ID) {
				p.problems.Add(g.Pos, suggestFrom(g.ID, secrets), "target %q uses unknown secret %q", t.Name, g.ID)
			}
		}
		for _, s := range t.SSH {
			if !slices.Contains(agents, s.Name) {
				p.problems.Add(s.Pos, suggestFrom(s.Name, agents), "target %q uses unknown ssh agent %q", t.Name, s.Name)
			}
		}
	}
	if p.problems.Len() == 0 {
		p.checkGroups(m)
	}
}

func (p *parser) checkTarget(target, needed string, pos diag.Pos) {
	d, known := p.declared[needed]
	switch {
	case !known:
		p.problems.Add(pos, diag.Suggest(needed, p.namesOf("target")), "target %q depends on unknown target %q", target, needed)
	case d.what != "target":
		p.problems.Add(pos, "", "target %q depends on %q, which is a %s", target, needed, d.what)
	}
}

// checkGroups tries every group, so that a misspelt name is told even if nobody
// selects the group.
func (p *parser) checkGroups(m *Manifest) {
	s := newSelector(m, p.problems, nil)
	for _, g := range m.Groups {
		s.group(g.Name, g.Pos)
	}
}

// path is a path relative to the file that wrote it, or to the workspace root if
// it starts with "//", taken from the workspace root.
func (p *parser) path(v *value) string { return p.pathFrom(v, path.Dir(v.pos.File)) }
