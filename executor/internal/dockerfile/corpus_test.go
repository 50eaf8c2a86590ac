package dockerfile_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/platforms"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"gopkg.in/yaml.v3"

	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/schema/diag"
)

// corpus is the folder of the conformance cases, or skips the test.
func corpus(t testing.TB) string {
	dir := os.Getenv("KANIKO_BUILD_CONFORMANCE")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "test", "conformance")
	}
	if _, err := os.Stat(filepath.Join(dir, "cases")); err != nil {
		t.Skipf("needs the conformance corpus in %s (or KANIKO_BUILD_CONFORMANCE): %v", dir, err)
	}
	return dir
}

// layout reads configurations of images from an OCI layout.
type layout struct{ dir string }

func (l layout) read(t testing.TB, d ocispec.Descriptor, v any) {
	data, err := os.ReadFile(filepath.Join(l.dir, "blobs", "sha256", d.Digest.Encoded()))
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (l layout) config(t testing.TB, ref string, p ocispec.Platform) (*dockerspec.DockerOCIImage, error) {
	name, digest, _ := strings.Cut(ref, "@")
	name = strings.TrimSuffix(name, ":latest")
	data, err := os.ReadFile(filepath.Join(l.dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatal(err)
	}
	for _, d := range index.Manifests {
		if d.Annotations[ocispec.AnnotationRefName] != name || digest != "" && digest != d.Digest.String() {
			continue
		}
		if d.MediaType == ocispec.MediaTypeImageIndex {
			var sub ocispec.Index
			l.read(t, d, &sub)
			d.Digest = ""
			for _, m := range sub.Manifests {
				if platforms.OnlyStrict(p).Match(*m.Platform) {
					d = m
				}
			}
			if d.Digest == "" {
				return nil, fmt.Errorf("no match for platform in manifest: %s is not there", platforms.FormatAll(p))
			}
		}
		var m ocispec.Manifest
		l.read(t, d, &m)
		var img dockerspec.DockerOCIImage
		l.read(t, m.Config, &img)
		return &img, nil
	}
	return nil, errors.New("not found")
}

type testCase struct {
	Dockerfile    string             `yaml:"dockerfile"`
	Target        string             `yaml:"target"`
	Platform      string             `yaml:"platform"`
	BuildArgs     map[string]*string `yaml:"build_args"`
	Labels        map[string]string  `yaml:"labels"`
	NamedContexts map[string]string  `yaml:"named_contexts"`
	Env           map[string]string  `yaml:"env"`
	Expect        string             `yaml:"expect"`
	Errors        []string           `yaml:"errors"`
	ErrorAt       string             `yaml:"error_at"`
}

// whenBuilt are cases that fail only when files are there or commands run.
var whenBuilt = strings.Fields(`
	add-url-checksum-wrong add-url-missing copy-dest-is-file copy-file-over-dir
	copy-from-symlink-loop copy-missing copy-missing-in-stage copy-dir-over-file copy-parents-pivot-symlink
	err-mount-missing-source err-run-later-line ignore-copy-ignored run-command-missing run-exit-code
	run-mount-secret-required run-mount-ssh-required run-no-shell run-user-unknown`)

func TestCorpus(t *testing.T) {
	root := corpus(t)
	dirs, err := os.ReadDir(filepath.Join(root, "cases"))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		t.Run(d.Name(), func(t *testing.T) { runCase(t, root, d.Name()) })
	}
}

func runCase(t *testing.T, root, name string) {
	dir := filepath.Join(root, "cases", name)
	data, err := os.ReadFile(filepath.Join(dir, "case.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var c testCase
	if err := yaml.Unmarshal(data, &c); err != nil {
		t.Fatal(err)
	}
	if c.Dockerfile == "" {
		c.Dockerfile = "Dockerfile"
	}
	p, err := buildCase(t, root, dir, c)
	if c.Expect == "error" {
		if err == nil {
			if !slices.Contains(whenBuilt, name) {
				t.Errorf("no error, want one with %q at %q", c.Errors, c.ErrorAt)
			}
			return
		}
		if slices.Contains(whenBuilt, name) {
			t.Errorf("the table says this fails only when built, got %v", err)
		}
		for _, want := range c.Errors {
			found := false
			for alt := range strings.SplitSeq(want, "|") {
				found = found || strings.Contains(err.Error(), alt)
			}
			if !found {
				t.Errorf("error lacks %q:\n%v", want, err)
			}
		}
		if c.ErrorAt != "" && !strings.Contains(err.Error(), c.ErrorAt+":") {
			t.Errorf("error is not at %s:\n%v", c.ErrorAt, err)
		}
		t.Log(err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	checkGolden(t, dir, p)
	checkJSON(t, p)
}

func buildCase(t *testing.T, root, dir string, c testCase) (*dockerfile.Program, error) {
	text, err := os.ReadFile(filepath.Join(dir, c.Dockerfile))
	if errors.Is(err, os.ErrNotExist) { // setup.sh makes it
		script, abs := "", ""
		if abs, err = filepath.Abs(dir); err != nil {
			t.Fatal(err)
		}
		script = filepath.Join(abs, "setup.sh")
		cmd := exec.CommandContext(t.Context(), "sh", script)
		cmd.Dir = t.TempDir()
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		text, err = os.ReadFile(filepath.Join(cmd.Dir, c.Dockerfile))
	}
	if err != nil {
		t.Fatal(err)
	}
	o := dockerfile.Options{Name: filepath.Base(c.Dockerfile), Args: c.BuildArgs, Target: c.Target, Labels: c.Labels,
		BuildPlatform: ocispec.Platform{OS: "linux", Architecture: "amd64"}}
	for name := range c.NamedContexts {
		o.Contexts = append(o.Contexts, name)
	}
	if c.Platform != "" {
		if o.Platform, err = platforms.Parse(c.Platform); err != nil {
			t.Fatal(err)
		}
	}
	if v := c.Env["SOURCE_DATE_EPOCH"]; v != "" {
		var sec int64
		if _, err := fmt.Sscan(v, &sec); err != nil {
			t.Fatal(err)
		}
		o.Epoch = &sec
	}
	f, err := dockerfile.Parse(text, o)
	if err != nil {
		return nil, err
	}
	images := layout{dir: filepath.Join(root, "images")}
	return f.Resolve(func(ref dockerfile.ImageRef) (*dockerspec.DockerOCIImage, error) {
		if ref.Context != "" {
			image, ok := strings.CutPrefix(c.NamedContexts[ref.Context], "image:")
			if !ok {
				return nil, nil
			}
			ref.Ref = image
		}
		return images.config(t, ref.Ref, ref.Platform)
	})
}

func checkGolden(t *testing.T, dir string, p *dockerfile.Program) {
	data, err := os.ReadFile(filepath.Join(dir, "golden.json"))
	if err != nil {
		t.Fatal(err)
	}
	type record struct {
		CreatedBy string `json:"created_by"`
		Comment   string `json:"comment"`
		Empty     bool   `json:"empty_layer"`
		Created   string `json:"created"`
	}
	var golden struct {
		Platform string
		Author   string
		Config   map[string]any
		History  []record
	}
	if err := json.Unmarshal(data, &golden); err != nil {
		t.Fatal(err)
	}
	target := p.Target()
	if got := platforms.FormatAll(p.Platform); got != golden.Platform {
		t.Errorf("platform is %s, want %s", got, golden.Platform)
	}
	if target.Config.Author != golden.Author {
		t.Errorf("author is %q, want %q", target.Config.Author, golden.Author)
	}
	var config map[string]any
	if data, err = json.Marshal(target.Config.Config); err == nil {
		err = json.Unmarshal(data, &config)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []map[string]any{config, golden.Config} {
		for k, v := range m {
			if v == nil || reflect.ValueOf(v).IsZero() || (reflect.TypeOf(v).Kind() != reflect.Bool && reflect.TypeOf(v).Kind() != reflect.String && reflect.ValueOf(v).Len() == 0) {
				delete(m, k)
			}
		}
	}
	if !reflect.DeepEqual(config, golden.Config) {
		got, _ := json.Marshal(config)
		want, _ := json.Marshal(golden.Config)
		t.Errorf("config is\n%s\nwant\n%s", got, want)
	}

	// Records of the exporter are made up from layers that have none.
	want := golden.History
	for len(want) > len(target.History) {
		if c := want[len(want)-1].Comment; c != "buildkit.exporter.image.v0" && c != "" {
			break
		}
		want = want[:len(want)-1]
	}
	if len(want) != len(target.History) {
		t.Fatalf("history has %d records, want %d:\n%v\n%v", len(target.History), len(want), target.History, want)
	}
	for i, h := range target.History {
		got := record{CreatedBy: h.CreatedBy, Comment: h.Comment, Empty: h.EmptyLayer}
		got.Created = want[i].Created // the exporter sets it where there is none
		if h.Created != nil && i >= target.BaseHistory {
			got.Created = fmt.Sprint(h.Created.Unix())
		}
		if want[i] == (record{}) && i < target.BaseHistory {
			continue
		}
		if got != want[i] {
			t.Errorf("history[%d] is %+v, want %+v", i, got, want[i])
		}
	}
}

// checkJSON sees that a program is plain data.
func checkJSON(t *testing.T, p *dockerfile.Program) {
	first, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var again dockerfile.Program
	if err := json.Unmarshal(first, &again); err != nil {
		t.Fatal(err)
	}
	second, err := json.Marshal(&again)
	if err != nil {
		t.Fatal(err)
	}
	if string(first) != string(second) {
		t.Errorf("a program changes on the way through JSON:\n%s\n%s", first, second)
	}
}

// problems are those in an error.
func problems(err error) []*diag.Problem {
	var many diag.Problems
	var one *diag.Problem
	switch {
	case errors.As(err, &many):
		return many
	case errors.As(err, &one):
		return []*diag.Problem{one}
	}
	return nil
}
