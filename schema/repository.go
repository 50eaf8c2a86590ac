package schema

import (
	"cmp"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"kaniko-build/schema/diag"
)

// Repository is a commit of a git repository that a manifest has files or contexts
// of, or an archive on the web that it has contexts of. Root stands for its directory in
// the paths of the manifest: they begin with it as with a directory of the workspace.
type Repository struct {
	Root   string // git:HOST/PATH@COMMIT, or https:HOST/PATH@SHA256
	URL    string
	Commit string // of an archive the SHA-256 of its bytes
}

// repositories is a file system with those of repositories in it, each in the
// directory that is its Root.
type repositories struct {
	fs.FS
	bring func(url, ref string) (files fs.FS, commit string, err error)
	fetch func(url, sum string) (string, error) // see Options.Archive
	found []Repository
	files map[string]fs.FS // by root
	known map[string]string
}

func newRepositories(workspace fs.FS, opts Options) *repositories {
	return &repositories{FS: workspace, bring: opts.Repository, fetch: opts.Archive, files: map[string]fs.FS{}, known: map[string]string{}}
}

var repositoryRoot = regexp.MustCompile(`^(?:git|https?):[^@]+@(?:[0-9a-f]{64}|[0-9a-f]{40})(?:/|$)`)

// rootOf is the root of the repository that a path lies in, "" for the workspace.
func rootOf(name string) string {
	if !strings.HasPrefix(name, "git:") && !strings.HasPrefix(name, "http") {
		return ""
	}
	return strings.TrimSuffix(repositoryRoot.FindString(name), "/")
}

// Open opens a file of the workspace or of a repository.
func (r *repositories) Open(name string) (fs.File, error) {
	files, inside := r.place(name)
	return files.Open(inside)
}

// Stat looks at a file without opening it, where its file system can.
func (r *repositories) Stat(name string) (fs.FileInfo, error) {
	files, inside := r.place(name)
	return fs.Stat(files, inside)
}

// place is the file system that a file lies in, and its name there.
func (r *repositories) place(name string) (fs.FS, string) {
	root := rootOf(name)
	files := r.files[root]
	if files == nil {
		return r.FS, name
	}
	return files, cmp.Or(strings.TrimPrefix(strings.TrimPrefix(name, root), "/"), ".")
}

var scpAddress = regexp.MustCompile(`^([A-Za-z0-9_-]+@[A-Za-z0-9.-]+):/?(.+)$`)

// asURL is the address of a repository as a URL: that of ssh may be USER@HOST:PATH.
func asURL(at string) string { return scpAddress.ReplaceAllString(at, "ssh://$1/$2") }

// bySSH tells whether a repository is fetched with keys of whoever runs this.
func bySSH(at string) bool { return strings.HasPrefix(asURL(at), "ssh://") }

// root brings a commit of a repository, once, and answers with its root.
func (r *repositories) root(at, ref string) (string, error) {
	at = asURL(at)
	key := at + "#" + ref
	if root := r.known[key]; root != "" {
		return root, nil
	}
	u, err := url.Parse(at)
	if err != nil || u.Host == "" || u.Path == "" {
		return "", &diag.Problem{What: fmt.Sprintf("%q is not the address of a repository", at), Hint: "write it as git clone takes it, such as https://git.example.com/plat/images.git"}
	}
	if r.bring == nil {
		return "", &diag.Problem{What: "repositories cannot be had here"}
	}
	files, commit, err := r.bring(at, ref)
	if err != nil {
		return "", err
	}
	if !fullCommit.MatchString(commit) {
		return "", fmt.Errorf("internal error: %q is no commit; please report this", commit)
	}
	root := "git:" + path.Join(u.Host, path.Clean("/"+strings.ReplaceAll(u.Path, "@", "_"))) + "@" + commit
	if r.files[root] == nil {
		r.files[root] = files
		r.found = append(r.found, Repository{root, at, commit})
	}
	r.known[key] = root
	return root, nil
}

