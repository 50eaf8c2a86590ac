package dockerfile

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/schema/diag"
)

const (
	maxSize = 16 << 20 // bytes of a Dockerfile that BuildKit accepts
	maxLine = 64 << 10 // bytes of a line with its end
)

// Options are the inputs beside the text. The zero value works.
type Options struct {
	Name string // path of the Dockerfile for positions; "Dockerfile" if empty
	// Args are the build args. A nil value is as if the arg were not there.
	Args map[string]*string
	// Target is the name of the stage to build; "" is the last one.
	Target string
	// AllStages resolves every stage, not only those the target needs: for checks.
	// If stages follow the target, it is in the Program a second time, at the end.
	AllStages bool
	// Platform is that of the image. Zero means none was asked for: the build
	// platform, or what a base is made for.
	Platform ocispec.Platform
	// BuildPlatform is where the build runs; zero is this machine.
	BuildPlatform ocispec.Platform
	Contexts      []string          // names of named contexts, also "name::os/arch"
	Labels        map[string]string // applied last
	Syntaxes      *Syntaxes         // nil remembers none
	// Epoch is SOURCE_DATE_EPOCH of the environment; a build arg of that name wins.
	Epoch *int64
	// RemoteEpoch answers for a SOURCE_DATE_EPOCH that names a stage with one
	// ADD: the time of that file or commit, nil if it has none.
	RemoteEpoch func(Remote) (*int64, error)
	// Check stands for the check directive of a file without one, in its syntax.
	Check *string
	// Ignore are the patterns of the main context's ignore file, for the linter.
	Ignore []string

	NetworkMode string // "" or "default", "none", "host": for RUN without --network
	Hostname    string
	ExtraHosts  []ExtraHost
	ShmSize     int64 // bytes
}

// File is a Dockerfile that has been read for one set of Options.
type File struct {
	opts   Options
	name   string
	source []string // lines of the text, for positions
	escape rune

	args     map[string]string // build args that have a value
	contexts map[string]string // normal name -> name as given
	platform ocispec.Platform  // of the target
	build    ocispec.Platform
	implicit bool // no platform was asked for
	strict   bool // warnings are mistakes, says the check directive

	decls    []decl
	meta     []*parser.Node // ARGs before the first FROM
	globals  envList
	declared map[string]bool // names of meta
	epoch    *int64

	images     []ImageRef
	references []Reference
	warnings   []Warning
	err        error
}

// decl is a stage as declared: its FROM, and the nodes of its instructions, which
// are made into instructions anew whenever they are expanded, as expanding changes them.
type decl struct {
	from  instructions.Stage
	node  *parser.Node
	nodes []*parser.Node
}

// Parse reads a Dockerfile: its syntax, the stages and their bases, and which of
// them the target needs. The error has all problems found. The File is there
// with an error too, and answers References and Warnings as far as they are
// known; Resolve then gives the error again.
func Parse(text []byte, o Options) (*File, error) {
	f := &File{opts: o, name: o.Name}
	if f.name == "" {
		f.name = "Dockerfile"
	}
	f.source = strings.SplitAfter(string(text), "\n")
	f.err = f.read(text)
	return f, f.err
}

func (f *File) read(text []byte) error {
	if err := f.setUp(text); err != nil {
		return err
	}
	lint, err := f.newLinter(text, &f.warnings)
	if err != nil {
		return err
	}
	f.strict = lint.ReturnAsError
	defer func() { sortWarnings(f.warnings) }()

	var problems diag.List
	ast := f.readNodes(text, lint, &problems)
	if ast != nil {
		f.readStages(ast, lint, &problems)
	}
	if err := problems.Err(); err != nil {
		return err
	}
	f.lintStages(lint)
	if err := f.setGlobals(lint); err != nil {
		return err
	}

	g := newGraph(f, lint)
	g.declare(&problems)
	if problems.Len() == 0 {
		g.link(&problems)
	}
	if problems.Len() > 0 {
		f.references = append(f.references, g.anyReferences()...)
		return problems.Err()
	}
	f.references = append(f.references, g.references()...)
	f.images = g.images()
	return nil
}

