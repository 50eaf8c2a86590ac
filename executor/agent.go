package executor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/sys/unix"
)

// agentOf is what is granted under id.
func (r Request) agentOf(id string) (SSH, bool) {
	for _, s := range r.SSH {
		if s.ID == id {
			return s, true
		}
	}
	return SSH{}, false
}

// socket is the socket of an agent, "" if private keys are granted.
func (s SSH) socket() string {
	if len(s.Paths) != 1 {
		return ""
	}
	if fi, err := os.Stat(s.Paths[0]); err != nil || fi.Mode()&os.ModeSocket == 0 {
		return ""
	}
	return s.Paths[0]
}

// agent connects to the ssh agent that is granted under id: a socket, or keys
// that are served from here.
func (n *Node) agent(ctx context.Context, id string) (*os.File, error) {
	s, ok := n.agentOf(id)
	if !ok {
		return nil, nil
	}
	if socket := s.socket(); socket != "" {
		var d net.Dialer
		c, err := d.DialContext(ctx, "unix", socket)
		if err != nil {
			return nil, fmt.Errorf("connect to the ssh agent: %w", err)
		}
		defer c.Close()
		return c.(*net.UnixConn).File()
	}
	keys, err := readKeys(s.Paths)
	if err != nil {
		return nil, err
	}
	return connect(keys)
}

// readKeys is an agent that holds private keys and can sign with them, nothing else.
func readKeys(paths []string) (agent.Agent, error) {
	ring := agent.NewKeyring()
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			return nil, fmt.Errorf("read ssh key: %w", err)
		}
		key, err := ssh.ParseRawPrivateKey(b)
		if err != nil {
			return nil, fmt.Errorf("read ssh key %s: %w", p, err)
		}
		if err := ring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
			return nil, fmt.Errorf("use ssh key %s: %w", p, err)
		}
	}
	return signOnly{ring}, nil
}

// connect is one connection to an agent.
func connect(keys agent.Agent) (*os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket for ssh: %w", err)
	}
	ours := os.NewFile(uintptr(fds[0]), "agent")
	c, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		unix.Close(fds[1])
		return nil, fmt.Errorf("use a socket for ssh: %w", err)
	}
	go serveAgent(keys, c)
	return os.NewFile(uintptr(fds[1]), "agent"), nil
}

// serveAgent answers on a connection until its other end is closed.
func serveAgent(keys agent.Agent, c net.Conn) {
	defer c.Close()
	_ = agent.ServeAgent(keys, c) // its error is that end, or a client that speaks nonsense
}

// listen has an agent at a socket in a directory that only this user may enter, until
// stop is called.
func listen(ctx context.Context, keys agent.Agent) (socket string, stop func() error, err error) {
	dir, err := os.MkdirTemp("", "kaniko-build-agent-")
	if err != nil {
		return "", nil, fmt.Errorf("make a place for ssh's socket: %w", err)
	}
	socket = filepath.Join(dir, "agent")
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", socket)
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("make a socket for ssh: %w", err), os.RemoveAll(dir))
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil { // closed
				return
			}
			go serveAgent(keys, c)
		}
	}()
	return socket, func() error { return errors.Join(l.Close(), os.RemoveAll(dir)) }, nil
}

// signOnly refuses everything that would change the keys.
type signOnly struct{ agent.Agent }

var errReadOnly = errors.New("this agent's keys cannot be changed")

func (signOnly) Add(agent.AddedKey) error   { return errReadOnly }
func (signOnly) Remove(ssh.PublicKey) error { return errReadOnly }
func (signOnly) RemoveAll() error           { return errReadOnly }
func (signOnly) Lock([]byte) error          { return errReadOnly }
func (signOnly) Unlock([]byte) error        { return errReadOnly }
