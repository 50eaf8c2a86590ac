package bake

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	hcljson "github.com/hashicorp/hcl/v2/json"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"kaniko-build/cmd/kaniko-build/internal/importer"
)

// symbol is what an expression stands for: a text with references to variables, a
// list or a mapping of symbols, or one of two by a condition. Its value is the one
// that it has with the defaults of the variables.
type symbol struct {
	kind    kind
	value   cty.Value
	text    string // ours; with kind text
	source  string // what it was evaluated from; "" if it says what the source says
	items   []symbol
	keys    []string // of items, with kind dict
	cond    string   // with kind choice: items are what holds if it does, and if not
	listRef bool     // with kind text: it is a reference to a list
}

type kind int

const (
	text kind = iota
	list
	dict
	choice
	null
)

// constant is a symbol for a value that depends on nothing.
func constant(v cty.Value) symbol {
	switch t := v.Type(); {
	case v.IsNull() || !v.IsWhollyKnown():
		return symbol{kind: null, value: v}
	case t.IsPrimitiveType():
		s, err := convert.Convert(v, cty.String)
		if err != nil {
			return symbol{kind: null, value: v}
		}
		return symbol{value: v, text: importer.Literal(s.AsString())}
	case t.IsListType() || t.IsTupleType() || t.IsSetType():
		out := symbol{kind: list, value: v}
		for it := v.ElementIterator(); it.Next(); {
			_, item := it.Element()
			out.items = append(out.items, constant(item))
		}
		return out
	case t.IsMapType() || t.IsObjectType():
		out := symbol{kind: dict, value: v}
		for it := v.ElementIterator(); it.Next(); {
			key, item := it.Element()
			out.keys, out.items = append(out.keys, key.AsString()), append(out.items, constant(item))
		}
		return out
	}
	return symbol{kind: null, value: v}
}

// now is a symbol's value as text; "" if it has none.
func (s symbol) now() string {
	if s.value == cty.NilVal || s.value.IsNull() || !s.value.IsKnown() {
		return ""
	}
	v, err := convert.Convert(s.value, cty.String)
	if err != nil || v.IsNull() {
		return ""
	}
	return v.AsString()
}

// nows is the values of all texts in a symbol.
func (s symbol) nows() []string {
	s = s.flat()
	if s.listRef {
		s = constant(s.value)
	}
	if s.kind == text {
		return []string{s.now()}
	}
	var out []string
	for _, item := range s.items {
		out = append(out, item.nows()...)
	}
	return out
}

// flat is a choice decided by what the condition is now.
func (s symbol) flat() symbol {
	for s.kind == choice {
		source, value := s.source, s.value
		if s.items[0].value != cty.NilVal && value != cty.NilVal && same(s.items[0].value, value) {
			s = s.items[0]
		} else {
			s = s.items[1]
		}
		s.source = source
	}
	return s
}

func same(a, b cty.Value) bool {
	return a.IsNull() && b.IsNull() || a.Type().Equals(b.Type()) && a.RawEquals(b)
}

// scope is what names stand for in an expression, besides variables.
type scope struct {
	*source
	bound   map[string]symbol
	varying []string // names whose value is not the same for all that is made of the expression
	bad     bool     // something was evaluated that varies
}

