package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"kaniko-build/test/image"
	"kaniko-build/test/mirror"
	"kaniko-build/test/rig"
)

// An image that was built without its base is whole all the same: it is pushed by
// mounting what the registry has, and written and unpacked with what is fetched
// from there.
func TestStoredImagesKnowWhereTheirBaseIs(t *testing.T) {
	rig.NeedRoot(t)
	reg := rig.StartMirror(t, mirror.Busybox)
	dir := rig.Space(t, nil)
	rig.Write(t, dir, map[string]string{
		"kaniko-build.yaml": fmt.Sprintf(`version: 1
registries: {docker.io: {mirrors: ["%[1]s"]}}
targets:
  app: {context: app, image: %[1]s/stored/app, dockerfile: Dockerfile}
`, reg.Addr),
		"app/Dockerfile": "FROM " + reg.Addr + "/library/busybox\nCOPY file /file\n",
		"app/file":       "text\n",
	})
	m := newMachine(t, rig.Superuser, dir)
	m.must("apply")
	name := reg.Addr + "/stored/app"
	var found struct {
		Layers []struct{ Descriptor struct{ Digest string } }
	}
	if err := json.Unmarshal([]byte(m.call("inspect", name).Stdout), &found); err != nil || len(found.Layers) != 2 {
		t.Fatalf("%v %+v", err, found)
	}
	_, base, _ := strings.Cut(found.Layers[0].Descriptor.Digest, ":")
	if err := os.Remove(filepath.Join(m.state, "blobs", "sha256", base)); err != nil {
		t.Fatal(err) // it was read for its index
	}
	if o := m.call("inspect", name); !strings.Contains(o.Stdout, `"elsewhere": "`+reg.Addr+`/library/busybox`) {
		t.Errorf("inspect does not say where the base is\n%s", o.Tail(40))
	}
	uploads := len(reg.Requests(t, `"PUT /v2/stored/`, "/blobs/uploads/"))
	m.call("push", name, name+":2")
	if n := len(reg.Requests(t, `"PUT /v2/stored/`, "/blobs/uploads/")) - uploads; n != 2 { // a config and one layer
		t.Errorf("%d blobs were sent, want 2", n)
	}
	root := filepath.Join(rig.Space(t, nil), "root")
	m.call("unpack", name, root)
	m.call("save", "-o", "type=oci,tar=false,dest="+filepath.Join(dir, "layout"), name)
	want := describe(t, name+":2")
	for _, d := range image.Diff(want, describe(t, filepath.Join(dir, "layout")), image.DiffOptions{Layers: true, History: true}) {
		t.Errorf("what was saved differs from what was pushed: %s", d)
	}
	if e, ok := want.Find("/bin/busybox"); !ok || e.Size == 0 {
		t.Errorf("/bin/busybox is %+v", e)
	}

	// Another machine pulls it, and has all of it.
	two := m.fresh()
	two.call("pull", name+":2")
	if o := two.call("inspect", name+":2"); strings.Contains(o.Stdout, "elsewhere") {
		t.Errorf("what was pulled is elsewhere\n%s", o.Tail(40))
	}
	two.call("tag", name+":2", reg.Addr+"/stored/again:1")
	two.call("push", reg.Addr+"/stored/again:1")
	describe(t, reg.Addr+"/stored/again:1")
}

// call runs a command that shows no progress.
func (m *machine) call(args ...string) rig.Output {
	m.Helper()
	return m.account.Must(m.T, rig.Call{Dir: m.dir, Env: []string{"KANIKO_BUILD_STATE=" + m.state}}, append([]string{m.binary}, args...)...)
}

// The store is a registry for others on this machine: for skopeo, by the names
// that an image has and by that of its target, of several platforms too.
func TestServe(t *testing.T) {
	rig.NeedRoot(t)
	skopeo := rig.Need(t, "skopeo", "skopeo")
	reg := rig.StartMirror(t, mirror.Busybox)
	dir := rig.Space(t, nil)
	rig.Write(t, dir, map[string]string{
		"kaniko-build.yaml": fmt.Sprintf(`version: 1
registries: {docker.io: {mirrors: ["%s"]}}
targets:
  app: {context: app, image: reg.invalid/shop/served, tags: ["1"]}
  both: {dockerfileInline: "FROM scratch\nCOPY file /\n", context: app, image: reg.invalid/shop/both, platforms: [linux/amd64, linux/arm64], attest: {provenance: min}}
`, reg.Addr),
		"app/Dockerfile": "FROM busybox\nCOPY file /file\n",
		"app/file":       "text\n",
	})
	m := newMachine(t, rig.Superuser, dir)
	m.must("apply")
	addr := rig.StartServer(t, func(addr string) *exec.Cmd {
		cmd := exec.Command(m.binary, "serve", "--listen", addr)
		cmd.Env = append(os.Environ(), "KANIKO_BUILD_STATE="+m.state, "KANIKO_BUILD_SERVE_TOKEN=secret")
		return cmd
	}, rig.Listens)
	copied := func(from, to string, args ...string) error {
		out, err := exec.Command(skopeo, append(append([]string{"copy", "--insecure-policy", "--src-tls-verify=false"}, args...), "docker://"+addr+"/"+from, "oci:"+to)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	}
	want := m.call("inspect", "reg.invalid/shop/served:1").Stdout
	for i, name := range []string{"reg.invalid/shop/served:1", "shop/served:1", "app:1"} {
		to := filepath.Join(rig.Space(t, nil), "layout")
		if err := copied(name, to, "--src-creds", "any:secret"); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if i > 0 {
			continue
		}
		index, err := os.ReadFile(filepath.Join(to, "index.json"))
		if err != nil {
			t.Fatal(err)
		}
		var idx struct{ Manifests []struct{ Digest string } }
		if err := json.Unmarshal(index, &idx); err != nil || len(idx.Manifests) != 1 || !strings.Contains(want, idx.Manifests[0].Digest) {
			t.Errorf("%v: skopeo got %s, the store has %s", err, index, want)
		}
	}
	if err := copied("both:latest", filepath.Join(rig.Space(t, nil), "both"), "--src-creds", "any:secret", "--all"); err != nil { // with attestations
		t.Error(err)
	}
	if err := copied("app:1", filepath.Join(rig.Space(t, nil), "no"), "--src-creds", "any:wrong"); err == nil {
		t.Error("a wrong token is taken")
	}
	for host, want := range map[string]int{addr: http.StatusUnauthorized, "evil.example": http.StatusForbidden} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("Host %s: %s, want %d", host, resp.Status, want)
		}
	}
}

