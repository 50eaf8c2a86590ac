package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"kaniko-build/cmd/kaniko-build/internal/dropin"
	"kaniko-build/executor"
	"kaniko-build/executor/runner/local"
	"kaniko-build/schema"
)

// checkouts are the directories that commits of repositories lie in, by address and
// commit. They are in the store, where prune takes them.
type checkouts map[string]string

// bring checks out what a manifest names, with the credentials that the variables
// of git contexts give.
func (c checkouts) bring(ctx context.Context) func(url, ref string) (fs.FS, string, error) {
	return func(url, ref string) (fs.FS, string, error) {
		commit := ref
		if c[url+"#"+ref] == "" {
			var err error
			if commit, err = c.checkout(ctx, url, ref); err != nil {
				return nil, "", err
			}
		}
		root, err := os.OpenRoot(c[url+"#"+commit]) // no link leads out of it
		if err != nil {
			return nil, "", fmt.Errorf("open the checkout of %s: %w", url, err)
		}
		return root.FS(), commit, nil
	}
}

// checkout brings one commit to the store.
func (c checkouts) checkout(ctx context.Context, url, ref string) (commit string, err error) {
	place, err := placeOf(schema.NamedContext{Value: url + "#" + ref})
	if err != nil {
		return "", err
	}
	place.Git.Plain = true
	state, err := stateDir()
	if err != nil {
		return "", err
	}
	x, err := executor.Open(ctx, executor.Options{
		State: state, Getenv: os.Getenv,
		Runner: &local.Runner{Rung: os.Getenv("KANIKO_BUILD_ISOLATION"), Careful: !dropin.InImage(), Path: filepath.SplitList(os.Getenv("PATH"))},
	})
	if err != nil {
		return "", err
	}
	dir, commit, err := x.Repository(ctx, place)
	if err := shut(ctx, x, 0, err); err != nil {
		return "", err
	}
	c[url+"#"+commit] = dir
	return commit, nil
}

// path is a path of the manifest that lies in a repository as a real one; ok is
// false if it lies in none.
func (c checkouts) path(repos []schema.Repository, name string) (file string, ok bool) {
	for _, r := range repos {
		if name == r.Root || strings.HasPrefix(name, r.Root+"/") {
			return filepath.Join(c[r.URL+"#"+r.Commit], filepath.FromSlash(strings.TrimPrefix(name, r.Root))), true
		}
	}
	return "", false
}

// confined is an error if a file of a repository is a link that leads out of it.
func (c checkouts) confined(repos []schema.Repository, name, file string) error {
	for _, r := range repos {
		if !strings.HasPrefix(name, r.Root+"/") {
			continue
		}
		top, err := filepath.EvalSymlinks(c[r.URL+"#"+r.Commit])
		if err != nil {
			return fmt.Errorf("find the checkout of %s: %w", r.URL, err)
		}
		if real, err := filepath.EvalSymlinks(file); err == nil && !strings.HasPrefix(real, top+string(filepath.Separator)) {
			return fmt.Errorf("%s is a link that leads out of its repository", name)
		}
	}
	return nil
}
