package schema

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// allTargets resolves every target.
func (p *parser) allTargets() []Target {
	for _, u := range p.units {
		for _, layer := range u.layers {
			defaults := layer.get("defaults")
			if extends := defaults.get("extends"); extends != nil {
				p.problems.Add(extends.pos, "", "defaults cannot extend anything: they are the first parent of every target")
			}
			if defaults != nil {
				p.checkInherited("defaults", defaults)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.templates)) {
		t := p.templates[name]
		p.checkParents(t)
		p.checkCircle(t)
		for _, layer := range t.layers {
			p.checkInherited("a template", layer)
		}
	}
	var cells []*cell
	var names []string
	for _, t := range p.targets {
		p.checkParents(t)
		names = append(names, t.name)
		for _, c := range p.cells(t) {
			if c.name != "" {
				cells, names = append(cells, c), append(names, c.name)
			}
		}
	}
	settings := p.settings(p.scope.opts.Sets, names)
	out := make([]Target, 0, len(cells))
	for _, c := range cells {
		t, ok := p.target(c, settingsFor(settings, c))
		if !ok {
			break
		}
		out = append(out, t)
	}
	return out
}

const valueCost = 100 // bytes that a value takes, about

// target merges, expands and decodes one target. It is not ok when the budget is
// used up.
func (p *parser) target(c *cell, settings []*value) (t Target, ok bool) {
	x := expander{
		names:    &targetScope{scope: p.scope, base: c.stack.name, name: c.name, variant: c.variant, matrix: c.axes},
		problems: p.problems, budget: p.scope.budget,
	}
	m := merger{lone: x.lone}
	var body *value
	for _, parent := range p.bodies(c.stack) {
		body = m.body(body, inherited(parent), bodyShape)
	}
	for _, own := range slices.Concat(c.stack.layers, c.set, settings) {
		body = m.body(body, own, bodyShape)
	}
	body = without(body, "extends", "groups", "matrix", "variant") // read as written
	if !p.scope.budget.spend(body.size*valueCost, c.pos, p.problems) {
		return Target{}, false
	}
	body = bodyShape.check(x.body(body), c.name, resolved, p.problems)
	d := decoder{parser: p, body: body, x: x, cell: c}
	return d.target(), true
}

// body expands a body; some of its fields keep references for later.
func (x expander) body(v *value) *value {
	entries := make([]entry, 0, len(v.entries))
	for _, e := range v.entries {
		x.late = nil
		if f := bodyShape.field(e.name); f != nil {
			x.late = f.late
		}
		if done := x.expand(e.value); done != nil && (done.kind != nullKind || e.value.kind == nullKind) {
			entries = append(entries, entry{e.name, e.pos, done})
		}
	}
	return newMap(v.pos, entries)
}

// decoder turns a resolved body into a Target.
type decoder struct {
	*parser
	body *value
	x    expander
	cell *cell
}

func (d decoder) target() Target {
	b, c := d.body, d.cell
	t := Target{
		Name: c.name, Base: c.stack.name, Variant: c.variant, Pos: c.pos,
		Context:     path.Dir(c.pos.File),
		Stage:       b.get("stage").str(),
		Args:        texts(b.get("args")),
		Contexts:    d.contexts(),
		Labels:      texts(b.get("labels")),
		Annotations: d.annotations(),
		Needs:       d.targetNames(b.get("needs")),
		Weak:        d.targetNames(b.get("deps").get("weak")),
		Infer:       InferYes,
		Internal:    b.get("internal").isTrue(),
		Platforms:   d.platforms(b.get("platforms")),
		Secrets:     d.grants(),
		SSH:         d.agents(),
		Network:     b.get("network").str(),
		Skip:        SkipNever,
		Attest:      d.attest(),
		Outputs:     d.outputs(),
		Before:      d.hooks("before"),
		After:       d.hooks("after"),
		Resources:   d.resources(),
		Timeout:     d.duration(b.get("timeout")),
		Rules:       d.rules(),
		OnSuccess:   d.onSuccess(),
	}
	if v := b.get("context"); v != nil {
		t.Context, t.ContextPos = d.context(v), v.pos
	}
	if v := b.get("deps").get("infer"); v != nil {
		t.Infer = Infer(strings.ToLower(v.text))
	}
	if v := b.get("skip"); v != nil {
		t.Skip = Skip(v.text)
	}
	if t.Network == "default" {
		t.Network = ""
	}
	d.refs(&t)
	d.dockerfile(&t)
	d.noCache(&t)
	t.Executor = d.executor()
	d.cache(&t)
	for _, g := range b.get("inputs").get("extra").list() {
		t.Inputs.Extra = append(t.Inputs.Extra, Named{d.pattern(g), g.pos})
	}
	for _, g := range b.get("inputs").get("ignore").list() {
		t.Inputs.Ignore = append(t.Inputs.Ignore, Named{d.pattern(g), g.pos})
	}
	if t.Skip == SkipPublished && len(t.IdentityRefs) == 0 && !slices.ContainsFunc(t.InputRefs, func(r InputRef) bool { return r.Identity }) {
		d.problems.Add(b.get("skip").pos, "add {tag: \"in-${input.digest}\", role: identity} to tags", "target %q is skipped when it is published, and no tag says what it was made of", t.Name)
	}
	t.body = d.shown(&t)
	return t
}

// texts is a mapping of scalars.
func texts(v *value) map[string]string {
	out := map[string]string{}
	if v != nil {
		for _, e := range v.entries {
			out[e.name] = e.value.text
		}
	}
	return out
}

// targetNames is the targets that a list names, in full. One with a matrix stands for all
// of its cells.
func (d decoder) targetNames(v *value) []Named {
	var out []Named
	for _, item := range v.list() {
		full, ok := d.targetName(item, item.text)
		if ok && !slices.ContainsFunc(out, func(n Named) bool { return n.Name == full }) {
			out = append(out, Named{full, item.pos})
		}
	}
	return out
}

// targetName is the full name of a target that v names, or ok is false after that
// was reported.
func (d decoder) targetName(v *value, name string) (full string, ok bool) {
	full, decl, known := d.find(d.spaces.bodies, name, v.pos.File, nil)
	switch {
	case !known:
		d.problems.Add(v.pos, suggestFrom(name, namesOf(d.spaces.bodies, "target")), "target %q depends on unknown target %q", d.cell.name, name)
	case decl.what != "target":
		d.problems.Add(v.pos, "", "target %q depends on %q, which is a %s", d.cell.name, name, decl.what)
	default:
		return full, true
	}
	return "", false
}

// agents is the ssh agents that the target may use.
func (d decoder) agents() []Named {
	var out []Named
	for _, item := range d.body.get("ssh").list() {
		if sealed(d.problems, d.scope.opts, item.pos, "ssh", allowSSH) {
			continue
		}
		full, _, known := d.find(d.spaces.ssh, item.text, item.pos.File, d.seenFrom(item.pos.File))
		if !known {
			if full = item.text; full != "default" {
				d.problems.Add(item.pos, suggestFrom(item.text, append(namesOf(d.spaces.ssh, "ssh agent"), "default")), "target %q uses unknown ssh agent %q", d.cell.name, item.text)
				continue
			}
		}
		if !slices.ContainsFunc(out, func(n Named) bool { return n.Name == full }) {
			out = append(out, Named{full, item.pos})
		}
	}
	return out
}

// context is the directory of the main context.
func (d decoder) context(v *value) string {
	if strings.HasPrefix(v.text, "git:") {
		return d.repositoryContext(v)
	}
	if strings.HasPrefix(v.text, "https://") || strings.HasPrefix(v.text, "http://") {
		return d.archiveContext(v)
	}
	for _, prefix := range []string{"git@", "ssh:"} {
		if strings.HasPrefix(v.text, prefix) {
			d.problems.Add(v.pos, "write git:"+asURL(v.text), "%q says not that it is a repository", v.text)
			return "."
		}
	}
	return d.path(v)
}

// dockerfile sets where the Dockerfile comes from: dockerfileInline, else the
// file, which docker calls Dockerfile.
func (d decoder) dockerfile(t *Target) {
	file, inline := d.body.get("dockerfile"), d.body.get("dockerfileInline")
	switch {
	case inline != nil:
		t.Inline = &Inline{Text: inline.text, Pos: inline.pos}
		if inline.origin.lines {
			t.Inline.Pos, t.Inline.Lines = inline.origin.start, true
		}
	case file != nil:
		t.Dockerfile, t.DockerfilePos = d.pathFrom(file, t.Context), file.pos
	default:
		t.Dockerfile = path.Join(t.Context, "Dockerfile")
	}
	if inline != nil && file != nil {
		d.problems.Add(inline.pos, "keep one of them", "target %q has both dockerfile and dockerfileInline", t.Name)
	}
}

func (d decoder) noCache(t *Target) {
	v := d.body.get("noCache")
	if v != nil && v.kind == listKind {
		t.NoCacheStages = v.strings()
		return
	}
	t.NoCache = v.isTrue()
}

func (d decoder) executor() Executor {
	b := d.body.get("executor")
	if b == nil {
		return Executor{}
	}
	e := Executor{
		Pos: b.pos, Compression: b.get("compression").str(),
		Docker: b.get("imageFormat").str() == "docker", Reproducible: b.get("reproducible").isTrue(),
		SnapshotMode: b.get("snapshotMode").str(), ExtraArgs: namedList(b.get("extraArgs")),
	}
	if level := b.get("compressionLevel"); level != nil {
		e.CompressionLevel, _ = strconv.Atoi(level.text) // the shape lets only short numbers through
		kind := cmp.Or(e.Compression, compressions[0])
		switch most := mostCompression[kind]; {
		case most == 0:
			d.problems.Add(level.pos, "leave it out", "compression %s has no level", kind)
		case e.CompressionLevel < 1 || e.CompressionLevel > most:
			d.problems.Add(level.pos, fmt.Sprintf("write 1 to %d, or leave it out", most), "%s has no compression level %s", kind, level.text)
		}
	}
	return e
}

// mostCompression is the highest level of a compression; the lowest is 1. none has no
// levels.
var mostCompression = map[string]int{"gzip": 9, "zstd": 22}

// cache sets where results are kept outside. Any mapping turns it on.
func (d decoder) cache(t *Target) {
	v := d.body.get("cache")
	if v == nil || v.kind != mapKind {
		return
	}
	c := &Cache{Write: WriteAuto, Run: true, Copy: true, Pos: v.pos}
	for _, from := range v.get("from").list() {
		if from.text != "" {
			c.From = append(c.From, d.cachePlace(from))
		}
	}
	off := false
	switch repo := v.get("repo"); {
	case repo == nil:
	case repo.text != "":
		c.Repo = d.cachePlace(repo)
	default: // a variable that is empty
		off = true
	}
	c.TTL = d.duration(v.get("ttl"))
	if w := v.get("write"); w != nil {
		c.Write = WriteMode(strings.ToLower(w.text))
	}
	if run := v.get("run"); run != nil {
		c.Run = run.isTrue()
	}
	if copies := v.get("copy"); copies != nil {
		c.Copy = copies.isTrue()
	}
	if off {
		if len(c.From) == 0 {
			return
		}
		c.Repo, c.From, c.Write = c.From[0], c.From[1:], WriteNever
	}
	t.Cache = c
}

// cachePlace is a repository without a tag, or oci: and a path.
func (d decoder) cachePlace(v *value) string {
	if path, ok := strings.CutPrefix(v.text, "oci:"); ok {
		w := *v
		w.text = path
		return "oci:" + d.outsidePath(&w)
	}
	r, ok := ParseRef(v.text)
	if !ok || r.Tag != "" || r.Digest != "" {
		d.problems.Add(v.pos, "write a repository, such as registry.example.com/shop/cache, or oci:PATH", "%q is not a place for a cache", v.text)
	}
	return v.text
}

// contexts is the named contexts, by name.
func (d decoder) contexts() []NamedContext {
	v := d.body.get("contexts")
	if v == nil {
		return nil
	}
	var out []NamedContext
	for _, e := range v.entries {
		c := NamedContext{Name: e.name, Pos: e.value.pos}
		c.Kind, c.Value, c.Weak = d.namedContext(e.value)
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b NamedContext) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func (d decoder) namedContext(v *value) (kind ContextKind, text string, weak bool) {
	scheme, rest, ok := strings.Cut(v.text, ":")
	if !ok || strings.ContainsAny(scheme, "/.") {
		return ContextDir, d.path(v), false
	}
	switch scheme {
	case "target", "target?":
		name, _ := d.targetName(v, rest)
		return ContextTarget, name, scheme == "target?"
	case "image":
		r, ok := ParseRef(rest)
		if !ok {
			d.problems.Add(v.pos, "", "%q is not the name of an image", rest)
		}
		return ContextImage, r.String(), false
	case "oci":
		w := *v
		w.text = rest
		return ContextOCI, d.path(&w), false
	case "git":
		at, fragment, hasFragment := strings.Cut(rest, "#")
		if ref, _, _ := strings.Cut(fragment, ":"); rootOf(v.pos.File) != "" && !fullCommit.MatchString(ref) && !slices.Contains(d.scope.opts.Allow, allowUnpinned) {
			d.problems.Add(v.pos, "write the full commit, or run with --allow=unpinned", "a file of another repository needs a commit for its contexts")
		}
		if bySSH(at) {
			sealed(d.problems, d.scope.opts, v.pos, "repositories by ssh", allowSSH)
		}
		if rest = asURL(at); hasFragment {
			rest += "#" + fragment
		}
		return ContextGit, rest, false
	case "http", "https":
		return ContextHTTP, v.text, false
	case "docker-image", "oci-layout", "service":
		ours := map[string]string{"docker-image": "image:", "oci-layout": "oci:", "service": "target:"}[scheme]
		d.problems.Add(v.pos, "write "+ours+strings.TrimPrefix(rest, "//"), "unknown kind of context %q", scheme+":")
		return ContextDir, ".", false
	default:
		d.problems.Add(v.pos, suggestFrom(scheme, []string{"target", "target?", "image", "oci", "git", "http", "https"}), "unknown kind of context %q", scheme+":")
		return ContextDir, ".", false
	}
}

var platformText = regexp.MustCompile(`^[a-z0-9_]+/[a-z0-9_]+(/[a-z0-9_.]+)?$`)

func (d decoder) platforms(v *value) []string {
	var out []string
	for _, item := range v.list() {
		platform := NormalPlatform(item.text)
		switch {
		case item.text == "": // a variable that nobody set
		case !platformText.MatchString(platform):
			d.problems.Add(item.pos, "write os/architecture, such as linux/amd64", "%q is not a platform", item.text)
		case !known(platform):
			near, _ := CheckPlatform(platform)
			d.problems.Add(item.pos, fmt.Sprintf("did you mean %q?", near), "%q is not a platform", item.text)
		case !slices.Contains(out, platform):
			out = append(out, platform)
		}
	}
	return out
}

// NormalPlatform spells a platform the way the OCI specification does, and leaves
// out the variant that everybody means: linux/x86_64 is linux/amd64, linux/arm64/v8
// is linux/arm64, linux/arm is linux/arm/v7.
func NormalPlatform(s string) string {
	parts := strings.Split(strings.ToLower(strings.TrimSpace(s)), "/")
	if len(parts) < 2 {
		return strings.Join(parts, "/")
	}
	switch parts[1] {
	case "x86_64", "x86-64":
		parts[1] = "amd64"
	case "aarch64":
		parts[1] = "arm64"
	case "armhf":
		parts[1] = "arm"
	}
	switch {
	case parts[1] == "arm" && len(parts) == 2:
		parts = append(parts, "v7")
	case len(parts) == 3 && (parts[1] == "arm64" && (parts[2] == "v8" || parts[2] == "8") || parts[1] == "amd64" && parts[2] == "v1"):
		parts = parts[:2]
	}
	return strings.Join(parts, "/")
}

func (d decoder) grants() []Grant {
	var out []Grant
	for _, item := range d.body.get("secrets").list() {
		if sealed(d.problems, d.scope.opts, item.pos, "secrets", allowSecrets) {
			continue
		}
		id := itemID(item)
		g := Grant{ID: id, As: cmp.Or(item.get("as").str(), id), Pos: item.pos}
		full, _, known := d.find(d.spaces.secrets, id, item.pos.File, d.seenFrom(item.pos.File))
		if !known {
			hint := suggestFrom(id, namesOf(d.spaces.secrets, "secret"))
			if hint == "" {
				hint = fmt.Sprintf("declare it: secrets: {%s: {file: ...}}, or {env: ...}", id)
			}
			d.problems.Add(item.pos, hint, "target %q uses unknown secret %q", d.cell.name, id)
			continue
		}
		g.ID = full
		if i := slices.IndexFunc(out, func(old Grant) bool { return old.As == g.As }); i >= 0 {
			d.problems.Add(item.pos, "", "two secrets are mounted as %q", g.As)
			continue
		}
		out = append(out, g)
	}
	return out
}

// annotations is the annotations, each once for every level that it names, by
// name and level.
func (d decoder) annotations() []Annotation {
	v := d.body.get("annotations")
	if v == nil {
		return nil
	}
	var out []Annotation
	for _, e := range v.entries {
		at, name, some := strings.Cut(e.name, ":")
		if !some {
			at, name = "manifest", e.name
		}
		for level := range strings.SplitSeq(at, ",") {
			if !slices.Contains(levels, level) {
				d.problems.Add(e.pos, suggestFrom(level, levels), "annotation %q has unknown level %q", e.name, level)
				continue
			}
			out = append(out, Annotation{level, name, e.value.text, e.value.pos})
		}
	}
	slices.SortFunc(out, func(a, b Annotation) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Level, b.Level))
	})
	return out
}

