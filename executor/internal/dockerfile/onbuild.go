package dockerfile

import (
	"errors"
	"fmt"
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
// if they need files from elsewhere. A mistake in one is reported at the FROM
// that sets it off, with the place where it is written if that is in this file.
func (g *graph) trigger(s *state) (news bool, err error) {
	var origins []origin
	if s.parent == nil {
		for _, text := range s.image.Config.OnBuild {
			origins = append(origins, origin{text: text, base: s.base})
		}
	} else {
		for _, c := range s.parent.cmds {
			if ob, ok := c.Command.(*instructions.OnbuildCommand); ok {
				origins = append(origins, origin{text: ob.Expression, base: s.base, pos: c.pos})
			}
		}
	}
	s.image.Config.OnBuild = nil
	var cmds []command
	for _, o := range origins {
		c, err := g.triggerCommand(s, o)
		if err != nil {
			return false, o.wrap(err)
		}
		cmds = append(cmds, c)
		news = news || len(c.sources) > 0
	}
	s.cmds = append(cmds, s.cmds...)
	return news, nil
}

// triggerCommand parses the text of one trigger.
func (g *graph) triggerCommand(s *state, o origin) (command, error) {
	ast, err := parser.Parse(strings.NewReader(o.text))
	if err != nil {
		return command{}, err
	}
	if len(ast.AST.Children) != 1 {
		return command{}, errors.New("onbuild trigger should be a single expression")
	}
	n := ast.AST.Children[0]
	n.StartLine, n.EndLine = s.decl.node.StartLine, s.decl.node.EndLine
	ic, err := parseCommand(n)
	if err != nil {
		return command{}, err
	}
	c := command{Command: ic, pos: s.pos, end: n.EndLine, text: display(n), origin: &o}
	return c, g.connect(s, &c)
}

// origin is where a trigger comes from.
type origin struct {
	text, base string
	pos        diag.Pos // unknown for that of an image
}

func (o *origin) wrap(err error) error {
	text, rest, _ := strings.Cut(strings.TrimSpace(o.text), "\n")
	if rest != "" {
		text = strings.TrimSpace(text) + "..."
	}
	if at := o.pos.String(); at != "" {
		return fmt.Errorf("ONBUILD trigger `%s` of %s (%s): %w", text, o.base, at, err)
	}
	return fmt.Errorf("ONBUILD trigger `%s` of %s: %w", text, o.base, err)
}
