package kubernetes

import (
	"context"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return name
}

// who is the Authorization that a config sends.
func who(t *testing.T, c *config, again bool) string {
	t.Helper()
	h := http.Header{}
	if c.auth == nil {
		return ""
	}
	if err := c.auth.authorize(t.Context(), h, again); err != nil {
		t.Fatal(err)
	}
	return h.Get("Authorization")
}

func TestKubeconfigIsReadAsKubectlDoes(t *testing.T) {
	dir := t.TempDir()
	one := write(t, filepath.Join(dir, "one"), `
current-context: dev
clusters:
  - {name: c, cluster: {server: "https://one:6443/", tls-server-name: api}}
contexts:
  - {name: dev, context: {cluster: c, user: u, namespace: shop}}
  - {name: plain, context: {cluster: c, user: basic}}
users:
  - {name: basic, user: {username: me, password: pw}}
`, 0o600)
	two := write(t, filepath.Join(dir, "two"), `
current-context: other
clusters:
  - {name: c, cluster: {server: "https://not-this-one"}}
contexts:
  - {name: other, context: {cluster: none, user: u}}
users:
  - {name: u, user: {tokenFile: token}}
`, 0o600)
	write(t, filepath.Join(dir, "token"), "from a file\n", 0o600)
	env := func(m map[string]string) func(string) string { return func(n string) string { return m[n] } }
	both := env(map[string]string{"KUBECONFIG": one + ":" + filepath.Join(dir, "absent") + ":" + two})
	c, err := load(places{getenv: both})
	if err != nil {
		t.Fatal(err)
	}
	if c.server != "https://one:6443" || c.namespace != "shop" || c.tls.ServerName != "api" || who(t, c, false) != "Bearer from a file" {
		t.Errorf("got %+v as %q", c, who(t, c, false))
	}
	if c, err = load(places{getenv: both, context: "plain"}); err != nil || c.namespace != "default" || who(t, c, false) != "Basic bWU6cHc=" {
		t.Errorf("another context: %+v, %v", c, err)
	}
	for context, want := range map[string]string{"none": "it has: dev, plain, other", "other": `no server for cluster "none"`} {
		_, err := load(places{getenv: both, context: context})
		if text := message(err); err == nil || !strings.Contains(text, want) {
			t.Errorf("context %s: %s", context, text)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "home", ".kube"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "home", ".kube", "config"), strings.ReplaceAll(strings.ReplaceAll(mustRead(t, one), "one:", "home:"), "user: u", "user: basic"), 0o600)
	if c, err := load(places{getenv: env(map[string]string{"HOME": filepath.Join(dir, "home")})}); err != nil || c.server != "https://home:6443" {
		t.Errorf("of the home directory: %+v, %v", c, err)
	}
}

func message(err error) string {
	if h, ok := err.(*hinted); ok {
		return h.Error() + "\n" + h.hint
	}
	if err == nil {
		return ""
	}
	return err.Error()
}

func mustRead(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A plugin is asked once, and again when the server does not believe what it said.
func TestCredentialsOfAPlugin(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "plugin"), `#!/bin/sh
echo x >> "$COUNT"
case "$KUBERNETES_EXEC_INFO" in *'"server":"https://c"'*) ;; *) echo no info >&2; exit 1;; esac
echo "{\"apiVersion\": \"client.authentication.k8s.io/v1\", \"kind\": \"ExecCredential\", \"status\": {\"token\": \"$1-$(wc -l < "$COUNT" | tr -d ' ')\"}}"
`, 0o700)
	config := write(t, filepath.Join(dir, "config"), `
current-context: x
clusters: [{name: c, cluster: {server: "https://c"}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
users: [{name: u, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: ./plugin, args: [token], env: [{name: COUNT, value: "`+filepath.Join(dir, "count")+`"}], provideClusterInfo: true}}}]
`, 0o600)
	get := func(n string) string { return map[string]string{"KUBECONFIG": config}[n] }
	c, err := load(places{getenv: get, environ: os.Environ})
	if err != nil {
		t.Fatal(err)
	}
	for i, again := range []bool{false, false, true} {
		want := []string{"Bearer token-1", "Bearer token-1", "Bearer token-2"}[i]
		if got := who(t, c, again); got != want {
			t.Errorf("%d: %s, want %s", i, got, want)
		}
	}
	c.auth.(*pluginAuth).plugin.Command = filepath.Join(dir, "absent")
	c.auth.(*pluginAuth).plugin.Hint = "install it"
	err = c.auth.authorize(context.Background(), http.Header{}, true)
	if text := message(err); !strings.Contains(text, "absent") || !strings.Contains(text, "install it") {
		t.Errorf("without the plugin: %s", text)
	}
}

// authority is a certificate as PEM.
func authority(t *testing.T) string {
	t.Helper()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

func TestInAPodTheServiceAccountIsUsed(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"token": "t", "namespace": "builds", "ca.crt": authority(t)} {
		write(t, filepath.Join(dir, name), text, 0o600)
	}
	env := map[string]string{"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
	get := func(n string) string { return env[n] }
	c, err := load(places{getenv: get, account: dir})
	if err != nil || c.server != "https://[fd00::1]:443" || c.namespace != "builds" || who(t, c, false) != "Bearer t" {
		t.Errorf("got %+v, %v", c, err)
	}
	delete(env, "KUBERNETES_SERVICE_HOST")
	if _, err := load(places{getenv: get, account: dir}); err == nil {
		t.Error("found a cluster outside of one")
	}
}
