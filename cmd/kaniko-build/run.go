package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"kaniko-build/cmd/kaniko-build/internal/files"
	"kaniko-build/cmd/kaniko-build/internal/progress"
	"kaniko-build/executor"
	"kaniko-build/graph"
	"kaniko-build/plan"
	"kaniko-build/schema"
	"kaniko-build/schema/diag"
)

// run builds nodes and tells what became of them.
type run struct {
	x       *executor.Executor
	term    terminal
	flags   runFlags
	keep    bool                         // go on after a failure
	outputs map[string][]executor.Output // by node
	private map[string]bool              // nodes that are not pushed
	joins   joins                        // nodes that are indexes
	places  places
	view    progress.View
	groups  map[string]string // of nodes, for pictures
	quiet   bool              // print no table: standard output holds an image
	plan    *plan.Plan        // nil without a manifest
	hooks   *hooks            // nil without a manifest
	inputs  inputs
	idle    map[string]bool            // nodes that are skipped, as they are unchanged
	found   map[string]*executor.Found // of idle nodes, what the registry has
	spare   map[string]bool            // idle nodes that are only there for others, which are idle too
	lines   map[string]string          // by node, what is remembered of its inputs when it is built
	unready map[string]error           // nodes whose hooks before the build failed, and those of broken
	broken  map[string]error           // nodes with mistakes, and what stands on them
	digests string                     // directory for a file with the digest of each image; "" writes none

	// What only watch sets: the nodes that this run is about, of those that are known,
	// nil for all; and why a node that ended with an error was given up, "" if it failed.
	only  map[string]bool
	given func(ctx context.Context, node string) string

	verifyAsked *verifyAsked // nil does not verify
	order       []string     // nodes, parents first

	mu      sync.Mutex
	nodes   map[string]*executor.Node
	indexes map[string]*executor.Index
	results map[string]executor.Result
	errs    map[string]error
	// unpushed are nodes of errs that were made, and that no registry took.
	unpushed map[string]bool

	durations map[string]*durations
}

// all builds every request, parents first, and returns the results of those
// that succeeded. g orders them; nil is a single node.
func (r *run) all(ctx context.Context, requests []executor.Request, g *graph.Graph) (map[string]executor.Result, error) {
	started := time.Now()
	r.durations = map[string]*durations{}
	r.nodes, r.results, r.errs, r.unpushed = map[string]*executor.Node{}, map[string]executor.Result{}, map[string]error{}, map[string]bool{}
	var err error
	if r.verifyAsked, err = parseVerify(r.flags.verify); err != nil {
		return nil, err
	}
	if err := r.flags.release.check(); err != nil {
		return nil, err
	}
	for i := range requests {
		requests[i].Ahead = r.flags.push && !r.private[requests[i].ID]
	}
	nodes, err := r.inspect(ctx, requests)
	if err != nil {
		return nil, errors.Join(r.places.err(err), r.view.Close())
	}
	var ids []graph.ID
	for _, n := range nodes {
		ids = append(ids, graph.ID(n.ID))
		r.order = append(r.order, n.ID)
		r.nodes[n.ID] = n
	}
	r.indexes = r.joins.of(r.nodes)
	if err := r.known(ctx); err != nil {
		return nil, errors.Join(err, r.view.Close())
	}
	if g == nil {
		if g, err = graph.New(ids, nil); err != nil {
			return nil, err
		}
	}
	r.begin(g)
	out := g.Walk(ctx, r.schedule(g), r.node)
	r.skipped(out)
	var unsteady error
	var verified strings.Builder // printed when the view has given the terminal back
	if r.verifyAsked != nil && out.Err() == nil {
		r.tell(progress.Verifying, "", "")
		err = r.verify(ctx, &verified)
		var v *verifyError
		if errors.As(err, &v) && v.wrong == 0 { // no reason to hold a release back
			unsteady, err = err, nil
		}
	}
	if err == nil && out.Err() == nil && r.flags.push && r.flags.release.publish == together {
		r.tell(progress.Tagging, "", "")
		var all []made
		for _, id := range g.Order() {
			all = append(all, r.made(string(id)))
		}
		err = r.release(ctx, all...)
	}
	if err == nil && (out.Err() == nil || !r.flags.push || r.flags.release.publish == oneByOne) { // else no tag was put
		err = r.remember()
	}
	err = errors.Join(err, r.end(ctx, errors.Join(err, out.Err()), time.Since(started)))
	fmt.Fprint(r.term.err, verified.String())
	if err == nil {
		err = unsteady
	}
	if r.flags.metadata != "" {
		err = errors.Join(err, r.writeMetadata(out))
	}
	if r.digests != "" {
		err = errors.Join(err, r.writeDigests())
	}
	if r.flags.progress == "json" {
		return r.results, errors.Join(err, r.failure(ctx, out))
	}
	if !r.quiet && len(r.results) > 0 {
		err = errors.Join(err, r.table(r.term.out, out, time.Since(started)))
	}
	for _, why := range []string{unchangedText, publishedText, spareText} {
		if n := r.idles()[why]; n > 0 && !r.quiet {
			_, told := fmt.Fprintf(r.term.out, "%d skipped: %s\n", n, why)
			err = errors.Join(err, told)
		}
	}
	return r.results, errors.Join(err, r.failure(ctx, out))
}

