package store

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is a name for a manifest or an index whose blobs are in the store.
type Image struct {
	Name       string             `json:"name"` // in full, with registry and tag
	Descriptor ocispec.Descriptor `json:"descriptor"`
	Config     digest.Digest      `json:"config,omitempty"` // of a manifest
	Size       int64              `json:"size,omitempty"`   // bytes of config and layers
	Created    time.Time          `json:"created"`          // when the name was put
	Target     string             `json:"target,omitempty"` // that made it
	// Origins is where blobs come from, which need not be here: a name in a registry, or
	// an OCI layout.
	Origins map[digest.Digest]string `json:"origins,omitempty"`
}

func imagePath(name string) string { return dirImages + "/" + escape(name) }

// PutImage gives img.Name to an image. A name that was in use moves.
func (s *Store) PutImage(img Image) error {
	if img.Name == "" {
		return errors.New("internal error: an image without a name")
	}
	if err := s.putJSON(imagePath(img.Name), img); err != nil {
		return fmt.Errorf("record image %s: %w", img.Name, err)
	}
	return nil
}

// GetImage finds the image of that name; it is a Miss also when its manifest is
// gone.
func (s *Store) GetImage(name string) (Image, error) {
	return s.image(imagePath(name), name)
}

func (s *Store) image(file, name string) (Image, error) {
	var img Image
	what := "image " + name
	if err := s.getJSON(file, what, &img); err != nil {
		return Image{}, err
	}
	if imagePath(img.Name) != file {
		return Image{}, &Miss{What: what, Reason: fmt.Sprintf("its record is that of %q", img.Name)}
	}
	if size, ok := s.Has(img.Descriptor.Digest); !ok || size != img.Descriptor.Size {
		return Image{}, &Miss{What: what, Reason: "its manifest " + img.Descriptor.Digest.String() + " is gone"}
	}
	return img, nil
}

// Images are all named images, sorted by name. Those that GetImage would
// answer with a Miss are left out.
func (s *Store) Images() ([]Image, error) {
	list, err := fs.ReadDir(s.root.FS(), dirImages)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var out []Image
	for _, e := range list {
		img, err := s.image(path.Join(dirImages, e.Name()), e.Name())
		if errors.Is(err, ErrMiss) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, img)
	}
	slices.SortFunc(out, func(a, b Image) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// RemoveImage takes a name away; one that is absent is a Miss.
func (s *Store) RemoveImage(name string) error {
	err := s.root.Remove(imagePath(name))
	if errors.Is(err, fs.ErrNotExist) {
		return &Miss{What: "image " + name}
	}
	if err != nil {
		return fmt.Errorf("remove image %s: %w", name, err)
	}
	return nil
}

// Base is what a registry said a name stands for.
type Base struct {
	Name       string             `json:"name"` // in full
	Descriptor ocispec.Descriptor `json:"descriptor"`
	Asked      time.Time          `json:"asked"`
}

func basePath(name string) string { return dirBases + "/" + escape(name) }

// PutBase records the answer of a registry.
func (s *Store) PutBase(b Base) error {
	if err := s.putJSON(basePath(b.Name), b); err != nil {
		return fmt.Errorf("record base %s: %w", b.Name, err)
	}
	return nil
}

// GetBase is the last answer for name. It is a Miss also when the manifest or
// index it names is not here.
func (s *Store) GetBase(name string) (Base, error) {
	var b Base
	what := "base " + name
	if err := s.getJSON(basePath(name), what, &b); err != nil {
		return Base{}, err
	}
	if b.Name != name {
		return Base{}, &Miss{What: what, Reason: fmt.Sprintf("its record is that of %q", b.Name)}
	}
	if size, ok := s.Has(b.Descriptor.Digest); !ok || size != b.Descriptor.Size {
		return Base{}, &Miss{What: what, Reason: "its manifest " + b.Descriptor.Digest.String() + " is gone"}
	}
	return b, nil
}
