package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/image"
	"kaniko-build/executor/internal/store"
	"kaniko-build/test/registrytest"
)

// growing is a layer whose bytes come one part after the other.
type growing struct {
	t    *testing.T
	d    ocispec.Descriptor
	data []byte
	file *os.File // what is written so far
}

func grow(t *testing.T, s *store.Store, d ocispec.Descriptor) *growing {
	t.Helper()
	data, err := s.ReadBlob(d.Digest, d.Size)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "blob"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &growing{t, d, data, f}
}

func (g *growing) open() io.ReadCloser {
	g.t.Helper()
	f, err := os.Open(g.file.Name())
	if err != nil {
		g.t.Fatal(err)
	}
	return f
}

// write writes up to byte n and tells u.
func (g *growing) write(u *Upload, n int) {
	g.t.Helper()
	st, err := g.file.Stat()
	if err == nil {
		_, err = g.file.Write(g.data[st.Size():n])
	}
	if err != nil {
		g.t.Fatal(err)
	}
	u.Grow(int64(n))
}

// rest writes what is left.
func (g *growing) rest(u *Upload) {
	g.t.Helper()
	g.write(u, len(g.data))
	u.End(g.d)
}

// A blob that went up while it was made is whole, and a push does not send it.
func TestUploadOfWhatIsBeingMade(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	s := newStore(t)
	l := makeLayer(t, s, "a", 3_000_000, 1)
	img := makeImage(t, s, amd64, false, l)
	arrived := make(chan struct{})
	var once sync.Once
	host, seen := front(t, r, func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if req.Method == http.MethodPatch {
			req.Body = &watched{ReadCloser: req.Body, after: 1_000_000, seen: func() { once.Do(func() { close(arrived) }) }}
		}
		pass(w, req, next)
	})
	c := newClient(t, s, Options{})
	g := grow(t, s, l.Descriptor)
	u := c.Upload(t.Context(), host+"/a:1", g.open())
	g.write(u, 400_000)
	g.write(u, 1_000_000)
	<-arrived // before there is more
	g.rest(u)
	if err := u.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	p, err := c.Push(t.Context(), host+"/a:1", img.Manifest, image.FromStore(s), nil)
	if err != nil || p.Uploaded != 1 || p.Existed != 1 { // the config is sent
		t.Errorf("%+v %v", p, err)
	}
	if n := count(seen(), "PATCH "); n != 1 {
		t.Errorf("%d PATCHes: %q", n, seen())
	}
	validated(t, r.Host+"/a@"+img.Manifest.Digest.String())
}

// watched tells when so many bytes were read.
type watched struct {
	io.ReadCloser
	after int
	seen  func()
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.ReadCloser.Read(b)
	if w.after -= n; w.after <= 0 {
		w.seen()
	}
	return n, err
}

// Another repository gets it by a mount, also when it asks too early.
func TestUploadIsMountedElsewhere(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	s := newStore(t)
	l := makeLayer(t, s, "a", 3_000_000, 1)
	img := makeImage(t, s, amd64, false, l)
	asked, answer := make(chan struct{}), make(chan struct{})
	var once sync.Once
	host, _ := front(t, r, func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		switch {
		case req.Method == http.MethodPut && strings.HasPrefix(req.URL.Path, "/v2/a/blobs/uploads/"):
			<-answer
		case req.Method == http.MethodHead && strings.HasSuffix(req.URL.Path, l.Descriptor.Digest.String()):
			once.Do(func() { close(asked) })
		}
		pass(w, req, next)
	})
	c := newClient(t, s, Options{})
	g := grow(t, s, l.Descriptor)
	u := c.Upload(t.Context(), host+"/a:1", g.open())
	g.rest(u)
	var wg sync.WaitGroup
	wg.Go(func() {
		p, err := c.Push(t.Context(), host+"/b:1", img.Manifest, image.FromStore(s), nil)
		if err != nil || p.Mounted != 1 {
			t.Errorf("%+v %v", p, err)
		}
	})
	<-asked
	close(answer)
	wg.Wait()
	validated(t, r.Host+"/b@"+img.Manifest.Digest.String())
}

// The rest of a large blob is not sent when the repository turns out to have it.
func TestUploadOfWhatIsThere(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	s := newStore(t)
	l := makeLayer(t, s, "a", worthAsking+1<<20, 1)
	img := makeImage(t, s, amd64, false, l)
	pushImage(t, s, r.Host+"/a:1", img.Manifest, Options{})
	end := make(chan struct{})
	host, seen := front(t, r, func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if req.Method == http.MethodPatch { // as slow as it gets
			<-end
			return
		}
		pass(w, req, next)
	})
	c := newClient(t, s, Options{})
	g := grow(t, s, l.Descriptor)
	u := c.Upload(t.Context(), host+"/a:1", g.open())
	g.rest(u)
	err := u.Wait(t.Context())
	close(end)
	if err != nil {
		t.Error(err)
	}
	if count(seen(), "PUT ") != 0 {
		t.Errorf("%q", seen())
	}
}

// What cannot go up so is sent by the push; what is given up is taken back.
func TestUploadFails(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	s := newStore(t)
	l := makeLayer(t, s, "a", 300_000, 1)
	img := makeImage(t, s, amd64, false, l)
	for name, refuse := range map[string]string{"refuses PATCH": http.MethodPatch, "refuses PUT": http.MethodPut, "refuses POST": http.MethodPost, "is given up": ""} {
		t.Run(name, func(t *testing.T) {
			var once sync.Once
			host, seen := front(t, r, func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				refused := false
				if req.Method == refuse {
					once.Do(func() { refused = true })
				}
				if refused {
					w.WriteHeader(http.StatusBadRequest)
					return
				}
				pass(w, req, next)
			})
			c := newClient(t, s, Options{})
			g := grow(t, s, l.Descriptor)
			repo := "/" + strings.ReplaceAll(strings.ToLower(name), " ", "-")
			u := c.Upload(t.Context(), host+repo+":1", g.open())
			if refuse == "" {
				g.write(u, 1000)
				u.Cancel()
			} else {
				g.rest(u)
			}
			if err := u.Wait(t.Context()); err == nil || refuse == "" && !errors.Is(err, errUnwanted) {
				t.Errorf("%v: %q", err, seen())
			}
			if p, err := c.Push(t.Context(), host+repo+":1", img.Manifest, image.FromStore(s), nil); err != nil || p.Uploaded != 2 {
				t.Errorf("%+v %v", p, err)
			}
			validated(t, r.Host+repo+"@"+img.Manifest.Digest.String())
		})
	}
}

// A build that is cancelled does not wait for what nobody will finish.
func TestUploadEndsWithItsBuild(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	s := newStore(t)
	c := newClient(t, s, Options{})
	g := grow(t, s, makeLayer(t, s, "a", 3000, 1).Descriptor)
	ctx, cancel := context.WithCancel(t.Context())
	u := c.Upload(ctx, r.Host+"/a:1", g.open())
	g.write(u, 1000)
	cancel()
	if err := u.Wait(t.Context()); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
