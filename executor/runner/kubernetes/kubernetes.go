// Package kubernetes runs each node in a pod of its own, in a cluster that the caller may
// be outside of.
//
//	Runner.StartAfar ── POST pods ──> pod: this program as "kaniko-build pod" ── Serve ── executor.ServeAfar
//	   │                                 └ a unix socket ┐                          └ local.Runner
//	   └─── POST pods/NAME/exec: "kaniko-build pod --attach" ── Attach ┘
//
// The pod is a default one: no privileges, no capability added, no token of a service
// account, no volume. It finds out itself how RUNs can be isolated in it: by user
// namespaces, where the cluster confines no pod unasked; else its container's own root is
// what the build happens in. All that it needs, and all that it makes, goes over the one stream of the exec, whose bytes nobody
// logs; so the context is on no shared volume, and credentials of registries stay with
// the caller. When the stream ends the pod does. Memory and CPUs of the node are requests
// and limits of the pod.
//
// The cluster is reached as kubectl reaches it, by a kubeconfig, or from inside of a pod
// by its service account. The caller needs the rights of Rights.
package kubernetes

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"kaniko-build/executor"
	"kaniko-build/executor/internal/sandbox"
)

// DefaultImage is what pods are made of when nobody says.
const DefaultImage = "kaniko-build/executor:latest"

// Where a pod has what it needs.
const (
	programPlace = "/kaniko/kaniko-build"
	socketPlace  = "/kaniko/node.socket"
	storePlace   = "/kaniko/state"
)

// Command is the argument by which the program is to call Serve, and with AttachFlag
// after it Attach. RungFlag has a rung after it, for Serve.
const (
	Command    = "pod"
	AttachFlag = "--attach"
	RungFlag   = "--isolation"
)

// Times.
const (
	startTime   = 10 * time.Minute // for a pod to run
	connectTime = time.Minute      // for its process to answer
	endTime     = 10 * time.Second // for the cluster to tell how a pod ended
	callTime    = 30 * time.Second // of one request
	killTime    = 5 * time.Second
	keptTime    = 10 * time.Minute // pods that have ended are left for so long
)

// Runner is an executor.Afar. The zero value takes everything from the kubeconfig.
type Runner struct {
	Image          string // "" is DefaultImage
	Context        string // of the kubeconfig; "" is its current one
	Namespace      string // "" is the context's
	ServiceAccount string // "" is the namespace's default one
	NodeSelector   map[string]map[string]string
	Tolerations    []Toleration
	PullSecrets    []string      // names of secrets of the namespace, for Image
	StartTimeout   time.Duration // for a pod to run; 0 is 10 minutes
	Rung           string        // of Rungs, for pods; "" is the best that each gives
	Version        string        // of this program, which has to be that of the image
	At             string        // where the manifest says all this, for messages; "" is nowhere
	Getenv         func(string) string
	Environ        func() []string // for programs that a kubeconfig names

	once   sync.Once
	client *client
	err    error
	tidied sync.Once
}

// Toleration lets a pod run on nodes that have a taint.
type Toleration struct {
	Key               string `json:"key,omitempty"`
	Operator          string `json:"operator,omitempty"`
	Value             string `json:"value,omitempty"`
	Effect            string `json:"effect,omitempty"`
	TolerationSeconds *int64 `json:"tolerationSeconds,omitempty"`
}

// Probe says what containers are at least: the root of each is its node's own. The cluster
// is not asked, so that a run with nothing to do costs nothing, and each pod finds out for
// itself.
func (r *Runner) Probe(context.Context, string) (executor.Isolation, error) {
	return executor.Isolation{Rung: sandbox.InPlace, IDs: sandbox.SameMap(), Elsewhere: true, Afar: true}, nil
}

// Start is for containers of this machine.
func (r *Runner) Start(context.Context, executor.Isolation, executor.Site, *os.File) (executor.Container, error) {
	return nil, errors.New("internal error: pods are started by StartAfar")
}

// cluster connects to the cluster, once.
func (r *Runner) cluster() (*client, error) {
	r.once.Do(func() {
		c, err := load(places{getenv: r.Getenv, environ: r.Environ, context: r.Context})
		if err != nil {
			r.err = r.machine("", "", err)
			return
		}
		if r.Namespace != "" {
			c.namespace = r.Namespace
		}
		r.client = newClient(c)
	})
	return r.client, r.err
}

