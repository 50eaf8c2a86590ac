package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"kaniko-build/executor/runner/local"
)

// TestMain lets the scripts call the program by its name, and the program
// start itself as a node's container.
func TestMain(m *testing.M) {
	if code, ok := local.Reexec(); ok {
		os.Exit(code)
	}
	testscript.Main(m, map[string]func(){"kaniko-build": main, "executor": main, "warmer": main})
}

// busyboxPath is Debian's static busybox, which the scripts' images hold.
const busyboxPath = "/bin/busybox"

// TestScripts runs testdata/script. Each script has a state directory and a
// home of its own, and in its directory a static busybox and annotated, the
// manifest that says everything. UPDATE_SCRIPTS=1
// rewrites what their cmp lines expect.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("KANIKO_BUILD_STATE", filepath.Join(e.WorkDir, "state"))
			e.Setenv("HOME", e.WorkDir)
			annotated := filepath.Join("..", "..", "schema", "testdata", "annotated")
			if err := os.CopyFS(filepath.Join(e.WorkDir, "annotated"), os.DirFS(annotated)); err != nil {
				return err
			}
			program, err := os.ReadFile(busyboxPath)
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(e.WorkDir, "busybox"), program, 0o755)
		},
		Condition: func(name string) (bool, error) {
			if name == "userns" {
				b, err := os.ReadFile("/proc/sys/user/max_user_namespaces")
				return err == nil && string(b) != "0\n", nil
			}
			return false, nil
		},
	})
}
