package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"kaniko-build/cmd/kaniko-build/internal/dropin"
	"kaniko-build/executor"
	"kaniko-build/executor/runner/local"
	"kaniko-build/schema"
	"kaniko-build/schema/diag"
)

// checkouts are the directories that commits of repositories lie in, by address and
// commit, and archives by address and digest. They are in the store, where prune takes them.
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
	err = bringing(ctx, func(x *executor.Executor) error {
		var dir string
		dir, commit, err = x.Repository(ctx, place)
		c[url+"#"+commit] = dir
		return err
	})
	return commit, err
}

// fetch brings archives that a manifest names.
func (c checkouts) fetch(ctx context.Context) func(url, sum string) (string, error) {
	return func(url, sum string) (string, error) {
		if sum != "" && c[url+"#"+sum] != "" {
			return sum, nil
		}
		var got string
		err := bringing(ctx, func(x *executor.Executor) (err error) {
			var dir string
			if dir, got, err = x.WebArchive(ctx, url, sum); err == nil {
				c[url+"#"+got] = dir
			}
			return err
		})
		return got, err
	}
}

// bringing opens the store for something that is brought to it.
func bringing(ctx context.Context, fn func(*executor.Executor) error) error {
	state, err := stateDir()
	if err != nil {
		return err
	}
	x, err := executor.Open(ctx, executor.Options{
		State: state, Getenv: os.Getenv,
		Runner: &local.Runner{Rung: os.Getenv("KANIKO_BUILD_ISOLATION"), Careful: !dropin.InImage(), Path: filepath.SplitList(os.Getenv("PATH"))},
	})
	if err != nil {
		return err
	}
	return shut(ctx, x, 0, fn(x))
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

// isRepository tells whether an argument is the address of a repository, with its
// commit and directory: URL#COMMIT:DIR.
func isRepository(arg string) bool {
	at, _, _ := strings.Cut(arg, "#")
	scheme, _, ok := strings.Cut(at, "://")
	return ok && slices.Contains([]string{"https", "http", "git", "ssh"}, scheme) || strings.HasPrefix(at, "git@")
}

// ofRepository takes the address of a repository out of arguments: its manifest is
// read instead of the one that is here.
func (f *manifestFlags) ofRepository(args []string) []string {
	if len(args) == 0 || !isRepository(args[0]) {
		return args
	}
	f.files = []string{args[0]}
	return args[1:]
}

// readRepository reads the manifest of another repository. What it may do is
// what a file may do that is included from there.
func (f *manifestFlags) readRepository(ctx context.Context, arg string) (*workspace, error) {
	url, fragment, _ := strings.Cut(arg, "#")
	ref, dir, _ := strings.Cut(fragment, ":")
	file := path.Clean("/" + dir)
	if ext := path.Ext(file); ext != ".yaml" && ext != ".yml" {
		file = path.Join(file, manifestName)
	}
	here, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("find the working directory: %w", err)
	}
	o, err := f.options(ctx, here)
	if err != nil {
		return nil, err
	}
	if ref == "" && !slices.Contains(o.Allow, "unpinned") {
		return nil, &diag.Problem{What: arg + " needs a commit", Hint: "write URL#COMMIT:DIR with the full commit; --allow=unpinned takes the default branch as it is now"}
	}
	o.Guest, o.WorkspaceName = true, strings.TrimSuffix(path.Base(url), ".git")
	o.Git = func(fact string) (string, error) {
		if fact == "sha" && ref != "" {
			return ref, nil
		}
		return "", schema.ErrNoGit
	}
	text := fmt.Sprintf("version: 1\ninclude: [{git: %q, path: %q", url, file)
	if ref != "" {
		text += fmt.Sprintf(", ref: %q", ref)
	}
	w := &workspace{root: here}
	w.manifest, err = schema.Parse(withFile{os.DirFS(here), "command line", []byte(text + "}]\n")}, "command line", o)
	w.brought = f.brought
	return w, err
}
