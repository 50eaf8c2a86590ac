package copier

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/moby/patternmatcher"
	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/tree"
	"kaniko-build/schema/diag"
)

// Select says what is to be copied.
type Select struct {
	// Patterns are the sources as the instruction has them after expansion.
	// A last link is followed inside the tree, * ? and [ match as in
	// filepath.Match, and of a directory the contents are copied. With
	// Parents the part before "/./" is not kept in the destination.
	Patterns []string
	Exclude  []string // of --exclude, relative to each source
	Parents  bool
	// Literal takes the patterns as names, does not follow a last link, and
	// copies a directory itself: heredocs and what was fetched.
	Literal bool
}

// Item is one thing to copy. It is made by Find.
type Item struct {
	Path  string     // in the source tree, links resolved
	Name  string     // what it is called in a destination that is a directory
	Entry tree.Entry // of Path

	literal bool
	filter  *filter // nil: everything below Path
}

// filter chooses below an item. Patterns are relative to the item.
type filter struct {
	include, exclude *patternmatcher.PatternMatcher
	prefixes         []string // of include, if none has a wildcard: each with "/" at its end
}

// Mistakes are what is wrong with patterns. As an error it is those of all of them,
// and errors.As finds the first *diag.Problem.
type Mistakes []Mistake

// Mistake is what is wrong with one pattern.
type Mistake struct {
	Pattern int // in Select.Patterns
	Problem *diag.Problem
}