// archive brings an archive, once, and answers with its root. sum is the SHA-256 that it
// must have, "" for any.
func (r *repositories) archive(at, sum string) (string, error) {
	key := at + "#sha256:" + sum
	if root := r.known[key]; root != "" {
		return root, nil
	}
	u, err := url.Parse(at)
	if err != nil || u.Host == "" || u.Path == "" {
		return "", &diag.Problem{What: fmt.Sprintf("%q is not the address of an archive", at), Hint: "write it as https://example.com/src.tar.gz"}
	}
	if u.User != nil { // which would be printed
		return "", &diag.Problem{What: fmt.Sprintf("%q: the address of an archive has no user", u.Redacted()), Hint: "fetch it before, and name the directory"}
	}
	if r.fetch == nil {
		return "", &diag.Problem{What: "archives cannot be had here"}
	}
	got, err := r.fetch(at, sum)
	if err != nil {
		return "", err
	}
	if len(got) != 64 || !fullCommit.MatchString(got) {
		return "", fmt.Errorf("internal error: %q is no SHA-256; please report this", got)
	}
	root := u.Scheme + ":" + path.Join(u.Host, path.Clean("/"+strings.ReplaceAll(u.Path, "@", "_"))) + "@" + got
	if r.of(root).Root == "" {
		r.found = append(r.found, Repository{root, at, got})
	}
	r.known[key] = root
	return root, nil
}

// of is the repository with a root.
func (r *repositories) of(root string) Repository {
	for _, f := range r.found {
		if f.Root == root {
			return f
		}
	}
	return Repository{}
}

var fullCommit = regexp.MustCompile(`^(?:[0-9a-f]{64}|[0-9a-f]{40})$`)

// What a file of another repository may do only if Options.Allow says so.
const (
	allowUnpinned   = "unpinned"   // be of a branch or tag
	allowEnv        = "env"        // see the environment
	allowHooks      = "hooks"      // run commands on this machine
	allowSecrets    = "secrets"    // use and declare secrets
	allowSSH        = "ssh"        // use and declare ssh agents
	allowRegistries = "registries" // say how registries are reached
	allowOutputs    = "outputs"    // write files
)

// Allowances are what Options.Allow may hold.
func Allowances() []string {
	return []string{allowEnv, allowHooks, allowOutputs, allowRegistries, allowSecrets, allowSSH, allowUnpinned}
}

// sealed tells whether what a file says at pos may not do something, and reports it
// then.
func sealed(l *diag.List, opts Options, pos diag.Pos, what, allowance string) bool {
	if rootOf(pos.File) == "" || slices.Contains(opts.Allow, allowance) {
		return false
	}
	l.Add(pos, "write it in a file of your own, or run with --allow="+allowance, "a file of another repository cannot have %s", what)
	return true
}

// includeGit reads files of a repository.
func (d *loader) includeGit(u *unit, item *value, prefix string) {
	at, ref, file := item.get("git"), item.get("ref"), item.get("path")
	for _, v := range []*value{at, ref, file} {
		if v != nil && hasReference(v.text) {
			d.problems.Add(v.pos, "write the text itself", "include cannot hold a reference")
			return
		}
	}
	switch unpinned := slices.Contains(d.opts.Allow, allowUnpinned); {
	case ref == nil && !unpinned:
		d.problems.Add(at.pos, "add ref: and the full commit; --allow=unpinned takes the default branch as it is now", "a repository that is included needs a commit")
		return
	case ref != nil && !fullCommit.MatchString(ref.text) && !unpinned:
		d.problems.Add(ref.pos, "write the full commit, 40 or 64 hex digits, or run with --allow=unpinned", "%q may be something else tomorrow", ref.text)
		return
	}
	if bySSH(at.text) && sealed(d.problems, d.opts, at.pos, "repositories by ssh", allowSSH) {
		return
	}
	root, err := d.repos.root(at.text, ref.str())
	if err != nil {
		d.problems.AddErr(at.pos, placed(err, at.pos))
		return
	}
	pattern := path.Join(root, path.Clean("/"+file.text))
	names := []string{pattern}
	if isGlob(file.text) {
		if names, err = globFiles(d.fsys, pattern); err != nil {
			d.problems.Add(file.pos, "", "include %s: %v", file.text, err)
			return
		}
		if len(names) == 0 && !item.get("optional").isTrue() {
			d.problems.Add(file.pos, "", "no file of %s matches include %q", at.text, file.text)
		}
	}
	d.decode(names)
	for _, name := range names {
		known := d.units[name] != nil
		d.includeFile(u, name, u.prefix+prefix, file.pos, item.get("optional").isTrue())
		if got := d.units[name]; got != nil {
			if with := item.get("with"); with != nil && known {
				d.problems.Add(with.pos, "give its variables where it is included first", "file %s is already included", name)
			} else if with != nil {
				got.with = with
			}
		}
	}
}

