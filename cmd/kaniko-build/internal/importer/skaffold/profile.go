package skaffold

import (
	"reflect"
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
	out := importer.Profile{Name: name, When: p.activation(name, profile.Get("activation")), Push: build.At("local", "push").True()}
	for _, pair := range profile.Pairs() {
		if pair.Value.Is() && slices.Contains(otherParts, pair.Key) && !c.doc.Get(pair.Key).Is() { // else it was told
			p.draft.Drop(pair.Pos, "", "profile %q: %s: this program builds images", name, pair.Key)
		}
	}
	policy := p.tagPolicy(c.doc.At("build", "tagPolicy"))
	own := build.Get("tagPolicy").Is()
	var each importer.Target
	out.Cluster, each = p.cluster(build)
	if own {
		policy = p.tagPolicy(build.Get("tagPolicy"))
		if len(p.configs) == 1 {
			each.Tags = orLatest(policy)
		}
	}
	if !reflect.ValueOf(each).IsZero() {
		out.Defaults = &each
	}
	if build.Get("local").Is() && p.draft.Cluster != nil {
		out.Local = true
	}
	p.local(build)
	if v := build.Get("googleCloudBuild"); v.Is() {
		p.draft.Tell(v.Pos(), "runner: says where nodes run", "profile %q: googleCloudBuild", name)
	}
	for _, item := range build.Get("insecureRegistries").Items() {
		p.insecure(item.Text())
		p.draft.Tell(item.Pos(), "", "profile %q: registry %s is insecure without it too", name, item.Text())
	}
	if v := build.Get("platforms"); v.Is() {
		c.doc = c.doc.With([]string{"build", "platforms"}, "add", v)
	}
	for _, a := range list {
		p.name(a)
		t, ok := p.artifact(c, a)
		if !ok {
			continue
		}
		old, known := base[t.Name]
		given := old.Tags
		if len(given) > 0 || own && len(p.configs) > 1 { // names of its own may be among them
			given = orLatest(policy)
		}
		t.Tags = whole(given, policy, t.Tags)
		t.CPU, t.Memory, t.Timeout = old.CPU, old.Memory, old.Timeout
		if known {
			t.Without(old)
		}
		if !known || !t.Equal(old) {
			out.Targets = append(out.Targets, t)
		}
	}
	if len(p.draft.Targets) == 0 && len(out.Targets) > 0 { // nothing is built without it
		p.only(out, base)
		out.Targets = nil
	}
	if reflect.DeepEqual(out, importer.Profile{Name: name, When: out.When}) {
		return
	}
	if i := slices.IndexFunc(p.draft.Profiles, func(old importer.Profile) bool { return old.Name == name }); i >= 0 {
		p.draft.Profiles[i].Targets = append(p.draft.Profiles[i].Targets, out.Targets...)
		old := &p.draft.Profiles[i]
		if old.When == "" {
			old.When = out.When
		}
		if old.Defaults == nil {
			old.Defaults = out.Defaults
		}
		if old.Cluster == nil {
			old.Cluster = out.Cluster
		}
		old.Push, old.Local = old.Push || out.Push, old.Local || out.Local
		return
	}
	p.draft.Profiles = append(p.draft.Profiles, out)
}

// only makes targets of the images of the first profile that has any, where none are
// built without one: a manifest has targets.
func (p *project) only(profile importer.Profile, base map[string]importer.Target) {
	group := importer.Group{Name: p.names.Take(profile.Name)}
	for _, t := range profile.Targets {
		base[t.Name] = t
		group.Targets = append(group.Targets, t.Name)
		p.draft.Targets = append(p.draft.Targets, t)
	}
	p.draft.Groups = append(p.draft.Groups, group)
	p.draft.Tell(profile.Targets[0].Pos, "", "profile %q: nothing is built without it there; here its images are targets, and group %q", profile.Name, group.Name)
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
