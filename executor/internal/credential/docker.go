package credential

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
)

// docker finds credentials as docker and podman do: in $DOCKER_CONFIG/config.json,
// else ~/.docker/config.json, else $REGISTRY_AUTH_FILE, else containers/auth.json
// below $XDG_RUNTIME_DIR or the user's configuration. Credential helpers
// (credHelpers, credsStore) are run from $PATH of this process, never inside a
// build. An entry of auths may name a path below a host (podman's
// "quay.io/team"): the longest that fits wins, before the host's own.
func docker(ctx context.Context, r authn.Resource) (authn.Authenticator, error) {
	f := readEntries()
	for name := r.String(); name != r.RegistryStr(); {
		if f.scoped[name] {
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
	if f.pathsOnly(r.RegistryStr()) {
		return authn.Anonymous, nil
	}
	return authn.Resolve(ctx, authn.DefaultKeychain, entry(r.RegistryStr()))
}

// entry is the name of one entry in a config.
type entry string

func (e entry) String() string      { return string(e) }
func (e entry) RegistryStr() string { return string(e) }

// entries are the names in a docker config. The values are the library's
// business.
type entries struct {
	scoped map[string]bool // with a path; only these are asked for below a host: a credential helper takes long to say no
	hosts  map[string]bool
	store  bool // a helper that may know any host
}

func readEntries() entries {
	out := entries{scoped: map[string]bool{}, hosts: map[string]bool{}}
	b, err := os.ReadFile(configFile())
	if err != nil {
		return out
	}
	var f struct {
		Auths       map[string]json.RawMessage `json:"auths"`
		CredHelpers map[string]string          `json:"credHelpers"`
		CredsStore  string                     `json:"credsStore"`
	}
	if json.Unmarshal(b, &f) != nil {
		return out // the library says what is wrong with it
	}
	out.store = f.CredsStore != ""
	for name := range f.CredHelpers {
		out.hosts[name] = true
	}
	for name := range f.Auths {
		_, rest, url := strings.Cut(name, "://")
		if !url {
			rest = name
		}
		host, path, _ := strings.Cut(rest, "/")
		if path == "" || url || path == "v1/" || path == "v2/" { // how docker writes hosts
			out.hosts[host] = true
		} else {
			out.scoped[name] = true
		}
	}
	return out
}

// pathsOnly tells whether a host has entries for paths below it and none of its
// own. The library would use one of them for the whole host.
func (e entries) pathsOnly(host string) bool {
	if e.store || e.hosts[host] {
		return false
	}
	for name := range e.scoped {
		if strings.HasPrefix(name, host+"/") {
			return true
		}
	}
	return false
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
