package images

import (
	"strings"
	"testing"

	"kaniko-build/test/mirror"
	"kaniko-build/test/rig"
)

// TestOpenContainer builds where containers may make user namespaces: then steps
// are isolated, on an overlay if there is a volume for the store, and else in a folder.
func TestOpenContainer(t *testing.T) {
	d := rig.StartOpenDocker(t)
	rig.LoadExecutors(t, d, executor)
	bases, reg := rig.StartMirror(t, mirror.Busybox), rig.StartRegistry(t)
	dir := rig.Space(t, nil)
	// The kernel tells who a process is outside of its namespace.
	rig.Write(t, dir, map[string]string{"Dockerfile": "FROM busybox\nRUN awk '{print $2}' /proc/self/uid_map >/uid && test -e /proc/self/exe && touch /f && chown 7:8 /f\nRUN rm /f\n"})
	for _, c := range []struct {
		name  string
		store []rig.Mount
	}{
		{"volume", []rig.Mount{{Source: rig.Space(t, nil), Target: "/kaniko/state"}}},
		{"root", nil},
	} {
		o := d.Run(t, rig.Container{
			Image: executor, Mounts: append(c.store, rig.Mount{Source: dir, Target: "/workspace"}),
			Args: []string{"--registry-mirror", bases.Addr, "--destination", reg.Addr + "/" + c.name},
		})
		if o.Code != 0 {
			t.Errorf("%s: %s", c.name, o.All())
			continue
		}
		d.Pull(t, reg.Addr+"/"+c.name)
		o = d.Run(t, rig.Container{Image: reg.Addr + "/" + c.name, Entrypoint: "/bin/cat", Args: []string{"/uid"}})
		if o.Code != 0 || strings.Fields(o.Stdout + " 0")[0] == "0" {
			t.Errorf("%s: root of a step was user %q of the container: %s", c.name, o.Stdout, o.Stderr)
		}
	}
}
