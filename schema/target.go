package schema

import (
	"cmp"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"kaniko-build/schema/diag"
)

// targets resolves every target.
func (p *parser) targets(m *Manifest) []Target {
	section := p.root.get("targets")
	if section == nil {
		return nil
	}
	p.checkParents("defaults", p.root.get("defaults"))
	if templates := p.root.get("templates"); templates != nil {
		for _, e := range templates.entries {
			p.checkParents(e.name, e.value)
			p.checkCircle(e.name)
		}
	}
	out := make([]Target, 0, len(section.entries))
	for _, e := range section.entries {
		p.checkParents(e.name, e.value)
		t, ok := p.target(e)
		if !ok {
			break
		}
		out = append(out, t)
	}
	return out
}

const valueCost = 100 // bytes that a value takes, about

// checkParents reports names in extends that are no template.
func (p *parser) checkParents(name string, body *value) {
	extends := body.get("extends")
	if extends == nil {
		return
	}
	if name == "defaults" {
		p.problems.Add(extends.pos, "", "defaults cannot extend anything: they are the first parent of every target")
		return
	}
	for _, parent := range extends.list() {
		d, known := p.declared[parent.text]
		switch {
		case hasReference(parent.text):
			p.problems.Add(parent.pos, "write the name itself", "extends cannot hold a reference")
		case !known:
			p.problems.Add(parent.pos, diag.Suggest(parent.text, p.namesOf("template")), "%q extends unknown template %q", name, parent.text)
		case d.what != "template":
			p.problems.Add(parent.pos, "move what they share into a template", "%q extends %q, which is a %s", name, parent.text, d.what)
		}
	}
}

// checkCircle reports a template that is its own ancestor, once for each circle.
func (p *parser) checkCircle(start string) {
	var walk func(name string, path []string) bool
	seen := map[string]bool{}
	walk = func(name string, path []string) bool {
		path = append(path, name)
		for _, parent := range p.template(name).get("extends").list() {
			if parent.text == start && start == slices.Min(path) {
				p.problems.Add(parent.pos, "", "templates extend each other: %s", strings.Join(append(path, start), " -> "))
				return true
			}
			if !seen[parent.text] {
				seen[parent.text] = true
				if walk(parent.text, path) {
					return true
				}
			}
		}
		return false
	}
	walk(start, nil)
}

func (p *parser) template(name string) *value { return p.root.get("templates").get(name) }

// bodies is everything that makes a target, weakest first. A template counts
// where it is first met, so that one shared by two parents does not undo what the
// first of them says.
func (p *parser) bodies(own entry) []*value {
	out := []*value{builtins(own), p.root.get("defaults")}
	met := map[string]bool{}
	var add func(body *value)
	add = func(body *value) {
		for _, parent := range body.get("extends").list() {
			if !met[parent.text] {
				met[parent.text] = true
				add(p.template(parent.text))
			}
		}
		out = append(out, body)
	}
	add(own.value)
	return out
}

// builtins is what every target has if nobody says otherwise, and what key+
// adds to.
func builtins(target entry) *value {
	return newMap(target.pos, []entry{{"image", target.pos, newText(target.pos, "${target.base}")}})
}

// inherited is a body without the keys that are only its own.
func inherited(body *value) *value {
	if body == nil || body.kind != mapKind {
		return nil
	}
	return newMap(body.pos, slices.DeleteFunc(slices.Clone(body.entries), func(e entry) bool {
		f := bodyShape.field(strings.TrimRight(e.name, "+-"))
		return f == nil || f.own
	}))
}

// without is a mapping without some keys.
func without(v *value, keys ...string) *value {
	return newMap(v.pos, slices.DeleteFunc(slices.Clone(v.entries), func(e entry) bool { return slices.Contains(keys, e.name) }))
}