// inspect looks at the nodes. To keep going is to leave those with mistakes, which then
// fail as soon as it is their turn, and take what stands on them along.
func (r *run) inspect(ctx context.Context, requests []executor.Request) ([]*executor.Node, error) {
	if !r.keep {
		return r.x.Inspect(ctx, requests)
	}
	nodes, broken, err := r.x.InspectEach(ctx, requests)
	r.broken = broken
	for id, err := range broken {
		if r.unready == nil {
			r.unready = map[string]error{}
		}
		if r.unready[id] == nil {
			r.unready[id] = r.places.err(err)
		}
	}
	return nodes, err
}

// begin tells of the run and its nodes.
func (r *run) begin(g *graph.Graph) {
	e := progress.Event{Event: executor.Event{Kind: progress.RunStarted, Time: time.Now()}, Jobs: r.x.Jobs()}
	for _, id := range g.Order() {
		n := progress.Node{ID: string(id), Group: r.groups[string(id)]}
		if node := r.nodes[string(id)]; node != nil {
			n.Steps = node.Steps()
		}
		for _, p := range g.Needs(id) {
			n.Needs = append(n.Needs, string(p))
		}
		e.Nodes = append(e.Nodes, n)
	}
	r.view.Event(e)
}

// skipped tells of the nodes that were never built.
func (r *run) skipped(out graph.Outcome) {
	for _, o := range out {
		switch o.State {
		case graph.Skipped:
			r.tell(progress.NodeSkipped, string(o.ID), "needs "+string(o.Cause))
		case graph.NotStarted:
			r.tell(progress.NodeSkipped, string(o.ID), "not started")
		}
	}
}

// end tells how the run went, and closes the view: the terminal is ours again.
func (r *run) end(ctx context.Context, err error, took time.Duration) error {
	e := progress.Event{Event: executor.Event{Kind: progress.RunDone, Time: time.Now(), Text: "done", Elapsed: took}}
	switch {
	case errors.Is(context.Cause(ctx), errInterrupted):
		e.Text = "interrupted"
	case err != nil:
		e.Text = "failed"
	}
	r.view.Event(e)
	return r.view.Close()
}

