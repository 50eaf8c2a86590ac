package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"

	"github.com/containerd/platforms"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What is read whole into memory has a limit.
const (
	MaxManifest = 8 << 20  // bytes; registries allow 4 MB
	MaxConfig   = 32 << 20 // bytes
	maxIndexes  = 4        // nesting of indexes
	maxLayers   = 10_000
)

// ErrNotFound is matched by errors about an image that is not where it was
// looked for.
var ErrNotFound = errors.New("not found")

// Layer is one layer of an image.
type Layer struct {
	Descriptor ocispec.Descriptor `json:"descriptor"`
	DiffID     digest.Digest      `json:"diffID"`
}

// Resolved is an image whose manifest and config have been read.
type Resolved struct {
	Name       string                    `json:"name"`            // in full, or oci-layout://DIR…
	Index      digest.Digest             `json:"index,omitempty"` // of the index that the name stands for
	Descriptor ocispec.Descriptor        `json:"descriptor"`      // of the manifest, with the platform of the config
	Manifest   []byte                    `json:"manifest"`
	RawConfig  []byte                    `json:"rawConfig"`
	Config     dockerspec.DockerOCIImage `json:"-"` // RawConfig, read
	Layers     []Layer                   `json:"layers"`
}

// Source reads what an image is made of, by descriptor. Reads are checked: a
// reader ends with io.EOF only when size and digest were right. Absent is
// ErrNotFound.
type Source interface {
	Open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error)
}

// Read is the whole of a small blob of src.
func Read(ctx context.Context, src Source, d ocispec.Descriptor, limit int64) ([]byte, error) {
	if d.Size < 0 || d.Size > limit {
		return nil, fmt.Errorf("%s says it has %d bytes; up to %d are allowed", d.Digest, d.Size, limit)
	}
	r, err := src.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", d.Digest, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", d.Digest, limit)
	}
	return b, nil
}

// Resolve finds the image for platform p that top, an index or a manifest, stands
// for. Children of an index are tried as BuildKit does: the best match by its
// platform, or one without a platform whose config matches; a manifest that was
// asked for by itself is taken whatever its platform.
func Resolve(ctx context.Context, src Source, name string, top ocispec.Descriptor, p ocispec.Platform) (Resolved, error) {
	match := platforms.Only(p)
	d := top
	index := digest.Digest("")
	for depth := 0; ; depth++ {
		b, err := Read(ctx, src, d, MaxManifest)
		if err != nil {
			return Resolved{}, err
		}
		kind, err := Detect(b, d.MediaType)
		if err != nil {
			return Resolved{}, fmt.Errorf("read manifest %s: %w", d.Digest, err)
		}
		d.MediaType = kind
		if !IsIndex(kind) {
			r, err := resolveManifest(ctx, src, d, b)
			if err != nil {
				return Resolved{}, err
			}
			if index != "" && d.Platform == nil && !match.Match(r.Config.Platform) {
				return Resolved{}, noMatch(index, p)
			}
			r.Name, r.Index = name, index
			return r, nil
		}
		if depth == maxIndexes {
			return Resolved{}, fmt.Errorf("index %s: more than %d indexes within each other", top.Digest, maxIndexes)
		}
		index = top.Digest
		child, ok, err := choose(b, match)
		if err != nil {
			return Resolved{}, fmt.Errorf("read index %s: %w", d.Digest, err)
		}
		if !ok {
			return Resolved{}, noMatch(index, p)
		}
		d = child
	}
}

func noMatch(index digest.Digest, p ocispec.Platform) error {
	return fmt.Errorf("no match for platform %s in manifest %s: %w", platforms.Format(p), index, ErrNotFound)
}

// choose picks the child of an index that fits best.
func choose(index []byte, match platforms.MatchComparer) (ocispec.Descriptor, bool, error) {
	var idx ocispec.Index
	if err := json.Unmarshal(index, &idx); err != nil {
		return ocispec.Descriptor{}, false, err
	}
	var fit []ocispec.Descriptor
	for _, d := range idx.Manifests {
		if d.Platform == nil || match.Match(*d.Platform) {
			fit = append(fit, d)
		}
	}
	sort.SliceStable(fit, func(i, j int) bool {
		switch a, b := fit[i].Platform, fit[j].Platform; {
		case a == nil:
			return false
		case b == nil:
			return true
		default:
			return match.Less(*a, *b)
		}
	})
	if len(fit) == 0 {
		return ocispec.Descriptor{}, false, nil
	}
	if err := fit[0].Digest.Validate(); err != nil {
		return ocispec.Descriptor{}, false, fmt.Errorf("digest %q: %w", fit[0].Digest, err)
	}
	return fit[0], true, nil
}

