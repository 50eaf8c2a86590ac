package buildctx

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/tree"
	"kaniko-build/schema/diag"
)

// Repo is a source in a git repository.
type Repo struct {
	Remote   string // for the git command
	Ref      string // branch, tag, full ref or commit; "" is the default branch
	Subdir   string // relative: its contents are the source
	Checksum string // the beginning of the commit that Ref must be
	// KeepGitDir leaves .git in the checkout, if there is no Subdir.
	KeepGitDir bool
	// History is how many commits a .git that is kept holds; 0 is one, and
	// WholeHistory is all of every branch, and the tags.
	History      int
	NoSubmodules bool
	// FetchByCommit fetches Checksum, a whole commit, whatever Ref is now.
	FetchByCommit bool
	// CommitTimes gives every file the time of the commit, instead of that of
	// the checkout.
	CommitTimes bool
}

// WholeHistory is a Repo's History without an end.
const WholeHistory = -1

// Commit is what the ref of a Repo stands for.
type Commit struct {
	Ref string // full name, or ID
	ID  string // of the commit, or of an annotated tag
	// Peeled is the commit of an annotated tag; "" when ID is one, and when
	// .git is kept, where the tag itself makes a difference.
	Peeled string
}

// Digest is what the content of a checkout depends on.
func (c Commit) Digest() string {
	if c.Peeled != "" {
		return c.Peeled
	}
	return c.ID
}

var (
	hexOnly       = regexp.MustCompile(`^[0-9a-fA-F]+$`)
	fullCommit    = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
	defaultBranch = regexp.MustCompile(`(?m)^ref: (\S+)\s+HEAD$`)
)

func gitProblem(hint, format string, args ...any) error {
	return &diag.Problem{What: fmt.Sprintf(format, args...), Hint: hint}
}

// Commit asks the remote what a ref is. A whole commit is not asked for.
func (f *Fetcher) Commit(ctx context.Context, r Repo) (Commit, error) {
	switch {
	case strings.HasPrefix(r.Ref, "-"):
		return Commit{}, gitProblem("", "invalid git ref %q", r.Ref)
	case r.Checksum != "" && !hexOnly.MatchString(r.Checksum):
		return Commit{}, gitProblem("", "invalid checksum %s for Git URL, expected hex commit hash", r.Checksum)
	case fullCommit.MatchString(r.Ref):
		if !strings.HasPrefix(r.Ref, r.Checksum) {
			return Commit{}, otherChecksum(r, r.Ref)
		}
		return Commit{Ref: r.Ref, ID: r.Ref}, nil
	case r.FetchByCommit:
		if !fullCommit.MatchString(r.Checksum) {
			return Commit{}, gitProblem("", "fetch-by-commit requires a full commit SHA checksum, got %q", r.Checksum)
		}
		ref := r.Ref
		if ref == "" {
			ref = r.Checksum
		} else if !strings.HasPrefix(ref, "refs/") {
			ref = "refs/heads/" + ref
		}
		return Commit{Ref: ref, ID: r.Checksum}, nil
	}
	ref, out, err := f.refs(ctx, r)
	if err != nil {
		return Commit{}, err
	}
	c, err := choose(ref, out)
	if err != nil {
		return Commit{}, err
	}
	if r.Checksum != "" && !strings.HasPrefix(c.ID, r.Checksum) && (c.Peeled == "" || !strings.HasPrefix(c.Peeled, r.Checksum)) {
		return Commit{}, gitProblem("the ref has moved, or the checksum is that of another commit", "expected checksum to match %s, got %s", r.Checksum, strings.TrimSuffix(c.ID+" or "+c.Peeled, " or "))
	}
	if r.KeepGitDir {
		c.Peeled = ""
	}
	return c, nil
}

