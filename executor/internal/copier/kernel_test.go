package copier_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/rootfs"
	"kaniko-build/executor/internal/tree"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount an overlay and to change owners")
	}
}

// tempDir is a directory whose name has nothing that mount options need escaped.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "copier-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func openDir(t *testing.T, dir string) *tree.Dir {
	t.Helper()
	d, err := tree.OpenDir(dir, tree.DirOptions{Overrides: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func chroot(dir string) *syscall.SysProcAttr { return &syscall.SysProcAttr{Chroot: dir} }

// mount mounts an overlay of the directories, topmost first; writable says
// that the first is its upper.
func mount(t *testing.T, dirs []string, writable bool) string {
	t.Helper()
	at := tempDir(t)
	opts := "userxattr"
	if writable {
		work := filepath.Join(filepath.Dir(dirs[0]), "work")
		if err := os.MkdirAll(work, 0o755); err != nil {
			t.Fatal(err)
		}
		opts += ",upperdir=" + dirs[0] + ",workdir=" + work
		dirs = dirs[1:]
	}
	if len(dirs) < 2 {
		dirs = append(slices.Clone(dirs), tempDir(t))
	}
	opts += ",lowerdir=" + strings.Join(dirs, ":")
	if err := unix.Mount("overlay", at, "overlay", 0, opts); err != nil {
		t.Fatalf("mount overlay (%s): %v", opts, err)
	}
	t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
	return at
}

// describe lists a tree for comparison, one line a path.
func describe(t *testing.T, tr tree.Tree) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := tree.Walk(t.Context(), tr, "", func(name string, e tree.Entry) error {
		if name == "" {
			out[name] = fmt.Sprintf("%d", e.ModTime.UnixNano())
			return nil
		}
		x, err := tr.Xattrs(t.Context(), name)
		if err != nil {
			return err
		}
		if e.IsDir() {
			e.Size = 0
		}
		var xs []string
		for _, k := range slices.Sorted(maps.Keys(x)) {
			xs = append(xs, fmt.Sprintf("%s=%x", k, x[k]))
		}
		out[name] = fmt.Sprintf("%o %d:%d size %d dev %d link %q time %d %v", e.Mode, e.UID, e.GID, e.Size, e.Rdev, e.Link, e.ModTime.UnixNano(), xs)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// sameAsKernel compares what the kernel makes of the directories with what our
// own view of them shows.
func sameAsKernel(t *testing.T, dirs []string) {
	t.Helper()
	at := mount(t, dirs, false)
	defer unix.Unmount(at, unix.MNT_DETACH)
	v, err := rootfs.OpenView(dirs...)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	kernel, view := describe(t, openDir(t, at)), describe(t, v)
	for _, name := range slices.Sorted(maps.Keys(kernel)) {
		if view[name] != kernel[name] {
			t.Errorf("%s: view has %s, kernel has %s", name, view[name], kernel[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(view)) {
		if _, ok := kernel[name]; !ok {
			t.Errorf("%s: in the view alone", name)
		}
	}
}
