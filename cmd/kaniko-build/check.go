package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"kaniko-build/executor"
	"kaniko-build/schema/diag"
)

// alone refuses what only a manifest could answer beside --dockerfile.
func alone(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("--dockerfile checks one file without a manifest, so that there is no target %q\n  hint: leave one of both out", args[0])}
	}
	for _, flag := range []string{"file", "profile", "set", "var", "var-file", "allow"} {
		if c.Flags().Changed(flag) && os.Getenv(flagVariable(flag)) == "" {
			return usageError{fmt.Errorf("--dockerfile checks one file without a manifest, which --%s is about\n  hint: leave one of both out", flag)}
		}
	}
	return nil
}

func newCheck(t terminal) *cobra.Command {
	f := &manifestFlags{}
	var dockerfile string
	c := &cobra.Command{
		Use:     "check [flags] [TARGET...]",
		Short:   "Check the manifest and its Dockerfiles without building",
		Long:    "Check the manifest and the Dockerfiles it names, with BuildKit's lint rules. With\n--dockerfile one Dockerfile is checked, without a manifest. Exit code 3 says that\nthere are mistakes; warnings alone are none.",
		Example: "  kaniko-build check\n  kaniko-build check --dockerfile Dockerfile",
		RunE: func(c *cobra.Command, args []string) error {
			var requests []executor.Request
			var inline places
			if dockerfile != "" {
				if err := alone(c, args); err != nil {
					return err
				}
				text, ignore, err := readDockerfile(dockerfile, dockerfile)
				if err != nil {
					return &diag.Problem{What: err.Error(), Hint: "--dockerfile names the file to check"}
				}
				requests = []executor.Request{{ID: "check", Dockerfile: text, Ignore: ignore}}
			} else {
				w, err := f.read(c.Context())
				if err != nil {
					return err
				}
				p, err := w.plan(args)
				if err != nil {
					return err
				}
				for _, warning := range p.Warnings {
					fmt.Fprintln(t.out, "warning:", warning)
				}
				inline = w.places()
				if requests, err = w.requests(p); err != nil {
					return err
				}
			}
			var l diag.List
			told := map[string]bool{} // targets may share a Dockerfile
			for _, r := range requests {
				warnings, err := executor.Check(c.Context(), r)
				l.AddErr(diag.Pos{}, inline.err(err))
				for _, w := range warnings {
					line := fmt.Sprintf("%s: %s: %s\n", inline.pos(w.Pos), w.Rule, w.Text)
					if !told[line] {
						told[line] = true
						fmt.Fprint(t.out, line)
					}
				}
			}
			if err := l.Err(); err != nil {
				return err
			}
			return nil
		},
	}
	f.add(c)
	c.Flags().StringVar(&dockerfile, "dockerfile", "", "check this Dockerfile alone")
	return c
}