// refs finds what r's ref is called, that of the default branch if none was named,
// and lists the names of the remote that it may be, as `git ls-remote` does.
func (f *Fetcher) refs(ctx context.Context, r Repo) (ref, list string, err error) {
	command, head := f.command() != "", ""
	switch {
	case !command:
		if head, list, err = (library{f, r}).list(ctx); err != nil {
			return "", "", fmt.Errorf("fetch remote %s: %w", redact(r.Remote), err)
		}
	case r.Ref == "":
		out, err := f.git(ctx, r.Remote, repoDirs{}, "ls-remote", "--symref", "--", r.Remote, "HEAD")
		if err != nil {
			return "", "", fmt.Errorf("find the default branch of %s: %w", redact(r.Remote), err)
		}
		if m := defaultBranch.FindStringSubmatch(out); m != nil {
			head = m[1]
		}
	}
	if ref = cmp.Or(r.Ref, head); ref == "" || strings.HasPrefix(ref, "-") {
		return "", "", gitProblem("name a branch, tag or commit after #", "could not find default branch for repository: %s", redact(r.Remote))
	}
	if command {
		if list, err = f.git(ctx, r.Remote, repoDirs{}, "ls-remote", "--", r.Remote, ref, ref+"^{}"); err != nil {
			return "", "", fmt.Errorf("fetch remote %s: %w", redact(r.Remote), err)
		}
	}
	return ref, list, nil
}

// defaultPath is where programs are looked for when nobody says.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// env is the environment of git commands, before what they are not to change.
func (f *Fetcher) env() []string {
	if f.Env == nil {
		return []string{"PATH=" + defaultPath}
	}
	return f.Env
}

// command is the git on the PATH that it would run with, "" if there is none or
// it may not be used: then the library stands in.
func (f *Fetcher) command() string {
	if f.NoCommand {
		return ""
	}
	for _, v := range f.env() {
		dirs, ok := strings.CutPrefix(v, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range filepath.SplitList(dirs) {
			program := filepath.Join(dir, "git")
			if fi, err := os.Stat(program); err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
				return program
			}
		}
	}
	return ""
}

// choose finds a ref in the output of ls-remote: a full name first, then a
// branch, then a tag.
func choose(ref, out string) (Commit, error) {
	ids := map[string]string{}
	for line := range strings.Lines(out) {
		id, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if ok && fullCommit.MatchString(id) {
			ids[name] = id
		}
	}
	full := "refs/" + strings.TrimPrefix(ref, "refs/")
	head := "refs/heads/" + strings.TrimPrefix(ref, "refs/heads/")
	tag := "refs/tags/" + strings.TrimPrefix(ref, "refs/tags/")
	for _, name := range []string{full, head, tag} {
		if id, ok := ids[name]; ok {
			c := Commit{Ref: name, ID: id}
			if name == tag && name != full {
				c.Peeled = ids[tag+"^{}"]
			}
			return c, nil
		}
	}
	return Commit{}, gitProblem("check the name of the branch or tag", "repository does not contain ref %s", ref)
}

// Checkout makes the files of a commit, or finds them from an earlier time,
// and opens them: owned by 0:0, modes as with umask 022. The caller closes it.
func (f *Fetcher) Checkout(ctx context.Context, r Repo, c Commit) (*tree.Dir, error) {
	dir, err := f.checkedOut(ctx, r, c)
	if err != nil {
		return nil, err
	}
	return tree.OpenDir(dir, tree.DirOptions{Owner: &[2]uint32{}})
}

// checkedOut is the directory that Checkout opens.
func (f *Fetcher) checkedOut(ctx context.Context, r Repo, c Commit) (string, error) {
	h := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %v %v %v %v", r.Remote, c.Ref, c.ID, path.Join("/", r.Subdir), r.KeepGitDir, r.NoSubmodules, r.CommitTimes, r.History))
	final := filepath.Join(f.Dir, "git", hex.EncodeToString(h[:]))
	dir := filepath.Join(final, "tree")
	if _, err := os.Stat(dir); err == nil && f.use(final) {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(final), 0o700); err != nil {
		return "", fmt.Errorf("check out %s: %w", redact(r.Remote), err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(final), ".tmp-")
	if err != nil {
		return "", fmt.Errorf("check out %s: %w", redact(r.Remote), err)
	}
	defer os.RemoveAll(tmp)
	checkout := f.checkout
	if f.command() == "" {
		checkout = f.checkoutByLibrary
	}
	if err := checkout(ctx, r, c, tmp); err != nil {
		return "", err
	}
	if err := os.RemoveAll(filepath.Join(tmp, "repo")); err != nil {
		return "", err
	}
	for {
		err := os.Rename(tmp, final)
		if exists := errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY); err != nil && !exists {
			return "", err
		}
		if err == nil || f.use(final) { // else theirs was pruned just now
			return dir, nil
		}
	}
}

