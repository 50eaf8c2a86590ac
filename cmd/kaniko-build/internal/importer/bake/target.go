package bake

import (
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"kaniko-build/cmd/kaniko-build/internal/importer"
)

// expandMatrix decides how a matrix is written: as one, or as a target for each of
// its cells where names or what is in a cell have no other form.
func (s *source) expandMatrix(t *target) {
	axes, rows, ok := s.matrix(t)
	if axes == nil {
		return
	}
	if !ok {
		s.draft.Drop(pos(t.attrs["matrix"].Range), "", "target %q: a matrix that has no values", t.name)
		return
	}
	name := t.attrs["name"]
	for _, bound := range rows {
		c := cell{bound: bound}
		if name != nil {
			c.name = (&scope{source: s, bound: bound}).symbol(name.Expr).flat().now()
		}
		t.cells = append(t.cells, c)
	}
	if variant, ok := s.variant(t, axes); ok && s.fits(t, axes, variant) {
		for _, c := range t.cells {
			t.names = append(t.names, c.name)
		}
		t.cells = nil
		return
	}
	delete(s.taken, t.ours) // it is a group
	for i := range t.cells {
		c := &t.cells[i]
		c.ours = s.taken.Take(c.name)
		if c.ours != c.name {
			s.draft.Tell(pos(t.pos), "", "target %q is called %q", c.name, c.ours)
		}
	}
}

// matrix is the axes of a matrix and the values of each cell; ok is false if there
// are none.
func (s *source) matrix(t *target) (axes []importer.Axis, rows []map[string]symbol, ok bool) {
	a := t.attrs["matrix"]
	if a == nil {
		return nil, nil, true
	}
	m := (&scope{source: s}).symbol(a.Expr)
	rows = []map[string]symbol{{}}
	for i, name := range m.keys {
		values := m.items[i]
		if values.kind != list {
			values = constant(values.flat().value)
		}
		axis := importer.Axis{Name: name}
		var next []map[string]symbol
		for _, row := range rows {
			for _, v := range values.items {
				v = v.flat()
				bound := maps.Clone(row)
				bound[name] = v
				next = append(next, bound)
			}
		}
		for _, v := range values.items {
			axis.Values = append(axis.Values, s.leaf(v.flat()))
		}
		rows, axes = next, append(axes, axis)
	}
	return axes, rows, len(rows) > 0 && len(axes) > 0
}

// variant is the name of a cell behind that of its target; ok is false if names
// are made in another way.
func (s *source) variant(t *target, axes []importer.Axis) (out string, ok bool) {
	for _, a := range axes {
		if !goodAxis(a) {
			return "", false
		}
	}
	a := t.attrs["name"]
	if a == nil {
		return "", false
	}
	sc := s.within(t, axes)
	name := sc.symbol(a.Expr)
	out, ok = strings.CutPrefix(name.text, t.name+"-")
	if name.kind != text || name.source != "" || sc.bad || !ok || t.ours != t.name {
		return "", false
	}
	for _, c := range t.cells {
		if importer.Name(c.name) != c.name {
			return "", false
		}
	}
	return out, true
}

// goodAxis tells whether ours can have a matrix by this name with these values.
func goodAxis(a importer.Axis) bool {
	return a.Name != "include" && a.Name != "exclude" && importer.Name(a.Name) == strings.ToLower(a.Name) &&
		!slices.ContainsFunc(a.Values, func(t importer.Text) bool { return t.Value == "" || t.Null || importer.HasReference(t.Value) })
}

// within is the scope of a body for all cells at once.
func (s *source) within(t *target, axes []importer.Axis) *scope {
	sc := &scope{source: s, bound: map[string]symbol{}}
	for _, a := range axes {
		v := symbol{text: "${matrix." + a.Name + "}"}
		if len(t.cells) > 0 {
			v.value = t.cells[0].bound[a.Name].value
		}
		sc.bound[a.Name] = v
		sc.varying = append(sc.varying, a.Name)
	}
	return sc
}

