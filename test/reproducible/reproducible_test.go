package reproducible

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"kaniko-build/test/image"
	"kaniko-build/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// committed is the time of the commit that the input is: before that of its
// files, as after a checkout.
var committed = time.Unix(1600000000, 0)

// input is two images, one on the other, with every kind of step that makes the
// same files each time.
var input = map[string]string{
	".dockerignore": "**/*.tmp\n",
	"base/Dockerfile": `FROM busybox
RUN mkdir -p /opt/b/c && for i in 1 2 3 4 5 6 7 8 9; do echo $i > /opt/b/f$i; done && ln -s f1 /opt/b/s && ln /opt/b/f2 /opt/b/h && chmod 4751 /opt/b/f3
RUN rm -rf /opt/b/f9 && mv /opt/b/f8 /opt/b/c/ && chown 12:34 /opt/b/f4 && mkfifo /opt/b/fifo
ENV A=1
`,
	"app/Dockerfile": `FROM busybox AS make
ARG V=1
WORKDIR /src/deep
COPY app/src ./
RUN --mount=type=cache,target=/c --mount=type=bind,source=lib,target=/lib2 cat *.txt /lib2/* > /out && echo $V >> /out && seq 1 30000 > /big
FROM base
COPY --from=make --chown=7:8 /out /big /made/
COPY --link --chmod=640 lib /linked
COPY app/src lib /both/
COPY <<T1 <<T2 /text/
one ${A}
T1
two
T2
ADD app/packed.tar /packed
USER 12:34
WORKDIR /work/of/user
RUN echo $(id -u) > me && mkdir d && touch d/x && rm /packed/b || true
LABEL x=y
HEALTHCHECK CMD true
`,
	"app/src/a.txt": "a\n", "app/src/b b.txt": "b\n", "app/src/sub/run": "#!/bin/sh\ntrue\n", "app/src/empty/": "", "app/src/x.tmp": "ignored\n",
	"lib/one": "1\n", "lib/two": "2\n",
}

// lab builds copies of the input.
type lab struct {
	*testing.T
	root     *rig.Account
	binary   string
	registry *rig.Registry
	n        int
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{T: t, root: rig.NewAccount(t, rig.Superuser), binary: rig.Binary(t), registry: rig.StartRegistry(t)}
	l.registry.Push(t, filepath.Join(rig.Root(t), "test", "conformance", "images"))
	return l
}

// copy writes the input somewhere, as one commit, with files of that time.
func (l *lab) copy(a *rig.Account, files time.Time) string {
	l.Helper()
	dir := filepath.Join(rig.Space(l.T, a), fmt.Sprint("copy", l.n))
	l.n++
	rig.Write(l.T, dir, maps.Clone(input))
	rig.Write(l.T, dir, map[string]string{"kaniko-build.yaml": fmt.Sprintf(`version: 1
registries: {docker.io: {mirrors: [%q]}}
targets:
  base: {context: base}
  app: {context: ., dockerfile: app/Dockerfile, contexts: {base: "target:base"}}
`, l.registry.Addr)})
	l.must(archive(filepath.Join(dir, "app", "packed.tar")))
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Chtimes(p, files, files))
	})
	l.must(err)
	date := committed.Format(time.RFC3339)
	l.root.Must(l.T, rig.Call{Dir: dir, Env: []string{"GIT_COMMITTER_DATE=" + date, "GIT_AUTHOR_DATE=" + date}}, "sh", "-c",
		"git init -q && git add -A && git -c user.name=x -c user.email=x@example.com commit -qm x")
	rig.Give(l.T, dir, a)
	return dir
}

func archive(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	w := tar.NewWriter(f)
	for _, n := range []string{"a", "b"} {
		err = errors.Join(err, w.WriteHeader(&tar.Header{Name: n, Mode: 0o604, Uid: 5, Size: 2, ModTime: time.Unix(1500000000, 0)}))
		_, werr := io.WriteString(w, n+"\n")
		err = errors.Join(err, werr)
	}
	return errors.Join(err, w.Close(), f.Close())
}

