package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"kaniko-build/executor"
	"kaniko-build/graph"
	"kaniko-build/plan"
	"kaniko-build/schema"
	"kaniko-build/schema/diag"
)

// fetch brings the named contexts that lie elsewhere: git repositories and web
// archives. Each place is brought once.
func (w *workspace) fetch(ctx context.Context, x *executor.Executor, p *plan.Plan, requests []executor.Request) error {
	got := map[string]string{} // by kind and value
	for _, r := range requests {
		t := p.Node(graph.ID(r.ID)).Target
		for _, c := range t.Contexts {
			if r.Contexts[c.Name] != laterContext {
				continue
			}
			key := string(c.Kind) + " " + c.Value
			if got[key] == "" {
				place, err := placeOf(c)
				if err == nil {
					got[key], err = x.OpenContext(ctx, place, strings.NewReader(""))
				}
				if err != nil {
					return &diag.Problem{Pos: c.Pos, What: fmt.Sprintf("target %q: named context %q: %v", t.Name, c.Name, err)}
				}
			}
			r.Contexts[c.Name] = got[key]
		}
	}
	return w.nameWeak(ctx, x, p, requests)
}

// nameWeak completes the names of images that stand for weak parents and tell what
// they are made of: these are looked at for it, and not built.
func (w *workspace) nameWeak(ctx context.Context, x *executor.Executor, p *plan.Plan, requests []executor.Request) error {
	names := map[string]string{} // by target
	for _, r := range requests {
		for context, published := range p.Node(graph.ID(r.ID)).Published {
			if !schema.HasLate(published.Image) {
				continue
			}
			name, known := names[published.Target]
			if !known {
				var err error
				if name, err = w.inputName(ctx, x, published); err != nil {
					return err
				}
				names[published.Target] = name
			}
			r.Contexts[context] = "docker-image://" + name
		}
	}
	return nil
}

// inputName is the image of a target that is not in the run, by what it would be made of.
func (w *workspace) inputName(ctx context.Context, x *executor.Executor, published plan.Published) (string, error) {
	p, err := w.plan([]string{published.Target})
	if err != nil {
		return "", err
	}
	requests, err := w.requests(p)
	if err != nil {
		return "", err
	}
	_ = w.granted(p, requests) // it is not built: secrets that are missing are not missed
	if err := w.fetch(ctx, x, p, requests); err != nil {
		return "", err
	}
	list, err := x.Inspect(ctx, requests)
	if err != nil {
		return "", w.places().err(err)
	}
	nodes := map[string]*executor.Node{}
	for _, n := range list {
		nodes[n.ID] = n
	}
	in, err := w.inputs(p, nodes)
	if err != nil {
		return "", err
	}
	if why := in.why[published.Target]; why != nil {
		return "", &diag.Problem{Pos: w.manifest.Target(published.Target).Pos, What: fmt.Sprintf("the published image of %q has no name: %v", published.Target, why), Hint: "build it in the same run"}
	}
	return schema.Expand(published.Image, map[string]string{"input.digest": in.digests[published.Target]})
}

// placeOf is where a named context is. A git one is URL#REF:DIRECTORY.
func placeOf(c schema.NamedContext) (executor.Place, error) {
	if c.Kind == schema.ContextHTTP {
		return executor.Place{At: c.Value}, nil
	}
	url, fragment, _ := strings.Cut(c.Value, "#")
	ref, dir, _ := strings.Cut(fragment, ":")
	place := executor.Place{Sub: dir, Git: executor.GitFrom(os.Getenv)}
	switch scheme, rest, ok := strings.Cut(url, "://"); {
	case !ok:
		return place, fmt.Errorf("%q is not the address of a repository, such as https://git.example.com/spec.git#v2:openapi", c.Value)
	case scheme == "https" || scheme == "git":
		place.At = "git://" + rest
	case scheme == "http":
		place.At, place.Git.PlainHTTP = "git://"+rest, true
	case scheme == "ssh":
		place.At, place.Git.SSH = "git://"+rest, true
	default:
		return place, &diag.Problem{What: fmt.Sprintf("repositories are not fetched by %s", scheme), Hint: "write its address by https or ssh"}
	}
	if ref != "" {
		place.At += "#" + ref
	}
	return place, nil
}
