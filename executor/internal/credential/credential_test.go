package credential_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"kaniko-build/executor/internal/credential"
	"kaniko-build/test/serviceaccount"
)

// clouds answers for every host that the clouds have, and writes down who was
// asked what.
type clouds struct {
	t     *testing.T
	asked []string
	// fail is a host that refuses.
	fail string
}

func (c *clouds) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
		r.Body.Close()
	}
	form, _ := url.ParseQuery(string(body))
	c.asked = append(c.asked, r.URL.Host+r.URL.Path)
	status, answer := http.StatusOK, ""
	at := func(host, path string) bool { return r.URL.Host == host && strings.HasSuffix(r.URL.Path, path) }
	switch {
	case r.URL.Host == c.fail:
		status = http.StatusForbidden
	case at("oauth2.example", "/token"):
		answer = `{"access_token":"of-google","token_type":"Bearer","expires_in":3600}`
	case at("api.ecr.eu-west-1.amazonaws.com", "/"), at("ecr-fips.us-gov-west-1.amazonaws.com", "/"):
		if !strings.Contains(r.Header.Get("Authorization"), "Credential=AKID/") {
			c.t.Errorf("ECR was asked by %q", r.Header.Get("Authorization"))
		}
		answer = fmt.Sprintf(`{"authorizationData":[{"authorizationToken":%q,"expiresAt":%d}]}`, base64.StdEncoding.EncodeToString([]byte("AWS:of-ecr")), time.Now().Add(12*time.Hour).Unix())
	case at("api.ecr-public.us-east-1.amazonaws.com", "/"):
		answer = fmt.Sprintf(`{"authorizationData":{"authorizationToken":%q,"expiresAt":%d}}`, base64.StdEncoding.EncodeToString([]byte("AWS:of-public")), time.Now().Add(12*time.Hour).Unix())
	case strings.HasSuffix(r.URL.Path, "/discovery/instance"):
		answer = `{"tenant_discovery_endpoint":"https://login.microsoftonline.com/tenant/v2.0/.well-known/openid-configuration","metadata":[]}`
	case strings.HasSuffix(r.URL.Path, "/openid-configuration"):
		answer = `{"token_endpoint":"https://login.microsoftonline.com/tenant/oauth2/v2.0/token","authorization_endpoint":"https://login.microsoftonline.com/tenant/oauth2/v2.0/authorize","issuer":"https://login.microsoftonline.com/tenant/v2.0"}`
	case at("login.microsoftonline.com", "/oauth2/v2.0/token"):
		if form.Get("client_secret") != "s3cret" && form.Get("client_assertion") != "signed" {
			status = http.StatusUnauthorized
		}
		answer = `{"access_token":"of-azure","token_type":"Bearer","expires_in":3600,"ext_expires_in":3600}`
	case at("shop.azurecr.io", "/oauth2/exchange"):
		if form.Get("access_token") != "of-azure" || form.Get("service") != "shop.azurecr.io" {
			status = http.StatusUnauthorized
		}
		answer = `{"refresh_token":"of-acr"}`
	default:
		return nil, fmt.Errorf("nobody is at %s", r.URL.Host)
	}
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader([]byte(answer))), ContentLength: int64(len(answer)),
	}, nil
}

// alone hides the identities that this machine may have.
func alone(t *testing.T) (home string) {
	t.Helper()
	home = t.TempDir()
	for k, v := range map[string]string{
		"HOME": home, "DOCKER_CONFIG": filepath.Join(home, ".docker"), "XDG_RUNTIME_DIR": "", "XDG_CONFIG_HOME": "", "REGISTRY_AUTH_FILE": "", "DOCKER_AUTH_CONFIG": "",
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CA_BUNDLE": "", "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_PROFILE": "",
		"GOOGLE_APPLICATION_CREDENTIALS": "", "CLOUDSDK_CONFIG": home, "GCE_METADATA_HOST": "127.0.0.1:1", "PATH": "/usr/bin:/bin",
	} {
		t.Setenv(k, v)
	}
	return home
}

