package schema

import (
	"regexp"
	"strings"
)

// The grammar of image names, as the distribution project's reference package
// has it. Kept here because that package drags in nothing we could use besides.
const (
	hostPattern = `(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*(?::[0-9]+)?|\[[a-fA-F0-9:]+\](?::[0-9]+)?`
	pathPattern = `[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*`
	tagPattern  = `[A-Za-z0-9_][A-Za-z0-9_.-]*`
)

// Lengths are counted by hand: as repetitions in the patterns they would make
// the start of every command wait for thousands of states.
const (
	maxTag    = 128
	minDigest = 32 // hex digits
)

var (
	refText = regexp.MustCompile(`^((?:` + hostPattern + `)/)?(` + pathPattern + `(?:/` + pathPattern + `)*)(?::(` + tagPattern + `))?(?:@([a-z0-9+._-]+:[0-9a-fA-F]+))?$`)
	tagText = regexp.MustCompile(`^` + tagPattern + `$`)
)

// maxRepository is what the distribution project allows for host and path.
const maxRepository = 255

// Ref is the name of an image, taken apart and spelt out.
type Ref struct {
	Repository string // with its host, and library/ for docker.io's own
	Tag        string // "" if not written
	Digest     string // "" if not written
}

// String is the ref spelt out, without a tag that was not written.
func (r Ref) String() string {
	s := r.Repository
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

// Familiar is the ref as docker prints it: without docker.io/library/.
func (r Ref) Familiar() string {
	s := strings.TrimPrefix(r.String(), "docker.io/")
	if rest, ok := strings.CutPrefix(s, "library/"); ok && len(s) < len(r.String()) && !strings.Contains(rest, "/") {
		return rest
	}
	return s
}

// ParseRef takes the name of an image apart; ok is false if it is none. What
// stands before the first "/" is a host if it holds "." or ":", is "localhost" or
// has an upper-case letter.
func ParseRef(s string) (r Ref, ok bool) {
	host, rest, found := strings.Cut(s, "/")
	if !found || !isHost(host) {
		host, rest = "docker.io", s
	}
	if host == "index.docker.io" {
		host = "docker.io"
	}
	if host == "docker.io" && !strings.Contains(rest, "/") {
		rest = "library/" + rest
	}
	m := refText.FindStringSubmatch(host + "/" + rest)
	if m == nil || len(m[1])+len(m[2]) > maxRepository || len(m[3]) > maxTag {
		return Ref{}, false
	}
	if _, sum, ok := strings.Cut(m[4], ":"); ok && len(sum) < minDigest {
		return Ref{}, false
	}
	return Ref{Repository: m[1] + m[2], Tag: m[3], Digest: m[4]}, true
}

func isTag(s string) bool { return len(s) <= maxTag && tagText.MatchString(s) }

func isHost(s string) bool {
	return strings.ContainsAny(s, ".:") || s == "localhost" || strings.ToLower(s) != s
}
