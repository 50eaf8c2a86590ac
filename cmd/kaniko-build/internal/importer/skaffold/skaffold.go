// Package skaffold reads skaffold.yaml: artifacts that Docker or kaniko build
// become targets.
//
//	skaffold.yaml ─┬─ requires ──> configs ─ profiles ─> artifacts ─> Draft
//	               └─ other files ──┘
//
// Required configs of other directories are read too, so that the manifest builds
// what skaffold would. What is not about building is left out, and said.
package skaffold

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"kaniko-build/cmd/kaniko-build/internal/importer"
	"kaniko-build/schema/diag"
)

// ReadFile reads a file that a config names, by its path.
type ReadFile func(name string) ([]byte, error)

// project is what is read.
type project struct {
	read    ReadFile
	paths   *importer.Paths
	draft   *importer.Draft
	configs []config
	done    map[string]bool // files and their configs
	names   importer.Names
	ours    map[string]string // targets by image
	secrets map[string]string // ids by what they are made of
	ignored []string          // paths that some image ignores, which hold for a run
	ids     importer.Names
	filled  bool // ${NAME} is put in before skaffold reads the file: no image has such a name
}

// config is one document and the directory its paths count from.
type config struct {
	doc  importer.YAML
	dir  string
	name string
}

const maxFiles = 200

// Import reads a file and the configs that it requires.
func Import(name string, text []byte, paths *importer.Paths, read ReadFile) (*importer.Draft, error) {
	p := &project{
		read: read, paths: paths, draft: &importer.Draft{}, done: map[string]bool{}, names: importer.Names{},
		ours: map[string]string{}, secrets: map[string]string{}, ids: importer.Names{},
	}
	if err := p.file(name, text, ".", nil); err != nil {
		return nil, err
	}
	for _, c := range p.configs {
		for _, a := range c.doc.At("build", "artifacts").Items() {
			p.name(a)
			p.filled = p.filled || shellName.MatchString(a.Get("image").Text()+a.Get("imageName").Text())
		}
	}
	p.ignore()
	for _, c := range p.configs {
		p.config(c)
	}
	p.profiles()
	if len(p.draft.Targets) == 0 {
		return nil, &diag.Problem{Pos: diag.Pos{File: name}, What: "nothing is built by Docker or kaniko", Hint: "artifacts of other builders have no Dockerfile"}
	}
	if c := p.draft.Cluster; c != nil {
		c.Platforms = p.platforms()
	}
	for _, profile := range p.draft.Profiles {
		if profile.Cluster != nil {
			profile.Cluster.Platforms = p.platforms()
		}
	}
	return p.draft, nil
}

// platforms are those that nodes may be for.
func (p *project) platforms() []string {
	var out []string
	for _, t := range p.draft.Targets {
		for _, one := range t.Platforms {
			if _, _, ok := strings.Cut(one.Value, "/"); ok && !slices.Contains(out, one.Value) && !importer.HasReference(one.Value) {
				out = append(out, one.Value)
			}
		}
		if len(t.Platforms) == 0 { // that of who builds
			for _, one := range []string{"linux/amd64", "linux/arm64"} {
				if !slices.Contains(out, one) {
					out = append(out, one)
				}
			}
		}
	}
	return out
}

// file reads the configs of a file, required ones first; only those of some names
// if there are any.
func (p *project) file(name string, text []byte, dir string, only []string) error {
	docs, err := importer.ReadYAML(name, text)
	if err != nil {
		return err
	}
	for _, doc := range docs {
		own := doc.At("metadata", "name").Text()
		key := filepath.Clean(name) + "\n" + own
		if len(only) > 0 && !slices.Contains(only, own) || p.done[key] || len(p.configs) > maxFiles {
			continue
		}
		p.done[key] = true
		for _, r := range doc.Get("requires").Items() {
			if err := p.require(name, text, dir, r); err != nil {
				return err
			}
		}
		p.configs = append(p.configs, config{doc, dir, own})
	}
	return nil
}

func (p *project) require(name string, text []byte, dir string, r importer.YAML) error {
	at, only := r.Get("path"), r.Get("configs").Texts()
	switch {
	case r.Get("git").Is() || r.Get("googleCloudStorage").Is():
		p.draft.Drop(r.Pos(), "import it there, and include it: {git: ..., ref: ..., path: ...}", "a config from elsewhere")
		return nil
	case !at.Is():
		return p.file(name, text, dir, only)
	}
	rel := filepath.ToSlash(at.Text())
	file := filepath.Join(filepath.Dir(name), filepath.FromSlash(rel))
	if ext := path.Ext(rel); ext != ".yaml" && ext != ".yml" {
		file = filepath.Join(file, "skaffold.yaml")
	} else {
		rel = path.Dir(rel)
	}
	other, err := p.read(file)
	if errors.Is(err, fs.ErrNotExist) {
		p.draft.Drop(at.Pos(), "", "config %q, which is not there", at.Text())
		return nil
	}
	if err != nil {
		return fmt.Errorf("read a required config: %w", err)
	}
	return p.file(file, other, path.Join(dir, rel), only)
}

