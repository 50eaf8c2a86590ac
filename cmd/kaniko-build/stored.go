package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"kaniko-build/executor"
)

// storedCommands are those about images that lie in the store.
func storedCommands(t terminal) []*cobra.Command {
	return []*cobra.Command{newInspect(t), newHistory(t), newTag(t), newRmi(t), newPull(t), newPushImage(t), newSave(t), newLoad(t), newUnpack(t)}
}

// withStore calls fn with an executor whose registries are those of flags alone.
func withStore(ctx context.Context, f runFlags, fn func(context.Context, *executor.Executor) error) error {
	x, err := f.open(ctx, nil, nil, nil)
	if err != nil {
		return err
	}
	return errors.Join(fn(ctx, x), x.Close(ctx))
}

// withStored is withStore for one image.
func withStored(ctx context.Context, name string, fn func(context.Context, *executor.Stored) error) error {
	return withStore(ctx, runFlags{}, func(ctx context.Context, x *executor.Executor) error {
		s, err := x.Stored(name)
		if err != nil {
			return err
		}
		return fn(ctx, s)
	})
}

// exactly refuses another number of arguments.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != n {
			got := "none"
			if len(args) > 0 {
				got = strconv.Itoa(len(args))
			}
			return usageError{fmt.Errorf("%s takes %s, and got %s\n  hint: %s", commandName(c), what, got, c.UseLine())}
		}
		if slices.Contains(args, "") {
			return usageError{fmt.Errorf("%s takes %s, and got an empty argument\n  hint: %s; a variable of the shell may be unset", commandName(c), what, c.UseLine())}
		}
		return nil
	}
}

func platformFlag(c *cobra.Command, to *string) {
	c.Flags().Var((*platformValue)(to), "platform", "of an image for several, OS/ARCH[/VARIANT] (default: this machine's)")
}

func newInspect(t terminal) *cobra.Command {
	var platform string
	c := &cobra.Command{
		Use: "inspect [flags] IMAGE", Short: "Show manifest, config and layers of an image in the store, as JSON",
		Example: "  kaniko-build inspect registry.example.com/shop/api",
		Args:    exactly(1, "one image"),
		RunE: func(c *cobra.Command, args []string) error {
			return withStored(c.Context(), args[0], func(ctx context.Context, s *executor.Stored) error {
				found, err := s.Inspect(ctx, platform)
				if err != nil {
					return err
				}
				enc := json.NewEncoder(t.out)
				enc.SetIndent("", "  ")
				enc.SetEscapeHTML(false)
				return enc.Encode(found)
			})
		},
	}
	platformFlag(c, &platform)
	return c
}

func newHistory(t terminal) *cobra.Command {
	var platform string
	var whole bool
	c := &cobra.Command{
		Use: "history [flags] IMAGE", Short: "Show which instruction made which layer of an image in the store",
		Example: "  kaniko-build history registry.example.com/shop/api",
		Args:    exactly(1, "one image"),
		RunE: func(c *cobra.Command, args []string) error {
			return withStored(c.Context(), args[0], func(ctx context.Context, s *executor.Stored) error {
				found, err := s.Inspect(ctx, platform)
				if err != nil {
					return err
				}
				return history(t.out, found, whole)
			})
		},
	}
	platformFlag(c, &platform)
	c.Flags().BoolVar(&whole, "no-trunc", false, "show instructions in full")
	return c
}

// history writes the newest instruction first, as docker history does.
func history(w io.Writer, found executor.Inspection, whole bool) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "CREATED\tSIZE\tLAYER\tBY")
	next := len(found.Layers)
	for i := len(found.History) - 1; i >= 0; i-- {
		h := found.History[i]
		bytes, layer := "-", "-"
		if !h.EmptyLayer && next > 0 {
			next--
			l := found.Layers[next]
			bytes, layer = size(l.Descriptor.Size), l.Descriptor.Digest.Encoded()[:12]
		}
		created := "-"
		if h.Created != nil {
			created = h.Created.UTC().Format(time.DateTime)
		}
		by := printable(oneLine(h.CreatedBy))
		if r := []rune(by); !whole && len(r) > 80 {
			by = string(r[:79]) + "…"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", created, bytes, layer, by)
	}
	return tw.Flush()
}

func newTag(terminal) *cobra.Command {
	return &cobra.Command{
		Use: "tag IMAGE NAME", Short: "Give an image in the store another name",
		Example: "  kaniko-build tag registry.example.com/shop/api registry.example.com/shop/api:1.4.0",
		Args:    exactly(2, "an image and a name"),
		RunE: func(c *cobra.Command, args []string) error {
			return withStored(c.Context(), args[0], func(_ context.Context, s *executor.Stored) error {
				return s.Tag(args[1])
			})
		},
	}
}

