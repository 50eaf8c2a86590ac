package watch

import (
	"path"
	"strings"
)

// Temporary tells whether a path is of those that editors and version control make
// for themselves: its change counts for nothing.
func Temporary(p string) bool {
	for part := range strings.SplitSeq(p, "/") {
		if part == ".git" || part == ".idea" {
			return true
		}
	}
	name := path.Base(p)
	switch {
	case strings.HasSuffix(name, "~"), name == "4913", strings.HasPrefix(name, ".#"), strings.HasSuffix(name, "___jb_tmp___"),
		len(name) > 1 && strings.HasPrefix(name, "#") && strings.HasSuffix(name, "#"):
		return true
	}
	return swap(name)
}

// swap tells whether a name is that of a swap file of vim: .NAME.swp, and .swo, .swn
// .swm when there are several; .swx is made to try.
func swap(name string) bool {
	ext := path.Ext(name)
	return strings.HasPrefix(name, ".") && len(name) > len(ext) && len(ext) == 4 && strings.HasPrefix(ext, ".sw") && strings.ContainsAny(ext[3:], "ponmx")
}
