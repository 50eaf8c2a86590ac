// Package compose reads compose files: services that are built become targets.
//
//	compose.yaml ─┬─ include ──> services ─ extends ─> builds ─> Draft
//	              └─ other files ──┘
//
// It reads what a build depends on; how containers run is left alone. ${NAME} in
// what it reads becomes a variable.
package compose

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"kaniko-build/cmd/kaniko-build/internal/importer"
	"kaniko-build/schema/diag"
)

// ReadFile reads a file that a project names, by its path.
type ReadFile func(name string) ([]byte, error)

// project is what is read.
type project struct {
	read     ReadFile
	paths    *importer.Paths
	draft    *importer.Draft
	vars     *variables
	services []*service
	secrets  map[string]importer.YAML
	dirs     map[string]string // of secrets, from the project's directory
	names    importer.Names
	ids      importer.Names
	granted  map[string]string // secrets by name of the project
	ours     map[string]string // targets by service
	same     map[string]string // targets that are others, by what they would be called
	told     bool              // of depends_on
}

// service is one service and the directory its paths count from, relative to the
// project's.
type service struct {
	name    string
	dir     string
	pos     diag.Pos
	comment string
	body    []layer // weakest first
}

// layer is a service as one file says it.
type layer struct {
	dir  string
	body importer.YAML
}

const maxFiles = 200 // of a project

// Import reads a project: its file, and others that are laid over it, whose paths count
// from the first one's directory too.
func Import(files []importer.File, paths *importer.Paths, read ReadFile) (*importer.Draft, error) {
	vars := &variables{uses: map[string]*use{}}
	for _, second := range []bool{false, true} {
		up := *paths
		p := &project{
			read: read, paths: &up, draft: &importer.Draft{}, vars: vars, secrets: map[string]importer.YAML{}, dirs: map[string]string{},
			names: importer.Names{}, ids: importer.Names{}, granted: map[string]string{}, ours: map[string]string{}, same: map[string]string{},
		}
		vars.second, vars.draft = second, p.draft
		for _, f := range files {
			if err := p.file(f.Name, f.Text, ".", 0); err != nil {
				return nil, err
			}
		}
		p.targets()
		if len(p.draft.Targets) == 0 {
			return nil, &diag.Problem{Pos: diag.Pos{File: files[0].Name}, What: "no service is built", Hint: "services with build: become targets"}
		}
		if second {
			vars.declare()
			if len(vars.order) > 0 {
				p.draft.EnvFiles = []string{up.Rel(".env")}
			}
			*paths = up
			return p.draft, nil
		}
	}
	return nil, errors.New("internal error: a project is read twice; please report this")
}

// file reads the services of one file; dir is its directory, relative to the
// project's.
func (p *project) file(name string, text []byte, dir string, files int) error {
	if files > maxFiles {
		return &diag.Problem{Pos: diag.Pos{File: name}, What: fmt.Sprintf("files include each other more than %d deep", maxFiles)}
	}
	docs, err := importer.ReadYAML(name, text)
	if err != nil {
		return err
	}
	for _, doc := range docs {
		if doc.Is() && !doc.IsMap() {
			return &diag.Problem{Pos: doc.Pos(), What: "a compose file is a mapping, not " + doc.Describe()}
		}
		for _, item := range doc.Get("include").Items() {
			if err := p.include(name, item, dir, files); err != nil {
				return err
			}
		}
		services := doc.Get("services")
		for _, pair := range services.Pairs() {
			p.services = append(p.services, &service{
				name: pair.Key, dir: dir, pos: pair.Pos, comment: services.Comment(pair.Key),
				body: p.layers(name, doc, pair.Key, pair.Value, dir, 0),
			})
		}
		for _, pair := range doc.Get("secrets").Pairs() {
			p.secrets[pair.Key], p.dirs[pair.Key] = pair.Value, dir
		}
	}
	return nil
}

func (p *project) include(name string, item importer.YAML, dir string, files int) error {
	at, own := item, importer.YAML{}
	if item.IsMap() {
		at, own = item.Get("path"), item.Get("project_directory")
	}
	for i, one := range at.Texts() {
		if strings.Contains(one, "://") || strings.Contains(one, "$") {
			p.draft.Drop(item.Pos(), "fetch it first", "include %q", one)
			continue
		}
		file := beside(name, one)
		text, err := p.read(file)
		if errors.Is(err, fs.ErrNotExist) {
			p.draft.Drop(item.Pos(), "", "include %q, which is not there", one)
			continue
		}
		if err != nil {
			return fmt.Errorf("read an included file: %w", err)
		}
		inner := path.Join(dir, path.Dir(filepath.ToSlash(one)))
		if own.Is() {
			inner = path.Join(dir, own.Text())
		} else if i > 0 {
			inner = path.Join(dir, path.Dir(filepath.ToSlash(at.Texts()[0])))
		}
		if err := p.file(file, text, inner, files+1); err != nil {
			return err
		}
	}
	return nil
}

// beside is a path that a file names, as it is read.
func beside(file, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(file), filepath.FromSlash(name))
}

