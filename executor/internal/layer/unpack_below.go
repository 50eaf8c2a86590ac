package layer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/tree"
)

func (u *unpacker) implicitDirs() []string {
	var out []string
	for name := range u.implicit {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// parentBelow makes the directory at name, which has no entry, look as it
// does in the layers below.
func (u *unpacker) parentBelow(below tree.Tree, name string) error {
	f, err := u.tree.OpenFile(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	real, err := tree.Resolve(u.ctx, below, name)
	if errors.Is(err, tree.ErrLoop) {
		return nil
	}
	if err != nil {
		return err
	}
	e, err := below.Lstat(u.ctx, real)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || err == nil && !e.IsDir() {
		return nil // new: as it was made
	}
	if err != nil {
		return err
	}
	return u.copyMeta(below, real, e, int(f.Fd()))
}

func (u *unpacker) copyMeta(below tree.Tree, name string, e tree.Entry, dirf int) error {
	if _, err := u.opts.Make.Change(dirf, ".", e.Mode, e.UID, e.GID); err != nil {
		return err
	}
	x, err := below.Xattrs(u.ctx, name)
	if err != nil {
		return err
	}
	return u.setXattrs(at(dirf, ""), x) // its time is that of the unpacking, as with BuildKit: something came into it
}

// linkBelow copies a file up from the layers below and gives it another name.
func (u *unpacker) linkBelow(below tree.Tree, ref Outside) error {
	if real, _, err := u.target(ref.Target); err != nil {
		return err
	} else if real == "" {
		if ref.Target, err = u.copyUp(below, ref.Target); err != nil {
			return err
		}
	}
	dir, base := path.Split(ref.Path)
	dirf, dir, err := u.dir(strings.TrimSuffix(dir, "/"))
	if err != nil {
		return err
	}
	return u.keepTimes(dir, func() error {
		ok, err := u.tryLink(dirf, base, ref)
		if err == nil && !ok {
			err = errors.New("the target is in no layer")
		}
		return err
	})
}

// copyUp copies a file, not a directory, from the layers below to its place
// in this one, as an overlay does before it links, and returns that place.
func (u *unpacker) copyUp(below tree.Tree, name string) (string, error) {
	real, err := tree.ResolveParent(u.ctx, below, name)
	if err != nil {
		return "", err
	}
	e, err := below.Lstat(u.ctx, real)
	if err != nil {
		return "", fmt.Errorf("the target is in no layer: %w", err)
	}
	if e.IsDir() {
		return "", errors.New("the target is a directory")
	}
	dir, base := path.Split(real)
	dirf, dir, err := u.dir(strings.TrimSuffix(dir, "/"))
	if err != nil {
		return "", err
	}
	if st, err := statAt(dirf, base); err == nil {
		if gone, err := whiteoutAt(dirf, base, st); err != nil {
			return "", err
		} else if gone {
			return "", errors.New("the target is removed by this layer")
		}
	}
	real = path.Join(dir, base)
	return real, u.keepTimes(dir, func() error {
		h, err := Header(real, e)
		if err != nil || e.IsDir() {
			return fmt.Errorf("the target is of type %o", e.Type())
		}
		var body io.Reader
		if e.IsRegular() {
			f, err := below.Open(u.ctx, real)
			if err != nil {
				return err
			}
			defer f.Close()
			body = f
		}
		x, err := below.Xattrs(u.ctx, real)
		if err != nil {
			return err
		}
		AddXattrs(h, x)
		return u.make(h, body, dirf, real, base)
	})
}

// keepTimes runs fn, which makes files in dir, and gives dir its time again.
func (u *unpacker) keepTimes(dir string, fn func() error) error {
	e, err := u.tree.Lstat(u.ctx, dir)
	if err != nil {
		return err
	}
	if err := fn(); err != nil {
		return err
	}
	f, err := u.tree.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer f.Close()
	return setTimes(int(f.Fd()), "", times{e.ModTime, e.ModTime})
}
