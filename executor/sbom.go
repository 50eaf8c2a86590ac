package executor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"kaniko-build/executor/internal/image"
	"kaniko-build/executor/internal/layer"
	"kaniko-build/executor/internal/sbom"
)

// scans are what layers say of packages, as far as this process knows it. A layer that
// several images have is read once, by whoever wants it first.
type scans struct {
	mu   sync.Mutex
	done map[digest.Digest]*scanned // by diffID
	size int                        // bytes of what is remembered
}

// maxScanned bounds what all layers of an image say, and what is remembered of layers
// in one process, in bytes. Debian's 6,000 names take 50 KB.
const maxScanned = 256 << 20

// remember keeps what a layer says, if there is room.
func (s *scans) remember(l *scanned, found *sbom.Layer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := found.Size(); s.size+n <= maxScanned {
		s.size += n
		l.layer = found
	}
}

type scanned struct {
	turn  chan struct{} // holds one while the layer is read
	layer *sbom.Layer
}

func (s *scans) of(id digest.Digest) *scanned {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done == nil {
		s.done = map[digest.Digest]*scanned{}
	}
	if s.done[id] == nil {
		s.done[id] = &scanned{turn: make(chan struct{}, 1)}
	}
	return s.done[id]
}

// sbom is the list of packages in an image that n makes, img, with the layers of c.
func (x *Executor) sbom(ctx context.Context, n *Node, img image.Assembled, c chain) (image.Predicate, error) {
	src := x.contentOf(n, c.layers, x.openBlob)
	layers := make([]sbom.Layer, len(c.layers))
	size := 0
	about := sbom.Image{Digest: img.Manifest.Digest}
	for i, l := range c.layers {
		found, err := x.scan(ctx, src, l.Layer)
		if err != nil {
			return image.Predicate{}, fmt.Errorf("look for packages in layer %s: %w", l.Descriptor.Digest, err)
		}
		if size += found.Size(); size > maxScanned {
			return image.Predicate{}, fmt.Errorf("look for packages in layer %s: %w", l.Descriptor.Digest, sbom.ErrTooLarge)
		}
		layers[i] = *found
		about.Layers = append(about.Layers, l.Descriptor.Digest)
	}
	contents := sbom.Merge(layers)
	for _, note := range contents.Notes {
		x.opts.Sink(Event{Node: n.ID, Kind: Warning, Time: time.Now(), Text: "list of packages: " + note})
	}
	if len(n.Names) > 0 {
		name, err := image.ParseName(n.Names[0])
		if err != nil {
			return image.Predicate{}, err
		}
		about.Name, about.PURL = name.Familiar(), image.PURL("docker", name, img.Manifest.Platform)
	}
	var config struct {
		Created time.Time `json:"created"`
	}
	if err := json.Unmarshal(img.RawConfig, &config); err != nil {
		return image.Predicate{}, fmt.Errorf("read the config: %w", err)
	}
	if about.Created = config.Created; about.Created.IsZero() {
		about.Created = time.Unix(0, 0)
	}
	b, err := contents.Document(about)
	return image.Predicate{Type: sbom.PredicateType, JSON: b}, err
}

// scan is what a layer says of packages: as it is remembered, else read anew.
func (x *Executor) scan(ctx context.Context, src image.Source, l image.Layer) (*sbom.Layer, error) {
	s := x.scans.of(l.DiffID)
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if s.layer != nil {
		return s.layer, nil
	}
	name := "packages " + sbom.Scheme + " " + l.DiffID.String()
	if lines, err := x.store.GetListing(name); err == nil {
		if found, err := sbom.ParseLines(lines); err == nil {
			x.store.TouchListing(name)
			x.scans.remember(s, &found)
			return &found, nil
		}
	}
	select {
	case x.reading <- struct{}{}:
		defer func() { <-x.reading }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	found, err := readLayer(ctx, src, l)
	if err != nil {
		return nil, err
	}
	x.scans.remember(s, &found)
	lines, err := found.Lines()
	if err != nil || tooLong(lines) {
		return &found, err // read again next time
	}
	x.listings.keep(name)
	return &found, x.store.PutListing(name, lines)
}

// tooLong tells whether lines are more than a listing may have.
func tooLong(lines []string) bool {
	const limit = 128 << 20
	n := 0
	for _, l := range lines {
		n += len(l) + 1
	}
	return n > limit
}

func readLayer(ctx context.Context, src image.Source, l image.Layer) (sbom.Layer, error) {
	blob, err := src.Open(ctx, l.Descriptor)
	if err != nil {
		return sbom.Layer{}, err
	}
	defer blob.Close()
	in, _, err := layer.Decompress(blob)
	if err != nil {
		return sbom.Layer{}, err
	}
	defer in.Close()
	found, err := sbom.Scan(ctx, in)
	if err != nil {
		return found, err
	}
	_, err = io.Copy(io.Discard, blob) // to where the digest is checked
	return found, err
}
