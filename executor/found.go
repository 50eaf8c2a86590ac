package executor

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/image"
)

// InputAnnotation is the annotation of a manifest, or of an index, with the input
// digest of what it was made of.
const InputAnnotation = "kaniko-build.input-digest"

// Found is an image that a registry has: Release can give it other names, and Adopt
// can make it that of a node.
type Found struct {
	Names     []string // that it is to have
	Platforms []string // of an index, as os/arch[/variant]; none of a single image
	Input     string   // its InputAnnotation
	Attested  bool     // its index has attestations
	manifest  ocispec.Descriptor
	ref       string // where it is, repository@digest
}

// Digest is that of its manifest or index.
func (f *Found) Digest() digest.Digest { return f.manifest.Digest }

func (f *Found) published(context.Context, *Executor) (*Result, error) {
	return &Result{Manifest: f.manifest, Names: f.Names}, nil
}

// Find looks for the image of a name with a tag; it is nil if the registry has
// none. Only the manifest is read, and kept in the store.
func (x *Executor) Find(ctx context.Context, name string) (*Found, error) {
	raw, kind, err := x.registry.Manifest(ctx, name)
	if raw == nil || err != nil {
		return nil, err
	}
	if kind, err = image.Detect(raw, kind); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var doc struct {
		Annotations map[string]string    `json:"annotations"`
		Manifests   []ocispec.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("read the manifest of %s: %w", name, err)
	}
	f := &Found{Input: doc.Annotations[InputAnnotation], manifest: ocispec.Descriptor{MediaType: kind, Size: int64(len(raw))}}
	for _, m := range doc.Manifests {
		switch {
		case image.IsAttestation(m):
			f.Attested = true
		case m.Platform != nil:
			f.Platforms = append(f.Platforms, platforms.FormatAll(platforms.Normalize(*m.Platform)))
		}
	}
	if f.manifest.Digest, err = x.store.PutBlob(raw); err != nil {
		return nil, err
	}
	parsed, err := image.ParseName(name)
	if err != nil {
		return nil, err
	}
	f.ref = parsed.Context() + "@" + f.manifest.Digest.String()
	return f, nil
}
