package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"kaniko-build/graph"
	"kaniko-build/schema"
	"kaniko-build/schema/diag"
)

// Cause is why a node is affected by a change.
type Cause struct {
	Text string   // for people: lib/lib.go (COPY lib ./lib)
	Pos  diag.Pos // of what reads it, if something does
	By   graph.ID // the parent that is affected; "" for a change of the node's own
}

// Affected adds to the nodes that a change is about those that stand on them. What
// is only ordered after another is not affected by it. direct is left as it is.
func (p *Plan) Affected(direct map[graph.ID]Cause) map[graph.ID]Cause {
	out := maps.Clone(direct)
	for _, id := range p.Order { // parents first
		if _, ok := out[id]; ok {
			continue
		}
		for _, e := range p.Edges {
			if e.Node != id || e.Kind == ByNeeds {
				continue
			}
			if _, ok := out[e.Needs]; ok {
				out[id] = Cause{Text: fmt.Sprintf("%s (%s)", e.Needs, e.Reason()), Pos: e.Pos, By: e.Needs}
				break
			}
		}
	}
	return out
}

// None is a plan of nothing.
func None() *Plan {
	g, _ := graph.New(nil, nil) // nothing has no circle
	return &Plan{Order: []graph.ID{}, graph: g}
}

// Because is the plan with why its nodes are affected.
func (p *Plan) Because(causes map[graph.ID]Cause) *Plan {
	out := *p
	out.Nodes = slices.Clone(p.Nodes)
	for i := range out.Nodes {
		if c, ok := causes[out.Nodes[i].ID]; ok {
			out.Nodes[i].Cause = &c
		}
	}
	return &out
}

// Redefined tells what of a target's definition differs from before, of all that
// can change the root or the config of its image; "" is nothing. before nil is a
// new target.
func Redefined(before, now *schema.Target) string {
	if before == nil {
		return "the target is new"
	}
	var what []string
	differ := func(name string, same bool) {
		if !same {
			what = append(what, name)
		}
	}
	inline := func(t *schema.Target) string {
		if t.Inline == nil {
			return ""
		}
		return "\n" + t.Inline.Text
	}
	contexts := func(t *schema.Target) (out []string) {
		for _, c := range t.Contexts {
			out = append(out, fmt.Sprintf("%q %s %q", c.Name, c.Kind, c.Value))
		}
		return out
	}
	secrets := func(t *schema.Target) (out []string) {
		for _, g := range t.Secrets {
			out = append(out, g.ID+" "+g.As)
		}
		return out
	}
	differ("context", before.Context == now.Context)
	differ("dockerfile", before.Dockerfile == now.Dockerfile && inline(before) == inline(now))
	differ("stage", before.Stage == now.Stage)
	differ("args", maps.Equal(before.Args, now.Args))
	differ("contexts", slices.Equal(contexts(before), contexts(now)))
	differ("labels", maps.Equal(before.Labels, now.Labels))
	differ("platforms", slices.Equal(before.Platforms, now.Platforms))
	differ("secrets", slices.Equal(secrets(before), secrets(now)))
	differ("ssh", slices.EqualFunc(before.SSH, now.SSH, func(a, b schema.Named) bool { return a.Name == b.Name }))
	differ("network", before.Network == now.Network)
	if len(what) == 0 {
		return ""
	}
	return "its " + strings.Join(what, " and ") + " in the manifest"
}
