// Package login keeps passwords of registries where Docker does: in the docker
// config ($DOCKER_CONFIG, else ~/.docker), or in the credential helper that it
// names for a registry.
package login

import (
	"fmt"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/types"
)

// hub is what the docker config calls Docker Hub.
const hub = "https://index.docker.io/v1/"

func key(registry string) string {
	if registry == "index.docker.io" || registry == "docker.io" || registry == "" {
		return hub
	}
	return registry
}

// Host is the host of a registry as it is named to log in: with a scheme or a path, or
// without; "docker.io" for the hub.
func Host(registry string) string {
	if key(registry) == hub || registry == hub {
		return "docker.io"
	}
	if _, rest, ok := strings.Cut(registry, "://"); ok {
		registry = rest
	}
	host, _, _ := strings.Cut(registry, "/")
	return host
}

// Keep stores user and password for a registry.
func Keep(registry, user, password string) error {
	file, err := config.Load("")
	if err != nil {
		return fmt.Errorf("read the docker config: %w", err)
	}
	registry = key(registry)
	if err := file.GetCredentialsStore(registry).Store(types.AuthConfig{Username: user, Password: password, ServerAddress: registry}); err != nil {
		return fmt.Errorf("keep the password: %w", err)
	}
	return nil
}

// Forget removes what is stored for a registry; had says whether there was
// something.
func Forget(registry string) (had bool, err error) {
	file, err := config.Load("")
	if err != nil {
		return false, fmt.Errorf("read the docker config: %w", err)
	}
	registry = key(registry)
	keys := file.GetCredentialsStore(registry)
	old, err := keys.Get(registry)
	if err != nil {
		return false, fmt.Errorf("look for the password: %w", err)
	}
	if old.Username == "" && old.Password == "" && old.IdentityToken == "" && old.RegistryToken == "" {
		return false, nil
	}
	if err := keys.Erase(registry); err != nil {
		return true, fmt.Errorf("remove the password: %w", err)
	}
	return true, nil
}
