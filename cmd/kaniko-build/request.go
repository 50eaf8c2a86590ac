package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"kaniko-build/cmd/kaniko-build/internal/files"
	"kaniko-build/executor"
	"kaniko-build/plan"
	"kaniko-build/schema"
	"kaniko-build/schema/diag"
)

// request is a target as the executor takes it, without its parents.
func (w *workspace) request(t *schema.Target, platform string) (executor.Request, error) {
	r, err := w.wellFormed(t, platform)
	if err != nil && w.keepGoing {
		r.Mistake, err = err, nil
	}
	return r, err
}

// wellFormed is the request of a target without mistakes; with one it is what there was
// of it so far.
func (w *workspace) wellFormed(t *schema.Target, platform string) (executor.Request, error) {
	r := executor.Request{
		ID: t.Name, Context: w.path(t.Context), Stage: t.Stage, Platform: platform,
		Labels: t.Labels, NoCache: t.NoCache, NoCacheFor: t.NoCacheStages, Names: t.RefNames(),
		Args: map[string]*string{}, Contexts: map[string]string{},
	}
	r.Check = w.check()
	r.Format = executor.Format{
		Docker: t.Executor.Docker, Rewrite: t.Executor.Reproducible,
		Compression: executor.Compression{Type: executor.Algorithm(t.Executor.Compression), Level: t.Executor.CompressionLevel},
	}
	if err := r.Format.Check(); err != nil {
		return r, at(err, t.Executor.Pos)
	}
	var err error
	if r.Format.Annotations, err = annotations(t, "manifest"); err != nil {
		return r, err
	}
	if r.Format.Index, err = annotations(t, "index"); err != nil {
		return r, err
	}
	if r.Format.Descriptor, err = annotations(t, "manifest-descriptor"); err != nil {
		return r, err
	}
	if r.Format.IndexDescriptor, err = annotations(t, "index-descriptor"); err != nil {
		return r, err
	}
	if r.Attest = (executor.Attest{Provenance: t.Attest.Provenance, SBOM: t.Attest.SBOM}); r.Attest != (executor.Attest{}) && t.Executor.Docker {
		return r, &diag.Problem{Pos: t.Attest.Pos, What: fmt.Sprintf("target %q: Docker's image format has no attestations", t.Name), Hint: "write imageFormat: oci, or attest: {provenance: false, sbom: false}"}
	}
	r.Network = t.Network
	r.Resources = executor.Resources{MilliCPU: t.Resources.MilliCPU, Memory: t.Resources.Memory}
	for k, v := range t.Args {
		r.Args[k] = &v
	}
	if err := checkDirectory(r.Context, t); err != nil {
		return r, err
	}
	if t.Inline != nil {
		r.Dockerfile = executor.Text{Name: inlineName(t), Data: []byte(t.Inline.Text)}
	} else {
		var err error
		file := w.path(t.Dockerfile)
		if err = w.brought.confined(w.manifest.Repositories, t.Dockerfile, file); err == nil {
			r.Dockerfile, r.Ignore, err = readDockerfile(file, t.Dockerfile)
		}
		if err != nil {
			pos := t.DockerfilePos
			if pos == (diag.Pos{}) {
				pos = t.Pos
			}
			return r, &diag.Problem{Pos: pos, What: fmt.Sprintf("target %q: %v", t.Name, err), Hint: "write it, or name another with dockerfile:"}
		}
	}
	for _, c := range t.Contexts {
		switch c.Kind {
		case schema.ContextDir:
			r.Contexts[c.Name] = w.path(c.Value)
		case schema.ContextImage:
			r.Contexts[c.Name] = "docker-image://" + c.Value
		case schema.ContextOCI:
			r.Contexts[c.Name] = "oci-layout://" + w.path(c.Value)
		case schema.ContextTarget:
			r.Contexts[c.Name] = "node:" + c.Value // made exact by requests
		default:
			r.Contexts[c.Name] = laterContext // fetched when it is built
		}
	}
	return r, nil
}

// laterContext stands for a named context that nobody has asked for yet.
const laterContext = "later:"

// check is the manifest's lint as a check directive.
func (w *workspace) check() string {
	var parts []string
	if l := w.manifest.Lint; len(l.Skip) > 0 {
		parts = append(parts, "skip="+strings.Join(l.Skip, ","))
	}
	if w.manifest.Lint.FailOnWarnings {
		parts = append(parts, "error=true")
	}
	return strings.Join(parts, ";")
}

func checkDirectory(dir string, t *schema.Target) error {
	fi, err := os.Stat(dir)
	if err == nil && fi.IsDir() {
		return nil
	}
	pos := t.ContextPos
	if pos == (diag.Pos{}) {
		pos = t.Pos
	}
	what := fmt.Sprintf("target %q: the context %s does not exist", t.Name, t.Context)
	if err == nil {
		what = fmt.Sprintf("target %q: the context %s is not a directory", t.Name, t.Context)
	}
	return &diag.Problem{Pos: pos, What: what, Hint: "context: is a directory, relative to the manifest"}
}

const (
	maxDockerfile = 16 << 20 // bytes
	maxVarFile    = 2 << 20  // bytes
)

// readDockerfile reads a Dockerfile and the ignore file beside it.
func readDockerfile(file, name string) (executor.Text, *executor.Text, error) {
	b, err := files.Read(file, maxDockerfile)
	var kind *files.KindError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return executor.Text{}, nil, fmt.Errorf("the Dockerfile %s does not exist", name)
	case errors.As(err, &kind):
		return executor.Text{}, nil, fmt.Errorf("the Dockerfile %s is %s", name, kind.Kind)
	case err != nil:
		return executor.Text{}, nil, fmt.Errorf("read the Dockerfile %s: %w", name, files.Pathless(err))
	}
	text := executor.Text{Name: name, Data: b}
	ignore, err := files.Read(file+".dockerignore", maxDockerfile)
	if errors.Is(err, fs.ErrNotExist) {
		return text, nil, nil
	}
	if err != nil {
		return executor.Text{}, nil, fmt.Errorf("read %s.dockerignore: %w", name, files.Pathless(err))
	}
	return text, &executor.Text{Name: name + ".dockerignore", Data: ignore}, nil
}

// requests are a plan's nodes, parents first, as the executor takes them; without
// secrets and agents.
func (w *workspace) requests(p *plan.Plan) ([]executor.Request, error) {
	var out []executor.Request
	for _, id := range p.Order {
		n := p.Node(id)
		if n.Index != nil {
			continue
		}
		r, err := w.request(n.Target, n.Platform)
		if err != nil {
			return nil, err
		}
		r.ID, r.Nameless = string(id), n.Joined
		r.Images = map[string]string{}
		for name, parent := range n.Parents {
			context, _, _ := strings.Cut(name, "::")
			if r.Contexts[name] != "" || r.Contexts[context] != "" {
				r.Contexts[name] = "node:" + string(parent)
			} else {
				r.Images[name] = string(parent)
			}
		}
		for name, published := range n.Published {
			image := published.Image
			if ref, _, late := strings.Cut(image, "${"); late { // fetch completes it
				image = ref[:strings.LastIndexByte(ref, ':')]
			}
			r.Contexts[name] = "docker-image://" + image
		}
		out = append(out, r)
	}
	return out, nil
}
