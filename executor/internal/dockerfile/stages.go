package dockerfile

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/buildkit/util/suggest"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/schema/diag"
)

const scratch = "scratch"

// graph is the stages of a file and what they refer to.
//
//	declare: one state for each FROM, bases found by name among those above
//	link:    commands made, COPY --from and RUN --mount=from looked up; what is
//	         no stage becomes a foreign state at the end of the list
//	settle:  images named or loaded, triggers put in front of commands
type graph struct {
	f      *File
	lint   *linter.Linter
	shlex  *shell.Lex
	states []*state
	byName map[string]*state // lower case; of two the later
	target *state
}

// state is a stage, or something foreign that a stage takes files from.
type state struct {
	decl     *decl // nil if foreign
	base     string
	name     string // of the stage, lower case
	title    string
	pos      diag.Pos
	location []parser.Range // for the linter
	use      Use
	platform *ocispec.Platform
	context  string // the named context that stands for the stage or its base
	replaced bool   // context stands for the stage: none of its commands runs
	files    bool   // context is a directory, no image
	parent   *state // the stage that FROM names
	deps     []dep
	cmds     []command

	named     bool // name of the image is checked, context looked up
	loaded    bool // configuration is there
	triggered bool // triggers of the base are among cmds
	done      bool // can be copied from
	failed    bool // a problem was told: what follows from it is not
	blanks    bool // the base is named by ARGs, and one of them has no value
	stageConfig
	index int // in Program.Stages
}

// stageConfig is what a stage hands on to those built FROM it.
type stageConfig struct {
	image       dockerspec.DockerOCIImage
	baseHistory int
	env         envList // of the build: ENVs and ARGs
	dir, user   string  // of the build
	args        []instructions.KeyValuePairOptional
	workdirSet  bool
	bare        bool // no step has made a file system yet: not even an empty one
}

type dep struct {
	on  *state
	pos diag.Pos
}

// command is an instruction of a stage, not yet expanded.
type command struct {
	instructions.Command
	pos     diag.Pos
	end     int
	text    string
	sources []*state // of COPY --from, or one for each mount of RUN
	origin  *origin  // of an ONBUILD trigger, or nil
}

func newGraph(f *File, lint *linter.Linter) *graph {
	return &graph{f: f, lint: lint, shlex: shell.NewLex(f.escape), byName: map[string]*state{}}
}

// declare makes the states of all FROMs.
func (g *graph) declare(problems *diag.List) {
	for i := range g.f.decls {
		d := &g.f.decls[i]
		s := &state{decl: d, name: d.from.Name, title: d.from.Name, use: UseFrom,
			pos: g.f.instruction(d.node.StartLine), location: d.from.Location}
		if s.title == "" {
			s.title = fmt.Sprintf("stage-%d", i)
		}
		if err := g.declareOne(s); err != nil {
			problems.AddErr(diag.Pos{}, g.f.problem(s.pos, err))
			s.failed = true
		}
		g.add(s)
		if s.replaced {
			s.parent = nil
		}
	}
	if len(g.states) > 0 {
		g.target = g.states[len(g.states)-1]
	}
	if t := g.f.opts.Target; t != "" {
		var ok bool
		if g.target, ok = g.byName[strings.ToLower(t)]; !ok {
			hint := "name a stage of the file"
			if names := g.names(); len(names) > 0 {
				hint = "stages are " + strings.Join(names, ", ")
			}
			if _, err := strconv.Atoi(t); err == nil {
				hint += "; a number is not a target"
			}
			err := suggest.WrapError(fmt.Errorf("target stage %q could not be found", t), t, g.names(), true)
			problems.Add(diag.Pos{File: g.f.name}, hint, "%s", oneLine(err))
		}
	}
	if len(g.states) == 1 {
		g.states[0].title = ""
	}
}

func (g *graph) declareOne(s *state) error {
	from := s.decl.from
	s.base = from.BaseName
	lint := g.lint.WithMergedConfigFromComments(from.Comments)
	m, err := g.shlex.ProcessWordWithMatches(from.BaseName, g.f.globals)
	g.lintFromArgs(m.Unmatched, s, lint)
	if err != nil {
		return err
	}
	s.blanks = len(m.Unmatched) > 0
	if m.Result == "" {
		return fmt.Errorf("base name (%s) should not be blank", from.BaseName)
	}
	s.base = m.Result

	if from.Platform != "" {
		m, err := g.shlex.ProcessWordWithMatches(from.Platform, g.f.globals)
		g.lintFromArgs(m.Unmatched, s, lint)
		g.lintPlatform(from, m, lint)
		if err != nil {
			return fmt.Errorf("failed to process arguments for platform %s: %w", from.Platform, err)
		}
		if m.Result == "" {
			return g.suggestArg(fmt.Errorf("empty platform value from expression %s", from.Platform), m.Unmatched)
		}
		p, err := platforms.Parse(m.Result)
		if err != nil {
			return fmt.Errorf("failed to parse platform %s: %w", from.Platform, g.suggestArg(err, m.Unmatched))
		}
		s.platform = &p
	}
	if s.name == "" {
		return nil
	}
	p := g.f.platform
	if s.platform != nil {
		p = *s.platform
	}
	if s.context, err = g.f.context(s.name, p); err != nil {
		return err
	}
	s.replaced = s.context != ""
	return nil
}

