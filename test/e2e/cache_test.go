package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kaniko-build/test/image"
	"kaniko-build/test/mirror"
	"kaniko-build/test/rig"
)

// machine is a state directory: all that two builds on it share.
type machine struct {
	*testing.T
	account *rig.Account
	binary  string
	state   string
	dir     string // where the manifest is
}

func newMachine(t *testing.T, k rig.Kind, dir string) *machine {
	t.Helper()
	a := rig.NewAccount(t, k)
	rig.Give(t, dir, a)
	return &machine{T: t, account: a, binary: rig.Binary(t), state: filepath.Join(rig.Space(t, a), "state"), dir: dir}
}

// fresh is another machine of the same account.
func (m *machine) fresh() *machine {
	m.Helper()
	n := *m
	n.state = filepath.Join(rig.Space(m.T, m.account), "state")
	return &n
}

func (m *machine) run(args ...string) rig.Output {
	m.Helper()
	return m.account.Run(m.T, rig.Call{Dir: m.dir, Env: []string{"KANIKO_BUILD_STATE=" + m.state}, Timeout: 3 * time.Minute},
		append([]string{m.binary, args[0], "--progress", "plain"}, args[1:]...)...)
}

func (m *machine) must(args ...string) rig.Output {
	m.Helper()
	o := m.run(args...)
	if o.Code != 0 {
		m.Fatalf("%v: exit code %d\n%s", args, o.Code, o.Tail(40))
	}
	return o
}

// executed counts the steps that ran.
func executed(o rig.Output) int {
	n := 0
	for l := range strings.Lines(o.Stderr) {
		if strings.Contains(l, "] done ") {
			n++
		}
	}
	return n
}

// cachedShop is three images with stages, one on top of another.
func cachedShop(t *testing.T, reg *rig.Registry, cache string) string {
	t.Helper()
	dir := rig.Space(t, nil)
	rig.Write(t, dir, map[string]string{
		"kaniko-build.yaml": fmt.Sprintf(`version: 1
registries: {docker.io: {mirrors: ["%[1]s"]}}
defaults:
  cache: {repo: "%[2]s"}
targets:
  base: {context: base, image: %[1]s/shop/base}
  app: {context: app, image: %[1]s/shop/app}
  tool: {context: tool, image: %[1]s/shop/tool}
`, reg.Addr, cache),
		"base/Dockerfile": "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /base\n",
		"app/Dockerfile": "FROM busybox AS build\nWORKDIR /src\nCOPY main .\nRUN cat /proc/sys/kernel/random/uuid > /dev/null && cp main out && echo built >> out\n" +
			"FROM busybox AS unused\nRUN false\n" +
			"FROM " + reg.Addr + "/shop/base\nUSER 7\nCOPY --from=build /src/out /app\nRUN cat /proc/sys/kernel/random/uuid > /tmp/id\nENV A=b\n",
		"app/main":        "main\n",
		"tool/Dockerfile": "FROM busybox\nCOPY --from=" + reg.Addr + "/shop/base /base /copied\n",
	})
	return dir
}

