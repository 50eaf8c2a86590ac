package executor

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/executor/internal/image"
)

// The predicate of provenance is that of SLSA 1.0 with the fields and the build type
// that BuildKit documents (its docs/attestations/slsa-definitions.md). It says
// nothing that the inputs of the image and the image do not say, so that it is the
// same whoever makes it, and whenever: there is no invocationId, and the times are
// those at which the first and the last layer were made.

const (
	provenanceType = "https://slsa.dev/provenance/v1"
	buildType      = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md"
	frontend       = "dockerfile.v0"
)

type provenance struct {
	BuildDefinition buildDefinition `json:"buildDefinition"`
	RunDetails      runDetails      `json:"runDetails"`
}

type buildDefinition struct {
	BuildType            string             `json:"buildType"`
	ResolvedDependencies []material         `json:"resolvedDependencies,omitempty"`
	ExternalParameters   externalParameters `json:"externalParameters"`
	InternalParameters   internalParameters `json:"internalParameters"`
}

// material is something that was read from outside.
type material struct {
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest,omitempty"`
}

type externalParameters struct {
	ConfigSource configSource `json:"configSource"`
	Request      asked        `json:"request"`
}

type configSource struct {
	URI  string `json:"uri,omitempty"`
	Path string `json:"path,omitempty"`
}

// asked is the request in the words of BuildKit's frontend.
type asked struct {
	Frontend string            `json:"frontend"`
	Args     map[string]string `json:"args,omitempty"`
	Secrets  []mounted         `json:"secrets,omitempty"`
	SSH      []mounted         `json:"ssh,omitempty"`
	Locals   []local           `json:"locals,omitempty"`
}

type mounted struct {
	ID       string `json:"id"`
	Optional bool   `json:"optional,omitempty"`
}

type local struct {
	Name string `json:"name"`
}

type internalParameters struct {
	BuildConfig     *buildConfig `json:"buildConfig,omitempty"`
	BuilderPlatform string       `json:"builderPlatform"`
	TargetPlatform  string       `json:"targetPlatform,omitempty"`
}

type runDetails struct {
	Builder struct {
		ID string `json:"id"`
	} `json:"builder"`
	Metadata runMetadata `json:"metadata"`
}

type runMetadata struct {
	StartedOn    *time.Time       `json:"startedOn,omitempty"`
	FinishedOn   *time.Time       `json:"finishedOn,omitempty"`
	BuildKit     buildkitMetadata `json:"buildkit_metadata"`
	Hermetic     bool             `json:"buildkit_hermetic,omitempty"`
	Completeness struct {
		Request              bool `json:"request"`
		ResolvedDependencies bool `json:"resolvedDependencies"`
	} `json:"buildkit_completeness"`
	Reproducible bool `json:"buildkit_reproducible,omitempty"`
}

type buildkitMetadata struct {
	Source *stepSource                       `json:"source,omitempty"`
	Layers map[string][][]ocispec.Descriptor `json:"layers,omitempty"`
}

// provenance is the predicate about an image that n makes: img, with those layers.
func (n *Node) provenance(img image.Assembled, c chain) (image.Predicate, error) {
	var p provenance
	hide := newMasker(n.secretValues())
	d := &p.BuildDefinition
	d.BuildType = buildType
	d.ResolvedDependencies = n.materials(hide)
	d.ExternalParameters.ConfigSource = configSource{URI: n.Attest.Source, Path: path.Base(n.Dockerfile.Name)}
	req := &d.ExternalParameters.Request
	*req = asked{Frontend: frontend, Args: n.frontendArgs(hide)}
	req.Locals = n.locals()
	in := &d.InternalParameters
	in.BuilderPlatform = platforms.Format(platforms.Normalize(platforms.DefaultSpec()))
	if img.Manifest.Platform != nil {
		in.TargetPlatform = platforms.Format(*img.Manifest.Platform)
	}
	p.RunDetails.Builder.ID = n.Attest.Builder
	m := &p.RunDetails.Metadata
	m.StartedOn, m.FinishedOn = times(c.layers[len(c.layers)-n.ownLayers():])
	m.Completeness.Request = true
	m.Completeness.ResolvedDependencies = len(req.Locals) == 0
	m.Hermetic = m.Completeness.ResolvedDependencies && !n.network()
	m.Reproducible = n.clamp() != nil
	if n.Attest.Provenance == ProvenanceMax {
		req.Secrets, req.SSH = n.mounts()
		steps := n.buildSteps(hide)
		in.BuildConfig = &buildConfig{Definition: steps.list}
		m.BuildKit.Source = steps.text(n)
		m.BuildKit.Layers = steps.layers(n, img)
	} else { // as BuildKit does, which calls it incomplete then
		for name := range req.Args {
			if strings.HasPrefix(name, "build-arg:") || strings.HasPrefix(name, "label:") {
				delete(req.Args, name)
				m.Completeness.Request = false
			}
		}
	}
	b, err := json.Marshal(p)
	if err != nil {
		return image.Predicate{}, fmt.Errorf("make provenance of %s: %w", n.ID, err)
	}
	return image.Predicate{Type: provenanceType, JSON: b}, nil
}

// ownLayers is how many layers of the image its stages made, not a base.
func (n *Node) ownLayers() int {
	own := 0
	for _, k := range n.spans() {
		if n.Format.Single {
			k = min(k, 1)
		}
		own += k
	}
	return own
}

// times are when the first and the last of layers were made; nil without any.
func times(layers []builtLayer) (first, last *time.Time) {
	for _, l := range layers {
		if l.Created == nil {
			continue
		}
		t := l.Created.UTC()
		if first == nil || t.Before(*first) {
			first = &t
		}
		if last == nil || t.After(*last) {
			last = &t
		}
	}
	return first, last
}