// fits tells whether a body says the same of all cells, with references.
func (s *source) fits(t *target, axes []importer.Axis, _ string) bool {
	notes, evaluated := s.draft.Notes, s.draft.Evaluated
	defer func() { s.draft.Notes, s.draft.Evaluated = notes, evaluated }()
	sc := s.within(t, axes)
	for key := range t.attrs {
		if key == "matrix" || key == "name" {
			continue
		}
		out := sc.joined(t.every(key))
		if key == "inherits" && strings.Contains(everything(out), "${matrix.") {
			return false
		}
		if key != "tags" && chooses(out) {
			return false
		}
		if key == "contexts" && strings.Contains(everything(out), "target:") && strings.Contains(everything(out), "${matrix.") {
			return false
		}
	}
	for _, axis := range axes { // all values of one type: what is compared with them is text
		for _, c := range t.cells {
			if v := c.bound[axis.Name]; v.kind != text || v.value == cty.NilVal {
				return false
			}
		}
	}
	return !sc.bad
}

// chooses tells whether a symbol depends on a condition of the matrix.
func chooses(s symbol) bool {
	return s.kind == choice && strings.Contains(s.cond, "matrix.") || slices.ContainsFunc(s.items, chooses)
}

// everything is all texts of a symbol.
func everything(s symbol) string {
	out := s.text
	for _, item := range s.items {
		out += "\n" + everything(item)
	}
	return out
}

// fill makes targets and templates.
func (s *source) fill() {
	for _, t := range s.targets {
		switch {
		case t.call != "":
			s.draft.Drop(pos(t.attrs["call"].NameRange), "kaniko-build check does that for all targets", "target %q, which calls %q", t.name, t.call)
			if t.lent != "" {
				s.draft.Templates = append(s.draft.Templates, s.body(t, nil, t.lent))
			}
		case t.ours == "":
			body := s.body(t, nil, t.lent)
			body.Comment = t.comment
			s.draft.Templates = append(s.draft.Templates, body)
		case t.lent != "":
			s.draft.Templates = append(s.draft.Templates, s.body(t, nil, t.lent))
			s.draft.Targets = append(s.draft.Targets, importer.Target{Name: t.ours, Extends: []string{t.lent}, Comment: t.comment})
		case t.cells != nil:
			for i, c := range t.cells {
				body := s.body(t, c.bound, c.ours)
				if i == 0 {
					body.Comment = t.comment
				}
				s.draft.Targets = append(s.draft.Targets, body)
			}
		default:
			body := s.body(t, nil, t.ours)
			body.Comment = t.comment
			s.draft.Targets = append(s.draft.Targets, body)
		}
	}
	pushed := func(t importer.Target) bool {
		return slices.ContainsFunc(t.Outputs, func(o importer.Output) bool { return o.Type == "registry" })
	}
	all, some := true, false
	for _, t := range s.draft.Targets {
		if len(t.Extends) == 0 {
			all, some = all && pushed(t), some || pushed(t)
		} else {
			all = false
		}
	}
	s.draft.Push = all && some
	if s.draft.Push {
		for i := range s.draft.Targets {
			t := &s.draft.Targets[i]
			t.Outputs = slices.DeleteFunc(t.Outputs, func(o importer.Output) bool { return o.Type == "registry" })
		}
	}
}

// known are the attributes that become something, in no order.
var refused = map[string]string{
	"entitlements": "nothing here needs them; what a RUN may do is the same for all", "extra-hosts": "", "shm-size": "", "ulimits": "",
	"policy": "policy: in the manifest has rules of its own", "resources": "resources: limits a node",
}

