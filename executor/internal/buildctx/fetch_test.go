package buildctx_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kaniko-build/executor/internal/buildctx"
	"kaniko-build/schema/diag"
)

// web serves one file and counts what it is asked.
type web struct {
	body, etag string
	asked      []string
	auth       string
}

func (w *web) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.asked = append(w.asked, r.Method)
	w.auth = r.Header.Get("Authorization")
	if r.URL.Path == "/none" {
		http.NotFound(rw, r)
		return
	}
	if w.etag != "" {
		rw.Header().Set("ETag", w.etag)
	}
	if strings.HasPrefix(r.URL.Path, "/named") {
		rw.Header().Set("Content-Disposition", `attachment; filename="../other.txt"`)
	}
	if r.URL.Path == "/short" {
		rw.Header().Set("Content-Length", "100")
	}
	when := time.Unix(1700000000, 0)
	if r.URL.Path == "/undated" {
		when = time.Time{}
	}
	if r.URL.Path == "/short" {
		fmt.Fprint(rw, w.body)
		return
	}
	http.ServeContent(rw, r, "", when, strings.NewReader(w.body))
}

func read(t *testing.T, f buildctx.Fetched) string {
	t.Helper()
	r, err := f.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestGet(t *testing.T) {
	w := &web{body: "one"}
	s := httptest.NewServer(w)
	defer s.Close()
	f := &buildctx.Fetcher{Dir: t.TempDir()}
	get := func(path, name, sum string) buildctx.Fetched {
		t.Helper()
		got, err := f.Get(t.Context(), s.URL+path, name, sum)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	first := get("/a/b.txt?q=1", "", "")
	if first.Name != "b.txt" || first.ModTime.Unix() != 1700000000 || first.Size != 3 || read(t, first) != "one" {
		t.Errorf("got %+v", first)
	}
	if got := get("/named", "", ""); got.Name != "other.txt" {
		t.Errorf("named by its header: %q", got.Name)
	}
	if got := get("/named", "mine", ""); got.Name != "mine" {
		t.Errorf("named by us: %q", got.Name)
	}
	if got := get("/undated", "", ""); got.ModTime.Unix() != 0 {
		t.Errorf("without a date: %v", got.ModTime)
	}
	if got := get("/", "", ""); got.Name != "download" {
		t.Errorf("without a name: %q", got.Name)
	}
	// A date is no proof: the content can change under it.
	w.body = "two"
	if got := get("/a/b.txt?q=1", "", ""); read(t, got) != "two" || got.Digest == first.Digest {
		t.Error("a file without an entity tag was taken from memory")
	}
	// An entity tag is.
	w.etag = `W/"1"`
	get("/tagged", "", "")
	w.asked = nil
	if got := get("/tagged", "", ""); read(t, got) != "two" || len(w.asked) != 1 || w.asked[0] != "HEAD" {
		t.Errorf("with an entity tag: asked %q", w.asked)
	}
	w.etag, w.body = `"2"`, "three"
	if got := get("/tagged", "", ""); read(t, got) != "three" {
		t.Error("a file with a new entity tag was taken from memory")
	}
	// With a checksum nothing is asked at all.
	sum := get("/tagged", "", "").Digest
	w.asked = nil
	if got := get("/tagged", "", sum); read(t, got) != "three" || len(w.asked) != 0 {
		t.Errorf("with a known checksum: asked %q", w.asked)
	}
}

func TestGetFails(t *testing.T) {
	w := &web{body: strings.Repeat("x", 1000)}
	s := httptest.NewServer(w)
	defer s.Close()
	withUser := strings.Replace(s.URL, "http://", "http://me:hunter2@", 1)
	zero := "sha256:" + strings.Repeat("0", 64)
	for _, c := range []struct{ url, sum, want string }{
		{withUser + "/none", "", "invalid response status 404"},
		{withUser + "/f", zero, "digest mismatch for " + strings.Replace(s.URL, "http://", "http://xxxxx:xxxxx@", 1)},
		{withUser + "/f", zero, "(expected: " + zero + ")"},
		{withUser + "/big", "", "larger than 500 bytes"},
		{withUser + "/short", "", "unexpected EOF"},
		{withUser + "/f", "md5:00", "unsupported digest algorithm"},
		{withUser + "/f", "sha256:00", "invalid checksum digest format"},
		{"http://me:hunter2@127.0.0.1:1/f", "", "connection refused"},
		{"http://me:hunter2@[bad/f", "", "fetch"},
	} {
		f := &buildctx.Fetcher{Dir: t.TempDir(), MaxSize: 2000}
		if strings.HasSuffix(c.url, "/big") {
			f.MaxSize = 500
		}
		_, err := f.Get(t.Context(), c.url, "", c.sum)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Get(%s, %s): %v, want %q", c.url, c.sum, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error has the password: %v", err)
		}
		left, _ := filepath.Glob(filepath.Join(f.Dir, "http", "*"))
		if tmp, _ := filepath.Glob(filepath.Join(f.Dir, "http", ".tmp-*")); len(left)+len(tmp) != 0 {
			t.Errorf("Get(%s) left %q", c.url, append(left, tmp...))
		}
	}
	// What is damaged on disk is fetched again.
	f := &buildctx.Fetcher{Dir: t.TempDir()}
	got, err := f.Get(t.Context(), s.URL+"/f", "", "")
	if err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(f.Dir, "http", "sha256-*"))
	if err := os.Truncate(files[0], 5); err != nil {
		t.Fatal(err)
	}
	if again, err := f.Get(t.Context(), s.URL+"/f", "", got.Digest); err != nil || len(read(t, again)) != 1000 {
		t.Errorf("after damage: %v", err)
	}
}

