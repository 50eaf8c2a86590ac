package image

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/store"
)

// What BuildKit writes about attestations (its docs/attestations/attestation-storage.md).
const (
	AnnotationReferenceType   = "vnd.docker.reference.type"
	AnnotationReferenceDigest = "vnd.docker.reference.digest"
	AnnotationPredicateType   = "in-toto.io/predicate-type"
	InTotoType                = "application/vnd.in-toto+json"

	attestationManifest = "attestation-manifest" // an AnnotationReferenceType
	attestationArtifact = "application/vnd.docker.attestation.manifest.v1+json"
	statementType       = "https://in-toto.io/Statement/v1"
	unknown             = "unknown" // OS and architecture of an attestation
)

// MaxStatement is the size of one in-toto statement that is made, in bytes.
const MaxStatement = 80 << 20

// Predicate is what is said about an image: JSON of a type that an URI names.
type Predicate struct {
	Type string
	JSON json.RawMessage
}

// Attestation is a manifest with statements about an image. In an index it stands
// behind the images.
type Attestation struct {
	Manifest ocispec.Descriptor // with the annotations that say what it is about
	blobs    [][]byte           // of the manifest, and itself last
}

// Put writes all of it into the store.
func (a Attestation) Put(s *store.Store) error {
	for _, b := range a.blobs {
		if _, err := s.PutBlob(b); err != nil {
			return fmt.Errorf("keep attestation: %w", err)
		}
	}
	return nil
}

type subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

type statement struct {
	Type          string          `json:"_type"`
	PredicateType string          `json:"predicateType"`
	Subject       []subject       `json:"subject"`
	Predicate     json.RawMessage `json:"predicate"`
}

// Attest makes the statements of predicates about the image, whose descriptor has
// its platform, under each of names, and the manifest that holds them. It is an
// OCI artifact, as BuildKit's are since version 0.31. The same arguments give the same bytes.
func Attest(image ocispec.Descriptor, names []Name, predicates []Predicate) (Attestation, error) {
	var subjects []subject
	sum := map[string]string{image.Digest.Algorithm().String(): image.Digest.Encoded()}
	for _, n := range names {
		subjects = append(subjects, subject{PURL("docker", n, image.Platform), sum})
	}
	if len(subjects) == 0 {
		subjects = []subject{{"_", sum}} // in-toto's name for what has none
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: attestationArtifact,
		Config:  ocispec.DescriptorEmptyJSON,
		Subject: &ocispec.Descriptor{MediaType: image.MediaType, Digest: image.Digest, Size: image.Size},
	}
	out := Attestation{blobs: [][]byte{m.Config.Data}}
	for _, p := range predicates {
		b, err := json.Marshal(statement{statementType, p.Type, subjects, p.JSON})
		if err != nil {
			return out, fmt.Errorf("make statement %s: %w", p.Type, err)
		}
		if len(b) > MaxStatement {
			return out, fmt.Errorf("make statement %s: it has %d bytes; up to %d are allowed", p.Type, len(b), MaxStatement)
		}
		out.blobs = append(out.blobs, b)
		m.Layers = append(m.Layers, ocispec.Descriptor{
			MediaType: InTotoType, Digest: digest.FromBytes(b), Size: int64(len(b)),
			Annotations: map[string]string{AnnotationPredicateType: p.Type},
		})
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return out, fmt.Errorf("make attestation: %w", err)
	}
	out.blobs = append(out.blobs, b)
	out.Manifest = ocispec.Descriptor{
		MediaType: m.MediaType, Digest: digest.FromBytes(b), Size: int64(len(b)),
		Annotations: map[string]string{AnnotationReferenceType: attestationManifest, AnnotationReferenceDigest: image.Digest.String()},
		Platform:    &ocispec.Platform{OS: unknown, Architecture: unknown},
	}
	return out, nil
}

// IsAttestation tells whether an index says of one of its manifests that it is
// none of an image, but says something about one.
func IsAttestation(d ocispec.Descriptor) bool {
	return d.Annotations[AnnotationReferenceType] != "" || d.Platform != nil && d.Platform.OS == unknown
}

// Attested is an attestation manifest as far as it matters here.
type Attested struct {
	Statements []ocispec.Descriptor // with AnnotationPredicateType
	Config     ocispec.Descriptor
}

// ParseAttestation reads an attestation manifest; legacy ones have the config of an
// image, others none.
func ParseAttestation(b []byte) (Attested, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return Attested{}, err
	}
	if len(m.Layers) > maxLayers {
		return Attested{}, fmt.Errorf("it has %d statements", len(m.Layers))
	}
	for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if d.Digest.Validate() != nil || d.Digest.Algorithm() != digest.SHA256 || d.Size < 0 {
			return Attested{}, fmt.Errorf("it has the bad digest %q, or size %d", d.Digest, d.Size)
		}
	}
	return Attested{Statements: m.Layers, Config: m.Config}, nil
}

// PURL is the package URL of an image: pkg:docker/alpine@3.22?platform=linux%2Famd64.
// kind is docker, or oci for one of a layout.
func PURL(kind string, n Name, p *ocispec.Platform) string {
	name := n
	name.Tag, name.Digest = "", ""
	path := strings.Split(name.Familiar(), "/")
	for i, part := range path {
		path[i] = url.QueryEscape(part)
	}
	out := "pkg:" + kind + "/" + strings.Join(path, "/")
	if n.Tag != "" {
		out += "@" + url.PathEscape(n.Tag)
	}
	var more []string
	if n.Digest != "" {
		more = append(more, "digest="+url.PathEscape(n.Digest))
	}
	if p != nil {
		more = append(more, "platform="+url.PathEscape(platforms.Format(platforms.Normalize(*p))))
	}
	if len(more) > 0 {
		out += "?" + strings.Join(more, "&")
	}
	return out
}
