package executor

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/image"
	"kaniko-build/executor/internal/sbom"
	"kaniko-build/schema/diag"
)

// Attest says what is stated about an image, beside it in an index as BuildKit
// keeps it. The zero value states nothing.
type Attest struct {
	Provenance string // ProvenanceMin, ProvenanceMax, "" for none
	SBOM       string // SPDX, "" for none
	Builder    string // an URI of who builds, for provenance
	Source     string // the address that the context was fetched from; "" is a directory
}

// What can be stated.
const (
	ProvenanceMin = "min" // of what the image was made
	ProvenanceMax = "max" // and how: arguments, Dockerfile, steps
	SPDX          = "spdx-json"
)

func (a Attest) any() bool { return a.Provenance != "" || a.SBOM != "" }

func (a Attest) check(f Format) error {
	switch {
	case a.Provenance != "" && a.Provenance != ProvenanceMin && a.Provenance != ProvenanceMax:
		return &diag.Problem{What: fmt.Sprintf("provenance %q", a.Provenance), Hint: "write min or max"}
	case a.SBOM != "" && a.SBOM != SPDX:
		return &diag.Problem{What: fmt.Sprintf("sbom format %q", a.SBOM), Hint: "write " + SPDX}
	case a.any() && f.Docker:
		return &diag.Problem{What: "Docker's image format has no attestations", Hint: "use the format oci, or take attest out"}
	}
	return nil
}

// attestScheme changes when the same image would be attested otherwise.
const attestScheme = "1"

// remembered is what the last build of a node was attested by.
type remembered struct{ Manifest ocispec.Descriptor }

// attest makes the attestations about an image of n with the layers of c, puts them
// into the store, and returns their manifest. They are made of nothing but the
// image and its inputs, so that those which the last build of the node put there
// are taken if they are of the same. Of an image that is not the node's own, but
// rewritten for an output, nothing is remembered.
func (x *Executor) attest(ctx context.Context, n *Node, img image.Assembled, c chain, rewritten bool) (ocispec.Descriptor, error) {
	var predicates []image.Predicate
	lines := append([]string{"attest " + attestScheme, img.Manifest.Digest.String(), n.Attest.SBOM, sbom.Scheme}, n.Names...)
	if n.Attest.Provenance != "" {
		p, err := n.provenance(img, c)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		predicates = append(predicates, p)
		if !rewritten {
			n.mu.Lock()
			n.stated = p.JSON
			n.mu.Unlock()
		}
		lines = append(lines, "provenance", string(p.JSON))
	}
	key := hashLines(lines).String()
	id := "attest " + n.pastID()
	var old remembered
	if !rewritten && x.store.PastStamp(id) == key && x.store.GetPast(id, &old) == nil && x.hasAttestation(old.Manifest) {
		return old.Manifest, nil
	}
	if n.Attest.SBOM != "" {
		p, err := x.sbom(ctx, n, img, c)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		predicates = append([]image.Predicate{p}, predicates...) // BuildKit's order
	}
	var names []image.Name
	for _, name := range n.Names {
		parsed, err := image.ParseName(name)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		names = append(names, parsed)
	}
	a, err := image.Attest(img.Manifest, names, predicates)
	if err == nil {
		err = a.Put(x.store)
	}
	if err != nil || rewritten {
		return a.Manifest, err
	}
	return a.Manifest, x.store.PutPast(id, key, remembered{a.Manifest})
}

// hasAttestation tells whether the store has all of an attestation.
func (x *Executor) hasAttestation(d ocispec.Descriptor) bool {
	b, err := x.store.ReadBlob(d.Digest, image.MaxManifest)
	if err != nil {
		return false
	}
	a, err := image.ParseAttestation(b)
	if err != nil {
		return false
	}
	for _, s := range append(a.Statements, a.Config) {
		if size, ok := x.store.Has(s.Digest); !ok || size != s.Size {
			return false
		}
	}
	return true
}

// together makes the index of an image and what is stated about it.
func (x *Executor) together(n *Node, img, about ocispec.Descriptor) (ocispec.Descriptor, error) {
	annotations := maps.Clone(n.Format.Index)
	if in := n.Format.Annotations[InputAnnotation]; in != "" { // it is looked for in what the name stands for
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[InputAnnotation] = in
	}
	img.Annotations = n.Format.Descriptor
	d, raw, err := image.MakeIndex([]ocispec.Descriptor{img, about}, false, annotations)
	if d.Annotations = n.Format.IndexDescriptor; err == nil {
		_, err = x.store.PutBlob(raw)
	}
	if err != nil {
		return d, fmt.Errorf("make the index of %s: %w", n.ID, err)
	}
	return d, nil
}

// Provenance is the predicate of a node that was built with it, nil without.
func (n *Node) Provenance() json.RawMessage {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stated
}