// target merges, expands and decodes one target. It is not ok when the budget is
// used up.
func (p *parser) target(e entry) (t Target, ok bool) {
	names := targetScope{p.scope, e.name}
	x := expander{names, p.problems, p.scope.budget}
	m := merger{lone: x.lone}
	var body *value
	all := p.bodies(e)
	for _, parent := range all[:len(all)-1] {
		body = m.body(body, inherited(parent), bodyShape)
	}
	body = without(m.body(body, e.value, bodyShape), "extends", "groups") // read as written
	if !p.scope.budget.spend(body.size*valueCost, e.pos, p.problems) {
		return Target{}, false
	}
	body = bodyShape.check(x.expand(body), e.name, resolved, p.problems)
	d := decoder{parser: p, body: body}
	return d.target(e), true
}

// decoder turns a resolved body into a Target.
type decoder struct {
	*parser
	body *value
}

func (d decoder) target(e entry) Target {
	b := d.body
	t := Target{
		Name: e.name, Pos: e.pos,
		Context:   path.Dir(e.pos.File),
		Stage:     b.get("stage").str(),
		Args:      texts(b.get("args")),
		Contexts:  d.contexts(),
		Refs:      d.refs(e),
		Labels:    texts(b.get("labels")),
		Needs:     d.named("needs"),
		Internal:  b.get("internal").isTrue(),
		Platforms: d.platforms(),
		Secrets:   d.grants(),
		SSH:       d.named("ssh"),
	}
	if c := b.get("context"); c != nil {
		t.Context, t.ContextPos = d.context(c), c.pos
	}
	d.dockerfile(&t)
	d.noCache(&t)
	t.Executor = d.executor()
	d.cache(&t)
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

func (d decoder) named(key string) []Named {
	var out []Named
	for _, item := range d.body.get(key).list() {
		if !slices.ContainsFunc(out, func(n Named) bool { return n.Name == item.text }) {
			out = append(out, Named{item.text, item.pos})
		}
	}
	return out
}

// context is the directory of the main context.
func (d decoder) context(v *value) string {
	for _, prefix := range []string{"git:", "http:", "https:", "git@", "ssh:"} {
		if strings.HasPrefix(v.text, prefix) {
			d.problems.Add(v.pos, "check it out, and name the directory", "a context from %q is not built yet", strings.TrimRight(prefix, ":@"))
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
	}
	if level := b.get("compressionLevel"); level != nil {
		e.CompressionLevel, _ = strconv.Atoi(level.text) // the shape lets only short numbers through
	}
	return e
}

// cache sets where results are kept outside. Any mapping turns it on.
func (d decoder) cache(t *Target) {
	v := d.body.get("cache")
	if v == nil || v.kind != mapKind {
		return
	}
	c := &Cache{Write: WriteAuto, Run: true, Copy: true, Pos: v.pos}
	if repo := v.get("repo"); repo != nil {
		c.Repo = d.cachePlace(repo)
	}
	for _, from := range v.get("from").list() {
		c.From = append(c.From, d.cachePlace(from))
	}
	if ttl := v.get("ttl"); ttl != nil {
		var err error
		if c.TTL, err = time.ParseDuration(ttl.text); err != nil || c.TTL <= 0 {
			d.problems.Add(ttl.pos, "write hours or minutes, such as 336h", "%q is not how old a result may be", ttl.text)
		}
	}
	if w := v.get("write"); w != nil {
		c.Write = WriteMode(strings.ToLower(w.text))
	}
	if run := v.get("run"); run != nil {
		c.Run = run.isTrue()
	}
	if copies := v.get("copy"); copies != nil {
		c.Copy = copies.isTrue()
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
		c.Kind, c.Value = d.namedContext(e.value)
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b NamedContext) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func (d decoder) namedContext(v *value) (ContextKind, string) {
	scheme, rest, ok := strings.Cut(v.text, ":")
	if !ok || strings.ContainsAny(scheme, "/.") {
		return ContextDir, d.path(v)
	}
	switch scheme {
	case "target":
		return ContextTarget, rest
	case "target?":
		d.problems.Add(v.pos, "write target:"+rest, "weak edges (target?:) are not built yet")
		return ContextTarget, rest
	case "image":
		r, ok := ParseRef(rest)
		if !ok {
			d.problems.Add(v.pos, "", "%q is not the name of an image", rest)
		}
		return ContextImage, r.String()
	case "oci":
		w := *v
		w.text = rest
		return ContextOCI, d.path(&w)
	case "git":
		return ContextGit, rest
	case "http", "https":
		return ContextHTTP, v.text
	default:
		d.problems.Add(v.pos, suggestFrom(scheme, []string{"target", "image", "oci", "git", "http", "https"}), "unknown kind of context %q", scheme+":")
		return ContextDir, "."
	}
}

// refs is each image with each tag. Empty tags and repeats drop out; when no tag
// is left it is latest. A tag with "/" or ":" is a ref of its own.
func (d decoder) refs(e entry) []Named {
	if !nameText.MatchString(e.name) {
		return nil // told already; the name is the image of most targets
	}
	images := d.body.get("image").list()
	if len(images) == 0 {
		images = []*value{newText(e.pos, e.name)} // image: null leaves what is built in
	}
	var out []Named
	have := map[string]bool{}
	add := func(ref string, pos diag.Pos) {
		r, ok := ParseRef(ref)
		if !ok || r.Tag == "" || r.Digest != "" {
			d.problems.Add(pos, "write repository:tag", "%q is not an image with a tag", ref)
			return
		}
		if !have[r.String()] {
			have[r.String()] = true
			out = append(out, Named{r.String(), pos})
		}
	}
	var tags []*value
	for _, item := range d.body.get("tags").list() {
		tag := item
		if item.kind == mapKind {
			tag = item.get("tag")
		}
		switch {
		case tag == nil || tag.text == "":
		case strings.ContainsAny(tag.text, "/:"):
			add(tag.text, tag.pos)
		case !isTag(tag.text):
			d.problems.Add(tag.pos, "letters, digits, _ . - and at most 128 of them; ${...|slug} makes a tag of any text", "%q is not a tag", tag.text)
		default:
			tags = append(tags, tag)
		}
	}
	if len(tags) == 0 && len(out) == 0 {
		tags = []*value{nil}
	}
	if len(images)*len(tags) > maxRefs {
		d.problems.Add(e.pos, "", "target %q has %d images with %d tags, which is more than %d in all", e.name, len(images), len(tags), maxRefs)
		return nil
	}
	for _, image := range images {
		r, ok := ParseRef(image.text)
		if !ok {
			d.problems.Add(image.pos, "lower-case letters and digits, such as registry.example.com/shop/api", "%q is not the name of a repository", image.text)
			continue
		}
		if r.Tag != "" || r.Digest != "" {
			d.problems.Add(image.pos, "put the tag into tags", "image %q names more than a repository", image.text)
			continue
		}
		for _, tag := range tags {
			if tag == nil {
				add(r.Repository+":latest", image.pos)
				continue
			}
			add(r.Repository+":"+tag.text, tag.pos)
		}
	}
	return out
}

var platformText = regexp.MustCompile(`^[a-z0-9_]+/[a-z0-9_]+(/[a-z0-9_.]+)?$`)

func (d decoder) platforms() []string {
	var out []string
	for _, item := range d.body.get("platforms").list() {
		platform := NormalPlatform(item.text)
		switch {
		case !platformText.MatchString(platform):
			d.problems.Add(item.pos, "write os/architecture, such as linux/amd64", "%q is not a platform", item.text)
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
		g := Grant{ID: itemID(item), Pos: item.pos}
		g.As = cmp.Or(item.get("as").str(), g.ID)
		if i := slices.IndexFunc(out, func(old Grant) bool { return old.As == g.As }); i >= 0 {
			d.problems.Add(item.pos, "", "two secrets are mounted as %q", g.As)
			continue
		}
		out = append(out, g)
	}
	return out
}
