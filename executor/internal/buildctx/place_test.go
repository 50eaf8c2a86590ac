package buildctx_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"kaniko-build/executor/internal/buildctx"
	"kaniko-build/executor/internal/tree"
	"kaniko-build/schema/diag"
)

// tarOf makes an archive of headers; a regular file holds its own name.
func tarOf(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		body := ""
		if h.Typeflag == tar.TypeReg {
			body = h.Name
		}
		h.Size = int64(len(body))
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1_700_000_000, 0)
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func openDir(t *testing.T, dir string) *tree.Dir {
	t.Helper()
	d, err := tree.OpenDir(dir, tree.DirOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestArchive(t *testing.T) {
	plain := tarOf(t,
		tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755},
		tar.Header{Name: "late/", Typeflag: tar.TypeDir, Mode: 0o555, ModTime: time.Unix(1000, 0)},
		tar.Header{Name: "late/f", Typeflag: tar.TypeReg, Mode: 0o4711, Uid: 7, PAXRecords: map[string]string{"SCHILY.xattr.user.k": "v"}},
		tar.Header{Name: "implied/dir/f", Typeflag: tar.TypeReg, Mode: 0o600},
		tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "../../outside"},
		tar.Header{Name: "hard", Typeflag: tar.TypeLink, Linkname: "./late/f"},
		tar.Header{Name: "pipe", Typeflag: tar.TypeFifo, Mode: 0o640},
		tar.Header{Name: "disk", Typeflag: tar.TypeBlock, Devmajor: 8},
		tar.Header{Name: "twice", Typeflag: tar.TypeSymlink, Linkname: "late"},
		tar.Header{Name: "twice", Typeflag: tar.TypeReg, Mode: 0o644},
		tar.Header{Name: "/from/root", Typeflag: tar.TypeReg, Mode: 0o644},
	)
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what  string
		bytes []byte
	}{{"plain", plain}, {"gzip", gzipped(t, plain)}, {"zstd", z.EncodeAll(plain, nil)}} {
		t.Run(c.what, func(t *testing.T) {
			f := &buildctx.Fetcher{Dir: t.TempDir()}
			dir, err := f.Archive(t.Context(), bytes.NewReader(c.bytes), "test")
			if err != nil {
				t.Fatal(err)
			}
			again, err := f.Archive(t.Context(), bytes.NewReader(c.bytes), "test")
			if err != nil || again != dir {
				t.Errorf("the same archive lies in %s and %s, %v", dir, again, err)
			}
			d := openDir(t, dir)
			want := []string{"from", "from/root", "hard", "implied", "implied/dir", "implied/dir/f", "late", "late/f", "link", "pipe", "twice"}
			if got := list(t, d); !slices.Equal(got, want) {
				t.Errorf("files %q, want %q", got, want)
			}
			late, _ := d.Lstat(t.Context(), "late")
			if late.Perm() != 0o555 || late.ModTime.Unix() != 1000 {
				t.Errorf("late: mode %o, time %v", late.Perm(), late.ModTime)
			}
			file, _ := d.Lstat(t.Context(), "late/f")
			if file.Mode&0o7777 != 0o4711 || file.Nlink != 2 || file.ModTime.Unix() != 1_700_000_000 {
				t.Errorf("late/f: %+v", file)
			}
			if x, err := d.Xattrs(t.Context(), "late/f"); err != nil || string(x["user.k"]) != "v" {
				t.Errorf("attributes %q, %v", x, err)
			}
			if text := contentOf(t, d, "twice"); text != "twice" {
				t.Errorf("twice holds %q: it was written through the link", text)
			}
			if left, _ := filepath.Glob(filepath.Join(f.Dir, "contexts", ".tmp-*")); len(left) != 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

func TestArchiveFromAnEnemy(t *testing.T) {
	good := gzipped(t, tarOf(t, tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o644}))
	for _, c := range []struct {
		what  string
		bytes []byte
		want  string
	}{
		{"name above", tarOf(t, tar.Header{Name: "../evil", Typeflag: tar.TypeReg}), `"../evil" leads out of the archive`},
		{"name above in the middle", tarOf(t, tar.Header{Name: "a/../../evil", Typeflag: tar.TypeReg}), "leads out of the archive"},
		{"through a link", tarOf(t, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: ".."}, tar.Header{Name: "l/evil", Typeflag: tar.TypeReg}), "leads out of the archive"},
		{"through an absolute link", tarOf(t, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/tmp"}, tar.Header{Name: "l/evil", Typeflag: tar.TypeReg}), "leads out of the archive"},
		{"hard link to above", tarOf(t, tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "../../etc/passwd"}), "leads out of the archive"},
		{"hard link to nothing", tarOf(t, tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "none"}), "no such file"},
		{"cut off", good[:len(good)/2], "unexpected EOF"},
		{"no tar", []byte(strings.Repeat("hello ", 200)), "it is not a tar"},
		{"nothing", nil, "the archive is empty"},
		{"too large", tarOf(t, tar.Header{Name: strings.Repeat("n", 90), Typeflag: tar.TypeReg}, tar.Header{Name: strings.Repeat("m", 90), Typeflag: tar.TypeReg}), "too large"},
	} {
		t.Run(c.what, func(t *testing.T) {
			f := &buildctx.Fetcher{Dir: filepath.Join(t.TempDir(), "state")}
			if c.what == "too large" {
				f.MaxSize = 100
			}
			_, err := f.Archive(t.Context(), bytes.NewReader(c.bytes), "tar://x")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
			left, _ := os.ReadDir(filepath.Join(f.Dir, "contexts"))
			if beside, _ := os.ReadDir(filepath.Dir(f.Dir)); len(left) != 0 || len(beside) != 1 {
				t.Errorf("left behind: %v, %v", left, beside)
			}
		})
	}
}

func TestArchiveEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("the user is gone")
	r, w := io.Pipe()
	go func() {
		w.Write(tarOf(t, tar.Header{Name: "f", Typeflag: tar.TypeReg})[:512])
		cancel(cause)
		w.Write(make([]byte, 512))
	}()
	f := &buildctx.Fetcher{Dir: t.TempDir()}
	if _, err := f.Archive(ctx, r, "tar://stdin"); !errors.Is(err, cause) {
		t.Errorf("error %v, want %v", err, cause)
	}
	r.Close()
}

