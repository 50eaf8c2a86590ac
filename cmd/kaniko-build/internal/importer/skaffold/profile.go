package skaffold

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"kaniko-build/cmd/kaniko-build/internal/importer"
)

// profiles makes a profile of each one whose images differ. Those of all configs
// by one name are one.
func (p *project) profiles() {
	base := map[string]importer.Target{}
	for _, t := range p.draft.Targets {
		base[t.Name] = t
	}
	for _, c := range p.configs {
		for _, profile := range c.doc.Get("profiles").Items() {
			p.profile(c, profile, base)
		}
	}
}

// artifacts are those of a config, as a profile of it has them.
func (p *project) artifacts(c config, profile importer.YAML) []importer.YAML {
	name := importer.Name(profile.Get("name").Text())
	list := c.doc.At("build", "artifacts").Items()
	if own := profile.At("build", "artifacts"); own.Is() {
		list = own.Items()
	}
	for _, patch := range profile.Get("patches").Items() {
		keys := strings.Split(strings.Trim(patch.Get("path").Text(), "/"), "/")
		if keys[0] != "build" {
			continue // deploys and tests are no business of ours
		}
		if len(keys) < 3 || keys[1] != "artifacts" {
			p.draft.Drop(patch.Pos(), "", "profile %q: a patch of %s", name, patch.Get("path").Text())
			continue
		}
		n, err := strconv.Atoi(keys[2])
		switch op := patch.Get("op").Text(); {
		case len(keys) == 3 && (keys[2] == "-" || op == "add"):
			list = append(slices.Clone(list), patch.Get("value"))
		case err != nil || n < 0 || n >= len(list):
			p.draft.Drop(patch.Pos(), "", "profile %q: a patch of %s, which is not there", name, patch.Get("path").Text())
		case len(keys) == 3 && op == "remove":
			p.draft.Drop(patch.Pos(), "", "profile %q: it builds one image less", name)
		case len(keys) == 3:
			list = slices.Clone(list)
			list[n] = patch.Get("value")
		default:
			list = slices.Clone(list)
			list[n] = list[n].With(keys[3:], op, patch.Get("value"))
		}
	}
	return list
}

func (p *project) profile(c config, profile importer.YAML, base map[string]importer.Target) {
	name, build := importer.Name(profile.Get("name").Text()), profile.Get("build")
	list := p.artifacts(c, profile)
	policy := p.tagPolicy(c.doc.At("build", "tagPolicy"))
	if v := build.Get("tagPolicy"); v.Is() {
		p.draft.Drop(v.Pos(), "", "profile %q: its tagPolicy", name)
	}
	for _, key := range []string{"cluster", "googleCloudBuild"} {
		if v := build.Get(key); v.Is() {
			p.draft.Tell(v.Pos(), "runner: says where nodes run", "profile %q: %s", name, key)
		}
	}
	out := importer.Profile{Name: name, When: p.activation(name, profile.Get("activation"))}
	for _, a := range list {
		p.name(a)
		t, ok := p.artifact(c, a)
		if !ok {
			continue
		}
		old, known := base[t.Name]
		given := old.Tags
		if len(given) > 0 { // names of its own may be among them
			given = orLatest(policy)
		}
		t.Tags = whole(given, policy, t.Tags)
		if known {
			t.Without(old)
		}
		if !known || !t.Equal(old) {
			out.Targets = append(out.Targets, t)
		}
	}
	if len(out.Targets) == 0 {
		return
	}
	if i := slices.IndexFunc(p.draft.Profiles, func(old importer.Profile) bool { return old.Name == name }); i >= 0 {
		p.draft.Profiles[i].Targets = append(p.draft.Profiles[i].Targets, out.Targets...)
		if p.draft.Profiles[i].When == "" {
			p.draft.Profiles[i].When = out.When
		}
		return
	}
	p.draft.Profiles = append(p.draft.Profiles, out)
}

// activation is the condition that turns a profile on: what it says of the
// environment. Each entry turns it on by itself.
func (p *project) activation(name string, v importer.YAML) string {
	var out []string
	for _, entry := range v.Items() {
		env := entry.Get("env")
		variable, want, ok := strings.Cut(env.Text(), "=")
		op := " =~ "
		if rest, not := strings.CutPrefix(want, "!"); not {
			op, want = " !~ ", rest
		}
		quoted := "'" + want + "'"
		if want == "" {
			op, quoted = map[string]string{" =~ ": " == ", " !~ ": " != "}[op], "''"
		}
		others := slices.ContainsFunc(entry.Pairs(), func(pair importer.Pair) bool { return pair.Key != "env" })
		if _, err := regexp.Compile(want); !ok || others || err != nil || !isName(variable) || strings.ContainsAny(want, "'\n") {
			p.draft.Tell(entry.Pos(), "--profile "+name+" turns it on; a condition is when:", "profile %q is not turned on by itself", name)
			continue
		}
		out = append(out, "env."+variable+op+quoted)
	}
	return strings.Join(out, " || ")
}
