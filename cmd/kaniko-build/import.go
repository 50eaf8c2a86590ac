package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"kaniko-build/cmd/kaniko-build/internal/files"
	"kaniko-build/cmd/kaniko-build/internal/importer"
	"kaniko-build/cmd/kaniko-build/internal/importer/bake"
	"kaniko-build/cmd/kaniko-build/internal/importer/compose"
	"kaniko-build/cmd/kaniko-build/internal/importer/skaffold"
	"kaniko-build/executor"
	"kaniko-build/plan"
	"kaniko-build/schema"
	"kaniko-build/schema/diag"
)

// importFlags are those of init.
type importFlags struct {
	from   []string
	output string
	force  bool
	dryRun bool
}

// readImported reads the files of --from, which are of one program.
func readImported(names []string) ([]importer.File, importer.Kind, error) {
	var out []importer.File
	var kind importer.Kind
	for _, name := range names {
		text, err := files.Read(name, maxImported)
		var odd *files.KindError
		var large *files.SizeError
		if errors.Is(err, fs.ErrNotExist) {
			return nil, "", &diag.Problem{Pos: diag.Pos{File: name}, What: "there is no such file", Hint: "--from names a docker-bake.hcl, docker-bake.json, compose.yaml or skaffold.yaml"}
		}
		if errors.As(err, &odd) {
			return nil, "", &diag.Problem{Pos: diag.Pos{File: name}, What: "this is " + odd.Kind, Hint: "--from names a file: docker-bake.hcl, docker-bake.json, compose.yaml or skaffold.yaml"}
		}
		if err != nil && !errors.As(err, &large) {
			return nil, "", &diag.Problem{Pos: diag.Pos{File: name}, What: fmt.Sprintf("the file cannot be read: %v", files.Pathless(err)), Hint: "make it readable for this user"}
		}
		if large != nil {
			return nil, "", &diag.Problem{Pos: diag.Pos{File: name}, What: fmt.Sprintf("the file has more than %d MB", maxImported>>20)}
		}
		one := importer.KindOf(name, text)
		switch {
		case one == "":
			return nil, "", &diag.Problem{Pos: diag.Pos{File: name}, What: "this is no file of bake, compose or skaffold", Hint: "bake's end with .hcl or have targets, compose's have services:, skaffold's begin with apiVersion: skaffold/"}
		case slices.ContainsFunc(out, func(f importer.File) bool { return f.Name == name }):
			return nil, "", usageError{fmt.Errorf("--from %s is given twice", name)}
		case kind != "" && one != kind:
			return nil, "", &diag.Problem{Pos: diag.Pos{File: name}, What: fmt.Sprintf("this is a file of %s, and %s one of %s", one, out[0].Name, kind), Hint: "files that are laid over each other are of one program: import the others by themselves"}
		case kind == importer.Skaffold:
			return nil, "", &diag.Problem{Pos: diag.Pos{File: name}, What: "skaffold reads one file, and there is another", Hint: "name the one that requires: the other"}
		}
		kind = one
		out = append(out, importer.File{Name: name, Text: text})
	}
	return out, kind, nil
}

