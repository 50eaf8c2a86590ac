package tree

import (
	"cmp"
	"context"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
)

// Memo is a Tree that is asked about each directory and each name once, however
// many ask: it goes on describing files as it saw them first. Contents and
// attributes are read anew. Lists that it returns are shared and must not be
// changed. Errors are not remembered.
type Memo struct {
	Tree

	mu    sync.Mutex
	dirs  map[string]*memoDir // by clean path
	names map[string]Entry    // asked for before their directory was listed
}

// memoDir is a directory that is being listed, or was.
type memoDir struct {
	done chan struct{}
	list []Entry // sorted by name
	err  error
}

// Remember makes a Memo of t, whose Lstat and ReadDir then are only called
// through it.
func Remember(t Tree) *Memo {
	return &Memo{Tree: t, dirs: map[string]*memoDir{}, names: map[string]Entry{}}
}

// ReadDir is that of Tree.
func (m *Memo) ReadDir(ctx context.Context, name string) ([]Entry, error) {
	name = Clean(name)
	for {
		m.mu.Lock()
		d := m.dirs[name]
		if d == nil {
			d = &memoDir{done: make(chan struct{})}
			m.dirs[name] = d
			m.mu.Unlock()
			m.fill(ctx, name, d)
			return d.list, d.err
		}
		m.mu.Unlock()
		select {
		case <-d.done:
			if d.err == nil {
				return d.list, nil
			} // else: what stopped the other one may not stop us
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (m *Memo) fill(ctx context.Context, name string, d *memoDir) {
	defer close(d.done)
	d.list, d.err = m.Tree.ReadDir(ctx, name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if d.err != nil {
		delete(m.dirs, name)
		return
	}
	if len(m.names) == 0 {
		return
	}
	for i := range d.list { // what was told once stays so
		if e, ok := m.names[path.Join(name, d.list[i].Name)]; ok {
			d.list[i] = e
		}
	}
}

// Lstat is that of Tree.
func (m *Memo) Lstat(ctx context.Context, name string) (Entry, error) {
	name = Clean(name)
	e, known, listed := m.find(name)
	if known {
		return e, nil
	}
	if listed {
		return Entry{}, &os.PathError{Op: "lstat", Path: name, Err: fs.ErrNotExist}
	}
	e, err := m.Tree.Lstat(ctx, name)
	if err != nil {
		return Entry{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if first, ok := m.names[name]; ok {
		return first, nil
	}
	m.names[name] = e
	return e, nil
}

// Known is what was told of name, if anything was.
func (m *Memo) Known(name string) (Entry, bool) {
	e, known, _ := m.find(Clean(name))
	return e, known
}

// find looks for a clean name in what is remembered. listed tells whether its
// directory was read, so that a name that is not known is not there.
func (m *Memo) find(name string) (e Entry, known, listed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.names[name]; ok || name == "" {
		return e, ok, false
	}
	dir, base := "", name
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		dir, base = name[:i], name[i+1:]
	}
	d := m.dirs[dir]
	if d == nil {
		return Entry{}, false, false
	}
	select {
	case <-d.done:
	default:
		return Entry{}, false, false
	}
	i, ok := slices.BinarySearchFunc(d.list, base, func(e Entry, s string) int { return cmp.Compare(e.Name, s) })
	if !ok {
		return Entry{}, false, d.err == nil
	}
	return d.list[i], true, true
}
