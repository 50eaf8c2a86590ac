package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"kaniko-build/test/mirror"
	"kaniko-build/test/rig"
)

// attestedDockerfile is that of testdata/buildkit-provenance-max.json, which BuildKit
// made of it with --build-arg V=2, --label q=r and a secret tok.
const attestedDockerfile = `FROM busybox AS build
ARG V=1
RUN --mount=type=secret,id=tok --network=none echo $V > /out
FROM busybox
LABEL a=b
WORKDIR /w
COPY f.txt /f.txt
COPY --from=build /out /out
RUN --network=none echo hi > /hi
`

// indexed is an index as far as it matters here.
type indexed struct {
	Annotations map[string]string
	Manifests   []struct {
		MediaType, Digest string
		Size              int64
		Platform          struct{ OS, Architecture string }
		Annotations       map[string]string
	}
}

// statement is an in-toto statement, and its predicate as it is.
type statement struct {
	Type          string `json:"_type"`
	PredicateType string
	Subject       []struct {
		Name   string
		Digest map[string]string
	}
	Predicate json.RawMessage
}

// attested reads the index of a repository's tag and the statements about each of its
// images, and checks that they are kept as BuildKit keeps them.
func attested(t *testing.T, reg *rig.Registry, repo, tag string) (indexed, map[string][]statement) {
	t.Helper()
	r := raw{t, "http://" + reg.Addr + "/v2/" + repo}
	read := func(url string, v any) {
		t.Helper()
		if err := json.Unmarshal(r.do(http.MethodGet, url, "", nil, http.StatusOK), v); err != nil {
			t.Fatal(err)
		}
	}
	var idx indexed
	read("manifests/"+tag, &idx)
	found := map[string][]statement{}
	images := true
	for _, m := range idx.Manifests {
		about := m.Annotations["vnd.docker.reference.digest"]
		if about == "" {
			if !images {
				t.Errorf("the image %s stands behind attestations", m.Digest)
			}
			found[m.Digest] = nil
			continue
		}
		images = false
		if _, ok := found[about]; !ok || m.Platform.OS != "unknown" || m.Platform.Architecture != "unknown" || m.Annotations["vnd.docker.reference.type"] != "attestation-manifest" {
			t.Errorf("attestation %+v", m)
		}
		var list struct {
			ArtifactType string
			Subject      struct{ Digest string }
			Layers       []struct {
				MediaType, Digest string
				Annotations       map[string]string
			}
		}
		read("manifests/"+m.Digest, &list)
		if list.ArtifactType != "application/vnd.docker.attestation.manifest.v1+json" || list.Subject.Digest != about {
			t.Errorf("attestation manifest %+v", list)
		}
		for _, l := range list.Layers {
			var s statement
			read("blobs/"+l.Digest, &s)
			if l.MediaType != "application/vnd.in-toto+json" || l.Annotations["in-toto.io/predicate-type"] != s.PredicateType || s.Type != "https://in-toto.io/Statement/v1" {
				t.Errorf("statement %+v of %q", l, s.Type)
			}
			for _, sub := range s.Subject {
				if "sha256:"+sub.Digest["sha256"] != about {
					t.Errorf("statement about %v in a manifest about %s", sub, about)
				}
			}
			found[about] = append(found[about], s)
		}
	}
	return idx, found
}

// fields lists the fields of a document: /a/b, /c[]/d. Names of steps and digests are
// any.
func fields(v any, at string, out map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			fields(x, at+"/"+anyName.ReplaceAllString(k, "*"), out)
		}
	case []any:
		for _, x := range v {
			fields(x, at+"[]", out)
		}
	default:
		out[at] = true
	}
}

var anyName = regexp.MustCompile(`^(step\d+(:0)?|sha256:[0-9a-f]+)$`)

