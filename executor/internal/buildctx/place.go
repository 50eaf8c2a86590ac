package buildctx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"kaniko-build/schema/diag"
)

// Place is where a context is, as kaniko's users write it.
type Place struct {
	// At is a directory, as path or dir://PATH; an archive, as tar://FILE,
	// tar://stdin, https://… or the address of an object in a cloud; or a git
	// repository, as git://HOST/PATH[#REF[#COMMIT]].
	At  string
	Sub string // a folder of it that is the context itself
	Git GitPlace
}

// GitPlace is what there is to say of a git context beside its address.
type GitPlace struct {
	Branch     string // in place of the address's ref
	Submodules bool
	PlainHTTP  bool   // http instead of https
	SSH        bool   // ssh instead of https, as the user that the address names
	Agent      string // socket of the ssh agent for that; "" is none
	KnownHosts string // file of the host keys that count for that; "" takes any
	History    int    // as Repo.History
	Plain      bool   // without .git, as docker build has it
	// AnyCertificate trusts whoever answers.
	AnyCertificate bool
	// Token, or User and Password, are shown to the host of the address and to
	// no other. What stands in the address before an @ comes first.
	Token, User, Password string
}

// Places say how contexts that are no directory are had.
type Places struct {
	Stdin io.Reader // for tar://stdin; nil when there is none
	// IsObject tells whether an address is one of a cloud's, which Object opens.
	IsObject func(at string) bool
	Object   func(ctx context.Context, at string) (io.ReadCloser, error)
}

// Directory brings a context to a directory of this machine. Directories are
// used where they are; everything else lies in f.Dir afterwards and may be
// removed when nothing builds from it.
func (f *Fetcher) Directory(ctx context.Context, p Place, from Places) (string, error) {
	dir, err := f.directory(ctx, p, from)
	if err != nil {
		return "", err
	}
	return below(dir, p.Sub, redact(p.At))
}

func (f *Fetcher) directory(ctx context.Context, p Place, from Places) (string, error) {
	scheme, rest, ok := strings.Cut(p.At, "://")
	switch {
	case !ok:
		return filepath.Abs(p.At)
	case scheme == "dir":
		return filepath.Abs(rest)
	case scheme == "tar" && rest == "stdin":
		if from.Stdin == nil {
			return "", &diag.Problem{What: "context tar://stdin: nothing comes from standard input", Hint: "pipe a tar into it: tar -cz . | …"}
		}
		return f.Archive(ctx, from.Stdin, p.At)
	case scheme == "tar":
		file, err := os.Open(rest)
		if errors.Is(err, fs.ErrNotExist) {
			return "", &diag.Problem{What: fmt.Sprintf("context %s: no such file", p.At), Hint: "check its path"}
		}
		if err != nil {
			return "", fmt.Errorf("open context: %w", err)
		}
		defer file.Close()
		return f.Archive(ctx, file, p.At)
	case scheme == "git":
		return f.gitDirectory(ctx, p)
	case from.IsObject != nil && from.IsObject(p.At):
		body, err := from.Object(ctx, p.At)
		if err != nil {
			return "", err
		}
		defer body.Close()
		return f.Archive(ctx, body, p.At)
	case scheme == "https":
		return f.webDirectory(ctx, p.At)
	}
	return "", &diag.Problem{What: fmt.Sprintf("context %s: unknown form", redact(p.At)), Hint: "write a directory, dir://, tar://, tar://stdin, gs://, s3://, https:// or git://"}
}

// below is a folder of a context, which must not lead out of it.
func below(dir, sub, name string) (string, error) {
	root, err := os.OpenRoot(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", &diag.Problem{What: fmt.Sprintf("context %s: no such directory", name), Hint: "a context is a directory; check its path"}
	case err != nil:
		return "", &diag.Problem{What: fmt.Sprintf("context %s: %v", name, errors.Unwrap(err)), Hint: "a context is a directory; check its path"}
	}
	defer root.Close()
	sub = filepath.Clean("/" + sub)[1:]
	if sub == "" {
		return dir, nil
	}
	if st, err := root.Stat(sub); err != nil || !st.IsDir() {
		return "", &diag.Problem{What: fmt.Sprintf("context %s has no folder %s", name, sub), Hint: "check the sub-path"}
	}
	real, err := filepath.EvalSymlinks(filepath.Join(dir, sub))
	if err != nil {
		return "", fmt.Errorf("open context: %w", err)
	}
	return real, nil
}

// WebArchive brings an archive from the web to a directory, and tells the SHA-256 of its
// bytes, in hex. With sum they must have that one, and an archive that was fetched before is
// taken without asking; else only an entity tag saves another download.
func (f *Fetcher) WebArchive(ctx context.Context, at, sum string) (dir, got string, err error) {
	dir = filepath.Join(f.Dir, "contexts", sum)
	if sum != "" && f.unpacked(dir) {
		return dir, sum, nil
	}
	check := ""
	if sum != "" {
		check = "sha256:" + sum
	}
	file, err := f.Get(ctx, at, "", check)
	if err != nil {
		return "", "", err
	}
	got = strings.TrimPrefix(file.Digest, "sha256:")
	if dir = filepath.Join(f.Dir, "contexts", got); f.unpacked(dir) {
		return dir, got, nil
	}
	r, err := file.Open()
	if err != nil {
		return "", "", fmt.Errorf("open what was fetched from %s: %w", redact(at), err)
	}
	defer r.Close()
	dir, err = f.Archive(ctx, r, redact(at))
	return dir, got, err
}

