package cache

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/image"
	"kaniko-build/executor/internal/registry"
	"kaniko-build/executor/internal/store"
	"kaniko-build/test/registrytest"
)

const scheme = "test-1"

var now = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// client is one without a second try, so that servers that fail do it quickly.
func client(t *testing.T) *registry.Client {
	t.Helper()
	s, err := store.Open(t.TempDir(), store.Options{Owner: os.Getuid()})
	if err != nil {
		t.Fatal(err)
	}
	c, err := registry.New(s, registry.Options{Retries: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func newCache(t *testing.T, repo string, from ...string) *Cache {
	t.Helper()
	c, err := New(client(t), Options{Scheme: scheme, Repo: repo, From: from, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// entry is a good one, made an hour ago, and its blob.
func entry(name string) (Entry, []byte) {
	blob := []byte("the layer of " + name)
	lines := []string{"parent x", "run " + name + "\nwith \x00 and \xff"}
	return Entry{
		Key: store.KeyOf(append([]string{scheme}, lines...)), Lines: lines, Full: true,
		DiffID: digest.FromString("tar of " + name), Size: 4096, Created: now.Add(-time.Hour),
		Blob:   ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(blob), Size: int64(len(blob))},
		Params: store.Params{MediaType: ocispec.MediaTypeImageLayerGzip, Compression: "gzip", Level: 3},
		Text:   "RUN " + name, Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
	}, blob
}

// What was put is found by another client, in each kind of place; another key is
// simply not there, and results of single ids answer those only who ask for any.
func TestPutAndFind(t *testing.T) {
	reg := registrytest.Start(t, registrytest.Options{})
	for _, repo := range []string{reg.Host + "/shop/cache", "oci:" + filepath.Join(t.TempDir(), "layers")} {
		t.Run(strings.Split(repo, ":")[0], func(t *testing.T) {
			full, blob := entry("full")
			single, other := entry("single")
			single.Full = false
			for _, e := range []Entry{full, single, full} { // a repeat is harmless
				if err := newCache(t, repo).Put(t.Context(), e, memory{full.Blob.Digest: blob, single.Blob.Digest: other}, nil); err != nil {
					t.Fatal(err)
				}
			}
			c := newCache(t, repo)
			for _, e := range []Entry{full, single} {
				hit, err := c.Find(t.Context(), e.Key, e.Full)
				want := e
				want.Text = ""
				if err != nil || fmt.Sprint(hit.Entry) != fmt.Sprint(want) {
					t.Errorf("got  %v %v\nwant %v", hit.Entry, err, want)
				}
			}
			if hit, err := c.Find(t.Context(), single.Key, true); !errors.Is(err, image.ErrNotFound) {
				t.Errorf("a result of a single id answers who has a range: %v %v", hit, err)
			}
			if _, err := c.Find(t.Context(), full.Key, false); err != nil {
				t.Errorf("a result of a range does not answer who has one id: %v", err)
			}
			if _, err := c.Find(t.Context(), store.KeyOf([]string{"other"}), true); !errors.Is(err, image.ErrNotFound) {
				t.Errorf("another key: %v", err)
			}
			old := newCache(t, repo)
			old.o.TTL = 59 * time.Minute
			if _, err := old.Find(t.Context(), full.Key, true); err == nil || !strings.Contains(err.Error(), "it is 1h0m0s old, and 59m0s are allowed") {
				t.Errorf("an entry that is too old: %v", err)
			}
		})
	}
}

// The first place with an entry that can be used answers.
func TestPlacesInOrder(t *testing.T) {
	reg := registrytest.Start(t, registrytest.Options{})
	e, blob := entry("x")
	if err := newCache(t, reg.Host+"/main").Put(t.Context(), e, memory{e.Blob.Digest: blob}, nil); err != nil {
		t.Fatal(err)
	}
	hit, err := newCache(t, reg.Host+"/mine", "127.0.0.1:1/gone", reg.Host+"/main").Find(t.Context(), e.Key, true)
	if err != nil || hit.Origin != reg.Host+"/main:"+e.Key.String() {
		t.Errorf("got %q, %v", hit.Origin, err)
	}
}

// answer is what a registry says of one entry.
type answer struct {
	key      store.Key
	config   map[string]any
	manifest map[string]any

	rawConfig, rawManifest []byte // instead; the config's digest in the manifest stays
	mediaType              string
	status                 int    // of the manifest
	blob                   []byte // nil is not there
}

func (a *answer) labels() map[string]any {
	return a.config["config"].(map[string]any)["Labels"].(map[string]any)
}
func (a *answer) layer() map[string]any { return a.manifest["layers"].([]any)[0].(map[string]any) }

// serve is a registry with one entry.
func (a *answer) serve(t *testing.T) string {
	t.Helper()
	marshal := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	config := marshal(a.config)
	d := a.manifest["config"].(map[string]any)
	if d["size"] != nil {
		d["digest"], d["size"] = digest.FromBytes(config), len(config)
	} else {
		d["digest"], d["size"] = digest.FromBytes(config), 1<<40
	}
	at := "blobs/" + digest.FromBytes(config).String()
	if a.rawConfig != nil {
		config = a.rawConfig
	}
	manifest := marshal(a.manifest)
	if a.rawManifest != nil {
		manifest = a.rawManifest
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		what, _ := strings.CutPrefix(req.URL.Path, "/v2/c/")
		var body []byte
		switch {
		case req.URL.Path == "/v2/":
		case strings.HasPrefix(what, "manifests/"):
			w.Header().Set("Content-Type", a.mediaType)
			if a.status != 0 {
				w.WriteHeader(a.status)
			}
			body = manifest
		case what == at:
			body = config
		case strings.HasPrefix(what, "blobs/") && a.blob != nil:
			body = a.blob
		default:
			w.WriteHeader(http.StatusNotFound)
			return
		}
		if a.status == 0 {
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		}
		if req.Method != http.MethodHead {
			_, _ = w.Write(body)
		}
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// newAnswer is that of a good entry.
func newAnswer(t *testing.T) (*answer, Entry) {
	t.Helper()
	e, blob := entry("x")
	img, err := e.assemble(scheme)
	if err != nil {
		t.Fatal(err)
	}
	a := &answer{key: e.Key, mediaType: ocispec.MediaTypeImageManifest, blob: blob}
	if err := errors.Join(json.Unmarshal(img.RawConfig, &a.config), json.Unmarshal(img.RawManifest, &a.manifest)); err != nil {
		t.Fatal(err)
	}
	return a, e
}

// What is wrong with an entry makes it a miss, with a reason.
func TestEntriesThatAreNone(t *testing.T) {
	other, _ := entry("y")
	for _, c := range []struct {
		name   string
		change func(a *answer)
		want   string // "" is a hit
	}{
		{"a good one", func(a *answer) {}, ""},
		{"under another key", func(a *answer) { a.key = other.Key }, "it says that it is the entry of key"},
		{"with the lines of another key", func(a *answer) {
			a.labels()[labelLines] = `"run y"`
		}, "its key lines do not hash to its key"},
		{"with another key in its label, and lines", func(a *answer) {
			a.key = other.Key
			a.labels()[labelKey] = other.Key.String()
		}, "its key lines do not hash to its key"},
		{"lines that are not quoted", func(a *answer) { a.labels()[labelLines] = "run x" }, "malformed"},
		{"of another scheme", func(a *answer) { a.labels()[labelScheme] = "test-2" }, `the scheme "test-2", and ours is "test-1"`},
		{"of kaniko", func(a *answer) { delete(a.config["config"].(map[string]any), "Labels") }, "it is not an entry of this program"},
		{"made with a single id", func(a *answer) { a.labels()[labelIDs] = "single" }, `made with "single" ids`},
		{"two layers", func(a *answer) {
			a.manifest["layers"] = append(a.manifest["layers"].([]any), a.layer())
			r := a.config["rootfs"].(map[string]any)
			r["diff_ids"] = append(r["diff_ids"].([]any), r["diff_ids"].([]any)[0])
		}, "2 layers"},
		{"more layers than diffIDs", func(a *answer) {
			a.manifest["layers"] = append(a.manifest["layers"].([]any), a.layer())
		}, "2 layers"},
		{"no time", func(a *answer) { delete(a.config, "created") }, "when it was made"},
		{"too old", func(a *answer) { a.config["created"] = now.Add(-15 * 24 * time.Hour) }, "it is 360h0m0s old, and 336h0m0s are allowed"},
		{"a size that is none", func(a *answer) { a.labels()[labelSize] = "-1" }, `the size "-1"`},
		{"a layer of no size that could be", func(a *answer) { a.labels()[labelSize] = "99999999999999" }, "the size"},
		{"no word on the encoding", func(a *answer) { a.labels()[labelParams] = "{" }, "does not say how its layer is encoded"},
		{"another encoding than it says", func(a *answer) { a.layer()["mediaType"] = ocispec.MediaTypeImageLayerZstd }, "not encoded as it says"},
		{"times set", func(a *answer) {
			a.labels()[labelParams] = `{"mediaType":"` + ocispec.MediaTypeImageLayerGzip + `","compression":"gzip","level":3,"epoch":0}`
		}, "not encoded as it says"},
		{"a layer that is no layer", func(a *answer) { a.layer()["mediaType"] = "application/x-evil" }, "application/x-evil"},
		{"a layer elsewhere", func(a *answer) { a.layer()["urls"] = []string{"http://evil.example"} }, "elsewhere"},
		{"a bad diffID", func(a *answer) {
			a.config["rootfs"].(map[string]any)["diff_ids"] = []string{"sha256:../../x"}
		}, "sha256:../../x"},
		{"a bad digest", func(a *answer) { a.layer()["digest"] = "sha256:../../x" }, "sha256:../../x"},
		{"a negative size", func(a *answer) { a.layer()["size"] = -1 }, "-1"},
		{"a layer of petabytes", func(a *answer) { a.layer()["size"] = int64(1) << 50 }, "bytes"},
		{"a layer that is not there", func(a *answer) { a.blob = nil }, "is not there"},
		{"a layer that is cut", func(a *answer) { a.blob = a.blob[:5] }, "5 bytes"},
		{"a config that was changed", func(a *answer) { a.rawConfig = []byte(`{}`) }, "2 bytes"},
		{"a config of the same length that was changed", func(a *answer) {
			b, _ := json.Marshal(a.config)
			a.rawConfig = bytes.Replace(b, []byte("amd64"), []byte("arm64"), 1)
		}, "digest"},
		{"a config that is no JSON", func(a *answer) { a.manifest["config"].(map[string]any)["mediaType"] = "text/plain" }, "text/plain"},
		{"a config of a terabyte", func(a *answer) { a.manifest["config"].(map[string]any)["size"] = nil }, "bytes"},
		{"a manifest that is no JSON", func(a *answer) { a.rawManifest = []byte("<html>") }, "invalid character"},
		{"an empty manifest", func(a *answer) { a.rawManifest = []byte("{}") }, "neither a manifest nor an index"},
		{"a huge manifest", func(a *answer) { a.rawManifest = bytes.Repeat([]byte(" "), image.MaxManifest+1) }, "bytes"},
		{"deep JSON", func(a *answer) { a.rawManifest = bytes.Repeat([]byte("["), 1<<20) }, "depth"},
		{"an index", func(a *answer) {
			a.mediaType = ocispec.MediaTypeImageIndex
			a.rawManifest = []byte(`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[]}`)
		}, "no match"},
		{"a manifest under another type", func(a *answer) { a.mediaType = "text/html" }, ""}, // it says itself what it is
		{"a registry that fails", func(a *answer) { a.status = 500 }, "500"},
		{"a registry that denies", func(a *answer) { a.status = 403 }, "403"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, _ := newAnswer(t)
			c.change(a)
			_, err := newCache(t, a.serve(t)+"/c").Find(t.Context(), a.key, true)
			var m *Miss
			switch {
			case c.want == "":
				if err != nil {
					t.Errorf("got %v, want a hit", err)
				}
			case !errors.As(err, &m) || m.Reason == "" || errors.Is(err, image.ErrNotFound):
				t.Errorf("got %v, want a miss with a reason", err)
			case !strings.Contains(err.Error(), c.want):
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

// A directory is read with the same distrust.
func TestLayoutsThatAreNone(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(dir string) error
		want   string
	}{
		{"an index that is no JSON", func(dir string) error { return os.WriteFile(filepath.Join(dir, "index.json"), []byte("{"), 0o644) }, "JSON"},
		{"no images", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "index.json"), []byte(`{"schemaVersion":2,"manifests":[]}`), 0o644)
		}, "0 images"},
		{"no blobs", func(dir string) error { return os.RemoveAll(filepath.Join(dir, "blobs")) }, "damaged"},
		{"an empty directory", func(dir string) error {
			return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755))
		}, "index.json"},
		{"a file", func(dir string) error { return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o644)) }, "not a directory"},
		{"a layer that is cut", func(dir string) error {
			e, _ := entry("x")
			return os.Truncate(filepath.Join(dir, "blobs", "sha256", e.Blob.Digest.Encoded()), 3)
		}, "3 bytes"},
		{"a layer that is gone", func(dir string) error {
			e, _ := entry("x")
			return os.Remove(filepath.Join(dir, "blobs", "sha256", e.Blob.Digest.Encoded()))
		}, "is not there"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "layers")
			e, blob := entry("x")
			put := func() {
				t.Helper()
				if err := newCache(t, "oci:"+path).Put(t.Context(), e, memory{e.Blob.Digest: blob}, nil); err != nil {
					t.Fatal(err)
				}
			}
			put()
			if err := c.change(path + ":" + e.Key.String()); err != nil {
				t.Fatal(err)
			}
			_, err := newCache(t, "oci:"+path).Find(t.Context(), e.Key, true)
			var m *Miss
			if !errors.As(err, &m) || !strings.Contains(m.Reason, c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
			put() // replaces what is there
			if _, err := newCache(t, "oci:"+path).Find(t.Context(), e.Key, true); err != nil {
				t.Error(err)
			}
		})
	}
}

// A place that cannot be reached or read is asked once; that an entry is missing
// or bad says nothing of the others.
func TestUselessPlacesAreAskedOnce(t *testing.T) {
	for status, once := range map[int]bool{401: true, 403: true, 404: false, 500: false} {
		var asked atomic.Int64
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path != "/v2/" {
				asked.Add(1)
				w.WriteHeader(status)
			}
		}))
		c := newCache(t, strings.TrimPrefix(srv.URL, "http://")+"/c")
		for i := range 5 {
			if _, err := c.Find(t.Context(), store.KeyOf([]string{fmt.Sprint(i)}), true); err == nil {
				t.Error("a hit")
			}
		}
		srv.Close()
		if n := asked.Load(); (n == 1) != once {
			t.Errorf("a registry that says %d was asked %d times", status, n)
		}
	}
	c := newCache(t, "127.0.0.1:1/c")
	for range 2 {
		var m *Miss
		if _, err := c.Find(t.Context(), store.KeyOf(nil), true); !errors.As(err, &m) || m.Reason == "" {
			t.Errorf("nobody there: %v", err)
		}
	}
}

