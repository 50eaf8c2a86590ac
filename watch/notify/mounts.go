package notify

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// mountTable has the mounts that this process sees.
const mountTable = "/proc/self/mountinfo"

// mounts tells when something was mounted over what is watched, or taken away from
// there: events are of directories, not of their names.
type mounts struct {
	fd   int    // -1: nobody tells
	last string // the lines that have to do with the interest
}

func openMounts() mounts {
	fd, err := unix.Open(mountTable, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return mounts{fd: -1}
	}
	return mounts{fd: fd}
}

func (m *mounts) close() {
	if m.fd >= 0 {
		_ = unix.Close(m.fd) // it was only read
		m.fd = -1
	}
}

// take says what changed looks at from now on.
func (m *mounts) take(i Interest) {
	if m.fd >= 0 {
		m.last = m.lines(i)
	}
}

// changed tells whether mounts are others than at the last call or take. Where none
// are, it costs one system call.
func (m *mounts) changed(i Interest) bool {
	if m.fd < 0 {
		return false
	}
	fds := []unix.PollFd{{Fd: int32(m.fd), Events: unix.POLLPRI}}
	if n, err := unix.Poll(fds, 0); err != nil || n == 0 {
		return false
	}
	was := m.last
	m.last = m.lines(i)
	return m.last != was
}

func (m *mounts) lines(i Interest) string {
	table, err := os.ReadFile(mountTable)
	if err != nil {
		return ""
	}
	var places []string
	for _, p := range slices.Concat(i.Trees, i.Files) {
		if real, err := filepath.EvalSymlinks(p); err == nil {
			p = real
		}
		places = append(places, p)
	}
	return mountsOf(string(table), places)
}

var mountEscapes = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// mountsOf are those lines of a mount table, as proc(5) has it, whose mount points are
// at, above or below one of places.
func mountsOf(table string, places []string) string {
	var out strings.Builder
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		point := mountEscapes.Replace(fields[4])
		if slices.ContainsFunc(places, func(p string) bool { return within(p, point) || within(point, p) }) {
			out.WriteString(line)
		}
	}
	return out.String()
}
