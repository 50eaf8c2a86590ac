package clouds

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"gopkg.in/yaml.v3"

	"kaniko-build/test/mirror"
	"kaniko-build/test/rig"
	"kaniko-build/test/serviceaccount"
)

// Hosts of the clouds that a pod here asks, all of which are one server: a proxy leads
// every name to it, and its certificate is added to the container's.
const (
	googleTokens  = "oauth2.googleapis.com"
	googleStorage = "storage.googleapis.com"
	googleImages  = "gcr.io"
	awsTokens     = "sts.us-east-1.amazonaws.com"
	awsImages     = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
	awsImagesAPI  = "api.ecr.us-east-1.amazonaws.com"
	azureTokens   = "login.microsoftonline.com"
	azureImages   = "shop.azurecr.io"
)

// clouds are those hosts. Each gives what it has to who shows what its cloud gave him.
type clouds struct {
	t       *testing.T
	storage string // address of the emulator of Google's buckets
	images  http.Handler

	mu    sync.Mutex
	asked []string
}

func (c *clouds) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.asked = append(c.asked, r.Host+r.URL.Path)
	c.mu.Unlock()
	basic := func(user, password string) {
		if u, p, _ := r.BasicAuth(); u != user || p != password {
			w.Header().Set("WWW-Authenticate", "Basic realm=\"cloud\"")
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
			return
		}
		c.images.ServeHTTP(w, r)
	}
	answer := func(ok bool, body string) {
		if !ok {
			http.Error(w, "who are you", http.StatusForbidden)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, body)
	}
	switch r.Host {
	case googleTokens:
		answer(strings.Count(r.FormValue("assertion"), ".") == 2, `{"access_token":"of-google","token_type":"Bearer","expires_in":3600}`)
	case googleStorage:
		if r.Header.Get("Authorization") != "Bearer of-google" {
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		forward(c.t, c.storage).ServeHTTP(w, r)
	case googleImages:
		basic("_token", "of-google")
	case awsTokens:
		if r.FormValue("Action") != "AssumeRoleWithWebIdentity" || r.FormValue("WebIdentityToken") != "of the cluster" || r.FormValue("RoleArn") != "arn:aws:iam::123456789012:role/builder" {
			http.Error(w, "who are you", http.StatusForbidden)
			return
		}
		w.Header().Set("Content-Type", "text/xml")
		fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult><Credentials>`+
			`<AccessKeyId>S3RVER</AccessKeyId><SecretAccessKey>S3RVER</SecretAccessKey><SessionToken>session</SessionToken><Expiration>%s</Expiration>`+
			`</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	case awsImagesAPI:
		answer(strings.Contains(r.Header.Get("Authorization"), "Credential=S3RVER/") && r.Header.Get("X-Amz-Security-Token") == "session",
			fmt.Sprintf(`{"authorizationData":[{"authorizationToken":%q,"expiresAt":%d}]}`, base64.StdEncoding.EncodeToString([]byte("AWS:of-ecr")), time.Now().Add(12*time.Hour).Unix()))
	case awsImages:
		basic("AWS", "of-ecr")
	case azureTokens:
		switch {
		case strings.HasSuffix(r.URL.Path, "/discovery/instance"):
			answer(true, `{"tenant_discovery_endpoint":"https://login.microsoftonline.com/tenant/v2.0/.well-known/openid-configuration","metadata":[]}`)
		case strings.HasSuffix(r.URL.Path, "/openid-configuration"):
			answer(true, `{"token_endpoint":"https://login.microsoftonline.com/tenant/oauth2/v2.0/token","authorization_endpoint":"https://login.microsoftonline.com/tenant/oauth2/v2.0/authorize","issuer":"https://login.microsoftonline.com/tenant/v2.0"}`)
		default:
			answer(r.FormValue("client_secret") == "s3cret", `{"access_token":"of-azure","token_type":"Bearer","expires_in":3600,"ext_expires_in":3600}`)
		}
	case azureImages:
		switch r.URL.Path {
		case "/oauth2/exchange":
			answer(r.FormValue("access_token") == "of-azure", `{"refresh_token":"of-acr"}`)
		case "/oauth2/token":
			answer(r.FormValue("refresh_token") == "of-acr", `{"access_token":"for-one-repository"}`)
		default:
			if r.Header.Get("Authorization") != "Bearer for-one-repository" {
				w.Header().Set("WWW-Authenticate", `Bearer realm="https://`+azureImages+`/oauth2/token",service="`+azureImages+`"`)
				http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
				return
			}
			c.images.ServeHTTP(w, r)
		}
	default:
		http.Error(w, "nobody is at "+r.Host, http.StatusBadGateway)
	}
}

