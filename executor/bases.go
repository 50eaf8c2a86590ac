package executor

import (
	"cmp"
	"context"
	"strings"
	"sync"

	"github.com/containerd/platforms"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/executor/internal/image"
	"kaniko-build/executor/internal/store"
)

// baseImage is an image that a program reads: one from outside, or what
// another node of the run makes.
type baseImage struct {
	config *dockerspec.DockerOCIImage
	digest digest.Digest // of the image for the platform, of one from outside
	named  digest.Digest // of what the name stands for, which may be an index
	layers []baseLayer   // of an image from outside
	node   *Node         // or the node
	docker bool          // it has Docker's media types
}

// imageKey tells apart the images of a program.
func imageKey(r dockerfile.ImageRef) string {
	if r.Context != "" {
		return "context " + r.Context + " " + platforms.Format(r.Platform)
	}
	return r.Ref + " " + platforms.Format(r.Platform)
}

// key stands for an image's file system.
func (b *baseImage) key(platform string) store.Key {
	if b.node != nil {
		return b.node.finalKey
	}
	ids := make([]digest.Digest, len(b.layers))
	for i, l := range b.layers {
		ids[i] = l.DiffID
	}
	return hashLines(startLines(platform, ids))
}

// nameImages makes sources of named contexts that are images sources of those
// images.
func (n *Node) nameImages() {
	for i := range n.program.Stages {
		st := &n.program.Stages[i]
		name := func(s *dockerfile.Source) {
			if s.Kind == dockerfile.FromContext && s.Context != "" && !isDirectory(n.Contexts[s.Context]) {
				*s = dockerfile.Source{Kind: dockerfile.FromImage, Image: &dockerfile.ImageRef{Ref: s.Context, Context: s.Context, Platform: st.Platform, Pos: st.Pos}}
			}
		}
		name(&st.Base)
		for k := range st.Steps {
			if c := st.Steps[k].Copy; c != nil {
				name(&c.From)
			}
			if r := st.Steps[k].Run; r != nil {
				for m := range r.Mounts {
					name(&r.Mounts[m].From)
				}
			}
		}
	}
}

// isDirectory tells whether the value of a named context is a directory.
func isDirectory(value string) bool {
	return !strings.Contains(value, "://") && !strings.HasPrefix(value, "node:")
}

// parentOf is the node that makes an image, nil if none does.
func (n *Node) parentOf(name string, p ocispec.Platform) *Node {
	if one := n.parents[name+"::"+platforms.Format(platforms.Normalize(p))]; one != nil {
		return one
	}
	return n.parents[name]
}

// prefetch asks for images side by side; errors come again to whoever uses
// the image.
func (x *Executor) prefetch(ctx context.Context, n *Node, refs []dockerfile.ImageRef) {
	var wg sync.WaitGroup
	for _, r := range refs {
		if n.parentOf(r.Ref, r.Platform) == nil {
			wg.Go(func() { _, _ = x.registry.Resolve(ctx, r.Ref, r.Platform) })
		}
	}
	wg.Wait()
}

// image finds the image that a reference stands for; nil for a named context
// that is no image.
func (x *Executor) image(ctx context.Context, n *Node, r dockerfile.ImageRef) (*baseImage, error) {
	key := imageKey(r)
	n.mu.Lock()
	b, ok := n.images[key]
	n.mu.Unlock()
	if ok {
		return b, nil
	}
	b, err := x.findImage(ctx, n, r)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.images[key] = b
	return b, nil
}

func (x *Executor) findImage(ctx context.Context, n *Node, r dockerfile.ImageRef) (*baseImage, error) {
	ref, parent := r.Ref, n.parentOf(r.Ref, r.Platform)
	if r.Context != "" {
		value := n.Contexts[r.Context]
		parent = n.parents["context "+r.Context]
		switch {
		case parent != nil:
		case strings.HasPrefix(value, "docker-image://"):
			ref = strings.TrimPrefix(value, "docker-image://")
		case strings.HasPrefix(value, "oci-layout://"):
			return x.layoutImage(ctx, n, strings.TrimPrefix(value, "oci-layout://"), r)
		default:
			return nil, nil
		}
	}
	if parent != nil {
		config := parent.program.Target().Config
		config.History = parent.history() // their times come with the layers
		return &baseImage{config: &config, node: parent}, nil
	}
	res, err := x.registry.Resolve(ctx, ref, r.Platform)
	if err != nil {
		return nil, err
	}
	return n.fromOutside(ref, res, r), nil
}

// fromOutside records an image of a registry or layout.
func (n *Node) fromOutside(origin string, res image.Resolved, r dockerfile.ImageRef) *baseImage {
	b := &baseImage{config: &res.Config, digest: res.Descriptor.Digest, named: cmp.Or(res.Index, res.Descriptor.Digest), docker: res.Descriptor.MediaType == image.DockerManifest}
	for _, l := range res.Layers {
		b.layers = append(b.layers, baseLayer{DiffID: l.DiffID, Blob: l.Descriptor, Origin: origin})
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.Bases = append(n.Bases, Base{Name: r.Ref, Digest: res.Descriptor.Digest, Pos: r.Pos})
	return b
}
