package schema

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"kaniko-build/schema/diag"
)

// unit is a file of the manifest with what is merged over it, and what it
// declares. The root's unit has the override file, further files of -f and active
// profiles as layers; an included file is a unit of its own, in its own directory.
//
// A name is looked up in the unit that wrote it and then in those that include it,
// nearest first. Templates and secrets of other units are not seen.
type unit struct {
	file      string   // relative to the workspace root
	at        diag.Pos // of what included it first; zero for the root
	prefix    string   // of all names it declares; "" or ending with "/"
	layers    []*value // weakest first
	includers []*unit  // in the order they were met
	includes  []*unit
	above     []*unit // itself, then its includers, nearest first, each once
	chain     []*unit // those of above that it sees: a file of another repository sees none outside
	with      *value  // what a file of another repository is given for its variables
	vars      map[string]*variable
	varNames  []string
}

const maxUnits = 10_000 // files of one manifest

// rootOnly are the keys that speak of a whole run.
var rootOnly = []string{"name", "envFiles", "profiles", "policy", "run", "runner", "affected", "watch", "lint"}

// loader reads the files of a manifest.
type loader struct {
	fsys     fs.FS
	repos    *repositories
	opts     Options
	problems *diag.List
	warnings diag.List
	units    map[string]*unit    // by file; those of the root's layers are the root's
	ordered  []*unit             // includers before what they include
	open     []string            // files being included
	ahead    map[string]*decoded // by file; read, and not yet included
}

// decoded is a file that was read and taken apart.
type decoded struct {
	doc      *value // nil if there is nothing to use in it
	err      error  // it cannot be read
	problems diag.List
}

// root reads the root manifest and what lies over it; nil after it has reported
// why there is none.
func (d *loader) root(name string, text []byte) *unit {
	u := &unit{file: name}
	d.units, d.ordered, d.ahead = map[string]*unit{name: u}, []*unit{u}, map[string]*decoded{}
	first := document(name, text, d.problems)
	if first == nil {
		return nil
	}
	checkVersion(first, d.problems)
	if d.problems.Len() > 0 && first.get("version").str() != "1" {
		return nil // another version is another language: more would only be noise
	}
	if first = manifestShape.check(first, "the manifest", written, d.problems); first == nil {
		return nil
	}
	u.layers = []*value{first}
	for _, f := range d.opts.Over {
		over := document(f.Name, f.Text, d.problems)
		if over == nil {
			continue
		}
		d.units[f.Name] = u
		if v := over.get("version"); v != nil {
			checkVersion(over, d.problems)
		}
		if over = manifestShape.check(over, f.Name, written, d.problems); over != nil {
			u.layers = append(u.layers, over)
		}
	}
	for _, layer := range u.layers {
		d.open = []string{layer.pos.File}
		d.include(u, layer)
	}
	u.layers = append(u.layers, d.profiles(u.layers)...)
	for _, u := range d.ordered {
		u.above = []*unit{u}
		for i := 0; i < len(u.above); i++ {
			for _, above := range u.above[i].includers {
				if !slices.Contains(u.above, above) {
					u.above = append(u.above, above)
				}
			}
		}
		for _, above := range u.above {
			if root := rootOf(u.file); root == "" || rootOf(above.file) == root {
				u.chain = append(u.chain, above)
			}
		}
	}
	return u
}

// document reads one file as a mapping.
func document(name string, text []byte, l *diag.List) *value {
	v := readYAML(name, text, l)
	if v != nil && v.kind != mapKind {
		l.Add(v.pos, "the smallest manifest is: version: 1, and targets", "a manifest must be a mapping, not %s", v.kind)
		return nil
	}
	return v
}

// include reads what a document includes.
func (d *loader) include(u *unit, doc *value) {
	for _, key := range []string{"include", "include+"} {
		for _, item := range doc.get(key).list() {
			d.includeItem(u, item)
		}
	}
}

var prefixText = regexp.MustCompile(`^(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)+$`)

