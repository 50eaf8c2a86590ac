package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"kaniko-build/cmd/kaniko-build/internal/manpage"
)

func newMan(t terminal) *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages of all commands to a directory",
		Long: `Write the manual pages of all commands to a directory, which is made if it is not
there, and print their names. They say what --help says.`,
		Example: "  kaniko-build man man1 && man man1/kaniko-build-apply.1",
		Args:    exactly(1, "a directory"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return fmt.Errorf("make the directory of manual pages: %w", err)
			}
			names, err := manpage.Write(c.Root(), args[0], version)
			for _, n := range names {
				fmt.Fprintln(t.out, n)
			}
			return err
		},
	}
}
