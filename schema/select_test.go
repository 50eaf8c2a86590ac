package schema_test

import (
	"errors"
	"strings"
	"testing"

	"kaniko-build/schema"
)

const selectable = `version: 1
targets:
  base: {internal: true}
  lib: {}
  api: {groups: [backend]}
  worker: {groups: [backend]}
  web-a: {}
  web-b: {}
groups:
  webs: ["web-*", "!web-b"]
  all: ["@backend", "@webs"]
  up: ["...lib"]
`

// edgesOf is who needs whom in selectable.
func edgesOf() (map[string][]string, error) {
	return map[string][]string{"lib": {"base"}, "api": {"lib"}, "worker": {"lib"}, "web-a": {"api"}}, nil
}

func TestSelect(t *testing.T) {
	m, err := parse(selectable, schema.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ patterns, want string }{
		{"", "lib api worker web-a web-b"},
		{"worker api", "api worker"},
		{"base", "base"},
		{"*", "lib api worker web-a web-b"},
		{"**", "lib api worker web-a web-b"},
		{"web-?", "web-a web-b"},
		{"@backend", "api worker"},
		{"@webs", "web-a"},
		{"@all", "api worker web-a"},
		{"@all !worker", "api web-a"},
		{"!worker @all", "api web-a"},
		{"!@backend", "lib web-a web-b"},
		{"* !web-*", "lib api worker"},
		{"api...", "base lib api"},
		{"...api", "api web-a"},
		{"...api...", "base lib api web-a"},
		{"...lib", "lib api worker web-a"},
		{"@up", "lib api worker web-a"},
		{"* !...api", "lib worker web-b"},
		{"web-*...", "base lib api web-a web-b"},
		{"api !nothing-*", "api"},
	} {
		got, err := m.Select(strings.Fields(c.patterns), edgesOf)
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%q\ngot  %v %v\nwant %s", c.patterns, got, err, c.want)
		}
	}
	for _, c := range []struct{ patterns, want string }{
		{"apo", "unknown target \"apo\"\n  hint: did you mean \"api\"?"},
		{"webs", "unknown target \"webs\"\n  hint: write @webs for the group"},
		{"@wbs", "unknown group \"wbs\"\n  hint: did you mean \"webs\"?"},
		{"!apo", "unknown target \"apo\""},
		{"x-*", "no target matches \"x-*\""},
		{"bas*", "no target matches \"bas*\""},
		{"api !api", "nothing is selected"},
		{"apo wrker", "unknown target \"apo\"\n  hint: did you mean \"api\"?\nunknown target \"wrker\""},
	} {
		got, err := m.Select(strings.Fields(c.patterns), edgesOf)
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%q\ngot  %v %v\nwant %s", c.patterns, got, err, c.want)
		}
	}
	broken := errors.New("no Dockerfile")
	if _, err := m.Select([]string{"api..."}, func() (map[string][]string, error) { return nil, broken }); err == nil || !strings.Contains(err.Error(), "no Dockerfile") {
		t.Errorf("an error of the edges is lost: %v", err)
	}
	if _, err := m.Select([]string{"api"}, func() (map[string][]string, error) { return nil, broken }); err != nil {
		t.Errorf("edges were asked for without need: %v", err)
	}
}

func TestGroupDefaultReplacesEverything(t *testing.T) {
	m, err := parse("version: 1\ntargets: {a: {}, b: {}, c: {internal: true}}\ngroups: {default: [a, c]}\n", schema.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ patterns, want string }{{"", "a c"}, {"!a", "c"}, {"b", "b"}, {"@default", "a c"}} {
		if got, err := m.Select(strings.Fields(c.patterns), nil); err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%q is %v %v, want %s", c.patterns, got, err, c.want)
		}
	}
}

func TestTargetDefaultIsWhatIsBuiltByDefault(t *testing.T) {
	m, err := parse("version: 1\ntargets: {default: {}, other: {}}\n", schema.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := m.Select(nil, nil); err != nil || len(got) != 1 || got[0] != "default" {
		t.Errorf("got %v, %v", got, err)
	}
}
