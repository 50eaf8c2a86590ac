package layer

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/tree"
)

// link makes a hard link, or puts it down as pending if this layer has no
// such target (yet).
func (u *unpacker) link(dirf int, base string, ref Outside) error {
	ok, err := u.tryLink(dirf, base, ref)
	if err == nil && !ok {
		ref.Target = tree.Clean(ref.Target)
		u.pending = append(u.pending, ref)
	}
	return err
}

func (u *unpacker) tryLink(dirf int, base string, ref Outside) (bool, error) {
	target, st, err := u.target(ref.Target)
	if err != nil || target == "" {
		return false, err
	}
	if target == ref.Path {
		return true, u.relabel(dirf, base, ref)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return false, fmt.Errorf("hard link to directory %s", target)
	}
	if old, err := statAt(dirf, base); err == nil {
		if old.Ino == st.Ino && old.Dev == st.Dev {
			return true, u.relabel(dirf, base, ref)
		}
		if old.Mode&unix.S_IFMT == unix.S_IFDIR && strings.HasPrefix(target, ref.Path+"/") {
			return false, fmt.Errorf("hard link to %s replaces its own directory", target)
		}
		if err := u.remove(dirf, ref.Path, base, old); err != nil {
			return false, err
		}
	} else if !errors.Is(err, unix.ENOENT) {
		return false, err
	}
	delete(u.out.Owners, ref.Path)
	// The target's directory is opened beneath the root, without links.
	tdir, tbase := path.Split(target)
	f, err := u.tree.OpenFile(strings.TrimSuffix(tdir, "/"), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if err := unix.Linkat(int(f.Fd()), tbase, dirf, base, 0); err != nil {
		return false, fmt.Errorf("hard link to %s: %w", target, err)
	}
	return true, u.relabel(dirf, base, ref)
}

// target finds a hard link's target in this layer: links on the way are
// followed, one at the end is not. "" is none.
func (u *unpacker) target(name string) (string, unix.Stat_t, error) {
	real, err := tree.ResolveParent(u.ctx, u.tree, name)
	if err != nil {
		return "", unix.Stat_t{}, err
	}
	if real == "" {
		return "", unix.Stat_t{}, errors.New("hard link to the root")
	}
	f, err := u.tree.OpenFile(real, unix.O_PATH)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return "", unix.Stat_t{}, nil
	}
	if err != nil {
		return "", unix.Stat_t{}, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", st, fmt.Errorf("stat %s: %w", real, err)
	}
	dir, base := path.Split(real)
	parent, err := u.tree.OpenFile(strings.TrimSuffix(dir, "/"), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return "", st, err
	}
	defer parent.Close()
	if gone, err := whiteoutAt(int(parent.Fd()), base, st); err != nil || gone {
		return "", st, err
	}
	return real, st, nil
}

// relabel gives a file the attributes of a further name's own header, as
// containerd does.
func (u *unpacker) relabel(dirf int, base string, ref Outside) error {
	kept, err := u.opts.Make.Change(dirf, base, ref.Mode, ref.UID, ref.GID)
	if err != nil {
		return err
	}
	if !kept {
		u.out.Owners[ref.Path] = [2]uint32{ref.UID, ref.GID}
	}
	if err := u.setXattrs(at(dirf, base), ref.Xattrs); err != nil {
		return err
	}
	return setTimes(dirf, base, times{ref.Atime, ref.Mtime})
}

// retryLinks makes the links whose targets came after them; the others are
// left to Finish. A name that some later entry took is no longer a link.
func (u *unpacker) retryLinks() error {
	for _, ref := range u.pending {
		dir, base := path.Split(ref.Path)
		dirf, _, err := u.dir(strings.TrimSuffix(dir, "/"))
		if err != nil {
			return fmt.Errorf("%q: %w", ref.Path, err)
		}
		if st, err := statAt(dirf, base); err == nil {
			gone, err := whiteoutAt(dirf, base, st)
			if err != nil {
				return fmt.Errorf("%q: %w", ref.Path, err)
			}
			if !gone {
				continue
			}
		}
		ok, err := u.tryLink(dirf, base, ref)
		if err != nil {
			return fmt.Errorf("%q: %w", ref.Path, err)
		}
		if !ok {
			u.out.Outside = append(u.out.Outside, ref)
		}
	}
	return nil
}
