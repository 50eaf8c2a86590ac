// Casetool works on the corpus as a whole.
//
//	casetool list CASES                 names and descriptions
//	casetool prepare CASE DIR           lay one case out in DIR; print its inputs as JSON
//	casetool serve NAME DIR             serve DIR at http://127.0.0.1:8930/NAME/ until killed
//	casetool push LAYOUT REGISTRY       push the base images to REGISTRY/library/NAME:latest
//	casetool goldens [flags] CASES...   make (or with -check, compare) goldens with BuildKit
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"kaniko-build/test/conformance/corpus"
	"kaniko-build/test/image"
)

func main() {
	if len(os.Args) < 2 {
		usage()
	}
	args := os.Args[2:]
	var err error
	switch os.Args[1] {
	case "list":
		need(args, 1)
		err = list(args[0])
	case "prepare":
		need(args, 2)
		err = prepare(args[0], args[1])
	case "serve":
		need(args, 2)
		var stop func()
		if stop, err = serve(args[0], args[1]); err == nil {
			defer stop()
			select {}
		}
	case "push":
		need(args, 2)
		err = push(args[0], args[1])
	case "goldens":
		err = goldens(args)
	default:
		usage()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "casetool:", err)
		os.Exit(1)
	}
}

func usage() {
	fmt.Fprintln(os.Stderr, `usage:
  casetool list CASES
  casetool prepare CASE DIR
  casetool serve NAME DIR
  casetool push LAYOUT REGISTRY
  casetool goldens [-check] [-run REGEXP] [-base LAYOUT] [-buildctl "CMD"] CASES...`)
	os.Exit(2)
}

func need(args []string, n int) {
	if len(args) != n {
		usage()
	}
}

func list(dir string) error {
	all, err := corpus.LoadAll(dir)
	if err != nil {
		return err
	}
	for _, c := range all {
		fmt.Printf("%-34s %-5s %s\n", c.Name, c.Expect, c.Description)
	}
	return nil
}

