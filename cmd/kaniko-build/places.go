package main

import (
	"errors"

	"kaniko-build/executor"
	"kaniko-build/schema"
	"kaniko-build/schema/diag"
)

// places are the inline Dockerfiles of a manifest, by the names that the executor
// knows them by. They move what it says about them to where they stand; nil
// moves nothing.
type places map[string]*schema.Inline

func (w *workspace) places() places {
	out := places{}
	for i := range w.manifest.Targets {
		if t := &w.manifest.Targets[i]; t.Inline != nil {
			out[inlineName(t)] = t.Inline
		}
	}
	return out
}

// inlineName is what the executor calls an inline Dockerfile.
func inlineName(t *schema.Target) string { return t.Name + "/dockerfileInline" }

func (p places) pos(at diag.Pos) diag.Pos {
	in := p[at.File]
	if in == nil {
		return at
	}
	out := in.Pos
	if in.Lines && at.Line > 0 {
		out.Line += at.Line - 1
		if at.Col > 0 {
			out.Col += at.Col - 1
		}
	}
	return out
}

// err moves problems and failed steps; any other error stays as it is.
func (p places) err(err error) error {
	var many diag.Problems
	var one *diag.Problem
	var step *executor.StepError
	switch {
	case err == nil || len(p) == 0:
		return err
	case errors.As(err, &many):
		var l diag.List
		for _, problem := range many {
			moved := *problem
			moved.Pos = p.pos(problem.Pos)
			l.AddErr(diag.Pos{}, &moved)
		}
		return l.Err()
	case errors.As(err, &one):
		moved := *one
		moved.Pos = p.pos(one.Pos)
		return &moved
	case errors.As(err, &step):
		moved := *step
		moved.Pos = p.pos(step.Pos)
		return &moved
	}
	return err
}

// sink moves events before next gets them.
func (p places) sink(next executor.Sink) executor.Sink {
	if len(p) == 0 || next == nil {
		return next
	}
	return func(e executor.Event) {
		e.Pos = p.pos(e.Pos)
		next(e)
	}
}
