package dropin

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"kaniko-build/test/registrytest"
)

// box is a context whose image has a shell.
func box(t *testing.T, steps string) string {
	t.Helper()
	dir := t.TempDir()
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "busybox"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nCOPY busybox /bin/sh\n"+steps), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestExitCodes(t *testing.T) {
	state := t.TempDir()
	for _, c := range []struct {
		steps string
		want  int
	}{
		{"RUN true\n", 0},
		{"RUN exit 42\n", 42},
		{"COPY nothing /\n", 1},
		{"BAD\n", 1},
	} {
		code, _, stderr := call(t, state, "", "executor", "-c", box(t, c.steps), "--no-push")
		if code != c.want || code != 0 && !strings.Contains(stderr, "error building image: ") {
			t.Errorf("%q ends with %d, want %d\n%s", c.steps, code, c.want, stderr)
		}
	}
	for _, args := range [][]string{
		{"executor", "--no-such-flag"},
		{"executor", "--cache", "false"},
		{"executor", "--cache-ttl", "336"},
		{"executor", "-c", "."},
		{"executor", "-c", ".", "--no-push", "--snapshot-mode", "odd"},
		{"executor", "-c", ".", "--no-push", "--log-format", "odd"},
		{"executor", "-c", ".", "--no-push", "--verbosity", "odd"},
		{"executor", "-c", ".", "--no-push", "--secret", "id=x,src=nowhere"},
		{"executor", "-c", ".", "--no-push", "--secret", "id=x,src=executor.go", "--secret", "id=x,src=executor.go"},
		{"executor", "-c", ".", "--no-push", "--label", "odd"},
		{"executor", "-c", ".", "--no-push", "--cache"},
		{"executor", "-c", ".", "-d", "x@sha256:" + strings.Repeat("a", 64)},
		{"executor", "-c", ".", "--no-push", "--compression", "zstd", "--tar-path", "x.tar"},
		{"executor", "-c", ".", "--no-push", "--image-name-with-digest-file", "x"},
		{"executor", "-c", "ftp://x/y", "--no-push"},
		{"warmer"},
	} {
		if code, _, stderr := call(t, state, "", args...); code != 1 {
			t.Errorf("%q ends with %d, want 1\n%s", args, code, stderr)
		}
	}
}

// Nothing that a step does at an ignored path is in the image, nor is a step that
// was built without the flag taken for one with it.
func TestIgnoredPaths(t *testing.T) {
	dir := box(t, "COPY Dockerfile /gone/a/file\nCOPY Dockerfile /kept/a/file\nRUN mkdir -p /gone/a /var/run/x; echo 1 >/gone/a/more; echo 1 >/kept/more; ln -s /kept /gone/link\n")
	state := t.TempDir()
	for _, c := range []struct {
		flags []string
		want  string
	}{
		{nil, "gone/ gone/a/ gone/a/file gone/a/more gone/link kept/ kept/a/ kept/a/file kept/more var/ var/run/ var/run/x/"},
		{[]string{"--ignore-path", "/gone/a", "--ignore-path=/kept/more/", "--ignore-path", "/gone/link/below"}, "gone/ gone/link kept/ kept/a/ kept/a/file var/ var/run/ var/run/x/"},
		{[]string{"--ignore-path", "/gone", "--ignore-var-run"}, "kept/ kept/a/ kept/a/file kept/more var/"},
	} {
		archive := filepath.Join(t.TempDir(), "image.tar")
		code, _, stderr := call(t, state, "", append([]string{"executor", "-c", dir, "--no-push", "--cache", "--no-push-cache", "--tar-path", archive}, c.flags...)...)
		if code != 0 {
			t.Fatalf("%q: %s", c.flags, stderr)
		}
		if got := strings.Join(imageNames(t, archive, "gone/", "kept/", "var/"), " "); got != c.want {
			t.Errorf("%q: the image has %s\nwant %s", c.flags, got, c.want)
		}
	}
	if code, _, stderr := call(t, state, "", "executor", "-c", dir, "--no-push", "--ignore-path", "gone"); code != 1 || !strings.Contains(stderr, "absolute") {
		t.Errorf("a relative path: %d, %s", code, stderr)
	}
}

