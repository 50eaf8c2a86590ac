package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"kaniko-build/cmd/kaniko-build/internal/files"
	"kaniko-build/cmd/kaniko-build/internal/importer"
	"kaniko-build/cmd/kaniko-build/internal/scaffold"
	"kaniko-build/executor"
	"kaniko-build/schema/diag"
)

func newInit(t terminal) *cobra.Command {
	f := importFlags{output: manifestName}
	c := &cobra.Command{
		Use:   "init [flags] [DIR]",
		Short: "Write a manifest for the Dockerfiles of a repository, or for another program's file",
		Long: `Write the smallest manifest that builds the Dockerfiles below DIR (the working
directory): a target each, named after its directory or itself. A context is the
directory of the Dockerfile, or the root if what it copies lies there. Where one
Dockerfile names another's image, the edge follows from it.

With --from it says what a docker-bake.hcl, docker-bake.json, compose.yaml or
skaffold.yaml says. Bake's paths count from the working directory, the others' from
their file. Several --from are laid over each other, as bake and compose lay theirs. What has no place in a manifest is listed with where it stands, and the
exit code is 3 then. Where docker buildx bake is installed, what it prints of the same
files is compared with the manifest. docs/import.md tells what becomes of what.`,
		Example: "  kaniko-build init\n  kaniko-build init -o - services\n  kaniko-build init --from docker-bake.hcl --dry-run\n  kaniko-build init --from compose.yaml --from compose.override.yaml",
		RunE: func(c *cobra.Command, args []string) error {
			dir := ""
			switch len(args) {
			case 0:
			case 1:
				dir = args[0]
			default:
				return usageError{fmt.Errorf("init takes one directory, and got %d\n  hint: %s", len(args), c.UseLine())}
			}
			if len(f.from) > 0 {
				return t.imports(c.Context(), f, dir)
			}
			return t.scaffold(cmp.Or(dir, "."), f)
		},
	}
	fl := c.Flags()
	fl.StringArrayVar(&f.from, "from", nil, "the file to import: docker-bake.hcl, docker-bake.json, compose.yaml or skaffold.yaml; others are laid over it")
	fl.StringVarP(&f.output, "output", "o", f.output, "the manifest to write, in DIR; - is standard output")
	fl.BoolVar(&f.force, "force", false, "replace a manifest that is there")
	fl.BoolVar(&f.dryRun, "dry-run", false, "print the manifest instead of writing it")
	return c
}

// scaffold writes a manifest for the Dockerfiles below dir.
func (t terminal) scaffold(dir string, f importFlags) error {
	root, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("find %s: %w", dir, err)
	}
	if st, err := os.Stat(root); err != nil || !st.IsDir() {
		what := "is not a directory"
		if err != nil {
			what = fmt.Sprintf("cannot be looked at: %v", files.Pathless(err))
		}
		return &diag.Problem{What: fmt.Sprintf("%s %s", dir, what), Hint: "name the directory that has the Dockerfiles"}
	}
	fsys := os.DirFS(root)
	names, err := scaffold.Find(fsys)
	if err != nil {
		return fmt.Errorf("look for Dockerfiles: %w", err)
	}
	if len(names) == 0 {
		hint := "name the directory that has them"
		for _, name := range importer.Known {
			if _, err := fs.Stat(fsys, name); err == nil {
				hint = "import what is there: kaniko-build init --from " + filepath.Join(dir, name)
				break
			}
		}
		return &diag.Problem{What: "there is no Dockerfile below " + root, Hint: hint}
	}
	var files []scaffold.Dockerfile
	for _, name := range names {
		d := scaffold.Dockerfile{Path: name}
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		r := executor.Request{Dockerfile: executor.Text{Name: name, Data: text}}
		refs, err := executor.References(r)
		if err == nil {
			d.Copies, err = executor.Copies(r)
		}
		if err != nil { // it builds no better without a target
			fmt.Fprintf(t.err, "warning: %v\n", err)
		}
		for _, ref := range refs {
			d.Bases = append(d.Bases, ref.Name)
		}
		files = append(files, d)
	}
	targets := scaffold.Guess(files, filepath.Base(root), func(name string) bool {
		_, err := fs.Stat(fsys, name)
		return err == nil
	})
	var b bytes.Buffer
	if err := scaffold.Write(&b, targets); err != nil {
		return err
	}
	for _, name := range importer.Known {
		if fi, err := fs.Stat(fsys, name); err == nil && fi.Mode().IsRegular() {
			fmt.Fprintf(t.err, "note: %s is there too: kaniko-build init --from %s imports what it says\n", name, filepath.Join(dir, name))
		}
	}
	if f.output == "-" || f.dryRun {
		_, err := t.out.Write(b.Bytes())
		return err
	}
	if err := t.writeManifest(root, f.output, f.force, b.Bytes()); err != nil {
		return err
	}
	_, err = fmt.Fprintf(t.out, "%s: %d targets; kaniko-build plan shows them\n", f.output, len(targets))
	return err
}