func newRmi(t terminal) *cobra.Command {
	return &cobra.Command{
		Use: "rmi IMAGE...", Short: "Take names away from images in the store",
		Long: `Take names away from images in the store. What they consist of stays for builds to
come, until prune removes it.`,
		Example: "  kaniko-build rmi registry.example.com/shop/api:old",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("rmi takes images\n  hint: kaniko-build images lists them")}
			}
			return withStore(c.Context(), runFlags{}, func(_ context.Context, x *executor.Executor) error {
				var all []*executor.Stored
				var errs []error
				for _, name := range args { // none goes when one is not there
					s, err := x.Stored(name)
					all, errs = append(all, s), append(errs, err)
				}
				if err := errors.Join(errs...); err != nil {
					return err
				}
				for _, s := range all {
					if err := s.Untag(); err != nil {
						return err
					}
					if _, err := fmt.Fprintln(t.out, s.Name); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func newPull(t terminal) *cobra.Command {
	var f runFlags
	var platform string
	c := &cobra.Command{
		Use: "pull [flags] IMAGE", Short: "Bring an image from its registry into the store",
		Long: `Bring an image for one platform from its registry into the store, with what is stated
about it in its index: provenance, packages. push, save and tag keep that.`,
		Example: "  kaniko-build pull registry.example.com/shop/api",
		Args:    exactly(1, "one image"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := executor.CheckReference(args[0]); err != nil {
				return err
			}
			return withStore(c.Context(), f, func(ctx context.Context, x *executor.Executor) error {
				s, notes, err := x.Pull(ctx, args[0], platform)
				if err != nil {
					return failedWork{err}
				}
				for _, n := range notes {
					fmt.Fprintln(t.err, "note:", n)
				}
				_, err = fmt.Fprintf(t.out, "%s %s\n", s.Name, s.Manifest.Digest)
				return err
			})
		},
	}
	platformFlag(c, &platform)
	f.addMirrors(c)
	return c
}

func newPushImage(t terminal) *cobra.Command {
	return &cobra.Command{
		Use: "push IMAGE [NAME...]", Short: "Push an image of the store, under its own name or others",
		Example: "  kaniko-build push registry.example.com/shop/api\n  kaniko-build push registry.example.com/shop/api registry.example.com/shop/api:1.4.0",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("push takes an image\n  hint: kaniko-build images lists them")}
			}
			return withStored(c.Context(), args[0], func(ctx context.Context, s *executor.Stored) error {
				names := args[1:]
				for _, n := range names {
					if err := executor.CheckName(n); err != nil {
						return err
					}
				}
				if _, err := s.Push(ctx, names...); err != nil {
					return failedWork{err}
				}
				if len(names) == 0 {
					names = []string{s.Name}
				}
				for _, n := range names {
					if _, err := fmt.Fprintf(t.out, "%s@%s\n", n, s.Manifest.Digest); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func newSave(t terminal) *cobra.Command {
	var platform string
	output := "type=docker,dest=-"
	c := &cobra.Command{
		Use: "save [flags] IMAGE", Short: "Write an image of the store to an archive or a directory",
		Example: "  kaniko-build save registry.example.com/shop/api > api.tar\n  kaniko-build save -o type=oci,dest=api registry.example.com/shop/api",
		Args:    exactly(1, "one image"),
		RunE: func(c *cobra.Command, args []string) error {
			o, err := executor.ParseOutput(output)
			if err != nil {
				return err
			}
			return t.export(c, args[0], platform, o)
		},
	}
	c.Flags().StringVarP(&output, "output", "o", output, "type=oci|docker|tar|local,dest=PATH; - is standard output")
	platformFlag(c, &platform)
	return c
}

// export writes one image of the store.
func (t terminal) export(c *cobra.Command, name, platform string, o executor.Output) error {
	if o.Dest == "-" {
		if isTerminal(t.out) {
			return usageError{errors.New("an archive does not belong on a terminal\n  hint: redirect it, or write -o type=docker,dest=FILE")}
		}
		o.Stdout = t.out
	}
	return withStored(c.Context(), name, func(ctx context.Context, s *executor.Stored) error {
		notes, err := s.Export(ctx, o, platform)
		for _, n := range notes {
			fmt.Fprintln(t.err, "note:", n)
		}
		return err
	})
}

func newUnpack(t terminal) *cobra.Command {
	var platform string
	c := &cobra.Command{
		Use: "unpack [flags] IMAGE DIR", Short: "Write the root of an image of the store to a directory",
		Example: "  kaniko-build unpack registry.example.com/shop/api rootfs",
		Args:    exactly(2, "an image and a directory"),
		RunE: func(c *cobra.Command, args []string) error {
			return t.export(c, args[0], platform, executor.Output{Type: "local", Dest: args[1]})
		},
	}
	platformFlag(c, &platform)
	return c
}