// checkout fetches into tmp/repo and makes tmp/tree.
func (f *Fetcher) checkout(ctx context.Context, r Repo, c Commit, tmp string) error {
	bare, work := filepath.Join(tmp, "repo"), filepath.Join(tmp, "work")
	for _, dir := range []string{bare, work} {
		if err := errors.Join(os.Mkdir(dir, 0o755), os.Chmod(dir, 0o755)); err != nil {
			return err
		}
	}
	format := "sha1"
	if len(c.ID) == 64 {
		format = "sha256"
	}
	if _, err := f.git(ctx, r.Remote, repoDirs{git: bare}, "-c", "init.defaultBranch=master", "init", "--bare", "--object-format="+format); err != nil {
		return fmt.Errorf("make a repository: %w", err)
	}
	if err := f.fetchCommit(ctx, r, c, bare); err != nil {
		return err
	}
	if err := f.verify(ctx, r, c, bare); err != nil {
		return err
	}
	gitDir := bare
	if r.KeepGitDir && path.Join("/", r.Subdir) == "/" {
		gitDir = filepath.Join(work, ".git")
		if err := f.clone(ctx, r, c, bare, work, format); err != nil {
			return err
		}
	} else if _, err := f.git(ctx, r.Remote, repoDirs{bare, work}, "checkout", "--no-overlay", c.ID, "--", "."); err != nil {
		// A commit without any file has no "." to check out.
		if out, lerr := f.git(ctx, r.Remote, repoDirs{git: bare}, "ls-tree", c.ID); lerr != nil || out != "" {
			return fmt.Errorf("check out %s: %w", redact(r.Remote), err)
		}
	}
	if !r.NoSubmodules {
		if _, err := os.Lstat(filepath.Join(work, ".gitmodules")); err == nil {
			if _, err := f.git(ctx, r.Remote, repoDirs{gitDir, work}, "submodule", "update", "--init", "--recursive", "--depth=1"); err != nil {
				return fmt.Errorf("update submodules of %s: %w", redact(r.Remote), err)
			}
		}
	}
	from, err := subdir(work, r.Subdir)
	if err != nil {
		return err
	}
	if r.CommitTimes {
		when, err := f.commitTime(ctx, r, c, bare)
		if err != nil {
			return err
		}
		if err := setTimes(from, when); err != nil {
			return err
		}
	}
	if err := plainModes(from); err != nil {
		return err
	}
	return os.Rename(from, filepath.Join(tmp, "tree"))
}

// checkoutByLibrary is checkout where there is no git command.
func (f *Fetcher) checkoutByLibrary(ctx context.Context, r Repo, c Commit, tmp string) error {
	work := filepath.Join(tmp, "work")
	when, err := library{f, r}.checkout(ctx, c, work)
	if err != nil {
		return err
	}
	if !r.KeepGitDir || path.Join("/", r.Subdir) != "/" {
		if err := os.RemoveAll(filepath.Join(work, ".git")); err != nil {
			return err
		}
	}
	from, err := subdir(work, r.Subdir)
	if err != nil {
		return err
	}
	if r.CommitTimes {
		if err := setTimes(from, when); err != nil {
			return err
		}
	}
	if err := plainModes(from); err != nil {
		return err
	}
	return os.Rename(from, filepath.Join(tmp, "tree"))
}

// plainModes gives all files below dir the modes that they have with umask 022,
// whatever ours is. To run git with another umask than our own takes a thread of
// its own, which a container's seccomp filter forbids.
func plainModes(dir string) error {
	return filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.Type()&fs.ModeSymlink != 0 {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		old := st.Mode().Perm()
		others := old >> 6 & 0o5
		if mode := old&0o700 | others<<3 | others; mode != old {
			return os.Chmod(p, mode)
		}
		return nil
	})
}

// fetchCommit gets the one commit into an empty repository.
func (f *Fetcher) fetchCommit(ctx context.Context, r Repo, c Commit, bare string) error {
	what := c.ID
	if !fullCommit.MatchString(c.Ref) && !r.FetchByCommit {
		what = "+" + c.Ref + ":" + c.Ref
	}
	if r.History == WholeHistory {
		if _, err := f.git(ctx, r.Remote, repoDirs{git: bare}, "fetch", "--tags", "--", r.Remote, "+refs/heads/*:refs/heads/*", what); err == nil {
			return f.hasCommit(ctx, r, c, bare)
		}
	}
	_, err := f.git(ctx, r.Remote, repoDirs{git: bare}, "fetch", depth(r), "--no-tags", "--", r.Remote, what)
	if err != nil && fullCommit.MatchString(what) {
		// Not every server gives a commit that no ref points to, or without
		// its history: get everything.
		_, err = f.git(ctx, r.Remote, repoDirs{git: bare}, "fetch", "--tags", "--", r.Remote, "+refs/heads/*:refs/heads/*")
	} else if err != nil {
		_, err = f.git(ctx, r.Remote, repoDirs{git: bare}, "fetch", "--no-tags", "--", r.Remote, what) // no shallow fetch over plain http
	}
	if err != nil {
		return fmt.Errorf("fetch remote %s: %w", redact(r.Remote), err)
	}
	return f.hasCommit(ctx, r, c, bare)
}

