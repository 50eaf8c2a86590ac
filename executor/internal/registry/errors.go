package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"kaniko-build/executor/internal/image"
	"kaniko-build/executor/internal/retry"
	"kaniko-build/executor/internal/store"
	"kaniko-build/schema/diag"
)

// Kind is why a registry did not do what was asked.
type Kind string

// The kinds of errors.
const (
	NotFound    Kind = "not found"
	Denied      Kind = "denied"
	Unreachable Kind = "unreachable"
	TLS         Kind = "tls"
	Limited     Kind = "limited" // too many requests
	Broken      Kind = "broken"  // the registry's answer makes no sense, or is a failure of its own
)

// Error is the failure of one operation on one image. It is a *diag.Problem for
// errors.As, and its cause. NotFound is image.ErrNotFound, too.
type Error struct {
	Kind    Kind
	Problem *diag.Problem
	Err     error
}

func (e *Error) Error() string { return e.Problem.Error() }

// Unwrap gives the problem and the cause.
func (e *Error) Unwrap() []error { return []error{e.Problem, e.Err} }

// Is makes what is not there image.ErrNotFound.
func (e *Error) Is(target error) bool { return e.Kind == NotFound && target == image.ErrNotFound }

// explain says in one sentence what happened to n at e, and what to do. what is
// the beginning of the sentence: "failed to resolve source metadata for docker.io/…".
func (c *Client) explain(ctx context.Context, what string, n image.Name, e endpoint, err error) error {
	var already *Error
	if err == nil || errors.As(err, &already) {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var (
		status  *transport.Error
		dns     *net.DNSError
		unknown x509.UnknownAuthorityError
		invalid x509.CertificateInvalidError
		host    x509.HostnameError
		record  tls.RecordHeaderError
		verify  *tls.CertificateVerificationError
		op      net.Error
		auth    *authError
		syntax  *json.SyntaxError
	)
	out := func(k Kind, hint, format string, args ...any) error {
		return &Error{Kind: k, Err: err, Problem: &diag.Problem{What: what + ": " + fmt.Sprintf(format, args...), Hint: hint}}
	}
	text := oneLine(err.Error())
	switch {
	case errors.As(err, &auth):
		return out(Denied, "check the docker config and its credential helper, or log in again", "%s", text)
	case errors.As(err, &unknown), errors.As(err, &verify), errors.As(err, &invalid), errors.As(err, &host):
		return out(TLS, fmt.Sprintf("name the file of its authority by SSL_CERT_FILE, or in the manifest as registries: {%[1]q: {ca: FILE}}; {insecure: true} trusts any", e.host),
			"the certificate of %s cannot be trusted: %s", e.host, oneLine(untrusted(err)))
	case errors.As(err, &status):
		server := serverMessage(status)
		switch code := status.StatusCode; {
		case code == http.StatusUnauthorized || code == http.StatusForbidden:
			return out(Denied, c.loginHint(ctx, e), "%s access denied, repository does not exist or may require authorization: server message: %s", verb(what), server)
		case code == http.StatusNotFound:
			return out(NotFound, "check the name and the tag; "+e.host+" answered", "%s: not found", n)
		case code == http.StatusTooManyRequests:
			return out(Limited, "log in to "+e.host+" for a higher limit, set a mirror in registries, or wait", "%s allows no more requests for now: %s", e.host, server)
		case code >= 500:
			return out(Broken, "try again later, or ask who runs the registry", "%s answers with %s", e.host, answered(status))
		default:
			return out(Broken, "", "%s answers with %s", e.host, answered(status))
		}
	case errors.As(err, &syntax):
		return out(Broken, "check host and port: a registry answers in JSON, pages for people are from something else", "%s does not answer as a registry: %s", e.host, text)
	case strings.Contains(text, "server gave HTTP response to HTTPS client"), errors.As(err, &record), errors.Is(err, errPlain):
		return out(TLS, fmt.Sprintf("if that is meant to be, say so in a manifest: registries: {%q: {insecure: true}}", e.host),
			"%s does not speak https", e.host)
	case errors.As(err, &dns):
		return out(Unreachable, "check the name, the network and the proxy settings", "no address is known for %s: %s", e.host, dns.Err)
	case retry.Refused(err):
		return out(Unreachable, "start it, or check host and port", "nothing listens at %s (connection refused)", e.host)
	case errors.As(err, &op) && op.Timeout():
		return out(Unreachable, "check the network and the proxy settings", "%s does not answer: %s", e.host, text)
	case errors.Is(err, store.ErrMiss):
		return out(Broken, "run it again: what is missing is made anew", "%s", text)
	case errors.Is(err, image.ErrNotFound):
		return out(NotFound, "", "%s", text)
	default:
		return out(Broken, "", "%s: %s", e.host, text)
	}
}

func verb(what string) string {
	if strings.Contains(what, "push") {
		return "push"
	}
	return "pull"
}

// serverMessage is what the registry said, on one line and of bounded length.
func serverMessage(e *transport.Error) string {
	if len(e.Errors) == 0 {
		return fmt.Sprintf("%d %s", e.StatusCode, http.StatusText(e.StatusCode))
	}
	var parts []string
	for _, d := range e.Errors {
		part := strings.ToLower(string(d.Code))
		if d.Message != "" {
			part += ": " + d.Message
		}
		parts = append(parts, part)
	}
	return oneLine(strings.Join(parts, "; "))
}

// answered is the status of an answer, and what the registry said beside it.
func answered(e *transport.Error) string {
	s := fmt.Sprintf("%d %s", e.StatusCode, http.StatusText(e.StatusCode))
	if said := serverMessage(e); said != s {
		s += ": " + said
	}
	return s
}

// untrusted is what is wrong with a certificate, without the requests that met it.
func untrusted(err error) string {
	var verify *tls.CertificateVerificationError
	if errors.As(err, &verify) {
		return verify.Err.Error()
	}
	return err.Error()
}

// oneLine keeps what a server sends from writing more than its share, or to the
// terminal.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) > 500 {
		s = s[:500] + "…"
	}
	return s
}

func (c *Client) loginHint(ctx context.Context, e endpoint) string {
	host := e.host
	if host == "index.docker.io" {
		host = "docker.io"
	}
	if c.anonymous(ctx, e) {
		return fmt.Sprintf("there are no credentials for %s: log in with `kaniko-build login %s` or `docker login %s`", host, host, host)
	}
	return fmt.Sprintf("the credentials for %s are not allowed to do this: log in with others, or ask for access", host)
}
