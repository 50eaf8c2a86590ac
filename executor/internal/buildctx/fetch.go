package buildctx

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/retry"
	"kaniko-build/executor/internal/tree"
	"kaniko-build/schema/diag"
)

// Fetcher gets sources from the network and keeps them in Dir. It may be used
// from many goroutines, and Dir from many processes.
type Fetcher struct {
	Dir     string
	Client  *http.Client // nil is http.DefaultClient
	MaxSize int64        // of one file, in bytes; 0 is DefaultMaxSize

	// Use, if set, marks a file or directory of Dir that was found as used, and
	// tells whether it is still there: what is not marked may be pruned.
	Use func(path string) bool

	// Auth gives the Authorization header for a URL or git remote, "" for
	// none. May be nil.
	Auth func(remote string) string

	// NoCommand leaves the git command alone, as where programs are those of an
	// image that is being built.
	NoCommand bool
	// For git: the variables of the environment that it may see (PATH, those
	// of proxies), the socket of an ssh agent and a known_hosts file.
	Env        []string
	SSHAgent   string
	KnownHosts string
	// GitAnyCertificate lets any server with any certificate answer git.
	GitAnyCertificate bool
}

// DefaultMaxSize bounds a file that is fetched, in bytes.
const DefaultMaxSize = 64 << 30

// Fetched is a file from the web that lies in the Fetcher's Dir.
type Fetched struct {
	Name    string // what the file is called
	Digest  string // "sha256:…" of its content
	Size    int64
	ModTime time.Time // Last-Modified of the answer, else 1970

	file string
}

// StatusError is an answer that is no file.
type StatusError struct {
	Code    int
	Host    string // that was asked, without port
	problem *diag.Problem
}

func (e *StatusError) Error() string { return e.problem.What }
func (e *StatusError) Unwrap() error { return e.problem }

// answer is what is remembered of a URL.
type answer struct {
	URL         string    `json:"url"`
	ETag        string    `json:"etag,omitempty"`
	Modified    time.Time `json:"modified"`
	Disposition string    `json:"disposition,omitempty"`
	Digest      string    `json:"digest"`
	Size        int64     `json:"size"`
}

// Get fetches a URL, or only asks whether it has changed since the last time.
// Only an entity tag tells that: a server that gives none is asked for the
// whole file, as a date can stay the same while the content does not. With
// checksum ("sha256:…", also sha384 and sha512) the content must have it, and a
// file that was fetched from there before is taken without asking. name is
// that of the file; "" takes it from the answer or the URL.
func (f *Fetcher) Get(ctx context.Context, rawURL, name, checksum string) (Fetched, error) {
	got, err := f.get(ctx, rawURL, name, checksum)
	for try := 1; err != nil && errors.As(err, new(cutError)) && try < retry.Attempts; try++ {
		if err = retry.Pause(ctx, try, 0); err == nil {
			got, err = f.get(ctx, rawURL, name, checksum)
		}
	}
	if err != nil {
		var p *diag.Problem
		if errors.As(err, &p) {
			return got, err
		}
		return got, fmt.Errorf("fetch %s: %w", redact(rawURL), err)
	}
	return got, nil
}

// cutError is a file that came in part.
type cutError struct{ error }

func (e cutError) Unwrap() error { return e.error }

func (f *Fetcher) get(ctx context.Context, rawURL, name, checksum string) (Fetched, error) {
	check, err := newCheck(checksum)
	if err != nil {
		return Fetched{}, err
	}
	id := sha256.Sum256([]byte(rawURL))
	meta := filepath.Join(f.Dir, "http", hex.EncodeToString(id[:])+".json")
	old, known := f.remembered(meta, rawURL)
	if known && checksum != "" && old.Digest == checksum {
		return f.fetched(old, rawURL, name), nil
	}
	req, err := f.request(ctx, http.MethodGet, rawURL)
	if err != nil {
		return Fetched{}, err
	}
	if known && old.ETag != "" && check == nil {
		if f.unchanged(ctx, rawURL, old) {
			return f.fetched(old, rawURL, name), nil
		}
		req.Header.Set("If-None-Match", old.ETag)
	}
	resp, err := f.client().Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // it has the URL with its password
		}
		return Fetched{}, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotModified && req.Header.Get("If-None-Match") != "":
		return f.fetched(old, rawURL, name), nil
	case resp.StatusCode < 200 || resp.StatusCode >= 400 || resp.StatusCode == http.StatusNotModified:
		return Fetched{}, &StatusError{Code: resp.StatusCode, Host: req.URL.Hostname(), problem: &diag.Problem{
			What: fmt.Sprintf("fetch %s: invalid response status %d", redact(rawURL), resp.StatusCode), Hint: "open the address in a browser to see what it says"}}
	}
	a, err := f.keep(resp, rawURL, check, checksum)
	if err != nil {
		return Fetched{}, err
	}
	b, err := json.Marshal(a)
	if err != nil {
		return Fetched{}, err
	}
	return f.fetched(a, rawURL, name), replaceFile(meta, b)
}

