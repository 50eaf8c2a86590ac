package registrytest

import (
	"crypto/ecdsa"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"kaniko-build/test/certificate"
)

// tokenService is the audience of the tokens.
const tokenService = "registrytest"

// tokens is the server that gives tokens to a registry's users: User may pull
// and push, everybody else may pull below public/. It is an implementation of
// the distribution project's token authentication.
type tokens struct {
	key    *ecdsa.PrivateKey
	cert   []byte // PEM, of key; it signs itself
	server *httptest.Server
	asked  atomic.Int64
}

func newTokens(secure bool) (*tokens, error) {
	cert, key, err := certificate.New()
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	t := &tokens{key: pair.PrivateKey.(*ecdsa.PrivateKey), cert: cert}
	t.server = httptest.NewUnstartedServer(t)
	if secure {
		t.server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
		t.server.StartTLS()
	} else {
		t.server.Start()
	}
	return t, nil
}

// url has the name of loopback: addresses of private networks are refused as
// token servers.
func (t *tokens) url() string { return strings.Replace(t.server.URL, "127.0.0.1", "localhost", 1) }

// config is the registry's, with its file of trusted certificates.
func (t *tokens) config(file string) (string, error) {
	if err := os.WriteFile(file, t.cert, 0o600); err != nil {
		return "", err
	}
	return fmt.Sprintf("auth:\n  token: {realm: %q, service: %q, issuer: test, rootcertbundle: %q}\n", t.url()+"/token", tokenService, file), nil
}

// access is one scope of a token.
type access struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

// ServeHTTP answers requests for tokens.
func (t *tokens) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, password, given := r.BasicAuth()
	if given && (user != User || password != Password) {
		http.Error(w, "who are you", http.StatusUnauthorized)
		return
	}
	granted := []access{}
	for _, scope := range r.URL.Query()["scope"] {
		for one := range strings.FieldsSeq(scope) {
			kind, rest, _ := strings.Cut(one, ":")
			i := strings.LastIndexByte(rest, ':')
			if i < 0 {
				continue
			}
			a := access{kind, rest[:i], strings.Split(rest[i+1:], ",")}
			if !given {
				a.Actions = slices.DeleteFunc(a.Actions, func(s string) bool { return s != "pull" || !strings.HasPrefix(a.Name, "public/") })
			}
			granted = append(granted, a)
		}
	}
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": "test", "sub": user, "aud": tokenService, "jti": strconv.FormatInt(t.asked.Add(1), 10),
		"exp": time.Now().Add(5 * time.Minute).Unix(), "nbf": time.Now().Add(-time.Minute).Unix(), "iat": time.Now().Unix(), "access": granted,
	})
	block, _ := pem.Decode(t.cert)
	token.Header["x5c"] = []string{base64.StdEncoding.EncodeToString(block.Bytes)}
	signed, err := token.SignedString(t.key)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"token": signed, "expires_in": 300})
}
