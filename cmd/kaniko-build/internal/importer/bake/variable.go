package bake

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"

	"kaniko-build/cmd/kaniko-build/internal/importer"
)

// variable is a variable block, or an attribute outside of blocks, which nothing
// from outside changes.
type variable struct {
	name     string
	pos      hcl.Range
	comment  string
	fallback hcl.Expression
	typ      hcl.Expression
	attrs    map[string]*hcl.Attribute
	checks   hcl.Blocks
	fixed    bool // an attribute
	made     bool
	failed   bool // its default has no value here
	value    cty.Value
	symbol   *symbol      // what a reference to it is; nil if uses are evaluated
	ours     importer.Var // with symbol
}

var schemaOfVariable = &hcl.BodySchema{
	Attributes: []hcl.AttributeSchema{{Name: "default"}, {Name: "type"}, {Name: "description"}},
	Blocks:     []hcl.BlockHeaderSchema{{Type: "validation"}},
}

func (s *source) readVariables(blocks hcl.Blocks, attrs hcl.Attributes) {
	add := func(v *variable) {
		if s.vars[v.name] == nil {
			s.varOrder = append(s.varOrder, v.name)
		}
		s.vars[v.name] = v
	}
	for _, b := range blocks {
		content, _, diags := b.Body.PartialContent(schemaOfVariable)
		if diags.HasErrors() {
			s.draft.Drop(pos(b.DefRange), "", "variable %q: %s", b.Labels[0], problem(diags))
			continue
		}
		v := &variable{name: b.Labels[0], pos: b.DefRange, comment: s.comment(b.DefRange), attrs: content.Attributes, checks: content.Blocks}
		if a := content.Attributes["default"]; a != nil {
			v.fallback = a.Expr
		}
		if a := content.Attributes["type"]; a != nil {
			v.typ = a.Expr
		}
		add(v)
	}
	var names []string
	for name := range attrs {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return s.before(attrs[a].Range, attrs[b].Range) })
	for _, name := range names {
		if s.vars[name] == nil {
			add(&variable{name: name, pos: attrs[name].NameRange, fallback: attrs[name].Expr, fixed: true})
		}
	}
}

// function is a function of the file as one that can be evaluated.
func (s *source) function(f *fn) function.Function {
	spec := &function.Spec{Type: function.StaticReturnType(cty.DynamicPseudoType)}
	for _, p := range f.params {
		spec.Params = append(spec.Params, function.Parameter{Name: p, Type: cty.DynamicPseudoType, AllowNull: true, AllowDynamicType: true})
	}
	if f.variadic != "" {
		spec.VarParam = &function.Parameter{Name: f.variadic, Type: cty.DynamicPseudoType, AllowNull: true, AllowDynamicType: true}
	}
	result := func(args []cty.Value) (cty.Value, error) {
		if s.depth > maxDepth {
			return cty.NilVal, fmt.Errorf("functions call each other without end")
		}
		s.depth++
		defer func() { s.depth-- }()
		inner := s.eval.NewChild()
		inner.Variables = map[string]cty.Value{}
		for i, p := range f.params {
			inner.Variables[p] = args[i]
		}
		if f.variadic != "" {
			inner.Variables[f.variadic] = cty.TupleVal(args[len(f.params):])
		}
		v, diags := f.result.Value(inner)
		if diags.HasErrors() {
			return cty.NilVal, fmt.Errorf("%s", problem(diags))
		}
		return v, nil
	}
	spec.Type = func(args []cty.Value) (cty.Type, error) {
		v, err := result(args)
		if err != nil {
			return cty.DynamicPseudoType, err
		}
		return v.Type(), nil
	}
	spec.Impl = func(args []cty.Value, _ cty.Type) (cty.Value, error) { return result(args) }
	return function.New(spec)
}

// makeVariables gives variables their values, those they need before them.
func (s *source) makeVariables() {
	used := map[string]bool{}
	for _, name := range s.varOrder {
		s.makeVariable(name)
		v := s.vars[name]
		if v.symbol == nil || v.fixed {
			continue
		}
		ours := strings.Trim(strings.ReplaceAll(name, "-", "_"), "_")
		if ours == "" || ours[0] >= '0' && ours[0] <= '9' {
			ours = "v" + ours
		}
		for i := 2; used[strings.ToUpper(ours)]; i++ {
			ours = fmt.Sprintf("%s_%d", strings.Trim(name, "_"), i)
		}
		used[strings.ToUpper(ours)] = true
		v.ours.Name = ours
		v.symbol.text = "${vars." + ours + "}"
	}
	for _, name := range s.varOrder {
		if v := s.vars[name]; v.symbol != nil && !v.fixed {
			s.describe(v)
		}
	}
}

