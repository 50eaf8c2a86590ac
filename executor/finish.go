package executor

import (
	"context"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/executor/internal/image"
	"kaniko-build/executor/internal/layer"
	"kaniko-build/executor/internal/store"
)

// chain is one layer after another of a node's target stage: those of images
// it stands on, then those of its steps.
type chain struct {
	layers []builtLayer
	base   *baseImage // the image at the bottom; nil for scratch
}

// builtLayer is a layer as an image has it.
type builtLayer struct {
	image.SpecLayer
	// ID is the layer's identity, what keys and chains are made of: its diffID
	// before times were set.
	ID digest.Digest
}

// newBuiltLayer is the layer of a step in blob, which holds the layer id, or
// tar, if that is set, the same layer with other times.
func newBuiltLayer(s *jobStep, id, tar digest.Digest, blob ocispec.Descriptor, created time.Time) builtLayer {
	l := builtLayer{ID: id, SpecLayer: image.SpecLayer{Layer: image.Layer{Descriptor: blob, DiffID: id}, Created: &created, Text: s.CreatedBy}}
	if tar != "" {
		l.DiffID = tar
	}
	return l
}

// tar is the diffID of what the blob holds, if its times were set.
func (l builtLayer) tar() digest.Digest {
	if l.DiffID == l.ID {
		return ""
	}
	return l.DiffID
}

// epoch is what times of the image are set to when they are later: the
// SOURCE_DATE_EPOCH, else what the request gives; nil leaves them.
func (n *Node) epoch() *int64 {
	if n.program.Epoch != nil {
		return n.program.Epoch
	}
	return n.Format.Epoch
}

// clamp is the same for times of files in our own layers.
func (n *Node) clamp() *int64 {
	if !n.Format.Rewrite {
		return nil
	}
	return n.epoch()
}

// collect lists the layers of the target stage with their blobs. made gives
// those of steps; when it lacks one, ok is false.
func (x *Executor) collect(n *Node, made func(s *jobStep) (builtLayer, bool)) (c chain, ok bool) {
	var walk func(i int) bool
	walk = func(i int) bool {
		st := &n.program.Stages[i]
		switch st.Base.Kind {
		case dockerfile.FromStage:
			if !walk(st.Base.Stage) {
				return false
			}
		case dockerfile.FromImage:
			b := n.images[imageKey(*st.Base.Image)]
			c.base = b
			if b.node != nil {
				if b.node.Result() == nil {
					return false
				}
				c.layers = append(c.layers, b.node.built()...) // none, of an image from scratch that adds nothing
			}
			for _, l := range b.layers {
				c.layers = append(c.layers, builtLayer{ID: l.DiffID, SpecLayer: image.SpecLayer{Layer: image.Layer{Descriptor: l.Blob, DiffID: l.DiffID}}})
			}
		}
		for k := range n.job.Stages[i].Steps {
			s := &n.job.Stages[i].Steps[k]
			if len(s.Lines) == 0 {
				continue
			}
			l, ok := made(s)
			if !ok {
				return false
			}
			if e := n.epoch(); e != nil {
				t := time.Unix(*e, 0).UTC()
				l.Created = &t // exactly, whatever this machine's clock says
			}
			c.layers = append(c.layers, l)
		}
		return true
	}
	ok = walk(len(n.program.Stages) - 1)
	return c, ok
}

// Result is the image of a node, nil before it was built.
func (n *Node) Result() *Result {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.result == nil && n.twin != nil {
		return n.twin.Result()
	}
	return n.result
}

// built is the layers of a node whose image is in the store; nil before.
func (n *Node) built() []builtLayer {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.result == nil && n.twin != nil {
		return n.twin.built()
	}
	return n.layers
}

