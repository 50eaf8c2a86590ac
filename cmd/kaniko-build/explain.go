package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"kaniko-build/cmd/kaniko-build/internal/progress"
	"kaniko-build/executor"
	"kaniko-build/plan"
	"kaniko-build/schema/diag"
)

// lookFlags are those of commands that say what a build would do.
type lookFlags struct {
	manifestFlags
	runFlags
	affected affectedFlag
	explain  bool
	output   string
}

func newPlan(t terminal) *cobra.Command {
	f := &lookFlags{output: "table"}
	c := &cobra.Command{
		Use:   "plan [flags] [URL#COMMIT:DIR] [TARGET...]",
		Short: "Show what would be built, in what order, and why",
		Long: `Show what would be built, in what order, and which line asks for it.

With --explain every step that makes a layer is a hit, whose result is known, or
a miss with the first input that differs from the build before. Registries are
asked what the base images are now, and caches what they have; nothing is built. A miss after another may
still turn out a hit, when that step makes what it made before.

With --affected only targets count whose inputs changed since a revision, by git,
and what stands on them; the table names the file.`,
		Example: "  kaniko-build plan\n  kaniko-build plan --affected=origin/main\n  kaniko-build plan -o json api\n  kaniko-build plan --explain api",
		RunE:    func(c *cobra.Command, args []string) error { return f.plan(c, t, args) },
	}
	f.manifestFlags.add(c)
	f.addInputs(c)
	f.cache.add(c)
	f.affected.add(c)
	c.Flags().BoolVar(&f.explain, "explain", false, "say of every step whether its result is known, and if not, why")
	c.Flags().StringVarP(&f.output, "output", "o", f.output, "table or json")
	return c
}

func (f *lookFlags) plan(c *cobra.Command, t terminal, selection []string) error {
	ctx := c.Context()
	if f.output != "table" && f.output != "json" {
		return usageError{fmt.Errorf("no output %q: choose table or json", f.output)}
	}
	selection = f.ofRepository(selection)
	w, err := f.read(ctx)
	if err != nil {
		return err
	}
	p, err := w.plan(selection)
	if err != nil {
		return err
	}
	if p, err = f.affected.narrowed(c, t, f, w, p); err != nil {
		return err
	}
	switch {
	case f.explain:
		caches := func(requests []executor.Request) error { return f.cache.set(c, w, p, requests) }
		return f.inspected(ctx, t, w, p, caches, func(x *executor.Executor, nodes []*executor.Node) error {
			unusedGrants(p, nodes, func(pos diag.Pos, text string) { fmt.Fprintf(t.err, "warning: %s: %s\n", pos, text) })
			states, err := x.Explain(ctx, nodes)
			if err != nil {
				return err
			}
			inline := w.places()
			for i := range states {
				states[i].Pos = inline.pos(states[i].Pos)
			}
			if f.output == "json" {
				return statesJSON(t.out, states)
			}
			return statesTable(t.out, states)
		})
	case f.output == "json":
		return p.JSON(t.out)
	}
	return p.Table(t.out)
}

// inspected calls fn with the nodes of a plan, whose keys are known. caches, if
// there is one, adds to their requests what is asked outside.
func (f *lookFlags) inspected(ctx context.Context, t terminal, w *workspace, p *plan.Plan, caches func([]executor.Request) error, fn func(*executor.Executor, []*executor.Node) error) error {
	requests, err := w.requests(p)
	if err != nil {
		return err
	}
	if err := w.granted(p, requests); err != nil {
		return err
	}
	for i := range requests {
		requests[i].NoCache = requests[i].NoCache || f.noCache
	}
	if caches != nil {
		if err := caches(requests); err != nil {
			return err
		}
	}
	registries, err := w.registries()
	if err != nil {
		return err
	}
	if f.runner == "" { // what is known depends on it
		f.runner = w.manifest.Runner.Type
	}
	f.cluster = cluster{w.manifest.Runner}
	inline := w.places()
	x, err := f.open(ctx, said(progress.Interleaved(t.err, progress.CI{})), registries, inline)
	if err != nil {
		return err
	}
	var nodes []*executor.Node
	if err = w.fetch(ctx, x, p, requests); err == nil {
		nodes, err = x.Inspect(ctx, requests)
		err = inline.err(err)
	}
	if err == nil {
		err = fn(x, nodes)
	}
	return errors.Join(err, x.Close(ctx))
}

// statesTable writes a block a node: its hits and misses counted, then a line a
// step, and the reason of a miss below it.
func statesTable(w io.Writer, states []executor.State) error {
	b := bufio.NewWriter(w)
	color := func(code, s string) string { return s }
	if isTerminal(w) && os.Getenv("NO_COLOR") == "" {
		color = func(code, s string) string { return "\x1b[" + code + "m" + s + "\x1b[0m" }
	}
	for i := 0; i < len(states); {
		end, hits, width := i, 0, 0
		for ; end < len(states) && states[end].Node == states[i].Node; end++ {
			if states[end].Hit {
				hits++
			}
			width = max(width, len(stepName(states[end])))
		}
		if i > 0 {
			fmt.Fprintln(b)
		}
		fmt.Fprintf(b, "%s: %d of %d steps known\n", states[i].Node, hits, end-i)
		for ; i < end; i++ {
			s := states[i]
			mark := color("32", "hit ")
			if !s.Hit {
				mark = color("33", "miss")
			}
			fmt.Fprintf(b, "  %-*s  %s  %s\n", width, stepName(s), mark, oneLine(s.Text))
			if s.From != "" {
				fmt.Fprintf(b, "  %*s        %s\n", width, "", color("2", "in "+printable(cacheName(s.From))))
			}
			if s.Why != nil {
				fmt.Fprintf(b, "  %*s        %s\n", width, "", color("2", printable(s.Why.Text)))
			}
		}
	}
	return b.Flush()
}

