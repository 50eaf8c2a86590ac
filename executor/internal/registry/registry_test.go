package registry

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/credential"
	"kaniko-build/executor/internal/image"
	"kaniko-build/executor/internal/store"
	"kaniko-build/schema/diag"
	"kaniko-build/test/registrytest"
)

var amd64 = ocispec.Platform{OS: "linux", Architecture: "amd64"}

func newStore(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(t.TempDir(), store.Options{Owner: os.Getuid()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newClient(t *testing.T, s *store.Store, o Options) *Client {
	t.Helper()
	c, err := New(s, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// makeLayer makes a layer with one file of size random bytes.
func makeLayer(t *testing.T, s *store.Store, file string, size int, seed uint64) image.Layer {
	t.Helper()
	var plain, packed bytes.Buffer
	w := tar.NewWriter(&plain)
	data := make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = r.Read(data)
	if err := w.WriteHeader(&tar.Header{Name: file, Mode: 0o644, Size: int64(size)}); err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write(data)
	w.Close()
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(plain.Bytes())
	z.Close()
	d, err := s.PutBlob(packed.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return image.Layer{
		Descriptor: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: d, Size: int64(packed.Len())},
		DiffID:     digest.FromBytes(plain.Bytes()),
	}
}

func makeImage(t *testing.T, s *store.Store, p ocispec.Platform, docker bool, layers ...image.Layer) image.Assembled {
	t.Helper()
	spec := image.Spec{Config: dockerspec.DockerOCIImage{Image: ocispec.Image{Platform: p}}, Docker: docker}
	for i, l := range layers {
		at := time.Unix(int64(1000+i), 0).UTC()
		spec.Layers = append(spec.Layers, image.SpecLayer{Layer: l, Created: &at})
		spec.History = append(spec.History, ocispec.History{CreatedBy: fmt.Sprint("layer ", i)})
	}
	a, err := image.Assemble(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Put(s); err != nil {
		t.Fatal(err)
	}
	return a
}

func pushImage(t *testing.T, s *store.Store, ref string, d ocispec.Descriptor, o Options) Pushed {
	t.Helper()
	c := newClient(t, s, o)
	p, err := c.Push(t.Context(), ref, d, image.FromStore(s), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.ReadBlob(d.Digest, image.MaxManifest)
	if err != nil {
		t.Fatal(err)
	}
	if moved, err := c.PutTag(t.Context(), ref, d, b); err != nil || !moved {
		t.Fatal(moved, err)
	}
	return p
}

func validated(t *testing.T, ref string) {
	t.Helper()
	r, err := name.ParseReference(ref, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	d, err := remote.Get(r)
	if err != nil {
		t.Fatal(err)
	}
	if d.MediaType.IsIndex() {
		idx, err := d.ImageIndex()
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Index(idx); err != nil {
			t.Errorf("validate %s: %v", ref, err)
		}
		return
	}
	img, err := d.Image()
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Errorf("validate %s: %v", ref, err)
	}
}

func skopeo(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("needs skopeo (apt install skopeo)")
	}
	out, err := exec.CommandContext(t.Context(), "skopeo", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("skopeo %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func TestPushAndPullWithARealRegistry(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	for _, docker := range []bool{false, true} {
		t.Run(fmt.Sprintf("docker=%v", docker), func(t *testing.T) {
			s := newStore(t)
			a := makeImage(t, s, amd64, docker, makeLayer(t, s, "a", 3<<20, 1), makeLayer(t, s, "b", 10, 2))
			ref := fmt.Sprintf("%s/team/app%v:v1", r.Host, docker)
			if p := pushImage(t, s, ref, a.Manifest, Options{}); p.Uploaded != 3 || p.Known {
				t.Errorf("%+v", p)
			}
			validated(t, ref)
			if out := skopeo(t, "inspect", "--tls-verify=false", "docker://"+ref); !strings.Contains(out, a.Manifest.Digest.String()) {
				t.Errorf("skopeo: %s", out)
			}
			c := newClient(t, s, Options{})
			if p, err := c.Push(t.Context(), ref, a.Manifest, image.FromStore(s), nil); err != nil || !p.Known || p.Uploaded != 0 {
				t.Errorf("again: %+v %v", p, err)
			}
			if moved, err := c.PutTag(t.Context(), ref, a.Manifest, a.RawManifest); moved || err != nil {
				t.Errorf("a tag moved to where it was: %v %v", moved, err)
			}

			other := newStore(t)
			c = newClient(t, other, Options{})
			got, err := c.Resolve(t.Context(), ref, amd64)
			if err != nil {
				t.Fatal(err)
			}
			if got.Descriptor.Digest != a.Manifest.Digest || len(got.Layers) != 2 || !bytes.Equal(got.RawConfig, a.RawConfig) || got.Index != "" {
				t.Errorf("%+v", got)
			}
			if _, ok := other.Has(got.Layers[0].Descriptor.Digest); ok {
				t.Error("a layer was pulled by Resolve")
			}
			for _, l := range got.Layers {
				h := sha256.New()
				if err := c.FetchBlob(t.Context(), ref, l.Descriptor, h); err != nil {
					t.Fatal(err)
				}
				if fmt.Sprintf("sha256:%x", h.Sum(nil)) != l.Descriptor.Digest.String() {
					t.Error("other bytes")
				}
				if _, ok := other.Has(l.Descriptor.Digest); !ok {
					t.Error("not in the store")
				}
			}
			if known, err := newClient(t, other, Options{}).Known(t.Context(), ref, amd64); err != nil || known.Descriptor.Digest != a.Manifest.Digest {
				t.Errorf("%+v %v", known, err)
			}
		})
	}
}

func TestPushOfAnIndexAndTags(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	s := newStore(t)
	shared := makeLayer(t, s, "shared", 1000, 3)
	one := makeImage(t, s, amd64, false, shared, makeLayer(t, s, "one", 10, 4))
	arm := ocispec.Platform{OS: "linux", Architecture: "arm64"}
	two := makeImage(t, s, arm, false, shared, makeLayer(t, s, "two", 10, 5))
	d, b, err := image.MakeIndex([]ocispec.Descriptor{one.Manifest, two.Manifest}, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutBlob(b); err != nil {
		t.Fatal(err)
	}
	ref := r.Host + "/multi:v1"
	c := newClient(t, s, Options{})
	if got, err := c.TagDigest(t.Context(), ref, ""); got != "" || err != nil {
		t.Fatal(got, err)
	}
	p, err := c.Push(t.Context(), ref, d, image.FromStore(s), nil)
	if err != nil || p.Uploaded != 5 || p.Existed != 1 {
		t.Fatalf("%+v %v", p, err)
	}
	if got, err := c.TagDigest(t.Context(), ref, ""); got != "" || err != nil {
		t.Fatalf("Push moved the tag: %v %v", got, err)
	}
	if _, err := c.PutTag(t.Context(), ref, d, b); err != nil {
		t.Fatal(err)
	}
	validated(t, ref)
	if got, err := c.TagDigest(t.Context(), ref, ""); got != d.Digest || err != nil {
		t.Fatal(got, err)
	}
	got, err := newClient(t, newStore(t), Options{}).Resolve(t.Context(), ref, arm)
	if err != nil || got.Descriptor.Digest != two.Manifest.Digest || got.Index != d.Digest {
		t.Fatalf("%+v %v", got, err)
	}
	_, err = c.Resolve(t.Context(), ref, ocispec.Platform{OS: "linux", Architecture: "s390x"})
	if !errors.Is(err, image.ErrNotFound) || !strings.Contains(err.Error(), "no match for platform linux/s390x") {
		t.Errorf("%v", err)
	}
	if err := c.DeleteTag(t.Context(), r.Host+"/multi:absent"); err != nil {
		t.Logf("delete of an absent tag: %v", err)
	}
}

// A mirror beside the image is as good a repository to mount from.
func TestPushMountsFromAMirror(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	s := newStore(t)
	b := makeImage(t, s, amd64, false, makeLayer(t, s, "base", 100_000, 6))
	pushImage(t, s, r.Host+"/hub/team/base:1", b.Manifest, Options{})

	s2 := newStore(t)
	c := newClient(t, s2, Options{Hosts: map[string]Host{"registry.example.com": {Mirrors: []string{r.Host + "/hub"}, Only: true}}})
	res, err := c.Resolve(t.Context(), "registry.example.com/team/base:1", amd64)
	if err != nil {
		t.Fatal(err)
	}
	app := makeImage(t, s2, amd64, false, res.Layers[0])
	p, err := c.Push(t.Context(), r.Host+"/app:1", app.Manifest, image.FromStore(s2), Origins(res))
	if err != nil || p.Mounted != 1 || p.Uploaded != 1 {
		t.Fatalf("%+v %v", p, err)
	}
	validated(t, r.Host+"/app@"+app.Manifest.Digest.String())
}

// A blob that another repository of the registry has is not sent.
func TestPushMounts(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	s := newStore(t)
	base := makeLayer(t, s, "base", 100_000, 6)
	b := makeImage(t, s, amd64, false, base)
	pushImage(t, s, r.Host+"/base:1", b.Manifest, Options{})

	// The layer is at the registry only.
	s2 := newStore(t)
	c := newClient(t, s2, Options{})
	res, err := c.Resolve(t.Context(), r.Host+"/base:1", amd64)
	if err != nil {
		t.Fatal(err)
	}
	app := makeImage(t, s2, amd64, false, res.Layers[0], makeLayer(t, s2, "app", 10, 7))
	src, err := c.Source(res.Name)
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.Push(t.Context(), r.Host+"/app:1", app.Manifest, image.First(image.FromStore(s2), src), Origins(res))
	if err != nil || p.Mounted != 1 || p.Uploaded != 2 {
		t.Fatalf("%+v %v", p, err)
	}
	if _, ok := s2.Has(base.Descriptor.Digest); ok {
		t.Error("the base's layer was downloaded")
	}
	// Without knowing the origin it is streamed through. What was sent to another
	// repository here is not sent again.
	p, err = c.Push(t.Context(), r.Host+"/app2:1", app.Manifest, image.First(image.FromStore(s2), src), nil)
	if err != nil || p.Mounted != 2 || p.Uploaded != 1 {
		t.Fatalf("%+v %v", p, err)
	}
	if _, err := c.PutTag(t.Context(), r.Host+"/app2:1", app.Manifest, app.RawManifest); err != nil {
		t.Fatal(err)
	}
	validated(t, r.Host+"/app2:1")
}

// A blob that goes to many repositories at once is sent to one of them.
func TestPushSendsABlobOnce(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	s := newStore(t)
	img := makeImage(t, s, amd64, false, makeLayer(t, s, "a", 300_000, 1), makeLayer(t, s, "b", 10, 2))
	const blobs, repos = 3, 6
	for _, refuses := range []bool{false, true} {
		t.Run(fmt.Sprintf("the registry refuses mounts: %v", refuses), func(t *testing.T) {
			host, seen := front(t, r, func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				if refuses {
					req.URL.RawQuery = withoutMount(req.URL.Query())
				}
				pass(w, req, next)
			})
			c := newClient(t, s, Options{})
			var mu sync.Mutex
			var sum Pushed
			var wg sync.WaitGroup
			for i := range repos {
				wg.Go(func() {
					p, err := c.Push(t.Context(), fmt.Sprintf("%s/%v/repo%d:1", host, refuses, i), img.Manifest, image.FromStore(s), nil)
					if err != nil {
						t.Error(err)
					}
					mu.Lock()
					defer mu.Unlock()
					sum.Uploaded, sum.Mounted = sum.Uploaded+p.Uploaded, sum.Mounted+p.Mounted
				})
			}
			wg.Wait()
			want := Pushed{Uploaded: blobs, Mounted: blobs * (repos - 1)}
			if refuses {
				want = Pushed{Uploaded: blobs * repos}
			}
			if sum != want {
				t.Errorf("%+v, want %+v", sum, want)
			}
			if n := count(seen(), "PUT /v2/"); n != want.Uploaded+repos { // manifests too
				t.Errorf("%d uploads: %q", n, seen())
			}
			for i := range repos {
				validated(t, fmt.Sprintf("%s/%v/repo%d@%s", r.Host, refuses, i, img.Manifest.Digest))
			}
		})
	}
}

func withoutMount(q url.Values) string {
	q.Del("mount")
	q.Del("from")
	return q.Encode()
}

// Who waits for another's upload that fails sends the blob itself.
func TestPushAfterAnotherFailed(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	s := newStore(t)
	img := makeImage(t, s, amd64, false, makeLayer(t, s, "a", 300_000, 1))
	begun, fail := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	host, _ := front(t, r, func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if req.Method == http.MethodPost && strings.HasPrefix(req.URL.Path, "/v2/first/") && once.CompareAndSwap(false, true) {
			close(begun)
			<-fail
			w.WriteHeader(http.StatusForbidden)
			return
		}
		pass(w, req, next)
	})
	c := newClient(t, s, Options{Jobs: 1})
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := c.Push(t.Context(), host+"/first:1", img.Manifest, image.FromStore(s), nil); err == nil {
			t.Error("pushed what the registry forbids")
		}
	})
	<-begun
	wg.Go(func() {
		if p, err := c.Push(t.Context(), host+"/second:1", img.Manifest, image.FromStore(s), nil); err != nil || p.Uploaded != 2 {
			t.Errorf("%+v %v", p, err)
		}
	})
	close(fail)
	wg.Wait()
	validated(t, r.Host+"/second@"+img.Manifest.Digest.String())
}

func TestAuth(t *testing.T) {
	for name, o := range map[string]registrytest.Options{"basic": {Auth: true}, "tokens": {Tokens: true}, "tokens over TLS": {Tokens: true, TLS: true}} {
		t.Run(name, func(t *testing.T) { testAuth(t, o) })
	}
}

func testAuth(t *testing.T, kind registrytest.Options) {
	r := registrytest.Start(t, kind)
	hosts := map[string]Host{r.Host: {CA: r.CA}}
	if kind.Tokens && kind.TLS {
		hosts[r.TokenHost] = Host{CA: r.TokenCA}
	}
	s := newStore(t)
	a := makeImage(t, s, amd64, false, makeLayer(t, s, "a", 10, 8))
	ref := r.Host + "/team/private:1"

	c := newClient(t, s, Options{Hosts: hosts})
	err := c.PermissionCheck(t.Context(), ref)
	var e *Error
	if !errors.As(err, &e) || e.Kind != Denied || !strings.Contains(err.Error(), "push access denied") || !strings.Contains(err.Error(), "docker login "+r.Host) {
		t.Errorf("%v", err)
	}
	_, err = c.Resolve(t.Context(), ref, amd64)
	if !errors.As(err, &e) || e.Kind != Denied || !strings.Contains(err.Error(), "pull access denied") {
		t.Errorf("%v", err)
	}

	login := func(t *testing.T, key, password string) {
		dir := t.TempDir()
		t.Setenv("DOCKER_CONFIG", dir)
		t.Setenv("HOME", dir)
		b, _ := json.Marshal(map[string]any{"auths": map[string]any{key: map[string]string{"username": registrytest.User, "password": password}}})
		if err := os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("host", func(t *testing.T) {
		login(t, r.Host, registrytest.Password)
		pushImage(t, s, ref, a.Manifest, Options{Hosts: hosts, Keychain: credential.New(credential.Options{})})
		c := newClient(t, newStore(t), Options{Hosts: hosts, Keychain: credential.New(credential.Options{})})
		if err := c.PermissionCheck(t.Context(), ref); err != nil {
			t.Error(err)
		}
		got, err := c.Resolve(t.Context(), ref, amd64)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.FetchBlob(t.Context(), ref, got.Layers[0].Descriptor, io.Discard); err != nil {
			t.Error(err)
		}
	})
	t.Run("path", func(t *testing.T) {
		login(t, r.Host+"/team", registrytest.Password)
		c := newClient(t, newStore(t), Options{Hosts: hosts, Keychain: credential.New(credential.Options{})})
		if _, err := c.Resolve(t.Context(), ref, amd64); err != nil {
			t.Error(err)
		}
		if err := c.PermissionCheck(t.Context(), r.Host+"/other/x:1"); err == nil {
			t.Error("credentials of a path were used beside it")
		}
	})
	t.Run("wrong", func(t *testing.T) {
		login(t, r.Host, "guess")
		c := newClient(t, newStore(t), Options{Hosts: hosts, Keychain: credential.New(credential.Options{})})
		_, err := c.Resolve(t.Context(), ref, amd64)
		if !errors.As(err, &e) || e.Kind != Denied || !strings.Contains(err.Error(), "are not allowed") {
			t.Error(err)
		}
	})
	t.Run("helper", func(t *testing.T) {
		dir := t.TempDir()
		t.Setenv("DOCKER_CONFIG", dir)
		t.Setenv("HOME", dir)
		t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
		helper := fmt.Sprintf("#!/bin/sh\ncat >/dev/null\necho '{\"Username\":%q,\"Secret\":%q}'\n", registrytest.User, registrytest.Password)
		if err := os.WriteFile(filepath.Join(dir, "docker-credential-test"), []byte(helper), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "config.json"), fmt.Appendf(nil, `{"credHelpers": {%q: "test"}}`, r.Host), 0o600); err != nil {
			t.Fatal(err)
		}
		c := newClient(t, newStore(t), Options{Hosts: hosts, Keychain: credential.New(credential.Options{})})
		if _, err := c.Resolve(t.Context(), ref, amd64); err != nil {
			t.Error(err)
		}
	})
}

func TestTLS(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{TLS: true})
	s := newStore(t)
	a := makeImage(t, s, amd64, false, makeLayer(t, s, "a", 10, 9))
	ref := r.Host + "/x:1"
	trusted := Options{Hosts: map[string]Host{r.Host: {CA: r.CA}}}
	pushImage(t, s, ref, a.Manifest, trusted)
	if _, err := newClient(t, newStore(t), Options{Hosts: map[string]Host{r.Host: {Insecure: true}}}).Resolve(t.Context(), ref, amd64); err != nil {
		t.Error(err)
	}
	_, err := newClient(t, newStore(t), Options{}).Resolve(t.Context(), ref, amd64)
	var e *Error
	if !errors.As(err, &e) || e.Kind != TLS || !strings.Contains(err.Error(), "insecure: true") {
		t.Errorf("%v", err)
	}
	if _, err := New(s, Options{Hosts: map[string]Host{"x": {CA: []byte("no PEM")}}}); err == nil {
		t.Error("took a CA that is none")
	}
}

// front stands before a real registry and may answer itself.
func front(t *testing.T, r *registrytest.Registry, handle func(w http.ResponseWriter, req *http.Request, next http.Handler)) (host string, requests func() []string) {
	t.Helper()
	u, err := url.Parse(r.URL())
	if err != nil {
		t.Fatal(err)
	}
	next := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(u); p.Out.Host = p.In.Host }, ErrorHandler: func(http.ResponseWriter, *http.Request, error) {}}
	var mu sync.Mutex
	var seen []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		seen = append(seen, req.Method+" "+req.URL.Path)
		mu.Unlock()
		handle(w, req, next)
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://"), func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), seen...)
	}
}