func (s *source) makeVariable(name string) {
	v := s.vars[name]
	if v == nil || v.made {
		return
	}
	v.made, v.value = true, cty.StringVal("")
	sc := &scope{source: s}
	typ := cty.DynamicPseudoType
	if v.typ != nil {
		t, diags := typeexpr.TypeConstraint(v.typ)
		if diags.HasErrors() {
			s.draft.Drop(pos(v.typ.Range()), "", "the type of variable %q: %s", name, problem(diags))
		} else {
			typ, v.value = t, cty.NullVal(t)
		}
	}
	if v.fallback != nil {
		for _, t := range v.fallback.Variables() {
			s.makeVariable(t.RootName())
		}
		for _, f := range s.funcs {
			for _, t := range f.result.Variables() {
				if s.vars[t.RootName()] != v {
					s.makeVariable(t.RootName())
				}
			}
		}
		val, diags := v.fallback.Value(s.eval)
		if diags.HasErrors() {
			if v.fixed || !calls(v.fallback) || sc.symbol(v.fallback).kind != text {
				v.failed = true
				hint := ""
				if calls(v.fallback) && strings.Contains(sc.code(v.fallback), "timestamp()") {
					hint = "${build.date} is the time of the build"
				}
				s.draft.Drop(pos(v.fallback.Range()), hint, "the default of variable %q: %s", name, problem(diags))
			}
		} else if v.value, diags = converted(val, typ); diags.HasErrors() {
			s.draft.Drop(pos(v.fallback.Range()), "", "the default of variable %q: %s", name, problem(diags))
			v.value = val
		}
	}
	v.value, _ = v.value.UnmarkDeep()
	s.eval.Variables[name] = v.value
	if v.fixed {
		out := sc.symbol(v.fallback)
		v.symbol = &out
		return
	}
	switch t := v.value.Type(); {
	case t.IsPrimitiveType() || v.value.IsNull() && t == cty.DynamicPseudoType:
		v.symbol = &symbol{value: v.value}
	case (t.IsListType() || t.IsTupleType() || t.IsSetType()) && scalars(v.value):
		v.symbol = &symbol{value: v.value, listRef: true}
	}
}

func converted(v cty.Value, t cty.Type) (cty.Value, hcl.Diagnostics) {
	out, err := convert.Convert(v, t)
	if err != nil {
		return v, hcl.Diagnostics{{Severity: hcl.DiagError, Detail: err.Error()}}
	}
	return out, nil
}

// scalars tells whether a list holds nothing else.
func scalars(v cty.Value) bool {
	if v.IsNull() {
		return false
	}
	for it := v.ElementIterator(); it.Next(); {
		if _, item := it.Element(); item.IsNull() || !item.Type().IsPrimitiveType() {
			return false
		}
	}
	return true
}

// describe makes ours of a variable.
func (s *source) describe(v *variable) {
	sc := &scope{source: s}
	out := &v.ours
	out.Comment, out.Env = v.comment, []string{v.name}
	if a := v.attrs["description"]; a != nil {
		out.Description = sc.symbol(a.Expr).now()
	}
	def := symbol{value: cty.StringVal("")}
	if v.failed {
		def = symbol{value: cty.StringVal("")}
	} else if v.fallback != nil {
		def = sc.symbol(v.fallback).flat()
	} else if v.value.IsNull() {
		def = symbol{kind: null}
	}
	if def.source != "" {
		s.draft.Evaluated++
	}
	t := v.value.Type()
	switch {
	case v.symbol.listRef && def.kind == list:
		out.Type, out.List = "list", []importer.Text{}
		for _, item := range def.items {
			out.List = append(out.List, s.leaf(item))
		}
	case v.symbol.listRef && def.listRef:
		out.Type, out.Default = "list", importer.Text{Value: def.text}
		out.List = nil
	case def.kind == null:
		out.Default = importer.Text{Null: true}
		if t == cty.Bool {
			out.Type = "bool"
		}
	default:
		out.Default = importer.Text{Value: def.text, Source: def.source}
	}
	switch {
	case t == cty.Bool && !importer.HasReference(def.text):
		out.Type = "bool"
	case t == cty.Number && !importer.HasReference(def.text) && def.kind == text && strings.Trim(def.text, "0123456789") == "" && len(def.text) < 10:
		out.Type = "int"
	}
	for _, c := range v.checks {
		attrs, _ := c.Body.JustAttributes()
		if a := attrs["condition"]; a == nil || !s.check(v, a.Expr) {
			message := ""
			if m := attrs["error_message"]; m != nil {
				message = sc.symbol(m.Expr).now()
			}
			s.draft.Tell(pos(c.DefRange), "give it a pattern or an enum", "the condition of variable %q is not checked: %s", v.name, message)
		}
	}
}

