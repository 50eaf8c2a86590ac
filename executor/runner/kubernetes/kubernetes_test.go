package kubernetes_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"kaniko-build/executor"
	"kaniko-build/executor/runner/kubernetes"
	"kaniko-build/executor/runner/kubernetes/clustertest"
)

func rights() []string {
	var out []string
	for _, r := range kubernetes.Rights() {
		out = append(out, r.String())
	}
	return out
}

// echo is a process of a pod that greets and gives back what it is sent.
func echo(greeting string) func(context.Context, clustertest.Pod, []string, io.Reader, io.Writer, io.Writer) error {
	return func(_ context.Context, _ clustertest.Pod, command []string, in io.Reader, out, _ io.Writer) error {
		if got := strings.Join(command, " "); got != "/kaniko/kaniko-build pod --attach" {
			return fmt.Errorf("command %q", got)
		}
		if _, err := io.WriteString(out, greeting+"\n"); err != nil {
			return err
		}
		_, err := io.Copy(out, in)
		return err
	}
}

func start(t *testing.T, c *clustertest.Cluster) (*kubernetes.Runner, *clustertest.Cluster) {
	t.Helper()
	if c.Rights == nil {
		c.Rights = rights()
	}
	c.Start(t)
	config := c.Kubeconfig(t)
	return &kubernetes.Runner{Version: "v1", At: "kaniko-build.yaml:3:1", Getenv: func(name string) string {
		return map[string]string{"KUBECONFIG": config}[name]
	}}, c
}

// connect starts a node, and gives its connection back to the test.
func connect(t *testing.T, r *kubernetes.Runner, at executor.Site) (net.Conn, executor.Container) {
	t.Helper()
	conn, container, err := r.StartAfar(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); container.Kill() })
	return conn, container
}

func TestPodRunsAndCarriesBytes(t *testing.T) {
	r, c := start(t, &clustertest.Cluster{Exec: echo(`{"Version": "v1"}`)})
	conn, container := connect(t, r, executor.Site{Node: "api@linux/amd64", Platform: "linux/amd64"})
	big := strings.Repeat("0123456789abcdef", 1<<16) // in many messages
	go func() { _, _ = io.WriteString(conn, big+"\n") }()
	got, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || got != big+"\n" {
		t.Fatalf("%d bytes came back, %v", len(got), err)
	}
	conn.Close()
	container.Kill()
	if left := c.Pods(); len(left) != 0 {
		t.Errorf("pods are left: %v", left)
	}
}

func TestPodAsksForNothing(t *testing.T) {
	r, c := start(t, &clustertest.Cluster{Exec: echo(`{"Version": "v1"}`)})
	r.ServiceAccount, r.PullSecrets, r.Image = "builder", []string{"pull"}, "reg.test/executor:1"
	r.Tolerations = []kubernetes.Toleration{{Key: "builds", Operator: "Exists"}}
	r.NodeSelector = map[string]map[string]string{"linux/arm64": {"pool": "arm"}}
	connect(t, r, executor.Site{Node: "Shop/API@linux/amd64", Platform: "linux/amd64", Arches: []string{"amd64"}, Resources: executor.Resources{MilliCPU: 1500, Memory: 4 << 30}})
	for name, p := range c.Pods() {
		if !strings.HasPrefix(name, "kaniko-build-shop-api-linux-amd64-") {
			t.Errorf("it is called %s", name)
		}
		for _, w := range []struct {
			way  []any
			want string
		}{
			{[]any{"spec", "securityContext"}, "<nil>"}, {[]any{"spec", "containers", 0, "securityContext"}, "<nil>"}, {[]any{"spec", "volumes"}, "<nil>"},
			{[]any{"spec", "hostNetwork"}, "<nil>"}, {[]any{"spec", "automountServiceAccountToken"}, "false"}, {[]any{"spec", "restartPolicy"}, "Never"},
			{[]any{"spec", "serviceAccountName"}, "builder"}, {[]any{"spec", "imagePullSecrets"}, "[map[name:pull]]"}, {[]any{"spec", "containers", 0, "image"}, "reg.test/executor:1"},
			{[]any{"spec", "containers", 0, "command"}, "[/kaniko/kaniko-build pod]"}, {[]any{"spec", "containers", 0, "env"}, "<nil>"},
			{[]any{"spec", "containers", 0, "resources"}, "map[limits:map[cpu:1500m memory:4831838208] requests:map[cpu:1500m memory:4294967296]]"},
			{[]any{"spec", "nodeSelector"}, "map[kubernetes.io/arch:amd64 kubernetes.io/os:linux]"}, {[]any{"spec", "tolerations"}, "[map[key:builds operator:Exists]]"},
			{[]any{"metadata", "labels"}, "map[app.kubernetes.io/managed-by:kaniko-build]"}, {[]any{"metadata", "annotations", "kaniko-build/node"}, "Shop/API@linux/amd64"},
		} {
			if got := fmt.Sprint(p.At(w.way...)); got != w.want {
				t.Errorf("%v is %s, want %s", w.way, got, w.want)
			}
		}
	}
	connect(t, r, executor.Site{Node: "arm", Platform: "linux/arm64", Arches: []string{"arm64"}})
	for name, p := range c.Pods() {
		if got := fmt.Sprint(p.At("spec", "nodeSelector")); strings.Contains(name, "-arm-") && got != "map[kubernetes.io/os:linux pool:arm]" {
			t.Errorf("a chosen selector: %s", got)
		}
	}
}

