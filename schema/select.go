package schema

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"kaniko-build/schema/diag"
)

// Edges tells which targets a target is built from or after. It is asked only
// when a selection follows edges.
type Edges func() (map[string][]string, error)

// Select is the targets that patterns name, as declared. Without patterns it is
// the group or target "default", and without that every target that is not internal.
//
//	api      the target, or every cell of its matrix
//	web-*    targets by glob; * stops at "/", ** does not; never internal ones
//	@group   the targets of a group
//	x...     and what x depends on
//	...x     and what depends on x
//	!x       not these, wherever it stands
//
// With only !x, the rest of the default is meant. Each of the forms takes a "!" in
// front, and targets, globs and groups take dots. A pattern that names nothing is
// a *diag.Problem, and so is a selection with nothing in it.
func (m *Manifest) Select(patterns []string, edges Edges) ([]string, error) {
	var l diag.List
	s := newSelector(m, &l, edges)
	var named []Named
	positive := false
	for _, p := range patterns {
		positive = positive || !strings.HasPrefix(p, "!")
		named = append(named, Named{Name: p})
	}
	var picked map[string]bool
	if positive {
		picked = s.all(named)
	} else {
		picked = s.byDefault()
		for name := range s.excluded(named) {
			delete(picked, name)
		}
	}
	if err := l.Err(); err != nil {
		return nil, err
	}
	var out []string
	for _, t := range m.Targets {
		if picked[t.Name] {
			out = append(out, t.Name)
		}
	}
	if len(out) == 0 {
		return nil, &diag.Problem{What: "nothing is selected", Hint: "name a target, or one that is not internal"}
	}
	return out, nil
}

// selector evaluates patterns.
type selector struct {
	m        *Manifest
	problems *diag.List
	edges    Edges
	open     []string // groups being evaluated
	done     map[string]map[string]bool
}

func newSelector(m *Manifest, problems *diag.List, edges Edges) *selector {
	return &selector{m: m, problems: problems, edges: edges, done: map[string]map[string]bool{}}
}

// all is what a list of patterns picks: what its plain ones name without what
// those with "!" name.
func (s *selector) all(patterns []Named) map[string]bool {
	picked := map[string]bool{}
	for _, p := range patterns {
		if !strings.HasPrefix(p.Name, "!") {
			for _, name := range s.one(p.Name, p.Pos, true) {
				picked[name] = true
			}
		}
	}
	for name := range s.excluded(patterns) {
		delete(picked, name)
	}
	return picked
}

func (s *selector) excluded(patterns []Named) map[string]bool {
	out := map[string]bool{}
	for _, p := range patterns {
		if rest, ok := strings.CutPrefix(p.Name, "!"); ok {
			for _, name := range s.one(rest, p.Pos, false) {
				out[name] = true
			}
		}
	}
	return out
}

func (s *selector) byDefault() map[string]bool {
	if slices.ContainsFunc(s.m.Groups, func(g Group) bool { return g.Name == "default" }) {
		return s.group("default", diag.Pos{})
	}
	picked := map[string]bool{}
	if cells := s.m.Cells("default"); cells != nil {
		for _, name := range cells {
			picked[name] = true
		}
		return picked
	}
	for _, t := range s.m.Targets {
		if !t.Internal {
			picked[t.Name] = true
		}
	}
	return picked
}

// one is what a pattern without "!" names. A glob must match something if it is
// to pick.
func (s *selector) one(pattern string, pos diag.Pos, mustMatch bool) []string {
	core, above := strings.CutPrefix(pattern, "...")
	core, below := strings.CutSuffix(core, "...")
	var found []string
	switch {
	case strings.HasPrefix(core, "@"):
		for name := range s.group(core[1:], pos) {
			found = append(found, name)
		}
	case strings.ContainsAny(core, "*?"):
		found = s.glob(core)
		if len(found) == 0 && mustMatch {
			s.problems.Add(pos, suggestFrom(core, s.targetNames()), "no target matches %q", core)
		}
	case s.m.Cells(core) != nil:
		found = s.m.Cells(core)
	default:
		s.unknown(core, pos)
	}
	if above || below {
		found = s.follow(found, above, below, pos)
	}
	return found
}

