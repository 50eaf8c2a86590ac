package executor

import "kaniko-build/executor/internal/image"

// Round is the executor for some builds of a process that goes on for long. It
// shares the store, what registries said and what is known of files; what its
// nodes hold open its own Close releases, and nothing else. Its nodes may be
// parents of those of later rounds, see InspectBeside. Close it before the
// executor that it is made of.
func (x *Executor) Round() *Executor {
	if x.of != nil {
		x = x.of
	}
	return &Executor{
		opts: x.opts, store: x.store, registry: x.registry, keys: x.keys, tokens: x.tokens, fetcher: x.fetcher, caches: x.caches,
		isolation: x.isolation, hashers: x.hashers, of: x, layouts: map[string]*image.Layout{},
	}
}

// Forget lets later inspections ask registries again what tags stand for.
func (x *Executor) Forget() { x.registry.Forget() }

// Stands lets a node stand for one that was looked at before and is the same: what
// becomes of that one, or has become, counts for both.
func (n *Node) Stands(before *Node) {
	if first := before.original(); first != nil {
		before = first
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.twin = before
}

// original is the node that this one stands for, nil if it stands for itself.
func (n *Node) original() *Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.result != nil {
		return nil
	}
	return n.twin
}

// ContextChanged tells whether a build of the node met a file that is not what it
// was when the node was inspected: its failure says nothing of the files as they
// are now.
func (n *Node) ContextChanged() bool { return n.sources != nil && n.sources.changed.Load() }
