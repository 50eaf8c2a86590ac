package kubernetes

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"gopkg.in/yaml.v3"
)

// config is how a cluster is reached.
type config struct {
	server    string // an address without a slash at its end
	namespace string
	context   string // its name in the kubeconfig
	tls       *tls.Config
	proxy     *url.URL
	auth      authorizer
}

// places are where a config is looked for.
type places struct {
	getenv  func(string) string
	environ func() []string // all of it, for plugins
	context string          // "" is the current one
	account string          // directory of a pod's service account; "" is the usual one
}

// accountPlace is where a pod has its service account.
const accountPlace = "/var/run/secrets/kubernetes.io/serviceaccount"

const configRemedy = "KUBECONFIG names a kubeconfig, as for kubectl; without one it is ~/.kube/config, and in a pod its service account"

// load finds the cluster as kubectl does: by the files of KUBECONFIG, where the first
// that says something counts, else ~/.kube/config, else by the service account of the
// pod that this is.
func load(p places) (*config, error) {
	if p.getenv == nil {
		p.getenv = func(string) string { return "" }
	}
	if p.environ == nil {
		p.environ = func() []string { return []string{} }
	}
	var all kubeconfig
	var read []string
	files := filepath.SplitList(p.getenv("KUBECONFIG"))
	if len(files) == 0 && p.getenv("HOME") != "" {
		files = []string{filepath.Join(p.getenv("HOME"), ".kube", "config")}
	}
	for _, file := range files {
		if file == "" {
			continue
		}
		b, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the kubeconfig: %w", err)
		}
		var k kubeconfig
		if err := yaml.Unmarshal(b, &k); err != nil {
			return nil, fmt.Errorf("read the kubeconfig %s: %w", file, err)
		}
		k.at(filepath.Dir(file))
		all.merge(k)
		read = append(read, file)
	}
	name := cmp.Or(p.context, all.Current)
	if name == "" {
		if c, err := inCluster(p); c != nil || err != nil {
			return c, err
		}
		if len(read) > 0 {
			return nil, &hinted{fmt.Errorf("%s has no current context", strings.Join(read, ", ")), "choose one: kubectl config use-context NAME, or runner.kubernetes.context"}
		}
		return nil, &hinted{errors.New("no cluster is known"), configRemedy}
	}
	if len(read) == 0 {
		return nil, &hinted{fmt.Errorf("there is no kubeconfig, which context %q would be in", name), configRemedy}
	}
	return all.config(name, p)
}

// inCluster is the config of a pod; nil if this is none.
func inCluster(p places) (*config, error) {
	host, port := p.getenv("KUBERNETES_SERVICE_HOST"), p.getenv("KUBERNETES_SERVICE_PORT")
	dir := cmp.Or(p.account, accountPlace)
	token := filepath.Join(dir, "token")
	if _, err := os.Stat(token); err != nil || host == "" || port == "" {
		return nil, nil
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("read the service account of this pod: %w", err)
	}
	ns, err := os.ReadFile(filepath.Join(dir, "namespace"))
	if err != nil {
		return nil, fmt.Errorf("read the service account of this pod: %w", err)
	}
	c := &config{server: "https://" + net.JoinHostPort(host, port), namespace: strings.TrimSpace(string(ns)), tls: &tls.Config{MinVersion: tls.VersionTLS12}, auth: &fileToken{file: token}}
	return c, trust(c.tls, ca)
}

func trust(c *tls.Config, pem []byte) error {
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return errors.New("the certificate authority of the cluster is no PEM file")
	}
	return nil
}

// kubeconfig is the part of a kubeconfig that is read.
type kubeconfig struct {
	Current  string `yaml:"current-context"`
	Clusters []struct {
		Name    string  `yaml:"name"`
		Cluster cluster `yaml:"cluster"`
	} `yaml:"clusters"`
	Contexts []struct {
		Name    string `yaml:"name"`
		Context struct {
			Cluster, User, Namespace string
		} `yaml:"context"`
	} `yaml:"contexts"`
	Users []struct {
		Name string `yaml:"name"`
		User user   `yaml:"user"`
	} `yaml:"users"`
}

type cluster struct {
	Server     string `yaml:"server"`
	CA         string `yaml:"certificate-authority"`
	CAData     string `yaml:"certificate-authority-data"`
	AnyCert    bool   `yaml:"insecure-skip-tls-verify"`
	ServerName string `yaml:"tls-server-name"`
	Proxy      string `yaml:"proxy-url"`
}

type user struct {
	Token     string     `yaml:"token"`
	TokenFile string     `yaml:"tokenFile"`
	Cert      string     `yaml:"client-certificate"`
	CertData  string     `yaml:"client-certificate-data"`
	Key       string     `yaml:"client-key"`
	KeyData   string     `yaml:"client-key-data"`
	Name      string     `yaml:"username"`
	Password  string     `yaml:"password"`
	Exec      *plugin    `yaml:"exec"`
	Provider  *yaml.Node `yaml:"auth-provider"`
}

