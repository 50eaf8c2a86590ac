package plan

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"kaniko-build/graph"
	"kaniko-build/schema"
	"kaniko-build/schema/diag"
)

// Plan is what will be done. Make makes it; it does not change.
type Plan struct {
	Nodes    []Node        // targets as declared, each with its platforms as declared
	Edges    []Edge        // by node; those of a node in the order contexts, Dockerfile, needs
	Order    []graph.ID    // parents first
	Warnings diag.Problems // what may be a mistake; sorted
	graph    *graph.Graph
	at       map[graph.ID]int // places in Nodes
}

// Node is one target for one platform.
type Node struct {
	ID       graph.ID // the target's name, with "@platform" if it has several
	Target   *schema.Target
	Platform string // as schema.NormalPlatform; "" if neither target nor Facts name one
	Selected bool   // asked for; others are built because a node needs them
	Group    string // the first group that holds the target, other than default
	// Parents tells which nodes take the place of what this one names: the name of a
	// named context, or an image as its Dockerfile writes it after ARG resolution. Where
	// that is named for further platforms those have NAME::PLATFORM.
	Parents map[string]graph.ID
	// Index are the nodes of the target's platforms, in the order it names them: the
	// node builds nothing, and joins what they make under the target's images, which
	// they do not have themselves. It has the target's name as ID, and no platform.
	Index []graph.ID
	// Joined says that the node is one of an index.
	Joined bool
	Cause  *Cause // why it is affected, in a plan of what is
	// Published tells which images stand for weak parents that are not in the plan,
	// by the name of a named context.
	Published map[string]Published
}

// Published is the image of a target that is not in the plan.
type Published struct {
	Image  string // may hold references for schema.Expand, to the target's input digest
	Target string
}

// MarshalText is the image: that is what programs ask a plan for.
func (p Published) MarshalText() ([]byte, error) { return []byte(p.Image), nil }

// EdgeKind says where an edge comes from.
type EdgeKind string

// The kinds of edges.
const (
	ByContext EdgeKind = "context" // contexts: {name: "target:x"}
	ByImage   EdgeKind = "image"   // a reference equal to the parent's image
	ByNeeds   EdgeKind = "needs"   // needs: order only, nothing is handed over
	ByIndex   EdgeKind = "index"   // platforms: an index needs what it joins
)

// Edge says why a node needs another.
type Edge struct {
	Node  graph.ID
	Needs graph.ID
	Kind  EdgeKind
	Use   string   // "contexts", "FROM", "COPY --from", "RUN --mount=from", "needs", "platforms"
	Name  string   // as written: the context, the image, the target
	Weak  bool     // the parent is in the plan for another reason
	Pos   diag.Pos // of what says so
}

// Reason is why, in a few words fit to print: FROM shop/base.
func (e Edge) Reason() string { return printable(e.Use + " " + e.Name) }

// Reference is an image that a Dockerfile names.
type Reference struct {
	Name       string   // after ARG resolution
	Pos        diag.Pos // of the instruction
	Use        string   // "FROM", "COPY --from", "ADD --from", "RUN --mount=from"
	Platform   string   // of FROM --platform; "" is the node's own
	Unresolved bool     // it holds an ARG without a value: Name is as written
	Context    bool     // Name is a named context of the target, and Platform is set
}

// Dockerfiles tells what the Dockerfile of a target refers to.
type Dockerfiles interface {
	// References are the images that the stages needed for t.Stage name, in file
	// order; stages and scratch are none. It is called once for each target and
	// platform, from several goroutines. Mistakes in the Dockerfile are *diag.Problem;
	// a missing file is one too, or any other error.
	References(t schema.Target, platform string) ([]Reference, error)
}

// Facts is what a plan must know of the machine.
type Facts struct {
	Platform string // of targets that name none: linux/amd64
}

// Make plans the targets that selection names (see schema.Manifest.Select) and all
// they need. Mistakes come as a diag.Problems.
func Make(m *schema.Manifest, selection []string, facts Facts, files Dockerfiles) (*Plan, error) {
	p := &planner{
		manifest: m, images: indexImages(m), facts: facts, files: &remembered{files, map[[2]string]references{}}, policy: newPolicy(m.Policy),
		wanted: map[string][]string{},
	}
	for {
		p.done, p.problems, p.warnings, p.more = map[string]*targetPlan{}, diag.List{}, diag.List{}, false
		if out, err := p.make(selection); !p.more {
			return out, err
		}
	}
}

// make plans once. It is to be called again while it finds more platforms that
// internal targets are needed for.
func (p *planner) make(selection []string) (*Plan, error) {
	m := p.manifest
	p.warnings.AddErr(diag.Pos{}, m.Warnings)
	selected, err := m.Select(selection, p.targetEdges)
	if err != nil {
		p.problems.AddErr(diag.Pos{}, err)
		return nil, p.problems.Err()
	}
	return p.plan(selected)
}

