package images

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"kaniko-build/test/rig"
)

// TestLoad gives an image of the store to a real engine, and to the containerd below
// it, and uses it there.
func TestLoad(t *testing.T) {
	rig.NeedRoot(t)
	rig.Need(t, "ctr", "containerd")
	d := rig.StartDocker(t)
	dir := rig.Space(t, nil)
	rig.Write(t, dir, map[string]string{
		"kaniko-build.yaml": "version: 1\ntargets:\n  app: {context: ., image: example.test/load/app, tags: [\"1\", latest], labels: {who: us}}\n" +
			"  both: {context: ., dockerfileInline: \"FROM scratch\\nARG TARGETARCH\\nCOPY Dockerfile /$TARGETARCH\\n\", image: example.test/load/both, platforms: [linux/amd64, linux/arm64], attest: {provenance: min}}\n",
		"busybox":    rig.Busybox(t),
		"Dockerfile": "FROM scratch\nCOPY --chmod=755 busybox /bin/sh\nRUN echo \"made here\" > /said\nENTRYPOINT [\"/bin/sh\", \"-c\", \"cat /said\"]\n",
	})
	root := rig.NewAccount(t, rig.Superuser)
	env := append(d.Env(), "KANIKO_BUILD_STATE="+filepath.Join(rig.Space(t, root), "state"), "CONTAINERD_ADDRESS="+d.Containerd())
	call := func(args ...string) rig.Output {
		t.Helper()
		return root.Must(t, rig.Call{Dir: dir, Env: env}, append([]string{rig.Binary(t)}, args...)...)
	}
	call("apply", "--progress", "plain")
	for _, args := range [][]string{{"load", "example.test/load/app:1"}, {"load", "--to", "docker", "example.test/load/app"}} {
		if o := call(args...); !strings.Contains(o.Stdout, "Loaded image: "+args[len(args)-1]) {
			t.Errorf("%v says %s", args, o.All())
		}
	}
	for _, name := range []string{"example.test/load/app:1", "example.test/load/app:latest"} {
		if o := d.Run(t, rig.Container{Image: name}); o.Code != 0 || o.Stdout != "made here\n" {
			t.Errorf("%s: code %d, says\n%s", name, o.Code, o.All())
		}
		var got []struct {
			Config struct{ Labels map[string]string }
			RootFS struct{ Layers []string }
		}
		if err := json.Unmarshal([]byte(d.Client(t, "image", "inspect", name).Stdout), &got); err != nil || len(got) != 1 {
			t.Fatalf("inspect %s: %d answers, %v", name, len(got), err)
		}
		var ours struct {
			Layers []struct {
				DiffID string `json:"diffID"`
			} `json:"layers"`
		}
		if o := call("inspect", name); json.Unmarshal([]byte(o.Stdout), &ours) != nil || len(ours.Layers) != 2 {
			t.Fatalf("inspect %s:\n%s", name, o.All())
		}
		for i, l := range ours.Layers {
			if len(got[0].RootFS.Layers) != 2 || got[0].RootFS.Layers[i] != l.DiffID {
				t.Errorf("the engine has layers %v, the store %+v", got[0].RootFS.Layers, ours.Layers)
			}
		}
		if got[0].Config.Labels["who"] != "us" {
			t.Errorf("the engine has labels %v", got[0].Config.Labels)
		}
	}
	for engine, namespace := range map[string]string{"containerd": "default", "k8s.io": "k8s.io"} {
		call("load", "--to", engine, "example.test/load/app:1")
		o := root.Must(t, rig.Call{Env: env}, "ctr", "-n", namespace, "images", "check", "name==example.test/load/app:1")
		if !strings.Contains(o.Stdout, "complete") {
			t.Errorf("%s has\n%s", engine, o.All())
		}
	}

	// An image for several platforms comes whole where that can be, and is asked about before
	// it is built; Docker's own store has one platform of it.
	call("load", "--to", "containerd", "example.test/load/both")
	o := root.Must(t, rig.Call{Env: env}, "ctr", "-n", "default", "images", "ls", "name==example.test/load/both:latest")
	if !strings.Contains(o.Stdout, "application/vnd.oci.image.index.v1+json") || !strings.Contains(o.Stdout, "linux/amd64,linux/arm64") {
		t.Errorf("containerd has\n%s", o.All())
	}
	if o := root.Must(t, rig.Call{Env: env}, "ctr", "-n", "default", "images", "check", "name==example.test/load/both:latest"); !strings.Contains(o.Stdout, "complete") {
		t.Errorf("containerd has\n%s", o.All())
	}
	if o := call("load", "--to", "docker", "example.test/load/both"); !strings.Contains(o.Stdout, "Loaded image: example.test/load/both:latest") {
		t.Errorf("Docker says %s", o.All())
	}
	if o := root.Run(t, rig.Call{Dir: dir, Env: env}, rig.Binary(t), "build", "--platform", "linux/amd64,linux/arm64", "-t", "example.test/load/none", "--load", "."); o.Code == 0 || !strings.Contains(o.All(), "docker here holds images for one platform each") {
		t.Errorf("code %d: %s", o.Code, o.All())
	}
}
