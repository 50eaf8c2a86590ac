package images

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"kaniko-build/test/registrytest"
	"kaniko-build/test/rig"
)

// What pipelines of kaniko's users do with steps: the containers as the system lays them
// out, with the commands that it gives.

// testTekton runs the steps of a Task as its pod does: the workspace is a volume in a
// volume, further ones are Tekton's own, and the step is a child of Tekton's entrypoint. The
// arguments are those of the catalog's task kaniko 0.6, with more of them in front.
func (p *pod) testTekton(t *testing.T) {
	var task struct {
		Spec struct {
			Steps []struct {
				Args    []string
				Command []string
			}
		}
	}
	example(t, "tekton/task.yaml", &task)
	fill := strings.NewReplacer("$(params.DOCKERFILE)", "./Dockerfile", "$(workspaces.source.path)", "/workspace/source", "$(params.CONTEXT)", "./",
		"$(params.IMAGE)", p.reg.Addr+"/tekton:1", "$(results.IMAGE_DIGEST.path)", "/tekton/results/IMAGE_DIGEST", "$(results.IMAGE_URL.path)", "/tekton/results/IMAGE_URL")
	var args []string
	for _, a := range task.Spec.Steps[0].Args {
		if a == "$(params.EXTRA_ARGS)" {
			args = append(args, "--registry-mirror", p.bases.Addr, "--label", "extra=yes")
			continue
		}
		args = append(args, fill.Replace(a))
	}
	dir := p.checkout(t)
	before := fingerprint(t, dir)
	results := rig.Space(t, nil)
	mounts := []rig.Mount{
		{Source: rig.Space(t, nil), Target: "/workspace"}, {Source: dir, Target: "/workspace/source"}, {Source: results, Target: "/tekton/results"},
		{Source: rig.Space(t, nil), Target: "/tekton/home"}, {Source: rig.Space(t, nil), Target: "/kaniko/.docker"},
	}
	const entrypoint = `"$@" || exit $?`
	step := append([]string{"-c", entrypoint, "entrypoint", "/kaniko/executor"}, args...)
	o := p.d.Run(t, rig.Container{Image: debug, Entrypoint: "/busybox/sh", Args: step, Mounts: mounts, Workdir: "/workspace/source", User: "0"})
	if o.Code != 0 {
		t.Fatalf("%q: %s", args, o.All())
	}
	command := task.Spec.Steps[1].Command
	for i := range command {
		command[i] = fill.Replace(command[i])
	}
	if o := p.d.Run(t, rig.Container{Image: debug, Entrypoint: command[0], Args: command[1:], Mounts: mounts}); o.Code != 0 {
		t.Fatal(o.All())
	}
	digest, err := os.ReadFile(filepath.Join(results, "IMAGE_DIGEST"))
	if err != nil || !regexp.MustCompile(`^sha256:[0-9a-f]{64}$`).Match(digest) {
		t.Errorf("the result is %q, %v", digest, err)
	}
	if b, err := os.ReadFile(filepath.Join(results, "IMAGE_URL")); string(b) != p.reg.Addr+"/tekton:1" {
		t.Errorf("the url is %q, %v", b, err)
	}
	if got := p.look(t, "tekton:1", "cat /manager"); got != "module x\npackage main\npackage api\ndep\n" {
		t.Errorf("the image has %q", got)
	}
	if after := fingerprint(t, dir); after != before {
		t.Errorf("the workspace was\n%s\nand is\n%s", before, after)
	}
}

