package dockerfile

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	digest "github.com/opencontainers/go-digest"
)

var (
	protocol = regexp.MustCompile(`^[a-zA-Z0-9]+://`)
	// scpURL is user@host:path, with a query and a fragment behind.
	scpURL = regexp.MustCompile(`^([a-zA-Z0-9-_]+)@([a-zA-Z0-9-.]+):(.*?)(?:\?(.*?))?(?:#(.*))?$`)
)

func isGit(src string) bool {
	_, ok, _ := gitSource(src)
	return ok
}

func isHTTP(src string) bool {
	return (strings.HasPrefix(src, "http://") || strings.HasPrefix(src, "https://")) && !isGit(src)
}

// remoteSource reads a source of ADD that is fetched; ok is false for a path of
// the context. A checksum in a Git URL stays in force for later sources.
func remoteSource(src string, checksum *string, keepGitDir *bool, add bool) (r Remote, ok bool, err error) {
	g, isGit, err := gitSource(src)
	switch {
	case err != nil:
		return Remote{}, false, err
	case isGit && !add:
		return Remote{}, false, errors.New("source can't be a git ref for COPY")
	case isGit:
		if keepGitDir != nil && g.keepGitDir != nil && *keepGitDir != *g.keepGitDir {
			return Remote{}, false, errors.New("inconsistent keep-git-dir configuration")
		}
		if g.keepGitDir == nil {
			g.keepGitDir = keepGitDir
		}
		g.KeepGitDir = g.keepGitDir != nil && *g.keepGitDir
		if *checksum != "" && g.Checksum != "" && *checksum != g.Checksum {
			return Remote{}, false, fmt.Errorf("checksum mismatch %q != %q", *checksum, g.Checksum)
		}
		if g.Checksum != "" {
			*checksum = g.Checksum
		}
		g.Checksum = *checksum
		return Remote{Git: &g.Git}, true, nil
	case !isHTTP(src):
		return Remote{}, false, nil
	case !add:
		return Remote{}, false, errors.New("source can't be a URL for COPY")
	}
	r = Remote{URL: src, Name: "__unnamed__", Checksum: *checksum}
	if u, err := url.Parse(src); err == nil {
		if base := path.Base(u.Path); base != "." && base != "/" {
			r.Name = base
		}
	}
	if r.Checksum != "" {
		if _, err := digest.Parse(r.Checksum); err != nil {
			return Remote{}, false, err
		}
	}
	return r, true, nil
}

type gitURL struct {
	Git
	keepGitDir *bool
}

// gitSource reads a Git URL: ssh, git, http or https (the last two if the path
// ends in .git), or user@host:path. The fragment is ref:subdir, and the query
// says the same and more by name. ok is false for what is no Git URL.
func gitSource(src string) (g gitURL, ok bool, err error) {
	var query url.Values
	var fragment string
	switch proto := strings.ToLower(strings.TrimSuffix(protocol.FindString(src), "://")); proto {
	case "http", "https", "ssh", "git":
		u, err := url.Parse(src)
		if err != nil {
			return gitURL{}, false, nil
		}
		if (proto == "http" || proto == "https") && !strings.HasSuffix(u.Path, ".git") {
			return gitURL{}, false, nil
		}
		query, fragment = u.Query(), u.Fragment
		u.Fragment, u.RawQuery = "", ""
		g.Remote = u.String()
	case "":
		m := scpURL.FindStringSubmatch(src)
		if m == nil || strings.HasPrefix(src, "./") || strings.HasPrefix(src, "../") {
			return gitURL{}, false, nil
		}
		if query, err = url.ParseQuery(m[4]); err != nil {
			return gitURL{}, false, nil
		}
		g.Remote, fragment = m[1]+"@"+m[2]+":"+m[3], m[5]
	default:
		return gitURL{}, false, nil
	}
	if fragment != "" {
		ref, subdir, _ := strings.Cut(fragment, ":")
		g.Ref, g.Subdir = ref, strings.TrimPrefix(path.Join("/", subdir), "/")
	}
	if err := g.query(query); err != nil {
		return gitURL{}, true, err
	}
	return g, true, nil
}

// query takes over what the query of a Git URL says.
func (g *gitURL) query(query url.Values) error {
	var tag, branch string
	for _, k := range slices.Sorted(maps.Keys(query)) {
		if len(query[k]) > 1 {
			return fmt.Errorf("query %q has multiple values", k)
		}
		v := query.Get(k)
		isBool := k == "submodules" || k == "keep-git-dir" || k == "fetch-by-commit"
		if v == "" && !isBool {
			return fmt.Errorf("query %q has no value", k)
		}
		yes := true
		if isBool && v != "" {
			var err error
			if yes, err = strconv.ParseBool(v); err != nil {
				return fmt.Errorf("invalid %s value: %q", k, v)
			}
		}
		switch k {
		case "ref":
			if g.Ref != "" && g.Ref != v {
				return fmt.Errorf("ref conflicts: %q vs %q", g.Ref, v)
			}
			g.Ref = v
		case "tag":
			tag = "refs/tags/" + strings.TrimPrefix(v, "refs/tags/")
		case "branch":
			branch = "refs/heads/" + strings.TrimPrefix(v, "refs/heads/")
		case "subdir":
			if g.Subdir != "" && g.Subdir != v {
				return fmt.Errorf("subdir conflicts: %q vs %q", g.Subdir, v)
			}
			g.Subdir = v
		case "checksum", "commit":
			g.Checksum = v
		case "keep-git-dir":
			g.keepGitDir = &yes
		case "submodules":
			g.NoSubmodules = !yes
		case "fetch-by-commit":
			g.FetchByCommit = yes
		case "mtime":
			if v != "checkout" && v != "commit" {
				return fmt.Errorf("invalid mtime value: %q (must be \"checkout\" or \"commit\")", v)
			}
		default:
			return fmt.Errorf("unexpected query %q", k)
		}
	}
	if tag != "" && branch != "" {
		return errors.New("branch conflicts with tag")
	}
	if name := tag + branch; name != "" {
		if g.Ref != "" && g.Ref != name {
			return fmt.Errorf("ref conflicts: %q vs %q", g.Ref, name)
		}
		g.Ref = name
	}
	return nil
}
