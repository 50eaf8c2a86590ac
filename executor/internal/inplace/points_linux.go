package inplace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/tree"
)

// Point is a path that must exist in the root for something to be mounted on it.
type Point struct {
	Path string // absolute; links are followed in the root
	Dir  bool
	Keep bool // it stays
}

// Points makes those of list that are not there, in its order; made are their paths.
// Close of the answer takes away what stayed as it was made. fresh is Mount's.
func (r *Root) Points(ctx context.Context, list []Point, fresh ...string) (m *Mounts, made map[string]bool, err error) {
	m, made = &Mounts{root: r, fresh: fresh}, map[string]bool{}
	for _, p := range list {
		there, err := m.point(ctx, p)
		if err != nil {
			return nil, nil, errors.Join(fmt.Errorf("make mount point %s: %w", p.Path, err), m.Close())
		}
		if !there {
			made[p.Path] = true
		}
	}
	return m, made, nil
}

func (m *Mounts) point(ctx context.Context, p Point) (there bool, err error) {
	name, err := tree.Resolve(ctx, m.root.Tree(), p.Path)
	if err != nil || name == "" {
		return true, err
	}
	real := m.root.dir + "/" + name
	for _, d := range m.fresh {
		if strings.HasPrefix(name, d+"/") {
			m.passing(m.root.dir + "/" + d)
		}
	}
	if _, there, err := lstat(real); err != nil || there {
		return true, err
	}
	if err := m.parents(path.Dir(real)); err != nil {
		return false, err
	}
	return false, keepTime(path.Dir(real), func() error {
		if p.Dir {
			if err := makeDir(real, 0o755, 0, 0); err != nil {
				return err
			}
			if !p.Keep {
				m.passing(real)
			}
			return nil
		}
		if err := makeFile(real, &Mount{Mode: 0o644}); err != nil {
			return err
		}
		placed, _, err := lstat(real)
		if err != nil {
			return err
		}
		m.undo = append(m.undo, func() error {
			return keepTime(path.Dir(real), func() error {
				now, there, err := lstat(real)
				if err != nil || !there || now.Ino != placed.Ino || now.Size > 0 || now.Mode&unix.S_IFMT != unix.S_IFREG {
					return err // the command has made it its own
				}
				return os.Remove(real)
			})
		})
		return nil
	})
}
