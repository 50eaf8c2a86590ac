package image

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

const refNameAnnotation = "org.opencontainers.image.ref.name"

// Opened is an image plus what must be cleaned up after reading it.
type Opened struct {
	v1.Image
	cleanup func()
}

// Close removes temporary files.
func (o *Opened) Close() {
	if o.cleanup != nil {
		o.cleanup()
	}
}

// Open finds an image. src is an OCI layout directory, an OCI layout tar, a
// docker-save tar (each optionally followed by "#refname"), or a registry
// reference. platform ("os/arch[/variant]") chooses from an index; empty means
// linux/amd64 if there is a choice.
func Open(src, platform string) (*Opened, error) {
	file, ref, _ := strings.Cut(src, "#")
	st, err := os.Stat(file)
	switch {
	case err == nil && st.IsDir():
		return openLayout(file, ref, platform, nil)
	case err == nil:
		return openTar(file, ref, platform)
	case !errors.Is(err, os.ErrNotExist):
		return nil, err
	}
	if strings.HasPrefix(src, "/") || strings.HasPrefix(src, "./") {
		return nil, err
	}
	return openRemote(src, platform)
}

func openRemote(src, platform string) (*Opened, error) {
	ref, err := name.ParseReference(src)
	if err != nil {
		return nil, err
	}
	var opts []remote.Option
	if platform != "" {
		p, err := v1.ParsePlatform(platform)
		if err != nil {
			return nil, err
		}
		opts = append(opts, remote.WithPlatform(*p))
	}
	img, err := remote.Image(ref, opts...)
	if err != nil {
		return nil, err
	}
	return &Opened{Image: img}, nil
}

func openTar(file, ref, platform string) (*Opened, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	dir, err := os.MkdirTemp("", "imgdump-")
	if err != nil {
		return nil, err
	}
	cleanup := func() { os.RemoveAll(dir) }
	isLayout, isDocker := false, false
	tr := tar.NewReader(f)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			cleanup()
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		n := filepath.Clean("/" + h.Name)
		switch n {
		case "/oci-layout":
			isLayout = true
		case "/manifest.json":
			isDocker = true
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		p := filepath.Join(dir, n)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			cleanup()
			return nil, err
		}
		w, err := os.Create(p)
		if err == nil {
			_, err = io.Copy(w, tr)
			err = errors.Join(err, w.Close())
		}
		if err != nil {
			cleanup()
			return nil, err
		}
	}
	if isLayout {
		return openLayout(dir, ref, platform, cleanup)
	}
	cleanup()
	if !isDocker {
		return nil, fmt.Errorf("%s: neither an OCI layout (oci-layout) nor a docker-save tar (manifest.json)", file)
	}
	var tag *name.Tag
	if ref != "" {
		t, err := name.NewTag(ref)
		if err != nil {
			return nil, err
		}
		tag = &t
	}
	img, err := tarball.ImageFromPath(file, tag)
	if err != nil {
		return nil, err
	}
	return &Opened{Image: img}, nil
}

func openLayout(dir, ref, platform string, cleanup func()) (*Opened, error) {
	fail := func(err error) (*Opened, error) {
		if cleanup != nil {
			cleanup()
		}
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	idx, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return fail(err)
	}
	img, err := pick(idx, ref, platform)
	if err != nil {
		return fail(err)
	}
	return &Opened{Image: img, cleanup: cleanup}, nil
}

// pick chooses one image of an index, going down nested indexes.
func pick(idx v1.ImageIndex, ref, platform string) (v1.Image, error) {
	im, err := idx.IndexManifest()
	if err != nil {
		return nil, err
	}
	want := platform
	if want == "" {
		want = "linux/amd64"
	}
	p, err := v1.ParsePlatform(want)
	if err != nil {
		return nil, err
	}
	var cands []v1.Descriptor
	for _, d := range im.Manifests {
		if ref != "" && d.Annotations[refNameAnnotation] != ref {
			continue
		}
		if d.Annotations["vnd.docker.reference.type"] == "attestation-manifest" {
			continue
		}
		cands = append(cands, d)
	}
	if len(cands) == 0 {
		return nil, fmt.Errorf("no image named %q", ref)
	}
	chosen := cands
	if len(cands) > 1 {
		chosen = nil
		for _, d := range cands {
			if d.Platform != nil && d.Platform.OS == p.OS && d.Platform.Architecture == p.Architecture &&
				(p.Variant == "" || p.Variant == d.Platform.Variant) {
				chosen = append(chosen, d)
			}
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("no image for platform %s", want)
	}
	d := chosen[0]
	if d.MediaType.IsIndex() {
		sub, err := idx.ImageIndex(d.Digest)
		if err != nil {
			return nil, err
		}
		return pick(sub, "", platform)
	}
	return idx.Image(d.Digest)
}

// LayoutRefs lists the reference names in an OCI layout directory.
func LayoutRefs(dir string) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		return nil, err
	}
	var im v1.IndexManifest
	if err := json.Unmarshal(b, &im); err != nil {
		return nil, err
	}
	var out []string
	for _, d := range im.Manifests {
		if r := d.Annotations[refNameAnnotation]; r != "" {
			out = append(out, r)
		}
	}
	return out, nil
}