// imports writes a manifest for what another program's files build. Without a
// directory it is the working directory, or the nearest one above it, in the same
// work tree, below which all contexts lie.
func (t terminal) imports(ctx context.Context, f importFlags, dir string) error {
	files, kind, err := readImported(f.from)
	if err != nil {
		return err
	}
	first := files[0].Name
	file, err := filepath.Abs(first)
	if err != nil {
		return fmt.Errorf("find %s: %w", first, err)
	}
	here, err := filepath.Abs(".")
	if err != nil {
		return fmt.Errorf("find the working directory: %w", err)
	}
	base := filepath.Dir(file)
	if kind == importer.Bake {
		base = here // as bake takes them
	}
	root, fixed := here, dir != "" || f.output != manifestName
	if dir != "" {
		if root, err = filepath.Abs(dir); err != nil {
			return fmt.Errorf("find %s: %w", dir, err)
		}
	}
	var d *importer.Draft
	for {
		rel, err := filepath.Rel(root, base)
		if err != nil {
			return fmt.Errorf("find %s: %w", base, err)
		}
		paths := &importer.Paths{Base: filepath.ToSlash(rel)}
		switch kind {
		case importer.Bake:
			d, err = bake.Import(files, paths)
		case importer.Compose:
			d, err = compose.Import(files, paths, os.ReadFile)
		case importer.Skaffold:
			d, err = skaffold.Import(first, files[0].Text, paths, os.ReadFile)
		}
		if err != nil {
			return err
		}
		if paths.Up == 0 {
			break
		}
		above := root
		for range paths.Up {
			above = filepath.Dir(above)
		}
		if fixed || !sameWorkTree(root, above) {
			d.Drop(diag.Pos{File: first}, fmt.Sprintf("write the manifest there: kaniko-build init --from %s %s; or allow it with --allow fs:%s", strings.Join(f.from, " --from "), above, above), "paths that lead out of %s", root)
			break
		}
		root = above
	}
	var b bytes.Buffer
	if err := d.Write(&b); err != nil {
		return err
	}
	name := f.output
	if name == "-" || f.dryRun {
		name = manifestName
	}
	m, parsed := t.tryManifest(ctx, d, root, name, b.Bytes())
	if f.output == "-" || f.dryRun {
		if _, err := t.out.Write(b.Bytes()); err != nil {
			return err
		}
	} else {
		if err := t.writeManifest(root, f.output, f.force, b.Bytes()); err != nil {
			return err
		}
		shown, err := filepath.Rel(here, filepath.Join(root, f.output))
		if err != nil {
			shown = filepath.Join(root, f.output)
		}
		if _, err := fmt.Fprintf(t.out, "%s: %d targets; kaniko-build plan shows them\n", shown, len(d.Targets)); err != nil {
			return err
		}
	}
	if m != nil && parsed == nil && kind != importer.Skaffold {
		t.compareBake(ctx, d, files, m, root, kind == importer.Compose)
	}
	return t.tellImport(d, parsed)
}

const (
	manifestName = "kaniko-build.yaml"
	maxImported  = 16 << 20 // bytes
)

// tryManifest reads the manifest as commands will; what they would refuse comes
// with the report.
func (t terminal) tryManifest(ctx context.Context, d *importer.Draft, root, name string, text []byte) (*schema.Manifest, error) {
	o, err := (&manifestFlags{}).options(ctx, root)
	if err != nil {
		return nil, err
	}
	o.Trust, o.Now = nil, time.Unix(0, 0)
	// What lies elsewhere is fetched when it is built.
	o.Archive = func(string, string) (string, error) { return strings.Repeat("0", 64), nil }
	o.Repository = func(string, string) (fs.FS, string, error) { return embed.FS{}, strings.Repeat("0", 40), nil }
	m, err := schema.Parse(withFile{os.DirFS(root), name, text}, name, o)
	if err != nil {
		if unset := t.withVariables(d, root, name, text, o); len(unset) > 0 {
			fmt.Fprintf(t.err, "note: nothing can be built before these are set, which are empty by default: %s; they may be in the environment, or --var\n", strings.Join(unset, ", "))
			return nil, nil
		}
		return nil, err
	}
	facts := plan.Facts{Platform: executor.HostPlatform()}
	_, all := plan.Make(m, nil, facts, noDockerfiles{})
	if all == nil {
		return m, nil
	}
	for _, target := range m.Targets {
		if _, err := plan.Make(m, []string{target.Name}, facts, noDockerfiles{}); err != nil {
			return m, all
		}
	}
	fmt.Fprintf(t.err, "note: targets are built by their names, and not all at once:\n%s\n", printableLines(all.Error()))
	return m, nil
}

