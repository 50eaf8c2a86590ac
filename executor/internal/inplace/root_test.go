package inplace_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/inplace"
	"kaniko-build/executor/internal/layer"
	"kaniko-build/executor/internal/tree"
)

// place is a directory that stands for the root of a container, with own files.
type place struct {
	t     testing.TB
	opts  inplace.Options
	blobs map[digest.Digest][]byte
}

func newPlace(t testing.TB) *place {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("this needs root: files of several owners")
	}
	dir := filepath.Join(t.TempDir(), "root")
	p := &place{t: t, blobs: map[digest.Digest][]byte{}}
	for name, text := range map[string]string{
		"etc/hosts": "own hosts", "etc/passwd": "own passwd", "bin/sh": "own sh", "workspace/Dockerfile": "FROM x", "kaniko/executor": "elf", "var/run/secrets/token": "t",
	} {
		f := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(dir+"/proc", 0o555), os.Chmod(dir+"/etc", 0o711)); err != nil {
		t.Fatal(err)
	}
	p.opts = optionsFor(dir)
	return p
}

func optionsFor(dir string) inplace.Options {
	o := inplace.Options{Dir: dir, Hide: filepath.Join(dir, ".kaniko-build"), Make: layer.Maker{Devices: true}}
	for _, k := range []string{"etc/hosts", "kaniko", "proc", "var/run/secrets"} {
		o.Keep = append(o.Keep, filepath.Join(dir, k))
	}
	o.Ignore = []string{filepath.Join(dir, "workspace")}
	return o
}

