package dropin

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"kaniko-build/executor"
	"kaniko-build/executor/runner/local"
	"kaniko-build/test/certificate"
)

func TestMain(m *testing.M) {
	if code, ok := local.Reexec(); ok {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// call runs a command in this process, with its store in state.
func call(t *testing.T, state, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return callWith(t, nil, state, stdin, args...)
}

// callWith is call with a client for what is put to the web.
func callWith(t *testing.T, web *http.Client, state, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	p := Program{
		Version: "v1.2.3", In: strings.NewReader(stdin), Out: &out, Err: &errs, Web: web,
		Runner: func(bool) executor.Runner { return &local.Runner{} },
		State:  func() (string, error) { return state, nil },
	}
	c := p.Executor()
	if args[0] == "warmer" {
		c = p.Warmer()
	}
	c.SetArgs(args[1:])
	err := c.ExecuteContext(t.Context())
	if f, ok := err.(*Failure); ok { //nolint:errorlint // it is not wrapped
		code = f.Code
	} else if err != nil {
		t.Errorf("%q: an error without exit code: %v", args, err)
	}
	return code, out.String(), errs.String()
}

func lines(t *testing.T, name, dir string) [][]string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	var out [][]string
	for l := range strings.Lines(string(b)) {
		l = strings.TrimSpace(l)
		note := strings.Contains(l, "\t#")
		l, _, _ = strings.Cut(l, "\t#")
		if l = strings.TrimSpace(l); l == "" || strings.HasPrefix(l, "#") {
			continue
		}
		f := strings.Fields(strings.ReplaceAll(l, "$D", dir))
		if note {
			f = append([]string{"parses"}, f...)
		}
		out = append(out, f)
	}
	return out
}

// workspace is a directory with what the values of flags.txt name.
func workspace(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cert, key, err := certificate.New()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"Dockerfile": "FROM scratch AS first\nFROM first AS last\nARG VERSION\nLABEL a=$VERSION\n", "sub/Dockerfile": "FROM scratch\nLABEL sub=1\n",
		"secret": "s", "ca.pem": string(cert), "cert.pem": string(cert), "key.pem": string(key),
	} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestEveryFlagBuilds builds an image from nothing with each flag.
func TestEveryFlagBuilds(t *testing.T) {
	dir, state := workspace(t), t.TempDir()
	t.Setenv("KANIKO_BUILD_STATE", state) // not where --kaniko-dir says
	for _, flag := range lines(t, "flags.txt", dir) {
		t.Run(strings.Join(flag, " "), func(t *testing.T) {
			if flag[0] == "parses" {
				s := &settings{}
				f := pflag.NewFlagSet("executor", pflag.ContinueOnError)
				s.add(f)
				if err := f.Parse(flag[1:]); err != nil {
					t.Error(err)
				}
				return
			}
			code, _, stderr := call(t, state, "", append([]string{"executor", "--context", dir, "--no-push", "--destination", "registry.invalid/x:1"}, flag...)...)
			if code != 0 {
				t.Errorf("code %d\n%s", code, stderr)
			}
		})
	}
	for _, flag := range lines(t, "warmer-flags.txt", dir) {
		f := pflag.NewFlagSet("warmer", pflag.ContinueOnError)
		(&warmSettings{}).add(f)
		if err := f.Parse(flag); err != nil || f.NFlag() != 1 {
			t.Errorf("warmer %q: %v", flag, err)
		}
	}
}

// TestTheListHasEveryFlag compares the list with the code.
func TestTheListHasEveryFlag(t *testing.T) {
	listed := map[string]bool{}
	for _, flag := range lines(t, "flags.txt", "x") {
		for _, w := range flag {
			if name, ok := strings.CutPrefix(w, "--"); ok {
				name, _, _ = strings.Cut(name, "=")
				listed[name] = true
			}
		}
	}
	f := pflag.NewFlagSet("executor", pflag.ContinueOnError)
	(&settings{}).add(f)
	f.VisitAll(func(fl *pflag.Flag) {
		if !listed[fl.Name] {
			t.Errorf("--%s is not in testdata/flags.txt", fl.Name)
		}
		delete(listed, fl.Name)
	})
	for name := range listed {
		t.Errorf("there is no --%s", name)
	}
}

func TestFlagsThatDoNothingSaySoOnce(t *testing.T) {
	dir := workspace(t)
	_, _, stderr := call(t, t.TempDir(), "", "executor", "-c", dir, "--no-push", "--use-new-run", "--materialize", "--cleanup", "--dryrun=false", "--log-format=text")
	if n := strings.Count(stderr, "does nothing here"); n != 2 {
		t.Errorf("%d warnings, want 2:\n%s", n, stderr)
	}
}

func TestGitPairs(t *testing.T) {
	var g gitValue
	for _, s := range []string{"branch=main", "recurse-submodules=true,depth=3", "single-branch=true"} {
		if err := g.Set(s); err != nil {
			t.Error(err)
		}
	}
	if g.branch != "main" || !g.submodules || g.depth != 3 {
		t.Errorf("got %+v", g)
	}
	for _, s := range []string{"branch", "colour=red", "depth=x", "depth=-1", "branch=a,colour=red"} {
		if err := g.Set(s); err == nil {
			t.Errorf("%q is taken", s)
		}
	}
}
