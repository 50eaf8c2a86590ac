package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"kaniko-build/cmd/kaniko-build/internal/files"
	"kaniko-build/schema"
	"kaniko-build/schema/diag"
)

// manifestFlags choose a manifest and what fills it in.
type manifestFlags struct {
	files    []string
	profiles []string
	vars     []string
	varFiles []string
	sets     []string
	allow    []string

	brought checkouts // repositories that reading the manifest took
}

func (f *manifestFlags) add(c *cobra.Command) {
	fl := c.Flags()
	fl.StringArrayVarP(&f.files, "file", "f", nil, "the manifest; further ones are merged over it (default: kaniko-build.yaml here or above, up to the git root, and kaniko-build.override.yaml beside it unless CI is set)")
	fl.StringArrayVar(&f.profiles, "profile", nil, "turn a profile of the manifest on; none turns off those that their conditions turn on")
	fl.StringArrayVar(&f.vars, "var", nil, "set a variable of the manifest, NAME=VALUE")
	fl.StringArrayVar(&f.varFiles, "var-file", nil, "set variables from a YAML file")
	fl.StringArrayVar(&f.sets, "set", nil, "change targets, TARGET.KEY=YAML; patterns, KEY+ and KEY- as in the manifest: '*.platforms+=[linux/arm64]'")
	fl.StringArrayVar(&f.allow, "allow", nil, "allow what the manifest may not do by itself: fs:DIR, paths that lead to a directory outside of the workspace; and what files of other repositories may not: env, hooks, outputs, registries, secrets, ssh, unpinned")
}

func (f *manifestFlags) read(ctx context.Context) (*workspace, error) {
	return f.readBy(ctx, os.DirFS)
}

// readBy is read with the workspace's files as open shows them.
func (f *manifestFlags) readBy(ctx context.Context, open func(root string) fs.FS) (*workspace, error) {
	defer reading()()
	if len(f.files) == 1 && isRepository(f.files[0]) {
		return f.readRepository(ctx, f.files[0])
	}
	files, err := f.find()
	if err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(files[0])
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", files[0], err)
	}
	w := &workspace{root: filepath.Dir(abs)}
	w.manifest, err = f.parseFiles(ctx, open(w.root), files)
	w.brought = f.brought
	return w, unreadable(files[0], err)
}

// parse reads the manifest in another state of the workspace.
func (f *manifestFlags) parse(ctx context.Context, fsys fs.FS) (*schema.Manifest, error) {
	files, err := f.find()
	if err != nil {
		return nil, err
	}
	return f.parseFiles(ctx, fsys, files)
}

// parseFiles reads the first of names in fsys, the directory that it is in, and
// merges the others over it. Those that fsys lacks are read from where they are.
func (f *manifestFlags) parseFiles(ctx context.Context, fsys fs.FS, names []string) (*schema.Manifest, error) {
	abs, err := filepath.Abs(names[0])
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", names[0], err)
	}
	root := filepath.Dir(abs)
	o, err := f.options(ctx, root)
	if err != nil {
		return nil, err
	}
	for _, file := range names[1:] {
		if file, err = filepath.Abs(file); err != nil {
			return nil, fmt.Errorf("find %s: %w", file, err)
		}
		name, err := filepath.Rel(root, file)
		if err != nil {
			return nil, fmt.Errorf("find %s: %w", file, err)
		}
		text, err := fs.ReadFile(fsys, filepath.ToSlash(name))
		if err != nil {
			text, err = os.ReadFile(file)
		}
		if err != nil {
			return nil, unreadable(file, err)
		}
		o.Over = append(o.Over, schema.File{Name: filepath.ToSlash(name), Text: text})
	}
	return schema.Parse(fsys, filepath.Base(abs), o)
}

// reading lets the heap grow until back is called, while a manifest and its Dockerfiles
// are read: what is made of them stays, and to look for garbage in it is a quarter of
// the work. 1,000 targets take 100 MB without any look.
func reading() (back func()) {
	percent, limit := debug.SetGCPercent(readingGC), debug.SetMemoryLimit(readingLimit)
	return func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	}
}

const (
	readingGC    = 800       // per cent
	readingLimit = 160 << 20 // bytes, from which on it is looked for all the same
)

// find is the files of the manifest: those of -f, else what lies here.
func (f *manifestFlags) find() ([]string, error) {
	if len(f.files) > 0 {
		for _, name := range f.files {
			if err := unreadable(name, files.Check(name)); err != nil {
				return nil, err
			}
		}
		return f.files, nil
	}
	here, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("find the working directory: %w", err)
	}
	file, err := schema.Discover(here, uint32(os.Getuid()), owners)
	if err != nil {
		return nil, err
	}
	if err := unreadable(file, files.Check(file)); err != nil {
		return nil, err
	}
	if os.Getenv("CI") != "" {
		return []string{file}, nil
	}
	over, err := schema.Override(file, uint32(os.Getuid()), owners)
	if err != nil || over == "" {
		return []string{file}, err
	}
	return []string{file, over}, nil
}

