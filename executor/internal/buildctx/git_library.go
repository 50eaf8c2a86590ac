package buildctx

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"strings"

	gogit "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	"github.com/go-git/go-git/v5/storage/memory"
)

// library is git where there is no git command, as in images that hold nothing
// but this program. It speaks http and https, and knows repositories of sha1.
type library struct {
	f *Fetcher
	r Repo
}

// maxModules is how deep submodules may lie in each other.
const maxModules = 16

// auth is what the remote is shown.
func (l library) auth(remote string) transport.AuthMethod {
	if l.f.Auth == nil {
		return nil
	}
	kind, text, _ := strings.Cut(l.f.Auth(remote), " ")
	if strings.EqualFold(kind, "bearer") {
		return &githttp.TokenAuth{Token: text}
	}
	b, err := base64.StdEncoding.DecodeString(text)
	user, password, ok := strings.Cut(string(b), ":")
	if err != nil || !ok {
		return nil
	}
	return &githttp.BasicAuth{Username: user, Password: password}
}

// allowed refuses remotes that are not on the web.
func allowed(remote string) error {
	u, err := url.Parse(remote)
	switch {
	case err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https"):
		return nil
	case err == nil && u.Scheme == "ssh" || err != nil && strings.Contains(remote, "@"):
		return gitProblem("install git, or use an https address", "%s needs the git command, which is not there", redact(remote))
	}
	return gitProblem("", "the transport of %s is not allowed", redact(remote))
}

// said makes an error of the library one of ours: without credentials, and
// that of our context when it was stopped.
func (l library) said(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.New(strings.ReplaceAll(err.Error(), l.r.Remote, redact(l.r.Remote)))
}

// list answers as `git ls-remote`: a line for each name of the remote, and with
// ^{} for what an annotated tag stands for.
func (l library) list(ctx context.Context) (head, refs string, err error) {
	if err := allowed(l.r.Remote); err != nil {
		return "", "", err
	}
	remote := gogit.NewRemote(memory.NewStorage(), &config.RemoteConfig{Name: "origin", URLs: []string{l.r.Remote}})
	found, err := remote.ListContext(ctx, &gogit.ListOptions{Auth: l.auth(l.r.Remote), InsecureSkipTLS: l.f.GitAnyCertificate, PeelingOption: gogit.AppendPeeled})
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return "", "", gitProblem("install git", "%s offers a repository as files only, for which the git command is needed, which is not there", redact(l.r.Remote))
	}
	if err != nil {
		return "", "", l.said(ctx, err)
	}
	var out strings.Builder
	for _, r := range found {
		if r.Type() == plumbing.SymbolicReference {
			if r.Name() == plumbing.HEAD {
				head = r.Target().String()
			}
			continue
		}
		fmt.Fprintf(&out, "%s\t%s\n", r.Hash(), r.Name())
	}
	return head, out.String(), nil
}

// checkout makes tmp/work, with its .git, and returns the time of the commit as
// seconds since 1970.
func (l library) checkout(ctx context.Context, c Commit, work string) (int64, error) {
	if err := allowed(l.r.Remote); err != nil {
		return 0, err
	}
	if len(c.ID) != 40 {
		return 0, gitProblem("install git", "%s has sha256 names, for which the git command is needed, which is not there", redact(l.r.Remote))
	}
	repo, err := gogit.PlainInit(work, false)
	if err != nil {
		return 0, fmt.Errorf("make a repository: %w", err)
	}
	// The remote is kept without credentials; the address to fetch from is given.
	if _, err := repo.CreateRemote(&config.RemoteConfig{Name: "origin", URLs: []string{redact(l.r.Remote)}}); err != nil {
		return 0, fmt.Errorf("make a repository: %w", err)
	}
	if err := l.fetch(ctx, repo, c); err != nil {
		return 0, err
	}
	id := plumbing.NewHash(c.ID)
	if _, err := repo.Object(plumbing.AnyObject, id); err != nil {
		return 0, hasMoved(l.r, c)
	}
	commit, err := peel(repo, id)
	if err != nil {
		return 0, fmt.Errorf("read commit %s of %s: %w", c.ID, redact(l.r.Remote), err)
	}
	if sum := l.r.Checksum; sum != "" && !strings.HasPrefix(c.ID, sum) && !strings.HasPrefix(commit.Hash.String(), sum) {
		return 0, otherChecksum(l.r, c.ID)
	}
	tree, err := repo.Worktree()
	if err != nil {
		return 0, err
	}
	if err := tree.Checkout(&gogit.CheckoutOptions{Hash: commit.Hash, Force: true}); err != nil {
		return 0, fmt.Errorf("check out %s: %w", redact(l.r.Remote), l.said(ctx, err))
	}
	if !l.r.NoSubmodules {
		if err := l.submodules(ctx, tree, 0); err != nil {
			return 0, fmt.Errorf("update submodules of %s: %w", redact(l.r.Remote), err)
		}
	}
	return commit.Committer.When.Unix(), nil
}

