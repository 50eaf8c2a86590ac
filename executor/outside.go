package executor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/credential"
	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/executor/internal/image"
	"kaniko-build/executor/internal/registry"
	"kaniko-build/executor/internal/store"
)

const layoutScheme = "oci-layout://"

func newRegistry(o Options, st *store.Store, keys *credential.Keychain) (*registry.Client, error) {
	ro := registry.Options{
		Hosts: map[string]registry.Host{}, Keychain: keys, UserAgent: userAgent(o.Getenv),
		Others: registryHost(o.Others), PrivatePlain: o.PrivatePlain, Retries: o.Retries,
	}
	for _, r := range o.Registries {
		ro.Hosts[r.Host] = registryHost(r)
	}
	if !o.Pull {
		ro.Remembered = func(name string, asked time.Time, why error) {
			o.Sink(Event{Kind: Warning, Time: now(), Text: fmt.Sprintf("%s is taken as it was on %s, as nobody can be asked: %v", name, asked.Format(time.DateTime), why)})
		}
	}
	return registry.New(st, ro)
}

// CheckLogin asks a registry whether it takes a user and password. getenv is asked for
// the name of who calls us.
func CheckLogin(ctx context.Context, r Registry, user, password string, getenv func(string) string) error {
	c, err := registry.New(nil, registry.Options{
		Hosts: map[string]registry.Host{r.Host: registryHost(r)}, UserAgent: userAgent(getenv), Retries: -1,
		Others: registry.Host{Insecure: r.Insecure, CA: r.CA}, // who gives the tokens
	})
	if err != nil {
		return err
	}
	return errors.Join(c.CheckLogin(ctx, r.Host, user, password), c.Close())
}

func registryHost(r Registry) registry.Host {
	return registry.Host{Mirrors: r.Mirrors, Insecure: r.Insecure, AnyCert: r.AnyCert, Only: r.Strict, CA: r.CA, Cert: r.Cert, Key: r.Key, Retries: r.Retries}
}

// userAgent is our name, with that of who calls us if it says so.
func userAgent(getenv func(string) string) string {
	if c := getenv("UPSTREAM_CLIENT_TYPE"); c != "" {
		return "kaniko-build," + c
	}
	return "kaniko-build"
}

// gitEnv are the variables that git commands may see.
func gitEnv(getenv func(string) string) []string {
	env := []string{"PATH=" + cmp.Or(getenv("PATH"), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")}
	for _, name := range []string{
		"http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
		"SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "GIT_EXEC_PATH", "GIT_TEMPLATE_DIR",
	} {
		if v := getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

func now() time.Time { return time.Now() }

// layoutImage reads a named context that is an image in an OCI layout.
func (x *Executor) layoutImage(ctx context.Context, n *Node, ref string, r dockerfile.ImageRef) (*baseImage, error) {
	res, layout, err := image.ResolveLayout(ctx, layoutScheme+ref, r.Platform)
	if err != nil {
		return nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.layouts[layoutScheme+ref] = layout
	return n.fromOutside(layoutScheme+ref, res, r), nil
}

// openBlob reads a layer from the store, or from where it is by way of the
// store.
func (x *Executor) openBlob(ctx context.Context, l baseLayer) (io.ReadCloser, error) {
	size, ok := x.store.Has(l.Blob.Digest)
	if ok = ok && size == l.Blob.Size; !ok {
		if r := x.openWarmed(l.Blob); r != nil {
			return r, nil
		}
	}
	if l.Origin == "" { // it was made here
		return image.FromStore(x.store).Open(ctx, l.Blob)
	}
	if !strings.HasPrefix(l.Origin, layoutScheme) {
		return x.registry.Blob(ctx, l.Origin, l.Blob)
	}
	if ok {
		return x.store.Open(l.Blob.Digest)
	}
	layout, err := x.layout(l.Origin)
	if err != nil {
		return nil, err
	}
	return layout.Open(ctx, l.Blob)
}

// layout is an OCI layout that something was found in.
func (x *Executor) layout(origin string) (*image.Layout, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if l := x.layouts[origin]; l != nil {
		return l, nil
	}
	l, err := image.OpenLayout(strings.TrimPrefix(origin, layoutScheme)) // of a cache: these are opened when they are read
	if err != nil {
		return nil, err
	}
	x.layouts[origin] = l
	return l, nil
}

// streamBlob reads a layer to hand it on: what is not in the store does not go
// there.
func (x *Executor) streamBlob(ctx context.Context, l baseLayer) (io.ReadCloser, error) {
	if r := x.openWarmed(l.Blob); r != nil {
		return r, nil
	}
	if !strings.HasPrefix(l.Origin, layoutScheme) {
		return x.registry.Stream(ctx, l.Origin, l.Blob)
	}
	return x.openBlob(ctx, l)
}

// content reads what an image consists of: from the store, else from where
// its layers came from by way of open.
func (x *Executor) content(n *Node, open func(context.Context, baseLayer) (io.ReadCloser, error)) image.Source {
	return x.contentOf(n, n.built(), open)
}

// contentOf is content for some layers of a node.
func (x *Executor) contentOf(n *Node, layers []builtLayer, open func(context.Context, baseLayer) (io.ReadCloser, error)) image.Source {
	return image.First(image.FromStore(x.store), elsewhere{x, n, layers, open})
}

// elsewhere reads layers of a node's image that are not in the store.
type elsewhere struct {
	x      *Executor
	n      *Node
	layers []builtLayer
	open   func(context.Context, baseLayer) (io.ReadCloser, error)
}

func (e elsewhere) Open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	for _, l := range e.layers {
		if l.Descriptor.Digest != d.Digest {
			continue
		}
		at := e.x.whereabouts(e.n, l)
		r, err := e.open(ctx, at)
		if !at.Cached {
			return r, err
		}
		if err != nil {
			return nil, spoiledUnless(ctx, d.Digest, err)
		}
		return &cachedBlob{ReadCloser: r, ctx: ctx, digest: d.Digest}, nil
	}
	return nil, fmt.Errorf("blob %s: %w", d.Digest, image.ErrNotFound)
}

// cachedBlob is a blob of a cache, whose errors say so.
type cachedBlob struct {
	io.ReadCloser
	ctx    context.Context // of who opened it
	digest digest.Digest
}

func (b *cachedBlob) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = spoiledUnless(b.ctx, b.digest, err)
	}
	return n, err
}

// spoiledUnless blames a cache for an error, unless ctx has ended.
func spoiledUnless(ctx context.Context, blob digest.Digest, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return &spoiledError{Blob: blob, Err: err}
}
