package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kaniko-build/test/image"
	"kaniko-build/test/mirror"
	"kaniko-build/test/rig"
)

// worker is a program for any architecture: it writes down what it runs as.
const worker = `package main

import (
	"os"
	"runtime"
)

func main() {
	who := "somebody"
	if os.Getuid() == 0 {
		who = "root"
	}
	if err := os.WriteFile(os.Args[1], []byte(runtime.GOARCH+" "+os.Args[0]+" "+who+"\n"), 0o644); err != nil {
		panic(err)
	}
}
`

// compile makes the worker for an architecture.
func compile(t *testing.T, dir, arch string) []byte {
	t.Helper()
	rig.Write(t, dir, map[string]string{"worker/main.go": worker, "worker/go.mod": "module worker\n"})
	out := filepath.Join(dir, "worker-"+arch)
	cmd := exec.Command("go", "build", "-o", out, ".")
	cmd.Dir = filepath.Join(dir, "worker")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// platformsRepo is an image for three platforms whose RUN executes their programs,
// one that stands on it, and one that is compiled across.
func platformsRepo(t *testing.T, reg *rig.Registry) string {
	t.Helper()
	dir, scratch := rig.Space(t, nil), rig.Space(t, nil)
	files := map[string]string{
		"kaniko-build.yaml": fmt.Sprintf(`version: 1
registries: {docker.io: {mirrors: ["%[1]s"]}}
defaults: {platforms: [linux/amd64, linux/arm64, linux/s390x]}
targets:
  tool:
    context: tool
    image: %[1]s/multi/tool
    annotations: {"index:org.example.what": all, "manifest-descriptor:org.example.which": one, "org.example.whose": ours}
  child: {context: child, image: %[1]s/multi/child, tags: ["1", latest]}
  cross: {context: cross, image: %[1]s/multi/cross}
`, reg.Addr),
		"tool/Dockerfile": "FROM scratch\nARG TARGETARCH\nCOPY worker-$TARGETARCH /bin/work\n" +
			"RUN [\"/bin/work\", \"/made\"]\nUSER 7:7\n",
		"child/Dockerfile": "FROM " + reg.Addr + "/multi/tool\nUSER 0\nRUN [\"/bin/work\", \"/again\"]\n",
		"cross/Dockerfile": "FROM --platform=$BUILDPLATFORM busybox AS build\nARG TARGETPLATFORM\nRUN echo \"$TARGETPLATFORM on $(uname -m)\" > /out\n" +
			"FROM scratch\nCOPY --from=build /out /out\n",
	}
	for _, arch := range []string{"amd64", "arm64", "s390x"} {
		files["tool/worker-"+arch] = string(compile(t, scratch, arch))
	}
	rig.Write(t, dir, files)
	for _, arch := range []string{"amd64", "arm64", "s390x"} {
		if err := os.Chmod(filepath.Join(dir, "tool/worker-"+arch), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Programs of other architectures run in RUN without a privilege of the host: as
// root, as a user with ids of their own, and as one with a single id. The images
// of a target's platforms are one index, which has the tags.
func TestPlatforms(t *testing.T) {
	rig.Need(t, "qemu-aarch64-static", "qemu-user-static")
	for _, k := range []rig.Kind{rig.Superuser, rig.Subuid, rig.Single} {
		t.Run(string(k), func(t *testing.T) {
			rig.NeedRoot(t)
			reg := rig.StartMirror(t, mirror.Busybox)
			m := newMachine(t, k, platformsRepo(t, reg))
			before := handlers(t)
			m.must("apply", "--push")
			if after := handlers(t); !slices.Equal(before, after) {
				t.Errorf("the host's handlers were %v and are %v", before, after)
			}
			for _, arch := range []string{"amd64", "arm64", "s390x"} {
				d := describePlatform(t, reg.Addr+"/multi/child:1", "linux/"+arch)
				for _, name := range []string{"/made", "/again"} {
					if e, ok := d.Find(name); !ok || e.Text != arch+" /bin/work root\n" {
						t.Errorf("%s: %s is %q", arch, name, e.Text)
					}
				}
				x := describePlatform(t, reg.Addr+"/multi/cross:latest", "linux/"+arch)
				if e, _ := x.Find("/out"); !strings.HasPrefix(e.Text, "linux/"+arch+" on ") {
					t.Errorf("cross for %s: %q", arch, e.Text)
				}
			}
			var index struct {
				MediaType   string            `json:"mediaType"`
				Annotations map[string]string `json:"annotations"`
				Manifests   []struct {
					Platform    struct{ Architecture string }
					Annotations map[string]string
				} `json:"manifests"`
			}
			r := raw{t, "http://" + reg.Addr + "/v2/multi/tool"}
			if err := json.Unmarshal(r.do(http.MethodGet, "manifests/latest", "", nil, http.StatusOK), &index); err != nil {
				t.Fatal(err)
			}
			var arches []string
			for _, m := range index.Manifests {
				arches = append(arches, m.Platform.Architecture)
				if m.Annotations["org.example.which"] != "one" {
					t.Errorf("%s has the annotations %v", m.Platform.Architecture, m.Annotations)
				}
			}
			if !slices.Equal(arches, []string{"amd64", "arm64", "s390x"}) || index.Annotations["org.example.what"] != "all" {
				t.Errorf("the index: %+v", index)
			}
			// Nothing to do: nothing is executed, no tag moves, and one tag was put for
			// each name and none for a single platform.
			o := m.must("apply", "--push")
			if n := executed(o); n != 0 {
				t.Errorf("%d steps ran again\n%s", n, o.Tail(20))
			}
			tags := 0
			for _, line := range reg.Requests(t, `"PUT /v2/multi/`, "/manifests/") {
				if !strings.Contains(line, "/manifests/sha256:") {
					tags++
				}
			}
			if tags != 4 {
				t.Errorf("%d tags were put, want 4", tags)
			}
			layout := filepath.Join(rig.Space(t, m.account), "out.tar")
			m.must("apply", "cross", "-o", "type=oci,dest="+layout)
			if o := m.run("apply", "cross", "-o", "type=docker,dest="+layout); o.Code == 0 || !strings.Contains(o.All(), "type=oci") {
				t.Errorf("a docker archive of several platforms: %s", o.Tail(10))
			}
		})
	}
}

// A platform that cannot be run is an error that says both ways to mend it.
func TestForeignRunWithoutQEMU(t *testing.T) {
	rig.NeedRoot(t)
	reg := rig.StartMirror(t, mirror.Busybox)
	m := newMachine(t, rig.Superuser, platformsRepo(t, reg))
	o := m.account.Run(t, rig.Call{Dir: m.dir, Env: []string{"KANIKO_BUILD_STATE=" + m.state, "PATH=/sbin"}}, m.binary, "apply", "tool", "--progress", "plain")
	for _, want := range []string{"qemu-user-static", "binfmt_misc", "$BUILDPLATFORM"} {
		if !strings.Contains(o.All(), want) {
			t.Errorf("the message does not name %s\n%s", want, o.Tail(20))
		}
	}
	if o.Code == 0 {
		t.Error("exit code 0")
	}
	m.must("apply", "cross") // needs none
}

// handlers are the binfmt_misc handlers of the host.
func handlers(t *testing.T) []string {
	t.Helper()
	list, err := os.ReadDir("/proc/sys/fs/binfmt_misc")
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out
}

func describePlatform(t *testing.T, ref, platform string) *image.Dump {
	t.Helper()
	img, err := image.Open(ref, platform)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	d, err := image.Describe(img, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