func (p *place) root() *inplace.Root {
	p.t.Helper()
	r, err := inplace.Open(p.opts)
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

// layer makes a blob of entries like "d name", "f name text", "l name target".
func (p *place) layer(entries ...string) digest.Digest {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		kind, rest, _ := strings.Cut(e, " ")
		name, arg, _ := strings.Cut(rest, " ")
		h := &tar.Header{Name: name, Mode: 0o755, ModTime: time.Unix(1000, 0), Typeflag: tar.TypeDir}
		switch kind {
		case "f":
			h.Typeflag, h.Mode, h.Size = tar.TypeReg, 0o644, int64(len(arg))
		case "l":
			h.Typeflag, h.Linkname = tar.TypeSymlink, arg
		case "h":
			h.Typeflag, h.Linkname, h.Mode = tar.TypeLink, arg, 0o644
		}
		if err := w.WriteHeader(h); err != nil {
			panic(err)
		}
		if kind == "f" {
			if _, err := io.WriteString(w, arg); err != nil {
				panic(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	id := digest.FromBytes(b.Bytes())
	p.blobs[id] = b.Bytes()
	return id
}

func (p *place) open(_ context.Context, id digest.Digest) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(p.blobs[id])), nil
}

func (p *place) bring(r *inplace.Root, stack ...digest.Digest) {
	p.t.Helper()
	if err := r.Bring(p.t.Context(), stack, p.open); err != nil {
		p.t.Fatal(err)
	}
}

// commit packs what was changed since Run and names its entries.
func (p *place) commit(r *inplace.Root) (digest.Digest, []string) {
	p.t.Helper()
	changes, err := r.Changes(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	var b bytes.Buffer
	h := sha256.New()
	if _, err := layer.PackChanges(p.t.Context(), io.MultiWriter(&b, h), r.Dir(), slices.Values(changes), layer.PackOptions{Contents: r.Contents()}); err != nil {
		p.t.Fatal(err)
	}
	id := digest.NewDigest(digest.SHA256, h)
	p.blobs[id] = bytes.Clone(b.Bytes())
	r.Keep(id, false)
	var names []string
	for in := tar.NewReader(&b); ; {
		h, err := in.Next()
		if err == io.EOF {
			return id, names
		}
		if err != nil {
			p.t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}

// dump describes a tree: mode, owner, size and name of everything, but for
// times of directories.
func dump(t testing.TB, tr tree.Tree) string {
	t.Helper()
	var b strings.Builder
	err := tree.Walk(t.Context(), tr, "", func(name string, e tree.Entry) error {
		fmt.Fprintf(&b, "%o %d:%d %d %s", e.Mode, e.UID, e.GID, e.Size, name)
		if e.IsLink() {
			b.WriteString(" -> " + e.Link)
		}
		if e.IsRegular() {
			f, err := tr.Open(t.Context(), name)
			if err != nil {
				return err
			}
			defer f.Close()
			text, err := io.ReadAll(f)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %q %d", text, e.ModTime.Unix())
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func (p *place) dump() string {
	p.t.Helper()
	d, err := tree.OpenDir(p.opts.Dir, tree.DirOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
	defer d.Close()
	return dump(p.t, d)
}

// TestKilledAnywhere kills a process that switches stacks again and again, at
// moments that differ, and looks whether Recover makes good what it left.
func TestKilledAnywhere(t *testing.T) { killAnywhere(t, newPlace(t), switchIn) }

func killAnywhere(t *testing.T, p *place, what string) {
	t.Helper()
	before := p.dump()
	for i := range 25 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestMain$")
		cmd.Env = append(os.Environ(), what+"="+p.opts.Dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, 1)); err != nil { // it has begun
			t.Fatal(err)
		}
		time.AfterFunc(time.Duration(i*i)*50*time.Microsecond, func() { cmd.Process.Kill() })
		cmd.Wait()
		if err := errors.Join(inplace.Recover(p.opts), inplace.RecoverLoans(p.opts.Lent...)); err != nil {
			t.Fatal(err)
		}
		if after := p.dump(); after != before {
			t.Fatalf("kill %d: the directory was\n%s\nand is\n%s", i, before, after)
		}
	}
}

// Variables with the directory in which a process switches stacks, of the place as it
// is, or with its workspace lent.
const (
	switchIn = "KANIKO_BUILD_TEST_SWITCH"
	lendIn   = "KANIKO_BUILD_TEST_LEND"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(lendIn); dir != "" {
		os.Exit(lendAgainAndAgain(dir))
	}
	dir := os.Getenv(switchIn)
	if dir == "" {
		os.Exit(m.Run())
	}
	p := &place{opts: optionsFor(dir), blobs: map[digest.Digest][]byte{}}
	a := p.layer("d etc/", "f etc/passwd base", "d usr/", "f usr/1 one", "f usr/2 two", "d var/", "d var/run/", "f var/run/x y", "f workspace/z z")
	b := p.layer("f usr/.wh.1", "f etc/.wh.passwd", "f etc/.wh..wh..opq", "f bin/sh of b")
	os.Stdout.WriteString("+")
	for {
		r, err := inplace.Open(p.opts)
		if err != nil {
			os.Exit(2)
		}
		for _, stack := range [][]digest.Digest{{a}, {a, b}, {b}} {
			if r.Bring(context.Background(), stack, p.open) != nil {
				os.Exit(3)
			}
			m, err := r.Mount(context.Background(), []inplace.Mount{{Target: "/etc/hosts", Data: []byte("for the step")}, {Target: "/usr", Mode: 0o755}})
			if err != nil || m.Close() != nil {
				os.Exit(4)
			}
		}
		if r.Close() != nil {
			os.Exit(5)
		}
	}
}

func (p *place) write(name, text string) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.opts.Dir, name), []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

func TestRootShowsItsStackOnlyAndGivesTheDirectoryBack(t *testing.T) {
	p := newPlace(t)
	before := p.dump()
	r := p.root()
	base := p.layer("d etc/", "f etc/passwd base", "f etc/hosts base", "d bin/", "f bin/sh base", "f bin/tool x", "d proc/", "d workspace/", "f workspace/mine y", "l var/run /run", "d run/")
	p.bring(r, base)
	want := `40755 0:0 0 
40755 0:0 0 bin
100644 0:0 4 bin/sh "base" 1000
100644 0:0 1 bin/tool "x" 1000
40755 0:0 0 etc
100644 0:0 4 etc/passwd "base" 1000
40755 0:0 0 proc
40755 0:0 0 run
40755 0:0 0 var
40755 0:0 0 workspace
`
	if got := dump(t, r.Tree()); got != want {
		t.Errorf("the root shows\n%s\nwant\n%s", got, want)
	}
	if err := r.Run(t.Context(), "/"); err != nil {
		t.Fatal(err)
	}
	p.write("bin/sh", "changed")
	p.write("workspace/new", "of a spot")
	p.write("etc/new", "x")
	if err := os.Remove(filepath.Join(p.opts.Dir, "bin/tool")); err != nil {
		t.Fatal(err)
	}
	_, names := p.commit(r)
	if want := []string{"bin/", "bin/sh", "bin/.wh.tool", "etc/", "etc/new"}; !slices.Equal(names, want) {
		t.Errorf("the layer has %v, want %v", names, want)
	}
	if err := os.Remove(filepath.Join(p.opts.Dir, "workspace/new")); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if after := p.dump(); after != before {
		t.Errorf("the directory was\n%s\nand is\n%s", before, after)
	}
}

func TestBringExtendsOrBeginsAnew(t *testing.T) {
	p := newPlace(t)
	r := p.root()
	defer r.Close()
	a := p.layer("d a/", "f a/1 one", "f a/2 two", "d b/", "f b/x x", "h b/y b/x")
	b := p.layer("d a/", "f a/.wh.1", "f a/3 three", "f a/2 changed", "d b/", "f b/.wh..wh..opq", "f b/z z")
	c := p.layer("f deep/new/file x", "h deep/link a/3")
	for _, stack := range [][]digest.Digest{{a}, {a, b}, {a}, {b}, {a, b, c}} {
		p.bring(r, stack...)
		fresh := newPlace(t)
		fresh.blobs = p.blobs
		other := fresh.root()
		fresh.bring(other, stack...)
		if got, want := dump(t, r.Tree()), dump(t, other.Tree()); got != want {
			t.Errorf("%d layers:\n%s\nin a fresh root:\n%s", len(stack), got, want)
		}
		if err := other.Close(); err != nil {
			t.Fatal(err)
		}
		if e, err := r.Tree().Lstat(t.Context(), "a"); len(stack) == 2 && (err != nil || e.ModTime.Unix() != 1000) {
			t.Errorf("a directory of the upper layer has another time: %v, %v", e.ModTime, err)
		}
	}
	want := `40755 0:0 0 
40755 0:0 0 a
100644 0:0 7 a/2 "changed" 1000
100644 0:0 5 a/3 "three" 1000
40755 0:0 0 b
100644 0:0 1 b/z "z" 1000
40755 0:0 0 deep
100644 0:0 5 deep/link "three" 1000
40755 0:0 0 deep/new
100644 0:0 1 deep/new/file "x" 1000
`
	if got := dump(t, r.Tree()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if err := r.Bring(t.Context(), []digest.Digest{"sha256:" + digest.Digest(strings.Repeat("0", 64))}, p.open); err == nil {
		t.Error("a blob with another digest is taken")
	}
	p.bring(r, a)
	if _, err := r.Tree().Lstat(t.Context(), "deep"); err == nil {
		t.Error("what a failed stack left is still there")
	}
}

// A directory that somebody works in is there all the time, without what is in it.
func TestADirectoryThatStays(t *testing.T) {
	p := newPlace(t)
	p.opts.Stay = []string{filepath.Join(p.opts.Dir, "home/me"), filepath.Join(p.opts.Dir, "nowhere")}
	if err := os.MkdirAll(filepath.Join(p.opts.Dir, "home/me/.cache"), 0o700); err != nil {
		t.Fatal(err)
	}
	inode := func() (st unix.Stat_t) {
		if err := unix.Lstat(filepath.Join(p.opts.Dir, "home/me"), &st); err != nil {
			t.Error(err)
		}
		return st
	}
	before, own := p.dump(), inode()
	r := p.root()
	for _, c := range []struct {
		entries []string
		do      string // a shell command
		want    []string
	}{
		{[]string{"f zz x"}, "test -d home/me; test -z $(ls -A home/me); mkdir -p home/me", []string{"proc/"}},
		{[]string{"f zz y"}, "echo x >home/me/f", []string{"home/", "home/me/", "home/me/f", "proc/"}},
		{[]string{"d home/", "d home/me/", "f home/me/f x", "d proc/"}, "rm home/me/f", []string{"home/", "home/me/", "home/me/.wh.f"}},
		{[]string{"d home/", "d home/me/", "f home/me/f x", "d home/you/", "d proc/"}, "rm -r home/me", []string{"home/", "home/.wh.me"}},
	} {
		p.bring(r, p.layer(c.entries...))
		if err := r.Run(t.Context(), "/home/me"); err != nil {
			t.Fatal(err)
		}
		if ino := inode().Ino; ino != own.Ino {
			t.Errorf("%s: another directory is in its place", c.do)
		}
		m, err := r.Mount(t.Context(), []inplace.Mount{{Target: "/home/me", Mode: 0o755}})
		if err == nil {
			err = m.Close()
		}
		if err != nil {
			t.Error(err)
		}
		cmd := exec.Command("/bin/sh", "-ec", c.do)
		cmd.Dir = p.opts.Dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v, %s", c.do, err, out)
		}
		if _, names := p.commit(r); !slices.Equal(names, c.want) {
			t.Errorf("%s: the layer has %q, want %q", c.do, names, c.want)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if after := p.dump(); after != before {
		t.Errorf("the directory was\n%s\nand is\n%s", before, after)
	}
}

// What a command would not see as it should makes it fail, and is named.
func TestFilesOfTheStackAreNotHiddenInSilence(t *testing.T) {
	p := newPlace(t)
	r := p.root()
	defer r.Close()
	for _, c := range []struct {
		entries []string
		workdir string
		want    string
	}{
		{[]string{"d kaniko/"}, "/", ""},
		{[]string{"d kaniko/"}, "/kaniko", "/kaniko"},
		{[]string{"d kaniko/", "l k kaniko"}, "/k/new", "/kaniko"},
		{[]string{"d kaniko/", "f kaniko/mine x"}, "/", "/kaniko"},
		{[]string{"f kaniko x"}, "/", "/kaniko"},
		{[]string{"f etc/hosts x", "f workspace/x y", "d proc/"}, "/workspace", ""},
		{[]string{"f var/run/secrets/a b"}, "/", "/var/run/secrets"},
		{[]string{"d var/run/", "f var/run/a b"}, "/var/run", ""},
	} {
		p.bring(r, p.layer(c.entries...))
		err := r.Run(t.Context(), c.workdir)
		var hidden *inplace.HiddenError
		if got := errors.As(err, &hidden); got != (c.want != "") || got && hidden.Path != c.want {
			t.Errorf("%q in %s: %v, want %q", c.entries, c.workdir, err, c.want)
		}
	}
}

// What is to be ignored need not be there, nor the directories above it.
func TestWhatIsIgnoredNeedNotBeThere(t *testing.T) {
	p := newPlace(t)
	p.opts.Ignore = []string{filepath.Join(p.opts.Dir, "opt/deep/nothing")}
	r := p.root()
	defer r.Close()
	p.bring(r, p.layer("d opt/", "d opt/deep/", "f opt/deep/file x", "d opt/deep/nothing/", "f opt/deep/nothing/f x"))
	if err := r.Run(t.Context(), "/"); err != nil {
		t.Fatal(err)
	}
	p.write("opt/deep/file", "y")
	if _, names := p.commit(r); !slices.Equal(names, []string{"opt/", "opt/deep/", "opt/deep/file", "proc/"}) {
		t.Errorf("the layer has %q", names)
	}
}

// A command in an empty root leaves the directories that every container has.
func TestStandardDirectories(t *testing.T) {
	p := newPlace(t)
	r := p.root()
	defer r.Close()
	p.bring(r, p.layer("f zz x", "f a x"))
	for i, want := range [][]string{{"proc/", "tmp/"}, nil} {
		if err := r.Run(t.Context(), "/"); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if err := os.Mkdir(filepath.Join(p.opts.Dir, "tmp"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if _, names := p.commit(r); !slices.Equal(names, want) {
			t.Errorf("step %d: the layer has %v, want %v", i, names, want)
		}
	}
}

func TestMountsAreImitatedAndLeaveNothing(t *testing.T) {
	p := newPlace(t)
	before := p.dump()
	r := p.root()
	p.bring(r, p.layer("d etc/", "d data/", "f data/below x", "d app/", "f app/conf text", "l lnk /data", "d closed/"))
	if err := os.Chmod(filepath.Join(p.opts.Dir, "closed"), 0o710); err != nil {
		t.Fatal(err)
	}
	cache, err := r.Scratch()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := r.Run(t.Context(), "/"); err != nil {
		t.Fatal(err)
	}
	m, err := r.Mount(t.Context(), []inplace.Mount{
		{Target: "/etc/hosts", Data: []byte("for the step"), Mode: 0o644},
		{Target: "/lnk", Source: cache},
		{Target: "/new/dir/scratch", Mode: 0o1777},
		{Target: "/app/conf", Data: []byte("over"), Mode: 0o400, UID: 5, GID: 6},
		{Target: "/run/secrets/s", Data: []byte("hush"), Secret: true, Mode: 0o400, UID: 7},
		{Target: "/closed"},
		{Target: "/nothing"},
	})
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(p.opts.Dir, name) }
	for name, want := range map[string]string{"etc/hosts": "for the step", "app/conf": "over", "run/secrets/s": "hush"} {
		if b, err := os.ReadFile(at(name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	var st unix.Stat_t
	for name, mode := range map[string]uint32{"new/dir/scratch": 0o1777, "closed": 0o710, "nothing": 0o1777} {
		if err := unix.Lstat(at(name), &st); err != nil || st.Mode != unix.S_IFDIR|mode {
			t.Errorf("%s: %v, mode %o, want %o", name, err, st.Mode, mode)
		}
	}
	link, err := os.Readlink(at("run/secrets/s"))
	if err != nil || unix.Stat(link, &st) != nil || st.Uid != 7 || st.Mode != unix.S_IFREG|0o400 {
		t.Errorf("the secret is at %s, %v, %+v", link, err, st)
	}
	p.write("data/kept", "by the cache")
	p.write("new/dir/scratch/f", "dropped")
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(link); err == nil {
		t.Error("the secret is still in memory")
	}
	if b, err := os.ReadFile(filepath.Join(cache, "kept")); err != nil || string(b) != "by the cache" {
		t.Errorf("the cache has %q, %v", b, err)
	}
	if _, names := p.commit(r); !slices.Equal(names, []string{"proc/"}) {
		t.Errorf("the layer has %v", names)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if after := p.dump(); after != before {
		t.Errorf("the directory was\n%s\nand is\n%s", before, after)
	}
}

// TestAnEndingContainerKeepsWhatWouldBeDeleted, but for what is large, has its own files
// back all the same, and the rest is gone when it is started once more.
func TestAnEndingContainerKeepsWhatWouldBeDeleted(t *testing.T) {
	p := newPlace(t)
	before := p.dump()
	base := p.layer("d etc/", "f etc/passwd base", "d bin/", "f bin/sh base")
	p.opts.Ends = true
	r := p.root()
	p.bring(r, base)
	p.bring(r, base, p.layer("f other x", "f bin/large "+strings.Repeat("0123456789abcdef", 1<<16)))
	if err := errors.Join(r.Close(), inplace.Recover(p.opts)); err != nil {
		t.Fatal(err)
	}
	kept := map[string]bool{}
	if err := filepath.WalkDir(filepath.Join(p.opts.Hide, "gone"), func(_ string, e fs.DirEntry, err error) error {
		if err == nil {
			kept[e.Name()] = true
		}
		return err
	}); err != nil {
		t.Errorf("it was deleted: %v", err)
	}
	if !kept["sh"] || kept["large"] {
		t.Errorf("kept are %v", kept)
	}
	p.opts.Ends = false
	if err := inplace.Recover(p.opts); err != nil {
		t.Fatal(err)
	}
	if after := p.dump(); after != before {
		t.Errorf("the directory was\n%s\nand is\n%s", before, after)
	}
	again := p.root()
	p.bring(again, base)
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if after := p.dump(); after != before {
		t.Errorf("the directory was\n%s\nand after the second build is\n%s", before, after)
	}
}

// TestWhatIsOfferedIsMovedIn brings layers from directories that hold them: over the
// stack that they were made for, once, and otherwise from their blobs.
func TestWhatIsOfferedIsMovedIn(t *testing.T) {
	p := newPlace(t)
	base := p.layer("d etc/", "f etc/passwd base", "d old/", "f old/x base", "f gone base")
	top := p.layer("d etc/", "f etc/new x", "d big/", "d big/deep/", "f big/deep/f y", "d old/", "f old/.wh..wh..opq ", "f .wh.gone ")
	offered := func(r *inplace.Root, stack ...digest.Digest) string {
		dir, err := r.Scratch()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		done, err := layer.Unpack(t.Context(), bytes.NewReader(p.blobs[top]), dir, layer.UnpackOptions{Make: p.opts.Make, Contents: r.Contents()})
		if err != nil || !done.Hides {
			t.Fatal(done, err)
		}
		if !r.Offer(stack, dir, true) {
			t.Fatal("not taken")
		}
		return dir
	}
	want := func() string {
		r := p.root()
		p.bring(r, base, top)
		defer r.Close()
		return dump(t, r.Tree())
	}()
	r := p.root()
	p.bring(r, base)
	dir := offered(r, base, top)
	p.bring(r, base, top)
	if got := dump(t, r.Tree()); got != want {
		t.Errorf("the root shows\n%s\nwant\n%s", got, want)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was offered is still there: %v", err)
	}
	if err := r.Run(t.Context(), "/"); err != nil {
		t.Fatal(err)
	}
	p.write("etc/after", "z")
	if _, names := p.commit(r); !slices.Equal(names, []string{"etc/", "etc/after", "proc/"}) {
		t.Errorf("a step after it changed %v", names)
	}
	p.bring(r, base) // anew, and once more without the offer
	p.bring(r, base, top)
	if got := dump(t, r.Tree()); got != want {
		t.Errorf("the second time the root shows\n%s\nwant\n%s", got, want)
	}
	other := p.layer("f other x")
	dir = offered(r, other, top)
	p.bring(r, base, top)
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("it was used for another stack: %v", err)
	}
	if r.Offer([]digest.Digest{base}, "/proc", false) {
		t.Error("a directory of another file system was taken")
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}