// node makes the image of one node of the graph, exports it and pushes what it
// consists of.
func (r *run) node(ctx context.Context, id graph.ID) (err error) {
	m, started := r.made(string(id)), time.Now()
	if r.idle[m.id] {
		return r.unchanged(ctx, m)
	}
	r.tell(progress.NodeStarted, m.id, "")
	defer func() {
		r.lap(m.id, func(d *durations) *float64 { return &d.Total }, started)
		if err != nil && r.given != nil {
			if why := r.given(ctx, m.id); why != "" {
				r.tell(progress.NodeSkipped, m.id, why)
				return
			}
		}
		r.ended(m, err, time.Since(started))
	}()
	if err = r.unready[m.id]; err != nil {
		return r.lost(m.id, err)
	}
	ctx, cancel := r.limit(ctx, id)
	defer cancel()
	res, err := m.build(ctx)
	r.lap(m.id, func(d *durations) *float64 { return &d.Build }, started)
	if writing := time.Now(); err == nil && len(r.outputs[m.id]) > 0 {
		for _, o := range r.outputs[m.id] {
			r.tell(progress.NodeWriting, m.id, o.Dest)
			var notes []string
			if notes, err = m.export(ctx, o); err != nil {
				err = &outputError{o.Dest, err}
				break
			}
			for _, note := range notes {
				r.tell(progress.Note, m.id, note)
			}
		}
		r.lap(m.id, func(d *durations) *float64 { return &d.Write }, writing)
	}
	if pushing := time.Now(); err == nil && r.flags.push && !r.private[m.id] {
		if len(m.names) > 0 {
			r.tell(progress.NodePushing, m.id, m.names[0])
		}
		if err = m.push(ctx); err != nil {
			r.mu.Lock()
			r.unpushed[m.id] = true
			r.mu.Unlock()
		}
		if err == nil && r.flags.release.publish == oneByOne {
			err = r.release(ctx, m)
		}
		r.lap(m.id, func(d *durations) *float64 { return &d.Push }, pushing)
	}
	if err = r.timedOut(ctx, id, r.places.err(err)); r.hooks != nil && len(r.plan.Node(id).Target.After) > 0 {
		hooking := time.Now()
		err = errors.Join(err, r.hooks.after(context.WithoutCancel(ctx), r.plan.Node(id), r.hookResult(r.plan.Node(id), res, err)))
		r.lap(m.id, func(d *durations) *float64 { return &d.Hooks }, hooking)
	}
	if err != nil {
		return r.lost(m.id, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := m.image.Result(); now.Manifest.Digest != res.Manifest.Digest {
		res = *now // a layer of a cache could not be had, and was made anew
	}
	r.results[m.id] = res
	return nil
}

// lost keeps the error of a node.
func (r *run) lost(id string, err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errs[id] = err
	return err
}

// hookResult is what hooks are told of a node. Its ref is by digest where its tags are
// not there yet, or never will be.
func (r *run) hookResult(n *plan.Node, res executor.Result, err error) hookResult {
	input := r.inputs.digests[string(n.ID)]
	if err != nil {
		return hookResult{status: string(schema.OnFailure), input: input}
	}
	out := hookResult{status: string(schema.OnSuccess), digest: res.Manifest.Digest.String(), input: input}
	if names := n.Target.RefNames(); len(names) > 0 {
		out.ref = names[0]
		if ref, ok := schema.ParseRef(out.ref); ok && (n.Joined || r.flags.push && !r.private[string(n.ID)]) {
			out.ref = ref.Repository + "@" + out.digest
		}
	}
	return out
}

// outputError is an image that was made, and could not be written to dest.
type outputError struct {
	dest string
	err  error
}

func (e *outputError) Error() string {
	text := e.err.Error()
	if strings.Contains(text, e.dest) {
		return text
	}
	return "write " + e.dest + ": " + text
}

func (e *outputError) Unwrap() error { return e.err }

// timeoutError is a node that took longer than its timeout.
type timeoutError struct {
	limit time.Duration
	err   error
}

func (e *timeoutError) Error() string {
	return fmt.Sprintf("it took longer than its timeout, %s: %v", e.limit, e.err)
}

// limit gives a node the time that its target may take.
func (r *run) limit(ctx context.Context, id graph.ID) (context.Context, func()) {
	if r.plan == nil || r.plan.Node(id).Target.Timeout == 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, r.plan.Node(id).Target.Timeout)
}

// timedOut says of an error that it is the timeout's doing.
func (r *run) timedOut(ctx context.Context, id graph.ID, err error) error {
	if err == nil || !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return err
	}
	return &timeoutError{r.plan.Node(id).Target.Timeout, err}
}

// ended tells what became of a node.
func (r *run) ended(m made, err error, took time.Duration) {
	e := progress.Event{Event: executor.Event{Node: m.id, Kind: progress.NodeDone, Time: time.Now(), Elapsed: took}}
	if err != nil {
		e.Kind, e.Text = progress.NodeFailed, err.Error()
		var step *executor.StepError
		var problem *diag.Problem
		var hook *hookError
		switch {
		case errors.As(err, &step):
			e.Pos = step.Pos
		case errors.As(err, &hook):
			e.Pos = hook.problem.Pos
		case errors.As(err, &problem):
			e.Pos = problem.Pos
		}
		r.view.Event(e)
		return
	}
	r.mu.Lock()
	res := r.results[m.id]
	r.mu.Unlock()
	e.Image = &progress.Image{Digest: res.Manifest.Digest.String(), Names: res.Names, Size: res.Size, Steps: res.Steps, Executed: res.Executed, Cached: res.Cached}
	if n := r.nodes[m.id]; n != nil {
		for _, l := range n.Layers() {
			e.Image.Layers = append(e.Image.Layers, progress.Layer{Digest: l.Digest.String(), Size: l.Size, Text: l.Text})
		}
	}
	r.view.Event(e)
}

