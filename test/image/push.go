package image

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// Push writes every named image of an OCI layout directory to
// REGISTRY/library/NAME, as Docker Hub would have it. A name without a tag
// gets "latest". What the registry has already is not sent again.
func Push(ctx context.Context, dir, registry string) ([]string, error) {
	idx, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	im, err := idx.IndexManifest()
	if err != nil {
		return nil, err
	}
	var refs []string
	for _, d := range im.Manifests {
		n := d.Annotations[refNameAnnotation]
		ref, err := name.ParseReference(registry+"/library/"+n, name.Insecure)
		if err != nil {
			return nil, err
		}
		if err := pushOne(ctx, idx, d, ref); err != nil {
			return nil, fmt.Errorf("push %s: %w", ref, err)
		}
		refs = append(refs, ref.String())
	}
	return refs, nil
}

func pushOne(ctx context.Context, idx v1.ImageIndex, d v1.Descriptor, ref name.Reference) error {
	if have, err := remote.Head(ref, remote.WithContext(ctx)); err == nil && have.Digest == d.Digest {
		return nil
	}
	if d.MediaType.IsIndex() {
		sub, err := idx.ImageIndex(d.Digest)
		if err != nil {
			return err
		}
		return remote.WriteIndex(ref, sub, remote.WithContext(ctx))
	}
	img, err := idx.Image(d.Digest)
	if err != nil {
		return err
	}
	return remote.Write(ref, img, remote.WithContext(ctx))
}

// Validate checks an image by go-containerregistry, whose validation reads
// layers that gzip compressed only; blobs are hashed here, whatever they hold.
func Validate(img v1.Image) error {
	m, err := img.Manifest()
	if err != nil {
		return err
	}
	var opts []validate.Option
	for i, d := range m.Layers {
		if mt := string(d.MediaType); !strings.HasSuffix(mt, "gzip") {
			opts = []validate.Option{validate.Fast}
		}
		l, err := img.LayerByDigest(d.Digest)
		if err != nil {
			return fmt.Errorf("layer %d: %w", i, err)
		}
		rc, err := l.Compressed()
		if err != nil {
			return fmt.Errorf("layer %d: %w", i, err)
		}
		h, n, err := v1.SHA256(rc)
		if err := errors.Join(err, rc.Close()); err != nil {
			return fmt.Errorf("layer %d: %w", i, err)
		}
		if h != d.Digest || n != d.Size {
			return fmt.Errorf("layer %d: blob is %s of %d bytes, the manifest says %s of %d", i, h, n, d.Digest, d.Size)
		}
	}
	return validate.Image(img, opts...)
}

// LayerDigests lists the digests of an image's blobs as its manifest has them,
// and the diff IDs of the same layers.
func LayerDigests(img v1.Image) (digests, diffIDs []string, err error) {
	m, err := img.Manifest()
	if err != nil {
		return nil, nil, err
	}
	for _, l := range m.Layers {
		digests = append(digests, l.Digest.String())
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return nil, nil, err
	}
	for _, h := range cf.RootFS.DiffIDs {
		diffIDs = append(diffIDs, h.String())
	}
	return digests, diffIDs, nil
}
