package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"kaniko-build/cmd/kaniko-build/internal/dropin"
	"kaniko-build/cmd/kaniko-build/internal/progress"
	"kaniko-build/executor"
	"kaniko-build/graph"
	"kaniko-build/plan"
	"kaniko-build/schema"
	"kaniko-build/schema/diag"
)

type applyFlags struct {
	manifestFlags
	runFlags
	keepGoing bool
	dryRun    bool
	outputs   []string
	affected  affectedFlag
}

func newApply(t terminal) *cobra.Command {
	f := &applyFlags{}
	c := &cobra.Command{
		Use:   "apply [flags] [URL#COMMIT:DIR] [TARGET...]",
		Short: "Build the images of the manifest",
		Long: `Build the images of the manifest and what they need, in order and in parallel.

A target is a name, a glob, @group, or !name to leave one out; x... adds what x
needs to what is exported, ...x its dependents. Without one the group default is
built, or every target that is not internal. With the address of a git repository the
manifest is the one in its directory DIR at that commit; it sees and reaches nothing
outside of it unless --allow says so.

With --dry-run nothing is built, tagged, pushed or written, and no hook runs: it says
what would become of each image, and why. Registries and caches are asked as for
plan --explain, and what is skipped is found out as for a build. --progress json
writes that as one JSON object.`,
		Example: "  kaniko-build apply\n  kaniko-build apply api 'web-*' --push -j 4\n  kaniko-build apply --memory 8GiB\n  kaniko-build apply --push --dry-run",
		RunE:    func(c *cobra.Command, args []string) error { return f.run(c, t, args) },
	}
	f.manifestFlags.add(c)
	f.runFlags.add(c)
	f.affected.add(c)
	c.Flags().BoolVar(&f.keepGoing, "keep-going", false, "after a failure go on with what does not depend on it")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "say what would be built, tagged and pushed, and why; do nothing")
	c.Flags().Var(&f.memory, "memory", "what images that are built at once may need together, 8GB or 8GiB; one that needs more is built alone (default: what this machine has)")
	c.Flags().StringArrayVarP(&f.outputs, "output", "o", nil, "write the image of a single target, type=oci|docker|tar|local,dest=PATH")
	return c
}

func (f *applyFlags) run(c *cobra.Command, t terminal, selection []string) error {
	ctx := c.Context()
	selection = f.ofRepository(selection)
	w, err := f.read(ctx)
	if err != nil {
		return err
	}
	w.keepGoing = f.keepGoing || !c.Flags().Changed("keep-going") && w.manifest.Run.KeepGoing
	p, err := w.plan(selection)
	if err != nil {
		return err
	}
	look := &lookFlags{manifestFlags: f.manifestFlags, runFlags: f.runFlags}
	if p, err = f.affected.narrowed(c, t, look, w, p); err != nil {
		return err
	}
	if f.affected.since != "" && len(p.Nodes) == 0 {
		return nil
	}
	for _, warning := range p.Warnings {
		fmt.Fprintln(t.err, "warning:", printableLines(warning.Error()))
	}
	fmt.Fprint(t.err, ciHere().Problems("warning", p.Warnings))
	r, requests, err := f.prepare(c, t, w, p)
	if err != nil {
		return err
	}
	registries, err := w.registries()
	if err != nil {
		return err
	}
	limit, err := maxStore()
	if err != nil {
		return err
	}
	f.name = w.manifest.Name
	if f.dryRun {
		limit, r.view = 0, progress.Interleaved(t.err, ciHere())
	} else if r.view, err = f.show(ctx, t, w.root); err != nil {
		return err
	}
	r.flags.stopwatch = f.stopwatch
	if r.x, err = f.open(ctx, said(r.view), registries, r.places); err == nil {
		r.hooks.x, r.hooks.sink = r.x, func(e executor.Event) { r.view.Event(progress.Event{Event: e}) }
		if err = w.fetch(ctx, r.x, p, requests); err == nil && f.dryRun {
			return errors.Join(r.dryRun(ctx, requests), r.x.Close(ctx))
		}
		if err == nil {
			r.unready, err = r.hooks.before(ctx, p, f.keepGoing)
		}
		if err == nil {
			_, err = r.all(ctx, requests, p.Graph())
		}
		err = shut(ctx, r.x, limit, err)
	}
	return errors.Join(err, r.view.Close())
}

// prepare makes a run of a plan, and the requests of its nodes, parents first.
func (f *applyFlags) prepare(c *cobra.Command, t terminal, w *workspace, p *plan.Plan) (*run, []executor.Request, error) {
	if err := w.unbuilt(p); err != nil {
		return nil, nil, err
	}
	f.defaults(c, w)
	requests, err := w.requests(p)
	if err != nil {
		return nil, nil, err
	}
	if err := w.granted(p, requests); err != nil {
		return nil, nil, err
	}
	for i := range requests {
		requests[i].NoCache = requests[i].NoCache || f.noCache
		if err := f.attest.set(&requests[i].Attest); err != nil {
			return nil, nil, err
		}
	}
	if err := f.cache.set(c, w, p, requests); err != nil {
		return nil, nil, err
	}
	if err := f.whole(w, p, requests); err != nil {
		return nil, nil, err
	}
	if err := f.written(c.Context(), w.root, requests); err != nil {
		return nil, nil, err
	}
	r := &run{term: t, flags: f.runFlags, keep: f.keepGoing, private: map[string]bool{}, groups: map[string]string{}, outputs: map[string][]executor.Output{}}
	if r.outputs, err = f.outputsOf(w, p, t); err != nil {
		return nil, nil, err
	}
	if r.joins, err = w.joins(p, f.runFlags); err != nil {
		return nil, nil, err
	}
	for _, n := range p.Nodes {
		r.private[string(n.ID)] = n.Target.Internal || !n.Selected || slices.ContainsFunc(n.Target.Outputs, func(o schema.Output) bool { return o.Type == "none" })
		r.groups[string(n.ID)] = n.Group
		r.quiet = r.quiet || toStdout(r.outputs[string(n.ID)])
	}
	r.plan, r.hooks = p, &hooks{w: w, force: f.noCache}
	if dir := w.manifest.Run.DigestDir; dir != "" {
		r.digests = w.path(dir)
	}
	r.places = w.places()
	return r, requests, nil
}

