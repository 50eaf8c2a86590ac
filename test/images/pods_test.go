package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"kaniko-build/executor/runner/kubernetes"
	"kaniko-build/executor/runner/kubernetes/clustertest"
	"kaniko-build/test/rig"
)

// dockerCluster is a cluster whose pods are default containers of a real engine: what a
// build in a pod may do is what it may do there. test/k8s has the real kubelet.
func dockerCluster(t *testing.T, d *rig.Docker) *clustertest.Cluster {
	t.Helper()
	c := &clustertest.Cluster{}
	for _, r := range kubernetes.Rights() {
		c.Rights = append(c.Rights, r.String())
	}
	c.Kubelet = func(ctx context.Context, c *clustertest.Cluster, p clustertest.Pod) {
		args := []string{"run", "--name", p.Name(), "--network", "none", "--pull", "never"}
		if limit, _ := p.At("spec", "containers", 0, "resources", "limits", "memory").(string); limit != "" {
			args = append(args, "--memory", limit, "--memory-swap", limit)
		}
		args = append(args, "--entrypoint", "")
		args = append(args, fmt.Sprint(p.At("spec", "containers", 0, "image")))
		for _, w := range p.At("spec", "containers", 0, "command").([]any) {
			args = append(args, w.(string))
		}
		run := d.Command(context.WithoutCancel(ctx), args...)
		out, err := run.StderrPipe()
		if err == nil {
			err = run.Start()
		}
		if err != nil {
			c.Status(p.Name(), `{"phase": "Failed", "reason": "Engine"}`)
			return
		}
		c.Status(p.Name(), clustertest.Running)
		stop := context.AfterFunc(ctx, func() { _ = d.Command(context.WithoutCancel(ctx), "rm", "--force", p.Name()).Run() })
		said, _ := io.ReadAll(out)
		_ = run.Wait()
		b, err := json.Marshal(map[string]any{"phase": "Failed", "containerStatuses": []any{map[string]any{"state": map[string]any{
			"terminated": map[string]any{"reason": "Error", "exitCode": run.ProcessState.ExitCode(), "message": string(said), "finishedAt": time.Now().UTC().Format(time.RFC3339)},
		}}}})
		if err != nil {
			panic(err)
		}
		c.Status(p.Name(), string(b))
		if !stop() {
			return // it is removed
		}
		_ = d.Command(context.WithoutCancel(ctx), "rm", "--force", p.Name()).Run()
	}
	c.Exec = func(ctx context.Context, p clustertest.Pod, command []string, in io.Reader, out, errs io.Writer) error {
		for d.Command(ctx, "inspect", p.Name()).Run() != nil { // it says that it runs before it does
			if ended, _ := c.Pods()[p.Name()].At("status", "phase").(string); ctx.Err() != nil || ended != "Running" {
				return errors.New("container not found")
			}
		}
		run := d.Command(ctx, append([]string{"exec", "--interactive", p.Name()}, command...)...)
		run.Stdout, run.Stderr = out, errs
		stdin, err := run.StdinPipe() // Wait would wait for what Stdin is copied from
		if err != nil {
			return err
		}
		if err := run.Start(); err != nil {
			return err
		}
		go func() { _, _ = io.Copy(stdin, in); stdin.Close() }()
		return run.Wait()
	}
	c.Start(t)
	return c
}

