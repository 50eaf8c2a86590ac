package executor

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/image"
	"kaniko-build/executor/internal/store"
)

// Distribution serves the images of the store, read only, as a registry does
// (distribution-spec, pull). An image is found by its repository with or without
// the registry's host, and by the name of the target that made it:
//
//	registry.example.com/shop/api:1 of target api
//	  /v2/registry.example.com/shop/api/manifests/1   /v2/shop/api/manifests/1   /v2/api/manifests/1
//
// Blobs that are not in the store are streamed from where they came from. Only
// requests to this machine by a name of it are answered, so that no page of the
// web reaches the store by a name of its own (DNS rebinding); with a token, only
// those that give it as the password of any user.
type Distribution struct {
	x     *Executor
	token string
}

// Distribution makes the handler; token "" asks for none.
func (x *Executor) Distribution(token string) *Distribution { return &Distribution{x, token} }

// ServeHTTP is that of http.Handler.
func (d *Distribution) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	switch {
	case !loopback(r.Host):
		refuse(w, http.StatusForbidden, "DENIED", "this registry answers to the names of this machine alone")
		return
	case !d.allowed(r):
		w.Header().Set("WWW-Authenticate", `Basic realm="kaniko-build"`)
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "the token is the password of any user")
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "this registry is read only")
		return
	case r.URL.Path == "/v2" || r.URL.Path == "/v2/":
		_, _ = io.WriteString(w, "{}\n")
		return
	}
	name, kind, ref := parts(r.URL.Path)
	images, err := d.repository(name)
	switch {
	case err != nil:
		refuse(w, http.StatusInternalServerError, "UNKNOWN", err.Error())
	case len(images) == 0:
		refuse(w, http.StatusNotFound, "NAME_UNKNOWN", "the store has no image of that name; kaniko-build images lists them")
	case kind == "tags" && ref == "list":
		d.tags(w, name, images)
	case kind == "manifests":
		d.manifest(w, r, images, ref)
	case kind == "blobs":
		d.blob(w, r, images, digest.Digest(ref))
	default:
		refuse(w, http.StatusNotFound, "UNSUPPORTED", "no such path")
	}
}

// parts takes /v2/NAME/KIND/REF apart; NAME may have slashes.
func parts(p string) (name, kind, ref string) {
	p = strings.TrimPrefix(p, "/v2/")
	i := strings.LastIndexByte(p, '/')
	if i < 0 {
		return "", "", ""
	}
	p, ref = p[:i], p[i+1:]
	i = strings.LastIndexByte(p, '/')
	if i < 0 {
		return "", "", ""
	}
	return p[:i], p[i+1:], ref
}

// loopback tells whether a Host names this machine.
func loopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (d *Distribution) allowed(r *http.Request) bool {
	if d.token == "" {
		return true
	}
	_, given, _ := r.BasicAuth()
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(d.token))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// refuse answers with an error as the specification writes them.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}})
}

// repository are the images of one name, by tag: of the closest kind of name that
// there is.
func (d *Distribution) repository(name string) (map[string]store.Image, error) {
	all, err := d.x.store.Images()
	if err != nil {
		return nil, err
	}
	kinds := []func(image.Name, store.Image) bool{
		func(n image.Name, _ store.Image) bool { return n.Context() == name },
		func(n image.Name, _ store.Image) bool { return n.Repo == name },
		func(_ image.Name, i store.Image) bool { return i.Target == name },
	}
	for _, is := range kinds {
		out := map[string]store.Image{}
		for _, i := range all {
			if n, err := image.ParseName(i.Name); err == nil && is(n, i) {
				out[n.Tag] = i
			}
		}
		if len(out) > 0 {
			return out, nil
		}
	}
	return nil, nil
}

func (d *Distribution) tags(w http.ResponseWriter, name string, images map[string]store.Image) {
	tags := []string{}
	for t := range images {
		tags = append(tags, t)
	}
	slices.Sort(tags)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"name": name, "tags": tags})
}

// manifest serves a manifest or an index by tag or digest, those within an index too.
func (d *Distribution) manifest(w http.ResponseWriter, r *http.Request, images map[string]store.Image, ref string) {
	for tag, i := range images {
		for _, m := range d.manifests(r, i) {
			if tag != ref && m.Digest.String() != ref || tag == ref && m.Digest != i.Descriptor.Digest {
				continue
			}
			b, err := d.x.store.ReadBlob(m.Digest, image.MaxManifest)
			if err != nil {
				continue
			}
			kind, err := image.Detect(b, m.MediaType)
			if err != nil {
				continue
			}
			w.Header().Set("Content-Type", kind)
			w.Header().Set("Docker-Content-Digest", m.Digest.String())
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(b)))
			return
		}
	}
	refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "the image has no such tag or manifest")
}

// manifests are an image's, and those in it if it is an index.
func (d *Distribution) manifests(r *http.Request, i store.Image) []ocispec.Descriptor {
	out := []ocispec.Descriptor{i.Descriptor}
	if !image.IsIndex(i.Descriptor.MediaType) {
		return out
	}
	var idx ocispec.Index
	b, err := image.Read(r.Context(), image.FromStore(d.x.store), i.Descriptor, image.MaxManifest)
	if err != nil || json.Unmarshal(b, &idx) != nil {
		return out
	}
	return append(out, idx.Manifests...)
}

// blob serves a config or a layer of the images, and nothing else of the store.
func (d *Distribution) blob(w http.ResponseWriter, r *http.Request, images map[string]store.Image, want digest.Digest) {
	for _, i := range images {
		for _, m := range d.manifests(r, i) {
			var manifest ocispec.Manifest
			b, err := d.x.store.ReadBlob(m.Digest, image.MaxManifest)
			if err != nil || json.Unmarshal(b, &manifest) != nil {
				continue
			}
			for _, part := range append(manifest.Layers, manifest.Config) {
				if part.Digest == want {
					d.send(w, r, i, part)
					return
				}
			}
		}
	}
	refuse(w, http.StatusNotFound, "BLOB_UNKNOWN", "no image of that name has such a blob")
}

func (d *Distribution) send(w http.ResponseWriter, r *http.Request, i store.Image, part ocispec.Descriptor) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", part.Digest.String())
	f, _, err := d.x.store.File(part.Digest)
	if err == nil {
		defer f.Close()
		http.ServeContent(w, r, "", time.Time{}, f)
		return
	}
	s := &Stored{x: d.x, image: i, Name: i.Name}
	src, err := s.source().Open(r.Context(), part)
	switch {
	case errors.Is(err, image.ErrNotFound), errors.Is(err, os.ErrNotExist):
		refuse(w, http.StatusNotFound, "BLOB_UNKNOWN", "the blob is gone")
		return
	case err != nil:
		refuse(w, http.StatusBadGateway, "UNKNOWN", err.Error())
		return
	}
	defer src.Close()
	if r.Method == http.MethodGet {
		_, _ = io.CopyN(w, src, part.Size) // a client sees by the digest what is missing
	}
}
