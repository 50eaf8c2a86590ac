package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/image"
	"kaniko-build/executor/internal/store"
	"kaniko-build/schema/diag"
)

// Stored is an image of the store, by its name there. It does not change.
type Stored struct {
	x     *Executor
	image store.Image

	Name     string
	Manifest ocispec.Descriptor // or of an index
	Created  time.Time          // when the name was given
	Target   string             // of the manifest that made it
}

// Stored finds an image of the store by its name, as Docker reads names.
func (x *Executor) Stored(name string) (*Stored, error) {
	full, err := image.Normalize(name)
	if err != nil {
		return nil, err
	}
	img, err := x.store.GetImage(full)
	if errors.Is(err, store.ErrMiss) {
		list, lerr := x.store.Images()
		if lerr != nil {
			return nil, lerr
		}
		var names []string
		for _, i := range list {
			names = append(names, i.Name)
		}
		hint := diag.Suggest(full, names)
		if hint == "" {
			hint = "kaniko-build images lists those that are there"
		}
		return nil, &diag.Problem{What: fmt.Sprintf("the store has no image %s", full), Hint: hint}
	}
	if err != nil {
		return nil, err
	}
	return &Stored{x: x, image: img, Name: full, Manifest: img.Descriptor, Created: img.Created, Target: img.Target}, nil
}

// IsIndex tells whether the name stands for an index: of images for several platforms,
// or of an image and what is stated about it.
func (s *Stored) IsIndex() bool { return image.IsIndex(s.Manifest.MediaType) }

// source reads what the image consists of: from the store, else from where it was
// when the image was made. What is read from a registry stays there.
func (s *Stored) source() image.Source {
	return image.First(image.FromStore(s.x.store), fromElsewhere{s})
}

type fromElsewhere struct{ s *Stored }

func (f fromElsewhere) Open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	at, ok := f.s.image.Origins[d.Digest]
	if !ok || at == "" {
		return nil, fmt.Errorf("blob %s of %s: %w", d.Digest, f.s.Name, image.ErrNotFound)
	}
	return f.s.x.streamBlob(ctx, baseLayer{Blob: d, Origin: at})
}

// Inspection is what is to be known of one image.
type Inspection struct {
	Name      string             `json:"name"`
	Manifest  ocispec.Descriptor `json:"manifest"`
	Index     digest.Digest      `json:"index,omitempty"`     // that the name stands for, if it is one
	Platforms []string           `json:"platforms,omitempty"` // of the index
	Config    json.RawMessage    `json:"config"`              // as it is in the image
	Layers    []InspectedLayer   `json:"layers"`
	// Attestations are what the index states about the image.
	Attestations []InspectedStatement `json:"attestations,omitempty"`
	History      []ocispec.History    `json:"-"`
}

// InspectedStatement is one attestation of an Inspection.
type InspectedStatement struct {
	Type     string        `json:"type"`     // of the predicate
	Manifest digest.Digest `json:"manifest"` // that holds it
	Digest   digest.Digest `json:"digest"`   // of the in-toto statement
	Size     int64         `json:"size"`     // bytes
}

// InspectedLayer is a layer of an Inspection.
type InspectedLayer struct {
	Descriptor ocispec.Descriptor `json:"descriptor"`
	DiffID     digest.Digest      `json:"diffID"`
	Elsewhere  string             `json:"elsewhere,omitempty"` // where it is, if not in the store
}

// Inspect tells what the image is for a platform; "" is this machine's, or that of
// an image that is for one only.
func (s *Stored) Inspect(ctx context.Context, platform string) (Inspection, error) {
	r, err := s.resolve(ctx, platform)
	if err != nil {
		return Inspection{}, err
	}
	out := Inspection{Name: s.Name, Manifest: r.Descriptor, Index: r.Index, Config: r.RawConfig, History: r.Config.History}
	if r.Index != "" {
		if err := s.inspectIndex(ctx, &out); err != nil {
			return out, err
		}
	}
	for _, l := range r.Layers {
		at := InspectedLayer{Descriptor: l.Descriptor, DiffID: l.DiffID}
		if _, ok := s.x.store.Has(l.Descriptor.Digest); !ok {
			at.Elsewhere = s.image.Origins[l.Descriptor.Digest]
		}
		out.Layers = append(out.Layers, at)
	}
	return out, nil
}

func (s *Stored) resolve(ctx context.Context, platform string) (image.Resolved, error) {
	p := platforms.DefaultSpec()
	if platform != "" {
		var err error
		if p, err = platforms.Parse(platform); err != nil {
			return image.Resolved{}, &diag.Problem{What: fmt.Sprintf("platform %q: %v", platform, err), Hint: "write os/arch[/variant], as linux/amd64"}
		}
	}
	r, err := image.Resolve(ctx, s.source(), s.Name, s.Manifest, platforms.Normalize(p))
	if err == nil && platform != "" {
		err = isFor(r, platform, platforms.Normalize(p))
	}
	return r, err
}

// isFor refuses an image that is none for the platform that was asked for: of an index
// another is chosen, but a name may stand for one image alone.
func isFor(r image.Resolved, asked string, p ocispec.Platform) error {
	has := platforms.Normalize(r.Config.Platform)
	if has.Architecture == "" || platforms.Only(p).Match(has) {
		return nil
	}
	return &diag.Problem{What: fmt.Sprintf("the image is for %s, not for %s", platforms.Format(has), asked), Hint: "leave --platform out, or build it for that platform"}
}

