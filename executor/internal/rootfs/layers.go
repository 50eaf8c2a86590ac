package rootfs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/index"
	"kaniko-build/executor/internal/layer"
	"kaniko-build/executor/internal/tree"
)

// Layer is one layer of a chain.
type Layer struct {
	DiffID digest.Digest `json:"diffID"` // of the uncompressed tar
}

// Layers is the unpacked layers in a directory, for one id map:
//
//	<id>/fs          root of the layer, an overlay's lower
//	<id>/owners      owners of links that the id map lacks, if any (ReadOwners)
//	<id>/devices     the layer holds substitutes of devices (HasDevices)
//	<hex>.outside    the layer of that diffID refers to others: look for its chain
//	.tmp-*           being made, by whoever holds its lock
//	.lock-*          taken while a layer of that name is made
//
// An id is the hex of a diffID, or "chain-" and the hex of a chain's id.
type Layers struct {
	Dir  string
	Make layer.Maker
	Jobs int // layers unpacked at a time; 0 is the number of CPUs
	// Use, if set, marks the directory of a layer that was found as used, and
	// tells whether it is still there: what is not marked may be pruned.
	Use func(dir string) bool
	// Waiting, if set, is told which layer another process is making. It is
	// called from many goroutines.
	Waiting func(id digest.Digest)
	// Indexes, if set, gets the index of every layer that is unpacked, and lets
	// View do without unpacking.
	Indexes Indexes
	// Indexed says that View is to look at no directory: whoever looks may not be
	// one of the ids that files have there.
	Indexed bool

	mu   sync.Mutex
	near map[digest.Digest]string // by the id of a chain: the root of its last layer
}

// Near says that the last layer of chain has its root at dir, which is the caller's,
// until Far: others do not find it.
func (l *Layers) Near(chain []Layer, dir string) {
	ids := ChainIDs(chain)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.near == nil {
		l.near = map[digest.Digest]string{}
	}
	l.near[ids[len(ids)-1]] = dir
}

// Far takes Near back, and gives the directory; false if there was none.
func (l *Layers) Far(chain []Layer) (dir string, ok bool) {
	ids := ChainIDs(chain)
	id := ids[len(ids)-1]
	l.mu.Lock()
	defer l.mu.Unlock()
	dir, ok = l.near[id]
	delete(l.near, id)
	return dir, ok
}