func stepName(s executor.State) string { return fmt.Sprintf("%s %d/%d", s.Stage, s.Step, s.Of) }

// isTerminal tells whether somebody may be watching.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// statesJSON writes {"steps": [...]}, each as executor.State. Its keys are part
// of what we promise: new ones may come, none goes away or changes its meaning.
func statesJSON(w io.Writer, states []executor.State) error {
	if states == nil {
		states = []executor.State{}
	}
	return indented(w, struct {
		Steps []executor.State `json:"steps"`
	}{states})
}

func indented(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func newExplainKey(t terminal) *cobra.Command {
	f := &lookFlags{output: "text"}
	c := &cobra.Command{
		Use:   "explain-key [flags] TARGET[:[STAGE/]STEP]",
		Short: "Print the lines that a step's cache key is made of",
		Long: `Print the lines that the cache keys of a target's steps are made of: by
definition, as they are known before anything runs, and by content, if the step
was run. Changing a line changes the key; what is no line is no input.

STEP is a number as plan --explain shows it, of the last stage if none is named.`,
		Example: "  kaniko-build explain-key api\n  kaniko-build explain-key api:build/3",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("explain-key takes one argument, TARGET[:[STAGE/]STEP], and got %d", len(args))}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error { return f.keys(c.Context(), t, args[0]) },
	}
	f.manifestFlags.add(c)
	f.addInputs(c)
	c.Flags().StringVarP(&f.output, "output", "o", f.output, "text or json")
	return c
}

func (f *lookFlags) keys(ctx context.Context, t terminal, arg string) error {
	if f.output != "text" && f.output != "json" {
		return usageError{fmt.Errorf("no output %q: choose text or json", f.output)}
	}
	target, step, _ := strings.Cut(arg, ":")
	w, err := f.read(ctx)
	if err != nil {
		return err
	}
	name, _, _ := strings.Cut(target, "@")
	p, err := w.plan([]string{name})
	if err != nil {
		return err
	}
	return f.inspected(ctx, t, w, p, nil, func(x *executor.Executor, nodes []*executor.Node) error {
		var keys []executor.StepKey
		var names []string
		for _, n := range nodes {
			if !strings.HasPrefix(n.ID+"@", target+"@") {
				continue
			}
			all := x.Keys(n)
			for i, k := range all {
				full := fmt.Sprintf("%s/%d", k.Stage, k.Step)
				if k.Stage != "" {
					names = append(names, full)
				}
				last := k.Stage == all[len(all)-1].Stage
				if last {
					names = append(names, fmt.Sprint(k.Step))
				}
				if step == "" || step == full || last && step == fmt.Sprint(k.Step) {
					keys = append(keys, all[i])
				}
			}
		}
		if len(keys) == 0 && step != "" {
			hint := diag.Suggest(step, names)
			if hint == "" {
				hint = "steps that make a layer: " + strings.Join(names, ", ")
			}
			return &diag.Problem{What: fmt.Sprintf("target %q has no step %q that makes a layer", target, step), Hint: hint}
		}
		if f.output == "json" {
			return indented(t.out, struct {
				Keys []executor.StepKey `json:"keys"`
			}{keys})
		}
		return printKeys(t.out, keys)
	})
}

func printKeys(w io.Writer, keys []executor.StepKey) error {
	b := bufio.NewWriter(w)
	block := func(kind, key string, lines []executor.Lines) {
		fmt.Fprintf(b, "  by %s %s\n", kind, key)
		for _, l := range lines {
			fmt.Fprintf(b, "    %s\n", escaped(parentKey(l.Line)))
			for _, file := range l.Files {
				fmt.Fprintf(b, "      %s\n", escaped(file))
			}
		}
	}
	for i, k := range keys {
		if i > 0 {
			fmt.Fprintln(b)
		}
		fmt.Fprintf(b, "%s [%s] %s\n", k.Node, strings.TrimSpace(fmt.Sprintf("%s %d/%d", k.Stage, k.Step, k.Of)), oneLine(k.Text))
		block("definition", k.Key, k.Lines)
		if k.ContentKey != "" {
			block("content", k.ContentKey, k.ContentLines)
		}
	}
	return b.Flush()
}

// parentKey shows the key in a line about the state below a step as that step's own is
// shown. In the line that is hashed its letters are numbers.
func parentKey(line string) string {
	b, err := hex.DecodeString(strings.TrimPrefix(line, "parent "))
	if _, bad := hex.DecodeString(string(b)); err != nil || bad != nil || len(b) == 0 {
		return line
	}
	return "parent " + string(b)
}

// escaped is a line of a key on one line: control characters and backslashes
// as in Go.
func escaped(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\\':
			b.WriteString(`\\`)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0xfffd:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