// keep writes the body of an answer to where its digest says.
func (f *Fetcher) keep(resp *http.Response, rawURL string, check hash.Hash, checksum string) (answer, error) {
	limit := f.MaxSize
	if limit == 0 {
		limit = DefaultMaxSize
	}
	tooLarge := &diag.Problem{What: fmt.Sprintf("fetch %s: the file is larger than %d bytes", redact(rawURL), limit)}
	if resp.ContentLength > limit {
		return answer{}, tooLarge
	}
	dir := filepath.Join(f.Dir, "http")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return answer{}, err
	}
	tmp, err := os.CreateTemp(dir, ".tmp-")
	if err != nil {
		return answer{}, err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	sum := sha256.New()
	w := io.MultiWriter(tmp, sum)
	if check != nil {
		w = io.MultiWriter(w, check)
	}
	n, err := io.Copy(w, io.LimitReader(resp.Body, limit+1))
	if err != nil && retry.Passing(err) {
		return answer{}, cutError{err}
	}
	if err != nil {
		return answer{}, err
	}
	if n > limit {
		return answer{}, tooLarge
	}
	digest := "sha256:" + hex.EncodeToString(sum.Sum(nil))
	if check != nil {
		algorithm, _, _ := strings.Cut(checksum, ":")
		if got := algorithm + ":" + hex.EncodeToString(check.Sum(nil)); got != checksum {
			return answer{}, &diag.Problem{What: fmt.Sprintf("digest mismatch for %s: %s (expected: %s)", redact(rawURL), got, checksum), Hint: "the file has changed, or the checksum is that of another one"}
		}
	}
	if err := errors.Join(tmp.Chmod(0o644), tmp.Close()); err != nil {
		return answer{}, err
	}
	if err := os.Rename(tmp.Name(), f.body(digest)); err != nil {
		return answer{}, err
	}
	a := answer{URL: rawURL, ETag: strings.TrimPrefix(resp.Header.Get("ETag"), "W/"), Disposition: resp.Header.Get("Content-Disposition"), Digest: digest, Size: n, Modified: time.Unix(0, 0)}
	if t, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
		a.Modified = t
	}
	return a, nil
}

func (f *Fetcher) body(digest string) string {
	return filepath.Join(f.Dir, "http", strings.ReplaceAll(digest, ":", "-"))
}

// remembered reads what is known of a URL. What is damaged is not known.
func (f *Fetcher) remembered(meta, rawURL string) (answer, bool) {
	var a answer
	b, err := os.ReadFile(meta)
	if err != nil || json.Unmarshal(b, &a) != nil || a.URL != rawURL || a.Digest == "" {
		return a, false
	}
	st, err := os.Stat(f.body(a.Digest))
	return a, err == nil && st.Size() == a.Size && f.use(meta) && f.use(f.body(a.Digest))
}

func (f *Fetcher) use(path string) bool { return f.Use == nil || f.Use(path) }

// unchanged asks for the entity tag alone: some servers answer If-None-Match
// wrongly but compare well.
func (f *Fetcher) unchanged(ctx context.Context, rawURL string, old answer) bool {
	req, err := f.request(ctx, http.MethodHead, rawURL)
	if err != nil {
		return false
	}
	req.Header.Set("If-None-Match", old.ETag)
	req.Header.Set("Accept-Encoding", "gzip") // as a GET has it; some tags differ by it
	resp, err := f.client().Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	tag := strings.TrimPrefix(resp.Header.Get("ETag"), "W/")
	switch resp.StatusCode {
	case http.StatusNotModified:
		return tag == "" || tag == old.ETag
	case http.StatusOK:
		return tag == old.ETag
	}
	return false
}

func (f *Fetcher) client() *http.Client {
	return retry.Client(cmp.Or(f.Client, http.DefaultClient))
}

func (f *Fetcher) request(ctx context.Context, method, rawURL string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, rawURL, nil)
	if err != nil {
		return nil, &diag.Problem{What: fmt.Sprintf("fetch %s: %v", redact(rawURL), errors.Unwrap(err))}
	}
	req.Header.Set("User-Agent", "kaniko-build")
	if f.Auth != nil {
		if a := f.Auth(rawURL); a != "" {
			req.Header.Set("Authorization", a)
		}
	}
	return req, nil
}