// TestRunnerKubernetes builds nodes in pods: with the digests that this machine's own
// isolation gives, without the store, the context or a credential there, and nothing left.
func TestRunnerKubernetes(t *testing.T) {
	rig.NeedRoot(t)
	d := rig.StartDocker(t)
	rig.LoadExecutors(t, d, executor)
	c := dockerCluster(t, d)
	dir := podShop(t)
	env, apply, digests := podUser(t, c, dir)
	here, there := filepath.Join(rig.Space(t, nil), "here"), filepath.Join(rig.Space(t, nil), "there")
	if o := apply(here, "--runner", "local"); o.Code != 0 {
		t.Fatalf("runner local: %s", o.Tail(30))
	}
	want := digests()
	if o := apply(there); o.Code != 0 || !strings.Contains(o.All(), "2 built") || strings.Count(o.All(), ", isolation inplace") != 2 {
		t.Fatalf("runner kubernetes: code %d\n%s\n%s", o.Code, o.Tail(40), d.Client(t, "ps", "--all").Stdout)
	}
	for name, got := range digests() {
		if got != want[name] {
			t.Errorf("%s is %s in a pod and %s here", name, got, want[name])
		}
	}
	if o := apply(there); o.Code != 0 || !strings.Contains(o.All(), "0 built") {
		t.Errorf("a second time: %s", o.Tail(30))
	}
	if o := apply(there, "--no-cache", "--isolation", "userns", "base"); o.Code != 4 || !strings.Contains(o.All(), "isolation userns is not to be had: a seccomp filter forbids user namespaces") {
		t.Errorf("what these pods do not have: code %d\n%s", o.Code, o.Tail(30))
	}
	if o := rig.NewAccount(t, rig.Superuser).Run(t, rig.Call{Dir: dir, Env: env(there)}, rig.Binary(t), "doctor"); o.Code != 0 || !strings.Contains(o.Stdout, "isolation  inplace, in a pod that was started\n           a seccomp filter forbids") || !strings.Contains(o.Stdout, "remedy: ") {
		t.Fatalf("doctor: code %d\n%s", o.Code, o.All())
	}
	if o := apply(there, "--isolation", "userns-single", "base"); o.Code != 2 || !strings.Contains(o.All(), "choose userns or inplace") {
		t.Errorf("what no pod has: code %d\n%s", o.Code, o.Tail(30))
	}
	// What changed is built on what the store has: the steps before are not run again.
	rig.Write(t, dir, map[string]string{"ctx/base.Dockerfile": "FROM scratch\nCOPY --chmod=755 busybox /bin/sh\nRUN echo $((20 + 22)) > /answer && mkdir -m 1777 /tmp && chown 1000:1001 /answer\nRUN echo more > /more\n"})
	if o := apply(there, "--progress", "interleaved", "--set", "base.dockerfile=base.Dockerfile", "base"); o.Code != 0 || strings.Count(o.All(), "CACHED")+strings.Count(o.All(), "cached") < 2 {
		t.Errorf("one step more: %s", o.Tail(30))
	}
	if o := apply(there, "fails"); o.Code != 1 || !strings.Contains(o.All(), "exit code: 42") || !strings.Contains(o.All(), "| last words") {
		t.Errorf("a failure: code %d\n%s", o.Code, o.Tail(30))
	}
	if o := apply(there, "greedy"); o.Code != 1 || !starved(o) {
		t.Errorf("too much memory: code %d\n%s", o.Code, o.Tail(30))
	}
	if o := apply(there, "--runner-image", "no/such:image", "--no-cache", "base"); o.Code != 4 || !strings.Contains(o.All(), "kaniko-build.yaml:4:9: runner kubernetes: pod kaniko-build-base-") {
		t.Errorf("without the image: code %d\n%s", o.Code, o.Tail(30))
	}
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		signalStuck(t, rig.NewAccount(t, rig.Superuser), rig.Call{Dir: dir, Env: env(there)}, signal, "stuck")
		if left := c.Pods(); signal == syscall.SIGINT && len(left) != 0 {
			t.Errorf("interrupted: pods %v are still there", left)
		}
		if id := strings.TrimSpace(d.Client(t, "ps", "--quiet").Stdout); id != "" {
			d.Client(t, "wait", id) // it ends when its connection does
		}
	}
	if o := d.Client(t, "ps", "--quiet"); o.Stdout != "" {
		t.Errorf("containers are left:\n%s", o.All())
	}
}

