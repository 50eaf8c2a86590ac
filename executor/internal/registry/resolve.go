package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/image"
	"kaniko-build/executor/internal/retry"
	"kaniko-build/executor/internal/store"
)

// top is what a name stands for, and who said so.
type top struct {
	desc ocispec.Descriptor
	at   endpoint
}

// Resolve asks what ref is for platform p. Whatever the store lacks of index,
// manifest and config is put there; layers are not touched. Errors are *Error.
func (c *Client) Resolve(ctx context.Context, ref string, p ocispec.Platform) (image.Resolved, error) {
	n, err := image.ParseName(ref)
	if err != nil {
		return image.Resolved{}, err
	}
	key := n.String() + " " + platforms.Format(p) + " " + p.OSVersion
	return c.resolved.do(ctx, &c.jobs, key, func(ctx context.Context) (image.Resolved, error) {
		return c.resolve(ctx, n, p)
	})
}

// Forget lets later calls ask again what tags stand for and what was pushed.
func (c *Client) Forget() {
	c.tops.forget()
	c.resolved.forget()
	c.pushed.forget()
	c.sent.forget()
}

// Known is what ref was when it was last resolved, without asking anybody. It is
// a store.Miss if that is not known, or if the store has lost a part of it.
func (c *Client) Known(ctx context.Context, ref string, p ocispec.Platform) (image.Resolved, error) {
	n, err := image.ParseName(ref)
	if err != nil {
		return image.Resolved{}, err
	}
	d := ocispec.Descriptor{Digest: digest.Digest(n.Digest)}
	if size, ok := c.store.Has(d.Digest); n.Digest != "" && ok {
		d.Size = size
	} else {
		b, err := c.store.GetBase(n.String())
		if err != nil {
			return image.Resolved{}, err
		}
		d = b.Descriptor
	}
	r, err := image.Resolve(ctx, image.FromStore(c.store), n.String(), d, p)
	if err != nil {
		return image.Resolved{}, &store.Miss{What: "base " + n.String(), Reason: err.Error()}
	}
	return r, nil
}

func (c *Client) resolve(ctx context.Context, n image.Name, p ocispec.Platform) (image.Resolved, error) {
	t, err := c.tops.do(ctx, &c.jobs, n.String(), func(ctx context.Context) (top, error) { return c.top(ctx, n) })
	if err != nil {
		return image.Resolved{}, err
	}
	r, err := image.Resolve(ctx, source{c, n, []endpoint{t.at}}, n.String(), t.desc, p)
	if err != nil {
		return image.Resolved{}, c.explain(ctx, sourceMetadata(n), n, t.at, err)
	}
	return r, nil
}

func sourceMetadata(n image.Name) string {
	return "failed to resolve source metadata for " + n.String()
}

// top asks the endpoints of n in order, until one knows it.
func (c *Client) top(ctx context.Context, n image.Name) (top, error) {
	var failed []error
	for _, e := range c.endpoints(n) {
		d, err := c.topAt(ctx, n, e)
		if err == nil {
			if err := c.store.PutBase(store.Base{Name: n.String(), Descriptor: d, Asked: time.Now().UTC()}); err != nil {
				return top{}, err
			}
			return top{d, e}, nil
		}
		if ctx.Err() != nil {
			return top{}, context.Cause(ctx)
		}
		failed = append(failed, c.explain(ctx, sourceMetadata(n), n, e, err))
	}
	return c.remembered(n, failed)
}

// remembered is the answer of an earlier run, where none of the places that
// failed can be reached.
func (c *Client) remembered(n image.Name, failed []error) (top, error) {
	err := mostTelling(failed)
	for _, f := range failed {
		var e *Error
		if c.o.Remembered == nil || !errors.As(f, &e) || e.Kind != Unreachable {
			return top{}, err
		}
	}
	b, miss := c.store.GetBase(n.String())
	if miss != nil {
		return top{}, err
	}
	c.o.Remembered(n.String(), b.Asked, err)
	at := c.endpoints(n)
	return top{b.Descriptor, at[len(at)-1]}, nil
}

// mostTelling picks the error to show: what the last place said, which is the
// registry itself, unless that could not be asked and a mirror did answer.
func mostTelling(failed []error) error {
	last := failed[len(failed)-1]
	var e *Error
	if errors.As(last, &e) && e.Kind == Unreachable {
		for _, f := range failed[:len(failed)-1] {
			var m *Error
			if errors.As(f, &m) && m.Kind != Unreachable && m.Kind != NotFound {
				return errors.Join(f, last)
			}
		}
	}
	return last
}

// topAt asks one endpoint. The request is a HEAD, which costs nothing of Docker
// Hub's allowance; only what the store does not have is fetched.
func (c *Client) topAt(ctx context.Context, n image.Name, e endpoint) (ocispec.Descriptor, error) {
	hc, err := c.client(ctx, e, "pull")
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	want := digest.Digest(n.Digest)
	if size, ok := c.store.Has(want); n.Digest != "" && ok {
		return ocispec.Descriptor{Digest: want, Size: size}, nil // bytes with this digest are this image, whoever has them
	}
	id := n.Tag
	if n.Digest != "" {
		id = n.Digest
	} else {
		d, err := headManifest(ctx, hc, e, id, "")
		if err != nil && ctx.Err() != nil {
			return d, err
		}
		if err == nil {
			if size, ok := c.store.Has(d.Digest); ok && size == d.Size {
				return d, nil
			}
			id, want = d.Digest.String(), d.Digest
		} // else: some registries know no HEAD, and a GET says more about what is wrong
	}
	b, mediaType, err := getManifest(ctx, hc, e, id, want)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	kind, err := image.Detect(b, mediaType)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	got, err := c.store.PutBlob(b)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: kind, Digest: got, Size: int64(len(b))}, nil
}

