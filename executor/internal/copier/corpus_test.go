package copier_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/buildctx"
	"kaniko-build/executor/internal/copier"
	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/executor/internal/layer"
	"kaniko-build/executor/internal/rootfs"
	"kaniko-build/executor/internal/tree"
	"kaniko-build/test/conformance/corpus"
	"kaniko-build/test/image"
)

const conformance = "../../../test/conformance/"

// TestCorpus builds the cases of the conformance corpus that are about copying
// with nothing but these packages: a RUN is a chroot into a kernel overlay of
// what was placed. Results are compared with what BuildKit made.
func TestCorpus(t *testing.T) {
	needRoot(t)
	all, err := corpus.LoadAll(conformance + "cases")
	if err != nil {
		t.Fatal(err)
	}
	lab := &lab{t: t, bases: map[string]*built{}}
	for _, c := range all {
		kind, _, _ := strings.Cut(c.Name, "-")
		if kind != "copy" && kind != "add" && kind != "ignore" && kind != "workdir" {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			for _, mask := range []int{0o022, 0o077} {
				old := unix.Umask(mask)
				err := lab.build(t, c)
				unix.Umask(old)
				lab.check(t, c, err)
			}
		})
	}
}

type lab struct {
	t     *testing.T
	bases map[string]*built
	last  *built
}

// built is a file system made of layers.
type built struct {
	dirs []string // topmost first
	img  *image.Opened
	made []func() (io.ReadCloser, error) // tars of the layers above img
	spec *dockerspec.DockerOCIImage
}

