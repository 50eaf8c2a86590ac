package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"

	"kaniko-build/executor/internal/image"
	"kaniko-build/executor/internal/retry"
	"kaniko-build/executor/internal/store"
)

// Host is how one registry is spoken to.
type Host struct {
	Mirrors  []string // [http://]HOST[:PORT][/PATH], asked in this order before the host when pulling
	Insecure bool     // plain http is fine, and certificates are not checked
	AnyCert  bool     // certificates are not checked
	Only     bool     // ask the mirrors and never the host
	CA       []byte   // PEM, beside the system's certificates
	Cert     []byte   // PEM, of a client certificate
	Key      []byte   // PEM
	Retries  int      // of a request; 0 is that of Options, negative none
}

// Options say how to speak to registries. The zero value works, without
// credentials.
type Options struct {
	Hosts     map[string]Host // by host as in names: docker.io, localhost:5000
	Others    Host            // any other host
	Keychain  authn.Keychain  // nil has no credentials; see Keychain
	UserAgent string
	Retries   int // of a request; 0 is 4, negative none
	Jobs      int // blobs pushed at once for one image; 0 is 4
	// PrivatePlain lets private IPv4 addresses speak plain http where https fails.
	PrivatePlain bool
	// Remembered is told when nobody can be asked what a name is, and the answer
	// of an earlier run is taken. Nil never takes one.
	Remembered func(name string, asked time.Time, why error)
	// Progress is told how much of a blob has come or gone, at most some times
	// a second, from many goroutines. It does not block.
	Progress func(Progress)
}

// Progress is the state of one blob.
type Progress struct {
	Ref    string // the image it belongs to
	Digest digest.Digest
	Push   bool
	Done   int64 // bytes
	Total  int64
}

// Client speaks to registries for one run. Its methods may be called from
// several goroutines.
type Client struct {
	o     Options
	store *store.Store
	now   func() time.Time
	plain http.RoundTripper // without authentication, with retries, and each host's /v2/ asked once
	jobs  sync.WaitGroup    // goroutines of ours

	authed   flights[string, http.RoundTripper]
	tops     flights[string, top]
	resolved flights[string, image.Resolved]
	pushed   flights[string, pushState]
	sent     flights[string, string] // host and digest -> the repository of an image that got the bytes

	mu        sync.Mutex
	downloads map[digest.Digest]*download
	tags      map[string]tagged // by name: what Push found
	aside     map[string]string // host and digest -> the repository of a cache that got the bytes
	asked     map[string]bool   // registry hosts that requests went to
	mirrors   map[string]bool   // hosts written with http://
	transport []*http.Transport
}

// New makes a client whose blobs go into st.
func New(st *store.Store, o Options) (*Client, error) {
	if o.Retries == 0 {
		o.Retries = 4
	}
	if o.Jobs <= 0 {
		o.Jobs = 4
	}
	if o.Keychain == nil {
		o.Keychain = nobody{}
	}
	c := &Client{o: o, store: st, downloads: map[digest.Digest]*download{}, tags: map[string]tagged{}, aside: map[string]string{}, now: time.Now, asked: map[string]bool{}, mirrors: map[string]bool{}}
	rt := &router{client: c, hosts: map[string]http.RoundTripper{}}
	for host, h := range o.Hosts {
		for _, m := range h.Mirrors {
			if rest, ok := strings.CutPrefix(m, "http://"); ok {
				host, _, _ := strings.Cut(rest, "/")
				c.mirrors[host] = true
			}
		}
		if !h.special() {
			continue
		}
		cfg, err := tlsConfig(h)
		if err != nil {
			return nil, fmt.Errorf("registry %s: %w", host, err)
		}
		rt.hosts[apiHost(host)] = c.newTransport(cfg)
	}
	var others *tls.Config
	if o.Others.special() {
		var err error
		if others, err = tlsConfig(o.Others); err != nil {
			return nil, fmt.Errorf("registries: %w", err)
		}
	}
	rt.other = c.newTransport(others)
	c.plain = &doors{jobs: &c.jobs, inner: &retry.Transport{Inner: transport.NewUserAgent(rt, o.UserAgent), Attempts: c.attempts, Passes: passing}}
	return c, nil
}

// attempts is how often a request to a host may be made.
func (c *Client) attempts(host string) int {
	for name, h := range c.o.Hosts {
		if h.Retries != 0 && apiHost(name) == host {
			return max(0, h.Retries) + 1
		}
	}
	return max(0, c.o.Retries) + 1
}

// Close waits for what is still under way, which must have been given up by its
// callers, and closes idle connections.
func (c *Client) Close() error {
	c.jobs.Wait()
	for _, t := range c.transport {
		t.CloseIdleConnections()
	}
	return nil
}

// special tells whether a host needs a transport of its own.
func (h Host) special() bool { return h.Insecure || h.AnyCert || h.CA != nil || h.Cert != nil }

