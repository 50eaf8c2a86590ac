package images

import (
	"archive/tar"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kaniko-build/test/mirror"
	"kaniko-build/test/registrytest"
	"kaniko-build/test/rig"
)

// testSteps builds images with steps in Docker's default container, where the
// executor has nothing but the container's own root for them.
func testSteps(t *testing.T, d *rig.Docker) {
	p := &pod{d: d, bases: rig.StartMirror(t, mirror.Busybox), reg: rig.StartRegistry(t)}
	t.Run("build", p.testBuild)
	t.Run("flags", p.testFlags)
	t.Run("twice", p.testTwice)
	t.Run("token", p.testToken)
	t.Run("mount", p.testMount)
	t.Run("credentials", p.testCredentials)
	t.Run("tekton", p.testTekton)
	t.Run("gitlab", p.testGitLab)
	t.Run("skaffold", p.testSkaffold)
	t.Run("killed", p.testKilled)
	t.Run("daemon", p.testDaemon)
	t.Run("memory", p.testMemory)
	t.Run("restarted", p.testRestarted)
	t.Run("run_in_docker.sh", p.testScript)
}

// pod is an engine with our images, base images, and a registry to push to.
type pod struct {
	d          *rig.Docker
	bases, reg *rig.Registry
}

// context is a directory with files; a Dockerfile may start with a blank line.
func (p *pod) context(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := rig.Space(t, nil)
	for name, text := range files {
		files[name] = strings.TrimPrefix(text, "\n")
	}
	rig.Write(t, dir, files)
	return dir
}

func (p *pod) args(name string, more ...string) []string {
	return append([]string{"--registry-mirror", p.bases.Addr, "--destination", p.reg.Addr + "/" + name}, more...)
}

// look runs a shell command in an image that was pushed.
func (p *pod) look(t *testing.T, name, command string) string {
	t.Helper()
	image := p.reg.Addr + "/" + name
	p.d.Pull(t, image)
	o := p.d.Run(t, rig.Container{Image: image, Entrypoint: "/bin/sh", Args: []string{"-c", command}})
	if o.Code != 0 {
		t.Errorf("%s in %s: %s", command, name, o.All())
	}
	return o.Stdout
}

func (p *pod) testBuild(t *testing.T) {
	dir := p.context(t, map[string]string{
		"in": "input\n",
		"Dockerfile": `
FROM busybox AS one
WORKDIR /workspace
COPY in .
RUN cp in out && echo one >>out && chown 12:34 out && ln -s out link && rm /bin/vi
FROM busybox
RUN test -e /bin/vi && test ! -e /workspace/out && test -e /proc/self/exe && test -c /dev/null && mkdir /d && echo $HOME >/d/home
COPY --from=one /workspace /w
RUN --mount=type=secret,id=s,target=/s --mount=type=bind,target=/b --mount=type=cache,target=/c \
    test "$(cat /s)" = hush && cp /b/in /d/bound && echo x >/c/kept && (sleep 1000 &)
RUN test ! -e /s && test ! -e /b && test ! -e /c && ! grep -rq hush /tmp /d /w /etc /run
USER 7:8
RUN id -u >/tmp/id && test ! -r /kaniko/.docker/config.json
`})
	args := p.args("build:1", "--context", "/context", "--digest-file", "/tmp/digest", "--secret", "id=s,env=S")
	r := p.d.Start(t, rig.Container{Image: debug, Entrypoint: "/busybox/cat", Env: []string{"S=hush"}, Mounts: []rig.Mount{{Source: dir, Target: "/context", ReadOnly: true}}})
	if o := r.Exec(t, rig.Call{}, "/busybox/sh", "-c", "umask 077; echo '{}' >/kaniko/.docker/config.json"); o.Code != 0 {
		t.Fatal(o.All())
	}
	if o := r.Exec(t, rig.Call{}, append([]string{"/kaniko/executor"}, args...)...); o.Code != 0 {
		t.Fatal(o.All())
	}
	const look = `cat /w/out /d/home /d/bound /tmp/id; stat -c %u:%g /w/out; readlink /w/link; for f in /kaniko /workspace /context /busybox; do test ! -e $f || echo $f; done`
	if got, want := p.look(t, "build:1", look), "input\none\n/root\ninput\n7\n12:34\nout\n"; got != want {
		t.Errorf("the image has %q, want %q", got, want)
	}
	if o := r.Exec(t, rig.Call{}, "/busybox/ps"); strings.Contains(o.Stdout, "sleep") {
		t.Errorf("what a step left still runs: %s", o.Stdout)
	}
	if o := r.Exec(t, rig.Call{}, "/busybox/cat", "/tmp/digest"); !strings.HasPrefix(o.Stdout, "sha256:") {
		t.Errorf("the digest file: %s", o.All())
	}
}