// One layer has what all steps of a stage changed, and its record in the history.
func TestSingleSnapshot(t *testing.T) {
	dir, state := box(t, "RUN mkdir /d && echo 1 >/d/a && echo 1 >/d/b\nENV X=1\nRUN rm /d/a && echo 2 >/d/c\nFROM zero\nRUN rm -r /d\nRUN mkdir /d && echo 3 >/d/e\nCMD x\n"), t.TempDir()
	file := filepath.Join(dir, "Dockerfile")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, bytes.Replace(b, []byte("FROM scratch"), []byte("FROM scratch AS zero"), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	var digests []string
	for range 2 { // the second time from the cache
		archive := filepath.Join(t.TempDir(), "image.tar")
		code, _, stderr := call(t, state, "", "executor", "-c", dir, "--no-push", "--cache", "--no-push-cache", "--tar-path", archive, "--single-snapshot")
		if code != 0 {
			t.Fatal(stderr)
		}
		img, err := tarball.ImageFromPath(archive, nil)
		if err != nil {
			t.Fatal(err)
		}
		config, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		var records []string
		for _, h := range config.History {
			text, _, _ := strings.Cut(strings.TrimPrefix(h.CreatedBy, "RUN /bin/sh -c "), " #")
			records = append(records, fmt.Sprint(text, " ", h.EmptyLayer))
		}
		own := records[len(records)-6:]
		if want := []string{"mkdir /d && echo 1 >/d/a && echo 1 >/d/b true", "ENV X=1 true", "rm /d/a && echo 2 >/d/c false", "rm -r /d true", "mkdir /d && echo 3 >/d/e false", `CMD ["/bin/sh" "-c" "x"] true`}; !slices.Equal(own, want) {
			t.Errorf("the history has %q, want %q", own, want)
		}
		if got, want := imageNames(t, archive, ""), []string{"bin/", "bin/sh", "d/", "d/.wh..wh..opq", "d/b", "d/c", "d/e", "dev/", "proc/", "sys/"}; !slices.Equal(got, want) {
			t.Errorf("the layers have %q, want %q", got, want)
		}
		if n := len(config.RootFS.DiffIDs); n != 2 {
			t.Errorf("%d layers, want one for each stage", n)
		}
		d, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, d.String())
	}
	if digests[0] != digests[1] {
		t.Errorf("cold %s, warm %s", digests[0], digests[1])
	}
}

func TestNoPushOfTheEnvironment(t *testing.T) {
	dir, state := workspace(t), t.TempDir()
	t.Setenv("KANIKO_NO_PUSH", "true")
	if code, _, stderr := call(t, state, "", "executor", "-c", dir, "-d", "registry.invalid/x"); code != 0 {
		t.Errorf("code %d\n%s", code, stderr)
	}
	t.Setenv("KANIKO_NO_PUSH", "garbage")
	if code, _, _ := call(t, state, "", "executor", "-c", dir, "-d", "registry.invalid/x"); code != 1 {
		t.Errorf("code %d, want 1", code)
	}
	t.Setenv("KANIKO_NO_PUSH", "false")
	if code, _, _ := call(t, state, "", "executor", "-c", dir, "--no-push"); code != 1 {
		t.Errorf("the flag beats the variable: code %d, want 1", code)
	}
}

