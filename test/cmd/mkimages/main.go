// Mkimages writes the corpus's base images into an OCI layout directory.
//
//	mkimages LAYOUT BUSYBOX-IMAGE NASTYCTL
//
// BUSYBOX-IMAGE is copied as "busybox" and its /bin/busybox is used for the
// "nasty" family, whose layers hold all that is unpleasant about layers.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"kaniko-build/test/image"
)

// blob is a finished layer.
type blob struct {
	plain, packed []byte
	media         types.MediaType
}

func hash(b []byte) v1.Hash {
	s := sha256.Sum256(b)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(s[:])}
}

func (b blob) Digest() (v1.Hash, error)            { return hash(b.packed), nil }
func (b blob) DiffID() (v1.Hash, error)            { return hash(b.plain), nil }
func (b blob) Size() (int64, error)                { return int64(len(b.packed)), nil }
func (b blob) MediaType() (types.MediaType, error) { return b.media, nil }
func (b blob) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(b.packed)), nil
}
func (b blob) Uncompressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(b.plain)), nil
}

// layer builds a tar by hand, in exactly the order given.
type layer struct {
	buf bytes.Buffer
	tw  *tar.Writer
}

const t0 = 1600000000 // all times in the images are near this one

func newLayer() *layer {
	l := &layer{}
	l.tw = tar.NewWriter(&l.buf)
	return l
}

func (l *layer) put(h *tar.Header, body string) {
	h.Format = tar.FormatPAX
	if h.ModTime.IsZero() {
		h.ModTime = time.Unix(t0, 0)
	}
	h.Size = int64(len(body))
	check(l.tw.WriteHeader(h))
	_, err := io.WriteString(l.tw, body)
	check(err)
}

func (l *layer) dir(name string, mode int64, owner ...int) {
	l.put(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode, Uid: at(owner, 0), Gid: at(owner, 1)}, "")
}

func (l *layer) file(name string, mode int64, body string, owner ...int) {
	l.put(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Uid: at(owner, 0), Gid: at(owner, 1)}, body)
}

func (l *layer) sym(name, to string) {
	l.put(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}, "")
}

// hard adds a hard link. Its header has mode and owner too, and a builder that
// unpacks may apply them, so they must be those of the target.
func (l *layer) hard(name, to string, mode int64, owner ...int) {
	l.put(&tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to, Mode: mode, Uid: at(owner, 0), Gid: at(owner, 1)}, "")
}

func (l *layer) done() []byte {
	check(l.tw.Close())
	return l.buf.Bytes()
}

func at(l []int, i int) int {
	if i < len(l) {
		return l[i]
	}
	return 0
}

func gz(plain []byte, m types.MediaType) blob {
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
	_, err := w.Write(plain)
	check(err)
	check(w.Close())
	return blob{plain, b.Bytes(), m}
}

func zs(plain []byte) blob {
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
	check(err)
	return blob{plain, w.EncodeAll(plain, nil), types.OCILayerZStd}
}

const applets = `[ ash awk basename cat chgrp chmod chown cmp cp cut date dd df diff dirname du echo env expr false
find grep groups gunzip gzip head hostname id install ip kill link ln ls mkdir mkfifo mknod mktemp mount mv nc nproc
od paste printf ps pwd readlink realpath rm rmdir sed seq sh sha256sum sleep sort stat sync tail tar tee test touch
tr true truncate umount uname uniq wc wget which whoami xargs`

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: mkimages LAYOUT BUSYBOX-IMAGE NASTYCTL")
		os.Exit(2)
	}
	dir := os.Args[1]
	bb, err := image.Open(os.Args[2], "")
	check(err)
	ctl, err := os.ReadFile(os.Args[3])
	check(err)

	check(os.RemoveAll(filepath.Join(dir, "blobs")))
	check(os.MkdirAll(dir, 0o755))
	lay, err := layout.Write(dir, empty.Index)
	check(err)
	add := func(name string, img v1.Image) {
		check(lay.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": name})))
	}
	add("busybox", bb.Image)

	plains := [][]byte{base(busybox(bb), string(ctl)), changes(), orphans()}
	cfg := nastyConfig()
	add("nasty", build(cfg, types.OCIManifestSchema1, types.OCIConfigJSON, history(), each(plains, types.OCILayer)...))
	ob := cfg
	ob.OnBuild = []string{
		"ENV TRIGGERED=yes",
		"ARG FLAVOUR=plain",
		"RUN echo \"trigger in $PWD as $(id -un) $FLAVOUR\" > /tmp/trigger",
		"COPY --chown=app trigger.txt /tmp/from-context",
		"LABEL triggered=\"$TRIGGERED\"",
		"WORKDIR sub",
	}
	add("nasty-onbuild", build(ob, types.OCIManifestSchema1, types.OCIConfigJSON, history(), each(plains, types.OCILayer)...))
	add("nasty-docker", build(cfg, types.DockerManifestSchema2, types.DockerConfigJSON, history(), each(plains, types.DockerLayer)...))
	// No history here: some tools write none.
	add("nasty-zstd", build(cfg, types.OCIManifestSchema1, types.OCIConfigJSON, nil, zs(plains[0]), gz(plains[1], types.OCILayer), zs(plains[2])))
	add("hollow", build(v1.Config{Env: []string{"HOLLOW=1"}, Labels: map[string]string{"hollow": "yes"}},
		types.OCIManifestSchema1, types.OCIConfigJSON, nil))

	idx := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, p := range []v1.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64", Variant: "v8"}} {
		l := newLayer()
		l.file("platform", 0o644, p.OS+"/"+p.Architecture+"\n")
		img := build(v1.Config{Env: []string{"PATH=/usr/bin", "IMAGE_ARCH=" + p.Architecture}},
			types.OCIManifestSchema1, types.OCIConfigJSON, nil, gz(l.done(), types.OCILayer))
		cf, err := img.ConfigFile()
		check(err)
		cf = cf.DeepCopy()
		cf.OS, cf.Architecture, cf.Variant = p.OS, p.Architecture, p.Variant
		img, err = mutate.ConfigFile(img, cf)
		check(err)
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &p}})
	}
	check(lay.AppendIndex(idx, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "multi"})))
}

