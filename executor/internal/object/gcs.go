package object

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"

	"kaniko-build/executor/internal/retry"
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
	g := gcsObject{client: retry.Client(client), at: at,
		url:  fmt.Sprintf("%s/storage/v1/b/%s/o/%s?alt=media", base, url.PathEscape(a.bucket), url.PathEscape(a.name)),
		hint: "asked as " + as + "; set GOOGLE_APPLICATION_CREDENTIALS to a key that may read the bucket"}
	body, err := g.open(ctx, 0)
	if err != nil {
		return nil, err
	}
	return retry.NewReader(ctx, body, g.open), nil
}

// gcsObject is an object that is read, perhaps in several parts.
type gcsObject struct {
	client        *http.Client
	at, url, hint string
	generation    string // of the content that the first answer was of
}

// open answers with the content from an offset on.
func (g *gcsObject) open(ctx context.Context, offset int64) (io.ReadCloser, error) {
	u := g.url
	if g.generation != "" {
		u += "&generation=" + url.QueryEscape(g.generation)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", g.at, err)
	}
	req.Header.Set("User-Agent", "kaniko-build")
	req.Header.Set("Accept-Encoding", "identity") // an archive is to come as it was put
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := g.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", g.at, err)
	}
	switch {
	case resp.StatusCode == http.StatusOK && offset == 0:
		g.generation = resp.Header.Get("X-Goog-Generation")
		return resp.Body, nil
	case resp.StatusCode == http.StatusPartialContent && g.generation != "":
		return resp.Body, nil
	}
	said, _ := io.ReadAll(io.LimitReader(resp.Body, 512)) // only to show it
	resp.Body.Close()
	if offset > 0 {
		return nil, fmt.Errorf("read %s: the server does not go on where it was cut", g.at)
	}
	return nil, refused(g.at, resp.StatusCode, firstLine(said), g.hint)
}

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return strings.ToValidUTF8(line, "?")
}
