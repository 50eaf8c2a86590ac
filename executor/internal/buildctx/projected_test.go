package buildctx_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"kaniko-build/executor/internal/buildctx"
)

// TestProjectedVolume has a directory as kubelet makes it of a ConfigMap.
func TestProjectedVolume(t *testing.T) {
	for _, c := range []struct {
		name   string
		beside string // a file that kubelet did not make
		sub    string
		want   []string
	}{
		{"volume", "", "", []string{"Dockerfile", "conf"}},
		{"folder", "", "conf", []string{"app.ini"}},
		{"no volume", "mine", "", []string{"..2026_11_25", "..data", "Dockerfile", "conf", "mine"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			data := filepath.Join(root, "..2026_11_25")
			if err := os.MkdirAll(filepath.Join(data, "conf"), 0o755); err != nil {
				t.Fatal(err)
			}
			for name, link := range map[string]string{"..data": "..2026_11_25", "Dockerfile": "..data/Dockerfile", "conf": "..data/conf"} {
				if err := os.Symlink(link, filepath.Join(root, name)); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range []string{filepath.Join(data, "Dockerfile"), filepath.Join(data, "conf/app.ini")} {
				if err := os.WriteFile(name, []byte("x"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if c.beside != "" {
				if err := os.WriteFile(filepath.Join(root, c.beside), nil, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			d, err := buildctx.Open(t.Context(), root, buildctx.Options{Sub: c.sub})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			list, err := d.ReadDir(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, e := range list {
				names = append(names, e.Name)
				if c.beside == "" && e.IsLink() {
					t.Errorf("%s is a link", e.Name)
				}
			}
			slices.Sort(names)
			if !slices.Equal(names, c.want) {
				t.Errorf("the context has %q, want %q", names, c.want)
			}
		})
	}
}
