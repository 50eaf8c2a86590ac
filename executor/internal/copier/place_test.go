package copier_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/copier"
	"kaniko-build/executor/internal/layer"
	"kaniko-build/executor/internal/rootfs"
	"kaniko-build/schema/diag"
)

// placing is one COPY: what is there, what is copied, and some of what must
// be there afterwards.
type placing struct {
	rule   string
	base   []string
	src    []string
	from   string // sources, separated by spaces
	to     string
	opts   copier.Select
	chmod  string
	owner  *[2]uint32
	link   bool
	want   []string // "path = description"
	fails  string   // a part of the error instead
	inside []string // if set, all that is in upper
}

var placings = []placing{
	{rule: "a directory gives its contents, its top made 0755 by root with its time",
		src: []string{"d d 0700 7:8", "d d/s 2750 7:8", "f d/s/f 4711 7:8 x", "l d/l s/f"}, from: "d", to: "/n/m",
		want: []string{"n = d 0755 0:0 now", "n/m = d 0755 0:0 old", "n/m/s = d 2750 7:8 old", "n/m/s/f = f 4711 7:8 old x", "n/m/l = l 0:0 old s/f"}},
	{rule: "an existing top directory keeps mode and owner, those below take over all",
		base: []string{"d t 1777 3:4", "d t/s 0700 3:4", "f t/keep 0600 3:4 k"},
		src:  []string{"d d 0755 0:0", "d d/s 0751 7:8", "f d/f 0644 0:0 x"}, from: "d/", to: "/t",
		want: []string{"t = d 1777 3:4 old", "t/s = d 0751 7:8 old", "t/keep = f 0600 3:4 old k", "t/f = f 0644 0:0 old x"}},
	{rule: "parents on the way are copied up and keep what they have but for the time of the last",
		base: []string{"d a 0711 1:2", "x a user.note=v", "d a/b 2775 3:4", "f a/other 0600 0:0 o"},
		src:  []string{"f f 0644 0:0 x"}, from: "f", to: "/a/b/f",
		want:   []string{"a = d 0711 1:2 old", "a/b = d 2775 3:4 now", "a/b/f = f 0644 0:0 old x", "a/other = f 0600 0:0 old o"},
		inside: []string{"a", "a/b", "a/b/f"}},
	{rule: "directories made in a set-group-id directory take its group and the bit",
		base: []string{"d g 2775 5:6"}, src: []string{"f f 0644 0:0 x"}, from: "f", to: "/g/n/f",
		want: []string{"g/n = d 2755 0:6 now", "g/n/f = f 0644 0:0 old x"}},
	{rule: "with --chown all that is made belongs to that owner, setuid stays",
		base: []string{"d g 2775 5:6"}, src: []string{"d d 0755 9:9", "f d/f 4755 9:9 x", "l d/l t", "d d/s 0700 9:9"}, from: "d", to: "/g/n/m", owner: &[2]uint32{7, 8},
		want: []string{"g = d 2775 5:6 now", "g/n = d 2755 7:8 now", "g/n/m = d 2755 7:8 old", "g/n/m/f = f 4755 7:8 old x", "g/n/m/l = l 7:8 old t", "g/n/m/s = d 0700 7:8 old"}},
	{rule: "octal --chmod is the mode of files, directories and, without special bits, parents",
		src: []string{"d d 0755 0:0", "d d/s 0755 0:0", "f d/s/f 0600 0:0 x"}, from: "d", to: "/p/q", chmod: "1640",
		want: []string{"p = d 0640 0:0 now", "p/q = d 0640 0:0 old", "p/q/s = d 1640 0:0 old", "p/q/s/f = f 1640 0:0 old x"}},
	{rule: "symbolic --chmod changes each mode, X only directories and programs; parents are 0755",
		src: []string{"d d 0700 0:0", "d d/s 0700 0:0", "f d/s/f 0600 0:0 x", "f d/s/run 0700 0:0 x"}, from: "d", to: "/p/q", chmod: "u=rwX,go=rX",
		want: []string{"p = d 0755 0:0 now", "p/q/s = d 0755 0:0 old", "p/q/s/f = f 0644 0:0 old x", "p/q/s/run = f 0755 0:0 old x"}},
	{rule: "a file goes into a directory that is there, without a slash too",
		base: []string{"d t 0755 0:0"}, src: []string{"f f 0644 0:0 x"}, from: "f", to: "/t", want: []string{"t/f = f 0644 0:0 old x"}},
	{rule: "a file replaces a file with all its attributes and breaks its hard links",
		base: []string{"f t 4711 3:4 old", "x t user.note=v", "h t2 t"}, src: []string{"f f 0644 0:0 x"}, from: "f", to: "/t",
		want: []string{"t = f 0644 0:0 old x", "t2 = f 4711 3:4 old old"}},
	{rule: "a destination that is a link to a file is written through",
		base: []string{"d o 0755 0:0", "f o/real 0600 0:0 r", "l link o/real"}, src: []string{"f f 0644 0:0 x"}, from: "f", to: "/link",
		want: []string{"link = l 0:0 old o/real", "o/real = f 0644 0:0 old x"}},
	{rule: "a destination that is a dangling link makes what it leads to",
		base: []string{"l dang /no/where"}, src: []string{"f f 0644 0:0 x"}, from: "f", to: "/dang",
		want: []string{"dang = l 0:0 old /no/where", "no = d 0755 0:0 now", "no/where = f 0644 0:0 old x"}},
	{rule: "a link in a directory that is copied into is replaced",
		base: []string{"d t 0755 0:0", "l t/f ../secret", "f secret 0600 0:0 s"}, src: []string{"f f 0644 0:0 x"}, from: "f", to: "/t/",
		want: []string{"t/f = f 0644 0:0 old x", "secret = f 0600 0:0 old s"}},
	{rule: "destinations go through links inside the root, absolute, relative and climbing",
		base: []string{"d a 0755 0:0", "d a/b 0700 1:1", "l abs /a/b", "l up ../../a", "l chain abs"}, src: []string{"f f 0644 0:0 x"}, from: "f", to: "/up/../chain/n/",
		want: []string{"a/b/n = d 0755 0:0 now", "a/b/n/f = f 0644 0:0 old x", "a/b = d 0700 1:1 now"}},
	{rule: "the last link of a source is followed, those below a directory are copied",
		src: []string{"d d 0755 0:0", "f d/f 0644 0:0 x", "l d/in f", "l d/dang /nowhere", "l ln d", "l lf ln/f"}, from: "ln lf", to: "/t/",
		want: []string{"t/in = l 0:0 old f", "t/dang = l 0:0 old /nowhere", "t/f = f 0644 0:0 old x", "t/lf = f 0644 0:0 old x", "t/d = absent"}},
	{rule: "a source with .. is cleaned as text and stays inside",
		src: []string{"f f 0644 0:0 x", "d d 0755 0:0"}, from: "../../d/../f", to: "/t", want: []string{"t = f 0644 0:0 old x"}},
	{rule: "of several sources without a slash the last one wins",
		src: []string{"f a 0644 0:0 a", "f b 0600 5:5 b"}, from: "a b", to: "/t", want: []string{"t = f 0600 5:5 old b"}},
	{rule: "a pattern matches files and directories, and gives the contents of directories",
		src: []string{"f a.c 0644 0:0 a", "d b.c 0755 0:0", "f b.c/x 0644 0:0 x", "f .h.c 0644 0:0 h", "f n.h 0644 0:0 n"}, from: "*.c", to: "/t/",
		want: []string{"t/a.c = f 0644 0:0 old a", "t/x = f 0644 0:0 old x", "t/.h.c = f 0644 0:0 old h", "t/n.h = absent", "t/b.c = absent"}},
	{rule: "a pattern that matches nothing is no error and makes nothing",
		src: []string{"f a 0644 0:0 a"}, from: "none*", to: "/t/", want: []string{"t = absent"}},
	{rule: "a class may match across a slash",
		src: []string{"d a 0755 0:0", "f a/c 0644 0:0 x"}, from: "a[^b]c", to: "/t/", want: []string{"t/c = f 0644 0:0 old x"}},
	{rule: "an escaped wildcard is a plain name, backslashes and all",
		src: []string{`f a\*b 0644 0:0 x`, "f aXb 0644 0:0 y"}, from: `a\*b`, to: "/t/", want: []string{`t/a\*b = f 0644 0:0 old x`, "t/aXb = absent"}},
	{rule: "a plain name that is missing is an error that has it",
		src: []string{"f a 0644 0:0 a"}, from: "a x/missing", to: "/t/", fails: `"/x/missing": not found`},
	{rule: "a pattern in a directory that is missing is an error",
		src: []string{"f a 0644 0:0 a"}, from: "no/*", to: "/t/", fails: `"/no"`},
	{rule: "a dangling link as source is an error",
		src: []string{"l d nowhere"}, from: "d*", to: "/t/", fails: `"/d": not found`},
	{rule: "a loop of links as source is an error",
		src: []string{"l a b", "l b a"}, from: "a", to: "/t", fails: "loop"},
	{rule: "--exclude is relative to each source",
		src: []string{"d d 0755 0:0", "d d/s 0755 0:0", "f d/a.txt 0644 0:0 a", "f d/s/b.txt 0644 0:0 b", "f d/s/c 0644 0:0 c"}, from: "d", to: "/t", opts: copier.Select{Exclude: []string{"**/*.txt", "!s/b.txt"}},
		want: []string{"t = d 0755 0:0 old", "t/a.txt = absent", "t/s/b.txt = f 0644 0:0 old b", "t/s/c = f 0644 0:0 old c"}},
	{rule: "an excluded directory is made for an exception in it, with its attributes and a time of now",
		src: []string{"d d 0755 0:0", "d d/s 0750 7:8", "f d/s/b 0644 0:0 b", "f d/s/c 0644 0:0 c"}, from: "d", to: "/t", opts: copier.Select{Exclude: []string{"s", "!s/b"}},
		want: []string{"t/s = d 0750 7:8 now", "t/s/b = f 0644 0:0 old b", "t/s/c = absent"}},
	{rule: "--parents keeps the path of the source, parents with their attributes",
		src: []string{"d a 0711 7:8", "d a/b 0750 7:8", "f a/b/f 0644 0:0 x", "f a/g 0644 0:0 g"}, from: "a/b/f", to: "/t/", opts: copier.Select{Parents: true},
		want: []string{"t = d 0755 0:0 old", "t/a = d 0711 7:8 now", "t/a/b = d 0750 7:8 now", "t/a/b/f = f 0644 0:0 old x", "t/a/g = absent"}},
	{rule: "--parents onto directories that are there gives them the mode but not the owner",
		base: []string{"d t 0700 3:4", "d t/a 0700 3:4"}, src: []string{"d a 0711 7:8", "f a/f 0644 0:0 x"}, from: "a/f", to: "/t/", opts: copier.Select{Parents: true},
		want: []string{"t = d 0700 3:4 old", "t/a = d 0711 3:4 now", "t/a/f = f 0644 0:0 old x"}},
	{rule: "--parents with a pivot leaves out what is before it",
		src: []string{"d a 0755 0:0", "d a/b 0755 0:0", "d a/b/c 0755 0:0", "f a/b/c/f 0644 0:0 x"}, from: "a/b/./c/f", to: "/t/", opts: copier.Select{Parents: true},
		want: []string{"t/c/f = f 0644 0:0 old x", "t/a = absent"}},
	{rule: "--parents with wildcards and ** matches at any depth",
		src: []string{"d a 0755 0:0", "d a/b 0755 0:0", "f a/b/f.txt 0644 0:0 x", "f a/b/f.c 0644 0:0 c", "f top.txt 0644 0:0 t"}, from: "**/*.txt", to: "/t/", opts: copier.Select{Parents: true},
		want: []string{"t/a/b/f.txt = f 0644 0:0 old x", "t/top.txt = f 0644 0:0 old t", "t/a/b/f.c = absent"}},
	{rule: "--parents of a name that is missing is an error, of a pattern none",
		src: []string{"d a 0755 0:0"}, from: "a/x", to: "/t/", opts: copier.Select{Parents: true}, fails: `"/a/x": not found`},
	{rule: "--parents with --exclude",
		src: []string{"d a 0755 0:0", "f a/x 0644 0:0 x", "f a/y 0644 0:0 y"}, from: "a", to: "/t/", opts: copier.Select{Parents: true, Exclude: []string{"a/y"}},
		want: []string{"t/a = d 0755 0:0 old", "t/a/x = f 0644 0:0 old x", "t/a/y = absent"}},
	{rule: "--link does not see the base: its directories take over, a link on the way becomes a directory",
		base: []string{"d home 0700 3:4", "f home/keep 0644 0:0 k", "d real 0755 0:0", "l link real"}, src: []string{"f f 0644 0:0 x"}, from: "f", to: "/home/", link: true,
		want: []string{"home = d 0755 0:0 now", "home/f = f 0644 0:0 old x", "home/keep = f 0644 0:0 old k"}},
	{rule: "--link through a link of the base",
		base: []string{"d real 0755 0:0", "f real/k 0644 0:0 k", "l link real"}, src: []string{"f f 0644 0:0 x"}, from: "f", to: "/link/f", link: true,
		want: []string{"link = d 0755 0:0 now", "link/f = f 0644 0:0 old x", "link/k = absent", "real/k = f 0644 0:0 old k"}},
	{rule: "fifos and devices are made, a socket becomes an empty file, a block device a character device",
		src: []string{"d d 0755 0:0", "p d/p 0620", "s d/s 0755", "c d/c 0666 1:3", "b d/b 0660 7:1"}, from: "d", to: "/t",
		want: []string{"t/p = p 0620 0:0 old", "t/s = f 0755 0:0 old ", "t/c = c 0666 0:0 old 1:3", "t/b = c 0660 0:0 old 7:1"}},
	{rule: "a destination with a slash that is a file is an error",
		base: []string{"f t 0644 0:0 x"}, src: []string{"f f 0644 0:0 x"}, from: "f", to: "/t/", fails: "mkdir /t: not a directory"},
	{rule: "a destination below a file is an error",
		base: []string{"f t 0644 0:0 x"}, src: []string{"f f 0644 0:0 x"}, from: "f", to: "/t/a/b", fails: "mkdir /t: not a directory"},
	{rule: "a file cannot replace a directory",
		base: []string{"d t 0755 0:0", "d t/f 0755 0:0"}, src: []string{"d d 0755 0:0", "f d/f 0644 0:0 x"}, from: "d", to: "/t", fails: "cannot replace to directory /t/f with file"},
	{rule: "a directory cannot replace a file",
		base: []string{"d t 0755 0:0", "f t/s 0644 0:0 x"}, src: []string{"d d 0755 0:0", "d d/s 0755 0:0"}, from: "d", to: "/t", fails: "cannot copy to non-directory: /t/s"},
	{rule: "a directory cannot replace a link to a directory below the top",
		base: []string{"d t 0755 0:0", "l t/s ../real", "d real 0755 0:0"}, src: []string{"d d 0755 0:0", "d d/s 0755 0:0", "f d/s/f 0644 0:0 x"}, from: "d", to: "/t", fails: "cannot copy to non-directory: /t/s"},
	{rule: "the whole tree over the root changes only what is copied",
		base: []string{"d etc 0750 3:4", "f etc/a 0600 3:4 a", "d tmp 1777 0:0"}, src: []string{"d etc 0755 0:0", "f etc/b 0644 0:0 b"}, from: ".", to: "/",
		want:   []string{"etc = d 0755 0:0 old", "etc/a = f 0600 3:4 old a", "etc/b = f 0644 0:0 old b", "tmp = d 1777 0:0 old"},
		inside: []string{"etc", "etc/b"}},
	{rule: "extended attributes are copied, those that steer an overlay are not",
		src: []string{"d d 0755 0:0", "f d/f 0644 0:0 x", "x d/f user.colour=blue", "x d/f user.overlay.opaque=y", "d d/s 0755 0:0", "x d/s user.overlay.opaque=y", "x d/s user.note=n"}, from: "d", to: "/t",
		want: []string{"t/f = f 0644 0:0 old x", "t/f#user.colour = blue", "t/f#user.overlay.opaque = ", "t/s#user.overlay.opaque = ", "t/s#user.note = n"}},
}

