// Package docker runs each node in a default container of a Docker engine, or of
// podman, on this machine.
//
//	Runner.Start ── docker run ──> this binary as "kaniko-build node" ── local.Runner, in place ──> executor.Core
//	   │ listens on a unix socket that the container sees                                               │
//	   └──────────── the node's connection, handed over as a descriptor ────────────────────────────────┘
//
// The container has Docker's default capabilities and seccomp filter, and the machine's
// network, as RUNs have it everywhere. Its own root is what the build happens in, so that
// it needs no user namespace. Of the machine it sees the socket and this program, mounted
// below /kaniko. The store is handed over as a descriptor too, of a mount that has nothing
// above it; only the node has it, which RUNs, though root beside it, may not
// trace: so they see neither the store nor a way out. Memory and CPUs of the node are limits of
// the container.
//
// The engine has to run on this machine, and its root to be this machine's root: the
// node writes into the store.
package docker

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"kaniko-build/executor"
	"kaniko-build/executor/internal/sandbox"
)

// DefaultImage is what containers are made of when nobody says. Any image will do: what
// it has is put aside, but for /kaniko.
const DefaultImage = "kaniko-build/executor:latest"

// Where a container has what it is given.
const (
	programPlace = "/kaniko/kaniko-build"
	socketPlace  = "/kaniko/node"
	socketName   = "socket"
)

// Command is the argument by which the program is to call Serve, with the path of a
// socket after it.
const Command = "node"

// Runner is an executor.Runner. The zero value uses docker, else podman.
type Runner struct {
	Program string // path of the client; "" looks for docker and podman
	Image   string // "" is DefaultImage
}

// Probe says what containers are: the root of each is its node's own. The engine is
// not asked, so that a run with nothing to do costs nothing.
func (r *Runner) Probe(context.Context, string) (executor.Isolation, error) {
	iso := executor.Isolation{Rung: sandbox.InPlace, IDs: sandbox.SameMap(), Elsewhere: true}
	if os.Geteuid() != 0 {
		return iso, &executor.MachineError{What: "runner docker: containers write into the store as root, and this is another user",
			Remedy: "build as root, or take runner local, which isolates steps without an engine"}
	}
	if _, err := r.client(); err != nil {
		return iso, err
	}
	return iso, nil
}

func (r *Runner) client() (string, error) {
	for _, name := range []string{r.Program, "docker", "podman"} {
		if name == "" {
			continue
		}
		if file, err := exec.LookPath(name); err == nil {
			return file, nil
		}
	}
	return "", &executor.MachineError{What: "runner docker: neither docker nor podman is installed", Remedy: "install one, or take runner local"}
}

// order is what a container is told, with its node's connection and the store.
type order struct {
	Keep   []string
	Ignore []string
	Arches []string
}

// outcome is the last that it says.
type outcome struct {
	Err string
}

// Start starts a container and hands it the node's connection.
func (r *Runner) Start(ctx context.Context, _ executor.Isolation, at executor.Site, conn *os.File) (_ executor.Container, err error) {
	client, err := r.client()
	if err != nil {
		return nil, err
	}
	program, err := os.Executable()
	if err == nil {
		program, err = filepath.EvalSymlinks(program)
	}
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	store, err := sandbox.Detached(at.Store)
	if err != nil {
		return nil, fmt.Errorf("open the store for the node: %w", err)
	}
	defer store.Close()
	dir, err := os.Open(at.Temp)
	if err != nil {
		return nil, fmt.Errorf("open the folder for the node's socket: %w", err)
	}
	defer dir.Close()
	c := &container{client: client, name: "kaniko-build-" + strings.ToLower(rand.Text()), gone: make(chan struct{})}
	// The path of a socket is short, that of a store need not be.
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), socketName)})
	if err != nil {
		return nil, fmt.Errorf("listen for the node: %w", err)
	}
	listener.SetUnlinkOnClose(false) // it goes with its folder
	defer listener.Close()
	args := []string{"run", "--rm", "--pull=never", "--name", c.name, "--network", "host",
		"--volume", program + ":" + programPlace + ":ro", "--volume", at.Temp + ":" + socketPlace + ":ro",
		"--entrypoint", programPlace}
	if n := at.Resources.Memory; n > 0 {
		args = append(args, "--memory", strconv.FormatInt(n, 10), "--memory-swap", strconv.FormatInt(n, 10))
	}
	if n := at.Resources.MilliCPU; n > 0 {
		args = append(args, "--cpus", strconv.FormatFloat(float64(n)/1000, 'f', -1, 64))
	}
	args = append(args, cmp.Or(r.Image, DefaultImage), Command, socketPlace+"/"+socketName)
	cmd := exec.CommandContext(context.WithoutCancel(ctx), client, args...)
	cmd.Stdout, cmd.Stderr = &c.says, &c.says
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is for us; the container ends with its connection
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", client, err)
	}
	go func() {
		c.exit = cmd.Wait()
		close(c.gone)
	}()
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	go func() {
		<-c.gone
		listener.Close() // nobody will come
	}()
	c.line, err = listener.AcceptUnix()
	if err == nil {
		err = send(c.line, order{Keep: at.Keep, Ignore: at.Ignore, Arches: at.Arches}, conn, store)
	}
	if err != nil {
		if c.line != nil {
			c.line.Close()
		}
		c.Kill()
		<-c.gone
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		return nil, c.failed()
	}
	return c, nil
}

// container is a container with a node in it.
type container struct {
	client, name string
	line         *net.UnixConn
	says         tail
	gone         chan struct{} // closed when the client has ended
	exit         error         // of the client
	once         sync.Once
	end          error
}

// Wait returns when nothing of the container is left.
func (c *container) Wait() error {
	c.once.Do(func() {
		var out outcome
		told := json.NewDecoder(c.line).Decode(&out) == nil
		<-c.gone
		switch {
		case out.Err != "":
			c.end = errors.New(out.Err)
		case !told:
			c.end = c.failed()
		}
		c.end = errors.Join(c.end, c.line.Close())
	})
	return c.end
}

// failed is how the container ended without a word of its own.
func (c *container) failed() error {
	text := strings.TrimSpace(c.says.String())
	if c.exit != nil {
		text = strings.TrimSpace(fmt.Sprintf("%v: %s", c.exit, text))
	}
	hint := "the engine has to run on this machine, and to have the image: `make images` builds it, and --runner-image names another"
	return &executor.MachineError{What: filepath.Base(c.client) + " run: " + text, Remedy: hint}
}

// Kill ends the container at once.
func (c *container) Kill() {
	ctx, cancel := context.WithTimeout(context.Background(), killTime)
	defer cancel()
	_ = exec.CommandContext(ctx, c.client, "kill", c.name).Run() // it may have ended by itself
}

const killTime = 10 * time.Second

// tail keeps the end of what is written.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if extra := len(t.b) - 4096; extra > 0 {
		t.b = bytes.Clone(t.b[extra:])
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}

// send sends an order with descriptors.
func send(line *net.UnixConn, o order, conn, store *os.File) error {
	b, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("encode the node's order: %w", err)
	}
	if _, _, err := line.WriteMsgUnix(append(b, '\n'), unix.UnixRights(int(conn.Fd()), int(store.Fd())), nil); err != nil {
		return fmt.Errorf("hand the node its connection: %w", err)
	}
	return nil
}
