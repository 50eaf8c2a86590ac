package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"kaniko-build/cmd/kaniko-build/internal/files"
	"kaniko-build/executor"
	"kaniko-build/schema/diag"
)

// contextFlags are those of context: what decides which files a Dockerfile
// reaches, and where the archive goes.
type contextFlags struct {
	buildFlags
	to string
}

func newContext(t terminal) *cobra.Command {
	f := &contextFlags{}
	c := &cobra.Command{
		Use:   "context [flags] DIR",
		Short: "Pack the files of a context that its Dockerfile can reach",
		Long: `Pack a Dockerfile and those files of its context that it can reach into a tar.gz: what COPY,
ADD and bind mounts select, after the ignore file. It is a context for builds elsewhere, as an object of a
bucket or through a pipe (executor --context tar://stdin). The same files give the same archive.`,
		Example: "  kaniko-build context . > context.tar.gz\n  kaniko-build context -f docker/web.Dockerfile -o web.tar.gz .",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("context takes one argument, the directory, and got %d\n  hint: kaniko-build context . > context.tar.gz", len(args))}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error { return f.run(c.Context(), t, args[0]) },
	}
	f.addInputs(c)
	fl := c.Flags()
	fl.StringVarP(&f.file, "file", "f", "", "the Dockerfile (default DIR/Dockerfile; - reads standard input)")
	fl.StringArrayVar(&f.args, "build-arg", nil, "set a build argument, NAME=VALUE, which names of files may depend on")
	fl.StringVar(&f.target, "target", "", "stage to build (default: the last)")
	fl.StringSliceVar(&f.platforms, "platform", nil, "platform of the image, OS/ARCH[/VARIANT] (default: this machine's)")
	fl.StringArrayVar(&f.contexts, "build-context", nil, "add a named context, NAME=DIR|docker-image://REF|oci-layout://DIR; it is not packed")
	fl.StringVarP(&f.to, "output", "o", "", "write to a file (default: standard output)")
	return c
}

func (f *contextFlags) run(ctx context.Context, t terminal, dir string) error {
	if strings.Contains(dir, "://") {
		return usageError{fmt.Errorf("%s is no directory\n  hint: what lies elsewhere is packed already", dir)}
	}
	if dir == "" {
		return usageError{errors.New("the context has no name\n  hint: write . for this directory")}
	}
	if err := checkPlatforms("platform", f.platforms); err != nil {
		return err
	}
	if f.platforms = normalPlatforms(f.platforms); len(f.platforms) > 1 {
		return usageError{fmt.Errorf("an archive has the files for one platform, not for %s\n  hint: pack one for each", strings.Join(f.platforms, " and "))}
	}
	if f.to == "" && isTerminal(t.out) {
		return usageError{errors.New("an archive is nothing to look at\n  hint: kaniko-build context . > context.tar.gz")}
	}
	x, err := f.open(ctx, nil, nil, nil)
	if err != nil {
		return err
	}
	return errors.Join(f.pack(ctx, t, x, dir), x.Close(ctx))
}

func (f *contextFlags) pack(ctx context.Context, t terminal, x *executor.Executor, dir string) (err error) {
	r, err := f.request(ctx, t, x, dir)
	if err != nil {
		return err
	}
	extra, err := dockerfileIn(ctx, r)
	if err != nil {
		return err
	}
	write := func(w io.Writer) error {
		return gzipped(w, func(w io.Writer) error { return x.WriteContext(ctx, r, extra, w) })
	}
	if f.to == "" {
		return write(t.out)
	}
	return files.Whole(f.to, write)
}

func gzipped(w io.Writer, write func(io.Writer) error) error {
	z := gzip.NewWriter(w)
	if err := write(z); err != nil {
		return err
	}
	return z.Close()
}

// dockerfileIn are the files that make an archive a context: the Dockerfile with
// its ignore file at the place they have, or that they get. A Dockerfile from
// elsewhere gets an ignore file that hides both of them, so that they are no
// more copied there than here.
func dockerfileIn(ctx context.Context, r executor.Request) (map[string][]byte, error) {
	own, err := executor.IgnoreFile(ctx, r.Context)
	if err != nil {
		return nil, err
	}
	extra := map[string][]byte{}
	if name, ok := below(r.Context, r.Dockerfile.Name); ok {
		extra[name] = r.Dockerfile.Data
		if own != nil {
			extra[".dockerignore"] = own
		}
		if r.Ignore != nil {
			extra[name+".dockerignore"] = r.Ignore.Data
		}
		return extra, nil
	}
	if _, err := os.Lstat(filepath.Join(r.Context, "Dockerfile")); err == nil {
		return nil, &diag.Problem{Pos: diag.Pos{File: r.Dockerfile.Name}, What: "the context has another Dockerfile in the place that this one gets in the archive", Hint: "put this one into the context under a name of its own"}
	}
	ignore := own
	if r.Ignore != nil {
		ignore = r.Ignore.Data
	}
	extra["Dockerfile"] = r.Dockerfile.Data
	extra["Dockerfile.dockerignore"] = append(bytes.TrimRight(bytes.Clone(ignore), "\n"), "\n/Dockerfile\n/Dockerfile.dockerignore\n"...)
	return extra, nil
}

// below is the name of a file in a directory, if that is where it is.
func below(dir, file string) (string, bool) {
	abs, err := filepath.Abs(file)
	if err != nil {
		return "", false
	}
	rel, err := filepath.Rel(dir, abs)
	if err != nil || !filepath.IsLocal(rel) {
		return "", false
	}
	fi, err := os.Lstat(abs)
	return filepath.ToSlash(rel), err == nil && fi.Mode().IsRegular()
}