// body makes a target or template of a block, in one cell of its matrix if there
// is one.
func (s *source) body(t *target, bound map[string]symbol, name string) importer.Target {
	out := importer.Target{Name: name, Pos: pos(t.pos)}
	sc := &scope{source: s, bound: bound}
	if bound == nil && t.attrs["matrix"] != nil {
		axes, rows, _ := s.matrix(t)
		for _, row := range rows {
			t.cells = append(t.cells, cell{bound: row})
		}
		sc = s.within(t, axes)
		t.cells = nil
		out.Matrix = axes
		if a := t.attrs["name"]; a != nil {
			v, _ := strings.CutPrefix(sc.symbol(a.Expr).text, t.name+"-")
			var parts []string
			for _, axis := range axes {
				parts = append(parts, "${matrix."+axis.Name+"}")
			}
			if v != strings.Join(parts, "-") {
				out.Variant = importer.Text{Value: v}
			}
		}
		suffix := ""
		out.TagSuffix = &suffix
	}
	b := builder{s, sc, t, &out}
	var names []string
	for key := range t.attrs {
		names = append(names, key)
	}
	slices.SortFunc(names, func(a, b string) int { return s.before(t.attrs[a].Range, t.attrs[b].Range) })
	for _, a := range t.every("inherits") {
		b.inherits(a)
	}
	if a := t.attrs["context"]; a != nil {
		b.context(a)
	}
	for _, key := range names {
		b.attribute(key, t.attrs[key], t.every(key))
	}
	b.takeAway()
	short := func(t importer.Tag) bool { return !strings.ContainsAny(withoutReferences(t.Value), "/:") }
	if out.TagSuffix != nil && !slices.ContainsFunc(out.Tags, short) && len(out.Images) == 0 && out.TagList.Value == "" {
		out.TagSuffix = nil // whole names have none anyway, and without a tag cells have to differ
	}
	return out
}

// takeAway says null where a target takes what it inherits away by saying less.
func (b *builder) takeAway() {
	if len(b.out.Extends) == 0 {
		return
	}
	inherited := func(key string) bool {
		return slices.ContainsFunc(b.parents(b.t, 0), func(p *target) bool { return p.attrs[key] != nil })
	}
	for key, f := range map[string]*importer.Text{"target": &b.out.Stage, "network": &b.out.Network, "dockerfile-inline": &b.out.Inline} {
		if b.t.attrs[key] != nil && f.Value == "" && inherited(key) {
			f.Null = true
		}
	}
	for _, f := range []struct {
		key  string
		some bool
		ours []string
	}{
		{"tags", len(b.out.Images)+len(b.out.Tags) > 0 || b.out.TagList.Value != "", []string{"image", "tags"}},
		{"platforms", len(b.out.Platforms) > 0 || b.out.Platform.Value != "", []string{"platforms"}},
		{"output", len(b.out.Outputs) > 0, []string{"outputs"}},
		{"no-cache", b.out.NoCache, []string{"noCache"}},
	} {
		a := b.t.attrs[f.key]
		if a == nil || f.some || !inherited(f.key) || b.sc.symbol(a.Expr).flat().kind == null {
			continue
		}
		b.out.Gone = append(b.out.Gone, f.ours...)
	}
}

// inherited is what a key of an attribute is by what a target inherits from; ok is false
// if it is not there, or no plain text.
func (b *builder) inherited(t *target, attribute, key string, depth int) (was string, ok bool) {
	if depth > maxDepth {
		return "", false
	}
	for _, a := range slices.Backward(t.every("inherits")) {
		for _, name := range slices.Backward(b.inCells(t, a)) {
			p := b.target(name)
			if p == nil || p == t {
				continue
			}
			if all := p.every(attribute); all != nil {
				v := (&scope{source: b.source}).joined(all).flat()
				if i := slices.Index(v.keys, key); i >= 0 && v.items[i].flat().kind != null {
					item := v.items[i].flat()
					return item.text, item.kind == text && !importer.HasReference(item.text)
				}
			}
			if was, ok := b.inherited(p, attribute, key, depth+1); ok {
				return was, true
			}
		}
	}
	return "", false
}

// parents is what a target inherits from, however far.
func (b *builder) parents(t *target, depth int) []*target {
	var out []*target
	if depth > maxDepth {
		return nil
	}
	for _, a := range t.every("inherits") {
		names := b.inCells(t, a)
		if t == b.t {
			names = b.sc.symbol(a.Expr).nows()
		}
		for _, name := range names {
			if p := b.target(name); p != nil && p != b.t {
				out = append(append(out, p), b.parents(p, depth+1)...)
			}
		}
	}
	return out
}