// peel follows annotated tags to their commit.
func peel(repo *gogit.Repository, id plumbing.Hash) (*object.Commit, error) {
	for range 8 { // tags of tags
		tag, err := repo.TagObject(id)
		if errors.Is(err, plumbing.ErrObjectNotFound) {
			break
		}
		if err != nil {
			return nil, err
		}
		id = tag.Target
	}
	return repo.CommitObject(id)
}

// fetch gets what is asked for, or everything from servers that do not give a
// commit by its name.
func (l library) fetch(ctx context.Context, repo *gogit.Repository, c Commit) error {
	everything := []config.RefSpec{"+refs/heads/*:refs/remotes/origin/*"}
	o := gogit.FetchOptions{
		RemoteURL: l.r.Remote, Auth: l.auth(l.r.Remote), InsecureSkipTLS: l.f.GitAnyCertificate, Tags: gogit.NoTags, Depth: max(1, l.r.History), Force: true,
	}
	byCommit := fullCommit.MatchString(c.Ref) || l.r.FetchByCommit
	if byCommit {
		o.RefSpecs = []config.RefSpec{config.RefSpec(c.ID + ":refs/kaniko-build/" + c.ID)}
	} else {
		o.RefSpecs = []config.RefSpec{config.RefSpec("+" + c.Ref + ":" + c.Ref)}
	}
	if l.r.History == WholeHistory {
		o.Tags, o.Depth = gogit.AllTags, math.MaxInt32
		o.RefSpecs = append(o.RefSpecs, everything...)
	}
	err := repo.FetchContext(ctx, &o)
	if err != nil && byCommit && ctx.Err() == nil {
		o.RefSpecs, o.Tags, o.Depth = everything, gogit.AllTags, 0
		err = repo.FetchContext(ctx, &o)
	}
	if err != nil && !errors.Is(err, gogit.NoErrAlreadyUpToDate) {
		return fmt.Errorf("fetch remote %s: %w", redact(l.r.Remote), l.said(ctx, err))
	}
	return nil
}

// submodules checks them out, and those in them. None may lie on this machine.
func (l library) submodules(ctx context.Context, tree *gogit.Worktree, depth int) error {
	if depth == maxModules {
		return gitProblem("", "submodules lie more than %d deep in each other", maxModules)
	}
	list, err := tree.Submodules()
	if err != nil {
		return l.said(ctx, err)
	}
	for _, m := range list {
		at := m.Config().URL
		if !strings.HasPrefix(at, "./") && !strings.HasPrefix(at, "../") { // those are on the same host
			if err := allowed(at); err != nil {
				return err
			}
		}
		o := &gogit.SubmoduleUpdateOptions{Init: true, RecurseSubmodules: gogit.NoRecurseSubmodules} // whole: a commit that no branch ends with is not found otherwise
		if strings.HasPrefix(at, authScope(l.r.Remote)) {
			o.Auth = l.auth(l.r.Remote)
		}
		if err := m.UpdateContext(ctx, o); err != nil {
			return fmt.Errorf("%s: %w", m.Config().Name, l.said(ctx, err))
		}
		repo, err := m.Repository()
		if err != nil {
			return err
		}
		below, err := repo.Worktree()
		if err != nil {
			return err
		}
		if err := l.submodules(ctx, below, depth+1); err != nil {
			return err
		}
	}
	return nil
}