// podShop is some images that are built in pods, two of them by default.
func podShop(t *testing.T) string {
	t.Helper()
	dir := rig.Space(t, nil)
	rig.Write(t, dir, map[string]string{
		"kaniko-build.yaml": `version: 1
defaults: {image: "example.test/run/${target.base}", executor: {reproducible: true}, context: ctx}
secrets: {word: {env: SECRET_WORD}}
runner: {type: kubernetes, kubernetes: {nodeSelector: {linux/amd64: {pool: builds}}}}
targets:
  base: {}
  one: {dockerfile: one.Dockerfile, secrets: [word]}
  fails: {dockerfile: fails.Dockerfile}
  greedy: {dockerfile: greedy.Dockerfile, resources: {cpu: "0.5", memory: 64Mi}}
  stuck: {dockerfile: stuck.Dockerfile}
groups: {default: [base, one]}
`,
		"ctx/busybox": rig.Busybox(t),
		"ctx/f":       "one\n", "ctx/sub/deep/g": "two\n", "ctx/sub/h.txt": "three\n", "ctx/sub/left-out": "x\n", "ctx/.dockerignore": "sub/left-out\n",
		"ctx/Dockerfile": "FROM scratch\nCOPY --chmod=755 busybox /bin/sh\nRUN echo $((20 + 22)) > /answer && mkdir -m 1777 /tmp && chown 1000:1001 /answer\n",
		"ctx/one.Dockerfile": "FROM example.test/run/base AS made\nWORKDIR /w\nCOPY f ./\nCOPY sub/*.txt sub /w/s/\n" +
			"RUN --mount=type=secret,id=word --mount=type=bind,source=sub,target=/b test -s /run/secrets/word && cat f /answer /b/deep/g > both && test ! -e /b/left-out\n" +
			"RUN ! grep -r hush /proc/1/environ /kaniko/.docker 2>/dev/null && test ! -e /var/run/secrets && test ! -e " + dir + "\n" +
			"FROM example.test/run/base\nCOPY --from=made /w/both /both\nCOPY --from=made /w/s /s\nUSER 1000\nRUN --mount=type=cache,target=/c,uid=1000 cat /both > /tmp/x && echo done > /c/x\n",
		"ctx/fails.Dockerfile":  "FROM example.test/run/base\nRUN echo last words; exit 42\n",
		"ctx/greedy.Dockerfile": "FROM example.test/run/base\nRUN x=0123456789abcdef; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23; do x=$x$x; done; while :; do :; done\n",
		"ctx/stuck.Dockerfile":  "FROM example.test/run/base\nRUN echo it runs; while :; do :; done\n",
	})
	return dir
}

// podUser is somebody who has the images of dir built in pods: the variables for a store,
// apply in it, and the digests of the last one.
func podUser(t *testing.T, c *clustertest.Cluster, dir string) (env func(state string) []string, apply func(state string, args ...string) rig.Output, digests func() map[string]string) {
	t.Helper()
	config, root := c.Kubeconfig(t), rig.NewAccount(t, rig.Superuser)
	env = func(state string) []string {
		return []string{"KUBECONFIG=" + config, "KANIKO_BUILD_STATE=" + state, "SOURCE_DATE_EPOCH=0", "SECRET_WORD=hush"}
	}
	apply = func(state string, args ...string) rig.Output {
		t.Helper()
		return root.Run(t, rig.Call{Dir: dir, Env: env(state)}, append([]string{rig.Binary(t), "apply", "--progress", "plain", "--metadata-file", "meta.json"}, args...)...)
	}
	return env, apply, func() map[string]string { return rig.Digests(t, filepath.Join(dir, "meta.json")) }
}

// TestPodsIsolate has pods that nothing confines, as those of many clusters: RUNs get
// user namespaces there, and see nothing of the pod.
func TestPodsIsolate(t *testing.T) {
	rig.NeedRoot(t)
	d := rig.StartOpenDocker(t)
	rig.LoadExecutors(t, d, executor)
	c := dockerCluster(t, d)
	dir := podShop(t)
	rig.Write(t, dir, map[string]string{"ctx/alone.Dockerfile": "FROM example.test/run/base\nRUN test ! -e /kaniko && mkdir /kaniko && echo mine > /kaniko/f\nRUN --network=none test \"$(cat /kaniko/f)\" = mine\n"})
	_, apply, digests := podUser(t, c, dir)
	here, there := filepath.Join(rig.Space(t, nil), "here"), filepath.Join(rig.Space(t, nil), "there")
	alone := []string{"--set", "stuck.dockerfile=alone.Dockerfile", "base", "one", "stuck"}
	if o := apply(here, append([]string{"--runner", "local"}, alone...)...); o.Code != 0 {
		t.Fatalf("runner local: %s", o.Tail(30))
	}
	want := digests()
	if o := apply(there, alone...); o.Code != 0 || strings.Count(o.All(), ", isolation userns, with a walk") != 3 {
		t.Fatalf("runner kubernetes: code %d\n%s", o.Code, o.Tail(40))
	}
	for name, got := range digests() {
		if got != want[name] {
			t.Errorf("%s is %s in a pod and %s here", name, got, want[name])
		}
	}
	if o := apply(there, "--no-cache", "--isolation", "inplace", "base"); o.Code != 0 || !strings.Contains(o.All(), ", isolation inplace") {
		t.Errorf("in place: code %d\n%s", o.Code, o.Tail(30))
	}
	for name, want := range map[string]string{"fails": "exit code: 42", "greedy": "memory"} {
		if o := apply(there, name); o.Code != 1 || !strings.Contains(o.All(), want) {
			t.Errorf("%s: code %d\n%s", name, o.Code, o.Tail(30))
		}
	}
	if left := c.Pods(); len(left) != 0 {
		t.Errorf("pods are left: %v", left)
	}
}
