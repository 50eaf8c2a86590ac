package image

import (
	"archive/tar"
	"bytes"
	"slices"
	"strings"
	"testing"
)

// rec describes one tar entry: type letter, name, and content or link target.
type rec struct {
	typ        byte
	name, text string
}

func tarOf(t *testing.T, recs ...rec) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, r := range recs {
		h := &tar.Header{Name: r.name, Mode: 0o644, Typeflag: r.typ}
		switch r.typ {
		case tar.TypeReg:
			h.Size = int64(len(r.text))
		case tar.TypeSymlink, tar.TypeLink:
			h.Linkname = r.text
		case tar.TypeDir:
			h.Mode = 0o755
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if r.typ == tar.TypeReg {
			w.Write([]byte(r.text))
		}
	}
	w.Close()
	return &b
}

func TestApply(t *testing.T) {
	const f, d, s, l = tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink
	tests := []struct {
		name     string
		layers   [][]rec
		want     []string // type:path
		problems string   // part of the complaints about the last layer
	}{
		{"whiteout", [][]rec{{{d, "a/", ""}, {f, "a/x", "1"}, {f, "y", "2"}}, {{f, "a/.wh.x", ""}}}, []string{"dir:/a", "file:/y"}, ""},
		{"opaque keeps its own layer", [][]rec{{{d, "a/", ""}, {f, "a/x", "1"}}, {{d, "a/", ""}, {f, "a/n", "2"}, {f, "a/.wh..wh..opq", ""}}}, []string{"dir:/a", "file:/a/n"}, ""},
		{"file over directory", [][]rec{{{d, "a/", ""}, {f, "a/x", "1"}}, {{f, "a", "2"}}}, []string{"file:/a"}, ""},
		{"directory over file", [][]rec{{{f, "a", "1"}}, {{d, "a/", ""}, {f, "a/x", "2"}}}, []string{"dir:/a", "file:/a/x"}, ""},
		{"directory merges", [][]rec{{{d, "a/", ""}, {f, "a/x", "1"}}, {{d, "a/", ""}}}, []string{"dir:/a", "file:/a/x"}, ""},
		{"directory over symlink", [][]rec{{{d, "r/", ""}, {f, "r/x", "1"}, {s, "a", "r"}}, {{d, "a/", ""}}}, []string{"dir:/a", "dir:/r", "file:/r/x"}, ""},
		{"parents are made", [][]rec{{{f, "p/q/x", "1"}}}, []string{"dir:/p", "dir:/p/q", "file:/p/q/x"}, "parent"},
		{"symlink of a lower layer", [][]rec{{{d, "r/", ""}, {s, "a", "r"}}, {{f, "a/x", "1"}}}, []string{"dir:/a", "dir:/r", "file:/a/x"}, "parent"},
		{"symlink of the same layer", [][]rec{{{d, "r/", ""}, {s, "a", "/r"}, {f, "a/x", "1"}}}, []string{"dir:/r", "file:/r/x", "symlink:/a"}, ""},
		{"hard link", [][]rec{{{f, "x", "1"}, {l, "y", "x"}}}, []string{"file:/x", "file:/y"}, ""},
		{"hard link to a lower layer", [][]rec{{{f, "x", "1"}}, {{l, "y", "x"}}}, []string{"file:/x", "file:/y"}, "lower layer"},
		{"hard link to nothing", [][]rec{{{l, "y", "x"}}}, nil, "does not exist"},
		{"twice", [][]rec{{{f, "x", "1"}, {f, "./x", "2"}}}, []string{"file:/x"}, "twice"},
		{"whiteout below a symlink", [][]rec{{{d, "a/", ""}, {f, "a/x", "1"}}, {{s, "a", "b"}, {f, "a/.wh.x", ""}}}, []string{"symlink:/a"}, "no directory"},
		{"whiteout below a lower file", [][]rec{{{f, "a", "1"}}, {{f, "a/.wh.x", ""}}}, []string{"file:/a"}, "no directory"},
		{"whiteout in a directory that replaces a link", [][]rec{{{s, "a", "b"}}, {{d, "a/", ""}, {f, "a/.wh.x", ""}}}, []string{"dir:/a"}, ""},
		{"entry and whiteout", [][]rec{{{f, "x", "1"}}, {{f, ".wh.x", ""}, {f, "x", "2"}}}, []string{"file:/x"}, "whiteout"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tr := newTree()
			var probs []string
			for i, recs := range tt.layers {
				var err error
				if _, probs, err = tr.apply(tarOf(t, recs...), i); err != nil {
					t.Fatal(err)
				}
			}
			var got []string
			for p, e := range tr.entries() {
				got = append(got, e.Type+":"+p)
			}
			slices.Sort(got)
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			all := strings.Join(probs, "; ")
			if (tt.problems == "") != (all == "") || !strings.Contains(all, tt.problems) {
				t.Errorf("problems: %q, want one with %q", all, tt.problems)
			}
		})
	}
}

