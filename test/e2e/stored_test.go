package e2e

import (
	"encoding/json"
	"fmt"
	"os"
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
