package rootfs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/index"
	"kaniko-build/executor/internal/tree"
)

// View shows a stack of layers as an overlay of them would. A layer is a
// directory, or the index of one: then the content of its files cannot be read.
// It may be used from many goroutines.
type View struct {
	layers []part // topmost first
	live   bool   // layers[0] may change: nothing about it is remembered

	mu   sync.RWMutex
	dirs map[string]*viewDir // merged directories of the layers that do not change; nil: no directory
}

var _ tree.Tree = (*View)(nil)

// ErrUnpack is matched by errors that would not be there if the layers were
// unpacked, as by Layers.Ensure.
var ErrUnpack = errors.New("the layer is not unpacked")

// part is one layer of a view. Names are clean; their parents are directories
// in it.
type part interface {
	// stat is lstat(2), without records and link targets; gone says that the
	// name is removed from the layers below.
	stat(name string) (e tree.Entry, gone bool, err error)
	// complete adds what stat does not tell.
	complete(ctx context.Context, name string, e tree.Entry) (tree.Entry, error)
	// opaque tells whether a directory hides what is below it.
	opaque(name string) (bool, error)
	names(name string) ([]string, error)
	open(name string) (io.ReadCloser, error)
	xattrs(ctx context.Context, name string) (map[string][]byte, error)
	// real is the path on disk of the layer.
	real() (string, error)
	close() error
}

// viewDir is a directory and the layers that contribute to it, by index.
type viewDir struct{ layers []int }

// Lower is one layer of a view: its directory, or else its index.
type Lower struct {
	Dir   string
	Index *index.Index
}

// OpenView opens the merged view of layer directories, topmost first. They must
// not change while it is open. No directory at all is an empty root.
func OpenView(dirs ...string) (*View, error) { return openView(lowers(dirs), false) }

// OpenViewOver is OpenView with the upper of a step that is being made on
// top: what is written there meanwhile is seen.
func OpenViewOver(upper string, dirs ...string) (*View, error) {
	return openView(lowers(append([]string{upper}, dirs...)), true)
}

// OpenLowers is OpenView for layers of which some are not unpacked. An index
// with hard links out of its layer is ErrUnpack.
func OpenLowers(list ...Lower) (*View, error) { return openView(list, false) }

func lowers(dirs []string) []Lower {
	out := make([]Lower, len(dirs))
	for i, d := range dirs {
		out[i].Dir = d
	}
	return out
}

func openView(list []Lower, live bool) (_ *View, err error) {
	v := &View{live: live, dirs: map[string]*viewDir{}}
	defer func() {
		if err != nil {
			v.Close()
		}
	}()
	for i, l := range list {
		p, err := openPart(l, i)
		if err != nil {
			return nil, err
		}
		v.layers = append(v.layers, p)
		opaque, err := p.opaque("")
		if err != nil {
			return nil, err
		}
		if opaque && !(live && i == 0) {
			break // hides all layers below
		}
	}
	for i, p := range v.layers {
		if x, ok := p.(*indexPart); ok {
			x.below = (&View{layers: v.layers[i+1:], dirs: map[string]*viewDir{}}).merged(0)
		}
	}
	first := 0
	if live {
		first = 1
	}
	return v.merged(first), nil
}

// merged begins the merged directories with the root, of the layers from first on.
func (v *View) merged(first int) *View {
	root := &viewDir{}
	for i := first; i < len(v.layers); i++ {
		root.layers = append(root.layers, i)
	}
	v.dirs[""] = root
	return v
}

func openPart(l Lower, i int) (part, error) {
	if l.Index != nil {
		return newIndexPart(l.Index, i)
	}
	return openDirPart(l.Dir)
}

// Close releases the directories.
func (v *View) Close() error {
	var err error
	for _, l := range v.layers {
		err = errors.Join(err, l.close())
	}
	return err
}

func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}

// state is what one layer says about a name.
type state int

const (
	absent state = iota // look below
	hidden              // a whiteout
	file                // not a directory: hides what is below
	folder              // merges with directories below
	opaque              // a directory that does not
)