// base is the lowest layer: merged /usr, users, odd files.
func base(bb, ctl string) []byte {
	l := newLayer()
	for _, d := range []string{"usr", "usr/bin", "usr/sbin", "usr/lib", "etc", "home", "opt", "root", "run", "srv", "var"} {
		l.dir(d, 0o755)
	}
	l.dir("tmp", 0o1777)
	l.dir("home/app", 0o750, 1000, 1000)
	l.file("usr/bin/busybox", 0o755, bb)
	l.file("usr/bin/nastyctl", 0o755, ctl)
	for _, a := range strings.Fields(applets) {
		l.sym("usr/bin/"+a, "busybox")
	}
	l.sym("bin", "usr/bin")
	l.sym("sbin", "usr/sbin")
	l.sym("lib", "/usr/lib")
	l.file("etc/passwd", 0o644, strings.Join([]string{
		"root:x:0:0:root:/root:/bin/sh", "daemon:x:1:1::/:/bin/false", "app:x:1000:1000:App:/home/app:/bin/sh",
		"lone:x:1005:1234::/:/bin/sh", "4242:x:77:78:name made of digits:/:/bin/sh", ""}, "\n"))
	l.file("etc/group", 0o644, strings.Join([]string{
		"root:x:0:", "daemon:x:1:", "app:x:1000:", "tape:x:2001:app", "disk:x:2002:app,lone", "users:x:100:lone", ""}, "\n"))
	l.file("usr/bin/setuid-tool", 0o4755, "#!/bin/sh\n")
	l.file("usr/bin/setgid-tool", 0o2755, "#!/bin/sh\n", 0, 2001)
	l.dir("opt/shared", 0o3775, 1000, 2001)
	l.dir("opt/secret", 0o700)
	l.file("opt/secret/key", 0o600, "k\n")
	l.dir("opt/data", 0o755)
	for _, n := range []string{"a", "b", "c"} {
		l.file("opt/data/"+n, 0o644, n+"\n")
	}
	l.dir("opt/data/sub", 0o755)
	l.file("opt/data/sub/d", 0o644, "d\n")
	l.file("opt/hard1", 0o640, "linked\n", 1000, 1000)
	l.hard("opt/hard2", "opt/hard1", 0o640, 1000, 1000)
	l.hard("opt/shared/hard3", "opt/hard1", 0o640, 1000, 1000)
	l.file("opt/flip-file", 0o644, "to become a directory\n")
	l.dir("opt/flip-dir", 0o755)
	l.file("opt/flip-dir/inside", 0o644, "to vanish\n")
	l.file("opt/gone", 0o644, "to be removed\n")
	l.dir("opt/gonedir", 0o755)
	l.file("opt/gonedir/x", 0o644, "x\n")
	l.sym("opt/to-data", "data")
	l.sym("opt/to-data-abs", "/opt/data")
	l.sym("opt/dangling", "/nowhere/at/all")
	l.sym("opt/loop1", "loop2")
	l.sym("opt/loop2", "loop1")
	l.sym("opt/climb", "../../../../../../etc")
	l.put(&tar.Header{Typeflag: tar.TypeReg, Name: "usr/bin/cap-tool", Mode: 0o755, PAXRecords: map[string]string{
		// cap_net_raw=ep, revision 2
		"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
	}}, "#!/bin/sh\n")
	l.put(&tar.Header{Typeflag: tar.TypeReg, Name: "opt/noted", Mode: 0o644, PAXRecords: map[string]string{
		"SCHILY.xattr.user.note": "from the base",
	}}, "noted\n")
	l.put(&tar.Header{Typeflag: tar.TypeChar, Name: "opt/null", Mode: 0o666, Devmajor: 1, Devminor: 3}, "")
	l.put(&tar.Header{Typeflag: tar.TypeFifo, Name: "opt/pipe", Mode: 0o622}, "")
	l.put(&tar.Header{Typeflag: tar.TypeReg, Name: "opt/old", Mode: 0o644, ModTime: time.Unix(12345, 0)}, "old\n")
	l.put(&tar.Header{Typeflag: tar.TypeReg, Name: "opt/fraction", Mode: 0o644, ModTime: time.Unix(t0, 987654321)}, "f\n")
	long := "opt/" + strings.Repeat("long-name-", 20)
	l.file(long, 0o644, "a name of 200 bytes\n")
	l.file("opt/ünï cödé", 0o644, "unicode\n")
	return l.done()
}

