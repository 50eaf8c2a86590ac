package e2e

import (
	"fmt"
	"path/filepath"
	"testing"

	"kaniko-build/test/image"
	"kaniko-build/test/mirror"
	"kaniko-build/test/rig"
)

// TestDevicesStayDevices follows devices that a RUN makes, through a later RUN,
// a copy, a bind mount and another build of the same state, into the image. As
// with BuildKit a copy of a block device is a character device, and chmod of
// one name of a file below parts it from the others.
func TestDevicesStayDevices(t *testing.T) {
	rig.NeedRoot(t)
	reg := rig.StartMirror(t, mirror.Debian)
	for _, kind := range rig.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			a := rig.NewAccount(t, kind)
			dir, space := rig.Space(t, nil), rig.Space(t, a)
			rig.Write(t, dir, map[string]string{"Dockerfile": `FROM debian AS made
RUN mknod -m 666 /null c 1 3 && mknod /blk b 7 300 && chown 3:4 /blk && mv /null /n && ln /n /n2 && mknod /gone c 1 5 && rm /gone
RUN test -c /n && test "$(stat -c '%u:%g %a %t:%T %h' /n /n2 /blk | tr '\n' ,)" = '0:0 666 1:3 2,0:0 666 1:3 2,3:4 644 7:12c 1,'
RUN chmod 600 /n && cp -a /blk /d && touch -d @1600000000 /blk && mv /blk /b

FROM debian
COPY --from=made /n2 /copied
COPY --from=made --chown=5:6 /d /owned
RUN test "$(stat -c '%u:%g %a %F %t:%T' /copied /owned | tr '\n' ,)" = '0:0 666 character special file 1:3,5:6 644 character special file 7:12c,'
RUN --mount=type=bind,from=made,target=/m test -b /m/b && test -c /m/n
`})
			rig.Give(t, dir, a)
			for _, c := range []struct {
				target string
				want   map[string]string
			}{
				{"made", map[string]string{"/n": "char 0600 0:0 1:3", "/b": "block 0644 3:4 7:300", "/d": "block 0644 3:4 7:300"}},
				{"", map[string]string{"/copied": "char 0666 0:0 1:3", "/owned": "char 0644 5:6 7:300"}},
			} {
				out := filepath.Join(space, "out"+c.target+".tar")
				a.Must(t, rig.Call{Dir: dir, Env: []string{"KANIKO_BUILD_STATE=" + filepath.Join(space, "state")}}, rig.Binary(t), "build",
					"--progress", "plain", "--registry-mirror", "docker.io="+reg.Addr, "--target", c.target, "-o", "type=oci,dest="+out, dir)
				seen := map[string]string{}
				for _, e := range describe(t, out).FS {
					seen[e.Path] = show(e)
				}
				for name, want := range c.want {
					if seen[name] != want {
						t.Errorf("%s: got %q, want %q", name, seen[name], want)
					}
				}
				if got, ok := seen["/gone"]; ok {
					t.Errorf("/gone is there: %s", got)
				}
			}
		})
	}
}

func show(e image.Entry) string {
	return fmt.Sprintf("%s %s %d:%d %s", e.Type, e.Mode, e.UID, e.GID, e.Device)
}
