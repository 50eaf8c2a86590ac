package object_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kaniko-build/executor/internal/object"
	"kaniko-build/schema/diag"
	"kaniko-build/test/serviceaccount"
)

func TestIs(t *testing.T) {
	for at, want := range map[string]bool{
		"gs://bucket":                                   true,
		"gs://bucket/a/b.tar.gz":                        true,
		"s3://bucket/a":                                 true,
		"gs://":                                         true, // Open says what is wrong with it
		"https://example.com/a/b":                       false,
		"https://me.blob.core.windows.net/c/b":          true,
		"https://me.blob.core.chinacloudapi.cn/c/b":     true,
		"https://me.blob.core.usgovcloudapi.net/c/b":    true,
		"https://me.blob.core.cloudapi.de/c/b":          true,
		"http://me.blob.core.windows.net/c/b":           false,
		"https://me.blob.core.windows.net.evil.com/c/b": false,
		"https://blob.core.windows.net/c/b":             false,
		"https://evil.com/me.blob.core.windows.net/b":   false,
		"tar://x":                  false,
		"dir":                      false,
		"git://example.com/gs://x": false,
	} {
		if got := object.Is(at); got != want {
			t.Errorf("Is(%q) = %v, want %v", at, got, want)
		}
	}
}

func TestOpenSaysWhatAnAddressLacks(t *testing.T) {
	for at, want := range map[string]string{
		"gs:///x": "names no bucket",
		"s3://":   "names no bucket",
		"https://me.blob.core.windows.net/container": "names no blob",
		"https://me.blob.core.windows.net/c/b":       "AZURE_STORAGE_ACCESS_KEY is not set",
		"dir":                                        "is not the address of an object",
	} {
		_, err := object.Open(t.Context(), at, object.Options{})
		var p *diag.Problem
		if !errors.As(err, &p) || !strings.Contains(p.What, want) || p.Hint == "" {
			t.Errorf("Open(%q): %v, want a problem with %q and a hint", at, err, want)
		}
	}
}

// cloud answers for Google's servers, whatever host is asked.
type cloud struct{ at *url.URL }

func (c cloud) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Host", r.URL.Host)
	r.URL.Scheme, r.URL.Host = c.at.Scheme, c.at.Host
	return http.DefaultTransport.RoundTrip(r)
}

// TestGoogleCredentials gives a service account's key: it signs for a token,
// and the token reads the object.
func TestGoogleCredentials(t *testing.T) {
	fails := 1
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token" && r.Header.Get("X-Host") == "oauth2.example":
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"access_token":"t0ken","token_type":"Bearer","expires_in":3600}`)
		case r.Header.Get("X-Host") != "storage.googleapis.com":
			http.NotFound(w, r)
		case r.Header.Get("Authorization") != "Bearer t0ken":
			http.Error(w, "who are you", http.StatusUnauthorized)
		case fails > 0:
			fails--
			http.Error(w, "again", http.StatusServiceUnavailable)
		case r.URL.EscapedPath() == "/storage/v1/b/shop/o/a%2Fb%20c" && r.URL.Query().Get("alt") == "media":
			io.WriteString(w, "bytes")
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(s.Close)
	at, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "kaniko-secret.json")
	serviceaccount.Write(t, file, "https://oauth2.example/token")
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", file)
	o := object.Options{Getenv: os.Getenv, Client: &http.Client{Transport: cloud{at}}}
	r, err := object.Open(t.Context(), "gs://shop/a/b c", o)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); err != nil || string(b) != "bytes" {
		t.Errorf("got %q, %v", b, err)
	}
	if _, err := object.Open(t.Context(), "gs://shop/none", o); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("an object that is not there: %v", err)
	}

	if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := object.Open(t.Context(), "gs://shop/a", o); err == nil || !strings.Contains(err.Error(), "GOOGLE_APPLICATION_CREDENTIALS") {
		t.Errorf("a file that holds no credentials: %v", err)
	}
}

func TestOpenStopsWithItsContext(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "again", http.StatusServiceUnavailable)
	}))
	t.Cleanup(s.Close)
	ctx, stop := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	getenv := func(k string) string {
		if k == "STORAGE_EMULATOR_HOST" {
			return s.URL
		}
		return ""
	}
	stop(enough)
	if _, err := object.Open(ctx, "gs://shop/x", object.Options{Getenv: getenv}); !errors.Is(err, enough) && !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
