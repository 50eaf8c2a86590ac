package executor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/copier"
	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/executor/internal/layer"
	"kaniko-build/executor/internal/rootfs"
	"kaniko-build/executor/internal/sandbox"
	"kaniko-build/executor/internal/store"
	"kaniko-build/executor/internal/tree"
	"kaniko-build/schema/diag"
)

// copy executes a COPY or ADD: its sources in the order of the instruction,
// then the files that stand in the Dockerfile itself.
func (c *core) copy(ctx context.Context, st *jobStage, s *jobStep, sources map[string][]rootfs.Layer, base *stack, up *upper) error {
	cp := s.Copy
	owner, err := copier.LookupOwner(ctx, base.view, cp.Chown)
	if err != nil {
		return err
	}
	p := copier.Placement{Dest: cp.Dest, Owner: owner, Make: c.maker, Owners: up.owners}
	if p.Chmod, err = copier.ParseChmod(cp.Chmod); err != nil {
		return err
	}
	var from tree.Tree
	if len(cp.Sources) > 0 {
		t, done, err := c.tree(ctx, cp.From, sources)
		if err != nil {
			return err
		}
		defer done()
		from = t
	}
	place := func(t tree.Tree, sel copier.Select, p copier.Placement) error {
		items, err := copier.Find(ctx, t, sel)
		if err != nil {
			return err
		}
		if up.draft != nil {
			return up.draft.Place(ctx, t, items, p)
		}
		return copier.Place(ctx, t, items, base.view, up.dir, p)
	}
	local := p
	local.Unpack = cp.Add && (cp.Unpack == nil || *cp.Unpack)
	placed := 0
	upTo := func(n int) error {
		if n <= placed {
			return nil
		}
		sel := selection(cp)
		sel.Patterns = cp.Sources[placed:n]
		placed = n
		return place(from, sel, local)
	}
	for i, r := range cp.Remote {
		if err := upTo(r.Before); err != nil {
			return err
		}
		t := c.host.Tree(remoteTreeName(st.Title, s.Number, i))
		rp := p
		rp.Unpack = r.Git == nil && cp.Unpack != nil && *cp.Unpack
		sel := copier.Select{Patterns: []string{"/"}, Exclude: cp.Exclude, Literal: true}
		if r.Git == nil {
			sel = copier.Select{Patterns: []string{r.Name}, Literal: true}
		}
		if err := place(t, sel, rp); err != nil {
			return err
		}
	}
	if err := upTo(len(cp.Sources)); err != nil {
		return err
	}
	for _, f := range cp.Inline {
		when, err := c.written(ctx, f.Path, f.Mode, f.Data)
		if err != nil {
			return err
		}
		t := newInlineTree([]inlineFile{{Name: f.Path, Mode: f.Mode, Data: f.Data, Time: when}})
		if err := place(t, copier.Select{Patterns: []string{f.Path}, Literal: true}, p); err != nil {
			return err
		}
	}
	return nil
}

// workdir makes the directory of a WORKDIR.
func (c *core) workdir(ctx context.Context, w *dockerfile.Workdir, base *stack, up *upper) error {
	owner, err := copier.LookupOwner(ctx, base.view, w.User)
	if err != nil {
		return err
	}
	var when *time.Time
	if w.Epoch != nil {
		t := time.Unix(*w.Epoch, 0)
		when = &t
	}
	if up.draft != nil {
		return up.draft.Mkdirs(ctx, w.Path, owner, when)
	}
	return copier.Mkdirs(ctx, base.view, up.dir, w.Path, owner, when, c.maker)
}

// materialize copies what a bind mount shows of a context into dir, at the
// same path: a container sees no files of the host.
func (c *core) materialize(ctx context.Context, m *dockerfile.Mount, dir string) error {
	if err := (rootfs.Stack{}).NewUpper(dir); err != nil {
		return err
	}
	return copyOut(ctx, c.host.Tree(contextTree(m.From.Context)), m, dir, c.maker)
}

// copyOut copies what a bind mount shows of t into dir, which is there, at the
// same path.
func copyOut(ctx context.Context, t tree.Tree, m *dockerfile.Mount, dir string, mk layer.Maker) error {
	real, err := lookup(ctx, t, m.Source)
	if err != nil {
		return err
	}
	items, err := copier.Find(ctx, t, copier.Select{Patterns: []string{"/" + real}, Literal: true}) // a directory itself
	if err != nil {
		return err
	}
	dest := path.Dir("/"+real) + "/"
	if err := copier.Place(ctx, t, items, copier.Empty, dir, copier.Placement{Dest: dest, Make: mk}); err != nil {
		return err
	}
	if real != tree.Clean(m.Source) { // reached through a link: let it be reached so again
		at := filepath.Join(dir, tree.Clean(m.Source))
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return fmt.Errorf("make the way to a bind mount: %w", err)
		}
		if err := os.Symlink("/"+real, at); err != nil {
			return fmt.Errorf("make the way to a bind mount: %w", err)
		}
	}
	return nil
}

// lookup finds the source of a mount, links followed.
func lookup(ctx context.Context, t tree.Tree, name string) (string, error) {
	real, err := tree.Resolve(ctx, t, name)
	if err != nil {
		return "", err
	}
	if _, err := t.Lstat(ctx, real); err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			return "", &diag.Problem{What: fmt.Sprintf("failed to calculate checksum of source: %q: not found", path.Clean("/"+name)), Hint: "check the spelling, and whether .dockerignore leaves it out"}
		}
		return "", err
	}
	return real, nil
}