// Ensure returns the roots of chain's layers, topmost first, as an overlay takes
// them: each once, and none below a layer that hides everything. What is missing is unpacked, in
// parallel, from what open gives: the blob, compressed or not. open is called
// for such layers only and may block, for a download. A blob whose tar has
// another digest than the layer's is an error. Errors are *LayerError. Two processes that need the
// same layer unpack it once. A repeat is harmless.
func (l *Layers) Ensure(ctx context.Context, chain []Layer, open func(ctx context.Context, l Layer) (io.ReadCloser, error)) ([]string, error) {
	if err := os.MkdirAll(l.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("prepare layers: %w", err)
	}
	jobs := l.Jobs
	if jobs < 1 {
		jobs = runtime.GOMAXPROCS(0)
	}
	ids := ChainIDs(chain)
	e := &ensuring{Layers: l, open: open, dirs: make([]string, len(chain)), ready: make([]chan struct{}, len(chain)), slots: make(chan struct{}, jobs)}
	g, ctx := errgroup.WithContext(ctx)
	for i := range chain {
		e.ready[i] = make(chan struct{})
		g.Go(func() error {
			dir, err := e.one(ctx, i, chain[i], ids[i])
			if err != nil {
				return &LayerError{DiffID: chain[i].DiffID, Err: err}
			}
			e.dirs[i] = dir
			close(e.ready[i])
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return topmost(e.dirs)
}

// LayerError is the failure to bring a layer about.
type LayerError struct {
	DiffID digest.Digest
	Err    error
}

func (e *LayerError) Error() string { return fmt.Sprintf("layer %s: %v", e.DiffID, e.Err) }

func (e *LayerError) Unwrap() error { return e.Err }

// topmost turns a chain's directories over and ends at one that hides the rest.
// Of a layer that an image has twice, as many have an empty one, the lower place
// shows nothing that the upper does not; the kernel refuses both (ELOOP).
func topmost(dirs []string) ([]string, error) {
	out := make([]string, 0, len(dirs))
	seen := map[string]bool{}
	for i := len(dirs) - 1; i >= 0; i-- {
		if seen[dirs[i]] {
			continue
		}
		seen[dirs[i]] = true
		out = append(out, dirs[i])
		hides, err := layer.Opaque(dirs[i])
		if err != nil {
			return nil, err
		}
		if hides {
			break
		}
	}
	return out, nil
}

// ChainIDs names each layer of a chain together with those below it, as the
// OCI image specification does.
func ChainIDs(chain []Layer) []digest.Digest {
	out := make([]digest.Digest, len(chain))
	for i, l := range chain {
		out[i] = l.DiffID
		if i > 0 {
			out[i] = digest.FromString(out[i-1].String() + " " + l.DiffID.String())
		}
	}
	return out
}

// Has returns the root of a layer that is there, given the layers below it;
// false if it must be unpacked first.
func (l *Layers) Has(chain []Layer) (string, bool) {
	if len(chain) == 0 {
		return "", false
	}
	ids := ChainIDs(chain)
	return l.find(chain[len(chain)-1], ids[len(ids)-1])
}

func (l *Layers) find(one Layer, chainID digest.Digest) (string, bool) {
	l.mu.Lock()
	dir, near := l.near[chainID]
	l.mu.Unlock()
	if near {
		return dir, true
	}
	for _, id := range []string{one.DiffID.Encoded(), chainName(chainID)} {
		if dir := l.Root(id); isDir(dir) && l.use(id) {
			return dir, true
		}
	}
	return "", false
}

func (l *Layers) use(id string) bool { return l.Use == nil || l.Use(filepath.Join(l.Dir, id)) }

func chainName(id digest.Digest) string { return "chain-" + id.Encoded() }

// Root is where the layer with the given id has, or would have, its root.
func (l *Layers) Root(id string) string { return filepath.Join(l.Dir, id, "fs") }

func isDir(p string) bool {
	st, err := os.Lstat(p)
	return err == nil && st.IsDir()
}

// Adopt makes the upper of a finished step the last layer of chain; upper is
// moved, or removed if the layer is there. The caller has unmounted it, and it
// must be on the file system of the layers. owners may be nil; devices tells
// that the upper holds substitutes, see layer.Stats.
//
// It is kept as the chain's, not the diffID's: an upper may hold what is equal
// below it and therefore not in the layer's tar, and another chain would not
// have it.
func (l *Layers) Adopt(ctx context.Context, chain []Layer, upper string, owners map[string][2]uint32, devices bool) (string, error) {
	ids := ChainIDs(chain)
	id, name := chain[len(chain)-1].DiffID, chainName(ids[len(ids)-1])
	if len(chain) == 1 {
		name = id.Encoded() // nothing is below it
	}
	if err := os.MkdirAll(l.Dir, 0o755); err != nil {
		return "", fmt.Errorf("keep layer %s: %w", id, err)
	}
	t, err := l.temp()
	if err != nil {
		return "", fmt.Errorf("keep layer %s: %w", id, err)
	}
	defer t.remove()
	if err := os.Remove(t.fs()); err != nil {
		return "", fmt.Errorf("keep layer %s: %w", id, err)
	}
	if err := os.Rename(upper, t.fs()); err != nil {
		return "", fmt.Errorf("keep layer %s: %w", id, err)
	}
	if err := errors.Join(WriteOwners(t.fs(), owners), markDevices(t.fs(), devices)); err != nil {
		return "", err
	}
	if err := t.commit(name); err != nil {
		return "", fmt.Errorf("keep layer %s: %w", id, err)
	}
	return l.Root(name), nil
}

type ensuring struct {
	*Layers
	open  func(ctx context.Context, l Layer) (io.ReadCloser, error)
	slots chan struct{}

	dirs  []string        // dirs[i] is set before ready[i] is closed
	ready []chan struct{} // one a layer
}

// one brings layer i about. A slot is held while a layer is unpacked, never
// while others are waited for.
//
// Locks: that of the diffID is a leaf, held while the layer is unpacked. If the
// layer turns out to need others, it is given up, and that of the chain taken;
// those are only ever waited for from a longer chain to a shorter one.
func (e *ensuring) one(ctx context.Context, i int, l Layer, chainID digest.Digest) (string, error) {
	if err := l.DiffID.Validate(); err != nil {
		return "", err
	}
	if dir, ok := e.find(l, chainID); ok {
		return dir, nil
	}
	id := l.DiffID.Encoded()
	mark := filepath.Join(e.Dir, id+".outside")
	var t *temp
	defer func() {
		if t != nil {
			t.remove()
		}
	}()
	var done layer.Unpacked
	if _, err := os.Lstat(mark); err != nil {
		unlock, err := e.lock(ctx, l.DiffID, id)
		if err != nil {
			return "", err
		}
		defer func() { unlock() }()
		if dir, ok := e.find(l, chainID); ok {
			return dir, nil
		}
		if _, err := os.Lstat(mark); err != nil { // still not known to refer to others
			if t, done, err = e.unpack(ctx, l); err != nil {
				return "", err
			}
			if len(done.Outside) == 0 {
				if err := t.commit(id); err != nil {
					return "", err
				}
				return e.Root(id), nil
			}
			b, err := json.Marshal(done.Outside[:min(len(done.Outside), 20)]) // for people who wonder
			if err != nil {
				return "", err
			}
			if err := os.WriteFile(mark, b, 0o644); err != nil {
				return "", err
			}
		}
		unlock()
	}
	id = chainName(chainID)
	unlock, err := e.lock(ctx, l.DiffID, id)
	if err != nil {
		return "", err
	}
	defer unlock()
	if dir, ok := e.find(l, chainID); ok {
		return dir, nil
	}
	if t == nil {
		if t, done, err = e.unpack(ctx, l); err != nil {
			return "", err
		}
	}
	if err := e.finish(ctx, i, t, &done); err != nil {
		return "", err
	}
	if err := t.commit(id); err != nil {
		return "", err
	}
	return e.Root(id), nil
}

func (e *ensuring) unpack(ctx context.Context, l Layer) (_ *temp, done layer.Unpacked, err error) {
	select {
	case e.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, done, context.Cause(ctx)
	}
	defer func() { <-e.slots }()
	blob, err := e.open(ctx, l)
	if err != nil {
		return nil, done, err
	}
	defer blob.Close()
	t, err := e.temp()
	if err != nil {
		return nil, done, err
	}
	defer func() {
		if err != nil {
			t.remove()
		}
	}()
	r, _, err := layer.Decompress(blob)
	if err != nil {
		return nil, done, err
	}
	defer r.Close()
	sum := digest.Canonical.Digester()
	if l.DiffID.Algorithm() != digest.Canonical {
		sum = l.DiffID.Algorithm().Digester()
	}
	var seen io.Writer = sum.Hash()
	var names *index.Writer
	if e.Indexes != nil {
		names = index.NewWriter(ctx)
		defer names.Index()
		seen = io.MultiWriter(seen, names)
	}
	done, err = layer.Unpack(ctx, io.TeeReader(r, seen), t.fs(), layer.UnpackOptions{Make: e.Make})
	if err == nil {
		err = e.moments(ctx, l, t.fs())
	}
	if err != nil {
		return nil, done, err
	}
	if got := sum.Digest(); got != l.DiffID {
		return nil, done, fmt.Errorf("the tar in the blob has digest %s", got)
	}
	if names != nil {
		if x, err := names.Index(); err == nil { // else it does without, as long as it lies unpacked
			if err := e.Indexes.PutIndex(l.DiffID, x); err != nil {
				return nil, done, err
			}
		}
	}
	return t, done, errors.Join(WriteOwners(t.fs(), done.Owners), markDevices(t.fs(), done.Devices))
}

// moments gives the files of an unpacked layer the times that its index knows better
// than its tar does: what is copied later is compared with them.
func (e *ensuring) moments(ctx context.Context, l Layer, root string) error {
	if e.Indexes == nil {
		return nil
	}
	x, err := e.Indexes.Index(ctx, l.DiffID)
	if err != nil {
		return nil //nolint:nilerr // there is none to use
	}
	dir, err := tree.OpenDir(root, tree.DirOptions{})
	if err != nil {
		return err
	}
	defer dir.Close()
	for name, when := range x.Moments() {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := dir.SetTime(name, when); err != nil && !missing(err) {
			return fmt.Errorf("set the time of %s: %w", name, err)
		}
	}
	return nil
}

// finish waits for the layers below and completes the layer upon them.
func (e *ensuring) finish(ctx context.Context, i int, t *temp, done *layer.Unpacked) error {
	for _, below := range e.ready[:i] {
		select {
		case <-below:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	dirs, err := topmost(e.dirs[:i])
	if err != nil {
		return err
	}
	if done.Opaque {
		dirs = nil
	}
	v, err := OpenView(dirs...)
	if err != nil {
		return err
	}
	defer v.Close()
	if err := layer.Finish(ctx, t.fs(), v, done, layer.UnpackOptions{Make: e.Make}); err != nil {
		return err
	}
	return WriteOwners(t.fs(), done.Owners)
}

// temp is a layer in the making. Its lock tells Sweep that somebody lives.
type temp struct {
	layers *Layers
	dir    string
	lock   *os.File
}

const tempPrefix, lockPrefix = ".tmp-", ".lock-"

func (l *Layers) temp() (*temp, error) {
	for {
		dir, err := os.MkdirTemp(l.Dir, tempPrefix)
		if err != nil {
			return nil, fmt.Errorf("make temporary layer: %w", err)
		}
		f, err := os.Open(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue // swept
		}
		if err != nil {
			return nil, fmt.Errorf("make temporary layer: %w", err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil || !isDir(dir) {
			f.Close() // a sweep was faster
			continue
		}
		t := &temp{layers: l, dir: dir, lock: f}
		// The umask has no say in what a root looks like.
		if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(t.fs(), 0o755)); err != nil {
			t.remove()
			return nil, fmt.Errorf("make temporary layer: %w", err)
		}
		if err := os.Chmod(t.fs(), 0o755); err != nil {
			t.remove()
			return nil, fmt.Errorf("make temporary layer: %w", err)
		}
		return t, nil
	}
}

func (t *temp) fs() string { return filepath.Join(t.dir, "fs") }

// commit gives the layer its name. If somebody else was faster, theirs stays.
func (t *temp) commit(id string) error {
	to := filepath.Join(t.layers.Dir, id)
	err := os.Rename(t.dir, to)
	for errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		if t.layers.use(id) {
			return nil // remove takes ours away
		}
		err = os.Rename(t.dir, to) // theirs was pruned just now
	}
	if err != nil {
		return fmt.Errorf("keep layer: %w", err)
	}
	t.dir = ""
	return nil
}

func (t *temp) remove() {
	if t.dir != "" {
		os.RemoveAll(t.dir) //nolint:errcheck // Sweep tries again
	}
	t.lock.Close()
}

// lock waits for the right to make the layer id. ctx ends the wait.
func (l *Layers) lock(ctx context.Context, diffID digest.Digest, id string) (func(), error) {
	p := filepath.Join(l.Dir, lockPrefix+id)
	told := false
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		f, err := os.OpenFile(p, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, fmt.Errorf("lock layer: %w", err)
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && sameFile(f, p) {
			return sync.OnceFunc(func() {
				os.Remove(p) //nolint:errcheck // while held; whoever waits looks at the inode again
				f.Close()
			}), nil
		}
		f.Close()
		if err == nil || errors.Is(err, unix.EINTR) {
			continue
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock layer: %w", err)
		}
		if !told && l.Waiting != nil {
			told = true
			l.Waiting(diffID)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func sameFile(f *os.File, p string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(p)
	return err == nil && os.SameFile(a, b)
}

// Sweep removes what crashed processes left behind: temporary layers and
// locks that nobody holds.
func (l *Layers) Sweep(ctx context.Context) error {
	list, err := os.ReadDir(l.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep layers: %w", err)
	}
	var errs []error
	for _, e := range list {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if strings.HasPrefix(e.Name(), tempPrefix) || strings.HasPrefix(e.Name(), lockPrefix) {
			errs = append(errs, sweepOne(filepath.Join(l.Dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

func sweepOne(p string) error {
	f, err := os.Open(p)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil //nolint:nilerr // its owner lives
	}
	if !sameFile(f, p) {
		return nil
	}
	if err := os.RemoveAll(p); err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	return nil
}