// machine makes what is wrong with a pod, or with reaching the cluster, an error with its
// place.
func (r *Runner) machine(pod, remedy string, err error) error {
	what := "runner kubernetes: "
	if r.At != "" {
		what = r.At + ": " + what
	}
	if pod != "" {
		what += "pod " + pod + ": "
	}
	var h *hinted
	if errors.As(err, &h) {
		remedy = cmp.Or(remedy, h.hint)
	}
	return &executor.MachineError{What: what + err.Error(), Remedy: remedy}
}

// hinted is an error that comes with its remedy.
type hinted struct {
	err  error
	hint string
}

func (h *hinted) Error() string { return h.err.Error() }

func (h *hinted) Unwrap() error { return h.err }

// StartAfar makes a pod, waits until it runs, and connects to its process.
func (r *Runner) StartAfar(ctx context.Context, at executor.Site) (_ net.Conn, _ executor.Container, err error) {
	k, err := r.cluster()
	if err != nil {
		return nil, nil, err
	}
	var beside sync.WaitGroup
	defer beside.Wait()
	r.tidied.Do(func() { beside.Go(func() { k.tidy(ctx) }) })
	p, err := k.create(ctx, r.pod(ctx, at))
	if err != nil {
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		return nil, nil, r.machine("", creationRemedy(err), fmt.Errorf("make a pod in namespace %s: %w", k.namespace, err))
	}
	c := &container{runner: r, client: k, name: p.Metadata.Name, limit: memoryLimit(at.Resources.Memory)}
	defer func() {
		if err != nil {
			c.Kill()
		}
	}()
	started, cancel := context.WithTimeoutCause(ctx, cmp.Or(r.StartTimeout, startTime), errSlow)
	defer cancel()
	var last string
	p, err = k.follow(started, p, func(p *pod) bool {
		s := stateOf(p)
		if s.waits != last && s.waits != "" && !s.final {
			last = s.waits
			if at.Tell != nil {
				at.Tell("pod " + c.name + ": " + s.waits)
			}
		}
		return s.runs || s.final
	})
	if err != nil {
		if errors.Is(err, errSlow) {
			return nil, nil, r.machine(c.name, waitRemedy(last), fmt.Errorf("it did not run within %s: %s", cmp.Or(r.StartTimeout, startTime), cmp.Or(last, "the cluster says nothing of it")))
		}
		return nil, nil, c.lost(ctx, err)
	}
	if s := stateOf(p); !s.runs {
		return nil, nil, c.failure(s)
	}
	conn, found, err := c.connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	if at.Placed != nil {
		at.Placed("pod "+c.name+", isolation "+found.String(), found.Why)
	}
	c.isolation = found
	return conn, c, nil
}

var errSlow = errors.New("it takes too long")

// greeting is the first line that a pod says on its connection.
type greeting struct {
	Version   string
	Error     string
	Isolation Isolation
}

// connect runs Attach in the pod, and checks who is there.
func (c *container) connect(ctx context.Context) (net.Conn, Isolation, error) {
	conn, err := c.client.exec(ctx, c.name, []string{programPlace, Command, AttachFlag})
	if err != nil {
		return nil, Isolation{}, c.gone(ctx, fmt.Errorf("connect to it: %w", err))
	}
	timer := time.AfterFunc(connectTime, func() { conn.Close() })
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	in := bufio.NewReaderSize(conn, 64<<10)
	line, err := in.ReadBytes('\n')
	timer.Stop()
	stop()
	var g greeting
	if err == nil {
		err = json.Unmarshal(line, &g)
	}
	switch {
	case err != nil:
		said := strings.TrimSpace(conn.said())
		conn.Close()
		return nil, Isolation{}, c.gone(ctx, fmt.Errorf("its process does not answer: %s", cmp.Or(said, err.Error())))
	case g.Error != "":
		conn.Close()
		return nil, Isolation{}, c.runner.machine(c.name, "", errors.New(g.Error))
	case g.Version != c.runner.Version:
		conn.Close()
		return nil, Isolation{}, c.runner.machine(c.name, "name an image of this version: runner.kubernetes.image, or --runner-image; `make images` builds it",
			fmt.Errorf("its image has kaniko-build %s, and this is %s", g.Version, c.runner.Version))
	}
	return &buffered{Conn: conn, in: in}, g.Isolation, nil
}

// buffered is a connection that something was read from already.
type buffered struct {
	net.Conn
	in io.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.in.Read(p) }