func (m Mistakes) Error() string {
	lines := make([]string, len(m))
	for i := range m {
		lines[i] = m[i].Problem.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the problems.
func (m Mistakes) Unwrap() []error {
	out := make([]error, len(m))
	for i := range m {
		out[i] = m[i].Problem
	}
	return out
}

// Find looks up what the patterns mean in src, in their order. Names that are
// not there are Mistakes, in BuildKit's words; a pattern that matches nothing is no
// error.
func Find(ctx context.Context, src tree.Tree, s Select) ([]Item, error) {
	var out []Item
	var wrong Mistakes
	for i, p := range s.Patterns {
		items, err := find(ctx, src, p, s)
		var problem *diag.Problem
		if errors.As(err, &problem) {
			wrong = append(wrong, Mistake{i, problem})
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, items...)
	}
	if wrong != nil {
		return nil, wrong
	}
	return out, nil
}

func notFound(name string) error {
	return &diag.Problem{
		What: fmt.Sprintf("failed to calculate checksum of source: %q: not found", name),
		Hint: "check the spelling, and whether .dockerignore leaves it out",
	}
}

func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}

func find(ctx context.Context, src tree.Tree, pattern string, s Select) ([]Item, error) {
	f := &filter{}
	var required string
	if s.Parents {
		parent, rest, ok := strings.Cut(pattern, "/./")
		if !ok {
			parent, rest = "/", pattern
		}
		rest = path.Clean("/" + rest)
		include, err := patternmatcher.New([]string{rest[1:]})
		if err != nil {
			return nil, badPattern(rest[1:], err)
		}
		f.include = include
		if !wild(parent) && !wild(rest) {
			required = path.Join("/", parent, rest)
		}
		if !strings.ContainsAny(rest, `*?[]^\`) {
			f.prefixes = []string{rest[1:] + "/"}
		}
		pattern = parent
	}
	if len(s.Exclude) > 0 {
		exclude, err := patternmatcher.New(s.Exclude)
		if err != nil {
			return nil, badPattern(strings.Join(s.Exclude, " "), err)
		}
		f.exclude = exclude
	}
	if f.include == nil && f.exclude == nil {
		f = nil
	}

	pattern = path.Clean("/" + pattern)
	names := []string{pattern}
	if !s.Literal {
		var err error
		if names, err = expand(ctx, src, pattern); err != nil {
			return nil, err
		}
	}
	if required != "" {
		// What BuildKit requires it looks for without following the last link.
		if real, err := tree.ResolveParent(ctx, src, pattern); err == nil {
			if e, err := src.Lstat(ctx, real); err == nil && e.IsLink() {
				return nil, notFound(required)
			}
		}
	}
	items := make([]Item, 0, len(names))
	for _, name := range names {
		resolve := tree.Resolve
		if s.Literal {
			resolve = tree.ResolveParent
		}
		real, err := resolve(ctx, src, name)
		if errors.Is(err, tree.ErrLoop) {
			return nil, &diag.Problem{What: fmt.Sprintf("failed to calculate checksum of source: %q: too many links: the symbolic link is a loop", name)}
		}
		if err != nil {
			return nil, err
		}
		e, err := src.Lstat(ctx, real)
		if missing(err) {
			if required != "" {
				name = required
			}
			return nil, notFound(name)
		}
		if err != nil {
			return nil, err
		}
		base := path.Base(name)
		if base == "/" {
			base = ""
		}
		items = append(items, Item{Path: real, Name: base, Entry: e, literal: s.Literal, filter: f})
	}
	if required != "" {
		ok, err := takesAny(ctx, src, items)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, notFound(required)
		}
	}
	return items, nil
}

func badPattern(p string, err error) error {
	return &diag.Problem{What: fmt.Sprintf("invalid pattern %q: %v", p, err)}
}

// takesAny tells whether the filter of an item takes something below it.
func takesAny(ctx context.Context, src tree.Tree, items []Item) (bool, error) {
	errFound := errors.New("found")
	for _, it := range items {
		err := Walk(ctx, src, it, func(rel string, e tree.Entry) error {
			if rel != "" {
				return errFound
			}
			return nil
		})
		if errors.Is(err, errFound) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}

// wild tells whether a name has a wildcard that is not escaped.
func wild(name string) bool {
	for i := 0; i < len(name); i++ {
		switch name[i] {
		case '*', '?', '[':
			return true
		case '\\':
			i++
		}
	}
	return false
}

// expand lists the names that a pattern matches. The part before the first
// component with a wildcard is followed as a path.
func expand(ctx context.Context, src tree.Tree, pattern string) ([]string, error) {
	parts := strings.Split(strings.TrimPrefix(pattern, "/"), "/")
	n := 0
	for n < len(parts) && !wild(parts[n]) {
		n++
	}
	if n == len(parts) {
		return []string{pattern}, nil
	}
	rest := strings.Join(parts[n:], "/")
	if _, err := filepath.Match(rest, ""); err != nil {
		return nil, badPattern(pattern, err)
	}
	base, err := tree.Resolve(ctx, src, strings.Join(parts[:n], "/"))
	if err != nil {
		return nil, err
	}
	e, err := src.Lstat(ctx, base)
	if missing(err) {
		return nil, notFound("/" + strings.Join(parts[:n], "/"))
	}
	if err != nil {
		return nil, err
	}
	if !e.IsDir() {
		return nil, nil
	}
	var out []string
	// Without a class a match has as many components as the pattern, so that
	// a directory needs no look if its own path does not match the beginning.
	// A class may match a slash.
	exact := !strings.Contains(rest, "[")
	var walk func(rel string) error
	walk = func(rel string) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		list, err := src.ReadDir(ctx, path.Join(base, rel))
		if err != nil {
			return err
		}
		for _, c := range list {
			name := path.Join(rel, c.Name)
			if ok, _ := filepath.Match(rest, name); ok {
				out = append(out, path.Join("/", base, name))
				continue
			}
			if !c.IsDir() {
				continue
			}
			if exact {
				deep := n + strings.Count(name, "/") + 1
				if deep >= len(parts) {
					continue
				}
				if ok, _ := filepath.Match(strings.Join(parts[n:deep], "/"), name); !ok {
					continue
				}
			}
			if err := walk(name); err != nil {
				return err
			}
		}
		return nil
	}
	if err := walk(""); err != nil {
		return nil, err
	}
	return out, nil
}

// Walk calls fn for everything that is copied of an item, parents first, the
// item itself as "". Directories that are copied only because something in
// them is come just before it.
func Walk(ctx context.Context, src tree.Tree, it Item, fn func(rel string, e tree.Entry) error) error {
	return walkItem(ctx, src, it, walker{enter: func(rel string, e tree.Entry, partial bool) error { return fn(rel, e) }})
}

// walker is told what is copied of an item. A partial directory is one that no
// pattern takes by itself; leave is called for directories after their
// contents, if enter was.
type walker struct {
	enter func(rel string, e tree.Entry, partial bool) error
	leave func(rel string, e tree.Entry, partial bool) error
}

type itemWalk struct {
	ctx   context.Context // of the one call of walkItem
	src   tree.Tree
	it    Item
	w     walker
	stack []pendingDir

	// Directories are listed ahead by other goroutines: what is on another
	// side of a connection takes its time, and one core is not enough for
	// trees of many files.
	slots   chan struct{}
	reading sync.WaitGroup
}

// ahead is how many directories of a directory are listed before their turn.
const ahead = 8

// listing is a directory that is being listed.
type listing struct {
	done chan struct{}
	list []tree.Entry
	err  error
}

func (w *itemWalk) list(rel string) *listing {
	l := &listing{done: make(chan struct{})}
	w.reading.Go(func() {
		defer close(l.done)
		select {
		case w.slots <- struct{}{}:
			defer func() { <-w.slots }()
			l.list, l.err = w.src.ReadDir(w.ctx, path.Join(w.it.Path, rel))
		case <-w.ctx.Done():
			l.err = context.Cause(w.ctx)
		}
	})
	return l
}

type pendingDir struct {
	rel     string
	e       tree.Entry
	entered bool
}

func walkItem(ctx context.Context, src tree.Tree, it Item, w walker) error {
	ctx, cancel := context.WithCancel(ctx)
	iw := &itemWalk{ctx: ctx, src: src, it: it, w: w, slots: make(chan struct{}, max(2, runtime.GOMAXPROCS(0)))}
	defer iw.reading.Wait()
	defer cancel()
	return iw.visit("", it.Entry, nil, patternmatcher.MatchInfo{}, patternmatcher.MatchInfo{})
}

func (w *itemWalk) visit(rel string, e tree.Entry, listed *listing, incParent, excParent patternmatcher.MatchInfo) error {
	if err := context.Cause(w.ctx); err != nil {
		return err
	}
	f := w.it.filter
	include, excluded := true, false
	var inc, exc patternmatcher.MatchInfo
	if f != nil && rel != "" {
		var err error
		if f.include != nil {
			if include, inc, err = f.include.MatchesUsingParentResults(rel, incParent); err != nil {
				return badPattern(rel, err)
			}
		}
		if f.exclude != nil {
			if excluded, exc, err = f.exclude.MatchesUsingParentResults(rel, excParent); err != nil {
				return badPattern(rel, err)
			}
			include = include && !excluded
		}
	}
	if !e.IsDir() {
		if !include {
			return nil
		}
		if err := w.flush(); err != nil {
			return err
		}
		return w.w.enter(rel, e, false)
	}
	if include {
		if err := w.flush(); err != nil {
			return err
		}
		if err := w.w.enter(rel, e, false); err != nil {
			return err
		}
	}
	w.stack = append(w.stack, pendingDir{rel: rel, e: e, entered: include})
	if !(excluded && !f.exclude.Exclusions()) && (include || f.mayInclude(rel)) {
		if listed == nil {
			listed = w.list(rel)
		}
		<-listed.done
		if listed.err != nil {
			return listed.err
		}
		if err := w.children(rel, listed.list, inc, exc); err != nil {
			return err
		}
	}
	top := w.stack[len(w.stack)-1]
	w.stack = w.stack[:len(w.stack)-1]
	if top.entered && w.w.leave != nil {
		return w.w.leave(rel, e, !include)
	}
	return nil
}

// children visits what is in a directory.
func (w *itemWalk) children(rel string, list []tree.Entry, inc, exc patternmatcher.MatchInfo) error {
	var queue []*listing // of the directories to come, in order
	next := 0            // the first entry that was not looked at for the queue
	for i, c := range list {
		var l *listing
		if w.it.filter == nil && c.IsDir() {
			for ; next < len(list) && len(queue) < ahead; next++ {
				if next >= i && list[next].IsDir() {
					queue = append(queue, w.list(join(rel, list[next].Name)))
				}
			}
			l, queue = queue[0], queue[1:]
		}
		if err := w.visit(join(rel, c.Name), c, l, inc, exc); err != nil {
			return err
		}
	}
	return nil
}

// join is path.Join for a clean directory and a name.
func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// flush enters the directories that were put off.
func (w *itemWalk) flush() error {
	for i := range w.stack {
		d := &w.stack[i]
		if d.entered {
			continue
		}
		if err := w.w.enter(d.rel, d.e, true); err != nil {
			return err
		}
		d.entered = true
	}
	return nil
}

// mayInclude tells whether something below a directory that is not included
// can be.
func (f *filter) mayInclude(rel string) bool {
	if f == nil || f.include == nil || f.prefixes == nil || rel == "" {
		return true
	}
	for _, p := range f.prefixes {
		if strings.HasPrefix(p, rel+"/") || strings.HasPrefix(rel+"/", p) {
			return true
		}
	}
	return false
}
