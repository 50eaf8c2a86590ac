package compose

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"kaniko-build/cmd/kaniko-build/internal/importer"
)

// refused are keys of build that are not imported, with what to do.
var refused = map[string]string{
	"privileged": "no step has privileges here", "isolation": "", "extra_hosts": "", "ulimits": "", "shm_size": "",
	"entitlements": "what a RUN may do is the same for all",
}

var known = []string{
	"context", "dockerfile", "dockerfile_inline", "args", "target", "labels", "cache_from", "cache_to", "no_cache", "no_cache_filter",
	"pull", "network", "platforms", "tags", "secrets", "ssh", "additional_contexts", "provenance", "sbom",
}

func (p *project) target(s *service) importer.Target {
	t := importer.Target{Name: p.ours[s.name], Pos: s.pos, Comment: s.comment}
	for _, l := range s.body {
		for _, pair := range l.body.Get("build").Pairs() {
			hint, bad := refused[pair.Key]
			switch {
			case strings.HasPrefix(pair.Key, "x-") || slices.Contains(known, pair.Key):
			case bad && (!pair.Value.Is() || pair.Value.Text() == "false"):
			case bad:
				p.draft.Drop(pair.Pos, hint, "service %q: %s", s.name, pair.Key)
			default:
				p.draft.Drop(pair.Pos, "", "service %q: unknown key %q of build", s.name, pair.Key)
			}
		}
		if d := l.body.Get("depends_on"); d.Is() && !p.told {
			p.told = true
			p.draft.Tell(d.Pos(), "needs: orders builds; what a Dockerfile names is found by itself", "depends_on orders containers, not builds")
		}
	}
	p.place(s, &t)
	if v, _ := s.build("target"); v.Is() {
		t.Stage = p.text(v)
	}
	for _, l := range s.builds("args") {
		t.Args = p.merge(t.Args, l.body, true)
	}
	for _, l := range s.builds("labels") {
		t.Labels = p.merge(t.Labels, l.body, false)
	}
	for _, l := range s.builds("additional_contexts") {
		p.contexts(s, &t, l)
	}
	p.naming(s, &t)
	for _, l := range s.builds("platforms") {
		for _, item := range l.body.Items() {
			if one := p.text(item); !slices.Contains(t.Platforms, one) {
				t.Platforms = append(t.Platforms, one)
			}
		}
	}
	if v, _ := s.last("platform"); v.Is() && len(t.Platforms) == 0 {
		t.Platforms = []importer.Text{p.text(v)}
	}
	for _, l := range s.builds("secrets") {
		for _, item := range l.body.Items() {
			p.secret(s, &t, item)
		}
	}
	for _, l := range s.builds("ssh") {
		p.ssh(&t, l)
	}
	if v, _ := s.build("network"); v.Is() && v.Text() != "default" {
		t.Network = p.text(v)
		if n := v.Text(); n != "none" && n != "host" && !importer.HasReference(t.Network.Value) {
			p.draft.Drop(v.Pos(), "none and host are there", "service %q: network %q", s.name, n)
			t.Network = importer.Text{}
		}
	}
	if v, _ := s.build("no_cache"); v.True() {
		t.NoCache = true
	}
	for _, l := range s.builds("no_cache_filter") {
		t.NoStages = append(t.NoStages, importer.Plains(l.body.Texts())...)
	}
	p.cache(s, &t)
	if v, _ := s.build("provenance"); v.Is() {
		switch text := v.Text(); {
		case text == "false":
		case strings.Contains(text, "max"):
			t.Provenance = "max"
		default:
			t.Provenance = "min"
		}
	}
	if v, _ := s.build("sbom"); v.Is() {
		t.SBOM = v.Text() != "false"
	}
	p.watch(s, &t)
	return t
}

func (p *project) text(v importer.YAML) importer.Text {
	return importer.Text{Value: p.vars.expand(v.Text(), v.Pos())}
}

// workDirectory is the one that compose is called in, which is that of the project.
var workDirectory = regexp.MustCompile(`^\$(\{PWD(:?-[^}]*)?\}|PWD\b)`)

// path is a path of the file; ok tells that it counts from the project, whatever it
// stands in.
func (p *project) path(v importer.YAML) (out importer.Text, ok bool) {
	rest := workDirectory.ReplaceAllString(v.Text(), ".")
	return importer.Text{Value: p.vars.expand(rest, v.Pos())}, rest != v.Text()
}

