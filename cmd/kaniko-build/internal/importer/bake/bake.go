// Package bake reads docker-bake files, HCL or JSON, laid over each other as bake lays
// them.
//
//	text ─ hcl ─> blocks ─ symbols ─> Draft: variables, templates, targets, groups
//
// An expression becomes a text with references where our language has a form for
// it: variables, functions of the file, conditions of tags, lists that are written
// out. Any other is evaluated with the defaults, and its source kept as a comment.
package bake

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	hcljson "github.com/hashicorp/hcl/v2/json"
	"github.com/zclconf/go-cty/cty"

	"kaniko-build/cmd/kaniko-build/internal/importer"
	"kaniko-build/schema/diag"
)

// source is what is imported.
type source struct {
	files    []importer.File // the later ones are stronger
	paths    *importer.Paths
	draft    *importer.Draft
	comments map[string]string // by FILE:LINE below them
	eval     *hcl.EvalContext
	depth    int // of functions that are being translated

	vars     map[string]*variable
	varOrder []string
	funcs    map[string]*fn
	targets  []*target
	groups   []*group

	taken  importer.Names
	agents importer.Names
	secret map[string]importer.Secret // by what it is made of
}

const maxDepth = 20 // of functions in functions

// fn is a function of the file.
type fn struct {
	params   []string
	variadic string
	result   hcl.Expression
}

// target is a target block; later ones of a name have been put into the first.
type target struct {
	name    string // as written
	ours    string // of the target, "" if there is only a template
	lent    string // of the template; "" without one
	pos     hcl.Range
	comment string
	attrs   map[string]*hcl.Attribute
	weaker  map[string][]*hcl.Attribute // of earlier blocks, where bake merges them
	call    string                      // what it does instead of a build; "" builds
	cells   []cell                      // of a matrix that is written out
	names   []string
}

// cell is one target of a matrix.
type cell struct {
	name, ours string
	bound      map[string]symbol
}

type group struct {
	name    string
	ours    string
	pos     hcl.Range
	targets []string
}

var schemaOfFile = &hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{
	{Type: "variable", LabelNames: []string{"name"}},
	{Type: "function", LabelNames: []string{"name"}},
	{Type: "target", LabelNames: []string{"name"}},
	{Type: "group", LabelNames: []string{"name"}},
}}

// Import reads files. Mistakes in them are a diag.Problems.
func Import(files []importer.File, paths *importer.Paths) (*importer.Draft, error) {
	s := &source{
		files: files, paths: paths, draft: &importer.Draft{}, comments: map[string]string{},
		vars: map[string]*variable{}, funcs: map[string]*fn{}, taken: importer.Names{}, agents: importer.Names{}, secret: map[string]importer.Secret{},
	}
	s.eval = &hcl.EvalContext{Functions: functions(), Variables: map[string]cty.Value{
		"BAKE_CMD_CONTEXT": cty.StringVal("."), "BAKE_LOCAL_PLATFORM": cty.StringVal("local"),
	}}
	var all hcl.Diagnostics
	var blocks hcl.Blocks
	attrs := hcl.Attributes{}
	for _, file := range files {
		more, mine, diags := s.parse(file)
		all = append(all, diags...)
		blocks = append(blocks, more...)
		maps.Copy(attrs, mine)
	}
	if all.HasErrors() {
		return nil, problems(all)
	}
	s.readVariables(blocks.OfType("variable"), attrs)
	s.readFunctions(blocks.OfType("function"))
	s.makeVariables()
	s.readTargets(blocks.OfType("target"))
	s.readGroups(blocks.OfType("group"))
	if len(s.targets) == 0 {
		return nil, &diag.Problem{Pos: diag.Pos{File: files[0].Name}, What: "there is no target"}
	}
	s.flatten()
	s.nameAll()
	s.fill()
	s.fillGroups()
	s.keepUsed()
	return s.draft, nil
}

// parse reads one file.
func (s *source) parse(file importer.File) (hcl.Blocks, hcl.Attributes, hcl.Diagnostics) {
	var f *hcl.File
	var diags hcl.Diagnostics
	if strings.HasPrefix(strings.TrimSpace(string(file.Text)), "{") {
		f, diags = hcljson.Parse(file.Text, file.Name)
	} else {
		f, diags = hclsyntax.ParseConfig(file.Text, file.Name, hcl.InitialPos)
		s.readComments(file)
	}
	if diags.HasErrors() {
		return nil, nil, diags
	}
	content, rest, diags := f.Body.PartialContent(schemaOfFile)
	if diags.HasErrors() {
		return nil, nil, diags
	}
	attrs, _ := rest.JustAttributes() // what else there is makes no target
	if body, ok := f.Body.(*hclsyntax.Body); ok {
		for _, b := range body.Blocks {
			if !slices.ContainsFunc(schemaOfFile.Blocks, func(h hcl.BlockHeaderSchema) bool { return h.Type == b.Type }) {
				s.draft.Drop(pos(b.DefRange()), "", "block %q", b.Type)
			}
		}
	}
	return content.Blocks, attrs, nil
}

