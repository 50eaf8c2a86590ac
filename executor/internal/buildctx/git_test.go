package buildctx_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/buildctx"
	"kaniko-build/executor/internal/tree"
	"kaniko-build/test/githttp"
)

// forge is a git host over HTTP on loopback, with one repository.
type forge struct {
	url  string       // of the repository
	dir  string       // its work tree
	auth atomic.Value // string, the last Authorization header: git is a process of its own, which orders nothing
	t    *testing.T
}

func newForge(t *testing.T) *forge {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("needs git")
	}
	top := t.TempDir()
	f := &forge{dir: filepath.Join(top, "work"), t: t}
	if err := os.Mkdir(f.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	f.git("init", "-q", "-b", "main", ".")
	for name, text := range map[string]string{"f": "one\n", "run": "#!/bin/sh\n", "sub/s": "s\n"} {
		p := filepath.Join(f.dir, name)
		os.MkdirAll(filepath.Dir(p), 0o755)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	os.Chmod(filepath.Join(f.dir, "run"), 0o700)
	os.Symlink("sub", filepath.Join(f.dir, "link"))
	f.commit("one")
	f.git("tag", "-a", "-m", "first", "v1")
	f.git("branch", "old")
	os.WriteFile(filepath.Join(f.dir, "f"), []byte("two\n"), 0o644)
	f.commit("two")
	backend, err := githttp.Backend(t.Context(), top)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.auth.Store(r.Header.Get("Authorization"))
		backend.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	f.url = s.URL + "/work/.git"
	return f
}

func (f *forge) git(args ...string) string {
	f.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = f.dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com",
		"GIT_AUTHOR_DATE=1700000000 +0000", "GIT_COMMITTER_DATE=1700000000 +0000")
	out, err := cmd.CombinedOutput()
	if err != nil {
		f.t.Fatalf("git %q: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (f *forge) commit(message string) {
	f.t.Helper()
	f.git("add", "-A")
	f.git("commit", "-qm", message)
}

// ways are the environments of git: with its command, and without.
var ways = map[string][]string{"command": nil, "library": {"PATH=/nowhere"}}

func TestGitCheckout(t *testing.T) {
	for way, env := range ways {
		t.Run(way, func(t *testing.T) { testGitCheckout(t, env) })
	}
}

func testGitCheckout(t *testing.T, env []string) {
	g := newForge(t)
	one, two, tag := g.git("rev-parse", "v1^{commit}"), g.git("rev-parse", "main"), g.git("rev-parse", "v1")
	for _, c := range []struct {
		what string
		repo buildctx.Repo
		id   string
		f    string
		want []string
	}{
		{"default branch", buildctx.Repo{}, two, "two\n", []string{"f", "link", "run", "sub", "sub/s"}},
		{"branch", buildctx.Repo{Ref: "old"}, one, "one\n", nil},
		{"annotated tag", buildctx.Repo{Ref: "v1"}, one, "one\n", nil},
		{"annotated tag with its repository", buildctx.Repo{Ref: "v1", KeepGitDir: true}, tag, "one\n", nil},
		{"full name", buildctx.Repo{Ref: "refs/heads/old"}, one, "one\n", nil},
		{"commit", buildctx.Repo{Ref: one}, one, "one\n", nil},
		{"commit with its repository", buildctx.Repo{Ref: one, KeepGitDir: true}, one, "one\n", nil},
		{"folder", buildctx.Repo{Subdir: "sub"}, two, "", []string{"s"}},
		{"checksum", buildctx.Repo{Ref: "old", Checksum: one[:10]}, one, "one\n", nil},
		{"checksum of the tag's commit", buildctx.Repo{Ref: "v1", Checksum: one}, one, "one\n", nil},
		{"fetched by commit", buildctx.Repo{Ref: "main", Checksum: one, FetchByCommit: true}, one, "one\n", nil},
	} {
		t.Run(c.what, func(t *testing.T) {
			mask := unix.Umask(0o077)
			defer unix.Umask(mask)
			c.repo.Remote = g.url
			f := &buildctx.Fetcher{Env: env, Dir: t.TempDir()}
			commit, err := f.Commit(t.Context(), c.repo)
			if err != nil || commit.Digest() != c.id {
				t.Fatalf("commit %+v, %v, want %s", commit, err, c.id)
			}
			for range 2 { // the second time from disk
				d, err := f.Checkout(t.Context(), c.repo, commit)
				if err != nil {
					t.Fatal(err)
				}
				got := list(t, d)
				if i := slices.IndexFunc(got, func(n string) bool { return n == ".git" }); (i >= 0) != c.repo.KeepGitDir {
					t.Errorf(".git is there: %v", i >= 0)
				}
				if c.want != nil && !slices.Equal(got, c.want) {
					t.Errorf("files %q, want %q", got, c.want)
				}
				if c.f != "" {
					if text := contentOf(t, d, "f"); text != c.f {
						t.Errorf("f holds %q, want %q", text, c.f)
					}
					for name, mode := range map[string]uint32{"": 0o755, "f": 0o644, "run": 0o755, "sub": 0o755} {
						if e, err := d.Lstat(t.Context(), name); err != nil || e.Perm() != mode || e.UID != 0 {
							t.Errorf("%q: mode %o, %v, want %o", name, e.Perm(), err, mode)
						}
					}
				}
				d.Close()
			}
			if left, _ := filepath.Glob(filepath.Join(f.Dir, "git", ".tmp-*")); len(left) != 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

func TestGitCommitTimesAndAuth(t *testing.T) {
	for way, env := range ways {
		t.Run(way, func(t *testing.T) { testGitCommitTimesAndAuth(t, env) })
	}
}

func testGitCommitTimesAndAuth(t *testing.T, env []string) {
	g := newForge(t)
	f := &buildctx.Fetcher{Env: env, Dir: t.TempDir(), Auth: func(string) string { return buildctx.TokenAuth("secret") }}
	r := buildctx.Repo{Remote: g.url, CommitTimes: true}
	c, err := f.Commit(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if got := g.auth.Load().(string); !strings.EqualFold(got, buildctx.TokenAuth("secret")) {
		t.Errorf("authorization %q", got)
	}
	d, err := f.Checkout(t.Context(), r, c)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, n := range []string{"", "f", "sub", "link"} {
		if e, err := d.Lstat(t.Context(), n); err != nil || e.ModTime.Unix() != 1700000000 {
			t.Errorf("%q has the time %v, %v", n, e.ModTime, err)
		}
	}
}

func TestGitFails(t *testing.T) {
	for way, env := range ways {
		t.Run(way, func(t *testing.T) { testGitFails(t, env) })
	}
}

func testGitFails(t *testing.T, env []string) {
	g := newForge(t)
	two := g.git("rev-parse", "main")
	for _, c := range []struct {
		repo buildctx.Repo
		want string
	}{
		{buildctx.Repo{Remote: g.url, Ref: "none"}, "does not contain ref none"},
		{buildctx.Repo{Remote: g.url, Ref: "--upload-pack=evil"}, "invalid git ref"},
		{buildctx.Repo{Remote: g.url, Ref: "main", Checksum: "0123"}, "expected checksum to match 0123, got " + two},
		{buildctx.Repo{Remote: g.url, Ref: "main", Checksum: "xyz"}, "expected hex commit hash"},
		{buildctx.Repo{Remote: g.url, Subdir: "none"}, "invalid subdir"},
		{buildctx.Repo{Remote: g.url, Subdir: "link"}, "invalid subdir"},
		{buildctx.Repo{Remote: g.url, Subdir: "f"}, "invalid subdir"},
		{buildctx.Repo{Remote: strings.Replace(g.url, "http://", "http://me:hunter2@", 1) + "x"}, "not found"},
		{buildctx.Repo{Remote: g.dir}, "not allowed"},
		{buildctx.Repo{Remote: "ext::sh -c touch% /tmp/evil"}, "not allowed"},
		{buildctx.Repo{Remote: "file://" + g.dir}, "not allowed"},
		{buildctx.Repo{Remote: g.url, Ref: strings.Repeat("0", 40)}, "can not be found"},
	} {
		f := &buildctx.Fetcher{Env: env, Dir: t.TempDir()}
		commit, err := f.Commit(t.Context(), c.repo)
		if err == nil {
			_, err = f.Checkout(t.Context(), c.repo, commit)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.repo, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error has the password: %v", err)
		}
	}
}

// TestGitSubmodules fetches one that lies on the same host, and refuses one
// that is a path of this machine.
func TestGitSubmodules(t *testing.T) {
	for way, env := range ways {
		t.Run(way, func(t *testing.T) { testGitSubmodules(t, env) })
	}
}

func testGitSubmodules(t *testing.T, env []string) {
	g := newForge(t)
	if out, err := exec.Command("git", "-C", g.dir, "-c", "protocol.file.allow=always", "submodule", "add", "-q", g.url, "mod").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	g.commit("module")
	f := &buildctx.Fetcher{Env: env, Dir: t.TempDir()}
	for _, without := range []bool{false, true} {
		r := buildctx.Repo{Remote: g.url, NoSubmodules: without}
		c, err := f.Commit(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		d, err := f.Checkout(t.Context(), r, c)
		if err != nil {
			t.Fatal(err)
		}
		if there := slices.Contains(list(t, d), "mod/f"); there == without {
			t.Errorf("without submodules %v: mod/f is there: %v", without, there)
		}
		d.Close()
	}
	g.git("config", "-f", ".gitmodules", "submodule.mod.url", g.dir)
	g.commit("local")
	r := buildctx.Repo{Remote: g.url}
	c, err := f.Commit(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := f.Checkout(t.Context(), r, c); err == nil || !strings.Contains(err.Error(), "not allowed") {
		if err == nil {
			d.Close()
		}
		t.Errorf("a submodule on this machine: %v", err)
	}
}

func contentOf(t *testing.T, tr tree.Tree, name string) string {
	t.Helper()
	r, err := tr.Open(t.Context(), name)
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

// TestGitOfFiles has a server that knows nothing of git: its command can read
// such a repository, the library says that it cannot.
func TestGitOfFiles(t *testing.T) {
	g := newForge(t)
	g.git("update-server-info")
	s := httptest.NewServer(http.FileServer(http.Dir(filepath.Join(g.dir, ".git"))))
	t.Cleanup(s.Close)
	for way, env := range ways {
		f := &buildctx.Fetcher{Env: env, Dir: t.TempDir()}
		_, err := f.Commit(t.Context(), buildctx.Repo{Remote: s.URL, Ref: "main"})
		if way == "command" && err != nil || way == "library" && (err == nil || !strings.Contains(err.Error(), "as files only")) {
			t.Errorf("%s: %v", way, err)
		}
	}
}
