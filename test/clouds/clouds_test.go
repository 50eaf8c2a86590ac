package clouds

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"kaniko-build/test/clouds/hosts"
	"kaniko-build/test/githttp"
	"kaniko-build/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// files are the context that every place holds.
var files = map[string]string{
	"Dockerfile": "FROM scratch\nCOPY app /app\nCOPY f /\n",
	"app/main":   "main\n",
	"app/data":   strings.Repeat("data ", 10_000),
	"f":          "f\n",
}

// machine is somebody who builds from a context that is elsewhere.
type machine struct {
	*rig.Account
	binary string
	want   string // the digest of the image
}

func newMachine(t *testing.T) machine {
	t.Helper()
	rig.NeedRoot(t)
	m := machine{Account: rig.NewAccount(t, rig.Superuser), binary: rig.Binary(t)}
	dir := rig.Space(t, nil)
	rig.Write(t, dir, files)
	m.want = m.digest(t, nil, "--context", dir)
	return m
}

// executor builds with kaniko's command line, in an empty store.
func (m machine) executor(t *testing.T, env []string, args ...string) (rig.Output, string) {
	t.Helper()
	space := rig.Space(t, nil)
	file := filepath.Join(space, "digest")
	argv := append([]string{m.binary, "executor", "--no-push", "--reproducible", "--digest-file", file}, args...)
	o := m.Run(t, rig.Call{Dir: space, Env: append([]string{"KANIKO_BUILD_STATE=" + filepath.Join(space, "state"), "HOME=" + space}, env...), Timeout: time.Minute}, argv...)
	b, _ := os.ReadFile(file)
	return o, string(b)
}

// digest is that of the image, which must be built.
func (m machine) digest(t *testing.T, env []string, args ...string) string {
	t.Helper()
	o, d := m.executor(t, env, args...)
	if o.Code != 0 || d == "" {
		t.Fatalf("executor %q ends with %d and digest %q\n%s", args, o.Code, d, o.Tail(20))
	}
	return d
}

// builds sees that a context gives the image, and that another place with
// nothing there is an error that names it and says want.
func (m machine) builds(t *testing.T, env []string, args, missing []string, want string) {
	t.Helper()
	if d := m.digest(t, env, args...); d != m.want {
		t.Errorf("executor %q gives %s, and %s from the directory", args, d, m.want)
	}
	o, d := m.executor(t, env, missing...)
	if o.Code == 0 || d != "" || !strings.Contains(o.Stderr, want) {
		t.Errorf("executor %q ends with %d, digest %q; want an error with %q\n%s", missing, o.Code, d, want, o.Tail(20))
	}
}

func TestGoogleBucket(t *testing.T) {
	m := newMachine(t)
	data := rig.Space(t, nil)
	b := string(rig.Archive(t, files))
	rig.Write(t, data, map[string]string{"shop/context.tar.gz": b, "shop/builds/7 of 9.tar.gz": b})
	addr := hosts.StartEmulator(t, nil, hosts.Emulator(t, "fake-gcs-server"), "-backend", "memory", "-data", data, "-scheme", "http", "-host", "127.0.0.1", "-port", "%s")
	env := []string{"STORAGE_EMULATOR_HOST=" + addr}
	missing := []string{"--context", "gs://shop/other.tar.gz"}
	m.builds(t, env, []string{"--bucket", "shop"}, missing, "gs://shop/other.tar.gz: the server answers 404 Not Found")
	m.builds(t, env, []string{"--context", "gs://shop"}, missing, "check the names of bucket and object")
	m.builds(t, env, []string{"--context", "gs://shop/builds/7 of 9.tar.gz"}, []string{"--bucket", "nobody"}, "gs://nobody/context.tar.gz: the server answers 404")
}

func TestS3Bucket(t *testing.T) {
	m := newMachine(t)
	addr := hosts.StartEmulator(t, nil, hosts.Emulator(t, "node_modules/.bin/s3rver"), "-d", rig.Space(t, nil), "-a", "127.0.0.1", "-p", "%s", "--configure-bucket", "shop")
	client := s3.New(s3.Options{
		BaseEndpoint: aws.String("http://" + addr), UsePathStyle: true, Region: "us-east-1",
		Credentials: credentials.NewStaticCredentialsProvider("S3RVER", "S3RVER", ""),
		// What the emulator does not know: checksums at the end of a body.
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
	})
	for _, key := range []string{"context.tar.gz", "builds/7.tar.gz"} {
		if _, err := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("shop"), Key: &key, Body: bytes.NewReader(rig.Archive(t, files))}); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"S3_ENDPOINT=http://" + addr, "S3_FORCE_PATH_STYLE=true", "AWS_SECRET_ACCESS_KEY=S3RVER", "AWS_ACCESS_KEY_ID=S3RVER"}
	m.builds(t, env, []string{"--context", "s3://shop/builds/7.tar.gz"}, []string{"--context", "s3://shop/none"}, "s3://shop/none: the server answers 404")
	m.builds(t, env, []string{"--context", "s3://shop"}, []string{"--context", "s3://nobody/x"}, "s3://nobody/x: the server answers 404")
	// The emulator checks who signs, and believes the signature.
	wrong := append(env[:3:3], "AWS_ACCESS_KEY_ID=nobody")
	if o, _ := m.executor(t, wrong, "--context", "s3://shop"); o.Code == 0 || !strings.Contains(o.Stderr, "403") || !strings.Contains(o.Stderr, "AWS_SECRET_ACCESS_KEY") {
		t.Errorf("a wrong key ends with %d\n%s", o.Code, o.Tail(20))
	}
}

