package schema_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"

	"kaniko-build/schema"
)

// published is the schema that editors read.
const published = "kaniko-build.schema.json"

func TestJSONSchemaIsPublished(t *testing.T) {
	got, err := schema.JSONSchema()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(published, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(published)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("schema/%s is not what the language is now: run make schema", published)
	}
}

// compiled is the published schema, ready to judge.
func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := os.ReadFile(published)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// judge validates YAML as an editor does.
func judge(t *testing.T, s *jsonschema.Schema, text []byte) error {
	t.Helper()
	var v any
	if err := yaml.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(doc)
}

func TestJSONSchemaTakesWhatParseTakes(t *testing.T) {
	s := compiled(t)
	for _, pattern := range []string{"testdata/good/*.yaml", "testdata/annotated/kaniko-build.yaml", "testdata/annotated/services/*/kaniko-build.yaml", "../examples/*/kaniko-build.yaml", "../kaniko-build.yaml"} {
		for _, file := range files(t, pattern) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := judge(t, s, text); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
}

func TestJSONSchemaRefuses(t *testing.T) {
	s := compiled(t)
	for _, c := range []string{
		"version: 2", "targts: {}", "targets: {A: {}}", "targets: {a: {contxt: .}}", "targets: {a: {stage: [x]}}", "targets: {a: {stage+: x}}", "targets: {a: {skip: always}}",
		"targets: {a: {internal: maybe}}", "targets: {a: {platforms: linux/amd64}}", "targets: {a: {timeout: soon}}", "run: {jobs: -1}", "run: {jobs: many}", "targets: ${vars.x}",
		"targets: {a: {tags: [{if: x}]}}", "targets: {a: {matrix: {go: 1}}}", "profiles: {ci: {include: [a]}}", "secrets: {a: {value: x}}", "vars: {a: {type: number}}", "include: [{git: x}]",
	} {
		if err := judge(t, s, []byte("version: 1\n"+strings.Replace(c, "version: 2", "name: [x]", 1))); err == nil {
			t.Errorf("%s is fine with the schema", c)
		}
	}
}

// TestJSONSchemaExplainsEveryKey looks for keys that an editor could say nothing of.
func TestJSONSchemaExplainsEveryKey(t *testing.T) {
	text, err := os.ReadFile(published)
	if err != nil {
		t.Fatal(err)
	}
	var doc any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	keys := 0
	var look func(path string, v any)
	look = func(path string, v any) {
		switch v := v.(type) {
		case []any:
			for _, item := range v {
				look(path, item)
			}
		case map[string]any:
			if properties, ok := v["properties"].(map[string]any); ok {
				for name, p := range properties {
					keys++
					about, _ := p.(map[string]any)["description"].(string)
					if len(about) < 10 || !strings.HasSuffix(about, ".") {
						t.Errorf("%s.%s is explained by %q", path, name, about)
					}
				}
			}
			for k, child := range v {
				look(filepath.Join(path, k), child)
			}
		}
	}
	look("", doc)
	if keys < 150 {
		t.Errorf("only %d keys", keys)
	}
}
