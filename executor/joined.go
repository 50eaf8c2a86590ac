package executor

import (
	"context"
	"fmt"
	"io"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/image"
	"kaniko-build/executor/internal/store"
)

// spans counts the layers that each stage of a node's image makes, the lowest
// stage first. They are the uppermost of the image.
func (n *Node) spans() []int {
	var out []int
	for i := len(n.job.Stages) - 1; i >= 0; i = n.job.Stages[i].Base.Stage {
		made := 0
		for k := range n.job.Stages[i].Steps {
			if len(n.job.Stages[i].Steps[k].Lines) > 0 {
				made++
			}
		}
		out = append(out, made)
	}
	slices.Reverse(out)
	return out
}

// joined makes one layer of those that each stage made. It is made of the blobs of
// steps, each time anew: steps stay known one by one.
func (x *Executor) joined(ctx context.Context, n *Node, c chain) (chain, error) {
	spans := n.spans()
	at := len(c.layers)
	for _, k := range spans {
		at -= k
	}
	layers := slices.Clone(c.layers[:at])
	for _, k := range spans {
		part := c.layers[at : at+k]
		at += k
		if k > 1 {
			l, err := x.join(ctx, n, part, len(layers) > 0)
			if err != nil {
				return chain{}, fmt.Errorf("make one layer of %d: %w", k, err)
			}
			part = []builtLayer{l}
		}
		layers = append(layers, part...)
	}
	c.layers = layers
	return c, nil
}

// join makes one layer of part, which was made when the last of them was; over
// others it has to say what it hides of them.
func (x *Executor) join(ctx context.Context, n *Node, part []builtLayer, over bool) (builtLayer, error) {
	p, err := encodeParams(n.Format.Compression, nil)
	if err != nil {
		return builtLayer{}, err
	}
	list := make([]image.Layer, len(part))
	for i, l := range part {
		list[i] = l.Layer
	}
	src := x.contentOf(n, part, x.openBlob)
	blob, id, err := encodeTar(x.store, p, func(w io.Writer) error {
		if over {
			return image.Merge(ctx, w, src, list)
		}
		return image.WriteTar(ctx, w, src, list, nil)
	}, nil, nil)
	if err != nil {
		return builtLayer{}, err
	}
	out := part[len(part)-1]
	out.ID, out.Layer = id, image.Layer{Descriptor: blob, DiffID: id}
	return out, x.store.PutVariant(store.Variant{DiffID: id, Params: p, Descriptor: blob})
}

// history has the records of the image, those of joined steps without a layer but
// for the last.
func (n *Node) history() []ocispec.History {
	target := n.program.Target()
	if !n.Format.Single {
		return target.History
	}
	out := slices.Clone(target.History)
	at := target.BaseHistory
	for _, k := range n.spans() {
		for ; k > 0 && at < len(out); at++ {
			if !out[at].EmptyLayer {
				k--
				out[at].EmptyLayer = k > 0
			}
		}
	}
	return out
}