// Detect says what kind of manifest b is. mediaType is what its transport says,
// "" if that is not known; what the document says and what is in it must not
// contradict it.
func Detect(b []byte, mediaType string) (string, error) {
	var m struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Config        json.RawMessage `json:"config"`
		Layers        json.RawMessage `json:"layers"`
		Manifests     json.RawMessage `json:"manifests"`
		FSLayers      json.RawMessage `json:"fsLayers"`
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return "", err
	}
	if m.SchemaVersion == 1 || m.FSLayers != nil || mediaType == dockerSchema1 || mediaType == dockerSchema1Signed {
		return "", errors.New("it is a Docker manifest of schema 1, which is no longer supported: push the image again with a tool of this decade")
	}
	isIndex, isManifest := m.Manifests != nil, m.Config != nil || m.Layers != nil
	if isIndex && isManifest {
		return "", errors.New("it is ambiguous: it has both manifests and layers")
	}
	if !isIndex && !isManifest {
		return "", errors.New("it is neither a manifest nor an index of an image")
	}
	kind := m.MediaType
	if kind == "" {
		kind = mediaType
	}
	switch {
	case IsIndex(kind) && isManifest, IsManifest(kind) && isIndex:
		return "", fmt.Errorf("its media type %s does not fit its content", kind)
	case IsIndex(kind), IsManifest(kind):
		return kind, nil
	case isIndex:
		return ocispec.MediaTypeImageIndex, nil
	default:
		return ocispec.MediaTypeImageManifest, nil
	}
}

func resolveManifest(ctx context.Context, src Source, d ocispec.Descriptor, b []byte) (Resolved, error) {
	m, err := parseManifest(b)
	if err != nil {
		return Resolved{}, fmt.Errorf("read manifest %s: %w", d.Digest, err)
	}
	config, err := Read(ctx, src, m.Config, MaxConfig)
	if err != nil {
		return Resolved{}, fmt.Errorf("read config of %s: %w", d.Digest, err)
	}
	r := Resolved{Manifest: b, RawConfig: config}
	if err := json.Unmarshal(config, &r.Config); err != nil {
		return Resolved{}, fmt.Errorf("read config %s: %w", m.Config.Digest, err)
	}
	ids := r.Config.RootFS.DiffIDs
	if len(ids) != len(m.Layers) {
		return Resolved{}, fmt.Errorf("image %s is damaged: %d layers in its manifest, %d in its config", d.Digest, len(m.Layers), len(ids))
	}
	for i, l := range m.Layers {
		if err := ids[i].Validate(); err != nil {
			return Resolved{}, fmt.Errorf("read config %s: diffID %q: %w", m.Config.Digest, ids[i], err)
		}
		r.Layers = append(r.Layers, Layer{Descriptor: l, DiffID: ids[i]})
	}
	r.Descriptor = ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: int64(len(b)), Platform: platformOf(r.Config)}
	return r, nil
}

// platformOf is the platform that a config names, nil if it names none.
func platformOf(c dockerspec.DockerOCIImage) *ocispec.Platform {
	if c.OS == "" && c.Architecture == "" {
		return nil
	}
	p := platforms.Normalize(c.Platform)
	return &p
}

// parseManifest checks what everything later relies on.
func parseManifest(b []byte) (ocispec.Manifest, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return m, err
	}
	if len(m.Layers) > maxLayers {
		return m, fmt.Errorf("it has %d layers", len(m.Layers))
	}
	if err := m.Config.Digest.Validate(); err != nil {
		return m, fmt.Errorf("config digest %q: %w", m.Config.Digest, err)
	}
	if m.Config.MediaType != "" && m.Config.MediaType != ocispec.MediaTypeImageConfig && m.Config.MediaType != DockerConfig && m.Config.MediaType != "application/octet-stream" {
		return m, fmt.Errorf("it is no container image: its config is %s", m.Config.MediaType)
	}
	for i, l := range m.Layers {
		if _, ok := LayerType(l.MediaType, false); !ok {
			return m, fmt.Errorf("layer %d has the unknown media type %q", i, l.MediaType)
		}
		if l.Digest.Validate() != nil || l.Digest.Algorithm() != digest.SHA256 {
			return m, fmt.Errorf("layer %d has the bad digest %q", i, l.Digest)
		}
		if l.Size < 0 {
			return m, fmt.Errorf("layer %d has the size %d", i, l.Size)
		}
	}
	return m, nil
}
