package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/store"
)

// Spec is what an image is assembled from.
type Spec struct {
	Config      dockerspec.DockerOCIImage // RootFS and History are not looked at
	History     []ocispec.History         // of base and steps, oldest first; those of layers need no Created
	Layers      []SpecLayer               // of base and steps, bottom first
	Base        *dockerspec.DockerOCIImage
	Docker      bool              // Docker's media types, not OCI's
	Epoch       *time.Time        // later times of the config become this
	Annotations map[string]string // of the manifest; OCI only
}

// SpecLayer is a layer with what the history may lack.
type SpecLayer struct {
	Layer
	Created *time.Time // when it was made; nil if that is not known
	Text    string     // what made it
}

// Assembled is an image as the bytes of its config and manifest.
type Assembled struct {
	Manifest    ocispec.Descriptor // with the platform
	Config      ocispec.Descriptor
	RawManifest []byte
	RawConfig   []byte
	Layers      []Layer
}

// Size is the number of bytes of config and layers.
func (a Assembled) Size() int64 {
	n := a.Config.Size
	for _, l := range a.Layers {
		n += l.Descriptor.Size
	}
	return n
}

// Put writes config and manifest into the store.
func (a Assembled) Put(s *store.Store) error {
	for _, b := range [][]byte{a.RawConfig, a.RawManifest} {
		if _, err := s.PutBlob(b); err != nil {
			return fmt.Errorf("keep image: %w", err)
		}
	}
	return nil
}

// Assemble makes an image of s. Layers of the base keep their bytes; their media
// types are written in the family of the image, as BuildKit does.
func Assemble(s Spec) (Assembled, error) {
	if s.Config.OS == "" || s.Config.Architecture == "" {
		return Assembled{}, errors.New("internal error: an image without a platform")
	}
	layers := make([]ocispec.Descriptor, 0, len(s.Layers))
	out := Assembled{}
	rootfs := ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	for i, l := range s.Layers {
		d, err := exported(l.Descriptor, s.Docker)
		if err != nil {
			return Assembled{}, fmt.Errorf("assemble image: layer %d: %w", i, err)
		}
		if err := l.DiffID.Validate(); err != nil {
			return Assembled{}, fmt.Errorf("assemble image: layer %d: diffID %q: %w", i, l.DiffID, err)
		}
		layers = append(layers, d)
		rootfs.DiffIDs = append(rootfs.DiffIDs, l.DiffID)
		out.Layers = append(out.Layers, Layer{Descriptor: d, DiffID: l.DiffID})
	}
	config := s.Config
	config.RootFS = rootfs
	config.History = history(s)
	config.Created = created(s, config.History)
	if config.Variant == "v8" && config.Architecture == "arm64" {
		config.Variant = ""
	}
	var err error
	if out.RawConfig, err = marshal(config, ""); err != nil {
		return Assembled{}, fmt.Errorf("assemble image: %w", err)
	}
	configType, manifestType := ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageManifest
	annotations := s.Annotations
	if s.Docker {
		configType, manifestType, annotations = DockerConfig, DockerManifest, nil
	}
	out.Config = ocispec.Descriptor{MediaType: configType, Digest: digest.FromBytes(out.RawConfig), Size: int64(len(out.RawConfig))}
	out.RawManifest, err = marshal(ocispec.Manifest{
		Versioned:   specs.Versioned{SchemaVersion: 2},
		MediaType:   manifestType,
		Config:      out.Config,
		Layers:      layers,
		Annotations: annotations,
	}, "  ")
	if err != nil {
		return Assembled{}, fmt.Errorf("assemble image: %w", err)
	}
	out.Manifest = ocispec.Descriptor{
		MediaType: manifestType,
		Digest:    digest.FromBytes(out.RawManifest),
		Size:      int64(len(out.RawManifest)),
		Platform:  platformOf(config),
	}
	return out, nil
}

