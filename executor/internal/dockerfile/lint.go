package dockerfile

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/buildkit/util/suggest"
	"github.com/moby/patternmatcher"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/schema/diag"
)

var (
	secretName = regexp.MustCompile(`(?i)(?:_|^)(?:apikey|auth|credential|credentials|key|password|pword|passwd|secret|token)(?:_|$)`)
	publicName = regexp.MustCompile(`(?i)(?:_|^)(?:public|file|version)(?:_|$)`)
)

// newLinter makes a linter that obeys the check directive and appends to out.
func (f *File) newLinter(text []byte, out *[]Warning) (*linter.Linter, error) {
	var options string
	var loc []parser.Range
	if mentions(text, "check") {
		options, _, loc, _ = parser.ParseDirective("check", text)
	}
	pos := f.line(1)
	if len(loc) > 0 {
		pos = f.line(max(1, loc[0].Start.Line))
	}
	if v, ok := f.args["BUILDKIT_DOCKERFILE_CHECK"]; ok {
		options = v
	}
	if options == "" && f.opts.Check != nil {
		options = *f.opts.Check
	}
	config, err := linter.ParseLintOptions(options)
	if err != nil {
		return nil, &diag.Problem{Pos: pos, What: fmt.Sprintf("failed to parse check options: %s", oneLine(err)),
			Hint: "write check=skip=RuleOne,RuleTwo;error=true"}
	}
	config.Warn = func(rule, description, url, text string, location []parser.Range) {
		at := f.line(1)
		if len(location) > 0 {
			at = f.instruction(location[0].Start.Line)
		}
		at = f.pointAt(at, text)
		*out = append(*out, Warning{Rule: rule, URL: url, Pos: at, Text: text, Detail: description})
	}
	return linter.New(config), nil
}

// quiet is a linter that says nothing. BuildKit's parser panics without any
// where a comment has a check directive.
func quiet() *linter.Linter { return linter.New(&linter.Config{}) }

// parseNode makes an instruction of a node that has been linted.
func parseNode(n *parser.Node) (any, error) {
	return instructions.ParseInstructionWithLinter(n, quiet())
}

// lintError is the error that the check directive wants of warnings.
func lintError(warnings []Warning) error {
	if len(warnings) == 0 {
		return nil
	}
	warnings = slices.Clone(warnings)
	sortWarnings(warnings)
	var rules []string
	for _, w := range warnings {
		rules = append(rules, w.Rule)
	}
	slices.Sort(rules)
	return &diag.Problem{Pos: warnings[0].Pos, What: "lint violation found for rules: " + strings.Join(slices.Compact(rules), ", "),
		Hint: "mend what the warnings say, or remove error=true from the check directive"}
}

func sortWarnings(w []Warning) {
	slices.SortStableFunc(w, func(a, b Warning) int {
		return cmp.Or(a.Pos.Compare(b.Pos), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Text, b.Text))
	})
}

// lintStages checks names of stages, and the case of instructions.
func (f *File) lintStages(lint *linter.Linter) {
	seen := map[string]bool{}
	lower, upper := 0, 0
	count := func(word string) {
		switch word {
		case strings.ToLower(word):
			lower++
		case strings.ToUpper(word):
			upper++
		}
	}
	for _, d := range f.decls {
		if n := d.from.Name; n != "" {
			if n == scratch || n == "context" {
				lint.Run(&linter.RuleReservedStageName, d.from.Location, linter.RuleReservedStageName.Format(n))
			}
			if seen[n] {
				lint.Run(&linter.RuleDuplicateStageName, d.from.Location, linter.RuleDuplicateStageName.Format(n))
			}
			seen[n] = true
		}
		count(d.from.OrigCmd)
		for _, n := range d.nodes {
			count(n.Value)
		}
	}
	check := func(word string, location []parser.Range) {
		want := ""
		switch {
		case lower > upper && word != strings.ToLower(word):
			want = "lowercase"
		case lower <= upper && word != strings.ToUpper(word):
			want = "uppercase"
		default:
			return
		}
		lint.Run(&linter.RuleConsistentInstructionCasing, location, linter.RuleConsistentInstructionCasing.Format(word, want))
	}
	for _, d := range f.decls {
		check(d.from.OrigCmd, d.from.Location)
		for _, n := range d.nodes {
			check(n.Value, n.Location())
		}
	}
}

// lintDefaultBases checks that bases are names of images without any build arg.
func (f *File) lintDefaultBases(env envList, shlex *shell.Lex, lint *linter.Linter) {
	for _, d := range f.decls {
		name, _, err := shlex.ProcessWord(d.from.BaseName, env)
		if err != nil {
			return
		}
		if _, err := parseName(name); err != nil {
			lint.Run(&linter.RuleInvalidDefaultArgInFrom, d.from.Location, linter.RuleInvalidDefaultArgInFrom.Format(d.from.BaseName))
		}
	}
}

