package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"kaniko-build/cmd/kaniko-build/internal/progress"
	"kaniko-build/executor"
	"kaniko-build/graph"
	"kaniko-build/plan"
	"kaniko-build/schema"
	"kaniko-build/schema/diag"
)

// inputs is the input digest of each node, 64 hex digits: what its image is made of
// and the extra inputs of its target; that of an index is made of its nodes'. Nodes
// that have none are in why, with the reason.
type inputs struct {
	digests map[string]string
	why     map[string]error
}

// inputs are those of inspected nodes.
func (w *workspace) inputs(p *plan.Plan, nodes map[string]*executor.Node) (inputs, error) {
	in := inputs{map[string]string{}, map[string]error{}}
	return in, w.moreInputs(in, p, p.Order, nodes)
}

// moreInputs adds those of some nodes of a plan, parents first, to others.
func (w *workspace) moreInputs(in inputs, p *plan.Plan, ids []graph.ID, nodes map[string]*executor.Node) error {
	for _, id := range ids { // nodes before their index
		n := p.Node(id)
		delete(in.why, string(id))
		var parts []string
		for _, part := range n.Index {
			if err := in.why[string(part)]; err != nil {
				in.why[string(id)] = err
			}
			parts = append(parts, in.digests[string(part)])
		}
		if node := nodes[string(id)]; node != nil {
			digest, err := node.InputDigest()
			if err != nil {
				in.why[string(id)] = err
			}
			parts = append(parts, digest)
		}
		if extra := n.Target.Inputs.Extra; len(extra) > 0 {
			var patterns []string
			for _, e := range extra {
				patterns = append(patterns, e.Name)
			}
			for _, e := range n.Target.Inputs.Ignore {
				patterns = append(patterns, "!"+e.Name)
			}
			sum, err := hashInputs(w.root, patterns)
			if err != nil {
				return &diag.Problem{Pos: extra[0].Pos, What: fmt.Sprintf("target %q: extra inputs: %v", n.Target.Name, err)}
			}
			parts = append(parts, "extra "+sum)
		}
		digest := parts[0]
		if len(parts) > 1 || len(n.Index) > 0 {
			sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
			digest = hex.EncodeToString(sum[:])
		}
		if in.why[string(id)] == nil {
			in.digests[string(id)] = digest
		}
	}
	return nil
}

// refs is the refs of a target that name its input digest, for one of its nodes.
func (in inputs) refs(n *plan.Node) ([]string, error) {
	var out []string
	for _, r := range n.Target.InputRefs {
		if why := in.why[string(n.ID)]; why != nil {
			return nil, &diag.Problem{Pos: r.Pos, What: fmt.Sprintf("target %q has no input digest: %v", n.Target.Name, why)}
		}
		name, err := schema.Expand(r.Text, map[string]string{"input.digest": in.digests[string(n.ID)]})
		if err != nil {
			return nil, &diag.Problem{Pos: r.Pos, What: err.Error()}
		}
		out = append(out, name)
	}
	return out, nil
}

// identities is the refs of a node that have the role identity.
func (in inputs) identities(n *plan.Node) ([]string, error) {
	var out []string
	for _, r := range n.Target.IdentityRefs {
		out = append(out, r.Name)
	}
	late, err := in.refs(n)
	if err != nil {
		return nil, err
	}
	for i, r := range n.Target.InputRefs {
		if r.Identity {
			out = append(out, late[i])
		}
	}
	return out, nil
}

// both is two mappings in one, which is nil if both are empty.
func both(a, b map[string]string) map[string]string {
	if len(b) == 0 {
		return a
	}
	out := maps.Clone(b)
	maps.Copy(out, a)
	return out
}

// known completes what the manifest left open until nodes are inspected: names with
// input digests, and which nodes are skipped.
func (r *run) known(ctx context.Context) error {
	if r.plan == nil {
		return nil
	}
	in, err := r.hooks.w.inputs(r.plan, r.nodes)
	if err != nil {
		return err
	}
	r.inputs = in
	if err := r.nameByInputs(); err != nil {
		return err
	}
	r.skip(ctx)
	var all []*executor.Node
	for _, id := range r.order {
		all = append(all, r.nodes[id])
	}
	unusedGrants(r.plan, all, func(pos diag.Pos, text string) {
		r.view.Event(progress.Event{Event: executor.Event{Kind: executor.Warning, Time: time.Now(), Pos: pos, Text: text}})
	})
	return nil
}