// Two machines are two state directories and a registry: what one has built the
// other does not execute, and of what the registry has nothing is downloaded.
func TestCacheBetweenMachines(t *testing.T) {
	rig.NeedRoot(t)
	reg := rig.StartMirror(t, mirror.Busybox)
	dir := cachedShop(t, reg, reg.Addr+"/ci/cache")
	one := newMachine(t, rig.Superuser, dir)
	first := one.must("apply", "--push")
	if n := executed(first); n != 7 {
		t.Errorf("the first machine executed %d steps, want 7\n%s", n, first.Tail(60))
	}
	want := describe(t, reg.Addr+"/shop/app")
	layers := len(reg.Requests(t, `"PUT /v2/`, "/blobs/uploads/", " 201 "))

	// The laptop: nothing runs, nothing is unpacked, no layer comes or goes.
	two := one.fresh()
	before := len(reg.Requests(t, `"GET /v2/`, "/blobs/"))
	second := two.must("apply", "--push")
	if n := executed(second); n != 0 {
		t.Errorf("the second machine executed %d steps\n%s", n, second.Tail(60))
	}
	gets := reg.Requests(t, `"GET /v2/`, "/blobs/")[before:]
	for _, d := range image.Diff(want, describe(t, reg.Addr+"/shop/app"), image.DiffOptions{Layers: true, History: true}) {
		t.Errorf("the images differ: %s", d)
	}
	if n := len(reg.Requests(t, `"PUT /v2/`, "/blobs/uploads/", " 201 ")); n != layers {
		t.Errorf("%d blobs were uploaded again", n-layers)
	}
	layersOf := map[string]bool{}
	for _, name := range []string{"base", "app", "tool"} {
		var m struct{ Layers []struct{ Digest string } }
		if err := json.Unmarshal(raw{t, "http://" + reg.Addr + "/v2/shop/" + name}.do(http.MethodGet, "manifests/latest", "", nil, 200), &m); err != nil {
			t.Fatal(err)
		}
		for _, l := range m.Layers {
			layersOf[l.Digest] = true
		}
	}
	if len(layersOf) < 4 {
		t.Errorf("the images have only %d layers", len(layersOf))
	}
	for _, line := range gets {
		for d := range layersOf {
			if strings.Contains(line, d) {
				t.Errorf("a layer was downloaded: %s", line)
			}
		}
	}
	if out, err := filepath.Glob(filepath.Join(two.state, "layers", "*", "*")); err != nil || len(out) > 0 {
		t.Errorf("layers were unpacked: %v %v", out, err)
	}

	// And back: the laptop changes a file, and the CI's next job on an empty machine
	// has it from there.
	rig.Write(t, dir, map[string]string{"app/main": "changed\n"})
	third := two.must("apply", "--push")
	if n := executed(third); n != 4 {
		t.Errorf("after a change %d steps were executed, want 4\n%s", n, third.Tail(60))
	}
	three := one.fresh()
	fourth := three.must("apply", "--push")
	if n := executed(fourth); n != 0 {
		t.Errorf("back in CI %d steps were executed\n%s", n, fourth.Tail(60))
	}
	if e, ok := describe(t, reg.Addr+"/shop/app").Find("/app"); !ok || e.Text != "changed\nbuilt\n" {
		t.Errorf("/app is %+v", e)
	}
}

// A comment in a source that compiles to the same ends at the compiler on a
// machine with an empty store, too: what copies its output is found in the cache
// by content, and all after it by definition.
func TestCacheEndsAChangeThatMadeNoDifference(t *testing.T) {
	rig.NeedRoot(t)
	reg := rig.StartMirror(t, mirror.Busybox)
	dir := rig.Space(t, nil)
	rig.Write(t, dir, map[string]string{
		"kaniko-build.yaml": fmt.Sprintf(`version: 1
registries: {docker.io: {mirrors: ["%[1]s"]}}
targets:
  app: {context: app, image: %[1]s/shop/app, cache: {repo: "%[1]s/ci/cache"}}
`, reg.Addr),
		"app/Dockerfile": `FROM busybox AS build
COPY main /src/main
RUN grep -v '^#' /src/main > /out
FROM busybox
COPY --from=build /out /app
RUN cat /proc/sys/kernel/random/uuid > /id
`,
		"app/main": "# first\nmain\n",
	})
	one := newMachine(t, rig.Superuser, dir)
	one.must("apply", "--push")
	manifest := func() string {
		return string(raw{t, "http://" + reg.Addr + "/v2/shop/app"}.do(http.MethodGet, "manifests/latest", "", nil, 200))
	}
	want := manifest()

	rig.Write(t, dir, map[string]string{"app/main": "# second\nmain\n"})
	o := one.fresh().must("apply", "--push")
	if n := executed(o); n != 2 {
		t.Errorf("%d steps were executed, want the copy of the source and its compilation\n%s", n, o.Tail(60))
	}
	if got := manifest(); got != want {
		t.Errorf("the image is %s, want that of before, %s\n%s", got, want, o.Tail(60))
	}
}