func (b *built) view(t *testing.T) *rootfs.View {
	t.Helper()
	v, err := rootfs.OpenView(b.dirs...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

// base unpacks an image of the corpus.
func (l *lab) base(ref string) (*built, error) {
	name, _, _ := strings.Cut(strings.TrimPrefix(ref, "docker.io/library/"), "@")
	name, _, _ = strings.Cut(name, ":")
	if b, ok := l.bases[name]; ok {
		return b, nil
	}
	img, err := image.Open(conformance+"images#"+name, "linux/amd64")
	if err != nil {
		return nil, err
	}
	b := &built{img: img}
	raw, err := img.RawConfigFile()
	if err != nil {
		return nil, err
	}
	b.spec = &dockerspec.DockerOCIImage{}
	if err := json.Unmarshal(raw, b.spec); err != nil {
		return nil, err
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	for _, one := range layers {
		dir := l.t.TempDir()
		r, err := one.Uncompressed()
		if err != nil {
			return nil, err
		}
		o := layer.UnpackOptions{Make: layer.Maker{Devices: true}}
		done, err := layer.Unpack(context.Background(), r, dir, o)
		r.Close()
		if err != nil {
			return nil, err
		}
		below, err := rootfs.OpenView(b.dirs...)
		if err != nil {
			return nil, err
		}
		err = layer.Finish(context.Background(), dir, below, &done, o)
		below.Close()
		if err != nil {
			return nil, err
		}
		b.dirs = append([]string{dir}, b.dirs...)
	}
	l.bases[name] = b
	return b, nil
}

var errSkip = errors.New("not a case for this package")

func (l *lab) build(t *testing.T, c *corpus.Case) error {
	l.last = nil
	c, err := c.Prepare(filepath.Join(t.TempDir(), "case"))
	if err != nil {
		t.Fatal(err)
	}
	relink(t, c)
	if dir, ok := c.HasWWW(); ok {
		s, err := corpus.Serve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		s.Offer(c.Name, dir)
	}
	text, err := os.ReadFile(filepath.Join(c.Dir, c.Dockerfile))
	if err != nil {
		t.Fatal(err)
	}
	o := dockerfile.Options{Name: c.Dockerfile, Target: c.Target, Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}}
	o.BuildPlatform = o.Platform
	o.Args = map[string]*string{}
	for k, v := range c.BuildArgs {
		o.Args[k] = &v
	}
	for n := range c.NamedContexts {
		o.Contexts = append(o.Contexts, n)
	}
	f, err := dockerfile.Parse(text, o)
	if err != nil {
		return err
	}
	p, err := f.Resolve(func(r dockerfile.ImageRef) (*dockerspec.DockerOCIImage, error) {
		if r.Context != "" {
			return nil, nil
		}
		b, err := l.base(r.Ref)
		if err != nil {
			return nil, err
		}
		return b.spec, nil
	})
	if err != nil {
		return err
	}
	stages := make([]*built, len(p.Stages))
	for i := range p.Stages {
		if stages[i], err = l.stage(t, c, stages, &p.Stages[i]); err != nil {
			return err
		}
	}
	l.last = stages[len(stages)-1]
	return nil
}

// relink makes the links of a case anew that was stored without links.
func relink(t *testing.T, c *corpus.Case) {
	t.Helper()
	if c.Name != "copy-symlink-escape" {
		return
	}
	for _, n := range []string{"abs", "out"} {
		p := filepath.Join(c.Dir, "context", n)
		b, err := os.ReadFile(p)
		if err != nil {
			continue
		}
		if err := errors.Join(os.Remove(p), os.Symlink(string(b), p)); err != nil {
			t.Fatal(err)
		}
	}
}

func (l *lab) stage(t *testing.T, c *corpus.Case, done []*built, s *dockerfile.Stage) (*built, error) {
	b := &built{}
	switch s.Base.Kind {
	case dockerfile.FromImage:
		base, err := l.base(s.Base.Image.Ref)
		if err != nil {
			return nil, err
		}
		*b = *base
	case dockerfile.FromStage:
		*b = *done[s.Base.Stage]
	}
	for _, st := range s.Steps {
		if st.Run == nil && st.Copy == nil && st.Workdir == nil {
			continue
		}
		view := b.view(t)
		upper := filepath.Join(t.TempDir(), "upper")
		if err := (rootfs.Stack{Dirs: b.dirs}).NewUpper(upper); err != nil {
			t.Fatal(err)
		}
		owners := map[string][2]uint32{}
		var err error
		switch {
		case st.Run != nil:
			err = l.run(t, b, upper, st.Run)
		case st.Copy != nil:
			err = l.copy(t, c, done, view, upper, owners, st.Copy)
		default:
			var own *[2]uint32
			if own, err = copier.LookupOwner(t.Context(), view, st.Workdir.User); err == nil {
				var when *time.Time
				if e := st.Workdir.Epoch; e != nil {
					t := time.Unix(*e, 0)
					when = &t
				}
				err = copier.Mkdirs(t.Context(), view, upper, st.Workdir.Path, own, when, layer.Maker{Devices: true})
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%v: %w", st.Pos, err)
		}
		b.made = append(b.made[:len(b.made):len(b.made)], func() (io.ReadCloser, error) {
			var buf bytes.Buffer
			_, err := layer.Pack(context.Background(), &buf, upper, view, layer.PackOptions{Owners: owners})
			return io.NopCloser(&buf), err
		})
		b.dirs = append([]string{upper}, b.dirs...)
		sameAsKernel(t, b.dirs)
	}
	return b, nil
}

func (l *lab) source(t *testing.T, c *corpus.Case, done []*built, s dockerfile.Source) (tree.Tree, error) {
	switch s.Kind {
	case dockerfile.FromScratch:
		return copier.Empty, nil
	case dockerfile.FromStage:
		return done[s.Stage].view(t), nil
	case dockerfile.FromImage:
		b, err := l.base(s.Image.Ref)
		if err != nil {
			return nil, err
		}
		return b.view(t), nil
	}
	dir, o := filepath.Join(c.Dir, "context"), buildctx.Options{}
	if s.Context != "" {
		name, ok := strings.CutPrefix(c.NamedContexts[s.Context], "dir:")
		if !ok {
			return nil, errSkip
		}
		dir = filepath.Join(c.Dir, name)
	} else if data, err := os.ReadFile(filepath.Join(c.Dir, c.Dockerfile+".dockerignore")); err == nil {
		o.Ignore = &buildctx.Ignore{Name: c.Dockerfile + ".dockerignore", Data: data}
	}
	d, err := buildctx.Open(t.Context(), dir, o)
	if errors.Is(err, fs.ErrNotExist) {
		return copier.Empty, nil
	}
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { d.Close() })
	return d, nil
}

func (l *lab) copy(t *testing.T, c *corpus.Case, done []*built, view tree.Tree, upper string, owners map[string][2]uint32, cp *dockerfile.Copy) error {
	ctx := t.Context()
	base := view
	if cp.Link {
		base = copier.Empty
	}
	chmod, err := copier.ParseChmod(cp.Chmod)
	if err != nil {
		return err
	}
	owner, err := copier.LookupOwner(ctx, base, cp.Chown)
	if err != nil {
		return err
	}
	p := copier.Placement{Dest: cp.Dest, Owner: owner, Chmod: chmod, Make: layer.Maker{Devices: true}, Owners: owners}
	draft := copier.NewDraft(base)
	drawn := len(cp.Remote) == 0 && cp.From.Kind != dockerfile.FromStage && cp.From.Kind != dockerfile.FromImage
	place := func(src tree.Tree, s copier.Select, unpack bool) error {
		items, err := copier.Find(ctx, src, s)
		if err != nil {
			return err
		}
		p := p
		p.Unpack = unpack
		err = copier.Place(ctx, src, items, base, upper, p)
		if drawn {
			derr := draft.Place(ctx, src, items, p)
			if drawn = !errors.Is(derr, copier.ErrNotDrawn); drawn && fmt.Sprint(derr) != fmt.Sprint(err) {
				t.Errorf("the error of a draft is %v, that of an upper %v", derr, err)
			}
		}
		return err
	}
	unpack := cp.Add
	if cp.Unpack != nil {
		unpack = *cp.Unpack
	}
	if len(cp.Sources) > 0 {
		src, err := l.source(t, c, done, cp.From)
		if err != nil {
			return err
		}
		if err := place(src, copier.Select{Patterns: cp.Sources, Exclude: cp.Exclude, Parents: cp.Parents}, unpack); err != nil {
			return err
		}
	}
	for _, r := range cp.Remote {
		d, err := fetch(t, r)
		if err != nil {
			return err
		}
		name := r.Name
		if r.Git != nil {
			name = "/"
		}
		if err := place(d, copier.Select{Patterns: []string{name}, Exclude: cp.Exclude, Literal: true}, cp.Unpack != nil && *cp.Unpack); err != nil {
			return err
		}
	}
	for _, f := range cp.Inline {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(f.Path)), []byte(f.Data), os.FileMode(f.Mode)); err != nil {
			return err
		}
		if err := os.Chmod(filepath.Join(dir, filepath.Base(f.Path)), os.FileMode(f.Mode)); err != nil {
			return err
		}
		// Equal ones have one time, others another.
		when := time.Unix(time.Now().Unix()/3600*3600, 1+int64(crc32.ChecksumIEEE(append([]byte(f.Path+"\x00"), f.Data...)))%999_999_999)
		if err := os.Chtimes(filepath.Join(dir, filepath.Base(f.Path)), when, when); err != nil {
			return err
		}
		if err := place(openDir(t, dir), copier.Select{Patterns: []string{f.Path}, Literal: true}, false); err != nil {
			return err
		}
	}
	if drawn {
		sameAsDraft(t, upper, base, draft)
	}
	return nil
}