func TestDirectory(t *testing.T) {
	g := newForge(t)
	g.git("config", "uploadpack.allowAnySHA1InWant", "true")
	archive := gzipped(t, tarOf(t, tar.Header{Name: "d/f", Typeflag: tar.TypeReg, Mode: 0o644}))
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/x.tar.gz" {
			http.NotFound(w, r)
			return
		}
		w.Write(archive)
	}))
	defer web.Close()
	local := t.TempDir()
	write(t, local, "d/f")
	os.Symlink("d", filepath.Join(local, "l"))
	os.Symlink("/", filepath.Join(local, "out"))
	file := filepath.Join(t.TempDir(), "c.tar.gz")
	os.WriteFile(file, archive, 0o644)
	one := g.git("rev-parse", "v1^{commit}")
	repo := "git" + strings.TrimPrefix(g.url, "http")
	places := func() buildctx.Places {
		return buildctx.Places{
			Stdin:    bytes.NewReader(archive),
			IsObject: func(at string) bool { return strings.HasPrefix(at, "gs://") },
			Object: func(ctx context.Context, at string) (io.ReadCloser, error) {
				return io.NopCloser(bytes.NewReader(archive)), nil
			},
		}
	}
	plain := buildctx.GitPlace{PlainHTTP: true}
	for _, c := range []struct {
		place buildctx.Place
		want  string // a file in it
	}{
		{buildctx.Place{At: local}, "d/f"},
		{buildctx.Place{At: "dir://" + local}, "d/f"},
		{buildctx.Place{At: local, Sub: "d"}, "f"},
		{buildctx.Place{At: local, Sub: "/l/"}, "f"},
		{buildctx.Place{At: "tar://" + file}, "d/f"},
		{buildctx.Place{At: "tar://" + file, Sub: "d"}, "f"},
		{buildctx.Place{At: "tar://stdin"}, "d/f"},
		{buildctx.Place{At: "gs://bucket"}, "d/f"},
		{buildctx.Place{At: web.URL + "/x.tar.gz"}, "d/f"},
		{buildctx.Place{At: repo, Git: plain}, "sub/s"},
		{buildctx.Place{At: repo, Git: plain}, ".git"},
		{buildctx.Place{At: repo, Git: plain, Sub: "sub"}, "s"},
		{buildctx.Place{At: repo + "#refs/heads/old", Git: plain}, "f"},
		{buildctx.Place{At: repo + "#old", Git: plain}, "f"},
		{buildctx.Place{At: repo + "#" + one, Git: plain}, "f"},
		{buildctx.Place{At: repo + "#refs/heads/main#" + one, Git: plain}, "f"},
		{buildctx.Place{At: repo + "#refs/heads/main", Git: buildctx.GitPlace{PlainHTTP: true, Branch: "old"}}, "f"},
	} {
		t.Run(strings.ReplaceAll(c.place.At+" "+c.place.Sub, "/", "|"), func(t *testing.T) {
			f := &buildctx.Fetcher{Dir: t.TempDir(), Client: web.Client()}
			dir, err := f.Directory(t.Context(), c.place, places())
			if err != nil {
				t.Fatal(err)
			}
			d := openDir(t, dir)
			if _, err := d.Lstat(t.Context(), c.want); err != nil {
				t.Errorf("in %s: %v", dir, err)
			}
			if _, ref, ok := strings.Cut(c.place.At, "#"); ok && (c.place.Git.Branch != "" || ref != "") {
				if text := contentOf(t, d, "f"); text != "one\n" {
					t.Errorf("f holds %q, want that of the older commit", text)
				}
			}
		})
	}
	for _, c := range []struct {
		place buildctx.Place
		want  string
	}{
		{buildctx.Place{At: "ftp://x"}, "unknown form"},
		{buildctx.Place{At: "http://x/y.tar"}, "unknown form"},
		{buildctx.Place{At: local + "/none"}, "no such directory"},
		{buildctx.Place{At: local, Sub: "none"}, "no folder none"},
		{buildctx.Place{At: local, Sub: "out/etc"}, "no folder"},
		{buildctx.Place{At: "tar:///none"}, "no such file"},
		{buildctx.Place{At: web.URL + "/none"}, "404"},
	} {
		f := &buildctx.Fetcher{Dir: t.TempDir(), Client: web.Client()}
		_, err := f.Directory(t.Context(), c.place, buildctx.Places{})
		var p *diag.Problem
		if !errors.As(err, &p) || !strings.Contains(p.What, c.want) || p.Hint == "" {
			t.Errorf("%+v: %v, want %q and a hint", c.place, err, c.want)
		}
	}
}

