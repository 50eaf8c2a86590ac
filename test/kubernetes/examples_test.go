package kubernetes

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"kaniko-build/test/clouds/hosts"
	"kaniko-build/test/image"
	"kaniko-build/test/mirror"
	"kaniko-build/test/rig"
	"kaniko-build/test/serviceaccount"
)

// examples runs the Jobs of examples/kubernetes as they stand but for four things, in
// pods that the cluster's runtime confines and in others that it does not:
//
//   - the image has another tag, as "latest" is pulled anew;
//   - pods have the node's network, as those here have none, and a proxy in it, which
//     leads the names of clouds and registries to servers of this test;
//   - they trust the certificate of those;
//   - words in capitals are names.
type examples struct {
	*cluster
	*hosts.Hosts
	images *rig.Registry // whatever the name of the registry is
}

func testExamples(t *testing.T, c *cluster) {
	e := &examples{cluster: c, images: rig.StartMirror(t, mirror.Busybox)}
	e.Hosts = hosts.Start(t, e.images.Addr)
	c.apply(t, `{apiVersion: v1, kind: Namespace, metadata: {name: strict, labels: {pod-security.kubernetes.io/enforce: baseline}}}`)
	c.must(t, "-n", "strict", "wait", "--for=create", "serviceaccount/default", "--timeout=60s")
	c.must(t, "create", "configmap", "certificate", "--from-file=ca.crt="+e.CA)
	t.Run("job", e.testJob)
	t.Run("configmap", e.testConfigMap)
	t.Run("role in a pod", e.testRole)
}

// testJob has a context in a bucket, and the key of a service account as a secret.
func (e *examples) testJob(t *testing.T) {
	e.StartStorage(t, map[string]string{"builds/context.tar.gz": string(rig.Archive(t, map[string]string{
		"Dockerfile": "FROM " + hosts.GoogleImages + "/library/busybox\nWORKDIR /workspace\nCOPY f .\nRUN cat f >made && chown 1000:1001 made\n", "f": "made\n",
	}))})
	dir := rig.Space(t, nil)
	serviceaccount.Write(t, filepath.Join(dir, "kaniko-secret.json"), "https://"+hosts.GoogleTokens+"/token")
	e.follow(t, "job.yaml", dir)
	fill := strings.NewReplacer("=BUCKET", "=builds", "PROJECT", "shop", "IMAGE", "app", ":TAG", ":1")
	e.run(t, "job.yaml", fill, "shop/app", image.Entry{Path: "/workspace/made", Text: "made\n", UID: 1000, GID: 1001})
}

// testConfigMap has a context in a ConfigMap, and the docker config as a secret.
func (e *examples) testConfigMap(t *testing.T) {
	e.must(t, "create", "secret", "docker-registry", "registry", "--docker-server="+hosts.OwnImages, "--docker-username="+hosts.OwnUser, "--docker-password="+hosts.OwnPassword)
	e.run(t, "configmap.yaml", strings.NewReplacer(), "team/greeting", image.Entry{Path: "/greeting", Text: "Hello.\n"})
}