// add enters a state. Its base is a stage in any case: BuildKit's FROM wants
// lower case once ARGs are expanded, and then fails, as no image is called so.
func (g *graph) add(s *state) {
	g.states = append(g.states, s)
	s.parent = g.byName[strings.ToLower(s.base)]
	if s.name != "" {
		g.byName[s.name] = s
	}
}

// names are those of all states that have one, for suggestions.
func (g *graph) names() []string {
	var out []string
	for _, s := range g.states {
		if s.decl != nil && s.name != "" {
			out = append(out, s.name)
		}
	}
	return out
}

// link makes the commands of all stages and finds what they take files from.
func (g *graph) link(problems *diag.List) {
	for _, s := range g.states {
		if s.decl == nil {
			continue // foreign, and added by this loop
		}
		for _, n := range s.decl.nodes {
			ic, err := parseCommand(n)
			if err == nil {
				c := command{Command: ic, pos: g.f.instruction(n.StartLine), end: n.EndLine, text: display(n)}
				if err = g.connect(s, &c); err == nil {
					s.cmds = append(s.cmds, c)
					continue
				}
			}
			problems.AddErr(diag.Pos{}, g.f.problem(g.f.instruction(n.StartLine), err))
		}
	}
	if problems.Len() == 0 {
		g.checkCircles(problems)
	}
	if problems.Len() == 0 {
		g.settle(nil, problems)
	}
}

// parseCommand makes a command of a node that is no FROM.
func parseCommand(n *parser.Node) (instructions.Command, error) {
	ic, err := parseNode(n)
	if err != nil {
		return nil, err
	}
	c, ok := ic.(instructions.Command)
	if !ok {
		return nil, fmt.Errorf("%s is not a command", n.Value)
	}
	return c, nil
}

// connect finds the sources of a command of s.
func (g *graph) connect(s *state, c *command) error {
	switch ic := c.Command.(type) {
	case *instructions.CopyCommand:
		if ic.From == "" {
			return nil
		}
		m, err := g.shlex.ProcessWordWithMatches(ic.From, envList(nil))
		if err != nil {
			return err
		}
		if m.Result != ic.From {
			return fmt.Errorf("variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround")
		}
		i, err := strconv.Atoi(ic.From)
		if err != nil {
			c.sources = []*state{g.find(ic.From, UseCopy, c)}
			break
		}
		if i < 0 || i >= len(g.states) {
			return fmt.Errorf("invalid stage index %d", i)
		}
		c.sources = []*state{g.states[i]}
	case *instructions.RunCommand:
		for _, m := range instructions.GetMounts(ic) {
			from := m.From
			if from == "" {
				from = scratch
			}
			c.sources = append(c.sources, g.find(from, UseMount, c))
		}
	}
	for _, src := range c.sources {
		s.deps = append(s.deps, dep{on: src, pos: c.pos})
	}
	return nil
}

// find is the stage of a name in any case, or a new foreign state.
func (g *graph) find(name string, use Use, c *command) *state {
	if s, ok := g.byName[strings.ToLower(name)]; ok {
		return s
	}
	s := &state{base: name, use: use, pos: c.pos, location: c.Location()}
	if s.use == UseCopy {
		s.pos = g.f.word(c.pos, "--from="+name)
	} else {
		s.pos = g.f.word(c.pos, "from="+name)
	}
	g.add(s)
	return s
}

// checkCircles looks for stages that take files from each other.
func (g *graph) checkCircles(problems *diag.List) {
	seen, path := map[*state]bool{}, []*state{}
	var visit func(s *state) *dep
	visit = func(s *state) *dep {
		if seen[s] {
			return nil
		}
		seen[s] = true
		path = append(path, s)
		for i := range s.deps {
			if at := slices.Index(path, s.deps[i].on); at >= 0 {
				path = append(path[at:], s.deps[i].on)
				return &s.deps[i]
			}
			if d := visit(s.deps[i].on); d != nil {
				return d
			}
		}
		path = path[:len(path)-1]
		return nil
	}
	for _, s := range g.states {
		if d := visit(s); d != nil {
			var names []string
			for _, p := range path {
				names = append(names, cmp.Or(p.title, "stage-0"))
			}
			problems.Add(d.pos, "a stage can only copy from others that do not copy from it",
				"circular dependency detected on stage: %s (%s)", cmp.Or(s.title, "stage-0"), strings.Join(names, " -> "))
			return
		}
	}
}

