package inplace

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/layer"
	"kaniko-build/executor/internal/tree"
)

// Tree shows what of the root is the stack's: spots are not there. It is valid
// while the root is.
func (r *Root) Tree() tree.Tree { return view{r} }

// Reads opens a regular file of stack where the root holds just that, and the file is
// surely what the stack has: what commands have left running could write to it. ok
// is false otherwise, whatever the reason.
func (r *Root) Reads(ctx context.Context, stack []digest.Digest, name string) (f io.ReadCloser, ok bool) {
	name = tree.Clean(name)
	if !r.Holds(stack) || len(r.stack) != len(stack) || len(r.loans) > 0 {
		return nil, false
	}
	if r.ran {
		if r.snap == nil {
			return nil, false
		}
		e, err := r.tree.Lstat(ctx, name)
		was := r.snap.Find(name)
		if err != nil || was == nil {
			return nil, false
		}
		old := was.Entry()
		if e.Dev != old.Dev || e.Ino != old.Ino || e.Size != old.Size || !e.ModTime.Equal(old.ModTime) || !e.Change.Equal(old.Change) {
			return nil, false
		}
	}
	f, err := r.Tree().Open(ctx, name)
	return f, err == nil
}

type view struct{ root *Root }

// hidden tells whether name is no part of the stack, or a directory of it of
// which only a spot is there.
func (v view) hidden(name string) (gone, stub bool) {
	at := v.root.spots.find(name)
	switch {
	case name == "" || at == nil:
		return false, false
	case at.alone():
		exact := path.Base(name)
		up := v.root.spots.find(path.Dir("/" + name)[1:])
		stub = at.kept && at.there && up != nil && up.below[exact] == at
		return !stub, stub
	}
	return !at.there, false
}

func missing(op, name string) error {
	return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}

func (v view) entry(name string, e tree.Entry) (tree.Entry, error) {
	return layer.Recorded(v.root.dir+"/"+name, e)
}

func (v view) Lstat(ctx context.Context, name string) (tree.Entry, error) {
	name = tree.Clean(name)
	gone, stub := v.hidden(name)
	if gone {
		return tree.Entry{}, missing("stat", name)
	}
	if stub {
		return tree.Entry{Name: path.Base(name), Mode: unix.S_IFDIR | 0o755, Nlink: 2}, nil
	}
	e, err := v.root.tree.Lstat(ctx, name)
	if err != nil {
		return e, err
	}
	return v.entry(name, e)
}

func (v view) ReadDir(ctx context.Context, name string) ([]tree.Entry, error) {
	name = tree.Clean(name)
	gone, stub := v.hidden(name)
	if gone {
		return nil, missing("read directory", name)
	}
	if stub {
		return nil, nil
	}
	all, err := v.root.tree.ReadDir(ctx, name)
	if err != nil {
		return nil, err
	}
	out := make([]tree.Entry, 0, len(all))
	for _, e := range all {
		full := path.Join(name, e.Name)
		gone, stub := v.hidden(full)
		if gone {
			continue
		}
		if stub {
			e, err = v.Lstat(ctx, full)
		} else {
			e, err = v.entry(full, e)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

func (v view) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	name = tree.Clean(name)
	e, err := v.Lstat(ctx, name)
	if err != nil {
		return nil, err
	}
	if !e.IsRegular() { // a device's substitute is no file
		return nil, fmt.Errorf("open %s: not a regular file", name)
	}
	return v.root.tree.OpenRegular(name)
}

func (v view) Xattrs(ctx context.Context, name string) (map[string][]byte, error) {
	name = tree.Clean(name)
	if gone, stub := v.hidden(name); gone || stub {
		return nil, nil
	}
	return v.root.tree.Xattrs(ctx, name)
}
