package sbom

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
)

// Contents is what an image says of packages.
type Contents struct {
	Files   []Evidence // sorted by path
	Release Release
	Notes   []string
}

// maxMentions is how often files of an image tell of packages, at most: a document has
// some 700 bytes for each, and is no longer than a statement may be.
const maxMentions = 60_000

// Evidence is a file that is in the image, and the number of the layer it is from.
type Evidence struct {
	File
	Layer int
}

// Merge lays layers over each other, the lowest first, and keeps what none above hides.
func Merge(layers []Layer) Contents {
	var out Contents
	var from [2]*Release // of etc and usr/lib
	for i, l := range layers {
		for _, note := range l.Notes {
			if !slices.Contains(out.Notes, note) && len(out.Notes) < maxNotes {
				out.Notes = append(out.Notes, note)
			}
		}
		for _, f := range l.Files {
			at := placeOf(f.Path)
			if slices.ContainsFunc(layers[i+1:], func(above Layer) bool { return above.hides(at) }) {
				continue
			}
			switch f.Path {
			case "etc/os-release":
				from[0] = f.Release
			case "usr/lib/os-release":
				from[1] = f.Release
			}
			if len(f.Packages) > 0 {
				out.Files = append(out.Files, Evidence{f, i})
			}
		}
	}
	for _, r := range from {
		if r != nil && out.Release == (Release{}) {
			out.Release = *r
		}
	}
	// Databases of distributions stay longest, and of what else there is short lists, so
	// that nothing takes the place of all others.
	slices.SortFunc(out.Files, func(a, b Evidence) int {
		return cmp.Or(a.rank()-b.rank(), len(a.Packages)-len(b.Packages), strings.Compare(a.Path, b.Path))
	})
	mentions, kept, left := 0, out.Files[:0], []string(nil)
	for _, f := range out.Files {
		if mentions+len(f.Packages) > maxMentions {
			left = append(left, f.Path)
			continue
		}
		mentions += len(f.Packages)
		kept = append(kept, f)
	}
	if out.Files = kept; len(left) > 0 {
		out.Notes = append(out.Notes, fmt.Sprintf("%q and %d files more are left out: the image tells of more than %d packages", left[0], len(left)-1, maxMentions))
	}
	slices.SortFunc(out.Files, func(a, b Evidence) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// rank is 0 of a database of a distribution, else 1.
func (e Evidence) rank() int {
	switch e.Packages[0].Kind {
	case Deb, Apk, Rpm:
		return 0
	}
	return 1
}

// place is a name with what is looked for in each layer above it.
type place struct {
	own    [2]uint64 // hashes of the name as a directory's, and as another's
	dirs   []string  // above it, "" the root's
	hashes []uint64  // of these, as names of no directory
	name   string
}

func placeOf(name string) place {
	p := place{name: name, own: [2]uint64{hashName(name, true), hashName(name, false)}, dirs: []string{""}}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		p.dirs, p.hashes = append(p.dirs, dir), append(p.hashes, hashName(dir, false))
	}
	return p
}

// hides tells whether a file of a layer below is not seen through this one.
func (l Layer) hides(p place) bool {
	return slices.ContainsFunc(p.own[:], l.has) || slices.ContainsFunc(p.hashes, l.has) || has(l.Gone, p.name) ||
		slices.ContainsFunc(p.dirs, func(dir string) bool { return has(l.Gone, dir) || has(l.Opaque, dir) })
}

func (l Layer) has(hash uint64) bool {
	_, ok := slices.BinarySearch(l.Names, hash)
	return ok
}

func has(sorted []string, s string) bool {
	_, ok := slices.BinarySearch(sorted, s)
	return ok
}
