package store

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Params say how a layer is encoded. A layer as a registry has it is one too:
// its Compression is "source" and its Level 0.
type Params struct {
	MediaType   string `json:"mediaType"`
	Compression string `json:"compression"`
	Level       int    `json:"level,omitempty"`
	Epoch       *int64 `json:"epoch,omitempty"` // Unix seconds that later times were set to
}

// Variant is one encoding of a layer as a blob.
type Variant struct {
	DiffID     digest.Digest      `json:"diffID"` // of the layer before its times were set
	Params     Params             `json:"params"`
	Descriptor ocispec.Descriptor `json:"descriptor"`
	Tar        digest.Digest      `json:"tar,omitempty"` // diffID of what the blob holds, if its times were set
}

func variantDir(diffID digest.Digest) (string, error) {
	if diffID.Validate() != nil || diffID.Algorithm() != digest.SHA256 {
		return "", fmt.Errorf("%q is no sha256 diffID", diffID)
	}
	return dirVariants + "/" + diffID.Encoded(), nil
}

func variantPath(diffID digest.Digest, p Params) (string, error) {
	dir, err := variantDir(diffID)
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(p)
	if err != nil {
		return "", fmt.Errorf("encode params: %w", err)
	}
	sum := sha256.Sum256(b)
	return dir + "/" + hex.EncodeToString(sum[:16]), nil
}

// GetVariant finds the blob that encodes the layer as p says. ok is false when
// there is none, its record is damaged, or the blob is gone or has another size.
func (s *Store) GetVariant(diffID digest.Digest, p Params) (v Variant, ok bool) {
	name, err := variantPath(diffID, p)
	if err != nil {
		return Variant{}, false
	}
	if v, ok = s.variant(name); !ok || v.DiffID != diffID {
		return Variant{}, false
	}
	return v, true
}

func (s *Store) variant(name string) (v Variant, ok bool) {
	if err := s.getJSON(name, "variant", &v); err != nil {
		return Variant{}, false
	}
	if size, ok := s.Has(v.Descriptor.Digest); !ok || size != v.Descriptor.Size {
		return Variant{}, false
	}
	return v, true
}

// Variants are all encodings of a layer whose blob is there, in a fixed order.
func (s *Store) Variants(diffID digest.Digest) []Variant {
	dir, err := variantDir(diffID)
	if err != nil {
		return nil
	}
	list, err := fs.ReadDir(s.root.FS(), dir)
	if err != nil {
		return nil
	}
	var out []Variant
	for _, e := range list {
		if v, ok := s.variant(path.Join(dir, e.Name())); ok && v.DiffID == diffID {
			out = append(out, v)
		}
	}
	slices.SortFunc(out, func(a, b Variant) int {
		return strings.Compare(a.Descriptor.Digest.String(), b.Descriptor.Digest.String())
	})
	return out
}

// PutVariant records a blob that must be in the store already.
func (s *Store) PutVariant(v Variant) error {
	name, err := variantPath(v.DiffID, v.Params)
	if err != nil {
		return err
	}
	if size, ok := s.Has(v.Descriptor.Digest); !ok || size != v.Descriptor.Size {
		return fmt.Errorf("record variant of %s: %w", v.DiffID, errors.Join(&Miss{What: "blob " + v.Descriptor.Digest.String()}))
	}
	if err := s.putJSON(name, v); err != nil {
		return fmt.Errorf("record variant of %s: %w", v.DiffID, err)
	}
	return nil
}
