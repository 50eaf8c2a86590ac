package credential

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"
	"github.com/docker/docker-credential-helpers/client"
	"github.com/docker/docker-credential-helpers/credentials"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// docker finds credentials as docker and podman do: in $DOCKER_CONFIG/config.json,
// else ~/.docker/config.json, else $REGISTRY_AUTH_FILE, else containers/auth.json
// below $XDG_RUNTIME_DIR or the user's configuration. Credential helpers
// (credHelpers, credsStore) are run from $PATH of this process, never inside a
// build; see Away. An entry of auths may name a path below a host (podman's
// "quay.io/team"): the longest that fits wins, before the host's own.
func (k *Keychain) docker(ctx context.Context, r authn.Resource) (authn.Authenticator, error) {
	k.mu.Lock()
	f := k.config
	k.mu.Unlock()
	if f == nil {
		var err error
		if f, err = readConfig(); err != nil {
			return nil, err
		}
	}
	for name := r.String(); name != r.RegistryStr(); {
		if f.scoped[name] {
			a, err := k.entry(f, name)
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
	return k.entry(f, r.RegistryStr())
}

// entry is what one entry of a config says.
func (k *Keychain) entry(f *dockerConfig, key string) (authn.Authenticator, error) {
	if key == name.DefaultRegistry {
		key = authn.DefaultAuthKey
	}
	helper := f.CredentialsStore
	if h, ok := f.CredentialHelpers[key]; ok {
		helper = h
	}
	var c types.AuthConfig
	var err error
	if helper != "" {
		c, err = configfile.New("").GetAuthConfig(key) // of $DOCKER_AUTH_CONFIG, which counts first
		if c.ServerAddress = ""; err == nil && c == (types.AuthConfig{}) {
			c, err = k.help(helper, key)
		}
	} else {
		c, err = f.GetAuthConfig(key)
	}
	c.ServerAddress = ""
	switch {
	case err != nil:
		return nil, err
	case c == (types.AuthConfig{}):
		return authn.Anonymous, nil
	}
	return authn.FromConfig(authn.AuthConfig{Username: c.Username, Password: c.Password, Auth: c.Auth, IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken}), nil
}

// help asks a credential helper.
func (k *Keychain) help(helper, key string) (types.AuthConfig, error) {
	program := "docker-credential-" + helper
	k.mu.Lock()
	dir := k.away
	kept, known := k.helped[helper+" "+key]
	k.mu.Unlock()
	if dir != "" {
		inside := filepath.Join(dir, program)
		if _, err := os.Stat(inside); err == nil {
			program = inside
		} else if known {
			return kept, nil
		} else {
			return kept, fmt.Errorf("ask %s for %s: it is not in %s, and no other is run while / is that of an image", program, key, dir)
		}
	}
	got, err := client.Get(client.NewShellProgramFunc(program), key)
	if err != nil {
		if credentials.IsErrCredentialsNotFound(err) {
			return types.AuthConfig{}, nil
		}
		return types.AuthConfig{}, fmt.Errorf("ask %s for %s: %w", program, key, err)
	}
	c := types.AuthConfig{Username: got.Username, Password: got.Secret}
	if got.Username == "<token>" {
		c = types.AuthConfig{IdentityToken: got.Secret}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.helped[helper+" "+key] = c
	return c, nil
}

// dockerConfig is a docker config that was read.
type dockerConfig struct {
	*configfile.ConfigFile
	entries
}

// readConfig reads the file as it is now; none is empty.
func readConfig() (*dockerConfig, error) {
	b, err := os.ReadFile(configFile())
	if errors.Is(err, os.ErrNotExist) {
		return &dockerConfig{ConfigFile: configfile.New("")}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	f, err := config.LoadFromReader(strings.NewReader(string(b)))
	if err != nil {
		return nil, fmt.Errorf("read credentials in %s: %w", configFile(), err)
	}
	return &dockerConfig{f, readEntries(b)}, nil
}

// entries are the names in a docker config. The values are the library's
// business.
type entries struct {
	scoped map[string]bool // with a path; only these are asked for below a host: a credential helper takes long to say no
	hosts  map[string]bool
	store  bool // a helper that may know any host
}

func readEntries(b []byte) entries {
	out := entries{scoped: map[string]bool{}, hosts: map[string]bool{}}
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