// lintFromArgs checks that ARGs in a FROM are declared.
func (g *graph) lintFromArgs(unmatched map[string]struct{}, s *state, lint *linter.Linter) {
	known := map[string]struct{}{}
	for _, k := range g.f.globals.Keys() {
		known[k] = struct{}{}
	}
	for k := range g.f.declared {
		known[k] = struct{}{}
	}
	for _, arg := range sortedKeys(unmatched) {
		if _, ok := known[arg]; ok {
			continue
		}
		near, _ := suggest.Search(arg, sortedKeys(known), true)
		lint.Run(&linter.RuleUndefinedArgInFrom, s.location, linter.RuleUndefinedArgInFrom.Format(arg, near))
	}
}

// lintPlatform checks a --platform for what is needless or too fixed.
func (g *graph) lintPlatform(from instructions.Stage, m shell.ProcessWordResult, lint *linter.Linter) {
	if _, ok := m.Matched["TARGETPLATFORM"]; ok && len(m.Matched) == 1 && len(m.Unmatched) == 0 {
		if v, _ := g.f.globals.Get("TARGETPLATFORM"); v == m.Result {
			lint.Run(&linter.RuleRedundantTargetPlatform, from.Location, linter.RuleRedundantTargetPlatform.Format(from.Platform))
		}
	}
	if len(m.Matched) > 0 || len(m.Unmatched) > 0 {
		return
	}
	p, err := platforms.Parse(m.Result)
	if err != nil || strings.Contains(from.Name, p.OS) || strings.Contains(from.Name, p.Architecture) {
		return
	}
	lint.Run(&linter.RuleFromPlatformFlagConstDisallowed, from.Location, linter.RuleFromPlatformFlagConstDisallowed.Format(m.Result))
}

func lintBasePlatform(name string, want, got ocispec.Platform, location []parser.Range, lint *linter.Linter) {
	if want.OS != got.OS || want.Architecture != got.Architecture {
		lint.Run(&linter.RuleInvalidBaseImagePlatform, location, linter.RuleInvalidBaseImagePlatform.Format(name,
			platforms.FormatAll(platforms.Normalize(want)), platforms.FormatAll(platforms.Normalize(got))))
	}
}

// lintVars reports variables that were used and are not set, unless an ARG without value declares them.
func (r *stageRun) lintVars(c instructions.Command, unmatched map[string]struct{}, lint *linter.Linter) {
	for _, a := range r.s.args {
		delete(unmatched, a.Key)
	}
	for _, name := range sortedKeys(unmatched) {
		if isScanArg(name) {
			continue
		}
		near, _ := suggest.Search(name, r.s.env.Keys(), true)
		lint.Run(&linter.RuleUndefinedVar, c.Location(), linter.RuleUndefinedVar.Format(name, near))
	}
}

func lintSecret(instruction, key string, c instructions.Command, lint *linter.Linter) {
	if secretName.MatchString(key) && !publicName.MatchString(key) {
		lint.Run(&linter.RuleSecretsUsedInArgOrEnv, c.Location(), linter.RuleSecretsUsedInArgOrEnv.Format(instruction, key))
	}
}

func lintLegacy(c instructions.Command, noDelim bool, lint *linter.Linter) {
	if noDelim {
		lint.Run(&linter.RuleLegacyKeyValueFormat, c.Location(), linter.RuleLegacyKeyValueFormat.Format(c.Name()))
	}
}

// lintOnce reports the earlier of two instructions of which only the last counts.
func lintOnce(c instructions.Command, last *[]parser.Range, lint *linter.Linter) {
	if *last != nil {
		lint.Run(&linter.RuleMultipleInstructionsDisallowed, *last, linter.RuleMultipleInstructionsDisallowed.Format(c.Name()))
	}
	*last = c.Location()
	if *last == nil {
		*last = []parser.Range{}
	}
}

// lintIgnored reports a source that the ignore file hides. Ignore files with
// exceptions are not judged: what is below a hidden directory may be visible.
func (f *File) lintIgnored(src string, add bool, c instructions.Command, lint *linter.Linter) {
	if len(f.opts.Ignore) == 0 {
		return
	}
	pm, err := patternmatcher.New(f.opts.Ignore)
	if err != nil || pm.Exclusions() {
		return
	}
	verb := "Copy"
	if add {
		verb = "Add"
	}
	src = filepath.ToSlash(filepath.Clean(src))
	if src == "." || src == "/" {
		all := slices.ContainsFunc(pm.Patterns(), func(p *patternmatcher.Pattern) bool {
			return slices.Contains([]string{"*", "**", "**/*"}, p.String())
		})
		if !all {
			return
		}
	}
	if hidden, err := pm.MatchesOrParentMatches(src); err == nil && hidden {
		lint.Run(&linter.RuleCopyIgnoredFile, c.Location(), linter.RuleCopyIgnoredFile.Format(verb, src))
	}
}

func sortedKeys(m map[string]struct{}) []string { return slices.Sorted(maps.Keys(m)) }

func sortByPos[T any](list []T, pos func(T) diag.Pos) []T {
	slices.SortStableFunc(list, func(a, b T) int { return pos(a).Compare(pos(b)) })
	return list
}
