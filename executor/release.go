package executor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"kaniko-build/executor/internal/image"
	"kaniko-build/executor/internal/store"
	"kaniko-build/schema/diag"
)

// TagRule says what becomes of a tag that stands for another image already.
type TagRule string

// The rules; "" is TagOverwrite.
const (
	TagOverwrite TagRule = "overwrite" // it moves
	TagSkip      TagRule = "skip"      // it stays
	TagFail      TagRule = "fail"      // nothing is released
)

// tagsAtOnce is how many tags are asked for, or put, side by side.
const tagsAtOnce = 8

// endWithin is how long the tags that are being put when a build is cancelled have
// to arrive.
const endWithin = 5 * time.Second

// undoWithin is how long tags are put back after a failure, or after the user
// wanted the build to end.
const undoWithin = 30 * time.Second

// Released says what a release did to the tags.
type Released struct {
	Moved []string // stand for another image than before, or are new
	Kept  []string // exist, and were left alone by TagSkip
	// Notes are sentences about releases that were interrupted before and moved
	// tags that are none of this one's.
	Notes []string
}

// ReleaseError is a release that did not come about.
type ReleaseError struct {
	Err     error    // why
	Undone  []string // tags that had moved and are as they were
	Changed []string // tags that had moved and could not be put back, each with why
}

func (e *ReleaseError) Error() string {
	var b strings.Builder
	b.WriteString(e.Err.Error())
	if len(e.Undone) > 0 {
		fmt.Fprintf(&b, "\n  put back as they were: %s", strings.Join(e.Undone, ", "))
	}
	for _, c := range e.Changed {
		fmt.Fprintf(&b, "\n  moved, and could not be put back: %s", c)
	}
	return b.String()
}

func (e *ReleaseError) Unwrap() error { return e.Err }

// Release makes the names of nodes and indexes stand for their images, which were pushed,
// all or none as far as a registry can: it finds out what each tag stands for,
// checks that the manifests are there, writes both down, and moves the tags last.
// When one cannot be moved the others go back, and new ones are deleted where
// the registry allows that; the *ReleaseError says what could not.
//
// A release that was killed is continued by the next one of the same names: what
// it moved counts as moved by this one, and goes back to what was there before
// both if this one fails. rule is asked for each name; nil overwrites. Parents
// come before their children.
func (x *Executor) Release(ctx context.Context, images []Published, rule func(name string) TagRule) (Released, error) {
	broken, err := x.store.BrokenReleases()
	if err != nil {
		return Released{}, err
	}
	r := &release{x: x, rule: rule}
	if err := r.find(ctx, images, broken); err != nil {
		return Released{}, err
	}
	if err := r.verify(ctx); err != nil {
		return r.done, err
	}
	end := func(bool, []store.Move) error { return nil }
	if len(r.moves) > 0 {
		if end, err = x.store.BeginRelease(r.journal()); err != nil {
			return r.done, err
		}
	}
	for _, b := range broken { // the new journal has what matters of them, and the rest is told
		if err := x.store.EndRelease(b.ID); err != nil {
			return r.done, errors.Join(err, end(false, r.journal()))
		}
	}
	err = r.move(ctx)
	if err == nil {
		for _, m := range r.moves {
			if !m.before {
				r.done.Moved = append(r.done.Moved, m.Name)
			}
		}
		return r.done, end(true, nil)
	}
	failed := &ReleaseError{Err: err}
	left := r.undo(ctx, failed)
	return r.done, errors.Join(failed, end(len(left) == 0, left))
}

// release is one release under way.
type release struct {
	x     *Executor
	rule  func(name string) TagRule
	moves []*tagMove
	done  Released
}

// tagMove is a tag that is to stand for another image.
type tagMove struct {
	store.Move
	now      digest.Digest // what it stands for at the start; not Prior if an interrupted release moved it
	manifest ocispec.Descriptor
	before   bool        // to Next
	tried    atomic.Bool // it may have moved
}

