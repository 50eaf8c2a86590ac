package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kaniko-build/test/image"
	"kaniko-build/test/rig"
)

const (
	ociLayer  = "application/vnd.oci.image.layer.v1.tar"
	ociConfig = "application/vnd.oci.image.config.v1+json"
	ociImage  = "application/vnd.oci.image.manifest.v1+json"
)

// oddBase is an image that is written to a layout blob by blob, as images come from
// elsewhere.
type oddBase struct {
	layers []blob
	config map[string]any
}

type blob struct {
	mediaType string
	data      []byte
}

func sha(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

// lay writes the layout, and returns the digests of the layers.
func (b oddBase) lay(t *testing.T, dir string) (layers []string) {
	t.Helper()
	files := map[string]string{"oci-layout": `{"imageLayoutVersion":"1.0.0"}`}
	put := func(mediaType string, data []byte) map[string]any {
		d := sha(data)
		files["blobs/sha256/"+strings.TrimPrefix(d, "sha256:")] = string(data)
		return map[string]any{"mediaType": mediaType, "digest": d, "size": len(data)}
	}
	encode := func(v any) []byte {
		out, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	var list []any
	for _, l := range b.layers {
		list = append(list, put(l.mediaType, l.data))
		layers = append(layers, sha(l.data))
	}
	config := put(ociConfig, encode(b.config))
	manifest := put(ociImage, encode(map[string]any{"schemaVersion": 2, "mediaType": ociImage, "config": config, "layers": list}))
	files["index.json"] = string(encode(map[string]any{"schemaVersion": 2, "manifests": []any{manifest}}))
	rig.Write(t, dir, files)
	return layers
}

// busybox is the corpus' image's one layer, as a tar.
func busybox(t *testing.T) []byte {
	t.Helper()
	img, err := image.Open(filepath.Join(rig.Root(t), "test", "conformance", "images#busybox"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v, want one", len(layers), err)
	}
	r, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func gzipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestLargeIDs: files may be of any owner, and keep him from one stage and layer to
// the next. A process cannot be everybody, which is told.
func TestLargeIDs(t *testing.T) {
	packed := busybox(t)
	for _, kind := range []rig.Kind{rig.Superuser, rig.Single} {
		t.Run(string(kind), func(t *testing.T) {
			a := rig.NewAccount(t, kind)
			dir, space := rig.Space(t, nil), rig.Space(t, a)
			oddBase{[]blob{{ociLayer, packed}}, map[string]any{"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": []string{sha(packed)}}}}.lay(t, filepath.Join(dir, "base"))
			const text = "FROM base AS a\nCOPY --chown=3000000:2500000 f /d/\nRUN mv /d/f /d/g && chmod 600 /d/g\nFROM base\nCOPY --from=a /d /d\nCOPY --chown=2000000000 f /h\nUSER 70000:8\n"
			rig.Write(t, dir, map[string]string{"good/f": "f\n", "good/Dockerfile": text, "bad/f": "f\n", "bad/Dockerfile": text + "RUN id > /tmp/id\n"})
			rig.Give(t, dir, a)
			build := func(context string) rig.Output {
				return a.Run(t, rig.Call{Dir: dir, Env: []string{"KANIKO_BUILD_STATE=" + filepath.Join(space, "state")}}, rig.Binary(t), "build", "--progress", "plain",
					"--build-context", "base=oci-layout://"+filepath.Join(dir, "base"), "-o", "type=oci,dest="+filepath.Join(space, context+".tar"), filepath.Join(dir, context))
			}
			if o := build("good"); o.Code != 0 {
				t.Fatalf("exit code %d\n%s", o.Code, o.Tail(20))
			}
			d := describe(t, filepath.Join(space, "good.tar"))
			for name, want := range map[string]string{"/d/g": "file 0600 3000000:2500000 ", "/h": "file 0644 2000000000:2000000000 "} {
				if e, ok := d.Find(name); !ok || show(e) != want {
					t.Errorf("%s is %+v, want %s", name, e, want)
				}
			}
			if o := build("bad"); kind == rig.Superuser && (o.Code == 0 || !strings.Contains(o.All(), "no process can be user 70000")) {
				t.Errorf("exit code %d\n%s", o.Code, o.Tail(20))
			}
		})
	}
}

// TestOddBases builds on images as other tools make them. BuildKit v0.34.2 made the
// same of each, entry for entry, when this was written.
func TestOddBases(t *testing.T) {
	full := busybox(t)
	id := sha(full)
	config := func(more map[string]any, ids ...string) map[string]any {
		c := map[string]any{"architecture": "amd64", "os": "linux", "config": map[string]any{}, "rootfs": map[string]any{"type": "layers", "diff_ids": ids}}
		maps.Copy(c, more)
		return c
	}
	plain, packed := blob{ociLayer, full}, blob{ociLayer + "+gzip", gzipped(t, full)}
	half := len(full)/2 + 7
	members := blob{ociLayer + "+gzip", append(gzipped(t, full[:half]), gzipped(t, full[half:])...)}

	many, ids := []blob{packed}, []string{id}
	for i := range 126 {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("layer%d", i), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		many, ids = append(many, blob{ociLayer, b.Bytes()}), append(ids, sha(b.Bytes()))
	}
	bare := config(nil, id)
	delete(bare, "config")
	hollow := config(nil)
	delete(hollow, "rootfs")

	const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	a, space := rig.NewAccount(t, rig.Superuser), rig.Space(t, nil)
	for _, c := range []struct {
		rule string
		base oddBase
		env  []string
		arch string
		fail string // part of the message
	}{
		{rule: "no PATH", base: oddBase{[]blob{packed}, config(map[string]any{"config": map[string]any{"Env": []string{"A=b"}}}, id)}, env: []string{"A=b", path}},
		{rule: "no settings at all", base: oddBase{[]blob{packed}, bare}, env: []string{path}},
		{rule: "an uncompressed layer", base: oddBase{[]blob{plain}, config(nil, id)}, env: []string{path}},
		{rule: "members of gzip one after the other", base: oddBase{[]blob{members}, config(nil, id)}, env: []string{path}},
		{rule: "127 layers", base: oddBase{many, config(nil, ids...)}, env: []string{path}},
		{rule: "made for another machine, with programs for this one", base: oddBase{[]blob{packed}, config(map[string]any{"architecture": "s390x"}, id)}, env: []string{path}, arch: "linux/s390x"},
		{rule: "a layer and no rootfs", base: oddBase{[]blob{packed}, hollow}, fail: "1 layers in its manifest, 0 in its config"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			dir := rig.Space(t, nil)
			want := c.base.lay(t, filepath.Join(dir, "base"))
			rig.Write(t, dir, map[string]string{"context/f": "f\n", "context/Dockerfile": "FROM base\nRUN echo $PATH > /path\nCOPY f /\nRUN cat /path >> /f\n"})
			out := filepath.Join(dir, "out")
			o := a.Run(t, rig.Call{Dir: dir, Env: []string{"KANIKO_BUILD_STATE=" + filepath.Join(space, "state")}}, rig.Binary(t), "build", "--progress", "plain",
				"--build-context", "base=oci-layout://"+filepath.Join(dir, "base"), "-o", "type=oci,dest="+out+".tar", filepath.Join(dir, "context"))
			if c.fail != "" {
				if o.Code != 3 || !strings.Contains(o.All(), "Dockerfile:1:6") || !strings.Contains(o.All(), c.fail) {
					t.Errorf("exit code %d, want a mistake in Dockerfile:1:6: %s\n%s", o.Code, c.fail, o.All())
				}
				return
			}
			if o.Code != 0 {
				t.Fatalf("exit code %d\n%s", o.Code, o.Tail(20))
			}
			d := describe(t, out+".tar")
			if !slices.Equal(d.Config.Env, c.env) {
				t.Errorf("env %q, want %q", d.Config.Env, c.env)
			}
			if c.arch != "" && d.Platform != c.arch {
				t.Errorf("platform %s, want %s", d.Platform, c.arch)
			}
			if e, ok := d.Find("/f"); !ok || e.Text != "f\n"+strings.TrimPrefix(path, "PATH=")+"\n" {
				t.Errorf("/f is %+v", e)
			}
			img, err := image.Open(out+".tar", "")
			if err != nil {
				t.Fatal(err)
			}
			defer img.Close()
			got, _, err := image.LayerDigests(img)
			if err != nil || len(got) != len(want)+3 || !slices.Equal(got[:len(want)], want) {
				t.Errorf("layers %v, %v, want those of the base %v, and 3", got, err, want)
			}
		})
	}
}
