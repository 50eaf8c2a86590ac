// Package clustertest is a cluster for tests: an API server that keeps pods in memory,
// and whatever a test takes for its nodes.
//
//	client ── HTTPS ── Cluster: pods, watches, rights ── Kubelet: what becomes of a pod
//	                        └ exec, a WebSocket ──────── Exec: a command in it
//
// It knows of the API what the runner uses: create, get, list, watch and delete of pods,
// exec, the version, and reviews of one's own rights, which it enforces. What real API
// servers check beyond that, they are tested with themselves: test/k8s.
package clustertest

import (
	"cmp"
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
)

// Pod is a pod as its JSON.
type Pod map[string]any

// At finds a value by the names on the way to it; nil if it is not there. A number is the
// index in a list.
func (p Pod) At(way ...any) any {
	var v any = map[string]any(p)
	for _, w := range way {
		switch x := v.(type) {
		case map[string]any:
			name, _ := w.(string)
			v = x[name]
		case []any:
			i, ok := w.(int)
			if !ok || i >= len(x) {
				return nil
			}
			v = x[i]
		default:
			return nil
		}
	}
	return v
}

// Name is metadata.name.
func (p Pod) Name() string { s, _ := p.At("metadata", "name").(string); return s }

// Cluster is an API server. Change its fields before it is used.
type Cluster struct {
	// Rights are what the user may do in the namespace, as "create pods".
	Rights []string
	// Admit may refuse a pod, with a status and a message.
	Admit func(Pod) (code int, message string)
	// Kubelet is called with each new pod, and says by Status what becomes of it. ctx
	// ends when the pod is deleted. Without it pods run.
	Kubelet func(ctx context.Context, c *Cluster, p Pod)
	// Exec runs a command in a pod. ctx ends with the pod and with the connection.
	Exec func(ctx context.Context, p Pod, command []string, in io.Reader, out, errs io.Writer) error

	server *httptest.Server
	mu     sync.Mutex
	turn   int // the last resourceVersion
	pods   map[string]*entry
	past   []event
	news   chan struct{} // closed at the next event
	work   sync.WaitGroup
	end    context.CancelFunc
}

type entry struct {
	pod Pod
	end context.CancelFunc
	ctx context.Context
}

type event struct {
	turn int
	name string
	text []byte
}

// Token is what the user is known by, Namespace the one there is.
const (
	Token     = "token-of-the-user"
	Namespace = "builds"
)

// Start starts the cluster; it ends with the test.
func (c *Cluster) Start(t testing.TB) {
	ctx, end := context.WithCancel(context.Background())
	c.end, c.pods, c.news = end, map[string]*entry{}, make(chan struct{})
	c.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.serve(ctx, w, r) }))
	t.Cleanup(func() {
		end()
		c.server.CloseClientConnections()
		c.server.Close()
		c.work.Wait()
	})
}