// TestPodSaysHowItIsolates tells who builds, and doctor, what the pod found.
func TestPodSaysHowItIsolates(t *testing.T) {
	for _, tc := range []struct{ rung, greeting, command, text, why string }{
		{"", `{"Version": "v1", "Isolation": {"Rung": "userns"}}`, "[/kaniko/kaniko-build pod]", "isolation userns", ""},
		{"", `{"Version": "v1", "Isolation": {"Rung": "userns", "Walk": "no overlay"}}`, "[/kaniko/kaniko-build pod]", "isolation userns, with a walk after each RUN", ""},
		{"inplace", `{"Version": "v1", "Isolation": {"Rung": "inplace", "Why": "a filter"}}`, "[/kaniko/kaniko-build pod --isolation inplace]", "isolation inplace", "a filter"},
	} {
		r, c := start(t, &clustertest.Cluster{Exec: echo(tc.greeting)})
		r.Rung = tc.rung
		var text, why string
		connect(t, r, executor.Site{Node: "api", Placed: func(a, b string) { text, why = a, b }})
		for name, p := range c.Pods() {
			if got := fmt.Sprint(p.At("spec", "containers", 0, "command")); got != tc.command {
				t.Errorf("the command is %s, want %s", got, tc.command)
			}
			if want := "pod " + name + ", " + tc.text; text != want || why != tc.why {
				t.Errorf("told %q, %q, want %q, %q", text, why, want, tc.why)
			}
		}
		before := len(c.Pods())
		if got, err := r.Try(t.Context()); err != nil || "isolation "+got.String() != tc.text || got.Why != tc.why || len(c.Pods()) != before {
			t.Errorf("tried: %+v, %v, and pods %v", got, err, c.Pods())
		}
	}
}

// TestWhatGoesWrong says where, what and what to do, and leaves no pod.
func TestWhatGoesWrong(t *testing.T) {
	status := func(s string) func(context.Context, *clustertest.Cluster, clustertest.Pod) {
		return func(_ context.Context, c *clustertest.Cluster, p clustertest.Pod) { c.Status(p.Name(), s) }
	}
	refused := func(code int, message string) func(clustertest.Pod) (int, string) {
		return func(clustertest.Pod) (int, string) { return code, message }
	}
	for _, tc := range []struct {
		name    string
		cluster *clustertest.Cluster
		what    string
		remedy  string
	}{
		{"forbidden", &clustertest.Cluster{Rights: []string{"list pods"}}, "cannot create resource", "role.yaml"},
		{"PodSecurity", &clustertest.Cluster{Admit: refused(403, `pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true`)}, "violates PodSecurity", "enforce baseline"},
		{"quota", &clustertest.Cluster{Admit: refused(403, `pods "x" is forbidden: exceeded quota: few`)}, "exceeded quota", "quota has room"},
		{"namespace", &clustertest.Cluster{Admit: refused(404, `namespaces "builds" not found`)}, "not found", "runner.kubernetes.namespace"},
		{"unschedulable", &clustertest.Cluster{Kubelet: status(`{"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available: 3 Insufficient memory."}]}`)}, "3 Insufficient memory", "lower the resources"},
		{"no image", &clustertest.Cluster{Kubelet: status(`{"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull", "message": "reg.test/x: not found"}}}]}`)}, "reg.test/x: not found", "--runner-image"},
		{"no program", &clustertest.Cluster{Kubelet: status(`{"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"reason": "StartError", "exitCode": 128, "message": "exec: no such file"}}}]}`)}, "exec: no such file", "executor image"},
		{"evicted", &clustertest.Cluster{Kubelet: status(`{"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: ephemeral-storage."}`)}, "ephemeral-storage", "give the target resources"},
		{"deadline", &clustertest.Cluster{Kubelet: status(`{"phase": "Failed", "reason": "DeadlineExceeded", "message": "Pod was active on the node longer than the specified deadline"}`)}, "longer than its timeout", "raise the timeout"},
		{"deleted", &clustertest.Cluster{Kubelet: func(_ context.Context, c *clustertest.Cluster, p clustertest.Pod) { c.Delete(p.Name()) }}, "somebody deleted it", "events of the namespace"},
		{"ended", &clustertest.Cluster{Kubelet: status(`{"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"reason": "Error", "exitCode": 3, "message": "kaniko-build: no space left"}}}]}`)}, "exit code 3: Error kaniko-build: no space left", ""},
		{"another version", &clustertest.Cluster{Exec: echo(`{"Version": "v2"}`)}, "has kaniko-build v2, and this is v1", "runner.kubernetes.image"},
		{"user", &clustertest.Cluster{Exec: echo(`{"Error": "it runs as user 1000"}`)}, "runs as user 1000", ""},
		{"no answer", &clustertest.Cluster{
			Exec: func(_ context.Context, _ clustertest.Pod, _ []string, _ io.Reader, _, errs io.Writer) error {
				_, err := io.WriteString(errs, "unknown command \"pod\"")
				return errors.Join(err, errors.New("exit code 2"))
			},
			Kubelet: func(_ context.Context, c *clustertest.Cluster, p clustertest.Pod) {
				c.Status(p.Name(), clustertest.Running)
				c.Status(p.Name(), `{"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"reason": "Error", "exitCode": 2, "message": "unknown command"}}}]}`)
			},
		}, "unknown command", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, c := start(t, tc.cluster)
			r.StartTimeout = 2 * time.Second
			if tc.name == "unschedulable" {
				r.StartTimeout = 200 * time.Millisecond
			}
			_, _, err := r.StartAfar(t.Context(), executor.Site{Node: "api"})
			var machine *executor.MachineError
			if !errors.As(err, &machine) || !strings.HasPrefix(err.Error(), "kaniko-build.yaml:3:1: runner kubernetes: ") || !strings.Contains(machine.What, tc.what) || !strings.Contains(machine.Remedy, tc.remedy) {
				t.Errorf("got %v", err)
			}
			if left := c.Pods(); len(left) != 0 {
				t.Errorf("pods are left: %v", left)
			}
		})
	}
}

