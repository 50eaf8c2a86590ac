package changes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// ErrHistory says that git cannot tell: there is no repository, or a revision or
// the history between two is not in this clone.
var ErrHistory = errors.New("git cannot tell what changed")

// Set is what changed.
type Set struct {
	Base  string   // the commit compared with, in full
	Root  string   // of the work tree, absolute
	Files []string // absolute, sorted
}

// Since lists what changed in the work tree around dir.
func Since(ctx context.Context, dir string, r Range) (*Set, error) {
	root, err := git(ctx, dir, "rev-parse", "--show-toplevel")
	if err != nil {
		return nil, err
	}
	s := &Set{Root: strings.TrimSuffix(root, "\n")}
	head := r.Head
	if head == "" {
		head = "HEAD"
	}
	base, err := git(ctx, dir, "merge-base", "--", r.Base, head)
	if err != nil {
		return nil, fmt.Errorf("%w (no common commit of %s and %s; a shallow clone has too little: fetch more of it)", err, r.Base, head)
	}
	s.Base = strings.TrimSpace(base)
	diff := []string{"diff", "--name-only", "--no-renames", "--no-ext-diff", "-z", s.Base}
	if r.Head != "" {
		diff = append(diff, r.Head)
	}
	lists := [][]string{append(diff, "--")}
	if r.Head == "" {
		lists = append(lists, []string{"ls-files", "--others", "--exclude-standard", "-z"})
	}
	for _, args := range lists {
		out, err := git(ctx, s.Root, args...)
		if err != nil {
			return nil, err
		}
		for name := range strings.SplitSeq(out, "\x00") {
			if name != "" {
				s.Files = append(s.Files, filepath.Join(s.Root, filepath.FromSlash(name)))
			}
		}
	}
	slices.Sort(s.Files)
	s.Files = slices.Compact(s.Files)
	return s, nil
}

// git runs one command; no pager, no prompt, no lock for what only looks.
func git(ctx context.Context, dir string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, "git", append([]string{"--no-optional-locks", "-c", "core.quotePath=false"}, args...)...)
	c.Dir = dir
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err != nil {
		text, _, _ := strings.Cut(strings.TrimSpace(errs.String()), "\n")
		if text == "" {
			text = err.Error()
		}
		return "", fmt.Errorf("%w: git %s: %s", ErrHistory, args[0], text)
	}
	return out.String(), nil
}

// Tree is the files of a commit below a directory of the work tree, as an fs.FS.
// It serves what reading a manifest takes: regular files and directories.
type Tree struct {
	ctx    context.Context // of the whole reading
	root   string
	commit string
	below  string // slash-separated, relative to the root
}

// At is the tree of the set's base below dir.
func (s *Set) At(ctx context.Context, dir string) (*Tree, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, err
	}
	rel, err := filepath.Rel(s.Root, dir)
	if err != nil {
		return nil, err
	}
	return &Tree{ctx, s.Root, s.Base, filepath.ToSlash(rel)}, nil
}

// Open is that of fs.FS.
func (t *Tree) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	absent := &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	full := path.Join(t.below, name)
	if full == "." {
		list, err := t.list("")
		return &treeFile{info: treeInfo{".", fs.ModeDir | 0o755, 0}, list: list}, err
	}
	out, err := git(t.ctx, t.root, "ls-tree", "-z", t.commit, "--", full)
	if err != nil || out == "" {
		return nil, absent
	}
	kind, hash := object(out)
	info := treeInfo{path.Base(name), 0o644, 0}
	if kind == "tree" {
		info.mode = fs.ModeDir | 0o755
		list, err := t.list(full + "/")
		return &treeFile{info: info, list: list}, err
	}
	if kind != "blob" {
		return nil, absent
	}
	text, err := git(t.ctx, t.root, "cat-file", "blob", hash)
	if err != nil {
		return nil, err
	}
	info.size = int64(len(text))
	return &treeFile{info: info, Reader: strings.NewReader(text)}, nil
}

// object reads a line of ls-tree: MODE KIND HASH<tab>NAME.
func object(line string) (kind, hash string) {
	about, _, _ := strings.Cut(line, "\t")
	f := strings.Fields(about)
	if len(f) != 3 || f[0] == "120000" { // links lead where only a file system knows
		return "", ""
	}
	return f[1], f[2]
}

func (t *Tree) list(prefix string) ([]fs.DirEntry, error) {
	args := []string{"ls-tree", "-z", t.commit}
	if prefix != "" {
		args = append(args, "--", prefix)
	}
	out, err := git(t.ctx, t.root, args...)
	if err != nil {
		return nil, err
	}
	var list []fs.DirEntry
	for line := range strings.SplitSeq(out, "\x00") {
		_, name, ok := strings.Cut(line, "\t")
		kind, _ := object(line)
		if !ok || kind != "tree" && kind != "blob" {
			continue
		}
		info := treeInfo{path.Base(name), 0o644, 0}
		if kind == "tree" {
			info.mode = fs.ModeDir | 0o755
		}
		list = append(list, fs.FileInfoToDirEntry(info))
	}
	return list, nil
}

type treeFile struct {
	*strings.Reader
	info treeInfo
	list []fs.DirEntry
}

func (f *treeFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *treeFile) Close() error               { return nil }
func (f *treeFile) Read(b []byte) (int, error) {
	if f.Reader == nil {
		return 0, &fs.PathError{Op: "read", Path: f.info.name, Err: errors.New("is a directory")}
	}
	return f.Reader.Read(b)
}

// ReadDir is that of fs.ReadDirFile, all at once.
func (f *treeFile) ReadDir(n int) ([]fs.DirEntry, error) {
	list := f.list
	f.list = nil
	return list, nil
}

type treeInfo struct {
	name string
	mode fs.FileMode
	size int64
}

func (i treeInfo) Name() string       { return i.name }
func (i treeInfo) Size() int64        { return i.size }
func (i treeInfo) Mode() fs.FileMode  { return i.mode }
func (i treeInfo) ModTime() time.Time { return time.Time{} }
func (i treeInfo) IsDir() bool        { return i.mode.IsDir() }
func (i treeInfo) Sys() any           { return nil }
