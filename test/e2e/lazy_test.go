package e2e

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"kaniko-build/test/image"
	"kaniko-build/test/mirror"
	"kaniko-build/test/rig"
)

// base is an image of two layers on busybox, of which one removes, links and
// hides. It is put into a registry as library/lazybase.
func base(t *testing.T, reg *rig.Registry) {
	t.Helper()
	from, err := name.ParseReference(reg.Addr+"/library/busybox", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(from)
	if err != nil {
		t.Fatal(err)
	}
	layers := [][]tar.Header{{
		{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644, Uname: "root:x:0:0::/root:/bin/sh\napp:x:7:8::/srv:/bin/sh\n"},
		{Name: "etc/group", Typeflag: tar.TypeReg, Mode: 0o644, Uname: "root:x:0:\nstaff:x:50:\n"},
		{Name: "srv/", Typeflag: tar.TypeDir, Mode: 0o2750, Uid: 7, Gid: 50},
		{Name: "srv/same", Typeflag: tar.TypeReg, Mode: 0o644, Uname: "same"},
		{Name: "old/f", Typeflag: tar.TypeReg, Mode: 0o644},
		{Name: "hidden/f", Typeflag: tar.TypeReg, Mode: 0o644},
		{Name: "real/", Typeflag: tar.TypeDir, Mode: 0o700, Uid: 7},
	}, {
		{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755, Uid: 7}, // the root's own entry counts nowhere
		{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "real"},
		{Name: "srv/deep/er/f", Typeflag: tar.TypeReg, Mode: 0o600},
		{Name: ".wh.old", Typeflag: tar.TypeReg},
		{Name: "hidden/.wh..wh..opq", Typeflag: tar.TypeReg},
	}}
	for _, headers := range layers {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range headers {
			body := h.Uname
			h.Uname, h.Size = "", int64(len(body))
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write([]byte(body)); err != nil {
				t.Fatal(err)
			}
		}
		w.Close()
		l, err := tarball.LayerFromReader(&b, tarball.WithMediaType(types.OCILayer)) //nolint:staticcheck // it is small
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.Append(img, mutate.Addendum{Layer: l, History: v1.History{CreatedBy: "test"}}); err != nil {
			t.Fatal(err)
		}
	}
	to, err := name.ParseReference(reg.Addr+"/library/lazybase", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(to, img); err != nil {
		t.Fatal(err)
	}
}

// unpacked counts the layers that lie unpacked in a state: of those in it of its
// own steps, each has one.
func unpacked(t *testing.T, state string) int {
	t.Helper()
	roots, err := filepath.Glob(filepath.Join(state, "layers", "*", "*", "fs"))
	if err != nil {
		t.Fatal(err)
	}
	return len(roots)
}

// copyOnly is a stage of ownSteps steps that copy, with whatever may ask the
// base for something.
const (
	baseLayers = 3
	ownSteps   = 8
	copyOnly   = `FROM lazybase
COPY --chown=app:staff a /srv/a
COPY a link/
WORKDIR /srv/new/dir
COPY tree /hidden/
COPY a /old/f
ADD a /srv/deep/er/
COPY --chmod=640 a /hidden/tree/b
COPY --link a /linked/a
`
)

// TestCopyNeedsNoBase builds stages that only copy: on a new machine each layer
// of the base is read once and none is unpacked, where the index is known no byte
// of it is asked for, and the image is the one that is built on unpacked layers.
func TestCopyNeedsNoBase(t *testing.T) {
	rig.NeedRoot(t)
	for _, kind := range []rig.Kind{rig.Superuser, rig.Single} {
		t.Run(string(kind), func(t *testing.T) {
			reg := rig.StartMirror(t, mirror.Busybox)
			base(t, reg)
			a, binary := rig.NewAccount(t, kind), rig.Binary(t)
			dir := rig.Space(t, nil)
			// build makes the image of a Dockerfile and pushes it to a repository that
			// nobody has pushed to before.
			build := func(state, repo, dockerfile string) (*image.Dump, rig.Output) {
				t.Helper()
				rig.Write(t, dir, map[string]string{
					"a": "a\n", "tree/x": "x\n", "tree/y/z": "z\n", "Dockerfile": dockerfile,
					"kaniko-build.yaml": fmt.Sprintf("version: 1\nregistries: {docker.io: {mirrors: [%q]}}\ntargets:\n  it: {image: %s}\n", reg.Addr, repo),
				})
				rig.Give(t, dir, a)
				o := a.Must(t, rig.Call{Dir: dir, Env: []string{"KANIKO_BUILD_STATE=" + state}}, binary, "apply", "--push", "--progress", "plain")
				accepted(t, repo)
				return describe(t, repo), o
			}
			state := func() string { return filepath.Join(rig.Space(t, a), "state") }
			pulled := func() []string { return reg.Requests(t, "\"GET /v2/library/lazybase/blobs/") }
			mounted := func(repo string) int {
				return len(reg.Requests(t, "\"POST /v2/"+repo+"/blobs/uploads/", "from=library%2Flazybase", "\" 201 "))
			}

			// Where a RUN comes first everything is unpacked: what is right is seen there.
			full := state()
			want, _ := build(full, reg.Addr+"/full", strings.Replace(copyOnly, "\n", "\nRUN true\n", 1))
			if n := unpacked(t, full); n != baseLayers+1+ownSteps {
				t.Fatalf("%d layers are unpacked for a RUN", n)
			}

			lazy := state()
			before := len(pulled())
			got, _ := build(lazy, reg.Addr+"/lazy", copyOnly)
			same(t, "index not known", want, got)
			first := paths(pulled()[before:])
			if n := len(slices.Compact(slices.Sorted(slices.Values(first)))); n != baseLayers+1 || len(first) != n { // the config too
				t.Errorf("%d requests for %d blobs of the base: %q", len(first), n, first)
			}
			if n := unpacked(t, lazy); n != ownSteps {
				t.Errorf("%d layers are unpacked, not only those of %d steps", n, ownSteps)
			}

			// Another machine that knows the indexes only.
			known := state()
			if err := os.MkdirAll(known, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(filepath.Join(known, "indexes"), os.DirFS(filepath.Join(lazy, "indexes"))); err != nil {
				t.Fatal(err)
			}
			give(t, known, a)
			before = len(pulled())
			got, _ = build(known, reg.Addr+"/known", copyOnly)
			same(t, "index known", want, got)
			if again := pulled()[before:]; len(again) != 1 { // the config
				t.Errorf("blobs of the base were asked for: %q", again)
			}
			if n := mounted("known"); n != baseLayers {
				t.Errorf("%d layers of the base were mounted", n)
			}
			if n := unpacked(t, known); n != ownSteps {
				t.Errorf("%d layers are unpacked, not only those of %d steps", n, ownSteps)
			}

			// On a registry that lacks the base it is sent, not assumed.
			other := rig.StartRegistry(t)
			got, _ = build(known, other.Addr+"/it", copyOnly)
			same(t, "other registry", want, got)

			// A RUN that follows finds its base, and what was copied on it.
			_, o := build(known, reg.Addr+"/run", copyOnly+"RUN cat /srv/a /srv/same /hidden/x /linked/a && test ! -e /hidden/f && test -d /old && ls -ln /srv > /list\n")
			if !strings.Contains(o.All(), "same") {
				t.Errorf("the RUN did not see the base:\n%s", o.Tail(20))
			}
		})
	}
}

// TestCopyThatNeedsFilesOfItsBase reads what an index has not: a file of the base
// by way of a stage that only copies, one that looks like what is copied over it,
// and one that an archive links to. The layers are unpacked after all.
func TestCopyThatNeedsFilesOfItsBase(t *testing.T) {
	rig.NeedRoot(t)
	reg := rig.StartMirror(t, mirror.Busybox)
	base(t, reg)
	a, binary := rig.NewAccount(t, rig.Superuser), rig.Binary(t)
	var link bytes.Buffer
	w := tar.NewWriter(&link)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "more", Typeflag: tar.TypeLink, Linkname: "same", Mode: 0o644}), w.Close()); err != nil {
		t.Fatal(err)
	}
	for what, dockerfile := range map[string]string{
		"a stage's base": "FROM lazybase AS one\nCOPY a /a\nFROM scratch\nCOPY --from=one /srv/same /a /\n",
		"alike":          "FROM lazybase\nCOPY same /srv/same\n",
		"archive":        "FROM lazybase\nADD link.tar /srv/\n",
	} {
		t.Run(what, func(t *testing.T) {
			var images []*image.Dump
			for _, text := range []string{dockerfile, strings.Replace(dockerfile, "\n", "\nRUN true\n", 1)} {
				dir := rig.Space(t, nil)
				rig.Write(t, dir, map[string]string{
					"a": "a\n", "same": "diff", "link.tar": link.String(), "Dockerfile": text,
					"kaniko-build.yaml": fmt.Sprintf("version: 1\nregistries: {docker.io: {mirrors: [\"%[1]s\"]}}\ntargets:\n  it: {image: %[1]s/it}\n", reg.Addr),
				})
				if err := os.Chtimes(filepath.Join(dir, "same"), time.Unix(0, 0), time.Unix(0, 0)); err != nil {
					t.Fatal(err)
				}
				state := filepath.Join(rig.Space(t, a), "state")
				a.Must(t, rig.Call{Dir: dir, Env: []string{"KANIKO_BUILD_STATE=" + state}}, binary, "apply", "--push", "--progress", "plain")
				images = append(images, describe(t, reg.Addr+"/it"))
				if n := unpacked(t, state); n < baseLayers+1 {
					t.Errorf("%d layers are unpacked", n)
				}
			}
			same(t, what, images[1], images[0])
		})
	}
}