// look asks layer i about name, whose parent is a real directory in it.
func (v *View) look(i int, name string) (state, tree.Entry, error) {
	l := v.layers[i]
	e, gone, err := l.stat(name)
	switch {
	case missing(err):
		return absent, e, nil
	case err != nil:
		return absent, e, err
	case gone:
		return hidden, e, nil
	case !e.IsDir():
		return file, e, nil
	}
	mark, err := l.opaque(name)
	if err != nil {
		return absent, e, fmt.Errorf("%s: %w", name, err)
	}
	if mark {
		return opaque, e, nil
	}
	return folder, e, nil
}

// merge finds the directory name among the layers of its parent.
func (v *View) merge(parent []int, name string) (*viewDir, error) {
	var d *viewDir
	for _, i := range parent {
		s, _, err := v.look(i, name)
		if err != nil {
			return nil, err
		}
		if s == folder || s == opaque {
			if d == nil {
				d = &viewDir{}
			}
			d.layers = append(d.layers, i)
		}
		if s != absent && s != folder {
			break
		}
	}
	return d, nil
}

// lower is the merged directory of the layers that do not change, nil if
// there is none of that name.
func (v *View) lower(name string) (*viewDir, error) {
	v.mu.RLock()
	d, ok := v.dirs[name]
	v.mu.RUnlock()
	if ok {
		return d, nil
	}
	parent, err := v.lower(parentOf(name))
	if err != nil {
		return nil, err
	}
	if parent != nil {
		if d, err = v.merge(parent.layers, name); err != nil {
			return nil, err
		}
	}
	v.mu.Lock()
	v.dirs[name] = d
	v.mu.Unlock()
	return d, nil
}

func parentOf(name string) string {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i]
	}
	return ""
}

// folder lists the layers that contribute to the directory name, nil if it
// is none.
func (v *View) folder(name string) ([]int, error) {
	below := true // lower layers still count
	var own []int
	if v.live {
		own = []int{0}
		at := ""
		for part := range strings.SplitSeq(name, "/") {
			if part == "" {
				continue
			}
			at = path.Join(at, part)
			s, _, err := v.look(0, at)
			if err != nil {
				return nil, err
			}
			switch s {
			case hidden, file:
				return nil, nil
			case absent:
				own = nil
			case opaque:
				below = false
			}
			if own == nil {
				break
			}
		}
	}
	if !below {
		return own, nil
	}
	d, err := v.lower(name)
	if err != nil || d == nil {
		return own, err
	}
	if own == nil {
		return d.layers, nil
	}
	return append(own, d.layers...), nil
}

// find returns the topmost layer that has name and its entry there.
func (v *View) find(name string) (int, tree.Entry, error) {
	notThere := &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	var dir []int
	var err error
	if name == "" {
		dir, err = v.folder("")
	} else {
		dir, err = v.folder(parentOf(name))
	}
	if err != nil {
		return 0, tree.Entry{}, err
	}
	for _, i := range dir {
		e, gone, err := v.layers[i].stat(name)
		if missing(err) {
			continue
		}
		if err != nil {
			return 0, e, err
		}
		if gone {
			break
		}
		return i, e, nil
	}
	return 0, tree.Entry{}, notThere
}

func (v *View) Lstat(ctx context.Context, name string) (tree.Entry, error) {
	name = tree.Clean(name)
	if name == "" && len(v.layers) == 0 {
		return tree.Entry{Mode: unix.S_IFDIR | 0o755, Nlink: 2, ModTime: time.Unix(0, 0)}, nil
	}
	i, e, err := v.find(name)
	if err != nil {
		return tree.Entry{}, err
	}
	return v.layers[i].complete(ctx, name, e)
}