// Images are all images that needed stages name, in file order. Stages and
// named contexts are not among them, nor are images that only a trigger of a
// pulled base names: those are in Program.Images.
func (f *File) Images() []ImageRef { return f.images }

// References are the names of needed stages that come from outside, in file order.
// An image that several places name is there for each.
func (f *File) References() []Reference { return f.references }

// Warnings are those of the linter that need no expansion of stages; a Program has them too.
func (f *File) Warnings() []Warning { return f.warnings }

// setUp fills what depends on the options alone, and checks the text as a whole.
func (f *File) setUp(text []byte) error {
	f.args = map[string]string{}
	for k, v := range f.opts.Args {
		if v != nil {
			f.args[k] = *v
		}
	}
	if _, ok := f.args[epochArg]; !ok && f.opts.Epoch != nil {
		f.args[epochArg] = fmt.Sprint(*f.opts.Epoch)
	}
	f.contexts = map[string]string{}
	for _, name := range f.opts.Contexts {
		key := name
		if !strings.Contains(name, "::") {
			if named, err := parseName(name); err == nil {
				key = strings.TrimSuffix(named.familiar(), ":latest")
			}
		}
		f.contexts[key] = name
	}
	f.build = f.opts.BuildPlatform
	if f.build.OS == "" {
		f.build = platforms.DefaultSpec()
	}
	f.build = platforms.Normalize(f.build)
	f.platform = f.opts.Platform
	if f.platform.OS == "" {
		f.platform, f.implicit = f.build, true
	}
	if err := notWindows(f.platform, f.line(1)); err != nil {
		return err
	}
	switch f.opts.NetworkMode {
	case "", "default", "none", "host", "sandbox":
	default:
		return &diag.Problem{What: fmt.Sprintf("invalid network mode %q", f.opts.NetworkMode), Hint: "use default, none or host"}
	}

	switch {
	case len(text) == 0:
		return &diag.Problem{Pos: f.line(1), What: "the Dockerfile cannot be empty", Hint: "begin with FROM"}
	case len(text) > maxSize:
		return &diag.Problem{Pos: f.line(1), What: fmt.Sprintf("%s exceeds maximum allowed size of %d bytes", f.name, maxSize)}
	}
	for i, l := range f.source {
		if len(l) > maxLine || len(l) == maxLine && !strings.HasSuffix(l, "\n") {
			return &diag.Problem{Pos: f.line(i + 1), What: fmt.Sprintf("dockerfile line greater than max allowed size of %d", maxLine-1),
				Hint: "break the line, or put the content into a file and COPY it"}
		}
	}
	return f.checkSyntax(text)
}

// notWindows refuses Windows, whose paths and images are of another kind. Others
// are only a name for what COPY puts together.
func notWindows(p ocispec.Platform, pos diag.Pos) error {
	if p.OS != "windows" {
		return nil
	}
	return &diag.Problem{Pos: pos, What: fmt.Sprintf("platform %s is not supported", platforms.FormatAll(p)),
		Hint: "Windows images cannot be built here"}
}

// checkSyntax accepts a syntax directive if it names BuildKit's own frontend in
// any version: what that does, this package does.
func (f *File) checkSyntax(text []byte) error {
	var ref string
	var loc []parser.Range
	var ok bool
	if mentions(text, "syntax") {
		ref, _, loc, ok = parser.DetectSyntax(text)
	}
	pos := f.line(1)
	what := "the syntax directive"
	if len(loc) > 0 {
		pos = f.line(max(1, loc[0].Start.Line))
	}
	if v, given := f.args["BUILDKIT_SYNTAX"]; given {
		ref, _, _ = strings.Cut(strings.TrimSpace(v), " ")
		pos, what, ok = f.line(1), "the build arg BUILDKIT_SYNTAX", true
	}
	if !ok {
		return nil
	}
	named, err := parseName(ref)
	if err == nil && slices.Contains(ownFrontends, named.name()) {
		return nil
	}
	return &diag.Problem{Pos: pos, What: fmt.Sprintf("%s asks for the frontend %q, which cannot be run", what, ref),
		Hint: "Dockerfiles are read by kaniko-build itself: use docker/dockerfile in any version, or remove the directive"}
}

