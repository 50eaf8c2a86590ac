// Package bake reads docker-bake files, HCL or JSON.
//
//	text ─ hcl ─> blocks ─ symbols ─> Draft: variables, templates, targets, groups
//
// An expression becomes a text with references where our language has a form for
// it: variables, functions of the file, conditions of tags, lists that are written
// out. Any other is evaluated with the defaults, and its source kept as a comment.
package bake

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	hcljson "github.com/hashicorp/hcl/v2/json"
	"github.com/zclconf/go-cty/cty"

	"kaniko-build/cmd/kaniko-build/internal/importer"
	"kaniko-build/schema/diag"
)

// source is one file.
type source struct {
	name     string
	text     []byte
	paths    *importer.Paths
	draft    *importer.Draft
	comments map[int]string // by the line below them
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
	call    string // what it does instead of a build; "" builds
	cells   []cell // of a matrix that is written out
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

// Import reads a file. A mistake in it is a diag.Problems.
func Import(name string, text []byte, paths *importer.Paths) (*importer.Draft, error) {
	s := &source{
		name: name, text: text, paths: paths, draft: &importer.Draft{}, comments: map[int]string{},
		vars: map[string]*variable{}, funcs: map[string]*fn{}, taken: importer.Names{}, agents: importer.Names{}, secret: map[string]importer.Secret{},
	}
	s.eval = &hcl.EvalContext{Functions: functions(), Variables: map[string]cty.Value{
		"BAKE_CMD_CONTEXT": cty.StringVal("."), "BAKE_LOCAL_PLATFORM": cty.StringVal("local"),
	}}
	var f *hcl.File
	var diags hcl.Diagnostics
	if strings.HasPrefix(strings.TrimSpace(string(text)), "{") {
		f, diags = hcljson.Parse(text, name)
	} else {
		f, diags = hclsyntax.ParseConfig(text, name, hcl.InitialPos)
		s.readComments()
	}
	if diags.HasErrors() {
		return nil, problems(diags)
	}
	content, rest, diags := f.Body.PartialContent(schemaOfFile)
	if diags.HasErrors() {
		return nil, problems(diags)
	}
	attrs, _ := rest.JustAttributes() // what else there is makes no target
	if body, ok := f.Body.(*hclsyntax.Body); ok {
		for _, b := range body.Blocks {
			if !slices.ContainsFunc(schemaOfFile.Blocks, func(h hcl.BlockHeaderSchema) bool { return h.Type == b.Type }) {
				s.draft.Drop(pos(b.DefRange()), "", "block %q", b.Type)
			}
		}
	}
	s.readVariables(content.Blocks.OfType("variable"), attrs)
	s.readFunctions(content.Blocks.OfType("function"))
	s.makeVariables()
	s.readTargets(content.Blocks.OfType("target"))
	s.readGroups(content.Blocks.OfType("group"))
	if len(s.targets) == 0 {
		return nil, &diag.Problem{Pos: diag.Pos{File: name}, What: "there is no target"}
	}
	s.nameAll()
	s.fill()
	s.fillGroups()
	s.keepUsed()
	return s.draft, nil
}

// readComments finds the comments that stand right above something.
func (s *source) readComments() {
	tokens, _ := hclsyntax.LexConfig(s.text, s.name, hcl.InitialPos)
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
		if above := s.comments[t.Range.Start.Line]; above != "" {
			text = above + "\n" + text
		}
		s.comments[below] = text
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
			f.variadic = keyword(v.Expr, s.text)
		}
		params, _ := hcl.ExprList(attrs["params"].Expr)
		for _, p := range params {
			f.params = append(f.params, keyword(p, s.text))
		}
		if hcljson.IsJSONExpression(f.result) {
			if v, ok := unquote(string(f.result.Range().SliceBytes(s.text))); ok {
				if e, diags := hclsyntax.ParseTemplate([]byte(v), s.name, f.result.Range().Start); !diags.HasErrors() {
					f.result = e
				}
			}
		}
		s.funcs[b.Labels[0]] = f
		s.eval.Functions[b.Labels[0]] = s.function(f)
	}
}

// keyword is a bare word, or one in quotes in JSON.
func keyword(e hcl.Expression, text []byte) string {
	if w := hcl.ExprAsKeyword(e); w != "" {
		return w
	}
	w, _ := unquote(string(e.Range().SliceBytes(text)))
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
				if old.attrs[name] != nil && (name == "args" || name == "labels" || name == "contexts") {
					s.draft.Drop(pos(a.NameRange), "write it in one block", "target %q: %s of its block at %s", b.Labels[0], name, old.pos)
				}
				old.attrs[name] = a
			}
			continue
		}
		t := &target{name: b.Labels[0], pos: b.DefRange, comment: s.comments[b.DefRange.Start.Line], attrs: attrs}
		if a := attrs["call"]; a != nil {
			if t.call = (&scope{source: s}).symbol(a.Expr).flat().now(); t.call == "build" {
				t.call = ""
			}
		}
		s.targets = append(s.targets, t)
	}
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

// nameAll gives targets, templates and groups their names, in one space.
func (s *source) nameAll() {
	lends, linked, grouped := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, t := range s.targets {
		if a := t.attrs["inherits"]; a != nil && t.attrs["matrix"] == nil {
			for _, name := range s.words(a) {
				lends[name] = true
			}
		} else if a != nil {
			for _, other := range s.targets { // it may depend on the cell
				if strings.Contains(string(a.Expr.Range().SliceBytes(s.text)), `"`+other.name+`"`) {
					lends[other.name] = true
				}
			}
		}
		for _, key := range []string{"contexts", "context"} {
			if a := t.attrs[key]; a != nil {
				for _, word := range strings.FieldsFunc(string(a.Expr.Range().SliceBytes(s.text)), func(r rune) bool { return strings.ContainsRune(`"' ,{}$`, r) }) {
					if name, ok := strings.CutPrefix(word, "target:"); ok {
						linked[name] = true
					}
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
			if a := t.attrs["inherits"]; a != nil { // of something that is built it is another form
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