func TestAzureBlob(t *testing.T) {
	m := newMachine(t)
	const host = "shop.blob.core.windows.net"
	key := base64.StdEncoding.EncodeToString([]byte("the key of an account"))
	ca := hosts.NewAuthority(t, host)
	addr := hosts.StartEmulator(t, []string{"AZURITE_ACCOUNTS=shop:" + key}, hosts.Emulator(t, "node_modules/.bin/azurite-blob"), "--blobHost", "127.0.0.1", "--blobPort", "%s",
		"--location", rig.Space(t, nil), "--disableTelemetry", "--silent", "--skipApiVersionCheck", "--cert", ca.Cert, "--key", ca.Key)
	proxy := hosts.StartTunnel(t, addr)
	at, err := url.Parse(proxy)
	if err != nil {
		t.Fatal(err)
	}
	cred, err := azblob.NewSharedKeyCredential("shop", key)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{Proxy: http.ProxyURL(at), TLSClientConfig: &tls.Config{RootCAs: ca.Pool(t)}}
	t.Cleanup(transport.CloseIdleConnections)
	opts := &azblob.ClientOptions{}
	opts.Transport = &http.Client{Transport: transport}
	client, err := azblob.NewClientWithSharedKeyCredential("https://"+host, cred, opts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CreateContainer(t.Context(), "builds", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := client.UploadBuffer(t.Context(), "builds", "app/7.tar.gz", rig.Archive(t, files), nil); err != nil {
		t.Fatal(err)
	}
	env := []string{"HTTPS_PROXY=" + proxy, "SSL_CERT_FILE=" + ca.Cert, "AZURE_STORAGE_ACCESS_KEY=" + key}
	blob := "https://" + host + "/builds/app/7.tar.gz"
	m.builds(t, env, []string{"--context", blob}, []string{"--context", blob + ".old"}, blob+".old: the server answers 404")
	m.builds(t, env, []string{"--context", blob}, []string{"--context", "https://" + host + "/builds"}, "names no blob")
	wrong := append(env[:2:2], "AZURE_STORAGE_ACCESS_KEY="+base64.StdEncoding.EncodeToString([]byte("another")))
	if o, _ := m.executor(t, wrong, "--context", blob); o.Code == 0 || !strings.Contains(o.Stderr, "403") || strings.Contains(o.All(), wrong[2]) {
		t.Errorf("a wrong key ends with %d\n%s", o.Code, o.Tail(20))
	}
	if o, _ := m.executor(t, env[:2], "--context", blob); o.Code == 0 || !strings.Contains(o.Stderr, "AZURE_STORAGE_ACCESS_KEY is not set") {
		t.Errorf("no key ends with %d\n%s", o.Code, o.Tail(20))
	}
}

func TestWebArchive(t *testing.T) {
	m := newMachine(t)
	ca := hosts.NewAuthority(t, "localhost")
	mux := http.NewServeMux()
	b := rig.Archive(t, files)
	mux.HandleFunc("/7.tar.gz", func(w http.ResponseWriter, r *http.Request) { w.Write(b) })
	s := httptest.NewUnstartedServer(mux)
	pair, err := tls.LoadX509KeyPair(ca.Cert, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	s.StartTLS()
	t.Cleanup(s.Close)
	m.builds(t, []string{"SSL_CERT_FILE=" + ca.Cert}, []string{"--context", s.URL + "/7.tar.gz"}, []string{"--context", s.URL + "/8.tar.gz"}, "404")
	if o, _ := m.executor(t, nil, "--context", s.URL+"/7.tar.gz"); o.Code == 0 || !strings.Contains(o.Stderr, "certificate") {
		t.Errorf("an unknown certificate ends with %d\n%s", o.Code, o.Tail(20))
	}
}

// TestGitRepository asks a server that wants a token.
func TestGitRepository(t *testing.T) {
	m := newMachine(t)
	top := rig.Space(t, nil)
	work := filepath.Join(top, "shop")
	tree := map[string]string{"README.md": "x"}
	for name, text := range files {
		tree["services/api/"+name] = text
	}
	rig.Write(t, work, tree)
	git := func(args ...string) string {
		cmd := exec.Command(rig.Need(t, "git", "git"), args...)
		cmd.Dir = work
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %q: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q", "-b", "main")
	git("add", ".")
	git("commit", "-q", "-m", "one")
	git("tag", "v1")
	first := git("rev-parse", "HEAD")
	rig.Write(t, work, map[string]string{"services/api/f": "changed\n"})
	git("commit", "-q", "-a", "-m", "two")

	backend, err := githttp.Backend(t.Context(), top)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "t0ken" || password != "" {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	repo := "git" + strings.TrimPrefix(s.URL, "http") + "/shop/.git"
	env := []string{"GIT_PULL_METHOD=http", "GIT_TOKEN=t0ken"}
	sub := []string{"--context-sub-path", "services/api", "--context"}
	for _, ref := range []string{"#refs/tags/v1", "#" + first, "#refs/heads/main#" + first, "#v1"} {
		m.builds(t, env, append(sub[:3:3], repo+ref), append(sub[:3:3], repo+"#refs/heads/none"), "does not contain ref refs/heads/none")
	}
	if d := m.digest(t, env, append(sub[:3:3], repo)...); d == m.want {
		t.Error("the default branch gives the image of the commit before")
	}
	o, _ := m.executor(t, env[:1], append(sub[:3:3], repo)...)
	if o.Code == 0 || !strings.Contains(o.Stderr, "fetch remote") && !strings.Contains(o.Stderr, "default branch") {
		t.Errorf("no token ends with %d\n%s", o.Code, o.Tail(20))
	}
}
