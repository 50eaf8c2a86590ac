package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/image"
	"kaniko-build/executor/internal/store"
	"kaniko-build/schema/diag"
)

// Pull brings an image for a platform into the store under its name, with all its layers
// and what its index states about it. Of an index with nothing else the name stands for
// that index; of one with other platforms for a smaller one, of the image and its
// attestations, or for the image if there are none. The notes say what the registry lacks.
func (x *Executor) Pull(ctx context.Context, name, platform string) (_ *Stored, notes []string, err error) {
	full, err := image.Normalize(name)
	if err != nil {
		return nil, nil, err
	}
	p := platforms.DefaultSpec()
	if platform != "" {
		if p, err = platforms.Parse(platform); err != nil {
			return nil, nil, &diag.Problem{What: fmt.Sprintf("platform %q: %v", platform, err), Hint: "write os/arch[/variant], as linux/amd64"}
		}
	}
	r, err := x.registry.Resolve(ctx, full, platforms.Normalize(p))
	if err == nil && platform != "" {
		err = isFor(r, platform, platforms.Normalize(p))
	}
	if err != nil {
		return nil, nil, err
	}
	blobs := map[digest.Digest]ocispec.Descriptor{}
	for _, l := range r.Layers {
		blobs[l.Descriptor.Digest] = l.Descriptor
	}
	top := r.Descriptor
	if r.Index != "" {
		var about []ocispec.Descriptor
		if top, about, notes, err = x.pulledIndex(ctx, r); err != nil {
			return nil, nil, err
		}
		for _, d := range about {
			blobs[d.Digest] = d
		}
	}
	size := top.Size
	var list []ocispec.Descriptor
	for _, d := range slices.Sorted(maps.Keys(blobs)) {
		list = append(list, blobs[d])
		size += blobs[d].Size
	}
	err = each(ctx, list, func(d ocispec.Descriptor) error { return x.registry.FetchBlob(ctx, full, d, io.Discard) })
	if err != nil {
		return nil, nil, err
	}
	err = x.store.PutImage(store.Image{Name: full, Descriptor: top, Size: size, Created: time.Now().UTC()})
	if err != nil {
		return nil, nil, err
	}
	s, err := x.Stored(full)
	return s, notes, err
}

// pulledIndex is what the name of an image stands for that was pulled out of an index, and
// the blobs of what is stated about it. Manifests are in the store afterwards.
func (x *Executor) pulledIndex(ctx context.Context, r image.Resolved) (top ocispec.Descriptor, about []ocispec.Descriptor, notes []string, err error) {
	bad := func(err error) (ocispec.Descriptor, []ocispec.Descriptor, []string, error) {
		return top, nil, nil, fmt.Errorf("read index %s of %s: %w", r.Index, r.Name, err)
	}
	b, err := x.store.ReadBlob(r.Index, image.MaxManifest)
	if err != nil {
		return bad(err)
	}
	kind, err := image.Detect(b, "")
	if err != nil {
		return bad(err)
	}
	var idx ocispec.Index
	if err := json.Unmarshal(b, &idx); err != nil {
		return bad(err)
	}
	src, err := x.registry.Source(r.Name)
	if err != nil {
		return bad(err)
	}
	var list []ocispec.Descriptor
	stated := false
	for _, d := range idx.Manifests {
		if d.Digest == r.Descriptor.Digest && !image.IsAttestation(d) {
			list = append(list, d)
			continue
		}
		if !image.IsAttestation(d) || d.Annotations[image.AnnotationReferenceDigest] != r.Descriptor.Digest.String() {
			continue
		}
		raw, err := image.Read(ctx, src, d, image.MaxManifest)
		if errors.Is(err, image.ErrNotFound) {
			notes = append(notes, fmt.Sprintf("the registry has no attestation %s, which the index of %s names: it is left out", d.Digest, r.Name))
			continue
		}
		if err != nil {
			return bad(err)
		}
		a, err := image.ParseAttestation(raw)
		if err != nil {
			return bad(fmt.Errorf("attestation %s: %w", d.Digest, err))
		}
		list, stated = append(list, d), true
		about = append(append(about, a.Config), a.Statements...)
	}
	switch {
	case !stated: // an index of an index, or of nothing but the image
		return r.Descriptor, nil, notes, nil
	case len(list) == len(idx.Manifests):
		return ocispec.Descriptor{MediaType: kind, Digest: r.Index, Size: int64(len(b))}, about, notes, nil
	}
	top, raw, err := image.MakeIndex(list, kind == image.DockerIndex, idx.Annotations)
	if err != nil {
		return bad(err)
	}
	_, err = x.store.PutBlob(raw)
	return top, about, notes, err
}