func (d decoder) attest() Attest {
	v := d.body.get("attest")
	if v == nil {
		return Attest{}
	}
	out := Attest{Pos: v.pos}
	switch text := strings.ToLower(v.get("provenance").str()); text {
	case "", "false":
	case "true":
		out.Provenance = "min"
	default:
		out.Provenance = text
	}
	if sbom := v.get("sbom"); sbom != nil && (sbom.kind == mapKind || sbom.isTrue()) {
		out.SBOM = cmp.Or(sbom.get("format").str(), sbomFormats[0])
	}
	return out
}

func (d decoder) outputs() []Output {
	var out []Output
	for _, item := range d.body.get("outputs").list() {
		if item.get("dest") != nil && sealed(d.problems, d.scope.opts, item.pos, "outputs", allowOutputs) {
			continue
		}
		o := Output{Type: item.get("type").str(), Pos: item.pos}
		dest := item.get("dest")
		switch needs := o.Type != "registry" && o.Type != "none"; {
		case needs && dest == nil:
			d.problems.Add(item.pos, "add dest: PATH", "an output of type %s needs a place", o.Type)
		case !needs && dest != nil:
			d.problems.Add(dest.pos, "take it out", "an output of type %s has no place", o.Type)
		case dest != nil:
			o.Dest = d.path(dest)
		}
		out = append(out, o)
	}
	return out
}

