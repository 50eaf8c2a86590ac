package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"kaniko-build/cmd/kaniko-build/internal/scaffold"
	"kaniko-build/executor"
	"kaniko-build/schema/diag"
)

func newInit(t terminal) *cobra.Command {
	var force bool
	output := "kaniko-build.yaml"
	c := &cobra.Command{
		Use:   "init [flags] [DIR]",
		Short: "Write a manifest for the Dockerfiles of a repository",
		Long: `Write the smallest manifest that builds the Dockerfiles below DIR (the working
directory): a target each, named after its directory or itself. A context is the
directory of the Dockerfile, or the root if what it copies lies there. Where one
Dockerfile names another's image, the edge follows from it.`,
		Example: "  kaniko-build init\n  kaniko-build init -o - services",
		RunE: func(_ *cobra.Command, args []string) error {
			dir := "."
			switch len(args) {
			case 0:
			case 1:
				dir = args[0]
			default:
				return usageError{fmt.Errorf("init takes one directory, got %d arguments", len(args))}
			}
			return t.scaffold(dir, output, force)
		},
	}
	c.Flags().StringVarP(&output, "output", "o", output, "the manifest to write, in DIR; - is standard output")
	c.Flags().BoolVar(&force, "force", false, "replace a manifest that is there")
	return c
}

// scaffold writes a manifest for the Dockerfiles below dir.
func (t terminal) scaffold(dir, output string, force bool) error {
	root, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("find %s: %w", dir, err)
	}
	fsys := os.DirFS(root)
	names, err := scaffold.Find(fsys)
	if err != nil {
		return fmt.Errorf("look for Dockerfiles: %w", err)
	}
	if len(names) == 0 {
		return &diag.Problem{What: "there is no Dockerfile below " + root, Hint: "name the directory that has them"}
	}
	var files []scaffold.Dockerfile
	for _, name := range names {
		f := scaffold.Dockerfile{Path: name}
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		r := executor.Request{Dockerfile: executor.Text{Name: name, Data: text}}
		refs, err := executor.References(r)
		if err == nil {
			f.Copies, err = executor.Copies(r)
		}
		if err != nil { // it builds no better without a target
			fmt.Fprintf(t.err, "warning: %v\n", err)
		}
		for _, ref := range refs {
			f.Bases = append(f.Bases, ref.Name)
		}
		files = append(files, f)
	}
	targets := scaffold.Guess(files, filepath.Base(root), func(name string) bool {
		_, err := fs.Stat(fsys, name)
		return err == nil
	})
	var b bytes.Buffer
	if err := scaffold.Write(&b, targets); err != nil {
		return err
	}
	if output == "-" {
		_, err := t.out.Write(b.Bytes())
		return err
	}
	file := filepath.Join(root, output)
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) && !force {
		return &diag.Problem{What: file + " is there already", Hint: "--force replaces it; -o - prints what would be written"}
	}
	if err := writeWhole(file, func(w io.Writer) error { _, err := w.Write(b.Bytes()); return err }); err != nil {
		return err
	}
	_, err = fmt.Fprintf(t.out, "%s: %d targets; kaniko-build plan shows them\n", output, len(targets))
	return err
}