// isBroken tells whether a node has mistakes, or joins one that has.
func (r *run) isBroken(n *plan.Node) bool {
	return r.broken[string(n.ID)] != nil || slices.ContainsFunc(n.Index, func(part graph.ID) bool { return r.broken[string(part)] != nil })
}

// nameByInputs completes the names of images that tell what they are made of.
func (r *run) nameByInputs() error {
	in := r.inputs
	for i := range r.plan.Nodes {
		n := &r.plan.Nodes[i]
		id := string(n.ID)
		if n.Joined || r.only != nil && !r.only[id] || r.isBroken(n) {
			continue
		}
		names, err := in.refs(n)
		if err != nil {
			return err
		}
		mark := map[string]string{executor.InputAnnotation: in.digests[id]}
		if identities, _ := in.identities(n); len(identities) == 0 || n.Target.Executor.Docker || in.digests[id] == "" {
			mark = nil
		}
		if ix := r.indexes[id]; ix != nil {
			ix.Names, ix.Annotations = slices.Concat(ix.Names, names), both(ix.Annotations, mark)
		} else {
			node := r.nodes[id]
			node.Names, node.Format.Annotations = slices.Concat(node.Names, names), both(node.Format.Annotations, mark)
		}
	}
	for _, ix := range r.indexes { // what is stated about its nodes is stated under its names
		for _, node := range ix.Nodes {
			node.Names = ix.Names
		}
	}
	return nil
}

// unusedGrants warns of secrets and agents that a line of the manifest grants and no step of the
// targets that it speaks for uses.
func unusedGrants(p *plan.Plan, nodes []*executor.Node, warn func(pos diag.Pos, text string)) {
	var order []diag.Pos
	unused := map[diag.Pos]string{}
	used := map[diag.Pos]bool{}
	for _, node := range nodes {
		t := p.Node(graph.ID(node.ID)).Target
		secrets, agents := node.Unused()
		grant := func(pos diag.Pos, idle bool, what, id string) {
			if !idle {
				used[pos] = true
			} else if unused[pos] == "" {
				order, unused[pos] = append(order, pos), fmt.Sprintf("target %q is granted %s %q, which no step of it uses", t.Name, what, id)
			}
		}
		for _, g := range t.Secrets {
			if slices.ContainsFunc(node.Secrets, func(s executor.Secret) bool { return s.ID == g.As }) { // it is not there if it is optional
				grant(g.Pos, slices.Contains(secrets, g.As), "secret", g.As)
			}
		}
		for _, a := range t.SSH {
			grant(a.Pos, slices.Contains(agents, a.Name), "ssh agent", a.Name)
		}
	}
	for _, pos := range order {
		if !used[pos] {
			warn(pos, unused[pos])
		}
	}
}

