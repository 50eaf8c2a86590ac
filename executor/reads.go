package executor

import (
	"context"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"kaniko-build/executor/internal/buildctx"
	"kaniko-build/executor/internal/copier"
	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/executor/internal/tree"
	"kaniko-build/schema/diag"
)

// Reads is what a node reads of directories of this machine: what COPY, ADD and
// bind mounts of the stages that are needed select, with the links on the way, and
// what they would if it were there. It does not change.
type Reads struct {
	dirs []*readDir
}

// readDir is what is read of one directory.
type readDir struct {
	path  string // absolute, without links
	files *buildctx.Dir
	reads []readLine
	// What the reads led to: things that are copied with all that is in them, and
	// links on the way.
	items, links map[string]Use
}

// readLine is an instruction that reads.
type readLine struct {
	pos      diag.Pos
	text     string
	patterns []string // cleaned, without a leading "/"; "" is everything
}

// Reads tells what a node reads. The main context and named ones that are
// directories count.
func (x *Executor) Reads(ctx context.Context, n *Node) (*Reads, error) {
	out := &Reads{}
	byName := map[string]*readDir{}
	for _, st := range n.program.Stages {
		for i := range st.Steps {
			s := &st.Steps[i]
			err := eachRead(s, func(src dockerfile.Source, sel copier.Select) error {
				if src.Kind != dockerfile.FromContext || sel.Literal {
					return nil
				}
				d, err := n.sources.directory(ctx, src.Context)
				if err != nil || d == nil {
					return err
				}
				r := byName[src.Context]
				if r == nil {
					real, err := filepath.EvalSymlinks(d.path)
					if err != nil {
						return err
					}
					r = &readDir{path: real, files: d.files, items: map[string]Use{}, links: map[string]Use{}}
					byName[src.Context] = r
					out.dirs = append(out.dirs, r)
				}
				line := readLine{pos: s.Pos, text: s.Text}
				for _, p := range sel.Patterns {
					line.patterns = append(line.patterns, tree.Clean(p))
				}
				r.reads = append(r.reads, line)
				t := &traced{Tree: d.tree, seen: map[string]tree.Entry{}}
				items, err := copier.Find(ctx, t, sel)
				if err != nil {
					return placed(err, s.Pos)
				}
				for _, it := range items {
					r.items[tree.Clean(it.Path)] = Use{s.Pos, s.Text}
				}
				for name, e := range t.seen {
					if e.IsLink() {
						r.links[name] = Use{s.Pos, s.Text}
					}
				}
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// Use is why a file counts.
type Use struct {
	Pos  diag.Pos // of the instruction
	Text string   // of it
}

// Of tells whether the node reads a file, an absolute path without links that need
// not exist any more, and which instruction does.
func (r *Reads) Of(file string) (Use, bool) {
	for _, d := range r.dirs {
		rel, err := filepath.Rel(d.path, file)
		if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
			continue
		}
		rel = filepath.ToSlash(rel)
		for _, line := range d.reads {
			if slices.ContainsFunc(line.patterns, func(p string) bool { return onTheWay(p, rel) }) && d.files.Holds(rel) {
				return Use{line.pos, line.text}, true
			}
		}
		if u, ok := d.links[rel]; ok {
			return u, true
		}
		for at := rel; at != "."; at = path.Dir(at) { // what a link leads to, by another name
			if u, ok := d.items[at]; ok && d.files.Holds(rel) {
				return u, true
			}
		}
	}
	return Use{}, false
}

// Roots are the directories that the reads start from, absolute and without links.
func (r *Reads) Roots() []string {
	var out []string
	for _, d := range r.dirs {
		out = append(out, d.path)
	}
	return out
}

// Shape is equal for reads that select the same, however the files are.
func (r *Reads) Shape() string {
	var b strings.Builder
	for _, d := range r.dirs {
		fmt.Fprintf(&b, "%q\n", d.path)
		for _, p := range d.files.Patterns() {
			fmt.Fprintf(&b, "ignore %q\n", p)
		}
		for _, l := range d.reads {
			fmt.Fprintf(&b, "read %q\n", l.patterns)
		}
		for _, m := range []map[string]Use{d.items, d.links} {
			for _, name := range slices.Sorted(maps.Keys(m)) {
				fmt.Fprintf(&b, "leads to %q\n", name)
			}
		}
	}
	return b.String()
}

// Enters tells whether something in a directory, or the directory itself, may
// count. dir is absolute and without links, and need not exist. What the ignore file
// leaves out as a whole is never entered.
func (r *Reads) Enters(dir string) bool {
	for _, d := range r.dirs {
		rel, err := filepath.Rel(d.path, dir)
		if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
			continue
		}
		rel = filepath.ToSlash(rel)
		if rel == "." || d.enters(rel) {
			return true
		}
	}
	return false
}

func (d *readDir) enters(rel string) bool {
	for name := range d.links {
		if within(name, rel) {
			return true
		}
	}
	if !d.files.Enters(rel) {
		return false
	}
	for _, line := range d.reads {
		if slices.ContainsFunc(line.patterns, func(p string) bool { return onTheWay(p, rel) }) {
			return true
		}
	}
	for item := range d.items {
		if within(item, rel) || within(rel, item) {
			return true
		}
	}
	return false
}

// within tells whether name is dir or in it; "" holds everything.
func within(name, dir string) bool {
	return dir == "" || name == dir || strings.HasPrefix(name, dir+"/")
}

// onTheWay tells whether a pattern selects name, something that holds it, or
// passes it: the parts that both have match.
func onTheWay(pattern, name string) bool {
	if pattern == "" || pattern == "." {
		return true
	}
	want, have := strings.Split(pattern, "/"), strings.Split(name, "/")
	for i := range min(len(want), len(have)) {
		if ok, err := path.Match(want[i], have[i]); err != nil || !ok {
			return false
		}
	}
	return true
}

// eachRead calls f for what an instruction reads from somewhere.
func eachRead(s *dockerfile.Step, f func(dockerfile.Source, copier.Select) error) error {
	switch {
	case s.Copy != nil && len(s.Copy.Sources) > 0:
		return f(s.Copy.From, selection(s.Copy))
	case s.Run != nil:
		_, err := runLines(s.Run, func(src dockerfile.Source, paths []string) ([]string, error) {
			return nil, f(src, copier.Select{Patterns: paths})
		}, func(dockerfile.Mount) bool { return true })
		return err
	}
	return nil
}

// Copies lists what COPY and ADD of the needed stages select in the main context,
// without asking for images: what a base's own variables would say is not known.
func Copies(r Request) ([]string, error) {
	o, err := parseOptions(r, nil)
	if err != nil {
		return nil, err
	}
	f, err := dockerfile.Parse(r.Dockerfile.Data, o)
	if err != nil {
		return nil, err
	}
	p, err := f.Resolve(func(dockerfile.ImageRef) (*dockerspec.DockerOCIImage, error) {
		return &dockerspec.DockerOCIImage{}, nil
	})
	if err != nil {
		return nil, err
	}
	var out []string
	for _, st := range p.Stages {
		for _, s := range st.Steps {
			if c := s.Copy; c != nil && c.From.Kind == dockerfile.FromContext && c.From.Context == "" {
				out = append(out, c.Sources...)
			}
		}
	}
	return out, nil
}
