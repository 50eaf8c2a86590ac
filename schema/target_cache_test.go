package schema_test

import (
	"fmt"
	"testing"

	"kaniko-build/schema"
)

// TestEmptyPlacesKeepNothing reads caches that are in variables.
func TestEmptyPlacesKeepNothing(t *testing.T) {
	for _, c := range []struct{ cache, want string }{
		{"{repo: '${vars.none}'}", "off"},
		{"{repo: '${vars.none}', from: ['${vars.none}']}", "off"},
		{"{repo: '${vars.none}', from: ['${vars.none}', reg.io/a, reg.io/b]}", "reg.io/a [reg.io/b] never"},
		{"{repo: reg.io/a, from: ['${vars.none}']}", "reg.io/a [] auto"},
		{"{from: ['${vars.none}']}", " [] auto"},
	} {
		files := tree("-- kaniko-build.yaml --\nversion: 1\nvars: {none: {default: ''}}\ntargets: {t: {args: {A: '${vars.none}'}, cache: " + c.cache + "}}\n")
		m, err := parseTree(files, schema.Options{})
		if err != nil {
			t.Errorf("%s: %v", c.cache, err)
			continue
		}
		got := "off"
		if k := m.Targets[0].Cache; k != nil {
			got = fmt.Sprintf("%s %v %s", k.Repo, k.From, k.Write)
		}
		if got != c.want {
			t.Errorf("%s: got %s, want %s", c.cache, got, c.want)
		}
	}
}
