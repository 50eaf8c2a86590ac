package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kaniko-build/test/mirror"
	"kaniko-build/test/rig"
)

// setting is a way to write an image that makes no step another one.
type setting struct {
	name   string
	flags  []string
	output string // fields of -o beside those of all
	epoch  int64  // SOURCE_DATE_EPOCH; 0 is 1.4e9
	// clamps says that times of now do not get into the image, so that steps that
	// leave some make the same image each time.
	clamps bool
	single bool // another rung, which cannot read what steps of the others left
}

var settings = []setting{
	{name: "as it is"},
	{name: "zstd", flags: []string{"--compression", "zstd"}},
	{name: "docker and gzip level 9", flags: []string{"--image-format", "docker", "--compression-level", "9"}},
	{name: "reproducible", flags: []string{"--reproducible"}, clamps: true},
	{name: "earlier and zstd", flags: []string{"--reproducible", "--compression", "zstd"}, epoch: 1_200_000_000, clamps: true},
	{name: "rewrite-timestamp", output: ",rewrite-timestamp=true", clamps: true},
	{name: "single", flags: []string{"--isolation", "userns-single"}, single: true},
}

// TestFlips turns each setting to each other one, on a store that knows the image
// of the first: the image is that of a store that knows nothing, and no step runs
// but for another rung.
func TestFlips(t *testing.T) {
	rig.NeedRoot(t)
	reg := rig.StartMirror(t, mirror.Busybox)
	a, binary := rig.NewAccount(t, rig.Superuser), rig.Binary(t)
	dir := rig.Space(t, nil)
	// What steps make now has a time of now; only where that is clamped, it may be
	// in an image. A RUN makes /proc and /sys if they are missing.
	const fixed = `FROM busybox AS make
RUN echo made > /made && touch -d @1300000000 /made
FROM busybox
COPY root /
COPY --chmod=4750 a /a
COPY --from=make /made /m
RUN echo a >> /a && ln -s a /s && mkdir -m 700 /d && touch -d @1350000000 -h /a /s /d
COPY --link b /b
`
	files := map[string]string{"a": strings.Repeat("a\n", 5000), "b": "b\n", "root/proc/": "", "root/sys/": "", "fixed": fixed, "late": fixed + "RUN mkdir /w && echo late > /w/late && rm -r /d /m\nCOPY a b /w/\n"}
	for _, name := range []string{"fixed", "late"} {
		files[name+".yaml"] = fmt.Sprintf("version: 1\nregistries: {docker.io: {mirrors: [%q]}}\ntargets:\n  it: {image: example.com/it, dockerfile: %s}\n", reg.Addr, name)
	}
	rig.Write(t, dir, files)
	// Some files are later than any epoch here.
	for name, sec := range map[string]int64{"a": 1_000_000_000, "b": 1_500_000_000, "root/proc": 1_500_000_000, "root/sys": 1_250_000_000} {
		if err := os.Chtimes(filepath.Join(dir, name), time.Unix(sec, 0), time.Unix(sec, 0)); err != nil {
			t.Fatal(err)
		}
	}
	space := rig.Space(t, a)
	n := 0
	// build gives the digest of the image, and how many steps were executed.
	build := func(t *testing.T, state, name string, s setting) (digest string, executed int) {
		t.Helper()
		n++
		out, meta := filepath.Join(space, fmt.Sprintf("out%d", n)), filepath.Join(space, fmt.Sprintf("meta%d", n))
		epoch := s.epoch
		if epoch == 0 {
			epoch = 1_400_000_000
		}
		argv := append([]string{binary, "apply", "-f", name + ".yaml", "--progress", "plain", "--metadata-file", meta, "-o", "type=oci,tar=false,dest=" + out + s.output}, s.flags...)
		a.Must(t, rig.Call{Dir: dir, Env: []string{"KANIKO_BUILD_STATE=" + state, fmt.Sprintf("SOURCE_DATE_EPOCH=%d", epoch)}}, argv...)
		var index struct{ Manifests []struct{ Digest string } }
		read(t, filepath.Join(out, "index.json"), &index)
		var steps map[string]struct{ Executed int }
		read(t, meta, &steps)
		return index.Manifests[0].Digest, steps["it"].Executed
	}
	names := func(s setting) []string {
		if s.clamps {
			return []string{"fixed", "late"}
		}
		return []string{"fixed"}
	}
	want := make([]map[string]string, len(settings))
	states := make([]string, len(settings))
	for i, s := range settings {
		want[i], states[i] = map[string]string{}, filepath.Join(space, fmt.Sprintf("state%d", i))
		for _, name := range []string{"fixed", "late"} {
			want[i][name], _ = build(t, states[i], name, s)
		}
		other := filepath.Join(space, fmt.Sprintf("again%d", i))
		for _, name := range names(s) {
			if again, _ := build(t, other, name, s); again != want[i][name] {
				t.Fatalf("%s: two cold builds of %q are not equal, so nothing can be told from them", s.name, name)
			}
		}
	}
	for i, from := range settings {
		for k, to := range settings {
			if i == k {
				continue
			}
			t.Run(from.name+" to "+to.name, func(t *testing.T) {
				state := filepath.Join(space, fmt.Sprintf("state%d-%d", i, k))
				if out, err := exec.Command("cp", "-a", states[i], state).CombinedOutput(); err != nil {
					t.Fatalf("copy the store: %v\n%s", err, out)
				}
				defer os.RemoveAll(state)
				for _, name := range names(to) {
					got, executed := build(t, state, name, to)
					if got != want[k][name] {
						t.Errorf("%s: the image is %s, a cold build makes %s", name, got, want[k][name])
					}
					// What a full map made is good for a single one; but of its layers only
					// the blobs can be read there, and if these have other times it runs anew.
					if rerun := from.single || to.single && from.clamps; executed > 0 && !rerun {
						t.Errorf("%s: %d steps were executed", name, executed)
					}
				}
			})
		}
	}
}

// read decodes a file of JSON.
func read(t *testing.T, file string, into any) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}