// failure repeats what failed, where, and its last output; nodes that were only
// skipped are a number.
func (r *run) failure(ctx context.Context, out graph.Outcome) error {
	err := out.Err()
	if err == nil {
		return nil
	}
	if errors.Is(context.Cause(ctx), errInterrupted) {
		return errInterrupted
	}
	failed := out.Of(graph.Failed)
	alike := map[string][]string{} // nodes, by what they failed for: platforms of a target have their Dockerfile's mistakes in common
	for _, f := range failed {
		alike[f.Err.Error()] = append(alike[f.Err.Error()], string(f.ID))
	}
	for _, f := range failed {
		var step *executor.StepError
		if errors.As(f.Err, &step) {
			fmt.Fprintf(r.term.err, "\n%s failed at %s\n  %s\n", f.ID, step.Pos, oneLine(step.Text))
			for _, l := range step.Tail {
				fmt.Fprintf(r.term.err, "  | %s\n", printable(l))
			}
			fmt.Fprintf(r.term.err, "  %s\n", strings.ReplaceAll(printableLines(step.Err.Error()), "\n", "\n  "))
			continue
		}
		text := f.Err.Error()
		if ids := alike[text]; len(ids) > 0 {
			fmt.Fprintf(r.term.err, "\n%s failed: %s\n", strings.Join(ids, " and "), printableLines(text))
			delete(alike, text)
		}
	}
	if n := len(out.Of(graph.Skipped)); n > 0 {
		fmt.Fprintf(r.term.err, "%d skipped, as they need what failed\n", n)
	}
	if n := len(out.Of(graph.NotStarted)); n > 0 {
		fmt.Fprintf(r.term.err, "%d not started; --keep-going builds what does not depend on a failure\n", n)
	}
	if slices.ContainsFunc(failed, func(f graph.Result) bool {
		var output *outputError // where that was to go is told
		return strings.Contains(f.Err.Error(), unix.ENOSPC.Error()) && !errors.As(f.Err, &output)
	}) {
		if state, dirErr := stateDir(); dirErr == nil {
			fmt.Fprintf(r.term.err, "  hint: the store is in %s: make room there with kaniko-build prune, or set KANIKO_BUILD_STATE to a larger disk\n", state)
		}
	}
	return reported{failedWork{err}}
}

// counted is a number of things: "1 image", "2 images".
func counted(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// table shows the images and what can be done with them.
func (r *run) table(to io.Writer, out graph.Outcome, took time.Duration) (err error) {
	w := bufio.NewWriter(to) // a table is written cell by cell
	defer func() { err = errors.Join(err, w.Flush()) }()
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "IMAGE\tDIGEST\tSIZE\tTIME\tHOW")
	var first *executor.Result
	built := 0
	for _, o := range out {
		res, ok := r.results[string(o.ID)]
		if !ok {
			continue
		}
		how := "cached"
		if !res.Cached {
			if how = "built"; res.Steps > 0 {
				how = fmt.Sprintf("built, %d of %d steps", res.Executed, res.Steps)
			}
			built++
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", o.ID, res.Manifest.Digest, size(res.Size), seconds(res.Duration), how)
		first = &res
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\n%s in %s, %d built\n", counted(len(r.results), "image"), seconds(took), built)
	if first == nil || len(first.Names) == 0 || r.flags.push || built == 0 { // who built nothing has read it before
		return nil
	}
	name := first.Names[0]
	push := "push " + name
	if r.plan != nil { // which knows the registries
		push = "apply " + r.plan.Node(graph.ID(first.Node)).Target.Name + " --push"
	}
	_, err = fmt.Fprintf(w, `
They lie in the store; kaniko-build images lists them. To use %[1]s:
  run      kaniko-build unpack %[1]s rootfs && sudo chroot rootfs
  load     kaniko-build load %[1]s
  push     kaniko-build %[2]s
`, name, push)
	return err
}

// writeDigests writes a file with the digest of each image that is there, as kaniko's
// digest files are, by the slug of its node.
func (r *run) writeDigests() error {
	for id, res := range r.results {
		err := files.Whole(filepath.Join(r.digests, schema.Slug(id)), func(w io.Writer) error {
			_, err := io.WriteString(w, res.Manifest.Digest.String())
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
