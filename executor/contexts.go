package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

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
		if d.files, d.err = buildctx.Open(ctx, dir, o); d.err == nil {
			d.tree = tree.Remember(d.files)
		}
	})
	return d, d.err
}

// found is what one selection has in a directory.
type found struct {
	once  sync.Once
	lines []string // as they stand in a key
	err   error
}

// lines are the key lines of what is selected: one a file, or when they are
// many one that stands for all, whose listing the executor remembers.
func (d *directory) lines(ctx context.Context, x *Executor, sel copier.Select, owned bool) ([]string, error) {
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
	f.once.Do(func() { f.lines, f.err = d.describe(ctx, x, sel, owned) })
	return f.lines, f.err
}

func (d *directory) describe(ctx context.Context, x *Executor, sel copier.Select, owned bool) ([]string, error) {
	items, err := copier.Find(ctx, d.tree, sel)
	if err != nil {
		return nil, err
	}
	h, err := x.hasher(d.path)
	if err != nil {
		return nil, err
	}
	lines, err := copier.KeyLines(ctx, d.tree, items, owned, h.Hash)
	if err != nil || len(lines) <= maxPlain {
		return lines, err
	}
	line := filesLine(lines)
	x.listings.add(line, lines)
	return []string{line}, nil
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
