package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"kaniko-build/test/mirror"
	"kaniko-build/test/rig"
)

// A large layer goes up while it is made, on every kind of machine, and the push sends
// it no more. Where the registry will not have it so the push sends it; a build
// that fails takes it back.
func TestLargeLayersGoUpWhileTheyAreMade(t *testing.T) {
	rig.NeedRoot(t)
	for _, k := range rig.Kinds {
		t.Run(string(k), func(t *testing.T) {
			reg := rig.StartMirror(t, mirror.Busybox)
			g := startGate(t, reg)
			dir := rig.Space(t, nil)
			rig.Write(t, dir, map[string]string{
				"kaniko-build.yaml": fmt.Sprintf(`version: 1
registries: {docker.io: {mirrors: ["%s"]}}
vars: {after: {type: string, default: "true"}}
targets:
  big: {context: ., image: "%s/big", args: {AFTER: "${vars.after}"}}
`, reg.Addr, g.addr),
				"Dockerfile": "FROM busybox\nRUN head -c 48000000 /dev/urandom > /big\nARG AFTER\nRUN $AFTER\n",
			})
			m := newMachine(t, k, dir)
			sent := func(method string) int {
				_, lines := g.seen()
				n := 0
				for _, l := range lines {
					if strings.HasPrefix(l, method+" ") {
						n++
					}
				}
				return n
			}
			m.must("apply", "--push")
			if n := sent(http.MethodPatch); n != 1 {
				_, lines := g.seen()
				t.Errorf("%d PATCHes, want 1: %q", n, lines)
			}
			accepted(t, reg.Addr+"/big:latest")

			g.set(refuses, func(_ int, line string) bool { return strings.HasPrefix(line, http.MethodPatch) })
			m.must("apply", "--push", "--no-cache")
			if n := sent(http.MethodPatch); n != 1 {
				t.Errorf("%d PATCHes, want 1", n)
			}
			g.open()
			if out := m.run("apply", "--push", "--no-cache", "--var", "after=false"); out.Code == 0 {
				t.Error("it ended well")
			}
			_, lines := g.seen()
			tag := slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, http.MethodPut) && strings.Contains(l, "/manifests/") })
			if tag {
				t.Errorf("a build that failed pushed a manifest: %q", lines)
			}
		})
	}
}
