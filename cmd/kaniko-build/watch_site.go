package main

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"kaniko-build/executor"
	"kaniko-build/graph"
	"kaniko-build/plan"
	"kaniko-build/schema"
	"kaniko-build/watch"
	"kaniko-build/watch/notify"
)

// workshop is a watch.Workshop: this program.
type workshop struct {
	f         *watchFlags
	c         *cobra.Command
	stage     *stage
	selection []string
	engine    *engine              // that takes images; nil is none
	opened    []*executor.Executor // the last is used, the others may be by builds under way
	made      string               // what the last was opened with
	files     *fileSet             // that the last Open read or looked for
	hooked    bool                 // hooks without inputs have run
	last      *site                // that nodes were looked at in
	tags      tags                 // what became of them
	how       watch.Options        // to watch, from the beginning to the end
	elsewise  string               // the settings of the manifest that say otherwise by now
}

// Open is that of watch.Workshop.
func (w *workshop) Open(ctx context.Context, fresh bool) (watch.Site, error) {
	f := w.f
	w.files = &fileSet{}
	ws, err := f.readBy(ctx, w.files.traced)
	w.named()
	if err != nil {
		return nil, err
	}
	w.stage.begin(ws)
	w.lasting(ws.manifest.Watch)
	for i := range ws.manifest.Targets {
		w.files.target(ws, &ws.manifest.Targets[i])
	}
	p, err := ws.plan(w.selection)
	if err != nil {
		return nil, err
	}
	if err := syncable(p, w.f.target); err != nil {
		return nil, err
	}
	if run := w.stage.service; run != nil {
		if _, err := run.node(p); err != nil {
			return nil, err
		}
	}
	for _, warning := range p.Warnings {
		w.stage.warn(warning.Error())
	}
	r, requests, err := f.prepare(w.c, w.stage.term, ws, p)
	if err != nil {
		return nil, err
	}
	registries, err := ws.registries()
	if err != nil {
		return nil, err
	}
	f.name = ws.manifest.Name
	x, err := w.executorFor(ctx, registries)
	if err != nil {
		return nil, err
	}
	if fresh {
		x.Forget()
		w.hooked = false
	}
	if err := ws.fetch(ctx, x, p, requests); err != nil {
		return nil, err
	}
	r.hooks.x, r.hooks.sink, r.hooks.force = x, w.stage.executed, f.noCache
	s := &site{shop: w, w: ws, p: p, run: r, x: x, requests: map[graph.ID]executor.Request{}, nodes: map[string]*executor.Node{},
		in: inputs{map[string]string{}, map[string]error{}}, sums: map[graph.ID]string{}, files: w.files}
	for _, req := range requests {
		s.requests[graph.ID(req.ID)] = req
	}
	s.top, _ = notify.Resolve(ws.root)
	if last := w.last; last != nil { // what was built stays so, where nothing says otherwise
		maps.Copy(s.nodes, last.nodes)
		maps.Copy(s.sums, last.sums)
		maps.DeleteFunc(s.nodes, func(id string, _ *executor.Node) bool { return p.Node(graph.ID(id)) == nil })
	}
	w.stage.opened(ws, p)
	return s, s.ignores()
}

// Files is that of watch.Workshop.
func (w *workshop) Files() []string { return w.files.list() }

// named adds the files that flags name, or that are looked for.
func (w *workshop) named() {
	files, err := w.f.find()
	if err != nil {
		return
	}
	for _, list := range [][]string{files, w.f.varFiles} {
		for _, file := range list {
			if abs, err := filepath.Abs(file); err == nil {
				w.files.add(abs)
			}
		}
	}
	if abs, err := filepath.Abs(files[0]); err == nil && len(w.f.files) == 0 {
		for _, name := range []string{"kaniko-build.yaml", "kaniko-build.yml", "kaniko-build.override.yaml", "kaniko-build.override.yml"} {
			w.files.add(filepath.Join(filepath.Dir(abs), name))
		}
	}
}

// fileSet is files whose change asks for another reading of the manifest.
type fileSet struct {
	mu    sync.Mutex
	names map[string]bool // without links
	dirs  map[string]bool // that were listed, for manifests in them
}

func (f *fileSet) add(abs string) {
	real, links := notify.Resolve(abs)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.names == nil {
		f.names, f.dirs = map[string]bool{}, map[string]bool{}
	}
	for _, p := range append(links, real) {
		f.names[p] = true
	}
}

