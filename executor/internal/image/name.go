package image

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"kaniko-build/schema/diag"
)

// The forms that Docker takes; the library takes more.
var (
	hostForm = regexp.MustCompile(`^([a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[a-fA-F0-9:]+\])(:[0-9]+)?$`)
	repoForm = regexp.MustCompile(`^[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*)*$`)
)

// Name is a parsed reference to an image.
type Name struct {
	Host   string // as people write it: docker.io, not index.docker.io
	Repo   string // library/busybox
	Tag    string // "" only with a Digest
	Digest string
}

// ParseName reads a reference as Docker does: without a host it is on
// docker.io, there without a slash below library/, and without tag and digest it
// has the tag latest.
func ParseName(ref string) (Name, error) {
	bad := func(err error) (Name, error) {
		return Name{}, &diag.Problem{
			What: fmt.Sprintf("%q is no image reference: %v", ref, err),
			Hint: "a reference is [HOST[:PORT]/]PATH[:TAG][@DIGEST], in lower case",
		}
	}
	rest, digest, hasDigest := strings.Cut(ref, "@")
	if scheme, _, ok := strings.Cut(rest, "://"); ok {
		return bad(fmt.Errorf("it begins with %s://", scheme))
	}
	if path := pathOf(rest); path != strings.ToLower(path) {
		return bad(errors.New("its path is not in lower case"))
	}
	n := Name{}
	if hasDigest {
		d, err := name.NewDigest(ref, name.WeakValidation)
		if err != nil {
			return bad(err)
		}
		n.Digest = d.DigestStr()
		if n.Digest != digest {
			return bad(fmt.Errorf("its digest is malformed"))
		}
	}
	t, err := name.NewTag(rest, name.WeakValidation)
	if err != nil {
		return bad(err)
	}
	n.Host, n.Repo, n.Tag = t.RegistryStr(), t.RepositoryStr(), t.TagStr()
	if hasDigest && !strings.Contains(rest[strings.LastIndexByte(rest, '/')+1:], ":") {
		n.Tag = ""
	}
	if n.Host == name.DefaultRegistry {
		n.Host = "docker.io"
	}
	if !hostForm.MatchString(n.Host) || !repoForm.MatchString(n.Repo) {
		return bad(fmt.Errorf("its host or path is malformed"))
	}
	return n, nil
}

// pathOf is a reference without host and tag.
func pathOf(ref string) string {
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		ref = ref[:i]
	}
	if host, path, ok := strings.Cut(ref, "/"); ok && (strings.ContainsAny(host, ".:") || host == "localhost") {
		return path
	}
	return ref
}

// Context is the name without tag and digest.
func (n Name) Context() string { return n.Host + "/" + n.Repo }

// String is the name in full.
func (n Name) String() string { return n.Context() + n.suffix() }

// Familiar is the shortest form that means the same, without a tag latest only
// where there is a digest.
func (n Name) Familiar() string {
	s := n.Repo
	if n.Host != "docker.io" {
		s = n.Context()
	} else if short, ok := strings.CutPrefix(n.Repo, "library/"); ok && !strings.Contains(short, "/") {
		s = short
	}
	return s + n.suffix()
}

func (n Name) suffix() string {
	s := ""
	if n.Tag != "" {
		s = ":" + n.Tag
	}
	if n.Digest != "" {
		s += "@" + n.Digest
	}
	return s
}

// Normalize gives a reference in full: busybox is
// docker.io/library/busybox:latest.
func Normalize(ref string) (string, error) {
	n, err := ParseName(ref)
	if err != nil {
		return "", err
	}
	return n.String(), nil
}
