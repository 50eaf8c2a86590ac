package schema_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"kaniko-build/schema"
)

// owned stands in for a disk: paths and the users that own them.
func owned(files map[string][]uint32) schema.Owners {
	return func(path string) ([]uint32, error) {
		if uids, ok := files[path]; ok {
			return uids, nil
		}
		return nil, fs.ErrNotExist
	}
}

func TestDiscover(t *testing.T) {
	const uid = 1000
	mine := []uint32{uid}
	for _, c := range []struct {
		name, start string
		files       map[string][]uint32
		want, err   string
	}{
		{"here", "/w/a", map[string][]uint32{"/w/a/kaniko-build.yaml": mine}, "/w/a/kaniko-build.yaml", ""},
		{"the other ending", "/w", map[string][]uint32{"/w/kaniko-build.yml": mine}, "/w/kaniko-build.yml", ""},
		{"above, in a work tree", "/w/a/b", map[string][]uint32{"/w/.git": mine, "/w/kaniko-build.yaml": mine}, "/w/kaniko-build.yaml", ""},
		{"the nearest", "/w/a/b", map[string][]uint32{"/w/.git": mine, "/w/kaniko-build.yaml": mine, "/w/a/kaniko-build.yaml": mine}, "/w/a/kaniko-build.yaml", ""},
		{"not above without one", "/w/a", map[string][]uint32{"/w/kaniko-build.yaml": mine}, "", "no kaniko-build.yaml in /w/a"},
		{"not above the work tree", "/w/a/b", map[string][]uint32{"/w/a/.git": mine, "/w/kaniko-build.yaml": mine}, "", "no kaniko-build.yaml in /w/a/b or above it up to /w/a"},
		{"not above an inner work tree", "/w/sub", map[string][]uint32{"/w/.git": mine, "/w/sub/.git": mine, "/w/kaniko-build.yaml": mine}, "", "no kaniko-build.yaml in /w/sub"},
		{"at the root", "/", map[string][]uint32{"/kaniko-build.yaml": {0}}, "/kaniko-build.yaml", ""},
		{"root's", "/w", map[string][]uint32{"/w/kaniko-build.yaml": {0}}, "/w/kaniko-build.yaml", ""},
		{"another user's", "/w", map[string][]uint32{"/w/kaniko-build.yaml": {1001}}, "", "/w/kaniko-build.yaml: belongs to user 1001, and you are 1000\n  hint: if you trust it, name it with -f"},
		{"a link to another user's", "/w", map[string][]uint32{"/w/kaniko-build.yaml": {uid, 1001}}, "", "belongs to user 1001"},
		{"another user's link to mine", "/w", map[string][]uint32{"/w/kaniko-build.yaml": {1001, uid}}, "", "belongs to user 1001"},
		{"another user's hides none above", "/w/a", map[string][]uint32{"/w/.git": mine, "/w/kaniko-build.yaml": mine, "/w/a/kaniko-build.yaml": {7}}, "", "belongs to user 7"},
		{"two", "/w", map[string][]uint32{"/w/kaniko-build.yaml": mine, "/w/kaniko-build.yml": mine}, "", "/w/kaniko-build.yml: stands beside /w/kaniko-build.yaml\n  hint: keep one of them, or choose with -f"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := schema.Discover(c.start, uid, owned(c.files))
			if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.HasPrefix(err.Error(), c.err) && !strings.Contains(err.Error(), c.err) {
				t.Errorf("got  %q, %v\nwant %q, %s", got, err, c.want, c.err)
			}
		})
	}
}

// TestDiscoverOnDisk uses real files and their real owners.
func TestDiscoverOnDisk(t *testing.T) {
	root := t.TempDir()
	deep := filepath.Join(root, "a", "b")
	for _, dir := range []string{deep, filepath.Join(root, ".git")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	manifest := filepath.Join(root, "kaniko-build.yaml")
	if err := os.WriteFile(manifest, []byte("version: 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	owners := func(path string) ([]uint32, error) {
		fi, err := os.Lstat(path)
		if err != nil {
			return nil, err
		}
		return []uint32{fi.Sys().(*syscall.Stat_t).Uid}, nil
	}
	if got, err := schema.Discover(deep, uint32(os.Getuid()), owners); err != nil || got != manifest {
		t.Errorf("got %q, %v", got, err)
	}
	refused := errors.New("permission denied")
	if _, err := schema.Discover(deep, 0, func(string) ([]uint32, error) { return nil, refused }); !errors.Is(err, refused) {
		t.Errorf("an unreadable directory gives %v", err)
	}
}
