package clouds

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"gopkg.in/yaml.v3"

	"kaniko-build/test/clouds/hosts"
	"kaniko-build/test/mirror"
	"kaniko-build/test/rig"
	"kaniko-build/test/serviceaccount"
)

// pods is an engine with our image, and a world around it that has clouds.
type pods struct {
	*rig.Docker
	*hosts.Hosts
	reg    *rig.Registry // with what is pushed to any of them, and busybox
	mounts []rig.Mount
	env    []string
}

// run runs the executor, which must end with an image, and shows what the image has in a
// file.
func (p *pods) run(t *testing.T, c rig.Container, repo, file string) {
	t.Helper()
	c.Image, c.Mounts, c.Env = rig.ExecutorImage, slices.Concat(c.Mounts, p.mounts), slices.Concat(c.Env, p.env)
	o := p.Docker.Run(t, c)
	if o.Code != 0 {
		t.Fatalf("%q: %s\nasked: %q", c.Args, o.All(), p.Asked())
	}
	for _, secret := range []string{"of-google", "of-ecr", "of-acr", "of-azure", "s3cret", "of the cluster"} {
		if strings.Contains(o.All(), secret) {
			t.Errorf("a secret is shown: %s", o.All())
		}
	}
	image := p.reg.Addr + "/" + repo
	p.Pull(t, image)
	if o := p.Docker.Run(t, rig.Container{Image: image, Entrypoint: "/bin/cat", Args: []string{file}}); o.Stdout != "made\n" {
		t.Errorf("%s has %s", repo, o.All())
	}
}

// TestPods runs pods in the clouds as kaniko's users write them, in Docker's default
// container: with the names of the clouds' own servers, and credentials as the clouds
// mount them.
func TestPods(t *testing.T) {
	d := rig.StartDocker(t)
	rig.LoadExecutors(t, d, rig.ExecutorImage)
	reg := rig.StartMirror(t, mirror.Busybox)
	h := hosts.Start(t, reg.Addr)
	p := &pods{
		Docker: d, Hosts: h, reg: reg, env: []string{"HTTPS_PROXY=" + h.Proxy},
		mounts: []rig.Mount{{Source: h.CA, Target: "/kaniko/ssl/certs/additional-ca-cert-bundle.crt", ReadOnly: true}},
	}
	t.Run("bucket with a mounted key", p.testGoogle)
	t.Run("role of a service account", p.testAmazon)
	t.Run("credential helper", p.testAzure)
}

// packed is a context whose base lies in the cloud, too.
func packed(t *testing.T, host string) []byte {
	t.Helper()
	return rig.Archive(t, map[string]string{"Dockerfile": "FROM " + host + "/library/busybox\nWORKDIR /workspace\nCOPY f .\nRUN cat f >made\n", "f": "made\n"})
}

// testGoogle is the Job of kaniko's users, from our examples.
func (p *pods) testGoogle(t *testing.T) {
	p.StartStorage(t, map[string]string{"builds/context.tar.gz": string(packed(t, hosts.GoogleImages))})
	secret := rig.Space(t, nil)
	serviceaccount.Write(t, filepath.Join(secret, "kaniko-secret.json"), "https://"+hosts.GoogleTokens+"/token")
	b, err := os.ReadFile(filepath.Join(rig.Root(t), "examples/kubernetes/job.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var job struct {
		Spec struct {
			Template struct {
				Spec struct {
					Containers []struct {
						Args         []string
						Env          []struct{ Name, Value string }
						VolumeMounts []struct {
							MountPath string `yaml:"mountPath"`
						} `yaml:"volumeMounts"`
					}
				}
			}
		}
	}
	if err := yaml.Unmarshal(b, &job); err != nil {
		t.Fatal(err)
	}
	pod := job.Spec.Template.Spec.Containers[0]
	fill := strings.NewReplacer("BUCKET", "builds", "PROJECT", "shop", "IMAGE", "app", "TAG", "1")
	var args []string
	for _, a := range pod.Args {
		args = append(args, fill.Replace(a))
	}
	p.run(t, rig.Container{
		Args: args, Env: []string{pod.Env[0].Name + "=" + pod.Env[0].Value},
		Mounts: []rig.Mount{{Source: secret, Target: pod.VolumeMounts[0].MountPath, ReadOnly: true}},
	}, "shop/app:1", "/workspace/made")
}

// testAmazon has what EKS gives to a pod whose service account has a role.
func (p *pods) testAmazon(t *testing.T) {
	addr := hosts.StartEmulator(t, nil, hosts.Emulator(t, "node_modules/.bin/s3rver"), "-d", rig.Space(t, nil), "-a", "127.0.0.1", "-p", "%s", "--configure-bucket", "builds")
	client := s3.New(s3.Options{
		BaseEndpoint: aws.String("http://" + addr), UsePathStyle: true, Region: "us-east-1", RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		Credentials: credentials.NewStaticCredentialsProvider("S3RVER", "S3RVER", ""),
	})
	if _, err := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("builds"), Key: aws.String("context.tar.gz"), Body: bytes.NewReader(packed(t, hosts.AwsImages))}); err != nil {
		t.Fatal(err)
	}
	secrets := rig.Space(t, nil)
	rig.Write(t, secrets, map[string]string{"token": "of the cluster"})
	const at = "/var/run/secrets/eks.amazonaws.com/serviceaccount"
	p.run(t, rig.Container{
		Args: []string{"--dockerfile=Dockerfile", "--context=s3://builds/context.tar.gz", "--destination=" + hosts.AwsImages + "/shop/ecr:1"},
		Env: []string{
			"AWS_ROLE_ARN=arn:aws:iam::123456789012:role/builder", "AWS_WEB_IDENTITY_TOKEN_FILE=" + at + "/token", "AWS_REGION=us-east-1", "AWS_STS_REGIONAL_ENDPOINTS=regional",
			"S3_ENDPOINT=http://" + addr, "S3_FORCE_PATH_STYLE=true",
		},
		Mounts: []rig.Mount{{Source: secrets, Target: at, ReadOnly: true}},
	}, "shop/ecr:1", "/workspace/made")
}

// testAzure has a docker config that names the helper of Azure's registries, mounted
// from a ConfigMap.
func (p *pods) testAzure(t *testing.T) {
	dir, config := rig.Space(t, nil), rig.Space(t, nil)
	rig.Write(t, dir, map[string]string{"Dockerfile": "FROM " + hosts.AzureImages + "/library/busybox\nWORKDIR /workspace\nCOPY f .\nRUN cat f >made\n", "f": "made\n"})
	b, err := json.Marshal(map[string]any{"credHelpers": map[string]string{hosts.AzureImages: "acr-env"}})
	if err != nil {
		t.Fatal(err)
	}
	rig.Write(t, config, map[string]string{"config.json": string(b)})
	p.run(t, rig.Container{
		Args:   []string{"--context=dir:///workspace", "--destination=" + hosts.AzureImages + "/shop/acr:1", "--credential-helpers="},
		Env:    []string{"AZURE_TENANT_ID=tenant", "AZURE_CLIENT_ID=client", "AZURE_CLIENT_SECRET=s3cret"},
		Mounts: []rig.Mount{{Source: dir, Target: "/workspace"}, {Source: config, Target: "/kaniko/.docker", ReadOnly: true}},
	}, "shop/acr:1", "/workspace/made")
}