// bytes is what stands in a range of one of the files.
func (s *source) bytes(r hcl.Range) string { return string(r.SliceBytes(s.files[s.place(r)].Text)) }

// place is which of the files a range is in.
func (s *source) place(r hcl.Range) int {
	return max(0, slices.IndexFunc(s.files, func(f importer.File) bool { return f.Name == r.Filename }))
}

// before orders ranges as they stand in the files.
func (s *source) before(a, b hcl.Range) int {
	return cmp.Or(s.place(a)-s.place(b), a.Start.Byte-b.Start.Byte)
}

// comment is what stands right above a range.
func (s *source) comment(r hcl.Range) string { return s.comments[line(r.Filename, r.Start.Line)] }

func line(file string, n int) string { return fmt.Sprintf("%s:%d", file, n) }

// readComments finds the comments that stand right above something.
func (s *source) readComments(file importer.File) {
	tokens, _ := hclsyntax.LexConfig(file.Text, file.Name, hcl.InitialPos)
	for _, t := range tokens {
		if t.Type != hclsyntax.TokenComment || t.Range.Start.Column > 1 && t.Range.Start.Line == 1 {
			continue
		}
		text := strings.TrimSpace(string(t.Bytes))
		text = strings.TrimSuffix(strings.TrimPrefix(text, "/*"), "*/")
		lines := strings.Split(strings.TrimSpace(strings.TrimLeft(text, "#/ ")), "\n")
		for i := range lines {
			lines[i] = strings.TrimSpace(strings.TrimLeft(strings.TrimSpace(lines[i]), "*"))
		}
		text = strings.Join(lines, "\n")
		below := t.Range.End.Line
		if t.Range.End.Column > 1 {
			below++
		}
		if above := s.comments[line(file.Name, t.Range.Start.Line)]; above != "" {
			text = above + "\n" + text
		}
		s.comments[line(file.Name, below)] = text
	}
}

func (s *source) readFunctions(blocks hcl.Blocks) {
	for _, b := range blocks {
		attrs, diags := b.Body.JustAttributes()
		if diags.HasErrors() || attrs["params"] == nil || attrs["result"] == nil {
			s.draft.Drop(pos(b.DefRange), "", "function %q: it needs params and a result", b.Labels[0])
			continue
		}
		f := &fn{result: attrs["result"].Expr}
		if v := attrs["variadic_params"]; v != nil {
			f.variadic = s.keyword(v.Expr)
		}
		params, _ := hcl.ExprList(attrs["params"].Expr)
		for _, p := range params {
			f.params = append(f.params, s.keyword(p))
		}
		if hcljson.IsJSONExpression(f.result) {
			if v, ok := unquote(s.bytes(f.result.Range())); ok {
				if e, diags := hclsyntax.ParseTemplate([]byte(v), f.result.Range().Filename, f.result.Range().Start); !diags.HasErrors() {
					f.result = e
				}
			}
		}
		s.funcs[b.Labels[0]] = f
		s.eval.Functions[b.Labels[0]] = s.function(f)
	}
}

// keyword is a bare word, or one in quotes in JSON.
func (s *source) keyword(e hcl.Expression) string {
	if w := hcl.ExprAsKeyword(e); w != "" {
		return w
	}
	w, _ := unquote(s.bytes(e.Range()))
	return w
}

// readTargets collects blocks by name.
func (s *source) readTargets(blocks hcl.Blocks) {
	for _, b := range blocks {
		attrs, diags := b.Body.JustAttributes()
		for _, d := range diags {
			s.draft.Drop(pos(*d.Subject), "", "%s", d.Summary)
		}
		if old := s.target(b.Labels[0]); old != nil {
			for name, a := range attrs {
				if was := old.attrs[name]; was != nil && slices.Contains(merged, name) {
					old.weaker[name] = append(old.weaker[name], was)
				}
				old.attrs[name] = a
			}
			if old.comment == "" {
				old.comment = s.comment(b.DefRange)
			}
			s.readCall(old)
			continue
		}
		t := &target{name: b.Labels[0], pos: b.DefRange, comment: s.comment(b.DefRange), attrs: attrs, weaker: map[string][]*hcl.Attribute{}}
		s.readCall(t)
		s.targets = append(s.targets, t)
	}
}

