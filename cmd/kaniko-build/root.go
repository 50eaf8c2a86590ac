package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/spf13/cobra"

	"kaniko-build/cmd/kaniko-build/internal/dropin"
	"kaniko-build/cmd/kaniko-build/internal/tty"
	"kaniko-build/executor"
	"kaniko-build/executor/runner/local"
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
manifest can be a variable: KANIKO_BUILD_KEEP_GOING=true is --keep-going. Exit codes: 0 done, 1 a build or push
failed, 2 wrong flags, 3 wrong input, 4 the machine lacks something, 5 the
cache was wrong, 6 a step is not deterministic (both of --verify-cache), 130
interrupted.`,
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
	c.PersistentPreRunE = func(c *cobra.Command, _ []string) error { return fromEnvironment(c) }
	c.SetIn(t.in)
	c.SetOut(t.out)
	c.SetErr(t.err)
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w\n  hint: %s --help shows the flags", err, c.CommandPath())}
	})
	c.AddCommand(newApply(t), newWatch(t), newPlan(t), newGraph(t), newMatrix(t), newPrint(t), newExplainKey(t), newBuild(t), newContext(t), newCheck(t), newImages(t), newDu(t), newPrune(t), newDoctor(t), newVersion(t))
	c.AddCommand(storedCommands(t)...)
	c.AddCommand(newServe(t), newInit(t), newLogin(t), newLogout(t), newMan(t))
	c.AddCommand(kaniko(t).Executor(), kaniko(t).Warmer(), newNode(), newPod(t))
	return c
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
		return usageError{fmt.Errorf("%s takes no arguments, got %q", c.CommandPath(), args[0])}
	}
	return nil
}

// stateDir is the store's directory: KANIKO_BUILD_STATE, else a folder of the
// user's cache.
func stateDir() (string, error) {
	if d := os.Getenv("KANIKO_BUILD_STATE"); d != "" {
		return filepath.Abs(d)
	}
	d, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w\n  hint: set KANIKO_BUILD_STATE to a directory of yours", err)
	}
	return filepath.Join(d, "kaniko-build"), nil
}

// complete lets shells complete the values of a flag.
func complete(c *cobra.Command, flag string, values ...cobra.Completion) {
	if err := c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic("internal error: " + err.Error()) // the flag does not exist
	}
}
