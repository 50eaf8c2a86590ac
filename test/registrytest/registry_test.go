package registrytest

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"strings"
	"testing"
)

func TestRegistryAnswersAndStops(t *testing.T) {
	for name, o := range map[string]Options{"open": {}, "auth": {Auth: true}, "tls": {TLS: true}} {
		t.Run(name, func(t *testing.T) {
			r := Start(t, o)
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM(r.CA)
			c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
			get := func(password string) int {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.URL()+"/v2/", nil)
				if err != nil {
					t.Fatal(err)
				}
				if password != "" {
					req.SetBasicAuth(User, password)
				}
				resp, err := c.Do(req)
				if err != nil {
					return 0
				}
				resp.Body.Close()
				return resp.StatusCode
			}
			want := 200
			if o.Auth {
				want = 401
			}
			if got := get(""); got != want {
				t.Errorf("without password: %d, want %d", got, want)
			}
			if got := get(Password); got != 200 {
				t.Errorf("with password: %d", got)
			}
			if !strings.Contains(r.Log(), "listening on") {
				t.Errorf("log: %s", r.Log())
			}
			if err := r.Stop(); err != nil {
				t.Fatal(err)
			}
			if got := get(Password); got != 0 {
				t.Errorf("after stop: %d", got)
			}
		})
	}
}