// fromKeys finds a step's layer by its key, with a blob in the encoding asked
// for, in the store or in a cache outside.
func (x *Executor) fromKeys(full bool, p store.Params) func(s *jobStep) (builtLayer, bool) {
	return func(s *jobStep) (builtLayer, bool) {
		if s.Fresh || s.ByContent {
			return builtLayer{}, false
		}
		if l, ok := x.keyed(s, full, p); ok {
			return l, true
		}
		o := x.cached(s)
		if o == nil || o.Params != p {
			return builtLayer{}, false
		}
		created, l := o.Entry.Created, image.Layer{Descriptor: o.Layer.Blob, DiffID: o.Layer.DiffID}
		return builtLayer{ID: l.DiffID, SpecLayer: image.SpecLayer{Layer: l, Created: &created, Text: s.CreatedBy}}, true
	}
}

func (x *Executor) keyed(s *jobStep, full bool, p store.Params) (builtLayer, bool) {
	e, err := x.store.GetKey(s.Key, full)
	if err != nil {
		return builtLayer{}, false
	}
	v, ok := x.store.GetVariant(e.DiffID, p)
	if !ok {
		return builtLayer{}, false
	}
	return newBuiltLayer(s, e.DiffID, v.Tar, v.Descriptor, e.Created), true
}

// docker tells whether a node's image has Docker's media types.
func (n *Node) docker(base *baseImage) bool {
	f := n.Format
	switch {
	case !f.Inherit || f.Compression.Type == layer.Zstd:
		return f.Docker
	case base == nil:
		return true
	case base.node != nil:
		return base.node.Result().Image.MediaType == image.DockerManifest
	}
	return base.docker
}

// assemble makes config and manifest of a chain of layers and puts them into
// the store.
func (x *Executor) assemble(n *Node, c chain) (image.Assembled, error) {
	target := n.program.Target()
	spec := image.Spec{Config: target.Config, History: n.history(), Docker: n.docker(c.base), Annotations: n.Format.Annotations}
	for _, l := range c.layers {
		spec.Layers = append(spec.Layers, l.SpecLayer)
	}
	if c.base != nil {
		spec.Base = c.base.config
	}
	if e := n.epoch(); e != nil {
		t := time.Unix(*e, 0).UTC()
		spec.Epoch = &t
	}
	if spec.Config.OS == "" {
		spec.Config.OS = n.program.Platform.OS
	}
	if spec.Config.Architecture == "" {
		spec.Config.Architecture, spec.Config.Variant = n.program.Platform.Architecture, n.program.Platform.Variant
	}
	// The records of the base have times of their own; those of steps that made
	// no layer take that of the layer before them.
	out, err := image.Assemble(spec)
	if err != nil {
		return out, err
	}
	if !spec.Docker {
		out.Manifest.Annotations = n.Format.Descriptor
	}
	return out, out.Put(x.store)
}

// finish makes the image of a node whose layers all are in the store, and
// gives it its names.
func (x *Executor) finish(ctx context.Context, n *Node, c chain) (_ Result, err error) {
	if n.Format.Single {
		if c, err = x.joined(ctx, n, c); err != nil {
			return Result{}, err
		}
	}
	img, err := x.assemble(n, c)
	if err != nil {
		return Result{}, fmt.Errorf("assemble the image of %s: %w", n.ID, err)
	}
	r := Result{Node: n.ID, Manifest: img.Manifest, Image: img.Manifest, Config: img.Config, Size: img.Size(), Layers: len(c.layers), Names: n.Names}
	n.mu.Lock()
	n.layers = c.layers
	n.mu.Unlock()
	if n.Attest.any() {
		if r.Attested, err = x.attest(ctx, n, img, c, false); err != nil {
			return Result{}, fmt.Errorf("attest the image of %s: %w", n.ID, err)
		}
		if !n.Nameless { // else its index has both
			if r.Manifest, err = x.together(n, r.Image, r.Attested); err != nil {
				return Result{}, err
			}
		}
	}
	n.mu.Lock()
	n.result = &r
	n.mu.Unlock()
	if !n.Nameless {
		if err := x.name(n.ID, r, n); err != nil {
			return Result{}, err
		}
	}
	return r, nil
}
