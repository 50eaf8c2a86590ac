package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"kaniko-build/executor"
	"kaniko-build/graph"
	"kaniko-build/schema"
	"kaniko-build/schema/diag"
)

// normalPlatforms are those of --platform, each once, in the order given.
func normalPlatforms(list []string) (out []string) {
	for _, p := range list {
		if p = schema.NormalPlatform(p); p != "" && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// platformValue is a flag for one platform.
type platformValue string

func (p *platformValue) Set(text string) error {
	if err := checkPlatform(text); err != nil {
		return err
	}
	*p = platformValue(text)
	return nil
}

func (p *platformValue) String() string { return string(*p) }

func (p *platformValue) Type() string { return "string" }

// checkPlatform refuses what is no platform, and what is a known one misspelt.
func checkPlatform(text string) error {
	near, ok := schema.CheckPlatform(schema.NormalPlatform(text))
	switch {
	case ok:
		return nil
	case near != "":
		return fmt.Errorf("no such platform: did you mean %q?", near)
	}
	return errors.New("write OS/ARCH[/VARIANT], such as linux/amd64")
}

// checkPlatforms is checkPlatform for the values of a flag that has many.
func checkPlatforms(flag string, list []string) error {
	for _, p := range list {
		if p == "" {
			continue
		}
		if err := checkPlatform(p); err != nil {
			return usageError{fmt.Errorf("--%s %q: %w", flag, p, err)}
		}
	}
	return nil
}

// several is what a build for more than one platform consists of: a node for each,
// and the index that joins them and has the names, as targets of a manifest are built.
type several struct {
	requests []executor.Request
	joins    joins
	graph    *graph.Graph
	outputs  map[string][]executor.Output // by node
}

// each makes that of the request for one. An image for one platform is a node alone,
// with no graph.
func (f *buildFlags) each(r executor.Request, outputs []executor.Output) (several, error) {
	if len(f.platforms) < 2 {
		return several{requests: []executor.Request{r}, outputs: map[string][]executor.Output{r.ID: outputs}}, nil
	}
	out := several{outputs: map[string][]executor.Output{}}
	j := join{names: r.Names, annotations: r.Format.Index, manifests: r.Format.Descriptor, descriptor: r.Format.IndexDescriptor, docker: f.format == "docker"}
	ids := []graph.ID{graph.ID(r.ID)}
	var edges []graph.Edge
	for _, p := range f.platforms {
		one := r
		one.ID, one.Platform, one.Nameless = r.ID+"@"+p, p, true
		j.nodes = append(j.nodes, one.ID)
		out.requests = append(out.requests, one)
		ids = append(ids, graph.ID(one.ID))
		edges = append(edges, graph.Edge{Node: graph.ID(r.ID), Needs: graph.ID(one.ID), Reason: "platforms " + p})
		for _, o := range outputs {
			if o.Type == "local" { // a directory for each, named as buildx names it
				o.Dest = filepath.Join(o.Dest, strings.ReplaceAll(p, "/", "_"))
				out.outputs[one.ID] = append(out.outputs[one.ID], o)
			}
		}
	}
	for _, o := range outputs {
		if o.Type == "oci" {
			out.outputs[r.ID] = append(out.outputs[r.ID], o)
		}
	}
	out.joins = joins{r.ID: j}
	var err error
	out.graph, err = graph.New(ids, edges)
	return out, err
}

// holdsPlatforms refuses outputs that hold one platform of several, and those of an
// index that is another one than the image's own.
func (f *buildFlags) holdsPlatforms(outputs []executor.Output) error {
	if len(f.platforms) < 2 {
		return nil
	}
	asIs := f.push || slices.ContainsFunc(outputs, func(o executor.Output) bool { return !o.Rewrite })
	for _, o := range outputs {
		if o.Type == "oci" && o.Rewrite && asIs && !f.reproducible {
			return usageError{errors.New("rewrite-timestamp: the times of an image for several platforms are set everywhere or nowhere\n  hint: --reproducible sets them in the image itself")}
		}
		if o.Type != "oci" && o.Type != "local" {
			return usageError{fmt.Errorf("an output of the type %s holds one platform, and the image is for %s\n  hint: write type=oci, or type=local with a directory for each; or build one platform", o.Type, strings.Join(f.platforms, " and "))}
		}
	}
	return nil
}

// findEngine finds the engine for --load before anything is built, so that one that
// would not take the image is told in time.
func (f *buildFlags) findEngine(ctx context.Context) (engine, error) {
	if len(f.tags) == 0 {
		return engine{}, usageError{errors.New("--load needs a name\n  hint: add -t NAME:TAG")}
	}
	e, err := findEngine(ctx, "")
	if err != nil || e.whole || len(f.platforms) < 2 {
		return e, err
	}
	hint := "build one platform, or push the image: --push"
	if e.name == "docker" {
		hint = `turn on its containerd image store ({"features": {"containerd-snapshotter": true}} in daemon.json), ` + hint
	}
	return e, &diag.Problem{What: fmt.Sprintf("--load: %s here holds images for one platform each, not one for %s", e.name, strings.Join(f.platforms, " and ")), Hint: hint}
}

// give gives a built image to an engine, under all of its names.
func (f *buildFlags) give(ctx context.Context, t terminal, x *executor.Executor, e engine) error {
	for _, name := range f.tags {
		s, err := x.Stored(name)
		if err != nil {
			return err
		}
		if err := e.give(ctx, t, s, ""); err != nil {
			return err
		}
	}
	return nil
}