func TestGetTree(t *testing.T) {
	w := &web{body: "one"}
	s := httptest.NewServer(w)
	defer s.Close()
	f := &buildctx.Fetcher{Dir: t.TempDir(), Auth: func(string) string { return "bearer t" }}
	got, err := f.Get(t.Context(), s.URL+"/f", "", "")
	if err != nil {
		t.Fatal(err)
	}
	if w.auth != "bearer t" {
		t.Errorf("authorization %q", w.auth)
	}
	tr, err := got.Tree()
	if err != nil {
		t.Fatal(err)
	}
	e, err := tr.Lstat(t.Context(), "/f")
	if err != nil || e.Perm() != 0o600 || !e.IsRegular() || e.Size != 3 || e.UID != 0 || e.ModTime.Unix() != 1700000000 {
		t.Errorf("entry %+v, %v", e, err)
	}
	if got := list(t, tr); len(got) != 1 || got[0] != "f" {
		t.Errorf("the tree holds %q", got)
	}
	if x, err := tr.Xattrs(t.Context(), "f"); err != nil || x != nil {
		t.Errorf("attributes %v, %v", x, err)
	}
	r, err := tr.Open(t.Context(), "f")
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	if _, err := tr.Open(t.Context(), "g"); err == nil {
		t.Error("a file that is not there was opened")
	}
	var p *diag.Problem
	if _, err := f.Get(t.Context(), s.URL+"/none", "", ""); !errors.As(err, &p) {
		t.Errorf("%v is no problem of the user", err)
	}
}

// TestGetTriesAgain has a server that is busy first, and then breaks off in the middle.
func TestGetTriesAgain(t *testing.T) {
	asked := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		switch asked++; asked {
		case 1:
			http.Error(w, "busy", http.StatusServiceUnavailable)
		case 2:
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "the wh")
		default:
			fmt.Fprint(w, "the whole")
		}
	}))
	t.Cleanup(s.Close)
	f := &buildctx.Fetcher{Dir: t.TempDir()}
	got, err := f.Get(t.Context(), s.URL+"/file", "", "")
	if err != nil || asked != 3 {
		t.Fatalf("asked %d times: %v", asked, err)
	}
	if text := read(t, got); text != "the whole" {
		t.Errorf("got %q", text)
	}
}
