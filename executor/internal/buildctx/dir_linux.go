package buildctx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/moby/patternmatcher"
	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/tree"
	"kaniko-build/schema/diag"
)

// Options say how a directory is a context.
type Options struct {
	// Ignore, if not nil, replaces the .dockerignore of the directory, as
	// <Dockerfile>.dockerignore does.
	Ignore *Ignore
	// Sub is a folder of the directory that is the context itself.
	Sub string
}

// Dir is a directory as a context: what its ignore file leaves, all owned by
// 0:0, sockets as empty files. It may be used from many goroutines.
type Dir struct {
	files  *tree.Dir
	ignore *matcher
	name   string
	opened time.Time

	mu   sync.RWMutex
	dirs map[string]dirInfo // what was asked about directories
}

var _ tree.Tree = (*Dir)(nil)

// dirInfo is what the patterns say about a directory.
type dirInfo struct {
	info    patternmatcher.MatchInfo
	matched bool // info has something in it
	ignored bool
	// dead says that the directory is ignored and no exception can match in it.
	dead bool
}

// Open opens a directory as a context. A directory that is not there, or an
// ignore file with mistakes, is a *diag.Problem. The caller closes it.
func Open(ctx context.Context, root string, o Options) (*Dir, error) {
	files, err := tree.OpenDir(root, tree.DirOptions{Owner: &[2]uint32{}})
	if err == nil && isProjected(ctx, files) {
		o.Sub = path.Join(projectedData, o.Sub)
	}
	if err == nil && o.Sub != "" && tree.Clean(o.Sub) != "" {
		files, err = openSub(ctx, files, root, o.Sub)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &diag.Problem{What: fmt.Sprintf("context %s: no such directory", filepath.Join(root, o.Sub)), Hint: "a context is a directory; check its path"}
	case errors.Is(err, unix.ENOTDIR):
		return nil, &diag.Problem{What: fmt.Sprintf("context %s: not a directory", filepath.Join(root, o.Sub)), Hint: "a context is a directory; check its path"}
	case err != nil:
		return nil, fmt.Errorf("open context: %w", err)
	}
	d := &Dir{files: files, name: root, opened: time.Now(), dirs: map[string]dirInfo{}}
	ig := o.Ignore
	if ig == nil {
		own, err := readIgnore(ctx, files, filepath.Join(root, o.Sub, IgnoreName))
		if err != nil {
			files.Close()
			return nil, err
		}
		ig = &own
	}
	if d.ignore, err = ig.parse(); err != nil {
		files.Close()
		return nil, err
	}
	return d, nil
}

// openSub opens a folder of top, links followed inside it, and closes top.
func openSub(ctx context.Context, top *tree.Dir, root, sub string) (*tree.Dir, error) {
	defer top.Close()
	real, err := tree.Resolve(ctx, top, sub)
	if err != nil {
		return nil, err
	}
	f, err := top.OpenFile(real, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return tree.OpenDir(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), tree.DirOptions{Owner: &[2]uint32{}})
}

// Close releases the directory.
func (d *Dir) Close() error { return d.files.Close() }

// match tells what the patterns say of name, given what they say of the
// directory around it.
func (d *Dir) match(parent dirInfo, name string) (dirInfo, error) {
	if !parent.matched && d.ignore.none(name) {
		return dirInfo{}, nil
	}
	m, info, err := d.ignore.MatchesUsingParentResults(name, parent.info)
	if err != nil {
		return dirInfo{}, fmt.Errorf("match %s against ignore patterns: %w", name, err)
	}
	return dirInfo{info: info, matched: true, ignored: m, dead: parent.dead || m && !d.ignore.mayKeep(name)}, nil
}

// dir is match for a directory by its whole path, remembered.
func (d *Dir) dir(name string) (dirInfo, error) {
	if name == "" || d.ignore == nil {
		return dirInfo{}, nil
	}
	d.mu.RLock()
	i, ok := d.dirs[name]
	d.mu.RUnlock()
	if ok {
		return i, nil
	}
	parent, err := d.dir(parentOf(name))
	if err != nil {
		return dirInfo{}, err
	}
	if i, err = d.match(parent, name); err != nil {
		return dirInfo{}, err
	}
	d.mu.Lock()
	d.dirs[name] = i
	d.mu.Unlock()
	return i, nil
}

func parentOf(name string) string {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i]
	}
	return ""
}

// visible tells whether an entry of the directory that parent describes is in
// the context. An ignored directory is if something in it is.
func (d *Dir) visible(ctx context.Context, parent dirInfo, name string, e tree.Entry) (bool, error) {
	if d.ignore == nil {
		return true, nil
	}
	if parent.dead {
		return false, nil
	}
	if !e.IsDir() {
		i, err := d.match(parent, name)
		return !i.ignored, err
	}
	i, err := d.dir(name)
	if err != nil {
		return false, err
	}
	if !i.ignored {
		return true, nil
	}
	if i.dead {
		return false, nil
	}
	return d.keeps(ctx, i, name)
}