func (l *lab) must(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

// built is the images of a build.
type built struct {
	digests map[string]string // of the manifests, by target
	layers  []layer           // of app
	dump    *image.Dump
}

// layer is what a layer holds.
type layer struct {
	diffID  string
	entries []string // everything but times
	times   []int64
}

// way is how to build.
type way struct {
	account *rig.Account
	umask   int
	env     []string
	flags   []string
}

func (l *lab) build(dir, state string, w way) built {
	l.Helper()
	if w.account == nil {
		w.account = l.root
	}
	out := rig.Space(l.T, w.account)
	archive, meta := filepath.Join(out, "app.tar"), filepath.Join(out, "meta.json")
	argv := append([]string{l.binary, "apply", "app", "--progress", "plain", "-o", "type=oci,dest=" + archive, "--metadata-file", meta}, w.flags...)
	w.account.Must(l.T, rig.Call{Dir: dir, Umask: w.umask, Env: append([]string{"KANIKO_BUILD_STATE=" + state}, w.env...)}, argv...)
	b := built{digests: rig.Digests(l.T, meta)}
	img, err := image.Open(archive, "")
	l.must(err)
	defer img.Close()
	b.dump, err = image.Describe(img, nil, 0)
	l.must(err)
	layers, err := img.Layers()
	l.must(err)
	for i, one := range layers {
		r, err := one.Uncompressed()
		l.must(err)
		read, err := readLayer(r, b.dump.DiffIDs[i])
		l.must(errors.Join(err, r.Close()))
		b.layers = append(b.layers, read)
	}
	return b
}

func readLayer(r io.Reader, diffID string) (layer, error) {
	out := layer{diffID: diffID}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, tr); err != nil {
			return out, err
		}
		out.entries = append(out.entries, fmt.Sprintf("%q %c %o %d:%d %d %q %d:%d %v %x", h.Name, h.Typeflag, h.Mode, h.Uid, h.Gid, h.Size, h.Linkname, h.Devmajor, h.Devminor, h.PAXRecords, sum.Sum(nil)))
		out.times = append(out.times, h.ModTime.Unix())
	}
}

// ways build the input all differently.
func (l *lab) ways() map[string]func() (dir string, w way) {
	same := func(w way) func() (string, way) { return func() (string, way) { return l.copy(l.root, rig.Epoch), w } }
	return map[string]func() (string, way){
		"folder":    same(way{}),
		"umask":     same(way{umask: 0o077}),
		"locale":    same(way{env: []string{"LC_ALL=tr_TR.UTF-8", "LANG=tr_TR.UTF-8", "TZ=Asia/Kathmandu"}}),
		"one CPU":   same(way{env: []string{"GOMAXPROCS=1"}, flags: []string{"-j", "1"}}),
		"many CPUs": same(way{env: []string{"GOMAXPROCS=7"}, flags: []string{"-j", "9"}}),
		"user": func() (string, way) {
			a := rig.NewAccount(l.T, rig.Subuid)
			return l.copy(a, rig.Epoch), way{account: a}
		},
		"another day": func() (string, way) { return l.copy(l.root, rig.Epoch.Add(30*time.Hour)), way{} },
	}
}

// TestSameInputSameEntries builds without an option: all but times is equal, and
// where times are equal so are digests.
func TestSameInputSameEntries(t *testing.T) {
	l := newLab(t)
	first := l.build(l.copy(l.root, rig.Epoch), filepath.Join(rig.Space(t, l.root), "state"), way{})
	for name, how := range l.ways() {
		t.Run(name, func(t *testing.T) {
			l := &lab{T: t, root: l.root, binary: l.binary, registry: l.registry, n: l.n}
			dir, w := how()
			got := l.build(dir, filepath.Join(rig.Space(t, w.account), "state"), w)
			for _, d := range image.Diff(first.dump, got.dump, image.DiffOptions{Layers: true, History: true, MTime: "ignore"}) {
				t.Error(d)
			}
			if len(got.layers) != len(first.layers) {
				t.Fatalf("%d layers, then %d", len(first.layers), len(got.layers))
			}
			for i, a := range first.layers {
				b := got.layers[i]
				if !slices.Equal(a.entries, b.entries) {
					t.Errorf("layer %d:\n%s\nthen\n%s", i, strings.Join(a.entries, "\n"), strings.Join(b.entries, "\n"))
				}
				if slices.Equal(a.times, b.times) && a.diffID != b.diffID {
					t.Errorf("layer %d has equal entries and times, and is %s, then %s", i, a.diffID, b.diffID)
				}
			}
		})
	}
}

