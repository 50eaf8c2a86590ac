package images

import (
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kaniko-build/test/githttp"
	"kaniko-build/test/mirror"
	"kaniko-build/test/rig"
)

// TestGit builds from git with the program that the image holds: a context with a
// submodule, and a source of ADD while / is the image's, from a server whose
// certificate was added to the container's.
func TestGit(t *testing.T) {
	d := loaded(t)
	bases, reg := rig.StartMirror(t, mirror.Busybox), rig.StartRegistry(t)
	top := rig.Space(t, nil)
	root := rig.NewAccount(t, rig.Superuser)
	git := func(dir string, args ...string) string {
		return strings.TrimSpace(root.Must(t, rig.Call{Dir: dir}, append([]string{"git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always"}, args...)...).Stdout)
	}
	repo := func(name string, files map[string]string) string {
		dir := filepath.Join(top, name)
		rig.Write(t, dir, files)
		git(dir, "init", "-q", "-b", "main")
		git(dir, "add", ".")
		git(dir, "commit", "-q", "-m", "one")
		return dir
	}
	backend, err := githttp.Backend(t.Context(), top)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewTLSServer(backend)
	t.Cleanup(s.Close)
	sub := repo("sub", map[string]string{"f": "of the submodule\n"})
	app := repo("app", map[string]string{"Dockerfile": "FROM busybox\nCOPY sub/f /f\nRUN cat /f\nADD " + s.URL + "/sub/.git /added\nRUN cat /f /added/f >/both\n"})
	git(app, "submodule", "add", "-q", sub, "sub")
	git(app, "config", "-f", ".gitmodules", "submodule.sub.url", s.URL+"/sub/.git")
	git(app, "commit", "-q", "-a", "-m", "two")
	certificate := filepath.Join(top, "server.crt")
	if err := os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"--registry-mirror", bases.Addr, "--destination", reg.Addr + "/git:1", "--git", "recurse-submodules=true", "--context", "git" + strings.TrimPrefix(s.URL, "https") + "/app/.git"}
	if o := d.Run(t, rig.Container{Image: executor, Args: args}); o.Code != 1 || !strings.Contains(o.All(), "certificate") {
		t.Errorf("a server that nobody knows: %s", o.All())
	}
	o := d.Run(t, rig.Container{Image: executor, Args: args, Mounts: []rig.Mount{{Source: certificate, Target: "/kaniko/ssl/certs/additional-ca-cert-bundle.crt", ReadOnly: true}}})
	if o.Code != 0 {
		t.Fatal(o.All())
	}
	d.Pull(t, reg.Addr+"/git:1")
	o = d.Run(t, rig.Container{Image: reg.Addr + "/git:1", Entrypoint: "/bin/cat", Args: []string{"/both"}})
	if o.Stdout != "of the submodule\nof the submodule\n" {
		t.Errorf("the image has %s", o.All())
	}
}
