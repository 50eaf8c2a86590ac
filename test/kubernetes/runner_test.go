package kubernetes

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"kaniko-build/test/rig"
)

// shop is two images, one on the other, and some that end badly.
func shop(t *testing.T, registry string) string {
	t.Helper()
	dir := rig.Space(t, nil)
	rig.Write(t, dir, map[string]string{
		"kaniko-build.yaml": `version: 1
defaults: {image: "` + registry + `/shop/${target.base}", executor: {reproducible: true}, context: ctx}
secrets: {word: {env: SECRET_WORD}}
runner: {type: kubernetes, kubernetes: {startTimeout: 2m}}
targets:
  base: {}
  api: {dockerfile: api.Dockerfile, secrets: [word], resources: {cpu: 100m, memory: 256Mi}}
  fails: {dockerfile: fails.Dockerfile}
  greedy: {dockerfile: greedy.Dockerfile, resources: {memory: 64Mi}}
  stuck: {dockerfile: stuck.Dockerfile}
groups: {default: [base, api]}
`,
		"ctx/f": "one\n", "ctx/sub/deep/g": "two\n",
		"ctx/Dockerfile": "FROM scratch\nCOPY --chmod=755 busybox /bin/sh\nRUN echo $((20 + 22)) > /answer && mkdir -m 1777 /tmp && chown 1000:1001 /answer\n",
		"ctx/api.Dockerfile": "FROM " + registry + "/shop/base\nCOPY f sub /s/\n" +
			// A pod holds no token of an account and nothing of the caller.
			"RUN --mount=type=secret,id=word test -s /run/secrets/word && cat /answer /s/f /s/deep/g > /both && test ! -e /var/run/secrets/kubernetes.io && test ! -e " + dir + "\nUSER 1000\nRUN cat /both > /tmp/x\n",
		"ctx/busybox":          rig.Busybox(t),
		"ctx/fails.Dockerfile": "FROM " + registry + "/shop/base\nRUN echo last words; exit 42\n",
		// Faster than anybody can look: the kernel ends it.
		"ctx/greedy.Dockerfile": "FROM " + registry + "/shop/base\nRUN x=0123456789abcdef; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25; do x=$x$x; done\n",
		"ctx/stuck.Dockerfile":  "FROM " + registry + "/shop/base\nRUN echo it runs; while :; do :; done\n",
	})
	return dir
}

// user is somebody who builds, with rights in one namespace.
type user struct {
	*rig.Account
	dir, config, state string
}

func (u *user) call() rig.Call {
	return rig.Call{Dir: u.dir, Env: []string{"KUBECONFIG=" + u.config, "KANIKO_BUILD_STATE=" + u.state, "SOURCE_DATE_EPOCH=0", "SECRET_WORD=hush"}}
}

func (u *user) run(t *testing.T, args ...string) rig.Output {
	t.Helper()
	return u.Run(t, u.call(), append([]string{rig.Binary(t)}, args...)...)
}

func (u *user) apply(t *testing.T, args ...string) rig.Output {
	t.Helper()
	return u.run(t, append([]string{"apply", "--progress", "plain", "--metadata-file", "meta.json"}, args...)...)
}

func (u *user) digests(t *testing.T) map[string]string {
	t.Helper()
	return rig.Digests(t, filepath.Join(u.dir, "meta.json"))
}

