package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

// monorepo writes a repository with that many targets: a chain of twenty bases, and
// services with a manifest and a Dockerfile each, which extend a template.
func monorepo(tb testing.TB, targets int) (manifest string) {
	tb.Helper()
	dir := tb.TempDir()
	write := func(name, text string) {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	const bases = 20
	root := `version: 1
name: mono
include: [services/*/kaniko-build.yaml]
vars: {registry: {default: "localhost:5000/mono", env: [MONO_REGISTRY]}, stage: {default: dev, enum: [dev, release]}, platforms: {type: list, default: [linux/amd64]}}
secrets: {gh: {env: GITHUB_TOKEN, optional: true}}
defaults:
  image: ${vars.registry}/${target.base}
  tags: ["${env.MONO_TAG:-dev}", {tag: latest, if: "env.MONO_BRANCH == 'main'"}, {tag: "in-${input.digest}", role: identity}]
  platforms: ${vars.platforms}
  labels: {org.opencontainers.image.revision: "${env.MONO_SHA:-none}"}
  cache: {repo: "${vars.registry}/cache"}
  executor: {compression: zstd, reproducible: true}
templates:
  go:
    stage: ${vars.stage}
    args: {SERVICE: "${target.base}", GO_VERSION: "1.25"}
    contexts: {protos: //protos}
    secrets: [gh]
    inputs: {extra: [go.work, "libs/**"], ignore: ["**/*_test.go", "**/*.md"]}
targets:
`
	for i := range bases {
		root += fmt.Sprintf("  base%d: {context: images/b%d, internal: true}\n", i, i)
		from := "scratch"
		if i > 0 {
			from = fmt.Sprintf("localhost:5000/mono/base%d", i-1)
		}
		write(fmt.Sprintf("images/b%d/Dockerfile", i), "FROM "+from+"\nCOPY f /\n")
	}
	write("kaniko-build.yaml", root)
	write("protos/a.proto", "")
	for i := range targets - bases {
		at := fmt.Sprintf("services/s%d/", i)
		write(at+"kaniko-build.yaml", fmt.Sprintf("targets:\n  s%d:\n    extends: [go]\n    context: .\n    groups: [g%d]\n    needs: [base0]\n    args: {PORT: %d}\n", i, i%20, i))
		write(at+"Dockerfile", fmt.Sprintf(`ARG GO_VERSION
FROM golang:${GO_VERSION} AS build
ARG SERVICE
WORKDIR /src
COPY --from=protos . /protos
COPY . .
RUN --mount=type=secret,id=gh --mount=type=cache,target=/root/.cache go build -o /out/${SERVICE} .
FROM localhost:5000/mono/base%d AS dev
COPY --from=build /out/ /
ENTRYPOINT ["/app"]
FROM dev AS release
`, i%bases))
	}
	return filepath.Join(dir, "kaniko-build.yaml")
}

// planOf reads a manifest and plans all of it.
func planOf(tb testing.TB, manifest string) int {
	tb.Helper()
	f := manifestFlags{files: []string{manifest}}
	w, err := f.read(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	p, err := w.plan(nil)
	if err != nil {
		tb.Fatal(err)
	}
	return len(p.Order)
}

func TestPlanOfAMonorepo(t *testing.T) {
	if got := planOf(t, monorepo(t, 100)); got != 100 {
		t.Errorf("%d nodes", got)
	}
}

// BenchmarkPlan1000 is to stay below 300 ms and 200 MB on two cores that do nothing
// else. The memory is the most that the process had: run it alone.
func BenchmarkPlan1000(b *testing.B) {
	manifest := monorepo(b, 1000)
	for b.Loop() {
		if got := planOf(b, manifest); got != 1000 {
			b.Fatalf("%d nodes", got)
		}
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	if m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status); m != nil {
		kb, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(kb/1024, "MB-peak")
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/plan")
}