// readCall reads what a target does instead of a build.
func (s *source) readCall(t *target) {
	if a := t.attrs["call"]; a != nil {
		if t.call = (&scope{source: s}).symbol(a.Expr).flat().now(); t.call == "build" {
			t.call = ""
		}
	}
}

// merged are the attributes of which blocks of one target take nothing from each other:
// keys of mappings are laid over each other, lists are joined. Of the others the last
// block's holds. (buildx, bake.Target.Merge.)
var merged = []string{"args", "labels", "contexts", "annotations", "secret", "ssh", "cache-from", "attest", "no-cache-filter", "inherits"}

// every is an attribute in all blocks of a target, the weakest first.
func (t *target) every(name string) []*hcl.Attribute {
	if a := t.attrs[name]; a != nil {
		return append(slices.Clone(t.weaker[name]), a)
	}
	return nil
}

func (s *source) target(name string) *target {
	for _, t := range s.targets {
		if t.name == name {
			return t
		}
	}
	return nil
}

func (s *source) readGroups(blocks hcl.Blocks) {
	for _, b := range blocks {
		attrs, _ := b.Body.JustAttributes()
		g := &group{name: b.Labels[0], pos: b.DefRange}
		if a := attrs["targets"]; a != nil {
			g.targets = s.words(a)
		}
		if i := slices.IndexFunc(s.groups, func(old *group) bool { return old.name == g.name }); i >= 0 {
			s.groups[i].targets = append(s.groups[i].targets, g.targets...)
			continue
		}
		s.groups = append(s.groups, g)
	}
}

// words is a list of names, evaluated: names hold no references.
func (s *source) words(a *hcl.Attribute) []string {
	sc := &scope{source: s}
	var out []string
	v := sc.symbol(a.Expr)
	if v.kind == text && v.listRef || v.kind == choice {
		v = constant(v.value)
	}
	for _, item := range v.items {
		if item = item.flat(); item.now() != "" {
			if importer.HasReference(item.text) || item.source != "" {
				s.draft.Evaluated++
			}
			out = append(out, item.now())
		}
	}
	return out
}

// inCells is the texts in an attribute, in all cells of the target's matrix if it has one.
// Nothing is told of them.
func (s *source) inCells(t *target, a *hcl.Attribute) []string {
	notes, evaluated := s.draft.Notes, s.draft.Evaluated
	defer func() { s.draft.Notes, s.draft.Evaluated = notes, evaluated }()
	_, rows, _ := s.matrix(t)
	if rows == nil {
		rows = []map[string]symbol{nil}
	}
	var out []string
	for _, bound := range rows {
		out = append(out, (&scope{source: s, bound: bound}).symbol(a.Expr).nows()...)
	}
	return out
}

// nameAll gives targets, templates and groups their names, in one space.
func (s *source) nameAll() {
	lends, linked, grouped := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, t := range s.targets {
		for _, a := range t.every("inherits") {
			for _, name := range s.inCells(t, a) {
				lends[name] = true
			}
		}
		for _, a := range t.every("contexts") {
			for _, text := range s.inCells(t, a) {
				if name, ok := strings.CutPrefix(text, "target:"); ok {
					linked[name] = true
				}
			}
		}
	}
	for _, g := range s.groups {
		for _, name := range g.targets {
			grouped[name] = true
		}
	}
	for _, t := range s.targets { // real ones first: they keep their names
		only := lends[t.name] && !grouped[t.name] && !linked[t.name] && t.name != "default" && t.attrs["matrix"] == nil
		if only && !strings.HasPrefix(t.name, "_") {
			for _, key := range []string{"context", "dockerfile", "dockerfile-inline", "target", "output"} {
				only = only && t.attrs[key] == nil
			}
			for _, a := range t.every("inherits") { // of something that is built it is another form
				for _, name := range s.words(a) {
					if parent := s.target(name); parent != nil {
						only = only && parent.ours == "" && strings.HasPrefix(parent.name, "_")
					}
				}
			}
		}
		if !only {
			t.ours = s.taken.Take(t.name)
			if t.ours != t.name {
				s.draft.Tell(pos(t.pos), "", "target %q is called %q", t.name, t.ours)
			}
			s.expandMatrix(t)
		}
	}
	for _, t := range s.targets {
		switch {
		case t.ours == "":
			t.lent = s.taken.Take(t.name)
		case lends[t.name]:
			t.lent = s.taken.Take(t.name + "-base")
		}
	}
	for _, g := range s.groups {
		if t := s.target(g.name); t != nil && t.ours != "" && len(g.targets) == 1 && g.targets[0] == g.name {
			continue // the target itself
		}
		g.ours = s.taken.Take(g.name)
		if g.ours != g.name {
			s.draft.Tell(pos(g.pos), "", "group %q is called %q", g.name, g.ours)
		}
	}
}