func TestPlace(t *testing.T) {
	needRoot(t)
	for _, c := range placings {
		t.Run(c.rule, func(t *testing.T) {
			for _, mask := range []int{0o022, 0o077} {
				old := unix.Umask(mask)
				defer unix.Umask(old)
				c.try(t)
			}
		})
	}
}

func (c placing) try(t *testing.T) {
	t.Helper()
	top := tempDir(t)
	base, src, upper := filepath.Join(top, "base"), filepath.Join(top, "src"), filepath.Join(top, "upper")
	for _, d := range []string{base, src} {
		if err := errors.Join(os.Mkdir(d, 0o755), os.Chmod(d, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	grow(t, base, c.base)
	grow(t, src, c.src)
	if err := (rootfs.Stack{Dirs: []string{base}}).NewUpper(upper); err != nil {
		t.Fatal(err)
	}
	before := fmt.Sprint(describe(t, openDir(t, base)))
	err := c.place(t, base, src, upper)
	if got := fmt.Sprint(describe(t, openDir(t, base))); got != before {
		t.Errorf("the base has changed from\n%s to\n%s", before, got)
	}
	baseTree := openDir(t, base)
	draft, draftErr := c.draft(t, baseTree, openDir(t, src))
	if fmt.Sprint(draftErr) != fmt.Sprint(err) {
		t.Errorf("the error of a draft is %v, that of an upper %v", draftErr, err)
	}
	if c.fails != "" {
		var p *diag.Problem
		if err == nil || !strings.Contains(err.Error(), c.fails) || !errors.As(err, &p) {
			t.Errorf("error %v, want a problem with %q", err, c.fails)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if c.link {
		sameAsDraft(t, upper, copier.Empty, draft)
	} else {
		sameAsDraft(t, upper, baseTree, draft)
	}
	sameAsKernel(t, []string{upper, base})
	result := openDir(t, mount(t, []string{upper, base}, false))
	for _, line := range c.want {
		name, want := parts(line)
		if file, key, ok := strings.Cut(name, "#"); ok {
			var raw [64]byte
			n, _ := unix.Lgetxattr(filepath.Join(upper, file), key, raw[:])
			if got := string(raw[:max(n, 0)]); got != want {
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
			continue
		}
		if got := look(t, result, name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if c.inside != nil {
		if got := names(t, openDir(t, upper)); !slices.Equal(got, c.inside) {
			t.Errorf("upper holds %q, want %q", got, c.inside)
		}
	}
}

func (c placing) place(t *testing.T, base, src, upper string) error {
	t.Helper()
	s := c.opts
	s.Patterns = strings.Fields(c.from)
	tr := openDir(t, src)
	items, err := copier.Find(t.Context(), tr, s)
	if err != nil {
		return err
	}
	mode, err := copier.ParseChmod(c.chmod)
	if err != nil {
		return err
	}
	p := copier.Placement{Dest: c.to, Owner: c.owner, Chmod: mode, Make: layer.Maker{Devices: true}}
	if c.link {
		return copier.Place(t.Context(), tr, items, copier.Empty, upper, p)
	}
	return copier.Place(t.Context(), tr, items, openDir(t, base), upper, p)
}
