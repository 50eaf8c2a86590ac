package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/image"
	"kaniko-build/executor/internal/registry"
	"kaniko-build/schema/diag"
)

// LayoutScheme marks a place that is a path, as kaniko writes it.
const LayoutScheme = "oci:"

func newPlace(reg *registry.Client, name string) (place, error) {
	if path, ok := strings.CutPrefix(name, LayoutScheme); ok {
		if path == "" {
			return nil, &diag.Problem{What: fmt.Sprintf("%q is no place for a cache", name), Hint: "write oci:PATH"}
		}
		abs, err := filepath.Abs(path)
		if err != nil {
			return nil, fmt.Errorf("find %s: %w", path, err)
		}
		return layouts{abs}, nil
	}
	n, err := image.ParseName(name)
	if err != nil {
		return nil, err
	}
	if n.Digest != "" || strings.Contains(name[strings.LastIndexByte(name, '/')+1:], ":") {
		return nil, &diag.Problem{What: fmt.Sprintf("the cache %q names more than a repository", name), Hint: "leave the tag out: the key of a step is the tag"}
	}
	return repository{reg, n.Context()}, nil
}

// repository is a place at a registry.
type repository struct {
	reg  *registry.Client
	name string // HOST/PATH
}

func (p repository) origin(tag string) string { return p.name + ":" + tag }

func (p repository) find(ctx context.Context, tag string) (image.Resolved, error) {
	r, err := p.reg.Tagged(ctx, p.origin(tag))
	if err != nil {
		return r, err
	}
	for _, l := range r.Layers {
		err := p.reg.HasBlob(ctx, p.origin(tag), l.Descriptor)
		if errors.Is(err, image.ErrNotFound) {
			return r, fmt.Errorf("its layer %s is not there", l.Descriptor.Digest)
		}
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

func (p repository) put(ctx context.Context, tag string, a image.Assembled, src image.Source, origins map[digest.Digest][]string) error {
	return p.reg.PutTagged(ctx, p.origin(tag), a, src, origins)
}

func (p repository) useless(err error) bool {
	var e *registry.Error
	return errors.As(err, &e) && (e.Kind == registry.Unreachable || e.Kind == registry.Denied || e.Kind == registry.TLS)
}

// layouts is a place in the file system: the entry of a tag is the OCI layout
// directory PATH:TAG.
type layouts struct{ path string }

func (p layouts) dir(tag string) string { return p.path + ":" + tag }

func (p layouts) origin(tag string) string { return "oci-layout://" + p.dir(tag) }

func (p layouts) find(ctx context.Context, tag string) (image.Resolved, error) {
	if _, err := os.Lstat(p.dir(tag)); errors.Is(err, fs.ErrNotExist) {
		return image.Resolved{}, image.ErrNotFound
	}
	l, err := image.OpenLayout(p.dir(tag))
	if err != nil {
		return image.Resolved{}, err
	}
	list := l.Manifests()
	if len(list) != 1 {
		return image.Resolved{}, fmt.Errorf("it holds %d images", len(list))
	}
	r, err := image.Resolve(ctx, l, p.dir(tag), list[0], ocispec.Platform{})
	if errors.Is(err, image.ErrNotFound) {
		return r, fmt.Errorf("it is damaged: %s", err.Error())
	}
	if err != nil {
		return r, err
	}
	for _, d := range r.Layers {
		size, err := l.Size(d.Descriptor.Digest)
		if errors.Is(err, image.ErrNotFound) {
			return r, fmt.Errorf("its layer %s is not there", d.Descriptor.Digest)
		}
		if err != nil {
			return r, err
		}
		if size != d.Descriptor.Size {
			return r, fmt.Errorf("its layer %s has %d bytes, not %d", d.Descriptor.Digest, size, d.Descriptor.Size)
		}
	}
	return r, nil
}

// put replaces an entry as a whole: one that is there is too old, or damaged.
func (p layouts) put(ctx context.Context, tag string, a image.Assembled, src image.Source, _ map[digest.Digest][]string) error {
	if err := os.RemoveAll(p.dir(tag)); err != nil {
		return fmt.Errorf("replace a cache entry: %w", err)
	}
	return image.WriteOCIDir(ctx, p.dir(tag), src, image.Export{Descriptor: a.Manifest})
}

func (p layouts) useless(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrInvalid)
}

// memory reads small blobs that are at hand.
type memory map[digest.Digest][]byte

func (m memory) Open(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	b, ok := m[d.Digest]
	if !ok {
		return nil, fmt.Errorf("blob %s: %w", d.Digest, image.ErrNotFound)
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}