func (d decoder) hooks(key string) []Hook {
	var out []Hook
	for _, item := range d.body.get("hooks").get(key).list() {
		if sealed(d.problems, d.scope.opts, item.pos, "hooks", allowHooks) {
			continue
		}
		run := item.get("run")
		h := Hook{Command: d.command(run), When: OnSuccess, Platforms: d.platforms(item.get("platforms")), Always: item.get("always").isTrue()}
		if when := item.get("when"); when != nil {
			h.When = HookTime(when.text)
		}
		for _, g := range item.get("inputs").list() {
			h.Inputs = append(h.Inputs, d.pattern(g))
		}
		if key == "before" && slices.ContainsFunc(run.list(), func(v *value) bool { return HasLate(v.text) }) {
			d.problems.Add(run.pos, "move it to after", "a hook before the build cannot know what comes of it")
		}
		out = append(out, h)
	}
	return out
}

var sizeText = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?)([KMGT]?)(i?)[bB]?$`)

// resources reads a number of CPUs, 2, 0.5 or 500m, and a size, 4Gi, 512M or bytes.
func (d decoder) resources() Resources {
	var out Resources
	v := d.body.get("resources")
	if cpu := v.get("cpu"); cpu != nil {
		text, milli := strings.CutSuffix(cpu.text, "m")
		n, err := strconv.ParseFloat(text, 64)
		if !milli {
			n *= 1000
		}
		if err != nil || !(n >= 1 && n < 1e7) {
			d.problems.Add(cpu.pos, "write 2, 0.5 or 500m", "%q is not a number of CPUs", cpu.text)
		} else {
			out.MilliCPU = int(n)
		}
	}
	if memory := v.get("memory"); memory != nil {
		m := sizeText.FindStringSubmatch(memory.text)
		var n float64
		if m != nil {
			n, _ = strconv.ParseFloat(m[1], 64) // digits
			unit := 1000.0
			if m[3] != "" {
				unit = 1024
			}
			n *= math.Pow(unit, float64(strings.Index(" KMGT", cmp.Or(m[2], " "))))
		}
		if !(n >= 1 && n < 1<<60) {
			d.problems.Add(memory.pos, "write 512Mi or 4Gi", "%q is not a size", memory.text)
		} else {
			out.Memory = int64(n)
		}
	}
	return out
}

var viaText = regexp.MustCompile(`^(kubectl|docker|compose):.+$`)

func (d decoder) onSuccess() Command {
	if run := d.body.get("watch").get("onSuccess").get("run"); run != nil {
		return d.command(run)
	}
	return Command{}
}

func (d decoder) rules() []WatchRule {
	var out []WatchRule
	for _, item := range d.body.get("watch").get("rules").list() {
		r := WatchRule{Paths: item.get("paths").strings(), Action: item.get("action").str(), To: item.get("to").str(), Via: item.get("via").str(), Pos: item.pos}
		if exec := item.get("exec"); exec != nil && !sealed(d.problems, d.scope.opts, exec.pos, "commands", allowHooks) {
			r.Exec = d.command(exec)
		}
		switch sync := r.Action == "sync"; {
		case sync && r.To == "":
			d.problems.Add(item.pos, "add to: DIRECTORY", "a rule that syncs needs a place in the container")
		case !sync && (r.To != "" || r.Via != "" || item.get("exec") != nil):
			d.problems.Add(item.pos, "write action: sync, or take them out", "to, via and exec are for rules that sync")
		}
		if via := item.get("via"); via != nil && !viaText.MatchString(via.text) {
			d.problems.Add(via.pos, "write kubectl:deploy/web, docker:CONTAINER or compose:SERVICE", "%q does not say where the image runs", via.text)
		}
		out = append(out, r)
	}
	return out
}
