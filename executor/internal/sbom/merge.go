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
			if slices.ContainsFunc(layers[i+1:], func(above Layer) bool { return above.hides(f.Path) }) {
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
	// The longest lists go first, so that one cannot take the place of all others.
	slices.SortFunc(out.Files, func(a, b Evidence) int { return cmp.Or(len(a.Packages)-len(b.Packages), strings.Compare(a.Path, b.Path)) })
	mentions := 0
	for i, f := range out.Files {
		if mentions += len(f.Packages); mentions > maxMentions {
			out.Notes = append(out.Notes, fmt.Sprintf("%q and %d files more are left out: the image tells of more than %d packages", f.Path, len(out.Files)-i-1, maxMentions))
			out.Files = out.Files[:i]
			break
		}
	}
	slices.SortFunc(out.Files, func(a, b Evidence) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// hides tells whether a file of a layer below is not seen through this one.
func (l Layer) hides(name string) bool {
	if l.has(name, true) || l.has(name, false) || has(l.Gone, name) {
		return true
	}
	for dir := path.Dir(name); ; dir = path.Dir(dir) {
		if dir == "." {
			return has(l.Opaque, "")
		}
		if l.has(dir, false) || has(l.Gone, dir) || has(l.Opaque, dir) {
			return true
		}
	}
}

func (l Layer) has(name string, dir bool) bool {
	_, ok := slices.BinarySearch(l.Names, hashName(name, dir))
	return ok
}

func has(sorted []string, s string) bool {
	_, ok := slices.BinarySearch(sorted, s)
	return ok
}