func pass(w http.ResponseWriter, req *http.Request, next http.Handler) { next.ServeHTTP(w, req) }

func count(seen []string, part string) int {
	n := 0
	for _, s := range seen {
		if strings.Contains(s, part) {
			n++
		}
	}
	return n
}

func TestMirrors(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	s := newStore(t)
	a := makeImage(t, s, amd64, false, makeLayer(t, s, "a", 1000, 10))
	pushImage(t, s, r.Host+"/library/busybox:latest", a.Manifest, Options{})
	pushImage(t, s, r.Host+"/cache/hub/library/alpine:3", a.Manifest, Options{})
	dead := registrytest.Start(t, registrytest.Options{})
	if err := dead.Stop(); err != nil {
		t.Fatal(err)
	}
	o := Options{Retries: -1, Hosts: map[string]Host{"docker.io": {Mirrors: []string{dead.Host, r.Host, r.Host + "/cache/hub"}, Only: true}}}
	for _, ref := range []string{"busybox", "alpine:3", "docker.io/library/busybox"} {
		s := newStore(t)
		c := newClient(t, s, o)
		got, err := c.Resolve(t.Context(), ref, amd64)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(got.Name, "docker.io/library/") {
			t.Errorf("name %s", got.Name)
		}
		if err := c.FetchBlob(t.Context(), ref, got.Layers[0].Descriptor, io.Discard); err != nil {
			t.Error(err)
		}
	}
	_, err := newClient(t, newStore(t), o).Resolve(t.Context(), "nope", amd64)
	var p *diag.Problem
	if !errors.Is(err, image.ErrNotFound) || !errors.As(err, &p) ||
		!strings.Contains(err.Error(), "failed to resolve source metadata for docker.io/library/nope:latest: docker.io/library/nope:latest: not found") {
		t.Errorf("%v", err)
	}
	// A mirror that lacks the image is passed over; the registry itself answers.
	o = Options{Hosts: map[string]Host{r.Host: {Mirrors: []string{dead.Host, r.Host + "/empty"}}}, Retries: -1}
	if _, err := newClient(t, newStore(t), o).Resolve(t.Context(), r.Host+"/library/busybox", amd64); err != nil {
		t.Error(err)
	}
}

