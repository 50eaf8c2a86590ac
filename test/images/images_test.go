package images

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"kaniko-build/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// Names of the images.
const (
	executor = rig.ExecutorImage
	debug    = rig.DebugImage
	slim     = rig.SlimImage
	warmer   = rig.WarmerImage
)

// loaded is an engine that has them all, built with the program that they hold.
func loaded(t *testing.T) *rig.Docker {
	t.Helper()
	d := rig.StartDocker(t)
	rig.LoadExecutors(t, d, executor, debug, slim, warmer)
	return d
}

// labelled is a context whose image needs no step.
func labelled(t *testing.T) string {
	t.Helper()
	dir := rig.Space(t, nil)
	rig.Write(t, dir, map[string]string{"Dockerfile": "FROM scratch\nARG WORD=one\nLABEL word=$WORD\n", "other/Dockerfile": "FROM scratch\nLABEL word=other\n"})
	return dir
}

func TestImages(t *testing.T) {
	d := loaded(t)
	t.Run("layout", func(t *testing.T) { testLayout(t, d) })
	t.Run("build", func(t *testing.T) { testBuild(t, d) })
	t.Run("stdin", func(t *testing.T) { testStdin(t, d) })
	t.Run("gitlab", func(t *testing.T) { testGitLab(t, d) })
	t.Run("jenkins", func(t *testing.T) { testJenkins(t, d) })
	t.Run("kubernetes", func(t *testing.T) { testKubernetes(t, d) })
	t.Run("run_in_docker.sh", func(t *testing.T) { testScript(t, d) })
	t.Run("steps", func(t *testing.T) { testSteps(t, d) })
}

func testLayout(t *testing.T, d *rig.Docker) {
	for _, c := range []struct {
		image, entrypoint string
		args              []string
	}{
		{executor, "", []string{"version"}}, {debug, "", []string{"version"}}, {slim, "", []string{"version"}},
		{debug, "/kaniko/executor", []string{"version"}}, {debug, "/busybox/sh", []string{"-c", "executor version"}},
		{debug, "sh", []string{"-c", "/kaniko/executor version"}},
	} {
		if o := d.Run(t, rig.Container{Image: c.image, Entrypoint: c.entrypoint, Args: c.args}); o.Code != 0 || !strings.HasPrefix(o.Stdout, "Kaniko version :  ") {
			t.Errorf("%+v: %+v", c, o)
		}
	}
	for _, image := range []string{warmer, debug} {
		if o := d.Run(t, rig.Container{Image: image, Entrypoint: "/kaniko/warmer", Args: []string{"--help"}}); o.Code != 0 || !strings.Contains(o.All(), "--cache-dir") {
			t.Errorf("%s: %+v", image, o)
		}
	}
	if o := d.Run(t, rig.Container{Image: warmer}); o.Code != 1 || !strings.Contains(o.Stdout, "at least one image") {
		t.Errorf("warmer without flags: %+v", o)
	}
	const look = `set -e
pwd; echo $HOME $DOCKER_CONFIG $SSL_CERT_DIR; echo $PATH | tr : '\n' | grep -e '^/kaniko$' -e '^/busybox$'
mkdir -p /kaniko/.docker; echo '{}' >/kaniko/.docker/config.json; echo x >>/kaniko/ssl/certs/additional-ca-cert-bundle.crt
test -s /kaniko/ssl/certs/ca-certificates.crt; test -x /bin/sh; test -x /busybox/cat; sleep 0; id -u`
	want := "/workspace\n/root /kaniko/.docker/ /kaniko/ssl/certs\n/kaniko\n/busybox\n0\n"
	if o := d.Run(t, rig.Container{Image: debug, Entrypoint: "sh", Args: []string{"-c", look}}); o.Code != 0 || o.Stdout != want {
		t.Errorf("in debug: %+v, want %q", o, want)
	}
	for _, image := range []string{executor, slim, warmer} {
		if o := d.Run(t, rig.Container{Image: image, Entrypoint: "/bin/true"}); o.Code == 0 {
			t.Errorf("%s has programs of a system", image)
		}
		if o := d.Client(t, "inspect", "--format", "{{.Config.WorkingDir}} {{.Config.User}} {{.Config.Env}}", image); !strings.HasPrefix(o.Stdout, "/workspace  [") || !strings.Contains(o.Stdout, ":/kaniko ") {
			t.Errorf("%s: %s", image, o.All())
		}
	}
}

// inspectTar reads the labels of an image in an archive for docker load.
func (l loadedImage) labels(t *testing.T) map[string]string {
	t.Helper()
	l.d.Load(t, l.tar)
	var out map[string]string
	o := l.d.Client(t, "inspect", "--format", "{{json .Config.Labels}}", l.name)
	if err := json.Unmarshal([]byte(o.Stdout), &out); err != nil {
		t.Fatalf("docker inspect: %s", o.All())
	}
	return out
}

type loadedImage struct {
	d         *rig.Docker
	tar, name string
}

