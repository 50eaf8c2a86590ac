package executor

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"kaniko-build/executor/internal/buildctx"
	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/schema/diag"
)

// Secrets that ADD shows to hosts, by the ids that BuildKit has for them.
const (
	webHeader = "HTTP_AUTH_HEADER_" // and a host without port: a whole Authorization header
	webToken  = "HTTP_AUTH_TOKEN_"  // the same: a bearer token; it counts more
	gitHeader = "GIT_AUTH_HEADER"   // "." and a host with its port may follow, which counts more
	gitToken  = "GIT_AUTH_TOKEN"    // the same
)

// remoteAgent is the id of the ssh agent for repositories of ADD.
const remoteAgent = "default"

// remotes is all that ADDs of the needed stages fetch.
func (n *Node) remotes() []dockerfile.Remote {
	var out []dockerfile.Remote
	for _, st := range n.program.Stages {
		for _, s := range st.Steps {
			if s.Copy != nil {
				out = append(out, s.Copy.Remote...)
			}
		}
	}
	return out
}

// bySSH tells whether a source is a repository that is reached by ssh.
func bySSH(r dockerfile.Remote) bool {
	if r.Git == nil {
		return false
	}
	u, err := url.Parse(r.Git.Remote)
	return err != nil || u.Scheme == "ssh" || u.Scheme == "" // user@host:path is no URL
}

// fetcher is how a source of ADD is had, with what the secrets and agents of the request
// let it show to the host of that source.
func (s *sources) fetcher(ctx context.Context, r dockerfile.Remote) (*buildctx.Fetcher, error) {
	f := *s.x.fetcher
	secrets := webSecrets
	if r.Git != nil {
		secrets = gitSecrets
	}
	f.Auth = func(at string) string { return s.req.authorization(secrets(at)) }
	granted, ok := s.req.agentOf(remoteAgent)
	if !ok || !bySSH(r) {
		return &f, nil
	}
	if f.SSHAgent = granted.socket(); f.SSHAgent != "" {
		return &f, nil
	}
	keys, err := readKeys(granted.Paths)
	if err != nil {
		return nil, err
	}
	socket, stop, err := listen(ctx, keys)
	if err != nil {
		return nil, err
	}
	s.onClose(stop)
	f.SSHAgent = socket
	return &f, nil
}

// shown is the ids of the secrets that may be shown to the host of a source of ADD, the
// first that is granted alone.
func shown(r dockerfile.Remote) []string {
	if r.Git == nil {
		return webSecrets(r.URL)
	}
	return gitSecrets(r.Git.Remote)
}

func webSecrets(at string) []string {
	u, err := url.Parse(at)
	if err != nil {
		return nil
	}
	return []string{webToken + u.Hostname(), webHeader + u.Hostname()}
}

func gitSecrets(remote string) []string {
	u, err := url.Parse(remote)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return nil
	}
	return []string{gitHeader + "." + u.Host, gitToken + "." + u.Host, gitHeader, gitToken}
}

// authorization is the Authorization header by the first of some secrets that is granted,
// "" for none.
func (r Request) authorization(ids []string) string {
	for _, id := range ids {
		switch text := r.secretText(id); {
		case text == "":
		case strings.HasPrefix(id, webToken):
			return "Bearer " + text
		case strings.HasPrefix(id, gitToken):
			return buildctx.TokenAuth(text)
		default:
			return text
		}
	}
	return ""
}

// secretText is a secret as one line, "" if it is not granted.
func (r Request) secretText(id string) string {
	value, _ := r.secret(id)
	return strings.TrimSpace(string(value))
}

// refused gives an error of a source of ADD the way to show its host who asks, where the
// host wants to know that.
func refused(err error, r dockerfile.Remote) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if r.Git != nil && (strings.Contains(text, "could not read Username") || strings.Contains(text, "Authentication failed") || strings.Contains(text, "authentication required")) {
		return &diag.Problem{What: text, Hint: "for a repository that is not public grant the secret " + gitToken}
	}
	if buildctx.KeyRefused(err) {
		return &diag.Problem{What: text, Hint: "grant the ssh agent " + remoteAgent + ", with a key that may read the repository"}
	}
	var status *buildctx.StatusError
	if errors.As(err, &status) && (status.Code == 401 || status.Code == 403) {
		return &diag.Problem{What: text, Hint: fmt.Sprintf("for a file that is not public grant the secret %s%s, or %s%s with the whole header", webToken, status.Host, webHeader, status.Host)}
	}
	return err
}
