package executor

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/platforms"

	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/schema/diag"
)

// Reference is a name in a Dockerfile that needs an image from outside.
type Reference struct {
	Name       string // after ARG resolution
	Pos        diag.Pos
	Use        string // "FROM", "COPY --from", "RUN --mount=from"
	Platform   string // of FROM --platform; "" is the request's
	Unresolved bool   // it holds an ARG without a value: Name is as written
	Context    bool   // it is a named context, by its name in Request.Contexts, for a platform that FROM names
}

// References lists what the needed stages of a Dockerfile refer to; named contexts only
// where FROM names their platform. Nothing is read or asked. That a name has no value is no
// mistake yet: the caller may do without that edge, Inspect may not.
func References(r Request) ([]Reference, error) { return new(Dockerfiles).References(r) }

// Dockerfiles tells what many Dockerfiles refer to: those with the same text are taken
// apart once. It may be used from many goroutines.
type Dockerfiles struct{ syntaxes dockerfile.Syntaxes }

// References is References.
func (d *Dockerfiles) References(r Request) ([]Reference, error) {
	o, err := parseOptions(r, nil)
	if err != nil {
		return nil, err
	}
	o.Syntaxes = &d.syntaxes
	f, err := dockerfile.Parse(r.Dockerfile.Data, o)
	if err = named(err, f.References()); err != nil {
		return nil, err
	}
	var out []Reference
	for _, ref := range f.References() {
		if ref.Context && ref.Platform == nil {
			continue
		}
		one := Reference{Name: ref.Name, Pos: ref.Pos, Use: string(ref.Use), Unresolved: ref.Unresolved, Context: ref.Context}
		if ref.Platform != nil {
			one.Platform = platforms.FormatAll(*ref.Platform)
		}
		out = append(out, one)
	}
	return out, nil
}

// named is an error of a Dockerfile without the problems that are there only
// because a name has no value.
func named(err error, refs []dockerfile.Reference) error {
	var many diag.Problems
	if !errors.As(err, &many) {
		return err
	}
	var rest diag.List
	for _, p := range many {
		blank := slices.ContainsFunc(refs, func(r dockerfile.Reference) bool {
			return r.Unresolved && r.Pos.File == p.Pos.File && r.Pos.Line == p.Pos.Line
		})
		if !blank {
			rest.AddErr(diag.Pos{}, p)
		}
	}
	return rest.Err()
}

func parseOptions(r Request, epoch *int64) (dockerfile.Options, error) {
	o := dockerfile.Options{
		Name: r.Dockerfile.Name, Args: r.Args, Target: r.Stage, Labels: r.Labels, Epoch: epoch,
		BuildPlatform: platforms.DefaultSpec(), NetworkMode: r.Network, ShmSize: r.ShmSize,
	}
	for _, h := range r.ExtraHosts {
		o.ExtraHosts = append(o.ExtraHosts, dockerfile.ExtraHost{Host: h.Name, IP: h.IP})
	}
	if r.Check != "" {
		o.Check = &r.Check
	}
	if r.Platform != "" {
		p, err := platforms.Parse(r.Platform)
		if err != nil {
			return o, &diag.Problem{What: fmt.Sprintf("platform %q: %v", r.Platform, err), Hint: "write os/arch[/variant], as linux/amd64"}
		}
		o.Platform = platforms.Normalize(p)
	}
	for name := range r.Contexts {
		o.Contexts = append(o.Contexts, name)
	}
	slices.Sort(o.Contexts)
	return o, nil
}

// Check reads a Dockerfile as a build would, without images, and returns what
// the lint rules find, with an error too. Without a target it judges all stages.
// Of the context only the ignore file is read.
func Check(ctx context.Context, r Request) ([]Event, error) {
	o, err := parseOptions(r, nil)
	if err != nil {
		return nil, err
	}
	o.AllStages = r.Stage == ""
	if o.Ignore, err = ignorePatterns(ctx, r); err != nil {
		return nil, err
	}
	f, _ := dockerfile.Parse(r.Dockerfile.Data, o) // Check gives its error
	warnings, err := f.Check()
	var out []Event
	for _, w := range warnings {
		out = append(out, Event{Kind: Warning, Rule: w.Rule, Text: w.Text, Pos: w.Pos})
	}
	return out, err
}
