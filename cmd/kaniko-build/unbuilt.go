package main

import (
	"fmt"

	"kaniko-build/plan"
	"kaniko-build/schema"
	"kaniko-build/schema/diag"
)

// unbuilt refuses what a manifest asks of a build that cannot be done: nothing of it is
// left out in silence. Commands that only look do not mind.
func (w *workspace) unbuilt(p *plan.Plan) error {
	var l diag.List
	seen := map[string]bool{}
	for _, n := range p.Nodes {
		t := n.Target
		if seen[t.Name] {
			continue
		}
		seen[t.Name] = true
		if t.Skip == schema.SkipPublished && t.Executor.Docker {
			l.Add(t.Pos, "write imageFormat: oci", "target %q: skip published needs annotations, which Docker's image format does not have", t.Name)
		}
	}
	return l.Err()
}

// annotations are those of a target that are for a level: "manifest" of an image,
// "index", "manifest-descriptor" and "index-descriptor" of what points to them.
func annotations(t *schema.Target, level string) (map[string]string, error) {
	var out map[string]string
	for _, a := range t.Annotations {
		if a.Level != level {
			continue
		}
		if t.Executor.Docker {
			return nil, &diag.Problem{Pos: a.Pos, What: fmt.Sprintf("target %q: Docker's image format has no annotations", t.Name), Hint: "write imageFormat: oci"}
		}
		if out == nil {
			out = map[string]string{}
		}
		out[a.Name] = a.Value
	}
	return out, nil
}