// keeps tells whether an ignored directory holds something that is not.
func (d *Dir) keeps(ctx context.Context, i dirInfo, name string) (bool, error) {
	if err := context.Cause(ctx); err != nil {
		return false, err
	}
	list, err := d.files.ReadDir(ctx, name)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, e := range list {
		ok, err := d.visible(ctx, i, path.Join(name, e.Name), e)
		if ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// present is how the context has an entry.
func (d *Dir) present(name string, e tree.Entry) tree.Entry {
	if name == "" { // made anew for every build
		return tree.Entry{Mode: unix.S_IFDIR | 0o755, ModTime: d.opened, Dev: e.Dev, Ino: e.Ino, Nlink: e.Nlink}
	}
	if e.Type() == unix.S_IFSOCK {
		e.Mode = unix.S_IFREG | e.Perm()
		e.Size, e.Nlink = 0, 1
	}
	return e
}

// IsSocket tells whether name, which Lstat calls an empty file, is a socket.
func (d *Dir) IsSocket(ctx context.Context, name string) bool {
	e, err := d.files.Lstat(ctx, tree.Clean(name))
	return err == nil && e.Type() == unix.S_IFSOCK
}

// find is Lstat without present.
func (d *Dir) find(ctx context.Context, name string) (tree.Entry, error) {
	e, err := d.files.Lstat(ctx, name)
	if err != nil || name == "" {
		return e, err
	}
	parent, err := d.dir(parentOf(name))
	if err != nil {
		return tree.Entry{}, err
	}
	ok, err := d.visible(ctx, parent, name, e)
	if err != nil {
		return tree.Entry{}, err
	}
	if !ok {
		return tree.Entry{}, &os.PathError{Op: "lstat", Path: name, Err: fs.ErrNotExist}
	}
	return e, nil
}

// Ignored tells whether name is there but left out by the ignore file.
func (d *Dir) Ignored(ctx context.Context, name string) bool {
	name = tree.Clean(name)
	if _, err := d.files.Lstat(ctx, name); err != nil {
		return false
	}
	_, err := d.find(ctx, name)
	return errors.Is(err, fs.ErrNotExist)
}

// Holds tells whether a name would be in the context if it were there: no pattern
// of the ignore file leaves it out, nor a directory that it is in.
func (d *Dir) Holds(name string) bool {
	ok, err := d.plain(tree.Clean(name))
	return ok && err == nil
}

// Enters tells whether a directory of that name, if it were there, could hold
// something that is in the context.
func (d *Dir) Enters(name string) bool {
	i, err := d.dir(tree.Clean(name))
	return err == nil && !i.dead
}

// Lstat is that of tree.Tree.
func (d *Dir) Lstat(ctx context.Context, name string) (tree.Entry, error) {
	name = tree.Clean(name)
	e, err := d.find(ctx, name)
	if err != nil {
		return tree.Entry{}, err
	}
	return d.present(name, e), nil
}

// ReadDir is that of tree.Tree.
func (d *Dir) ReadDir(ctx context.Context, name string) ([]tree.Entry, error) {
	name = tree.Clean(name)
	info, err := d.dir(name)
	if err != nil {
		return nil, err
	}
	if info.ignored {
		if _, err := d.find(ctx, name); err != nil {
			return nil, err
		}
	}
	list, err := d.files.ReadDir(ctx, name)
	if err != nil {
		return nil, err
	}
	out := list[:0]
	for _, e := range list {
		p := path.Join(name, e.Name)
		ok, err := d.visible(ctx, info, p, e)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, d.present(p, e))
		}
	}
	return out, nil
}

// plain tells whether a name is in the context whatever it is, as no pattern
// ignores it: without a look at the file.
func (d *Dir) plain(name string) (bool, error) {
	if d.ignore == nil || name == "" {
		return true, nil
	}
	parent, err := d.dir(parentOf(name))
	if err != nil || parent.dead {
		return false, err
	}
	i, err := d.match(parent, name)
	return !i.ignored, err
}

// Open is that of tree.Tree. The reader is an *os.File but for sockets.
func (d *Dir) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	name = tree.Clean(name)
	ok, err := d.plain(name)
	if err != nil {
		return nil, err
	}
	if ok {
		if f, err := d.files.OpenRegular(name); err == nil {
			return f, nil
		}
	}
	e, err := d.find(ctx, name)
	if err != nil {
		return nil, err
	}
	if e.Type() == unix.S_IFSOCK {
		return io.NopCloser(bytes.NewReader(nil)), nil
	}
	return d.files.OpenRegular(name)
}

// ReadFileStat reads a small file into b, and tells what it was after that. One that has
// more than b is an error that matches tree.ErrLarger.
func (d *Dir) ReadFileStat(ctx context.Context, name string, b []byte) (int, unix.Stat_t, error) {
	name = tree.Clean(name)
	ok, err := d.plain(name)
	if err == nil && !ok {
		_, err = d.find(ctx, name)
	}
	if err != nil {
		return 0, unix.Stat_t{}, err
	}
	return d.files.ReadFileStat(name, b)
}

// Xattrs is that of tree.Tree. A capability counts for the owner that the file
// has here, and is lost with him, as with BuildKit.
func (d *Dir) Xattrs(ctx context.Context, name string) (map[string][]byte, error) {
	name = tree.Clean(name)
	if name == "" {
		return nil, nil
	}
	ok, err := d.plain(name)
	if err != nil {
		return nil, err
	}
	if !ok {
		if _, err := d.find(ctx, name); err != nil {
			return nil, err
		}
	}
	x, err := d.files.Xattrs(ctx, name)
	delete(x, "security.capability")
	return x, err
}