// index is what the name stands for, an index.
func (s *Stored) index(ctx context.Context) (ocispec.Index, error) {
	var idx ocispec.Index
	b, err := image.Read(ctx, s.source(), s.Manifest, image.MaxManifest)
	if err != nil {
		return idx, err
	}
	if err := json.Unmarshal(b, &idx); err != nil {
		return idx, fmt.Errorf("read index %s: %w", s.Manifest.Digest, err)
	}
	return idx, nil
}

// inspectIndex adds what the index says.
func (s *Stored) inspectIndex(ctx context.Context, out *Inspection) error {
	idx, err := s.index(ctx)
	if err != nil {
		return err
	}
	for _, m := range idx.Manifests {
		if !image.IsAttestation(m) {
			if m.Platform != nil {
				out.Platforms = append(out.Platforms, platforms.FormatAll(*m.Platform))
			}
			continue
		}
		if m.Annotations[image.AnnotationReferenceDigest] != out.Manifest.Digest.String() {
			continue
		}
		b, err := image.Read(ctx, s.source(), m, image.MaxManifest)
		if err != nil {
			return err
		}
		about, err := image.ParseAttestation(b)
		if err != nil {
			return fmt.Errorf("read attestation %s: %w", m.Digest, err)
		}
		for _, d := range about.Statements {
			out.Attestations = append(out.Attestations, InspectedStatement{d.Annotations[image.AnnotationPredicateType], m.Digest, d.Digest, d.Size})
		}
	}
	return nil
}

// withAttestations is the index of one image of the index and what is stated about
// it; the image itself if nothing is.
func (s *Stored) withAttestations(ctx context.Context, d ocispec.Descriptor) (ocispec.Descriptor, error) {
	idx, err := s.index(ctx)
	if err != nil {
		return d, err
	}
	list := []ocispec.Descriptor{d}
	for _, m := range idx.Manifests {
		if image.IsAttestation(m) && m.Annotations[image.AnnotationReferenceDigest] == d.Digest.String() {
			list = append(list, m)
		}
	}
	if len(list) == 1 {
		return d, nil
	}
	top, raw, err := image.MakeIndex(list, false, idx.Annotations)
	if err == nil {
		_, err = s.x.store.PutBlob(raw)
	}
	return top, err
}

// Tag gives the image one name more; one that was in use moves.
func (s *Stored) Tag(name string) error {
	full, err := tagged(name)
	if err != nil {
		return err
	}
	img := s.image
	img.Name, img.Created = full, time.Now().UTC()
	return s.x.store.PutImage(img)
}

// CheckName refuses what an image cannot be called by those who make it: HOST/PATH:TAG
// it is, with no digest.
func CheckName(name string) error {
	_, err := tagged(name)
	return err
}

// CheckReference refuses what is no name of an image, with or without a digest.
func CheckReference(name string) error {
	_, err := image.Normalize(name)
	return err
}

// tagged is a name that an image can be given: one with a tag, not a digest.
func tagged(name string) (string, error) {
	n, err := image.ParseName(name)
	if err != nil {
		return "", err
	}
	if n.Digest != "" {
		return "", &diag.Problem{What: fmt.Sprintf("%q has a digest: nobody can choose that", name), Hint: "write HOST/PATH:TAG"}
	}
	return image.Normalize(name)
}

// Untag takes the name away. What nothing else needs goes with the next prune.
func (s *Stored) Untag() error { return s.x.store.RemoveImage(s.Name) }

// Push pushes the image under names, its own without any: by digest first, then
// the tags, all or none.
func (s *Stored) Push(ctx context.Context, names ...string) (Released, error) {
	if len(names) == 0 {
		names = []string{s.Name}
	}
	origins := map[digest.Digest][]string{}
	for blob, at := range s.image.Origins {
		if n, err := image.ParseName(at); err == nil && !strings.HasPrefix(at, layoutScheme) {
			origins[blob] = []string{n.Context()}
		}
	}
	err := eachRepository(names, func(name string) error {
		if _, err := s.x.registry.Push(ctx, name, s.Manifest, s.source(), origins); err != nil {
			return unpushed(name, err)
		}
		return nil
	})
	if err != nil {
		return Released{}, err
	}
	return s.x.Release(ctx, []Published{&storedAs{s, names}}, nil)
}

// storedAs is a stored image under other names.
type storedAs struct {
	s     *Stored
	names []string
}

func (p *storedAs) published(context.Context, *Executor) (*Result, error) {
	return &Result{Manifest: p.s.Manifest, Names: p.names}, nil
}

// Export writes the image somewhere, whole or not at all. Types that hold one
// platform take that of platform, or this machine's.
func (s *Stored) Export(ctx context.Context, o Output, platform string) (notes []string, err error) {
	d := s.Manifest
	var layers []image.Layer
	if o.Type != "oci" || platform != "" {
		r, err := s.resolve(ctx, platform)
		if err != nil {
			return nil, err
		}
		if d, layers = r.Descriptor, r.Layers; o.Type == "oci" && r.Index != "" {
			if d, err = s.withAttestations(ctx, d); err != nil {
				return nil, err
			}
		}
	}
	return o.export(ctx, s.source(), d, []string{s.Name}, layers)
}