func TestErrorsAreSentences(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	down := r.Host
	if err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	_, err := newClient(t, newStore(t), Options{}).Resolve(t.Context(), down+"/x", amd64)
	var e *Error
	if !errors.As(err, &e) || e.Kind != Unreachable || !strings.Contains(err.Error(), "nothing listens at "+down) || strings.Count(err.Error(), "\n") > 1 {
		t.Errorf("%v", err)
	}
	for _, bad := range []string{"", "UPPER/x", "a b", "x@sha256:12", "x:tag:tag", "-x"} {
		_, err := newClient(t, newStore(t), Options{}).Resolve(t.Context(), bad, amd64)
		var p *diag.Problem
		if !errors.As(err, &p) || p.Hint == "" {
			t.Errorf("%q: %v", bad, err)
		}
	}
	_, err = newClient(t, newStore(t), Options{Retries: -1}).Resolve(t.Context(), "registry.invalid/x", amd64)
	if !errors.As(err, &e) || e.Kind != Unreachable {
		t.Errorf("%v", err)
	}
}

func TestOneRequestForEachReference(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	s := newStore(t)
	a := makeImage(t, s, amd64, false, makeLayer(t, s, "a", 1000, 11))
	pushImage(t, s, r.Host+"/x:1", a.Manifest, Options{})
	host, seen := front(t, r, func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if strings.Contains(req.URL.Path, "/manifests/") {
			time.Sleep(50 * time.Millisecond) // so that the callers meet
		}
		pass(w, req, next)
	})
	c := newClient(t, newStore(t), Options{})
	gone, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			ctx := t.Context()
			if i == 0 {
				ctx = gone
			}
			_, err := c.Resolve(ctx, host+"/x:1", amd64)
			if (err != nil) != (i == 0) {
				t.Errorf("caller %d: %v", i, err)
			}
		})
	}
	for count(seen(), "/manifests/") == 0 {
		runtime.Gosched()
	}
	cancel()
	wg.Wait()
	if got := seen(); count(got, "HEAD /v2/x/manifests/") != 1 || count(got, "GET /v2/x/manifests/") != 1 || count(got, "/blobs/") != 1 {
		t.Errorf("%v", got)
	}
	// A later run asks once and fetches nothing.
	s2 := c.store
	before := len(seen())
	if _, err := newClient(t, s2, Options{}).Resolve(t.Context(), host+"/x:1", amd64); err != nil {
		t.Fatal(err)
	}
	if got := seen()[before:]; count(got, "manifests") != 1 || count(got, "HEAD") != 1 || count(got, "blobs") != 0 {
		t.Errorf("%v", got)
	}
}