// testRole builds from within a pod, which has the role's service account and is told
// nothing of the cluster but where it is: nothing here leads there from its own address.
func (e *examples) testRole(t *testing.T) {
	const namespace = "inside"
	e.must(t, "create", "namespace", namespace)
	e.apply(t, strings.ReplaceAll(e.read(t, "role.yaml"), "namespace: builds", "namespace: "+namespace))
	dir := rig.Space(t, nil)
	rig.Write(t, dir, map[string]string{"Dockerfile": "FROM " + e.images.Addr + "/library/busybox\nCOPY f /\nRUN cat f >made && chown 1000:1001 made\n", "f": "made\n"})
	e.must(t, "-n", namespace, "create", "configmap", "context", "--from-file="+dir)
	host, port, _ := net.SplitHostPort(e.api)
	b, err := json.Marshal(object{"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": "ci", "namespace": namespace}, "spec": object{
		"restartPolicy": "Never", "serviceAccountName": "kaniko-build", "hostNetwork": true,
		"containers": []object{{
			"name": "ci", "image": executorHere, "command": []string{"/kaniko/kaniko-build"},
			"args":         []string{"build", "--progress", "plain", "--runner", "kubernetes", "--runner-image", executorHere, "--push", "-t", e.images.Addr + "/inside/app:1", "/workspace"},
			"env":          []object{{"name": "KUBERNETES_SERVICE_HOST", "value": host}, {"name": "KUBERNETES_SERVICE_PORT", "value": port}},
			"volumeMounts": []object{{"name": "context", "mountPath": "/workspace"}},
		}},
		"volumes": []object{{"name": "context", "configMap": object{"name": "context"}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	e.apply(t, string(b))
	if out, err := e.kubectl(t, "", "-n", namespace, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/ci", "--timeout=60s"); err != nil {
		logs, _ := e.kubectl(t, "", "-n", namespace, "logs", "ci")
		t.Fatalf("%s\n%s", out, logs)
	}
	e.check(t, "inside/app", image.Entry{Path: "/made", Text: "made\n", UID: 1000, GID: 1001})
	if left := e.must(t, "-n", namespace, "get", "pods", "--output", "name"); left != "pod/ci" {
		t.Errorf("there are %s", left)
	}
}

// follow does what the head of an example says to do first with kubectl.
func (e *examples) follow(t *testing.T, name, dir string) {
	t.Helper()
	done := 0
	for line := range strings.Lines(e.read(t, name)) {
		if command, ok := strings.CutPrefix(strings.TrimSpace(line), "#   kubectl "); ok {
			args := strings.Fields(command)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "--from-file=", "--from-file="+dir+"/")
			}
			e.must(t, args...)
			done++
		}
	}
	if done == 0 {
		t.Errorf("%s does not say how its secret is made", name)
	}
}

func (e *examples) read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(rig.Root(t), "examples", "kubernetes", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

type object = map[string]any

// run applies an example and waits until its Job is complete, which is to push repo:1 with
// a file.
func (e *examples) run(t *testing.T, name string, fill *strings.Replacer, repo string, want image.Entry) {
	t.Helper()
	for _, way := range []struct {
		name     string
		security object
	}{
		{"as it stands", nil}, // this cluster's runtime confines nothing unasked
		{"confined", object{"seccompProfile": object{"type": "RuntimeDefault"}}},
	} {
		t.Run(way.name, func(t *testing.T) {
			all, job := "", ""
			for d := yaml.NewDecoder(strings.NewReader(fill.Replace(e.read(t, name)))); ; {
				var o object
				err := d.Decode(&o)
				if errors.Is(err, io.EOF) {
					break
				}
				if err == nil && o["kind"] == "Job" {
					job = o["metadata"].(object)["name"].(string)
					spec := o["spec"].(object)["template"].(object)["spec"].(object)
					e.admit(t, job, spec)
					e.fit(spec, way.security)
				}
				b, err2 := json.Marshal(o)
				if err = errors.Join(err, err2); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				all += "---\n" + string(b) + "\n"
			}
			before := len(e.images.Requests(t, "PUT", "/"+repo+"/manifests/1"))
			e.apply(t, all)
			defer e.must(t, "delete", "job", job)
			if out, err := e.kubectl(t, "", "wait", "--for=condition=Complete", "job/"+job, "--timeout=60s"); err != nil {
				logs, _ := e.kubectl(t, "", "logs", "job/"+job)
				pods, _ := e.kubectl(t, "", "describe", "pods", "--selector", "job-name="+job)
				t.Fatalf("%s\n%s\n%s\nasked: %q", out, logs, pods, e.Asked())
			}
			if after := len(e.images.Requests(t, "PUT", "/"+repo+"/manifests/1")); after != before+1 {
				t.Errorf("the tag was put %d times", after-before)
			}
			e.check(t, repo, want)
		})
	}
}

// check looks at a file of an image.
func (e *examples) check(t *testing.T, repo string, want image.Entry) {
	t.Helper()
	img, err := image.Open(e.images.Addr+"/"+repo+":1", "")
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	d, err := image.Describe(img, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := d.Find(want.Path); got.Text != want.Text || got.UID != want.UID || got.GID != want.GID {
		t.Errorf("%s has %s as %+v, among %q", repo, want.Path, got, d.Paths())
	}
}

// admit asks whether a namespace that enforces the standard baseline takes a pod as it
// stands.
func (e *examples) admit(t *testing.T, name string, spec object) {
	t.Helper()
	b, err := json.Marshal(object{"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": name, "namespace": "strict"}, "spec": spec})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := e.kubectl(t, string(b), "create", "--dry-run=server", "--validate=strict", "-f", "-"); err != nil {
		t.Errorf("%s: %s", name, out)
	}
}

// fit makes the spec of a pod one that this cluster can run.
func (e *examples) fit(spec, security object) {
	c := spec["containers"].([]any)[0].(object)
	c["image"] = executorHere
	env, _ := c["env"].([]any)
	c["env"] = append(env, object{"name": "HTTPS_PROXY", "value": e.Proxy})
	c["volumeMounts"] = append(c["volumeMounts"].([]any), object{"name": "certificate", "mountPath": "/kaniko/ssl/certs/additional-ca-cert-bundle.crt", "subPath": "ca.crt"})
	spec["volumes"] = append(spec["volumes"].([]any), object{"name": "certificate", "configMap": object{"name": "certificate"}})
	spec["hostNetwork"] = true
	if security != nil {
		spec["securityContext"] = security
	}
}