// symbol translates an expression.
func (s *scope) symbol(e hcl.Expression) symbol {
	if hcljson.IsJSONExpression(e) {
		return s.json(e)
	}
	switch e := e.(type) {
	case *hclsyntax.LiteralValueExpr:
		return constant(e.Val)
	case *hclsyntax.ParenthesesExpr:
		return s.symbol(e.Expression)
	case *hclsyntax.TemplateWrapExpr:
		return s.symbol(e.Wrapped)
	case *hclsyntax.TemplateExpr:
		return s.template(e)
	case *hclsyntax.ScopeTraversalExpr:
		if out, ok := s.reference(e.Traversal); ok {
			return out
		}
	case *hclsyntax.TupleConsExpr:
		out := symbol{kind: list, value: s.quiet(e)}
		for _, item := range e.Exprs {
			out.items = append(out.items, s.symbol(item))
		}
		return out
	case *hclsyntax.ObjectConsExpr:
		out := symbol{kind: dict, value: s.quiet(e)}
		for _, item := range e.Items {
			key, diags := item.KeyExpr.Value(s.context())
			if diags.HasErrors() || key.IsNull() || !key.Type().Equals(cty.String) {
				return s.evaluate(e)
			}
			value := s.symbol(item.ValueExpr)
			if s.depends(item.KeyExpr, 0) {
				value = value.from(s.code(item.KeyExpr))
			}
			out.keys, out.items = append(out.keys, key.AsString()), append(out.items, value)
		}
		return out
	case *hclsyntax.ConditionalExpr:
		return s.conditional(e)
	case *hclsyntax.FunctionCallExpr:
		if out, ok := s.call(e); ok {
			return out
		}
	case *hclsyntax.ForExpr:
		if out, ok := s.loop(e); ok {
			return out
		}
	}
	return s.evaluate(e)
}

// json translates an expression of a JSON file: its strings are templates.
func (s *scope) json(e hcl.Expression) symbol {
	raw := strings.TrimSpace(s.bytes(e.Range()))
	switch {
	case strings.HasPrefix(raw, "["):
		items, diags := hcl.ExprList(e)
		if diags.HasErrors() {
			return s.evaluate(e)
		}
		out := symbol{kind: list, value: s.quiet(e)}
		for _, item := range items {
			out.items = append(out.items, s.symbol(item))
		}
		return out
	case strings.HasPrefix(raw, "{"):
		pairs, diags := hcl.ExprMap(e)
		if diags.HasErrors() {
			return s.evaluate(e)
		}
		out := symbol{kind: dict, value: s.quiet(e)}
		for _, pair := range pairs {
			key, diags := pair.Key.Value(s.context())
			if diags.HasErrors() {
				return s.evaluate(e)
			}
			out.keys, out.items = append(out.keys, key.AsString()), append(out.items, s.symbol(pair.Value))
		}
		return out
	case strings.HasPrefix(raw, `"`):
		value, ok := unquote(raw)
		if !ok {
			return s.evaluate(e)
		}
		inner, diags := hclsyntax.ParseTemplate([]byte(value), e.Range().Filename, e.Range().Start)
		if diags.HasErrors() {
			return s.evaluate(e)
		}
		return s.symbol(inner)
	}
	return s.evaluate(e)
}

// template joins the parts of a text. A condition in it becomes one of the whole.
func (s *scope) template(e *hclsyntax.TemplateExpr) symbol {
	out := symbol{value: cty.StringVal("")}
	for _, part := range e.Parts {
		next := s.symbol(part)
		if name, ok := lone(next.text); ok && next.kind == text && next.value != cty.NilVal && next.value.IsNull() {
			next.text = "${" + name + ":-}" // a condition keeps it from being asked for
		}
		if next.kind == null && next.value == cty.NilVal {
			return next // it was told
		}
		if next.kind == null && next.source == "" {
			return s.evaluate(e)
		}
		var ok bool
		if out, ok = join(out, next); !ok {
			return s.evaluate(e)
		}
	}
	out.value = s.quiet(e)
	return out
}

const maxChoices = 8 // of one text

