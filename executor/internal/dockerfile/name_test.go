package dockerfile

import (
	"strings"
	"testing"

	"github.com/distribution/reference"
)

// likeTheLibrary compares with the parser that Docker uses.
func likeTheLibrary(t *testing.T, s string) {
	t.Helper()
	got, err := parseName(s)
	want, wantErr := reference.ParseNormalizedNamed(s)
	switch {
	case wantErr != nil:
		if err == nil || err.Error() != wantErr.Error() {
			t.Errorf("%q: error %v, want %v", s, err, wantErr)
		}
	case err != nil:
		t.Errorf("%q: %v, and the library takes it", s, err)
	case got.name() != want.Name() || got.familiar() != reference.FamiliarString(want) || got.tagged() != reference.TagNameOnly(want).String():
		t.Errorf("%q: %q, %q and %q, want %q, %q and %q", s, got.name(), got.familiar(), got.tagged(),
			want.Name(), reference.FamiliarString(want), reference.TagNameOnly(want).String())
	}
}

var (
	hex64 = strings.Repeat("0123456789abcdef", 4)
	names = []string{
		"busybox", "busybox:1", "busybox@sha256:" + hex64, "busybox:1@sha256:" + hex64, "library/busybox", "docker.io/busybox", "docker.io/library/a/b",
		"index.docker.io/x", "Index.docker.io/x", "localhost/x", "localhost:5000/x/y:tag", "host:5000/x", "[::1]:5000/x", "[::1]/x", "[]/x", "[::g]/x", "[::1]:/x", "[::1]x/x",
		"127.0.0.1/x", "Foo/bar", "Foo", "foo/Bar:T", "foo:Tag_.-", "foo:.x", "foo:-x", "foo:", "foo@", "foo:a:b", "foo@sha256", "", "/", "/x", "x/", "a//b", ":x", "@x", " ", "a b", "é", "É",
		"a_b.c/d", "A_b.c/d", "a__b", "a___b", "a.b", "a..b", "a-b", "a---b", "a-", "-a", "a_", "_a", "a._b", "a.b/c.d/e_f", "a-.b/c", "a:b/c", "a:80/b", "a:80x/b", "a.-b/c", "a.b-/c",
		hex64, strings.ToUpper(hex64), hex64[1:], hex64 + "0", "x/" + hex64, "x@sha512:" + hex64, "x@sha256:" + strings.ToUpper(hex64), "x@md5:" + hex64[:32], "x@a+b.c-d_e:" + hex64, "x@1a:" + hex64,
		"x@a++b:" + hex64, "x@a1:" + hex64, "x@sha256:" + hex64[:31], "x:t@sha256:" + hex64 + "0", strings.Repeat("a", 255), strings.Repeat("a", 256), "a.b/" + strings.Repeat("a", 256), "x:" + strings.Repeat("a", 128), "x:" + strings.Repeat("a", 129),
		"docker.io/\u212aey", "\u212a.b/c", "x\n", "scratch", "$x", "docker.io", "docker.io/", "docker.io/x:y/z",
	}
)

func TestNamesAreThoseOfDocker(t *testing.T) {
	for _, s := range names {
		likeTheLibrary(t, s)
	}
}

func FuzzNames(f *testing.F) {
	for _, s := range names {
		f.Add(s)
	}
	f.Fuzz(likeTheLibrary)
}
