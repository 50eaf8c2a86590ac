package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/store"
	"kaniko-build/schema/diag"
)

var amd64 = ocispec.Platform{OS: "linux", Architecture: "amd64"}

func newStore(t testing.TB) *store.Store {
	t.Helper()
	s, err := store.Open(t.TempDir(), store.Options{Owner: os.Getuid()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// file is an entry of a layer made for a test. The zero Typeflag is a regular
// file, or a directory if the name ends in a slash.
type file struct {
	tar.Header
	data string
}

func reg(name, data string) file {
	return file{tar.Header{Name: name, Mode: 0o644, ModTime: time.Unix(1e9, 0)}, data}
}

func dir(name string, mode int64) file {
	return file{tar.Header{Name: name + "/", Mode: mode, ModTime: time.Unix(1e9, 0)}, ""}
}

func sym(name, to string) file {
	return file{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777, ModTime: time.Unix(1e9, 0)}, ""}
}

func hard(name, to string) file {
	return file{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to, Mode: 0o644, ModTime: time.Unix(1e9, 0)}, ""}
}

func makeLayer(t testing.TB, s *store.Store, compress bool, files ...file) Layer {
	t.Helper()
	var plain bytes.Buffer
	w := tar.NewWriter(&plain)
	for _, f := range files {
		h := f.Header
		h.Size = int64(len(f.data))
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
			if strings.HasSuffix(h.Name, "/") {
				h.Typeflag = tar.TypeDir
			}
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.data); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	blob, mt := plain.Bytes(), ocispec.MediaTypeImageLayer
	if compress {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write(blob)
		z.Close()
		blob, mt = b.Bytes(), ocispec.MediaTypeImageLayerGzip
	}
	d, err := s.PutBlob(blob)
	if err != nil {
		t.Fatal(err)
	}
	return Layer{Descriptor: ocispec.Descriptor{MediaType: mt, Digest: d, Size: int64(len(blob))}, DiffID: digest.FromBytes(plain.Bytes())}
}

func makeImage(t *testing.T, s *store.Store, p ocispec.Platform, docker bool, layers ...Layer) Assembled {
	t.Helper()
	spec := Spec{Docker: docker}
	spec.Config.Platform = p
	spec.Config.Config.Cmd = []string{"/bin/true", "<&>"}
	for i, l := range layers {
		at := time.Unix(int64(1000+i), 0).UTC()
		spec.Layers = append(spec.Layers, SpecLayer{Layer: l, Created: &at})
		spec.History = append(spec.History, ocispec.History{CreatedBy: fmt.Sprint("layer ", i)})
	}
	a, err := Assemble(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Put(s); err != nil {
		t.Fatal(err)
	}
	return a
}

func mustName(t *testing.T, ref string) Name {
	t.Helper()
	n, err := ParseName(ref)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestNames(t *testing.T) {
	d := "sha256:" + strings.Repeat("ab", 32)
	for ref, want := range map[string][2]string{
		"busybox":                         {"docker.io/library/busybox:latest", "busybox:latest"},
		"busybox:1":                       {"docker.io/library/busybox:1", "busybox:1"},
		"docker.io/busybox":               {"docker.io/library/busybox:latest", "busybox:latest"},
		"index.docker.io/library/busybox": {"docker.io/library/busybox:latest", "busybox:latest"},
		"team/app":                        {"docker.io/team/app:latest", "team/app:latest"},
		"localhost/app":                   {"localhost/app:latest", "localhost/app:latest"},
		"localhost:5000/app:v1":           {"localhost:5000/app:v1", "localhost:5000/app:v1"},
		"reg.example/a/b/c@" + d:          {"reg.example/a/b/c@" + d, "reg.example/a/b/c@" + d},
		"busybox:1@" + d:                  {"docker.io/library/busybox:1@" + d, "busybox:1@" + d},
		"127.0.0.1:5000/x@" + d:           {"127.0.0.1:5000/x@" + d, "127.0.0.1:5000/x@" + d},
	} {
		n, err := ParseName(ref)
		if err != nil {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		if got := [2]string{n.String(), n.Familiar()}; got != want {
			t.Errorf("%s: %v, want %v", ref, got, want)
		}
		if again, err := Normalize(n.String()); err != nil || again != n.String() {
			t.Errorf("%s: not stable: %s %v", ref, again, err)
		}
	}
	for _, bad := range []string{"", ":", "a:b:c", "A/b", "x@sha256:1", "x@" + d + "0", "x y", "http://x/y", "x@sha256:" + strings.Repeat("AB", 32)} {
		var p *diag.Problem
		if n, err := ParseName(bad); !errors.As(err, &p) || p.Hint == "" {
			t.Errorf("%q: %+v %v", bad, n, err)
		}
	}
}

func FuzzParseName(f *testing.F) {
	for _, s := range []string{"busybox", "a/b:c@sha256:" + strings.Repeat("ab", 32), "localhost:5000/x", "[::1]:5000/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseName(s)
		if err != nil {
			return
		}
		again, err := ParseName(n.String())
		if err != nil || again != n {
			t.Errorf("%q is %q, which is %+v %v", s, n, again, err)
		}
		if again, err = ParseName(n.Familiar()); err != nil || again != n {
			t.Errorf("%q is %q in short, which is %+v %v", s, n.Familiar(), again, err)
		}
	})
}

func at(sec int64) *time.Time {
	t := time.Unix(sec, 0).UTC()
	return &t
}

func TestAssembleCompletesHistory(t *testing.T) {
	l := func(n string, created *time.Time, text string) SpecLayer {
		return SpecLayer{Layer: Layer{Descriptor: ocispec.Descriptor{MediaType: DockerLayerGzip, Digest: digest.FromString(n), Size: 1}, DiffID: digest.FromString(n + "d")}, Created: created, Text: text}
	}
	rec := func(by string, empty bool, created *time.Time) ocispec.History {
		return ocispec.History{CreatedBy: by, EmptyLayer: empty, Created: created}
	}
	for name, c := range map[string]struct {
		spec    Spec
		want    []ocispec.History
		created *time.Time
	}{
		"times come from layers, and from the next for what has none": {
			spec: Spec{
				History: []ocispec.History{rec("base", false, at(10)), rec("ENV", true, nil), rec("RUN", false, nil), rec("CMD", true, nil)},
				Layers:  []SpecLayer{l("base", nil, ""), l("run", at(50), "")},
			},
			want:    []ocispec.History{rec("base", false, at(10)), rec("ENV", true, at(50)), rec("RUN", false, at(50)), rec("CMD", true, at(50))},
			created: at(50),
		},
		"metadata alone takes the base's time": {
			spec:    Spec{History: []ocispec.History{rec("base", false, at(10)), rec("CMD", true, nil)}, Layers: []SpecLayer{l("base", nil, "")}},
			want:    []ocispec.History{rec("base", false, at(10)), rec("CMD", true, at(10))},
			created: at(10),
		},
		"nothing has a time": {
			spec: Spec{History: []ocispec.History{rec("ENV", true, nil)}},
			want: []ocispec.History{rec("ENV", true, nil)},
		},
		"a base without records: those that are missing are made up at the end": {
			spec: Spec{
				History: []ocispec.History{rec("RUN", false, nil)},
				Layers:  []SpecLayer{l("b1", at(1), ""), l("b2", at(2), ""), l("run", at(9), "RUN x")},
			},
			want: []ocispec.History{
				rec("RUN", false, at(1)),
				{Created: at(2), Comment: "buildkit.exporter.image.v0"},
				{Created: at(9), CreatedBy: "RUN x", Comment: "buildkit.exporter.image.v0"},
			},
			created: at(9),
		},
		"more records than layers: those above become empty": {
			spec:    Spec{History: []ocispec.History{rec("a", false, at(1)), rec("b", false, at(2))}, Layers: []SpecLayer{l("a", nil, "")}},
			want:    []ocispec.History{rec("a", false, at(1)), rec("b", true, at(2))},
			created: at(2),
		},
		"an epoch leaves the base's times": {
			spec: Spec{
				History: []ocispec.History{rec("base", false, at(500)), rec("RUN", false, nil)},
				Layers:  []SpecLayer{l("base", nil, ""), l("run", at(900), "")},
				Base:    &dockerspec.DockerOCIImage{Image: ocispec.Image{History: []ocispec.History{rec("base", false, at(500))}}},
				Epoch:   at(100),
			},
			want:    []ocispec.History{rec("base", false, at(500)), rec("RUN", false, at(100))},
			created: at(100),
		},
	} {
		c.spec.Config.Platform = amd64
		a, err := Assemble(c.spec)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got dockerspec.DockerOCIImage
		if err := json.Unmarshal(a.RawConfig, &got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got.History, c.want) {
			t.Errorf("%s:\ngot  %s\nwant %s", name, show(got.History), show(c.want))
		}
		if !reflect.DeepEqual(got.Created, c.created) {
			t.Errorf("%s: created %v, want %v", name, got.Created, c.created)
		}
	}
}

func show(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

func TestAssembleWritesOneFamilyOfMediaTypes(t *testing.T) {
	mk := func(mt string) SpecLayer {
		return SpecLayer{Layer: Layer{DiffID: digest.FromString("d"), Descriptor: ocispec.Descriptor{
			MediaType: mt, Digest: digest.FromString(mt), Size: 3, URLs: []string{"https://x"},
			Annotations: map[string]string{"containerd.io/uncompressed": "x", "buildkit/createdat": "y", "org.example": "z"},
		}}}
	}
	spec := Spec{Layers: []SpecLayer{mk(DockerLayerGzip), mk(ocispec.MediaTypeImageLayerZstd), mk(ocispec.MediaTypeImageLayer), mk(dockerForeignGzip)}}
	spec.Config.Platform = ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}
	for _, docker := range []bool{false, true} {
		spec.Docker = docker
		a, err := Assemble(spec)
		if err != nil {
			t.Fatal(err)
		}
		var m ocispec.Manifest
		if err := json.Unmarshal(a.RawManifest, &m); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, l := range m.Layers {
			got = append(got, l.MediaType)
			if l.Size != 3 || l.URLs == nil {
				t.Errorf("%+v", l)
			}
			if wantNotes := map[string]string{"org.example": "z"}; docker && l.Annotations != nil || !docker && !reflect.DeepEqual(l.Annotations, wantNotes) {
				t.Errorf("annotations %v", l.Annotations)
			}
		}
		want := []string{ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd, ocispec.MediaTypeImageLayer, ociForeignGzip}
		types := []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig}
		if docker {
			want = []string{DockerLayerGzip, DockerLayerZstd, DockerLayer, dockerForeignGzip}
			types = []string{DockerManifest, DockerConfig}
		}
		if !slices.Equal(got, want) || !slices.Equal([]string{m.MediaType, m.Config.MediaType}, types) || a.Manifest.MediaType != types[0] {
			t.Errorf("docker=%v: %v %s %s", docker, got, m.MediaType, m.Config.MediaType)
		}
		if strings.Contains(string(a.RawConfig), "v8") || a.Manifest.Platform.Variant != "" {
			t.Errorf("arm64/v8 is written as such: %s", a.RawConfig)
		}
		again, err := Assemble(spec)
		if err != nil || !bytes.Equal(again.RawConfig, a.RawConfig) || !bytes.Equal(again.RawManifest, a.RawManifest) {
			t.Error("the same image has other bytes")
		}
	}
	if strings.Contains(show(spec), "moby.buildkit") {
		t.Error("BuildKit's own fields")
	}
	spec.Layers = []SpecLayer{mk("text/plain")}
	if _, err := Assemble(spec); err == nil {
		t.Error("took text for a layer")
	}
	if _, err := Assemble(Spec{}); err == nil {
		t.Error("took an image without a platform")
	}
}

func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("needs %s: %v", program, err)
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// simple is an image of two layers that unpacks for everybody.
func simple(t *testing.T, s *store.Store, docker bool) Assembled {
	return makeImage(t, s, amd64, docker,
		makeLayer(t, s, true, dir("etc", 0o755), reg("etc/a", "first"), reg("etc/b", "kept")),
		makeLayer(t, s, true, reg("etc/a", "second"), sym("link", "etc/a")))
}

func TestOCIArchiveIsReadByOthers(t *testing.T) {
	for _, docker := range []bool{false, true} {
		s := newStore(t)
		a := simple(t, s, docker)
		path := filepath.Join(t.TempDir(), "image.tar")
		exp := Export{Descriptor: a.Manifest, Names: []Name{mustName(t, "shop/app:v1"), mustName(t, "shop/app:v2")}}
		err := ToFile(path, func(f *os.File) error { return WriteOCI(t.Context(), f, FromStore(s), exp) })
		if err != nil {
			t.Fatal(err)
		}
		var again bytes.Buffer
		if err := WriteOCI(t.Context(), &again, FromStore(s), exp); err != nil {
			t.Fatal(err)
		}
		if b, _ := os.ReadFile(path); !bytes.Equal(b, again.Bytes()) {
			t.Error("the same archive has other bytes")
		}
		un := t.TempDir()
		run(t, "tar", "-xf", path, "-C", un)
		p, err := layout.FromPath(un)
		if err != nil {
			t.Fatal(err)
		}
		idx, err := p.ImageIndex()
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Index(idx); err != nil {
			t.Error(err)
		}
		if docker {
			continue // skopeo looks for OCI's media types only in this form
		}
		need(t, "skopeo")
		if out := run(t, "skopeo", "inspect", "oci-archive:"+path+":v2"); !strings.Contains(out, a.Manifest.Digest.String()) {
			t.Errorf("skopeo: %s", out)
		}
	}
}

func TestOCIDirectory(t *testing.T) {
	s := newStore(t)
	a := simple(t, s, false)
	dest := filepath.Join(t.TempDir(), "sub", "layout")
	if err := WriteOCIDir(t.Context(), dest, FromStore(s), Export{a.Manifest, []Name{mustName(t, "app:v1")}}); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		need(t, "umoci")
		bundle := filepath.Join(t.TempDir(), "bundle")
		run(t, "umoci", "unpack", "--image", dest+":v1", bundle)
		if b, err := os.ReadFile(filepath.Join(bundle, "rootfs", "link")); string(b) != "second" {
			t.Errorf("%q %v", b, err)
		}
	}
	// Another image joins, and the tag moves.
	b := makeImage(t, s, amd64, false, makeLayer(t, s, true, reg("x", "y")))
	if err := WriteOCIDir(t.Context(), dest, FromStore(s), Export{b.Manifest, []Name{mustName(t, "app:v1"), mustName(t, "app:v3")}}); err != nil {
		t.Fatal(err)
	}
	l, err := OpenLayout(dest)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Manifests()) != 2 {
		t.Errorf("%s", show(l.Manifests()))
	}
	r, _, err := ResolveLayout(t.Context(), "oci-layout://"+dest+":v1", amd64)
	if err != nil || r.Descriptor.Digest != b.Manifest.Digest {
		t.Fatalf("%+v %v", r, err)
	}
	// Not into somebody's files.
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, "thesis"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var p *diag.Problem
	if err := WriteOCIDir(t.Context(), home, FromStore(s), Export{Descriptor: a.Manifest}); !errors.As(err, &p) {
		t.Errorf("%v", err)
	}
	// A failure leaves nothing.
	if err := s.RemoveBlob(a.Layers[0].Descriptor.Digest); err != nil {
		t.Fatal(err)
	}
	parent := t.TempDir()
	if err := WriteOCIDir(t.Context(), filepath.Join(parent, "x"), FromStore(s), Export{Descriptor: a.Manifest}); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	if list, _ := os.ReadDir(parent); len(list) != 0 {
		t.Errorf("left %v", list)
	}
}