// place is the context and the Dockerfile.
func (p *project) place(s *service, t *importer.Target) {
	context, dir := s.build("context")
	at := importer.Text{Value: "."}
	if context.Is() {
		var whole bool
		if at, whole = p.path(context); whole {
			dir = "."
		}
	}
	if out, ok := importer.Remote(at.Value); ok {
		at.Value = out
	} else if lone := strings.HasPrefix(at.Value, "${"); !lone || dir != "." || p.paths.Base != "." {
		at.Value = p.paths.Rel(path.Join(dir, at.Value))
		if path.IsAbs(context.Text()) {
			at.Value = context.Text()
		}
	}
	if at.Value != "." {
		t.Context = at
	}
	if v, _ := s.build("dockerfile_inline"); v.Is() {
		t.Inline = p.text(v)
		return
	}
	if v, _ := s.build("dockerfile"); v.Is() {
		switch file, whole := p.path(v); {
		case whole:
			t.Dockerfile = importer.Text{Value: "//" + p.paths.Rel(file.Value)}
		case path.Clean(file.Value) != "Dockerfile":
			t.Dockerfile = file
		}
	}
}

// merge lays a list NAME=VALUE or a mapping over entries.
func (p *project) merge(base []importer.Entry, v importer.YAML, args bool) []importer.Entry {
	set := func(key string, text importer.Text) {
		e := importer.Entry{Key: key, Text: text}
		if i := slices.IndexFunc(base, func(old importer.Entry) bool { return old.Key == key }); i >= 0 {
			base[i] = e
			return
		}
		base = append(base, e)
	}
	bare := func(key string) {
		if args {
			set(key, importer.Text{Value: p.vars.bare(key)})
		} else {
			set(key, importer.Text{})
		}
	}
	for _, pair := range v.Pairs() {
		value := pair.Value.Value()
		switch {
		case pair.Value.IsNull():
			bare(pair.Key)
		case value != pair.Value.Text():
			if !strings.EqualFold(value, pair.Value.Text()) {
				p.draft.Tell(pair.Value.Pos(), "put it in quotes, there and here, if it is meant as it is written", "%s: %s is the number %s, as compose reads it", pair.Key, pair.Value.Text(), value)
			}
			set(pair.Key, importer.Plain(value))
		default:
			set(pair.Key, p.text(pair.Value))
		}
	}
	if v.IsList() {
		for _, item := range v.Items() {
			key, value, ok := strings.Cut(item.Text(), "=")
			if !ok {
				bare(key)
				continue
			}
			set(key, importer.Text{Value: p.vars.expand(value, item.Pos())})
		}
	}
	return base
}

func (p *project) contexts(s *service, t *importer.Target, l layer) {
	for _, e := range p.merge(nil, l.body, false) {
		switch scheme, rest, _ := strings.Cut(e.Value, ":"); {
		case scheme == "service" || scheme == "target":
			name := p.ours[rest]
			if name == "" {
				p.draft.Drop(l.body.Pos(), "", "service %q: its context %q is service %q, which is not built", s.name, e.Key, rest)
				continue
			}
			e.Value = "target:" + name
		case strings.HasPrefix(e.Value, "docker-image://"):
			e.Value = "image:" + strings.TrimPrefix(e.Value, "docker-image://")
		case strings.HasPrefix(e.Value, "oci-layout://"):
			dir, _, _ := strings.Cut(strings.TrimPrefix(e.Value, "oci-layout://"), "@")
			e.Value = "oci:" + p.paths.Rel(path.Join(l.dir, dir))
		default:
			if out, ok := importer.Remote(e.Value); ok {
				e.Value = out
			} else {
				e.Value = p.paths.Rel(path.Join(l.dir, e.Value))
			}
		}
		t.Contexts = append(t.Contexts, e)
	}
}

// naming is image and tags.
func (p *project) naming(s *service, t *importer.Target) {
	var names []importer.Full
	add := func(v importer.YAML) {
		text := p.text(v)
		if i := slices.IndexFunc(names, func(n importer.Full) bool { return n.Value == text.Value }); i < 0 && text.Value != "" {
			names = append(names, importer.Full{Text: text, Now: p.vars.now(v.Text())})
		}
	}
	if v, _ := s.last("image"); v.Is() {
		add(v)
	}
	for _, l := range s.builds("tags") {
		for _, item := range l.body.Items() {
			add(item)
		}
	}
	t.Named(names)
}

func (p *project) secret(s *service, t *importer.Target, item importer.YAML) {
	name, as := item.Text(), ""
	if item.IsMap() {
		name, as = item.Get("source").Text(), item.Get("target").Text()
	}
	as = path.Base(as)
	if as == "." {
		as = name
	}
	decl, declared := p.secrets[name]
	if !declared {
		p.draft.Drop(item.Pos(), "", "service %q: secret %q, which the file does not declare", s.name, name)
		return
	}
	if p.granted[name] == "" {
		made := importer.Secret{ID: p.ids.Take(name), Env: decl.Get("environment").Text()}
		if file := decl.Get("file"); file.Is() {
			at, whole := p.path(file)
			made.File = at.Value
			switch {
			case strings.HasPrefix(made.File, "~"):
			case whole:
				made.File = p.paths.Rel(made.File)
			default:
				made.File = p.paths.Rel(path.Join(p.dirs[name], made.File))
			}
		}
		if made.Env == "" && made.File == "" {
			p.draft.Drop(decl.Pos(), "say where it comes from: {env: NAME} or {file: PATH}", "secret %q, which is neither a file nor a variable", name)
			return
		}
		p.granted[name] = made.ID
		p.draft.Secrets = append(p.draft.Secrets, made)
	}
	t.Secrets = append(t.Secrets, importer.Grant{ID: p.granted[name], As: as})
}

