package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"kaniko-build/cmd/kaniko-build/internal/dropin"
	"kaniko-build/cmd/kaniko-build/internal/tty"
	"kaniko-build/executor"
	"kaniko-build/executor/runner/local"
	"kaniko-build/schema/diag"
)

// errReported ends a command whose failure has been shown already.
var errReported = errors.New("failed; see above")

// reported is an error that was shown and still decides the exit code.
type reported struct{ error }

func (r reported) Unwrap() error        { return r.error }
func (r reported) Is(target error) bool { return target == errReported }

// terminal is where a command reads and writes.
type terminal struct {
	in       io.Reader
	out, err io.Writer
	leave    *leaving
	stops    *tty.Stopper
}

// kaniko is the command line of kaniko, in this terminal.
func kaniko(t terminal) dropin.Program {
	return dropin.Program{
		Version: version, In: t.in, Out: t.out, Err: t.err, State: stateDir,
		Runner: func(force bool) executor.Runner {
			return &local.Runner{Rung: os.Getenv("KANIKO_BUILD_ISOLATION"), Force: force}
		},
	}
}

func newRoot(t terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "kaniko-build",
		Short: "Build container images from Dockerfiles, many at once, without a daemon or privileges",
		Long: `kaniko-build builds the images of a manifest, kaniko-build.yaml, in the order
their Dockerfiles need, each in an unprivileged container of its own.

Results lie in a store of plain files (KANIKO_BUILD_STATE, else your cache
folder) and are pushed when asked for. Every flag of a command that reads the
manifest can be a variable: KANIKO_BUILD_KEEP_GOING=true is --keep-going.

Exit codes:
  0    done
  1    a build, a push or a pull failed
  2    wrong flags or arguments
  3    wrong input: the manifest, a Dockerfile, a context, a name
  4    the machine lacks something; kaniko-build doctor tells more
  5    the cache was wrong (--verify-cache)
  6    a step is not deterministic (--verify-cache)
  130  interrupted`,
		Example: `  kaniko-build init
  kaniko-build plan
  kaniko-build apply`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			hint := "kaniko-build --help lists the commands"
			if near := c.SuggestionsFor(args[0]); len(near) > 0 {
				hint = fmt.Sprintf("did you mean %q?", near[0])
			}
			return usageError{fmt.Errorf("unknown command %q\n  hint: %s", args[0], hint)}
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.SuggestionsMinimumDistance = 2
	c.SetHelpCommand(newHelp(c))
	c.PersistentPreRunE = func(c *cobra.Command, _ []string) error { return fromEnvironment(c) }
	c.SetIn(t.in)
	c.SetOut(t.out)
	c.SetErr(t.err)
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		var wrong *pflag.InvalidValueError
		if errors.As(err, &wrong) {
			err = fmt.Errorf("--%s %q: %s", wrong.GetFlag().Name, wrong.GetValue(), wanted(wrong.GetFlag(), errors.Unwrap(err)))
		}
		var unknown *pflag.NotExistError
		if errors.As(err, &unknown) && len(unknown.GetSpecifiedName()) > 1 {
			var names []string
			c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
			if near := diag.Suggest(unknown.GetSpecifiedName(), names); near != "" {
				return usageError{fmt.Errorf("%w\n  hint: %s", err, strings.Replace(near, `"`, `"--`, 1))}
			}
		}
		return usageError{fmt.Errorf("%w\n  hint: %s --help shows the flags", err, c.CommandPath())}
	})
	c.AddCommand(newApply(t), newWatch(t), newPlan(t), newGraph(t), newMatrix(t), newPrint(t), newExplainKey(t), newBuild(t), newContext(t), newCheck(t), newImages(t), newDu(t), newPrune(t), newDoctor(t), newVersion(t))
	c.AddCommand(storedCommands(t)...)
	c.AddCommand(newServe(t), newInit(t), newLogin(t), newLogout(t), newMan(t))
	c.AddCommand(kaniko(t).Executor(), kaniko(t).Warmer(), newNode(), newPod(t))
	c.InitDefaultHelpCmd() // cobra makes both when they have to run, which is too late to look at their arguments
	c.InitDefaultCompletionCmd()
	refuseArguments(c)
	return c
}

// newHelp is cobra's command of that name, which answers a command that there is not
// with the help of the program, and says that all went well.
func newHelp(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Show the help of a command",
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
			if c, _, err := root.Find(args); err == nil {
				for _, sub := range c.Commands() {
					if sub.IsAvailableCommand() {
						names = append(names, sub.Name())
					}
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		Example: "  kaniko-build help apply",
		RunE: func(_ *cobra.Command, args []string) error {
			c, rest, err := root.Find(args)
			if err == nil && c == root && len(rest) > 0 {
				err = root.Args(root, rest)
			}
			if err != nil {
				return err
			}
			c.InitDefaultHelpFlag()
			return c.Help()
		},
	}
}

// refuseArguments makes what cobra's own commands say of arguments a mistake on the
// command line, and completion one of those that it has no shell for.
func refuseArguments(root *cobra.Command) {
	for _, c := range root.Commands() {
		if c.Name() != "completion" {
			continue
		}
		c.Args = func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("no shell %q\n  hint: choose bash, fish, powershell or zsh", args[0])}
			}
			return nil
		}
		c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
		for _, shell := range c.Commands() {
			shell.Args = noArgs
		}
	}
}

// misnamed is the error of a command line that asks for the help of a command that
// there is not: cobra looks at --help first, and at the name never.
func misnamed(root *cobra.Command, args []string) error {
	c, rest, err := root.Find(args)
	if err != nil || c != root || root.Name() != "kaniko-build" { // kaniko's programs are roots, too, by their names
		return nil
	}
	for _, a := range rest {
		if !strings.HasPrefix(a, "-") {
			return root.Args(root, []string{a})
		}
	}
	return nil
}

func newVersion(t terminal) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  kaniko-build version",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			v := version
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" && len(s.Value) >= 12 {
						v += " " + s.Value[:12]
					}
				}
				v += " " + info.GoVersion
			}
			_, err := fmt.Fprintln(t.out, "kaniko-build", v)
			return err
		},
	}
}

func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no arguments, and got %q", commandName(c), args[0])}
	}
	return nil
}

// commandName is how a command is called, without the program.
func commandName(c *cobra.Command) string {
	return strings.TrimPrefix(c.CommandPath(), c.Root().Name()+" ")
}

// stateDir is the store's directory: KANIKO_BUILD_STATE, else a folder of the
// user's cache.
func stateDir() (string, error) {
	if d := os.Getenv("KANIKO_BUILD_STATE"); d != "" {
		return filepath.Abs(d)
	}
	d, err := os.UserCacheDir()
	if err != nil {
		return "", &diag.Problem{What: "there is no place for the store: HOME and XDG_CACHE_HOME are not set", Hint: "set KANIKO_BUILD_STATE to a directory of yours"}
	}
	return filepath.Join(d, "kaniko-build"), nil
}

// complete lets shells complete the values of a flag.
func complete(c *cobra.Command, flag string, values ...cobra.Completion) {
	if err := c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic("internal error: " + err.Error()) // the flag does not exist
	}
}
