package executor

import (
	"context"
	"fmt"
	"time"

	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/executor/internal/image"
	"kaniko-build/executor/internal/store"
)

// chain is one layer after another of a node's target stage: those of images
// it stands on, then those of its steps.
type chain struct {
	layers []image.SpecLayer
	base   *baseImage // the image at the bottom; nil for scratch
}

// collect lists the layers of the target stage with their blobs. made gives
// those of steps; when it lacks one, ok is false.
func (x *Executor) collect(n *Node, made func(s *jobStep) (image.SpecLayer, bool)) (c chain, ok bool) {
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
				r := b.node.built()
				if r == nil {
					return false
				}
				c.layers = append(c.layers, r...)
			}
			for _, l := range b.layers {
				c.layers = append(c.layers, image.SpecLayer{Layer: image.Layer{Descriptor: l.Blob, DiffID: l.DiffID}})
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
			c.layers = append(c.layers, l)
		}
		return true
	}
	ok = walk(len(n.program.Stages) - 1)
	return c, ok
}

// built is the layers of a node whose image is in the store; nil before.
func (n *Node) built() []image.SpecLayer {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.layers
}

// fromKeys finds a step's layer by its key, with a blob in the encoding asked for.
func (x *Executor) fromKeys(full bool, p store.Params) func(s *jobStep) (image.SpecLayer, bool) {
	return func(s *jobStep) (image.SpecLayer, bool) {
		if s.Fresh || s.ByContent {
			return image.SpecLayer{}, false
		}
		return x.keyed(s, full, p)
	}
}

func (x *Executor) keyed(s *jobStep, full bool, p store.Params) (image.SpecLayer, bool) {
	e, err := x.store.GetKey(s.Key, full)
	if err != nil {
		return image.SpecLayer{}, false
	}
	v, ok := x.store.GetVariant(e.DiffID, p)
	if !ok {
		return image.SpecLayer{}, false
	}
	return image.SpecLayer{Layer: image.Layer{Descriptor: v.Descriptor, DiffID: e.DiffID}, Created: &e.Created, Text: s.CreatedBy}, true
}

// assemble makes config and manifest of a chain of layers and puts them into
// the store.
func (x *Executor) assemble(n *Node, c chain) (image.Assembled, error) {
	target := n.program.Target()
	spec := image.Spec{Config: target.Config, History: target.History, Layers: c.layers}
	if c.base != nil {
		spec.Base = c.base.config
	}
	if n.program.Epoch != nil {
		t := time.Unix(*n.program.Epoch, 0).UTC()
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
	return out, out.Put(x.store)
}

// finish makes the image of a node whose layers all are in the store, and
// gives it its names.
func (x *Executor) finish(ctx context.Context, n *Node, c chain) (Result, error) {
	img, err := x.assemble(n, c)
	if err != nil {
		return Result{}, fmt.Errorf("assemble the image of %s: %w", n.ID, err)
	}
	r := Result{Node: n.ID, Manifest: img.Manifest, Config: img.Config, Size: img.Size(), Layers: len(c.layers), Names: n.Names}
	for _, name := range n.Names {
		full, err := image.Normalize(name)
		if err != nil {
			return Result{}, err
		}
		old, err := x.store.GetImage(full)
		if err == nil && old.Descriptor.Digest == img.Manifest.Digest {
			continue
		}
		err = x.store.PutImage(store.Image{Name: full, Descriptor: img.Manifest, Config: img.Config.Digest, Size: img.Size(), Created: time.Now().UTC(), Target: n.ID})
		if err != nil {
			return Result{}, err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.layers, n.result = c.layers, &r
	return r, nil
}
