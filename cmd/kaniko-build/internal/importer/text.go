package importer

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"kaniko-build/schema"
)

var dotted = regexp.MustCompile(`\$\{[A-Za-z_][A-Za-z0-9_]*\.`)

// Literal is text that the manifest takes as it is.
func Literal(s string) string { return dotted.ReplaceAllString(s, "$$$0") }

// Plain is a text without references.
func Plain(s string) Text { return Text{Value: Literal(s)} }

// Plains are texts without references.
func Plains(list []string) []Text {
	out := make([]Text, len(list))
	for i, s := range list {
		out[i] = Plain(s)
	}
	return out
}

var notName = regexp.MustCompile(`[^a-z0-9._-]+`)

var repeated = regexp.MustCompile(`[._-]*([._-])`)

// Name is a name that the manifest allows and that is as near as can be: lower case,
// single separators.
func Name(s string) string {
	s = repeated.ReplaceAllString(notName.ReplaceAllString(strings.ToLower(s), "-"), "$1")
	if s = strings.Trim(s, "._-"); s == "" {
		return "image"
	}
	return s
}

// Names gives out names, each once.
type Names map[string]bool

// Take is a name like want that nobody has yet.
func (n Names) Take(want string) string {
	name := Name(want)
	for i := 2; n[name]; i++ {
		name = fmt.Sprintf("%s-%d", Name(want), i)
	}
	n[name] = true
	return name
}

var reference = regexp.MustCompile(`\$\{[A-Za-z_][A-Za-z0-9_]*\.[^}]*\}`)

// HasReference tells whether a text of the manifest depends on something.
func HasReference(s string) bool { return reference.MatchString(strings.ReplaceAll(s, "$${", "")) }

// Full is one name of an image in full: the text, what it is with the defaults of
// variables, and when it counts.
type Full struct {
	Text
	Now string
	If  string
}

// Named sets a target's images and tags so that together they are these names, each
// a repository with or without a tag.
func (t *Target) Named(names []Full) {
	type pair struct{ repo, tag Full }
	var pairs []pair
	whole := false // some name cannot be cut
	var repos []string
	byRepo := map[string][]string{}
	met := map[string]bool{}
	names = slices.DeleteFunc(slices.Clone(names), func(n Full) bool {
		key := n.Value + " " + n.If
		again := met[key]
		met[key] = true
		return again
	})
	for i := range names { // what it is by digest cannot be built
		names[i].Value, _, _ = strings.Cut(names[i].Value, "@sha256:")
		names[i].Now, _, _ = strings.Cut(names[i].Now, "@sha256:")
	}
	for _, n := range names {
		repo, tag, ok := Cut(n.Value)
		if !ok {
			if _, nowTag, cutNow := Cut(n.Now); cutNow && nowTag != "" {
				whole = true // the tag is in the variable
				continue
			}
			repo, tag = n.Value, "latest"
		}
		p := pair{Full{Text: Text{Value: repo}}, Full{Text: Text{Value: tag, Source: n.Source}, If: n.If}}
		if _, met := byRepo[repo]; !met {
			repos = append(repos, repo)
		}
		byRepo[repo] = append(byRepo[repo], tag+" "+n.If)
		pairs = append(pairs, p)
	}
	for _, repo := range repos {
		whole = whole || strings.Join(byRepo[repo], "\n") != strings.Join(byRepo[repos[0]], "\n")
	}
	t.Images, t.Tags = nil, nil
	if whole {
		for _, n := range names {
			_, _, tagged := Cut(n.Value)
			_, _, byValue := Cut(n.Now)
			if !tagged && !byValue {
				n.Value += ":latest" // else it would be a tag
			}
			t.Tags = append(t.Tags, Tag{Text: n.Text, If: n.If})
		}
		return
	}
	for _, repo := range repos {
		t.Images = append(t.Images, Text{Value: repo})
	}
	for _, p := range pairs {
		if p.repo.Value == repos[0] {
			t.Tags = append(t.Tags, Tag{Text: p.tag.Text, If: p.tag.If})
		}
	}
	if len(t.Extends) == 0 && len(t.Tags) == 1 && t.Tags[0] == (Tag{Text: Text{Value: "latest"}}) {
		t.Tags = nil
	}
}

// Cut is the repository and the tag of a name; ok is false without a tag. What is
// inside of references does not count.
func Cut(name string) (repo, tag string, ok bool) {
	hidden := reference.ReplaceAllStringFunc(name, func(ref string) string { return strings.Repeat("x", len(ref)) })
	i := strings.LastIndexByte(hidden, ':')
	if i < 0 || i < strings.LastIndexByte(hidden, '/') {
		return name, "", false
	}
	return name[:i], name[i+1:], true
}

var loneVariable = regexp.MustCompile(`^\$\{vars\.[^}]*\}$`)

// Place is the repository that a cache lies in, of the name of an image, now with the
// defaults of variables. ok is false where the tag may be in the variable: then there is
// none that can be written.
func Place(name, now string) (repo string, ok bool) {
	repo, _, cut := Cut(name)
	if _, _, tagged := Cut(now); !cut && loneVariable.MatchString(name) && (tagged || now == "") {
		return "", false
	}
	return repo, true
}

// IsImage tells whether a name with its tag is that of an image.
func IsImage(name string) bool {
	_, ok := schema.ParseRef(name)
	return ok
}

// Remote is a context that lies elsewhere, as a manifest writes it; ok is false for
// a directory. at is docker's form: a git or http address.
func Remote(at string) (out string, ok bool) {
	scheme, rest, hasScheme := strings.Cut(at, "://")
	address, _, _ := strings.Cut(at, "#")
	switch {
	case strings.HasPrefix(at, "git@"):
		host, repo, _ := strings.Cut(strings.TrimPrefix(at, "git@"), ":")
		return "git:ssh://git@" + host + "/" + strings.TrimPrefix(repo, "/"), true
	case strings.HasPrefix(at, "github.com/"):
		return "git:https://" + at, true
	case !hasScheme:
		return "", false
	case scheme == "git":
		return "git:https://" + rest, true
	case scheme == "ssh":
		return "git:" + at, true
	case scheme != "http" && scheme != "https":
		return "", false
	case strings.HasSuffix(address, ".git"):
		return "git:" + at, true
	}
	return at, true
}
