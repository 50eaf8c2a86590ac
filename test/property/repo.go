package property

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
)

// Repo is a monorepo: what its files hold, and the images made of them.
type Repo struct {
	Files  map[string]File // of the context, which all images share; by path
	Ignore []string        // patterns of .dockerignore
	Images []Image         // parents first
	Base   Base            // what the tag that stages start from stands for

	next int // for texts and names that were not there before
}

// File is a file of the context.
type File struct {
	Link string // target of a symlink; then there is nothing else
	Dir  bool
	Mode uint32 // permission bits
	Text string
	// Quiet says that the last change of Text left size and times alone.
	Quiet bool
}

// Base is an image in the registry.
type Base struct {
	Content int // version of its files
	Label   int // version of its configuration, which is no input of a step
}

// Image is a target.
type Image struct {
	Name    string
	Parents []string // targets that it names: as base or to copy from
	Args    map[string]string
	Label   string // of the manifest
	Comment string // in the Dockerfile
	Stages  []Stage
}

// Stage begins at Base: "base", "scratch", an earlier stage or a parent.
type Stage struct {
	Name, Base string
	Steps      []Step
}

// Step is one instruction. Kind says which of the rest it uses.
type Step struct {
	Kind string // run, copy, workdir, env, arg, label, user
	// Text is run's command, and what stands behind the other words.
	Text    string
	Name    string   // of a variable
	From    string   // copy: a stage or parent; "" is the context
	Sources []string // copy: paths; run: one that is bound at /bound
	Dest    string
	Flags   string // copy: --chown, --chmod, --link
}

func (r *Repo) fresh() int { r.next++; return r.next }

// directories are always there, whatever an edit does to what is in them.
var directories = []string{"lib/one", "lib/two", "svc/a", "svc/b", "svc/c"}

func pick[T any](rnd *rand.Rand, from []T) T { return from[rnd.IntN(len(from))] }

// Make draws a monorepo.
func Make(rnd *rand.Rand) *Repo {
	r := &Repo{Files: map[string]File{}, Ignore: []string{"**/*.log"}}
	for _, d := range directories {
		r.Files[d] = File{Dir: true, Mode: 0o755}
		for i := range 2 + rnd.IntN(3) {
			r.Files[fmt.Sprintf("%s/f%d", d, i)] = File{Mode: 0o644, Text: fmt.Sprintf("# %s\n%d\n", d, r.fresh())}
		}
		r.Files[d+"/sub"] = File{Dir: true, Mode: 0o755}
		r.Files[d+"/sub/x.log"] = File{Mode: 0o644, Text: "log\n"}
		r.Files[d+"/sub/y"] = File{Mode: 0o600, Text: "y\n"}
	}
	r.Images = append(r.Images,
		Image{Name: "platform", Stages: []Stage{{Name: "only", Base: "base", Steps: r.steps(rnd, nil, 2)}}},
		Image{Name: "tool", Stages: []Stage{
			{Name: "compile", Base: "base", Steps: []Step{{Kind: "run", Text: compiled, Sources: []string{"lib/one"}}}},
			{Name: "out", Base: "scratch", Steps: []Step{{Kind: "copy", From: "compile", Sources: []string{"/out"}, Dest: "/tool/"}}},
		}},
	)
	for _, s := range []string{"a", "b", "c"} {
		m := Image{Name: "svc-" + s, Parents: []string{"platform", "tool"}, Args: map[string]string{"V": "1"}}
		build := Stage{Name: "build", Base: "base", Steps: append([]Step{
			{Kind: "workdir", Text: "/src"},
			{Kind: "copy", Sources: []string{"lib/one", "lib/two"}, Dest: "/src/lib/"}, // shared by all
			{Kind: "copy", Sources: []string{"svc/" + s}, Dest: "/src/svc"},
		}, Step{Kind: "run", Text: compiled, Sources: []string{"svc/" + s}})}
		if rnd.IntN(2) == 0 {
			build.Steps = append(build.Steps, r.step(rnd, nil))
		}
		final := Stage{Name: "final", Base: pick(rnd, []string{"platform", "platform", "base"}), Steps: []Step{
			{Kind: "copy", From: "build", Sources: []string{"/out"}, Dest: "/app/", Flags: pick(rnd, []string{"", "--link", "--chown=5:6"})},
			{Kind: "copy", From: "tool", Sources: []string{"/tool"}, Dest: "/tool"},
		}}
		final.Steps = append(final.Steps, r.steps(rnd, []string{"build", "tool"}, 2)...)
		m.Stages = []Stage{build, final}
		r.Images = append(r.Images, m)
	}
	return r
}