func TestDownloadsAreSharedAndGivenUp(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	s := newStore(t)
	l := makeLayer(t, s, "a", 4<<20, 12)
	pushImage(t, s, r.Host+"/x:1", makeImage(t, s, amd64, false, l).Manifest, Options{})
	hold := make(chan struct{})
	var gets atomic.Int64
	host, _ := front(t, r, func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if strings.Contains(req.URL.Path, "/blobs/"+l.Descriptor.Digest.String()) {
			gets.Add(1)
			select {
			case <-hold:
			case <-req.Context().Done():
				return
			}
		}
		pass(w, req, next)
	})
	s2 := newStore(t)
	c := newClient(t, s2, Options{})
	// Given up by all: nothing stays.
	one, err := c.Blob(t.Context(), host+"/x:1", l.Descriptor)
	if err != nil {
		t.Fatal(err)
	}
	for gets.Load() == 0 {
		runtime.Gosched()
	}
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	c.jobs.Wait()
	if err := one.Close(); err != nil {
		t.Error(err)
	}
	// The first closes, the others get it all, from one request.
	gets.Store(0)
	first, err := c.Blob(t.Context(), host+"/x:1", l.Descriptor)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 5 {
		b, err := c.Blob(t.Context(), host+"/x:1", l.Descriptor)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer b.Close()
			h := sha256.New()
			if n, err := io.Copy(h, b); err != nil || n != l.Descriptor.Size || fmt.Sprintf("sha256:%x", h.Sum(nil)) != l.Descriptor.Digest.String() {
				t.Errorf("%d bytes, %v", n, err)
			}
		})
	}
	first.Close()
	close(hold)
	wg.Wait()
	if gets.Load() != 1 {
		t.Errorf("%d requests", gets.Load())
	}
	if _, ok := s2.Has(l.Descriptor.Digest); !ok {
		t.Error("not in the store")
	}
}