// ours is what a name of the file stands for in groups and links: names of targets,
// or a group behind "@".
func (s *source) ours(name string) []string {
	for _, g := range s.groups {
		if g.name == name && g.ours != "" && g.name != "default" {
			return []string{"@" + g.ours}
		}
	}
	if found := s.oursOf(name); found != nil {
		return found
	}
	for _, g := range s.groups {
		if g.name == name && name == "default" { // where it is everything there is no such group
			var out []string
			for _, item := range g.targets {
				if item != name {
					out = append(out, s.ours(item)...)
				}
			}
			return out
		}
	}
	return nil
}

// oursOf is the targets that a name of a target stands for. A group may have it too.
func (s *source) oursOf(name string) []string {
	if t := s.target(name); t != nil && t.ours != "" {
		return t.all()
	}
	for _, t := range s.targets {
		for _, c := range t.cells {
			if c.name == name {
				return []string{c.ours}
			}
		}
		if i := slices.Index(t.names, name); i >= 0 {
			return []string{name}
		}
	}
	return nil
}

// all is the targets that are made of a block.
func (t *target) all() []string {
	if t.cells == nil {
		return []string{t.ours}
	}
	var out []string
	for _, c := range t.cells {
		out = append(out, c.ours)
	}
	return out
}

func (s *source) fillGroups() {
	for _, g := range s.groups {
		if g.ours == "" {
			continue
		}
		out := importer.Group{Name: g.ours}
		for _, name := range g.targets {
			found := s.ours(name)
			if t := s.target(name); t != nil && t.call != "" {
				continue
			}
			if found == nil || name == g.name && g.ours != g.name && s.target(name) == nil {
				s.draft.Drop(pos(g.pos), "", "group %q: %q, which is no target that is built", g.name, name)
				continue
			}
			if name == g.name { // the target of that name
				found = s.target(name).all()
			}
			for _, f := range found {
				if !slices.Contains(out.Targets, f) {
					out.Targets = append(out.Targets, f)
				}
			}
		}
		if g.name == "default" && s.isAll(out.Targets) || len(out.Targets) == 0 {
			continue
		}
		s.draft.Groups = append(s.draft.Groups, out)
	}
	for _, t := range s.targets {
		if t.cells != nil && t.call == "" && !s.taken[importer.Name(t.name)] {
			s.draft.Groups = append(s.draft.Groups, importer.Group{Name: s.taken.Take(t.name), Targets: t.all()})
		}
	}
}

// isAll tells whether names are all targets: then they need no group.
func (s *source) isAll(names []string) bool {
	return !slices.ContainsFunc(s.draft.Targets, func(t importer.Target) bool { return !slices.Contains(names, t.Name) })
}

func unquote(raw string) (string, bool) {
	var out string
	err := json.Unmarshal([]byte(strings.TrimSpace(raw)), &out)
	return out, err == nil
}

func pos(r hcl.Range) diag.Pos {
	return diag.Pos{File: r.Filename, Line: r.Start.Line, Col: r.Start.Column}
}

// problem is the first of diagnostics as a phrase.
func problem(diags hcl.Diagnostics) string {
	for _, d := range diags {
		if d.Severity == hcl.DiagError {
			return strings.TrimSuffix(strings.Join(strings.Fields(d.Detail), " "), ".")
		}
	}
	return "it cannot be evaluated"
}

func problems(diags hcl.Diagnostics) error {
	var l diag.List
	for _, d := range diags {
		if d.Severity != hcl.DiagError {
			continue
		}
		at := diag.Pos{}
		if d.Subject != nil {
			at = pos(*d.Subject)
		}
		l.Add(at, strings.Join(strings.Fields(d.Detail), " "), "%s", strings.ToLower(d.Summary[:1])+d.Summary[1:])
	}
	return l.Err()
}
