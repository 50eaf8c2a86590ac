package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/image"
	"kaniko-build/executor/internal/store"
	"kaniko-build/schema/diag"
)

// Index is one image for several platforms: what its nodes make, under names of
// its own. The nodes are Nameless. The zero value of the rest works.
type Index struct {
	ID    string
	Names []string
	Nodes []*Node // in the order of the index
	// Annotations are those of the index, Manifests those of each descriptor in it, and
	// Descriptor those of what points to the index, as in the index.json of an OCI
	// layout. Docker's format has none.
	Annotations, Manifests, Descriptor map[string]string
	Docker                             bool

	mu     sync.Mutex
	result *Result
}

// Result is the index, nil before it was joined.
func (ix *Index) Result() *Result {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	return ix.result
}

// Join makes the index of what its nodes made, all of which are built, and puts
// it into the store under its names. Its bytes depend on nothing but the
// manifests and the annotations (image-spec, image-index.md).
func (x *Executor) Join(ctx context.Context, ix *Index) (Result, error) {
	if err := context.Cause(ctx); err != nil {
		return Result{}, err
	}
	started := time.Now()
	r := Result{Node: ix.ID, Names: ix.Names, Cached: true}
	var manifests, attested []ocispec.Descriptor
	blobs := map[string]int64{} // bytes, each once
	for _, n := range ix.Nodes {
		made := n.Result()
		if made == nil {
			return Result{}, fmt.Errorf("internal error: %s is not built", n.ID)
		}
		d := made.Image
		if d.Annotations = nil; !ix.Docker && len(ix.Manifests) > 0 {
			d.Annotations = ix.Manifests
		}
		manifests = append(manifests, d)
		if made.Attested.Digest != "" {
			attested = append(attested, made.Attested)
		}
		blobs[made.Config.Digest.String()] = made.Config.Size
		for _, l := range n.built() {
			blobs[l.Descriptor.Digest.String()] = l.Descriptor.Size
		}
		r.Layers += made.Layers
		r.Steps += made.Steps
		r.Executed += made.Executed
		r.Cached = r.Cached && made.Cached
	}
	for _, n := range blobs {
		r.Size += n
	}
	var raw []byte
	var err error
	if r.Manifest, raw, err = image.MakeIndex(append(manifests, attested...), ix.Docker, ix.Annotations); err != nil {
		return Result{}, err
	}
	if !ix.Docker {
		r.Manifest.Annotations = ix.Descriptor
	}
	if _, err := x.store.PutBlob(raw); err != nil {
		return Result{}, err
	}
	if err := x.name(ix.ID, r, ix.Nodes...); err != nil {
		return Result{}, err
	}
	r.Duration = time.Since(started)
	ix.mu.Lock()
	defer ix.mu.Unlock()
	ix.result = &r
	return r, nil
}

// name makes the names of an image in the store stand for it. nodes made it: what
// of them is not in the store is looked for where it came from.
func (x *Executor) name(target string, r Result, nodes ...*Node) error {
	for _, name := range r.Names {
		full, err := image.Normalize(name)
		if err != nil {
			return err
		}
		old, err := x.store.GetImage(full)
		if err == nil && old.Descriptor.Digest == r.Manifest.Digest && maps.Equal(old.Descriptor.Annotations, r.Manifest.Annotations) {
			continue
		}
		err = x.store.PutImage(store.Image{
			Name: full, Descriptor: r.Manifest, Config: r.Config.Digest, Size: r.Size, Created: time.Now().UTC(), Target: target,
			Origins: x.origins(nodes),
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// origins is where layers of nodes come from that were not made here.
func (x *Executor) origins(nodes []*Node) map[digest.Digest]string {
	out := map[digest.Digest]string{}
	for _, n := range nodes {
		for _, l := range n.built() {
			if at := x.whereabouts(n, l).Origin; at != "" {
				out[l.Descriptor.Digest] = at
			}
		}
	}
	return out
}

// PushIndex puts an index into the repositories of its names, by digest: its
// nodes have been pushed there.
func (x *Executor) PushIndex(ctx context.Context, ix *Index) error {
	r := ix.Result()
	if r == nil {
		return fmt.Errorf("internal error: %s is not joined", ix.ID)
	}
	return eachRepository(r.Names, func(name string) error {
		if _, err := x.registry.Push(ctx, name, r.Manifest, x.contentOfIndex(ix, x.streamBlob), nil); err != nil {
			return unpushed(name, err)
		}
		return nil
	})
}

func (x *Executor) contentOfIndex(ix *Index, open func(context.Context, baseLayer) (io.ReadCloser, error)) image.Source {
	var all []image.Source
	for _, n := range ix.Nodes {
		all = append(all, x.content(n, open))
	}
	return image.First(all...)
}

// ExportIndex writes an index with all that it consists of as an OCI layout, the
// one form that can hold several platforms.
func (x *Executor) ExportIndex(ctx context.Context, ix *Index, o Output) error {
	if o.Type != "oci" {
		return &diag.Problem{What: fmt.Sprintf("the image %s is for several platforms, which an output of the type %s cannot hold", ix.ID, o.Type),
			Hint: "write type=oci, or build one platform: --set " + ix.ID + ".platforms=[linux/amd64]"}
	}
	_, err := o.export(ctx, x.contentOfIndex(ix, x.openBlob), ix.Result().Manifest, ix.Names, nil)
	return err
}

// published is the index, which its repositories have.
func (ix *Index) published(context.Context, *Executor) (*Result, error) {
	r := ix.Result()
	if r == nil {
		return nil, errors.New("internal error: " + ix.ID + " is not joined")
	}
	return r, nil
}