var anyReference = regexp.MustCompile(`\$\{[^}]*\}`)

// withoutReferences is a text with nothing in the place of its references.
func withoutReferences(s string) string { return anyReference.ReplaceAllString(s, "") }

// builder fills one body.
type builder struct {
	*source
	sc  *scope
	t   *target
	out *importer.Target
}

func (b *builder) inherits(a *hcl.Attribute) {
	v := b.sc.symbol(a.Expr)
	for _, item := range v.items {
		name := item.flat().now()
		if parent := b.target(name); parent != nil && parent.lent != "" {
			b.out.Extends = append(b.out.Extends, parent.lent)
			continue
		}
		b.draft.Drop(pos(a.Range), "", "target %q: it inherits from %q, which is no target", b.t.name, name)
	}
}

// drop notes that an attribute is not in the manifest.
func (b *builder) drop(a *hcl.Attribute, hint, why string, args ...any) {
	b.draft.Drop(pos(a.NameRange), hint, "target %q: "+why, append([]any{b.t.name}, args...)...)
}

// attribute writes what an attribute says: a, with those of weaker blocks all.
func (b *builder) attribute(key string, a *hcl.Attribute, all []*hcl.Attribute) {
	switch key {
	case "matrix", "name", "inherits", "context":
		return
	}
	v := b.sc.joined(all)
	if f := v.flat(); f.kind == null && key != "tags" {
		if f.source != "" {
			b.draft.Evaluated++
		}
		return // as if it were not there
	}
	switch key {
	case "description":
		if d := v.flat().now(); b.t.comment == "" {
			b.t.comment = d
		} else if !strings.Contains(b.t.comment, d) {
			b.t.comment += "\n" + d
		}
	case "dockerfile":
		b.dockerfile(v)
	case "dockerfile-inline":
		b.out.Inline = b.leaf(v)
	case "target":
		b.out.Stage = b.leaf(v)
	case "args":
		b.out.Args = b.entries(key, v)
	case "labels":
		b.out.Labels = b.entries(key, v)
	case "contexts":
		b.contexts(a, v)
	case "tags":
		b.tags(a, v)
	case "platforms":
		if v.kind == text && v.listRef {
			b.out.Platform = importer.Text{Value: v.text}
			return
		}
		for _, p := range b.texts(v) {
			if p.Value != "local" {
				b.out.Platforms = append(b.out.Platforms, p)
			}
		}
	case "annotations":
		b.annotations(a, v)
	case "secret":
		for _, item := range b.items(v) {
			b.secrets(a, item)
		}
	case "ssh":
		for _, item := range b.items(v) {
			b.ssh(item)
		}
	case "cache-from", "cache-to":
		b.cache(key, a, v)
	case "output":
		for _, item := range b.items(v) {
			if item = item.flat(); item.kind == text && item.now() == "" {
				if item.text != "" {
					b.draft.Tell(pos(a.NameRange), "", "target %q: an output that is empty by default", b.t.name)
				}
				continue
			}
			b.output(a, item)
		}
	case "attest":
		for _, item := range b.items(v) {
			b.attest(a, item)
		}
	case "network":
		if n := b.leaf(v); n.Value != "default" {
			b.out.Network = n
		}
	case "no-cache":
		b.out.NoCache = v.flat().now() == "true"
	case "no-cache-filter":
		b.out.NoStages = b.texts(v)
	case "pull":
		if v.flat().now() == "true" {
			b.draft.Tell(pos(a.NameRange), "--pull fails if a registry cannot be asked", "registries are always asked what a tag is now: no pull needed")
		}
	case "call":
	default:
		hint, known := refused[key]
		switch {
		case known && len(v.items) == 0 && v.kind == list, v.kind == text && v.flat().now() == "":
		case known:
			b.drop(a, hint, "%s", key)
		default:
			b.drop(a, "", "unknown attribute %q", key)
		}
	}
}

