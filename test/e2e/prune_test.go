package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"kaniko-build/test/image"
	"kaniko-build/test/mirror"
	"kaniko-build/test/rig"
)

// pruned is what the test reads of `prune -o json`.
type pruned struct {
	Things []struct {
		Kind string `json:"kind"`
		Name string `json:"name"`
		Goes bool   `json:"goes"`
		Held bool   `json:"held"`
		Why  string `json:"why"`
	} `json:"things"`
}

// TestPruneWhileBuildsRun empties the store again and again while several
// processes build from it and into it. Every build is right, and the store does
// get emptied: also of files that belong to ids that only a container has.
func TestPruneWhileBuildsRun(t *testing.T) {
	rig.NeedRoot(t)
	bases := rig.StartMirror(t, mirror.Busybox)
	for kind, rounds := range map[rig.Kind]int{rig.Superuser: 2, rig.Subuid: 1, rig.Single: 1} {
		t.Run(string(kind), func(t *testing.T) {
			a, binary := rig.NewAccount(t, kind), rig.Binary(t)
			state := filepath.Join(rig.Space(t, a), "state")
			env := []string{"KANIKO_BUILD_STATE=" + state}
			apply := []string{binary, "apply", "--push", "--progress", "plain"}
			want := map[string]*image.Dump{}
			var builds sync.WaitGroup
			// Registries of their own: Debian's writes its links without care for
			// who reads them at that moment.
			for range 2 {
				reg := rig.StartRegistry(t)
				call := rig.Call{Dir: work(t, a, bases.Addr, reg.Addr), Env: env, Timeout: 3 * time.Minute}
				a.Must(t, call, apply...)
				for _, n := range workImages {
					want[reg.Addr+"/"+n] = describe(t, reg.Addr+"/"+n)
				}
				builds.Go(func() {
					for i := range rounds {
						if o := a.Run(t, call, apply...); o.Code != 0 {
							t.Errorf("round %d: a build beside a prune ends with %d\n%s", i, o.Code, o.Tail(20))
						}
					}
				})
			}
			call := rig.Call{Env: env, Timeout: 3 * time.Minute}
			over := make(chan struct{})
			go func() { builds.Wait(); close(over) }()
			gone, held := map[string]int{}, 0
			for running := true; running; {
				select {
				case <-over:
					running = false
				default:
				}
				o := a.Run(t, call, binary, "prune", "--all", "-o", "json")
				if o.Code != 0 {
					t.Errorf("prune ends with %d\n%s", o.Code, o.Tail(20))
					continue
				}
				var p pruned
				if err := json.Unmarshal([]byte(o.Stdout), &p); err != nil {
					t.Fatal(err)
				}
				for _, thing := range p.Things {
					switch {
					case thing.Goes:
						gone[thing.Kind]++
					case thing.Held && thing.Kind != "temp":
						held++
					}
				}
			}
			for ref, dump := range want {
				for _, d := range image.Diff(dump, describe(t, ref), image.DiffOptions{Layers: true, History: true}) {
					t.Errorf("%s: %s", ref, d)
				}
			}
			if gone["layers"] == 0 || gone["keys"] == 0 || gone["blobs"] == 0 || held == 0 {
				t.Errorf("gone: %v; %d things were held: nothing was tried", gone, held)
			}
			// After the last of them nothing is left that was not used since.
			a.Must(t, call, binary, "prune", "--all")
			if out := a.Must(t, call, binary, "du").Stdout; !strings.Contains(out, "total  0 ") {
				t.Errorf("after a last prune the store holds\n%s", out)
			}
			if left := rig.Leftovers(state, binary); len(left) > 0 {
				t.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
			}
			rig.Report(t, "pruned while builds ran, %s: %v gone, %d times something was held", kind, fmt.Sprint(gone), held)
		})
	}
}
