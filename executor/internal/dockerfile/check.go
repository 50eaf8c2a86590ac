package dockerfile

import (
	"errors"
	"slices"
	"strings"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"kaniko-build/schema/diag"
)

// Check gives all warnings and problems that can be told without an image. What
// an image would bring is not known then: in stages that begin with one, use of a
// variable is not judged, nor what comes out of an instruction that uses one.
func (f *File) Check() ([]Warning, error) {
	p := &Program{Warnings: slices.Clone(f.warnings)}
	err := f.err
	if err == nil {
		err = f.resolve(p, func(ref ImageRef) (*dockerspec.DockerOCIImage, error) {
			img := emptyImage(ref.Platform)
			return &img, nil
		})
		open := f.openLines()
		p.Warnings = slices.DeleteFunc(p.Warnings, func(w Warning) bool { return w.Rule == "UndefinedVar" && open[w.Pos.Line] })
		err = f.withoutLines(err, open)
	}
	sortWarnings(p.Warnings)
	p.Warnings = slices.Compact(p.Warnings)
	if err == nil && f.strict {
		err = lintError(p.Warnings)
	}
	return p.Warnings, err
}

// openLines are those of instructions with variables in stages that begin with
// an image or a named context.
func (f *File) openLines() map[int]bool {
	g := newGraph(f, quiet())
	var ignored diag.List
	g.declare(&ignored)
	out := map[int]bool{}
	for _, s := range g.states {
		root := s
		for root.parent != nil {
			root = root.parent
		}
		if root.base == scratch && !root.replaced {
			continue
		}
		for _, n := range s.decl.nodes {
			for line := n.StartLine; line <= n.EndLine && strings.Contains(n.Original, "$"); line++ {
				out[line] = true
			}
		}
	}
	return out
}

// withoutLines is err without its problems on some lines of the file.
func (f *File) withoutLines(err error, lines map[int]bool) error {
	var many diag.Problems
	if !errors.As(err, &many) {
		return err
	}
	var rest diag.List
	for _, p := range many {
		if p.Pos.File != f.name || !lines[p.Pos.Line] {
			rest.AddErr(diag.Pos{}, p)
		}
	}
	return rest.Err()
}
