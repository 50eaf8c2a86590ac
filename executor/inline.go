package executor

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/store"
	"kaniko-build/executor/internal/tree"
)

// inlineTree holds the files of a here-document: regular files in one
// directory, owned by root.
type inlineTree struct {
	files []inlineFile // sorted by name
}

type inlineFile struct {
	Name string
	Mode uint32 // permission bits
	Data []byte
	Time time.Time
}

// written is when a here-document was first seen in the store. Equal ones are
// one file, as for BuildKit, so that a COPY of what is there already changes
// nothing, in whatever order builds run.
func (c *core) written(ctx context.Context, name string, mode uint32, data []byte) (time.Time, error) {
	k := store.KeyOf([]string{"here-document", name, fmt.Sprintf("%o", mode), string(data)})
	unlock, err := c.store.Lock(ctx, "step-"+k.String(), nil)
	if err != nil {
		return time.Time{}, err
	}
	defer unlock()
	if e, err := c.store.GetKey(k, c.full()); err == nil {
		return e.Created, nil
	}
	e := store.Entry{Created: time.Now(), Full: c.full()}
	return e.Created, c.store.PutKey(k, e)
}

func newInlineTree(files []inlineFile) inlineTree {
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b inlineFile) int { return strings.Compare(a.Name, b.Name) })
	return inlineTree{files}
}

func (t inlineTree) entry(f inlineFile) tree.Entry {
	return tree.Entry{Name: f.Name, Mode: unix.S_IFREG | f.Mode, Size: int64(len(f.Data)), ModTime: f.Time, Nlink: 1}
}

func (t inlineTree) find(name string) (inlineFile, error) {
	name = tree.Clean(name)
	for _, f := range t.files {
		if f.Name == name {
			return f, nil
		}
	}
	return inlineFile{}, &os.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func (t inlineTree) Lstat(ctx context.Context, name string) (tree.Entry, error) {
	if tree.Clean(name) == "" {
		return tree.Entry{Mode: unix.S_IFDIR | 0o755, ModTime: time.Now(), Nlink: 2}, nil
	}
	f, err := t.find(name)
	if err != nil {
		return tree.Entry{}, err
	}
	return t.entry(f), nil
}

func (t inlineTree) ReadDir(ctx context.Context, name string) ([]tree.Entry, error) {
	if tree.Clean(name) != "" {
		if _, err := t.find(name); err != nil {
			return nil, err
		}
		return nil, &os.PathError{Op: "readdir", Path: name, Err: unix.ENOTDIR}
	}
	out := make([]tree.Entry, len(t.files))
	for i, f := range t.files {
		out[i] = t.entry(f)
	}
	return out, nil
}

func (t inlineTree) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	f, err := t.find(name)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(f.Data)), nil
}

func (t inlineTree) Xattrs(ctx context.Context, name string) (map[string][]byte, error) {
	return nil, nil
}