// TestReproducibleSameDigest builds with the option: everything is equal.
func TestReproducibleSameDigest(t *testing.T) {
	l := newLab(t)
	want := l.build(l.copy(l.root, rig.Epoch), filepath.Join(rig.Space(t, l.root), "state"), way{flags: []string{"--reproducible"}})
	if len(want.digests) != 2 {
		t.Fatalf("images %v, want two", want.digests)
	}
	base := l.baseLayers()
	for i, got := range want.layers {
		switch {
		case i < len(base):
			if got.diffID != base[i] {
				t.Errorf("layer %d of the base is %s, and was %s", i, got.diffID, base[i])
			}
		case slices.Max(append(got.times, 0)) > committed.Unix():
			t.Errorf("layer %d has times after the commit: %v", i, got.times)
		}
	}
	if got := string(want.dump.Created); got != fmt.Sprint(committed.Unix()) {
		t.Errorf("created is %s, want the time of the commit", got)
	}
	for name, how := range l.ways() {
		t.Run(name, func(t *testing.T) {
			l := &lab{T: t, root: l.root, binary: l.binary, registry: l.registry, n: l.n}
			dir, w := how()
			w.flags = append(w.flags, "--reproducible")
			got := l.build(dir, filepath.Join(rig.Space(t, w.account), "state"), w)
			if !maps.Equal(got.digests, want.digests) {
				t.Errorf("digests %v, want %v", got.digests, want.digests)
			}
		})
	}
}

// baseLayers are the diffIDs of busybox in the registry.
func (l *lab) baseLayers() []string {
	l.Helper()
	img, err := image.Open(l.registry.Addr+"/library/busybox", "")
	l.must(err)
	defer img.Close()
	_, ids, err := image.LayerDigests(img)
	l.must(err)
	return ids
}

// TestFlippingFormatsOnAWarmStore changes how images are written, one after the
// other: no step runs again, and each image is what a fresh store gives.
func TestFlippingFormatsOnAWarmStore(t *testing.T) {
	l := newLab(t)
	dir := l.copy(l.root, rig.Epoch)
	warm := filepath.Join(rig.Space(t, l.root), "warm")
	l.build(dir, warm, way{})
	ran := l.build(dir, warm, way{}) // what it looks like without times set
	settings := [][]string{
		{"--reproducible"},
		{"--reproducible", "--compression", "zstd"},
		{"--reproducible", "--compression", "zstd", "--compression-level", "9"},
		{"--reproducible", "--compression", "gzip", "--compression-level", "9"},
		{"--reproducible", "--compression", "none"},
		{"--reproducible", "--image-format", "docker"},
		{"--reproducible", "--image-format", "docker", "--compression", "gzip", "--compression-level", "1"},
		{"--reproducible"},
	}
	seen := map[string]string{}
	for _, flags := range settings {
		name := strings.Join(flags, " ")
		got := l.build(dir, warm, way{flags: flags})
		cold := l.build(dir, filepath.Join(rig.Space(t, l.root), "cold"), way{flags: flags})
		if !maps.Equal(got.digests, cold.digests) {
			t.Errorf("%s: warm %v, cold %v", name, got.digests, cold.digests)
		}
		if old, ok := seen[got.digests["app"]]; ok && old != name {
			t.Errorf("%s and %s make the same image", old, name)
		}
		seen[got.digests["app"]] = name
		back := l.build(dir, warm, way{})
		if !maps.Equal(back.digests, ran.digests) {
			t.Errorf("after %s the image with its own times is %v, and was %v: a step ran again", name, back.digests, ran.digests)
		}
	}
	// A fresh store that sets times first, then not, stands on the same layers.
	other := filepath.Join(rig.Space(t, l.root), "other")
	set := l.build(dir, other, way{flags: []string{"--reproducible"}})
	plain := l.build(dir, other, way{})
	for _, d := range image.Diff(ran.dump, plain.dump, image.DiffOptions{Layers: true, History: true, MTime: "ignore"}) {
		t.Error(d)
	}
	if again := l.build(dir, other, way{flags: []string{"--reproducible"}}); !maps.Equal(again.digests, set.digests) {
		t.Errorf("reproducible, then not, then again: %v, then %v", set.digests, again.digests)
	}
}