// skip finds the nodes that are not built because they are as they were. One that
// others need is made all the same, of what the store or the registry has; but it is
// not pushed, nothing is written, and its hooks do not run. With --affected the registry
// is asked for parents that the change does not affect, too.
func (r *run) skip(ctx context.Context) {
	narrowed := slices.ContainsFunc(r.plan.Nodes, func(n plan.Node) bool { return n.Cause != nil })
	r.idle, r.lines, r.found = map[string]bool{}, map[string]string{}, map[string]*executor.Found{}
	for _, n := range r.plan.Nodes {
		id := string(n.ID)
		r.lines[id] = r.inputLine(id)
		r.idle[id] = n.Target.Skip == schema.SkipUnchanged && !r.hooks.force && r.verifyAsked == nil && r.inputs.digests[id] != "" && r.remembers(id)
		beside := narrowed && n.Cause == nil && !n.Selected // a parent that the change does not affect
		if (n.Target.Skip == schema.SkipPublished || beside) && !n.Joined && !r.hooks.force && r.verifyAsked == nil && len(r.outputs[id]) == 0 {
			if r.found[id] = r.published(ctx, &n); r.found[id] != nil {
				if r.idle[id] = true; !n.Selected {
					r.found[id].Names = nil // nobody asked for its tags
				}
				for _, part := range n.Index {
					r.idle[string(part)] = true
				}
			}
		}
	}
	for _, n := range r.plan.Nodes { // an index and its nodes are one
		whole := r.idle[string(n.ID)] && !slices.ContainsFunc(n.Index, func(part graph.ID) bool { return !r.idle[string(part)] })
		for _, part := range n.Index {
			r.idle[string(part)], r.idle[string(n.ID)] = whole, whole
		}
	}
	r.spare = map[string]bool{}
	for _, id := range slices.Backward(r.plan.Order) { // parents that nobody asked for, of nothing but skipped ones
		deps := r.plan.Graph().Dependents(id)
		busy := func(d graph.ID) bool {
			return !r.idle[string(d)] || r.needed(d) && !r.spare[string(d)] && r.foundOf(string(d)) == nil
		}
		if n := r.plan.Node(id); !n.Selected && !r.idle[string(id)] && len(deps) > 0 && !slices.ContainsFunc(deps, busy) {
			r.idle[string(id)], r.spare[string(id)] = true, true
		}
	}
	for id, idle := range r.idle {
		if idle {
			r.private[id] = true
			delete(r.outputs, id)
		}
	}
}

// published is the image of a node that the registry has under its identity tag, made
// of the same inputs, for every platform; nil if it has not, or cannot be asked.
func (r *run) published(ctx context.Context, n *plan.Node) *executor.Found {
	digest := r.inputs.digests[string(n.ID)]
	identities, err := r.inputs.identities(n)
	late, _ := r.inputs.refs(n) // the same error
	if err != nil || digest == "" {
		return nil
	}
	names := slices.Concat(n.Target.RefNames(), late)
	repositories := map[string]bool{} // that are known to have it
	var found *executor.Found
	for _, name := range identities {
		f, err := r.x.Find(ctx, name)
		if err != nil {
			r.tell(progress.Note, string(n.ID), fmt.Sprintf("%s is not looked for: %v", name, err))
			return nil
		}
		if f == nil || f.Input != digest || r.attests(n) && !f.Attested || found != nil && f.Digest() != found.Digest() {
			return nil
		}
		for _, part := range n.Index {
			if !slices.Contains(f.Platforms, r.plan.Node(part).Platform) {
				return nil
			}
		}
		ref, _ := schema.ParseRef(name)
		repositories[ref.Repository], found = true, f
	}
	for _, name := range names {
		if ref, ok := schema.ParseRef(name); !ok || !repositories[ref.Repository] {
			return nil // it would have to be pushed there
		}
	}
	if found != nil {
		found.Names = names
	}
	return found
}

// attests tells whether something is to be stated about the image of a node.
func (r *run) attests(n *plan.Node) bool {
	for _, id := range append([]graph.ID{n.ID}, n.Index...) {
		if node := r.nodes[string(id)]; node != nil && node.Attest != (executor.Attest{}) {
			return true
		}
	}
	return false
}

// remembers tells whether what is to be done for a node was done with the same inputs.
func (r *run) remembers(id string) bool {
	done := strings.Fields(r.x.Remembered(r.inputName(id)))
	return !slices.ContainsFunc(strings.Fields(r.lines[id]), func(part string) bool { return !slices.Contains(done, part) })
}

// inputName is what the store remembers a node's input digest by: each work tree
// has its own.
func (r *run) inputName(id string) string { return "input " + id + " " + r.hooks.w.root }

// inputLine is what is remembered: a build that was not pushed, or wrote less, does
// not stand for one that is to.
func (r *run) inputLine(id string) string {
	line := r.inputs.digests[id]
	if r.flags.push && !r.plan.Node(graph.ID(id)).Target.Internal {
		line += " pushed"
	}
	if node := r.nodes[id]; node != nil && node.Attest != (executor.Attest{}) {
		sum := sha256.Sum256(fmt.Appendf(nil, "%+v", node.Attest))
		line += " attested-" + hex.EncodeToString(sum[:4])
	}
	if outputs := r.outputs[id]; len(outputs) > 0 {
		sum := sha256.New()
		for _, o := range outputs {
			fmt.Fprintf(sum, "%s %q\n", o.Type, o.Dest)
		}
		line += " " + hex.EncodeToString(sum.Sum(nil)[:8])
	}
	return line
}