// ownFrontends are those of the language that is read here; that upstream is what will be the
// other.
var ownFrontends = []string{"docker.io/docker/dockerfile", "docker.io/docker/dockerfile-upstream"}

// mentions tells whether a word stands anywhere in a text. BuildKit looks for a
// directive at the cost of a fourth of all its parsing, and most files have none.
func mentions(text []byte, word string) bool {
	return bytes.Contains(bytes.ToLower(text), []byte(word))
}

// maxInstructions is far above what people write and below what would hurt: each takes
// about 4 KB of memory.
const maxInstructions = 20_000

// readNodes runs BuildKit's parser. It stops at the first mistake, so we blank
// the lines of each and go on, to report all.
func (f *File) readNodes(text []byte, lint *linter.Linter, problems *diag.List) *parser.Node {
	text = bytes.Clone(text)
	for range 50 { // nobody reads more mistakes than that
		res, err := f.opts.Syntaxes.parse(text)
		if err == nil {
			if all := res.AST.Children; len(all) > maxInstructions {
				problems.Add(f.line(all[maxInstructions].StartLine), "have a script do it, in one RUN", "the file has %d instructions; %d are allowed", len(all), maxInstructions)
				return nil
			}
			f.escape = res.EscapeToken
			for _, w := range res.Warnings {
				if w.URL == linter.RuleNoEmptyContinuation.URL {
					lint.Run(&linter.RuleNoEmptyContinuation, []parser.Range{*w.Location}, linter.RuleNoEmptyContinuation.Format())
				}
			}
			return res.AST
		}
		start, end := errorLines(err)
		if strings.Contains(err.Error(), "file with no instructions") {
			if problems.Len() == 0 {
				problems.Add(f.line(1), "begin with FROM", "%s", oneLine(err))
			}
			return nil
		}
		if isDirectiveError(err) {
			start, end = start+1, start+1 // counted before the line
		}
		start = max(1, start)
		p := f.problem(f.instruction(start), err)
		if in := f.excerpt(start, end); !strings.Contains(p.What, in) {
			p.What += in
		}
		problems.AddErr(diag.Pos{}, p)
		if len(text) > 1<<20 || !blank(text, start, max(start, end)) {
			return nil
		}
	}
	return nil
}

// readStages makes instructions of nodes, and stages of those.
func (f *File) readStages(ast *parser.Node, lint *linter.Linter, problems *diag.List) {
	failed := problems.Len() > 0 // then a FROM may be missing that is there
	for _, n := range ast.Children {
		cmd, err := instructions.ParseInstructionWithLinter(n, lint)
		isFrom := strings.EqualFold(n.Value, "from")
		if err != nil {
			problems.AddErr(diag.Pos{}, f.problem(f.instruction(n.StartLine), err))
			failed = failed || isFrom
			continue
		}
		switch c := cmd.(type) {
		case *instructions.Stage:
			f.decls = append(f.decls, decl{from: *c, node: n})
		case *instructions.ArgCommand:
			if len(f.decls) == 0 {
				f.meta = append(f.meta, n)
				continue
			}
			f.decls[len(f.decls)-1].nodes = append(f.decls[len(f.decls)-1].nodes, n)
		default:
			if len(f.decls) == 0 {
				if !failed {
					problems.Add(f.instruction(n.StartLine), "a Dockerfile begins with FROM; only ARG may stand before it", "no build stage in current context")
					failed = true
				}
				continue
			}
			f.decls[len(f.decls)-1].nodes = append(f.decls[len(f.decls)-1].nodes, n)
		}
	}
	if len(f.decls) == 0 && problems.Len() == 0 {
		problems.Add(f.line(1), "add a FROM", "dockerfile contains no stages to build")
	}
}

