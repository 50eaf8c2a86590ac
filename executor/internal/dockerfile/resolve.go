package dockerfile

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

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

const (
	defaultPath    = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	historyComment = "buildkit.dockerfile.v0"
)

// Resolve expands all instructions of the needed stages. It may be called again
// and from several goroutines, and does not change the File. It asks load for
// every image of the program, those that triggers of others name included. With
// an error the Program has only Warnings.
func (f *File) Resolve(load Loader) (*Program, error) {
	p := &Program{Platform: f.platform, Epoch: f.epoch, Warnings: slices.Clone(f.warnings)}
	err := f.err
	if err == nil {
		err = f.resolve(p, load)
	}
	sortWarnings(p.Warnings)
	p.Warnings = slices.Compact(p.Warnings)
	if err == nil && f.strict {
		err = lintError(p.Warnings)
	}
	if err != nil {
		p.Stages = nil
	}
	return p, err
}

func (f *File) resolve(p *Program, load Loader) error {
	lint, err := f.newLinter([]byte(strings.Join(f.source, "")), &p.Warnings)
	if err != nil {
		return err
	}
	var problems diag.List
	g := newGraph(f, quiet()) // Parse has told what these two find
	g.declare(&problems)
	if problems.Len() == 0 {
		g.link(&problems)
	}
	if err := problems.Err(); err != nil {
		return err
	}
	g.lint = lint

	var failure error
	g.settle(func(ref ImageRef) (*dockerspec.DockerOCIImage, error) {
		img, err := load(ref)
		if err != nil && canceled(err) && failure == nil {
			failure = err
		}
		return img, err
	}, &problems)
	if failure != nil {
		return fmt.Errorf("load base images: %w", failure)
	}
	if err := problems.Err(); err != nil {
		return err
	}

	needed := g.reachable()
	for _, s := range g.states {
		if !needed[s] || s.done {
			continue
		}
		if s.failed = s.parent != nil && s.parent.failed; !s.failed {
			r := &stageRun{g: g, s: s}
			r.run(p, &problems)
		}
		s.done = true
	}
	if err := problems.Err(); err != nil {
		return err
	}
	f.finish(p, g)
	return nil
}

// load sets the configuration that a state without parent begins with.
func (g *graph) load(s *state, load Loader) error {
	switch {
	case s.parent != nil:
		return nil
	case s.base == scratch && !s.replaced:
		s.image = emptyImage(g.f.platform)
		s.bare = true
		s.platform = &g.f.platform
		s.done = s.decl == nil
		return nil
	}
	platform := g.platformOf(s)
	if err := notWindows(platform, s.pos); err != nil {
		return err
	}
	img, err := load(g.imageRef(s))
	if err != nil {
		if canceled(err) {
			return err
		}
		return g.imageProblem(s, err)
	}
	s.files = img == nil
	switch {
	case s.replaced:
		s.done = true
		if img == nil {
			return nil
		}
		s.image = cloneImage(*img)
		if s.image.OS != "" && s.image.Architecture != "" {
			p := s.image.Platform
			s.platform = &p
		}
		s.image.Created = nil
		s.baseHistory = len(s.image.History)
		return nil
	case img == nil:
		s.image = emptyImage(platform)
	default:
		s.image = cloneImage(*img)
		if s.context == "" {
			s.bare = layerless(img)
			if s.platform == nil && g.f.implicit {
				platform = likeBase(s.image.Platform, platform, g.f.build)
			}
			lintBasePlatform(s.base, platform, s.image.Platform, s.location, g.lint)
		}
	}
	if s.decl != nil {
		if err := notWindows(s.image.Platform, s.pos); err != nil {
			return err
		}
	}
	s.image.Created = nil
	s.baseHistory = len(s.image.History)
	s.platform = &platform
	s.done = s.decl == nil
	return nil
}

// layerless tells whether an image has no file system at all. What is passed on
// from another target has no list of layers, and is not empty.
func layerless(img *dockerspec.DockerOCIImage) bool {
	return img.RootFS.Type != "" && len(img.RootFS.DiffIDs) == 0 &&
		!slices.ContainsFunc(img.History, func(h ocispec.History) bool { return !h.EmptyLayer })
}