// testFlags uses what acts only where a walk finds the changes, and what leaves
// paths out.
func (p *pod) testFlags(t *testing.T) {
	dir := p.context(t, map[string]string{"Dockerfile": `
FROM busybox
RUN mkdir -p /gone/sub /kept && echo 1 >/kept/f && touch -d @1000000000 /kept/f
RUN chmod 600 /kept/f && echo 1 >/gone/f && echo 1 >/gone/sub/f
RUN test -e /gone/f && echo 1 >/kept/g
`})
	for i, c := range []struct {
		flags []string
		want  string
	}{
		{nil, "600 /gone/f /gone/sub/f /kept/f /kept/g\n"},
		{[]string{"--snapshot-mode=redo"}, "600 /gone/f /gone/sub/f /kept/f /kept/g\n"},
		{[]string{"--snapshot-mode=time"}, "644 /gone/f /gone/sub/f /kept/f /kept/g\n"},
		{[]string{"--ignore-path=/gone/sub"}, "600 /gone/f /kept/f /kept/g\n"},
		{[]string{"--ignore-path=/gone", "--ignore-var-run"}, "600 /kept/f /kept/g\n"},
	} {
		name := fmt.Sprintf("flags:%d", i)
		o := p.d.Run(t, rig.Container{Image: executor, Args: append(p.args(name), c.flags...), Mounts: []rig.Mount{{Source: dir, Target: "/workspace"}}})
		if o.Code != 0 {
			t.Errorf("%q: %s", c.flags, o.All())
			continue
		}
		if got := p.look(t, name, "echo $(stat -c %a /kept/f) $(find /gone /kept -type f 2>/dev/null | sort)"); got != c.want {
			t.Errorf("%q: the image has %q, want %q", c.flags, got, c.want)
		}
	}
}

// ownFiles lists what a container has of its own but for /kaniko: modes, owners,
// sizes, times and link targets; of directories no sizes and no times.
func ownFiles(t *testing.T, r *rig.Running) string {
	t.Helper()
	const list = `find / -xdev \( -path /kaniko -o -path /busybox \) -prune -o -type d -exec stat -c '%a %u:%g %n' {} + -o -exec stat -c '%a %u:%g %s %Y %N' {} + | sort -k 3`
	o := r.Exec(t, rig.Call{}, "/busybox/sh", "-c", list)
	if o.Code != 0 {
		t.Fatalf("list files of the container: %s", o.All())
	}
	return o.Stdout
}

