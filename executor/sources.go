package executor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/buildctx"
	"kaniko-build/executor/internal/copier"
	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/executor/internal/inplace"
	"kaniko-build/executor/internal/store"
	"kaniko-build/executor/internal/tree"
	"kaniko-build/schema/diag"
)

// sources are the trees that a node reads from outside its container: its
// contexts and what ADD fetches. They are opened when first asked for.
type sources struct {
	x      *Executor
	req    Request
	shared *contexts

	changed atomic.Bool // a file was found to be another than its key was made of

	mu      sync.Mutex
	trees   map[string]tree.Tree
	fetched []material // by ADD
	closed  []func() error
	moved   map[[2]uint64]inplace.Moved // by device and inode: the first and the last change time
}

func newSources(x *Executor, r Request, shared *contexts) *sources {
	return &sources{x: x, req: r, shared: shared, trees: map[string]tree.Tree{}}
}

// Close releases the trees and keeps what was learnt about files.
func (s *sources) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for _, f := range s.closed {
		err = errors.Join(err, f())
	}
	s.closed = nil
	return err
}

// tree finds a tree by the name that a job has for it.
func (s *sources) tree(ctx context.Context, name string) (tree.Tree, error) {
	s.mu.Lock()
	t, ok := s.trees[name]
	s.mu.Unlock()
	if ok {
		return t, nil
	}
	ctxName, ok := strings.CutPrefix(name, contextTree(""))
	if !ok {
		return nil, fmt.Errorf("internal error: no tree %q", name)
	}
	return s.context(ctx, ctxName)
}

// ignorePatterns are those of the main context's ignore file.
func ignorePatterns(ctx context.Context, r Request) ([]string, error) {
	var own *buildctx.Ignore
	if r.Ignore != nil {
		own = &buildctx.Ignore{Name: r.Ignore.Name, Data: r.Ignore.Data}
	}
	return buildctx.Patterns(ctx, r.Context, own)
}

// context opens the main context ("") or a named one.
func (s *sources) context(ctx context.Context, name string) (tree.Tree, error) {
	d, err := s.directory(ctx, name)
	if err != nil {
		return nil, err
	}
	if d == nil {
		return copier.Empty, nil
	}
	return d.tree, nil
}

// directory finds a context that nodes may share; nil is an empty one.
func (s *sources) directory(ctx context.Context, name string) (*directory, error) {
	dir, o := s.req.Context, buildctx.Options{}
	if name != "" {
		dir = s.req.Contexts[name]
	} else if s.req.Ignore != nil {
		o.Ignore = &buildctx.Ignore{Name: s.req.Ignore.Name, Data: s.req.Ignore.Data}
	}
	if dir == "" && name == "" {
		return nil, nil
	}
	if strings.Contains(dir, "://") || !filepath.IsAbs(dir) {
		return nil, &diag.Problem{What: fmt.Sprintf("named context %q: %q is no directory", name, dir), Hint: "use a directory, docker-image://REF or oci-layout://DIR"}
	}
	return s.shared.open(ctx, dir, o)
}

// find describes what is selected in a context.
func (s *sources) find(ctx context.Context, name string, sel copier.Select, owned bool) (*found, error) {
	d, err := s.directory(ctx, name)
	if err != nil {
		return nil, err
	}
	if d == nil {
		items, err := copier.Find(ctx, copier.Empty, sel)
		if err != nil {
			return nil, err
		}
		lines, err := copier.KeyLines(ctx, copier.Empty, items, owned, nothing)
		return &found{lines: lines}, err
	}
	return d.find(ctx, s.x, sel, owned)
}

// nothing is the copier.HashFunc of an empty tree.
func nothing(context.Context, tree.Tree, string, tree.Entry) (string, error) { return "", nil }

// unchanged tells whether an opened file is still the one that the key of its
// step was made of. One that no key has seen is: nothing depends on it.
func (s *sources) unchanged(ctx context.Context, name, file string, f *os.File) error {
	d, ok := s.shownAs(ctx, name)
	if !ok {
		return nil // of one commit, or with a digest
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("stat %s: %w", file, err)
	}
	return s.unchangedStat(d, file, &st)
}

// shownAs finds the directory that the tree of a context shows.
func (s *sources) shownAs(ctx context.Context, name string) (*directory, bool) {
	ctxName, ok := strings.CutPrefix(name, contextTree(""))
	if !ok {
		return nil, false
	}
	d, err := s.directory(ctx, ctxName)
	return d, err == nil && d != nil
}

// unchangedStat is unchanged for a file that is described by st.
func (s *sources) unchangedStat(d *directory, file string, st *unix.Stat_t) error {
	e, ok := d.tree.Known(file)
	if !ok || e.Ino == 0 {
		return nil
	}
	if st.Ino != e.Ino || st.Size != e.Size || !time.Unix(st.Ctim.Unix()).Equal(e.Change) && !s.onlyMoved(st, e.Change) {
		s.changed.Store(true)
		return &diag.Problem{What: fmt.Sprintf("%s changed while it was built", file), Hint: "build again when nothing writes to the context"}
	}
	return nil
}

