package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/schema/diag"
)

// Export is one image to be written, under any number of names.
type Export struct {
	Descriptor ocispec.Descriptor // of a manifest or an index
	Names      []Name
}

const (
	annotationRef  = ocispec.AnnotationRefName
	annotationName = "io.containerd.image.name"
)

// entries are the descriptors that a layout's index lists for the exports: one
// for each name.
func entries(exports []Export) []ocispec.Descriptor {
	out := []ocispec.Descriptor{}
	for _, e := range exports {
		d := e.Descriptor
		if len(e.Names) == 0 {
			out = append(out, d)
		}
		for _, n := range e.Names {
			d.Annotations = maps.Clone(e.Descriptor.Annotations)
			if d.Annotations == nil {
				d.Annotations = map[string]string{}
			}
			d.Annotations[annotationName] = n.String()
			if n.Tag != "" {
				d.Annotations[annotationRef] = n.Tag
			}
			out = append(out, d)
		}
	}
	return out
}

// closure lists everything that the exports consist of, each once, children
// before parents.
func closure(ctx context.Context, src Source, exports []Export) ([]ocispec.Descriptor, error) {
	var out []ocispec.Descriptor
	seen := map[digest.Digest]bool{}
	add := func(d ocispec.Descriptor) {
		if !seen[d.Digest] {
			seen[d.Digest] = true
			out = append(out, d)
		}
	}
	var walk func(d ocispec.Descriptor, depth int) error
	walk = func(d ocispec.Descriptor, depth int) error {
		if seen[d.Digest] {
			return nil
		}
		if depth > maxIndexes {
			return fmt.Errorf("more than %d indexes within each other", maxIndexes)
		}
		b, err := Read(ctx, src, d, MaxManifest)
		if err != nil {
			return err
		}
		kind, err := Detect(b, d.MediaType)
		if err != nil {
			return fmt.Errorf("read manifest %s: %w", d.Digest, err)
		}
		if IsIndex(kind) {
			var idx ocispec.Index
			if err := json.Unmarshal(b, &idx); err != nil {
				return fmt.Errorf("read index %s: %w", d.Digest, err)
			}
			for _, c := range idx.Manifests {
				if err := walk(c, depth+1); err != nil {
					return err
				}
			}
		} else if depth > 0 && IsAttestation(d) {
			m, err := ParseAttestation(b)
			if err != nil {
				return fmt.Errorf("read attestation %s: %w", d.Digest, err)
			}
			add(m.Config)
			for _, s := range m.Statements {
				add(s)
			}
		} else {
			m, err := parseManifest(b)
			if err != nil {
				return fmt.Errorf("read manifest %s: %w", d.Digest, err)
			}
			add(m.Config)
			for _, l := range m.Layers {
				add(l)
			}
		}
		add(d)
		return nil
	}
	for _, e := range exports {
		if err := walk(e.Descriptor, 0); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// WriteOCI writes an OCI image layout as a tar.
func WriteOCI(ctx context.Context, w io.Writer, src Source, exports ...Export) error {
	t := tar.NewWriter(w)
	if err := writeLayout(ctx, t, src, exports); err != nil {
		return fmt.Errorf("write oci archive: %w", err)
	}
	if err := t.Close(); err != nil {
		return fmt.Errorf("write oci archive: %w", err)
	}
	return nil
}

func writeLayout(ctx context.Context, t *tar.Writer, src Source, exports []Export) error {
	blobs, err := closure(ctx, src, exports)
	if err != nil {
		return err
	}
	for _, d := range []string{"blobs/", "blobs/sha256/"} {
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: d, Mode: 0o755, ModTime: time.Unix(0, 0)}); err != nil {
			return err
		}
	}
	buf := make([]byte, copySize)
	for _, d := range blobs {
		if err := addBlob(ctx, t, src, d, buf); err != nil {
			return fmt.Errorf("blob %s: %w", d.Digest, err)
		}
	}
	index, err := layoutIndex(entries(exports))
	if err != nil {
		return err
	}
	if err := addFile(t, ocispec.ImageIndexFile, index); err != nil {
		return err
	}
	return addFile(t, ocispec.ImageLayoutFile, []byte(layoutVersion))
}

const layoutVersion = `{"imageLayoutVersion":"1.0.0"}`

func layoutIndex(list []ocispec.Descriptor) ([]byte, error) {
	return json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: list,
	})
}

func blobName(d digest.Digest) string {
	return path.Join("blobs", d.Algorithm().String(), d.Encoded())
}

func addFile(t *tar.Writer, name string, b []byte) error {
	if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(b)), ModTime: time.Unix(0, 0)}); err != nil {
		return err
	}
	_, err := t.Write(b)
	return err
}

func addBlob(ctx context.Context, t *tar.Writer, src Source, d ocispec.Descriptor, buf []byte) error {
	r, err := src.Open(ctx, d)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: blobName(d.Digest), Mode: 0o644, Size: d.Size, ModTime: time.Unix(0, 0)}); err != nil {
		return err
	}
	return copyAll(ctx, t, r, buf)
}

const copySize = 128 << 10

// copyAll copies until the end of r or of ctx, through buf.
func copyAll(ctx context.Context, w io.Writer, r io.Reader, buf []byte) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, ctxReader{ctx, r}, buf)
	return err
}

type ctxReader struct {
	ctx context.Context // of one copy
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

// WriteDocker writes what `docker load` and `podman load` read: an OCI layout
// with a manifest.json beside it. Exports must be manifests, no indexes.
func WriteDocker(ctx context.Context, w io.Writer, src Source, exports ...Export) error {
	type saved struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	var list []saved
	for _, e := range exports {
		b, err := Read(ctx, src, e.Descriptor, MaxManifest)
		if err != nil {
			return fmt.Errorf("write docker archive: %w", err)
		}
		kind, err := Detect(b, e.Descriptor.MediaType)
		if err != nil {
			return fmt.Errorf("write docker archive: %w", err)
		}
		if IsIndex(kind) {
			return &diag.Problem{
				What: "an image of several platforms cannot be written as type=docker",
				Hint: "use type=oci, or build one platform",
			}
		}
		m, err := parseManifest(b)
		if err != nil {
			return fmt.Errorf("write docker archive: %w", err)
		}
		s := saved{Config: blobName(m.Config.Digest), RepoTags: []string{}, Layers: []string{}}
		for _, n := range e.Names {
			s.RepoTags = append(s.RepoTags, n.Familiar())
		}
		for _, l := range m.Layers {
			s.Layers = append(s.Layers, blobName(l.Digest))
		}
		list = append(list, s)
	}
	t := tar.NewWriter(w)
	if err := writeLayout(ctx, t, src, exports); err != nil {
		return fmt.Errorf("write docker archive: %w", err)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(list); err != nil {
		return fmt.Errorf("write docker archive: %w", err)
	}
	if err := addFile(t, "manifest.json", b.Bytes()); err != nil {
		return fmt.Errorf("write docker archive: %w", err)
	}
	if err := t.Close(); err != nil {
		return fmt.Errorf("write docker archive: %w", err)
	}
	return nil
}
