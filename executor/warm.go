package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/image"
)

// Warmed is a directory of images that Warm has put down, for many builds to
// read. The zero value is none.
type Warmed struct {
	Dir string        // each image is an OCI layout in it, called by its manifest's digest
	TTL time.Duration // an image older than this is not used; 0 has no limit
}

// Warm puts an image for a platform ("" is the machine's) into dir, as an OCI
// layout called by the digest of its manifest. One that is there already stays,
// unless force is set; had tells that.
func (x *Executor) Warm(ctx context.Context, ref, platform, dir string, force bool) (d digest.Digest, had bool, err error) {
	p := platforms.DefaultSpec()
	if platform != "" {
		if p, err = platforms.Parse(platform); err != nil {
			return "", false, fmt.Errorf("platform %q: %w", platform, err)
		}
	}
	res, err := x.registry.Resolve(ctx, ref, platforms.Normalize(p))
	if err != nil {
		return "", false, err
	}
	d = res.Descriptor.Digest
	dest := filepath.Join(dir, d.String())
	if _, err := image.OpenLayout(dest); err == nil {
		if !force {
			return d, true, nil
		}
		if err := os.RemoveAll(dest); err != nil {
			return d, true, fmt.Errorf("replace %s: %w", dest, err)
		}
	}
	src, err := x.registry.Source(ref)
	if err != nil {
		return d, false, err
	}
	return d, false, image.WriteOCIDir(ctx, dest, src, image.Export{Descriptor: res.Descriptor})
}

// openWarmed opens a blob of Options.Warmed; nil when it is not there. A reader
// finds out if it is another one.
func (x *Executor) openWarmed(d ocispec.Descriptor) io.ReadCloser {
	file, ok := x.warmedFiles()[d.Digest]
	if !ok {
		return nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() != d.Size {
		f.Close()
		return nil
	}
	return image.Verify(f, d)
}

// warmedFiles lists the blobs of Options.Warmed, once.
func (x *Executor) warmedFiles() map[digest.Digest]string {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.warmed != nil {
		return x.warmed
	}
	x.warmed = map[digest.Digest]string{}
	images, err := os.ReadDir(x.opts.Warmed.Dir)
	if x.opts.Warmed.Dir == "" || err != nil {
		return x.warmed // nothing was warmed
	}
	for _, e := range images {
		st, err := e.Info()
		if err != nil || !e.IsDir() || !strings.HasPrefix(e.Name(), "sha256:") || x.opts.Warmed.TTL > 0 && time.Since(st.ModTime()) > x.opts.Warmed.TTL {
			continue
		}
		dir := filepath.Join(x.opts.Warmed.Dir, e.Name(), "blobs", "sha256")
		blobs, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, b := range blobs {
			if d := digest.NewDigestFromEncoded(digest.SHA256, b.Name()); d.Validate() == nil {
				x.warmed[d] = filepath.Join(dir, b.Name())
			}
		}
	}
	return x.warmed
}

// PushArchive pushes one image that lies outside the store, by digest and then
// by its names: path is an OCI layout directory, or a tar as type=docker or
// docker save writes it.
func (x *Executor) PushArchive(ctx context.Context, path string, names []string) (d ocispec.Descriptor, err error) {
	src, d, err := image.OpenArchive(path)
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	raw, err := image.Read(ctx, src, d, image.MaxManifest)
	if err != nil {
		return d, err
	}
	for _, name := range names {
		if _, err := x.registry.Push(ctx, name, d, src, nil); err != nil {
			return d, fmt.Errorf("push %s: %w", name, err)
		}
	}
	for _, name := range names {
		if _, err := x.registry.PutTag(ctx, name, d, raw); err != nil {
			return d, fmt.Errorf("tag %s: %w", name, err)
		}
	}
	return d, nil
}

// CheckPush tells whether we may push to the repository of a name, by beginning
// an upload and giving it up.
func (x *Executor) CheckPush(ctx context.Context, name string) error {
	return x.registry.PermissionCheck(ctx, name)
}