// TestUselessPlacesAreToldOnce asks for many keys at once and one by one: all
// hear the same, whichever was the first.
func TestUselessPlacesAreToldOnce(t *testing.T) {
	c := newCache(t, "127.0.0.1:1/layers")
	said := make([]string, 20)
	var asking sync.WaitGroup
	ask := func(i int) {
		_, err := c.Find(t.Context(), store.KeyOf([]string{strconv.Itoa(i)}), true)
		if err == nil {
			t.Errorf("key %d was found", i)
			return
		}
		said[i] = err.Error()
	}
	for i := range 16 {
		asking.Go(func() { ask(i) })
	}
	asking.Wait()
	for i := 16; i < len(said); i++ {
		ask(i)
	}
	slices.Sort(said)
	if said = slices.Compact(said); len(said) != 1 || !strings.Contains(said[0], "127.0.0.1:1/layers:") {
		t.Errorf("%d sentences for one place:\n%s", len(said), strings.Join(said, "\n"))
	}
}

func TestPlacesThatAreNone(t *testing.T) {
	for _, name := range []string{"", "oci:", "localhost:5000/c:tag", "localhost:5000/c@" + digest.FromString("").String(), "UPPER/case", "a b"} {
		if _, err := New(nil, Options{Repo: name}); err == nil {
			t.Errorf("%q is taken", name)
		}
	}
}
