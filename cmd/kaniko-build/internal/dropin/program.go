package dropin

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"kaniko-build/executor"
)

// Program is what the commands have from the one that they are part of.
type Program struct {
	Version  string
	In       io.Reader
	Out, Err io.Writer
	Runner   func(force bool) executor.Runner // force: the root of what may be no container can be built in
	State    func() (string, error)           // the directory of the store, unless kaniko's directory has it
	Web      *http.Client                     // for digests that are put to an address; nil is http.DefaultClient
}

// Failure ends a command with an exit code. It has been shown.
type Failure struct {
	Code int
	Err  error
}

func (f *Failure) Error() string { return f.Err.Error() }

func (f *Failure) Unwrap() error { return f.Err }

// exitRun is the code of a RUN whose process was ended by a signal, as kaniko has it.
const exitRun = 255

// fail shows an error and gives it its exit code: 1, or that of the RUN that
// failed.
func (p Program) fail(what string, err error) error {
	if err == nil {
		return nil
	}
	fmt.Fprintf(p.Err, "%s: %v\n", what, err)
	code := 1
	var step *executor.StepError
	if errors.As(err, &step) && step.Exit != 0 {
		if code = step.Exit; code < 0 || code > 255 {
			code = exitRun
		}
	}
	return &Failure{Code: code, Err: err}
}

// command fills in what all commands have in common: a mistake in the flags
// shows the usage and ends with 1.
func (p Program) command(c *cobra.Command) *cobra.Command {
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetIn(p.In)
	c.SetOut(p.Out)
	c.SetErr(p.Err)
	c.SetFlagErrorFunc(p.usage)
	if c.Args == nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return p.usage(c, fmt.Errorf("unknown command %q for %q", args[0], c.CommandPath()))
			}
			return nil
		}
	}
	return c
}

func (p Program) usage(c *cobra.Command, err error) error {
	fmt.Fprintf(p.Err, "Error: %v\n%s\n", err, c.UsageString())
	return &Failure{Code: 1, Err: err}
}

func (p Program) versionCommand() *cobra.Command {
	return p.command(&cobra.Command{
		Use:                "version",
		Short:              "Print the version",
		FParseErrWhitelist: cobra.FParseErrWhitelist{UnknownFlags: true}, // the first kaniko took all flags here
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(p.Out, "Kaniko version :  %s\n", p.Version)
			return err
		},
	})
}

// imageDir is kaniko's directory if the program lies in it, as in our images,
// else "".
func imageDir() string {
	if exe, err := os.Executable(); err == nil && filepath.Base(filepath.Dir(exe)) == "kaniko" {
		return filepath.Dir(exe)
	}
	return ""
}

// InImage tells whether this is a container of one of our images, in which
// nothing is to be done but building.
func InImage() bool { return imageDir() != "" }

// stateDir is where the store lies: in kaniko's directory if that was named or
// the program lies in it, as in our images; else where other commands have it.
func (p Program) stateDir(kanikoDir string) (string, error) {
	if os.Getenv("KANIKO_BUILD_STATE") == "" {
		if kanikoDir == "" {
			kanikoDir = os.Getenv("KANIKO_DIR")
		}
		if kanikoDir == "" {
			kanikoDir = imageDir()
		}
		if kanikoDir != "" {
			dir, err := filepath.Abs(kanikoDir)
			return filepath.Join(dir, "state"), err
		}
	}
	return p.State()
}

// passing tells whether the store goes when this process ends: it is the first one of a
// container of our images, and the store lies in that and in no volume.
func passing(state string) bool {
	if os.Getpid() != 1 || !InImage() {
		return false
	}
	var root, there unix.Stat_t
	for dir := state; ; dir = filepath.Dir(dir) { // it may not have been made yet
		if err := unix.Stat(dir, &there); err == nil {
			break
		} else if dir == filepath.Dir(dir) {
			return false
		}
	}
	return unix.Stat("/", &root) == nil && root.Dev == there.Dev
}
