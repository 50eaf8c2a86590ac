package credential

import (
	"context"
	"fmt"
	"strings"
	"time"

	gcr "github.com/google/go-containerregistry/pkg/v1/google"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
)

// cloudScope is what a token for Google's registries must allow.
const cloudScope = "https://www.googleapis.com/auth/cloud-platform"

// google asks as the default credentials (GOOGLE_APPLICATION_CREDENTIALS, those
// of gcloud's user, the machine's service account), else as gcloud.
func (o Options) google(ctx context.Context, host string) (*login, error) {
	if !isGoogle(host) {
		return nil, nil
	}
	ctx = context.WithValue(ctx, oauth2.HTTPClient, o.client())
	creds, err := google.FindDefaultCredentials(ctx, cloudScope)
	if err == nil {
		t, err := creds.TokenSource.Token()
		if err != nil && creds.JSON == nil { // the metadata service, of a machine that may have no account
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("ask for a token of Google's default credentials: %w", err)
		}
		l := named("_token", t.AccessToken)
		l.until = early(t.Expiry)
		return l, nil
	}
	if o.Getenv("GOOGLE_APPLICATION_CREDENTIALS") != "" {
		return nil, fmt.Errorf("read what GOOGLE_APPLICATION_CREDENTIALS names: %w", err)
	}
	if o.away() {
		return nil, nil // gcloud, if there is one now, is an image's
	}
	a, err := gcr.NewGcloudAuthenticator(ctx)
	if err != nil {
		return nil, nil // gcloud is not there, or knows nobody
	}
	c, err := a.Authorization()
	if err != nil || c.Password == "" {
		return nil, nil
	}
	return &login{AuthConfig: *c, until: early(time.Time{})}, nil
}

func isGoogle(host string) bool {
	if host == "gcr.io" {
		return true
	}
	for _, domain := range []string{".gcr.io", ".pkg.dev", ".google.com"} {
		if strings.HasSuffix(host, domain) {
			return true
		}
	}
	return false
}

// early is the time to ask for a new token; one of unknown life is good for ten
// minutes.
func early(expiry time.Time) time.Time {
	if expiry.IsZero() {
		return time.Now().Add(10 * time.Minute)
	}
	return expiry.Add(-5 * time.Minute)
}
