package inplace

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// endDaemons kills processes that commands of a killed build left in sessions of their
// own, in a container's root that still has the image's files: those that
//
//   - lost their parent, or have one of these as parent: who enters the container to look
//     around has a parent outside of it;
//   - are younger than the build, and in this mount namespace;
//   - execute a file of the image: neither a spot nor one of the container's own, which
//     are in the folder hide.
//
// A process of another user than root does not let us see what it executes, and lives on.
func endDaemons(hide string, s *spot, began uint64) error {
	namespace, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return fmt.Errorf("end what a killed build left running: %w", err)
	}
	ours := func(pid int) bool {
		start, err := startTime(pid)
		if err != nil || start < began {
			return false
		}
		dir := "/proc/" + strconv.Itoa(pid)
		ns, err1 := os.Readlink(dir + "/ns/mnt")
		exe, err2 := os.Readlink(dir + "/exe")
		if err1 != nil || err2 != nil || ns != namespace || !strings.HasPrefix(exe, "/") || strings.HasPrefix(exe, hide+"/own/") {
			return false
		}
		at := s.find(strings.TrimSuffix(exe[1:], " (deleted)"))
		return at == nil || !at.alone()
	}
	tried := map[int]bool{}   // what cannot be ended now never will be
	for more := true; more; { // what is left loses its parent, too
		more = false
		orphans, err := living(fieldParent, 1)
		if err != nil {
			return err
		}
		for _, pid := range orphans {
			if pid == os.Getpid() || tried[pid] || !ours(pid) {
				continue
			}
			tried[pid] = true
			if err := end(pid, func() bool { return ours(pid) }); err != nil {
				return err
			}
			more = true
		}
	}
	return nil
}

// end kills a process, unless still says that its number is another's by now, and waits a
// moment until it is gone.
func end(pid int, still func() bool) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil // gone
	}
	if err != nil {
		return fmt.Errorf("end what a killed build left running: process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if !still() {
		return nil
	}
	if unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil {
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1000) // until it is gone
	}
	return nil
}