// accept names what we understand, and schema 1 so that we can say that we do
// not.
var accept = strings.Join(append(append([]string{}, image.ManifestTypes...),
	"application/vnd.docker.distribution.manifest.v1+prettyjws", "application/vnd.docker.distribution.manifest.v1+json"), ", ")

func request(ctx context.Context, method string, e endpoint, path string, body io.Reader) (*http.Request, error) {
	return http.NewRequestWithContext(ctx, method, "https://"+e.host+"/v2/"+e.repo+"/"+path, body) // the scheme is set by the handshake
}

// headManifest asks what a tag or digest stands for. A registry that is told what is
// expected need not open the manifest to say yes, and tells its digest alone then
// (RFC 9110, 13.1.2: the entity tag of a manifest is its digest): that is a third of the
// work for docker-registry. It is "" for a digest: a registry takes that for the entity tag
// without looking whether it has the manifest.
func headManifest(ctx context.Context, hc *http.Client, e endpoint, id string, expected digest.Digest) (ocispec.Descriptor, error) {
	req, err := request(ctx, http.MethodHead, e, "manifests/"+id, nil)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	req.Header.Set("Accept", accept)
	if expected != "" {
		req.Header.Set("If-None-Match", `"`+expected.String()+`"`)
	}
	resp, err := hc.Do(req)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer resp.Body.Close()
	if expected != "" && resp.StatusCode == http.StatusNotModified {
		return ocispec.Descriptor{Digest: expected}, nil
	}
	if err := transport.CheckError(resp, http.StatusOK); err != nil {
		return ocispec.Descriptor{}, err
	}
	d := ocispec.Descriptor{MediaType: mediaTypeOf(resp), Digest: digest.Digest(resp.Header.Get("Docker-Content-Digest")), Size: resp.ContentLength}
	if err := d.Digest.Validate(); err != nil || d.Size < 0 {
		return ocispec.Descriptor{}, fmt.Errorf("the answer to HEAD has no digest or size")
	}
	return d, nil
}

func mediaTypeOf(resp *http.Response) string {
	t, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	return strings.TrimSpace(t)
}

// getManifest reads a manifest, which must have the digest want if that is not
// empty.
func getManifest(ctx context.Context, hc *http.Client, e endpoint, id string, want digest.Digest) ([]byte, string, error) {
	for try := 1; ; try++ {
		b, mediaType, err := tryManifest(ctx, hc, e, id, want)
		if err == nil || try == 3 || !cut(err) {
			return b, mediaType, err
		}
		if err := retry.Pause(ctx, try, 0); err != nil {
			return nil, "", err
		}
	}
}

func tryManifest(ctx context.Context, hc *http.Client, e endpoint, id string, want digest.Digest) ([]byte, string, error) {
	req, err := request(ctx, http.MethodGet, e, "manifests/"+id, nil)
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Accept", accept)
	resp, err := hc.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	if err := transport.CheckError(resp, http.StatusOK); err != nil {
		return nil, "", err
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, image.MaxManifest+1))
	if err != nil {
		return nil, "", fmt.Errorf("read manifest: %w", err)
	}
	if len(b) > image.MaxManifest {
		return nil, "", fmt.Errorf("its manifest has more than %d bytes", image.MaxManifest)
	}
	if said := digest.Digest(resp.Header.Get("Docker-Content-Digest")); want == "" && said != "" && said.Validate() == nil && said.Algorithm() == digest.SHA256 {
		want = said
	}
	if got := digest.FromBytes(b); want != "" && got != want {
		return nil, "", fmt.Errorf("the manifest that came has the digest %s, not %s", got, want)
	}
	return b, mediaTypeOf(resp), nil
}

// Source reads manifests and blobs of the image ref: from the store, else from
// its registry, by way of the store.
func (c *Client) Source(ref string) (image.Source, error) {
	n, err := image.ParseName(ref)
	if err != nil {
		return nil, err
	}
	return source{c, n, c.endpoints(n)}, nil
}

type source struct {
	c  *Client
	n  image.Name
	at []endpoint
}

func (s source) Open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	if r, err := image.FromStore(s.c.store).Open(ctx, d); err == nil || !errors.Is(err, image.ErrNotFound) {
		return r, err
	}
	if !image.IsIndex(d.MediaType) && !image.IsManifest(d.MediaType) {
		return s.c.open(ctx, s.n, s.at, d)
	}
	var failed []error
	for _, e := range s.at {
		hc, err := s.c.client(ctx, e, "pull")
		if err == nil {
			var b []byte
			if b, _, err = getManifest(ctx, hc, e, d.Digest.String(), d.Digest); err == nil {
				if _, err = s.c.store.PutBlob(b); err == nil {
					return image.FromStore(s.c.store).Open(ctx, d)
				}
			}
		}
		failed = append(failed, s.c.explain(ctx, "failed to pull "+s.n.String(), s.n, e, err))
	}
	return nil, mostTelling(failed)
}

// anonymous tells whether there are no credentials for e.
func (c *Client) anonymous(ctx context.Context, e endpoint) bool {
	repo, err := name.NewRepository(e.String())
	if err != nil {
		return true
	}
	a, err := authn.Resolve(ctx, c.o.Keychain, repo)
	return err != nil || a == authn.Anonymous
}