// layers is a service and what it extends, weakest first.
func (p *project) layers(file string, doc importer.YAML, name string, body importer.YAML, dir string, depth int) []layer {
	own := []layer{{dir, body}}
	ext := body.Get("extends")
	if !ext.Is() {
		return own
	}
	other, from := ext.Text(), importer.YAML{}
	if ext.IsMap() {
		other, from = ext.Get("service").Text(), ext.Get("file")
	}
	if depth > 20 {
		p.draft.Drop(ext.Pos(), "", "service %q: services extend each other", name)
		return own
	}
	if from.Is() {
		text, err := p.read(beside(file, from.Text()))
		var docs []importer.YAML
		if err == nil {
			docs, err = importer.ReadYAML(beside(file, from.Text()), text)
		}
		if err != nil || len(docs) == 0 {
			p.draft.Drop(ext.Pos(), "", "service %q: %s, which it extends, cannot be read", name, from.Text())
			return own
		}
		dir, file, doc = path.Join(dir, path.Dir(filepath.ToSlash(from.Text()))), beside(file, from.Text()), docs[0]
	}
	parent := doc.At("services", other)
	if !parent.IsMap() {
		p.draft.Drop(ext.Pos(), "", "service %q extends %q, which is not there", name, other)
		return own
	}
	return append(p.layers(file, doc, other, parent, dir, depth+1), own...)
}

// last is what the strongest layer says of a key.
func (s *service) last(key string) (importer.YAML, layer) {
	for _, l := range slices.Backward(s.body) {
		if v := l.body.Get(key); v.Is() {
			if v.Tag() == "!reset" {
				return importer.YAML{}, l
			}
			return v, l
		}
	}
	return importer.YAML{}, layer{}
}

// builds is what layers say of a key of build, weakest first.
func (s *service) builds(key string) []layer {
	var out []layer
	for _, l := range s.body {
		b := l.body.Get("build")
		if b.Tag() == "!reset" || b.Tag() == "!override" {
			out = nil
		}
		v := b.Get(key)
		if b.IsText() && key == "context" {
			v = b
		}
		if v.Tag() == "!reset" || v.Tag() == "!override" {
			out = nil
		}
		if v.Is() && v.Tag() != "!reset" {
			out = append(out, layer{l.dir, v})
		}
	}
	return out
}

// build is what the strongest layer says of a key of build.
func (s *service) build(key string) (importer.YAML, string) {
	all := s.builds(key)
	if len(all) == 0 {
		return importer.YAML{}, s.dir
	}
	return all[len(all)-1].body, all[len(all)-1].dir
}

// add makes a target of a service, and answers with its name. One that builds the same
// image from the same is that other target.
func (p *project) add(s *service) string {
	t := p.target(s)
	plain := func(t importer.Target) importer.Target {
		t.Name, t.Comment, t.Rules = "", "", nil
		return t
	}
	for i := range p.draft.Targets {
		old := &p.draft.Targets[i]
		if len(t.Images)+len(t.Tags) == 0 || !plain(t).Equal(plain(*old)) {
			continue
		}
		p.draft.Tell(s.pos, "", "service %q is the image of %q, and no target of its own", s.name, old.Name)
		p.same[t.Name] = old.Name
		for _, r := range t.Rules {
			if !slices.ContainsFunc(old.Rules, func(o importer.Rule) bool { return reflect.DeepEqual(o, r) }) {
				old.Rules = append(old.Rules, r)
			}
		}
		return old.Name
	}
	p.draft.Targets = append(p.draft.Targets, t)
	return t.Name
}

// targets makes a target of each service that is built, and groups of profiles.
func (p *project) targets() {
	var all, built []*service
	for _, s := range p.services {
		if i := slices.IndexFunc(all, func(old *service) bool { return old.name == s.name }); i >= 0 {
			all[i].body = append(all[i].body, s.body...) // a later file
			continue
		}
		all = append(all, s)
	}
	for _, s := range all {
		if b, _ := s.last("build"); !b.Is() {
			continue
		}
		built = append(built, s)
		p.ours[s.name] = p.names.Take(s.name)
		if p.ours[s.name] != s.name {
			p.draft.Tell(s.pos, "", "service %q is called %q", s.name, p.ours[s.name])
		}
	}
	var profiles []string
	members := map[string][]string{}
	var always []string
	join := func(list []string, name string) []string {
		if slices.Contains(list, name) {
			return list
		}
		return append(list, name)
	}
	for _, s := range built {
		name := p.add(s)
		in, _ := s.last("profiles")
		for _, profile := range in.Texts() {
			profiles = join(profiles, profile)
			members[profile] = join(members[profile], name)
		}
		if len(in.Texts()) == 0 {
			always = join(always, name)
		}
	}
	for i := range p.draft.Targets {
		for k, e := range p.draft.Targets[i].Contexts {
			if other := p.same[strings.TrimPrefix(e.Value, "target:")]; other != "" {
				p.draft.Targets[i].Contexts[k].Value = "target:" + other
			}
		}
	}
	if len(profiles) > 0 && len(always) > 0 {
		p.draft.Groups = append(p.draft.Groups, importer.Group{Name: "default", Targets: always})
	}
	for _, name := range profiles {
		p.draft.Groups = append(p.draft.Groups, importer.Group{Name: p.names.Take(name), Targets: members[name]})
	}
}
