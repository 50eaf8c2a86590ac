package schema

import (
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"

	"kaniko-build/schema/diag"
)

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
	m.Registries, m.Run, m.Lint = p.registries(), p.run(), p.lint()
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

func (p *parser) lint() Lint {
	v := p.resolved("lint", manifestShape.field("lint").shape).get("dockerfile")
	return Lint{Skip: v.get("skip").strings(), FailOnWarnings: v.get("fail").str() == "warning"}
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
