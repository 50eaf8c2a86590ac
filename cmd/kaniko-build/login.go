package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"kaniko-build/cmd/kaniko-build/internal/login"
	"kaniko-build/executor"
	"kaniko-build/schema/diag"
)

func newLogin(t terminal) *cobra.Command {
	var user, ca string
	var stdin, insecure bool
	c := &cobra.Command{
		Use:   "login [flags] REGISTRY",
		Short: "Keep a user and password for a registry in the docker config",
		Long: `Keep a user and password for a registry in the docker config, or in the credential
helper that it names. The registry is asked first: one that it does not take is not
kept. The password is read from standard input, so that no other process sees it.`,
		Example: "  echo \"$TOKEN\" | kaniko-build login -u ci --password-stdin registry.example.com",
		Args:    exactly(1, "one registry"),
		RunE: func(c *cobra.Command, args []string) error {
			if user == "" || !stdin {
				return usageError{errors.New("login needs a user and a password\n  hint: echo \"$TOKEN\" | kaniko-build login -u USER --password-stdin " + args[0])}
			}
			b, err := io.ReadAll(io.LimitReader(t.in, 64<<10))
			if err != nil {
				return fmt.Errorf("read the password: %w", err)
			}
			password := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
			if password == "" {
				return usageError{errors.New("the password on standard input is empty")}
			}
			reg := executor.Registry{Host: login.Host(args[0]), Insecure: insecure}
			if ca != "" {
				if reg.CA, err = os.ReadFile(ca); err != nil {
					return &diag.Problem{What: fmt.Sprintf("--ca: %v", err), Hint: "name a PEM file"}
				}
			}
			if err := executor.CheckLogin(c.Context(), reg, user, password, os.Getenv); err != nil {
				return failedWork{err}
			}
			if err := login.Keep(args[0], user, password); err != nil {
				return err
			}
			_, err = fmt.Fprintln(t.out, "kept for", args[0])
			return err
		},
	}
	c.Flags().StringVarP(&user, "username", "u", "", "the user")
	c.Flags().BoolVar(&stdin, "password-stdin", false, "read the password from standard input")
	c.Flags().StringVar(&ca, "ca", "", "trust the authority in this PEM file too, to ask the registry")
	c.Flags().BoolVar(&insecure, "insecure", false, "ask the registry by plain http, or https with any certificate")
	return c
}

func newLogout(t terminal) *cobra.Command {
	return &cobra.Command{
		Use: "logout REGISTRY", Short: "Forget the user and password of a registry",
		Example: "  kaniko-build logout registry.example.com",
		Args:    exactly(1, "one registry"),
		RunE: func(_ *cobra.Command, args []string) error {
			had, err := login.Forget(args[0])
			if err != nil {
				return err
			}
			text := "nothing is kept for"
			if had {
				text = "forgotten:"
			}
			_, err = fmt.Fprintln(t.out, text, args[0])
			return err
		},
	}
}
