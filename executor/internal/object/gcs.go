package object

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
)

// readScope is what a token must allow.
const readScope = "https://www.googleapis.com/auth/devstorage.read_only"

// openGCS reads an object by the JSON interface of Google Cloud Storage
// (Objects: get with alt=media). Without credentials it asks as anybody, which
// public buckets allow.
func openGCS(ctx context.Context, a address, o Options) (io.ReadCloser, error) {
	base, client, as := "https://storage.googleapis.com", o.Client, "nobody: no default credentials were found"
	if client == nil {
		client = http.DefaultClient
	}
	ctx = context.WithValue(ctx, oauth2.HTTPClient, client)
	if emulator := o.Getenv("STORAGE_EMULATOR_HOST"); emulator != "" {
		base = strings.TrimSuffix(emulator, "/")
		if !strings.Contains(base, "://") {
			base = "http://" + base
		}
		as = "nobody: STORAGE_EMULATOR_HOST is set"
	} else if creds, err := google.FindDefaultCredentials(ctx, readScope); err == nil {
		client = oauth2.NewClient(ctx, creds.TokenSource)
		as = "the default credentials"
	} else if file := o.Getenv("GOOGLE_APPLICATION_CREDENTIALS"); file != "" {
		return nil, fmt.Errorf("read the credentials that GOOGLE_APPLICATION_CREDENTIALS names: %w", err)
	}
	at := "gs://" + a.bucket + "/" + a.name
	u := fmt.Sprintf("%s/storage/v1/b/%s/o/%s?alt=media", base, url.PathEscape(a.bucket), url.PathEscape(a.name))
	resp, err := retried(ctx, client, u)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", at, err)
	}
	if resp.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 512)) // only to show it
		resp.Body.Close()
		return nil, refused(at, resp.StatusCode, firstLine(said), "asked as "+as+"; set GOOGLE_APPLICATION_CREDENTIALS to a key that may read the bucket")
	}
	return resp.Body, nil
}

// retried gets u, again after answers that pass by themselves.
func retried(ctx context.Context, client *http.Client, u string) (*http.Response, error) {
	wait := time.Second
	for try := 0; ; try++ {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("User-Agent", "kaniko-build")
		req.Header.Set("Accept-Encoding", "identity") // an archive is to come as it was put
		resp, err := client.Do(req)
		again := err == nil && (resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500)
		if !again || try == 3 {
			return resp, err
		}
		resp.Body.Close()
		select {
		case <-time.After(wait):
			wait *= 2
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return strings.ToValidUTF8(line, "?")
}
