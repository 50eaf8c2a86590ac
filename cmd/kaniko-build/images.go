package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"kaniko-build/executor"
	"kaniko-build/executor/runner/local"
)

func newImages(t terminal) *cobra.Command {
	return &cobra.Command{
		Use:     "images",
		Short:   "List the images in the store",
		Example: "  kaniko-build images",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			f := runFlags{}
			x, err := f.open(c.Context(), nil, nil, nil)
			if err != nil {
				return err
			}
			list, err := x.Images()
			if err == nil {
				tw := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
				fmt.Fprintln(tw, "NAME\tDIGEST\tSIZE\tCREATED")
				for _, i := range list {
					fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", i.Name, i.Digest, size(i.Size), i.Created.Format(time.DateTime))
				}
				err = tw.Flush()
			}
			return errors.Join(err, x.Close(c.Context()))
		},
	}
}

// doctorReport is what doctor found.
func newDoctor(t terminal) *cobra.Command {
	runner := ""
	c := &cobra.Command{
		Use:   "doctor [flags]",
		Short: "Say what kind of isolation this machine gives, and what would give a better one",
		Long: `Say what kind of isolation this machine gives, and what would give a better one.

Where the manifest has images built in pods, or with --runner kubernetes, it says
whether the cluster can be reached, which rights in it are missing, and, by a pod that
it starts and deletes, what kind of isolation pods give.`,
		Example: "  kaniko-build doctor\n  kaniko-build doctor --runner kubernetes",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			pods, here := clusterHere(c.Context())
			switch runner {
			case "":
			case "local", "kubernetes":
				here = runner == "kubernetes"
			default:
				return usageError{errNoDoctor}
			}
			if here {
				return pods.doctor(c.Context(), t)
			}
			state, err := stateDir()
			if err != nil {
				return err
			}
			rep, err := (&local.Runner{}).Report(c.Context(), state)
			if err != nil {
				return err
			}
			var b strings.Builder
			fmt.Fprintf(&b, "store      %s\n", state)
			for _, r := range rep.Rungs {
				mark, why := "no", r.Why
				switch {
				case r.Rung == rep.Best:
					mark, why = "used", "the best there is here"
					if r.Walk {
						why = "with a walk after each RUN: " + r.Slow
					}
				case !r.Tried && why == "":
					mark, why = "-", fmt.Sprintf("not tried, as a better one works; --isolation %s asks for it", r.Rung)
				}
				fmt.Fprintln(&b, strings.TrimRight(fmt.Sprintf("isolation  %-14s %-5s %s", r.Rung, mark, why), " "))
				if r.Remedy != "" {
					fmt.Fprintf(&b, "           remedy: %s\n", r.Remedy)
				}
			}
			if rep.Best == "inplace" {
				fmt.Fprintln(&b, "network    RUN steps use the container's network; RUN --network=none is refused")
				fmt.Fprintln(&b, "trust      RUN steps are root in this container, beside everything that is mounted into it")
			} else {
				fmt.Fprintln(&b, "network    RUN steps use the host's network and reach its loopback services; RUN --network=none does not")
			}
			if _, err := io.WriteString(t.out, b.String()); err != nil {
				return err
			}
			if err := rep.Err(); err != nil {
				return &executor.MachineError{What: "no unprivileged containers here: see the remedies above"}
			}
			return nil
		},
	}
	c.Flags().StringVar(&runner, "runner", "", "local or kubernetes (default: as the manifest says, else local)")
	complete(c, "runner", "local", "kubernetes")
	return c
}