// Graph is the plan's nodes and edges, to be walked and drawn.
func (p *Plan) Graph() *graph.Graph { return p.graph }

// Node is the node of that ID, or nil.
func (p *Plan) Node(id graph.ID) *Node {
	i, ok := p.at[id]
	if !ok {
		return nil
	}
	return &p.Nodes[i]
}

// Look shows nodes with their platform, if there are several, in the box of their
// group.
func (p *Plan) Look() graph.Look {
	platforms := map[string]bool{}
	for i := range p.Nodes {
		platforms[p.Nodes[i].Platform] = true
	}
	return graph.Look{
		Label: func(id graph.ID) string {
			n := p.Node(id)
			if n.Platform == "" || len(platforms) == 1 {
				return n.Target.Name
			}
			return n.Target.Name + "\n" + n.Platform
		},
		Group: func(id graph.ID) string { return p.Node(id).Group },
	}
}

// planner makes one Plan.
type planner struct {
	manifest *schema.Manifest
	images   images
	facts    Facts
	files    *remembered
	problems diag.List
	warnings diag.List
	done     map[string]*targetPlan
	policy   policy

	// wanted is the platforms that internal targets are needed for, beside those
	// they name; more says that one was added since the last try.
	wanted map[string][]string
	more   bool
}

// remembered asks for the references of each target and platform once.
type remembered struct {
	Dockerfiles
	known map[[2]string]references
}

type references struct {
	refs []Reference
	err  error
}

// ask asks for many at once, on all CPUs: reading Dockerfiles is most of planning.
func (r *remembered) ask(nodes []Node) {
	type answer struct {
		key [2]string
		references
	}
	var open []Node
	for _, n := range nodes {
		if _, known := r.known[[2]string{n.Target.Name, n.Platform}]; !known {
			open = append(open, n)
		}
	}
	answers := make([]answer, len(open))
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(open)) {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(open)); i = next.Add(1) - 1 {
				n := open[i]
				answers[i].key = [2]string{n.Target.Name, n.Platform}
				answers[i].refs, answers[i].err = r.Dockerfiles.References(*n.Target, n.Platform)
			}
		})
	}
	all.Wait()
	for _, a := range answers {
		r.known[a.key] = a.references
	}
}

func (r *remembered) References(t schema.Target, platform string) ([]Reference, error) {
	key := [2]string{t.Name, platform}
	got, ok := r.known[key]
	if !ok {
		got.refs, got.err = r.Dockerfiles.References(t, platform)
		r.known[key] = got
	}
	return got.refs, got.err
}

// targetPlan is the nodes of one target with their edges.
type targetPlan struct {
	nodes []Node
	edges []Edge
	needs []string // targets, each once
	weak  []weakEdge
}

// weakEdge is an edge that counts only if its parent is in the plan.
type weakEdge struct {
	Edge
	parent   *schema.Target
	platform string // that it is needed for
}

// checkRefs reports images that two of the targets that are needed would write. Targets
// that are never built together may be other forms of one image.
func (p *planner) checkRefs(needed map[string]bool) {
	type owner struct {
		target string
		pos    diag.Pos
	}
	first := map[string]owner{}
	for _, t := range p.manifest.Targets {
		if !needed[t.Name] {
			continue
		}
		for _, r := range t.Refs {
			if old, taken := first[r.Name]; taken {
				p.problems.Add(t.Pos, "give one of them another image or tag",
					"targets %q and %q are both %s (%s and %s)", old.target, t.Name, r.Name, old.pos, r.Pos)
				continue
			}
			first[r.Name] = owner{t.Name, r.Pos}
		}
	}
}

// targetEdges is what every target needs, for selections that follow edges.
func (p *planner) targetEdges() (map[string][]string, error) {
	out := map[string][]string{}
	var nodes []Node
	for i := range p.manifest.Targets {
		nodes = append(nodes, p.nodes(&p.manifest.Targets[i])...)
	}
	p.files.ask(nodes)
	for i := range p.manifest.Targets {
		t := &p.manifest.Targets[i]
		out[t.Name] = p.target(t).needs
	}
	return out, p.problems.Err()
}

