package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/schema/diag"
)

// Opened is one image in a file or directory. It is a Source until Close.
type Opened interface {
	Source
	Close() error
}

// OpenArchive opens what holds exactly one image: an OCI layout, as a directory
// or a tar of it, or what docker save writes. d is the image's manifest; for an
// archive that has none, one in Docker's format is made.
func OpenArchive(name string) (_ Opened, d ocispec.Descriptor, err error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, d, &diag.Problem{What: fmt.Sprintf("image %s: %v", name, errors.Unwrap(err)), Hint: "name a tar or an OCI layout directory"}
	}
	if st.IsDir() {
		l, err := OpenLayout(name)
		if err != nil {
			return nil, d, err
		}
		d, err := onlyOne(name, l.index.Manifests)
		return openLayout{l}, d, err
	}
	a, err := openTar(name)
	if err != nil {
		return nil, d, fmt.Errorf("open image %s: %w", name, err)
	}
	if _, ok := a.files[ocispec.ImageIndexFile]; ok {
		var index ocispec.Index
		if err = a.json(ocispec.ImageIndexFile, &index); err == nil {
			d, err = onlyOne(name, index.Manifests)
		}
	} else {
		d, err = a.saved(name)
	}
	if err != nil {
		return nil, d, errors.Join(err, a.Close())
	}
	return a, d, nil
}

// onlyOne is the image that a layout has, under however many names.
func onlyOne(name string, list []ocispec.Descriptor) (ocispec.Descriptor, error) {
	var d ocispec.Descriptor
	for _, m := range list {
		if d.Digest != "" && d.Digest != m.Digest {
			return d, &diag.Problem{What: fmt.Sprintf("image %s: it holds several images", name), Hint: "push them one by one, from archives of their own"}
		}
		d = m
	}
	if d.Digest == "" {
		return d, &diag.Problem{What: fmt.Sprintf("image %s: it holds no image", name)}
	}
	d.Annotations = nil // names in the archive, no business of a registry's
	return d, nil
}

type openLayout struct{ *Layout }

func (openLayout) Close() error { return nil }

// tarImage reads members of a tar as they are asked for.
type tarImage struct {
	file  *os.File
	files map[string]part
	blobs map[digest.Digest]part   // of a docker archive, by what they are
	made  map[digest.Digest][]byte // a manifest that the archive lacks
}

type part struct{ at, size int64 }

func openTar(name string) (*tarImage, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	a := &tarImage{file: f, files: map[string]part{}, blobs: map[digest.Digest]part{}, made: map[digest.Digest][]byte{}}
	links := map[string]string{}
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return nil, errors.Join(err, f.Close())
		}
		at, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		switch name := path.Clean(h.Name); h.Typeflag {
		case tar.TypeReg:
			a.files[name] = part{at, h.Size}
		case tar.TypeSymlink: // docker save writes a layer once
			links[name] = path.Join(path.Dir(name), h.Linkname)
		case tar.TypeLink:
			links[name] = path.Clean(h.Linkname)
		}
		if len(a.files)+len(links) > 4*maxLayers {
			return nil, errors.Join(errors.New("it has too many files for an image"), f.Close())
		}
	}
	for name, to := range links {
		if p, ok := a.files[to]; ok {
			a.files[name] = p
		}
	}
	return a, nil
}

func (a *tarImage) Close() error { return a.file.Close() }

func (a *tarImage) reader(p part) io.Reader { return io.NewSectionReader(a.file, p.at, p.size) }

func (a *tarImage) json(name string, v any) error {
	p, ok := a.files[name]
	if !ok || p.size > MaxManifest {
		return fmt.Errorf("it has no %s of a usual size", name)
	}
	b, err := io.ReadAll(a.reader(p))
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// saved makes a manifest for what docker save wrote.
func (a *tarImage) saved(name string) (d ocispec.Descriptor, err error) {
	var list []struct {
		Config string
		Layers []string
	}
	if err := a.json("manifest.json", &list); err != nil {
		return d, &diag.Problem{What: fmt.Sprintf("image %s: %v", name, err), Hint: "name a tar with an image, or an OCI layout directory"}
	}
	if len(list) != 1 {
		return d, &diag.Problem{What: fmt.Sprintf("image %s: it holds %d images", name, len(list)), Hint: "push them one by one, from archives of their own"}
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: DockerManifest, Layers: []ocispec.Descriptor{}}
	if m.Config, err = a.blob(list[0].Config, DockerConfig); err != nil {
		return d, err
	}
	for _, l := range list[0].Layers {
		head := make([]byte, 2)
		kind := DockerLayer
		if p := a.files[path.Clean(l)]; p.size > 2 {
			if _, err := io.ReadFull(a.reader(p), head); err == nil && bytes.Equal(head, []byte{0x1f, 0x8b}) {
				kind = DockerLayerGzip
			}
		}
		one, err := a.blob(l, kind)
		if err != nil {
			return d, err
		}
		m.Layers = append(m.Layers, one)
	}
	b, err := marshal(m, "  ")
	if err != nil {
		return d, err
	}
	d = ocispec.Descriptor{MediaType: DockerManifest, Digest: digest.FromBytes(b), Size: int64(len(b))}
	a.made[d.Digest] = b
	return d, nil
}

func (a *tarImage) blob(name, kind string) (ocispec.Descriptor, error) {
	p, ok := a.files[path.Clean(name)]
	if !ok {
		return ocispec.Descriptor{}, fmt.Errorf("it has no file %q", name)
	}
	sum, err := digest.FromReader(a.reader(p))
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("read %s: %w", name, err)
	}
	a.blobs[sum] = p
	return ocispec.Descriptor{MediaType: kind, Digest: sum, Size: p.size}, nil
}

// Open reads a blob and checks it.
func (a *tarImage) Open(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	if b, ok := a.made[d.Digest]; ok {
		return io.NopCloser(bytes.NewReader(b)), nil
	}
	if err := d.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("digest %q: %w", d.Digest, err)
	}
	p, ok := a.blobs[d.Digest]
	if !ok {
		p, ok = a.files[blobName(d.Digest)]
	}
	if !ok {
		return nil, fmt.Errorf("the archive has no blob %s: %w", d.Digest, ErrNotFound)
	}
	return Verify(io.NopCloser(a.reader(p)), d), nil
}
