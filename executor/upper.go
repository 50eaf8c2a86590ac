package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"kaniko-build/executor/internal/copier"
	"kaniko-build/executor/internal/sandbox"
	"kaniko-build/executor/internal/store"
	"kaniko-build/executor/internal/tree"
)

// upper is where a step's changes go, in a temporary folder of the store.
type upper struct {
	dir     string               // the changes
	work    string               // for overlay
	scratch string               // for what else a step needs; an empty folder
	owners  map[string][2]uint32 // of links and fifos that could not be given them
	temp    *store.Temp
	draft   *copier.Draft // instead of all that
}

func (c *core) newUpper(base *stack) (*upper, error) {
	temp, err := c.store.TempDir("step")
	if err != nil {
		return nil, err
	}
	up := &upper{dir: filepath.Join(temp.Path, "upper"), work: filepath.Join(temp.Path, "work"), scratch: filepath.Join(temp.Path, "scratch"), owners: map[string][2]uint32{}, temp: temp}
	if err := errors.Join(base.view.NewUpper(up.dir), os.Mkdir(up.work, 0o700), os.Mkdir(up.scratch, 0o755)); err != nil {
		return nil, errors.Join(err, temp.Remove())
	}
	return up, nil
}

// leaveOut removes what a step changed at or below paths.
func (u *upper) leaveOut(paths []string) error {
	if len(paths) == 0 {
		return nil
	}
	root, err := os.OpenRoot(u.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, p := range paths {
		name := tree.Clean(p)
		if !realDir(root, filepath.Dir(name)) {
			continue
		}
		if err := root.RemoveAll(name); err != nil {
			return fmt.Errorf("leave %s out: %w", p, err)
		}
	}
	return nil
}

// realDir tells whether name is a directory that no link leads to.
func realDir(root *os.Root, name string) bool {
	for at := name; at != "."; at = filepath.Dir(at) {
		if st, err := root.Lstat(at); err != nil || !st.IsDir() {
			return false
		}
	}
	return true
}

// own notes who owns links and fifos of the upper that could not be given their
// owner: their supervisor knows them by device and inode.
func (u *upper) own(ctx context.Context, owners []sandbox.Owner) error {
	if len(owners) == 0 {
		return nil
	}
	byInode := map[[2]uint64]sandbox.Owner{}
	for _, o := range owners {
		byInode[[2]uint64{o.Dev, o.Ino}] = o
	}
	t, err := tree.OpenDir(u.dir, tree.DirOptions{})
	if err != nil {
		return err
	}
	defer t.Close()
	return tree.Walk(ctx, t, "", func(name string, e tree.Entry) error {
		if o, ok := byInode[[2]uint64{e.Dev, e.Ino}]; ok && !e.IsDir() && !e.IsRegular() {
			u.owners[name] = [2]uint32{o.UID, o.GID}
		}
		return nil
	})
}