// name gives an artifact the name of its target: the last part of its image's.
func (p *project) name(a importer.YAML) {
	image := a.Get("image").Text()
	if a.Get("imageName").Is() {
		image = a.Get("imageName").Text()
	}
	if p.ours[image] == "" {
		last := path.Base(image)
		if i := strings.IndexByte(last, ':'); i > 0 {
			last = last[:i]
		}
		p.ours[image] = p.names.Take(last)
	}
}

// ownParts are those of a config that are read, or say what it is.
var ownParts = []string{"apiVersion", "kind", "metadata", "requires", "build", "profiles"}

// parts of a config that are not about building.
var otherParts = []string{"deploy", "test", "verify", "manifests", "portForward", "customActions", "resourceSelector"}

func (p *project) config(c config) {
	for _, pair := range c.doc.Pairs() {
		switch {
		case !pair.Value.Is() || slices.Contains(ownParts, pair.Key):
		case slices.Contains(otherParts, pair.Key):
			p.draft.Drop(pair.Value.Pos(), "", "%s: this program builds images", pair.Key)
		default:
			p.draft.Drop(pair.Pos, "", "unknown key %q", pair.Key)
		}
	}
	build := c.doc.Get("build")
	tags := p.tagPolicy(build.Get("tagPolicy"))
	policy := tags
	each := p.environment(build)
	if len(p.configs) == 1 {
		defaults := each
		defaults.Tags, tags, each = tags, nil, importer.Target{}
		p.draft.Defaults = &defaults
	}
	list := build.Get("artifacts")
	for _, a := range list.Items() {
		if t, ok := p.artifact(c, a); ok {
			t.Tags = whole(tags, policy, t.Tags)
			t.CPU, t.Memory, t.Timeout = each.CPU, each.Memory, each.Timeout
			p.draft.Targets = append(p.draft.Targets, t)
		}
	}
}

// whole is the tags of an image that has names of its own: these behind what the
// policy says. One without has those that are given.
func whole(given, policy, own []importer.Tag) []importer.Tag {
	if len(own) == 0 {
		return given
	}
	return append(orLatest(policy), own...)
}

// orLatest is a policy's tags, written out.
func orLatest(policy []importer.Tag) []importer.Tag {
	if len(policy) == 0 {
		return []importer.Tag{{Text: importer.Text{Value: "latest"}}}
	}
	return slices.Clone(policy)
}

// environment is where skaffold builds, and with which registries.
func (p *project) environment(build importer.YAML) (each importer.Target) {
	for _, item := range build.Get("insecureRegistries").Texts() {
		p.insecure(item)
	}
	if build.At("local", "push").True() {
		p.draft.Push = true
	}
	var cluster *importer.Cluster
	cluster, each = p.cluster(build)
	switch {
	case cluster == nil:
	case p.draft.Cluster == nil:
		p.draft.Cluster = cluster
		p.draft.Tell(build.Pos(), "--runner local builds on this machine", "images are built in pods, as there")
	case !reflect.DeepEqual(p.draft.Cluster, cluster):
		p.draft.Drop(build.Get("cluster").Pos(), "a manifest has one runner", "cluster: that of another config is used")
	}
	p.local(build)
	if g := build.Get("googleCloudBuild"); g.Is() {
		p.draft.Drop(g.Pos(), "images are built where the program runs", "googleCloudBuild")
	}
	return each
}

// buildParts are the parts of build that are read.
var buildParts = []string{"artifacts", "insecureRegistries", "tagPolicy", "platforms", "local", "cluster", "googleCloudBuild"}

// local tells of what the engine on this machine would be told, and of what is not known.
func (p *project) local(build importer.YAML) {
	for _, pair := range build.Get("local").Pairs() {
		switch pair.Key {
		case "push":
		case "concurrency":
			p.draft.Tell(pair.Pos, "run: {jobs: N}", "local.concurrency: how much runs at once follows from the machine")
		default:
			p.draft.Tell(pair.Pos, "", "local.%s changes nothing here", pair.Key)
		}
	}
	for _, pair := range build.Pairs() {
		if !slices.Contains(buildParts, pair.Key) {
			p.draft.Drop(pair.Pos, "", "build.%s", pair.Key)
		}
	}
}

