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
	return nil
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
	default:
		return place, fmt.Errorf("repositories by %s are not built yet", scheme)
	}
	if ref != "" {
		place.At += "#" + ref
	}
	return place, nil
}
