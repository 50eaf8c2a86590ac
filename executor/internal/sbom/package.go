package sbom

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Kind is where a package comes from: the type of its package URL.
type Kind string

// The kinds.
const (
	Deb    Kind = "deb"
	Apk    Kind = "apk"
	Rpm    Kind = "rpm"
	Golang Kind = "golang"
	Npm    Kind = "npm"
	PyPI   Kind = "pypi"
)

// Package is one package. Name and Version are as its manager writes them.
type Package struct {
	Kind    Kind   `json:"kind"`
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	Arch    string `json:"arch,omitempty"`
	Epoch   int    `json:"epoch,omitempty"`   // of rpm; others have it in the version
	Source  string `json:"source,omitempty"`  // that it was built from, if that is called otherwise
	License string `json:"license,omitempty"` // as it says itself
}

// Release is what an image says of its distribution (os-release).
type Release struct {
	ID      string `json:"id"`
	Version string `json:"version,omitempty"` // VERSION_ID
}

// The limits of a package's texts, in bytes, and of packages in one file.
const (
	maxText     = 512
	maxPackages = 100_000
)

// errMany is a file with more packages than files have.
var errMany = fmt.Errorf("it has more than %d packages", maxPackages)

// add adds a package to what a file tells of.
func (f *File) add(p Package) error {
	if len(f.Packages) >= maxPackages {
		return errMany
	}
	f.Packages = append(f.Packages, p)
	return nil
}

// check finds out whether what was read can be a package.
func (p Package) check() error {
	if p.Name == "" {
		return fmt.Errorf("a package without a name")
	}
	for _, s := range []string{p.Name, p.Version, p.Arch, p.Source} {
		if len(s) > maxText {
			return fmt.Errorf("a package with a text of %d bytes", len(s))
		}
		if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '�' }) {
			return fmt.Errorf("a package with the text %.80q", s)
		}
	}
	return nil
}

func compare(a, b Package) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version),
		cmp.Compare(a.Arch, b.Arch), cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Source, b.Source), cmp.Compare(a.License, b.License))
}

// PURL is the package URL (package-url/purl-spec), of a package of a distribution
// with that.
func (p Package) PURL(r Release) string {
	space, name, version := "", p.Name, p.Version
	var more []string
	qualify := func(key, value string) {
		if value != "" {
			more = append(more, key+"="+escape(value))
		}
	}
	switch p.Kind {
	case Deb, Apk, Rpm:
		space = r.ID
		if space == "" {
			space = map[Kind]string{Deb: "debian", Apk: "alpine"}[p.Kind]
		}
		qualify("arch", p.Arch)
		if r.ID != "" {
			qualify("distro", strings.TrimSuffix(r.ID+"-"+r.Version, "-"))
		}
		if p.Epoch != 0 {
			qualify("epoch", fmt.Sprint(p.Epoch))
		}
		qualify("upstream", p.Source)
	case PyPI:
		name = strings.ToLower(strings.ReplaceAll(name, "_", "-"))
	case Golang, Npm:
		if i := strings.LastIndexByte(name, '/'); i > 0 {
			space, name = name[:i], name[i+1:]
		}
	}
	out := "pkg:" + string(p.Kind) + "/"
	for part := range strings.SplitSeq(space, "/") {
		if part != "" {
			out += escape(part) + "/"
		}
	}
	out += escape(name)
	if version != "" {
		out += "@" + escape(version)
	}
	slices.Sort(more)
	if len(more) > 0 {
		out += "?" + strings.Join(more, "&")
	}
	return out
}

// escape writes all but unreserved characters and colons in per cent.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-._~:", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
