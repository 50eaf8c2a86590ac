package schema

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"kaniko-build/schema/diag"
)

// variable is one declared name of a unit.
type variable struct {
	name     string
	pos      diag.Pos
	typ      string
	fallback *value
	env      []string
	enum     []string
	pattern  *regexp.Regexp
	required bool

	made  bool
	value *value // failedValue while it is being made, and when it could not
}

// failedValue stands for a value whose mistake has been reported already.
var failedValue = &value{kind: stringKind}

// scope is what references outside a target can name. Values are made when
// first asked for, so that git is asked only for what the manifest uses.
type scope struct {
	opts      Options
	workspace string
	units     map[string]*unit // by file
	root      *unit
	envFile   map[string]string // what envFiles say
	given     map[string]given
	making    []*variable
	git       map[string]*value
	problems  *diag.List
	budget    *budget
	early     string // the section that is read before there are variables; "" later
}

// expander expands what is outside of targets.
func (s *scope) expander() expander {
	return expander{names: s, problems: s.problems, budget: s.budget}
}

// unit is the unit of a file; what is in none, a flag's text for one, is the root's.
func (s *scope) unit(file string) *unit {
	if u := s.units[file]; u != nil {
		return u
	}
	return s.root
}

// given is a value for a variable from outside the manifest.
type given struct {
	from string   // for messages: "--var", a file
	pos  diag.Pos // in a file; else zero
	v    *value   // from a file
	text string   // else
}