// Kubeconfig writes a kubeconfig for the cluster and returns its name.
func (c *Cluster) Kubeconfig(t testing.TB) string {
	dir := t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.server.Certificate().Raw})
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: test
clusters: [{name: c, cluster: {server: %q, certificate-authority: ca.crt}}]
contexts: [{name: test, context: {cluster: c, user: u, namespace: %s}}]
users: [{name: u, user: {token: %s}}]
`, c.server.URL, Namespace, Token)
	for name, b := range map[string][]byte{"ca.crt": ca, "config": []byte(text)} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "config")
}

// Pods are those that are there, by name.
func (c *Cluster) Pods() map[string]Pod {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]Pod{}
	for name, e := range c.pods {
		out[name] = e.pod
	}
	return out
}

// Status sets the status of a pod.
func (c *Cluster) Status(name, status string) {
	var s map[string]any
	if err := json.Unmarshal([]byte(status), &s); err != nil {
		panic(err) // the test is wrong
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.pods[name]; e != nil {
		next := Pod{}
		for k, v := range e.pod {
			next[k] = v
		}
		next["status"] = s
		e.pod = next
		c.tell("MODIFIED", e.pod)
	}
}

// Running is the status of a pod whose process is there.
const Running = `{"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]}`

// Delete deletes a pod.
func (c *Cluster) Delete(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.pods[name]
	if e == nil {
		return false
	}
	delete(c.pods, name)
	e.end()
	c.tell("DELETED", e.pod)
	return true
}

// Add puts a pod there as it is.
func (c *Cluster) Add(p Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx, end := context.WithCancel(context.Background())
	c.pods[p.Name()] = &entry{p, end, ctx}
	c.tell("ADDED", p)
}

// tell is called with the lock held.
func (c *Cluster) tell(what string, p Pod) {
	c.turn++
	meta := map[string]any{}
	for k, v := range p["metadata"].(map[string]any) {
		meta[k] = v
	}
	meta["resourceVersion"] = fmt.Sprint(c.turn)
	p["metadata"] = meta
	b, err := json.Marshal(map[string]any{"type": what, "object": p})
	if err != nil {
		panic(err)
	}
	c.past = append(c.past, event{c.turn, p.Name(), append(b, '\n')})
	close(c.news)
	c.news = make(chan struct{})
}

func refuse(w http.ResponseWriter, code int, format string, args ...any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "status": "Failure", "message": fmt.Sprintf(format, args...), "code": code})
}

func (c *Cluster) serve(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+Token {
		refuse(w, http.StatusUnauthorized, "Unauthorized")
		return
	}
	const pods = "/api/v1/namespaces/" + Namespace + "/pods"
	switch at := r.URL.Path; {
	case at == "/version":
		_ = json.NewEncoder(w).Encode(map[string]string{"gitVersion": "v1.99.0-test"})
	case at == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" && r.Method == http.MethodPost:
		c.review(w, r)
	case at == pods && r.Method == http.MethodPost:
		if c.allowed(w, "create pods") {
			c.create(w, r)
		}
	case at == pods && r.URL.Query().Get("watch") == "true":
		if c.allowed(w, "watch pods") {
			c.watch(ctx, w, r)
		}
	case at == pods:
		if c.allowed(w, "list pods") {
			list := []Pod{}
			for _, p := range c.Pods() {
				list = append(list, p)
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"items": list})
		}
	case strings.HasPrefix(at, pods+"/"):
		c.one(w, r, strings.TrimPrefix(at, pods+"/"))
	default:
		refuse(w, http.StatusNotFound, "the server could not find the requested resource: %s %s", r.Method, at)
	}
}

func (c *Cluster) allowed(w http.ResponseWriter, right string) bool {
	if slices.Contains(c.Rights, right) {
		return true
	}
	verb, resource, _ := strings.Cut(right, " ")
	refuse(w, http.StatusForbidden, "pods is forbidden: User \"tester\" cannot %s resource %q in API group \"\" in the namespace %q", verb, resource, Namespace)
	return false
}

func (c *Cluster) review(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Spec struct {
			Attributes struct{ Namespace, Verb, Resource, Subresource string } `json:"resourceAttributes"`
		} `json:"spec"`
	}
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		refuse(w, http.StatusBadRequest, "%v", err)
		return
	}
	a := q.Spec.Attributes
	right := a.Verb + " " + a.Resource
	if a.Subresource != "" {
		right += "/" + a.Subresource
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"status": map[string]any{"allowed": a.Namespace == Namespace && slices.Contains(c.Rights, right)}})
}

