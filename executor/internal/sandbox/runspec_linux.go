package sandbox

import (
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// RunSpec is one command to run in a container of its own. Paths without a
// remark are of the node.
type RunSpec struct {
	// The root file system: an overlay of Lower, topmost first, with Upper and
	// Work on one file system; or, with no Lower, the directory Root as it is.
	Lower       []string
	Upper, Work string
	Root        string

	// Mounts are made in this order, over the standard ones. Their mount
	// points and those of the standard ones must exist: see MountPoints.
	Mounts []Mount

	Argv     []string // Argv[0] is looked up in PATH of Env, in the container
	Env      []string // the whole environment
	Dir      string   // in the container; "" is "/"
	UID, GID uint32
	Groups   []uint32 // supplementary
	Network  Network
	Hostname string // "" is buildkitsandbox, as BuildKit's

	// Devices tells that the root, or a mount, holds empty files that stand for
	// devices (user.kaniko-build.stat), so that stat and the like must be
	// answered for. It costs every one of them some microseconds; without it a
	// device that the RUN makes itself is an empty file to it. Rung
	// userns-single answers anyway.
	Devices bool

	// Stdout and Stderr get the output; nil drops it. If they are equal, one
	// pipe serves both and order is kept, else they are written concurrently.
	Stdout, Stderr io.Writer

	// Started, if set, is called with the number of the process, which leads
	// the session of its command. Rung inplace only.
	Started func(pid int) error `json:"-"`

	// Going, if set, is called with the process once its command was executed. It does
	// not wait. Not on rung inplace.
	Going func(*Process) `json:"-"`
}

// Network of a RUN.
type Network string

const (
	HostNetwork Network = ""     // that of the node, and so of the host
	NoNetwork   Network = "none" // only a loopback of its own
)

// MountKind says what a Mount shows.
type MountKind string

const (
	BindMount  MountKind = "bind"  // Source, or Sub of it
	TmpfsMount MountKind = "tmpfs" // a new memory file system
	FileMount  MountKind = "file"  // Data, in memory
)

// Mount is one mount of a RUN.
type Mount struct {
	Kind     MountKind
	Target   string // absolute in the container; links are followed inside the root
	ReadOnly bool   // with everything below it

	Source string // bind: a path of the node
	Sub    string // bind: a path inside Source, links followed as if Source were "/"

	Size int64  // tmpfs: bytes, 0 for the kernel's default
	Mode uint32 // tmpfs, file: permissions; 0 for a tmpfs: those of the directory that it covers

	Data     []byte // file
	Secret   bool   // file: it must never be on a disk
	UID, GID uint32 // file; bind: who owns Source where the id map has not that owner
}

// MountPoint is a path that must exist in a root before a RUN.
type MountPoint struct {
	Path string // absolute, in the container
	Dir  bool
}

// MountPoints lists what must exist in the root, in the order of mounting: a
// later one may lie on an earlier mount. Those below /dev are made by Run.
func (s RunSpec) MountPoints() []MountPoint {
	points := []MountPoint{{"/proc", true}, {"/dev", true}, {"/sys", true}}
	for _, m := range s.Mounts {
		dir := m.Kind == TmpfsMount
		if m.Kind == BindMount {
			if f, err := m.open(); err == nil {
				dir = f.isDir()
				f.close()
			}
		}
		if target := path.Clean("/" + m.Target); !strings.HasPrefix(target, "/dev/") {
			points = append(points, MountPoint{target, dir})
		}
	}
	return points
}

// Result is how a RUN ended.
type Result struct {
	Exit   int     // 128 + signal if a signal ended it
	Owners []Owner // rung userns-single only: see Owner
}

// ExecError says that the command of a RUN could not be started. Its text is runc's.
type ExecError struct {
	Text string
	Code int // 127 if there is no such command, else 126
	Err  error
}

func (e *ExecError) Error() string { return e.Text }

func (e *ExecError) Unwrap() error { return e.Err }

func (s RunSpec) check() error {
	switch {
	case len(s.Argv) == 0 || s.Argv[0] == "":
		return errors.New("run: no command")
	case len(s.Lower) == 0 && s.Root == "": // rung inplace has "/"
		return errors.New("internal error: run without a root")
	case len(s.Lower) > 0 && (s.Upper == "") != (s.Work == ""):
		return errors.New("internal error: run with only one of upper and work directory")
	case s.Network != HostNetwork && s.Network != NoNetwork:
		return fmt.Errorf("internal error: network %q", s.Network)
	}
	for _, list := range [][]string{s.Argv, s.Env, {s.Dir}} {
		for _, text := range list {
			if strings.IndexByte(text, 0) >= 0 {
				return fmt.Errorf("run: %.40q contains a zero byte", text)
			}
		}
	}
	return nil
}