// unreadable is a manifest that is not there or may not be read, by its name.
func unreadable(file string, err error) error {
	var kind *files.KindError
	var usage usageError
	switch {
	case errors.As(err, &usage): // it is about a flag
		return err
	case errors.Is(err, fs.ErrNotExist) && file == "-":
		return &diag.Problem{What: "a manifest is not read from standard input", Hint: "its paths count from the directory that it is in: write it to a file, and name that with -f"}
	case errors.As(err, &kind):
		return &diag.Problem{Pos: diag.Pos{File: file}, What: "the manifest is " + kind.Kind, Hint: "a manifest is a file, kaniko-build.yaml or what -f names"}
	case errors.Is(err, unix.ELOOP):
		return &diag.Problem{Pos: diag.Pos{File: file}, What: "the manifest is a link that leads round in a circle", Hint: "make it a file"}
	case errors.Is(err, fs.ErrNotExist):
		return &diag.Problem{Pos: diag.Pos{File: file}, What: "there is no such manifest", Hint: "kaniko-build reads kaniko-build.yaml; name another with -f"}
	case errors.Is(err, fs.ErrPermission):
		return &diag.Problem{Pos: diag.Pos{File: file}, What: "the manifest cannot be read: permission denied", Hint: "make it readable for this user"}
	}
	return err
}

// options is what flags and the environment say to the manifest in root.
func (f *manifestFlags) options(ctx context.Context, root string) (schema.Options, error) {
	o := schema.Options{
		WorkspaceName: filepath.Base(root), LookupEnv: os.LookupEnv, Profiles: f.profiles, Now: time.Now(),
		Git:   func(fact string) (string, error) { return gitFact(ctx, root, fact) },
		Trust: func(name string) error { return schema.Trust(filepath.Join(root, name), uint32(os.Getuid()), owners) },
	}
	if epoch, err := sourceDateEpoch(); err != nil {
		return o, err
	} else if epoch != nil {
		o.Now = time.Unix(*epoch, 0)
	}
	for _, v := range f.vars {
		name, value, ok := strings.Cut(v, "=")
		if !ok {
			return o, usageError{fmt.Errorf("--var %q: write NAME=VALUE", v)}
		}
		o.Vars = append(o.Vars, schema.Setting{Name: name, Value: value})
	}
	for _, v := range f.sets {
		name, value, ok := strings.Cut(v, "=")
		if !ok {
			return o, usageError{fmt.Errorf("--set %q: write TARGET.KEY=VALUE", v)}
		}
		o.Sets = append(o.Sets, schema.Setting{Name: name, Value: value})
	}
	for _, name := range f.varFiles {
		b, err := files.Read(name, maxVarFile)
		if err != nil {
			return o, usageError{fmt.Errorf("--var-file %s: %w\n  hint: name a YAML file with NAME: VALUE in each line", name, files.Pathless(err))}
		}
		o.VarFiles = append(o.VarFiles, schema.File{Name: name, Text: b})
	}
	if f.brought == nil {
		f.brought = checkouts{}
	}
	o.Repository, o.Archive = f.brought.bring(ctx), f.brought.fetch(ctx)
	for _, a := range f.allow {
		dir, ok := strings.CutPrefix(a, "fs:")
		if !ok {
			for name := range strings.SplitSeq(a, ",") {
				if !slices.Contains(schema.Allowances(), name) {
					return o, usageError{fmt.Errorf("--allow %q: write fs:DIR, or %s", a, strings.Join(schema.Allowances(), ", "))}
				}
				o.Allow = append(o.Allow, name)
			}
			continue
		}
		if dir == "" {
			return o, usageError{fmt.Errorf("--allow %q: write fs:DIR", a)}
		}
		abs, err := filepath.Abs(dir)
		if err != nil {
			return o, fmt.Errorf("find %s: %w", dir, err)
		}
		rel, err := filepath.Rel(root, abs)
		if err != nil {
			return o, fmt.Errorf("find %s: %w", dir, err)
		}
		o.AllowFS = append(o.AllowFS, filepath.ToSlash(abs), filepath.ToSlash(rel))
	}
	return o, nil
}

// owners tells who owns a file, and what it leads to if it is a link.
func owners(name string) ([]uint32, error) {
	var own, target unix.Stat_t
	if err := unix.Lstat(name, &own); err != nil {
		return nil, &os.PathError{Op: "lstat", Path: name, Err: err}
	}
	if own.Mode&unix.S_IFMT != unix.S_IFLNK {
		return []uint32{own.Uid}, nil
	}
	if err := unix.Stat(name, &target); err != nil {
		return nil, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	return []uint32{own.Uid, target.Uid}, nil
}