// plan takes the selected targets and all they need.
func (p *planner) plan(selected []string) (*Plan, error) {
	needed := map[string]bool{}
	todo := slices.Clone(selected)
	for len(todo) > 0 {
		wave, nodes := todo, []Node(nil)
		todo = nil
		for _, name := range wave {
			if t := p.manifest.Target(name); !needed[name] && p.done[name] == nil {
				nodes = append(nodes, p.nodes(t)...)
			}
		}
		p.files.ask(nodes)
		for _, name := range wave {
			if !needed[name] {
				needed[name] = true
				todo = append(todo, p.target(p.manifest.Target(name)).needs...)
			}
		}
	}
	p.checkRefs(needed)
	out := &Plan{}
	groups := p.groups()
	picked := map[string]bool{}
	for _, name := range selected {
		picked[name] = true
	}
	for _, t := range p.manifest.Targets {
		if !needed[t.Name] {
			continue
		}
		tp := p.done[t.Name]
		edges := p.weaken(tp, needed)
		index := Node{ID: graph.ID(t.Name), Target: tp.nodes[0].Target, Selected: picked[t.Name], Group: groups[t.Name]}
		joined := len(t.Platforms) > 1 && !t.Internal
		for _, n := range tp.nodes {
			n.Selected, n.Group, n.Joined = index.Selected, index.Group, joined
			out.Nodes = append(out.Nodes, n)
			index.Index = append(index.Index, n.ID)
		}
		out.Edges = append(out.Edges, edges...)
		if joined {
			out.Nodes = append(out.Nodes, index)
			for i, id := range index.Index {
				out.Edges = append(out.Edges, Edge{Node: index.ID, Needs: id, Kind: ByIndex, Use: "platforms", Name: t.Platforms[i], Pos: t.Pos})
			}
		}
	}
	if err := p.problems.Err(); err != nil {
		return nil, err
	}
	return p.order(out)
}

// weaken is the edges of a target, those of weak parents among them that are in the
// plan; for others the published image takes the parent's place.
func (p *planner) weaken(tp *targetPlan, needed map[string]bool) []Edge {
	edges := tp.edges
	for _, w := range tp.weak {
		n := &tp.nodes[slices.IndexFunc(tp.nodes, func(n Node) bool { return n.ID == w.Node })]
		switch {
		case needed[w.parent.Name]:
			n.hand(w.Name, w.Needs, w.platform)
			if !slices.Contains(edges, w.Edge) {
				edges = append(edges, w.Edge)
			}
		case w.Kind == ByImage: // it names the image already
		default:
			image := published(w.parent)
			if n.Published == nil {
				n.Published = map[string]Published{}
			}
			n.Published[w.Name] = Published{image, w.parent.Name}
		}
	}
	return edges
}

// published is the image that a target is found by when it is not built: its
// identity tag, else its first.
func published(t *schema.Target) string {
	if len(t.IdentityRefs) > 0 {
		return t.IdentityRefs[0].Name
	}
	for _, r := range t.InputRefs {
		if r.Identity {
			return r.Text
		}
	}
	if len(t.Refs) > 0 {
		return t.Refs[0].Name
	}
	return t.InputRefs[0].Text // a target has one or the other
}

// order adds the graph, or answers with the circle that prevents it.
func (p *planner) order(out *Plan) (*Plan, error) {
	ids := make([]graph.ID, len(out.Nodes))
	out.at = make(map[graph.ID]int, len(out.Nodes))
	for i := range out.Nodes {
		ids[i] = out.Nodes[i].ID
		out.at[ids[i]] = i
	}
	edges := make([]graph.Edge, len(out.Edges))
	for i, e := range out.Edges {
		edges[i] = graph.Edge{Node: e.Node, Needs: e.Needs, Reason: e.Reason()}
	}
	g, err := graph.New(ids, edges)
	var circle *graph.CycleError
	if errors.As(err, &circle) {
		return nil, diag.Problems{circleProblem(circle, out.Edges)}
	}
	if err != nil {
		return nil, fmt.Errorf("order the plan: %w", err)
	}
	out.graph, out.Order = g, g.Order()
	if err := p.warnings.Err(); err != nil {
		errors.As(err, &out.Warnings) // a List answers with nothing else
	}
	return out, nil
}

// circleProblem prints each edge of a circle with the line that makes it.
func circleProblem(c *graph.CycleError, edges []Edge) *diag.Problem {
	var b strings.Builder
	b.WriteString("targets need each other in a circle")
	var pos diag.Pos
	for i, step := range c.Edges {
		at := slices.IndexFunc(edges, func(e Edge) bool { return e.Node == step.Node && e.Needs == step.Needs })
		e := edges[at]
		if i == 0 {
			pos = e.Pos
		}
		fmt.Fprintf(&b, "\n  %s needs %s: %s (%s)", e.Node, e.Needs, e.Reason(), e.Pos)
	}
	return &diag.Problem{Pos: pos, What: b.String(), Hint: "take one of these lines out"}
}

// groups is the first group of each target, but for default. Groups that follow
// edges count with what they name themselves: boxes of a drawing need no more.
func (p *planner) groups() map[string]string {
	out := map[string]string{}
	for _, g := range p.manifest.Groups {
		if g.Name == "default" {
			continue
		}
		names, err := p.manifest.Select([]string{"@" + g.Name}, nil)
		if err != nil {
			continue // an empty group draws no box
		}
		for _, name := range names {
			if out[name] == "" {
				out[name] = g.Name
			}
		}
	}
	return out
}