// imageProblem tells that an image cannot be had, and what else may be meant.
func (g *graph) imageProblem(s *state, err error) error {
	p := *g.f.problem(s.pos, err)
	p.Pos = g.f.word(s.pos, s.base)
	if !strings.Contains(p.What, s.base) {
		p.What = s.base + ": " + p.What
	}
	if near, ok := suggest.Search(s.base, g.names(), true); ok {
		p.What += fmt.Sprintf(" (did you mean %s?)", near)
	}
	if p.Hint == "" && s.context == "" {
		for i, d := range g.f.decls {
			switch {
			case d.from.Name != "" && d.from.Name == s.base:
				p.Hint = fmt.Sprintf("stage %s is defined below, on line %d: move it above", s.base, g.f.decls[i].node.StartLine)
			case s.use != UseFrom && !strings.ContainsAny(s.base, "/:@") && p.Hint == "":
				p.Hint = "no stage has this name, so it was looked up as an image"
			}
		}
	}
	return &p
}

// likeBase is the platform of a base when none was asked for: what the base is
// made for, if the build can run it.
func likeBase(img, target, build ocispec.Platform) ocispec.Platform {
	if img.OS == target.OS && img.Architecture == target.Architecture {
		return target
	}
	if img.OS == build.OS && img.Architecture == build.Architecture {
		return build
	}
	return target
}

// finish numbers stages and settles the configuration of the target.
func (f *File) finish(p *Program, g *graph) {
	t := g.target
	if t.replaced {
		out := Stage{Name: t.name, Title: t.title, Pos: t.pos, Base: Source{Context: t.context}, Platform: g.platformOf(t), BaseHistory: t.baseHistory}
		if t.files {
			t.image.History = append(t.image.History, out.layDirectory(f.time()))
		}
		t.index = len(p.Stages)
		p.Stages = append(p.Stages, out)
	}
	img := cloneImage(t.image)
	if len(f.opts.Labels) > 0 {
		if img.Config.Labels == nil {
			img.Config.Labels = map[string]string{}
		}
		maps.Copy(img.Config.Labels, f.opts.Labels)
	}
	if want := f.platform; !f.implicit || img.OS == "" || img.Architecture == "" {
		same := want.OS == img.OS && want.Architecture == img.Architecture
		img.OS, img.Architecture = want.OS, want.Architecture
		if want.Variant != "" || !same {
			img.Variant = want.Variant
		}
		if want.OSVersion != "" || !same {
			img.OSVersion = want.OSVersion
		}
		if want.OSFeatures != nil {
			img.OSFeatures = slices.Clone(want.OSFeatures)
		}
	}
	img.Platform = platforms.Normalize(img.Platform)
	p.Platform = img.Platform
	out := &p.Stages[t.index]
	out.History = img.History
	out.Config = exported(img)

	if t.index != len(p.Stages)-1 { // others refer to stages by index, so it stays where it is too
		p.Stages = append(p.Stages, *out)
	}
}

// source is how a step of the program refers to a state.
func (g *graph) source(s *state) Source {
	switch {
	case s.replaced || s.parent == nil && s.decl == nil && s.context != "":
		return Source{Kind: FromContext, Context: s.context}
	case s.decl != nil:
		return Source{Kind: FromStage, Stage: s.index}
	case s.base == scratch:
		return Source{Kind: FromScratch}
	default:
		ref := g.imageRef(s)
		return Source{Kind: FromImage, Image: &ref}
	}
}

// base is where the root file system of a stage begins.
func (g *graph) baseOf(s *state) Source {
	switch {
	case s.parent != nil:
		return g.source(s.parent)
	case s.context != "":
		return Source{Kind: FromContext, Context: s.context}
	case s.base == scratch:
		return Source{Kind: FromScratch}
	default:
		ref := g.imageRef(s)
		ref.Platform = g.platformOf(s)
		return Source{Kind: FromImage, Image: &ref}
	}
}

// stageRun goes through the commands of one stage.
type stageRun struct {
	g    *graph
	s    *state
	out  Stage
	lint *linter.Linter // for the command at hand

	cmdAt, entrypointAt, healthAt []parser.Range // the last of each in this stage
}

func (r *stageRun) run(p *Program, problems *diag.List) {
	s := r.s
	r.begin()
	for i := range s.cmds {
		c := &s.cmds[i]
		r.lint = r.g.lint.WithMergedConfigFromComments(c.Comments())
		step := Step{Pos: c.pos, EndLine: c.end, Text: c.text, Trigger: c.origin != nil, Comment: historyComment,
			Env: slices.Clone([]string(s.env)), User: s.user, Dir: path.Clean(s.dir)}
		made, err := r.dispatch(c, &step)
		if err != nil {
			if c.origin != nil {
				err = c.origin.wrap(err)
			}
			problems.AddErr(diag.Pos{}, r.g.f.problem(c.pos, err))
			switch c.Command.(type) {
			case *instructions.EnvCommand, *instructions.ArgCommand, *instructions.WorkdirCommand:
				s.failed = true // what follows would fail for that alone
				return
			}
			continue
		}
		if made {
			s.bare = s.bare && step.Run == nil && step.Copy == nil && step.Workdir == nil
			r.out.Steps = append(r.out.Steps, step)
			s.image.History = append(s.image.History, ocispec.History{CreatedBy: step.CreatedBy, Comment: step.Comment,
				EmptyLayer: step.Empty, Created: r.g.f.time()})
		}
	}
	r.out.Config = exported(cloneImage(s.image))
	r.out.History = slices.Clone(s.image.History)
	r.out.BaseHistory = s.baseHistory
	s.index = len(p.Stages)
	p.Stages = append(p.Stages, r.out)
}