// TestCopyUnpacksOnlyItsSource copies from an image of which only the index is
// known: its files are needed, and those of the base still are not.
func TestCopyUnpacksOnlyItsSource(t *testing.T) {
	rig.NeedRoot(t)
	reg := rig.StartMirror(t, mirror.Busybox)
	base(t, reg)
	a, binary := rig.NewAccount(t, rig.Superuser), rig.Binary(t)
	dir, state := rig.Space(t, nil), filepath.Join(rig.Space(t, a), "state")
	for i, one := range []struct {
		dockerfile string
		unpacked   int
	}{
		{"FROM busybox\nCOPY a /a\n", 1},                                 // the step's
		{"FROM lazybase\nCOPY --from=busybox /bin/busybox /copied\n", 3}, // and that step's, and busybox
	} {
		rig.Write(t, dir, map[string]string{
			"a": "a\n", "Dockerfile": one.dockerfile,
			"kaniko-build.yaml": fmt.Sprintf("version: 1\nregistries: {docker.io: {mirrors: [%[1]q]}}\ntargets:\n  it: {image: %[1]s/it%[2]d}\n", reg.Addr, i),
		})
		a.Must(t, rig.Call{Dir: dir, Env: []string{"KANIKO_BUILD_STATE=" + state}}, binary, "apply", "--push", "--progress", "plain")
		if n := unpacked(t, state); n != one.unpacked {
			t.Errorf("%q: %d layers are unpacked, not %d", one.dockerfile, n, one.unpacked)
		}
	}
}

