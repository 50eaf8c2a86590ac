package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"kaniko-build/executor"
	"kaniko-build/executor/internal/sandbox"
	"kaniko-build/executor/runner/local"
)

// Isolation is what RUNs have in a pod, as the pod found it.
type Isolation struct {
	Rung   string // userns or inplace
	Walk   string // why no overlay tells what a RUN changed; "" if one does, or in place
	Why    string // what userns lacks; "" if it is the rung
	Remedy string // against Why; "" if none is known
}

func (i Isolation) String() string {
	if i.Walk != "" {
		return i.Rung + ", with a walk after each RUN"
	}
	return i.Rung
}

// Rungs are those that a pod may have. With a single id layers would have no owners.
func Rungs() []string { return []string{string(sandbox.Userns), string(sandbox.InPlace)} }

// isolate finds the best rung of this pod by a small build, or tries the one that is
// asked for. The root of the container, which is made for one node, serves where nothing
// better does.
func isolate(ctx context.Context, asked string) (executor.Isolation, Isolation, error) {
	inPlace := executor.Isolation{Rung: sandbox.InPlace, IDs: sandbox.SameMap()}
	if asked == string(sandbox.InPlace) {
		return inPlace, Isolation{Rung: asked, Why: "it was asked for"}, nil
	}
	if asked != "" && asked != string(sandbox.Userns) {
		return inPlace, Isolation{}, fmt.Errorf("no isolation %q for pods: choose %s", asked, strings.Join(Rungs(), " or "))
	}
	said := Isolation{Rung: string(sandbox.InPlace)}
	rep, err := (&local.Runner{Rung: string(sandbox.Userns)}).Report(ctx, storePlace)
	if ctx.Err() != nil {
		return inPlace, said, context.Cause(ctx)
	}
	if err != nil {
		said.Why = err.Error()
	}
	for _, c := range rep.Rungs {
		switch {
		case c.Rung != sandbox.Userns:
		case c.OK:
			return executor.Isolation{Rung: c.Rung, IDs: c.Map, Walk: c.Walk}, Isolation{Rung: string(c.Rung), Walk: c.Slow}, nil
		default:
			said.Why, said.Remedy = c.Why, c.Remedy
		}
	}
	if asked != "" {
		return inPlace, said, errors.New("isolation " + asked + " is not to be had: " + said.Why)
	}
	return inPlace, said, nil
}
