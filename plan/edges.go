package plan

import (
	"fmt"
	"slices"
	"strings"

	"kaniko-build/graph"
	"kaniko-build/schema"
	"kaniko-build/schema/diag"
)

// target plans one target, once.
func (p *planner) target(t *schema.Target) *targetPlan {
	if tp, done := p.done[t.Name]; done {
		return tp
	}
	tp := &targetPlan{nodes: p.nodes(t)}
	p.done[t.Name] = tp
	for i := range tp.nodes {
		e := edgeFinder{planner: p, node: &tp.nodes[i], plan: tp}
		e.contexts()
		e.references()
		e.order()
		p.policy.check(t, e.bases, &p.problems, &p.warnings)
	}
	return tp
}

// nodes is the nodes of a target, without parents yet.
func (p *planner) nodes(t *schema.Target) []Node {
	platforms := t.Platforms
	if len(platforms) == 0 {
		platforms = []string{schema.NormalPlatform(p.facts.Platform)}
	}
	platforms = slices.Concat(platforms, p.wanted[t.Name])
	out := make([]Node, len(platforms))
	for i, platform := range platforms {
		id := graph.ID(t.Name)
		if len(platforms) > 1 {
			id += graph.ID("@" + platform)
		}
		out[i] = Node{ID: id, Target: t, Platform: platform, Parents: map[string]graph.ID{}}
	}
	return out
}

// edgeFinder finds what one node needs.
type edgeFinder struct {
	*planner
	node  *Node
	plan  *targetPlan
	bases []Reference // images that no target makes
}

// contexts adds the parents that named contexts name.
func (f *edgeFinder) contexts() {
	for _, c := range f.node.Target.Contexts {
		_, here := f.contextName(c)
		switch {
		case here && c.Kind == schema.ContextTarget:
			f.parent(c.Value, Edge{Kind: ByContext, Use: "contexts", Name: c.Name, Pos: c.Pos, Weak: c.Weak}, f.node.Platform)
		case here && c.Kind == schema.ContextImage:
			f.bases = append(f.bases, Reference{Name: c.Value, Pos: c.Pos, Use: "contexts"})
		}
	}
}

// references adds the parents whose images the Dockerfile names.
func (f *edgeFinder) references() {
	t := f.node.Target
	refs, err := f.files.References(*t, f.node.Platform)
	if err != nil {
		f.problems.AddErr(t.Pos, err)
		return
	}
	for _, r := range refs {
		switch {
		case r.Context:
			f.platformContext(r)
		case f.isNamedContext(r.Name):
		case r.Unresolved && t.Infer == schema.InferStrict:
			f.problems.Add(r.Pos, "give the ARG a value", "target %q: %s %s has no value here, and infer is strict", t.Name, r.Use, printable(r.Name))
		case r.Unresolved && t.Infer == schema.InferNo:
		case r.Unresolved:
			f.warnings.Add(r.Pos, "give the ARG a default, or name the target in needs or contexts",
				"target %q: %s %s has no value here, so it makes no edge", t.Name, r.Use, printable(r.Name))
		default:
			f.image(r)
		}
	}
}

// platformContext adds the parent that a named context is for a platform that FROM
// names, unless the manifest gives a context for that one.
func (f *edgeFinder) platformContext(r Reference) {
	for _, c := range f.node.Target.Contexts {
		platform := schema.NormalPlatform(r.Platform)
		if c.Kind == schema.ContextTarget && c.Name == r.Name && !strings.Contains(c.Name, "::") && platform != f.node.Platform {
			f.parent(c.Value, Edge{Kind: ByContext, Use: r.Use, Name: c.Name, Pos: r.Pos, Weak: c.Weak}, platform)
		}
	}
}

// isNamedContext tells whether the target gives a context for that image.
func (f *edgeFinder) isNamedContext(image string) bool {
	return slices.ContainsFunc(f.node.Target.Contexts, func(c schema.NamedContext) bool {
		name, here := f.contextName(c)
		return here && plainName(name) == plainName(image)
	})
}

// contextName is the name of a context without its "::platform", and whether it
// is one for the node's platform.
func (f *edgeFinder) contextName(c schema.NamedContext) (name string, here bool) {
	name, platform, some := strings.Cut(c.Name, "::")
	return name, !some || schema.NormalPlatform(platform) == f.node.Platform
}

// plainName is what contexts and images are compared by, as in BuildKit: the name
// as docker prints it, without the tag latest.
func plainName(name string) string {
	if r, ok := schema.ParseRef(name); ok {
		return strings.TrimSuffix(r.Familiar(), ":latest")
	}
	return name
}

// image adds the parent that makes the image r, if there is one.
func (f *edgeFinder) image(r Reference) {
	t := f.node.Target
	var owners []string
	if t.Infer != schema.InferNo {
		owners = f.images.match(r.Name)
	}
	platform := f.node.Platform
	if r.Platform != "" {
		platform = schema.NormalPlatform(r.Platform)
	}
	switch {
	case len(owners) == 0:
		f.bases = append(f.bases, r)
	case len(owners) > 1:
		f.problems.Add(r.Pos, "name one of their tags, or a target in contexts",
			"target %q: %s %s is the image of several targets: %s", t.Name, r.Use, r.Name, strings.Join(owners, ", "))
	case owners[0] == t.Name:
		f.problems.Add(r.Pos, "name another tag, or a digest, for an image that exists already",
			"target %q is built from its own image: %s %s", t.Name, r.Use, r.Name)
	default:
		f.parent(owners[0], Edge{Kind: ByImage, Use: r.Use, Name: r.Name, Pos: r.Pos}, platform)
	}
}