// join puts two texts behind each other.
func join(a, b symbol) (symbol, bool) {
	switch {
	case a.kind == text && b.kind == text && !a.listRef && !b.listRef:
		return symbol{value: cty.StringVal(a.now() + b.now()), text: a.text + b.text, source: firstOf(a.source, b.source)}, true
	case a.kind == choice:
		yes, ok := join(a.items[0], b)
		no, ok2 := join(a.items[1], b)
		return symbol{kind: choice, cond: a.cond, items: []symbol{yes, no}, source: firstOf(a.source, b.source), value: cty.StringVal(a.now() + b.now())}, ok && ok2 && count(yes)+count(no) <= maxChoices
	case b.kind == choice:
		yes, ok := join(a, b.items[0])
		no, ok2 := join(a, b.items[1])
		return symbol{kind: choice, cond: b.cond, items: []symbol{yes, no}, source: firstOf(a.source, b.source), value: cty.StringVal(a.now() + b.now())}, ok && ok2 && count(yes)+count(no) <= maxChoices
	}
	return symbol{}, false
}

func count(s symbol) int {
	if s.kind != choice {
		return 1
	}
	return count(s.items[0]) + count(s.items[1])
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// reference is a name of a variable, or of what is bound here.
func (s *scope) reference(t hcl.Traversal) (symbol, bool) {
	root := t.RootName()
	out, ok := s.bound[root]
	if !ok {
		v := s.vars[root]
		if v == nil || v.symbol == nil {
			return symbol{}, false
		}
		out = *v.symbol
	}
	for _, step := range t[1:] {
		switch step := step.(type) {
		case hcl.TraverseAttr:
			i := slices.Index(out.keys, step.Name)
			if out.kind != dict || i < 0 {
				return symbol{}, false
			}
			out = out.items[i]
		case hcl.TraverseIndex:
			if out.kind != list || step.Key.Type() != cty.Number {
				return symbol{}, false
			}
			n, _ := step.Key.AsBigFloat().Int64()
			if n < 0 || int(n) >= len(out.items) {
				return symbol{}, false
			}
			out = out.items[n]
		default:
			return symbol{}, false
		}
	}
	return out, true
}

func (s *scope) conditional(e *hclsyntax.ConditionalExpr) symbol {
	cond, fixed, ok := s.condition(e.Condition)
	if !ok && !s.depends(e.Condition, 0) {
		if v := s.quiet(e.Condition); v != cty.NilVal && !v.IsNull() && v.Type() == cty.Bool {
			cond, fixed, ok = "", v.True(), true
		}
	}
	switch {
	case !ok:
		return s.evaluate(e)
	case cond == "" && fixed:
		return s.symbol(e.TrueResult)
	case cond == "":
		return s.symbol(e.FalseResult)
	}
	out := symbol{kind: choice, cond: cond, value: s.quiet(e), source: s.code(e)}
	out.items = []symbol{s.symbol(e.TrueResult), s.symbol(e.FalseResult)}
	return out
}

// condition is an expression as a condition of ours; one that is the same whatever
// the variables are is cond "" and what it is.
func (s *scope) condition(e hcl.Expression) (cond string, fixed, ok bool) {
	switch e := e.(type) {
	case *hclsyntax.ParenthesesExpr:
		return s.condition(e.Expression)
	case *hclsyntax.UnaryOpExpr:
		if e.Op == hclsyntax.OpLogicalNot {
			return s.negated(e.Val)
		}
	case *hclsyntax.BinaryOpExpr:
		switch e.Op {
		case hclsyntax.OpEqual:
			return s.compared("==", e.LHS, e.RHS)
		case hclsyntax.OpNotEqual:
			return s.compared("!=", e.LHS, e.RHS)
		case hclsyntax.OpLogicalAnd:
			return s.both("&&", e.LHS, e.RHS)
		case hclsyntax.OpLogicalOr:
			return s.both("||", e.LHS, e.RHS)
		}
	case *hclsyntax.FunctionCallExpr:
		if len(e.Args) == 1 && e.Name == "not" {
			return s.negated(e.Args[0])
		}
		if len(e.Args) == 2 {
			switch e.Name {
			case "equal":
				return s.compared("==", e.Args[0], e.Args[1])
			case "notequal":
				return s.compared("!=", e.Args[0], e.Args[1])
			case "and":
				return s.both("&&", e.Args[0], e.Args[1])
			case "or":
				return s.both("||", e.Args[0], e.Args[1])
			}
		}
	case *hclsyntax.ScopeTraversalExpr, *hclsyntax.LiteralValueExpr, *hclsyntax.TemplateExpr, *hclsyntax.TemplateWrapExpr:
		v := s.symbol(e)
		if v.kind != text || v.source != "" || v.value == cty.NilVal || v.value.Type() != cty.Bool || v.value.IsNull() {
			return "", false, false
		}
		if name, ok := lone(v.text); ok {
			return name, false, true
		}
		return "", v.value.True(), v.text == "true" || v.text == "false"
	}
	return "", false, false
}

func (s *scope) negated(e hcl.Expression) (string, bool, bool) {
	cond, fixed, ok := s.condition(e)
	if cond == "" {
		return "", !fixed, ok
	}
	return negate(cond), false, ok
}

// negate is the opposite of a condition.
func negate(cond string) string {
	if rest, ok := strings.CutPrefix(cond, "!"); ok && !strings.ContainsAny(rest, " ") {
		return rest
	}
	if parts := strings.Split(cond, " == "); len(parts) == 2 && !strings.ContainsAny(cond, "&|(") {
		return parts[0] + " != " + parts[1]
	}
	if parts := strings.Split(cond, " != "); len(parts) == 2 && !strings.ContainsAny(cond, "&|(") {
		return parts[0] + " == " + parts[1]
	}
	if strings.Contains(cond, " ") {
		return "!(" + cond + ")"
	}
	return "!" + cond
}

func (s *scope) both(op string, a, b hcl.Expression) (string, bool, bool) {
	left, yes, ok := s.condition(a)
	right, yes2, ok2 := s.condition(b)
	decides := op == "||" // this value of one side decides
	switch {
	case !ok || !ok2:
		return "", false, false
	case left == "" && yes == decides || right == "" && yes2 == decides:
		return "", decides, true
	case left == "":
		return right, yes2, true
	case right == "":
		return left, yes, true
	}
	if left == right {
		return left, false, true
	}
	return enclosed(op, left) + " " + op + " " + enclosed(op, right), false, true
}

// enclosed puts a condition in parentheses if the operator beside it needs them.
func enclosed(op, cond string) string {
	if strings.Contains(cond, "||") && op == "&&" {
		return "(" + cond + ")"
	}
	return cond
}

func (s *scope) compared(op string, a, b hcl.Expression) (string, bool, bool) {
	left, right := s.symbol(a), s.symbol(b)
	if right.kind == null && right.source == "" && right.value != cty.NilVal && left.kind == text {
		if name, ok := lone(left.text); ok { // what is null is empty, in a condition
			return name + " " + op + " ''", false, true
		}
	}
	if left.kind != text || right.kind != text || left.source != "" || right.source != "" || left.listRef || right.listRef {
		return "", false, false
	}
	l, lref := side(left.text)
	r, rref := side(right.text)
	switch {
	case l == "" || r == "":
		return "", false, false
	case !lref && !rref:
		return "", (left.text == right.text) == (op == "=="), true
	case !lref:
		l, r = r, l
	}
	return l + " " + op + " " + r, false, true
}

// side is a text as one side of a comparison: a lone reference, or quoted.
func side(t string) (out string, reference bool) {
	if name, ok := lone(t); ok {
		return name, true
	}
	switch {
	case importer.HasReference(t):
		return "", false
	case !strings.Contains(t, "'"):
		return "'" + t + "'", false
	case !strings.Contains(t, `"`):
		return `"` + t + `"`, false
	}
	return "", false
}

// lone is the name in a text that is one reference.
func lone(t string) (name string, ok bool) {
	rest, ok := strings.CutPrefix(t, "${")
	name, end := strings.CutSuffix(rest, "}")
	return name, ok && end && !strings.Contains(name, "}") && strings.Contains(name, ".")
}

// call translates functions of the file, by what they are made of, and those few
// that references and lists know themselves.
func (s *scope) call(e *hclsyntax.FunctionCallExpr) (symbol, bool) {
	if f := s.funcs[e.Name]; f != nil && !e.ExpandFinal && s.depth < maxDepth {
		inner := &scope{source: s.source, bound: map[string]symbol{}, varying: s.varying}
		for i, name := range f.params {
			if i >= len(e.Args) {
				return symbol{}, false
			}
			inner.bound[name] = s.symbol(e.Args[i])
		}
		switch rest := e.Args[min(len(f.params), len(e.Args)):]; {
		case f.variadic != "":
			all := symbol{kind: list, value: cty.EmptyTupleVal}
			var values []cty.Value
			for _, a := range rest {
				all.items = append(all.items, s.symbol(a))
				values = append(values, s.quiet(a))
			}
			all.value = cty.TupleVal(values)
			inner.bound[f.variadic] = all
		case len(rest) > 0:
			return symbol{}, false
		}
		s.depth++
		out := inner.symbol(f.result)
		s.depth--
		s.bad = s.bad || inner.bad
		return out, true
	}
	switch {
	case e.ExpandFinal:
		return symbol{}, false
	case e.Name == "timestamp" && len(e.Args) == 0:
		return symbol{value: cty.StringVal("2006-01-02T15:04:05Z"), text: "${build.date}"}, true
	case e.Name == "concat", e.Name == "flatten" && len(e.Args) == 1:
		out := symbol{kind: list, value: s.quiet(e)}
		for _, a := range e.Args {
			part := s.symbol(a)
			if e.Name == "flatten" && part.kind == list {
				for _, item := range part.items {
					if item = item.flatList(); item.kind == list {
						out.items = append(out.items, item.items...)
					} else {
						out.items = append(out.items, item)
					}
				}
				continue
			}
			if part = part.flatList(); part.kind != list {
				return symbol{}, false
			}
			out.items = append(out.items, part.items...)
		}
		return out, true
	case e.Name == "format" && len(e.Args) > 0:
		args := make([]symbol, len(e.Args)-1)
		for i := range args {
			args[i] = s.symbol(e.Args[i+1])
		}
		out, ok := formatted(s.symbol(e.Args[0]), args)
		return out, ok
	case e.Name == "formatlist" && len(e.Args) > 1:
		return s.formatList(e)
	case e.Name == "compact" && len(e.Args) == 1:
		out := s.symbol(e.Args[0])
		return out, out.kind == list // empty ones drop out of tags and platforms by themselves
	case e.Name == "lower" && len(e.Args) == 1, e.Name == "replace" && len(e.Args) == 3:
		arg := s.symbol(e.Args[0])
		name, ok := lone(arg.text)
		if arg.kind != text || !ok || arg.listRef {
			return symbol{}, false
		}
		if e.Name == "lower" {
			return symbol{value: s.quiet(e), text: "${" + name + "|lower}"}, true
		}
		old, with := s.symbol(e.Args[1]), s.symbol(e.Args[2])
		l, lref := side(old.text)
		r, rref := side(with.text)
		if old.kind != text || with.kind != text || l == "" || r == "" || lref || rref || strings.ContainsAny(l+r, "}$") || strings.HasPrefix(l, "'/") && len(l) > 3 {
			return symbol{}, false
		}
		return symbol{value: s.quiet(e), text: fmt.Sprintf("${%s|replace(%s, %s)}", name, l, r)}, true
	}
	return symbol{}, false
}

// formatted puts texts in the place of the verbs %s and %v of another.
func formatted(f symbol, args []symbol) (symbol, bool) {
	if f.kind == choice {
		yes, ok := formatted(f.items[0], args)
		no, ok2 := formatted(f.items[1], args)
		return symbol{kind: choice, cond: f.cond, items: []symbol{yes, no}, source: f.source, value: cty.StringVal(yes.now())}.decided(f), ok && ok2 && count(yes)+count(no) <= maxChoices
	}
	if f.kind != text || f.listRef || f.source != "" {
		return symbol{}, false
	}
	out := symbol{value: cty.StringVal("")}
	rest, now := f.text, f.now()
	if strings.Count(rest, "%") != strings.Count(now, "%") {
		return symbol{}, false // a verb comes of a variable
	}
	put := func(s symbol) (ok bool) {
		out, ok = join(out, s)
		return ok
	}
	for {
		before, after, found := strings.Cut(rest, "%")
		nowBefore, nowAfter, _ := strings.Cut(now, "%")
		if !put(symbol{value: cty.StringVal(nowBefore), text: before}) {
			return symbol{}, false
		}
		switch {
		case !found:
			return out, len(args) == 0
		case strings.HasPrefix(after, "%"):
			if !put(symbol{value: cty.StringVal("%"), text: "%"}) {
				return symbol{}, false
			}
		case len(args) == 0 || !strings.HasPrefix(after, "s") && !strings.HasPrefix(after, "v") || !put(args[0]):
			return symbol{}, false
		default:
			args = args[1:]
		}
		rest, now = after[1:], nowAfter[1:]
	}
}

// decided is a choice with the value of the side that another choice takes now.
func (s symbol) decided(like symbol) symbol {
	if like.value != cty.NilVal && like.items[0].value != cty.NilVal && !same(like.items[0].value, like.value) {
		s.value = cty.StringVal(s.items[1].now())
	}
	return s
}

// formatList is a list of formatted texts. What compact drops when it is empty is a
// choice.
func (s *scope) formatList(e *hclsyntax.FunctionCallExpr) (symbol, bool) {
	f := s.symbol(e.Args[0])
	if f.kind != text && f.kind != choice {
		return symbol{}, false
	}
	size := -1
	var args []symbol
	for _, a := range e.Args[1:] {
		arg := s.symbol(a)
		if call, ok := a.(*hclsyntax.FunctionCallExpr); ok && call.Name == "compact" && arg.kind == list {
			if len(e.Args) > 2 {
				return symbol{}, false
			}
			arg = droppable(arg)
		}
		if arg.kind == list {
			if size >= 0 && size != len(arg.items) {
				return symbol{}, false
			}
			size = len(arg.items)
		} else if arg.kind != text || arg.listRef {
			return symbol{}, false
		}
		args = append(args, arg)
	}
	if size < 0 {
		return symbol{}, false
	}
	out := symbol{kind: list, value: s.quiet(e)}
	for i := range size {
		one := make([]symbol, len(args))
		for k, a := range args {
			if one[k] = a; a.kind == list {
				one[k] = a.items[i]
			}
		}
		var item symbol
		var ok bool
		if c := one[0]; len(one) == 1 && c.kind == choice && c.items[1].kind == text && c.items[1].text == "" { // it may drop out
			var inner symbol
			if inner, ok = formatted(f, c.items[:1]); ok {
				item = symbol{kind: choice, cond: c.cond, items: []symbol{inner, c.items[1]}, value: cty.StringVal(inner.now())}.decided(c)
			}
		} else {
			item, ok = formatted(f, one)
		}
		if !ok {
			return symbol{}, false
		}
		out.items = append(out.items, item)
	}
	return out, true
}

// droppable is a list whose items are choices if they can be empty.
func droppable(l symbol) symbol {
	out := symbol{kind: list, value: l.value}
	empty := symbol{value: cty.StringVal("")}
	for _, item := range l.items {
		name, ok := lone(item.text)
		switch {
		case item.kind == text && item.text == "":
			continue
		case item.kind == text && ok:
			kept := cty.StringVal(item.now())
			item = symbol{kind: choice, cond: name + " != ''", items: []symbol{item, empty}, value: kept}
		}
		out.items = append(out.items, item)
	}
	return out
}

// flatList is a list whose choice between lists is one in each item, if the other
// list is empty.
func (s symbol) flatList() symbol {
	if s.kind != choice {
		return s
	}
	yes, no := s.items[0].flatList(), s.items[1].flatList()
	if yes.kind != list || no.kind != list {
		return s
	}
	out := symbol{kind: list, value: s.value}
	empty := symbol{value: cty.StringVal("")}
	for _, item := range yes.items {
		out.items = append(out.items, symbol{kind: choice, cond: s.cond, items: []symbol{item, empty}, source: s.source, value: item.value})
	}
	for _, item := range no.items {
		out.items = append(out.items, symbol{kind: choice, cond: s.cond, items: []symbol{empty, item}, source: s.source, value: item.value})
	}
	return out
}

// loop unrolls a for over a list that is written out.
func (s *scope) loop(e *hclsyntax.ForExpr) (symbol, bool) {
	over := s.symbol(e.CollExpr)
	if over.kind != list && over.kind != dict || e.CondExpr != nil || e.Group {
		return symbol{}, false
	}
	out := symbol{kind: list, value: s.quiet(e)}
	if e.KeyExpr != nil {
		out.kind = dict
	}
	for i, item := range over.items {
		inner := &scope{source: s.source, bound: map[string]symbol{}, varying: s.varying}
		for k, v := range s.bound {
			inner.bound[k] = v
		}
		inner.bound[e.ValVar] = item
		if e.KeyVar != "" {
			key := constant(cty.NumberIntVal(int64(i)))
			if over.kind == dict {
				key = constant(cty.StringVal(over.keys[i]))
			}
			inner.bound[e.KeyVar] = key
		}
		if e.KeyExpr != nil {
			key := inner.symbol(e.KeyExpr)
			if key.kind != text || importer.HasReference(key.text) {
				return symbol{}, false
			}
			out.keys = append(out.keys, key.now())
		}
		out.items = append(out.items, inner.symbol(e.ValExpr))
		s.bad = s.bad || inner.bad
	}
	return out, true
}

// quiet is an expression's value, NilVal if it has none.
func (s *scope) quiet(e hcl.Expression) cty.Value {
	v, diags := e.Value(s.context())
	if diags.HasErrors() {
		return cty.NilVal
	}
	v, _ = v.UnmarkDeep()
	return v
}

// evaluate is what an expression is with the defaults, for those that have no
// other form here.
func (s *scope) evaluate(e hcl.Expression) symbol {
	for _, t := range e.Variables() {
		if slices.Contains(s.varying, t.RootName()) {
			s.bad = true
		}
	}
	v, diags := e.Value(s.context())
	if diags.HasErrors() {
		hint := ""
		if strings.Contains(s.code(e), "timestamp()") {
			hint = "${build.date} is the time of the build"
		}
		for _, t := range e.Variables() {
			_, bound := s.bound[t.RootName()]
			if _, known := s.eval.Variables[t.RootName()]; !known && !bound {
				hint = "if another file has " + t.RootName() + ", name that too: --from FILE"
			}
		}
		s.draft.Drop(pos(e.Range()), hint, "%s: %s", s.code(e), problem(diags))
		return symbol{kind: null, value: cty.NilVal}
	}
	v, _ = v.UnmarkDeep()
	out := constant(v)
	if !s.depends(e, 0) {
		return out
	}
	return out.from(s.code(e))
}

// from notes the source of what was evaluated, at its first text.
func (s symbol) from(code string) symbol {
	if len(s.items) > 0 {
		s.items = slices.Clone(s.items)
		s.items[0] = s.items[0].from(code)
	}
	s.source = code
	return s
}

// depends tells whether an expression is something else when a variable is.
func (s *scope) depends(e hcl.Expression, depth int) bool {
	if depth > maxDepth {
		return true
	}
	for _, t := range e.Variables() {
		if b, ok := s.bound[t.RootName()]; ok {
			if b.depends() {
				return true
			}
			continue
		}
		v := s.vars[t.RootName()]
		if v == nil && !strings.HasPrefix(t.RootName(), "BAKE_") || v != nil && (!v.fixed || (&scope{source: s.source}).depends(v.fallback, depth+1)) {
			return true
		}
	}
	found := false
	visit(e, func(call *hclsyntax.FunctionCallExpr) {
		f := s.funcs[call.Name]
		if f == nil {
			_, known := s.eval.Functions[call.Name]
			found = found || !known
			return
		}
		inner := &scope{source: s.source, bound: map[string]symbol{}}
		for _, p := range append(slices.Clone(f.params), f.variadic) {
			inner.bound[p] = symbol{} // what is handed in is looked at where it stands
		}
		found = found || inner.depends(f.result, depth+1)
	})
	return found
}

func (s symbol) depends() bool {
	return s.source != "" || s.listRef || s.kind == choice || importer.HasReference(s.text) || slices.ContainsFunc(s.items, symbol.depends)
}

// visit calls fn with the function calls in an expression.
func visit(e hcl.Expression, fn func(*hclsyntax.FunctionCallExpr)) {
	n, ok := e.(hclsyntax.Node)
	if !ok {
		return
	}
	_ = hclsyntax.VisitAll(n, func(n hclsyntax.Node) hcl.Diagnostics {
		if call, is := n.(*hclsyntax.FunctionCallExpr); is {
			fn(call)
		}
		return nil
	})
}

// calls tells whether an expression calls functions: what these give may change.
func calls(e hcl.Expression) bool {
	found := false
	visit(e, func(*hclsyntax.FunctionCallExpr) { found = true })
	return found
}

// code is an expression as it was written, on one line.
func (s *scope) code(e hcl.Expression) string {
	return strings.Join(strings.Fields(s.bytes(e.Range())), " ")
}

// joined is an attribute of all blocks of a target as one value.
func (s *scope) joined(all []*hcl.Attribute) symbol {
	out := s.symbol(all[len(all)-1].Expr)
	if len(all) == 1 {
		return out
	}
	var parts []symbol
	for _, a := range all {
		parts = append(parts, s.symbol(a.Expr).flat())
	}
	if !slices.ContainsFunc(parts, func(p symbol) bool { return p.kind == dict }) {
		out = symbol{kind: list}
		for _, p := range parts {
			out.items = append(out.items, s.items(p)...)
		}
		return out
	}
	out = symbol{kind: dict}
	for _, p := range parts {
		for i, key := range p.keys {
			k := slices.Index(out.keys, key)
			switch {
			case k < 0:
				out.keys, out.items = append(out.keys, key), append(out.items, p.items[i])
			case p.items[i].flat().kind != null: // else it takes nothing away
				item, was := p.items[i].flat(), out.items[k].flat()
				if item.isNull() && was.kind == text && !importer.HasReference(was.text) { // nor does a variable that is null
					item.text, item.value = orElse(item.text, was.text), was.value
					out.items[k] = item
					continue
				}
				out.items[k] = p.items[i]
			}
		}
	}
	return out
}

// isNull tells whether a text is null with the defaults.
func (s symbol) isNull() bool {
	return s.kind == text && s.value != cty.NilVal && s.value.IsNull()
}

// orElse is a reference with what it is where it is null.
func orElse(ref, was string) string {
	name, ok := lone(ref)
	if !ok || strings.ContainsAny(was, "{}|") {
		return ref
	}
	return "${" + name + ":-" + was + "}"
}

// context is names and functions with their values.
func (s *scope) context() *hcl.EvalContext {
	if len(s.bound) == 0 {
		return s.eval
	}
	inner := s.eval.NewChild()
	inner.Variables = map[string]cty.Value{}
	for name, b := range s.bound {
		if inner.Variables[name] = b.value; b.value == cty.NilVal {
			inner.Variables[name] = cty.DynamicVal
		}
	}
	return inner
}
