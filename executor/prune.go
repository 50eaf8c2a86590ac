package executor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/executor/internal/prune"
	"kaniko-build/executor/internal/rootfs"
	"kaniko-build/executor/internal/store"
)

// PrunePolicy says what is to go from the store.
type PrunePolicy = prune.Policy

// Verdict is one thing of the store, and what becomes of it.
type Verdict = prune.Verdict

// ThingKind is a kind of thing that the store holds.
type ThingKind = store.Kind

// ThingKinds are all kinds, those that refer to others before those.
func ThingKinds() []ThingKind { return append([]ThingKind(nil), store.Kinds...) }

// Judge lists the store and decides what would go. Nothing changes. Things that
// this Executor has used count as in use if own is true.
func (x *Executor) Judge(ctx context.Context, p PrunePolicy, own bool) ([]Verdict, error) {
	started := time.Now()
	sizes := x.store.Sizes()
	known := len(sizes)
	things, err := x.store.Things(ctx, sizes)
	if err != nil {
		return nil, err
	}
	if err := x.measure(ctx, things, sizes); err != nil {
		return nil, err
	}
	if len(sizes) != known {
		if err := x.store.PutSizes(sizes, things); err != nil {
			return nil, err
		}
	}
	trash, err := x.store.Trash(x.spare(own))
	if err != nil {
		return nil, err
	}
	defer trash.Close()
	held, err := trash.HeldSince()
	if err != nil {
		return nil, err
	}
	if held.After(started) {
		held = started // what came while we looked may lead to what we have not seen
	}
	return prune.Choose(things, held, started, p), nil
}

func (x *Executor) spare(own bool) string {
	if own {
		return ""
	}
	return x.store.Session()
}

// measure asks a node for the sizes of what cannot be read from outside.
func (x *Executor) measure(ctx context.Context, things []store.Thing, sizes map[string]int64) error {
	var t task
	for _, thing := range things {
		if thing.Bytes < 0 {
			t.Measure = append(t.Measure, thing.Path)
		}
	}
	if len(t.Measure) == 0 {
		return nil
	}
	done, err := x.runTask(ctx, t)
	if err != nil {
		return err
	}
	for i := range things {
		n, ok := done.Sizes[things[i].Path]
		if !ok {
			continue
		}
		things[i].Bytes = n
		if things[i].Kind == store.KindLayer {
			sizes[things[i].Path] = n
		}
	}
	return nil
}

// Prune takes away what Judge said should go; it comes to nothing that a process
// has begun to use since. taken tells which of the verdicts were carried out.
// What only a node may remove is removed by one.
func (x *Executor) Prune(ctx context.Context, verdicts []Verdict, own bool) (taken []bool, err error) {
	trash, err := x.store.Trash(x.spare(own))
	if err != nil {
		return nil, err
	}
	taken = make([]bool, len(verdicts))
	rest := task{Spare: x.spare(own)}
	at := map[string]int{}
	for i, v := range verdicts {
		if !v.Goes {
			continue
		}
		if err = context.Cause(ctx); err != nil {
			break
		}
		if taken[i], err = trash.Take(v.Removal()); errors.Is(err, fs.ErrPermission) {
			rest.Remove, err = append(rest.Remove, v.Removal()), nil
			at[v.Path] = i
		}
		if err != nil {
			break
		}
	}
	trash.Close()
	if err == nil && len(rest.Remove) > 0 {
		var done coreResult
		done, err = x.runTask(ctx, rest)
		for _, path := range done.Removed {
			taken[at[path]] = true
		}
	}
	return taken, errors.Join(err, x.sweep(ctx))
}

// task is what a node is started for when it builds nothing: what a process
// outside may not do with files of ids that only a node has.
type task struct {
	Measure []string // paths below the store
	Remove  []store.Removal
	Spare   string // a session that holds nothing
}

func (x *Executor) runTask(ctx context.Context, t task) (coreResult, error) {
	iso, err := x.isolation()
	if err != nil {
		return coreResult{}, err
	}
	n := &Node{Request: Request{ID: "store"}, program: &dockerfile.Program{}, sources: &sources{x: x}}
	n.job.Task = t
	return x.runNode(ctx, n, iso)
}

// task does what a node without stages is for, and sweeps.
func (c *core) task(ctx context.Context) (coreResult, error) {
	t := c.job.Task
	out := coreResult{Sizes: map[string]int64{}}
	for _, path := range t.Measure {
		n, err := c.store.Measure(ctx, path)
		if err != nil {
			return out, fmt.Errorf("measure %s: %w", path, err)
		}
		out.Sizes[path] = n
	}
	if len(t.Remove) > 0 {
		trash, err := c.store.Trash(t.Spare)
		if err != nil {
			return out, err
		}
		for _, r := range t.Remove {
			var ok bool
			if ok, err = trash.Take(r); err != nil {
				break
			}
			if ok {
				out.Removed = append(out.Removed, r.Path)
			}
		}
		trash.Close()
		if err != nil {
			return out, err
		}
	}
	if len(t.Measure) > 0 {
		return out, nil
	}
	return out, c.sweep(ctx)
}

// sweep removes what killed processes left in the store. What belongs to ids
// that only a node has is left to a node without any other work.
func (x *Executor) sweep(ctx context.Context) error {
	_, left, err := x.store.Sweep(ctx, nil)
	if err != nil {
		return err
	}
	iso, err := x.isolation()
	if err != nil {
		return nil //nolint:nilerr // nothing can be built here; whoever tries is told
	}
	if iso.Afar {
		return nil // no node sees this store
	}
	layers := rootfs.Layers{Dir: filepath.Dir(x.store.LayerDir(iso.IDs.String(), "x"))}
	if err := layers.Sweep(ctx); err != nil || len(left) > 0 {
		_, err := x.runTask(ctx, task{})
		return err
	}
	return nil
}
