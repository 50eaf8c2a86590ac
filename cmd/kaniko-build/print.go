package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newPrint(t terminal) *cobra.Command {
	f := &manifestFlags{}
	var origin bool
	output := "yaml"
	c := &cobra.Command{
		Use:   "print [flags] [TARGET...]",
		Short: "Print the manifest as it is understood",
		Long: `Print the manifest as it is understood: included files, overrides and profiles
merged, parents laid under targets, references replaced, a target for each cell of a
matrix, contexts and Dockerfiles from the workspace root. With --origin each value has the file and the
line that it comes from. Without a target all are printed; no Dockerfile is read.`,
		Example: "  kaniko-build print api\n  kaniko-build print --origin --set api.stage=debug api",
		RunE: func(c *cobra.Command, args []string) error {
			if output != "yaml" && output != "json" {
				return usageError{fmt.Errorf("no output %q: choose yaml or json", output)}
			}
			w, err := f.read(c.Context())
			if err != nil {
				return err
			}
			for _, warning := range w.manifest.Warnings {
				fmt.Fprintln(t.err, "warning:", warning)
			}
			var names []string
			if len(args) == 0 {
				for _, target := range w.manifest.Targets {
					names = append(names, target.Name)
				}
			} else if names, err = w.manifest.Select(args, w.edges); err != nil {
				return err
			}
			if output == "json" {
				return w.manifest.PrintJSON(t.out, names, origin)
			}
			return w.manifest.Print(t.out, names, origin)
		},
	}
	f.add(c)
	c.Flags().BoolVar(&origin, "origin", false, "show where each value comes from")
	c.Flags().StringVarP(&output, "output", "o", output, "yaml or json")
	return c
}