// find asks what the names of images stand for now, and which of them are to move.
// What interrupted releases did to them counts as done by this one: they are as
// they were before those.
func (r *release) find(ctx context.Context, images []Published, broken []store.Release) error {
	was := map[string]store.Move{}
	for _, b := range broken {
		for _, m := range b.Moves {
			was[m.Name] = m
		}
	}
	var all []*tagMove
	for _, i := range images {
		res, err := i.published(ctx, r.x)
		if err != nil {
			return err
		}
		for _, name := range res.Names {
			all = append(all, &tagMove{Move: store.Move{Name: name, Next: res.Manifest.Digest}, manifest: res.Manifest})
		}
	}
	err := each(ctx, all, func(m *tagMove) (err error) {
		m.now, err = r.x.registry.TagDigest(ctx, m.Name, m.Next)
		return err
	})
	if err != nil {
		return err
	}
	var exist diag.List
	for _, m := range all {
		m.Prior = m.now
		if j, ok := was[m.Name]; ok && j.Next == m.now {
			m.Prior = j.Prior
			m.before = m.now == m.Next
			m.tried.Store(true)
		}
		delete(was, m.Name)
		switch rule := r.ruleOf(m); {
		case m.now == m.Next && !m.before:
		case m.Prior == "", m.before, rule == TagOverwrite, rule == "":
			r.moves = append(r.moves, m)
		case rule == TagSkip:
			r.done.Kept = append(r.done.Kept, m.Name)
		default:
			exist.Add(diag.Pos{}, "choose another tag, or let onTagExists be skip or overwrite; no tag was moved",
				"the tag %s exists and stands for %s, not for %s", m.Name, m.Prior, m.Next)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(was)) {
		r.done.Notes = append(r.done.Notes, fmt.Sprintf("a release that was interrupted may have moved %s from %s to %s", name, orNothing(was[name].Prior), was[name].Next))
	}
	return exist.Err()
}

func (r *release) ruleOf(m *tagMove) TagRule {
	if r.rule == nil {
		return TagOverwrite
	}
	return r.rule(m.Name)
}

func (r *release) journal() []store.Move {
	out := make([]store.Move, len(r.moves))
	for i, m := range r.moves {
		out[i] = m.Move
	}
	return out
}

// verify asks the registries whether they have what the tags are to stand for.
func (r *release) verify(ctx context.Context) error {
	return each(ctx, r.moves, func(m *tagMove) error {
		if m.before {
			return nil
		}
		return r.x.registry.HasManifest(ctx, m.Name, m.Next)
	})
}

// move puts the tags; after the first that fails no other is begun. One that is
// under way when the build is cancelled has a while to end: a request that is
// given up may still be carried out, after the tag was put back.
func (r *release) move(ctx context.Context) error {
	begun, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() {
		t := time.NewTimer(endWithin)
		defer t.Stop()
		select {
		case <-t.C:
			cancel(context.Cause(ctx))
		case <-begun.Done(): // all have ended
		}
	})()
	return each(ctx, r.moves, func(m *tagMove) error {
		if m.before {
			return nil
		}
		raw, err := image.Read(begun, image.FromStore(r.x.store), m.manifest, image.MaxManifest)
		if err != nil {
			return err
		}
		m.tried.Store(true)
		return r.x.registry.SetTag(begun, m.Name, m.manifest, raw)
	})
}

// undo makes tags that moved stand for what they stood for. It goes on when the
// build is cancelled, for a while. left are those that it could not.
func (r *release) undo(ctx context.Context, failed *ReleaseError) (left []store.Move) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoWithin)
	defer cancel()
	for _, m := range r.moves {
		if !m.tried.Load() {
			continue
		}
		changed, err := r.putBack(ctx, m)
		switch {
		case err != nil:
			left = append(left, m.Move)
			failed.Changed = append(failed.Changed, fmt.Sprintf("%s, from %s to %s: %v", m.Name, orNothing(m.Prior), m.Next, err))
		case changed:
			failed.Undone = append(failed.Undone, m.Name)
		}
	}
	return left
}

// putBack makes one tag stand for what it stood for, unless another has moved it
// meanwhile, or it never moved.
func (r *release) putBack(ctx context.Context, m *tagMove) (changed bool, err error) {
	now, err := r.x.registry.TagDigest(ctx, m.Name, m.Next)
	if err != nil || now == m.Prior || now != m.Next && now != m.now {
		return false, err
	}
	if m.Prior == "" {
		return true, r.x.registry.DeleteTag(ctx, m.Name)
	}
	return true, r.x.registry.MoveTag(ctx, m.Name, m.Prior)
}

func orNothing(d digest.Digest) string {
	if d == "" {
		return "nothing"
	}
	return d.String()
}

// Published is an image that was pushed: a Node or an Index.
type Published interface {
	published(context.Context, *Executor) (*Result, error)
}

// published is the result of a node whose image its repositories have: one that
// was built again after its push, for another that stands on it, is pushed anew.
func (n *Node) published(ctx context.Context, x *Executor) (*Result, error) {
	r := n.Result()
	if r == nil {
		return nil, fmt.Errorf("internal error: %s is not built", n.ID)
	}
	pushed := n.wasPushed()
	if pushed != "" && pushed != r.Manifest.Digest {
		if err := x.Push(ctx, n); err != nil {
			return nil, err
		}
		r = n.Result()
	}
	if n.Nameless {
		nameless := *r
		nameless.Names = nil
		return &nameless, nil
	}
	return r, nil
}

// each calls f for all, some side by side. After the first that fails, or when
// ctx ends, no other is begun, and those under way are waited for.
func each[T any](ctx context.Context, all []T, f func(T) error) error {
	g, begin := errgroup.WithContext(ctx)
	g.SetLimit(tagsAtOnce)
	for _, v := range all {
		g.Go(func() error {
			if begin.Err() != nil {
				return context.Cause(begin)
			}
			return f(v)
		})
	}
	return g.Wait()
}
