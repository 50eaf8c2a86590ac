package schema_test

import (
	"bytes"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"kaniko-build/schema"
)

const commit = "4f2c9d1e8b7a6c5d4e3f2a1b0c9d8e7f6a5b4c3d"

// inRepository is options with one repository that has these files.
func inRepository(files string) schema.Options {
	return schema.Options{
		LookupEnv: env("HOST", "x", "KANIKO_BUILD_VAR_GO", "env", "GO", "env"),
		Repository: func(url, ref string) (fs.FS, string, error) {
			if url != "https://git.example.com/plat/images.git" && url != "ssh://git@git.example.com/plat/images.git" {
				return nil, "", errors.New("there is no repository " + url)
			}
			return tree(files), commit, nil
		},
	}
}

const including = "-- kaniko-build.yaml --\nversion: 1\ninclude:\n  - {git: \"https://git.example.com/plat/images.git\", ref: " + commit + ", path: base/kaniko-build.yaml, prefix: plat/, with: {go: \"${vars.mine}\"}}\nvars: {mine: {default: \"1.25\"}}\ndefaults: {labels: {team: \"${vars.mine}\"}}\n"

func TestFilesOfRepositories(t *testing.T) {
	opts := inRepository(`-- base/kaniko-build.yaml --
include: [more/*.yaml]
vars: {go: {default: "1.0", env: [GO]}, other: {default: o, env: [HOST]}}
templates: {t: {stage: s}}
targets:
  base: {extends: [t], args: {GO: "${vars.go}", OTHER: "${vars.other}"}, dockerfile: //docker/Dockerfile}
  up: {context: ../docker, contexts: {b: "target:base"}}
-- base/more/a.yaml --
targets: {more: {context: .}}
-- docker/Dockerfile --
`)
	m, err := parseTree(tree(including+"targets: {api: {extends: [plat/t], contexts: {base: \"target:plat/base\"}}, far: {context: \"git:https://git.example.com/plat/images.git#v1:docker\"}}\n"), opts)
	if err != nil {
		t.Fatal(err)
	}
	root := "git:git.example.com/plat/images.git@" + commit
	for _, c := range []struct{ name, context, dockerfile string }{
		{"plat/base", root + "/base", root + "/docker/Dockerfile"},
		{"plat/up", root + "/docker", root + "/docker/Dockerfile"},
		{"plat/more", root + "/base/more", root + "/base/more/Dockerfile"},
		{"api", ".", "Dockerfile"},
		{"far", root + "/docker", root + "/docker/Dockerfile"},
	} {
		got := m.Target(c.name)
		if got == nil || got.Context != c.context || got.Dockerfile != c.dockerfile {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
	if got := m.Target("plat/base"); got.Args["GO"] != "1.25" || got.Args["OTHER"] != "o" || got.Labels["team"] != "1.25" {
		t.Errorf("args %v, labels %v: with counts, the environment does not, defaults of the includer do", got.Args, got.Labels)
	}
	if len(m.Repositories) != 1 || m.Repositories[0].Root != root || m.Repositories[0].Commit != commit {
		t.Errorf("repositories %+v", m.Repositories)
	}
	var b bytes.Buffer
	if err := m.Print(&b, []string{"plat/base", "far"}, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"context: git:https://git.example.com/plat/images.git#" + commit + ":base", "context: git:https://git.example.com/plat/images.git#" + commit + ":docker"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("print lacks %s:\n%s", want, b.String())
		}
	}
}

func TestFilesOfRepositoriesAreSealed(t *testing.T) {
	for _, c := range []struct{ name, files, allow, want string }{
		{"env", "targets: {a: {stage: \"${env.HOST}\"}}", "env", "${env.HOST}: a file of another repository does not see the environment"},
		{"hooks", "targets: {a: {hooks: {before: [{run: make}]}}}", "hooks", "cannot have hooks"},
		{"hooks of a cell", "targets: {a: {matrix: {x: [\"1\"], include: [{x: \"2\", set: {hooks: {after: [{run: make}]}}}]}}}", "hooks", "cannot have hooks"},
		{"hooks of a template", "templates: {t: {hooks: {before: [{run: make}]}}}\ntargets: {a: {extends: [t]}}", "hooks", "cannot have hooks"},
		{"secrets", "secrets: {s: {env: HOST}}\ntargets: {a: {secrets: [s]}}", "secrets", "cannot have secrets"},
		{"secrets of the includer", "targets: {a: {secrets: [mine]}}", "", "cannot have secrets"},
		{"ssh", "targets: {a: {ssh: [default]}}", "ssh", "cannot have ssh"},
		{"a context by ssh", "targets: {a: {context: \"git:git@git.example.com:plat/images.git#" + commit + ":docker\"}}", "ssh", "cannot have repositories by ssh"},
		{"a named one by ssh", "targets: {a: {contexts: {c: \"git:ssh://git@git.example.com/plat/images.git#" + commit + "\"}}}", "ssh", "cannot have repositories by ssh"},
		{"registries", "registries: {docker.io: {mirrors: [evil.example.com]}}\ntargets: {a: {}}", "registries", "cannot have registries"},
		{"outputs", "targets: {a: {outputs: [{type: local, dest: out}]}}", "outputs", "cannot have outputs"},
		{"outside", "targets: {a: {context: ../..}}", "", "leaves the repository"},
		{"absolute", "targets: {a: {contexts: {x: /etc}}}", "", "leaves the repository"},
		{"home", "targets: {a: {context: ~/x}}", "", "leaves the workspace"},
		{"a cache elsewhere", "targets: {a: {cache: {repo: \"oci:/tmp/x\"}}}", "", "leaves the repository"},
		{"variables of the includer", "targets: {a: {stage: \"${vars.mine}\"}}", "", `unknown variable "mine"`},
		{"a context that moves", "targets: {a: {context: \"git:https://git.example.com/plat/images.git#main\"}}", "unpinned", "needs a commit for its contexts"},
		{"a named one", "targets: {a: {contexts: {c: \"git:https://git.example.com/plat/images.git#main\"}}}", "unpinned", "needs a commit for its contexts"},
	} {
		t.Run(c.name, func(t *testing.T) {
			opts := inRepository("-- base/kaniko-build.yaml --\nvars: {go: {default: x}}\n" + c.files + "\n")
			files := tree(including + "secrets: {mine: {env: HOST}}\ntargets: {own: {secrets: [mine]}}\n")
			m, err := parseTree(files, opts)
			got := mistake(m, err)
			if !strings.Contains(got, c.want) || !strings.Contains(got, "git:git.example.com/plat/images.git@"+commit+"/base/kaniko-build.yaml:") {
				t.Errorf("got %s, want %s with its place", got, c.want)
			}
			opts.Allow = []string{c.allow}
			if m, err := parseTree(files, opts); c.allow != "" && err != nil {
				t.Errorf("with --allow=%s: %s", c.allow, mistake(m, err))
			}
		})
	}
}

func TestMistakesOfRepositories(t *testing.T) {
	const at = "{git: \"https://git.example.com/plat/images.git\", ref: " + commit + ", path: "
	for _, c := range []struct{ include, want string }{
		{"{git: \"https://git.example.com/plat/images.git\", path: b.yaml}", "a repository that is included needs a commit"},
		{"{git: \"https://git.example.com/plat/images.git\", ref: main, path: b.yaml}", `"main" may be something else tomorrow`},
		{"{git: images, ref: " + commit + ", path: b.yaml}", `"images" is not the address of a repository`},
		{"{git: \"https://git.example.com/none.git\", ref: " + commit + ", path: b.yaml}", "kaniko-build.yaml:2:17: there is no repository https://git.example.com/none.git"},
		{at + "none.yaml}", "there is no file git:git.example.com"},
		{at + "\"../../b.yaml\"}", ""},
		{at + "b.yaml, with: {nine: 1}}", `with gives unknown variable "nine"`},
		{"{path: b.yaml, with: {x: 1}}", `"with" is for files of another repository`},
		{at + "big.yaml}", "is larger than 2 MB"},
	} {
		opts := inRepository("-- b.yaml --\nvars: {mine: {default: x}}\ntargets: {b: {stage: \"${vars.mine}\"}}\n-- big.yaml --\n" + strings.Repeat("# much\n", 400_000))
		m, err := parseTree(fstest.MapFS{"kaniko-build.yaml": {Data: []byte("version: 1\ninclude: [" + c.include + "]\ntargets: {a: {}}\n")}}, opts)
		if got := mistake(m, err); c.want == "" && err != nil || !strings.Contains(got, c.want) {
			t.Errorf("%s\ngot  %s\nwant %s", c.include, got, c.want)
		}
	}
}

// A main context may be an archive on the web, whose digest is a part of its paths.
func TestContextsOfArchives(t *testing.T) {
	const sum = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
	var asked []string
	opts := inRepository("-- base/kaniko-build.yaml --\nvars: {go: {default: x}}\ntargets: {a: {context: \"https://example.com/src.tgz\"}}\n")
	opts.Archive = func(url, want string) (string, error) {
		asked = append(asked, url+" "+want)
		if strings.Contains(url, "none") {
			return "", errors.New("there is nothing")
		}
		return sum, nil
	}
	m, err := parseTree(tree("-- kaniko-build.yaml --\nversion: 1\ntargets:\n"+
		"  a: {context: \"https://example.com/src.tgz\"}\n"+
		"  b: {context: \"https://example.com/src.tgz#:sub/dir\", dockerfile: ../Dockerfile.b}\n"+
		"  c: {context: \"http://example.com/src@2.tgz#sha256:"+sum+":sub\"}\n"), opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, context, dockerfile, printed string }{
		{"a", "https:example.com/src.tgz@" + sum, "https:example.com/src.tgz@" + sum + "/Dockerfile", "https://example.com/src.tgz#sha256:" + sum},
		{"b", "https:example.com/src.tgz@" + sum + "/sub/dir", "https:example.com/src.tgz@" + sum + "/sub/Dockerfile.b", "https://example.com/src.tgz#sha256:" + sum + ":sub/dir"},
		{"c", "http:example.com/src_2.tgz@" + sum + "/sub", "http:example.com/src_2.tgz@" + sum + "/sub/Dockerfile", "http://example.com/src@2.tgz#sha256:" + sum + ":sub"},
	} {
		got := m.Target(c.name)
		if got.Context != c.context || got.Dockerfile != c.dockerfile {
			t.Errorf("%s: %s, %s", c.name, got.Context, got.Dockerfile)
		}
		var b bytes.Buffer
		if err := m.Print(&b, []string{c.name}, false); err != nil || !strings.Contains(b.String(), c.printed) {
			t.Errorf("%v: print lacks %s:\n%s", err, c.printed, b.String())
		}
	}
	if len(asked) != 2 || asked[1] != "http://example.com/src@2.tgz "+sum {
		t.Errorf("it was asked for %q", asked)
	}
	for _, c := range []struct{ context, want string }{
		{"http://example.com/src.tgz", "what comes by plain http may be changed on its way"},
		{"https://example.com/src.tgz#main", `"#main" says nothing of an archive`},
		{"https://example.com/src.tgz#sha256:12", `"12" is no SHA-256`},
		{"https://example.com/src.git", "is the address of a git repository"},
		{"https://user:secret@example.com/src.tgz", "xxxxx@example.com/src.tgz\": the address of an archive has no user"},
		{"https://example.com", "is not the address of an archive"},
		{"https://example.com/none.tgz", "there is nothing"},
	} {
		m, err := parseTree(tree("-- kaniko-build.yaml --\nversion: 1\ntargets: {a: {context: \""+c.context+"\"}}\n"), opts)
		if got := mistake(m, err); !strings.Contains(got, c.want) || !strings.Contains(got, "kaniko-build.yaml:2:24:") {
			t.Errorf("%s: got %s, want %s", c.context, got, c.want)
		}
	}
	m, err = parseTree(tree(including), opts)
	if got := mistake(m, err); !strings.Contains(got, "needs the digest of its archives") {
		t.Errorf("in another repository: %s", got)
	}
	opts.Allow = []string{"unpinned"}
	if m, err = parseTree(tree(including+"targets: {own: {}}\n"), opts); err != nil {
		t.Errorf("with --allow=unpinned: %s", mistake(m, err))
	}
}
