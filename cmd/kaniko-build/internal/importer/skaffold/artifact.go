package skaffold

import (
	"path"
	"slices"
	"strings"

	"kaniko-build/cmd/kaniko-build/internal/importer"
)

// builders are those of other kinds than Dockerfiles.
var builders = []string{"bazel", "jibMaven", "jibGradle", "jib", "ko", "buildpacks", "buildpack", "custom"}

// artifact makes a target; ok is false if nothing here builds it.
func (p *project) artifact(c config, a importer.YAML) (t importer.Target, ok bool) {
	image := a.Get("image")
	if a.Get("imageName").Is() { // of older versions
		image = a.Get("imageName")
	}
	t = importer.Target{Name: p.ours[image.Text()], Pos: a.Pos()}
	for _, b := range builders {
		if v := a.Get(b); v.Is() {
			p.draft.Drop(v.Pos(), "write a Dockerfile for it", "image %q: builder %s", image.Text(), b)
			return t, false
		}
	}
	text := p.template(image)
	text.Value, _, _ = importer.Cut(text.Value)
	if text.Value != t.Name {
		t.Images = []importer.Text{text}
	}
	at := "."
	for _, key := range []string{"context", "workspace"} {
		if v := a.Get(key); v.Is() {
			at = v.Text()
		}
	}
	docker, kaniko := a.Get("docker"), a.Get("kaniko")
	if sub := kaniko.Get("contextSubPath"); sub.Is() {
		at = path.Join(at, sub.Text())
	}
	if at = p.paths.Rel(path.Join(c.dir, at)); at != "." {
		t.Context = importer.Plain(at)
	}
	p.docker(&t, docker)
	p.kaniko(&t, kaniko, hostOf(text.Value))
	for _, path := range p.ignored {
		t.ExtraArgs = append(t.ExtraArgs, "--ignore-path="+path)
	}
	platforms := a.Get("platforms")
	if !platforms.Is() {
		platforms = c.doc.At("build", "platforms")
	}
	if platforms.Is() {
		if list := platforms.Texts(); len(list) > 0 { // else a flag of kaniko's may say it
			t.Platforms = importer.Plains(list)
		}
	}
	for _, r := range a.Get("requires").Items() {
		p.required(&t, r)
	}
	p.sync(&t, a.Get("sync"))
	t.Before, t.After = p.hooks(a, "before"), p.hooks(a, "after")
	return t, true
}

// required is another artifact that the Dockerfile names by an argument.
func (p *project) required(t *importer.Target, r importer.YAML) {
	image := r.Get("image").Text()
	parent := p.ours[image]
	if parent == "" {
		p.draft.Drop(r.Pos(), "", "image %q requires %q, which is not built", t.Name, image)
		return
	}
	alias := r.Get("alias").Text()
	if alias == "" {
		alias = image
	}
	t.Contexts = append(t.Contexts, importer.Entry{Key: parent, Text: importer.Text{Value: "target:" + parent}})
	t.Args = append(t.Args, importer.Entry{Key: alias, Text: importer.Text{Value: parent}})
}

// args adds build arguments. Those without a value have that of env, else of the
// environment.
func (p *project) args(t *importer.Target, v importer.YAML, env map[string]string) {
	for _, pair := range v.Pairs() {
		e := importer.Entry{Key: pair.Key, Text: p.template(pair.Value)}
		if pair.Value.IsNull() {
			e.Value = "${env." + pair.Key + ":-}"
			if known, ok := env[pair.Key]; ok {
				e.Value = importer.Literal(known)
			}
		}
		t.Args = append(t.Args, e)
	}
}

// fileOf sets the Dockerfile.
func (p *project) fileOf(t *importer.Target, v importer.YAML) {
	if v.Is() && path.Clean(v.Text()) != "Dockerfile" {
		t.Dockerfile = p.template(v)
	}
}

// shared reads a field that docker's and kaniko's artifacts have, if it is one.
func (p *project) shared(t *importer.Target, pair importer.Pair, env map[string]string) bool {
	switch pair.Key {
	case "dockerfile", "dockerfilePath":
		p.fileOf(t, pair.Value)
	case "target":
		t.Stage = p.template(pair.Value)
	case "buildArgs":
		p.args(t, pair.Value, env)
	default:
		return false
	}
	return true
}