// What lies between us and a registry, or a registry itself, may be broken or
// hostile.
func TestHostileRegistries(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	s := newStore(t)
	l := makeLayer(t, s, "a", 1<<20, 13)
	a := makeImage(t, s, amd64, false, l)
	pushImage(t, s, r.Host+"/x:1", a.Manifest, Options{})
	blob, err := s.ReadBlob(l.Descriptor.Digest, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	isLayer := func(req *http.Request) bool {
		return strings.HasSuffix(req.URL.Path, l.Descriptor.Digest.String())
	}
	type handler = func(w http.ResponseWriter, req *http.Request, next http.Handler)
	fails := func(n int64, status int, head http.Header) handler {
		var left atomic.Int64
		left.Store(n)
		return func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			if req.URL.Path != "/v2/" && left.Add(-1) >= 0 {
				for k, v := range head {
					w.Header()[k] = v
				}
				w.WriteHeader(status)
				return
			}
			pass(w, req, next)
		}
	}
	for _, c := range []struct {
		name   string
		handle handler
		want   string // in the error; "" is success
	}{
		{"503 twice", fails(2, 503, nil), ""},
		{"429 with Retry-After", fails(1, 429, http.Header{"Retry-After": {"1"}}), ""},
		{"429 for an hour", fails(9, 429, http.Header{"Retry-After": {"3600"}}), "allows no more requests"},
		{"500 for ever", fails(1<<40, 500, nil), "answers with 500"},
		{"cut in the middle, with ranges", func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			if isLayer(req) && req.Header.Get("Range") == "" {
				w.Header().Set("Content-Length", fmt.Sprint(len(blob)))
				_, _ = w.Write(blob[:len(blob)/3])
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}
			pass(w, req, next)
		}, ""},
		{"cut again and again, no ranges", func() handler {
			var n atomic.Int64
			return func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				if !isLayer(req) {
					pass(w, req, next)
					return
				}
				w.Header().Set("Content-Length", fmt.Sprint(len(blob)))
				k := n.Add(1)
				if k < 5 {
					_, _ = w.Write(blob[:int64(len(blob))*k/5])
					_ = http.NewResponseController(w).Flush()
					panic(http.ErrAbortHandler)
				}
				_, _ = w.Write(blob)
			}
		}(), ""},
		{"a range from elsewhere", func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			if !isLayer(req) {
				pass(w, req, next)
				return
			}
			if req.Header.Get("Range") == "" {
				w.Header().Set("Content-Length", fmt.Sprint(len(blob)))
				_, _ = w.Write(blob[:100])
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 7-%d/%d", len(blob)-1, len(blob)))
			w.WriteHeader(206)
			_, _ = w.Write(blob[7:])
		}, "sent the range"},
		{"never a byte more", func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			if isLayer(req) {
				w.Header().Set("Content-Length", fmt.Sprint(len(blob)))
				panic(http.ErrAbortHandler)
			}
			pass(w, req, next)
		}, "EOF"},
		{"lying length, longer", func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			if isLayer(req) {
				w.Header().Set("Content-Length", fmt.Sprint(len(blob)+5))
				_, _ = w.Write(append(append([]byte{}, blob...), "extra"...))
				return
			}
			pass(w, req, next)
		}, "the manifest says"},
		{"endless", func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			if isLayer(req) {
				for {
					if _, err := w.Write(blob); err != nil {
						return
					}
				}
			}
			pass(w, req, next)
		}, "more than the"},
		{"other bytes", func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			if isLayer(req) {
				w.Header().Set("Content-Length", fmt.Sprint(len(blob)))
				_, _ = w.Write(bytes.Repeat([]byte("x"), len(blob)))
				return
			}
			pass(w, req, next)
		}, "digest does not match"},
		{"another manifest under its digest", func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			if req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/manifests/") {
				w.Header().Set("Docker-Content-Digest", a.Manifest.Digest.String())
				_, _ = w.Write(bytes.Replace(a.RawManifest, []byte("{"), []byte("{ "), 1))
				return
			}
			pass(w, req, next)
		}, "has the digest"},
		{"a manifest without end", func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			if req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/manifests/") {
				for {
					if _, err := w.Write(blob); err != nil {
						return
					}
				}
			}
			pass(w, req, next)
		}, "more than 8388608 bytes"},
		{"redirected blobs", func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			if isLayer(req) && req.URL.RawQuery == "" {
				http.Redirect(w, req, req.URL.Path+"?moved", http.StatusTemporaryRedirect)
				return
			}
			pass(w, req, next)
		}, ""},
		{"redirected for ever", func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			if isLayer(req) {
				http.Redirect(w, req, req.URL.String(), http.StatusTemporaryRedirect)
				return
			}
			pass(w, req, next)
		}, "stopped after 10 redirects"},
		{"no HEAD", func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			if req.Method == http.MethodHead {
				w.WriteHeader(http.StatusMethodNotAllowed)
				return
			}
			pass(w, req, next)
		}, ""},
		{"schema 1", func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			if strings.Contains(req.URL.Path, "/manifests/") {
				w.Header().Set("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws")
				_, _ = io.WriteString(w, `{"schemaVersion": 1, "name": "x", "fsLayers": []}`)
				return
			}
			pass(w, req, next)
		}, "schema 1"},
		{"no JSON, but escapes", func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			if req.URL.Path != "/v2/" {
				w.WriteHeader(418)
				_, _ = io.WriteString(w, `{"errors":[{"code":"X","message":"\u001b[31mred\n::set-output name=a::b"}]}`)
				return
			}
			pass(w, req, next)
		}, "answers with 418"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // they mostly wait
			host, _ := front(t, r, c.handle)
			s := newStore(t)
			cl := newClient(t, s, Options{Retries: 3})
			ref := host + "/x:1"
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			res, err := cl.Resolve(ctx, ref, amd64)
			if err == nil {
				h := sha256.New()
				err = cl.FetchBlob(ctx, ref, res.Layers[0].Descriptor, h)
				if err == nil && fmt.Sprintf("sha256:%x", h.Sum(nil)) != l.Descriptor.Digest.String() {
					t.Error("other bytes were taken")
				}
			}
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%v lacks %q", err, c.want)
			}
			if err != nil && strings.ContainsAny(strings.ReplaceAll(err.Error(), "\n  hint", ""), "\x1b\n") {
				t.Errorf("control characters in %q", err)
			}
			if _, ok := s.Has(l.Descriptor.Digest); ok != (c.want == "") {
				t.Errorf("in the store: %v", ok)
			}
			// The tar of the layers must still be a push away.
			if c.want == "" {
				if size, _ := s.Has(l.Descriptor.Digest); size != l.Descriptor.Size {
					t.Errorf("size %d", size)
				}
			}
		})
	}
}

