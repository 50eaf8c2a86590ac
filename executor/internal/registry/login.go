package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"kaniko-build/executor/internal/image"
	"kaniko-build/schema/diag"
)

// CheckLogin asks the registry of a host whether it takes a user and password, as docker
// login does: GET /v2/ with them, or with a token that they get (distribution-spec,
// "determining support"). Errors are *Error; a registry that lets in everybody takes all.
func (c *Client) CheckLogin(ctx context.Context, host, user, password string) error {
	e := endpoint{host: apiHost(host)}
	c.mu.Lock()
	c.asked[e.host] = true
	c.mu.Unlock()
	what := "log in to " + host
	var opts []name.Option
	if c.plainAllowed(e.host) {
		opts = append(opts, name.Insecure)
	}
	reg, err := name.NewRegistry(e.host, opts...)
	if err != nil {
		return &Error{Kind: Broken, Err: err, Problem: &diag.Problem{What: fmt.Sprintf("%s: %q is no registry", what, host), Hint: "write HOST or HOST:PORT"}}
	}
	rt, err := transport.NewWithContext(ctx, reg, authn.FromConfig(authn.AuthConfig{Username: user, Password: password}), c.plain, nil)
	if err == nil {
		err = enter(ctx, &http.Client{Transport: rt}, e)
	}
	var status *transport.Error
	if errors.As(err, &status) {
		refused := &Error{Kind: Denied, Err: err, Problem: &diag.Problem{
			What: fmt.Sprintf("%s: it does not take this user and password: server message: %s", what, serverMessage(status)),
			Hint: "check both; where accounts have tokens, the token is the password. Nothing was kept",
		}}
		switch status.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden:
			return refused
		case http.StatusNotFound:
			return &Error{Kind: NotFound, Err: err, Problem: &diag.Problem{What: what + ": there is no registry", Hint: "check host and port"}}
		}
	}
	err = c.explain(ctx, what, image.Name{}, e, err)
	var told *Error
	if errors.As(err, &told) && told.Kind == TLS {
		told.Problem.Hint = "name its authority with --ca FILE, or write --insecure if that is meant to be"
	}
	return err
}

// enter asks for /v2/ itself.
func enter(ctx context.Context, hc *http.Client, e endpoint) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+e.host+"/v2/", nil) // the scheme is set by the handshake
	if err != nil {
		return err
	}
	resp, err := hc.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return transport.CheckError(resp, http.StatusOK)
}
