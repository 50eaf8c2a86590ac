package rig

import (
	"os"
	"path/filepath"
	"testing"

	"kaniko-build/test/mirror"
)

// Mirror makes the base images of those names (all when none is named) and
// returns their OCI layout directories. The first time on a machine takes
// minutes.
func Mirror(t testing.TB, names ...string) []string {
	t.Helper()
	Need(t, "debootstrap", "debootstrap")
	if len(names) == 0 {
		names = mirror.All
	}
	cache, err := mirror.Cache()
	if err != nil {
		t.Fatal(err)
	}
	layouts, err := mirror.Make(t.Context(), cache, names, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	return layouts
}

// The images that stand in for kaniko's, as `make images` names them.
const (
	ExecutorImage = "kaniko-build/executor:latest"
	DebugImage    = "kaniko-build/executor:debug"
	SlimImage     = "kaniko-build/executor:slim"
	WarmerImage   = "kaniko-build/warmer:latest"
)

// stages are those of the Dockerfile of these images.
var stages = map[string]string{ExecutorImage: "executor", DebugImage: "debug", SlimImage: "slim", WarmerImage: "warmer"}

// LoadExecutors gives an engine our images of these names, built with the program
// that they hold.
func LoadExecutors(t testing.TB, d *Docker, names ...string) {
	t.Helper()
	a := NewAccount(t, Superuser)
	files := Space(t, nil)
	for name, from := range map[string]string{"kaniko-build": Binary(t), "busybox": "/bin/busybox", "ca-certificates.crt": "/etc/ssl/certs/ca-certificates.crt"} {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(files, name), b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"KANIKO_BUILD_STATE=" + filepath.Join(a.Home, "state")}
	for _, name := range names {
		tar := filepath.Join(files, "image.tar")
		a.Must(t, Call{Env: env}, Binary(t), "build", "-f", filepath.Join(Root(t), "images", "executor", "Dockerfile"),
			"--target", stages[name], "-t", name, "--image-format", "docker", "-o", "type=docker,dest="+tar, files)
		d.Load(t, tar)
		if err := os.Remove(tar); err != nil {
			t.Fatal(err)
		}
	}
}

// StartMirror is a registry that has those images below library/.
func StartMirror(t testing.TB, names ...string) *Registry {
	t.Helper()
	layouts := Mirror(t, names...)
	r := StartRegistry(t)
	for _, l := range layouts {
		r.Push(t, l)
	}
	return r
}