var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// TestFilesAboutTheImage pushes to two names and reads what is written.
func TestFilesAboutTheImage(t *testing.T) {
	reg := registrytest.Start(t, registrytest.Options{})
	dir, out := box(t, "RUN echo made >/made\n"), t.TempDir()
	t.Setenv("BUILDER_OUTPUT", filepath.Join(out, "builder"))
	var puts sync.Map
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		puts.Store(r.Method+" "+r.URL.Path+" "+r.Header.Get("Content-Type"), string(b))
	}))
	defer web.Close()
	code, stdout, stderr := callWith(t, web.Client(), t.TempDir(), "", "executor", "-c", dir, "-d", reg.Host+"/team/app:1", "-d", reg.Host+"/team/app:2",
		"--digest-file", filepath.Join(out, "new", "digest"), "--image-name-with-digest-file", filepath.Join(out, "name"),
		"--image-name-tag-with-digest-file", web.URL+"/tag?signature=x", "--tar-path", filepath.Join(out, "image.tar"), "--oci-layout-path", filepath.Join(out, "layout"))
	if code != 0 || stdout != "" {
		t.Fatalf("code %d, stdout %q\n%s", code, stdout, stderr)
	}
	b, err := os.ReadFile(filepath.Join(out, "new", "digest"))
	digest := string(b)
	if err != nil || !digestForm.MatchString(digest) {
		t.Fatalf("digest file %q, %v", b, err)
	}
	for name, want := range map[string]string{
		"name":           strings.Repeat(reg.Host+"/team/app@"+digest+"\n", 2),
		"builder/images": fmt.Sprintf(`{"name":"%[1]s/team/app:1","digest":"%[2]s"}`+"\n"+`{"name":"%[1]s/team/app:2","digest":"%[2]s"}`+"\n", reg.Host, digest),
	} {
		if b, err := os.ReadFile(filepath.Join(out, name)); string(b) != want {
			t.Errorf("%s: %q, %v; want %q", name, b, err, want)
		}
	}
	want := reg.Host + "/team/app:1@" + digest + "\n" + reg.Host + "/team/app:2@" + digest + "\n"
	if got, _ := puts.Load("PUT /tag text/plain"); got != want {
		t.Errorf("put %q, want %q", got, want)
	}
	if m := manifest(t, reg, "team/app", "2"); m.digest != digest || m.MediaType != "application/vnd.docker.distribution.manifest.v2+json" {
		t.Errorf("the registry has %s, a %s", m.digest, m.MediaType)
	}
	var saved []struct{ RepoTags []string }
	if err := json.Unmarshal(tarFile(t, filepath.Join(out, "image.tar"), "manifest.json"), &saved); err != nil || len(saved) != 1 || len(saved[0].RepoTags) != 2 {
		t.Errorf("the archive says %+v, %v", saved, err)
	}

	// The layout has this image alone, whatever was there; what was pushed can be
	// pushed again from all that was written.
	for _, from := range []string{"image.tar", "layout"} {
		code, _, stderr := call(t, t.TempDir(), "", "executor", "push", filepath.Join(out, from), "-d", reg.Host+"/again/"+strings.TrimSuffix(from, ".tar"), "--digest-file", filepath.Join(out, "again"))
		if b, _ := os.ReadFile(filepath.Join(out, "again")); code != 0 || string(b) != digest {
			t.Errorf("push %s: code %d, digest %q\n%s", from, code, b, stderr)
		}
	}
}

func TestAFailedPushWritesNoDigest(t *testing.T) {
	reg := registrytest.Start(t, registrytest.Options{Auth: true})
	out := t.TempDir()
	code, _, stderr := call(t, t.TempDir(), "", "executor", "-c", workspace(t), "-d", reg.Host+"/x", "--digest-file", filepath.Join(out, "digest"), "--skip-push-permission-check", "--tar-path", filepath.Join(out, "tar"))
	if code != 1 || !strings.Contains(stderr, "failed to push") {
		t.Errorf("code %d\n%s", code, stderr)
	}
	if _, err := os.Stat(filepath.Join(out, "digest")); err == nil {
		t.Error("there is a digest of an image that is nowhere")
	}
	if _, err := os.Stat(filepath.Join(out, "tar")); err != nil {
		t.Error("the archive is not there to be pushed later")
	}
	// Before the build, unless that is not wanted.
	code, _, stderr = call(t, t.TempDir(), "", "executor", "-c", box(t, "RUN exit 3\n"), "-d", reg.Host+"/x")
	if code != 1 || !strings.Contains(stderr, "checking push permission") {
		t.Errorf("code %d\n%s", code, stderr)
	}
}