// What is stated about an image comes along when it is pulled, named, pushed and written:
// the index as it is, or of several platforms a smaller one.
func TestPullKeepsAttestations(t *testing.T) {
	rig.NeedRoot(t)
	reg := rig.StartMirror(t, mirror.Busybox)
	dir := rig.Space(t, nil)
	rig.Write(t, dir, map[string]string{
		"kaniko-build.yaml": fmt.Sprintf(`version: 1
defaults: {context: app, attest: {provenance: min, sbom: true}}
targets:
  one: {image: %[1]s/stated/one}
  two: {image: %[1]s/stated/two, platforms: [linux/amd64, linux/arm64]}
  bare: {image: %[1]s/stated/bare, platforms: [linux/amd64, linux/arm64], attest: {provenance: false, sbom: false}}
`, reg.Addr),
		"app/Dockerfile": "FROM scratch\nCOPY file /\n",
		"app/file":       "text\n",
	})
	m := newMachine(t, rig.Superuser, dir)
	m.must("apply", "--push")
	type inspected struct {
		Manifest     struct{ Digest string }
		Index        string
		Platforms    []string
		Attestations []struct{ Type, Digest string }
	}
	inspectFor := func(platform string, m *machine, name string) (out inspected) {
		t.Helper()
		o := m.call("inspect", "--platform", platform, name)
		if err := json.Unmarshal([]byte(o.Stdout), &out); err != nil {
			t.Fatalf("%v\n%s", err, o.All())
		}
		return out
	}
	inspect := func(m *machine, name string) inspected {
		t.Helper()
		return inspectFor("linux/amd64", m, name)
	}
	for _, name := range []string{"one", "two"} {
		built := inspect(m, reg.Addr+"/stated/"+name)
		other := m.fresh()
		other.call("pull", "--platform", "linux/amd64", reg.Addr+"/stated/"+name)
		pulled := inspect(other, reg.Addr+"/stated/"+name)
		if len(pulled.Attestations) != 2 || fmt.Sprint(pulled.Attestations) != fmt.Sprint(built.Attestations) || pulled.Manifest != built.Manifest || fmt.Sprint(pulled.Platforms) != "[linux/amd64]" {
			t.Errorf("%s was %+v, and is %+v", name, built, pulled)
		}
		if same := pulled.Index == built.Index; same != (name == "one") {
			t.Errorf("the index of %s was %s and is %s", name, built.Index, pulled.Index)
		}
		again := reg.Addr + "/stated/again-" + name + ":1"
		other.call("tag", reg.Addr+"/stated/"+name, again)
		other.call("push", again)
		third := m.fresh()
		third.call("pull", "--platform", "linux/amd64", again)
		if got := inspect(third, again); got.Index != pulled.Index || fmt.Sprint(got.Attestations) != fmt.Sprint(pulled.Attestations) {
			t.Errorf("%s was pushed as %+v, and came as %+v", name, pulled, got)
		}
		layout := filepath.Join(rig.Space(t, nil), "layout")
		third.call("save", "-o", "type=oci,tar=false,dest="+layout, again)
		for _, a := range pulled.Attestations {
			if _, err := os.Stat(filepath.Join(layout, "blobs/sha256", strings.TrimPrefix(a.Digest, "sha256:"))); err != nil {
				t.Error(err)
			}
		}
		third.call("save", "-o", "type=docker,dest="+filepath.Join(layout, "image.tar"), again)
	}
	bare := m.fresh()
	bare.call("pull", "--platform", "linux/arm64", reg.Addr+"/stated/bare")
	if got := inspectFor("linux/arm64", bare, reg.Addr+"/stated/bare"); got.Index != "" || len(got.Attestations) > 0 {
		t.Errorf("an image without attestations is %+v", got)
	}
}
