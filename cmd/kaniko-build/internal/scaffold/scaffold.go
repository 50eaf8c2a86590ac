// Package scaffold writes a first manifest for the Dockerfiles of a repository.
//
//	tree ─ Find ─> Dockerfiles ─ Guess ─> targets: names, contexts, images ─ Write ─> kaniko-build.yaml
//
// It guesses as little as it can: a context is the directory of the Dockerfile
// unless what it copies lies at the root of the repository; an image is written only
// where another Dockerfile names it.
package scaffold

import (
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Target is one Dockerfile as the manifest will have it.
type Target struct {
	Name       string
	Context    string // relative to the root
	Dockerfile string // relative to the root
	Image      string // repository; "" is the default
}

// Dockerfile is what a Dockerfile says that a guess needs.
type Dockerfile struct {
	Path   string   // relative to the root
	Copies []string // what COPY and ADD select of the main context
	Bases  []string // images that it names
}

// skipped are directories that hold nobody's own Dockerfiles.
var skipped = []string{".git", "node_modules", "vendor", "testdata", ".venv", "third_party"}

// Find lists the Dockerfiles of a tree: Dockerfile, Dockerfile.NAME,
// NAME.Dockerfile, and the same with Containerfile; sorted. Pipes and devices are none.
func Find(fsys fs.FS) ([]string, error) {
	var out []string
	err := fs.WalkDir(fsys, ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil && name == ".":
			return err
		case err != nil:
			return nil // what cannot be read is nobody's Dockerfile
		case e.IsDir() && slices.Contains(skipped, e.Name()):
			return fs.SkipDir
		case isDockerfile(e.Name()) && regular(fsys, name):
			out = append(out, name)
		}
		return nil
	})
	slices.Sort(out)
	return out, err
}

// regular tells whether name is a file, or a link to one.
func regular(fsys fs.FS, name string) bool {
	st, err := fs.Stat(fsys, name)
	return err == nil && st.Mode().IsRegular()
}

func isDockerfile(name string) bool {
	for _, kind := range []string{"dockerfile", "containerfile"} {
		low := strings.ToLower(name)
		if low == kind || strings.HasPrefix(low, kind+".") && !strings.HasSuffix(low, "ignore") || strings.HasSuffix(low, "."+kind) {
			return true
		}
	}
	return false
}

// Guess makes a target of each Dockerfile. exists tells whether a path of the tree
// is there.
func Guess(files []Dockerfile, root string, exists func(string) bool) []Target {
	var out []Target
	taken := map[string]bool{}
	for _, f := range files {
		t := Target{Dockerfile: f.Path, Context: path.Dir(f.Path)}
		if !all(f.Copies, func(c string) bool { return exists(path.Join(t.Context, c)) }) && all(f.Copies, exists) {
			t.Context = "."
		}
		t.Name = unique(nameOf(f.Path, root), taken)
		out = append(out, t)
	}
	for _, f := range files {
		for _, base := range f.Bases {
			repo := repository(base)
			i := slices.IndexFunc(out, func(t Target) bool { return t.Name == path.Base(repo) && t.Dockerfile != f.Path })
			if i >= 0 && strings.Contains(repo, "/") && out[i].Image == "" {
				out[i].Image = repo
			}
		}
	}
	return out
}

// all is true of patterns, which nobody can look up, too.
func all(names []string, ok func(string) bool) bool {
	for _, n := range names {
		if !strings.ContainsAny(n, "*?[$") && !ok(strings.TrimPrefix(n, "/")) {
			return false
		}
	}
	return true
}

// repository is an image without its tag and digest.
func repository(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		image = image[:i]
	}
	return image
}

// nameOf is what a Dockerfile calls itself, else its directory.
func nameOf(file, root string) string {
	name, dir := path.Base(file), path.Base(path.Dir(file))
	if dir == "." {
		dir = root
	}
	low := strings.ToLower(name)
	for _, kind := range []string{"dockerfile", "containerfile"} {
		switch own, found := strings.CutPrefix(low, kind+"."); {
		case found:
			return dir + "-" + own
		case strings.HasSuffix(low, "."+kind):
			return strings.TrimSuffix(low, "."+kind)
		}
	}
	return dir
}

var unfit = regexp.MustCompile(`[^a-z0-9]+`)

// unique is a name that the manifest allows and that nobody has.
func unique(name string, taken map[string]bool) string {
	name = strings.Trim(unfit.ReplaceAllString(strings.ToLower(name), "-"), "-")
	if name == "" {
		name = "image"
	}
	try := name
	for n := 2; taken[try]; n++ {
		try = fmt.Sprintf("%s-%d", name, n)
	}
	taken[try] = true
	return try
}

// Write writes the manifest, a line for each target.
func Write(w io.Writer, targets []Target) error {
	list := &yaml.Node{Kind: yaml.MappingNode}
	for _, t := range targets {
		body := &yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle}
		add := func(key, value string) {
			body.Content = append(body.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key}, &yaml.Node{Kind: yaml.ScalarNode, Value: value})
		}
		add("context", t.Context)
		if t.Dockerfile != path.Join(t.Context, "Dockerfile") {
			add("dockerfile", "//"+t.Dockerfile)
		}
		if t.Image != "" {
			add("image", t.Image)
		}
		list.Content = append(list.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: t.Name}, body)
	}
	doc := &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{
		{Kind: yaml.ScalarNode, Value: "version"}, {Kind: yaml.ScalarNode, Value: "1"},
		{Kind: yaml.ScalarNode, Value: "targets"}, list,
	}}
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(doc); err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	return enc.Close()
}