func TestLoginAndPush(t *testing.T) {
	reg := registrytest.Start(t, registrytest.Options{Auth: true})
	config := t.TempDir()
	t.Setenv("DOCKER_CONFIG", config)
	for _, args := range [][]string{
		{"executor", "login", reg.Host},
		{"executor", "login", reg.Host, "-u", "x"},
		{"executor", "login", reg.Host, "-u", "x", "-p", "y", "--password-stdin"},
		{"executor", "login"},
	} {
		if code, _, _ := call(t, t.TempDir(), "", args...); code != 1 {
			t.Errorf("%q: code %d", args, code)
		}
	}
	code, _, stderr := call(t, t.TempDir(), registrytest.Password+"\n", "executor", "login", reg.Host, "-u", registrytest.User, "--password-stdin")
	if code != 0 {
		t.Fatalf("login: code %d\n%s", code, stderr)
	}
	b, err := os.ReadFile(filepath.Join(config, "config.json"))
	if want := base64.StdEncoding.EncodeToString([]byte(registrytest.User + ":" + registrytest.Password)); err != nil || !bytes.Contains(b, []byte(want)) {
		t.Errorf("config.json: %s, %v", b, err)
	}
}

func TestWarmedImagesAreNotFetched(t *testing.T) {
	reg := registrytest.Start(t, registrytest.Options{})
	cache := filepath.Join(t.TempDir(), "cache")
	base := reg.Host + "/base:1"
	if code, _, stderr := call(t, t.TempDir(), "", "executor", "-c", box(t, ""), "-d", base); code != 0 {
		t.Fatalf("code %d\n%s", code, stderr)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("ARG WHICH\nFROM $WHICH AS a\nFROM a\nRUN echo x >/x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"Retrieved", "already in cache"} {
		code, _, stderr := call(t, t.TempDir(), "", "warmer", "--cache-dir", cache, "-d", filepath.Join(dir, "Dockerfile"), "--build-arg", "WHICH="+base, "-i", "127.0.0.1:1/none")
		if code != 0 || !strings.Contains(stderr, want) {
			t.Fatalf("%d: code %d, want %q\n%s", i, code, want, stderr)
		}
	}
	if code, stdout, _ := call(t, t.TempDir(), "", "warmer", "--cache-dir", cache, "-i", "127.0.0.1:1/none"); code != 1 || !strings.Contains(stdout, "127.0.0.1:1") {
		t.Errorf("no image worked: code %d, %q", code, stdout)
	}
	if m := manifest(t, reg, "base", "1"); m.digest == "" {
		t.Error("no base")
	} else if _, err := os.Stat(filepath.Join(cache, m.digest, "index.json")); err != nil {
		t.Error(err)
	}
	blobs := filepath.Join(reg.Dir, "docker/registry/v2/blobs")
	layer := manifest(t, reg, "base", "1").Layers[0].Digest
	hidden := filepath.Join(blobs, "sha256", layer[7:9], layer[7:])
	if err := os.Rename(hidden, hidden+".gone"); err != nil {
		t.Fatal(err)
	}
	args := []string{"executor", "-c", dir, "--no-push", "--build-arg", "WHICH=" + base, "--cache-repo", reg.Host + "/c", "--no-push-cache"}
	if code, _, stderr := call(t, t.TempDir(), "", append(args, "--cache", "--cache-dir", cache)...); code != 0 {
		t.Errorf("with the warmed image: code %d\n%s", code, stderr)
	}
	if code, _, _ := call(t, t.TempDir(), "", args...); code == 0 {
		t.Error("the layer was to be had without the cache")
	}
}

// What one machine has built another one finds in the repository <destination>/cache,
// or where --cache-repo says.
func TestLayerCache(t *testing.T) {
	reg := registrytest.Start(t, registrytest.Options{})
	dir := box(t, "RUN cat /proc/sys/kernel/random/uuid > /id\n")
	run := func(args ...string) (used int) {
		t.Helper()
		code, _, stderr := call(t, t.TempDir(), "", append([]string{"executor", "-c", dir, "--log-format=text", "--cache"}, args...)...)
		if code != 0 {
			t.Fatalf("%q: code %d\n%s", args, code, stderr)
		}
		return strings.Count(stderr, "Using caching version of cmd: ")
	}
	tags := func(repo string) int {
		t.Helper()
		resp, err := http.Get("http://" + reg.Host + "/v2/" + repo + "/tags/list")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var list struct{ Tags []string }
		if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
			t.Fatal(err)
		}
		return len(list.Tags)
	}
	image := []string{"-d", reg.Host + "/shop/app"}
	path := "oci:" + filepath.Join(t.TempDir(), "layers")
	for _, c := range []struct {
		name string
		args []string
		want int // steps that were not executed
	}{
		{"nothing is written", append(image, "--no-push-cache"), 0},
		{"nothing is there yet", image, 0},
		{"RUN is there, COPY is not for the cache", image, 1},
		{"nor is RUN", append(image, "--cache-run-layers=false"), 0},
		{"COPY, too", append(image, "--cache-copy-layers"), 1},
		{"COPY is there", append(image, "--cache-copy-layers"), 2},
		{"all of it is too old", append(image, "--cache-copy-layers", "--cache-ttl", "1ns", "--no-push-cache"), 0},
		{"the cache is named", []string{"--no-push", "--cache-copy-layers", "--cache-repo", reg.Host + "/shop/app/cache"}, 2},
		{"a path", []string{"--no-push", "--cache-copy-layers", "--cache-repo", path}, 0},
		{"a path with all", []string{"--no-push", "--cache-copy-layers", "--cache-repo", path}, 2},
		{"no place, and none is asked for", []string{"--no-push", "--no-push-cache"}, 0},
	} {
		if got := run(c.args...); got != c.want {
			t.Errorf("%s: %d steps were found, want %d", c.name, got, c.want)
		}
		if n := tags("shop/app/cache"); c.name == "nothing is written" && n != 0 {
			t.Errorf("%s: there are %d", c.name, n)
		}
	}
	if code, _, stderr := call(t, t.TempDir(), "", "executor", "-c", dir, "--no-push", "--cache", "--cache-repo", reg.Host+"/c:tag"); code == 0 || !strings.Contains(stderr, "names more than a repository") {
		t.Errorf("a cache with a tag: code %d\n%s", code, stderr)
	}
}