// target adds a target's own files, and the directories it is made of.
func (f *fileSet) target(w *workspace, t *schema.Target) {
	if t.Inline == nil {
		f.add(w.path(t.Dockerfile))
		f.add(w.path(t.Dockerfile) + ".dockerignore")
	}
	f.add(w.path(t.Context))
	f.add(w.path(path.Join(t.Context, ".dockerignore")))
	for _, c := range t.Contexts {
		switch c.Kind {
		case schema.ContextDir:
			f.add(w.path(c.Value))
			f.add(w.path(path.Join(c.Value, ".dockerignore")))
		case schema.ContextOCI:
			f.add(w.path(path.Join(c.Value, "index.json")))
		}
	}
}

// list is the names, sorted.
func (f *fileSet) list() []string {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	out := slices.Collect(maps.Keys(f.names))
	for dir := range f.dirs {
		out = append(out, filepath.Join(dir, "kaniko-build.yaml"))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// asks tells whether a change of a path is about one of the files.
func (f *fileSet) asks(p string, below bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.names[p] {
		return true
	}
	for dir := range f.dirs { // a directory that a pattern of include may match, or a manifest in it
		if below && filepath.Dir(p) == dir || filepath.Dir(p) == dir && strings.HasPrefix(filepath.Base(p), "kaniko-build.") {
			return true
		}
	}
	if below {
		for name := range f.names {
			if strings.HasPrefix(name, p+"/") {
				return true
			}
		}
	}
	return false
}

// traced is a directory of which it is noted what is opened.
func (f *fileSet) traced(root string) fs.FS { return tracedFS{os.DirFS(root), root, f} }

type tracedFS struct {
	fs.FS
	root string
	seen *fileSet
}

func (t tracedFS) Open(name string) (fs.File, error) {
	t.seen.add(filepath.Join(t.root, name))
	return t.FS.Open(name)
}

func (t tracedFS) ReadFile(name string) ([]byte, error) {
	t.seen.add(filepath.Join(t.root, name))
	return fs.ReadFile(t.FS, name)
}

func (t tracedFS) Stat(name string) (fs.FileInfo, error) { return fs.Stat(t.FS, name) }

func (t tracedFS) ReadDir(name string) ([]fs.DirEntry, error) {
	real, _ := notify.Resolve(filepath.Join(t.root, name))
	t.seen.mu.Lock()
	if t.seen.names == nil {
		t.seen.names, t.seen.dirs = map[string]bool{}, map[string]bool{}
	}
	t.seen.dirs[real] = true
	t.seen.mu.Unlock()
	return fs.ReadDir(t.FS, name)
}

// site is a watch.Site: a manifest that was read, and its plan.
type site struct {
	shop     *workshop
	w        *workspace
	top      string
	p        *plan.Plan
	run      *run // what all builds of it have in common
	x        *executor.Executor
	requests map[graph.ID]executor.Request
	files    *fileSet
	ignored  []func(string) bool

	// What the last looks found.
	nodes  map[string]*executor.Node
	in     inputs
	sums   map[graph.ID]string
	hooked bool // hooks with inputs were looked at once
}

func (s *site) Graph() *graph.Graph { return s.p.Graph() }
func (s *site) Top() string         { return s.top }
func (s *site) Files() []string     { return s.files.list() }

func (s *site) Asks(p string, below bool) bool { return s.files.asks(p, below) }

// ignores finds what is written by builds, and what the manifest says does not
// count.
func (s *site) ignores() error {
	for _, pattern := range s.w.manifest.Watch.Ignore {
		match := schema.Glob(pattern)
		whole := schema.Glob(strings.TrimSuffix(pattern, "/**"))
		s.ignored = append(s.ignored, func(rel string) bool {
			return match(rel) || match("/"+rel) || whole(rel) || whole("/"+rel)
		})
	}
	written := []string{s.run.flags.metadata, s.run.digests, s.shop.f.report, s.shop.f.logDir}
	for _, list := range s.run.outputs {
		for _, o := range list {
			written = append(written, o.Dest)
		}
	}
	state, err := stateDir()
	if err != nil {
		return err
	}
	for _, name := range append(written, state) {
		if name == "" || name == "-" {
			continue
		}
		abs, err := filepath.Abs(name)
		if err != nil {
			return fmt.Errorf("find %s: %w", name, err)
		}
		real, _ := notify.Resolve(abs)
		rel, err := filepath.Rel(s.top, real)
		if err != nil || rel == "." {
			continue
		}
		s.ignored = append(s.ignored, func(p string) bool { return p == rel || strings.HasPrefix(p, rel+"/") })
	}
	return nil
}

// rel is a path from the top, with slashes.
func (s *site) rel(p string) string {
	rel, err := filepath.Rel(s.top, p)
	if err != nil {
		return p
	}
	return filepath.ToSlash(rel)
}

func (s *site) Ignored(p string) bool {
	rel := s.rel(p)
	return slices.ContainsFunc(s.ignored, func(f func(string) bool) bool { return f(rel) })
}

// Beside is that of watch.Site: a target's own files and inputs of its hooks.
func (s *site) Beside(p string) []watch.Concern {
	rel := s.rel(p)
	var out []watch.Concern
	for _, id := range s.p.Order {
		n := s.p.Node(id)
		if n.Index != nil {
			continue
		}
		what := ownFiles(n.Target)(rel)
		if what == "" && s.hookReads(n.Target, rel) {
			what = "an input of its hook"
		}
		if what != "" {
			out = append(out, watch.Concern{Node: id, Text: what})
		}
	}
	return out
}

// hookReads tells whether a path is an input of a hook before the build.
func (s *site) hookReads(t *schema.Target, rel string) bool {
	return slices.ContainsFunc(t.Before, func(h schema.Hook) bool { return matchesInputs(h.Inputs, rel) })
}

// Watched is that of watch.Site.
func (s *site) Watched() notify.Interest {
	var i notify.Interest
	var tops []string
	for _, n := range s.p.Nodes {
		patterns := []string{}
		for _, e := range n.Target.Inputs.Extra {
			patterns = append(patterns, e.Name)
		}
		for _, h := range n.Target.Before {
			patterns = append(patterns, h.Inputs...)
		}
		for _, p := range patterns {
			if strings.HasPrefix(p, "!") {
				continue
			}
			for strings.ContainsAny(p, "*?") {
				p = path.Dir(p)
			}
			real, _ := notify.Resolve(filepath.Join(s.top, p))
			tops = append(tops, real)
		}
	}
	slices.Sort(tops)
	i.Trees = slices.Compact(tops)
	i.Enters = func(dir string) bool {
		return slices.ContainsFunc(i.Trees, func(t string) bool { return dir == t || t == "/" || strings.HasPrefix(dir, t+"/") })
	}
	return i
}

// Redefined is that of watch.Site.
func (s *site) Redefined(id graph.ID, before watch.Site) string {
	old, ok := before.(*site)
	if !ok || old.p.Node(id) == nil {
		return ""
	}
	return redefined(old.p.Node(id).Target, s.p.Node(id).Target)
}

// Reason is that of watch.Site.
func (s *site) Reason(id, needs graph.ID) string {
	for _, e := range s.p.Edges {
		if e.Node == id && e.Needs == needs {
			return e.Reason()
		}
	}
	return ""
}

// reads is what a node reads, as a watch.Reads.
type reads struct {
	*executor.Reads
	ignore func(path string) bool
}

func (r reads) Of(p string) (string, bool) {
	use, ok := r.Reads.Of(p)
	return oneLine(use.Text), ok && !r.ignore(p)
}

// readsOf is what a node reads; nil of an index.
func (l *look) readsOf(ctx context.Context, id graph.ID) (watch.Reads, error) {
	node := l.nodes[string(id)]
	if node == nil {
		return nil, nil
	}
	r, err := l.run.x.Reads(ctx, node)
	if err != nil {
		return nil, err
	}
	var ignore []string
	for _, p := range l.site.p.Node(id).Target.Inputs.Ignore {
		ignore = append(ignore, p.Name)
	}
	return reads{r, func(p string) bool { return matchesInputs(ignore, l.site.rel(p)) }}, nil
}

// matchesInputs tells whether a path is one of the files of patterns, of which those
// with a "!" take away.
func matchesInputs(patterns []string, rel string) bool {
	yes := false
	for _, p := range patterns {
		if rest, not := strings.CutPrefix(p, "!"); not {
			if schema.Glob(rest)(rel) {
				return false
			}
		} else if schema.Glob(p)(rel) {
			yes = true
		}
	}
	return yes
}