// withVariables is the variables that have to be set before a manifest is one: some of
// those that are empty. It is none if that does not help.
func (t terminal) withVariables(d *importer.Draft, root, name string, text []byte, o schema.Options) []string {
	good := func(set []string) bool {
		o.Vars = nil
		for _, v := range set {
			value := "1"
			if strings.Contains(strings.ToUpper(v), "PLATFORM") {
				value = "linux/amd64"
			}
			o.Vars = append(o.Vars, schema.Setting{Name: v, Value: value})
		}
		_, err := schema.Parse(withFile{os.DirFS(root), name, text}, name, o)
		return err == nil
	}
	var unset []string
	for _, v := range d.Vars {
		if v.None || v.Default.Value == "" && !v.Default.Null && v.Type == "" && v.List == nil {
			unset = append(unset, v.Name)
		}
	}
	if len(unset) == 0 || len(unset) > maxUnset || !good(unset) {
		return nil
	}
	for _, v := range slices.Clone(unset) { // those that matter
		if less := slices.DeleteFunc(slices.Clone(unset), func(s string) bool { return s == v }); good(less) {
			unset = less
		}
	}
	return unset
}

const maxUnset = 50 // variables that are tried

// noDockerfiles plans a manifest by what it says itself.
type noDockerfiles struct{}

func (noDockerfiles) References(schema.Target, string) ([]plan.Reference, error) { return nil, nil }

// tellImport prints what was left out and what is different. It is an error if
// something was.
func (t terminal) tellImport(d *importer.Draft, refused error) error {
	for _, n := range d.Sorted() {
		p := diag.Problem{Pos: n.Pos, What: "left out: " + n.What, Hint: n.Hint}
		if !n.Dropped {
			p.What = "note: " + n.What
		}
		fmt.Fprintln(t.err, printableLines(p.Error()))
	}
	if d.Evaluated > 0 {
		fmt.Fprintf(t.err, "note: %d values are what expressions make of the defaults; comments say which\n", d.Evaluated)
	}
	if refused != nil {
		fmt.Fprintf(t.err, "the manifest needs a hand before it can be used:\n%s\n", printableLines(refused.Error()))
	}
	if n := d.Dropped(); n > 0 || refused != nil {
		if n > 0 {
			fmt.Fprintf(t.err, "kaniko-build: not all was imported: %d left out\n", n)
		}
		return reported{&diag.Problem{What: "not all was imported"}}
	}
	return nil
}

// writeManifest writes a manifest that is not there yet.
func (t terminal) writeManifest(root, output string, force bool, text []byte) error {
	file := output
	if !filepath.IsAbs(file) {
		file = filepath.Join(root, output)
	}
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) && !force {
		return &diag.Problem{What: file + " is there already", Hint: "--force replaces it; -o - prints what would be written"}
	}
	return files.Whole(file, func(w io.Writer) error { _, err := w.Write(text); return err })
}

// sameWorkTree tells whether a directory above another is in the same work tree of
// git: a manifest there is found from below.
func sameWorkTree(dir, above string) bool {
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Lstat(filepath.Join(d, ".git")); err == nil {
			rel, err := filepath.Rel(d, above)
			return err == nil && !strings.HasPrefix(rel, "..")
		}
		if d == filepath.Dir(d) {
			return false
		}
	}
}

// withFile is a file system with one more file in it.
type withFile struct {
	fs.FS
	name string
	text []byte
}

func (w withFile) Open(name string) (fs.File, error) {
	if name != w.name {
		return w.FS.Open(name)
	}
	return &memoryFile{bytes.NewReader(w.text), w}, nil
}

// memoryFile is a file that is nowhere yet.
type memoryFile struct {
	*bytes.Reader
	of withFile
}

func (f *memoryFile) Stat() (fs.FileInfo, error) { return f, nil }
func (f *memoryFile) Close() error               { return nil }
func (f *memoryFile) Name() string               { return filepath.Base(f.of.name) }
func (f *memoryFile) Size() int64                { return int64(len(f.of.text)) }
func (f *memoryFile) Mode() fs.FileMode          { return 0o644 }
func (f *memoryFile) ModTime() time.Time         { return time.Time{} }
func (f *memoryFile) IsDir() bool                { return false }
func (f *memoryFile) Sys() any                   { return nil }