// repositoryContext is the directory of a main context in a repository: URL#REF:DIRECTORY.
func (p *parser) repositoryContext(v *value) string {
	at, fragment, _ := strings.Cut(strings.TrimPrefix(v.text, "git:"), "#")
	ref, dir, _ := strings.Cut(fragment, ":")
	if rootOf(v.pos.File) != "" && !fullCommit.MatchString(ref) && !slices.Contains(p.scope.opts.Allow, allowUnpinned) {
		p.problems.Add(v.pos, "write the full commit, or run with --allow=unpinned", "a file of another repository needs a commit for its contexts")
		return "."
	}
	if bySSH(at) && sealed(p.problems, p.scope.opts, v.pos, "repositories by ssh", allowSSH) {
		return "."
	}
	root, err := p.repos.root(at, ref)
	if err != nil {
		p.problems.AddErr(v.pos, placed(err, v.pos))
		return "."
	}
	return path.Join(root, path.Clean("/"+dir))
}

// archiveContext is the directory of a main context in an archive:
// URL[#[sha256:DIGEST][:DIRECTORY]].
func (p *parser) archiveContext(v *value) string {
	at, fragment, _ := strings.Cut(v.text, "#")
	sum, dir := "", ""
	if strings.HasSuffix(at, ".git") {
		p.problems.Add(v.pos, "write git:"+v.text, "%q is the address of a git repository", at)
		return "."
	}
	if rest, ok := strings.CutPrefix(fragment, "sha256:"); ok {
		sum, dir, _ = strings.Cut(rest, ":")
		if len(sum) != 64 || !fullCommit.MatchString(sum) {
			p.problems.Add(v.pos, "write all 64 hex digits, small ones", "%q is no SHA-256", sum)
			return "."
		}
	} else if fragment != "" {
		var ok bool
		if dir, ok = strings.CutPrefix(fragment, ":"); !ok {
			p.problems.Add(v.pos, "write #:DIRECTORY, or #sha256:DIGEST:DIRECTORY; a git repository is git:URL#REF:DIRECTORY", "%q says nothing of an archive", "#"+fragment)
			return "."
		}
	}
	switch {
	case sum != "":
	case strings.HasPrefix(at, "http:"):
		p.problems.Add(v.pos, "write https, or add the digest: #sha256:DIGEST", "what comes by plain http may be changed on its way")
		return "."
	case rootOf(v.pos.File) != "" && !slices.Contains(p.scope.opts.Allow, allowUnpinned):
		p.problems.Add(v.pos, "add #sha256:DIGEST, or run with --allow=unpinned", "a file of another repository needs the digest of its archives")
		return "."
	}
	root, err := p.repos.archive(at, sum)
	if err != nil {
		p.problems.AddErr(v.pos, placed(err, v.pos))
		return "."
	}
	return path.Join(root, path.Clean("/"+dir))
}

// shownPath is a path as print writes it, so that it can be read again.
func (p *parser) shownPath(name string) string {
	root := rootOf(name)
	if root == "" {
		return "//" + name
	}
	r := p.repos.of(root)
	out := r.URL + "#sha256:" + r.Commit
	if strings.HasPrefix(root, "git:") {
		out = "git:" + r.URL + "#" + r.Commit
	}
	if dir := strings.TrimPrefix(strings.TrimPrefix(name, root), "/"); dir != "" {
		out += ":" + dir
	}
	return out
}
