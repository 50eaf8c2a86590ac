package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"kaniko-build/executor/internal/image"
	"kaniko-build/executor/internal/store"
)

// Entry is what a step made.
type Entry struct {
	Key      store.Key
	Lines    []string // that Key is the hash of, under the scheme
	DiffID   digest.Digest
	Size     int64 // bytes of the layer's tar
	Created  time.Time
	Full     bool // made with a full range of ids, not with a single one
	Blob     ocispec.Descriptor
	Params   store.Params // how Blob encodes the layer
	Text     string       // the instruction, for people who look at the place
	Platform ocispec.Platform
}

// The labels of an entry's config.
const (
	labelScheme = "dev.kaniko-build.cache.scheme"
	labelKey    = "dev.kaniko-build.cache.key"
	labelLines  = "dev.kaniko-build.cache.lines" // one a line, quoted as in Go: file names may be any bytes
	labelSize   = "dev.kaniko-build.cache.size"
	labelIDs    = "dev.kaniko-build.cache.ids"    // "full" or "single"
	labelParams = "dev.kaniko-build.cache.params" // store.Params as JSON
)

const (
	author     = "kaniko-build"
	maxEntry   = image.MaxConfig // bytes of a config; a RUN may hold a large heredoc
	maxLayer   = 1 << 40         // bytes of a layer, compressed or not
	idsFull    = "full"
	idsSingle  = "single"
	singleMark = "-single"
)

// tag is the name of an entry in its place.
func tag(k store.Key, full bool) string {
	if full {
		return k.String()
	}
	return k.String() + singleMark
}

func ids(full bool) string {
	if full {
		return idsFull
	}
	return idsSingle
}

// assemble makes the image of an entry.
func (e *Entry) assemble(scheme string) (image.Assembled, error) {
	if store.KeyOf(append([]string{scheme}, e.Lines...)) != e.Key {
		return image.Assembled{}, fmt.Errorf("internal error: the lines of key %s do not hash to it", e.Key)
	}
	params, err := json.Marshal(e.Params)
	if err != nil {
		return image.Assembled{}, fmt.Errorf("encode params: %w", err)
	}
	quoted := make([]string, len(e.Lines))
	for i, l := range e.Lines {
		quoted[i] = strconv.Quote(l)
	}
	created := e.Created.UTC()
	config := dockerspec.DockerOCIImage{Image: ocispec.Image{Platform: e.Platform, Author: author, Created: &created}}
	config.Config.Labels = map[string]string{
		labelScheme: scheme, labelKey: e.Key.String(), labelLines: strings.Join(quoted, "\n"),
		labelSize: strconv.FormatInt(e.Size, 10), labelIDs: ids(e.Full), labelParams: string(params),
	}
	blob := ocispec.Descriptor{MediaType: e.Blob.MediaType, Digest: e.Blob.Digest, Size: e.Blob.Size}
	a, err := image.Assemble(image.Spec{
		Config:  config,
		History: []ocispec.History{{Created: &created, CreatedBy: e.Text}},
		Layers:  []image.SpecLayer{{Layer: image.Layer{Descriptor: blob, DiffID: e.DiffID}, Created: &created}},
	})
	if err == nil && len(a.RawConfig) > maxEntry {
		err = fmt.Errorf("the lines of key %s take %d bytes, more than the %d allowed", e.Key, len(a.RawConfig), maxEntry)
	}
	return a, err
}

// read is the entry in an image, if it is one for k that can be believed.
func read(r image.Resolved, scheme string, k store.Key, full bool) (Entry, error) {
	bad := func(format string, args ...any) (Entry, error) { return Entry{}, fmt.Errorf(format, args...) }
	labels := r.Config.Config.Labels
	switch {
	case r.Index != "":
		return bad("it is an index, not an image")
	case len(r.RawConfig) > maxEntry:
		return bad("its config has %d bytes, more than the %d allowed", len(r.RawConfig), maxEntry)
	case labels[labelScheme] == "":
		return bad("it is not an entry of this program")
	case labels[labelScheme] != scheme:
		return bad("its keys have the scheme %q, and ours is %q", labels[labelScheme], scheme)
	case labels[labelKey] != k.String():
		return bad("it says that it is the entry of key %.64q", labels[labelKey])
	case labels[labelIDs] != ids(full):
		return bad("it was made with %.20q ids, not with %s", labels[labelIDs], ids(full))
	case len(r.Layers) != 1:
		return bad("it has %d layers", len(r.Layers))
	case r.Config.Created == nil:
		return bad("it does not say when it was made")
	}
	e := Entry{Key: k, Full: full, Created: *r.Config.Created, DiffID: r.Layers[0].DiffID, Blob: r.Layers[0].Descriptor, Platform: r.Config.Platform}
	for q := range strings.SplitSeq(labels[labelLines], "\n") {
		l, err := strconv.Unquote(q)
		if err != nil {
			return bad("its key lines are malformed")
		}
		e.Lines = append(e.Lines, l)
	}
	if store.KeyOf(append([]string{scheme}, e.Lines...)) != k {
		return bad("its key lines do not hash to its key")
	}
	var err error
	if e.Size, err = strconv.ParseInt(labels[labelSize], 10, 64); err != nil || e.Size < 0 || e.Size > maxLayer {
		return bad("its layer has the size %.20q", labels[labelSize])
	}
	if err := json.Unmarshal([]byte(labels[labelParams]), &e.Params); err != nil {
		return bad("it does not say how its layer is encoded")
	}
	switch {
	case e.DiffID.Validate() != nil || e.DiffID.Algorithm() != digest.SHA256:
		return bad("its layer has the bad diffID %.80q", e.DiffID)
	case e.Params.MediaType != e.Blob.MediaType || e.Params.Epoch != nil:
		return bad("its layer is not encoded as it says")
	case e.Blob.Size > maxLayer:
		return bad("its layer has %d bytes", e.Blob.Size)
	case len(e.Blob.URLs) > 0 || len(e.Blob.Data) > 0:
		return bad("its layer lies elsewhere")
	}
	e.Blob = ocispec.Descriptor{MediaType: e.Blob.MediaType, Digest: e.Blob.Digest, Size: e.Blob.Size}
	return e, nil
}

// Miss says why a key has no entry that can be used. It is image.ErrNotFound
// for errors.Is when there simply is none.
type Miss struct {
	Where  string // the entry; "" when there is none
	Reason string // "" when there is none
}

func (m *Miss) Error() string {
	if m.Reason == "" {
		return "not in the cache"
	}
	return fmt.Sprintf("the cache entry %s cannot be used: %s", m.Where, m.Reason)
}

// Is makes what is not there image.ErrNotFound.
func (m *Miss) Is(target error) bool { return target == image.ErrNotFound && m.Reason == "" }

// missed makes a Miss of an error.
func missed(ctx context.Context, where string, err error) error {
	var m *Miss
	switch {
	case errors.As(err, &m):
		return m
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, image.ErrNotFound):
		return &Miss{}
	}
	return &Miss{Where: where, Reason: strings.ReplaceAll(err.Error(), "\n  hint: ", "; ")} // it is a part of a line
}