func TestDockerArchiveIsReadByOthers(t *testing.T) {
	for _, docker := range []bool{false, true} {
		s := newStore(t)
		a := simple(t, s, docker)
		path := filepath.Join(t.TempDir(), "image.tar")
		exp := Export{Descriptor: a.Manifest, Names: []Name{mustName(t, "app:v1"), mustName(t, "reg.example/app:v1")}}
		if err := ToFile(path, func(f *os.File) error { return WriteDocker(t.Context(), f, FromStore(s), exp) }); err != nil {
			t.Fatal(err)
		}
		m, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(path) })
		if err != nil || len(m) != 1 || !slices.Equal(m[0].RepoTags, []string{"app:v1", "reg.example/app:v1"}) {
			t.Fatalf("%+v %v", m, err)
		}
		img, err := tarball.ImageFromPath(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Image(img); err != nil {
			t.Error(err)
		}
		if id, err := img.ConfigName(); err != nil || id.String() != a.Config.Digest.String() {
			t.Error(id, err)
		}
		need(t, "skopeo")
		out := filepath.Join(t.TempDir(), "copy")
		run(t, "skopeo", "copy", "docker-archive:"+path+":app:v1", "oci:"+out+":v1")
		r, _, err := ResolveLayout(t.Context(), "oci-layout://"+out, amd64)
		if err != nil || len(r.Layers) != 2 || r.Layers[1].DiffID != a.Layers[1].DiffID {
			t.Errorf("%+v %v", r, err)
		}
	}
	s := newStore(t)
	a := simple(t, s, false)
	d, b, err := MakeIndex([]ocispec.Descriptor{a.Manifest}, false, map[string]string{"a": "b"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutBlob(b); err != nil {
		t.Fatal(err)
	}
	var p *diag.Problem
	if err := WriteDocker(t.Context(), io.Discard, FromStore(s), Export{Descriptor: d}); !errors.As(err, &p) {
		t.Errorf("%v", err)
	}
	if err := WriteOCI(t.Context(), io.Discard, FromStore(s), Export{Descriptor: d}); err != nil {
		t.Error(err)
	}
}

func TestToFileIsWholeOrNotAtAll(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	err := ToFile(path, func(f *os.File) error {
		fmt.Fprint(f, "half")
		if list, _ := os.ReadDir(dir); len(list) != 1 {
			t.Errorf("the unfinished file has a name: %v", list)
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(path); string(b) != "old" {
		t.Errorf("%q", b)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("out", link); err != nil {
		t.Fatal(err)
	}
	if err := ToFile(link, func(f *os.File) error { _, err := fmt.Fprint(f, "new"); return err }); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(path); string(b) != "new" {
		t.Errorf("%q", b)
	}
	if list, _ := os.ReadDir(dir); len(list) != 2 {
		t.Errorf("left %v", list)
	}
	if err := ToFile("/dev/null", func(f *os.File) error { _, err := fmt.Fprint(f, "x"); return err }); err != nil {
		t.Error(err)
	}
	if err := ToFile(dir, func(*os.File) error { return nil }); err == nil {
		t.Error("wrote a file over a directory")
	}
}

func TestLayoutFind(t *testing.T) {
	d1, d2 := digest.FromString("1"), digest.FromString("2")
	tagged := func(d digest.Digest, tag string) ocispec.Descriptor {
		return ocispec.Descriptor{Digest: d, Annotations: map[string]string{annotationRef: tag}}
	}
	for _, c := range []struct {
		name        string
		list        []ocispec.Descriptor
		tag, digest string
		want        digest.Digest
	}{
		{"the only one", []ocispec.Descriptor{{Digest: d1}}, "", "", d1},
		{"one image with two tags", []ocispec.Descriptor{tagged(d1, "a"), tagged(d1, "b")}, "", "", d1},
		{"latest of several", []ocispec.Descriptor{tagged(d1, "a"), tagged(d2, "latest")}, "", "", d2},
		{"no latest", []ocispec.Descriptor{tagged(d1, "a"), tagged(d2, "b")}, "", "", ""},
		{"by tag", []ocispec.Descriptor{tagged(d1, "a"), tagged(d2, "b")}, "b", "", d2},
		{"absent tag", []ocispec.Descriptor{tagged(d1, "a")}, "b", "", ""},
		{"by digest", []ocispec.Descriptor{tagged(d1, "a"), {Digest: d2}}, "", d2.String(), d2},
		{"absent digest", []ocispec.Descriptor{tagged(d1, "a")}, "", d2.String(), ""},
		{"a tag twice", []ocispec.Descriptor{tagged(d1, "a"), tagged(d2, "a")}, "a", "", ""},
		{"empty", nil, "", "", ""},
	} {
		l := &Layout{dir: "/x", index: ocispec.Index{Manifests: c.list}}
		d, err := l.Find(c.tag, c.digest)
		if d.Digest != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %s %v", c.name, d.Digest, err)
		}
	}
	h := "sha256:" + strings.Repeat("a", 64)
	for ref, want := range map[string][3]string{
		"oci-layout:///a/b":               {"/a/b", "", ""},
		"oci-layout:///a/b:v1":            {"/a/b", "v1", ""},
		"oci-layout://rel:v1@" + h:        {"rel", "v1", h},
		"oci-layout:///a:1/b":             {"/a:1/b", "", ""},
		"oci-layout:///a:1/b@" + h:        {"/a:1/b", "", h},
		"oci-layout://./x.y:latest":       {"./x.y", "latest", ""},
		"docker-image://x":                {},
		"oci-layout://":                   {},
		"oci-layout:///a/b:docker.io/x:1": {"/a/b:docker.io/x", "1", ""},
	} {
		dir, tag, digest, ok := ParseLayout(ref)
		if got := [3]string{dir, tag, digest}; got != want || ok != (want[0] != "") {
			t.Errorf("%s: %v %v", ref, got, ok)
		}
	}
}

func TestResolveChoosesPlatforms(t *testing.T) {
	s := newStore(t)
	p := func(v string) ocispec.Platform {
		parts := append(strings.Split(v, "/"), "")
		return ocispec.Platform{OS: "linux", Architecture: parts[0], Variant: parts[1]}
	}
	var list []ocispec.Descriptor
	byDigest := map[digest.Digest]string{}
	add := func(name string, plat ocispec.Platform, shown *ocispec.Platform) {
		a := makeImage(t, s, plat, false, makeLayer(t, s, false, reg("name", name)))
		d := a.Manifest
		d.Platform = shown
		list = append(list, d)
		byDigest[d.Digest] = name
	}
	addP := func(v string) { plat := p(v); add(v, plat, &plat) }
	add("attestation", p("unknown"), &ocispec.Platform{OS: "unknown", Architecture: "unknown"})
	addP("arm/v6")
	addP("arm/v7")
	addP("arm64/v8")
	addP("386")
	index := func(list []ocispec.Descriptor) ocispec.Descriptor {
		d, b, err := MakeIndex(list, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.PutBlob(b); err != nil {
			t.Fatal(err)
		}
		return d
	}
	check := func(d ocispec.Descriptor, asked, want string) {
		t.Helper()
		r, err := Resolve(t.Context(), FromStore(s), "x", d, p(asked))
		if got := byDigest[r.Descriptor.Digest]; got != want || (err != nil) != (want == "") || (want == "" && !errors.Is(err, ErrNotFound)) {
			t.Errorf("%s: got %q %v, want %q", asked, got, err, want)
		}
		if err == nil && r.Index != d.Digest {
			t.Errorf("%s: index %q", asked, r.Index)
		}
	}
	d := index(list)
	check(d, "amd64", "386") // as BuildKit: an amd64 machine runs it
	check(d, "arm64", "arm64/v8")
	check(d, "arm/v7", "arm/v7")
	check(d, "arm", "arm/v7")
	check(d, "arm/v5", "")
	check(d, "arm/v6", "arm/v6")
	check(d, "s390x", "")
	addP("amd64")
	addP("amd64/v3")
	d = index(list)
	check(d, "amd64", "amd64")
	check(d, "amd64/v3", "amd64/v3")
	check(d, "amd64/v2", "amd64")

	list = nil
	add("plain amd64", amd64, nil) // no platform in the index: that of its config counts
	d = index(list)
	check(d, "amd64", "plain amd64")
	check(d, "s390x", "")

	// An index in an index; a manifest by itself is taken as it is.
	inner := d
	d = index([]ocispec.Descriptor{inner})
	check(d, "amd64", "plain amd64")
	if r, err := Resolve(t.Context(), FromStore(s), "x", list[0], p("s390x")); err != nil || r.Descriptor.Platform.Architecture != "amd64" {
		t.Errorf("%+v %v", r, err)
	}
}

func TestDetect(t *testing.T) {
	for doc, want := range map[string]string{
		`{"schemaVersion":2,"layers":[],"config":{}}`:                    ocispec.MediaTypeImageManifest,
		`{"manifests":[]}`:                                               ocispec.MediaTypeImageIndex,
		`{"mediaType":"` + DockerManifest + `","layers":[],"config":{}}`: DockerManifest,
		`{"mediaType":"` + DockerIndex + `","manifests":[]}`:             DockerIndex,
		`{"mediaType":"` + DockerIndex + `","layers":[],"config":{}}`:    "",
		`{"manifests":[],"layers":[]}`:                                   "",
		`{"schemaVersion":1,"fsLayers":[]}`:                              "",
		`{}`:                                                             "",
		`[]`:                                                             "",
		``:                                                               "",
		`{"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"helm"},"layers":[{"x":1}]}`: ocispec.MediaTypeImageManifest,
	} {
		got, err := Detect([]byte(doc), "")
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q %v", doc, got, err)
		}
	}
	if _, err := Detect([]byte(`{"schemaVersion":2,"config":{}}`), dockerSchema1Signed); err == nil || !strings.Contains(err.Error(), "schema 1") {
		t.Error(err)
	}
}

func TestDamagedImagesAreErrors(t *testing.T) {
	s := newStore(t)
	a := simple(t, s, false)
	put := func(b []byte) ocispec.Descriptor {
		d, err := s.PutBlob(b)
		if err != nil {
			t.Fatal(err)
		}
		return ocispec.Descriptor{Digest: d, Size: int64(len(b))}
	}
	edit := func(f func(m *ocispec.Manifest)) ocispec.Descriptor {
		var m ocispec.Manifest
		if err := json.Unmarshal(a.RawManifest, &m); err != nil {
			t.Fatal(err)
		}
		f(&m)
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return put(b)
	}
	config := put([]byte(`{"rootfs":{"diff_ids":["sha256:x","y"]}}`))
	for name, d := range map[string]ocispec.Descriptor{
		"a layer less":      edit(func(m *ocispec.Manifest) { m.Layers = m.Layers[1:] }),
		"negative size":     edit(func(m *ocispec.Manifest) { m.Layers[0].Size = -1 }),
		"path as digest":    edit(func(m *ocispec.Manifest) { m.Layers[0].Digest = "sha256:../../../../etc/passwd" }),
		"path as config":    edit(func(m *ocispec.Manifest) { m.Config.Digest = "../../x" }),
		"huge config":       edit(func(m *ocispec.Manifest) { m.Config.Size = 1 << 40 }),
		"lying config size": edit(func(m *ocispec.Manifest) { m.Config.Size++ }),
		"no image":          edit(func(m *ocispec.Manifest) { m.Config.MediaType = "application/vnd.cncf.helm.config.v1+json" }),
		"layer of text":     edit(func(m *ocispec.Manifest) { m.Layers[0].MediaType = "text/plain" }),
		"absent config":     edit(func(m *ocispec.Manifest) { m.Config.Digest = digest.FromString("absent") }),
		"bad diffIDs":       edit(func(m *ocispec.Manifest) { m.Config.Digest, m.Config.Size = config.Digest, config.Size }),
	} {
		if r, err := Resolve(t.Context(), FromStore(s), "x", d, amd64); err == nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
	// A layout whose files are not what they should be.
	dest := filepath.Join(t.TempDir(), "l")
	if err := WriteOCIDir(t.Context(), dest, FromStore(s), Export{Descriptor: a.Manifest}); err != nil {
		t.Fatal(err)
	}
	blob := filepath.Join(dest, "blobs/sha256", a.Config.Digest.Encoded())
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, a.RawConfig, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func() error{
		"other bytes": func() error { return os.WriteFile(blob, bytes.Repeat([]byte("x"), len(a.RawConfig)), 0o644) },
		"truncated":   func() error { return os.Truncate(blob, 3) },
		"longer": func() error {
			return os.WriteFile(blob, append(a.RawConfig[:len(a.RawConfig):len(a.RawConfig)], ' '), 0o644)
		},
		"link outside": func() error { return errors.Join(os.Remove(blob), os.Symlink(outside, blob)) },
		"fifo":         func() error { os.Remove(blob); return exec.Command("mkfifo", blob).Run() },
		"gone":         func() error { return os.Remove(blob) },
	} {
		if name == "gone" { // maps have no order; the others make the file anew
			continue
		}
		_ = os.Remove(blob)
		if err := os.WriteFile(blob, a.RawConfig, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, _, err := ResolveLayout(t.Context(), "oci-layout://"+dest, amd64); err != nil {
			t.Fatalf("%s: before: %v", name, err)
		}
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := ResolveLayout(t.Context(), "oci-layout://"+dest, amd64); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, _, err := ResolveLayout(t.Context(), "oci-layout://"+t.TempDir(), amd64); err == nil {
		t.Error("an empty directory is a layout")
	}
}

func TestCancelEndsAnExport(t *testing.T) {
	s := newStore(t)
	a := simple(t, s, false)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	dest := t.TempDir()
	if err := WriteOCI(ctx, io.Discard, FromStore(s), Export{Descriptor: a.Manifest}); !errors.Is(err, cause) {
		t.Error(err)
	}
	if _, err := WriteLocal(ctx, filepath.Join(dest, "x"), FromStore(s), a.Layers, nil); !errors.Is(err, cause) {
		t.Error(err)
	}
	if list, _ := os.ReadDir(dest); len(list) != 0 {
		t.Errorf("left %v", list)
	}
}
