package watch_test

import (
	"testing"

	"kaniko-build/watch"
)

func TestTemporary(t *testing.T) {
	for name, want := range map[string]bool{
		"/w/a.go~": true, "/w/.a.go.swp": true, "/w/.a.go.swo": true, "/w/.a.go.swn": true, "/w/.a.go.swx": true, "/w/4913": true,
		"/w/.#a.go": true, "/w/#a.go#": true, "/w/a.go___jb_tmp___": true, "/w/.idea/x.xml": true, "/w/.git/index": true, "/w/.git": true,
		"/w/a.go": false, "/w/.swp": false, "/w/a.swp": false, "/w/.a.swq": false, "/w/.github/x": false, "/w/#": false, "/w/.gitignore": false,
		"/w/.dockerignore": false, "/w/49130": false,
	} {
		if got := watch.Temporary(name); got != want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}
