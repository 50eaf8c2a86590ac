package schema

import (
	"errors"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

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
	pathReader
	fsys     fs.FS
	repos    *repositories
	root     *unit
	units    []*unit // includers before what they include
	scope    *scope
	expander expander // for what is outside of targets

	spaces    spaces
	templates map[string]*stack
	targets   []*stack // as declared
	shown     []entry  // resolved sections, for Print
	warnings  diag.List
}

// spaces are the three spaces of names: targets, templates and groups share one.
type spaces struct{ bodies, secrets, ssh map[string]declaration }

// declaration is a name, in full.
type declaration struct {
	what string
	pos  diag.Pos
	unit *unit
}

func (p *parser) manifest(opts Options, files *loader) *Manifest {
	p.units = files.ordered
	p.scope = &scope{
		opts: opts, workspace: opts.WorkspaceName, problems: p.problems, budget: &budget{}, units: files.units, root: p.root,
		envFile: map[string]string{}, given: map[string]given{}, git: map[string]*value{},
	}
	p.expander = p.scope.expander()
	p.warnings.AddErr(diag.Pos{}, files.warnings.Err())
	p.scope.early = "envFiles"
	p.envFiles()
	p.scope.early = ""
	for _, u := range p.units {
		p.scope.declare(u, p.section(u, "vars", asWritten))
	}
	p.scope.override()
	p.scope.settle()
	m := &Manifest{Version: 1, Name: opts.WorkspaceName}
	if v := p.resolved(p.root, "name"); v != nil {
		m.Name = v.text
		p.scope.workspace = v.text
	}
	p.showVars()
	p.declare()
	m.Secrets, m.SSH = p.secrets(), p.ssh()
	m.Registries, m.Policy, m.Run = p.registries(), p.policy(), p.run()
	m.Runner, m.Affected, m.Watch, m.Lint = p.runner(), p.affected(), p.watch(), p.lint()
	m.Targets = p.allTargets()
	m.index()
	m.Groups = p.groups()
	p.checkNames(m)
	p.checkTags(m)
	p.unused(m)
	if err := p.warnings.Err(); err != nil {
		errors.As(err, &m.Warnings) // a List answers with nothing else
	}
	for _, u := range p.units {
		m.Files = append(m.Files, u.file)
	}
	for _, f := range opts.Over {
		m.Files = append(m.Files, f.Name)
	}
	m.Repositories = p.repos.found
	m.parts = &printed{name: m.Name, sections: p.shown}
	return m
}

// index makes names findable.
func (m *Manifest) index() {
	m.byName, m.cells = make(map[string]int, len(m.Targets)), map[string][]int{}
	for i, t := range m.Targets {
		m.byName[t.Name] = i
		if t.Variant != "" {
			m.cells[t.Base] = append(m.cells[t.Base], i)
		}
	}
}

// section is a key of a unit's layers, merged; nil without one.
func (p *parser) section(u *unit, key string, lone func(*value) *value) *value {
	return mergedKey(u.layers, key, manifestShape, lone)
}

// mergedKey merges what layers say of one key.
func mergedKey(layers []*value, key string, s *shape, lone func(*value) *value) *value {
	var out *value
	for _, layer := range layers {
		var only []entry
		for _, e := range layer.entries {
			if e.name == key || len(e.name) == len(key)+1 && strings.HasPrefix(e.name, key) {
				only = append(only, e)
			}
		}
		if only != nil {
			out = merger{lone}.body(out, newMap(layer.pos, only), s)
		}
	}
	return out.get(key)
}

// resolved is a section with its references expanded and its shape checked again.
func (p *parser) resolved(u *unit, key string) *value {
	v := p.section(u, key, p.expander.lone)
	if v == nil {
		return nil
	}
	if v = p.expander.expand(v); v == nil {
		return nil
	}
	v = manifestShape.field(key).shape.check(v, key, resolved, p.problems)
	if v != nil && key != "name" && key != "groups" {
		p.show(key, v)
	}
	return v
}