// testTwice builds a second time where the first build failed.
func (p *pod) testTwice(t *testing.T) {
	dir := p.context(t, map[string]string{
		"first/Dockerfile":  "FROM busybox\nRUN echo x >/leak && mkdir -p /opt/leak && rm -r /home /tmp && (sleep 1000 &)\nRUN exit 42\n",
		"second/Dockerfile": "FROM busybox\nRUN test ! -e /leak && test ! -e /opt/leak && test -d /home && test -d /tmp && ! ps | grep -q '[s]leep' && echo fine >/result\n",
		"empty/Dockerfile":  "FROM scratch\nCOPY Dockerfile /\n",
	})
	r := p.d.Start(t, rig.Container{Image: debug, Entrypoint: "/busybox/cat", Mounts: []rig.Mount{{Source: dir, Target: "/src"}}})
	const own = "mkdir -p /home/own /tmp/own && echo text >/home/own/f && chmod 4711 /home/own/f && ln -s f /home/own/link && chown 5:6 /tmp/own"
	if o := r.Exec(t, rig.Call{}, "/busybox/sh", "-c", own); o.Code != 0 {
		t.Fatal(o.All())
	}
	before := ownFiles(t, r)
	for i, c := range []struct {
		dir  string
		code int
	}{{"first", 42}, {"second", 0}, {"first", 42}, {"empty", 0}, {"second", 0}} {
		o := r.Exec(t, rig.Call{}, append([]string{"/kaniko/executor"}, p.args("twice:1", "--context", "/src/"+c.dir)...)...)
		if o.Code != c.code {
			t.Errorf("build %d, %s: code %d, want %d: %s", i, c.dir, o.Code, c.code, o.All())
		}
		if after := ownFiles(t, r); after != before {
			t.Errorf("build %d, %s: the container's files were\n%s\nand are\n%s", i, c.dir, before, after)
		}
	}
	if got := p.look(t, "twice:1", "cat /result"); got != "fine\n" {
		t.Errorf("got %q", got)
	}
}

// testToken has what Kubernetes mounts into each container: below a directory
// that is a link in most images.
func (p *pod) testToken(t *testing.T) {
	dir := p.context(t, map[string]string{"Dockerfile": `
FROM busybox
RUN mkdir -p /run /var && ln -s /run /var/run
RUN mkdir -p /var/run/app && echo ok >/var/run/app/ready && mkdir /run/lock && touch /run/lock/x
RUN rm -r /run/lock && test -e /var/run/app/ready
`})
	token := p.context(t, map[string]string{"token": "tell nobody"})
	o := p.d.Run(t, rig.Container{Image: executor, Args: p.args("token:1"), Mounts: []rig.Mount{
		{Source: dir, Target: "/workspace"}, {Source: token, Target: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true},
	}})
	if o.Code != 0 {
		t.Fatal(o.All())
	}
	if got := p.look(t, "token:1", "readlink /var/run; cat /run/app/ready; find /run /var/run/ | sort"); got != "/run\nok\n/run\n/run/app\n/run/app/ready\n/var/run/\n/var/run/app\n/var/run/app/ready\n" {
		t.Errorf("the image has %q", got)
	}
}