// group is the targets of a group.
func (s *selector) group(name string, pos diag.Pos) map[string]bool {
	i := slices.IndexFunc(s.m.Groups, func(g Group) bool { return g.Name == name })
	if i < 0 {
		hint := suggestFrom(name, s.groupNames())
		if slices.Contains(s.targetNames(), name) {
			hint = fmt.Sprintf("%q is a target: leave the @ out", name)
		} else if len(s.groupNames()) == 0 {
			hint = "the manifest has no groups"
		}
		s.problems.Add(pos, hint, "unknown group %q", name)
		return nil
	}
	if at := slices.Index(s.open, name); at >= 0 {
		if circle := s.open[at:]; name == slices.Min(circle) { // told once, whichever group is asked for
			s.problems.Add(pos, "take one of them out", "groups hold each other: %s -> %s", strings.Join(circle, " -> "), name)
		}
		return nil
	}
	if picked, done := s.done[name]; done {
		return maps.Clone(picked)
	}
	s.open = append(s.open, name)
	picked := s.all(s.m.Groups[i].Patterns)
	s.open = s.open[:len(s.open)-1]
	s.done[name] = picked
	return maps.Clone(picked)
}

// glob is the targets that match, internal ones left out: they are built when
// something needs them.
func (s *selector) glob(pattern string) []string {
	matches := Glob(pattern)
	var out []string
	for _, t := range s.m.Targets {
		if !t.Internal && matches(t.Name) {
			out = append(out, t.Name)
		}
	}
	return out
}

// Glob tells which names a pattern matches: * is any text without "/", ** any text,
// ? one character that is no "/".
func Glob(pattern string) (matches func(name string) bool) {
	if !strings.ContainsAny(pattern, "*?") {
		return func(name string) bool { return name == pattern }
	}
	return globPattern(pattern).MatchString
}

// globPattern is a glob as a regular expression.
func globPattern(glob string) *regexp.Regexp {
	quoted := regexp.QuoteMeta(glob)
	quoted = strings.ReplaceAll(quoted, `\*\*`, `.*`)
	quoted = strings.ReplaceAll(quoted, `\*`, `[^/]*`)
	quoted = strings.ReplaceAll(quoted, `\?`, `[^/]`)
	return regexp.MustCompile(`^` + quoted + `$`)
}

func (s *selector) unknown(name string, pos diag.Pos) {
	groups := s.groupNames()
	if slices.Contains(groups, name) {
		s.problems.Add(pos, fmt.Sprintf("write @%s for the group", name), "unknown target %q", name)
		return
	}
	s.problems.Add(pos, suggestFrom(name, s.targetNames()), "unknown target %q", name)
}

func (s *selector) targetNames() []string {
	var names []string
	for _, t := range s.m.Targets {
		names = append(names, t.Name)
	}
	return names
}

func (s *selector) groupNames() []string {
	var out []string
	for _, g := range s.m.Groups {
		out = append(out, g.Name)
	}
	return out
}

// follow adds what depends on the targets (above) and what they depend on (below).
func (s *selector) follow(from []string, above, below bool, pos diag.Pos) []string {
	if s.edges == nil {
		return from // while a manifest is checked: edges add nothing that could be misspelt
	}
	parents, err := s.edges()
	if err != nil {
		s.problems.AddErr(pos, err)
		return from
	}
	out := slices.Clone(from)
	if above {
		children := map[string][]string{}
		for child, list := range parents {
			for _, parent := range list {
				children[parent] = append(children[parent], child)
			}
		}
		out = append(out, reach(from, children)...)
	}
	if below {
		out = append(out, reach(from, parents)...)
	}
	return out
}

// reach is everything that edges lead to from the given names.
func reach(from []string, edges map[string][]string) []string {
	seen := map[string]bool{}
	todo := slices.Clone(from)
	var out []string
	for len(todo) > 0 {
		name := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, next := range edges[name] {
			if !seen[next] {
				seen[next] = true
				out, todo = append(out, next), append(todo, next)
			}
		}
	}
	return out
}

// Target is the target of that name, or nil.
func (m *Manifest) Target(name string) *Target {
	i, ok := m.byName[name]
	if m.byName == nil { // made by hand
		i = slices.IndexFunc(m.Targets, func(t Target) bool { return t.Name == name })
		ok = i >= 0
	}
	if !ok {
		return nil
	}
	return &m.Targets[i]
}

// Cells is the names of the targets that a name of the manifest stands for: its own,
// or those of the cells of its matrix; none for an unknown one.
func (m *Manifest) Cells(name string) []string {
	if m.Target(name) != nil {
		return []string{name}
	}
	var out []string
	for _, i := range m.cells[name] {
		out = append(out, m.Targets[i].Name)
	}
	return out
}