func fetch(t *testing.T, r dockerfile.Remote) (tree.Tree, error) {
	f := &buildctx.Fetcher{Dir: t.TempDir()}
	if r.Git == nil {
		got, err := f.Get(t.Context(), r.URL, r.Name, r.Checksum)
		if err != nil {
			return nil, err
		}
		return got.Tree()
	}
	repo := buildctx.Repo{Remote: r.Git.Remote, Ref: r.Git.Ref, Subdir: r.Git.Subdir, Checksum: r.Git.Checksum, KeepGitDir: r.Git.KeepGitDir, NoSubmodules: r.Git.NoSubmodules, FetchByCommit: r.Git.FetchByCommit}
	c, err := f.Commit(t.Context(), repo)
	if err != nil {
		return nil, err
	}
	d, err := f.Checkout(t.Context(), repo, c)
	if err == nil {
		t.Cleanup(func() { d.Close() })
	}
	return d, err
}

// run runs a command in an overlay.
func (l *lab) run(t *testing.T, b *built, upper string, r *dockerfile.Run) error {
	if len(r.Mounts) > 0 || len(r.Files) > 0 || r.User != "" && r.User != "root" {
		return errSkip
	}
	at := mount(t, append([]string{upper}, b.dirs...), true)
	defer unix.Unmount(at, unix.MNT_DETACH)
	cmd := exec.CommandContext(t.Context(), r.Argv[0], r.Argv[1:]...)
	cmd.Env = r.Env
	cmd.Dir = r.Dir
	cmd.SysProcAttr = chroot(at)
	mask := unix.Umask(0o022)
	out, err := cmd.CombinedOutput()
	unix.Umask(mask)
	if err != nil {
		return fmt.Errorf("%q: %w: %s", r.Argv, err, out)
	}
	return nil
}

func (l *lab) check(t *testing.T, c *corpus.Case, err error) {
	t.Helper()
	if errors.Is(err, errSkip) {
		t.Skip(err)
	}
	if c.Expect == "error" {
		if err == nil {
			t.Fatalf("built, want an error with %q", c.Errors)
		}
		for _, alt := range c.Errors {
			ok := false
			for _, w := range strings.Split(alt, "|") {
				ok = ok || strings.Contains(err.Error(), w)
			}
			if !ok {
				t.Errorf("error %q does not say %q", err, alt)
			}
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	want, err := image.ReadDump(filepath.Join(c.Dir, "golden.json"))
	if err != nil {
		t.Fatal(err)
	}
	img := mutate.MediaType(empty.Image, "application/vnd.oci.image.manifest.v1+json")
	if l.last.img != nil {
		img = l.last.img.Image
	}
	for _, open := range l.last.made {
		one, err := tarball.LayerFromOpener(open)
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, one); err != nil {
			t.Fatal(err)
		}
	}
	got, err := image.DescribeLike(&image.Opened{Image: img}, want, "")
	if err != nil {
		t.Fatal(err)
	}
	got.Config, got.History, got.Platform, got.Author, got.Created = want.Config, want.History, want.Platform, want.Author, want.Created
	for _, d := range image.Diff(want, got, image.DiffOptions{MTime: c.MTime, Layers: c.Layers == "check", IgnorePaths: image.DefaultIgnorePaths}) {
		t.Error(d)
	}
}
