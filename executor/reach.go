package executor

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"sync"

	"kaniko-build/executor/internal/copier"
	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/executor/internal/layer"
	"kaniko-build/executor/internal/tree"
	"kaniko-build/schema/diag"
)

// WriteContext writes the part of a request's context that its Dockerfile can
// reach, as a tar archive: what COPY, ADD and bind mounts of the stages that are
// needed select, with directories above and links on the way, of what the ignore
// file leaves. extra are files to be put at the archive's root, in place of
// files of the context with their names: a Dockerfile that lies elsewhere, an
// ignore file. Entries are sorted and belong to root; two calls for the same
// files write the same bytes.
func (x *Executor) WriteContext(ctx context.Context, r Request, extra map[string][]byte, w io.Writer) error {
	n := &Node{Request: r}
	shared := newContexts()
	x.onClose(shared.Close)
	if err := x.resolve(ctx, n, shared); err != nil {
		return err
	}
	t, err := n.sources.context(ctx, "")
	if err != nil {
		return err
	}
	reached := &traced{Tree: t, seen: map[string]tree.Entry{}}
	for _, st := range n.program.Stages {
		for _, step := range st.Steps {
			if err := reach(ctx, &step, reached); err != nil {
				return placed(err, step.Pos)
			}
		}
	}
	out := tar.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(extra)) {
		h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(extra[name]))}
		if err := out.WriteHeader(h); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		if _, err := out.Write(extra[name]); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	for _, name := range reached.names() {
		if _, own := extra[name]; own {
			continue
		}
		if err := writeEntry(ctx, out, t, name, reached.seen[name]); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return out.Close()
}

// reach walks what a step reads of the main context.
func reach(ctx context.Context, s *dockerfile.Step, t *traced) error {
	walk := func(src dockerfile.Source, sel copier.Select) error {
		if src.Kind != dockerfile.FromContext || src.Context != "" {
			return nil
		}
		items, err := copier.Find(ctx, t, sel)
		if err != nil {
			return err
		}
		for _, it := range items {
			err := copier.Walk(ctx, t, it, func(rel string, e tree.Entry) error {
				t.see(path.Join(it.Path, rel), e)
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	}
	return eachRead(s, walk)
}

// traced is a tree that writes down what was looked at and is there. Others may
// look at once.
type traced struct {
	tree.Tree

	mu   sync.Mutex
	seen map[string]tree.Entry
}

// Lstat is tree.Tree's.
func (t *traced) Lstat(ctx context.Context, name string) (tree.Entry, error) {
	e, err := t.Tree.Lstat(ctx, name)
	if err == nil {
		t.see(name, e)
	}
	return e, err
}

func (t *traced) see(name string, e tree.Entry) {
	t.mu.Lock()
	t.seen[tree.Clean(name)] = e
	t.mu.Unlock()
}

// names are those that were seen, but for the root, in an order that has
// directories before what is in them.
func (t *traced) names() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.DeleteFunc(slices.Sorted(maps.Keys(t.seen)), func(n string) bool { return n == "" || n == "." })
}

// writeEntry writes one file of a context.
func writeEntry(ctx context.Context, out *tar.Writer, t tree.Tree, name string, e tree.Entry) error {
	h, err := layer.Header(name, e)
	if err != nil || h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock {
		return &diag.Problem{What: name + " is a device or a socket, which no archive of a context holds", Hint: "name it in the ignore file"}
	}
	x, err := t.Xattrs(ctx, name)
	if err != nil {
		return err
	}
	layer.AddXattrs(h, x)
	if h.Typeflag != tar.TypeReg {
		return out.WriteHeader(h)
	}
	f, err := t.Open(ctx, name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	if _, err := io.CopyN(out, f, e.Size); errors.Is(err, io.EOF) {
		return &diag.Problem{What: name + " became shorter while it was read", Hint: "start again when nobody writes to it"}
	} else if err != nil {
		return err
	}
	return nil
}
