package schema

import (
	"fmt"
	"strings"
)

// unused warns of variables, secrets and ssh agents that nothing in the manifest
// names, in use or not: templates and profiles count too.
func (p *parser) unused(m *Manifest) {
	if p.problems.Len() > 0 {
		return
	}
	s := &usage{parser: p, vars: map[*variable]bool{}, granted: map[string]bool{}}
	for _, u := range p.units {
		for _, layer := range u.layers {
			s.look(layer, "")
		}
	}
	p.scope.all(func(v *variable) {
		if !s.vars[v] {
			p.warnings.Add(v.pos, fmt.Sprintf("write ${vars.%s} where it counts, or take it out", v.name), "variable %q is not used", v.name)
		}
	})
	for _, secret := range m.Secrets {
		if !s.granted["secrets "+secret.ID] {
			p.warnings.Add(secret.Pos, "grant it to a target with secrets: ["+secret.ID+"], or take it out", "secret %q is not used", secret.ID)
		}
	}
	for _, agent := range m.SSH {
		if !s.granted["ssh "+agent.ID] {
			p.warnings.Add(agent.Pos, "grant it to a target with ssh: ["+agent.ID+"], or take it out", "ssh agent %q is not used", agent.ID)
		}
	}
}

// usage collects what is named.
type usage struct {
	*parser
	vars    map[*variable]bool
	granted map[string]bool // by section and full id
}

// look goes through a value that stands beside a key.
func (s *usage) look(v *value, key string) {
	switch v.kind {
	case listKind:
		for _, item := range v.items {
			s.look(item, key)
		}
	case mapKind:
		for _, e := range v.entries {
			if e.name == "secrets" || e.name == "secrets+" || e.name == "ssh" || e.name == "ssh+" {
				s.grants(strings.TrimSuffix(e.name, "+"), e.value)
			}
			s.look(e.value, e.name)
		}
	case stringKind:
		s.text(v, key)
	}
}

func (s *usage) text(v *value, key string) {
	var refs []*reference
	if key == "if" || key == "when" {
		if c, bad := parseCondition(v.text); bad == nil {
			refs = conditionRefs(c)
		}
	}
	if hasReference(v.text) {
		segments, _ := splitText(v.text)
		for _, one := range segments {
			if one.ref != nil {
				refs = append(refs, one.ref)
			}
		}
	}
	for _, ref := range refs {
		if ref.ns == "vars" {
			s.vars[s.scope.find(v.pos.File, ref.name)] = true
		}
	}
}

// grants notes the ids that a list grants.
func (s *usage) grants(key string, v *value) {
	in := s.spaces.secrets
	if key == "ssh" {
		in = s.spaces.ssh
	}
	for _, item := range v.list() {
		id := itemID(item)
		if item.kind != mapKind || item.get("id") != nil {
			if full, _, known := s.find(in, id, item.pos.File, s.seenFrom(item.pos.File)); known {
				s.granted[key+" "+full] = true
			}
		}
	}
	// A list may be a variable's; then all that it may hold counts.
	if v.kind == stringKind && hasReference(v.text) {
		for full := range in {
			s.granted[key+" "+full] = true
		}
	}
}
