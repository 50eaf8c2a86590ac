package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"kaniko-build/test/image"
	"kaniko-build/test/mirror"
	"kaniko-build/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// accepted checks that two independent readers take an image of a registry.
func accepted(t *testing.T, ref string) {
	t.Helper()
	rig.Need(t, "skopeo", "skopeo")
	if out, err := exec.Command("skopeo", "inspect", "--tls-verify=false", "docker://"+ref).CombinedOutput(); err != nil {
		t.Errorf("skopeo inspect %s: %v\n%s", ref, err, out)
	}
	img, err := image.Open(ref, "")
	if err != nil {
		t.Errorf("%s: %v", ref, err)
		return
	}
	defer img.Close()
	if err := image.Validate(img); err != nil {
		t.Errorf("go-containerregistry: %s: %v", ref, err)
	}
}

// container is an image as it was pulled and unpacked by other tools.
type container struct {
	dir    string
	config map[string]any
}

// pull fetches ref with skopeo and unpacks it with umoci.
func pull(t *testing.T, ref string) *container {
	t.Helper()
	rig.Need(t, "umoci", "umoci")
	dir := rig.Space(t, nil)
	for _, argv := range [][]string{
		{"skopeo", "copy", "-q", "--src-tls-verify=false", "docker://" + ref, "oci:" + dir + "/oci:it"},
		{"umoci", "unpack", "--image", dir + "/oci:it", dir + "/bundle"},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
		}
	}
	c := &container{dir: filepath.Join(dir, "bundle")}
	b, err := os.ReadFile(filepath.Join(c.dir, "config.json"))
	if err == nil {
		err = json.Unmarshal(b, &c.config)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// start runs the image's command, or args, with runc or crun on the network of
// the machine. wait returns what it printed.
func (c *container) start(t *testing.T, env []string, args ...string) (wait func() string) {
	t.Helper()
	process := c.config["process"].(map[string]any)
	process["terminal"] = false
	have, _ := process["env"].([]any)
	for _, e := range env {
		have = append(have, e)
	}
	process["env"] = have
	if len(args) > 0 {
		process["args"] = args
	}
	linux := c.config["linux"].(map[string]any)
	drop := func(list any, key string, values ...string) []any {
		all, _ := list.([]any)
		return slices.DeleteFunc(all, func(e any) bool {
			v, _ := e.(map[string]any)[key].(string)
			return slices.Contains(values, v)
		})
	}
	linux["namespaces"] = drop(linux["namespaces"], "type", "network", "cgroup", "user")
	delete(linux, "resources")
	delete(linux, "uidMappings")
	delete(linux, "gidMappings")
	c.config["mounts"] = drop(c.config["mounts"], "destination", "/sys/fs/cgroup")
	b, err := json.Marshal(c.config)
	if err == nil {
		err = os.WriteFile(filepath.Join(c.dir, "config.json"), b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprintf("kb-%d-%d", os.Getpid(), time.Now().UnixNano())
	argv := []string{"runc", "--root", filepath.Join(c.dir, "state"), "run", "--bundle", c.dir, id}
	if _, err := exec.LookPath("runc"); err != nil { // crun refuses machines with both versions of cgroups
		rig.Need(t, "crun", "crun")
		argv = slices.Insert(argv, 1, "--cgroup-manager=disabled")
		argv[0] = "crun"
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() {
		exec.Command(argv[0], append(slices.Clone(argv[1:slices.Index(argv, "run")]), "delete", "--force", id)...).Run()
		cancel()
	})
	return func() string {
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("%s: %v\n%s", argv[0], err, out.String())
			}
		case <-time.After(30 * time.Second):
			t.Errorf("%s does not end", argv[0])
		}
		return out.String()
	}
}

func heldPort(t *testing.T) string {
	t.Helper()
	_, port, _ := net.SplitHostPort(rig.HoldPort(t))
	return port
}

// answers waits until a service answers at path, with want.
func answers(t *testing.T, port, path, want string) {
	t.Helper()
	var last string
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get("http://127.0.0.1:" + port + path)
		if err != nil {
			last = err.Error()
			continue
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if last = string(b); err == nil && strings.Contains(last, want) {
			return
		}
	}
	t.Errorf("the service at port %s answers %q to %s, want %q", port, last, path, want)
}

// TestTheRigRunsImages tries the tools of these tests on an image that was not
// built by the program.
func TestTheRigRunsImages(t *testing.T) {
	rig.NeedRoot(t)
	reg := rig.StartMirror(t, mirror.Busybox)
	ref := reg.Addr + "/library/busybox:latest"
	accepted(t, ref)
	c := pull(t, ref)
	port := heldPort(t)
	rig.Write(t, filepath.Join(c.dir, "rootfs"), map[string]string{"www/index.html": "it runs\n"})
	c.start(t, nil, "busybox", "httpd", "-f", "-p", "127.0.0.1:"+port, "-h", "/www")
	answers(t, port, "/", "it runs")
	if out := pull(t, ref).start(t, []string{"WORD=hello"}, "sh", "-c", "echo $WORD")(); out != "hello\n" {
		t.Errorf("a command printed %q", out)
	}
}