// defaults takes from the manifest's run what no flag says.
func (f *applyFlags) defaults(c *cobra.Command, w *workspace) {
	run := w.manifest.Run
	set := func(name string) bool { return c.Flags().Changed(name) }
	if !set("push") {
		f.push = run.Push
	}
	if !set("publish") {
		f.release.publish = string(run.Publish)
	}
	if !set("jobs") {
		f.jobs = run.Jobs
	}
	if !set("runner") {
		f.runner = w.manifest.Runner.Type
	}
	f.cluster = cluster{w.manifest.Runner}
	if !set("keep-going") {
		f.keepGoing = run.KeepGoing
	}
	if !set("progress") {
		f.progress = run.Progress
	}
	f.release.hosts = map[string]string{}
	for _, reg := range w.manifest.Registries {
		f.release.hosts[reg.Host] = reg.Exists
	}
	if !set("metadata-file") && run.MetadataFile != "" {
		f.metadata = w.path(run.MetadataFile)
	}
}

// whole takes from targets what holds for the whole run, and sets what flags of
// kaniko say of one image.
func (f *applyFlags) whole(w *workspace, p *plan.Plan, requests []executor.Request) error {
	modes := []string{"time", "redo", "full"} // the last one misses least
	var first *plan.Node
	for i := range requests {
		n := p.Node(graph.ID(requests[i].ID))
		at := slices.Index(modes, n.Target.Executor.SnapshotMode)
		f.snapshotMode = append([]string{""}, modes...)[max(at, slices.Index(modes, f.snapshotMode))+1]
		var args []string
		pos := n.Target.Executor.Pos
		for _, a := range n.Target.Executor.ExtraArgs {
			args, pos = append(args, a.Name), a.Pos
		}
		extra, err := dropin.ParseExtra(args)
		if err != nil {
			return &diag.Problem{Pos: pos, What: fmt.Sprintf("target %q: extraArgs: %v", n.Target.Name, err)}
		}
		requests[i].Format.Single, f.retries = extra.Single, max(f.retries, extra.Retries)
		if first != nil && !slices.Equal(extra.IgnorePaths, f.ignorePaths) {
			return &diag.Problem{Pos: pos, What: fmt.Sprintf("targets %q and %q ignore different paths", first.Target.Name, n.Target.Name),
				Hint: "ignored paths hold for a whole run: write them into defaults"}
		}
		first, f.ignorePaths = n, extra.IgnorePaths
	}
	return nil
}

// outputsOf is the outputs of each node: those of its target, and -o for the one
// that was asked for.
func (f *applyFlags) outputsOf(w *workspace, p *plan.Plan, t terminal) (map[string][]executor.Output, error) {
	all := map[string][]executor.Output{}
	for _, n := range p.Nodes {
		for _, o := range n.Target.Outputs {
			if n.Selected && !n.Joined && o.Type != "registry" && o.Type != "none" {
				all[string(n.ID)] = append(all[string(n.ID)], executor.Output{Type: o.Type, Dest: w.path(o.Dest), Dir: o.Type == "oci" && !strings.HasSuffix(o.Dest, ".tar")})
			}
		}
	}
	outputs, err := parseOutputs(f.outputs, t.out)
	if err != nil || len(outputs) == 0 {
		return all, err
	}
	var one string
	for _, n := range p.Nodes {
		if n.Selected && !n.Joined {
			if one != "" {
				return nil, usageError{errors.New("-o writes one image, and several targets were selected\n  hint: name one target")}
			}
			one = string(n.ID)
		}
	}
	all[one] = append(all[one], outputs...)
	return all, nil
}

// registries is what the manifest says of registries, certificates read.
func (w *workspace) registries() ([]executor.Registry, error) {
	var out []executor.Registry
	for _, r := range w.manifest.Registries {
		e := executor.Registry{Host: r.Host, Mirrors: r.Mirrors, Insecure: r.Insecure, Strict: !r.Fallback, Retries: r.Retries}
		switch r.Retries {
		case 0:
			e.Retries = -1
		case -1:
			e.Retries = 0
		}
		for _, file := range []struct {
			key, name string
			to        *[]byte
		}{{"ca", r.CA, &e.CA}, {"clientCert", r.Cert, &e.Cert}, {"clientKey", r.Key, &e.Key}} {
			if file.name == "" {
				continue
			}
			name, err := w.secretPath(file.name)
			if err == nil {
				*file.to, err = os.ReadFile(name)
			}
			if err != nil {
				return nil, &diag.Problem{Pos: r.Pos, What: fmt.Sprintf("registry %q: %v", r.Host, err), Hint: file.key + ": is a PEM file"}
			}
		}
		out = append(out, e)
	}
	return out, nil
}

func (f *manifestFlags) plan(ctx context.Context, selection []string) (*plan.Plan, error) {
	w, err := f.read(ctx)
	if err != nil {
		return nil, err
	}
	return w.plan(selection)
}
