package executor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/platforms"

	"kaniko-build/executor/internal/copier"
	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/executor/internal/store"
	"kaniko-build/schema/diag"
)

// plan makes the job: every step with its key by definition.
func (x *Executor) plan(ctx context.Context, n *Node) error {
	n.job = job{Node: n.ID, Images: map[string][]baseLayer{}, Encode: n.Format.Compression, Epoch: n.clamp(), Ahead: n.Ahead && len(n.Names) > 0 && !n.Format.Single}
	keys := make([]store.Key, len(n.program.Stages)) // after the last step
	afresh := make([]bool, len(n.program.Stages))    // something of it runs even when it is known
	var wrong diag.List
	for i := range n.program.Stages {
		st := &n.program.Stages[i]
		js := jobStage{Title: st.Title, Base: jobBase{Stage: -1}}
		parent, err := x.startKey(ctx, n, st, keys)
		if err != nil {
			return err
		}
		if st.Base.Kind == dockerfile.FromStage {
			js.Base.Stage = st.Base.Stage
		}
		afresh[i] = n.afresh(st.Base, afresh)
		fresh := n.NoCache || slices.Contains(n.NoCacheFor, st.Name) && st.Name != ""
		for k := range st.Steps {
			step := jobStep{Step: st.Steps[k], Number: k + 1, Of: len(st.Steps), Fresh: fresh}
			if step.Copy != nil || step.Run != nil || step.Workdir != nil {
				if err := x.stepKey(ctx, n, st, &step, parent, keys); err != nil {
					if err = placedSources(err, &step.Step); !isMistake(err) {
						return err
					}
					wrong.AddErr(step.Pos, err) // and look at the other steps, for all mistakes at once
				}
				parent = step.over(parent)
				for _, src := range stepSources(&step.Step) {
					afresh[i] = afresh[i] || n.afresh(src, afresh)
				}
				step.ByContent = afresh[i]
				afresh[i] = afresh[i] || fresh
			}
			js.Steps = append(js.Steps, step)
		}
		keys[i] = parent
		n.job.Stages = append(n.job.Stages, js)
	}
	n.finalKey, n.fresh = keys[len(keys)-1], afresh[len(keys)-1]
	return wrong.Err()
}

// afresh tells whether what a source shows is made anew in this run.
func (n *Node) afresh(src dockerfile.Source, stages []bool) bool {
	switch src.Kind {
	case dockerfile.FromStage:
		return stages[src.Stage]
	case dockerfile.FromImage:
		b := n.images[imageKey(*src.Image)]
		return b != nil && b.node != nil && b.node.fresh
	}
	return false
}

// startKey is the key that the first step of a stage builds on.
func (x *Executor) startKey(ctx context.Context, n *Node, st *dockerfile.Stage, keys []store.Key) (store.Key, error) {
	platform := platforms.Format(st.Platform)
	switch st.Base.Kind {
	case dockerfile.FromStage:
		return keys[st.Base.Stage], nil
	case dockerfile.FromImage:
		b, err := x.image(ctx, n, *st.Base.Image)
		if err != nil {
			return store.Key{}, placed(err, st.Pos)
		}
		return b.key(platform), nil
	default:
		return hashLines(startLines(platform, nil)), nil
	}
}

// stepKey fills in a step's key by definition and the lines it is made of.
func (x *Executor) stepKey(ctx context.Context, n *Node, st *dockerfile.Stage, s *jobStep, parent store.Key, keys []store.Key) error {
	lines := []string{parentLine(parent)}
	read := func(src dockerfile.Source, sel copier.Select) ([]string, error) {
		switch src.Kind {
		case dockerfile.FromScratch:
			return []string{"from nothing"}, nil
		case dockerfile.FromStage:
			s.Reads = append(s.Reads, stageRead{Line: -1, Stage: src.Stage, Select: sel})
			return []string{fmt.Sprintf("from stage %x", keys[src.Stage])}, nil
		case dockerfile.FromImage:
			b, err := x.image(ctx, n, *src.Image)
			if err != nil {
				return nil, err
			}
			return []string{fmt.Sprintf("from image %x", b.key(""))}, nil
		}
		f, err := n.sources.find(ctx, src.Context, sel, s.Copy != nil && s.Copy.Chown != "")
		if err != nil {
			return nil, err
		}
		if s.Copy != nil {
			for _, text := range f.special.sentences() {
				n.Warnings = append(n.Warnings, Event{Node: n.ID, Kind: Warning, Pos: s.Pos, Time: time.Now(), Text: text})
			}
		}
		return f.lines, nil
	}
	switch {
	case s.Run != nil:
		more, err := runLines(s.Run, func(src dockerfile.Source, paths []string) ([]string, error) {
			return read(src, copier.Select{Patterns: paths})
		}, n.granted)
		if err != nil {
			return err
		}
		lines = append(lines, more...)
	case s.Copy != nil:
		if s.Copy.Link {
			lines[0] = "no parent"
		}
		lines = append(lines, copyLines(s.Copy)...)
		if len(s.Copy.Sources) > 0 {
			more, err := read(s.Copy.From, selection(s.Copy))
			if err != nil {
				return err
			}
			lines = append(lines, more...)
		}
		for i, r := range s.Copy.Remote {
			more, err := n.sources.remote(ctx, remoteTreeName(st.Title, s.Number, i), r, st.Platform)
			if err != nil {
				return err
			}
			lines = append(lines, more...)
		}
	default:
		lines = append(lines, workdirLines(s.Workdir)...)
	}
	lines = append(lines, leftOutLines(x.opts, s.Run != nil)...)
	next := 0
	for i, l := range lines { // where the lines of stages ended up
		if strings.HasPrefix(l, "from stage ") && next < len(s.Reads) {
			s.Reads[next].Line = i
			next++
		}
	}
	s.Lines, s.Key = lines, hashLines(lines)
	return nil
}

// selection is what a COPY selects in its source.
func selection(c *dockerfile.Copy) copier.Select {
	return copier.Select{Patterns: c.Sources, Exclude: c.Exclude, Parents: c.Parents}
}