// Provenance is, field for field, what BuildKit writes, without what is different
// each time or has no meaning here.
func TestProvenanceIsLikeBuildKits(t *testing.T) {
	rig.NeedRoot(t)
	reg := rig.StartMirror(t, mirror.Busybox)
	dir := rig.Space(t, nil)
	rig.Write(t, dir, map[string]string{"ctx/Dockerfile": attestedDockerfile, "ctx/f.txt": "x\n", "tok": "s3cr3tvalue\n"})
	m := newMachine(t, rig.Superuser, dir)
	args := []string{"build", "--registry-mirror", reg.Addr, "--build-arg", "V=2", "--label", "q=r", "--secret", "id=tok,src=tok", "--push"}
	m.must(append(args, "-t", reg.Addr+"/a/max:1", "-t", reg.Addr+"/a/max:2", "--attest", "type=provenance,mode=max,builder-id=https://ci.example.com/1", "--metadata-file", "md.json", "ctx")...)
	_, found := attested(t, reg, "a/max", "1")
	if len(found) != 1 {
		t.Fatalf("%d images", len(found))
	}
	var s statement
	for image, list := range found {
		if len(list) != 1 || list[0].PredicateType != "https://slsa.dev/provenance/v1" {
			t.Fatalf("about %s: %+v", image, list)
		}
		s = list[0]
	}
	var names []string
	for _, sub := range s.Subject {
		names = append(names, sub.Name)
	}
	prefix := "pkg:docker/" + strings.ReplaceAll(reg.Addr, ":", "%3A") + "/a/max@"
	if want := []string{prefix + "1?platform=linux%2Famd64", prefix + "2?platform=linux%2Famd64"}; !slices.Equal(names, want) {
		t.Errorf("subjects %q, want %q", names, want)
	}
	if strings.Contains(string(s.Predicate), "s3cr3tvalue") {
		t.Error("the secret is in it")
	}

	golden, err := os.ReadFile("testdata/buildkit-provenance-max.json")
	if err != nil {
		t.Fatal(err)
	}
	var theirs, ours any
	theirsAll := statement{}
	if err := json.Unmarshal(golden, &theirsAll); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[*any]json.RawMessage{&theirs: theirsAll.Predicate, &ours: s.Predicate} {
		if err := json.Unmarshal(to, from); err != nil {
			t.Fatal(err)
		}
	}
	left, right := map[string]bool{}, map[string]bool{}
	fields(theirs, "", left)
	fields(ours, "", right)
	for f := range right {
		if !left[f] && f != "/buildDefinition/internalParameters/targetPlatform" { // of BuildKit's next version
			t.Errorf("BuildKit has no %s", f)
		}
	}
	notOurs := regexp.MustCompile(`/request/(root|compatibilityVersion)|/digestMapping|/constraints|/attrs|/dockerfileVersion|/infos\[\]/llbDefinition|/invocationId|/removeMountStubs|` +
		`/copy/(allow|createDest|dirCopy|follow|mode|timestamp)|/mkdir/(mode|timestamp)|/op/Op$`)
	for f := range left {
		if !right[f] && !notOurs.MatchString(f) {
			t.Errorf("BuildKit has %s, and we do not", f)
		}
	}
	type predicate struct {
		BuildDefinition struct {
			BuildType            string
			ResolvedDependencies []struct{ URI string }
			ExternalParameters   struct{ Request, ConfigSource any }
		}
		RunDetails struct {
			Builder  struct{ ID string }
			Metadata struct {
				Completeness struct{ Request bool } `json:"buildkit_completeness"`
				BuildKit     struct {
					Source struct{ Infos []struct{ Data string } }
				} `json:"buildkit_metadata"`
			}
		}
	}
	var p, q predicate
	if err := json.Unmarshal(s.Predicate, &p); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(theirsAll.Predicate, &q); err != nil {
		t.Fatal(err)
	}
	for _, x := range []*predicate{&p, &q} {
		r := x.BuildDefinition.ExternalParameters.Request.(map[string]any)
		delete(r, "root")
		delete(r, "compatibilityVersion")
	}
	if a, b := fmt.Sprint(p.BuildDefinition), fmt.Sprint(q.BuildDefinition); a != b {
		t.Errorf("got  %s\nwant %s", a, b)
	}
	if text, _ := base64.StdEncoding.DecodeString(p.RunDetails.Metadata.BuildKit.Source.Infos[0].Data); string(text) != attestedDockerfile {
		t.Errorf("the Dockerfile is %q", text)
	}
	if p.RunDetails.Builder.ID != "https://ci.example.com/1" || !p.RunDetails.Metadata.Completeness.Request {
		t.Errorf("run details %+v", p.RunDetails)
	}

	// The metadata file has it as bake's has.
	b, err := os.ReadFile(filepath.Join(dir, "md.json"))
	if err != nil {
		t.Fatal(err)
	}
	var md map[string]struct {
		Provenance json.RawMessage `json:"buildx.build.provenance"`
		Digest     string          `json:"containerimage.digest"`
	}
	if err := json.Unmarshal(b, &md); err != nil || !strings.Contains(string(md["max"].Provenance), "buildType") {
		t.Errorf("metadata: %v\n%s", err, b)
	}

	// A secret that somebody gives as an argument too is masked there.
	m.must(append(args, "-t", reg.Addr+"/a/masked:1", "--build-arg", "TOKEN=s3cr3tvalue", "--provenance=max", "ctx")...)
	_, found = attested(t, reg, "a/masked", "1")
	for _, list := range found {
		if text := string(list[0].Predicate); strings.Contains(text, "s3cr3tvalue") || !strings.Contains(text, `"build-arg:TOKEN":"***"`) {
			t.Errorf("an argument that is a secret\n%s", text)
		}
	}

	// The least of it has neither arguments nor steps.
	m.must(append(args, "-t", reg.Addr+"/a/min:1", "--provenance=mode=min", "ctx")...)
	_, found = attested(t, reg, "a/min", "1")
	for _, list := range found {
		text := string(list[0].Predicate)
		for _, word := range []string{"build-arg", "label:", "secrets", "llbDefinition", "Dockerfile\",\"language", "\"request\":true"} {
			if strings.Contains(text, word) {
				t.Errorf("min has %s\n%s", word, text)
			}
		}
		if !strings.Contains(text, `pkg:docker/busybox@latest`) {
			t.Errorf("min has no base\n%s", text)
		}
	}
}