// testGitLab runs GitLab's own template: nobody writes a docker config, the runner's
// variables tell who may push. The registry's certificate is appended to the image's.
func (p *pod) testGitLab(t *testing.T) {
	closed := registrytest.Start(t, registrytest.Options{Auth: true, TLS: true})
	const script = `set -e
if [ -n "$CI_SERVER_TLS_CA" ]; then echo "$CI_SERVER_TLS_CA" >>/kaniko/ssl/certs/additional-ca-cert-bundle.crt; fi
/kaniko/executor \
  --context "${CI_PROJECT_DIR}" \
  --dockerfile "${CI_PROJECT_DIR}/Dockerfile" \
  --destination "${CI_REGISTRY_IMAGE}:${CI_COMMIT_TAG}" --registry-mirror "$MIRROR"
test ! -e /kaniko/.docker/config.json
cat "${CI_PROJECT_DIR}/main.go"`
	dir := p.checkout(t)
	before := fingerprint(t, dir)
	for _, c := range []struct {
		ca   string
		want int
	}{{string(closed.CA), 0}, {"", 1}} {
		o := p.d.Run(t, rig.Container{
			Image: debug, Entrypoint: "sh", Args: []string{"-c", script}, Mounts: []rig.Mount{{Source: filepath.Dir(dir), Target: "/builds"}}, Workdir: "/builds/" + filepath.Base(dir),
			Env: []string{
				"CI_PROJECT_DIR=/builds/" + filepath.Base(dir), "CI_REGISTRY=" + closed.Host, "CI_REGISTRY_USER=" + registrytest.User, "CI_REGISTRY_PASSWORD=" + registrytest.Password,
				"CI_REGISTRY_IMAGE=" + closed.Host + "/team/app", "CI_COMMIT_TAG=v1", "MIRROR=" + p.bases.Addr, "CI_SERVER_TLS_CA=" + c.ca,
			},
		})
		if o.Code != c.want || c.want == 1 && !strings.Contains(o.All(), "certificate") || strings.Contains(o.All(), registrytest.Password) {
			t.Errorf("with a certificate of %d bytes: code %d, want %d: %s", len(c.ca), o.Code, c.want, o.All())
		}
	}
	if after := fingerprint(t, dir); after != before {
		t.Errorf("the checkout was\n%s\nand is\n%s", before, after)
	}
}

// testSkaffold has the flags of skaffold's cluster builder, old names and all, with the
// context in a volume below /kaniko and the digest as the message of the container's end.
func (p *pod) testSkaffold(t *testing.T) {
	dir, out, message := p.checkout(t), rig.Space(t, nil), rig.Space(t, nil)
	rig.Write(t, message, map[string]string{"log": ""})
	args := p.args("skaffold:1",
		"--context", "dir:///kaniko/buildcontext", "--dockerfile", "Dockerfile", "--target", "", "--build-arg", "VERSION=1", "--build-arg", "UNSET",
		"--cache=true", "--cache-dir", "/cache", "--cache-repo", p.reg.Addr+"/cache", "--cache-copy-layers", "--cache-ttl", "6h0m0s", "--cleanup", "--force",
		"--digest-file", "/dev/termination-log", "--image-fs-extract-retry", "2", "--image-name-with-digest-file", "/out/name", "--insecure", "--insecure-pull",
		"--insecure-registry", p.reg.Addr, "--label", "skaffold.dev/run-id=1", "--log-format", "text", "--log-timestamp", "--oci-layout-path", "/out/layout",
		"--push-retry", "2", "--registry-certificate", "registry.invalid=/kaniko/ssl/certs/ca-certificates.crt", "--single-snapshot", "--skip-tls-verify",
		"--skip-tls-verify-pull", "--skip-tls-verify-registry", p.reg.Addr, "--skip-unused-stages", "--snapshotMode=redo", "--tarPath", "/out/image.tar", "--use-new-run",
		"--verbosity", "debug", "--whitelist-var-run", "--ignore-path", "/var/spool/nothing")
	o := p.d.Run(t, rig.Container{Image: executor, Args: args, Mounts: []rig.Mount{
		{Source: dir, Target: "/kaniko/buildcontext"}, {Source: out, Target: "/out"}, {Source: filepath.Join(message, "log"), Target: "/dev/termination-log"},
	}})
	if o.Code != 0 {
		t.Fatal(o.All())
	}
	digest, err := os.ReadFile(filepath.Join(message, "log"))
	if err != nil || !strings.HasPrefix(string(digest), "sha256:") {
		t.Errorf("the message is %q, %v", digest, err)
	}
	if name, err := os.ReadFile(filepath.Join(out, "name")); string(name) != p.reg.Addr+"/skaffold@"+string(digest)+"\n" {
		t.Errorf("the name is %q, %v", name, err)
	}
	for _, name := range []string{"layout/index.json", "image.tar"} {
		if _, err := os.Stat(filepath.Join(out, name)); err != nil {
			t.Error(err)
		}
	}
	if got := p.look(t, "skaffold:1", "cat /manager"); got != "module x\npackage main\npackage api\ndep\n" {
		t.Errorf("the image has %q", got)
	}
}
