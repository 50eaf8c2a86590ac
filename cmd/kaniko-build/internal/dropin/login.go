package dropin

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"kaniko-build/cmd/kaniko-build/internal/login"
)

// loginCommand puts credentials into the docker config.
func (p Program) loginCommand() *cobra.Command {
	var user, password string
	var stdin bool
	c := &cobra.Command{
		Use:   "login [flags] REGISTRY",
		Short: "Keep a user and password for a registry in the docker config",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return p.usage(c, fmt.Errorf("accepts 1 arg(s), received %d", len(args)))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			err := p.login(args[0], user, password, c.Flags().Changed("password"), stdin)
			return p.fail("error logging in", err)
		},
	}
	c.Flags().StringVarP(&user, "username", "u", "", "the user")
	c.Flags().StringVarP(&password, "password", "p", "", "the password; other processes can see it")
	c.Flags().BoolVar(&stdin, "password-stdin", false, "read the password from standard input")
	return p.command(c)
}

func (p Program) login(registry, user, password string, given, stdin bool) error {
	if user == "" {
		return errors.New("--username is required")
	}
	if given == stdin {
		return errors.New("exactly one of --password and --password-stdin is required")
	}
	if stdin {
		b, err := io.ReadAll(io.LimitReader(p.In, 64<<10))
		if err != nil {
			return fmt.Errorf("read the password: %w", err)
		}
		password = strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	}
	if err := login.Keep(registry, user, password); err != nil {
		return err
	}
	_, err := fmt.Fprintln(p.Out, "Login Succeeded")
	return err
}