// noteMoved remembers that files were moved.
func (s *sources) noteMoved(list []inplace.Moved) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.moved == nil {
		s.moved = map[[2]uint64]inplace.Moved{}
	}
	for _, m := range list {
		id := [2]uint64{m.Dev, m.Ino}
		if old, ok := s.moved[id]; ok && old.After.Equal(m.Before) {
			m.Before = old.Before
		}
		s.moved[id] = m
	}
}

// onlyMoved tells whether nothing but moves gave a file another change time than before.
func (s *sources) onlyMoved(st *unix.Stat_t, before time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.moved[[2]uint64{st.Dev, st.Ino}]
	return ok && m.Before.Equal(before) && m.After.Equal(time.Unix(st.Ctim.Unix()))
}

// hasher is what is remembered about the files of a directory, shared by all
// nodes that read it.
func (x *Executor) hasher(dir string) (*buildctx.Hasher, error) { return x.hashers.of(dir) }

// hashers are what is remembered about the files of directories.
type hashers struct {
	store *store.Store

	mu   sync.Mutex
	dirs map[string]*buildctx.Hasher
}

func (h *hashers) of(dir string) (*buildctx.Hasher, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if known := h.dirs[dir]; known != nil {
		return known, nil
	}
	sum := sha256.Sum256([]byte(dir))
	files := h.store.FilesDir(hex.EncodeToString(sum[:16]))
	h.store.Use(files) // the folder, not its file: that is replaced
	opened, err := buildctx.OpenHasher(filepath.Join(files, "index"))
	if err != nil {
		return nil, err
	}
	h.dirs[dir] = opened
	return opened, nil
}

// save keeps what was learnt.
func (h *hashers) save() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var err error
	for _, one := range h.dirs {
		err = errors.Join(err, one.Save())
	}
	return err
}

// remote fetches a source of ADD and gives the key lines of it.
func (s *sources) remote(ctx context.Context, name string, r dockerfile.Remote, p ocispec.Platform) ([]string, error) {
	var t tree.Tree
	var line string
	var made material
	fetcher, err := s.fetcher(ctx, r)
	if err != nil {
		return nil, err
	}
	if r.Git != nil {
		repo := gitRepo(r.Git)
		commit, err := fetcher.Commit(ctx, repo)
		if err != nil {
			return nil, refused(err, r)
		}
		d, err := fetcher.Checkout(ctx, repo, commit)
		if err != nil {
			return nil, refused(err, r)
		}
		s.onClose(d.Close)
		made = material{Redacted(repo.Remote) + fragment(repo.Ref), map[string]string{"sha1": commit.Digest()}}
		if len(commit.Digest()) == 2*sha256.Size {
			made.Digest = map[string]string{"sha256": commit.Digest()}
		}
		t, line = d, fmt.Sprintf("git %s subdir %s keep-git-dir %v submodules %v", commit.ID, repo.Subdir, repo.KeepGitDir, !repo.NoSubmodules)
	} else {
		f, err := fetcher.Get(ctx, r.URL, r.Name, r.Checksum)
		if err != nil {
			return nil, refused(err, r)
		}
		if t, err = f.Tree(); err != nil {
			return nil, err
		}
		line = "url " + f.Name + " " + f.Digest
		made = material{Redacted(r.URL), digestSet(digest.Digest(f.Digest))}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trees[name] = t
	if !slices.ContainsFunc(s.fetched, func(m material) bool { return m.URI == made.URI }) {
		s.fetched = append(s.fetched, made)
	}
	return []string{line}, nil
}

// fragment is a ref at the end of an address.
func fragment(ref string) string {
	if ref == "" {
		return ""
	}
	return "#" + ref
}

// materials are what was fetched, sorted.
func (s *sources) materials() []material {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := slices.Clone(s.fetched)
	slices.SortFunc(out, func(a, b material) int { return strings.Compare(a.URI, b.URI) })
	return out
}

func gitRepo(g *dockerfile.Git) buildctx.Repo {
	return buildctx.Repo{
		Remote: g.Remote, Ref: g.Ref, Subdir: g.Subdir, Checksum: g.Checksum, KeepGitDir: g.KeepGitDir,
		NoSubmodules: g.NoSubmodules, FetchByCommit: g.FetchByCommit,
	}
}

func (s *sources) onClose(f func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = append(s.closed, f)
}

// remoteEpoch is the time of a remote source that SOURCE_DATE_EPOCH names.
func (s *sources) remoteEpoch(ctx context.Context, r dockerfile.Remote) (*int64, error) {
	fetcher, err := s.fetcher(ctx, r)
	if err != nil {
		return nil, err
	}
	if r.Git != nil {
		repo := gitRepo(r.Git)
		repo.CommitTimes = true
		commit, err := fetcher.Commit(ctx, repo)
		if err != nil {
			return nil, refused(err, r)
		}
		d, err := fetcher.Checkout(ctx, repo, commit)
		if err != nil {
			return nil, refused(err, r)
		}
		e, err := d.Lstat(ctx, "")
		at := e.ModTime.Unix()
		return &at, errors.Join(err, d.Close())
	}
	f, err := fetcher.Get(ctx, r.URL, r.Name, r.Checksum)
	if err != nil || f.ModTime.Unix() == 0 {
		return nil, refused(err, r)
	}
	at := f.ModTime.Unix()
	return &at, nil
}