// begin takes over what the base hands on.
func (r *stageRun) begin() {
	s := r.s
	if s.parent != nil {
		up := s.parent
		triggers := s.image.Config.OnBuild
		s.stageConfig = up.stageConfig
		s.image = cloneImage(up.image)
		s.image.Config.OnBuild = triggers // those of the base are spent
		s.args = slices.Clone(up.args)
		s.platform = up.platform
	}
	if s.platform == nil {
		s.platform = &r.g.f.platform
	}
	config := &s.image.Config
	if _, ok := envList(config.Env).Get("PATH"); !ok {
		config.Env = append(config.Env, defaultPath)
	}
	for _, kv := range config.Env {
		k, v := cutEnv(kv)
		s.env = s.env.set(k, v)
	}
	if config.WorkingDir != "" {
		r.setDir(config.WorkingDir)
	}
	if config.User != "" {
		s.user = config.User
	}
	if s.dir == "" {
		s.dir = "/"
	}
	r.out = Stage{Name: s.name, Title: s.title, Pos: s.pos, Base: r.g.baseOf(s), Platform: *s.platform}
	if r.out.Base.Kind == FromContext && (s.files || s.parent != nil && s.parent.files) {
		s.image.History = append(s.image.History, r.out.layDirectory(r.g.f.time()))
	}
}

// layDirectory makes a stage that begins with a directory one that begins with nothing
// and copies that directory first: its files are a layer of the image, as BuildKit has
// it. It returns the record of that layer, which BuildKit puts behind all others.
func (st *Stage) layDirectory(created *time.Time) ocispec.History {
	from := st.Base
	st.Base = Source{Kind: FromScratch}
	text := "FROM " + from.Context
	st.Steps = append(st.Steps, Step{Pos: st.Pos, EndLine: st.Pos.Line, Text: text, CreatedBy: text, Comment: historyComment, Dir: "/",
		Copy: &Copy{From: from, Sources: []string{"/"}, Places: []diag.Pos{st.Pos}, Dest: "/"}})
	return ocispec.History{CreatedBy: text, Comment: historyComment, Created: created}
}

// dispatch expands a command and does it. It is false for a command that leaves no record.
func (r *stageRun) dispatch(c *command, step *Step) (bool, error) {
	if err := r.expand(c); err != nil {
		return false, err
	}
	step.Empty = true
	var err error
	switch ic := c.Command.(type) {
	case *instructions.OnbuildCommand:
		r.s.image.Config.OnBuild = append(r.s.image.Config.OnBuild, ic.Expression)
		return false, nil
	case *instructions.RunCommand:
		err = r.doRun(ic, c, step)
	case *instructions.CopyCommand:
		err = r.doCopy(ic, c, step)
	case *instructions.AddCommand:
		err = r.doAdd(ic, step)
	case *instructions.WorkdirCommand:
		err = r.doWorkdir(ic, step)
	case *instructions.ArgCommand:
		err = r.doArg(ic, step)
	default:
		err = r.configure(c.Command, step)
	}
	return true, err
}

// expand replaces variables in the words of a command that have them replaced:
// all but those of RUN (its mounts aside), CMD, ENTRYPOINT, HEALTHCHECK, SHELL,
// MAINTAINER and ONBUILD. EXPOSE and ARG look after themselves.
func (r *stageRun) expand(c *command) error {
	if _, isArg := c.Command.(*instructions.ArgCommand); isArg {
		return nil
	}
	word := func(lex *shell.Lex) instructions.SingleWordExpander {
		return func(w string) (string, error) {
			out, unmatched, err := lex.ProcessWord(w, r.s.env)
			r.lintVars(c.Command, unmatched, r.lint)
			return out, err
		}
	}
	if ex, ok := c.Command.(instructions.SupportsSingleWordExpansion); ok {
		if err := ex.Expand(word(r.g.shlex)); err != nil {
			return err
		}
	}
	if ex, ok := c.Command.(instructions.SupportsSingleWordExpansionRaw); ok {
		lex := shell.NewLex('\\')
		lex.SkipProcessQuotes = true
		return ex.ExpandRaw(word(lex))
	}
	return nil
}