func (d *loader) includeItem(u *unit, item *value) {
	at, prefix, optional := item, "", false
	if item.kind == mapKind {
		at, optional = item.get("path"), item.get("optional").isTrue()
		if p := item.get("prefix"); p != nil {
			if prefix = p.text; !prefixText.MatchString(prefix) {
				d.problems.Add(p.pos, "write a name and a slash, such as data/", "%q is not a prefix for names", p.text)
				return
			}
		}
	}
	if item.get("git") != nil {
		d.includeGit(u, item, prefix)
		return
	}
	for _, key := range []string{"ref", "with"} {
		if v := item.get(key); v != nil {
			d.problems.Add(v.pos, "add git: and its address, or take it out", "%q is for files of another repository", key)
			return
		}
	}
	if hasReference(at.text) {
		d.problems.Add(at.pos, "write the path itself, or a pattern", "include cannot hold a reference")
		return
	}
	pattern := pathReader{d.problems, d.opts.AllowFS}.pathFrom(at, path.Dir(at.pos.File))
	if pattern == "." {
		return
	}
	files := []string{pattern}
	if isGlob(pattern) {
		var err error
		if files, err = globFiles(d.fsys, pattern); err != nil {
			d.problems.Add(at.pos, "", "include %s: %v", at.text, err)
			return
		}
		files = slices.DeleteFunc(files, func(f string) bool { return slices.Contains(d.open, f) })
		if len(files) == 0 && !optional {
			d.problems.Add(at.pos, "take it out, or write {path: ..., optional: true}", "no file matches include %q", at.text)
		}
	}
	d.decode(files)
	for _, file := range files {
		d.includeFile(u, file, u.prefix+prefix, at.pos, optional)
	}
}

// decode reads the files that are not included yet, and takes them apart side by side:
// of a thousand small files that is half of the time of a plan.
func (d *loader) decode(files []string) {
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, file := range files[:min(len(files), maxUnits-len(d.ordered))] {
		if d.units[file] != nil || d.ahead[file] != nil {
			continue
		}
		one := &decoded{}
		d.ahead[file] = one
		text, err := readFile(d.fsys, file) // one after the other: not every file system takes more
		if one.err = err; err != nil {
			continue
		}
		g.Go(func() error {
			one.doc = document(file, text, &one.problems)
			return nil
		})
	}
	_ = g.Wait() // no function of it fails
}

func (d *loader) includeFile(by *unit, file, prefix string, at diag.Pos, optional bool) {
	if i := slices.Index(d.open, file); i >= 0 {
		d.problems.Add(at, "", "files include each other: %s -> %s", strings.Join(d.open[i:], " -> "), file)
		return
	}
	if old := d.units[file]; old != nil {
		if old.prefix != prefix {
			d.problems.Add(at, "include it once, or with the same prefix", "file %s is already included with prefix %q at %s", file, old.prefix, old.at)
			return
		}
		if !slices.Contains(old.includers, by) {
			old.includers, by.includes = append(old.includers, by), append(by.includes, old)
		}
		return
	}
	if len(d.ordered) == maxUnits {
		d.problems.Add(at, "", "a manifest has at most %d files", maxUnits)
		return
	}
	d.decode([]string{file})
	doc, err := d.ahead[file].doc, d.ahead[file].err
	if errors.Is(err, fs.ErrNotExist) && optional {
		return
	}
	if err == nil && d.opts.Trust != nil && rootOf(file) == "" {
		err = d.opts.Trust(file)
	}
	if err != nil {
		d.problems.AddErr(at, cannotRead(at, file, err))
		return
	}
	u := &unit{file: file, at: at, prefix: prefix, includers: []*unit{by}}
	by.includes = append(by.includes, u)
	d.units[file], d.ordered = u, append(d.ordered, u)
	d.problems.AddErr(diag.Pos{}, d.ahead[file].problems.Err())
	delete(d.ahead, file)
	if doc == nil {
		return
	}
	if doc.get("version") != nil {
		checkVersion(doc, d.problems)
	}
	for _, e := range doc.entries {
		if name, _ := cutOperator(e.name); slices.Contains(rootOnly, name) && d.opts.Guest && rootOf(file) != "" {
			d.warnings.Add(e.pos, "say it with flags, or in a manifest of your own that includes this one", "key %q of another repository does not count", e.name)
		} else if slices.Contains(rootOnly, name) {
			d.problems.Add(e.pos, "move it to "+d.ordered[0].file, "key %q is for the whole run and cannot stand in an included file", e.name)
		} else if slices.Contains([]string{allowSecrets, allowSSH, allowRegistries}, name) {
			sealed(d.problems, d.opts, e.pos, name, name)
		}
	}
	if doc = manifestShape.check(doc, file, written, d.problems); doc == nil {
		return
	}
	u.layers = []*value{doc}
	d.open = append(d.open, file)
	d.include(u, doc)
	d.open = d.open[:len(d.open)-1]
}

