package rig

import (
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
