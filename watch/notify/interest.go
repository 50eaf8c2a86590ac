package notify

import (
	"os"
	"path/filepath"
	"strings"
)

// Interest is what is to be watched. All paths are absolute and without links, see
// Resolve; they need not exist.
type Interest struct {
	Top    string                // what lies in it is also watched for on the way down from it
	Trees  []string              // directories with what is in them
	Files  []string              // single files
	Enters func(dir string) bool // of directories in Trees; nil enters all
}

func (i *Interest) enters(dir string) bool { return i.Enters == nil || i.Enters(dir) }

// singles are the directories that are watched for what is in them, and not
// deeper: those that hold a file or a tree, and those between them and the top.
func (i *Interest) singles() map[string]bool {
	out := map[string]bool{}
	for _, list := range [][]string{i.Files, i.Trees} {
		for _, p := range list {
			dir := filepath.Dir(p)
			out[dir] = true
			for i.Top != "" && within(dir, i.Top) && dir != i.Top {
				dir = filepath.Dir(dir)
				out[dir] = true
			}
		}
	}
	return out
}

// within tells whether a path is dir or in it.
func within(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}

// maxLinks is how many links a path may lead through, as with the kernel.
const maxLinks = 40

// Resolve follows the links of an absolute path, the last part too. real is where
// it leads; a part that does not exist, and what follows it, stays as it is. links
// are those on the way, each as a path without links before its last part.
func Resolve(p string) (real string, links []string) {
	todo := strings.Split(filepath.Clean(p), "/")
	real = "/"
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			real = filepath.Dir(real)
			continue
		}
		next := filepath.Join(real, name)
		target, err := os.Readlink(next)
		if err != nil || len(links) >= maxLinks {
			real = next // no link, or nothing
			continue
		}
		links = append(links, next)
		if filepath.IsAbs(target) {
			real = "/"
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return real, links
}