// cannotRead is why a file that a manifest names cannot be used, at its place.
func cannotRead(at diag.Pos, file string, err error) error {
	var problem *diag.Problem
	switch {
	case errors.As(err, &problem):
		return &diag.Problem{Pos: at, What: fmt.Sprintf("%s %s", file, problem.What), Hint: problem.Hint}
	case errors.Is(err, fs.ErrNotExist):
		return &diag.Problem{Pos: at, What: fmt.Sprintf("there is no file %s", file), Hint: "paths count from this file, with // from the workspace root"}
	case errors.Is(err, fs.ErrPermission):
		return &diag.Problem{Pos: at, What: fmt.Sprintf("file %s cannot be read: permission denied", file), Hint: "make it readable for this user"}
	}
	return &diag.Problem{Pos: at, What: fmt.Sprintf("read %s: %v", file, err)}
}

func isGlob(s string) bool { return strings.ContainsAny(s, "*?[") }

// globFiles is the regular files that a pattern names, sorted. ** stands for any
// number of directories; directories that begin with a dot are never entered by it.
func globFiles(fsys fs.FS, pattern string) ([]string, error) {
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, fmt.Errorf("not a pattern: %s", pattern)
	}
	var out []string
	var walk func(dir string, parts []string) error
	walk = func(dir string, parts []string) error {
		part, rest := parts[0], parts[1:]
		if !isGlob(part) {
			name := path.Join(dir, part)
			if len(rest) > 0 {
				return walk(name, rest)
			}
			if fi, err := fs.Stat(fsys, name); err == nil && fi.Mode().IsRegular() {
				out = append(out, name)
			}
			return nil
		}
		if part == "**" && len(rest) > 0 {
			if err := walk(dir, rest); err != nil {
				return err
			}
		}
		entries, err := fs.ReadDir(fsys, dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			if fi, statErr := fs.Stat(fsys, dir); statErr == nil && !fi.IsDir() {
				return nil // "a/*/f" with a file in a
			}
			return err
		}
		for _, e := range entries {
			name := path.Join(dir, e.Name())
			switch {
			case part == "**" && e.IsDir() && !strings.HasPrefix(e.Name(), "."):
				if err := walk(name, parts); err != nil {
					return err
				}
			case part == "**" && len(rest) > 0:
			default:
				if ok, err := path.Match(part, e.Name()); part != "**" && (err != nil || !ok) {
					continue
				}
				if len(rest) > 0 {
					err = walk(name, rest)
				} else if fi, statErr := fs.Stat(fsys, name); statErr == nil && fi.Mode().IsRegular() {
					out = append(out, name)
				}
				if err != nil {
					return err
				}
			}
		}
		return nil
	}
	err := walk(".", strings.Split(pattern, "/"))
	slices.Sort(out)
	return slices.Compact(out), err
}

// profiles is the layers of active profiles, in the order they are declared.
func (d *loader) profiles(documents []*value) []*value {
	var order []string
	layers := map[string][]*value{}
	for _, doc := range documents {
		section := doc.get("profiles")
		if section == nil {
			continue
		}
		for _, e := range section.entries {
			if !slices.Contains(order, e.name) {
				order = append(order, e.name)
				if !nameText.MatchString(e.name) || e.name == "none" {
					d.problems.Add(e.pos, "use lower-case letters and digits; none is taken", "%q is not a name for a profile", e.name)
				}
			}
			if e.value.kind == nullKind {
				delete(layers, e.name)
				continue
			}
			layers[e.name] = append(layers[e.name], e.value)
		}
	}
	automatic := !slices.Contains(d.opts.Profiles, "none")
	for _, name := range d.opts.Profiles {
		if name != "none" && layers[name] == nil {
			hint := suggestFrom(name, order)
			if len(order) == 0 {
				hint = "the manifest has no profiles"
			}
			d.problems.Add(diag.Pos{}, hint, "--profile names unknown profile %q", name)
		}
	}
	var out []*value
	for _, name := range order {
		active := slices.Contains(d.opts.Profiles, name)
		var when *value
		for _, layer := range layers[name] {
			if w := layer.get("when"); w != nil {
				when = w
			}
		}
		if when != nil {
			s := &scope{opts: d.opts, problems: d.problems, budget: &budget{}, git: map[string]*value{}, early: "profiles"}
			yes, _ := s.expander().holds(when)
			active = active || automatic && yes
		}
		if active {
			out = append(out, layers[name]...)
		}
	}
	return out
}