// depth is the option of git fetch for as much history as r is to have.
func depth(r Repo) string {
	if r.History == WholeHistory {
		return "--depth=2147483647" // as git clone --unshallow says it
	}
	return "--depth=" + strconv.Itoa(max(1, r.History))
}

// hasCommit sees that a fetch brought the commit, or fetches it by itself.
func (f *Fetcher) hasCommit(ctx context.Context, r Repo, c Commit, bare string) error {
	if _, err := f.git(ctx, r.Remote, repoDirs{git: bare}, "cat-file", "-e", c.ID); err == nil {
		return nil
	}
	// The ref has moved since it was asked for.
	if _, err := f.git(ctx, r.Remote, repoDirs{git: bare}, "fetch", "--tags", "--", r.Remote, c.ID); err != nil {
		return hasMoved(r, c)
	}
	return nil
}

// verify compares a checksum with what was fetched.
func (f *Fetcher) verify(ctx context.Context, r Repo, c Commit, bare string) error {
	if r.Checksum == "" {
		return nil
	}
	out, err := f.git(ctx, r.Remote, repoDirs{git: bare}, "rev-parse", c.ID, c.ID+"^{}")
	if err != nil {
		return fmt.Errorf("read commit %s of %s: %w", c.ID, redact(r.Remote), err)
	}
	ids := strings.Fields(out)
	for _, id := range ids {
		if strings.HasPrefix(id, r.Checksum) {
			return nil
		}
	}
	return otherChecksum(r, ids...)
}

// hasMoved is the problem of a ref that changed after it was asked for.
func hasMoved(r Repo, c Commit) error {
	return gitProblem("build again", "fetched ref %s of %s does not match expected commit %s and commit can not be found in the repository", c.Ref, redact(r.Remote), c.ID)
}

// otherChecksum is the problem of a ref that is another commit than was said.
func otherChecksum(r Repo, ids ...string) error {
	return gitProblem("", "expected checksum to match %s, got %s", r.Checksum, strings.Join(ids, " or "))
}