// changes removes and replaces what base made.
func changes() []byte {
	l := newLayer()
	l.dir("opt", 0o755)
	l.file("opt/.wh.gone", 0, "")
	l.file("opt/.wh.gonedir", 0, "")
	l.file("opt/.wh.never-was", 0, "")
	l.dir("opt/data", 0o711)
	l.file("opt/data/.wh..wh..opq", 0, "")
	l.file("opt/data/new", 0o644, "the only one left\n")
	l.dir("opt/flip-file", 0o755)
	l.file("opt/flip-file/inside", 0o644, "now a directory\n")
	l.file("opt/flip-dir", 0o644, "now a file\n")
	return l.done()
}

// orphans has entries whose parent directories are in no layer. (Entries that
// go through a symlink of a lower layer, and hard links to a lower layer, are
// left out: containerd, and so BuildKit, cannot unpack those faithfully.)
func orphans() []byte {
	l := newLayer()
	l.file("srv/deep/er/file", 0o644, "my parents have no entry\n", 1000, 1000)
	l.dir("./opt", 0o755)
	l.file("./opt/dot-slash", 0o644, "named with ./\n")
	return l.done()
}

func each(plains [][]byte, m types.MediaType) []blob {
	var out []blob
	for _, p := range plains {
		out = append(out, gz(p, m))
	}
	return out
}

func nastyConfig() v1.Config {
	return v1.Config{
		User:         "app",
		WorkingDir:   "/home/app",
		Env:          []string{"PATH=/usr/bin:/bin", "FROM_BASE=base value", "EMPTY=", "Z=last"},
		Entrypoint:   []string{"/bin/sh", "-c"},
		Cmd:          []string{"echo base"},
		Labels:       map[string]string{"base.label": "nasty", "shared": "base"},
		ExposedPorts: map[string]struct{}{"80/tcp": {}, "53/udp": {}},
		Volumes:      map[string]struct{}{"/opt/vol": {}},
		StopSignal:   "SIGQUIT",
		Healthcheck:  &v1.HealthConfig{Test: []string{"CMD", "true"}, Interval: 5 * time.Second, Retries: 2},
		Shell:        []string{"/bin/ash", "-c"},
	}
}

func history() []v1.History {
	at := v1.Time{Time: time.Unix(t0, 0).UTC()}
	return []v1.History{
		{Created: at, CreatedBy: "layer one"},
		{Created: at, CreatedBy: "setting things", EmptyLayer: true},
		{Created: at, CreatedBy: "layer two"},
		{Created: at, CreatedBy: "layer three", Comment: "with a comment", Author: "someone"},
	}
}

func build(cfg v1.Config, manifest, config types.MediaType, hist []v1.History, layers ...blob) v1.Image {
	cf := &v1.ConfigFile{
		OS: "linux", Architecture: "amd64", Config: cfg, History: hist,
		Created: v1.Time{Time: time.Unix(t0, 0).UTC()},
		RootFS:  v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{}},
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, manifest), config)
	var adds []mutate.Addendum
	for _, l := range layers {
		adds = append(adds, mutate.Addendum{Layer: l, MediaType: l.media})
		cf.RootFS.DiffIDs = append(cf.RootFS.DiffIDs, hash(l.plain))
	}
	img, err := mutate.Append(img, adds...)
	check(err)
	img, err = mutate.ConfigFile(img, cf)
	check(err)
	return img
}

// busybox takes the binary out of the image.
func busybox(img *image.Opened) string {
	rc := mutate.Extract(img.Image)
	defer rc.Close()
	tr := tar.NewReader(rc)
	for {
		h, err := tr.Next()
		check(err)
		if filepath.Clean("/"+h.Name) == "/bin/busybox" {
			b, err := io.ReadAll(tr)
			check(err)
			return string(b)
		}
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "mkimages:", err)
		os.Exit(1)
	}
}
