package object_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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

// TestReadsOnWhereItWasCut has servers that break off in the middle, and then change the
// object: what was begun is read to its end, or not at all.
func TestReadsOnWhereItWasCut(t *testing.T) {
	const text = "the whole object"
	for _, c := range []struct {
		name, at, header, version string
		same                      func(*http.Request) bool // asks for the version that was begun
	}{
		{"gs", "gs://shop/x", "X-Goog-Generation", "7", func(r *http.Request) bool { return r.URL.Query().Get("generation") == "7" }},
		{"s3", "s3://shop/x", "ETag", `"seven"`, func(r *http.Request) bool { return r.Header.Get("If-Match") == `"seven"` }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var asked []string
			moved := false
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				from := r.Header.Get("Range")
				asked = append(asked, from)
				w.Header().Set(c.header, c.version)
				switch {
				case from == "":
					w.Header().Set("Content-Length", strconv.Itoa(len(text)))
					io.WriteString(w, text[:4])
				case moved || !c.same(r):
					http.Error(w, "it is another one", http.StatusPreconditionFailed)
				case from == "bytes=4-":
					w.Header().Set("Content-Range", fmt.Sprintf("bytes 4-%d/%d", len(text)-1, len(text)))
					w.Header().Set("Content-Length", strconv.Itoa(len(text)-4))
					w.WriteHeader(http.StatusPartialContent)
					io.WriteString(w, text[4:9])
				default:
					w.Header().Set("Content-Range", fmt.Sprintf("bytes 9-%d/%d", len(text)-1, len(text)))
					w.WriteHeader(http.StatusPartialContent)
					io.WriteString(w, text[9:])
				}
			}))
			t.Cleanup(s.Close)
			t.Setenv("AWS_ACCESS_KEY_ID", "a")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "b")
			env := map[string]string{"STORAGE_EMULATOR_HOST": s.URL, "S3_ENDPOINT": s.URL, "S3_FORCE_PATH_STYLE": "true"}
			read := func() (string, error) {
				asked = nil
				r, err := object.Open(t.Context(), c.at, object.Options{Getenv: func(k string) string { return env[k] }})
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				b, err := io.ReadAll(r)
				return string(b), err
			}
			if got, err := read(); got != text || err != nil || !slices.Equal(asked, []string{"", "bytes=4-", "bytes=9-"}) {
				t.Errorf("got %q, %v, by asking for %q", got, err, asked)
			}
			moved = true
			if got, err := read(); err == nil {
				t.Errorf("of an object that is another one now: %q", got)
			}
		})
	}
}
