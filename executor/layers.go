package executor

import "github.com/opencontainers/go-digest"

// ImageLayer is one layer of a node's image.
type ImageLayer struct {
	Digest digest.Digest // of the blob
	Size   int64         // bytes of the blob
	Text   string        // the instruction that made it; "" of a layer of a base image
}

// Layers is the layers of a node's image, those of its base first; nothing
// before it was built.
func (n *Node) Layers() []ImageLayer {
	var out []ImageLayer
	for _, l := range n.built() {
		out = append(out, ImageLayer{l.Descriptor.Digest, l.Descriptor.Size, l.Text})
	}
	return out
}

// Steps is how many steps that make a layer the stages have that the image
// needs.
func (n *Node) Steps() int {
	steps := 0
	for i := range n.job.Stages {
		for k := range n.job.Stages[i].Steps {
			if len(n.job.Stages[i].Steps[k].Lines) > 0 {
				steps++
			}
		}
	}
	return steps
}