func TestLinksAndNames(t *testing.T) {
	tr := newTree()
	_, _, err := tr.apply(tarOf(t, rec{tar.TypeReg, "x", "1"}, rec{tar.TypeLink, "bad\xff", "x"}), 0)
	if err != nil {
		t.Fatal(err)
	}
	e := tr.entries()[`/bad\xff`]
	if want := []string{`/bad\xff`, "/x"}; !slices.Equal(e.Links, want) {
		t.Errorf("links %q, want %q", e.Links, want)
	}
}

func TestDiff(t *testing.T) {
	file := Entry{Path: "/f", Type: "file", Mode: "0644", SHA256: "aa", Size: 1, MTime: "1700000000"}
	dir := Entry{Path: "/d", Type: "dir", Mode: "0755", MTime: "now"}
	with := func(change func(d *Dump)) *Dump {
		d := &Dump{Platform: "linux/amd64", FS: []Entry{file, dir}}
		d.Config.Env = []string{"A=1"}
		change(d)
		return d
	}
	same := with(func(*Dump) {})
	tests := []struct {
		name string
		got  *Dump
		opt  DiffOptions
		want string // "" for no difference
	}{
		{"same", same, DiffOptions{}, ""},
		{"mode", with(func(d *Dump) { d.FS[0].Mode = "0600" }), DiffOptions{}, "/f: mode is 0600, want 0644"},
		{"time", with(func(d *Dump) { d.FS[0].MTime = "now" }), DiffOptions{}, "/f: mtime is now"},
		{"time ignored", with(func(d *Dump) { d.FS[0].MTime = "now" }), DiffOptions{MTime: "ignore"}, ""},
		{"time of directory", with(func(d *Dump) { d.FS[1].MTime = "1" }), DiffOptions{MTime: "files"}, ""},
		{"missing", with(func(d *Dump) { d.FS = d.FS[:1] }), DiffOptions{}, "/d (dir) is missing"},
		{"extra", with(func(d *Dump) { d.FS = append(d.FS, Entry{Path: "/x", Type: "file"}) }), DiffOptions{}, "/x (file) should not exist"},
		{"extra below dev", with(func(d *Dump) { d.FS = append(d.FS, Entry{Path: "/dev/x", Type: "file"}) }), DiffOptions{}, ""},
		{"removed", with(func(d *Dump) { d.Removed = []string{"/b"} }), DiffOptions{}, "/b is missing"},
		{"env", with(func(d *Dump) { d.Config.Env = []string{"A=2"} }), DiffOptions{}, `config.Env is ["A=2"], want ["A=1"]`},
		{"problem", with(func(d *Dump) { d.Problems = []string{"p"} }), DiffOptions{}, "malformed image: p"},
		{"layers", with(func(d *Dump) { d.Layers = []Layer{{}} }), DiffOptions{}, ""},
		{"layers asked for", with(func(d *Dump) { d.Layers = []Layer{{}} }), DiffOptions{Layers: true}, "1 layers above the base, want 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := strings.Join(Diff(same, tt.got, tt.opt), "; ")
			if (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
