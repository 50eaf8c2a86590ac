package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"kaniko-build/cmd/kaniko-build/internal/importer"
	"kaniko-build/executor"
	"kaniko-build/schema"
)

// bakePatience is how long bake may take to say what it would build.
const bakePatience = 30 * time.Second

// baked is a target as bake prints it.
type baked struct {
	Context    string
	Dockerfile string
	Inline     string `json:"dockerfile-inline"`
	Stage      string `json:"target"`
	Args       map[string]*string
	Labels     map[string]*string
	Tags       []string
	Platforms  []string
	NoCache    bool `json:"no-cache"`
}

// bakeCommand is the command line of bake, nil if it is not installed.
func bakeCommand(ctx context.Context) []string {
	for _, argv := range [][]string{{"docker", "buildx"}, {"buildx"}} {
		if exec.CommandContext(ctx, argv[0], append(argv[1:], "version")...).Run() == nil {
			return append(argv, "bake")
		}
	}
	return nil
}

// compareBake tells where the manifest says something else of a target than bake does,
// which reads compose files too. Without bake nothing is told.
func (t terminal) compareBake(ctx context.Context, d *importer.Draft, files []importer.File, m *schema.Manifest, root string, compose bool) {
	ctx, cancel := context.WithTimeout(ctx, bakePatience)
	defer cancel()
	argv := bakeCommand(ctx)
	if argv == nil {
		return
	}
	argv = append(argv, "--print")
	for _, f := range files {
		argv = append(argv, "-f", f.Name)
	}
	var names []string
	for _, target := range d.Targets {
		names = append(names, target.Name)
	}
	var out struct{ Target map[string]baked }
	var failed error
	for _, more := range [][]string{names, nil} { // a matrix, or what has another name here, is no target there
		var said bytes.Buffer
		c := exec.CommandContext(ctx, argv[0], append(slices.Clone(argv[1:]), more...)...)
		c.Stderr = &said
		b, err := c.Output()
		if err == nil {
			err = json.Unmarshal(b, &out)
		}
		if failed = err; err == nil {
			break
		}
		lines := strings.Split(strings.TrimSpace(said.String()), "\n")
		failed = fmt.Errorf("%w: %s", err, lines[len(lines)-1])
	}
	if failed != nil {
		fmt.Fprintf(t.err, "note: %s cannot be compared with: %s\n", strings.Join(argv[:len(argv)-2*len(files)], " "), printable(failed.Error()))
		return
	}
	var differ []string
	same := 0
	for _, name := range sortedNames(out.Target) {
		ours := m.Target(importer.Name(name))
		if ours == nil {
			differ = append(differ, name+": there is no such target")
			continue
		}
		found := differences(out.Target[name], ours, root, compose)
		if len(found) == 0 {
			same++
		}
		for _, f := range found {
			differ = append(differ, name+": "+f)
		}
	}
	fmt.Fprintf(t.err, "bake --print says the same of %d of %d targets\n", same, len(out.Target))
	for _, line := range differ {
		fmt.Fprintln(t.err, " ", printable(line))
	}
}

func sortedNames(m map[string]baked) []string {
	var out []string
	for name := range m {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// differences are what bake says of a target and the manifest in another way. root is
// the workspace; bake's paths count from the working directory.
func differences(theirs baked, ours *schema.Target, root string, compose bool) []string {
	var out []string
	differ := func(what, a, b string) {
		if a != b {
			out = append(out, fmt.Sprintf("%s is %q with bake, %q in the manifest", what, a, b))
		}
	}
	here, err := os.Getwd()
	if err != nil {
		return []string{err.Error()}
	}
	if _, remote := importer.Remote(theirs.Context); !remote {
		at := resolve(here, strings.TrimPrefix(theirs.Context, "cwd://"))
		mine := resolve(root, ours.Context)
		differ("context", at, mine)
		if theirs.Inline == "" && ours.Inline == nil {
			file := theirs.Dockerfile
			if file == "" {
				file = "Dockerfile"
			}
			if rest, ok := strings.CutPrefix(file, "cwd://"); ok {
				at, file = here, rest
			}
			differ("dockerfile", resolve(at, file), resolve(root, ours.Dockerfile))
		}
	}
	if inline := ours.Inline; theirs.Inline != "" || inline != nil {
		text := ""
		if inline != nil {
			text = inline.Text
		}
		differ("dockerfile-inline", strings.TrimSpace(theirs.Inline), strings.TrimSpace(text))
	}
	differ("target", theirs.Stage, ours.Stage)
	for _, pair := range []struct {
		what   string
		theirs map[string]*string
		ours   map[string]string
	}{{"args", theirs.Args, ours.Args}, {"labels", theirs.Labels, ours.Labels}} {
		keys := map[string]bool{}
		for k, v := range pair.theirs {
			keys[k] = v != nil
		}
		for k := range pair.ours {
			keys[k] = true
		}
		var names []string
		for k, is := range keys {
			if is {
				names = append(names, k)
			}
		}
		slices.Sort(names)
		for _, k := range names {
			a, b := "(none)", "(none)"
			if v := pair.theirs[k]; v != nil {
				a = *v
			}
			if v, ok := pair.ours[k]; ok {
				b = v
			}
			differ(pair.what+"."+k, a, b)
		}
	}
	names := ours.RefNames()
	if compose { // which names an image by its tags too, where bake takes these alone
		names = slices.DeleteFunc(slices.Clone(names), func(n string) bool {
			return !slices.ContainsFunc(theirs.Tags, func(t string) bool { return fullName(t) == fullName(n) })
		})
	}
	if len(theirs.Tags) > 0 { // a target of ours always has a name
		differ("tags", sortedList(theirs.Tags, fullName), sortedList(names, fullName))
	}
	platforms := slices.DeleteFunc(slices.Clone(theirs.Platforms), func(p string) bool { return p == "local" })
	differ("platforms", sortedList(platforms, schema.NormalPlatform), sortedList(ours.Platforms, schema.NormalPlatform))
	differ("no-cache", fmt.Sprint(theirs.NoCache), fmt.Sprint(ours.NoCache))
	return out
}

// resolve is a path from a directory, without links where it is there.
func resolve(dir, name string) string {
	if !filepath.IsAbs(name) {
		name = filepath.Join(dir, filepath.FromSlash(name))
	}
	if real, err := filepath.EvalSymlinks(name); err == nil {
		return real
	}
	return filepath.Clean(name)
}

// fullName is the full form of an image's name.
func fullName(s string) string {
	if n, err := executor.ParseImageName(s); err == nil {
		return n.String()
	}
	return s
}

// sortedList is a list in one form and order.
func sortedList(list []string, form func(string) string) string {
	var out []string
	for _, s := range list {
		out = append(out, form(s))
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), " ")
}
