package rig

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// busyboxArchive builds an image with our own binary and writes it as an
// archive for docker load.
func busyboxArchive(t *testing.T) string {
	t.Helper()
	dir := Space(t, nil)
	Write(t, dir, map[string]string{"Dockerfile": "FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\nENTRYPOINT [\"/bin/sh\",\"-c\"]\n"})
	if err := os.WriteFile(filepath.Join(dir, "busybox"), []byte(Busybox(t)), 0o755); err != nil {
		t.Fatal(err)
	}
	a := NewAccount(t, Superuser)
	tar := filepath.Join(dir, "image.tar")
	a.Must(t, Call{}, Binary(t), "build", "-t", "box:1", "-o", "type=docker,dest="+tar, dir)
	return tar
}

func TestDockerRunsDefaultContainers(t *testing.T) {
	d := StartDocker(t)
	d.Load(t, busyboxArchive(t))
	dir := Space(t, nil)
	Write(t, dir, map[string]string{"in": "text"})

	o := d.Run(t, Container{
		Image: "box:1", Args: []string{"cat; cat /mnt/in; echo $WORD >&2; exit 42"}, Stdin: []byte("input "),
		Env: []string{"WORD=x"}, Mounts: []Mount{{Source: dir, Target: "/mnt", ReadOnly: true}},
	})
	if o.Code != 42 || o.Stdout != "input text" || o.Stderr != "x\n" {
		t.Errorf("got %+v", o)
	}
	if o := d.Run(t, Container{Image: "box:1", Args: []string{"! echo x >/mnt/in"}, Mounts: []Mount{{Source: dir, Target: "/mnt", ReadOnly: true}}}); o.Code != 0 {
		t.Errorf("a read-only mount can be written: %+v", o)
	}
	// What makes a default container hard: no mount, no user namespace, a
	// filter, and fourteen capabilities.
	o = d.Run(t, Container{Image: "box:1", Args: []string{
		"busybox mkdir /t /proc2; ! busybox mount -t tmpfs t /t && ! busybox unshare -U true && busybox grep -E 'CapEff|Seccomp:' /proc/self/status"}})
	if o.Code != 0 || !strings.Contains(o.Stdout, "CapEff:\t00000000a80425fb") || !strings.Contains(o.Stdout, "Seccomp:\t2") {
		t.Errorf("got %+v", o)
	}
	if o := d.Run(t, Container{Image: "box:1", Memory: 32 << 20, CPUs: 0.5, Args: []string{"x=$(busybox head -c 100000000 /dev/zero | busybox tr '\\0' x)"}}); o.Code != 137 && !strings.Contains(o.All(), "out of memory") {
		t.Errorf("100 MB in a container of 32 MiB: %+v", o)
	}
	if o := d.Run(t, Container{Image: "box:1", Timeout: 2 * time.Second, Args: []string{"busybox sleep 100"}}); o.Code != -1 {
		t.Errorf("got %+v", o)
	}

	r := d.Start(t, Container{Image: "box:1", Args: []string{"busybox sleep 1000"}})
	for range 2 {
		if o := r.Exec(t, Call{Stdin: []byte("y"), Env: []string{"A=b"}, Dir: "/bin"}, "/bin/sh", "-c", "pwd; cat; echo $A >>/seen; cat /seen; exit 3"); o.Code != 3 || !strings.HasPrefix(o.Stdout, "/bin\nyb\n") {
			t.Errorf("got %+v", o)
		}
	}
	if n := r.PeakMemory(t); n == 0 {
		t.Error("no peak of memory")
	}
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", r.PID(t))); err != nil || exe != "/bin/busybox" && exe != "/bin/sh" {
		t.Errorf("the container's first process runs %s, %v", exe, err)
	}
	if left := d.Client(t, "ps", "--all", "--quiet").Stdout; strings.Count(left, "\n") != 1 {
		t.Errorf("containers beside the one that runs: %q", left)
	}
}

func TestDockerPullsFromLoopback(t *testing.T) {
	reg := StartRegistry(t)
	reg.Push(t, filepath.Join(Root(t), "test", "conformance", "images"))
	d := StartDocker(t)
	image := reg.Addr + "/library/busybox:latest"
	d.Pull(t, image)
	if o := d.Run(t, Container{Image: image, Args: []string{"echo", "pulled"}}); o.Stdout != "pulled\n" {
		t.Errorf("got %+v", o)
	}
}

func TestDockerLeavesNothing(t *testing.T) {
	var dir, parent string
	t.Run("engine", func(t *testing.T) {
		d := StartDocker(t)
		d.Load(t, busyboxArchive(t))
		d.Start(t, Container{Image: "box:1", Args: []string{"busybox sleep 1000"}})
		dir, parent = d.dir, d.parent
	})
	if left := Leftovers(dir); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	for _, pattern := range []string{dir, "/sys/fs/cgroup" + parent, "/sys/fs/cgroup/*" + parent} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			t.Errorf("left: %q", found)
		}
	}
}

func TestRigRefusesPrivilege(t *testing.T) {
	for _, f := range []string{"--privileged", "--privileged=true", "--cap-add=ALL", "--cap-add", "--security-opt", "--security-opt=seccomp=unconfined", "--device=/dev/fuse", "--pid=host"} {
		if refused([]string{"--tmpfs=/x", f, "ALL"}) != f {
			t.Errorf("%s is passed on", f)
		}
	}
	if f := refused([]string{"--tmpfs=/x", "--init", "--cap-drop=ALL"}); f != "" {
		t.Errorf("%s is refused", f)
	}
}
