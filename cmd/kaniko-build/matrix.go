package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"kaniko-build/plan"
)

// matrixFlags are those of ci-matrix.
type matrixFlags struct {
	lookFlags
	format string
	image  string
	args   []string
}

func newMatrix(t terminal) *cobra.Command {
	f := &matrixFlags{}
	c := &cobra.Command{
		Use:   "ci-matrix --format github|gitlab [flags] [TARGET...]",
		Short: "Write the plan as jobs of a CI",
		Long: `Write the plan as jobs of a CI, one for each target, that pass images by the registry.

github writes JSON on one line: {"levels": [{"include": [{target, platforms, needs}]}]}.
Jobs of a level need those of the levels before; in a workflow a level is
matrix: ${{ fromJSON(needs.plan.outputs.matrix).levels[0] }}.

gitlab writes a pipeline for trigger: include: artifact:, whose jobs need each
other as the targets do.

With --affected only targets count that a change affects.`,
		Example: "  kaniko-build ci-matrix --format github --affected\n  kaniko-build ci-matrix --format gitlab --image registry.example.com/kaniko-build/executor:debug > jobs.yml",
		RunE:    func(c *cobra.Command, args []string) error { return f.run(c, t, args) },
	}
	f.manifestFlags.add(c)
	f.addInputs(c)
	f.affected.add(c)
	c.Flags().StringVar(&f.format, "format", "", "github or gitlab")
	c.Flags().StringVar(&f.image, "image", "", "gitlab: the image that jobs run in")
	c.Flags().StringArrayVar(&f.args, "apply", []string{"--push"}, "gitlab: an argument of kaniko-build apply, besides the target")
	return c
}

func (f *matrixFlags) run(c *cobra.Command, t terminal, selection []string) error {
	write := map[string]func(io.Writer, []plan.Job) error{"github": githubMatrix, "gitlab": f.gitlabJobs}[f.format]
	if write == nil {
		if f.format == "" {
			return usageError{errors.New("ci-matrix needs to know the CI\n  hint: write --format github or --format gitlab")}
		}
		return usageError{fmt.Errorf("no format %q: write --format github or --format gitlab", f.format)}
	}
	for _, flag := range []string{"image", "apply"} {
		if f.format == "github" && c.Flags().Changed(flag) && os.Getenv(flagVariable(flag)) == "" {
			return usageError{fmt.Errorf("--%s is for --format gitlab: github's jobs are written in the workflow\n  hint: leave it out", flag)}
		}
	}
	w, err := f.read(c.Context())
	if err != nil {
		return err
	}
	p, err := w.plan(selection)
	if err != nil {
		return err
	}
	if p, err = f.affected.narrowed(c, t, &f.lookFlags, w, p); err != nil {
		return err
	}
	return write(t.out, p.Jobs())
}

// githubMatrix writes jobs by level. Without a job there is no level.
func githubMatrix(w io.Writer, jobs []plan.Job) error {
	type entry struct {
		Target    string   `json:"target"`
		Platforms []string `json:"platforms"`
		Needs     []string `json:"needs"`
	}
	type level struct {
		Include []entry `json:"include"`
	}
	out := struct {
		Levels []level `json:"levels"`
	}{[]level{}}
	for _, j := range jobs {
		for len(out.Levels) <= j.Level {
			out.Levels = append(out.Levels, level{})
		}
		l := &out.Levels[j.Level]
		l.Include = append(l.Include, entry{j.Target, append([]string{}, j.Platforms...), append([]string{}, j.Needs...)})
	}
	b, err := json.Marshal(out)
	if err != nil {
		return fmt.Errorf("encode jobs: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s\n", b)
	return err
}

// gitlabJobs writes a pipeline. GitLab refuses one without a job, so that of
// nothing has one that does nothing.
func (f *matrixFlags) gitlabJobs(w io.Writer, jobs []plan.Job) error {
	type image struct {
		Name       string   `yaml:"name"`
		Entrypoint []string `yaml:"entrypoint,flow"`
	}
	type job struct {
		Image  *image   `yaml:"image,omitempty"`
		Needs  []string `yaml:"needs,flow"`
		Script []string `yaml:"script"`
	}
	in := (*image)(nil)
	if f.image != "" {
		in = &image{f.image, []string{""}}
	}
	name := func(target string) string { return "build " + target }
	doc := &yaml.Node{Kind: yaml.MappingNode}
	add := func(key string, j job) error {
		var v yaml.Node
		if err := v.Encode(j); err != nil {
			return fmt.Errorf("encode jobs: %w", err)
		}
		doc.Content = append(doc.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key}, &v)
		return nil
	}
	for _, j := range jobs {
		needs := []string{}
		for _, n := range j.Needs {
			needs = append(needs, name(n))
		}
		line := strings.Join(append([]string{"kaniko-build apply", j.Target}, f.args...), " ")
		if err := add(name(j.Target), job{in, needs, []string{line}}); err != nil {
			return err
		}
	}
	if len(jobs) == 0 {
		if err := add("nothing to build", job{in, []string{}, []string{"echo nothing is affected"}}); err != nil {
			return err
		}
	}
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(doc); err != nil {
		return fmt.Errorf("write jobs: %w", err)
	}
	return enc.Close()
}
