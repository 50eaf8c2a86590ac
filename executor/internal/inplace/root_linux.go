package inplace

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/layer"
	"kaniko-build/executor/internal/snapshot"
	"kaniko-build/executor/internal/tree"
)

// Options say which directory a Root is.
type Options struct {
	Dir  string // absolute: "/", or a folder
	Hide string // a folder on the same file system for what is put aside; made, and removed by Close
	// Keep are absolute paths that are left alone if they are there, beside mount
	// points and Hide; Ignore are left alone in any case.
	Keep, Ignore []string
	// Lent are those of Keep that are needed only after Yield, and before the first
	// Bring. They, and mounts with nothing of Keep in them, are lent to the stack when a
	// command would look for its files there.
	Lent []string
	// Stay are directories that stay in their place while what is in them is put
	// aside: somebody works in them, or will want to after a kill. A command sees them
	// empty where the stack has nothing there.
	Stay []string
	// Ends says that the container ends with us: files that are to be deleted at the
	// end may as well stay where they are put for that, below Hide, and the next
	// Recover deletes them, if there is one.
	Ends bool
	Make layer.Maker
	Mode snapshot.Mode // "" is Full
	// Walked is told of each look at all files: how many there were, and how long it
	// took. Nil does not hear it.
	Walked func(files int, took time.Duration)
}

// Root is a directory that holds one stack of layers after another. It is for
// one goroutine at a time.
type Root struct {
	opts     Options
	dir      string // opts.Dir as a prefix of paths: "" for "/"
	hide     string
	spots    *spot
	tree     *tree.Dir
	contents *layer.Contents

	entered bool
	dirty   bool // something ran, and what it did is not known
	ran     bool // a command did, since the root was entered
	stack   []digest.Digest
	snap    *snapshot.Snapshot // of the stack; nil: to be taken
	loans   []*loan
	offers  map[string]*parcel // by the stack that they are the end of
	devices bool               // the stack has some, which may be substitutes
	n       int                // names in the hidden folder
}

// Open gets ready. It touches nothing: the first Bring does. The caller holds
// the lock of the directory (Lock), and has called Recover.
func Open(o Options) (*Root, error) {
	if o.Mode == "" {
		o.Mode = snapshot.Full
	}
	s, err := spots(o.Dir, journal{Keep: o.Keep, Ignore: append(slices.Clone(o.Ignore), o.Hide), Stay: o.Stay})
	if err != nil {
		return nil, err
	}
	t, err := tree.OpenDir(o.Dir, tree.DirOptions{})
	if err != nil {
		return nil, err
	}
	return &Root{opts: o, dir: prefix(o.Dir), hide: o.Hide, spots: s, tree: t, contents: layer.NewContents(), offers: map[string]*parcel{}}, nil
}

func prefix(dir string) string {
	if dir = path.Clean(dir); dir == "/" {
		return ""
	}
	return dir
}

// Close gives the directory back as it was. It is called once, whatever failed.
func (r *Root) Close() error {
	err := r.tree.Close()
	if !r.entered {
		return err
	}
	for _, l := range slices.Backward(r.loans) {
		err = errors.Join(err, l.close())
	}
	return errors.Join(err, leave(r.dir, r.hide, r.spots, r.opts.Ends))
}

// Dir is the directory.
func (r *Root) Dir() string { return r.opts.Dir }

// Scratch is a new name in a folder on the file system of the root, of which
// nothing is in any layer. It exists until Close.
func (r *Root) Scratch() (string, error) {
	if err := r.enter(); err != nil {
		return "", err
	}
	r.n++
	return filepath.Join(r.hide, "tmp", strconv.Itoa(r.n)), nil
}

// Holds tells whether the root is at stack, or at the beginning of it.
func (r *Root) Holds(stack []digest.Digest) bool {
	return r.entered && !r.dirty && len(r.stack) > 0 && len(r.stack) <= len(stack) && slices.Equal(r.stack, stack[:len(r.stack)])
}

// Has tells whether stack is what the root holds, or the beginning of that.
func (r *Root) Has(stack []digest.Digest) bool {
	return len(stack) <= len(r.stack) && slices.Equal(stack, r.stack[:len(stack)])
}

// enter puts the container's own files aside.
func (r *Root) enter() error {
	if r.entered {
		return nil
	}
	if err := begin(r.dir, r.hide, journal{Keep: r.opts.Keep, Ignore: r.opts.Ignore, Stay: r.opts.Stay}, r.spots); err != nil {
		return fmt.Errorf("clear %s for the build: %w", r.opts.Dir, err)
	}
	r.entered = true
	return nil
}