// plugin is a program that knows credentials.
type plugin struct {
	APIVersion string   `yaml:"apiVersion"`
	Command    string   `yaml:"command"`
	Args       []string `yaml:"args"`
	Env        []struct {
		Name, Value string
	} `yaml:"env"`
	Hint        string `yaml:"installHint"`
	ClusterInfo bool   `yaml:"provideClusterInfo"`
}

// at makes the paths of a file absolute, which are relative to its directory.
func (k *kubeconfig) at(dir string) {
	abs := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	for i := range k.Clusters {
		abs(&k.Clusters[i].Cluster.CA)
	}
	for i := range k.Users {
		u := &k.Users[i].User
		abs(&u.TokenFile)
		abs(&u.Cert)
		abs(&u.Key)
		if u.Exec != nil && strings.ContainsRune(u.Exec.Command, filepath.Separator) {
			abs(&u.Exec.Command)
		}
	}
}

// merge adds what another file says; of two of one name the first is found.
func (k *kubeconfig) merge(more kubeconfig) {
	k.Current = cmp.Or(k.Current, more.Current)
	k.Clusters = append(k.Clusters, more.Clusters...)
	k.Contexts = append(k.Contexts, more.Contexts...)
	k.Users = append(k.Users, more.Users...)
}

// config is that of a context.
func (k *kubeconfig) config(name string, p places) (*config, error) {
	for _, c := range k.Contexts {
		if c.Name != name {
			continue
		}
		var cl *cluster
		for i := range k.Clusters {
			if k.Clusters[i].Name == c.Context.Cluster {
				cl = &k.Clusters[i].Cluster
				break
			}
		}
		if cl == nil || cl.Server == "" {
			return nil, &hinted{fmt.Errorf("the kubeconfig says no server for cluster %q of context %q", c.Context.Cluster, name), configRemedy}
		}
		out := &config{server: strings.TrimSuffix(cl.Server, "/"), namespace: cmp.Or(c.Context.Namespace, "default"), context: name}
		if err := cl.reach(out); err != nil {
			return nil, err
		}
		for i := range k.Users {
			if k.Users[i].Name == c.Context.User {
				return out, k.Users[i].User.identify(out, cl, p)
			}
		}
		return out, nil
	}
	var names []string
	for _, c := range k.Contexts {
		names = append(names, c.Name)
	}
	return nil, &hinted{fmt.Errorf("the kubeconfig has no context %q", name), "it has: " + cmp.Or(strings.Join(names, ", "), "none")}
}

// reach sets how the server is connected to.
func (c *cluster) reach(out *config) error {
	u, err := url.Parse(out.server)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return fmt.Errorf("the kubeconfig's server %q is no address", out.server)
	}
	if c.Proxy != "" {
		if out.proxy, err = url.Parse(c.Proxy); err != nil {
			return fmt.Errorf("the kubeconfig's proxy-url: %w", err)
		}
	}
	out.tls = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName, InsecureSkipVerify: c.AnyCert} //nolint:gosec // the kubeconfig says so
	ca, err := content(c.CA, c.CAData)
	if err == nil && ca != nil {
		err = trust(out.tls, ca)
	}
	if err != nil {
		return fmt.Errorf("the kubeconfig's certificate-authority: %w", err)
	}
	return nil
}

// content is a file, or base64 that stands for one; nil if there is neither.
func content(file, data string) ([]byte, error) {
	if data != "" {
		return base64.StdEncoding.DecodeString(data)
	}
	if file == "" {
		return nil, nil
	}
	return os.ReadFile(file)
}

// identify sets who asks.
func (u *user) identify(out *config, c *cluster, p places) error {
	cert, err := content(u.Cert, u.CertData)
	if err == nil && cert != nil {
		var key []byte
		if key, err = content(u.Key, u.KeyData); err == nil {
			var pair tls.Certificate
			if pair, err = tls.X509KeyPair(cert, key); err == nil {
				out.tls.Certificates = []tls.Certificate{pair}
			}
		}
	}
	if err != nil {
		return fmt.Errorf("the kubeconfig's client-certificate: %w", err)
	}
	switch {
	case u.TokenFile != "":
		out.auth = &fileToken{file: u.TokenFile}
	case u.Token != "":
		out.auth = header("Bearer " + u.Token)
	case u.Name != "":
		out.auth = header("Basic " + base64.StdEncoding.EncodeToString([]byte(u.Name+":"+u.Password)))
	case u.Exec != nil:
		a := &pluginAuth{plugin: u.Exec, environ: p.environ, cluster: c, server: out.server}
		out.auth = a
		out.tls.GetClientCertificate = a.certificate
	case u.Provider != nil:
		return &hinted{errors.New("the kubeconfig has an auth-provider, which kubectl has given up, too"), "use an exec plugin: see the documentation of the cluster's provider"}
	}
	return nil
}

