package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"kaniko-build/cmd/kaniko-build/internal/changes"
	"kaniko-build/executor"
	"kaniko-build/graph"
	"kaniko-build/plan"
	"kaniko-build/schema"
	"kaniko-build/schema/diag"
)

// affectedFlag takes only those targets that a change since a revision affects.
type affectedFlag struct{ since string }

// byThemselves is the value of --affected without one.
const byThemselves = "auto"

func (f *affectedFlag) add(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.since, "affected", "", "only what changed files affect, BASE or BASE..HEAD; without a value since what the CI's variables, or affected.base of the manifest, say. Without HEAD the work tree counts, with files that git does not know")
	fl.Lookup("affected").NoOptDefVal = byThemselves
}

// narrowed is a plan of those targets of p that are affected, with each node's
// cause in it; p itself where nothing narrows it.
func (f *affectedFlag) narrowed(c *cobra.Command, t terminal, look *lookFlags, w *workspace, p *plan.Plan) (*plan.Plan, error) {
	if f.since == "" {
		return p, nil
	}
	causes, err := f.causes(c, t, look, w, p)
	if err != nil {
		return nil, err
	}
	if causes == nil {
		return p, nil
	}
	var names []string
	for _, n := range p.Nodes {
		if _, ok := causes[n.ID]; ok && n.Selected && !slices.Contains(names, n.Target.Name) {
			names = append(names, n.Target.Name)
		}
	}
	if len(names) == 0 {
		fmt.Fprintln(t.err, "nothing is affected")
		return plan.None(), nil
	}
	out, err := w.plan(names)
	if err != nil {
		return nil, err
	}
	return out.Because(causes), nil
}

// causes is which nodes of p are affected and why; nil, after a warning, where all
// of them count so.
func (f *affectedFlag) causes(c *cobra.Command, t terminal, look *lookFlags, w *workspace, p *plan.Plan) (map[graph.ID]plan.Cause, error) {
	a := &affected{w: w, p: p, direct: map[graph.ID]plan.Cause{}}
	err := a.find(c, t, f.since, look)
	var all *everything
	if errors.As(err, &all) && (!w.manifest.Affected.Strict || all.asked) {
		fmt.Fprintf(t.err, "warning: everything counts as affected: %v\n", all)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return p.Affected(a.direct), nil
}

// everything is why all targets count as affected.
type everything struct {
	err   error
	asked bool // by the manifest: it is no failure to find out
}

func (e *everything) Error() string { return e.err.Error() }
func (e *everything) Unwrap() error { return e.err }

// affected finds which nodes changes are about.
type affected struct {
	w      *workspace
	p      *plan.Plan
	direct map[graph.ID]plan.Cause
}

func (a *affected) find(c *cobra.Command, t terminal, since string, look *lookFlags) error {
	ctx := c.Context()
	r, ok := changes.ParseRange(since), true
	if since == byThemselves {
		if r, ok = changes.Base(os.Getenv); !ok && a.w.manifest.Affected.Base != "" {
			r, ok = changes.Range{Base: a.w.manifest.Affected.Base, From: "affected.base"}, true
		}
	}
	if !ok {
		return &everything{err: &diag.Problem{What: "nothing says what to compare with", Hint: "write --affected=BASE, or affected: {base: origin/main}"}}
	}
	set, err := changes.Since(ctx, a.w.root, r)
	if errors.Is(err, changes.ErrHistory) {
		return &everything{err: fmt.Errorf("%s says %s: %w", r.From, r.Base, err)}
	}
	if err != nil {
		return err
	}
	if len(set.Files) == 0 {
		return nil
	}
	root, err := filepath.EvalSymlinks(a.w.root)
	if err != nil {
		return err
	}
	for _, g := range a.w.manifest.Affected.Global {
		match := schema.Glob(g.Name)
		for _, file := range set.Files {
			if rel, err := filepath.Rel(root, file); err == nil && match(filepath.ToSlash(rel)) {
				return &everything{asked: true, err: fmt.Errorf("%s changed, and %s names it (%s)", rel, g.Name, g.Pos)}
			}
		}
	}
	if err := a.redefined(ctx, look, set); err != nil {
		return err
	}
	return a.read(c, t, look, set, root)
}

// redefined finds targets that the manifest says something else of than before.
func (a *affected) redefined(ctx context.Context, look *lookFlags, set *changes.Set) error {
	tree, err := set.At(ctx, a.w.root)
	if err != nil {
		return err
	}
	before, err := look.parse(ctx, tree)
	if err != nil {
		return &everything{err: fmt.Errorf("the manifest at %.12s cannot be compared: %w", set.Base, err)}
	}
	for _, n := range a.p.Nodes {
		if what := plan.Redefined(before.Target(n.Target.Name), n.Target); what != "" {
			a.direct[n.ID] = plan.Cause{Text: what, Pos: n.Target.Pos}
		}
	}
	return nil
}

// read finds targets that read a file that changed.
func (a *affected) read(c *cobra.Command, t terminal, look *lookFlags, set *changes.Set, root string) error {
	ctx := c.Context()
	about := func(file string) string {
		if rel, err := filepath.Rel(root, file); err == nil {
			return filepath.ToSlash(rel)
		}
		return file
	}
	for _, n := range a.p.Nodes {
		if _, ok := a.direct[n.ID]; ok || n.Index != nil {
			continue
		}
		own := ownFiles(n.Target)
		for _, file := range set.Files {
			if what := own(about(file)); what != "" {
				a.direct[n.ID] = plan.Cause{Text: about(file) + " changed (" + what + ")", Pos: n.Target.Pos}
				break
			}
		}
	}
	caches := func([]executor.Request) error { return nil }
	return look.inspected(ctx, t, a.w, a.p, caches, func(x *executor.Executor, nodes []*executor.Node) error {
		places := a.w.places()
		for _, node := range nodes {
			id := graph.ID(node.ID)
			if _, ok := a.direct[id]; ok {
				continue
			}
			reads, err := x.Reads(ctx, node)
			if err != nil {
				return places.err(err)
			}
			ignore := func(string) bool { return false }
			for _, p := range a.p.Node(id).Target.Inputs.Ignore {
				rest, match := ignore, schema.Glob(p.Name)
				ignore = func(name string) bool { return match(name) || rest(name) }
			}
			for _, file := range set.Files {
				if use, ok := reads.Of(file); ok && !ignore(about(file)) {
					a.direct[id] = plan.Cause{Text: about(file) + " changed (" + oneLine(use.Text) + ")", Pos: places.pos(use.Pos)}
					break
				}
			}
		}
		return nil
	})
}

// ownFiles tells what of a target's own files a path of the workspace is: its
// Dockerfile, an ignore file, or one of its extra inputs.
func ownFiles(t *schema.Target) func(rel string) string {
	files := map[string]string{}
	if t.Inline == nil {
		files[path.Clean(t.Dockerfile)] = "its Dockerfile"
		files[path.Clean(t.Dockerfile)+".dockerignore"] = "its ignore file"
	}
	files[path.Join(t.Context, ".dockerignore")] = "its ignore file"
	return func(rel string) string {
		if what := files[rel]; what != "" {
			return what
		}
		for _, p := range t.Inputs.Extra {
			if schema.Glob(p.Name)(rel) {
				return "inputs.extra " + p.Name
			}
		}
		return ""
	}
}