// setGlobals evaluates the ARGs before the first FROM.
func (f *File) setGlobals(lint *linter.Linter) error {
	shlex := shell.NewLex(f.escape)
	title := f.opts.Target
	if title == "" {
		title = f.decls[len(f.decls)-1].from.Name
	}
	defaults := platformArgs(f.platform, f.build, f.args, title)
	metaCmds := func() ([]*instructions.ArgCommand, error) {
		var out []*instructions.ArgCommand
		for _, n := range f.meta {
			cmd, err := parseNode(n)
			if err != nil {
				return nil, f.problem(f.instruction(n.StartLine), err)
			}
			out = append(out, cmd.(*instructions.ArgCommand))
		}
		return out, nil
	}

	cmds, err := metaCmds()
	if err != nil {
		return err
	}
	if env, err := f.metaArgs(defaults, shlex, cmds, nil); err == nil {
		f.lintDefaultBases(env, shlex, lint)
	}
	if cmds, err = metaCmds(); err != nil {
		return err
	}
	if f.globals, err = f.metaArgs(defaults, shlex, cmds, f.args); err != nil {
		return err
	}
	f.declared = map[string]bool{}
	for _, c := range cmds {
		for _, a := range c.Args {
			f.declared[a.Key] = true
		}
	}
	return f.setEpoch(shlex)
}

// line is the position of a line's start.
func (f *File) line(n int) diag.Pos { return diag.Pos{File: f.name, Line: n, Col: 1} }

// instruction is the position of the first word of a line.
func (f *File) instruction(n int) diag.Pos {
	if n < 1 || n > len(f.source) {
		return diag.Pos{File: f.name, Line: min(max(1, n), len(f.source)), Col: 1}
	}
	l := strings.TrimPrefix(f.source[n-1], "\ufeff")
	skipped := len(f.source[n-1]) - len(l)
	return diag.Pos{File: f.name, Line: n, Col: 1 + skipped + len(l) - len(strings.TrimLeft(l, " \t\v\f\r"))}
}

// word is the position of a word on the line of pos, or pos where it does not stand there.
func (f *File) word(pos diag.Pos, word string) diag.Pos {
	if pos.File != f.name || pos.Line < 1 || pos.Line > len(f.source) || word == "" {
		return pos
	}
	if i := strings.Index(f.source[pos.Line-1], word); i >= 0 {
		pos.Col = i + 1
	}
	return pos
}

// excerpt is the text of lines, shortened, to be appended to a message.
func (f *File) excerpt(start, end int) string {
	var words []string
	for n := start; n <= end && n <= len(f.source); n++ {
		words = append(words, strings.Fields(f.source[n-1])...)
	}
	text := strings.Join(words, " ")
	if len(text) > 120 {
		text = strings.ToValidUTF8(text[:120], "") + "..."
	}
	if text == "" {
		return ""
	}
	return ", in " + text
}

// errorLines are the first and last line that an error of BuildKit's parser names; 0 is none.
func errorLines(err error) (start, end int) {
	var loc *parser.LocationError
	if !errors.As(err, &loc) {
		return 0, 0
	}
	for _, rs := range loc.Locations {
		for _, r := range rs {
			if start == 0 || r.Start.Line < start {
				start = r.Start.Line
			}
			end = max(end, r.End.Line)
		}
	}
	return start, end
}

func isDirectiveError(err error) bool {
	s := err.Error()
	return strings.Contains(s, "parser directive can be used") || strings.Contains(s, "invalid escape token")
}

// blank overwrites lines by spaces and tells if there was anything to overwrite.
func blank(text []byte, start, end int) bool {
	line, done := 1, false
	for i, c := range text {
		if c == '\n' {
			line++
			continue
		}
		if line >= start && line <= end && c != ' ' {
			text[i], done = ' ', true
		}
	}
	return done
}
