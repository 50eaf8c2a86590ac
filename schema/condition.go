package schema

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// condition is the text of an if or a when, taken apart.
//
//	or   = and { "||" and }        not  = "!" not | "(" or ")" | test
//	and  = not { "&&" not }        test = side [ "==" side | "!=" side | "=~" text | "!~" text ]
//	side = ns.name [ "|" filter ] | 'text' | "text"
//
// A side alone holds unless it is empty or false. What has no value is empty.
type condition struct {
	op          string // "||", "&&", "!", "==", "!=", "=~", "!~", or "" for a side alone
	left, right *condition
	side        *side
	pattern     *regexp.Regexp // of "=~" and "!~"
}

// side is one thing that is compared: a reference or a text.
type side struct {
	ref  *reference
	text string
}

// maxCondition is the longest condition, in bytes; nesting is bounded by it.
const maxCondition = 2000

// parseCondition reads the whole of a text.
func parseCondition(text string) (*condition, *textError) {
	if len(text) > maxCondition {
		return nil, &textError{0, fmt.Sprintf("a condition has at most %d characters", maxCondition), ""}
	}
	p := &conditionParser{text: text}
	c, bad := p.or()
	if bad == nil && p.word() != "" {
		bad = p.unexpected("an operator such as == or &&")
	}
	if bad != nil {
		return nil, bad
	}
	return c, nil
}

type conditionParser struct {
	text string
	at   int // offset of what comes next
}

// word is the operator, parenthesis or first character of what comes next; "" at
// the end.
func (p *conditionParser) word() string {
	for p.at < len(p.text) && strings.IndexByte(" \t\n\r", p.text[p.at]) >= 0 {
		p.at++
	}
	rest := p.text[p.at:]
	for _, op := range []string{"&&", "||", "==", "!=", "=~", "!~"} {
		if strings.HasPrefix(rest, op) {
			return op
		}
	}
	return rest[:min(1, len(rest))]
}

func (p *conditionParser) unexpected(want string) *textError {
	got := p.word()
	if got == "" {
		return &textError{p.at, "the condition ends where there should be " + want, conditionHint}
	}
	if got == "$" {
		return &textError{p.at, "a condition names things without ${ }", "write vars.x == 'text', or just vars.x where it is true or false"}
	}
	return &textError{p.at, fmt.Sprintf("%q stands in the condition where there should be %s", got, want), conditionHint}
}

const conditionHint = "write, for example, git.branch == 'main' && !git.dirty"

func (p *conditionParser) or() (*condition, *textError)  { return p.chain("||", p.and) }
func (p *conditionParser) and() (*condition, *textError) { return p.chain("&&", p.not) }

// chain reads parts with the same operator between.
func (p *conditionParser) chain(op string, part func() (*condition, *textError)) (*condition, *textError) {
	left, bad := part()
	for bad == nil && p.word() == op {
		p.at += len(op)
		var right *condition
		if right, bad = part(); bad == nil {
			left = &condition{op: op, left: left, right: right}
		}
	}
	return left, bad
}

func (p *conditionParser) not() (*condition, *textError) {
	switch p.word() {
	case "!":
		p.at++
		c, bad := p.not()
		return &condition{op: "!", left: c}, bad
	case "(":
		p.at++
		c, bad := p.or()
		if bad == nil && p.word() != ")" {
			bad = p.unexpected("a )")
		}
		p.at++
		return c, bad
	}
	return p.test()
}

func (p *conditionParser) test() (*condition, *textError) {
	left, bad := p.side()
	if bad != nil {
		return nil, bad
	}
	op := p.word()
	if !slices.Contains([]string{"==", "!=", "=~", "!~"}, op) {
		return &condition{side: left}, nil
	}
	p.at += len(op)
	p.word()
	start := p.at
	right, bad := p.side()
	if bad != nil {
		return nil, bad
	}
	c := &condition{op: op, side: left, right: &condition{side: right}}
	if op == "=~" || op == "!~" {
		if right.ref != nil {
			return nil, &textError{start, op + " needs a regular expression in quotes", "write git.tag =~ '^v[0-9]'"}
		}
		var err error
		if c.pattern, err = regexp.Compile(right.text); err != nil {
			return nil, &textError{start, "not a regular expression: " + strings.TrimPrefix(err.Error(), "error parsing regexp: "), ""}
		}
	}
	return c, nil
}

var sideName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*\.[A-Za-z0-9_.-]+`)

func (p *conditionParser) side() (*side, *textError) {
	w := p.word()
	if w == "'" || w == `"` {
		text, _, closed := strings.Cut(p.text[p.at+1:], w)
		if !closed {
			return nil, &textError{p.at, "a text in the condition has no end", "close the quote"}
		}
		p.at += len(text) + 2
		return &side{text: text}, nil
	}
	name := sideName.FindString(p.text[p.at:])
	if name == "" {
		return nil, p.unexpected("a name such as git.branch or a text in quotes")
	}
	end := p.at + len(name)
	for end < len(p.text) && p.text[end] == '|' && !strings.HasPrefix(p.text[end:], "||") {
		_, n, bad := readFilter(p.text, end)
		if bad != nil {
			return nil, bad
		}
		end = n
	}
	const open = len("${")
	ref, _, bad := readReference("${"+p.text[p.at:end]+"}", 0)
	if bad != nil {
		bad.offset += p.at - open
		return nil, bad
	}
	ref.offset = p.at
	p.at = end
	return &side{ref: ref}, nil
}

// holds evaluates a condition of v; ok is false after a problem was reported. All
// of it is looked at, so that a wrong name does not hide behind an operator.
func (x expander) holds(v *value) (yes, ok bool) {
	c, bad := parseCondition(v.text)
	if bad != nil {
		x.problems.Add(v.at(bad.offset), bad.hint, "%s", bad.what)
		return false, false
	}
	return x.condition(v, c)
}

func (x expander) condition(v *value, c *condition) (yes, ok bool) {
	switch c.op {
	case "!":
		yes, ok = x.condition(v, c.left)
		return !yes, ok
	case "&&", "||":
		left, ok := x.condition(v, c.left)
		right, ok2 := x.condition(v, c.right)
		if c.op == "&&" {
			return left && right, ok && ok2
		}
		return left || right, ok && ok2
	}
	left, ok := x.side(v, c.side)
	if !ok || c.op == "" {
		return left != "" && !strings.EqualFold(left, "false"), ok
	}
	if c.pattern != nil {
		return c.pattern.MatchString(left) == (c.op == "=~"), true
	}
	right, ok := x.side(v, c.right.side)
	return (left == right) == (c.op == "=="), ok
}

func (x expander) side(v *value, s *side) (text string, ok bool) {
	if s.ref == nil {
		return s.text, true
	}
	if _, late := lateFacts[s.ref.ns]; late {
		x.problems.Add(v.at(s.ref.offset), "", "%s.%s is not known before the build, so no condition can ask for it", s.ref.ns, s.ref.name)
		return "", false
	}
	ref, empty := *s.ref, ""
	ref.fallback = &empty
	got := x.reference(v, &ref)
	if got == nil {
		return "", false
	}
	if !got.isScalar() {
		x.problems.Add(v.at(s.ref.offset), "", "%s.%s is %s and cannot be compared", s.ref.ns, s.ref.name, got.kind)
		return "", false
	}
	return got.text, true
}

// conditionRefs is the references of a condition.
func conditionRefs(c *condition) []*reference {
	if c == nil {
		return nil
	}
	out := append(conditionRefs(c.left), conditionRefs(c.right)...)
	if c.side != nil && c.side.ref != nil {
		out = append(out, c.side.ref)
	}
	return out
}