// check makes a condition of a variable a pattern, an enum or required; it is false
// if it cannot.
func (s *source) check(v *variable, e hcl.Expression) bool {
	is := func(e hcl.Expression) bool { return hcl.ExprAsKeyword(e) == v.name }
	word := func(e hcl.Expression) (string, bool) {
		val, diags := e.Value(nil)
		if diags.HasErrors() || val.IsNull() || val.Type() != cty.String {
			return "", false
		}
		return val.AsString(), true
	}
	switch e := e.(type) {
	case *hclsyntax.ParenthesesExpr:
		return s.check(v, e.Expression)
	case *hclsyntax.BinaryOpExpr:
		if e.Op == hclsyntax.OpLogicalOr {
			inner := &variable{name: v.name}
			if s.check(inner, e.LHS) && s.check(inner, e.RHS) && inner.ours.Pattern == "" && len(inner.ours.Enum) > 1 {
				v.ours.Enum = append(v.ours.Enum, inner.ours.Enum...)
				return true
			}
			return false
		}
		name, other := e.LHS, e.RHS
		if !is(name) {
			name, other = other, name
		}
		text, ok := word(other)
		switch {
		case !is(name) || !ok:
			return false
		case e.Op == hclsyntax.OpEqual:
			v.ours.Enum = append(v.ours.Enum, text)
			return true
		case e.Op == hclsyntax.OpNotEqual && text == "" && v.ours.Pattern == "":
			v.ours.Pattern = "."
			return true
		}
	case *hclsyntax.FunctionCallExpr:
		switch {
		case e.Name == "contains" && len(e.Args) == 2 && is(e.Args[1]):
			items, diags := hcl.ExprList(e.Args[0])
			var enum []string
			for _, item := range items {
				text, ok := word(item)
				if !ok {
					return false
				}
				enum = append(enum, text)
			}
			v.ours.Enum = append(v.ours.Enum, enum...)
			return !diags.HasErrors() && len(enum) > 0
		case e.Name == "can" && len(e.Args) == 1:
			inner, ok := e.Args[0].(*hclsyntax.FunctionCallExpr)
			if !ok || inner.Name != "regex" || len(inner.Args) != 2 || !is(inner.Args[1]) || v.ours.Pattern != "" {
				return false
			}
			text, ok := word(inner.Args[0])
			if _, err := regexp.Compile(text); !ok || err != nil {
				return false
			}
			v.ours.Pattern = text
			return true
		case e.Name == "notequal" && len(e.Args) == 2:
			a, b := e.Args[0], e.Args[1]
			if !is(a) {
				a, b = b, a
			}
			if text, ok := word(b); ok && text == "" && is(a) && v.ours.Pattern == "" {
				v.ours.Pattern = "."
				return true
			}
		}
	}
	return false
}

var usedVariable = regexp.MustCompile(`vars\.([A-Za-z0-9_]+)`)

// keepUsed writes the variables that something refers to.
func (s *source) keepUsed() {
	var b strings.Builder
	_ = s.draft.Write(&b) // to a builder
	found := map[string]bool{}
	look := func(text string) bool {
		some := false
		for _, m := range usedVariable.FindAllStringSubmatch(text, -1) {
			some = some || !found[m[1]]
			found[m[1]] = true
		}
		return some
	}
	look(b.String())
	for more := true; more; {
		more = false
		for _, name := range s.varOrder {
			if v := s.vars[name]; v.symbol != nil && !v.fixed && found[v.ours.Name] {
				texts := append([]importer.Text{v.ours.Default}, v.ours.List...)
				for _, t := range texts {
					more = look(t.Value) || more
				}
			}
		}
	}
	for _, name := range s.varOrder {
		switch v := s.vars[name]; {
		case v.fixed:
		case v.symbol != nil && found[v.ours.Name]:
			s.draft.Vars = append(s.draft.Vars, v.ours)
		default:
			s.draft.Tell(pos(v.pos), "", "variable %q changes nothing in the manifest: what it is used for is written as it is by default", name)
		}
	}
}
