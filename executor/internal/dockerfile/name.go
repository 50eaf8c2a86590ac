package dockerfile

import (
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// imageName is a reference to an image as Docker normalizes it: busybox is
// library/busybox on docker.io. The rules, and the words of the errors, are those
// of github.com/distribution/reference, which the tests compare with. That itself
// compiles its expressions whenever the program starts.
type imageName struct {
	domain string // "" if what stands there can only be part of the path
	path   string
	tag    string // "" for none
	digest digest.Digest
}

const (
	hub      = "docker.io"
	oldHub   = "index.docker.io"
	official = "library/"

	maxPath = 255 // characters
	maxTag  = 128
)

var (
	errNameFormat = errors.New("invalid reference format")
	errNameUpper  = errors.New("repository name must be lowercase")
	errNameLong   = fmt.Errorf("repository name must not be more than %v characters", maxPath)
)

// parseName reads a reference.
func parseName(s string) (imageName, error) {
	if len(s) == 64 && all(s, isHex) {
		return imageName{}, fmt.Errorf("invalid repository name (%s), cannot specify 64-byte hexadecimal strings", s)
	}
	domain, rest := splitDomain(s)
	if path, _, _ := strings.Cut(rest, ":"); strings.ToLower(path) != path {
		return imageName{}, fmt.Errorf("invalid reference format: repository name (%s) must be lowercase", path)
	}
	n, ok := matchName(domain, rest)
	if !ok {
		if _, lower := matchName(strings.ToLower(domain), strings.ToLower(rest)); lower {
			return imageName{}, errNameUpper
		}
		return imageName{}, errNameFormat
	}
	if len(n.path) > maxPath {
		return imageName{}, errNameLong
	}
	if n.digest != "" {
		if err := n.digest.Validate(); err != nil {
			return imageName{}, err
		}
	}
	return n, nil
}

// splitDomain takes what looks like the name of a host from the front.
func splitDomain(s string) (domain, rest string) {
	first, rest, ok := strings.Cut(s, "/")
	switch {
	case !ok:
		return hub, official + s
	case first == oldHub:
		domain = hub
	case first == "localhost", strings.ContainsAny(first, ".:"), strings.ToLower(first) != first:
		domain = first
	default:
		domain, rest = hub, s
	}
	if domain == hub && !strings.Contains(rest, "/") {
		rest = official + rest
	}
	return domain, rest
}

// matchName splits what follows the domain. A domain that is none is the first
// part of the path, if it can be that.
func matchName(domain, rest string) (imageName, bool) {
	n := imageName{domain: domain}
	rest, sum, hasDigest := strings.Cut(rest, "@")
	path, tag, hasTag := strings.Cut(rest, ":")
	n.path, n.tag, n.digest = path, tag, digest.Digest(sum)
	if !isDomain(domain) {
		n.domain, n.path = "", domain+"/"+path
	}
	return n, isPath(n.path) && (!hasTag || isTag(tag)) && (!hasDigest || isDigest(sum))
}

// name is the reference without tag and digest.
func (n imageName) name() string {
	if n.domain == "" {
		return n.path
	}
	return n.domain + "/" + n.path
}

// tagged is the reference in full, with the tag latest if it has neither tag nor
// digest.
func (n imageName) tagged() string {
	if n.tag == "" && n.digest == "" {
		n.tag = "latest"
	}
	return n.name() + n.suffix()
}

// familiar is the reference as people write it, with the tag it has.
func (n imageName) familiar() string {
	if n.domain == hub {
		n.domain = ""
		if short, ok := strings.CutPrefix(n.path, official); ok && !strings.Contains(short, "/") {
			n.path = short
		}
	}
	return n.name() + n.suffix()
}

func (n imageName) suffix() string {
	s := ""
	if n.tag != "" {
		s = ":" + n.tag
	}
	if n.digest != "" {
		s += "@" + n.digest.String()
	}
	return s
}

// isDomain matches HOST[:PORT]; an IPv6 address stands in brackets.
func isDomain(s string) bool {
	if v6, ok := strings.CutPrefix(s, "["); ok {
		address, port, ok := strings.Cut(v6, "]")
		return ok && address != "" && all(address, func(c byte) bool { return isHex(c) || 'A' <= c && c <= 'F' || c == ':' }) && (port == "" || port[0] == ':' && isPort(port[1:]))
	}
	host, port, hasPort := strings.Cut(s, ":")
	for part := range strings.SplitSeq(host, ".") {
		if part == "" || part[0] == '-' || part[len(part)-1] == '-' || !all(part, func(c byte) bool { return isLetter(c) || isDigit(c) || c == '-' }) {
			return false
		}
	}
	return !hasPort || isPort(port)
}

func isPort(s string) bool { return s != "" && all(s, isDigit) }

// isPath matches parts of small letters and digits, within which one dot, one or
// two underscores or any number of hyphens separate.
func isPath(s string) bool {
	for part := range strings.SplitSeq(s, "/") {
		for {
			rest := strings.TrimLeft(part, "abcdefghijklmnopqrstuvwxyz0123456789")
			if rest == part {
				return false // empty, or a separator at the beginning, the end or after another
			}
			if rest == "" {
				break
			}
			switch {
			case strings.HasPrefix(rest, "__"):
				part = rest[2:]
			case rest[0] == '-':
				part = strings.TrimLeft(rest, "-")
			case rest[0] == '.', rest[0] == '_':
				part = rest[1:]
			default:
				return false
			}
		}
	}
	return true
}

func isTag(s string) bool {
	return s != "" && len(s) <= maxTag && s[0] != '.' && s[0] != '-' &&
		all(s, func(c byte) bool { return isLetter(c) || isDigit(c) || c == '_' || c == '.' || c == '-' })
}

// isDigest matches ALGORITHM:HEX; what the algorithm wants is not looked at.
func isDigest(s string) bool {
	algorithm, sum, ok := strings.Cut(s, ":")
	if !ok || len(sum) < 32 || !all(sum, func(c byte) bool { return isHex(c) || 'A' <= c && c <= 'F' }) {
		return false
	}
	start := true // of a part, which begins with a letter
	for _, c := range []byte(algorithm) {
		switch {
		case isLetter(c):
			start = false
		case isDigit(c) && !start:
		case strings.IndexByte("+._-", c) >= 0 && !start:
			start = true
		default:
			return false
		}
	}
	return !start
}

func all(s string, f func(c byte) bool) bool {
	for i := range len(s) {
		if !f(s[i]) {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
func isHex(c byte) bool    { return isDigit(c) || 'a' <= c && c <= 'f' }
