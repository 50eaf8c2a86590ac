package main

import (
	"github.com/spf13/cobra"

	"kaniko-build/executor/runner/docker"
)

// newNode is what runs in the containers that a runner makes.
func newNode() *cobra.Command {
	return &cobra.Command{
		Use: docker.Command + " SOCKET", Short: "Build a node in this container, for a runner", Hidden: true,
		Args: exactly(1, "a socket"),
		RunE: func(c *cobra.Command, args []string) error { return docker.Serve(c.Context(), args[0]) },
	}
}