// leaf is a text of the manifest for a symbol, and counts what was evaluated.
func (s *source) leaf(v symbol) importer.Text {
	f := v.flat()
	if f.source != "" {
		s.draft.Evaluated++
	}
	if f.kind == null {
		return importer.Text{Null: true, Source: f.source}
	}
	if f.kind != text || f.listRef {
		c := constant(f.value)
		return importer.Text{Value: c.text, Source: f.source}
	}
	return importer.Text{Value: f.text, Source: f.source}
}

// texts is a list of texts, without empty ones.
func (s *source) texts(v symbol) []importer.Text {
	var out []importer.Text
	for _, item := range s.items(v) {
		if t := s.leaf(item); t.Value != "" {
			out = append(out, t)
		}
	}
	return out
}

// items is the items of a list, or a single one; those of a reference as they are
// by default.
func (s *source) items(v symbol) []symbol {
	v = v.flat()
	switch {
	case v.kind == list:
		return v.items
	case v.kind == text && v.listRef:
		return constant(v.value).from(strings.Trim(v.text, "${}")).items
	case v.kind == null:
		return nil
	}
	return []symbol{v}
}

// entries is a mapping of texts, of an attribute.
func (b *builder) entries(attribute string, v symbol) []importer.Entry {
	v = v.flat()
	var out []importer.Entry
	for i, key := range v.keys {
		e := importer.Entry{Key: key, Text: b.leaf(v.items[i])}
		if e.Null && len(b.out.Extends) > 0 {
			continue // it takes nothing away there
		}
		if v.items[i].flat().isNull() { // nor does a variable that is null
			if was, inherited := b.inherited(b.t, attribute, key, 0); inherited {
				e.Value = orElse(e.Value, was)
			}
		}
		if j := slices.IndexFunc(out, func(old importer.Entry) bool { return old.Key == key }); j >= 0 {
			out[j] = e
			continue
		}
		out = append(out, e)
	}
	return out
}

func (b *builder) context(a *hcl.Attribute) {
	v := b.sc.symbol(a.Expr).flat()
	if v.kind == null {
		return
	}
	t := b.leaf(v)
	t.Value = b.place(t.Value, v.now())
	if t.Value != "." || len(b.out.Extends) > 0 || t.Source != "" {
		b.out.Context = t
	}
}

// place is a context as the manifest writes it. now is what it is by default.
func (b *builder) place(at, now string) string {
	for _, prefix := range []string{"cwd://"} {
		at, now = strings.TrimPrefix(at, prefix), strings.TrimPrefix(now, prefix)
	}
	if out, ok := importer.Remote(at); ok {
		return out
	}
	if _, ok := importer.Remote(now); ok {
		return at
	}
	return b.paths.Rel(at)
}

func (b *builder) dockerfile(v symbol) {
	v = v.flat()
	t := b.leaf(v)
	if rest, ok := strings.CutPrefix(t.Value, "cwd://"); ok {
		t.Value = "//" + b.paths.Rel(rest)
	}
	if rest, ok := strings.CutPrefix(t.Value, "./"); ok {
		t.Value = path.Clean(rest)
	}
	if t.Value != "Dockerfile" || len(b.out.Extends) > 0 {
		b.out.Dockerfile = t
	}
}

func (b *builder) contexts(a *hcl.Attribute, v symbol) {
	v = v.flat()
	for i, name := range v.keys {
		item := v.items[i].flat()
		t := b.leaf(item)
		now := item.now()
		switch scheme, rest, _ := strings.Cut(t.Value, ":"); {
		case t.Null:
			continue
		case scheme == "target":
			found := b.oursOf(rest)
			switch {
			case importer.HasReference(rest):
				if found = b.oursOf(strings.TrimPrefix(now, "target:")); len(found) == 1 {
					t = importer.Text{Value: "target:" + found[0], Source: b.sc.code(a.Expr)}
					b.draft.Evaluated++
				}
			case len(found) == 1:
				t.Value = "target:" + found[0]
			default:
				b.drop(a, "", "its context %q is %q, which is no target", name, t.Value)
				continue
			}
		case strings.HasPrefix(t.Value, "docker-image://"):
			t.Value = "image:" + strings.TrimPrefix(t.Value, "docker-image://")
		case strings.HasPrefix(now, "docker-image://"):
			t.Value = "image:" + importer.Literal(strings.TrimPrefix(now, "docker-image://"))
		case strings.HasPrefix(t.Value, "oci-layout://"):
			dir, _, _ := strings.Cut(strings.TrimPrefix(t.Value, "oci-layout://"), "@")
			t.Value = "oci:" + b.paths.Rel(dir)
		default:
			t.Value = b.place(t.Value, now)
		}
		b.out.Contexts = append(b.out.Contexts, importer.Entry{Key: name, Text: t})
	}
}