var varName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*$`)

// declare reads a unit's vars section.
func (s *scope) declare(u *unit, section *value) {
	u.vars = map[string]*variable{}
	defer func() {
		if u.with == nil {
			return
		}
		for _, e := range u.with.entries {
			if u.vars[e.name] == nil {
				s.problems.Add(e.pos, suggestFrom(e.name, u.varNames), "with gives unknown variable %q of %s", e.name, u.file)
			}
		}
	}()
	if section == nil {
		return
	}
	byEnv := map[string]entry{}
	for _, e := range section.entries {
		if !varName.MatchString(e.name) {
			s.problems.Add(e.pos, "use letters, digits and _", "%q is not a name for a variable", e.name)
			continue
		}
		if other, twice := byEnv[overrideName(e.name)]; twice {
			s.problems.Add(e.pos, "", "variables %q and %q are both set by %s", other.name, e.name, overrideName(e.name))
			continue
		}
		byEnv[overrideName(e.name)] = e
		for _, above := range u.chain[1:] {
			if old := above.vars[e.name]; old != nil {
				s.problems.Add(e.pos, "take another name: an included file sees the variables of those that include it", "variable %q is already declared at %s", e.name, old.pos)
			}
		}
		u.vars[e.name] = s.variable(e)
		u.varNames = append(u.varNames, e.name)
	}
}

// find is the variable of that name which a file sees, or nil.
func (s *scope) find(file, name string) *variable {
	for _, u := range s.unit(file).chain {
		if v := u.vars[name]; v != nil {
			return v
		}
	}
	return nil
}

// visible is the names that a file sees, for suggestions.
func (s *scope) visible(file string) []string {
	var out []string
	for _, u := range s.unit(file).chain {
		out = append(out, u.varNames...)
	}
	return out
}

// all calls fn with every variable, in the order they are declared.
func (s *scope) all(fn func(*variable)) {
	for _, u := range s.ordered() {
		for _, name := range u.varNames {
			fn(u.vars[name])
		}
	}
}

// ordered is the units, includers first.
func (s *scope) ordered() []*unit {
	out := []*unit{s.root}
	for i := 0; i < len(out); i++ {
		for _, u := range out[i].includes {
			if u.includers[0] == out[i] {
				out = append(out, u)
			}
		}
	}
	return out
}

// overrideName is the environment variable that sets a variable.
func overrideName(name string) string { return "KANIKO_BUILD_VAR_" + strings.ToUpper(name) }

func (s *scope) variable(e entry) *variable {
	v := &variable{
		name: e.name, pos: e.pos,
		typ:      e.value.get("type").str(),
		fallback: e.value.get("default"),
		env:      e.value.get("env").strings(),
		enum:     e.value.get("enum").strings(),
		required: e.value.get("required").isTrue(),
	}
	for _, own := range e.value.entries {
		if own.name == "default" && own.value.kind == nullKind {
			v.fallback = own.value
		}
	}
	for _, key := range []string{"type", "env", "enum", "required"} {
		for _, item := range e.value.get(key).list() {
			if _, bad := splitText(item.text); bad != nil || isLoneReference(item.text) {
				s.problems.Add(item.pos, "", "only the default of a variable can hold a reference")
			}
		}
	}
	if p := e.value.get("pattern"); p != nil {
		re, err := regexp.Compile(p.text)
		if err != nil {
			s.problems.Add(p.pos, "", "pattern is not a regular expression: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
		}
		v.pattern = re
	}
	if v.typ == "" {
		v.typ = typeOf(v.fallback)
	}
	return v
}

// typeOf is the type of a variable that names none.
func typeOf(v *value) string {
	switch {
	case v == nil:
		return "string"
	case v.kind == boolKind:
		return "bool"
	case v.kind == intKind:
		return "int"
	case v.kind == listKind:
		return "list"
	case v.kind == mapKind:
		return "map"
	default:
		return "string"
	}
}

// override takes the values of flags and files. A name that nobody declared is a
// problem: it would silently do nothing.
func (s *scope) override() {
	for _, f := range s.opts.VarFiles {
		root := readYAML(f.Name, f.Text, s.problems)
		if root == nil {
			continue
		}
		if root.kind != mapKind {
			s.problems.Add(root.pos, "", "a file of variables must be a mapping of names to values, not %s", root.kind)
			continue
		}
		for _, e := range root.entries {
			s.give(e.name, given{from: f.Name, pos: e.value.pos, v: e.value})
		}
	}
	for _, a := range s.opts.Vars {
		s.give(a.Name, given{from: "--var", text: a.Value})
	}
}

func (s *scope) give(name string, g given) {
	known := false
	var names []string
	s.all(func(v *variable) {
		known = known || v.name == name
		names = append(names, v.name)
	})
	if !known {
		s.problems.Add(g.pos, cmp.Or(suggestFrom(name, names), "declare it: vars: {"+name+": {default: ...}}"), "%s sets unknown variable %q", g.from, name)
		return
	}
	s.given[name] = g
}

// settle makes every variable, so that a bad or missing value is told even if
// nothing uses it.
func (s *scope) settle() {
	s.all(func(v *variable) {
		if got := s.value(v); v.required && (got == nil || got.kind == nullKind) {
			s.problems.Add(v.pos, fmt.Sprintf("set it with --var %s=... or %s", v.name, overrideName(v.name)), "variable %q is required and has no value", v.name)
			v.value = failedValue // told, also for who names it
		}
	})
}

// value is a variable's value: --var, then --var-file, KANIKO_BUILD_VAR_NAME, the
// names in env, the same two in envFiles, the default. It is nil without any of them,
// and null if that is the default.
func (s *scope) value(v *variable) *value {
	if v.made {
		if i := slices.Index(s.making, v); i >= 0 {
			var circle []string
			for _, w := range append(slices.Clone(s.making[i:]), v) {
				circle = append(circle, w.name)
			}
			s.problems.Add(v.pos, "", "variables need each other: %s", strings.Join(circle, " -> "))
		}
		return v.value
	}
	v.made, v.value = true, failedValue
	s.making = append(s.making, v)
	v.value = s.make(v)
	s.making = s.making[:len(s.making)-1]
	return v.value
}

func (s *scope) make(v *variable) *value {
	if root := rootOf(v.pos.File); root != "" {
		if w := s.unit(v.pos.File).with.get(v.name); w != nil {
			done := s.expander().expand(w)
			if done == nil || done.kind == nullKind {
				return done
			}
			return s.accept(v, done, "with")
		}
		_, named := s.given[v.name]
		if !slices.Contains(s.opts.Allow, allowEnv) && !(named && s.opts.Guest) {
			return s.byDefault(v)
		}
	}
	if g, ok := s.given[v.name]; ok {
		if g.v != nil {
			return s.accept(v, g.v, g.from)
		}
		return s.parse(v, g.text, g.from)
	}
	names := append([]string{overrideName(v.name)}, v.env...)
	for _, env := range names {
		if text, ok := s.opts.lookupEnv(env); ok {
			return s.parse(v, text, "environment variable "+env)
		}
	}
	for _, env := range names {
		if text, ok := s.envFile[env]; ok {
			return s.parse(v, text, env+" in envFiles")
		}
	}
	return s.byDefault(v)
}

// byDefault is the default of a variable.
func (s *scope) byDefault(v *variable) *value {
	if v.fallback == nil {
		return nil
	}
	done := s.expander().expand(v.fallback)
	switch {
	case done == nil:
		return failedValue
	case done.kind == nullKind:
		return &value{kind: nullKind, pos: done.pos, size: 1}
	}
	return s.accept(v, done, "default")
}

// parse reads the text of a flag or an environment variable by the variable's
// type. A list is a,b or [a, b], a mapping {a: b}.
func (s *scope) parse(v *variable, text, from string) *value {
	out := newText(v.pos, text)
	switch v.typ {
	case "int":
		out.kind = intKind
	case "bool":
		out.kind = boolKind
	case "list", "map":
		trimmed := strings.TrimSpace(text)
		if v.typ == "list" && !strings.HasPrefix(trimmed, "[") {
			out = newList(v.pos, nil)
			for item := range strings.SplitSeq(trimmed, ",") {
				if item = strings.TrimSpace(item); item != "" {
					out = newList(v.pos, append(out.items, newText(v.pos, item)))
				}
			}
			break
		}
		var l diag.List
		if out = readYAML(from, []byte(text), &l); out == nil || l.Len() > 0 {
			s.problems.Add(v.pos, "write it as YAML", "%s gives variable %q something that is not %s", from, v.name, aType(v.typ))
			return failedValue
		}
		out = replaced(out, v.pos)
	}
	return s.accept(v, out, from)
}

// replaced moves a value that was read from a flag to where its variable is declared.
func replaced(v *value, pos diag.Pos) *value {
	w := *v
	w.pos, w.origin = pos, place{}
	w.items = nil
	for _, item := range v.items {
		w.items = append(w.items, replaced(item, pos))
	}
	w.entries = nil
	for _, e := range v.entries {
		w.entries = append(w.entries, entry{e.name, pos, replaced(e.value, pos)})
	}
	return &w
}

// accept checks a value against the declaration.
func (s *scope) accept(v *variable, got *value, from string) *value {
	ok := false
	switch v.typ {
	case "string":
		ok = got.isScalar()
		if ok && got.kind != stringKind {
			got = newText(got.pos, got.text)
		}
	case "int":
		ok = got.kind == intKind && isDigits(strings.TrimPrefix(got.text, "-"))
	case "bool":
		ok = got.kind == boolKind && (strings.EqualFold(got.text, "true") || strings.EqualFold(got.text, "false"))
	case "list":
		ok = got.kind == listKind && !slices.ContainsFunc(got.items, func(v *value) bool { return !v.isScalar() })
	case "map":
		ok = got.kind == mapKind && !slices.ContainsFunc(got.entries, func(e entry) bool { return !e.value.isScalar() })
	}
	if !ok {
		s.problems.Add(got.pos, "", "variable %q must be %s, and %s gives %s", v.name, aType(v.typ), from, describe(got))
		return failedValue
	}
	for _, item := range got.list() {
		if item.kind == mapKind {
			continue
		}
		if len(v.enum) > 0 && !slices.Contains(v.enum, item.text) {
			s.problems.Add(item.pos, diag.Suggest(item.text, v.enum), "variable %q must be one of %s, and %s gives %q", v.name, quoteAll(v.enum, "or"), from, item.text)
			return failedValue
		}
		if v.pattern != nil && !v.pattern.MatchString(item.text) {
			s.problems.Add(item.pos, "", "variable %q must match %s, and %s gives %q", v.name, v.pattern, from, item.text)
			return failedValue
		}
	}
	return got
}

// aType is a type with its article.
func aType(typ string) string {
	return map[string]string{"string": "text", "int": "a whole number", "bool": "true or false", "list": "a list of texts", "map": "a mapping of names to texts"}[typ]
}

func describe(v *value) string {
	if v.isScalar() {
		return fmt.Sprintf("%q", v.text)
	}
	return string(v.kind)
}

// The namespaces of references, and what those with a closed list know.
var (
	namespaces  = []string{"build", "ci", "env", "git", "input", "matrix", "result", "target", "vars", "workspace"}
	gitFacts    = []string{"branch", "dirty", "sha", "short", "tag", "url"}
	targetFacts = []string{"name", "base", "slug", "variant"}
	buildFacts  = []string{"date", "time"}
)

func (s *scope) lookup(file, ns, name string) (*value, error) {
	if s.early != "" && (ns == "vars" || ns == "workspace") {
		return nil, &diag.Problem{What: fmt.Sprintf("%s.%s is not known yet where %s are read", ns, name, s.early), Hint: "use env or git"}
	}
	switch {
	case ns == "vars":
		v := s.find(file, name)
		if v == nil {
			return nil, &diag.Problem{What: fmt.Sprintf("unknown variable %q", name), Hint: cmp.Or(suggestFrom(name, s.visible(file)), "declare it: vars: {"+name+": {default: ...}}")}
		}
		return s.value(v), nil
	case ns == "env" && rootOf(file) != "" && !slices.Contains(s.opts.Allow, allowEnv):
		return nil, &diag.Problem{What: fmt.Sprintf("${env.%s}: a file of another repository does not see the environment", name), Hint: "pass it by with:, or run with --allow=env"}
	case ns == "env":
		text, ok := s.opts.lookupEnv(name)
		if !ok {
			text, ok = s.envFile[name]
		}
		if ok {
			return newText(diag.Pos{}, text), nil
		}
		return nil, nil
	case ns == "git":
		return s.gitFact(name)
	case ns == "ci":
		return s.ciFact(name)
	case ns == "build":
		return s.buildFact(name)
	case ns == "workspace" && name == "name":
		return newText(diag.Pos{}, s.workspace), nil
	case ns == "workspace":
		return nil, unknownFact(ns, name, []string{"name"})
	case ns == "target" || ns == "matrix":
		return nil, &diag.Problem{What: fmt.Sprintf("${%s.%s} has a meaning only in targets, templates and defaults", ns, name)}
	case ns == "input":
		return nil, &diag.Problem{What: fmt.Sprintf("${%s.%s} has a meaning only in tags and hooks", ns, name)}
	case ns == "result":
		return nil, &diag.Problem{What: fmt.Sprintf("${%s.%s} has a meaning only in hooks", ns, name)}
	default:
		hint := suggestFrom(ns, namespaces) + fmt.Sprintf("; for the text itself write $${%s.%s}", ns, name)
		return nil, &diag.Problem{What: fmt.Sprintf("${%s.%s} names unknown namespace %q", ns, name, ns), Hint: hint}
	}
}

// buildFact is the time of the run, in UTC: date is 2026-11-28, time 20261128T180527Z.
func (s *scope) buildFact(name string) (*value, error) {
	if !slices.Contains(buildFacts, name) {
		return nil, unknownFact("build", name, buildFacts)
	}
	if s.opts.Now.IsZero() {
		return nil, nil
	}
	layout := "2006-01-02"
	if name == "time" {
		layout = "20060102T150405Z"
	}
	return newText(diag.Pos{}, s.opts.Now.UTC().Format(layout)), nil
}

func unknownFact(ns, name string, known []string) error {
	return &diag.Problem{What: fmt.Sprintf("${%s.%s} is unknown", ns, name), Hint: suggestFrom(name, known)}
}

// gitFact asks for one fact once. What git cannot tell because there is no
// repository or commit has no value; any other error is the answer.
func (s *scope) gitFact(name string) (*value, error) {
	if !slices.Contains(gitFacts, name) {
		return nil, unknownFact("git", name, gitFacts)
	}
	if v, asked := s.git[name]; asked {
		return v, nil
	}
	v, err := s.askGit(name)
	if err != nil {
		return nil, err
	}
	s.git[name] = v
	return v, nil
}

func (s *scope) askGit(name string) (*value, error) {
	if name == "short" {
		return s.gitShort()
	}
	if s.opts.Git == nil {
		return nil, nil
	}
	text, err := s.opts.Git(name)
	if name == "branch" && text == "" && (err == nil || errors.Is(err, ErrNoGit)) {
		if branch := s.ciBranch(); branch != "" { // CIs check out a commit, not a branch
			text, err = branch, nil
		}
	}
	switch {
	case errors.Is(err, ErrNoGit):
		return nil, nil
	case err != nil:
		return nil, &diag.Problem{What: fmt.Sprintf("ask git for its %s: %v", name, err)}
	}
	v := newText(diag.Pos{}, text)
	if name == "dirty" {
		v.kind = boolKind
	}
	return v, nil
}

// gitShort is the commit in seven digits, with "-dirty" on a modified tree.
func (s *scope) gitShort() (*value, error) {
	sha, err := s.gitFact("sha")
	if err != nil || sha == nil {
		return nil, err
	}
	dirty, err := s.gitFact("dirty")
	if err != nil {
		return nil, err
	}
	if dirty.isTrue() {
		return newText(diag.Pos{}, short(sha.text)+"-dirty"), nil
	}
	return newText(diag.Pos{}, short(sha.text)), nil
}

// targetScope adds what is known of one target.
type targetScope struct {
	*scope
	base    string // as written
	name    string // with the variant
	variant string
	matrix  []entry // the values of a cell; nil for a target without a matrix
}

func (s *targetScope) lookup(file, ns, name string) (*value, error) {
	switch {
	case ns == "target" && name == "base":
		return newText(diag.Pos{}, s.base), nil
	case ns == "target" && name == "name":
		return newText(diag.Pos{}, s.name), nil
	case ns == "target" && name == "slug":
		return newText(diag.Pos{}, Slug(s.name)), nil
	case ns == "target" && name == "variant":
		return newText(diag.Pos{}, s.variant), nil
	case ns == "target":
		return nil, unknownFact(ns, name, targetFacts)
	case ns != "matrix":
		return s.scope.lookup(file, ns, name)
	}
	var names []string
	for _, axis := range s.matrix {
		if axis.name == name {
			return axis.value, nil
		}
		names = append(names, axis.name)
	}
	if s.matrix == nil {
		return nil, &diag.Problem{What: fmt.Sprintf("${matrix.%s}: target %q has no matrix", name, s.base)}
	}
	return nil, unknownFact(ns, name, names)
}
