package dropin_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"kaniko-build/cmd/kaniko-build/internal/dropin"
)

// TestCredentialHelper asks as docker does, with ECR on loopback.
func TestCredentialHelper(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"authorizationData":[{"authorizationToken":%q,"expiresAt":%d}]}`, base64.StdEncoding.EncodeToString([]byte("AWS:s3cret")), time.Now().Add(time.Hour).Unix())
	}))
	t.Cleanup(s.Close)
	for k, v := range map[string]string{"AWS_ENDPOINT_URL_ECR": s.URL, "AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "B", "AWS_CA_BUNDLE": ""} {
		t.Setenv(k, v)
	}
	run := func(name, in string, args ...string) (string, error) {
		var out, errs bytes.Buffer
		p := dropin.Program{Version: "1", In: strings.NewReader(in), Out: &out, Err: &errs}
		c := p.Helper(name)
		c.SetArgs(args)
		err := c.ExecuteContext(t.Context())
		return out.String(), err
	}
	const host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
	for _, server := range []string{host, host + "\n", "https://" + host, "https://" + host + "/v2/"} {
		out, err := run("docker-credential-ecr-login", server, "get")
		var got struct{ ServerURL, Username, Secret string }
		if err != nil || json.Unmarshal([]byte(out), &got) != nil || got.Username != "AWS" || got.Secret != "s3cret" || got.ServerURL != strings.TrimSpace(server) {
			t.Errorf("%q: %s %v", server, out, err)
		}
	}
	for name, want := range map[string]string{
		"docker-credential-ecr-login": "credentials not found in native keychain\n",
		"docker-credential-gcr":       "credentials not found in native keychain\n",
		"docker-credential-acr-env":   "credentials not found in native keychain\n",
	} {
		if !dropin.IsHelper(name) {
			t.Errorf("%s is no helper", name)
		}
		if out, err := run(name, "registry.example", "get"); err == nil || out != want {
			t.Errorf("%s: %q %v", name, out, err)
		}
		if out, err := run(name, "", "list"); err != nil || out != "{}\n" {
			t.Errorf("%s list: %q %v", name, out, err)
		}
		if out, err := run(name, "{}", "store"); err == nil || out == "" {
			t.Errorf("%s store: %q %v", name, out, err)
		}
	}
}