// attestedRepo is an image of one platform and one of two, and tags of their own.
func attestedRepo(t *testing.T, reg *rig.Registry) string {
	t.Helper()
	dir := rig.Space(t, nil)
	rig.Write(t, dir, map[string]string{
		"kaniko-build.yaml": fmt.Sprintf(`version: 1
registries: {docker.io: {mirrors: ["%[1]s"]}}
vars: {tag: {type: string, default: one}, skip: {type: string, default: never}}
defaults:
  image: "%[1]s/at/${target.base}"
  tags: ["${vars.tag}", {tag: "in-${input.digest}", role: identity}]
  skip: ${vars.skip}
  attest: {provenance: max}
  annotations: {"index:org.example.of": shop}
targets:
  one: {context: app}
  two: {context: app, platforms: [linux/amd64, linux/arm64], dockerfileInline: "FROM scratch\nCOPY file /app\n"}
`, reg.Addr),
		"app/Dockerfile": "FROM busybox\nCOPY file /app\nRUN echo ran\n",
		"app/file":       "one\n",
	})
	return dir
}

// Attestations go wherever the image goes, and are the same as long as it is.
func TestAttestationsGoWithTheImage(t *testing.T) {
	rig.NeedRoot(t)
	skopeo := rig.Need(t, "skopeo", "skopeo")
	reg := rig.StartMirror(t, mirror.Busybox)
	dir := attestedRepo(t, reg)
	m := newMachine(t, rig.Superuser, dir)
	m.must("apply", "--push")
	counts := func(repo, tag string, images, statements int) {
		t.Helper()
		idx, found := attested(t, reg, repo, tag)
		if len(found) != images || idx.Annotations["org.example.of"] != "shop" || idx.Annotations["kaniko-build.input-digest"] == "" {
			t.Errorf("%s:%s: %d images, annotations %v", repo, tag, len(found), idx.Annotations)
		}
		for image, list := range found {
			if len(list) != statements {
				t.Errorf("%s:%s: %d statements about %s, want %d", repo, tag, len(list), image, statements)
			}
		}
	}
	counts("at/one", "one", 1, 1)
	counts("at/two", "one", 2, 1)
	one, two := rig.Tagged(t, reg.Addr, "at/one", "one"), rig.Tagged(t, reg.Addr, "at/two", "one")

	// Warm, nothing is made again and nothing sent.
	sent := len(reg.Requests(t, `"PUT /v2/at/`))
	m.must("apply", "--push")
	if n := len(reg.Requests(t, `"PUT /v2/at/`)) - sent; n != 0 || rig.Tagged(t, reg.Addr, "at/one", "one") != one || rig.Tagged(t, reg.Addr, "at/two", "one") != two {
		t.Errorf("warm, %d requests put something", n)
	}
	// What was remembered may go: the same is made again.
	if err := os.RemoveAll(filepath.Join(m.state, "past")); err != nil {
		t.Fatal(err)
	}
	m.must("apply", "--push")
	if rig.Tagged(t, reg.Addr, "at/one", "one") != one || rig.Tagged(t, reg.Addr, "at/two", "one") != two {
		t.Error("made again, attestations differ")
	}

	// Under another name and in an archive, after a prune that leaves what named
	// images consist of.
	m.call("prune", "--all", "--kind", "blobs")
	m.call("push", reg.Addr+"/at/one:one", reg.Addr+"/other/one:x")
	counts("other/one", "x", 1, 1)
	m.call("tag", reg.Addr+"/at/two:one", "copy:1")
	m.call("push", "copy:1", reg.Addr+"/other/two:x")
	counts("other/two", "x", 2, 1)
	layout := filepath.Join(rig.Space(t, nil), "layout")
	m.call("save", "-o", "type=oci,tar=false,dest="+layout, reg.Addr+"/at/two:one")
	m.program(skopeo, "copy", "-q", "--all", "--dest-tls-verify=false", "oci:"+layout+":one", "docker://"+reg.Addr+"/saved/two:x")
	counts("saved/two", "x", 2, 1)
	tar := filepath.Join(rig.Space(t, nil), "one.tar")
	m.call("save", "-o", "type=oci,dest="+tar, reg.Addr+"/at/one:one")
	m.program(skopeo, "copy", "-q", "--all", "--dest-tls-verify=false", "oci-archive:"+tar, "docker://"+reg.Addr+"/saved/one:x")
	counts("saved/one", "x", 1, 1)
	var shown struct{ Attestations []struct{ Type string } }
	if err := json.Unmarshal([]byte(m.call("inspect", "copy:1").Stdout), &shown); err != nil || len(shown.Attestations) != 1 || shown.Attestations[0].Type != "https://slsa.dev/provenance/v1" {
		t.Errorf("inspect: %v %+v", err, shown)
	}
	m.call("unpack", reg.Addr+"/at/one:one", filepath.Join(rig.Space(t, nil), "root"))

	// Published is published with them; an image without is none.
	o := m.fresh().must("apply", "--push", "--var", "skip=published", "--var", "tag=two")
	if !strings.Contains(o.All(), "2 skipped") || rig.Tagged(t, reg.Addr, "at/one", "two") != one {
		t.Errorf("it was not found\n%s", o.Tail(20))
	}
	m.fresh().must("apply", "--push", "--provenance=false")
	idx, _ := attested(t, reg, "at/one", "one")
	if len(idx.Manifests) != 0 {
		t.Errorf("without attestations it is an index: %+v", idx)
	}
	o = m.fresh().must("apply", "--push", "--var", "skip=published", "--var", "tag=three")
	if strings.Contains(o.All(), "2 skipped") {
		t.Errorf("an image without attestations was taken for one with them\n%s", o.Tail(20))
	}
	counts("at/one", "three", 1, 1)
	m.must("apply", "--push", "--var", "skip=unchanged", "--provenance=false")
	if o = m.must("apply", "--push", "--var", "skip=unchanged"); strings.Contains(o.All(), "2 skipped") {
		t.Errorf("attestations that were turned on were skipped\n%s", o.Tail(20))
	}
	if o = m.must("apply", "--push", "--var", "skip=unchanged"); !strings.Contains(o.All(), "2 skipped") {
		t.Errorf("it was built again\n%s", o.Tail(20))
	}
	counts("at/two", "one", 2, 1)
}

