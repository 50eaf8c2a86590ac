package notify

import (
	"maps"
	"slices"
)

// maxPaths is how many paths a Set names. With more it says that anything may have
// changed, so that its memory is bounded.
const maxPaths = 100_000

// Set is paths that changed. The zero value is none. It is not for several
// goroutines at once.
type Set struct {
	All   bool            // anything may have changed
	paths map[string]bool // absolute, without links; true: and what is below
}

// Add adds a path. below tells that it is or was a directory, and all in it came or
// went with it.
func (s *Set) Add(path string, below bool) {
	if s.All {
		return
	}
	if len(s.paths) >= maxPaths {
		s.Everything()
		return
	}
	if s.paths == nil {
		s.paths = map[string]bool{}
	}
	s.paths[path] = s.paths[path] || below
}

// Everything says that anything may have changed.
func (s *Set) Everything() { s.All, s.paths = true, nil }

// Merge adds what another set has.
func (s *Set) Merge(o Set) {
	if o.All {
		s.Everything()
	}
	for p, below := range o.paths {
		s.Add(p, below)
	}
}

// Empty tells whether nothing changed.
func (s *Set) Empty() bool { return !s.All && len(s.paths) == 0 }

// Paths are the paths by name, none if All.
func (s *Set) Paths() []string { return slices.Sorted(maps.Keys(s.paths)) }

// Below tells whether a path stands for all that is below it too.
func (s *Set) Below(path string) bool { return s.paths[path] }

// Len counts the paths.
func (s *Set) Len() int { return len(s.paths) }