func (f *Fetcher) fetched(a answer, rawURL, name string) Fetched {
	if name == "" {
		name = answerName(a.Disposition, rawURL)
	} else {
		name = safeName(name)
	}
	return Fetched{Name: name, Digest: a.Digest, Size: a.Size, ModTime: a.Modified, file: f.body(a.Digest)}
}

// answerName is the name that an answer gives its file, or else the last
// element of the URL.
func answerName(disposition, rawURL string) string {
	if _, params, err := mime.ParseMediaType(disposition); err == nil {
		if n := params["filename"]; n != "" && !strings.HasSuffix(n, "/") {
			return safeName(n)
		}
	}
	if u, err := url.Parse(rawURL); err == nil {
		if base := path.Base(u.Path); base != "." && base != "/" {
			return safeName(base)
		}
	}
	return safeName("")
}

func safeName(s string) string {
	name := path.Base(strings.TrimSpace(s))
	if name == "" || name == "." || name == ".." || name == "/" || strings.ContainsFunc(name, unicode.IsControl) {
		return "download"
	}
	return name
}

var userInfo = regexp.MustCompile(`//[^/]*@`)

// redact takes the user out of a URL.
func redact(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return userInfo.ReplaceAllString(rawURL, "//xxxxx@")
	}
	if u.User == nil {
		return rawURL
	}
	if _, secret := u.User.Password(); secret {
		u.User = url.UserPassword("xxxxx", "xxxxx")
	} else {
		u.User = url.User("xxxxx")
	}
	return u.String()
}

// newCheck makes the hash that a checksum is of; nil for "".
func newCheck(checksum string) (hash.Hash, error) {
	if checksum == "" {
		return nil, nil
	}
	algorithm, sum, _ := strings.Cut(checksum, ":")
	var h hash.Hash
	switch algorithm {
	case "sha256":
		h = sha256.New()
	case "sha384":
		h = sha512.New384()
	case "sha512":
		h = sha512.New()
	default:
		return nil, &diag.Problem{What: fmt.Sprintf("checksum %q: unsupported digest algorithm", checksum), Hint: "write it as sha256:… with 64 hexadecimal digits"}
	}
	if b, err := hex.DecodeString(sum); err != nil || len(b) != h.Size() || strings.ToLower(sum) != sum {
		return nil, &diag.Problem{What: fmt.Sprintf("checksum %q: invalid checksum digest format", checksum), Hint: "write it as sha256:… with 64 hexadecimal digits"}
	}
	return h, nil
}

// Open opens the content.
func (f Fetched) Open() (*os.File, error) { return os.Open(f.file) }

// Tree shows the file as a tree has it: 0600, owned by 0:0, alone in its
// directory.
func (f Fetched) Tree() (tree.Tree, error) {
	if _, err := os.Stat(f.file); err != nil {
		return nil, err
	}
	e := tree.Entry{Name: f.Name, Mode: unix.S_IFREG | 0o600, Size: f.Size, ModTime: f.ModTime, Nlink: 1}
	return oneFile{file: f, entry: e, made: time.Now()}, nil
}

// oneFile is a tree with one file in it.
type oneFile struct {
	file  Fetched
	entry tree.Entry
	made  time.Time
}

func (o oneFile) Lstat(ctx context.Context, name string) (tree.Entry, error) {
	switch tree.Clean(name) {
	case "":
		return tree.Entry{Mode: unix.S_IFDIR | 0o755, ModTime: o.made, Nlink: 2}, nil
	case o.file.Name:
		return o.entry, nil
	}
	return tree.Entry{}, &os.PathError{Op: "lstat", Path: name, Err: fs.ErrNotExist}
}

func (o oneFile) ReadDir(ctx context.Context, name string) ([]tree.Entry, error) {
	switch e, err := o.Lstat(ctx, name); {
	case err != nil:
		return nil, err
	case !e.IsDir():
		return nil, &os.PathError{Op: "readdir", Path: name, Err: unix.ENOTDIR}
	}
	return []tree.Entry{o.entry}, nil
}

func (o oneFile) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	switch e, err := o.Lstat(ctx, name); {
	case err != nil:
		return nil, err
	case e.IsDir():
		return nil, &os.PathError{Op: "open", Path: name, Err: errors.New("not a regular file")}
	}
	return o.file.Open()
}

func (o oneFile) Xattrs(ctx context.Context, name string) (map[string][]byte, error) {
	_, err := o.Lstat(ctx, name)
	return nil, err
}
