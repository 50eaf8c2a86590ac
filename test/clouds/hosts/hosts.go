// Package hosts stands for the servers of clouds, with their own names: tokens, buckets
// and images.
//
//	program ── HTTPS_PROXY: tunnel ── every name ──> Hosts (one certificate) ──> registry
//	                                                     └── fake-gcs-server
//
// They believe who shows what they gave him, and check no signature.
package hosts

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kaniko-build/test/rig"
)

// The names.
const (
	GoogleTokens  = "oauth2.googleapis.com"
	GoogleStorage = "storage.googleapis.com"
	GoogleImages  = "gcr.io"
	AwsTokens     = "sts.us-east-1.amazonaws.com"
	AwsImages     = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
	AwsImagesAPI  = "api.ecr.us-east-1.amazonaws.com"
	AzureTokens   = "login.microsoftonline.com"
	AzureImages   = "shop.azurecr.io"
	OwnImages     = "registry.example.com" // of nobody's cloud
)

// Who may use OwnImages.
const (
	OwnUser     = "ci"
	OwnPassword = "of-registry"
)

// Hosts are the servers. Each gives what it has to who shows what its cloud gave him.
type Hosts struct {
	Storage string // address of the emulator of Google's buckets; set it before it is asked
	Proxy   string // for HTTPS_PROXY
	CA      string // file with the certificate to trust

	images http.Handler
	t      testing.TB

	mu    sync.Mutex
	asked []string
}

// Start starts them for a test; images is the address of the registry that all of theirs
// are.
func Start(t testing.TB, images string) *Hosts {
	t.Helper()
	ca := NewAuthority(t, GoogleTokens, GoogleStorage, GoogleImages, AwsTokens, AwsImages, AwsImagesAPI, AzureTokens, AzureImages, OwnImages)
	pair, err := tls.LoadX509KeyPair(ca.Cert, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	c := &Hosts{t: t, images: forward(t, images), CA: ca.Cert}
	s := httptest.NewUnstartedServer(c)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	s.StartTLS()
	t.Cleanup(s.Close)
	c.Proxy = StartTunnel(t, s.Listener.Addr().String())
	return c
}

// Asked are the hosts and paths of all requests so far.
func (c *Hosts) Asked() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.asked)
}

// StartStorage starts the emulator of Google's buckets, with files by bucket and name.
func (c *Hosts) StartStorage(t testing.TB, files map[string]string) {
	t.Helper()
	data := rig.Space(t, nil)
	rig.Write(t, data, files)
	c.Storage = StartEmulator(t, nil, Emulator(t, "fake-gcs-server"), "-backend", "memory", "-data", data, "-scheme", "http", "-host", "127.0.0.1", "-port", "%s", "-public-host", GoogleStorage)
}

func (c *Hosts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
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
	case GoogleTokens:
		answer(strings.Count(r.FormValue("assertion"), ".") == 2, `{"access_token":"of-google","token_type":"Bearer","expires_in":3600}`)
	case GoogleStorage:
		if r.Header.Get("Authorization") != "Bearer of-google" {
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		forward(c.t, c.Storage).ServeHTTP(w, r)
	case GoogleImages:
		basic("_token", "of-google")
	case OwnImages:
		basic(OwnUser, OwnPassword)
	case AwsTokens:
		if r.FormValue("Action") != "AssumeRoleWithWebIdentity" || r.FormValue("WebIdentityToken") != "of the cluster" || r.FormValue("RoleArn") != "arn:aws:iam::123456789012:role/builder" {
			http.Error(w, "who are you", http.StatusForbidden)
			return
		}
		w.Header().Set("Content-Type", "text/xml")
		fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult><Credentials>`+
			`<AccessKeyId>S3RVER</AccessKeyId><SecretAccessKey>S3RVER</SecretAccessKey><SessionToken>session</SessionToken><Expiration>%s</Expiration>`+
			`</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	case AwsImagesAPI:
		answer(strings.Contains(r.Header.Get("Authorization"), "Credential=S3RVER/") && r.Header.Get("X-Amz-Security-Token") == "session",
			fmt.Sprintf(`{"authorizationData":[{"authorizationToken":%q,"expiresAt":%d}]}`, base64.StdEncoding.EncodeToString([]byte("AWS:of-ecr")), time.Now().Add(12*time.Hour).Unix()))
	case AwsImages:
		basic("AWS", "of-ecr")
	case AzureTokens:
		switch {
		case strings.HasSuffix(r.URL.Path, "/discovery/instance"):
			answer(true, `{"tenant_discovery_endpoint":"https://login.microsoftonline.com/tenant/v2.0/.well-known/openid-configuration","metadata":[]}`)
		case strings.HasSuffix(r.URL.Path, "/openid-configuration"):
			answer(true, `{"token_endpoint":"https://login.microsoftonline.com/tenant/oauth2/v2.0/token","authorization_endpoint":"https://login.microsoftonline.com/tenant/oauth2/v2.0/authorize","issuer":"https://login.microsoftonline.com/tenant/v2.0"}`)
		default:
			answer(r.FormValue("client_secret") == "s3cret", `{"access_token":"of-azure","token_type":"Bearer","expires_in":3600,"ext_expires_in":3600}`)
		}
	case AzureImages:
		switch r.URL.Path {
		case "/oauth2/exchange":
			answer(r.FormValue("access_token") == "of-azure", `{"refresh_token":"of-acr"}`)
		case "/oauth2/token":
			answer(r.FormValue("refresh_token") == "of-acr", `{"access_token":"for-one-repository"}`)
		default:
			if r.Header.Get("Authorization") != "Bearer for-one-repository" {
				w.Header().Set("WWW-Authenticate", `Bearer realm="https://`+AzureImages+`/oauth2/token",service="`+AzureImages+`"`)
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
func forward(t testing.TB, addr string) http.Handler {
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
