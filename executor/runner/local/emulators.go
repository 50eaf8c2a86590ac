package local

import (
	"errors"
	"fmt"
	"path"
	"runtime"
	"strings"

	"kaniko-build/executor"
	"kaniko-build/executor/internal/emulator"
	"kaniko-build/executor/internal/sandbox"
)

// emulators are what lets a node run programs of other architectures.
type emulators struct {
	binds    []sandbox.NodeBind
	handlers []string
}

// emulatorsDir is where a node sees the host's QEMUs. The kernel opens them when
// they are registered; no RUN sees them.
const emulatorsDir = "/emulators"

// emulators finds them for the architectures that a node needs. Where the host
// has handlers for all there is nothing to do; else QEMUs of the host are
// registered in the node's user namespace.
func (r *Runner) emulators(iso executor.Isolation, arches []string) (emulators, error) {
	var out emulators
	var lacking []string
	for _, arch := range arches {
		if !emulator.Handled(emulator.Dir, arch) {
			lacking = append(lacking, arch)
		}
	}
	if len(lacking) == 0 {
		return out, nil
	}
	what := fmt.Sprintf("a RUN needs programs of %s, and this machine runs those of %s", strings.Join(lacking, " and "), runtime.GOARCH)
	if iso.Rung == sandbox.InPlace {
		return out, &executor.MachineError{What: what + "; in a container without user namespaces only the machine's own binfmt_misc can run them",
			Remedy: "register QEMU on the machine, or cross-compile in a stage FROM --platform=$BUILDPLATFORM"}
	}
	dirs := r.Path
	if dirs == nil {
		dirs = []string{"/usr/local/bin", "/usr/bin"}
	}
	for _, arch := range arches { // all: the node has none of the host's handlers then
		file, err := emulator.Find(arch, dirs)
		if errors.Is(err, emulator.ErrAbsent) {
			return out, &executor.MachineError{What: what + ": " + err.Error(),
				Remedy: "install qemu-user-static, which is used without any privilege; or register QEMU in binfmt_misc; or cross-compile in a stage FROM --platform=$BUILDPLATFORM"}
		}
		if err != nil {
			return out, fmt.Errorf("find an emulator for %s: %w", arch, err)
		}
		inside := path.Join(emulatorsDir, arch)
		line, err := emulator.Line(arch, inside)
		if err != nil {
			return out, err
		}
		out.binds = append(out.binds, sandbox.NodeBind{Source: file, Target: inside})
		out.handlers = append(out.handlers, line)
	}
	return out, nil
}
