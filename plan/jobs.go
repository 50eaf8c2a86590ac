package plan

import (
	"slices"

	"kaniko-build/graph"
)

// Job is one target of a plan as a job of a CI.
type Job struct {
	Target    string
	Platforms []string // of its nodes
	Needs     []string // targets of the plan that are built before it, in the plan's order
	Level     int      // 0 needs nothing; else one more than the highest level it needs
}

// Jobs are the targets of a plan, parents first. Nodes of one target, one for each
// platform, are one job: their index has to be joined by somebody.
func (p *Plan) Jobs() []Job {
	var out []Job
	at := map[string]int{}
	target := func(id graph.ID) string { return p.Node(id).Target.Name }
	needs := map[string][]string{}
	for _, e := range p.Edges {
		if a, b := target(e.Node), target(e.Needs); a != b && !slices.Contains(needs[a], b) {
			needs[a] = append(needs[a], b)
		}
	}
	var add func(name string) int
	add = func(name string) int {
		if i, ok := at[name]; ok {
			return out[i].Level
		}
		j := Job{Target: name}
		for _, n := range needs[name] {
			j.Level = max(j.Level, add(n)+1)
			j.Needs = append(j.Needs, n)
		}
		at[name] = len(out)
		out = append(out, j)
		return j.Level
	}
	for _, id := range p.Order {
		add(target(id))
	}
	for _, n := range p.Nodes {
		if j := &out[at[n.Target.Name]]; n.Platform != "" {
			j.Platforms = append(j.Platforms, n.Platform)
		}
	}
	for i := range out {
		slices.SortFunc(out[i].Needs, func(a, b string) int { return at[a] - at[b] })
	}
	return out
}
