// Command kaniko-build builds container images from Dockerfiles, many at once,
// without a daemon and without privileges.
//
//	kaniko-build.yaml ─> schema ─> plan ─> graph ─┬─> executor (a container a node) ─> store
//	                                             └─> progress, results, exit code
//
// This package is wiring: flags in, packages introduced to each other, results
// out. It alone prints, reads the environment and ends the process.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"kaniko-build/cmd/kaniko-build/internal/dropin"
	"kaniko-build/cmd/kaniko-build/internal/tty"
	"kaniko-build/executor"
	"kaniko-build/executor/runner/local"
	"kaniko-build/schema/diag"
)

// version is set by the linker.
var version = "dev"

// The exit codes. Those of executor and warmer are kaniko's: 1, or what the
// failing RUN ended with.
const (
	exitOK          = 0
	exitFailed      = 1   // a node, a push or anything else failed while working
	exitUsage       = 2   // a flag or argument is wrong
	exitInput       = 3   // the manifest, a Dockerfile or a context is wrong; nothing ran
	exitMachine     = 4   // this machine lacks what is needed; doctor tells more
	exitWrong       = 5   // --verify-cache: the cache gave what a build without it does not make
	exitUnsteady    = 6   // --verify-cache: a step makes something else each time; the cache is not to blame
	exitInterrupted = 130 // Ctrl-C
)

// usageError is a mistake on the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// failedWork is what went wrong when nodes were already being built: whatever it is
// made of, the input has been looked at before.
type failedWork struct{ error }

func (f failedWork) Unwrap() error { return f.error }

// errInterrupted is the cause of a context that a signal ended.
var errInterrupted = errors.New("interrupted")

// exitCode is the table above, by error.
func exitCode(err error) int {
	var problem *diag.Problem
	var problems diag.Problems
	var usage usageError
	var machine *executor.MachineError
	var step *executor.StepError
	var work failedWork
	var failure *dropin.Failure
	var verify *verifyError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errInterrupted):
		return exitInterrupted
	case errors.As(err, &failure):
		return failure.Code
	case errors.As(err, &verify) && verify.wrong > 0:
		return exitWrong
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &machine):
		return exitMachine
	case errors.As(err, &step), errors.As(err, &work):
		return exitFailed
	case errors.As(err, &problem), errors.As(err, &problems):
		return exitInput
	case errors.As(err, &verify):
		return exitUnsteady
	}
	return exitFailed
}

func main() {
	if code, ok := local.Reexec(); ok { // this process is the inside of a node's container
		os.Exit(code)
	}
	if _, set := os.LookupEnv("GOGC"); !set {
		spare()
	}
	os.Exit(execute())
}

// spare lets the heap grow to five times what lives, as long as that is little:
// most runs find nothing to do and are over before a collection would pay. Nodes,
// which stream layers, collect as usual.
func spare() {
	debug.SetGCPercent(400)
	debug.SetMemoryLimit(96 << 20)
}

// execute is main with a result, so that its defers run.
func execute() int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	t := terminal{os.Stdin, os.Stdout, os.Stderr, &leaving{}, &tty.Stopper{}}
	go func() {
		for ended := false; ; {
			if s := <-signals; s == syscall.SIGHUP && t.leave.hangup() {
				continue
			}
			if ended { // a second one does not wait for the clean-up
				t.leave.now()
				os.Exit(exitInterrupted)
			}
			ended = true
			cancel(errInterrupted)
		}
	}()
	root := newRoot(t)
	switch name := filepath.Base(os.Args[0]); { // kaniko's users call it by these names
	case name == "executor":
		root = kaniko(t).Executor()
	case name == "warmer":
		root = kaniko(t).Warmer()
	case dropin.IsHelper(name):
		root = kaniko(t).Helper(name)
	}
	err := misnamed(root, os.Args[1:])
	if err == nil {
		err = root.ExecuteContext(ctx)
	}
	if err != nil && errors.Is(context.Cause(ctx), errInterrupted) {
		err = errInterrupted
	}
	var failure *dropin.Failure
	if err != nil && !errors.Is(err, errReported) && !errors.As(err, &failure) {
		fmt.Fprintln(os.Stderr, "kaniko-build:", printableLines(err.Error()))
		fmt.Fprint(os.Stderr, ciHere().Problems("error", err))
	}
	return exitCode(err)
}
