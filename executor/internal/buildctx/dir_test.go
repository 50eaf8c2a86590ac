package buildctx_test

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/buildctx"
	"kaniko-build/executor/internal/tree"
	"kaniko-build/schema/diag"
)

// write makes files, and directories for names that end in "/".
func write(t testing.TB, dir string, names ...string) {
	t.Helper()
	for _, n := range names {
		p := filepath.Join(dir, n)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(n, "/") {
			if err := os.MkdirAll(p, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(p, []byte(n), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func openCtx(t testing.TB, dir string, o buildctx.Options) *buildctx.Dir {
	t.Helper()
	d, err := buildctx.Open(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func list(t testing.TB, tr tree.Tree) []string {
	t.Helper()
	var out []string
	err := tree.Walk(t.Context(), tr, "", func(name string, e tree.Entry) error {
		if name != "" {
			out = append(out, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestIgnore(t *testing.T) {
	for _, c := range []struct {
		rule, file string
		files      string
		want       string
	}{
		{"no patterns", "# comment\n\n", "a b/c", "a b b/c"},
		{"a name at the top only", "a\n/b\n", "a b d/a d/b", "d d/a d/b"},
		{"a directory with all in it", "d/\n", "d/x/y e", "e"},
		{"* does not cross a slash", "*.o\nd/*.o", "a.o d/a.o d/e/a.o", "d d/e d/e/a.o"},
		{"** crosses any number", "**/gen", "gen/x a/gen/x a/b/gen a/b/c", "a a/b a/b/c"},
		{"spaces around and .. are cleaned", "  a  \nx/../b", "a b c", "c"},
		{"the last pattern that matches wins", "*\n!k*\nkx", "k kx other d/x", "k"},
		{"an exception keeps the directories on the way", "*\n!d/e/keep", "d/e/keep d/e/lose d/f", "d d/e d/e/keep"},
		{"an exception with ** is looked for in ignored directories", "*\n!**/keep.o", "a/keep.o a/x b/x keep.o", "a a/keep.o keep.o"},
		{"only what the exception names comes back", "**/gen\n!x/y/gen/keep", "x/y/gen/keep x/y/gen/drop", "x x/y x/y/gen x/y/gen/keep"},
		{"contents ignored leave the directory", "one/*\ntwo/**", "one/f two/d/f two/f", "one two"},
		{"an exception that nothing matches brings no directory back", "two\n!two/none", "two/f", ""},
		{"a directory may be kept and its files not", "*\n!d\nd/*.o", "d/a d/b.o", "d d/a"},
		{"? and classes", "?.tmp\n[ab].c", "x.tmp xx.tmp a.c c.c", "c.c xx.tmp"},
		{"an ignored name as prefix of another", "ab", "ab/x abc/x", "abc abc/x"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, strings.Fields(c.files)...)
			want := strings.Fields(c.want)
			d := openCtx(t, dir, buildctx.Options{Ignore: &buildctx.Ignore{Name: "i", Data: []byte(c.file)}})
			if got := list(t, d); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			// The same answers in another order: by name, nothing remembered.
			d = openCtx(t, dir, buildctx.Options{Ignore: &buildctx.Ignore{Name: "i", Data: []byte(c.file)}})
			all := list(t, openCtx(t, dir, buildctx.Options{Ignore: &buildctx.Ignore{}}))
			slices.Reverse(all)
			for _, n := range all {
				_, err := d.Lstat(t.Context(), n)
				if there := err == nil; there != slices.Contains(want, n) || !there && !errors.Is(err, fs.ErrNotExist) || d.Ignored(t.Context(), n) == there {
					t.Errorf("Lstat(%s): %v, want it there: %v", n, err, slices.Contains(want, n))
				}
				if r, err := d.Open(t.Context(), n); err == nil {
					r.Close()
					if !slices.Contains(want, n) {
						t.Errorf("Open(%s) gave an ignored file", n)
					}
				}
			}
		})
	}
}

func TestTheContextsOwnIgnoreFile(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a", "b", "sub/c", "sub/d")
	for name, text := range map[string]string{"real": "\xef\xbb\xbfa\r\n", "sub/.dockerignore": "c\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("real", filepath.Join(dir, ".dockerignore")); err != nil {
		t.Fatal(err)
	}
	if got, want := list(t, openCtx(t, dir, buildctx.Options{})), []string{".dockerignore", "b", "real", "sub", "sub/.dockerignore", "sub/c", "sub/d"}; !slices.Equal(got, want) {
		t.Errorf("own file: %q, want %q", got, want)
	}
	if got, want := list(t, openCtx(t, dir, buildctx.Options{Sub: "/sub"})), []string{".dockerignore", "d"}; !slices.Equal(got, want) {
		t.Errorf("of a folder: %q, want %q", got, want)
	}
	_, err := buildctx.Open(t.Context(), dir, buildctx.Options{Ignore: &buildctx.Ignore{Name: "x.dockerignore", Data: []byte("ok\n[\n\n!\na[b-\n")}})
	var many diag.Problems
	if err == nil || !errors.As(err, &many) && !strings.Contains(err.Error(), "x.dockerignore") {
		t.Errorf("malformed patterns: %v", err)
	}
	for _, no := range []string{filepath.Join(dir, "none"), filepath.Join(dir, "a")} {
		var p *diag.Problem
		if _, err := buildctx.Open(t.Context(), no, buildctx.Options{}); !errors.As(err, &p) {
			t.Errorf("Open(%s): %v, want a problem", no, err)
		}
	}
}

func TestEntriesOfAContext(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "f", "d/")
	l, err := net.Listen("unix", filepath.Join(dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc", filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(filepath.Join(dir, "f"), 12, 34); err != nil {
			t.Fatal(err)
		}
	}
	d := openCtx(t, dir, buildctx.Options{})
	entries, err := d.ReadDir(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]uint32{}
	for _, e := range entries {
		types[e.Name] = e.Type()
		if e.UID != 0 || e.GID != 0 {
			t.Errorf("%s belongs to %d:%d", e.Name, e.UID, e.GID)
		}
		if one, err := d.Lstat(t.Context(), e.Name); err != nil || one != e {
			t.Errorf("Lstat(%s) = %+v, %v, ReadDir has %+v", e.Name, one, err, e)
		}
	}
	if types["sock"] != unix.S_IFREG || types["pipe"] != unix.S_IFIFO || types["out"] != unix.S_IFLNK {
		t.Errorf("types %v", types)
	}
	r, err := d.Open(t.Context(), "sock")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); len(b) != 0 || err != nil {
		t.Errorf("a socket holds %q, %v", b, err)
	}
	for _, n := range []string{"out/passwd", "pipe", "../" + filepath.Base(dir) + "/../../etc/passwd", "d"} {
		if r, err := d.Open(t.Context(), n); err == nil {
			r.Close()
			t.Errorf("Open(%s) gave a file", n)
		}
	}
}

func TestPatternsAreThoseThatOpenGoesBy(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ".dockerignore"), []byte("# all\n*.o\n\n!keep.o\n/out/\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, root string
		own        *buildctx.Ignore
		want       []string
	}{
		{"the context's", dir, nil, []string{"*.o", "!keep.o", "out"}},
		{"the Dockerfile's own", dir, &buildctx.Ignore{Name: "i", Data: []byte("x\n")}, []string{"x"}},
		{"of its own without a context", "", &buildctx.Ignore{Name: "i", Data: []byte("x\n")}, []string{"x"}},
		{"an own one without patterns", dir, &buildctx.Ignore{Name: "i"}, nil},
		{"none", t.TempDir(), nil, nil},
		{"no context", "", nil, nil},
	} {
		got, err := buildctx.Patterns(t.Context(), c.root, c.own)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, %v; want %q", c.name, got, err, c.want)
		}
	}
	var p *diag.Problem
	if _, err := buildctx.Patterns(t.Context(), filepath.Join(dir, "nowhere"), nil); !errors.As(err, &p) {
		t.Errorf("a context that is not there: %v", err)
	}
}