func TestIndexLoopsEnd(t *testing.T) {
	// An index cannot name its own digest, so a loop needs a server that lies; a
	// chain that is too deep does not.
	r := registrytest.Start(t, registrytest.Options{})
	s := newStore(t)
	a := makeImage(t, s, amd64, false, makeLayer(t, s, "a", 10, 14))
	pushImage(t, s, r.Host+"/deep:0", a.Manifest, Options{})
	d := a.Manifest
	c := newClient(t, s, Options{})
	for i := 1; i <= 8; i++ {
		p := d
		p.Platform = nil
		next, b, err := image.MakeIndex([]ocispec.Descriptor{p}, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.PutBlob(b); err != nil {
			t.Fatal(err)
		}
		if _, err := c.PutTag(t.Context(), fmt.Sprintf("%s/deep:%d", r.Host, i), next, b); err != nil {
			t.Fatal(err)
		}
		d = next
	}
	for i, want := range map[int]bool{1: true, 3: true, 8: false} {
		_, err := newClient(t, newStore(t), Options{}).Resolve(t.Context(), fmt.Sprintf("%s/deep:%d", r.Host, i), amd64)
		if (err == nil) != want {
			t.Errorf("%d levels: %v", i, err)
		}
	}
	if _, err := newClient(t, s, Options{}).Push(t.Context(), r.Host+"/other:1", d, image.FromStore(s), nil); err == nil {
		t.Error("pushed an index that is too deep")
	}
}

func TestUploadIsRepeated(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	s := newStore(t)
	a := makeImage(t, s, amd64, false, makeLayer(t, s, "a", 1<<20, 15))
	var puts atomic.Int64
	host, _ := front(t, r, func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if req.Method == http.MethodPut && strings.Contains(req.URL.Path, "/blobs/") {
			switch puts.Add(1) {
			case 1:
				w.WriteHeader(http.StatusBadGateway)
				return
			case 2:
				_, _ = io.CopyN(io.Discard, req.Body, 1000)
				panic(http.ErrAbortHandler)
			}
		}
		pass(w, req, next)
	})
	if p := pushImage(t, s, host+"/x:1", a.Manifest, Options{Jobs: 1}); p.Uploaded != 2 {
		t.Errorf("%+v", p)
	}
	validated(t, r.Host+"/x:1")
	// A blob that is damaged in the store is not pushed, and says so.
	b := makeImage(t, s, amd64, false, makeLayer(t, s, "b", 1<<20, 16))
	d := b.Layers[0].Descriptor.Digest
	if err := os.WriteFile(filepath.Join(s.Dir(), "blobs", "sha256", d.Encoded()), make([]byte, b.Layers[0].Descriptor.Size), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := newClient(t, s, Options{}).Push(t.Context(), host+"/x:2", b.Manifest, image.FromStore(s), nil)
	if !errors.Is(err, store.ErrMiss) {
		t.Errorf("%v", err)
	}
}

func TestCancelEndsAtOnce(t *testing.T) {
	block := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/v2/" {
			return
		}
		select {
		case <-block:
		case <-req.Context().Done():
		}
	}))
	defer srv.Close()
	defer close(block)
	c := newClient(t, newStore(t), Options{})
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
	start := time.Now()
	if _, err := c.Resolve(ctx, strings.TrimPrefix(srv.URL, "http://")+"/x", amd64); !errors.Is(err, cause) {
		t.Error(err)
	}
	c.jobs.Wait()
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("took %v", d)
	}
}

