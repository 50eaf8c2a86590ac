package credential

import (
	"context"
	"net"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
)

// env reads KANIKO_<HOST>_USER and KANIKO_<HOST>_PASSWORD: the host in capitals,
// with _ for dots and dashes; then those of the domains above it.
func (o Options) env(_ context.Context, host string) (*login, error) {
	name := strings.NewReplacer(".", "_", "-", "_", ":", "_").Replace(strings.ToUpper(host))
	labels := strings.Split(strings.ToUpper(host), ".")
	for i := range labels {
		if i > 0 {
			name = strings.NewReplacer(".", "_", "-", "_", ":", "_").Replace(strings.Join(labels[i:], "."))
		}
		user, password := o.Getenv("KANIKO_"+name+"_USER"), o.Getenv("KANIKO_"+name+"_PASSWORD")
		if user != "" && password != "" {
			return named(user, password), nil
		}
	}
	return nil, nil
}

// gitlab is the login that GitLab gives to each job for its own registry.
func (o Options) gitlab(_ context.Context, host string) (*login, error) {
	own := o.Getenv("CI_REGISTRY")
	if scheme, rest, ok := strings.Cut(own, "://"); ok {
		if scheme != "https" {
			return nil, nil
		}
		own = rest
	}
	user, password := o.Getenv("CI_REGISTRY_USER"), o.Getenv("CI_REGISTRY_PASSWORD")
	own, _, _ = strings.Cut(own, "/")
	if user == "" || password == "" || own == "" || !strings.EqualFold(hostname(own), hostname(host)) {
		return nil, nil
	}
	return named(user, password), nil
}

// hostname is a host without its port.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return host
}

func named(user, password string) *login {
	return &login{AuthConfig: authn.AuthConfig{Username: user, Password: password}}
}
