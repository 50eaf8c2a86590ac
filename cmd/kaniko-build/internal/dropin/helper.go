package dropin

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"kaniko-build/executor"
)

// helpers are the credential helpers that kaniko's images hold, by the source
// that each stands for. Docker configs name them in credHelpers and credsStore.
var helpers = map[string]string{
	"docker-credential-gcr":       "google",
	"docker-credential-ecr-login": "ecr",
	"docker-credential-acr-env":   "acr",
}

// notFound is what docker's clients understand as: ask somebody else.
const notFound = "credentials not found in native keychain"

// maxServer bounds what a helper is asked, in bytes.
const maxServer = 4 << 10

// IsHelper tells whether a program of this name is a credential helper.
func IsHelper(name string) bool { return helpers[name] != "" }

// Helper is a credential helper by docker's protocol: the address of a registry
// comes on standard input, a name and a secret go out as JSON. What the cloud
// gives is kept nowhere, so there is nothing to store, erase or list.
func (p Program) Helper(name string) *cobra.Command {
	root := p.command(&cobra.Command{Use: name, Short: "Credentials of the registries of one cloud, for docker's clients"})
	add := func(verb string, run func(*cobra.Command) error) {
		root.AddCommand(p.command(&cobra.Command{Use: verb, RunE: func(c *cobra.Command, _ []string) error {
			if err := run(c); err != nil {
				fmt.Fprintln(p.Out, err) // where the protocol has errors
				return &Failure{Code: 1, Err: err}
			}
			return nil
		}}))
	}
	add("get", func(c *cobra.Command) error { return p.get(c, helpers[name]) })
	add("list", func(*cobra.Command) error {
		_, err := fmt.Fprintln(p.Out, "{}")
		return err
	})
	add("version", func(*cobra.Command) error {
		_, err := fmt.Fprintln(p.Out, name, p.Version)
		return err
	})
	for _, verb := range []string{"store", "erase"} {
		add(verb, func(*cobra.Command) error { return errors.New("nothing is kept here: the cloud is asked each time") })
	}
	return root
}

func (p Program) get(c *cobra.Command, source string) error {
	in := bufio.NewScanner(p.In)
	in.Buffer(nil, maxServer)
	in.Scan()
	if err := in.Err(); err != nil {
		return fmt.Errorf("read the registry's address: %w", err)
	}
	server := strings.TrimSpace(in.Text())
	host := server
	if u, err := url.Parse(server); err == nil && u.Host != "" {
		host = u.Host
	}
	host, _, _ = strings.Cut(host, "/")
	user, secret, ok, err := executor.Credential(c.Context(), os.Getenv, source, host)
	if err != nil {
		return err
	}
	if !ok {
		return errors.New(notFound)
	}
	return json.NewEncoder(p.Out).Encode(struct{ ServerURL, Username, Secret string }{server, user, secret})
}