// envFiles reads the files of variables. Later ones are stronger.
func (p *parser) envFiles() {
	for _, item := range p.section(p.root, "envFiles", asWritten).list() {
		at, optional := item, false
		if item.kind == mapKind {
			at, optional = item.get("path"), item.get("optional").isTrue()
		}
		if hasReference(at.text) {
			if at = p.expander.expand(at); at == nil {
				continue
			}
		}
		name := p.path(at)
		text, err := readFile(p.fsys, name)
		switch {
		case errors.Is(err, fs.ErrNotExist) && optional:
		case err != nil:
			p.problems.AddErr(at.pos, cannotRead(at.pos, name, err))
		default:
			readEnv(name, string(text), p.scope.envFile, p.problems)
		}
	}
}

var envLine = regexp.MustCompile(`^(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.]*)[ \t]*=[ \t]*(.*?)[ \t]*$`)

// readEnv reads lines NAME=VALUE, with # for comments, an optional "export" and
// values in quotes, which may go on for several lines; only in double ones \n, \t, \"
// and \\ stand for something.
func readEnv(name, text string, into map[string]string, l *diag.List) {
	lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		line := strings.TrimSpace(lines[i])
		if line == "" || line[0] == '#' {
			continue
		}
		pos := diag.Pos{File: name, Line: i + 1}
		m := envLine.FindStringSubmatch(line)
		if m == nil {
			l.Add(pos, "write NAME=VALUE", "not the line of a file of variables")
			continue
		}
		v := m[2]
		if v == "" || v[0] != '\'' && v[0] != '"' {
			if at := strings.Index(v, " #"); at >= 0 {
				v = strings.TrimSpace(v[:at])
			}
			into[m[1]] = v
			continue
		}
		end := closingQuote(v)
		if end < 0 {
			v = strings.Join(append([]string{v}, lines[i+1:]...), "\n")
			if end = closingQuote(v); end >= 0 {
				i += strings.Count(v[:end], "\n")
			}
		}
		rest := ""
		if end >= 0 {
			rest, _, _ = strings.Cut(v[end+1:], "\n")
			rest = strings.TrimSpace(rest)
		}
		switch {
		case end < 0:
			l.Add(pos, "close its quote", "the value of %s has no end", m[1])
			continue
		case rest != "" && rest[0] != '#':
			l.Add(pos, "close its quote at the end of the value", "there is more behind the value of %s", m[1])
			continue
		case v[0] == '"':
			v = strings.NewReplacer(`\n`, "\n", `\t`, "\t", `\"`, `"`, `\\`, `\`).Replace(v[1:end])
		default:
			v = v[1:end]
		}
		into[m[1]] = v
	}
}

// closingQuote is where the quote that s begins with is closed; -1 if nowhere.
func closingQuote(s string) int {
	for i := 1; i < len(s); i++ {
		switch {
		case s[0] == '"' && s[i] == '\\':
			i++
		case s[i] == s[0]:
			return i
		}
	}
	return -1
}

var nameText = regexp.MustCompile(namePattern)

// declare collects the names of targets, templates and groups.
func (p *parser) declare() {
	p.spaces = spaces{map[string]declaration{}, map[string]declaration{}, map[string]declaration{}}
	p.templates = map[string]*stack{}
	for _, u := range p.units {
		p.targets = append(p.targets, p.stacks(u, "targets", "target")...)
		for _, t := range p.stacks(u, "templates", "template") {
			p.templates[t.name] = t
		}
		if v := p.section(u, "groups", asWritten); v != nil {
			for _, e := range v.entries {
				p.declareName(e.name, "group", e.pos, u)
			}
		}
	}
	if len(p.targets) == 0 && p.problems.Len() == 0 { // else they may be in what was refused
		p.problems.Add(p.root.layers[0].pos, "add targets: {name: {context: directory}}", "the manifest has no targets")
	}
}

// declareName declares a unit's name.
func (p *parser) declareName(name, what string, pos diag.Pos, u *unit) {
	if !nameText.MatchString(name) {
		p.problems.Add(pos, "use lower-case letters and digits, with single . _ - between", "%q is not a name for a %s", name, what)
	}
	full := u.prefix + name
	if old, taken := p.spaces.bodies[full]; taken {
		p.problems.Add(pos, "rename one of them", "%s %q has the name of the %s at %s", what, full, old.what, old.pos)
		return
	}
	p.spaces.bodies[full] = declaration{what, pos, u}
}

// find is the declaration that a name in a file means: of those with the prefix of
// the file's unit, then of its includers, the first that fits.
func (p *parser) find(in map[string]declaration, name, file string, fits func(declaration) bool) (full string, d declaration, known bool) {
	for _, u := range p.scope.unit(file).chain {
		if d, ok := in[u.prefix+name]; ok && (fits == nil || fits(d)) {
			return u.prefix + name, d, true
		}
	}
	return "", declaration{}, false
}

// seenFrom tells whether a file sees what a unit declares for itself and those
// that it includes.
func (p *parser) seenFrom(file string) func(declaration) bool {
	from := p.scope.unit(file)
	return func(d declaration) bool {
		return slices.Contains(from.chain, d.unit) || slices.Contains(d.unit.above, from)
	}
}

// namesOf is the names of a kind, for suggestions.
func namesOf(in map[string]declaration, what string) []string {
	var out []string
	for name, d := range in {
		if d.what == what {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// declared calls fn with the entries of a section of all units, by their full
// names, and reports a name that two units give.
func (p *parser) declared(key string, in map[string]declaration, what string, fn func(full string, e entry)) {
	for _, u := range p.units {
		section := p.resolved(u, key)
		if section == nil {
			continue
		}
		for _, e := range section.entries {
			full := u.prefix + e.name
			if old, taken := in[full]; taken {
				p.problems.Add(e.pos, "keep one of them, or include the file with a prefix", "%s %q is already declared at %s", what, full, old.pos)
				continue
			}
			in[full] = declaration{what, e.pos, u}
			fn(full, e)
		}
	}
}

func (p *parser) secrets() []Secret {
	var out []Secret
	p.declared("secrets", p.spaces.secrets, "secret", func(full string, e entry) {
		file, env := e.value.get("file"), e.value.get("env")
		s := Secret{ID: full, Pos: e.pos, Env: env.str(), Optional: e.value.get("optional").isTrue()}
		if file != nil {
			s.File = p.outsidePath(file)
		}
		if (file == nil) == (env == nil) {
			p.problems.Add(e.pos, "write {env: NAME} or {file: PATH}", "secret %q needs either file or env", full)
		}
		out = append(out, s)
	})
	return out
}

func (p *parser) ssh() []SSH {
	var out []SSH
	p.declared("ssh", p.spaces.ssh, "ssh agent", func(full string, e entry) {
		s := SSH{ID: full, Pos: e.pos}
		for _, key := range e.value.get("keys").list() {
			s.Keys = append(s.Keys, p.outsidePath(key))
		}
		out = append(out, s)
	})
	return out
}

func (p *parser) registries() []Registry {
	var out []Registry
	hosts := map[string]diag.Pos{}
	for _, u := range p.units {
		section := p.resolved(u, "registries")
		if section == nil {
			continue
		}
		for _, e := range section.entries {
			if old, taken := hosts[e.name]; taken {
				p.problems.Add(e.pos, "keep one of them", "registry %q is already described at %s", e.name, old)
				continue
			}
			hosts[e.name] = e.pos
			out = append(out, p.registry(e))
		}
	}
	return out
}

func (p *parser) registry(e entry) Registry {
	r := Registry{Host: e.name, Pos: e.pos, Insecure: e.value.get("insecure").isTrue(), Fallback: true, Exists: e.value.get("onTagExists").str(), Retries: -1}
	p.checkHost(e.name, e.pos)
	if f := e.value.get("fallback"); f != nil {
		r.Fallback = f.isTrue()
	}
	for _, mirror := range e.value.get("mirrors").list() {
		p.checkHost(mirror.text, mirror.pos)
		r.Mirrors = append(r.Mirrors, mirror.text)
	}
	for _, file := range []struct {
		key string
		to  *string
	}{{"ca", &r.CA}, {"clientCert", &r.Cert}, {"clientKey", &r.Key}} {
		if v := e.value.get(file.key); v != nil {
			*file.to = p.outsidePath(v)
		}
	}
	if (r.Cert == "") != (r.Key == "") {
		p.problems.Add(e.pos, "give both", "registry %q needs clientCert and clientKey together", e.name)
	}
	if n := e.value.get("retries"); n != nil {
		r.Retries, _ = strconv.Atoi(n.text) // the shape lets only short numbers through
	}
	return r
}

// mirrorText is a registry's host, with a path for mirrors that keep several
// registries apart.
var mirrorText = regexp.MustCompile(`^(?:` + hostPattern + `)(?:/` + pathPattern + `)*$`)

func (p *parser) checkHost(host string, pos diag.Pos) {
	if !mirrorText.MatchString(host) {
		p.problems.Add(pos, "write the host as it stands in an image's name, such as docker.io or localhost:5000", "%q is not a registry", host)
	}
}

func (p *parser) policy() Policy {
	v := p.resolved(p.root, "policy")
	out := Policy{PinBases: LevelOff, AllowedBases: namedList(v.get("allowedBases")), ForbidTags: namedList(v.get("forbidTags"))}
	if pin := v.get("pinBases"); pin != nil {
		out.PinBases = Level(pin.text)
	}
	return out
}

// namedList is a list's texts with their places, each once.
func namedList(v *value) []Named {
	var out []Named
	for _, item := range v.list() {
		if !slices.ContainsFunc(out, func(n Named) bool { return n.Name == item.text }) {
			out = append(out, Named{item.text, item.pos})
		}
	}
	return out
}

func (p *parser) lint() Lint {
	v := p.resolved(p.root, "lint").get("dockerfile")
	return Lint{Skip: v.get("skip").strings(), FailOnWarnings: v.get("fail").str() == "warning"}
}

func (p *parser) run() Run {
	v := p.resolved(p.root, "run")
	r := Run{
		Push:      v.get("push").isTrue(),
		Publish:   PublishTogether,
		KeepGoing: v.get("onFailure").str() == "continue",
		Progress:  v.get("progress").str(),
	}
	if publish := v.get("publish"); publish != nil {
		r.Publish = Publish(publish.text)
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
	if d := v.get("digestDir"); d != nil {
		r.DigestDir = p.path(d)
	}
	return r
}

func (p *parser) runner() Runner {
	v := p.resolved(p.root, "runner")
	out := Runner{Type: "local"}
	if v == nil {
		return out
	}
	out.Pos = v.pos
	if t := v.get("type"); t != nil {
		out.Type = t.text
	}
	k := v.get("kubernetes")
	out.Context, out.Namespace, out.ServiceAccount = k.get("context").str(), k.get("namespace").str(), k.get("serviceAccount").str()
	out.Image, out.ImagePullSecrets, out.StartTimeout = k.get("image").str(), k.get("imagePullSecrets").strings(), p.duration(k.get("startTimeout"))
	for _, t := range k.get("tolerations").list() {
		out.Tolerations = append(out.Tolerations, Toleration{t.get("key").str(), t.get("operator").str(), t.get("value").str(), t.get("effect").str()})
	}
	if selector := k.get("nodeSelector"); selector != nil {
		out.NodeSelector = map[string]map[string]string{}
		for _, e := range selector.entries {
			platform := NormalPlatform(e.name)
			if !platformText.MatchString(platform) {
				p.problems.Add(e.pos, "write os/architecture, such as linux/amd64", "%q is not a platform", e.name)
			}
			out.NodeSelector[platform] = texts(e.value)
		}
	}
	return out
}

func (p *parser) affected() Affected {
	v := p.resolved(p.root, "affected")
	out := Affected{Base: v.get("base").str(), Strict: v.get("onUnknown").str() == "error"}
	for _, g := range v.get("global").list() {
		out.Global = append(out.Global, Named{p.pattern(g), g.pos})
	}
	return out
}

func (p *parser) watch() Watch {
	v := p.resolved(p.root, "watch")
	out := Watch{
		Trigger: v.get("trigger").str(), OnChange: v.get("onChange").str(),
		Debounce: p.duration(v.get("debounce")), MaxWait: p.duration(v.get("maxWait")), PollInterval: p.duration(v.get("pollInterval")),
	}
	for _, g := range v.get("ignore").list() {
		out.Ignore = append(out.Ignore, p.pattern(g))
	}
	if run := v.get("onSuccess").get("run"); run != nil {
		out.OnSuccess = p.command(run)
	}
	if run := v.get("onFailure").get("run"); run != nil {
		out.OnFailure = p.command(run)
	}
	return out
}

// duration is a time, which is not zero; 0 for nothing.
func (p *parser) duration(v *value) time.Duration {
	if v == nil {
		return 0
	}
	d, err := time.ParseDuration(v.text)
	if err != nil || d <= 0 {
		p.problems.Add(v.pos, "write hours, minutes or seconds, such as 1h30m or 300ms", "%q is not a time", v.text)
		return 0
	}
	return d
}

// pattern is a pattern of files, taken from the workspace root.
func (p *parser) pattern(v *value) string {
	text, not := strings.CutPrefix(v.text, "!")
	w := *v
	w.text = text
	out := p.path(&w)
	if not {
		return "!" + out
	}
	return out
}

// command is the run of a hook.
func (p *parser) command(v *value) Command {
	c := Command{Dir: p.dir(v.pos), Pos: v.pos}
	if v.kind == listKind {
		c.Words = v.strings()
	} else {
		c.Line = v.text
	}
	if len(c.Words) == 0 && strings.TrimSpace(c.Line) == "" {
		p.problems.Add(v.pos, "write a line for the shell, or a list of words", "the command is empty")
	}
	return c
}

// groups is the groups sections, and then the groups that targets say they are in.
func (p *parser) groups() []Group {
	var out []Group
	index := map[string]int{}
	for _, u := range p.units {
		section := p.resolved(u, "groups")
		if section == nil {
			continue
		}
		for _, e := range section.entries {
			g := Group{Name: u.prefix + e.name, Pos: e.pos}
			for _, item := range e.value.list() {
				g.Patterns = append(g.Patterns, Named{p.qualified(item), item.pos})
			}
			index[g.Name] = len(out)
			out = append(out, g)
		}
	}
	for _, t := range p.targets {
		for _, g := range p.expandedList(t.own("groups")) {
			full, d, known := p.find(p.spaces.bodies, g.text, g.pos.File, func(d declaration) bool { return d.what == "group" })
			if full == "" {
				full = p.scope.unit(g.pos.File).prefix + g.text
			}
			if _, there := index[full]; !known && !there {
				p.declareName(g.text, "group", g.pos, p.scope.unit(g.pos.File))
				d = p.spaces.bodies[full]
			}
			if d.what != "group" {
				continue // told
			}
			i, there := index[full]
			if !there {
				i = len(out)
				index[full] = i
				out = append(out, Group{Name: full, Pos: g.pos})
			}
			out[i].Patterns = append(out[i].Patterns, Named{t.name, g.pos})
		}
	}
	return out
}

// qualified is a pattern of a group with full names in it.
func (p *parser) qualified(v *value) string {
	file := v.pos.File
	u := p.scope.unit(file)
	rest, not := strings.CutPrefix(v.text, "!")
	rest, above := strings.CutPrefix(rest, "...")
	rest, below := strings.CutSuffix(rest, "...")
	group, isGroup := strings.CutPrefix(rest, "@")
	switch {
	case isGroup:
		full, _, known := p.find(p.spaces.bodies, group, file, func(d declaration) bool { return d.what == "group" })
		if !known {
			full = group // of a target's own, or unknown
		}
		rest = "@" + full
	case strings.ContainsAny(rest, "*?"):
		rest = u.prefix + rest
	default:
		if full, _, known := p.find(p.spaces.bodies, rest, file, func(d declaration) bool { return d.what == "target" }); known {
			rest = full
		}
	}
	for _, part := range []struct {
		text string
		on   bool
	}{{"...", above}, {"!", not}} {
		if part.on {
			rest = part.text + rest
		}
	}
	if below {
		rest += "..."
	}
	return rest
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

// checkNames tries every group, so that a misspelt name is told even if nobody
// selects the group.
func (p *parser) checkNames(m *Manifest) {
	if p.problems.Len() > 0 {
		return
	}
	s := newSelector(m, p.problems, nil)
	for _, g := range m.Groups {
		s.group(g.Name, g.Pos)
	}
}

// checkTags reports tags that the policy forbids.
func (p *parser) checkTags(m *Manifest) {
	for _, forbidden := range m.Policy.ForbidTags {
		matches := Glob(forbidden.Name)
		for _, t := range m.Targets {
			for _, ref := range t.Refs {
				r, _ := ParseRef(ref.Name)
				if matches(r.Tag) {
					p.problems.Add(ref.Pos, "", "target %q has tag %q, which the policy forbids (%s)", t.Name, r.Tag, forbidden.Pos)
				}
			}
		}
	}
}