// Plain http is not a fallback for a host of which nobody said so.
func TestNoSilentPlainHTTP(t *testing.T) {
	for host, want := range map[string]bool{
		"127.0.0.1:5000": true, "127.9.9.9": true, "localhost": true, "[::1]:5000": true, "a.localhost:1": true,
		"10.0.0.1:5000": false, "192.168.1.1": false, "registry.local": false, "docker.io": false, "mirror:80": true, "old.example": true, "localhost.evil.example": false,
	} {
		c := newClient(t, newStore(t), Options{Hosts: map[string]Host{"old.example": {Insecure: true}, "docker.io": {Mirrors: []string{"http://mirror:80/x"}}}})
		if got := c.plainAllowed(host); got != want {
			t.Errorf("%s: %v, want %v", host, got, want)
		}
	}
}

func BenchmarkResolveKnown(b *testing.B) {
	if _, err := exec.LookPath(registrytest.Program); err != nil {
		b.Skip("needs " + registrytest.Program)
	}
	r := registrytest.Start(b, registrytest.Options{})
	s, err := store.Open(b.TempDir(), store.Options{Owner: os.Getuid()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	a, err := image.Assemble(image.Spec{Config: dockerspec.DockerOCIImage{Image: ocispec.Image{Platform: amd64}}})
	if err != nil {
		b.Fatal(err)
	}
	if err := a.Put(s); err != nil {
		b.Fatal(err)
	}
	c, err := New(s, Options{})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := c.Push(b.Context(), r.Host+"/x:1", a.Manifest, image.FromStore(s), nil); err != nil {
		b.Fatal(err)
	}
	if _, err := c.PutTag(b.Context(), r.Host+"/x:1", a.Manifest, a.RawManifest); err != nil {
		b.Fatal(err)
	}
	for b.Loop() { // a run each: handshake, HEAD, the rest from the store
		c, err := New(s, Options{})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.Resolve(b.Context(), r.Host+"/x:1", amd64); err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}
