package main

import (
	"context"

	"kaniko-build/executor"
	"kaniko-build/plan"
)

// joins is what each index of a plan joins, by its node.
type joins map[string]join

// join is an index before its nodes are inspected.
type join struct {
	names, nodes                       []string
	annotations, manifests, descriptor map[string]string
	docker                             bool
}

// joins are the indexes of a plan, written as flags say.
func (w *workspace) joins(p *plan.Plan, flags runFlags) (joins, error) {
	out := joins{}
	for _, n := range p.Nodes {
		if n.Index == nil {
			continue
		}
		j := join{names: n.Target.RefNames(), docker: n.Target.Executor.Docker}
		if flags.format != "" {
			j.docker = flags.format == "docker"
		}
		for _, id := range n.Index {
			j.nodes = append(j.nodes, string(id))
		}
		var err error
		if j.annotations, err = annotations(n.Target, "index"); err != nil {
			return nil, err
		}
		if j.manifests, err = annotations(n.Target, "manifest-descriptor"); err != nil {
			return nil, err
		}
		if j.descriptor, err = annotations(n.Target, "index-descriptor"); err != nil {
			return nil, err
		}
		out[string(n.ID)] = j
	}
	return out, nil
}

// of are the indexes of nodes that were inspected.
func (j joins) of(nodes map[string]*executor.Node) map[string]*executor.Index {
	out := map[string]*executor.Index{}
	for id, j := range j {
		ix := &executor.Index{ID: id, Names: j.names, Annotations: j.annotations, Manifests: j.manifests, Descriptor: j.descriptor, Docker: j.docker}
		for _, n := range j.nodes {
			ix.Nodes = append(ix.Nodes, nodes[n])
		}
		out[id] = ix
	}
	return out
}

// made is what a node of the graph makes: the image of a node, or an index.
type made struct {
	id    string
	names []string
	image interface {
		executor.Published
		Result() *executor.Result
	}
	build  func(context.Context) (executor.Result, error)
	export func(context.Context, executor.Output) (notes []string, err error)
	push   func(context.Context) error
}

func (r *run) made(id string) made {
	if ix := r.indexes[id]; ix != nil {
		return made{id: id, names: ix.Names, image: ix,
			build: func(ctx context.Context) (executor.Result, error) { return r.x.Join(ctx, ix) },
			export: func(ctx context.Context, o executor.Output) ([]string, error) {
				return nil, r.x.ExportIndex(ctx, ix, o)
			},
			push: func(ctx context.Context) error { return r.x.PushIndex(ctx, ix) },
		}
	}
	n := r.nodes[id]
	return made{id: id, names: n.Names, image: n,
		build:  func(ctx context.Context) (executor.Result, error) { return r.x.Build(ctx, n) },
		export: func(ctx context.Context, o executor.Output) ([]string, error) { return r.x.Export(ctx, n, o) },
		push:   func(ctx context.Context) error { return r.x.Push(ctx, n) },
	}
}
