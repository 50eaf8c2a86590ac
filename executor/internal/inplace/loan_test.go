package inplace_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/inplace"
)

// lending makes the place's workspace, with files of more kinds, one that can be lent.
func (p *place) lending() *place {
	p.t.Helper()
	p.opts = lentOptions(p.opts.Dir)
	at := func(name string) string { return filepath.Join(p.opts.Dir, "workspace", name) }
	err := errors.Join(
		os.MkdirAll(at(".git/objects"), 0o755), os.WriteFile(at(".git/config"), []byte("of git"), 0o600),
		os.WriteFile(at("main.go"), []byte("package main"), 0o644), os.Symlink("main.go", at("link")), os.Link(at("main.go"), at("again")),
		os.Mkdir(at("bin"), 0o700), os.Chown(at("bin"), 5, 6), os.Chown(at(""), 1000, 1001), os.Chmod(at(""), 0o2775),
	)
	if err != nil {
		p.t.Fatal(err)
	}
	return p
}

func lentOptions(dir string) inplace.Options {
	o := optionsFor(dir)
	o.Ignore = nil
	o.Lent = []string{filepath.Join(dir, "workspace")}
	o.Keep = append(o.Keep, o.Lent...)
	return o
}

// A command sees the image's files where the context is, and none of the context's;
// who reads the context between two commands sees it as it is; in the end it is
// as it was.
func TestADirectoryIsLent(t *testing.T) {
	p := newPlace(t).lending()
	before := p.dump()
	at := func(name string) string { return filepath.Join(p.opts.Dir, "workspace", name) }
	names := func() []string {
		list, err := os.ReadDir(at(""))
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, e := range list {
			out = append(out, e.Name())
		}
		return out
	}
	r := p.root()
	base := p.layer("d etc/", "f etc/passwd base", "d workspace/", "f workspace/go.mod module", "f workspace/main.go of the image", "h workspace/same workspace/go.mod")
	p.bring(r, base)
	if err := r.Run(t.Context(), "/workspace"); err != nil {
		t.Fatal(err)
	}
	if got, want := names(), []string{inplace.AsideName, "go.mod", "main.go", "same"}; !slices.Equal(got, want) {
		t.Errorf("a command sees %q, want %q", got, want)
	}
	var st, same unix.Stat_t
	if err := errors.Join(unix.Lstat(at(""), &st), unix.Lstat(at("go.mod"), &same)); err != nil || st.Uid != 0 || st.Mode&0o7777 != 0o755 || same.Nlink != 2 {
		t.Errorf("the directory is of %d, %o, and a linked file has %d names; %v", st.Uid, st.Mode, same.Nlink, err)
	}
	p.write("workspace/made", "x")
	if err := os.CopyFS(filepath.Join(p.opts.Dir, "copy"), os.DirFS(at(""))); err != nil { // with what is put aside
		t.Fatal(err)
	}
	made, layer := p.commit(r)
	if want := []string{"copy/", "copy/go.mod", "copy/made", "copy/main.go", "copy/same", "workspace/", "workspace/made"}; !slices.Equal(slices.DeleteFunc(layer, func(n string) bool { return n == "proc/" }), want) {
		t.Errorf("the layer has %q, want %q", layer, want)
	}
	moved, err := r.Yield()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := names(), []string{".git", "Dockerfile", inplace.AsideName, "again", "bin", "link", "main.go"}; !sameSet(got, want) {
		t.Errorf("who reads the context sees %q, want %q", got, want)
	}
	if err := unix.Lstat(at("Dockerfile"), &st); err != nil {
		t.Fatal(err)
	}
	// Back and forth, and of a file with two names twice.
	if n := len(slices.DeleteFunc(moved, func(m inplace.Moved) bool { return m.Ino != st.Ino })); n != 2 {
		t.Errorf("a file was moved %d times", n)
	}
	p.bring(r, base, made, p.layer("d workspace/", "f workspace/late x"))
	if err := r.Run(t.Context(), "/workspace"); err != nil {
		t.Fatal(err)
	}
	if got, want := names(), []string{inplace.AsideName, "go.mod", "late", "made", "main.go", "same"}; !slices.Equal(got, want) {
		t.Errorf("the next command sees %q, want %q", got, want)
	}
	if _, layer := p.commit(r); len(layer) > 0 {
		t.Errorf("nothing was changed, and the layer has %q", layer)
	}
	p.bring(r, p.layer("d usr/", "f usr/f x"))
	if err := r.Run(t.Context(), "/"); err != nil {
		t.Fatal(err)
	}
	if got, want := names(), []string{inplace.AsideName}; !slices.Equal(got, want) {
		t.Errorf("another stack has %q, want %q", got, want)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if after := p.dump(); after != before {
		t.Errorf("the directory was\n%s\nand is\n%s", before, after)
	}
}

// A mount on the directory itself shows what is mounted, and the image's files are back
// after it.
func TestAMountOnALentDirectory(t *testing.T) {
	p := newPlace(t).lending()
	before := p.dump()
	r := p.root()
	p.bring(r, p.layer("d workspace/", "f workspace/go.mod module", "d workspace/vendor/", "f workspace/vendor/dep x"))
	if err := r.Run(t.Context(), "/workspace"); err != nil {
		t.Fatal(err)
	}
	source, err := r.Scratch()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Join(source, "d"), 0o755), os.Chmod(source, 0o750), os.WriteFile(filepath.Join(source, "f"), []byte("mounted"), 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		mount inplace.Mount
		want  string
	}{
		{inplace.Mount{Target: "/workspace", Source: source}, "d f"},
		{inplace.Mount{Target: "/workspace"}, ""},
		{inplace.Mount{Target: "/workspace", Source: source}, "d f left"},
	} {
		m, err := r.Mount(t.Context(), []inplace.Mount{c.mount})
		if err != nil {
			t.Fatal(err)
		}
		list, err := filepath.Glob(filepath.Join(p.opts.Lent[0], "[^.]*"))
		for i := range list {
			list[i] = filepath.Base(list[i])
		}
		if got := strings.Join(list, " "); err != nil || got != c.want {
			t.Errorf("%+v shows %q, want %q, %v", c.mount, got, c.want, err)
		}
		p.write("workspace/left", "x")
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, layer := p.commit(r); len(layer) != 1 {
		t.Errorf("the layer has %q, and nothing but proc/ was made", layer)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if after := p.dump(); after != before {
		t.Errorf("the directory was\n%s\nand is\n%s", before, after)
	}
}

func sameSet(a, b []string) bool {
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// A directory that only is the working directory is lent too; what cannot be is an error
// that says why.
func TestWhatIsLent(t *testing.T) {
	for _, c := range []struct {
		name    string
		entries []string
		workdir string
		change  func(t *testing.T, p *place)
		want    string // in the error
	}{
		{"working directory", []string{"d workspace/"}, "/workspace", nil, ""},
		{"not in the image", []string{"d usr/"}, "/workspace/sub", nil, ""},
		{"not of interest", []string{"d usr/"}, "/usr", nil, ""},
		{"a file of the image", []string{"f workspace x"}, "/", nil, "no directory"},
		{"needed", []string{"d workspace/"}, "/workspace", func(_ *testing.T, p *place) {
			p.opts.Keep = append(p.opts.Keep, filepath.Join(p.opts.Dir, "workspace/main.go"))
		}, "workspace/main.go is needed meanwhile"},
		{"in use", []string{"d workspace/"}, "/workspace", func(t *testing.T, p *place) {
			f, err := os.Open(p.opts.Lent[0])
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
				t.Fatal(err)
			}
		}, "another build has it"},
		{"a folder of that name", []string{"d workspace/"}, "/workspace", func(t *testing.T, p *place) {
			if err := os.Mkdir(filepath.Join(p.opts.Lent[0], inplace.AsideName), 0o755); err != nil {
				t.Fatal(err)
			}
		}, "exists"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlace(t).lending()
			if c.change != nil {
				c.change(t, p)
			}
			before := p.dump()
			r := p.root()
			p.bring(r, p.layer(c.entries...))
			err := r.Run(t.Context(), c.workdir)
			var hidden *inplace.HiddenError
			if c.want == "" && err != nil || c.want != "" && (!errors.As(err, &hidden) || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if _, err := r.Yield(); err != nil {
				t.Error(err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			if after := p.dump(); after != before {
				t.Errorf("the directory was\n%s\nand is\n%s", before, after)
			}
		})
	}
}

// A loan is given back when its builder was killed at any moment.
func TestKilledWithALoan(t *testing.T) { killAnywhere(t, newPlace(t).lending(), lendIn) }

// lendAgainAndAgain is the process that TestKilledWithALoan kills. It returns only
// when something fails.
func lendAgainAndAgain(dir string) (code int) {
	p := &place{opts: lentOptions(dir), blobs: map[digest.Digest][]byte{}}
	a := p.layer("d workspace/", "f workspace/main.go of the image", "d workspace/bin/", "f workspace/bin/tool x")
	b := p.layer("f workspace/bin/.wh.tool", "f workspace/new x")
	os.Stdout.WriteString("+")
	for {
		r, err := inplace.Open(p.opts)
		if err != nil {
			return 2
		}
		for _, stack := range [][]digest.Digest{{a}, {a, b}, {b}} {
			if r.Bring(context.Background(), stack, p.open) != nil || r.Run(context.Background(), "/workspace") != nil {
				return 3
			}
			if _, err := r.Yield(); err != nil {
				return 4
			}
		}
		if r.Close() != nil {
			return 5
		}
	}
}

// A loan is found where the directory is now; what looks like one, and came with the
// files, is not touched.
func TestRecoverLoan(t *testing.T) {
	p := newPlace(t).lending()
	before := p.dump()
	r := p.root()
	p.bring(r, p.layer("d workspace/", "f workspace/x y"))
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.Rename(p.opts.Lent[0], elsewhere); err != nil {
		t.Fatal(err)
	}
	if err := inplace.RecoverLoan(elsewhere); err != nil || !inplace.IsLent(elsewhere) {
		t.Errorf("a directory that a build has is taken from it: %v", err)
	}
	if err := os.Rename(elsewhere, p.opts.Lent[0]); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(elsewhere, os.DirFS(p.opts.Lent[0])); err != nil {
		t.Fatal(err)
	}
	if err := inplace.RecoverLoan(elsewhere); err != nil || inplace.IsLent(elsewhere) {
		t.Errorf("a copy counts as a loan, %v", err)
	}
	if _, err := os.Stat(filepath.Join(elsewhere, inplace.AsideName, "own/main.go")); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if after := p.dump(); after != before {
		t.Errorf("the directory was\n%s\nand is\n%s", before, after)
	}
}