// forward hands requests to a server of this machine that speaks http.
func forward(t *testing.T, addr string) http.Handler {
	at, err := url.Parse("http://" + addr)
	if err != nil {
		t.Error(err)
	}
	return &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(at)
		r.Out.Host = r.In.Host
		r.Out.Header.Set("X-Forwarded-Proto", "https")
		r.Out.Header.Del("Authorization")
	}}
}

// pods is an engine with our image, and a world around it that has clouds.
type pods struct {
	*rig.Docker
	*clouds
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
		t.Fatalf("%q: %s\nasked: %q", c.Args, o.All(), p.asked)
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
	c := &clouds{t: t, images: forward(t, reg.Addr)}
	ca := newAuthority(t, googleTokens, googleStorage, googleImages, awsTokens, awsImages, awsImagesAPI, azureTokens, azureImages)
	pair, err := tls.LoadX509KeyPair(ca.cert, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(c)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	s.StartTLS()
	t.Cleanup(s.Close)
	p := &pods{
		Docker: d, clouds: c, reg: reg, env: []string{"HTTPS_PROXY=" + startTunnel(t, s.Listener.Addr().String())},
		mounts: []rig.Mount{{Source: ca.cert, Target: "/kaniko/ssl/certs/additional-ca-cert-bundle.crt", ReadOnly: true}},
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
	data := rig.Space(t, nil)
	rig.Write(t, data, map[string]string{"builds/context.tar.gz": string(packed(t, googleImages))})
	p.storage = start(t, nil, emulator(t, "fake-gcs-server"), "-backend", "memory", "-data", data, "-scheme", "http", "-host", "127.0.0.1", "-port", "%s", "-public-host", googleStorage)
	secret := rig.Space(t, nil)
	serviceaccount.Write(t, filepath.Join(secret, "kaniko-secret.json"), "https://"+googleTokens+"/token")
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
	addr := start(t, nil, emulator(t, "node_modules/.bin/s3rver"), "-d", rig.Space(t, nil), "-a", "127.0.0.1", "-p", "%s", "--configure-bucket", "builds")
	client := s3.New(s3.Options{
		BaseEndpoint: aws.String("http://" + addr), UsePathStyle: true, Region: "us-east-1", RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		Credentials: credentials.NewStaticCredentialsProvider("S3RVER", "S3RVER", ""),
	})
	if _, err := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("builds"), Key: aws.String("context.tar.gz"), Body: bytes.NewReader(packed(t, awsImages))}); err != nil {
		t.Fatal(err)
	}
	secrets := rig.Space(t, nil)
	rig.Write(t, secrets, map[string]string{"token": "of the cluster"})
	const at = "/var/run/secrets/eks.amazonaws.com/serviceaccount"
	p.run(t, rig.Container{
		Args: []string{"--dockerfile=Dockerfile", "--context=s3://builds/context.tar.gz", "--destination=" + awsImages + "/shop/ecr:1"},
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
	rig.Write(t, dir, map[string]string{"Dockerfile": "FROM " + azureImages + "/library/busybox\nWORKDIR /workspace\nCOPY f .\nRUN cat f >made\n", "f": "made\n"})
	b, err := json.Marshal(map[string]any{"credHelpers": map[string]string{azureImages: "acr-env"}})
	if err != nil {
		t.Fatal(err)
	}
	rig.Write(t, config, map[string]string{"config.json": string(b)})
	p.run(t, rig.Container{
		Args:   []string{"--context=dir:///workspace", "--destination=" + azureImages + "/shop/acr:1", "--credential-helpers="},
		Env:    []string{"AZURE_TENANT_ID=tenant", "AZURE_CLIENT_ID=client", "AZURE_CLIENT_SECRET=s3cret"},
		Mounts: []rig.Mount{{Source: dir, Target: "/workspace"}, {Source: config, Target: "/kaniko/.docker", ReadOnly: true}},
	}, "shop/acr:1", "/workspace/made")
}
