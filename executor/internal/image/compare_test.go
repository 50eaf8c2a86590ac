package image

import (
	"archive/tar"
	"slices"
	"testing"
	"time"
)

func TestCompareLayers(t *testing.T) {
	s := newStore(t)
	sameTime := func(a, b time.Time) bool { return a.Equal(b) }
	for _, c := range []struct {
		name   string
		change func(f []file) []file
		want   []string
	}{
		{name: "equal", change: func(f []file) []file { return f }},
		{name: "order", change: func(f []file) []file { slices.Reverse(f); return f }},
		{"content", func(f []file) []file { f[1].data = "y"; return f }, []string{"/d/f content differs"}},
		{"size", func(f []file) []file { f[1].data = "xy"; return f }, []string{"/d/f size is 2, not 1"}},
		{"mode and owner", func(f []file) []file { f[0].Mode, f[0].Uid = 0o700, 7; return f },
			[]string{"/d mode is 0700, not 0755, owner is 7:0, not 0:0"}},
		{"target", func(f []file) []file { f[2].Linkname = "b"; return f }, []string{`/l leads to "b", not "a"`}},
		{"type", func(f []file) []file { f[2].Typeflag = tar.TypeFifo; return f }, []string{"/l is a fifo, not a symbolic link"}},
		{"attribute", func(f []file) []file {
			f[1].PAXRecords = map[string]string{"SCHILY.xattr.user.a": "b"}
			return f
		}, []string{"/d/f extended attributes differ"}},
		{"whiteout", func(f []file) []file { f[3].Name = "d/.wh.other"; return f },
			[]string{"-/d/gone is missing", "-/d/other is there, and should not be"}},
		{"time", func(f []file) []file { f[1].ModTime = time.Unix(2000, 0); return f },
			[]string{"/d/f time is 1970-01-01T00:33:20Z, not 2001-09-09T01:46:40Z"}},
		{"a file less", func(f []file) []file { return f[1:] }, []string{"/d is missing"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := func() []file {
				return []file{dir("d", 0o755), reg("d/f", "x"), sym("l", "a"), reg("d/.wh.gone", "")}
			}
			// A compression is no difference.
			a, b := makeLayer(t, s, false, base()...), makeLayer(t, s, true, c.change(base())...)
			list, err := CompareLayers(t.Context(), FromStore(s), a, FromStore(s), b, sameTime)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, ch := range list {
				got = append(got, ch.Name+" "+ch.What)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