// compiled is a command whose output does not depend on comments of what it reads.
const compiled = `mkdir -p /out && cat $(find /bound -type f | sort) | grep -v '^#' > /out/bin; true`

// described is a command whose output depends on all that it reads but times.
const described = `mkdir -p /out && cd %s && (find . | sort | while read f; do stat -c '%%n %%a %%u:%%g %%F' "$f"; readlink "$f"; [ -f "$f" ] && cat "$f"; done) > /out/said 2>&1; true`

func (r *Repo) steps(rnd *rand.Rand, from []string, n int) []Step {
	var out []Step
	for range 1 + rnd.IntN(n) {
		out = append(out, r.step(rnd, from))
	}
	return out
}

// step draws one; from is what it may copy from beside the context.
func (r *Repo) step(rnd *rand.Rand, from []string) Step {
	switch rnd.IntN(12) {
	case 0, 1:
		return Step{Kind: "copy", Sources: []string{pick(rnd, directories)}, Dest: fmt.Sprintf("/c%d/", r.fresh()), Flags: pick(rnd, []string{"", "", "--chmod=u=rwX,go=", "--chown=3:4", "--link"})}
	case 2:
		return Step{Kind: "copy", Sources: []string{pick(rnd, directories) + "/*"}, Dest: "/globbed/"}
	case 3:
		if len(from) > 0 {
			return Step{Kind: "copy", From: from[0], Sources: []string{"/out"}, Dest: fmt.Sprintf("/from%d", r.fresh())}
		}
		fallthrough
	case 4, 5:
		return Step{Kind: "run", Text: fmt.Sprintf(described, "/bound"), Sources: []string{pick(rnd, directories)}}
	case 6:
		return Step{Kind: "run", Text: fmt.Sprintf("echo %d $V ${W:-none} > /said; rm -rf /c1 /globbed; mkdir -p /d/e; ln -sf /said /d/s", r.fresh())}
	case 7:
		return Step{Kind: "env", Name: "W", Text: fmt.Sprint(r.fresh())}
	case 8:
		return Step{Kind: "arg", Name: "V", Text: fmt.Sprint(r.fresh())}
	case 9:
		return Step{Kind: "label", Name: "l", Text: fmt.Sprint(r.fresh())}
	case 10:
		return Step{Kind: "workdir", Text: pick(rnd, []string{"/w", "/w/x", "/src"})}
	default:
		return Step{Kind: "run", Text: fmt.Sprintf(described, "/etc")}
	}
}

// Dockerfile is an image's. Its stages start from a base of that name.
func (m *Image) Dockerfile(base string) string {
	var b strings.Builder
	if m.Comment != "" {
		fmt.Fprintf(&b, "# %s\n", m.Comment)
	}
	for _, st := range m.Stages {
		from := st.Base
		if from == "base" {
			from = base
		}
		fmt.Fprintf(&b, "FROM %s AS %s\n", from, st.Name)
		for _, s := range st.Steps {
			b.WriteString(s.line() + "\n")
		}
	}
	return b.String()
}

func (s *Step) line() string {
	switch s.Kind {
	case "run":
		bind := ""
		if len(s.Sources) > 0 {
			bind = "--mount=type=bind,target=/bound,source=" + s.Sources[0] + " "
		}
		return "RUN " + bind + s.Text
	case "copy":
		words := append([]string{"COPY"}, strings.Fields(s.Flags)...)
		if s.From != "" {
			words = append(words, "--from="+s.From)
		}
		return strings.Join(append(append(words, s.Sources...), s.Dest), " ")
	case "workdir":
		return "WORKDIR " + s.Text
	default: // env, arg, label
		return strings.ToUpper(s.Kind) + " " + s.Name + "=" + s.Text
	}
}

// Manifest names the images; those of the registry come from it.
func (r *Repo) Manifest(registry string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\nregistries: {%q: {insecure: true}}\nvars: {same: {type: bool, default: true}}\ndefaults: {executor: {reproducible: \"${vars.same}\"}}\ntargets:\n", registry)
	for _, m := range r.Images {
		fmt.Fprintf(&b, "  %s:\n    context: .\n    dockerfile: //%s.Dockerfile\n", m.Name, m.Name)
		if m.Label != "" {
			fmt.Fprintf(&b, "    labels: {made: %q}\n", m.Label)
		}
		for i, p := range m.Parents {
			if i == 0 {
				b.WriteString("    contexts:\n")
			}
			fmt.Fprintf(&b, "      %s: target:%s\n", p, p)
		}
		for i, k := range slices.Sorted(maps.Keys(m.Args)) {
			if i == 0 {
				b.WriteString("    args:\n")
			}
			fmt.Fprintf(&b, "      %s: %q\n", k, m.Args[k])
		}
	}
	return b.String()
}