func TestMemoryIsSaidAsEverywhere(t *testing.T) {
	r, c := start(t, &clustertest.Cluster{Exec: echo(`{"Version": "v1"}`)})
	conn, container := connect(t, r, executor.Site{Node: "api", Resources: executor.Resources{Memory: 1 << 30}})
	for name := range c.Pods() {
		c.Status(name, `{"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}]}`)
	}
	conn.Close()
	var full *executor.MemoryError
	if err := container.Wait(); !errors.As(err, &full) || full.Limit != 1<<30+1<<27 {
		t.Errorf("got %v", err)
	}
}

func TestCancelDeletesThePod(t *testing.T) {
	waits := make(chan string, 9)
	r, c := start(t, &clustertest.Cluster{Kubelet: func(_ context.Context, c *clustertest.Cluster, p clustertest.Pod) {
		c.Status(p.Name(), `{"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "full"}]}`)
	}})
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { <-waits; cancel(errors.New("enough")) }()
	_, _, err := r.StartAfar(ctx, executor.Site{Node: "api", Tell: func(s string) { waits <- s }})
	if err == nil || err.Error() != "enough" || len(c.Pods()) != 0 {
		t.Errorf("got %v, and pods %v", err, c.Pods())
	}
}

func TestOldPodsAreTidiedAway(t *testing.T) {
	r, c := start(t, &clustertest.Cluster{Exec: echo(`{"Version": "v1"}`)})
	ended := func(name string, when time.Time) {
		c.Add(clustertest.Pod{"metadata": map[string]any{"name": name}, "status": map[string]any{"containerStatuses": []any{
			map[string]any{"state": map[string]any{"terminated": map[string]any{"finishedAt": when.UTC().Format(time.RFC3339)}}},
		}}})
	}
	ended("old", time.Now().Add(-time.Hour))
	ended("new", time.Now())
	connect(t, r, executor.Site{Node: "api"})
	if _, old := c.Pods()["old"]; old || c.Pods()["new"] == nil {
		t.Errorf("there are %v", c.Pods())
	}
}

func TestReportNamesWhatIsMissing(t *testing.T) {
	r, _ := start(t, &clustertest.Cluster{Rights: []string{"create pods", "get pods", "watch pods", "delete pods", "list pods"}})
	got, err := r.Report(t.Context())
	if err != nil || got.Version != "v1.99.0-test" || got.Namespace != clustertest.Namespace || fmt.Sprint(got.Missing) != "[create pods/exec get pods/exec]" {
		t.Errorf("got %+v, %v", got, err)
	}
	r = &kubernetes.Runner{Getenv: func(string) string { return "" }}
	if _, err := r.Report(t.Context()); err == nil || !strings.Contains(err.Error(), "KUBECONFIG") {
		t.Errorf("without a cluster: %v", err)
	}
}

// TestManyPodsAtOnce is for the race detector: one runner serves all nodes.
func TestManyPodsAtOnce(t *testing.T) {
	r, _ := start(t, &clustertest.Cluster{Exec: echo(`{"Version": "v1"}`)})
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			conn, container, err := r.StartAfar(t.Context(), executor.Site{Node: fmt.Sprint("n", i)})
			if err != nil {
				t.Error(err)
				return
			}
			conn.Close()
			container.Kill()
		})
	}
	wg.Wait()
}