func TestLogFormats(t *testing.T) {
	dir, state := workspace(t), t.TempDir()
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, `^\x1b\[36mINFO\x1b\[0m\[000\d\] Skipping push to container registry due to --no-push flag +\n$`},
		{[]string{"--log-timestamp"}, `^\x1b\[36mINFO\x1b\[0m\[\d{4}-\d\d-\d\dT[^\]]+\] Skipping push`},
		{[]string{"--log-format=text"}, `^time="[^"]+" level=info msg="Skipping push to container registry due to --no-push flag"\n$`},
		{[]string{"--log-format", "json"}, `^{"level":"info","msg":"Skipping push[^}]*","time":"[^"]+"}\n$`},
		{[]string{"--verbosity=warn"}, `^$`},
	} {
		_, _, stderr := call(t, state, "", append([]string{"executor", "-c", dir, "--no-push"}, c.args...)...)
		if !regexp.MustCompile(c.want).MatchString(stderr) {
			t.Errorf("%q: %q, want %s", c.args, stderr, c.want)
		}
	}
}

func TestWhatRunPrintsIsThere(t *testing.T) {
	code, stdout, stderr := call(t, t.TempDir(), "", "executor", "-c", box(t, "RUN echo out; echo err >&2\n"), "--no-push", "--verbosity", "error")
	if code != 0 || !strings.Contains(stdout, "out\n") || stderr != "" {
		t.Errorf("code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestContextForms(t *testing.T) {
	dir, state := workspace(t), t.TempDir()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "c.tar")
	if err := os.WriteFile(file, archive.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ at, stdin string }{
		{dir, ""}, {"dir://" + dir, ""}, {"tar://" + file, ""}, {"tar://stdin", archive.String()},
	} {
		for _, sub := range []string{"", "sub"} {
			out := filepath.Join(t.TempDir(), "image.tar")
			code, _, stderr := call(t, state, c.stdin, "executor", "-c", c.at, "--context-sub-path", sub, "--no-push", "--tar-path", out)
			if code != 0 {
				t.Errorf("%s %s: code %d\n%s", c.at, sub, code, stderr)
				continue
			}
			var saved []struct{ Config string }
			if err := json.Unmarshal(tarFile(t, out, "manifest.json"), &saved); err != nil {
				t.Fatal(err)
			}
			if has := bytes.Contains(tarFile(t, out, saved[0].Config), []byte(`"sub":"1"`)); has != (sub != "") {
				t.Errorf("%s %q: the Dockerfile was another one", c.at, sub)
			}
		}
	}
}

func TestBucketIsTheContextUnlessOneIsGiven(t *testing.T) {
	for _, c := range []struct {
		context, bucket string
		given           bool
		want            string
	}{
		{"/workspace/", "b", false, "gs://b"},
		{"/workspace/", "b/o.tar.gz", false, "gs://b/o.tar.gz"},
		{"", "b", true, "gs://b"},
		{"gs://old", "b", true, "gs://b"},
		{"/src", "b", true, "/src"},
		{"/src", "s3://b", true, "s3://b"},
	} {
		s := &settings{context: c.context, bucket: c.bucket, noPush: true, snapshotMode: "full"}
		if err := s.complete(func(name string) bool { return name == "context" && c.given }, nil); err != nil || s.context != c.want {
			t.Errorf("%+v: %q, %v", c, s.context, err)
		}
	}
}

func TestRegistriesOfFlags(t *testing.T) {
	t.Setenv("KANIKO_REGISTRY_MIRROR", "env.invalid")
	r := registryFlags{
		insecure: true, insecureHosts: []string{"a.invalid:5000"}, maps: []string{"index.docker.io=https://one.invalid;quay.io=http://two.invalid/p"},
		mirrors: []string{"three.invalid"}, noFallback: true,
	}
	named, others, err := r.registries([]string{"dest.invalid/x"}, nil)
	if err != nil || others.Insecure || others.AnyCert {
		t.Fatalf("%+v, %v", others, err)
	}
	got := map[string]string{}
	for _, n := range named {
		got[n.Host] = fmt.Sprint(n.Insecure, n.Strict, n.Mirrors)
	}
	for host, want := range map[string]string{
		"docker.io": "false true [one.invalid three.invalid env.invalid]", "quay.io": "false true [http://two.invalid/p]",
		"a.invalid:5000": "true false []", "dest.invalid": "true false []", "two.invalid": "true false []",
	} {
		if got[host] != want {
			t.Errorf("%s: %s, want %s", host, got[host], want)
		}
	}
	t.Setenv("KANIKO_REGISTRY_MIRROR", "a;b")
	if _, _, err := r.registries(nil, nil); err == nil {
		t.Error("a list in KANIKO_REGISTRY_MIRROR is taken")
	}
}

// image is what a registry has under a tag.
type served struct {
	digest    string
	MediaType string
	Layers    []struct{ Digest string }
}

func manifest(t *testing.T, reg *registrytest.Registry, repo, tag string) served {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, reg.URL()+"/v2/"+repo+"/manifests/"+tag, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []string{"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.oci.image.manifest.v1+json"} {
		req.Header.Add("Accept", m)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out := served{digest: resp.Header.Get("Docker-Content-Digest")}
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

// imageNames are the names in all layers of an image that begin with one of prefixes.
func imageNames(t *testing.T, archive string, prefixes ...string) []string {
	t.Helper()
	img, err := tarball.ImageFromPath(archive, nil)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, l := range layers {
		rc, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		for r := tar.NewReader(rc); ; {
			h, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(h.Name, p) }) {
				out = append(out, h.Name)
			}
		}
		rc.Close()
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func tarFile(t *testing.T, archive, name string) []byte {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var names []string
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err != nil {
			t.Fatalf("%s has no %s: %v; it has %q", archive, name, err, names)
		}
		if names = append(names, h.Name); slices.Contains([]string{name, "./" + name}, h.Name) {
			b, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
	}
}