// TestNothingThatIsNotNeeded builds an image beside stages that it does not use:
// their bases are not asked for, and no layer of one that is a parent's alone.
func TestNothingThatIsNotNeeded(t *testing.T) {
	rig.NeedRoot(t)
	reg := rig.StartMirror(t, mirror.Busybox)
	base(t, reg)
	a, binary := rig.NewAccount(t, rig.Superuser), rig.Binary(t)
	dir := rig.Space(t, nil)
	rig.Write(t, dir, map[string]string{
		"a": "a\n",
		"Dockerfile": "FROM lazybase AS unused\nRUN false\nFROM unused AS onit\nCOPY nothing /\n" +
			"FROM busybox AS used\nRUN echo used >/used\nFROM scratch\nCOPY --from=used /used /\nCOPY a /\n",
		"kaniko-build.yaml": fmt.Sprintf("version: 1\nregistries: {docker.io: {mirrors: [%[1]q]}}\ntargets:\n  it: {image: %[1]s/it}\n", reg.Addr),
	})
	state := filepath.Join(rig.Space(t, a), "state")
	apply := func() {
		t.Helper()
		a.Must(t, rig.Call{Dir: dir, Env: []string{"KANIKO_BUILD_STATE=" + state}}, binary, "apply", "--push", "--progress", "plain")
	}
	asked := len(reg.Requests(t, "/v2/library/lazybase/"))
	apply()
	if all := reg.Requests(t, "/v2/library/lazybase/")[asked:]; len(all) > 0 {
		t.Errorf("an unused stage's base was asked for: %q", all)
	}

	// What is known is neither unpacked nor pulled for a step that follows it, nor is the
	// layer of a COPY that is all there is to do.
	if err := errors.Join(os.RemoveAll(filepath.Join(state, "layers")), os.Remove(filepath.Join(state, "blobs", "sha256", layerOf(t, reg, "library/busybox")))); err != nil {
		t.Fatal(err)
	}
	rig.Write(t, dir, map[string]string{"a": "b\n"})
	asked = len(reg.Requests(t, "\"GET /v2/library/", "/blobs/"))
	apply()
	if all := reg.Requests(t, "\"GET /v2/library/", "/blobs/")[asked:]; len(all) > 0 {
		t.Errorf("asked for again: %q", all)
	}
	if n := unpacked(t, state); n != 0 {
		t.Errorf("%d layers are unpacked for a copy", n)
	}
}

// layerOf is the hex of the digest of an image's only layer.
func layerOf(t *testing.T, reg *rig.Registry, repo string) string {
	t.Helper()
	ref, err := name.ParseReference(reg.Addr+"/"+repo, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Layers) != 1 {
		t.Fatalf("%s has %d layers", repo, len(m.Layers))
	}
	return m.Layers[0].Digest.Hex
}

func paths(requests []string) []string {
	out := make([]string, len(requests))
	for i, r := range requests {
		_, rest, _ := strings.Cut(r, "GET ")
		out[i], _, _ = strings.Cut(rest, " ")
	}
	return out
}

// same compares images but for times and for the RUN that one has.
func same(t *testing.T, what string, want, got *image.Dump) {
	t.Helper()
	for _, d := range image.Diff(want, got, image.DiffOptions{MTime: "files", IgnorePaths: image.DefaultIgnorePaths}) {
		t.Errorf("%s: %s", what, d)
	}
}

// give hands a state to an account whose indexes were copied: their modes are not
// those of files of one's own.
func give(t *testing.T, to string, a *rig.Account) {
	t.Helper()
	rig.Give(t, to, a)
	err := filepath.WalkDir(filepath.Join(to, "indexes"), func(p string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			err = os.Chmod(p, 0o644)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
