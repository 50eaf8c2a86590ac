package bake

import (
	"maps"
	"slices"

	"github.com/hashicorp/hcl/v2"
)

// flatten writes out the targets on which bake lays something again that lies below what
// it inherits already. A manifest lays each parent once.
//
//	one inherits _c, two inherits one and _c:  _c, one, _c with bake, and _c, one here
func (s *source) flatten() {
	type body struct {
		attrs  map[string]*hcl.Attribute
		weaker map[string][]*hcl.Attribute
	}
	made := map[*target]body{}
	for _, t := range s.targets {
		if t.attrs["matrix"] != nil {
			continue // what a cell inherits may be another's
		}
		layers := s.layers(t, 0)
		if !s.overlaid(layers) {
			continue
		}
		b := body{map[string]*hcl.Attribute{}, map[string][]*hcl.Attribute{}}
		for _, l := range layers {
			for name := range l.attrs {
				if name == "inherits" || l != t && slices.Contains([]string{"matrix", "name", "description"}, name) {
					continue
				}
				all := l.every(name)
				if slices.Contains(merged, name) {
					old := slices.Clone(b.weaker[name])
					if b.attrs[name] != nil {
						old = append(old, b.attrs[name])
					}
					old = slices.DeleteFunc(old, func(a *hcl.Attribute) bool { return slices.Contains(all, a) })
					b.weaker[name] = append(old, all[:len(all)-1]...)
				}
				b.attrs[name] = l.attrs[name]
			}
		}
		made[t] = b
	}
	for t, b := range made {
		t.attrs, t.weaker = maps.Clone(b.attrs), b.weaker
	}
}

const maxLayers = 1000 // of one target

// layers is what a target is made of, as bake lays it: the weakest first, itself last.
func (s *source) layers(t *target, depth int) []*target {
	var out []*target
	if depth > maxDepth {
		return nil
	}
	for _, a := range t.every("inherits") {
		for _, name := range s.inCells(t, a) {
			if p := s.target(name); p != nil && p != t && len(out) < maxLayers {
				out = append(out, s.layers(p, depth+1)...)
			}
		}
	}
	return append(out, t)
}

// overlaid tells whether a layer that lies again over others says something else than they.
func (s *source) overlaid(layers []*target) bool {
	for i, l := range layers {
		again := -1
		for k := i + 1; k < len(layers); k++ {
			if layers[k] == l {
				again = k
			}
		}
		if again < 0 {
			continue
		}
		for _, between := range layers[i+1 : again] {
			if between != l && s.overlap(l, between) {
				return true
			}
		}
	}
	return false
}

// overlap tells whether two targets say something of the same thing. Lists that are joined
// have no order that counts.
func (s *source) overlap(a, b *target) bool {
	for name := range a.attrs {
		switch {
		case b.attrs[name] == nil || name == "inherits" || name == "description":
		case name == "attest":
			return true
		case slices.Contains([]string{"args", "labels", "contexts"}, name):
			for _, key := range s.keys(a, name) {
				if slices.Contains(s.keys(b, name), key) {
					return true
				}
			}
		case !slices.Contains(merged, name):
			return true
		}
	}
	return false
}

// keys is those of a mapping.
func (s *source) keys(t *target, name string) []string {
	notes, evaluated := s.draft.Notes, s.draft.Evaluated
	defer func() { s.draft.Notes, s.draft.Evaluated = notes, evaluated }()
	return (&scope{source: s}).joined(t.every(name)).flat().keys
}