func (b *builder) tags(a *hcl.Attribute, v symbol) {
	if v.kind == text && v.listRef {
		b.out.TagList = importer.Text{Value: v.text}
		return
	}
	if v.kind == choice {
		v = v.flatList()
	}
	if v.kind == choice {
		v = v.flat()
	}
	var names []importer.Full
	var add func(v symbol, cond string)
	add = func(v symbol, cond string) {
		if v.kind == choice {
			with := func(c string) string {
				if cond == "" {
					return c
				}
				return enclosed("&&", cond) + " && " + enclosed("&&", c)
			}
			add(v.items[0], with(v.cond))
			add(v.items[1], with(negate(v.cond)))
			return
		}
		if v.kind == list {
			for _, item := range v.items {
				add(item, cond)
			}
			return
		}
		t := b.leaf(v)
		if t.Value == "" || t.Null {
			return
		}
		if t.Source != "" && !importer.HasReference(t.Value) && !importer.IsImage(v.now()) { // with the defaults it is none
			b.drop(a, "write it by hand: "+t.Source, "the tag %q", v.now())
			return
		}
		names = append(names, importer.Full{Text: t, Now: v.now(), If: cond})
	}
	for _, item := range b.items(v) {
		add(item, "")
	}
	b.out.Named(names)
	for _, n := range names {
		if n.If == "" && n.Now != "" && !importer.HasReference(n.Value) && !importer.IsImage(n.Now) {
			b.draft.Tell(b.out.Pos, "", "target %q: %q is no name of an image", b.t.name, n.Now)
		}
	}
}

func (b *builder) annotations(a *hcl.Attribute, v symbol) {
	for _, item := range b.items(v) {
		t := b.leaf(item)
		key, value, ok := strings.Cut(t.Value, "=")
		if !ok || strings.Contains(key, "[") || strings.Contains(key, "${") {
			if t.Value != "" {
				b.drop(a, "", "annotation %q", t.Value)
			}
			continue
		}
		b.out.Annotated = append(b.out.Annotated, importer.Entry{Key: key, Text: importer.Text{Value: value, Source: t.Source}})
	}
}

// fields is the fields of type=x,key=value, or of an object.
func (b *builder) fields(v symbol) map[string]importer.Text {
	v = v.flat()
	out := map[string]importer.Text{}
	if v.kind == dict {
		for i, key := range v.keys {
			if t := b.leaf(v.items[i]); t.Value != "" {
				out[key] = t
			}
		}
		return out
	}
	t := b.leaf(v)
	if name, ok := lone(t.Value); ok && strings.Contains(v.now(), "=") { // all fields are in the variable
		t = importer.Text{Value: constant(v.value).text, Source: name}
		b.draft.Evaluated++
	}
	for field := range strings.SplitSeq(t.Value, ",") {
		key, value, ok := strings.Cut(field, "=")
		if !ok {
			out[""] = importer.Text{Value: field, Source: t.Source}
			continue
		}
		out[strings.TrimSpace(key)] = importer.Text{Value: value, Source: t.Source}
	}
	return out
}

