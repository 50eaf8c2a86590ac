package object

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"kaniko-build/schema/diag"
)

// DefaultName is the object of an address that names only a bucket.
const DefaultName = "context.tar.gz"

// Options say what to work with.
type Options struct {
	// Getenv answers for STORAGE_EMULATOR_HOST, S3_ENDPOINT,
	// S3_FORCE_PATH_STYLE and AZURE_STORAGE_ACCESS_KEY. The clouds' libraries
	// read their own variables by themselves. nil knows none.
	Getenv func(string) string
	Client *http.Client // nil is the usual one of each library
}

// address is an object's place, taken apart.
type address struct {
	scheme string // "gs", "s3" or "azure"
	host   string // of azure: the account's
	bucket string
	name   string
}

// azureHosts are the domains of blob storage in Azure's clouds.
var azureHosts = []string{
	".blob.core.windows.net", ".blob.core.chinacloudapi.cn", ".blob.core.cloudapi.de", ".blob.core.usgovcloudapi.net",
}

// Is tells whether s is the address of an object.
func Is(s string) bool {
	_, ok, _ := parse(s)
	return ok
}

// parse takes an address apart; ok is false when it is none.
func parse(s string) (a address, ok bool, err error) {
	if scheme, rest, found := strings.Cut(s, "://"); found && (scheme == "gs" || scheme == "s3") {
		a.scheme = scheme
		a.bucket, a.name, _ = strings.Cut(rest, "/")
		if a.bucket == "" {
			return a, true, &diag.Problem{What: fmt.Sprintf("%s names no bucket", s), Hint: "write " + scheme + "://BUCKET/OBJECT"}
		}
	} else {
		u, bad := url.Parse(s)
		if bad != nil || u.Scheme != "https" || !isAzure(u.Hostname()) {
			return a, false, nil
		}
		a.scheme, a.host = "azure", u.Host
		a.bucket, a.name, _ = strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
		if a.bucket == "" || a.name == "" {
			return a, true, &diag.Problem{What: fmt.Sprintf("%s names no blob", s), Hint: "write https://" + u.Host + "/CONTAINER/BLOB"}
		}
	}
	if a.name == "" {
		a.name = DefaultName
	}
	return a, true, nil
}

func isAzure(host string) bool {
	for _, h := range azureHosts {
		if account, ok := strings.CutSuffix(host, h); ok && account != "" && !strings.Contains(account, ".") {
			return true
		}
	}
	return false
}

// Open opens the object at an address. The caller closes it.
func Open(ctx context.Context, at string, o Options) (io.ReadCloser, error) {
	if o.Getenv == nil {
		o.Getenv = func(string) string { return "" }
	}
	a, ok, err := parse(at)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, &diag.Problem{What: fmt.Sprintf("%s is not the address of an object", at), Hint: "write gs://BUCKET/OBJECT, s3://BUCKET/KEY or https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB"}
	}
	switch a.scheme {
	case "gs":
		return openGCS(ctx, a, o)
	case "s3":
		return openS3(ctx, a, o)
	default:
		return openAzure(ctx, a, o)
	}
}

// refused is the problem of an object that a cloud does not give.
func refused(at string, status int, said, hint string) error {
	what := fmt.Sprintf("read %s: the server answers %d %s", at, status, http.StatusText(status))
	if said != "" {
		what += ": " + said
	}
	if status == http.StatusNotFound {
		hint = "check the names of bucket and object"
	}
	return &diag.Problem{What: what, Hint: hint}
}
