package executor

import (
	"context"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/image"
)

// Adopt makes the image that a registry has that of a node, which is not built then:
// what was found must be made of the node's inputs. No layer is downloaded before
// a step of another node reads it. ok is false, and nothing is done, if the store has
// all of the node already, so that Build costs nothing; an error says why the image
// cannot be had, and the node can still be built.
func (x *Executor) Adopt(ctx context.Context, n *Node, f *Found) (r Result, ok bool, err error) {
	params, err := encodeParams(n.Format.Compression, n.clamp())
	if err != nil {
		return Result{}, false, err
	}
	if _, known := x.collect(n, x.fromKeys(x.full(), params)); known {
		return Result{}, false, nil
	}
	res, err := x.registry.Resolve(ctx, f.ref, n.program.Platform)
	if err != nil {
		return Result{}, false, fmt.Errorf("take %s as %s: %w", f.ref, n.ID, err)
	}
	r = Result{
		Node: n.ID, Manifest: res.Descriptor, Image: res.Descriptor, Layers: len(res.Layers), Names: n.Names, Steps: n.steps(), Cached: true,
		Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(res.RawConfig), Size: int64(len(res.RawConfig))},
	}
	r.Size = r.Config.Size
	made := madeAt(res)
	layers := make([]builtLayer, len(res.Layers))
	for i, l := range res.Layers {
		layers[i] = builtLayer{ID: l.DiffID, SpecLayer: image.SpecLayer{Layer: l, Created: made[i].Created, Text: made[i].CreatedBy}}
		r.Size += l.Descriptor.Size
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.layers, n.result, n.adopted = layers, &r, f.ref
	return r, true, nil
}

// madeAt is the record of each layer of an image; those of the bottom have none if
// there are fewer records.
func madeAt(res image.Resolved) []ocispec.History {
	out := make([]ocispec.History, len(res.Layers))
	at := len(out)
	for i := len(res.Config.History) - 1; i >= 0 && at > 0; i-- {
		if h := res.Config.History[i]; !h.EmptyLayer {
			at--
			out[at] = h
			if h.Created != nil {
				created := h.Created.In(time.UTC)
				out[at].Created = &created
			}
		}
	}
	return out
}