func (b *builder) secrets(a *hcl.Attribute, v symbol) {
	f := b.fields(v)
	if len(f) == 0 || slices.ContainsFunc(v.items, func(s symbol) bool { return s.kind == null && s.value == cty.NilVal }) {
		return // the second was told
	}
	id := f["id"].Value
	if id == "" {
		id = f["env"].Value + f["src"].Value
	}
	src := f["src"].Value + f["source"].Value
	made := importer.Secret{ID: importer.Name(id), File: src, Env: f["env"].Value}
	switch {
	case made.Env != "":
		made.File = ""
	case f["type"].Value == "env":
		made.Env, made.File = firstOf(src, id), ""
	case src == "":
		made.Env = id // bake looks for a file of that name if it is not set
	case !strings.HasPrefix(src, "~") && !strings.HasPrefix(src, "/"):
		made.File = b.paths.Rel(src)
	}
	if id == "" {
		b.drop(a, "", "a secret without an id")
		return
	}
	b.out.Secrets = append(b.out.Secrets, b.grant(id, made))
}

// grant declares a secret, once, and lets a target use it as id.
func (s *source) grant(id string, made importer.Secret) importer.Grant {
	key := made.File + "\n" + made.Env + "\n" + made.ID
	old, known := s.secret[key]
	if !known {
		made.ID = s.agents.Take(id)
		s.secret[key], old = made, made
		s.draft.Secrets = append(s.draft.Secrets, made)
	}
	return importer.Grant{ID: old.ID, As: id}
}

func (b *builder) ssh(v symbol) {
	t := v.flat()
	id, keys := "", ""
	if t.kind == dict {
		f := b.fields(t)
		id, keys = f["id"].Value, f["paths"].Value
		for i, key := range t.keys {
			if key == "paths" {
				var all []string
				for _, p := range b.texts(t.items[i]) {
					all = append(all, p.Value)
				}
				keys = strings.Join(all, ",")
			}
		}
	} else {
		id, keys, _ = strings.Cut(b.leaf(t).Value, "=")
	}
	if id == "" {
		return
	}
	b.out.SSH = append(b.out.SSH, id)
	if keys == "" || slices.ContainsFunc(b.draft.SSH, func(s importer.SSH) bool { return s.ID == id }) {
		return
	}
	made := importer.SSH{ID: id}
	for k := range strings.SplitSeq(keys, ",") {
		if !strings.HasPrefix(k, "~") && !strings.HasPrefix(k, "/") {
			k = b.paths.Rel(k)
		}
		made.Keys = append(made.Keys, k)
	}
	b.draft.SSH = append(b.draft.SSH, made)
}

func (b *builder) cache(key string, a *hcl.Attribute, v symbol) {
	for _, item := range b.items(v) {
		if item.flat().kind == text && item.flat().now() == "" {
			b.draft.Tell(pos(a.NameRange), "", "target %q: %s that is empty by default", b.t.name, key)
			continue
		}
		f := b.fields(item)
		if len(f) == 0 {
			continue
		}
		if ref := f[""]; ref.Value != "" && f["type"].Value == "" && len(f) == 1 { // a name alone is a registry's
			f["type"], f["ref"] = importer.Text{Value: "registry"}, ref
		}
		place := f["ref"]
		switch f["type"].Value {
		case "registry":
			now := place.Value
			if f[""].Value != "" {
				now = item.flat().now()
			}
			var ok bool
			if place.Value, ok = importer.Place(place.Value, now); !ok {
				b.draft.Tell(pos(a.NameRange), "cache: {repo: ...} takes a name without a tag", "target %q: %s, whose tag is in a variable, is left out; nothing but the time of a build depends on it", b.t.name, key)
				continue
			}
		case "local":
			dir := firstOf(f["dest"].Value, f["src"].Value)
			place = importer.Text{Value: "oci:" + b.paths.Rel(dir)}
		default:
			b.draft.Tell(pos(a.NameRange), "cache: {repo: ...} keeps results in a registry", "target %q: %s of type %q is left out; nothing but the time of a build depends on it", b.t.name, key, f["type"].Value)
			continue
		}
		if place.Value == "" {
			continue
		}
		if b.out.Cache == nil {
			b.out.Cache = &importer.Cache{}
		}
		c := b.out.Cache
		switch {
		case key == "cache-to" && c.Repo.Value == "":
			c.Repo, c.Write = place, ""
			c.From = slices.DeleteFunc(c.From, func(t importer.Text) bool { return t.Value == place.Value })
		case key == "cache-to":
			b.draft.Tell(pos(a.NameRange), "", "target %q: results are kept in one cache, not in %q too", b.t.name, place.Value)
		case !b.keeps() && c.Repo.Value == "" && len(b.out.Extends) == 0:
			c.Repo, c.Write = place, "never"
		case c.Repo.Value != place.Value && !slices.ContainsFunc(c.From, func(t importer.Text) bool { return t.Value == place.Value }):
			c.From = append(c.From, place)
		}
	}
}