// parent adds an edge to the node of a target for a platform, and the name that
// the node is handed over by.
func (f *edgeFinder) parent(name string, e Edge, platform string) {
	if cells := f.manifest.Cells(name); len(cells) > 1 {
		f.problems.Add(e.Pos, "name one of them", "target %q: %q is a matrix of several targets: %s", f.node.Target.Name, name, strings.Join(cells, ", "))
		return
	} else if len(cells) == 1 {
		name = cells[0]
	}
	parent := f.known(name, e)
	if parent == nil {
		return
	}
	e.Weak = e.Weak || slices.ContainsFunc(f.node.Target.Weak, func(w schema.Named) bool { return w.Name == parent.Name || w.Name == parent.Base })
	nodes := f.nodes(parent)
	i := slices.IndexFunc(nodes, func(n Node) bool { return n.Platform == platform })
	if i < 0 && len(nodes) == 1 && (platform == "" || nodes[0].Platform == "") {
		i = 0
	}
	if i < 0 && parent.Internal { // nobody but its dependents has a use for it
		f.wanted[parent.Name], f.more = append(f.wanted[parent.Name], platform), true
		return
	}
	if i < 0 {
		f.problems.Add(e.Pos, fmt.Sprintf("add %s to the platforms of %q", platform, name),
			"target %q needs %q for %s, which is built for %s only", f.node.Target.Name, name, platform, strings.Join(platformsOf(nodes), ", "))
		return
	}
	id := nodes[i].ID
	if e.Weak {
		e.Node, e.Needs = f.node.ID, id
		f.plan.weak = append(f.plan.weak, weakEdge{e, parent, platform})
		return
	}
	f.node.hand(e.Name, id, platform)
	f.add(name, id, e)
}

// hand lets a node take the place of a name: of the name for its platform only, if
// another has the name already.
func (n *Node) hand(name string, id graph.ID, platform string) {
	if old, taken := n.Parents[name]; taken && old != id {
		name += "::" + platform
	}
	n.Parents[name] = id
}

// order adds the edges of needs: every platform waits for every platform.
func (f *edgeFinder) order() {
	for _, n := range f.node.Target.Needs {
		e := Edge{Kind: ByNeeds, Use: "needs", Name: n.Name, Pos: n.Pos}
		cells := f.manifest.Cells(n.Name)
		if cells == nil {
			cells = []string{n.Name}
		}
		for _, name := range cells {
			if parent := f.known(name, e); parent != nil {
				for _, node := range f.nodes(parent) {
					f.add(name, node.ID, e)
				}
			}
		}
	}
}

// known is the target of that name, unless it is missing or the node's own.
func (f *edgeFinder) known(name string, e Edge) *schema.Target {
	t := f.node.Target
	parent := f.manifest.Target(name)
	switch {
	case parent == nil:
		f.problems.Add(e.Pos, diag.Suggest(name, f.targetNames()), "target %q depends on unknown target %q", t.Name, name)
	case name == t.Name:
		f.problems.Add(e.Pos, "", "target %q needs itself", name)
		return nil
	}
	return parent
}

func (f *edgeFinder) targetNames() []string {
	var out []string
	for _, t := range f.manifest.Targets {
		out = append(out, t.Name)
	}
	return out
}

func (f *edgeFinder) add(target string, id graph.ID, e Edge) {
	e.Node, e.Needs = f.node.ID, id
	if !slices.Contains(f.plan.edges, e) {
		f.plan.edges = append(f.plan.edges, e)
	}
	if !slices.Contains(f.plan.needs, target) {
		f.plan.needs = append(f.plan.needs, target)
	}
}

func platformsOf(nodes []Node) []string {
	out := make([]string, len(nodes))
	for i, n := range nodes {
		out[i] = n.Platform
	}
	return out
}

// images finds targets by what they are called in a registry.
type images map[string][]image // by repository

type image struct{ tag, target string }

func indexImages(m *schema.Manifest) images {
	x := images{}
	for _, t := range m.Targets {
		for _, named := range t.Refs {
			if r, ok := schema.ParseRef(named.Name); ok {
				x[r.Repository] = append(x[r.Repository], image{r.Tag, t.Name})
			}
		}
	}
	return x
}

// match is the targets that make an image. A digest is never made here. Without a
// tag it is latest, and if nobody makes that, whoever makes the repository.
func (x images) match(name string) []string {
	r, ok := schema.ParseRef(name)
	if !ok || r.Digest != "" {
		return nil
	}
	tag := r.Tag
	if tag == "" {
		tag = "latest"
	}
	var exact, any []string
	for _, i := range x[r.Repository] {
		if !slices.Contains(any, i.target) {
			any = append(any, i.target)
		}
		if i.tag == tag && !slices.Contains(exact, i.target) {
			exact = append(exact, i.target)
		}
	}
	if len(exact) == 0 && r.Tag == "" {
		return any
	}
	return exact
}
