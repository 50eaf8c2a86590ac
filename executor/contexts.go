package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/buildctx"
	"kaniko-build/executor/internal/copier"
	"kaniko-build/executor/internal/store"
	"kaniko-build/executor/internal/tree"
)

// contexts are the directories that the nodes of one run read from. Nodes that
// see the same files of a directory share one look at it: each directory of it
// is listed once, and what the same instruction selects is described once.
type contexts struct {
	mu   sync.Mutex
	dirs map[string]*directory // by path and ignore file
}

func newContexts() *contexts { return &contexts{dirs: map[string]*directory{}} }

// Close releases the directories.
func (c *contexts) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	for _, d := range c.dirs {
		if d.files != nil {
			err = errors.Join(err, d.files.Close())
		}
	}
	clear(c.dirs)
	return err
}

// directory is one context as its ignore file leaves it.
type directory struct {
	once  sync.Once
	err   error
	path  string
	files *buildctx.Dir
	tree  *tree.Memo

	mu    sync.Mutex
	found map[string]*found // by selection
}

// open opens a directory, once for all who see the same of it.
func (c *contexts) open(ctx context.Context, dir string, o buildctx.Options) (*directory, error) {
	id := dir
	if o.Ignore != nil {
		id += "\x00" + o.Ignore.Name + "\x00" + string(o.Ignore.Data)
	}
	c.mu.Lock()
	d := c.dirs[id]
	if d == nil {
		d = &directory{path: dir, found: map[string]*found{}}
		c.dirs[id] = d
	}
	c.mu.Unlock()
	d.once.Do(func() {
		if d.err = atHome(dir); d.err != nil {
			return
		}
		if d.files, d.err = buildctx.Open(ctx, dir, o); d.err == nil {
			d.tree = tree.Remember(d.files)
		}
	})
	return d, d.err
}

// found is what one selection has in a directory.
type found struct {
	once sync.Once
	err  error
	// lines stand in a key: one a file, or when they are many one that stands for
	// all, whose listing the executor remembers.
	lines   []string
	special special
}

// special are names, sorted, of what a build does not copy as a file of its own
// kind, or hardly wants.
type special struct{ sockets, devices []string }

// find describes what is selected.
func (d *directory) find(ctx context.Context, x *Executor, sel copier.Select, owned bool) (*found, error) {
	id, err := json.Marshal(struct {
		copier.Select
		Owned bool
	}{sel, owned})
	if err != nil {
		return nil, fmt.Errorf("name a selection: %w", err)
	}
	d.mu.Lock()
	f := d.found[string(id)]
	if f == nil {
		f = &found{}
		d.found[string(id)] = f
	}
	d.mu.Unlock()
	f.once.Do(func() { f.err = d.describe(ctx, x, sel, owned, f) })
	return f, f.err
}

func (d *directory) describe(ctx context.Context, x *Executor, sel copier.Select, owned bool, f *found) error {
	items, err := copier.Find(ctx, d.tree, sel)
	if err != nil {
		return err
	}
	h, err := x.hasher(d.path)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	f.lines, err = copier.KeyLines(ctx, d.tree, items, owned, func(ctx context.Context, t tree.Tree, name string, e tree.Entry) (string, error) {
		if list := f.special.of(ctx, d.files, name, e); list != nil {
			mu.Lock()
			*list = append(*list, name)
			mu.Unlock()
		}
		return h.Hash(ctx, t, name, e)
	})
	if err != nil {
		return err
	}
	slices.Sort(f.special.sockets)
	slices.Sort(f.special.devices)
	if len(f.lines) > maxPlain {
		line := filesLine(f.lines)
		x.listings.add(line, f.lines)
		f.lines = []string{line}
	}
	return nil
}

// of is the list that an entry belongs to, or nil.
func (s *special) of(ctx context.Context, d *buildctx.Dir, name string, e tree.Entry) *[]string {
	switch {
	case e.Type() == unix.S_IFCHR || e.Type() == unix.S_IFBLK:
		return &s.devices
	case e.IsRegular() && e.Size == 0 && d.IsSocket(ctx, name):
		return &s.sockets
	}
	return nil
}

// sentences say what becomes of them.
func (s special) sentences() []string {
	var out []string
	tell := func(names []string, one, more string) {
		switch n := len(names); n {
		case 0:
		case 1:
			out = append(out, fmt.Sprintf("%q "+one, names[0]))
		default:
			out = append(out, fmt.Sprintf("%q and %d more "+more, names[0], n-1))
		}
	}
	tell(s.sockets, "is a socket: the image gets an empty file in its place", "are sockets: the image gets empty files in their places")
	tell(s.devices, "is a device, and gets into the image as one: .dockerignore can leave it out", "are devices, and get into the image as such: .dockerignore can leave them out")
	return out
}

// maxPlain is how many files a key names by themselves. A key of more would be
// read and written as a whole wherever it is looked up.
const maxPlain = 16

const filesPrefix = "files "

// filesLine stands for the lines of many files.
func filesLine(lines []string) string {
	return fmt.Sprintf("%s%s %d", filesPrefix, store.KeyOf(lines), len(lines))
}

// listings are what lines of many files stand for, as seen in this process.
type listings struct {
	mu   sync.Mutex
	m    map[string][]string
	kept map[string]bool // that the store has, or is about to have
}

func (l *listings) add(line string, lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.m == nil {
		l.m = map[string][]string{}
	}
	l.m[line] = lines
}

// keep tells whether the caller is the first who wants a line in the store.
func (l *listings) keep(line string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.kept == nil {
		l.kept = map[string]bool{}
	}
	first := !l.kept[line]
	l.kept[line] = true
	return first
}

// forget gives back the memory of lines: nothing is explained any more.
func (l *listings) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.m, l.kept = nil, nil
}

// any tells whether keep was called.
func (l *listings) any() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.kept) > 0
}

func (l *listings) get(line string) ([]string, bool) {
	if !strings.HasPrefix(line, filesPrefix) {
		return nil, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	lines, ok := l.m[line]
	return lines, ok
}
