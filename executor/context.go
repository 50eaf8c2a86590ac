package executor

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"kaniko-build/executor/internal/buildctx"
	"kaniko-build/executor/internal/image"
	"kaniko-build/executor/internal/inplace"
	"kaniko-build/executor/internal/object"
	"kaniko-build/schema/diag"
)

// Place is where a build's main context is, as kaniko's users write it.
type Place = buildctx.Place

// GitPlace is what there is to say of a git context beside its address.
type GitPlace = buildctx.GitPlace

// WholeHistory is a GitPlace's History without an end.
const WholeHistory = buildctx.WholeHistory

// GitFrom is what the environment says of git contexts: GIT_TOKEN, or
// GIT_USERNAME and GIT_PASSWORD, GIT_PULL_METHOD, SSH_AUTH_SOCK, and HOME for the hosts
// that ssh knows, if there is a list of them.
func GitFrom(getenv func(string) string) GitPlace {
	hosts := filepath.Join(getenv("HOME"), ".ssh", "known_hosts")
	if st, err := os.Stat(hosts); err != nil || !st.Mode().IsRegular() || !filepath.IsAbs(hosts) || strings.ContainsAny(hosts, " \t'\"\\") {
		hosts = "" // git hands the name to a shell, and ssh takes it apart at spaces
	}
	return GitPlace{
		Token: getenv("GIT_TOKEN"), User: getenv("GIT_USERNAME"), Password: getenv("GIT_PASSWORD"),
		PlainHTTP: getenv("GIT_PULL_METHOD") == "http", Agent: getenv("SSH_AUTH_SOCK"), KnownHosts: hosts,
	}
}

// OpenContext brings a context to a directory, for Request.Context. One that is
// a directory is used where it is. stdin is for tar://stdin, nil if nothing comes
// from there.
func (x *Executor) OpenContext(ctx context.Context, p Place, stdin io.Reader) (string, error) {
	o := object.Options{Getenv: x.opts.Getenv}
	dir, err := x.fetcher.Directory(ctx, p, buildctx.Places{
		Stdin: stdin, IsObject: object.Is,
		Object: func(ctx context.Context, at string) (io.ReadCloser, error) { return object.Open(ctx, at, o) },
	})
	if err != nil {
		return "", err
	}
	return dir, atHome(dir)
}

// Repository brings a git repository to a directory, and tells which commit it
// is; p.At begins with git://.
func (x *Executor) Repository(ctx context.Context, p Place) (dir, commit string, err error) {
	return x.fetcher.Repository(ctx, p)
}

// WebArchive brings an archive from the web to a directory, and tells the SHA-256 of its
// bytes, in hex; sum is the one that it must have, "" for any.
func (x *Executor) WebArchive(ctx context.Context, at, sum string) (dir, got string, err error) {
	return x.fetcher.WebArchive(ctx, at, sum)
}

// atHome sees to it that a directory has its own files, which a build may have put
// aside in it that runs in another container, or was killed.
func atHome(dir string) error {
	if !inplace.IsLent(dir) {
		return nil
	}
	err := inplace.RecoverLoan(dir)
	if err == nil && !inplace.IsLent(dir) {
		return nil
	}
	aside := filepath.Join(dir, inplace.AsideName)
	if err != nil {
		return &diag.Problem{What: fmt.Sprintf("context %s: a build that was killed has left its files in %s: %v", dir, aside, err), Hint: "run as root, or move them back by hand: see README there"}
	}
	return &diag.Problem{What: fmt.Sprintf("context %s: another build has it to itself, and its files are in %s meanwhile", dir, aside), Hint: "wait for that build, or mount another copy of the context"}
}

// IgnoreFile is the ignore file of a context's own, nil if it has none.
func IgnoreFile(ctx context.Context, dir string) ([]byte, error) {
	i, err := buildctx.OwnIgnore(ctx, dir)
	return i.Data, err
}

// Fetch reads a small file from the web, as a Dockerfile; more than limit bytes
// are an error.
func (x *Executor) Fetch(ctx context.Context, url string, limit int64) ([]byte, error) {
	small := *x.fetcher
	small.MaxSize = limit
	got, err := small.Get(ctx, url, "", "")
	if err != nil {
		return nil, err
	}
	f, err := got.Open()
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", url, err)
	}
	defer f.Close()
	return io.ReadAll(f)
}

// ImageName is a parsed name of an image.
type ImageName = image.Name

// ParseImageName reads a name as Docker does.
func ParseImageName(ref string) (ImageName, error) { return image.ParseName(ref) }