// holdCaches takes the directories of all caches of a RUN, which later builds find as
// this one leaves them. Each is there once, however often it is mounted, and all RUNs
// take them in one order, so that no two of them wait for each other.
func (m *mounter) holdCaches(ctx context.Context, list []dockerfile.Mount) error {
	sharing := map[string]string{}
	for i := range list {
		mt := &list[i]
		if mt.Type != dockerfile.MountCache {
			continue
		}
		id := cacheID(mt)
		if now, ok := sharing[id]; !ok || mt.Sharing == "locked" || now != "locked" && mt.Sharing == "private" {
			sharing[id] = mt.Sharing
		}
	}
	m.caches = map[string]string{}
	for _, id := range slices.Sorted(maps.Keys(sharing)) {
		dir, err := m.holdCache(ctx, id, sharing[id])
		if err != nil {
			return err
		}
		m.caches[id] = dir
	}
	return nil
}

// holdCache takes one of the directories that a cache has: the first of a row that
// nobody has who does not share it. Who shares it with nobody takes another, or with
// sharing=locked waits for the first.
func (m *mounter) holdCache(ctx context.Context, id, sharing string) (dir string, err error) {
	for i := 0; ; i++ {
		name := "cache-" + id
		dir := m.core.store.CacheDir(m.core.job.IDs.String(), id)
		if i > 0 {
			name, dir = fmt.Sprintf("%s-%d", name, i), fmt.Sprintf("%s-%d", dir, i)
		}
		var unlock func()
		ok := true
		switch sharing {
		case "locked":
			unlock, err = m.core.store.Lock(ctx, name, nil)
		case "private":
			unlock, ok, err = m.core.store.TryLock(name)
		default:
			unlock, ok, err = m.core.store.TryShare(name)
		}
		if err != nil {
			return "", err
		}
		if ok {
			m.undo = append(m.undo, func() error { unlock(); return nil })
			return dir, nil
		}
	}
}

// cache mounts one of them.
func (m *mounter) cache(ctx context.Context, spec *sandbox.RunSpec, mt *dockerfile.Mount) error {
	dir := m.caches[cacheID(mt)]
	about := mt.ID
	if mt.From.Kind != dockerfile.FromScratch {
		about += " from " + sourceKey(mt.From)
	}
	if err := m.core.store.UseCache(m.core.job.IDs.String(), filepath.Base(dir), about); err != nil {
		return err
	}
	if err := m.makeCache(ctx, mt, dir); err != nil {
		return err
	}
	spec.Mounts = append(spec.Mounts, sandbox.Mount{Kind: sandbox.BindMount, Target: mt.Target, Source: dir, ReadOnly: mt.ReadOnly})
	return nil
}

// cacheID names the folder of a cache: its id, and what it began with.
func cacheID(mt *dockerfile.Mount) string {
	mode := "default"
	if mt.Mode != nil {
		mode = fmt.Sprintf("%o", *mt.Mode)
	}
	k := store.KeyOf([]string{mt.ID, sourceKey(mt.From), mt.Source, mode, fmt.Sprint(mt.UID), fmt.Sprint(mt.GID)})
	return k.String()[:32]
}

// makeCache makes the folder of a cache the first time: empty, or filled from
// its source.
func (m *mounter) makeCache(ctx context.Context, mt *dockerfile.Mount, dir string) error {
	if _, err := os.Lstat(dir); err == nil {
		return nil
	}
	unlock, err := m.core.store.Lock(ctx, "cache-make-"+filepath.Base(dir), nil)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Lstat(dir); err == nil {
		return nil
	}
	temp, err := m.core.store.TempDir("cache")
	if err != nil {
		return err
	}
	defer temp.Remove()
	uid, gid, mode := mt.UID, mt.GID, uint32(0o755)
	if mt.Mode != nil {
		mode = *mt.Mode
	}
	if mt.From.Kind == dockerfile.FromStage || mt.From.Kind == dockerfile.FromImage || mt.From.Context != "" {
		t, done, err := m.core.tree(ctx, mt.From, m.sources)
		if err != nil {
			return err
		}
		defer done()
		real, err := lookup(ctx, t, mt.Source)
		if err != nil {
			return err
		}
		items, err := copier.Find(ctx, t, copier.Select{Patterns: []string{"/" + real}})
		if err != nil {
			return err
		}
		if err := copier.Place(ctx, t, items, copier.Empty, temp.Path, copier.Placement{Dest: "/", Make: m.core.maker}); err != nil {
			return err
		}
		if e, err := t.Lstat(ctx, real); err == nil && mt.Mode == nil {
			uid, gid, mode = e.UID, e.GID, e.Perm()
		}
	}
	parent, name := filepath.Split(temp.Path)
	fd, err := unix.Open(parent, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the folder of a cache: %w", err)
	}
	defer unix.Close(fd)
	if _, err := m.core.maker.Own(fd, name, unix.S_IFDIR|mode, uid, gid); err != nil {
		return err
	}
	_, err = temp.Publish(dir)
	return err
}
