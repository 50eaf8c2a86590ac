package snapshot

import (
	"fmt"
	"iter"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Mode says what tells a changed file from an unchanged one.
type Mode string

// The modes, named as kaniko's --snapshot-mode.
const (
	Full Mode = "full" // everything, content where metadata cannot tell
	Redo Mode = "redo" // mtime, size, mode and owner
	Late Mode = "time" // mtime
)

// ParseMode reads a mode; "" is Full.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case "":
		return Full, nil
	case Full, Redo, Late:
		return m, nil
	}
	return "", fmt.Errorf("snapshot mode %q: want full, redo or time", s)
}

// Change is one difference between two snapshots.
type Change struct {
	Name     string
	Old, New *File // nil: not there
	// Same marks a further name of a linked file in a directory that was made
	// anew: equal to before, but to be mentioned if another of its names is.
	Same bool
}

// Equal tells whether the file name, of which the metadata that was compared
// are equal, is still what it was: for Diff.
type Equal func(name string, old, now *File) (bool, error)

// Diff calls fn for each difference of two snapshots of one directory: a
// directory before what is in it, names in order of bytes. Below a directory that is
// new everything is new; below one that is gone nothing is mentioned. Times
// of directories are no difference.
func Diff(before, now *Snapshot, mode Mode, equal Equal, fn func(Change) error) error {
	d := differ{mode: mode, equal: equal, fn: fn}
	return d.dir("", &before.Root, &now.Root, false)
}

type differ struct {
	mode  Mode
	equal Equal
	fn    func(Change) error
}

// dir compares two directories; renewed says that the present one, or one
// above, is another directory of the same name.
func (d *differ) dir(name string, before, now *File, renewed bool) error {
	a, b := before.Files, now.Files
	for len(a) > 0 || len(b) > 0 {
		var err error
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].Name < b[0].Name:
			err = d.fn(Change{Name: path.Join(name, a[0].Name), Old: &a[0]})
			a = a[1:]
		case len(a) == 0 || b[0].Name < a[0].Name:
			err = d.added(path.Join(name, b[0].Name), nil, &b[0])
			b = b[1:]
		default:
			err = d.both(path.Join(name, a[0].Name), &a[0], &b[0], renewed)
			a, b = a[1:], b[1:]
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *differ) added(name string, old, f *File) error {
	if err := d.fn(Change{Name: name, Old: old, New: f}); err != nil {
		return err
	}
	for i := range f.Files {
		if err := d.added(path.Join(name, f.Files[i].Name), nil, &f.Files[i]); err != nil {
			return err
		}
	}
	return nil
}

func (d *differ) both(name string, old, now *File, renewed bool) error {
	same, err := d.same(name, old, now)
	if err != nil {
		return fmt.Errorf("compare %s: %w", name, err)
	}
	if now.isDir() && !old.isDir() {
		return d.added(name, old, now)
	}
	switch {
	case !same:
		err = d.fn(Change{Name: name, Old: old, New: now})
	case renewed && !now.isDir() && now.Nlink > 1:
		err = d.fn(Change{Name: name, Old: old, New: now, Same: true})
	}
	if err != nil || !now.isDir() {
		return err
	}
	return d.dir(name, old, now, renewed || old.Ino != now.Ino || old.Dev != now.Dev)
}

func (d *differ) same(name string, old, now *File) (bool, error) {
	if old.Mode&unix.S_IFMT != now.Mode&unix.S_IFMT {
		return false, nil
	}
	owner := old.Mode == now.Mode && old.UID == now.UID && old.GID == now.GID && old.Rdev == now.Rdev
	if now.isDir() {
		return owner || d.mode == Late, nil
	}
	written := old.Mtime != now.Mtime
	switch d.mode {
	case Late:
		return !written, nil
	case Redo:
		return owner && !written && old.Size == now.Size, nil
	}
	if !owner || written || old.Size != now.Size || old.Link != now.Link {
		return false, nil
	}
	untouched := old.Ino == now.Ino && old.Dev == now.Dev && old.Ctime == now.Ctime
	if untouched && !old.young {
		return true, nil
	}
	return d.equal(name, old, now)
}

func parts(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for p := range strings.SplitSeq(name, "/") {
			if p != "" && !yield(p) {
				return
			}
		}
	}
}