// Reproducible, attestations are the same on another machine in another directory.
func TestAttestationsAreReproducible(t *testing.T) {
	rig.NeedRoot(t)
	reg := rig.StartMirror(t, mirror.Busybox)
	var tops []string
	for i := range 2 {
		m := newMachine(t, rig.Superuser, attestedRepo(t, reg))
		tag := fmt.Sprintf("tag=t%d", i)
		m.must("apply", "--push", "--reproducible", "--no-cache", "--sbom=true", "--set", "*.tags=[same]", "--var", tag)
		tops = append(tops, rig.Tagged(t, reg.Addr, "at/one", "same"), rig.Tagged(t, reg.Addr, "at/two", "same"))
	}
	if tops[0] != tops[2] || tops[1] != tops[3] {
		t.Errorf("they differ: %v", tops)
	}
}

// program runs another program as the machine's account.
func (m *machine) program(argv ...string) {
	m.Helper()
	m.account.Must(m.T, rig.Call{Dir: m.dir}, argv...)
}

// The list of packages is that of the image: of a base that was never unpacked, of
// what a step installed, without what a step removed; valid, and with the layer of each.
func TestSBOM(t *testing.T) {
	rig.NeedRoot(t)
	reg := rig.StartMirror(t, mirror.Debian)
	dir := rig.Space(t, nil)
	program, err := os.ReadFile(rig.Binary(t))
	if err != nil {
		t.Fatal(err)
	}
	rig.Write(t, dir, map[string]string{
		"kaniko-build.yaml": fmt.Sprintf(`version: 1
registries: {docker.io: {mirrors: ["%[1]s"]}}
defaults: {image: "%[1]s/sbom/${target.base}", attest: {sbom: true, provenance: min}}
targets:
  copied: {context: app, dockerfile: Dockerfile}
  changed: {context: app, dockerfileInline: "FROM copied\nRUN rm /opt/node_modules/gone/package.json && dpkg --remove --force-depends adduser\n", contexts: {copied: "target:copied"}}
`, reg.Addr),
		"app/Dockerfile":                               "FROM debian\nCOPY . /opt/\n",
		"app/node_modules/gone/package.json":           `{"name":"gone","version":"1.0.0"}`,
		"app/node_modules/@a/stays/package.json":       `{"name":"@a/stays","version":"2.0.0","license":"MIT"}`,
		"app/site-packages/Foo-1.0.dist-info/METADATA": "Name: Foo\nVersion: 1.0\n",
		"app/broken/node_modules/x/package.json":       `{"name":`,
		"app/program":                                  string(program),
	})
	m := newMachine(t, rig.Superuser, dir)
	o := m.must("apply", "--push")
	if !strings.Contains(o.All(), `"opt/broken/node_modules/x/package.json" is not read`) {
		t.Errorf("the broken file is no warning\n%s", o.Tail(30))
	}
	type document struct {
		SPDXVersion string
		Packages    []struct {
			Name         string
			ExternalRefs []struct{ ReferenceLocator string }
		}
		Files []struct{ FileName, Comment string }
	}
	read := func(repo string) (urls []string, doc document) {
		t.Helper()
		_, found := attested(t, reg, repo, "latest")
		for _, list := range found {
			if len(list) != 2 || list[0].PredicateType != "https://spdx.dev/Document" {
				t.Fatalf("%s: %d statements", repo, len(list))
			}
			if err := json.Unmarshal(list[0].Predicate, &doc); err != nil {
				t.Fatal(err)
			}
		}
		for _, p := range doc.Packages {
			urls = append(urls, p.ExternalRefs[0].ReferenceLocator)
		}
		return urls, doc
	}
	has := func(urls []string, prefix string) bool {
		return slices.ContainsFunc(urls, func(s string) bool { return strings.HasPrefix(s, prefix) })
	}
	urls, doc := read("sbom/copied")
	for _, want := range []string{"pkg:deb/debian/adduser@", "pkg:deb/debian/libc6@2", "pkg:npm/gone@1.0.0", "pkg:npm/%40a/stays@2.0.0", "pkg:pypi/foo@1.0", "pkg:golang/github.com/spf13/cobra@v1", "pkg:golang/stdlib@1."} {
		if !has(urls, want) {
			t.Errorf("copied lacks %s", want)
		}
	}
	var manifest struct{ Layers []struct{ Digest string } }
	idx, _ := attested(t, reg, "sbom/copied", "latest")
	if err := json.Unmarshal(raw{t, "http://" + reg.Addr + "/v2/sbom/copied"}.do(http.MethodGet, "manifests/"+idx.Manifests[0].Digest, "", nil, http.StatusOK), &manifest); err != nil {
		t.Fatal(err)
	}
	for _, f := range doc.Files {
		layer := map[bool]int{true: 0, false: 1}[f.FileName == "/var/lib/dpkg/status"]
		if want := "layerID: " + manifest.Layers[layer].Digest; f.Comment != want {
			t.Errorf("%s: %s, want %s", f.FileName, f.Comment, want)
		}
	}
	urls, _ = read("sbom/changed")
	if has(urls, "pkg:npm/gone@") || has(urls, "pkg:deb/debian/adduser@") || !has(urls, "pkg:deb/debian/libc6@2") || !has(urls, "pkg:npm/%40a/stays@2.0.0") {
		t.Errorf("changed has %q", urls)
	}

	// Warm, it is neither made nor sent again, and made again without what was
	// remembered it is the same.
	before := rig.Tagged(t, reg.Addr, "sbom/changed", "latest")
	if err := os.RemoveAll(filepath.Join(m.state, "past")); err != nil {
		t.Fatal(err)
	}
	sent := len(reg.Requests(t, `"PUT /v2/sbom/`))
	m.must("apply", "--push")
	m.must("apply", "--push")
	if n := len(reg.Requests(t, `"PUT /v2/sbom/`)) - sent; n != 0 || rig.Tagged(t, reg.Addr, "sbom/changed", "latest") != before {
		t.Errorf("warm, %d requests put something", n)
	}
}
