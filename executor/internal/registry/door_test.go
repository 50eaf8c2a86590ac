package registry

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kaniko-build/executor/internal/image"
	"kaniko-build/test/registrytest"
)

// An image whose tag stands for it costs one request, and a registry one for all
// of its repositories, whether or not it knows conditions.
func TestPushOfWhatIsThereAsksOnce(t *testing.T) {
	t.Run("conditions", func(t *testing.T) { asksOnce(t, pass) })
	t.Run("no conditions", func(t *testing.T) {
		asksOnce(t, func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			req.Header.Del("If-None-Match")
			pass(w, req, next)
		})
	})
}

func asksOnce(t *testing.T, handle func(w http.ResponseWriter, req *http.Request, next http.Handler)) {
	t.Helper()
	r := registrytest.Start(t, registrytest.Options{})
	s := newStore(t)
	a, b := makeImage(t, s, amd64, false, makeLayer(t, s, "a", 10, 1)), makeImage(t, s, amd64, false, makeLayer(t, s, "b", 10, 2))
	repos := []string{"/one", "/two", "/three"}
	for _, repo := range repos {
		pushImage(t, s, r.Host+repo+":1", a.Manifest, Options{})
	}
	host, seen := front(t, r, handle)
	// push does for all repositories what a run does: tags are put at the end.
	push := func(img image.Assembled) (moved []string) {
		t.Helper()
		c := newClient(t, s, Options{})
		c.now = func() time.Time { return time.Unix(0, 0) } // however slow the machine is
		var wg sync.WaitGroup
		for _, repo := range repos {
			wg.Go(func() {
				if _, err := c.Push(t.Context(), host+repo+":1", img.Manifest, image.FromStore(s), nil); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, repo := range repos {
			ok, err := c.PutTag(t.Context(), host+repo+":1", img.Manifest, img.RawManifest)
			if err != nil {
				t.Fatal(err)
			}
			if ok {
				moved = append(moved, repo)
			}
		}
		return moved
	}
	if moved := push(a); len(moved) > 0 {
		t.Errorf("%q moved", moved)
	}
	got := seen()
	slices.Sort(got)
	if want := []string{"GET /v2/", "HEAD /v2/one/manifests/1", "HEAD /v2/three/manifests/1", "HEAD /v2/two/manifests/1"}; !slices.Equal(got, want) {
		t.Errorf("requests: %q, want %q", got, want)
	}
	if moved := push(b); !slices.Equal(moved, repos) {
		t.Errorf("%q moved", moved)
	}
	if moved := push(a); !slices.Equal(moved, repos) { // whose manifests are there
		t.Errorf("%q moved back", moved)
	}
	for _, repo := range repos {
		validated(t, r.Host+repo+":1")
	}
	if n := count(seen()[len(got):], "HEAD /v2/one/manifests/1"); n != 2 {
		t.Errorf("the tag was asked for %d times in two runs", n)
	}
}

// A tag that somebody moves between two pushes of one client is moved again.
func TestPushTwiceWithOneClient(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	s := newStore(t)
	a, b := makeImage(t, s, amd64, false, makeLayer(t, s, "a", 10, 1)), makeImage(t, s, amd64, false, makeLayer(t, s, "b", 10, 2))
	ref, c := r.Host+"/it:1", newClient(t, s, Options{})
	for i, img := range []image.Assembled{a, b, a, a} {
		if _, err := c.Push(t.Context(), ref, img.Manifest, image.FromStore(s), nil); err != nil {
			t.Fatal(err)
		}
		if moved, err := c.PutTag(t.Context(), ref, img.Manifest, img.RawManifest); err != nil || moved != (i < 3) {
			t.Errorf("push %d: moved %v, %v", i, moved, err)
		}
		if d, err := c.TagDigest(t.Context(), ref, ""); err != nil || d != img.Manifest.Digest {
			t.Errorf("push %d: the tag stands for %s, %v", i, d, err)
		}
		if i == 2 {
			pushImage(t, s, ref, b.Manifest, Options{}) // another run
			if moved, err := c.PutTag(t.Context(), ref, a.Manifest, a.RawManifest); err != nil || !moved {
				t.Errorf("the tag was left with another run: %v, %v", moved, err)
			}
		}
	}
}

// While a run goes on, another moves a tag that stood for the right image when it
// was looked at: the tags of a run stand for one state in the end.
func TestTagMovedMeanwhile(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	s := newStore(t)
	ours, theirs := makeImage(t, s, amd64, false, makeLayer(t, s, "a", 10, 1)), makeImage(t, s, amd64, false, makeLayer(t, s, "b", 10, 2))
	ref, c := r.Host+"/it:1", newClient(t, s, Options{})
	pushImage(t, s, ref, ours.Manifest, Options{})
	now := time.Unix(0, 0)
	c.now = func() time.Time { return now }
	if p, err := c.Push(t.Context(), ref, ours.Manifest, image.FromStore(s), nil); err != nil || !p.Known {
		t.Fatalf("%+v, %v", p, err)
	}
	pushImage(t, s, ref, theirs.Manifest, Options{})
	now = now.Add(time.Minute)
	if moved, err := c.PutTag(t.Context(), ref, ours.Manifest, ours.RawManifest); err != nil || !moved {
		t.Errorf("the tag was left with another run: %v, %v", moved, err)
	}
}

// transportFunc answers requests itself.
type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestWhatADoorRemembers(t *testing.T) {
	host, seen := front(t, registrytest.Start(t, registrytest.Options{Auth: true}), pass)
	down := atomic.Bool{}
	var jobs sync.WaitGroup
	defer jobs.Wait()
	knocks := atomic.Int32{}
	d := &doors{jobs: &jobs, inner: transportFunc(func(req *http.Request) (*http.Response, error) {
		knocks.Add(1)
		if down.Load() {
			return &http.Response{StatusCode: http.StatusServiceUnavailable, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("later")), Request: req}, nil
		}
		return http.DefaultTransport.RoundTrip(req)
	})}
	get := func(url, authorization string) (int, http.Header, string, error) {
		t.Helper()
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if authorization != "" {
			req.Header.Set("Authorization", authorization)
		}
		resp, err := d.RoundTrip(req)
		if err != nil {
			return 0, nil, "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return resp.StatusCode, resp.Header, string(b), err
	}
	door := "http://" + host + "/v2/"
	down.Store(true)
	for range 2 { // is asked again
		if code, _, body, err := get(door, ""); code != http.StatusServiceUnavailable || body != "later" || err != nil {
			t.Errorf("down: %d %q %v", code, body, err)
		}
	}
	if n := knocks.Load(); n != 2 {
		t.Errorf("%d knocks while it was down", n)
	}
	down.Store(false)
	for range 3 { // is asked once
		code, header, body, err := get(door, "")
		if code != http.StatusUnauthorized || !strings.Contains(header.Get("WWW-Authenticate"), "Basic") || !strings.Contains(body, "UNAUTHORIZED") || err != nil {
			t.Errorf("up: %d %v %q %v", code, header, body, err)
		}
		header.Set("WWW-Authenticate", "spoilt") // is the caller's
	}
	if n := count(seen(), "GET /v2/"); n != 1 {
		t.Errorf("%d knocks for one answer", n)
	}
	for i := range 2 { // with credentials it is another question
		if code, _, _, err := get(door, "Basic x"); code != http.StatusUnauthorized || err != nil {
			t.Errorf("%d %v", code, err)
		}
		if n := count(seen(), "GET /v2/"); n != 2+i {
			t.Errorf("%d knocks", n)
		}
	}
	before := knocks.Load()
	for range 2 { // that it speaks no TLS stays true
		var noTLS tls.RecordHeaderError
		if _, _, _, err := get("https://"+host+"/v2/", ""); !errors.As(err, &noTLS) {
			t.Errorf("TLS to a plain server: %v", err)
		}
	}
	if n := knocks.Load() - before; n != 1 {
		t.Errorf("TLS was tried %d times", n)
	}
}
