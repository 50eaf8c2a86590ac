package dockerfile

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"kaniko-build/schema/diag"
)

// Loader gives the configuration of an image, of the platform asked for. It may
// be called several times for one image. For a ref with Context set it gives
// that of the named context, or nil if that is not an image. Its error is
// reported at the place in the Dockerfile that names the image.
type Loader func(ImageRef) (*dockerspec.DockerOCIImage, error)

var onbuildWord = regexp.MustCompile(`(?i)^\s*ONBUILD\s*`)

// settle names the images of needed states, loads their configurations if load
// is not nil, and puts triggers in front of commands, until there is nothing
// new: triggers may need further stages and images.
func (g *graph) settle(load Loader, problems *diag.List) {
	for {
		needed := g.reachable()
		for _, s := range g.states {
			if err := g.nameImage(s); err != nil {
				problems.AddErr(diag.Pos{}, g.f.problem(s.pos, err))
				s.failed = true
			}
		}
		if problems.Len() > 0 {
			return
		}
		if load != nil {
			for _, s := range slices.Clone(g.states) {
				if needed[s] && !s.loaded {
					s.loaded = true
					if err := g.load(s, load); err != nil {
						problems.AddErr(diag.Pos{}, err)
						s.failed = true
					}
				}
			}
			if problems.Len() > 0 {
				return
			}
		}
		news := false
		for _, s := range slices.Clone(g.states) {
			if needed[s] && !s.triggered && s.decl != nil && !s.replaced && (load != nil || s.parent != nil) {
				s.triggered = true
				more, err := g.trigger(s)
				if err != nil {
					problems.AddErr(diag.Pos{}, g.f.problem(s.pos, err))
					s.failed = true
				}
				news = news || more
			}
		}
		if problems.Len() > 0 || !news {
			return
		}
	}
}

// trigger puts the triggers of the base of s in front of its commands and tells
// if they need files from elsewhere.
func (g *graph) trigger(s *state) (news bool, err error) {
	triggers := s.image.Config.OnBuild
	s.image.Config.OnBuild = nil
	if s.parent != nil {
		triggers = nil
		for _, c := range s.parent.cmds {
			if ob, ok := c.Command.(*instructions.OnbuildCommand); ok {
				triggers = append(triggers, ob.Expression)
			}
		}
	}
	var cmds []command
	for _, text := range triggers {
		n, err := triggerNode(text)
		if err != nil {
			return false, fmt.Errorf("ONBUILD trigger %q of the base %s: %w", summary(text), s.base, err)
		}
		n.StartLine, n.EndLine = s.decl.node.StartLine, s.decl.node.EndLine
		ic, err := instructions.ParseCommand(n)
		if err == nil {
			c := command{Command: ic, pos: s.pos, end: n.EndLine, text: display(n), trigger: true}
			if err = g.connect(s, &c); err == nil {
				cmds = append(cmds, c)
				news = news || len(c.sources) > 0
				continue
			}
		}
		return false, fmt.Errorf("ONBUILD trigger %q of the base %s: %w", summary(text), s.base, err)
	}
	s.cmds = append(cmds, s.cmds...)
	return news, nil
}

// triggerNode parses the text of one trigger.
func triggerNode(text string) (*parser.Node, error) {
	ast, err := parser.Parse(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	if len(ast.AST.Children) != 1 {
		return nil, errors.New("onbuild trigger should be a single expression")
	}
	return ast.AST.Children[0], nil
}

// checkTrigger reports what is wrong with a trigger where it is written. The
// build would only fail where a stage uses it, so this is but a warning there,
// and an error as soon as a stage of this file is built on it; we do not refuse
// what BuildKit records.
func (f *File) checkTrigger(c *instructions.OnbuildCommand, n *parser.Node, problems *diag.List) {
	used := false
	if last := len(f.decls) - 1; last >= 0 && f.decls[last].from.Name != "" {
		used = f.usedBelow(f.decls[last].from.Name, n.EndLine)
	}
	if !used {
		return
	}
	node, err := triggerNode(c.Expression)
	if err == nil {
		_, err = instructions.ParseCommand(node)
	}
	if err != nil {
		problems.AddErr(diag.Pos{}, f.problem(f.instruction(n.StartLine), fmt.Errorf("ONBUILD trigger: %w", err)))
	}
}

// usedBelow tells if some FROM after a line names a stage, as far as the plain text says.
func (f *File) usedBelow(stage string, line int) bool {
	for _, l := range f.source[min(line, len(f.source)):] {
		words := strings.Fields(l)
		if len(words) >= 2 && strings.EqualFold(words[0], "from") && slices.Contains(words[1:], stage) {
			return true
		}
	}
	return false
}

// summary is the first line of a text, for messages.
func summary(text string) string {
	first, rest, _ := strings.Cut(strings.TrimSpace(text), "\n")
	if rest != "" {
		first += "..."
	}
	return strings.TrimSpace(first)
}