// reachable are the states that the target needs.
func (g *graph) reachable() map[*state]bool {
	out := map[*state]bool{}
	var visit func(s *state)
	visit = func(s *state) {
		if s == nil || out[s] {
			return
		}
		out[s] = true
		visit(s.parent)
		for _, d := range s.deps {
			visit(d.on)
		}
	}
	visit(g.target)
	if g.f.opts.AllStages {
		for _, s := range g.states {
			visit(s)
		}
	}
	return out
}

// nameImage checks the name of a state's image and looks for a context of that name.
func (g *graph) nameImage(s *state) error {
	if s.named || s.parent != nil || s.replaced || s.base == scratch {
		return nil
	}
	s.named = true
	named, err := parseName(s.base)
	if err != nil {
		return fmt.Errorf("failed to parse stage name %q: %w", s.base, err)
	}
	s.context, err = g.f.context(named.tagged(), g.platformOf(s))
	return err
}

// imageRef is the image of a state that is or begins with one.
func (g *graph) imageRef(s *state) ImageRef {
	ref := s.base
	if named, err := parseName(s.base); err == nil {
		ref = named.familiar()
	}
	return ImageRef{Ref: ref, Platform: g.platformOf(s), Pos: s.pos, Use: s.use, Context: s.context}
}

func (g *graph) platformOf(s *state) ocispec.Platform {
	if s.platform != nil {
		return *s.platform
	}
	return g.f.platform
}

// isImage tells if an image must be pulled for a state, its triggers aside.
func (s *state) isImage() bool {
	return s.parent == nil && !s.replaced && s.context == "" && s.base != scratch
}

// images are those of needed states, each once, in order of the file.
func (g *graph) images() []ImageRef {
	var out []ImageRef
	seen := map[string]bool{}
	needed := g.reachable()
	for _, s := range g.states {
		if !needed[s] || !s.isImage() {
			continue
		}
		if ref := g.imageRef(s); !seen[ref.key()] {
			seen[ref.key()] = true
			out = append(out, ref)
		}
	}
	return sortByPos(out, func(r ImageRef) diag.Pos { return r.Pos })
}

// anyReferences are the references as far as they can be told where there are
// problems, by a graph that goes on after them.
func (g *graph) anyReferences() []Reference {
	all := newGraph(g.f, quiet())
	var ignored diag.List
	all.declare(&ignored)
	all.link(&ignored)
	return all.references()
}

// references are the outside names of needed stages, triggers of images aside.
func (g *graph) references() []Reference {
	needed := g.reachable()
	var out []Reference
	for _, s := range g.states {
		if !needed[s] && g.target != nil {
			continue
		}
		if s.parent != nil || s.base == scratch && !s.replaced {
			continue
		}
		if s.failed || g.nameImage(s) != nil {
			if s.blanks { // else it is no name, as the problem says
				out = append(out, Reference{Name: s.decl.from.BaseName, Pos: s.pos, Use: s.use, Unresolved: true})
			}
			continue
		}
		r := Reference{Name: g.imageRef(s).Ref, Pos: s.pos, Use: s.use}
		if s.decl != nil && s.decl.from.Platform != "" {
			r.Platform = s.platform
		}
		if s.context != "" {
			r.Name, r.Context = s.context, true
		}
		out = append(out, r)
	}
	return sortByPos(out, func(r Reference) diag.Pos { return r.Pos })
}

// context is the named context that stands in front of a stage or image, as it
// was given, or "". One for the platform alone comes first.
func (f *File) context(name string, p ocispec.Platform) (string, error) {
	if len(name) == 0 || strings.EqualFold(name, scratch) || strings.EqualFold(name, "context") {
		return "", nil
	}
	named, err := parseName(name)
	if err != nil {
		return "", fmt.Errorf("invalid context name %s: %w", name, err)
	}
	name = strings.TrimSuffix(named.familiar(), ":latest")
	if given, ok := f.contexts[name+"::"+platforms.FormatAll(platforms.Normalize(p))]; ok {
		return given, nil
	}
	return f.contexts[name], nil
}

// suggestArg adds the name of an ARG to err that is near to one which is not set.
func (g *graph) suggestArg(err error, unmatched map[string]struct{}) error {
	for _, name := range sortedKeys(unmatched) {
		if ok, with := suggest.WrapErrorMaybe(err, name, g.f.globals.Keys(), true); ok {
			return with
		}
	}
	return err
}

// display is the text of an instruction with its heredocs.
func display(n *parser.Node) string {
	text := strings.TrimSpace(n.Original)
	for _, h := range n.Heredocs {
		text += "\n" + h.Content + h.Name
	}
	return strings.ToValidUTF8(text, "\ufffd")
}