// keeps tells whether a target says where results are kept.
func (b *builder) keeps() bool {
	a := b.t.attrs["cache-to"]
	return a != nil && slices.ContainsFunc(b.sc.symbol(a.Expr).nows(), func(s string) bool { return s != "" })
}

func (b *builder) output(a *hcl.Attribute, v symbol) {
	f := b.fields(v)
	if len(f) == 0 {
		return
	}
	kind, dest := f["type"].Value, f["dest"]
	if bare := f[""].Value; bare != "" && kind == "" {
		kind, dest = "local", f[""]
		if bare == "-" {
			kind = "tar"
		}
	}
	o := importer.Output{Dest: dest}
	if name := f["name"]; name.Value != "" && b.t.attrs["tags"] == nil && (kind == "image" || kind == "registry") {
		b.out.Named([]importer.Full{{Text: name, Now: name.Value}}) // tags are stronger
	}
	switch kind {
	case "local", "tar", "oci", "docker":
		if dest.Value == "-" {
			b.drop(a, "kaniko-build build -o - writes one image to standard output", "an output to standard output")
			return
		}
		if dest.Value == "" {
			if kind != "docker" {
				b.drop(a, "", "an output of type %s without a place", kind)
			}
			return // the store has it
		}
		o.Type, o.Dest.Value = kind, b.paths.Rel(dest.Value)
	case "registry":
		o = importer.Output{Type: "registry"}
	case "image":
		if f["push"].Value != "true" {
			return // the store has it
		}
		o = importer.Output{Type: "registry"}
	case "cacheonly":
		o = importer.Output{Type: "none"}
	default:
		if importer.HasReference(kind) {
			b.drop(a, "write it for one type", "an output of type %s", kind)
			return
		}
		b.drop(a, "", "an output of type %q", kind)
		return
	}
	if f["compression"].Value == "zstd" {
		b.out.Executor = append(b.out.Executor, importer.Entry{Key: "compression", Text: importer.Plain("zstd")})
	}
	if f["rewrite-timestamp"].Value == "true" {
		b.out.Executor = append(b.out.Executor, importer.Entry{Key: "reproducible", Text: importer.Plain("true")})
	}
	if f["oci-mediatypes"].Value == "false" {
		b.out.Executor = append(b.out.Executor, importer.Entry{Key: "imageFormat", Text: importer.Plain("docker")})
	}
	if !slices.Contains(b.out.Outputs, o) {
		b.out.Outputs = append(b.out.Outputs, o)
	}
}

func (b *builder) attest(a *hcl.Attribute, v symbol) {
	f := b.fields(v)
	off := f["disabled"].Value == "true"
	switch f["type"].Value {
	case "provenance":
		b.out.Provenance = firstOf(f["mode"].Value, "min")
		if off {
			b.out.Provenance = ""
			if len(b.out.Extends) > 0 {
				b.out.Provenance = "false"
			}
		}
	case "sbom":
		b.out.SBOM, b.out.NoSBOM = !off, off && len(b.out.Extends) > 0
		if f["generator"].Value != "" {
			b.draft.Tell(pos(a.NameRange), "", "target %q: the list of packages is made by this program, not by %s", b.t.name, f["generator"].Value)
		}
	case "":
	default:
		b.drop(a, "", "attestation of type %q", f["type"].Value)
	}
}