// clone makes a checkout that keeps its .git, as a clone of that one commit, or
// with the history that r asks for.
func (f *Fetcher) clone(ctx context.Context, r Repo, c Commit, bare, work, format string) error {
	pull := c.Ref + ":" + c.Ref
	if fullCommit.MatchString(c.Ref) {
		pull = "refs/kaniko-build/" + c.ID
		if _, err := f.git(ctx, r.Remote, repoDirs{git: bare}, "update-ref", pull, c.ID); err != nil {
			return err
		}
	} else if r.FetchByCommit {
		pull = c.ID + ":" + c.Ref
	}
	fetch := []string{"fetch", "-u", depth(r), "--", "origin", pull}
	if r.History == WholeHistory {
		fetch = []string{"fetch", "-u", "--tags", "--", "origin", pull, "+refs/heads/*:refs/remotes/origin/*"}
	}
	for _, args := range [][]string{
		{"-c", "init.defaultBranch=master", "init", "--object-format=" + format},
		{"remote", "add", "origin", "file://" + bare},
		fetch,
		{"checkout", c.ID},
		{"remote", "set-url", "origin", redact(r.Remote)},
		{"reflog", "expire", "--all", "--expire=now"},
	} {
		if _, err := f.git(ctx, "file:", repoDirs{filepath.Join(work, ".git"), work}, args...); err != nil {
			return fmt.Errorf("check out %s: %w", redact(r.Remote), err)
		}
	}
	if err := os.Remove(filepath.Join(work, ".git", "FETCH_HEAD")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// subdir finds the folder of a checkout that is asked for, which no link may
// lead to.
func subdir(work, sub string) (string, error) {
	sub = tree.Clean(sub)
	d, err := tree.OpenDir(work, tree.DirOptions{})
	if err != nil {
		return "", err
	}
	defer d.Close()
	e, err := d.Lstat(context.Background(), sub)
	if err != nil || !e.IsDir() {
		return "", gitProblem("it must be a directory of the repository", "invalid subdir %s", sub)
	}
	if err := os.Chmod(filepath.Join(work, sub), 0o755); err != nil {
		return "", err
	}
	return filepath.Join(work, sub), nil
}

// commitTime is the time of the commit, in seconds since 1970.
func (f *Fetcher) commitTime(ctx context.Context, r Repo, c Commit, bare string) (int64, error) {
	out, err := f.git(ctx, r.Remote, repoDirs{git: bare}, "log", "-1", "--format=%ct", c.ID+"^{commit}")
	if err != nil {
		return 0, fmt.Errorf("read the time of commit %s: %w", c.ID, err)
	}
	sec, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read the time of commit %s: %w", c.ID, err)
	}
	return sec, nil
}

// setTimes gives all files below dir one time, in seconds since 1970.
func setTimes(dir string, sec int64) error {
	ts := []unix.Timespec{{Sec: sec}, {Sec: sec}}
	return filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// repoDirs are the directories that a git command works on; "" is none.
type repoDirs struct{ git, work string }

// git runs one git command in an environment of its own: no configuration of
// the machine or the user, no questions, and no transport but those that
// remotes may have. "file:" as remote is our own repository.
func (f *Fetcher) git(ctx context.Context, remote string, in repoDirs, args ...string) (string, error) {
	full := []string{"-c", "advice.detachedHead=false", "-c", "core.hooksPath=/dev/null"}
	if in.git != "" {
		full = append(full, "--git-dir", in.git)
	}
	if in.work != "" {
		full = append(full, "--work-tree", in.work)
	}
	cmd := exec.CommandContext(ctx, f.command(), append(full, args...)...)
	cmd.Dir = in.work
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	env := f.env()
	ssh := "ssh -F /dev/null -o BatchMode=yes"
	if f.KnownHosts != "" {
		ssh += " -o UserKnownHostsFile=" + f.KnownHosts
	} else {
		ssh += " -o StrictHostKeyChecking=no"
	}
	allow := "http:https:ssh:git"
	if remote == "file:" {
		allow = "file"
	}
	cmd.Env = append(env[:len(env):len(env)],
		"GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=/bin/false", "SSH_ASKPASS=/bin/false", "GIT_SSH_COMMAND="+ssh, "LC_ALL=C",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "HOME=/dev/null", "GIT_ALLOW_PROTOCOL="+allow)
	if f.SSHAgent != "" {
		cmd.Env = append(cmd.Env, "SSH_AUTH_SOCK="+f.SSHAgent)
	}
	var config []string // names and values; not in the arguments, which everybody can see
	if f.Auth != nil && remote != "file:" {
		if a := f.Auth(remote); a != "" {
			config = append(config, "http."+authScope(remote)+".extraheader", "Authorization: "+a)
		}
	}
	if f.GitAnyCertificate {
		config = append(config, "http.sslVerify", "false")
	}
	cmd.Env = append(cmd.Env, "GIT_CONFIG_COUNT="+strconv.Itoa(len(config)/2))
	for i := 0; i < len(config); i += 2 {
		cmd.Env = append(cmd.Env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i/2, config[i]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i/2, config[i+1]))
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err != nil {
		return out.String(), fmt.Errorf("git %s: %w: %s", verb(args), err, strings.TrimSpace(strings.ReplaceAll(errs.String(), remote, redact(remote))))
	}
	return out.String(), nil
}

// verb is the command among the arguments of git.
func verb(args []string) string {
	for i := 0; i < len(args); i++ {
		switch {
		case args[i] == "-c":
			i++
		default:
			return args[i]
		}
	}
	return ""
}

// TokenAuth is the Authorization header for a token as git hosts take it.
func TokenAuth(token string) string {
	return basicAuth("x-access-token", token)
}

// basicAuth is the Authorization header for a name and a password.
func basicAuth(user, password string) string {
	return "basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// authScope is the beginning of the URLs that may see the header of a remote:
// itself, and for GitHub all of it, so that submodules can be fetched.
func authScope(remote string) string {
	for _, p := range []string{"https://github.com/", "https://www.github.com/"} {
		if strings.HasPrefix(remote, p) {
			return p
		}
	}
	return remote
}