func tlsConfig(h Host) (*tls.Config, error) {
	cfg := &tls.Config{InsecureSkipVerify: h.Insecure || h.AnyCert} //nolint:gosec // asked for by name, for this host
	if h.CA != nil {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(h.CA) {
			return nil, errors.New("its ca holds no certificate in PEM form")
		}
		cfg.RootCAs = pool
	}
	if h.Cert != nil {
		pair, err := tls.X509KeyPair(h.Cert, h.Key)
		if err != nil {
			return nil, fmt.Errorf("read its client certificate: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

func (c *Client) newTransport(cfg *tls.Config) *http.Transport {
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       cfg,
		TLSHandshakeTimeout:   15 * time.Second,
		ResponseHeaderTimeout: 90 * time.Second, // some registries hash a whole upload before they answer
		ExpectContinueTimeout: time.Second,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   16,
		ForceAttemptHTTP2:     true,
		DisableCompression:    true, // layers are compressed, and their length must stay theirs
	}
	c.transport = append(c.transport, t)
	return t
}

// router picks the transport of a host, and keeps plain http from hosts where
// nobody allowed it: an attacker on the way would only have to spoil TLS.
type router struct {
	client *Client
	hosts  map[string]http.RoundTripper
	other  http.RoundTripper
}

func (r *router) RoundTrip(req *http.Request) (*http.Response, error) {
	host := req.URL.Host
	if req.URL.Scheme == "http" && !r.client.plainAllowed(host) && r.client.isAsked(host) {
		return nil, errPlain
	}
	if t, ok := r.hosts[host]; ok {
		return t.RoundTrip(req)
	}
	return r.other.RoundTrip(req)
}

var errPlain = errors.New("plain http is not allowed for this registry")

func (c *Client) isAsked(host string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked[host]
}

func (c *Client) plainAllowed(host string) bool {
	h, ok := c.o.Hosts[host]
	if !ok {
		h = c.o.Others
	}
	return isLoopback(host) || h.Insecure || c.mirrors[host] || c.o.PrivatePlain && isPrivate(host)
}

func isPrivate(host string) bool {
	a, err := netip.ParseAddrPort(host)
	ip := a.Addr()
	if err != nil {
		ip, err = netip.ParseAddr(host)
	}
	return err == nil && ip.Is4() && ip.IsPrivate()
}

func isLoopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// apiHost is where the API of a host is.
func apiHost(host string) string {
	if host == "docker.io" {
		return name.DefaultRegistry
	}
	return host
}

// endpoint is a repository at a place where it can be asked.
type endpoint struct {
	host string // of the API
	repo string // there
}

func (e endpoint) String() string { return e.host + "/" + e.repo }

// endpoints are the places to pull n from, in order.
func (c *Client) endpoints(n image.Name) []endpoint {
	var out []endpoint
	h := c.o.Hosts[n.Host]
	for _, m := range h.Mirrors {
		m = strings.TrimPrefix(strings.TrimPrefix(m, "http://"), "https://")
		host, prefix, _ := strings.Cut(strings.TrimSuffix(m, "/"), "/")
		repo := n.Repo
		if prefix != "" {
			repo = prefix + "/" + repo
		}
		out = append(out, endpoint{apiHost(host), repo})
	}
	if !h.Only || len(out) == 0 {
		out = append(out, c.origin(n))
	}
	return out
}

// origin is where n itself is.
func (c *Client) origin(n image.Name) endpoint { return endpoint{apiHost(n.Host), n.Repo} }

// client gives an HTTP client that may do what scopes say at e. The handshake
// with a registry happens once for the same scopes.
func (c *Client) client(ctx context.Context, e endpoint, actions string, more ...endpoint) (*http.Client, error) {
	c.mu.Lock()
	c.asked[e.host] = true
	c.mu.Unlock()
	key := e.String() + " " + actions
	for _, m := range more {
		key += " " + m.repo
	}
	rt, err := c.authed.do(ctx, &c.jobs, key, func(ctx context.Context) (http.RoundTripper, error) {
		var opts []name.Option
		if c.plainAllowed(e.host) {
			opts = append(opts, name.Insecure)
		}
		repo, err := name.NewRepository(e.String(), opts...)
		if err != nil {
			return nil, err
		}
		auth, err := authn.Resolve(ctx, c.o.Keychain, repo)
		if err != nil {
			return nil, &authError{err}
		}
		scopes := []string{"repository:" + e.repo + ":" + actions}
		for _, m := range more {
			scopes = append(scopes, "repository:"+m.repo+":pull")
		}
		return transport.NewWithContext(ctx, repo.Registry, auth, c.plain, scopes)
	})
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: rt}, nil
}

// authError is a keychain that does not work.
type authError struct{ err error }

func (e *authError) Error() string { return "find credentials: " + e.err.Error() }
func (e *authError) Unwrap() error { return e.err }

// nobody is a keychain without keys.
type nobody struct{}

func (nobody) Resolve(authn.Resource) (authn.Authenticator, error) { return authn.Anonymous, nil }