// authorizer adds to a request who asks. again is set when the server did not believe it
// the last time.
type authorizer interface {
	authorize(ctx context.Context, h http.Header, again bool) error
}

type header string

func (a header) authorize(_ context.Context, h http.Header, _ bool) error {
	h.Set("Authorization", string(a))
	return nil
}

// fileToken is a token in a file that somebody renews.
type fileToken struct{ file string }

func (a *fileToken) authorize(_ context.Context, h http.Header, _ bool) error {
	b, err := os.ReadFile(a.file)
	if err != nil {
		return fmt.Errorf("read the token for the cluster: %w", err)
	}
	h.Set("Authorization", "Bearer "+strings.TrimSpace(string(b)))
	return nil
}

// pluginAuth asks a program, and remembers what it says for as long as that holds.
type pluginAuth struct {
	plugin  *plugin
	environ func() []string
	cluster *cluster
	server  string

	mu    sync.Mutex
	token string
	pair  *tls.Certificate
	until time.Time // zero: until the server does not believe it
	asked bool
}

// execCredential is what goes to a plugin, and comes from it.
type execCredential struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Spec       struct {
		Interactive bool         `json:"interactive"`
		Cluster     *execCluster `json:"cluster,omitempty"`
	} `json:"spec"`
	Status struct {
		Token   string    `json:"token,omitempty"`
		Cert    string    `json:"clientCertificateData,omitempty"`
		Key     string    `json:"clientKeyData,omitempty"`
		Expires time.Time `json:"expirationTimestamp,omitzero"`
	} `json:"status,omitzero"`
}

type execCluster struct {
	Server     string `json:"server"`
	ServerName string `json:"tls-server-name,omitempty"`
	AnyCert    bool   `json:"insecure-skip-tls-verify,omitempty"`
	CA         []byte `json:"certificate-authority-data,omitempty"`
	Proxy      string `json:"proxy-url,omitempty"`
}

func (a *pluginAuth) authorize(ctx context.Context, h http.Header, again bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.asked || again || !a.until.IsZero() && time.Until(a.until) < time.Minute {
		if err := a.ask(ctx); err != nil {
			return err
		}
	}
	if a.token != "" {
		h.Set("Authorization", "Bearer "+a.token)
	}
	return nil
}

// certificate is asked for by TLS, after authorize.
func (a *pluginAuth) certificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.pair == nil {
		return &tls.Certificate{}, nil
	}
	return a.pair, nil
}

func (a *pluginAuth) ask(ctx context.Context) error {
	fail := func(err error) error {
		return &hinted{fmt.Errorf("ask %s for credentials for the cluster: %w", a.plugin.Command, err), strings.TrimSpace(a.plugin.Hint)}
	}
	in := execCredential{APIVersion: cmp.Or(a.plugin.APIVersion, "client.authentication.k8s.io/v1"), Kind: "ExecCredential"}
	if a.plugin.ClusterInfo {
		ca, err := content(a.cluster.CA, a.cluster.CAData)
		if err != nil {
			return fail(err)
		}
		in.Spec.Cluster = &execCluster{Server: a.server, ServerName: a.cluster.ServerName, AnyCert: a.cluster.AnyCert, CA: ca, Proxy: a.cluster.Proxy}
	}
	info, err := json.Marshal(in)
	if err != nil {
		return fail(err)
	}
	cmd := exec.CommandContext(ctx, a.plugin.Command, a.plugin.Args...)
	cmd.Env = a.environ()
	for _, e := range a.plugin.Env {
		cmd.Env = append(cmd.Env, e.Name+"="+e.Value)
	}
	cmd.Env = append(cmd.Env, "KUBERNETES_EXEC_INFO="+string(info))
	var said strings.Builder
	cmd.Stderr = &said
	b, err := cmd.Output()
	if err != nil {
		return fail(errors.New(strings.TrimSpace(fmt.Sprintf("%v: %s", err, said.String()))))
	}
	var out execCredential
	if err := json.Unmarshal(b, &out); err != nil {
		return fail(err)
	}
	a.token, a.until, a.asked = out.Status.Token, out.Status.Expires, true
	a.pair = nil
	if out.Status.Cert != "" {
		pair, err := tls.X509KeyPair([]byte(out.Status.Cert), []byte(out.Status.Key))
		if err != nil {
			return fail(err)
		}
		a.pair = &pair
	}
	if a.token == "" && a.pair == nil {
		return fail(errors.New("it gives neither a token nor a certificate"))
	}
	return nil
}
