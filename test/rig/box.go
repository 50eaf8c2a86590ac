package rig

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Box is Docker's default container of our debug image, with a directory that the test
// sees too. It builds in its own root, as it may make no namespace.
type Box struct {
	*Running
	shared string // the directory, on this side
}

// Places in a Box, below what no image gets anything of.
const (
	BoxBinary = "/kaniko/kaniko-build" // the program under the name of its own commands
	boxShared = "/kaniko/shared"
)

// StartBox starts a container that waits, until the test ends.
func StartBox(t testing.TB, d *Docker, env ...string) *Box {
	t.Helper()
	b := &Box{shared: Space(t, nil)}
	b.Running = d.Start(t, Container{
		Image: DebugImage, Entrypoint: "/busybox/cat", Env: env,
		Mounts: []Mount{{Source: b.shared, Target: boxShared}, {Source: Binary(t), Target: BoxBinary, ReadOnly: true}},
	})
	if o := b.Run(t, Call{}, BoxBinary, "doctor"); !strings.Contains(o.Stdout, "inplace        used") {
		t.Fatalf("another rung is better in a default container: %s", o.All())
	}
	return b
}

// Space is a new directory that both sides see, removed when t ends.
func (b *Box) Space(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(b.shared, "")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Run is Account.Run, inside. Paths of shared directories are those of this side.
func (b *Box) Run(t testing.TB, c Call, argv ...string) Output {
	t.Helper()
	there := strings.NewReplacer(b.shared, boxShared)
	c.Dir = filepath.Join("/", there.Replace(c.Dir))
	in := []string{"/busybox/sh", "-c", fmt.Sprintf("umask %03o; exec \"$@\"", or(c.Umask, 0o022)), "sh"}
	for _, a := range argv {
		in = append(in, there.Replace(a))
	}
	env := c.Env
	c.Env = nil
	for _, e := range env {
		c.Env = append(c.Env, there.Replace(e))
	}
	return b.Exec(t, c, in...)
}