// needed tells whether a node that is skipped is needed by one that is not.
func (r *run) needed(id graph.ID) bool {
	return slices.ContainsFunc(r.plan.Graph().Dependents(id), func(d graph.ID) bool { return !r.idle[string(d)] || r.needed(d) })
}

// unchanged does what there is to do for a node that is skipped.
func (r *run) unchanged(ctx context.Context, m made) error {
	n := r.plan.Node(graph.ID(m.id))
	if r.needed(n.ID) && !r.spare[m.id] {
		res, err := r.have(ctx, m)
		if err != nil {
			return r.lost(m.id, r.places.err(err))
		}
		r.mu.Lock()
		r.results[m.id] = res
		r.mu.Unlock()
	}
	var err error
	if r.found[m.id] != nil && r.flags.push && r.flags.release.publish == oneByOne {
		err = r.release(ctx, m)
	}
	err = errors.Join(err, r.hooks.after(context.WithoutCancel(ctx), n, hookResult{status: skippedStatus, input: r.inputs.digests[m.id]}))
	if err != nil {
		return r.lost(m.id, err)
	}
	r.tell(progress.NodeSkipped, m.id, r.why(n))
	return nil
}

// have is the image of a skipped node for those that need it: of what the store has,
// or the one that the registry has; where that cannot be had it is built, if its own
// parents are.
func (r *run) have(ctx context.Context, m made) (executor.Result, error) {
	node, found := r.nodes[m.id], r.foundOf(m.id)
	if node == nil || found == nil {
		return m.build(ctx)
	}
	res, ok, err := r.x.Adopt(ctx, node, found)
	switch {
	case ok:
		return res, nil
	case err == nil:
	case slices.ContainsFunc(r.plan.Graph().Needs(graph.ID(m.id)), func(p graph.ID) bool { return r.spare[string(p)] }):
		return res, err
	default:
		r.tell(progress.Note, m.id, err.Error())
	}
	return m.build(ctx)
}

// foundOf is what the registry has of a node, by itself or in its index.
func (r *run) foundOf(id string) *executor.Found {
	if f := r.found[id]; f != nil {
		return f
	}
	for _, n := range r.plan.Nodes {
		if slices.Contains(n.Index, graph.ID(id)) {
			return r.found[string(n.ID)]
		}
	}
	return nil
}

// why says why a node is skipped.
func (r *run) why(n *plan.Node) string {
	switch {
	case r.spare[string(n.ID)]:
		return spareText
	case n.Target.Skip == schema.SkipPublished || r.found[string(n.ID)] != nil:
		return publishedText
	}
	return unchangedText
}

// What is said of nodes that are skipped, and what their hooks are told.
const (
	unchangedText = "unchanged since it was built last"
	publishedText = "published already"
	spareText     = "needed by nothing that is built"
	skippedStatus = "skipped"
)

// remember notes what was done for nodes, so that they can be skipped.
func (r *run) remember() error {
	if r.plan == nil {
		return nil
	}
	for id := range r.results {
		if r.plan.Node(graph.ID(id)).Target.Skip != schema.SkipUnchanged || r.inputs.digests[id] == "" || r.idle[id] {
			continue
		}
		if err := r.x.Remember(r.inputName(id), r.lines[id]); err != nil {
			return err
		}
	}
	return nil
}

// idles counts the nodes that were skipped, but for those of an index, by why.
func (r *run) idles() map[string]int {
	out := map[string]int{}
	if r.plan == nil {
		return out
	}
	for i := range r.plan.Nodes {
		if n := &r.plan.Nodes[i]; r.idle[string(n.ID)] && !n.Joined {
			out[r.why(n)]++
		}
	}
	return out
}
