package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"kaniko-build/executor"
)

// engine is a program that takes an archive of an image on its standard input.
type engine struct {
	name string
	argv []string
	all  string // flag with which it takes all platforms of an index, "" if it needs none
	// whole says that it keeps an index as it is, with all platforms and attestations, in
	// an archive as OCI has it.
	whole bool
}

// engines are those that can be named.
var engines = []engine{
	{name: "docker", argv: []string{"docker", "load"}},
	{name: "podman", argv: []string{"podman", "load"}},
	{name: "containerd", argv: []string{"ctr", "--namespace", "default", "images", "import"}, all: "--all-platforms", whole: true},
	{name: "k8s.io", argv: []string{"ctr", "--namespace", "k8s.io", "images", "import"}, all: "--all-platforms", whole: true},
}

// findEngine is the engine of that name, the first that answers without one.
func findEngine(ctx context.Context, name string) (engine, error) {
	for _, e := range engines {
		program := e.argv[0]
		if name != e.name && (name != "" || exec.CommandContext(ctx, program, "version").Run() != nil) {
			continue
		}
		if e.name == "docker" {
			e.whole = containerdStore(ctx)
		}
		return e, nil
	}
	if name != "" {
		return engine{}, usageError{fmt.Errorf("no engine %q: choose docker, podman, containerd or k8s.io", name)}
	}
	return engine{}, &executor.MachineError{What: "neither Docker nor podman nor containerd answers on this machine", Remedy: "start one, or write an archive: kaniko-build save IMAGE > image.tar"}
}

// containerdStore tells whether Docker keeps its images in containerd, which can hold
// several platforms of one. Its own store cannot.
func containerdStore(ctx context.Context) bool {
	out, err := exec.CommandContext(ctx, "docker", "info", "--format", "{{json .DriverStatus}}").Output()
	return err == nil && bytes.Contains(out, []byte("io.containerd.snapshotter.v1"))
}

// takes is the command line that takes an archive, of all of an index or of one image.
func (e engine) takes(all bool) []string {
	argv := slices.Clone(e.argv)
	if all && e.all != "" {
		argv = append(argv, e.all)
	}
	if argv[0] == "ctr" {
		argv = append(argv, "-")
	}
	return argv
}

// give gives the engine an image of the store: the whole, or what it is for one
// platform.
func (e engine) give(ctx context.Context, t terminal, s *executor.Stored, platform string) error {
	o := executor.Output{Type: "docker", Dest: "-"}
	all := e.whole && s.IsIndex()
	if all {
		o.Type = "oci"
	}
	return load(ctx, t, e.takes(all), func(w io.Writer) error {
		o.Stdout = w
		_, err := s.Export(ctx, o, platform)
		return err
	})
}

func newLoad(t terminal) *cobra.Command {
	var platform, to string
	c := &cobra.Command{
		Use: "load [flags] IMAGE", Short: "Give an image of the store to Docker, podman or containerd",
		Long: `Give an image of the store to an engine of this machine by that engine's own program:
docker, podman, containerd, or k8s.io, the images of containerd that a kubelet
sees. Without --to the first that answers has it.

Containerd, and Docker where it keeps its images there, get an image for several
platforms whole, with what is stated about it; the others get that for one platform.`,
		Example: "  kaniko-build load registry.example.com/shop/api\n  kaniko-build load --to podman registry.example.com/shop/api",
		Args:    exactly(1, "one image"),
		RunE: func(c *cobra.Command, args []string) error {
			return withStored(c.Context(), args[0], func(ctx context.Context, s *executor.Stored) error {
				e, err := findEngine(ctx, to)
				if err != nil {
					return err
				}
				return e.give(ctx, t, s, platform)
			})
		},
	}
	c.Flags().StringVar(&to, "to", "", "docker, podman, containerd or k8s.io (default: the first that answers)")
	c.Flags().Var((*platformValue)(&platform), "platform", "of an image for several, OS/ARCH[/VARIANT] (default: all where the engine holds them, else this machine's)")
	return c
}

// load feeds an archive to a program while it is written.
func load(ctx context.Context, t terminal, argv []string, write func(io.Writer) error) error {
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.Stdout, c.Stderr = t.out, t.err
	in, err := c.StdinPipe()
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	if err := c.Start(); err != nil {
		return &executor.MachineError{What: fmt.Sprintf("%s cannot be started: %v", argv[0], err), Remedy: "install it, or choose another engine with --to"}
	}
	err = write(in)
	closed := in.Close()
	ended := c.Wait()
	if ended != nil { // why the rest failed
		return fmt.Errorf("%s: %w", strings.Join(argv, " "), ended)
	}
	if errors.Is(closed, os.ErrClosed) {
		closed = nil
	}
	return errors.Join(err, closed)
}