func testBuild(t *testing.T, d *rig.Docker) {
	reg := rig.StartRegistry(t)
	dir, out := labelled(t), rig.Space(t, nil)
	o := d.Run(t, rig.Container{
		Image: executor, Mounts: []rig.Mount{{Source: dir, Target: "/workspace", ReadOnly: true}, {Source: out, Target: "/out"}},
		Args: []string{"--destination", reg.Addr + "/app:1", "--tar-path=/out/image.tar", "--digest-file=/out/digest", "--build-arg", "WORD"}, Env: []string{"WORD=two"},
	})
	if o.Code != 0 {
		t.Fatalf("%+v", o)
	}
	digest, err := os.ReadFile(filepath.Join(out, "digest"))
	if err != nil {
		t.Fatal(err)
	}
	if o := d.Client(t, "pull", reg.Addr+"/app:1"); !strings.Contains(o.Stdout, string(digest)) {
		t.Errorf("docker pulls %s, the digest file says %s", o.All(), digest)
	}
	if got := (loadedImage{d, filepath.Join(out, "image.tar"), reg.Addr + "/app:1"}).labels(t)["word"]; got != "two" {
		t.Errorf("the label is %q", got)
	}
	if o := d.Run(t, rig.Container{Image: executor, Mounts: []rig.Mount{{Source: dir, Target: "/workspace"}}, Args: []string{"--destination", reg.Addr + "/app", "--no-such-flag"}}); o.Code != 1 {
		t.Errorf("a wrong flag: %+v", o)
	}
}

func testStdin(t *testing.T, d *rig.Docker) {
	dir, out := labelled(t), rig.Space(t, nil)
	archive := rig.NewAccount(t, rig.Superuser).Must(t, rig.Call{}, "tar", "-C", dir, "-cz", ".")
	o := d.Run(t, rig.Container{
		Image: executor, Stdin: []byte(archive.Stdout), Mounts: []rig.Mount{{Source: out, Target: "/out"}},
		Args: []string{"--context", "tar://stdin", "--context-sub-path", "other", "--no-push", "--tar-path", "/out/image.tar"},
	})
	if o.Code != 0 {
		t.Fatalf("%+v", o)
	}
	if got := (loadedImage{d, filepath.Join(out, "image.tar"), "unset-repo/unset-image-name"}).labels(t)["word"]; got != "other" {
		t.Errorf("the label is %q", got)
	}
}

// testGitLab runs the script of the example as GitLab's runner does.
func testGitLab(t *testing.T, d *rig.Docker) {
	reg := rig.StartRegistry(t)
	var ci struct {
		Build struct {
			Image struct {
				Name       string
				Entrypoint []string
			}
			Script []string
		}
	}
	example(t, "gitlab/.gitlab-ci.yml", &ci)
	if ci.Build.Image.Name != debug || !slices.Equal(ci.Build.Image.Entrypoint, []string{""}) {
		t.Errorf("the example uses %+v", ci.Build.Image)
	}
	o := d.Run(t, rig.Container{
		Image: debug, Entrypoint: "sh", Args: []string{"-c", "set -e\n" + strings.Join(ci.Build.Script, "\n") + "\ncat /kaniko/.docker/config.json"},
		Mounts: []rig.Mount{{Source: labelled(t), Target: "/builds/team/app"}}, Workdir: "/builds/team/app",
		Env: []string{"CI_PROJECT_DIR=/builds/team/app", "CI_REGISTRY=" + reg.Addr, "CI_REGISTRY_USER=u", "CI_REGISTRY_PASSWORD=p", "CI_REGISTRY_IMAGE=" + reg.Addr + "/team/app", "CI_COMMIT_TAG=v1"},
	})
	if o.Code != 0 || !strings.Contains(o.Stdout, `{"auths":{"`+reg.Addr+`":{"auth":"dTpw"}}}`) {
		t.Fatalf("%+v", o)
	}
	d.Pull(t, reg.Addr+"/team/app:v1")
}

// testJenkins builds several times in one container that waits meanwhile.
func testJenkins(t *testing.T, d *rig.Docker) {
	out := rig.Space(t, nil)
	r := d.Start(t, rig.Container{Image: debug, Entrypoint: "/busybox/cat", Mounts: []rig.Mount{{Source: labelled(t), Target: "/src"}, {Source: out, Target: "/out"}}})
	if o := r.Exec(t, rig.Call{}, "/kaniko/executor", "--context", "/src", "--no-push", "--dockerfile", "Nowhere"); o.Code != 1 {
		t.Errorf("%+v", o)
	}
	for _, c := range []struct{ sub, want string }{{"", "one"}, {"other", "other"}} {
		o := r.Exec(t, rig.Call{}, "/busybox/sh", "-c", "/kaniko/executor --context /src/"+c.sub+" --no-push --tar-path /out/"+c.want+".tar --destination job:"+c.want)
		if o.Code != 0 {
			t.Errorf("%+v", o)
			continue
		}
		if got := (loadedImage{d, filepath.Join(out, c.want+".tar"), "job:" + c.want}).labels(t)["word"]; got != c.want {
			t.Errorf("the label is %q, want %q", got, c.want)
		}
	}
}