func resolve(t *testing.T, k *credential.Keychain, repo string) *authn.AuthConfig {
	t.Helper()
	r, err := name.NewRepository(repo)
	if err != nil {
		t.Fatal(err)
	}
	a, err := k.ResolveContext(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	c, err := authn.Authorization(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestVariables(t *testing.T) {
	alone(t)
	env := map[string]string{
		"KANIKO_REGISTRY_SHOP_EXAMPLE_USER": "a", "KANIKO_REGISTRY_SHOP_EXAMPLE_PASSWORD": "1",
		"KANIKO_MY_HOST_EXAMPLE_USER": "b", "KANIKO_MY_HOST_EXAMPLE_PASSWORD": "2",
		"KANIKO_HALF_EXAMPLE_USER": "c",
		"CI_REGISTRY":              "gitlab.example:5050", "CI_REGISTRY_USER": "ci", "CI_REGISTRY_PASSWORD": "3",
	}
	getenv := func(k string) string { return env[k] }
	all := credential.New(credential.Options{Getenv: getenv})
	for repo, want := range map[string]string{
		"registry.shop.example/x":     "a:1",
		"eu.registry.shop.example/x":  "a:1",
		"shop.example/x":              ":",
		"my-host.example/x":           "b:2",
		"half.example/x":              ":",
		"gitlab.example:5050/x/y":     "ci:3",
		"gitlab.example/x/y":          "ci:3",
		"notgitlab.example/x":         ":",
		"gitlab.example.evil.example": ":",
	} {
		if c := resolve(t, all, repo+"/image"); c.Username+":"+c.Password != want {
			t.Errorf("%s: %s:%s, want %s", repo, c.Username, c.Password, want)
		}
	}
	none := credential.New(credential.Options{Getenv: getenv, Sources: []string{}})
	if c := resolve(t, none, "registry.shop.example/x"); *c != (authn.AuthConfig{}) {
		t.Errorf("without any source: %+v", c)
	}
	env["CI_REGISTRY"] = "http://gitlab.example:5050"
	if c := resolve(t, credential.New(credential.Options{Getenv: getenv}), "gitlab.example:5050/x"); *c != (authn.AuthConfig{}) {
		t.Errorf("a registry without TLS gets %+v", c)
	}
}

// TestDockerConfigComesFirst has a host in the docker config and in the
// environment.
func TestDockerConfigComesFirst(t *testing.T) {
	home := alone(t)
	if err := os.Mkdir(filepath.Join(home, ".docker"), 0o700); err != nil {
		t.Fatal(err)
	}
	auth := base64.StdEncoding.EncodeToString([]byte("config:1"))
	if err := os.WriteFile(filepath.Join(home, ".docker/config.json"), fmt.Appendf(nil, `{"auths":{"both.example":{"auth":%q},"path.example/team":{"auth":%q}}}`, auth, auth), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{}
	for _, h := range []string{"BOTH", "PATH", "OTHER"} {
		env["KANIKO_"+h+"_EXAMPLE_USER"], env["KANIKO_"+h+"_EXAMPLE_PASSWORD"] = "env", "2"
	}
	k := credential.New(credential.Options{Getenv: func(k string) string { return env[k] }})
	for repo, want := range map[string]string{
		"both.example/x": "config", "path.example/team/x": "config", "path.example/teams/x": "env", "other.example/x": "env",
	} {
		if c := resolve(t, k, repo); c.Username != want {
			t.Errorf("%s is for %q, want %q", repo, c.Username, want)
		}
	}
}

// TestCloudsAreAskedForTheirOwnHosts sees who is asked for what, and that names
// which only look alike make nobody talk.
func TestCloudsAreAskedForTheirOwnHosts(t *testing.T) {
	home := alone(t)
	file := filepath.Join(home, "account.json")
	serviceaccount.Write(t, file, "https://oauth2.example/token")
	for k, v := range map[string]string{
		"GOOGLE_APPLICATION_CREDENTIALS": file,
		"AWS_ACCESS_KEY_ID":              "AKID", "AWS_SECRET_ACCESS_KEY": "SECRET",
		"AZURE_TENANT_ID": "tenant", "AZURE_CLIENT_ID": "client", "AZURE_CLIENT_SECRET": "s3cret",
	} {
		t.Setenv(k, v)
	}
	for host, want := range map[string]string{
		"gcr.io": "_token of-google", "eu.gcr.io": "_token of-google", "europe-docker.pkg.dev": "_token of-google",
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com":          "AWS of-ecr",
		"123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com": "AWS of-ecr",
		"public.ecr.aws":  "AWS of-public",
		"shop.azurecr.io": "00000000-0000-0000-0000-000000000000 of-acr",

		"gcr.io.evil.example": "", "notgcr.io": "", "pkg.dev": "", "pkg.dev.evil.example": "",
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example": "",
		"x123456789012.dkr.ecr.eu-west-1.amazonaws.com":             "",
		"public.ecr.aws.evil.example":                               "",
		"shop.azurecr.io.evil.example":                              "", "azurecr.io": "", "shopazurecr.io": "",
		"registry.example": "",
	} {
		c := &clouds{t: t}
		k := credential.New(credential.Options{Getenv: os.Getenv, Client: &http.Client{Transport: c}})
		for _, repo := range []string{"/x", "/y"} {
			got := resolve(t, k, host+repo)
			if s := strings.TrimSpace(got.Username + " " + got.Password + got.IdentityToken); s != want {
				t.Errorf("%s: %q, want %q", host+repo, s, want)
			}
		}
		if want == "" && len(c.asked) > 0 {
			t.Errorf("for %s there were questions to %q", host, c.asked)
		}
		seen := map[string]bool{}
		for _, q := range c.asked {
			if seen[q] && !strings.Contains(q, "microsoftonline") { // two repositories, one question
				t.Errorf("for %s %s was asked twice", host, q)
			}
			seen[q] = true
		}
	}
	for host, fail := range map[string]string{
		"gcr.io": "oauth2.example", "123456789012.dkr.ecr.eu-west-1.amazonaws.com": "api.ecr.eu-west-1.amazonaws.com", "shop.azurecr.io": "shop.azurecr.io",
	} {
		k := credential.New(credential.Options{Getenv: os.Getenv, Client: &http.Client{Transport: &clouds{t: t, fail: fail}}})
		r, err := name.NewRepository(host + "/x")
		if err != nil {
			t.Fatal(err)
		}
		if a, err := k.ResolveContext(t.Context(), r); err == nil {
			t.Errorf("%s with an identity that is refused: %v", host, a)
		} else if strings.Contains(err.Error(), "SECRET") || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "of-azure") {
			t.Errorf("a secret is in a message: %v", err)
		}
	}
}

// TestWorkloadIdentity has a token of the cluster in a file.
func TestWorkloadIdentity(t *testing.T) {
	home := alone(t)
	file := filepath.Join(home, "token")
	if err := os.WriteFile(file, []byte("signed"), 0o600); err != nil {
		t.Fatal(err)
	}
	for k, v := range map[string]string{"AZURE_TENANT_ID": "tenant", "AZURE_CLIENT_ID": "client", "AZURE_FEDERATED_TOKEN_FILE": file} {
		t.Setenv(k, v)
	}
	user, secret, ok, err := credential.Get(t.Context(), credential.Options{Getenv: os.Getenv, Client: &http.Client{Transport: &clouds{t: t}}}, "acr", "shop.azurecr.io")
	if err != nil || !ok || user != "<token>" || secret != "of-acr" {
		t.Errorf("got %q %q %v %v", user, secret, ok, err)
	}
}

// TestNobody has no identity at all: registries of clouds are read as anybody.
func TestNobody(t *testing.T) {
	alone(t)
	k := credential.New(credential.Options{Getenv: os.Getenv, Client: &http.Client{Transport: &clouds{t: t}}})
	for _, host := range []string{"gcr.io", "123456789012.dkr.ecr.eu-west-1.amazonaws.com", "public.ecr.aws", "shop.azurecr.io"} {
		if c := resolve(t, k, host+"/x"); *c != (authn.AuthConfig{}) {
			t.Errorf("%s: %+v", host, c)
		}
	}
}