// container is a pod with a node in it.
type container struct {
	runner *Runner
	client *client
	name   string
	limit  int64 // bytes of memory; 0 is none
	once   sync.Once

	isolation Isolation
}

// Wait says how the pod ended, whose connection has.
func (c *container) Wait() error {
	ctx, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	return c.gone(ctx, errors.New("the connection to it ended"))
}

// gone is why a pod that should be there is not; if the cluster cannot say, it is err.
func (c *container) gone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, endTime)
	defer cancel()
	p, err2 := c.client.follow(ctx, &pod{Metadata: metadata{Name: c.name}}, func(p *pod) bool { return stateOf(p).final })
	if err2 != nil {
		if missing(err2) {
			return c.lost(ctx, err2)
		}
		return c.runner.machine(c.name, "", err)
	}
	return c.failure(stateOf(p))
}

// failure is how a pod ended.
func (c *container) failure(s state) error {
	switch {
	case s.memory && c.limit > 0:
		return fmt.Errorf("pod %s: %w", c.name, &executor.MemoryError{Limit: c.limit})
	case s.ok:
		return nil
	}
	return c.runner.machine(c.name, s.remedy, errors.New(s.waits))
}

// lost is the error of asking for a pod.
func (c *container) lost(ctx context.Context, err error) error {
	switch {
	case missing(err):
		return c.runner.machine(c.name, "it is there for as long as the build is: who or what deleted it is in the events of the namespace", errors.New("somebody deleted it"))
	case ctx.Err() != nil && context.Cause(ctx) != nil:
		return context.Cause(ctx)
	}
	return c.runner.machine(c.name, rightsRemedy(err), fmt.Errorf("ask for it: %w", err))
}

// Kill deletes the pod, which ends it.
func (c *container) Kill() {
	c.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), killTime)
		defer cancel()
		_ = c.client.remove(ctx, c.name) // it ends with its connection, and is tidied away later
	})
}

// Right is something that the caller must be allowed to do.
type Right struct{ Verb, Resource string }

func (r Right) String() string { return r.Verb + " " + r.Resource }

// Rights are all that a build needs in the namespace, and no more. They are those of
// examples/kubernetes/role.yaml.
func Rights() []Right {
	return []Right{
		{"create", "pods"}, {"get", "pods"}, {"list", "pods"}, {"watch", "pods"}, {"delete", "pods"},
		{"create", "pods/exec"}, {"get", "pods/exec"},
	}
}

// Cluster is what is found of a cluster.
type Cluster struct {
	Server, Context, Namespace string
	Version                    string  // of the API server
	Missing                    []Right // of Rights
}

// Report asks the cluster who it is and what this user may do.
func (r *Runner) Report(ctx context.Context) (Cluster, error) {
	k, err := r.cluster()
	if err != nil {
		return Cluster{}, err
	}
	out := Cluster{Server: k.config.server, Context: k.config.context, Namespace: k.namespace}
	var v struct {
		GitVersion string `json:"gitVersion"`
	}
	if err := k.do(ctx, "GET", "/version", nil, nil, &v); err != nil {
		return out, r.machine("", "", fmt.Errorf("reach the cluster: %w", err))
	}
	out.Version = v.GitVersion
	for _, right := range Rights() {
		ok, err := k.may(ctx, right)
		if err != nil {
			return out, r.machine("", "", fmt.Errorf("ask what this user may do: %w", err))
		}
		if !ok {
			out.Missing = append(out.Missing, right)
		}
	}
	return out, nil
}

// Try starts a pod, as a build would, and says how RUNs are isolated in it.
func (r *Runner) Try(ctx context.Context) (Isolation, error) {
	conn, c, err := r.StartAfar(ctx, executor.Site{Node: "doctor", Platform: "linux/" + runtime.GOARCH})
	if err != nil {
		return Isolation{}, err
	}
	err = conn.Close()
	c.Kill()
	return c.(*container).isolation, err
}

// selector is what a node of the cluster must have for a node of ours.
func (r *Runner) selector(at executor.Site) map[string]string {
	out := map[string]string{"kubernetes.io/os": "linux"}
	if len(at.Arches) == 1 { // else anyone may copy; and who needs several needs emulators
		out["kubernetes.io/arch"] = at.Arches[0]
	}
	if chosen, ok := r.NodeSelector[at.Platform]; ok {
		delete(out, "kubernetes.io/arch")
		maps.Copy(out, chosen)
	}
	return out
}