// Bring makes the root hold stack, of which open gives the blobs, compressed
// or not. open is called for the layers that are missing, from several
// goroutines, and may block. An error leaves the root in a state that the next
// Bring clears.
func (r *Root) Bring(ctx context.Context, stack []digest.Digest, open func(ctx context.Context, id digest.Digest) (io.ReadCloser, error)) (err error) {
	if err := errors.Join(r.enter(), r.resume()); err != nil {
		return err
	}
	if !r.Holds(stack) && (r.dirty || len(r.stack) > 0) {
		if err := r.clear(); err != nil {
			return err
		}
	}
	more := stack[len(r.stack):]
	if len(more) == 0 {
		return nil
	}
	r.dirty, r.snap = true, nil
	below := len(stack) - len(more)
	unpacked := make([]chan *parcel, len(more))
	g, ctx := errgroup.WithContext(ctx)
	slots := make(chan struct{}, max(1, runtime.GOMAXPROCS(0)))
	for i, id := range more {
		unpacked[i] = make(chan *parcel, 1)
		if p := r.offers[offer(stack[:below+i+1])]; p != nil {
			delete(r.offers, offer(stack[:below+i+1])) // it is used up, whatever happens
			unpacked[i] <- p
			continue
		}
		dir, err := r.Scratch()
		if err != nil {
			return err
		}
		g.Go(func() error {
			p, err := r.unpack(ctx, id, dir, slots, open)
			if err != nil {
				return fmt.Errorf("layer %s: %w", id, err)
			}
			unpacked[i] <- p
			return nil
		})
	}
	g.Go(func() error {
		for i, id := range more {
			select {
			case p := <-unpacked[i]:
				if err := r.place(ctx, p); err != nil {
					return fmt.Errorf("place layer %s: %w", id, err)
				}
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return err
	}
	r.stack, r.dirty = slices.Clone(stack), false
	return nil
}

// Offer gives a directory that holds the last layer of stack, all of it and
// nothing else, made over the layers below: the next Bring of it may move what is
// there into the root instead of unpacking it. hides is as in layer.Unpacked. It is false, and
// nothing is taken, where dir is on another file system.
func (r *Root) Offer(stack []digest.Digest, dir string, hides bool) bool {
	st, there, err := lstat(dir)
	root, rootThere, rootErr := lstat(r.opts.Dir)
	if err != nil || rootErr != nil || !there || !rootThere || st.Dev != root.Dev {
		return false
	}
	r.offers[offer(stack)] = &parcel{dir: dir, done: layer.Unpacked{Hides: hides}}
	return true
}

// offer names a stack.
func offer(stack []digest.Digest) string { return fmt.Sprint(stack) }

// parcel is a layer that was unpacked beside the root.
type parcel struct {
	dir  string
	done layer.Unpacked
}

func (r *Root) unpack(ctx context.Context, id digest.Digest, dir string, slots chan struct{}, open func(ctx context.Context, id digest.Digest) (io.ReadCloser, error)) (*parcel, error) {
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-slots }()
	blob, err := open(ctx, id)
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	in, _, err := layer.Decompress(blob)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	h := sha256.New()
	p := &parcel{dir: dir}
	if p.done, err = layer.Unpack(ctx, io.TeeReader(in, h), dir, layer.UnpackOptions{Make: r.opts.Make, Contents: r.contents}); err != nil {
		return nil, err
	}
	if got := digest.NewDigest(digest.SHA256, h); got != id {
		return nil, fmt.Errorf("the tar in the blob has digest %s", got)
	}
	return p, nil
}

// place merges an unpacked layer into the root.
func (r *Root) place(ctx context.Context, p *parcel) error {
	if len(p.done.Outside) > 0 {
		if err := layer.Finish(ctx, p.dir, r.Tree(), &p.done, layer.UnpackOptions{Make: r.opts.Make, Contents: r.contents}); err != nil {
			return err
		}
	}
	for _, l := range r.loans {
		l.links = nil // inodes of the layer before
	}
	r.devices = r.devices || p.done.Devices
	m := merger{ctx: ctx, root: r, plain: !p.done.Hides}
	if p.done.Opaque {
		if err := r.clear(); err != nil {
			return err
		}
	}
	if err := m.dir(p.dir, "", r.spots); err != nil {
		return err
	}
	return os.RemoveAll(p.dir)
}

// merger puts one layer over what is in the root.
type merger struct {
	ctx   context.Context
	root  *Root
	plain bool // the layer hides nothing: what is new can be renamed as a whole
}

// dir merges the directory src of the layer into name, a directory of the root;
// at is its spot, if there is one at or below it.
func (m *merger) dir(src, name string, at *spot) error {
	if err := context.Cause(m.ctx); err != nil {
		return err
	}
	names, err := list(src)
	if err != nil {
		return err
	}
	for _, n := range names {
		var s *spot
		if at != nil {
			s = at.below[n]
		}
		if err := m.one(src+"/"+n, path.Join(name, n), s); err != nil {
			return err
		}
	}
	return nil
}

func (m *merger) one(src, name string, at *spot) error {
	dst := m.root.dir + "/" + name
	from, _, err := lstat(src)
	if err != nil {
		return err
	}
	gone := false
	if !isDir(from) {
		if gone, err = layer.Whiteout(src, tree.Entry{Mode: from.Mode, UID: from.Uid, Size: from.Size, Rdev: from.Rdev}); err != nil {
			return err
		}
	}
	if at != nil {
		return m.spot(src, name, at, from, gone)
	}
	to, there, err := lstat(dst)
	if err != nil {
		return err
	}
	switch {
	case gone:
		if there {
			return m.root.discard(dst)
		}
		return nil
	case !isDir(from):
		if there && isDir(to) {
			if err := m.root.discard(dst); err != nil {
				return err
			}
		}
		return m.root.carry(src, dst)
	}
	opaque, err := layer.Opaque(src)
	if err != nil {
		return err
	}
	if there && (opaque || !isDir(to)) {
		if err := m.root.discard(dst); err != nil {
			return err
		}
		there = false
	}
	if !there && m.plain {
		return m.root.carry(src, dst)
	}
	if err := makeLike(src, dst); err != nil {
		return err
	}
	return m.into(src, name, nil, from)
}

// into merges the directory src, of which st was told before, into one that is
// there, and makes that look like it.
func (m *merger) into(src, name string, at *spot, st unix.Stat_t) error {
	if err := m.dir(src, name, at); err != nil {
		return err
	}
	dst := m.root.dir + "/" + name
	if err := copyAttributes(src, dst); err != nil {
		return err
	}
	return setTimes(dst, st)
}

// spot handles a name of the layer that is left alone, or above such names.
func (m *merger) spot(src, name string, at *spot, from unix.Stat_t, gone bool) error {
	if gone {
		at.there, at.blocked, at.full = false, false, false
		return m.root.sweep(name, at)
	}
	at.there, at.stat = isDir(from), from
	if at.kept && at.there && at.why == nil {
		// A command may look for what the layer has here.
		names, err := list(src)
		if err != nil {
			return err
		}
		if len(names) > 0 {
			at.why = m.root.lend(name, at)
		}
	}
	if at.kept {
		if !at.there {
			at.full = true
			return nil
		}
		names, err := list(src)
		at.full = at.full || len(names) > 0
		return err
	}
	if at.blocked = !at.there; at.blocked {
		return m.root.sweep(name, at)
	}
	opaque, err := layer.Opaque(src)
	if err != nil {
		return err
	}
	if opaque {
		if err := m.root.sweep(name, at); err != nil {
			return err
		}
		at.there = true
	}
	if err := makeLike(src, m.root.dir+"/"+name); err != nil { // what is to be ignored need not be there
		return err
	}
	return m.into(src, name, at, from)
}

// discard takes a file or directory away at once. It is deleted later.
func (r *Root) discard(p string) error {
	if l := r.loan(p); l != nil {
		return l.discard(p)
	}
	r.n++
	return move(p, filepath.Join(r.hide, "gone", strconv.Itoa(r.n)))
}

// sweep takes away what is in the directory name, but for spots, and forgets
// what the stack had there.
func (r *Root) sweep(name string, at *spot) error {
	for _, s := range at.below {
		s.empty()
	}
	return sweep(r.dir, name, at, r.discard)
}

// clear empties the root but for spots.
func (r *Root) clear() error {
	r.stack, r.snap, r.dirty = nil, nil, true
	if err := r.sweep("", r.spots); err != nil {
		return fmt.Errorf("clear %s: %w", r.opts.Dir, err)
	}
	gone := []string{filepath.Join(r.hide, "gone")}
	for _, l := range r.loans {
		gone = append(gone, filepath.Join(l.hide, "gone"))
	}
	for _, dir := range gone {
		if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
			return fmt.Errorf("clear %s: %w", r.opts.Dir, err)
		}
	}
	r.dirty = false
	return nil
}

// HiddenError says that a command would not see what it should.
type HiddenError struct {
	Path string // in the root: what is left alone
	Why  error  // it cannot be lent
}

func (e *HiddenError) Error() string {
	return fmt.Sprintf("%s is the container's own, a mount or the context, and the image has files in the same place, which a RUN would not see; to put aside what is there is not possible: %v", e.Path, e.Why)
}

func (e *HiddenError) Unwrap() error { return e.Why }

// Run tells that a command is about to run, with a working directory, in a root
// that holds what Bring brought: it takes the snapshot that Changes compares with.
// It fails with a *HiddenError where something that is left alone stands in the way.
func (r *Root) Run(ctx context.Context, workdir string) error {
	if err := r.resume(); err != nil {
		return err
	}
	name, err := tree.Resolve(ctx, r.Tree(), workdir)
	if err != nil {
		return err
	}
	for {
		p, at := r.spots.hidden("", name)
		if at == nil {
			break
		}
		if at.why == nil && at.full {
			at.why = errors.New("what the image has there is no directory")
		}
		if at.why == nil {
			at.why = r.lend(p, at)
		}
		if at.why != nil {
			return &HiddenError{"/" + p, at.why}
		}
	}
	if r.snap == nil {
		s, err := r.take(ctx)
		if err != nil {
			return err
		}
		r.snap = s
	}
	r.dirty, r.ran = true, true
	return nil
}

// take looks at all files.
func (r *Root) take(ctx context.Context) (*snapshot.Snapshot, error) {
	started := time.Now()
	s, err := snapshot.Take(ctx, r.opts.Dir, r.verdict)
	if err == nil && r.opts.Walked != nil {
		r.opts.Walked(s.Looked, time.Since(started))
	}
	return s, err
}

// Changes finds what was changed since Run, for layer.PackChanges with Contents;
// once that is packed as a layer, Keep says so.
func (r *Root) Changes(ctx context.Context) ([]layer.Change, error) {
	now, err := r.take(ctx)
	if err != nil {
		return nil, err
	}
	var out []layer.Change
	equal := func(name string, old, f *snapshot.File) (bool, error) {
		return r.contents.Equal(ctx, r.tree, name, old.Entry(), f.Entry())
	}
	err = snapshot.Diff(r.snap, now, r.opts.Mode, equal, func(c snapshot.Change) error {
		if c.New == nil {
			out = append(out, layer.Change{Name: c.Name})
			return nil
		}
		e := c.New.Entry()
		out = append(out, layer.Change{Name: c.Name, Entry: &e, Same: c.Same})
		return nil
	})
	if err != nil {
		return nil, err
	}
	r.snap = now
	r.spots.seen("", now)
	if extra := r.standard(); len(extra) > 0 {
		out = merge(out, extra)
	}
	return out, nil
}

// verdict is that of the spots. What a command copied of the files that are put aside in
// a directory which is lent to it does not count either.
func (r *Root) verdict(name string) snapshot.Verdict {
	if len(r.loans) > 0 && (path.Base(name) == AsideName || path.Base(name) == rubbish) {
		return snapshot.Ignore
	}
	return r.spots.verdict(name)
}

// seen notes which directories above spots have something in them now.
func (s *spot) seen(name string, now *snapshot.Snapshot) {
	for n, b := range s.below {
		if full := path.Join(name, n); !b.alone() && now.Find(full) != nil {
			b.there = true
			b.seen(full, now)
		}
	}
}

// standard are the directories that every container has, and that stay in the
// image if the base lacks them, as with BuildKit.
func (r *Root) standard() []layer.Change {
	var out []layer.Change
	for _, name := range []string{"dev", "proc", "sys"} {
		if s := r.spots.below[name]; s != nil && !s.there {
			s.there = true
			out = append(out, layer.Change{Name: name, Entry: &tree.Entry{Name: name, Mode: unix.S_IFDIR | 0o755, Nlink: 2, ModTime: time.Now()}})
		}
	}
	return out
}

// merge puts extra, which are names of the root, where they belong among changes.
func merge(changes, extra []layer.Change) []layer.Change {
	for _, c := range extra {
		i := 0
		for i < len(changes) && firstPart(changes[i].Name) < c.Name {
			i++
		}
		changes = slices.Insert(changes, i, c)
	}
	return changes
}

func firstPart(name string) string {
	for i := range name {
		if name[i] == '/' {
			return name[:i]
		}
	}
	return name
}

// Devices tells whether there were devices in any stack so far, or empty files that stand
// for them.
func (r *Root) Devices() bool { return r.devices }

// Contents remembers what the files of the root hold.
func (r *Root) Contents() *layer.Contents { return r.contents }

// Keep says that the changes since Run are the layer id, which is now the last
// of the stack, and whether it has devices.
func (r *Root) Keep(id digest.Digest, devices bool) {
	r.devices = r.devices || devices
	r.stack = append(slices.Clone(r.stack), id)
	r.dirty = false
}