// unpacked tells whether an archive is there, and marks it as used.
func (f *Fetcher) unpacked(dir string) bool {
	st, err := os.Stat(dir)
	return err == nil && st.IsDir() && f.use(dir)
}

// webDirectory unpacks an archive from the web.
func (f *Fetcher) webDirectory(ctx context.Context, at string) (string, error) {
	req, err := f.request(ctx, http.MethodGet, at)
	if err != nil {
		return "", err
	}
	resp, err := f.client().Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // it has the URL with its password
		}
		return "", fmt.Errorf("fetch the context %s: %w", redact(at), err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", &diag.Problem{What: fmt.Sprintf("context %s: the server answers %s", redact(at), resp.Status), Hint: "open the address in a browser to see what it says"}
	}
	return f.Archive(ctx, resp.Body, redact(at))
}

// gitDirectory checks a repository out, with its .git as kaniko has it.
func (f *Fetcher) gitDirectory(ctx context.Context, p Place) (string, error) {
	dir, _, err := f.Repository(ctx, p)
	return dir, err
}

// Repository checks out the repository at a git:// address, and tells which commit
// that is. The directory may be removed when nothing uses it.
func (f *Fetcher) Repository(ctx context.Context, p Place) (dir, commit string, err error) {
	r, auth, err := p.repo()
	if err != nil {
		return "", "", err
	}
	own := *f // what it may show is for this repository alone
	own.GitAnyCertificate = p.Git.AnyCertificate
	if p.Git.SSH {
		own.SSHAgent, own.KnownHosts = p.Git.Agent, p.Git.KnownHosts
	}
	own.Auth = func(remote string) string {
		if remote == r.Remote {
			return auth
		}
		return ""
	}
	c, err := own.Commit(ctx, r)
	if err == nil {
		dir, err = own.checkedOut(ctx, r, c)
	}
	switch {
	case KeyRefused(err):
		err = &diag.Problem{What: err.Error(), Hint: "start ssh-agent, and give it a key that may read the repository: ssh-add"}
	case err != nil && strings.Contains(err.Error(), "Host key verification failed"):
		err = &diag.Problem{What: err.Error(), Hint: "compare its key with what the host says of itself, and add it to " + p.Git.KnownHosts + " as ssh-keyscan prints it"}
	}
	return dir, c.Digest(), err
}

// KeyRefused tells whether an ssh server took no key that it was shown.
func KeyRefused(err error) bool {
	return err != nil && strings.Contains(err.Error(), "Permission denied (")
}

// repo is the repository of a git:// address, and the Authorization header for
// it. The ref stands after the first #, a commit after the second.
func (p Place) repo() (Repo, string, error) {
	address, ref, _ := strings.Cut(p.At, "#")
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return Repo{}, "", &diag.Problem{What: fmt.Sprintf("context %s: not the address of a repository", redact(p.At)), Hint: "write git://HOST/PATH[#REF[#COMMIT]]"}
	}
	u.Scheme = "https"
	if p.Git.PlainHTTP {
		u.Scheme = "http"
	}
	auth := p.Git.auth(u)
	if p.Git.SSH {
		u.Scheme, auth = "ssh", ""
		u.User = url.User(u.User.Username()) // ssh asks for no password
	} else {
		u.User = nil
	}
	ref, commit, _ := strings.Cut(ref, "#")
	named := ref == "" || !strings.HasPrefix(ref, "refs/") && !fullCommit.MatchString(ref) || strings.HasPrefix(ref, "refs/heads/")
	if p.Git.Branch != "" && named {
		ref = p.Git.Branch
	}
	if commit != "" {
		ref = commit
	}
	return Repo{Remote: u.String(), Ref: ref, KeepGitDir: !p.Git.Plain, NoSubmodules: !p.Git.Submodules, History: p.Git.History}, auth, nil
}

// tokenUsers are the names that hosts want beside a token. Others take the
// token as the name.
var tokenUsers = []struct{ host, user string }{
	{"github", "x-access-token"}, {"gitlab", "oauth2"}, {"bitbucket", "x-token-auth"},
}

// auth is the Authorization header for the repository at u; "" for none.
func (g GitPlace) auth(u *url.URL) string {
	user, password := g.User, g.Password
	if g.Token != "" {
		user, password = g.Token, ""
	}
	if u.User != nil {
		user = u.User.Username()
		password, _ = u.User.Password()
	}
	if user == "" {
		return ""
	}
	if password == "" {
		for _, t := range tokenUsers {
			if strings.Contains(u.Hostname(), t.host) {
				user, password = t.user, user
				break
			}
		}
	}
	return basicAuth(user, password)
}
