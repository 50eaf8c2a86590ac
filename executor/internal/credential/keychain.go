package credential

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
)

// Sources are the names of all sources beside the docker config, in the order
// in which they are asked.
func Sources() []string {
	return []string{"env", "google", "ecr", "acr", "gitlab"}
}

// Options say who is asked.
type Options struct {
	// Sources are asked beside the docker config; nil is all of them.
	Sources []string
	Getenv  func(string) string // nil knows nothing
	Client  *http.Client        // for tokens of clouds; nil is http.DefaultClient

	away func() bool // see Keychain.Away
}

// login is a name and a password, or what stands in their place.
type login struct {
	authn.AuthConfig
	until time.Time // when it is to be had anew; zero is never
}

// source knows the logins of some hosts. Of others, and when it has no
// identity, it says nil.
type source func(ctx context.Context, host string) (*login, error)

// Keychain finds credentials for registries.
type Keychain struct {
	sources []source

	mu     sync.Mutex
	kept   map[string]*kept // by host
	away   string           // see Away; "": nobody has said so
	aways  int              // who did, and has not come back
	config *dockerConfig    // as it was then; nil: it is read each time
	helped map[string]types.AuthConfig
}

// kept is what the sources said of one host.
type kept struct {
	mu    sync.Mutex
	login *login
	until time.Time
}

// New makes a keychain. Names that are not Sources are passed over.
func New(o Options) *Keychain {
	if o.Getenv == nil {
		o.Getenv = func(string) string { return "" }
	}
	k := &Keychain{kept: map[string]*kept{}, helped: map[string]types.AuthConfig{}}
	o.away = func() bool { k.mu.Lock(); defer k.mu.Unlock(); return k.away != "" }
	for _, name := range Sources() {
		if o.Sources == nil || slices.Contains(o.Sources, name) {
			k.sources = append(k.sources, o.source(name))
		}
	}
	return k
}

// client is who asks, but for libraries that have their own.
func (o Options) client() *http.Client {
	if o.Client == nil {
		return http.DefaultClient
	}
	return o.Client
}

func (o Options) source(name string) source {
	switch name {
	case "env":
		return o.env
	case "google":
		return o.google
	case "ecr":
		return o.ecr
	case "acr":
		return o.acr
	default:
		return o.gitlab
	}
}

// Get asks one source for a host's name and password, as docker's credential
// helpers do. ok is false when it knows none.
func Get(ctx context.Context, o Options, name, host string) (user, secret string, ok bool, err error) {
	o.Sources = []string{name}
	l, err := New(o).login(ctx, host)
	if err != nil || l == nil {
		return "", "", false, err
	}
	if l.IdentityToken != "" {
		return "<token>", l.IdentityToken, true, nil
	}
	return l.Username, l.Password, true, nil
}

// Resolve is authn.Keychain's.
func (k *Keychain) Resolve(r authn.Resource) (authn.Authenticator, error) {
	return k.ResolveContext(context.Background(), r)
}

// ResolveContext is what go-containerregistry asks.
func (k *Keychain) ResolveContext(ctx context.Context, r authn.Resource) (authn.Authenticator, error) {
	a, err := k.docker(ctx, r)
	if err != nil || a != authn.Anonymous {
		return a, err
	}
	l, err := k.login(ctx, r.RegistryStr())
	switch {
	case err != nil:
		return nil, fmt.Errorf("find credentials for %s: %w", r.RegistryStr(), err)
	case l == nil:
		return authn.Anonymous, nil
	}
	return authn.FromConfig(l.AuthConfig), nil
}

// Away says that until back is called the files of this machine are not its own, but
// for those in dir: the docker config is kept as it is now, what helpers have said stays
// known, and no program is run but from dir.
func (k *Keychain) Away(dir string) (back func(), err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.aways == 0 {
		if k.config, err = readConfig(); err != nil {
			return nil, err
		}
		k.away = dir
	}
	k.aways++
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.aways--; k.aways == 0 {
			k.away, k.config = "", nil
		}
	}, nil
}

// forgetNobody is how long a host is not asked for again whom nobody knows.
const forgetNobody = 10 * time.Minute

// login asks the sources, one question a host at a time.
func (k *Keychain) login(ctx context.Context, host string) (*login, error) {
	k.mu.Lock()
	h := k.kept[host]
	if h == nil {
		h = &kept{}
		k.kept[host] = h
	}
	k.mu.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Now().Before(h.until) {
		return h.login, nil
	}
	for _, ask := range k.sources {
		l, err := ask(ctx, host)
		if err != nil {
			return nil, err
		}
		if l != nil {
			h.login, h.until = l, l.until
			if l.until.IsZero() {
				h.until = time.Now().Add(24 * time.Hour)
			}
			return l, nil
		}
	}
	h.login, h.until = nil, time.Now().Add(forgetNobody)
	return nil, nil
}
