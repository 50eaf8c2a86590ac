package images

import (
	"bufio"
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"kaniko-build/test/rig"
)

// starved tells whether a build says that there was too little memory: itself, or the
// kernel, where that was sooner.
func starved(o rig.Output) bool {
	return strings.Contains(o.All(), "64 MiB are allowed") || strings.Contains(o.All(), "for want of memory, probably one of this RUN")
}

// signalStuck applies args with a step that says that it runs, and does until the signal.
func signalStuck(t *testing.T, a *rig.Account, call rig.Call, signal syscall.Signal, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := a.Command(ctx, call, append([]string{rig.Binary(t), "apply", "--progress", "interleaved"}, args...)...)
	out, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	for s := bufio.NewScanner(out); s.Scan(); {
		if strings.Contains(s.Text(), "it runs") && !strings.Contains(s.Text(), "RUN") {
			_ = syscall.Kill(cmd.Process.Pid, signal)
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || signal == syscall.SIGINT && exit.ExitCode() != 130 {
		t.Errorf("%v: %v", signal, err)
	}
}

// TestRunnerDocker builds nodes in default containers of a real engine: with the digests
// that this machine's own isolation gives, each in a root of its own, with what
// containers must not see out of sight, and nothing left of them.
func TestRunnerDocker(t *testing.T) {
	rig.NeedRoot(t)
	d := rig.StartDocker(t)
	rig.LoadExecutors(t, d, executor)
	dir := rig.Space(t, nil)
	rig.Write(t, dir, map[string]string{
		"kaniko-build.yaml": `version: 1
defaults: {image: "example.test/run/${target.base}", executor: {reproducible: true}, context: ctx}
secrets: {word: {env: SECRET_WORD}}
targets:
  base: {}
  one: {dockerfile: one.Dockerfile, secrets: [word]}
  two: {dockerfile: two.Dockerfile}
  fails: {dockerfile: fails.Dockerfile}
  greedy: {dockerfile: greedy.Dockerfile, resources: {cpu: "0.5", memory: 64Mi}}
  stuck: {dockerfile: stuck.Dockerfile}
groups: {default: [base, one, two]}
`,
		"ctx/busybox":    rig.Busybox(t),
		"ctx/f":          "one\n",
		"ctx/Dockerfile": "FROM scratch\nCOPY --chmod=755 busybox /bin/sh\nRUN echo $((20 + 22)) > /answer && mkdir -m 1777 /tmp && chown 1000:1001 /answer\n",
		"ctx/one.Dockerfile": "FROM example.test/run/base AS made\nWORKDIR /w\nCOPY f ./\nRUN --mount=type=secret,id=word test -s /run/secrets/word && cat f /answer > both\n" +
			"FROM example.test/run/base\nCOPY --from=made /w/both /both\nUSER 1000\nRUN --mount=type=cache,target=/c,uid=1000 cat /both > /tmp/x && echo done > /c/x\n",
		// What a RUN sees of the machine and of the node: nothing of the context, the store and the program.
		"ctx/two.Dockerfile":    "FROM example.test/run/base\nRUN ! grep -e " + dir + " -e /state /proc/self/mountinfo && test ! -e " + dir + " && for f in /proc/[0-9]*/fd/* /proc/self/fd/*; do if ls $f/blobs || ls $f/../../tmp; then exit 1; fi; done; test $(ls /proc | grep -c '^[0-9]') -gt 2\n",
		"ctx/fails.Dockerfile":  "FROM example.test/run/base\nRUN echo last words; exit 42\n",
		"ctx/greedy.Dockerfile": "FROM example.test/run/base\nRUN cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max; x=0123456789abcdef; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23; do x=$x$x; done; while :; do :; done\n",
		"ctx/stuck.Dockerfile":  "FROM example.test/run/base\nRUN echo it runs; while :; do :; done\n",
	})
	root := rig.NewAccount(t, rig.Superuser)
	env := func(state string) []string {
		return append(d.Env(), "KANIKO_BUILD_STATE="+state, "SOURCE_DATE_EPOCH=0", "SECRET_WORD=hush")
	}
	apply := func(state string, args ...string) rig.Output {
		t.Helper()
		return root.Run(t, rig.Call{Dir: dir, Env: env(state)}, append([]string{rig.Binary(t), "apply", "--progress", "plain", "--metadata-file", "meta.json"}, args...)...)
	}
	digests := func() map[string]string { return rig.Digests(t, filepath.Join(dir, "meta.json")) }
	here, there := filepath.Join(rig.Space(t, root), "here"), filepath.Join(rig.Space(t, root), "there")
	if o := apply(here); o.Code != 0 {
		t.Fatalf("runner local: %s", o.Tail(30))
	}
	want := digests()
	if o := apply(there, "--runner", "docker", "base", "one", "two"); o.Code != 0 {
		t.Fatalf("runner docker: code %d\n%s\n%s", o.Code, o.Tail(40), d.Client(t, "ps", "--all").Stdout)
	}
	got := digests()
	for _, name := range []string{"base", "one"} {
		if got[name] != want[name] {
			t.Errorf("%s is %s in a container and %s here", name, got[name], want[name])
		}
	}
	if o := apply(there, "--runner", "docker"); o.Code != 0 || !strings.Contains(o.All(), "0 built") {
		t.Errorf("a second time: %s", o.Tail(30))
	}
	if o := apply(there, "--set", "one.labels.a=b"); o.Code != 0 || !strings.Contains(o.All(), "0 built") {
		t.Errorf("runner local does not know what containers made: %s", o.Tail(30))
	}
	if o := apply(there, "--runner", "docker", "fails"); o.Code != 1 || !strings.Contains(o.All(), "exit code: 42") || !strings.Contains(o.All(), "| last words") {
		t.Errorf("a failure: code %d\n%s", o.Code, o.Tail(30))
	}
	if o := apply(there, "--runner", "docker", "greedy"); o.Code != 1 || !strings.Contains(o.All(), "67108864") || !starved(o) {
		t.Errorf("too much memory: code %d\n%s", o.Code, o.Tail(30))
	}
	if o := apply(there, "--runner", "docker", "--runner-image", "no/such:image", "--no-cache", "base"); o.Code != 4 || !strings.Contains(o.All(), "--runner-image names another") {
		t.Errorf("without the image: code %d\n%s", o.Code, o.Tail(30))
	}
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		signalStuck(t, root, rig.Call{Dir: dir, Env: env(there)}, signal, "--runner", "docker", "stuck")
		id := strings.TrimSpace(d.Client(t, "ps", "--quiet").Stdout)
		if id != "" && signal == syscall.SIGINT {
			t.Errorf("interrupted: container %s is still there", id)
		}
		d.Client(t, "wait", id) // it ends when its connection does
	}
	if o := d.Client(t, "ps", "--quiet"); o.Stdout != "" {
		t.Errorf("containers are left:\n%s", o.All())
	}
}