// registry is what the manifest says of a host, of which kaniko takes addresses and
// more names for the hub than one.
func (p *project) registry(host string) *importer.Registry {
	host = strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(host, "https://"), "http://"), "/")
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		host = "docker.io"
	}
	i := slices.IndexFunc(p.draft.Registries, func(r importer.Registry) bool { return r.Host == host })
	if i < 0 {
		i = len(p.draft.Registries)
		p.draft.Registries = append(p.draft.Registries, importer.Registry{Host: host})
	}
	return &p.draft.Registries[i]
}

// mirror adds a registry that is asked before a host.
func (p *project) mirror(host, mirror string) {
	if plain, ok := strings.CutPrefix(mirror, "http://"); ok {
		mirrored, _, _ := strings.Cut(plain, "/")
		p.insecure(mirrored)
		mirror = plain
	}
	mirror = strings.TrimSuffix(strings.TrimPrefix(mirror, "https://"), "/")
	if r := p.registry(host); !slices.Contains(r.Mirrors, mirror) {
		r.Mirrors = append(r.Mirrors, mirror)
	}
}

func (p *project) insecure(host string) { p.registry(host).Insecure = true }

// tagPolicy is the tags that a policy gives.
func (p *project) tagPolicy(v importer.YAML) []importer.Tag {
	plain := func(s string) importer.Tag { return importer.Tag{Text: importer.Text{Value: s}} }
	for _, pair := range v.Pairs() {
		switch pair.Key {
		case "gitCommit":
			prefix := importer.Literal(pair.Value.Get("prefix").Text())
			switch variant := pair.Value.Get("variant").Text(); variant {
			case "CommitSha":
				return []importer.Tag{plain(prefix + "${git.sha:-latest}")}
			case "AbbrevCommitSha":
				return []importer.Tag{plain(prefix + "${git.short:-latest}")}
			case "", "Tags":
				tag, short := plain(prefix+"${git.tag}"), plain(prefix+"${git.short:-latest}")
				tag.If, short.If = "git.tag != ''", "git.tag == ''"
				return []importer.Tag{tag, short}
			default:
				p.draft.Drop(pair.Pos, "${git.sha} and ${git.short} are there", "tagPolicy gitCommit with variant %q", variant)
				return []importer.Tag{plain(prefix + "${git.sha}")}
			}
		case "sha256":
			return nil // latest
		case "inputDigest":
			return []importer.Tag{{Text: importer.Text{Value: "in-${input.digest}"}, Role: "identity"}}
		case "dateTime":
			if f := pair.Value.Get("format"); f.Is() {
				p.draft.Drop(f.Pos(), "${build.date} has one form", "the format of tagPolicy dateTime")
			}
			return []importer.Tag{plain("${build.date|slug}")}
		case "envTemplate":
			t := p.template(pair.Value.Get("template"))
			if _, tag, whole := importer.Cut(t.Value); whole {
				t.Value = tag
			}
			return []importer.Tag{{Text: t}}
		case "customTemplate":
			p.draft.Drop(pair.Pos, "write tags: by hand", "tagPolicy customTemplate")
		default:
			p.draft.Drop(pair.Pos, "", "tagPolicy %q", pair.Key)
		}
	}
	return nil
}

// shellName is what another program puts in before skaffold reads the file.
var shellName = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

// template is a text of the manifest for one with {{.NAME}} in it.
func (p *project) template(v importer.YAML) importer.Text {
	rest, out := v.Text(), ""
	for {
		before, after, ok := strings.Cut(rest, "{{")
		if before = importer.Literal(before); p.filled {
			before = shellName.ReplaceAllString(before, "$${env.$1:?set it}")
		}
		out += before
		if !ok {
			break
		}
		var expr string
		if expr, rest, ok = strings.Cut(after, "}}"); !ok {
			break
		}
		expr = strings.TrimSpace(strings.Trim(strings.TrimSpace(expr), "-"))
		name, field := strings.CutPrefix(expr, ".")
		switch {
		case field && name == "IMAGE_NAME":
			out += "${target.base}"
		case field && isName(name):
			out += "${env." + name + ":-}"
		default:
			p.draft.Drop(v.Pos(), "", "template {{%s}}", expr)
		}
	}
	return importer.Text{Value: out}
}

func isName(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	})
}