func (c *Cluster) create(w http.ResponseWriter, r *http.Request) {
	p := Pod{}
	if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
		refuse(w, http.StatusBadRequest, "%v", err)
		return
	}
	if c.Admit != nil {
		if code, message := c.Admit(p); code != 0 {
			refuse(w, code, "%s", message)
			return
		}
	}
	meta, _ := p["metadata"].(map[string]any)
	c.mu.Lock()
	defer c.mu.Unlock()
	meta["name"] = fmt.Sprintf("%v%05d", meta["generateName"], c.turn)
	p["status"] = map[string]any{"phase": "Pending"}
	ctx, end := context.WithCancel(context.Background())
	c.pods[p.Name()] = &entry{p, end, ctx}
	c.tell("ADDED", p)
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(p)
	kubelet := c.Kubelet
	if kubelet == nil {
		kubelet = func(_ context.Context, c *Cluster, p Pod) { c.Status(p.Name(), Running) }
	}
	c.work.Go(func() { kubelet(ctx, c, p) })
}

func (c *Cluster) one(w http.ResponseWriter, r *http.Request, name string) {
	name, sub, _ := strings.Cut(name, "/")
	c.mu.Lock()
	e := c.pods[name]
	c.mu.Unlock()
	verb := map[string]string{http.MethodGet: "get", http.MethodDelete: "delete"}[r.Method]
	right := verb + " pods"
	if sub != "" {
		right += "/" + sub
	}
	if !c.allowed(w, right) {
		return
	}
	switch {
	case e == nil:
		refuse(w, http.StatusNotFound, "pods %q not found", name)
	case sub == "exec":
		c.exec(w, r, e)
	case verb == "delete":
		c.Delete(name)
	default:
		c.mu.Lock()
		b, err := json.Marshal(e.pod)
		c.mu.Unlock()
		if err != nil {
			panic(err)
		}
		_, _ = w.Write(b)
	}
}

func (c *Cluster) watch(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	name, _ := strings.CutPrefix(q.Get("fieldSelector"), "metadata.name=")
	var from int
	_, _ = fmt.Sscan(q.Get("resourceVersion"), &from)
	both := http.NewResponseController(w)
	w.WriteHeader(http.StatusOK)
	for {
		if both.Flush() != nil {
			return
		}
		c.mu.Lock()
		var todo []event
		for _, e := range c.past {
			if e.turn > from && cmp.Or(name, e.name) == e.name {
				todo = append(todo, e)
			}
		}
		from = c.turn
		news := c.news
		c.mu.Unlock()
		for _, e := range todo {
			if _, err := w.Write(e.text); err != nil {
				return
			}
		}
		if len(todo) > 0 {
			continue
		}
		select {
		case <-news:
		case <-r.Context().Done():
			return
		case <-ctx.Done():
			return
		}
	}
}

// exec is the API server's side of a remote command.
func (c *Cluster) exec(w http.ResponseWriter, r *http.Request, e *entry) {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"v5.channel.k8s.io", "v4.channel.k8s.io"}})
	if err != nil {
		return
	}
	ws.SetReadLimit(-1)
	defer ws.CloseNow() //nolint:errcheck // it may be closed
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	in, input := io.Pipe()
	c.work.Go(func() {
		for {
			_, b, err := ws.Read(ctx)
			if err != nil {
				input.CloseWithError(io.EOF)
				cancel()
				return
			}
			if len(b) > 0 && b[0] == 0 {
				if _, err := input.Write(b[1:]); err != nil {
					return
				}
			}
		}
	})
	var mu sync.Mutex
	out := func(channel byte) io.Writer {
		return writer(func(p []byte) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			return len(p), ws.Write(ctx, websocket.MessageBinary, append([]byte{channel}, p...))
		})
	}
	status := `{"status": "Success"}`
	if err := c.Exec(ctx, e.pod, r.URL.Query()["command"], in, out(1), out(2)); err != nil {
		b, err := json.Marshal(map[string]string{"status": "Failure", "message": err.Error()})
		if err != nil {
			panic(err)
		}
		status = string(b)
	}
	_ = in.Close()
	if _, err := out(3).Write([]byte(status)); err == nil {
		_ = ws.Close(websocket.StatusNormalClosure, "")
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }
