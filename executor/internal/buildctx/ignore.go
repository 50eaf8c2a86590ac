package buildctx

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"kaniko-build/executor/internal/tree"
	"kaniko-build/schema/diag"
)

// IgnoreName is the file of a context that says what is not in it.
const IgnoreName = ".dockerignore"

// maxIgnore is the largest ignore file, in bytes; a larger one is an error.
const maxIgnore = 16 << 20

// Ignore is an ignore file: its patterns, one a line.
type Ignore struct {
	Name string // for positions
	Data []byte
}

// readIgnore reads a context's own ignore file, following links inside it. A
// context without one ignores nothing.
func readIgnore(ctx context.Context, t tree.Tree, name string) (Ignore, error) {
	ig := Ignore{Name: name}
	real, err := tree.Resolve(ctx, t, IgnoreName)
	if err != nil {
		return ig, nil //nolint:nilerr // a loop is no ignore file
	}
	e, err := t.Lstat(ctx, real)
	if err != nil || !e.IsRegular() {
		return ig, nil //nolint:nilerr // none there
	}
	f, err := t.Open(ctx, real)
	if err != nil {
		return ig, fmt.Errorf("read %s: %w", name, err)
	}
	defer f.Close()
	if ig.Data, err = io.ReadAll(io.LimitReader(f, maxIgnore+1)); err != nil {
		return ig, fmt.Errorf("read %s: %w", name, err)
	}
	if len(ig.Data) > maxIgnore {
		return ig, &diag.Problem{Pos: diag.Pos{File: name}, What: fmt.Sprintf("the file is larger than %d bytes", maxIgnore)}
	}
	return ig, nil
}

// OwnIgnore reads the ignore file of the context at root as Open does. Data is nil
// if there is none.
func OwnIgnore(ctx context.Context, root string) (Ignore, error) {
	t, err := tree.OpenDir(root, tree.DirOptions{})
	if err != nil {
		return Ignore{}, fmt.Errorf("open context: %w", err)
	}
	defer t.Close()
	return readIgnore(ctx, t, filepath.Join(root, IgnoreName))
}

// Patterns are the patterns that Open would go by for the context at root: those
// of own, or without it of the context's file. Without either there are none,
// nor for the empty context, root "".
func Patterns(ctx context.Context, root string, own *Ignore) ([]string, error) {
	var m *matcher
	var err error
	switch {
	case own != nil:
		if m, err = own.parse(); err != nil {
			return nil, err
		}
	case root != "":
		d, err := Open(ctx, root, Options{})
		if err != nil {
			return nil, err
		}
		defer d.Close()
		m = d.ignore
	}
	return m.texts(), nil
}

// Patterns are those of the ignore file that the directory was opened by.
func (d *Dir) Patterns() []string { return d.ignore.texts() }

// texts are the patterns as they are written.
func (m *matcher) texts() []string {
	if m == nil {
		return nil
	}
	var out []string
	for _, p := range m.Patterns() {
		if p.Exclusion() {
			out = append(out, "!"+p.String())
		} else {
			out = append(out, p.String())
		}
	}
	return out
}

// matcher answers what is ignored. nil ignores nothing.
type matcher struct {
	*patternmatcher.PatternMatcher
	// keeps are the exceptions, each with "/" at its end; search says that one
	// has a wildcard, so that any directory may hold what it matches.
	keeps  []string
	search bool
	ends   []ends // of each pattern
}

// ends are what a path that a pattern matches must begin and end with. Most
// paths are told by them that no pattern matches, at a tenth of the cost.
type ends struct {
	head, tail string
	exact      bool // head is all of it
}

const special = "*?[]^$\\"

func endsOf(pattern string) ends {
	first := strings.IndexAny(pattern, special)
	if first < 0 {
		return ends{head: pattern, exact: true}
	}
	if strings.ContainsRune(pattern, '\\') { // with a letter it is what it is in a regular expression: \b, \d
		return ends{head: pattern[:first]}
	}
	tail := pattern[strings.LastIndexAny(pattern, special)+1:]
	return ends{head: pattern[:first], tail: tail[strings.LastIndexByte(tail, '/')+1:]}
}

// none tells whether surely no pattern matches name itself.
func (m *matcher) none(name string) bool {
	for _, e := range m.ends {
		if e.exact && name == e.head || !e.exact && strings.HasPrefix(name, e.head) && strings.HasSuffix(name, e.tail) {
			return false
		}
	}
	return true
}

// parse reads the patterns. All that are malformed are reported.
func (ig Ignore) parse() (*matcher, error) {
	patterns, err := ignorefile.ReadAll(bytes.NewReader(ig.Data))
	if err != nil {
		return nil, &diag.Problem{Pos: diag.Pos{File: ig.Name}, What: fmt.Sprintf("failed parsing %s: %v", path.Base(ig.Name), err)}
	}
	pm, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, ig.problems(err)
	}
	if len(pm.Patterns()) == 0 {
		return nil, nil
	}
	m := &matcher{PatternMatcher: pm}
	for _, p := range pm.Patterns() {
		m.ends = append(m.ends, endsOf(p.String()))
		if !p.Exclusion() {
			continue
		}
		s := strings.TrimSuffix(strings.TrimSuffix(p.String(), "/**"), "/*")
		if strings.ContainsAny(s, `*[]?^\`) {
			m.search = true
		}
		m.keeps = append(m.keeps, s+"/")
	}
	return m, nil
}

// problems finds the lines that patternmatcher does not like.
func (ig Ignore) problems(err error) error {
	var l diag.List
	for n, line := range strings.Split(string(ig.Data), "\n") {
		patterns, rerr := ignorefile.ReadAll(strings.NewReader(line))
		if rerr != nil {
			continue
		}
		if _, perr := patternmatcher.New(patterns); perr != nil {
			l.Add(diag.Pos{File: ig.Name, Line: n + 1}, "", "invalid pattern %q: %v", strings.TrimSpace(line), perr)
		}
	}
	if l.Len() == 0 {
		l.Add(diag.Pos{File: ig.Name}, "", "invalid patterns: %v", err)
	}
	return l.Err()
}

// mayKeep tells whether an exception can match below an ignored directory.
func (m *matcher) mayKeep(dir string) bool {
	if m.search {
		return true
	}
	for _, k := range m.keeps {
		if strings.HasPrefix(k, dir+"/") {
			return true
		}
	}
	return false
}