func (p *project) ssh(t *importer.Target, l layer) {
	for _, e := range p.merge(nil, l.body, false) {
		t.SSH = append(t.SSH, e.Key)
		if e.Value == "" || slices.ContainsFunc(p.draft.SSH, func(s importer.SSH) bool { return s.ID == e.Key }) {
			continue
		}
		key := e.Value
		if !strings.HasPrefix(key, "~") && !strings.HasPrefix(key, "/") {
			key = p.paths.Rel(path.Join(l.dir, key))
		}
		p.draft.SSH = append(p.draft.SSH, importer.SSH{ID: e.Key, Keys: []string{key}})
	}
}

func (p *project) cache(s *service, t *importer.Target) {
	for _, key := range []string{"cache_to", "cache_from"} {
		for _, l := range s.builds(key) {
			for _, item := range l.body.Items() {
				kind, place := "registry", ""
				text := p.text(item).Value
				if !strings.Contains(text, "=") {
					place = text
				}
				for field := range strings.SplitSeq(text, ",") {
					switch name, value, _ := strings.Cut(field, "="); name {
					case "type":
						kind = value
					case "ref", "dest", "src":
						place = value
					}
				}
				switch kind {
				case "registry":
					now := p.vars.now(item.Text())
					if strings.Contains(now, "=") { // its fields are written out
						now = ""
					}
					var ok bool
					if place, ok = importer.Place(place, now); !ok {
						p.draft.Tell(item.Pos(), "cache: {repo: ...} takes a name without a tag", "service %q: %s, whose tag may be in a variable, is left out; nothing but the time of a build depends on it", s.name, key)
						continue
					}
				case "local":
					place = "oci:" + p.paths.Rel(path.Join(l.dir, place))
				default:
					p.draft.Tell(item.Pos(), "cache: {repo: ...} keeps results in a registry", "service %q: %s of type %q is left out; nothing but the time of a build depends on it", s.name, key, kind)
					continue
				}
				if place == "" {
					continue
				}
				if t.Cache == nil {
					t.Cache = &importer.Cache{Repo: importer.Text{Value: place}}
					if key == "cache_from" {
						t.Cache.Write = "never"
					}
				} else if t.Cache.Repo.Value != place {
					t.Cache.From = append(t.Cache.From, importer.Text{Value: place})
				}
			}
		}
	}
}

// watch is develop.watch as rules. Their paths count from the context there and
// from the project here.
func (p *project) watch(s *service, t *importer.Target) {
	w, l := s.last("develop")
	for _, item := range w.Get("watch").Items() {
		at := p.paths.Rel(path.Join(l.dir, item.Get("path").Text()))
		context := t.Context.Value
		inside := at
		if context != "" {
			var ok bool
			if inside, ok = strings.CutPrefix(at, context+"/"); at == context {
				inside = "."
			} else if !ok {
				p.draft.Drop(item.Pos(), "", "service %q: a rule for %s, which is outside of the context", s.name, at)
				continue
			}
		}
		pattern := func(name string) []string {
			name = path.Join(inside, name)
			if name == "." {
				return []string{"**"}
			}
			if path.Ext(name) != "" || strings.Contains(name, "*") {
				return []string{name}
			}
			return []string{strings.TrimSuffix(name, "/") + "/**", name}
		}
		var ignored []string
		for _, i := range item.Get("ignore").Texts() {
			ignored = append(ignored, pattern(i)...)
		}
		if len(ignored) > 0 {
			t.Rules = append(t.Rules, importer.Rule{Paths: ignored, Action: "none"})
		}
		r := importer.Rule{Paths: pattern("."), To: item.Get("target").Text()}
		if include := item.Get("include").Texts(); len(include) > 0 {
			r.Paths = nil
			for _, i := range include {
				r.Paths = append(r.Paths, pattern(i)...)
			}
		}
		switch action := item.Get("action").Text(); action {
		case "rebuild":
			r.Action, r.To = "rebuild", ""
		case "sync", "sync+exec", "sync+restart":
			r.Action, r.Via = "sync", "compose:"+s.name
			if cmd := item.At("exec", "command"); cmd.IsList() {
				r.Exec.Words = cmd.Texts()
			} else if cmd.Is() {
				r.Exec.Line = cmd.Text()
			}
			if action == "sync+restart" {
				p.draft.Drop(item.Pos(), "exec: may restart it", "service %q: the restart after a sync", s.name)
			}
		default:
			p.draft.Drop(item.Pos(), "", "service %q: a rule with action %q", s.name, action)
			continue
		}
		t.Rules = append(t.Rules, r)
	}
}