// exported is a layer's descriptor as it stands in a manifest of ours.
func exported(d ocispec.Descriptor, docker bool) (ocispec.Descriptor, error) {
	t, ok := LayerType(d.MediaType, docker)
	if !ok {
		return d, fmt.Errorf("unknown media type %q", d.MediaType)
	}
	out := ocispec.Descriptor{MediaType: t, Digest: d.Digest, Size: d.Size, URLs: d.URLs}
	if docker {
		return out, nil
	}
	for k, v := range d.Annotations {
		if k == "containerd.io/uncompressed" || k == "buildkit/createdat" || strings.HasPrefix(k, "containerd.io/distribution.source.") {
			continue
		}
		if out.Annotations == nil {
			out.Annotations = map[string]string{}
		}
		out.Annotations[k] = v
	}
	return out, nil
}

// history completes the records as BuildKit does: one for every layer, and a
// time in each.
func history(s Spec) []ocispec.History {
	out := make([]ocispec.History, 0, len(s.History))
	used := 0
	for _, h := range s.History {
		if !h.EmptyLayer && used == len(s.Layers) {
			h.EmptyLayer = true // more records than layers: those of the top are wrong
		}
		if !h.EmptyLayer {
			if h.Created == nil {
				h.Created = s.Layers[used].Created
			}
			used++
		}
		out = append(out, h)
	}
	for _, l := range s.Layers[used:] { // the base had fewer records than layers: the rest is made up at the end
		out = append(out, ocispec.History{Created: l.Created, CreatedBy: l.Text, Comment: "buildkit.exporter.image.v0"})
	}
	// Records without a layer take the time of the first new layer after the
	// base, or of the last layer that has one.
	var at *time.Time
	gap := false
	for _, h := range out {
		if h.Created == nil {
			gap = true
			continue
		}
		at = h.Created
		if gap {
			break
		}
	}
	gap = false
	for i := range out {
		if out[i].Created == nil {
			gap = true
			out[i].Created = at
		} else if gap {
			at = out[i].Created
		}
	}
	if s.Epoch == nil {
		return out
	}
	diverged := false
	for i, h := range out {
		if !diverged && s.Base != nil && i < len(s.Base.History) && reflect.DeepEqual(h, s.Base.History[i]) {
			continue // times of the base stay
		}
		diverged = true
		if h.Created == nil || h.Created.After(*s.Epoch) {
			out[i].Created = s.Epoch
		}
	}
	return out
}

// created is that of the config, else of the last record that has one; an image
// without layers and records of a base has none.
func created(s Spec, records []ocispec.History) *time.Time {
	at := s.Config.Created
	if at != nil && s.Epoch != nil && at.After(*s.Epoch) {
		return s.Epoch
	}
	if at == nil {
		for _, h := range records {
			if h.Created != nil {
				at = h.Created
			}
		}
	}
	return at
}

// MakeIndex makes an index of manifests, in the order given.
func MakeIndex(manifests []ocispec.Descriptor, docker bool, annotations map[string]string) (ocispec.Descriptor, []byte, error) {
	idx := ocispec.Index{
		Versioned:   specs.Versioned{SchemaVersion: 2},
		MediaType:   ocispec.MediaTypeImageIndex,
		Manifests:   manifests,
		Annotations: maps.Clone(annotations),
	}
	if docker {
		idx.MediaType, idx.Annotations = DockerIndex, nil
	}
	b, err := marshal(idx, "  ")
	if err != nil {
		return ocispec.Descriptor{}, nil, fmt.Errorf("make index: %w", err)
	}
	return ocispec.Descriptor{MediaType: idx.MediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}, b, nil
}

// marshal writes JSON whose members are sorted, as a map's are, at the top: the
// form BuildKit gives configs, and independent of the order of our fields.
func marshal(v any, indent string) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if indent != "" {
		return json.MarshalIndent(v, "", indent)
	}
	m := map[string]json.RawMessage{}
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	return json.Marshal(m)
}