func (p *project) docker(t *importer.Target, docker importer.YAML) {
	for _, pair := range docker.Pairs() {
		if p.shared(t, pair, nil) {
			continue
		}
		v := pair.Value
		switch pair.Key {
		case "network":
			if n := strings.ToLower(v.Text()); n == "none" || n == "host" {
				t.Network = importer.Plain(n)
			} else if n != "bridge" && n != "default" && n != "" {
				p.draft.Drop(pair.Pos, "", "image %q: network %q", t.Name, v.Text())
			}
		case "cacheFrom":
			p.draft.Tell(pair.Pos, "cache: {repo: ...} keeps results in a registry", "image %q: cacheFrom is left out; nothing but the time of a build depends on it", t.Name)
		case "noCache":
			t.NoCache = v.True()
		case "secrets", "secret":
			for _, s := range v.Items() {
				p.secret(t, s)
			}
		case "ssh":
			id, key, ok := strings.Cut(v.Text(), "=")
			t.SSH = append(t.SSH, id)
			if ok && !slices.ContainsFunc(p.draft.SSH, func(s importer.SSH) bool { return s.ID == id }) {
				p.draft.SSH = append(p.draft.SSH, importer.SSH{ID: id, Keys: []string{key}})
			}
		case "pullParent", "squash":
			p.draft.Tell(pair.Pos, "", "image %q: %s changes nothing here", t.Name, pair.Key)
		default:
			p.draft.Drop(pair.Pos, "", "image %q: docker.%s", t.Name, pair.Key)
		}
	}
}

func (p *project) secret(t *importer.Target, s importer.YAML) {
	p.grant(t, importer.Secret{ID: s.Get("id").Text(), Env: s.Get("env").Text(), File: s.Get("src").Text()})
}

// grant lets a target use a secret, by the id that its Dockerfile has.
func (p *project) grant(t *importer.Target, made importer.Secret) {
	id := made.ID
	switch {
	case made.Env != "":
		made.File = ""
	case made.File == "":
		made.Env = id
	case !strings.HasPrefix(made.File, "/") && !strings.HasPrefix(made.File, "~"):
		made.File = p.paths.Rel(made.File)
	}
	key := id + "\n" + made.Env + "\n" + made.File
	if p.secrets[key] == "" {
		made.ID = p.ids.Take(id)
		p.secrets[key] = made.ID
		p.draft.Secrets = append(p.draft.Secrets, made)
	}
	t.Secrets = append(t.Secrets, importer.Grant{ID: p.secrets[key], As: id})
}

// sync is files that are copied to where the image runs.
func (p *project) sync(t *importer.Target, s importer.YAML) {
	for _, m := range s.Get("manual").Items() {
		src, dest := m.Get("src").Text(), m.Get("dest").Text()
		if !path.IsAbs(dest) {
			p.draft.Drop(m.Pos(), "write where it is from the root", "image %q: a sync to %q, which counts from the working directory of the image", t.Name, dest)
			continue
		}
		below := src // what a rule leaves out of names, and skaffold does not
		for below = path.Clean(below); strings.ContainsAny(below, "*?") || below == path.Clean(src) && below != "."; {
			below = path.Dir(below)
		}
		strip := m.Get("strip")
		rest, ok := strings.CutPrefix(below+"/", strip.Text())
		if !ok {
			p.draft.Tell(strip.Pos(), "", "image %q: files keep their path below %s; look at strip: %s", t.Name, dest, strip.Text())
		}
		t.Rules = append(t.Rules, importer.Rule{Paths: []string{src}, Action: "sync", To: path.Join(dest, rest)})
	}
	for _, key := range []string{"infer", "auto"} {
		if v := s.Get(key); v.Is() && (v.IsList() || v.True()) {
			p.draft.Tell(v.Pos(), "a rule with action: sync copies instead", "image %q: sync.%s: a change rebuilds", t.Name, key)
		}
	}
	if v := s.At("hooks"); v.Is() {
		p.draft.Drop(v.Pos(), "", "image %q: hooks of sync", t.Name)
	}
}

func (p *project) hooks(a importer.YAML, when string) []importer.Hook {
	var out []importer.Hook
	for _, h := range a.At("hooks", when).Items() {
		words := h.Get("command").Texts()
		if dir := h.Get("dir"); dir.Is() && dir.Text() != "." {
			p.draft.Drop(dir.Pos(), "commands run where the manifest is", "a hook's directory %q", dir.Text())
		}
		if len(words) == 3 && words[0] == "sh" && words[1] == "-c" {
			out = append(out, importer.Hook{Line: importer.Literal(words[2])})
			continue
		}
		if len(words) > 0 {
			out = append(out, importer.Hook{Words: words})
		}
	}
	return out
}
