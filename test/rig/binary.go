package rig

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// Root is the directory of the module, found from the working directory of a
// test, which is that of its package.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the working directory")
		}
		dir = up
	}
}

// BinaryEnv names a variable with the path of a binary to test instead of one
// that is built from the tree.
const BinaryEnv = "KANIKO_BUILD_BINARY"

// program is the binary under test, made once a process.
var program struct {
	once sync.Once
	dir  string
	path string
	err  error
}

// Binary returns kaniko-build, built from the tree as `make build` does, at a
// path that every account can read.
func Binary(t testing.TB) string {
	t.Helper()
	if p := os.Getenv(BinaryEnv); p != "" {
		return p
	}
	root := Root(t)
	program.once.Do(func() {
		program.dir, program.err = os.MkdirTemp("", "kaniko-build-binary-")
		if program.err != nil {
			return
		}
		program.path = filepath.Join(program.dir, "kaniko-build")
		cmd := exec.Command("go", "build", "-trimpath", "-o", program.path, "./cmd/kaniko-build")
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		if err != nil {
			program.err = errors.New(string(out))
		}
		program.err = errors.Join(program.err, os.Chmod(program.dir, 0o755), os.Chmod(program.path, 0o755))
	})
	if program.err != nil {
		t.Fatalf("build kaniko-build: %v", program.err)
	}
	return program.path
}

// Main runs the tests of a package, as its TestMain, and removes what Binary
// made.
func Main(m *testing.M) {
	m.Run()
	if program.dir != "" {
		os.RemoveAll(program.dir)
	}
}
