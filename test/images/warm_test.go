package images

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"kaniko-build/test/mirror"
	"kaniko-build/test/rig"
)

// TestWarm builds on an image that the warmer has put down, with the flags that
// skaffold gives: its layers are not downloaded again.
func TestWarm(t *testing.T) {
	d := loaded(t)
	bases, reg := rig.StartMirror(t, mirror.Busybox), rig.StartRegistry(t)
	var warm atomic.Bool
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: bases.Addr})
	proxy.ModifyResponse = func(r *http.Response) error {
		if warm.Load() && r.Request.Method == http.MethodGet && r.ContentLength > 100<<10 {
			return errors.New("a layer is downloaded")
		}
		return nil
	}
	s := httptest.NewServer(proxy)
	t.Cleanup(s.Close)
	from := []string{"--registry-mirror", strings.TrimPrefix(s.URL, "http://")}
	dir, cache := rig.Space(t, nil), rig.Space(t, nil)
	rig.Write(t, dir, map[string]string{"Dockerfile": "FROM busybox AS unused\nRUN false\nFROM busybox\nRUN echo warm >/made\n"})
	o := d.Run(t, rig.Container{Image: warmer, Args: append(from, "--cache-dir=/cache", "--image=busybox"), Mounts: []rig.Mount{{Source: cache, Target: "/cache"}}})
	if o.Code != 0 {
		t.Fatal(o.All())
	}
	warm.Store(true)
	build := append(from, "--context", "dir:///workspace", "--destination", reg.Addr+"/warm:1", "--cache=true", "--no-push-cache", "--cache-dir=/cache",
		"--whitelist-var-run", "--skip-unused-stages", "--tarPath=/tmp/image.tar", "-v", "info", "--snapshotMode=redo")
	mounts := []rig.Mount{{Source: dir, Target: "/workspace"}, {Source: cache, Target: "/cache", ReadOnly: true}}
	if o := d.Run(t, rig.Container{Image: executor, Args: build, Mounts: mounts}); o.Code != 0 {
		t.Fatal(o.All())
	}
	if o := d.Run(t, rig.Container{Image: executor, Args: build, Mounts: mounts[:1]}); o.Code == 0 {
		t.Error("a layer came without having been warmed")
	}
	d.Pull(t, reg.Addr+"/warm:1")
	if o := d.Run(t, rig.Container{Image: reg.Addr + "/warm:1", Entrypoint: "/bin/cat", Args: []string{"/made"}}); o.Stdout != "warm\n" {
		t.Errorf("the image has %s", o.All())
	}
}
