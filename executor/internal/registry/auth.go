package registry

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
)

// Keychain finds credentials as docker and podman do, each time anew, so that
// short-lived ones may be replaced: in $DOCKER_CONFIG/config.json, else
// ~/.docker/config.json, else $REGISTRY_AUTH_FILE, else containers/auth.json
// below $XDG_RUNTIME_DIR or the user's configuration. Credential helpers
// (credHelpers, credsStore) are run from $PATH of this process, never inside a
// build. An entry of auths may name a path below a host (podman's
// "quay.io/team"): the longest that fits wins, before the host's own.
func Keychain() authn.Keychain { return keychain{} }

type keychain struct{}

func (k keychain) Resolve(r authn.Resource) (authn.Authenticator, error) {
	return k.ResolveContext(context.Background(), r)
}

// ResolveContext is what go-containerregistry asks.
func (keychain) ResolveContext(ctx context.Context, r authn.Resource) (authn.Authenticator, error) {
	scoped := scopedEntries()
	for name := r.String(); name != r.RegistryStr(); {
		if scoped[name] {
			a, err := authn.Resolve(ctx, authn.DefaultKeychain, entry(name))
			if err != nil || a != authn.Anonymous {
				return a, err
			}
		}
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			break
		}
		name = name[:i]
	}
	return authn.Resolve(ctx, authn.DefaultKeychain, entry(r.RegistryStr()))
}

// entry is the name of one entry in a config.
type entry string

func (e entry) String() string      { return string(e) }
func (e entry) RegistryStr() string { return string(e) }

// scopedEntries are the entries with a path. Only these are asked for below a
// host: a credential helper takes long to say no.
func scopedEntries() map[string]bool {
	b, err := os.ReadFile(configFile())
	if err != nil {
		return nil
	}
	var f struct {
		Auths map[string]json.RawMessage `json:"auths"`
	}
	if json.Unmarshal(b, &f) != nil {
		return nil // the library says what is wrong with it
	}
	out := map[string]bool{}
	for name := range f.Auths {
		if !strings.Contains(name, "://") && strings.Contains(strings.TrimSuffix(name, "/"), "/") {
			out[name] = true
		}
	}
	return out
}

// configFile is the one that go-containerregistry reads.
func configFile() string {
	home, _ := os.UserHomeDir()
	exists := func(p string) bool {
		st, err := os.Stat(p)
		return err == nil && !st.IsDir()
	}
	docker := os.Getenv("DOCKER_CONFIG")
	if docker == "" {
		docker = filepath.Join(home, ".docker")
	}
	if p := filepath.Join(docker, "config.json"); exists(p) {
		return p
	}
	if p := os.Getenv("REGISTRY_AUTH_FILE"); p != "" && exists(p) {
		return p
	}
	if p := filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "containers/auth.json"); os.Getenv("XDG_RUNTIME_DIR") != "" && exists(p) {
		return p
	}
	config := os.Getenv("XDG_CONFIG_HOME")
	if config == "" {
		config = filepath.Join(home, ".config")
	}
	return filepath.Join(config, "containers/auth.json")
}
