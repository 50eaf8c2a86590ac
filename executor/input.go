package executor

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"kaniko-build/executor/internal/dockerfile"
)

// Unused is the secrets and agents that the request grants, and that no RUN mounts and no
// ADD may show to a host, by their ids.
func (n *Node) Unused() (secrets, agents []string) {
	if n.broken != nil {
		return nil, nil
	}
	used := map[string]bool{}
	n.eachRun(func(r *dockerfile.Run) {
		for _, m := range r.Mounts {
			used[m.Type+" "+m.ID] = true
		}
	})
	for _, r := range n.remotes() {
		for _, id := range shown(r) {
			used[dockerfile.MountSecret+" "+id] = true
		}
		if bySSH(r) {
			used[dockerfile.MountSSH+" "+remoteAgent] = true
		}
	}
	for _, s := range n.Secrets {
		if !used[dockerfile.MountSecret+" "+s.ID] {
			secrets = append(secrets, s.ID)
		}
	}
	for _, a := range n.SSH {
		if !used[dockerfile.MountSSH+" "+a.ID] {
			agents = append(agents, a.ID)
		}
	}
	return secrets, agents
}

// errFresh says that something of an image is made anew in every run.
var errFresh = errors.New("something of it runs in every build (noCache), so that nothing tells beforehand what it will be")

// InputDigest is the hash of all that the image is made of, in 64 hex digits: the key
// of its last step, which stands for the Dockerfile, the files it reads, its arguments
// and bases and for what other nodes of the run make of theirs; and its config
// without the labels of the request. It is known once the node is inspected, and the
// same on every machine. An image of which something runs afresh has none.
func (n *Node) InputDigest() (string, error) {
	if n.broken != nil {
		return "", n.broken
	}
	if n.fresh {
		return "", errFresh
	}
	return n.Definition()
}

// Definition is the hash that InputDigest is, and of an image of which something
// runs afresh one of what it is defined by all the same.
func (n *Node) Definition() (string, error) {
	config := n.program.Target().Config
	inner := config.Config
	inner.Labels = maps.Clone(inner.Labels)
	for name := range n.Labels {
		delete(inner.Labels, name)
	}
	b, err := json.Marshal(struct {
		Key, Architecture, OS, Variant string
		Config                         any
	}{n.finalKey.String(), config.Architecture, config.OS, config.Variant, inner})
	if err != nil {
		return "", fmt.Errorf("encode the config of %s: %w", n.ID, err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}