func TestDirectoryShowsItsTokenToItsHostOnly(t *testing.T) {
	basic := func(s string) string { return "basic " + base64.StdEncoding.EncodeToString([]byte(s)) }
	g := newForge(t)
	repo := "git" + strings.TrimPrefix(g.url, "http")
	for _, c := range []struct {
		place buildctx.Place
		want  string
	}{
		{buildctx.Place{At: repo}, ""},
		{buildctx.Place{At: repo, Git: buildctx.GitPlace{Token: "t0ken"}}, basic("t0ken:")},
		{buildctx.Place{At: repo, Git: buildctx.GitPlace{User: "u", Password: "p"}}, basic("u:p")},
		{buildctx.Place{At: repo, Git: buildctx.GitPlace{Token: "t0ken", User: "u", Password: "p"}}, basic("t0ken:")},
		{buildctx.Place{At: strings.Replace(repo, "//", "//mine@", 1), Git: buildctx.GitPlace{Token: "t0ken"}}, basic("mine:")},
	} {
		c.place.Git.PlainHTTP = true
		f := &buildctx.Fetcher{Dir: t.TempDir(), Auth: func(string) string { return "basic other" }}
		g.auth.Store("never asked")
		if _, err := f.Directory(t.Context(), c.place, buildctx.Places{}); err != nil {
			t.Fatal(err)
		}
		if got := g.auth.Load(); got != c.want {
			t.Errorf("%+v: the host got %q, want %q", c.place, got, c.want)
		}
	}
}

func TestDirectoryWithHistory(t *testing.T) {
	for way, env := range ways {
		t.Run(way, func(t *testing.T) { testDirectoryWithHistory(t, env) })
	}
}

func testDirectoryWithHistory(t *testing.T, env []string) {
	g := newForge(t)
	repo := "git" + strings.TrimPrefix(g.url, "http")
	for _, c := range []struct {
		ref     string
		history int
		commits string
		tags    string
	}{
		{"", 0, "1", ""},
		{"", 1, "1", ""},
		{"", 2, "2", ""},
		{"", 7, "2", ""},
		{"", buildctx.WholeHistory, "2", "v1"},
		{"#" + strings.TrimSpace(g.git("rev-parse", "HEAD")), buildctx.WholeHistory, "2", "v1"},
		{"#refs/tags/v1", buildctx.WholeHistory, "1", "v1"},
	} {
		f := &buildctx.Fetcher{Env: env, Dir: t.TempDir()}
		dir, err := f.Directory(t.Context(), buildctx.Place{At: repo + c.ref, Git: buildctx.GitPlace{PlainHTTP: true, History: c.history}}, buildctx.Places{})
		if err != nil {
			t.Fatal(err)
		}
		ask := func(args ...string) string {
			out, err := exec.Command("git", append([]string{"-c", "safe.directory=*", "-C", dir}, args...)...).CombinedOutput()
			if err != nil {
				t.Fatalf("git %q: %v: %s", args, err, out)
			}
			return strings.TrimSpace(string(out))
		}
		if n, tags := ask("rev-list", "--count", "HEAD"), ask("tag"); n != c.commits || tags != c.tags {
			t.Errorf("%q with history %d: %s commits and tags %q, want %s and %q", c.ref, c.history, n, tags, c.commits, c.tags)
		}
		if out := ask("status", "--porcelain"); out != "" {
			t.Errorf("%q with history %d: the checkout differs from its commit:\n%s", c.ref, c.history, out)
		}
	}
}

func TestDirectoryFromAnyCertificate(t *testing.T) {
	g := newForge(t)
	inner, err := url.Parse(g.url)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewTLSServer(httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: inner.Host}))
	t.Cleanup(s.Close)
	at := "git" + strings.TrimPrefix(s.URL, "https") + inner.Path
	for way, env := range ways {
		for _, any := range []bool{false, true} {
			f := &buildctx.Fetcher{Env: env, Dir: t.TempDir()}
			_, err := f.Directory(t.Context(), buildctx.Place{At: at, Git: buildctx.GitPlace{AnyCertificate: any}}, buildctx.Places{})
			if (err == nil) != any {
				t.Errorf("%s, any certificate %v: %v", way, any, err)
			}
		}
	}
}