// checkout is a working tree as people have it: with files that no COPY names.
func (p *pod) checkout(t *testing.T) string {
	t.Helper()
	dir := p.context(t, map[string]string{
		".git/config": "of git\n", ".env": "PASSWORD=hush\n", "go.mod": "module x\n", "go.sum": "sums\n", "main.go": "package main\n", "api/types.go": "package api\n", "bin/old": "old\n",
		// As kubebuilder lays it out.
		"Dockerfile": `
FROM busybox AS builder
WORKDIR /workspace
COPY go.mod go.mod
COPY go.sum go.sum
RUN test "$(find . -type f -not -path "*/.kaniko-build-aside/*" | sort | xargs)" = "./go.mod ./go.sum" && test ! -e .env && mkdir vendor && echo dep >vendor/dep && chown 7:8 .
COPY main.go main.go
COPY api/ api/
RUN --mount=type=cache,target=/workspace/kept --mount=type=bind,source=api,target=bound --mount=type=tmpfs,target=vendor \
    echo x >>kept/log && test "$(wc -l <kept/log)" = 1 && test -e bound/types.go && touch bound/lost && test ! -e vendor/dep
RUN --mount=type=bind,target=. test -e Dockerfile && test -e .env && touch lost
RUN test ! -e bin && cat go.mod main.go api/types.go vendor/dep >manager && rm go.sum && cp -a . /backup && stat -c %u:%g . >/owner
FROM busybox
WORKDIR /
COPY --from=builder /workspace/manager .
COPY --from=builder /workspace /all
COPY --from=builder /backup /backup
COPY --from=builder /owner /owner
RUN test ! -e /workspace/manager
USER 65532:65532
`,
		"fails/Dockerfile": "FROM busybox\nWORKDIR /workspace\nCOPY main.go .\nRUN echo x >made && rm main.go && exit 3\n",
		"slow/Dockerfile":  "FROM busybox\nWORKDIR /workspace\nCOPY main.go .\nRUN echo x >made && echo it is lent && sleep 1000\n",
	})
	old := time.Unix(1_600_000_000, 0)
	err := errors.Join(os.Symlink("main.go", filepath.Join(dir, "link")), os.Link(filepath.Join(dir, "main.go"), filepath.Join(dir, "again")), os.Chmod(filepath.Join(dir, "bin"), 0o700),
		os.Chown(filepath.Join(dir, "bin/old"), 1000, 1001), os.Chown(dir, 1000, 1001), os.Chmod(dir, 0o2775), os.Chtimes(filepath.Join(dir, "bin"), old, old), os.Chtimes(dir, old, old))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// fingerprint describes everything in a directory: names, modes, owners, times, contents.
func fingerprint(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %o %d:%d %d %d %d.%d", strings.TrimPrefix(p, dir), st.Mode, st.Uid, st.Gid, st.Ino, st.Nlink, st.Mtim.Sec, st.Mtim.Nsec)
		if e.Type().IsRegular() {
			text, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %q", text)
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// testMount has a checkout mounted where the image has its working directory, as
// Google's Cloud Build and most pods have it: steps see what BuildKit's would, and the
// checkout stays what it was, after a failure and after a kill too.
func (p *pod) testMount(t *testing.T) {
	dir := p.checkout(t)
	before := fingerprint(t, dir)
	same := func(when string) {
		t.Helper()
		if after := fingerprint(t, dir); after != before {
			t.Errorf("%s: the checkout was\n%s\nand is\n%s", when, before, after)
		}
	}
	mounts := []rig.Mount{{Source: dir, Target: "/workspace"}}
	o := p.d.Run(t, rig.Container{Image: executor, Args: p.args("mount:1"), Mounts: mounts})
	if o.Code != 0 {
		t.Fatal(o.All())
	}
	same("a build")
	const look = "cat /manager /owner; cd /all; find . | sort | tr '\\n' ' '; cd /backup; find . | sort | tr '\\n' ' '; test ! -e /workspace || find /workspace"
	const tree = ". ./api ./api/types.go ./go.mod ./main.go ./manager ./vendor ./vendor/dep "
	if got, want := p.look(t, "mount:1", look), "module x\npackage main\npackage api\ndep\n7:8\n"+tree+tree; got != want {
		t.Errorf("the image has %q, want %q", got, want)
	}
	o = p.d.Run(t, rig.Container{Image: executor, Args: p.args("mount:2", "--dockerfile", "fails/Dockerfile"), Mounts: mounts})
	if o.Code != 3 {
		t.Error(o.All())
	}
	same("a build that failed")

	// Nothing can be put aside in what is read-only, and a step would fail there.
	o = p.d.Run(t, rig.Container{Image: executor, Args: p.args("mount:2"), Mounts: []rig.Mount{{Source: dir, Target: "/workspace", ReadOnly: true}}})
	if o.Code != 1 || !strings.Contains(o.All(), "/workspace is the container's own") || !strings.Contains(o.All(), "--ignore-path /workspace") {
		t.Error(o.All())
	}
	same("a build on a read-only mount")

	// The whole container is killed: the next one that has the directory gives it back,
	// wherever it has it. Meanwhile no other takes it for a context.
	r := p.d.Start(t, rig.Container{Image: executor, Args: p.args("mount:2", "--dockerfile", "slow/Dockerfile"), Mounts: mounts})
	r.Says(t, "it is lent")
	elsewhere := []rig.Mount{{Source: filepath.Dir(dir), Target: "/all"}}
	build := p.args("mount:2", "--context", "/all/"+filepath.Base(dir))
	if o := p.d.Run(t, rig.Container{Image: executor, Args: build, Mounts: elsewhere}); o.Code != 1 || !strings.Contains(o.All(), "another build has it to itself") {
		t.Error(o.All())
	}
	r.Kill(t)
	if text, err := os.ReadFile(filepath.Join(dir, ".kaniko-build-aside/own/main.go")); err != nil || string(text) != "package main\n" {
		t.Errorf("what is put aside cannot be found: %q, %v", text, err)
	}
	if o := p.d.Run(t, rig.Container{Image: executor, Args: build, Mounts: elsewhere}); o.Code != 0 {
		t.Error(o.All())
	}
	same("a container that was killed")
}

// testCredentials has them in a home that is put aside while / is an image's, whose own
// helper on PATH is not run.
func (p *pod) testCredentials(t *testing.T) {
	closed := registrytest.Start(t, registrytest.Options{Auth: true})
	script := func(user string) string {
		return fmt.Sprintf("#!/busybox/sh\ncat >/dev/null; echo '{\"ServerURL\":\"x\",\"Username\":\"%s\",\"Secret\":\"%s\"}'\n", user, registrytest.Password)
	}
	dir := p.context(t, map[string]string{
		"helper": script("nobody"), "base/Dockerfile": "FROM busybox\nCOPY --chmod=755 helper /usr/local/bin/docker-credential-mine\nRUN mkdir -p /root/.docker && echo bad >/root/.docker/config.json\n",
		"app/Dockerfile": "FROM " + closed.Host + "/base\nRUN test \"$(cat /root/.docker/config.json)\" = bad && echo x >/x\nFROM busybox\nCOPY --from=" + closed.Host + "/base /root /root\nRUN touch /y\n",
	})
	auths := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, closed.Host, base64.StdEncoding.EncodeToString([]byte(registrytest.User+":"+registrytest.Password)))
	mine := fmt.Sprintf(`{"credHelpers":{%q:"mine"}}`, closed.Host)
	r := p.d.Start(t, rig.Container{Image: debug, Entrypoint: "/busybox/cat", Env: []string{"DOCKER_CONFIG="}, Mounts: []rig.Mount{{Source: dir, Target: "/src"}}})
	for _, c := range []struct{ name, config string }{{"base", auths}, {"app", auths}, {"app", mine}} {
		const lay = `mkdir -p ~/.docker && echo "$1" >~/.docker/config.json && echo "$2" >/kaniko/docker-credential-mine && chmod 755 /kaniko/docker-credential-mine && rm -rf /kaniko/state`
		if o := r.Exec(t, rig.Call{}, "/busybox/sh", "-c", lay, "sh", c.config, script(registrytest.User)); o.Code != 0 {
			t.Fatal(o.All())
		}
		o := r.Exec(t, rig.Call{}, "/kaniko/executor", "--registry-mirror", p.bases.Addr, "--context", "/src", "--dockerfile", "/src/"+c.name+"/Dockerfile", "--destination", closed.Host+"/"+c.name)
		if o.Code != 0 {
			t.Errorf("%s with %s: %s", c.name, c.config, o.All())
		}
	}
}

// testKilled kills the executor, or the process that works in the root for it, at
// moments that are spread over a build with several roots, one of which has the context's
// directory to itself; the next build in the container is right, and the container's own
// files and those of the context are what they were.
func (p *pod) testKilled(t *testing.T) {
	dir := p.context(t, map[string]string{"f": "text\n", "Dockerfile": `
FROM busybox AS a
WORKDIR /workspace
COPY f made/
RUN mkdir /a && echo a >/a/f && rm -r /home && (sleep 1000 &)
COPY f again/
RUN test -e made/f && test -e again/f && test ! -e Dockerfile && test ! -e sub/own && mkdir more && echo x >sub/made
FROM busybox AS b
RUN test ! -e /a && mkdir /b && echo b >/b/f
RUN --mount=type=secret,id=s --mount=type=cache,target=/home cat /run/secrets/s >/dev/null; echo x >/etc/hosts; echo b >>/b/f
FROM scratch AS c
COPY --from=a /bin /bin
COPY --from=b /b /b
COPY --from=a /workspace /w
COPY f /f
RUN test ! -e /a && test ! -e /etc/passwd && ! ps | grep -q '[s]leep' && cat /b/f /f /w/made/f /w/again/f >/result
`})
	sub := p.context(t, map[string]string{"own": "of a volume\n"})
	r := p.d.Start(t, rig.Container{Image: debug, Entrypoint: "/busybox/cat", Mounts: []rig.Mount{{Source: dir, Target: "/workspace"}, {Source: sub, Target: "/workspace/sub"}}, Env: []string{"S=secret value"}})
	files := fingerprint(t, dir) + fingerprint(t, sub) // with the place of the volume
	build := append([]string{"/kaniko/executor"}, p.args("killed:1", "--secret", "id=s,env=S", "--reproducible", "--digest-file", "/kaniko/digest")...)
	before := ownFiles(t, r)
	o := r.Exec(t, rig.Call{}, build...)
	if o.Code != 0 {
		t.Fatal(o.All())
	}
	took := o.Took
	if got := p.look(t, "killed:1", "cat /result"); got != "b\nb\ntext\ntext\ntext\n" {
		t.Fatalf("the image has %q", got)
	}
	want := r.Exec(t, rig.Call{}, "/busybox/cat", "/kaniko/digest").Stdout
	// The shell, whose own file is in a place that a build leaves alone, kills by
	// number: the executor, or the child that it has.
	const kill = `delay=$1 whom=$2; shift 2
"$@" >/kaniko/log 2>&1 & pid=$!
sleep $delay
if [ $whom = child ]; then for f in /proc/[0-9]*/stat; do read -r id name state parent rest <$f && [ "$parent" = $pid ] && kill -9 $id; done 2>/kaniko/err
else kill -9 $pid; fi
wait $pid`
	const rounds = 8
	for i := range rounds {
		whom := []string{"executor", "child"}[i%2]
		delay := fmt.Sprintf("%.3f", (took * time.Duration(i+1) / rounds).Seconds())
		t.Logf("kill the %s after %s s", whom, delay)
		r.Exec(t, rig.Call{}, append([]string{"/busybox/sh", "-c", kill, "sh", delay, whom}, build...)...)
		if o := r.Exec(t, rig.Call{}, build...); o.Code != 0 {
			t.Fatalf("the build after it: %s", o.All())
		}
		if after := ownFiles(t, r); after != before {
			t.Fatalf("the container's files were\n%s\nand are\n%s", before, after)
		}
		if after := fingerprint(t, dir) + fingerprint(t, sub); after != files {
			t.Fatalf("the context was\n%s\nand is\n%s", files, after)
		}
		if o := r.Exec(t, rig.Call{}, "/busybox/sh", "-c", "cat /kaniko/digest; ls -d /dev/shm/*; ps | grep '[s]leep'"); o.Stdout != want {
			t.Fatalf("the image is %s and was %s, or something is left", o.Stdout, want)
		}
	}
}

// testDaemon kills the process that works in the root while a step has something in a
// session of its own there. That is ended; what the container has started by itself, and who
// looks around in it, is not.
func (p *pod) testDaemon(t *testing.T) {
	dir := p.context(t, map[string]string{"Dockerfile": "FROM busybox\nRUN (setsid sh -c 'sleep 1001; true' </dev/null >/dev/null 2>&1 &) && echo it runs && sleep 1002\n"})
	r := p.d.Start(t, rig.Container{Image: debug, Entrypoint: "/busybox/cat", Mounts: []rig.Mount{{Source: dir, Target: "/src"}}})
	const script = `cp /busybox/busybox /sleep; setsid /sleep 1003 </dev/null >/dev/null 2>&1 &
"$@" >/kaniko/log 2>&1 & pid=$!
until grep -q 'it runs' /kaniko/log; do usleep 50000; done
(setsid /busybox/sleep 1004 </dev/null >/dev/null 2>&1 &)
for f in /proc/[0-9]*/stat; do read -r id name state parent rest <$f && [ "$parent" = $pid ] && kill -9 $id; done 2>/kaniko/err
wait $pid
ps -o args | grep '[s]leep 100' | grep -v executor | sort`
	o := r.Exec(t, rig.Call{}, append([]string{"/busybox/sh", "-c", script, "sh", "/kaniko/executor"}, p.args("daemon:1", "--context", "/src")...)...)
	if want := "/busybox/sleep 1004\n/sleep 1003\n"; o.Stdout != want {
		t.Errorf("there runs %s, want %s", o.All(), want)
	}
}

// testMemory has a step that wants more memory than the container has: what the kernel
// does to it is said, whatever the step makes of it.
func (p *pod) testMemory(t *testing.T) {
	const grow = "x=0123456789abcdef; for i in $(seq 25); do x=$x$x; done"
	for _, c := range []struct {
		run  string
		code int
	}{
		{grow, 137},
		{"sh -c '" + grow + "' || exit 2", 2},
	} {
		dir := p.context(t, map[string]string{"Dockerfile": "FROM busybox\nRUN " + c.run + "\n"})
		o := p.d.Run(t, rig.Container{Image: executor, Args: p.args("memory:1", "--no-push"), Memory: 256 << 20, Mounts: []rig.Mount{{Source: dir, Target: "/workspace"}}})
		if want := fmt.Sprintf("exit code: %d\nwhile it ran, the kernel ended a process on this machine for want of memory", c.code); o.Code != c.code || !strings.Contains(o.All(), want) {
			t.Errorf("%s ends with code %d\n%s", c.run, o.Code, o.Tail(20))
		}
	}
}

// testRestarted has a container that ends leave nothing large, which its engine would write
// to disk first, and build the same when it is started once more.
func (p *pod) testRestarted(t *testing.T) {
	dir := p.context(t, map[string]string{"Dockerfile": "FROM busybox\nRUN head -c 3000000 /dev/zero >/large && echo small >/small\nRUN test -s /large && cat /small >/made\n"})
	args := append(p.args("restarted:1", "--context", "/src"), "--reproducible")
	id, err := p.d.Create(t.Context(), rig.Container{Image: executor, Args: args, Mounts: []rig.Mount{{Source: dir, Target: "/src"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.d.Remove(context.WithoutCancel(t.Context()), id); err != nil {
			t.Error(err)
		}
	}()
	var pushed []string
	for range 2 {
		if o := p.d.Client(t, "start", "--attach", id); o.Code != 0 {
			t.Fatal(o.All())
		}
		pushed = append(pushed, rig.Tagged(t, p.reg.Addr, "restarted", "1"))
		archive := filepath.Join(rig.Space(t, nil), "files.tar")
		if o := p.d.Client(t, "export", "--output", archive, id); o.Code != 0 {
			t.Fatal(o.All())
		}
		for name, size := range filesOf(t, archive) {
			if size >= 1<<20 && name != "kaniko/executor" {
				t.Errorf("%s is left, with %d bytes", name, size)
			}
		}
	}
	if pushed[0] == "" || pushed[0] != pushed[1] {
		t.Errorf("it pushed %s, and then %s", pushed[0], pushed[1])
	}
}

// filesOf are the sizes of the files in a tar.
func filesOf(t *testing.T, archive string) map[string]int64 {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := map[string]int64{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out[h.Name] = h.Size
	}
}

// testScript has a step in what run_in_docker.sh builds, at the path where the
// executor's images have their working directory.
func (p *pod) testScript(t *testing.T) {
	dir := p.context(t, map[string]string{"f": "text\n", "Dockerfile": "FROM busybox\nWORKDIR /workspace\nCOPY f .\nRUN cat f f >twice\n"})
	if o := newScript(t, p.d).run(t, dir, p.reg.Addr+"/script:2", "--registry-mirror", p.bases.Addr); o.Code != 0 {
		t.Fatal(o.All())
	}
	if got := p.look(t, "script:2", "cat /workspace/twice"); got != "text\ntext\n" {
		t.Errorf("the image has %q", got)
	}
}
