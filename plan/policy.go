package plan

import (
	"strings"

	"kaniko-build/schema"
	"kaniko-build/schema/diag"
)

// policy judges the images that targets start from or copy from. Images that the
// manifest makes itself are no bases.
type policy struct {
	schema.Policy
	allowed []func(name string) bool
	names   []string // the patterns, for messages
}

func newPolicy(p schema.Policy) policy {
	out := policy{Policy: p}
	for _, pattern := range p.AllowedBases {
		out.allowed = append(out.allowed, schema.Glob(pattern.Name))
		out.names = append(out.names, pattern.Name)
	}
	return out
}

func (p policy) check(t *schema.Target, bases []Reference, problems, warnings *diag.List) {
	for _, base := range bases {
		r, ok := schema.ParseRef(base.Name)
		if !ok {
			continue // told by who builds it
		}
		if !p.allows(r) {
			problems.Add(base.Pos, "the policy allows "+strings.Join(p.names, ", "), "target %q: %s %s is not an allowed base", t.Name, base.Use, printable(base.Name))
		}
		l := warnings
		switch p.PinBases {
		case schema.LevelError:
			l = problems
		case schema.LevelWarn:
		default:
			continue
		}
		if r.Digest == "" {
			l.Add(base.Pos, "name it by its digest, as "+r.Familiar()+"@sha256:...", "target %q: %s %s is not pinned", t.Name, base.Use, printable(base.Name))
		}
	}
}

// allows tells whether a pattern matches the image, with its tag or without.
func (p policy) allows(r schema.Ref) bool {
	if len(p.allowed) == 0 {
		return true
	}
	tagged := r.Repository
	if r.Tag != "" {
		tagged += ":" + r.Tag
	}
	for _, matches := range p.allowed {
		if matches(r.Repository) || matches(tagged) || matches(r.String()) {
			return true
		}
	}
	return false
}