// config writes a kubeconfig for a service account.
func (c *cluster) config(t *testing.T, namespace, account string) string {
	t.Helper()
	name := filepath.Join(rig.Space(t, nil), "config")
	token := c.must(t, "-n", namespace, "create", "token", account)
	if err := os.WriteFile(name, []byte(c.kubeconfig(token, namespace)), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestCluster(t *testing.T) {
	c := startCluster(t)
	t.Run("runner", func(t *testing.T) { testRunner(t, c) })
	t.Run("examples", func(t *testing.T) { testExamples(t, c) })
}

func testRunner(t *testing.T, c *cluster) {
	registry := rig.StartRegistry(t)
	role, err := os.ReadFile(filepath.Join(rig.Root(t), "examples", "kubernetes", "role.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	// The namespace enforces what a default pod keeps to.
	c.apply(t, `{apiVersion: v1, kind: Namespace, metadata: {name: builds, labels: {pod-security.kubernetes.io/enforce: baseline}}}`)
	c.apply(t, string(role))
	c.must(t, "-n", "builds", "wait", "--for=create", "serviceaccount/default", "--timeout=60s")
	u := &user{Account: rig.NewAccount(t, rig.Superuser), dir: shop(t, registry.Addr), config: c.config(t, "builds", "kaniko-build")}
	u.state = filepath.Join(u.Home, "state")

	none := func(t *testing.T) {
		t.Helper()
		c.must(t, "-n", "builds", "wait", "--for=delete", "pods", "--all", "--timeout=60s")
	}
	ok := t.Run("rights", func(t *testing.T) {
		if o := u.run(t, "doctor"); o.Code != 0 || strings.Contains(o.All(), "MISSING") || !strings.Contains(o.All(), "Kubernetes v1.") || !strings.Contains(o.All(), "isolation  userns, with a walk after each RUN, in a pod") {
			t.Errorf("with the role: code %d\n%s", o.Code, o.All())
		}
		c.apply(t, `{apiVersion: v1, kind: ServiceAccount, metadata: {name: nobody, namespace: builds}}`)
		n := *u
		n.config = c.config(t, "builds", "nobody")
		if o := n.run(t, "doctor"); o.Code != 4 || strings.Count(o.All(), "MISSING") != 7 {
			t.Errorf("without: code %d\n%s", o.Code, o.All())
		}
		if o := n.apply(t); o.Code != 4 || !strings.Contains(o.All(), "kaniko-build.yaml:4:9: runner kubernetes: ") || !strings.Contains(o.All(), "role.yaml") {
			t.Errorf("a build without: code %d\n%s", o.Code, o.Tail(20))
		}
	}) && t.Run("build", func(t *testing.T) {
		here := *u
		here.state = filepath.Join(u.Home, "here")
		if o := here.apply(t, "--runner", "local"); o.Code != 0 {
			t.Fatalf("runner local: %s", o.Tail(30))
		}
		want := u.digests(t)
		if o := u.apply(t, "--push"); o.Code != 0 || !strings.Contains(o.All(), "2 built") || strings.Count(o.All(), ", isolation userns, with a walk") != 2 {
			t.Fatalf("runner kubernetes: code %d\n%s", o.Code, o.Tail(40))
		}
		same := func(how string) {
			for name, got := range u.digests(t) {
				if got != want[name] {
					t.Errorf("%s is %s in a pod %s and %s here", name, got, how, want[name])
				}
			}
		}
		same("with user namespaces") // the runtime here confines nothing unasked
		if got := registry.Requests(t, "PUT", "/manifests/latest"); len(got) != 2 {
			t.Errorf("tags that were put: %v", got)
		}
		if o := u.apply(t); o.Code != 0 || !strings.Contains(o.All(), "0 built") {
			t.Errorf("a second time: %s", o.Tail(30))
		}
		if o := u.apply(t, "--no-cache", "--isolation", "inplace"); o.Code != 0 || !strings.Contains(o.All(), "2 built") || strings.Count(o.All(), ", isolation inplace") != 2 {
			t.Errorf("in place: %s", o.Tail(30))
		}
		same("in place")
		none(t)
	})
	if !ok {
		t.FailNow() // the rest stands on that
	}
	t.Run("a RUN fails", func(t *testing.T) {
		if o := u.apply(t, "fails"); o.Code != 1 || !strings.Contains(o.All(), "exit code: 42") || !strings.Contains(o.All(), "| last words") {
			t.Errorf("code %d\n%s", o.Code, o.Tail(30))
		}
		none(t)
	})
	t.Run("memory", func(t *testing.T) {
		if o := u.apply(t, "greedy"); o.Code != 1 || !strings.Contains(o.All(), "memory") {
			t.Errorf("code %d\n%s", o.Code, o.Tail(30))
		}
	})
	t.Run("no image", func(t *testing.T) {
		if o := u.apply(t, "--no-cache", "--runner-image", registry.Addr+"/no/such:image", "base"); o.Code != 4 || !strings.Contains(o.All(), "not found") || !strings.Contains(o.All(), "--runner-image") {
			t.Errorf("code %d\n%s", o.Code, o.Tail(30))
		}
	})
	t.Run("no node", func(t *testing.T) {
		at := filepath.Join(u.dir, "nowhere.yaml")
		if err := os.WriteFile(at, []byte("runner: {kubernetes: {startTimeout: 3s, nodeSelector: {linux/amd64: {pool: none}, linux/arm64: {pool: none}}}}\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if o := u.apply(t, "--no-cache", "-f", "kaniko-build.yaml", "-f", "nowhere.yaml", "base"); o.Code != 4 || !strings.Contains(o.All(), "didn't match Pod's node affinity/selector") || !strings.Contains(o.All(), "nodeSelector") {
			t.Errorf("code %d\n%s", o.Code, o.Tail(30))
		}
	})
	t.Run("quota and PodSecurity", func(t *testing.T) {
		c.apply(t, `{apiVersion: v1, kind: ResourceQuota, metadata: {name: few, namespace: builds}, spec: {hard: {requests.memory: 1Mi}}}`)
		c.must(t, "-n", "builds", "wait", "--for=jsonpath={.status.hard}", "resourcequota/few", "--timeout=60s")
		if o := u.apply(t, "--no-cache", "api"); o.Code != 4 || !strings.Contains(o.All(), "quota") || !strings.Contains(o.All(), "give the target resources") {
			t.Errorf("quota: code %d\n%s", o.Code, o.Tail(30))
		}
		c.must(t, "-n", "builds", "delete", "resourcequota/few")
		c.must(t, "label", "--overwrite", "namespace", "builds", "pod-security.kubernetes.io/enforce=restricted")
		if o := u.apply(t, "--no-cache", "base"); o.Code != 4 || !strings.Contains(o.All(), `violates PodSecurity "restricted`) || !strings.Contains(o.All(), "enforce baseline") {
			t.Errorf("restricted: code %d\n%s", o.Code, o.Tail(30))
		}
		c.must(t, "label", "--overwrite", "namespace", "builds", "pod-security.kubernetes.io/enforce=baseline")
	})
	// started runs a build until its RUN does, and then does something.
	started := func(t *testing.T, then func(*exec.Cmd)) (string, error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		cmd := u.Command(ctx, u.call(), rig.Binary(t), "apply", "--progress", "interleaved", "stuck")
		out, err := cmd.StderrPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		var all strings.Builder
		for s := bufio.NewScanner(out); s.Scan(); {
			all.WriteString(s.Text() + "\n")
			if strings.Contains(s.Text(), "it runs") && !strings.Contains(s.Text(), "RUN") {
				then(cmd)
			}
		}
		return all.String(), cmd.Wait()
	}
	t.Run("cancel", func(t *testing.T) {
		out, err := started(t, func(cmd *exec.Cmd) { _ = syscall.Kill(cmd.Process.Pid, syscall.SIGINT) })
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 130 {
			t.Errorf("%v\n%s", err, out)
		}
		none(t)
	})
	t.Run("killed", func(t *testing.T) {
		_, _ = started(t, func(cmd *exec.Cmd) { _ = syscall.Kill(cmd.Process.Pid, syscall.SIGKILL) })
		c.must(t, "-n", "builds", "wait", "--for=jsonpath={.status.phase}=Failed", "pods", "--all", "--timeout=60s") // by itself
		c.must(t, "-n", "builds", "delete", "pods", "--all")
	})
	t.Run("deleted", func(t *testing.T) {
		out, err := started(t, func(*exec.Cmd) { c.must(t, "-n", "builds", "delete", "pods", "--all", "--wait=false") })
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 4 || !strings.Contains(out, "delete") {
			t.Errorf("%v\n%s", err, out)
		}
	})
}