// job is what a Kubernetes Job says about its container.
type job struct {
	Kind string
	Data map[string]string
	Spec struct {
		Template struct {
			Spec struct {
				Containers []struct {
					Image        string
					Args         []string
					Env          []struct{ Name, Value string }
					VolumeMounts []struct {
						Name      string
						MountPath string `yaml:"mountPath"`
					} `yaml:"volumeMounts"`
					SecurityContext any `yaml:"securityContext"`
				}
			}
		}
	}
}

// testKubernetes runs the containers of the Jobs as a kubelet lays them out.
func testKubernetes(t *testing.T, d *rig.Docker) {
	reg := rig.StartRegistry(t)
	b, err := os.ReadFile(filepath.Join(rig.Root(t), "examples", "kubernetes", "configmap.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var config, build job
	dec := yaml.NewDecoder(strings.NewReader(string(b)))
	for _, v := range []*job{&config, &build} {
		if err := dec.Decode(v); err != nil {
			t.Fatal(err)
		}
	}
	dir := rig.Space(t, nil)
	rig.Write(t, filepath.Join(dir, "..2026_11_25"), map[string]string{"Dockerfile": "FROM scratch\nLABEL word=map\n"})
	for name, to := range map[string]string{"..data": "..2026_11_25", "Dockerfile": "..data/Dockerfile"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	c := build.Spec.Template.Spec.Containers[0]
	if config.Data["Dockerfile"] == "" || c.Image != executor || c.VolumeMounts[0].MountPath != "/workspace" {
		t.Errorf("the example says %+v, %+v", config, c)
	}
	args := slices.Clone(c.Args)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "registry.example.com", reg.Addr)
	}
	o := d.Run(t, rig.Container{Image: executor, Args: args, Mounts: []rig.Mount{{Source: dir, Target: "/workspace", ReadOnly: true}}})
	if o.Code != 0 {
		t.Fatalf("%+v", o)
	}
	d.Pull(t, reg.Addr+"/team/greeting:1")

	var original job
	example(t, "kubernetes/job.yaml", &original)
	c = original.Spec.Template.Spec.Containers[0]
	if c.Image != executor || c.SecurityContext != nil || c.Env[0].Value != "/secret/kaniko-secret.json" || c.VolumeMounts[0].MountPath != "/secret" {
		t.Errorf("the example says %+v", c)
	}
}

// script is run_in_docker.sh with a home. Docker's default network is not there,
// and the machine's is: so the docker that it finds adds that flag.
type script struct {
	account *rig.Account
	home    string // with a file of the calls of docker
	env     []string
}

func newScript(t *testing.T, d *rig.Docker) *script {
	t.Helper()
	s := &script{account: rig.NewAccount(t, rig.Superuser), home: rig.Space(t, nil)}
	rig.Write(t, s.home, map[string]string{
		"bin/docker":          "#!/bin/sh\necho \"$@\" >>$HOME/calls\ncommand=$1; shift\nexec /usr/bin/docker $command --network host \"$@\"\n",
		".docker/config.json": `{"auths":{}}`, ".config/gcloud/application_default_credentials.json": "{}",
	})
	s.env = append(d.Env(), "HOME="+s.home, "PATH="+s.home+"/bin:/usr/bin:/bin")
	s.env = slices.DeleteFunc(s.env, func(e string) bool { return strings.HasPrefix(e, "DOCKER_CONFIG=") })
	return s
}

func (s *script) run(t *testing.T, args ...string) rig.Output {
	t.Helper()
	return s.account.Run(t, rig.Call{Env: s.env, Dir: s.home}, append([]string{filepath.Join(rig.Root(t), "run_in_docker.sh")}, args...)...)
}

func testScript(t *testing.T, d *rig.Docker) {
	reg := rig.StartRegistry(t)
	s := newScript(t, d)
	if o := s.run(t, labelled(t), reg.Addr+"/script:1", "--label", "two words=x y"); o.Code != 0 {
		t.Fatalf("%+v", o)
	}
	d.Pull(t, reg.Addr+"/script:1")
	calls, err := os.ReadFile(filepath.Join(s.home, "calls"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"/.docker/config.json:/kaniko/.docker/config.json:ro", "/.config/gcloud:/kaniko/.config/gcloud:ro", ":/kaniko/context:ro", ":/kaniko/.config/key.json:ro"} {
		if !strings.Contains(string(calls), want) {
			t.Errorf("docker was called without %s: %s", want, calls)
		}
	}
	for _, f := range []string{"--privileged", "--cap-add", "--security-opt"} {
		if strings.Contains(string(calls), f) {
			t.Errorf("docker was called with %s", f)
		}
	}
	if o := s.run(t, "/nowhere", "x"); o.Code != 1 {
		t.Errorf("%+v", o)
	}
	if o := s.run(t); o.Code != 1 || !strings.Contains(o.Stderr, "usage") {
		t.Errorf("%+v", o)
	}
}

func example(t *testing.T, name string, v any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(rig.Root(t), "examples", name))
	if err == nil {
		err = yaml.Unmarshal(b, v)
	}
	if err != nil {
		t.Fatal(fmt.Errorf("example %s: %w", name, err))
	}
}