func (v *View) ReadDir(ctx context.Context, name string) ([]tree.Entry, error) {
	name = tree.Clean(name)
	dir, err := v.folder(name)
	if err != nil {
		return nil, err
	}
	if dir == nil && !(name == "" && len(v.layers) == 0) {
		if _, _, err := v.find(name); err != nil {
			return nil, err
		}
		return nil, &fs.PathError{Op: "read directory", Path: name, Err: unix.ENOTDIR}
	}
	var out []tree.Entry
	seen := map[string]bool{}
	for n, i := range dir {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		l := v.layers[i]
		names, err := l.names(name)
		if err != nil {
			return nil, fmt.Errorf("read directory %s: %w", name, err)
		}
		for _, base := range names {
			if seen[base] {
				continue
			}
			full := path.Join(name, base)
			e, gone, err := l.stat(full)
			if missing(err) {
				continue // removed meanwhile
			}
			if err != nil {
				return nil, err
			}
			if n < len(dir)-1 {
				seen[base] = true
			}
			if gone {
				continue
			}
			if e, err = l.complete(ctx, full, e); err != nil {
				return nil, err
			}
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b tree.Entry) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

func (v *View) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	name = tree.Clean(name)
	i, e, err := v.find(name)
	if err != nil {
		return nil, err
	}
	if e, err = v.layers[i].complete(ctx, name, e); err != nil {
		return nil, err
	}
	if !e.IsRegular() { // a device's substitute is no file
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("not a regular file")}
	}
	return v.layers[i].open(name)
}

func (v *View) Xattrs(ctx context.Context, name string) (map[string][]byte, error) {
	name = tree.Clean(name)
	if name == "" && len(v.layers) == 0 {
		return nil, nil
	}
	i, _, err := v.find(name)
	if err != nil {
		return nil, err
	}
	return v.layers[i].xattrs(ctx, name)
}

// Real is the path on disk of a file of the view, in the topmost directory
// that has it: to clone or hard link from. It is for reading only.
func (v *View) Real(name string) (string, error) {
	name = tree.Clean(name)
	if len(v.layers) == 0 {
		return "", &fs.PathError{Op: "find", Path: name, Err: fs.ErrNotExist}
	}
	i, _, err := v.find(name)
	if err != nil {
		return "", err
	}
	root, err := v.layers[i].real()
	if err != nil {
		return "", err
	}
	return filepath.Join(root, name), nil
}

// ownersFile stands beside the root of a layer, whose directory is dir.
func ownersFile(dir string) string { return filepath.Join(filepath.Dir(dir), "owners") }

// ReadOwners reads the owners of links and fifos of a layer whose id map lacks
// them; nil for a directory without such a file. dir is the layer's root.
func ReadOwners(dir string) (map[string][2]uint32, error) {
	b, err := os.ReadFile(ownersFile(dir))
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read owners: %w", err)
	}
	var out map[string][2]uint32
	if err := json.Unmarshal(b, &out); err != nil {
		return nil, fmt.Errorf("read owners of %s: %w", dir, err)
	}
	return out, nil
}

// WriteOwners puts down owners for ReadOwners; none at all removes the file.
func WriteOwners(dir string, owners map[string][2]uint32) error {
	p := ownersFile(dir)
	if len(owners) == 0 {
		if err := os.Remove(p); err != nil && !missing(err) {
			return fmt.Errorf("write owners: %w", err)
		}
		return nil
	}
	b, err := json.Marshal(owners)
	if err != nil {
		return fmt.Errorf("write owners: %w", err)
	}
	if err := os.WriteFile(p, b, 0o644); err != nil {
		return fmt.Errorf("write owners: %w", err)
	}
	return nil
}

// devicesFile stands beside the root of a layer, whose directory is dir.
func devicesFile(dir string) string { return filepath.Join(filepath.Dir(dir), "devices") }

// HasDevices tells whether one of the directories of a stack holds empty files
// that stand for devices, so that a RUN needs help to see them.
func HasDevices(dirs []string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool {
		_, err := os.Lstat(devicesFile(d))
		return err == nil
	})
}

// markDevices puts down for HasDevices that the layer with root dir holds some.
func markDevices(dir string, some bool) error {
	if !some {
		return nil
	}
	if err := os.WriteFile(devicesFile(dir), nil, 0o644); err != nil {
		return fmt.Errorf("mark layer with devices: %w", err)
	}
	return nil
}
