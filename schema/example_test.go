package schema_test

import (
	"fmt"
	"testing/fstest"

	"kaniko-build/schema"
)

func ExampleParse() {
	files := fstest.MapFS{"kaniko-build.yaml": {Data: []byte(`version: 1
vars: {registry: {default: registry.example.com/shop}}
defaults: {image: "${vars.registry}/${target.base}"}
targets:
  base: {context: images/base}
  api: {context: services/api, dockerfile: //docker/go.Dockerfile}
`)}}
	m, err := schema.Parse(files, "kaniko-build.yaml", schema.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, t := range m.Targets {
		fmt.Println(t.Pos, t.Name, t.Context, t.Dockerfile, t.RefNames())
	}
	// Output:
	// kaniko-build.yaml:5:3 base images/base images/base/Dockerfile [registry.example.com/shop/base:latest]
	// kaniko-build.yaml:6:3 api services/api docker/go.Dockerfile [registry.example.com/shop/api:latest]
}

// A misspelt name is placed and corrected, and all mistakes come at once.
func ExampleParse_mistakes() {
	files := fstest.MapFS{"kaniko-build.yaml": {Data: []byte(`version: 1
targets:
  base: {contxt: images/base}
  api: {context: services/api, needs: [bse]}
`)}}
	_, err := schema.Parse(files, "kaniko-build.yaml", schema.Options{})
	fmt.Println(err)
	// Output:
	// kaniko-build.yaml:3:10: unknown key "contxt"
	//   hint: did you mean "context"?
	// kaniko-build.yaml:4:40: target "api" depends on unknown target "bse"
	//   hint: did you mean "base"?
}