func prepare(src, dir string) error {
	c, err := corpus.Load(src)
	if err != nil {
		return err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	p, err := c.Prepare(dir)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(p)
}

// serve offers dir over HTTP.
func serve(name, dir string) (stop func(), err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := corpus.Serve(ctx)
	if err != nil {
		return nil, err
	}
	s.Offer(name, dir)
	return func() { s.Close() }, nil
}

func push(dir, registry string) error {
	refs, err := image.Push(context.Background(), dir, registry)
	if err != nil {
		return err
	}
	for _, r := range refs {
		fmt.Println(r)
	}
	return nil
}

type maker struct {
	buildctl []string
	known    [][]string
	check    bool
}

func goldens(args []string) error {
	fl := flag.NewFlagSet("goldens", flag.ExitOnError)
	check := fl.Bool("check", false, "compare with the goldens there are instead of writing")
	run := fl.String("run", "", "only cases whose name matches")
	base := fl.String("base", "images", "OCI layout with the base images")
	bk := fl.String("buildctl", "buildctl", "command that runs buildctl, with its --addr")
	fl.Parse(args)
	re, err := regexp.Compile(*run)
	if err != nil {
		return err
	}
	m := &maker{buildctl: strings.Fields(*bk), check: *check}
	if m.known, err = image.Chains(*base); err != nil {
		return err
	}
	done, bad := 0, 0
	for _, dir := range fl.Args() {
		all, err := corpus.LoadAll(dir)
		if err != nil {
			return err
		}
		for _, c := range all {
			if !re.MatchString(c.Name) {
				continue
			}
			done++
			if err := m.one(c); err != nil {
				bad++
				fmt.Printf("FAIL %s: %v\n", c.Name, err)
			} else {
				fmt.Printf("ok   %s\n", c.Name)
			}
		}
	}
	fmt.Printf("%d cases, %d failed\n", done, bad)
	if bad > 0 {
		return errors.New("some cases failed")
	}
	return nil
}

func (m *maker) one(c *corpus.Case) error {
	tmp, err := os.MkdirTemp("", "case-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	p, err := c.Prepare(filepath.Join(tmp, "case"))
	if err != nil {
		return err
	}
	if p.Strip {
		if err := stripSyntax(filepath.Join(p.Dir, p.Dockerfile)); err != nil {
			return err
		}
	}
	if _, err := os.Stat(filepath.Join(p.Dir, "www")); err == nil {
		stop, err := serve(c.Name, filepath.Join(p.Dir, "www"))
		if err != nil {
			return err
		}
		defer stop()
	}
	// BuildKit keeps what a client sent as "context" and only brings it up to
	// date the next time, which spoils the times of directories.
	prune := append(slices.Clone(m.buildctl[1:]), "prune", "--filter", "type==source.local")
	if text, err := exec.Command(m.buildctl[0], prune...).CombinedOutput(); err != nil {
		return fmt.Errorf("prune: %w\n%s", err, tail(text, 5))
	}
	out := filepath.Join(tmp, "image.tar")
	cmd := m.command(p, out)
	text, err := cmd.CombinedOutput()
	golden := filepath.Join(c.Dir, "golden.json")
	if c.Expect == "error" {
		if err == nil {
			return errors.New("BuildKit builds it, but an error is expected")
		}
		if m.check {
			return nil
		}
		return m.checkError(p, string(text))
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, tail(text, 12))
	}
	img, err := image.Open(out, c.Platform)
	if err != nil {
		return err
	}
	defer img.Close()
	d, err := image.Describe(img, m.known, -1)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := d.WriteJSON(&b); err != nil {
		return err
	}
	if !m.check {
		return os.WriteFile(golden, b.Bytes(), 0o644)
	}
	old, err := os.ReadFile(golden)
	if err != nil {
		return err
	}
	if bytes.Equal(old, b.Bytes()) {
		return nil
	}
	want, err := image.ReadDump(golden)
	if err != nil {
		return err
	}
	return fmt.Errorf("golden differs:\n  %s", strings.Join(image.Diff(want, d,
		image.DiffOptions{Layers: true, History: true, Created: true, Media: true}), "\n  "))
}

func (m *maker) command(p *corpus.Case, out string) *exec.Cmd {
	df := filepath.Join(p.Dir, p.Dockerfile)
	output := "type=oci,dest=" + out
	if p.Rewrite {
		output += ",rewrite-timestamp=true"
	}
	a := append([]string{}, m.buildctl[1:]...)
	a = append(a, "build", "--progress=plain", "--no-cache", "--frontend", "dockerfile.v0", "--output", output)
	opt := func(k, v string) { a = append(a, "--opt", k+"="+v) }
	local := func(n, dir string) { a = append(a, "--local", n+"="+dir) }
	local("context", filepath.Join(p.Dir, "context"))
	local("dockerfile", filepath.Dir(df))
	opt("filename", filepath.Base(df))
	if p.Target != "" {
		opt("target", p.Target)
	}
	if p.Platform != "" {
		opt("platform", p.Platform)
	}
	for k, v := range p.BuildArgs {
		opt("build-arg:"+k, v)
	}
	for k, v := range p.Labels {
		opt("label:"+k, v)
	}
	for i, s := range p.Secrets {
		f := filepath.Join(p.Dir, s.File)
		if s.File == "" {
			f = filepath.Join(p.Dir, fmt.Sprintf(".secret%d", i))
			os.WriteFile(f, []byte(s.Value), 0o600)
		}
		a = append(a, "--secret", "id="+s.ID+",src="+f)
	}
	for _, s := range p.SSH {
		a = append(a, "--ssh", s.ID+"="+filepath.Join(p.Dir, s.Key))
	}
	for k, v := range p.NamedContexts {
		kind, arg, _ := strings.Cut(v, ":")
		if kind == "image" {
			opt("context:"+k, "docker-image://"+arg)
			continue
		}
		local("named-"+k, filepath.Join(p.Dir, arg))
		opt("context:"+k, "local:named-"+k)
	}
	cmd := exec.Command(m.buildctl[0], a...)
	cmd.Env = os.Environ()
	for k, v := range p.Env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	return cmd
}

// checkError tells where BuildKit's own message falls short of what the case
// asks of a good one. That is no failure, only news.
func (m *maker) checkError(c *corpus.Case, text string) error {
	want := c.Errors
	for _, w := range want {
		if !slices.ContainsFunc(strings.Split(w, "|"), func(s string) bool { return strings.Contains(text, s) }) {
			fmt.Printf("note %s: BuildKit does not say %q; it says: %s\n", c.Name, w, lastError(text))
		}
	}
	if c.ErrorAt != "" {
		_, line, _ := strings.Cut(c.ErrorAt, ":")
		if !strings.Contains(text, c.ErrorAt+"\n") && !strings.Contains(text, "on line "+line+":") && !strings.Contains(text, c.ErrorAt) {
			fmt.Printf("note %s: BuildKit does not name %s; it says: %s\n", c.Name, c.ErrorAt, lastError(text))
		}
	}
	return nil
}

func lastError(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

func stripSyntax(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	lines := strings.SplitAfter(string(b), "\n")
	for i, l := range lines {
		if strings.HasPrefix(strings.ReplaceAll(l, " ", ""), "#syntax=") {
			lines[i] = "# (syntax line)\n"
		}
	}
	return os.WriteFile(file, []byte(strings.Join(lines, "")), 0o644)
}

func tail(b []byte, n int) string {
	l := strings.Split(strings.TrimSpace(string(b)), "\n")
	if len(l) > n {
		l = l[len(l)-n:]
	}
	return strings.Join(l, "\n")
}