// frontendArgs is what the request asks for, as docker build would have told it to
// BuildKit; but not no-cache, as an image that was made afresh is no other.
func (n *Node) frontendArgs(hide masker) map[string]string {
	args := map[string]string{}
	for name, value := range n.Args {
		if value != nil {
			args["build-arg:"+name] = hide.hide(*value)
		}
	}
	for name, value := range n.Labels {
		args["label:"+name] = hide.hide(value)
	}
	for name, value := range n.Contexts {
		switch id, node := strings.CutPrefix(value, "node:"); {
		case node:
			value = "input:" + id
		case isDirectory(value), strings.HasPrefix(value, layoutScheme): // where, is nobody's business
			value = "local:" + name
		}
		args["context:"+name] = hide.hide(Redacted(value))
	}
	if n.Stage != "" {
		args["target"] = n.Stage
	}
	if n.Network != "" {
		args["force-network-mode"] = n.Network
	}
	return args
}

// Redacted is an address without the password in it, as provenance shows it.
func Redacted(address string) string {
	u, err := url.Parse(address)
	if scheme, rest, ok := strings.Cut(address, "://"); err != nil && ok { // what is before an @ is a user, whatever is wrong with it
		host, path, _ := strings.Cut(rest, "/")
		return scheme + "://" + host[strings.LastIndexByte(host, '@')+1:] + "/" + path
	}
	if err != nil || u.User == nil {
		return address
	}
	u.User = url.UserPassword("xxxxx", "xxxxx")
	return u.String()
}

// locals are the directories that were read, none of which has a digest.
func (n *Node) locals() []local {
	names := map[string]bool{}
	if n.Attest.Source == "" {
		names["dockerfile"] = true
	}
	for _, st := range n.program.Stages {
		for _, s := range st.Steps {
			for _, src := range stepSources(&s) {
				if src.Kind == dockerfile.FromContext && (s.Copy != nil || readsContext(s.Run, src)) {
					names[cmp.Or(src.Context, "context")] = true
				}
			}
		}
	}
	var out []local
	for name := range names {
		out = append(out, local{name})
	}
	slices.SortFunc(out, func(a, b local) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// readsContext tells whether a RUN binds a context: a cache mount from nothing looks
// as if it came from there.
func readsContext(r *dockerfile.Run, src dockerfile.Source) bool {
	return slices.ContainsFunc(r.Mounts, func(m dockerfile.Mount) bool {
		return m.From == src && (m.Type == dockerfile.MountBind || src.Context != "")
	})
}

// materials are the images that were read, and what ADD fetched.
func (n *Node) materials(hide masker) []material {
	var out []material
	for _, r := range n.program.Images() {
		b := n.images[imageKey(r)]
		if b == nil {
			continue
		}
		sum, kind, ref := b.named, "docker", r.Ref
		if value := n.Contexts[r.Context]; r.Context != "" {
			switch {
			case strings.HasPrefix(value, "docker-image://"):
				ref = strings.TrimPrefix(value, "docker-image://")
			case strings.HasPrefix(value, layoutScheme):
				kind, ref = "oci", path.Base(strings.TrimPrefix(value, layoutScheme))
			}
		}
		if b.node != nil {
			if r := b.node.Result(); r != nil {
				sum = r.Image.Digest
			}
			if len(b.node.Names) > 0 && r.Context != "" {
				ref = b.node.Names[0]
			}
		}
		m := material{Digest: digestSet(sum)}
		if name, err := image.ParseName(ref); err == nil {
			m.URI = image.PURL(kind, name, &r.Platform)
		}
		if !slices.ContainsFunc(out, func(o material) bool { return o.URI == m.URI }) {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b material) int { return strings.Compare(a.URI, b.URI) })
	for _, m := range n.sources.materials() {
		out = append(out, material{hide.hide(m.URI), m.Digest})
	}
	return out
}

func digestSet(d digest.Digest) map[string]string {
	if d == "" {
		return nil
	}
	return map[string]string{d.Algorithm().String(): d.Encoded()}
}

// mounts are the secrets and agents that RUNs mount, each once, and those that a
// repository of ADD would be shown: BuildKit names them whether they are granted or not.
func (n *Node) mounts() (secrets, agents []mounted) {
	add := func(to *[]mounted, m mounted) {
		for i, old := range *to {
			if old.ID == m.ID {
				(*to)[i].Optional = old.Optional && m.Optional
				return
			}
		}
		*to = append(*to, m)
	}
	n.eachRun(func(r *dockerfile.Run) {
		for _, m := range r.Mounts {
			switch m.Type {
			case dockerfile.MountSecret:
				add(&secrets, mounted{m.ID, !m.Required})
			case dockerfile.MountSSH:
				add(&agents, mounted{m.ID, !m.Required})
			}
		}
	})
	for _, r := range n.remotes() {
		if r.Git == nil {
			continue
		}
		add(&secrets, mounted{gitHeader, true})
		add(&secrets, mounted{gitToken, true})
		if bySSH(r) {
			add(&agents, mounted{remoteAgent, true})
		}
	}
	for _, l := range [][]mounted{secrets, agents} {
		slices.SortFunc(l, func(a, b mounted) int { return strings.Compare(a.ID, b.ID) })
	}
	return secrets, agents
}

// network tells whether a RUN has one.
func (n *Node) network() bool {
	found := false
	n.eachRun(func(r *dockerfile.Run) { found = found || r.Network != "none" })
	return found
}

func (n *Node) eachRun(f func(r *dockerfile.Run)) {
	for _, st := range n.program.Stages {
		for i := range st.Steps {
			if r := st.Steps[i].Run; r != nil {
				f(r)
			}
		}
	}
}
