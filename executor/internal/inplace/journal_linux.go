package inplace

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// phase says whose the files in the directory are. It is a file in the hidden
// folder; none means that there is nothing to recover.
//
//	leaving    own files, some of them in own/ already; nothing else
//	ours       what we put there, and what commands made
//	returning  own files, some of them still in own/; nothing else
type phase string

const (
	leaving   phase = "leaving"
	ours      phase = "ours"
	returning phase = "returning"
)

// journal is the content of the phase file.
type journal struct {
	Phase phase
	// As Options have them.
	Keep, Ignore, Stay []string

	// Began is when the process started that put the files aside, in ticks of the clock
	// since the machine did: what commands left running is younger.
	Began uint64 `json:",omitempty"`

	// Of a loan: the directory, as it was called, and its inode.
	Dir string `json:",omitempty"`
	Ino uint64 `json:",omitempty"`
}

func (j journal) at(p phase) journal { j.Phase = p; return j }

const phaseFile = "phase"

func writeJournal(hide string, j journal) error {
	b, err := json.Marshal(j)
	if err != nil {
		return err
	}
	p := filepath.Join(hide, phaseFile)
	if err := os.WriteFile(p+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(p+".new", p)
}

func readJournal(hide string) (j journal, ok bool, err error) {
	b, err := os.ReadFile(filepath.Join(hide, phaseFile))
	if errors.Is(err, os.ErrNotExist) {
		return j, false, nil
	}
	if err != nil {
		return j, false, err
	}
	return j, true, json.Unmarshal(b, &j)
}

// begin makes the hidden folder and puts the directory's own files into it.
// dir is "" for "/".
func begin(dir, hide string, j journal, s *spot) error {
	if err := os.Mkdir(hide, 0o700); err != nil {
		return err
	}
	for _, d := range []string{"own", "gone", "tmp", "aside"} {
		if err := os.Mkdir(filepath.Join(hide, d), 0o700); err != nil {
			return err
		}
	}
	// Commands of any user may have to pass: not to list.
	if err := os.Chmod(hide, 0o711); err != nil {
		return err
	}
	if err := copyAttributes(dir+"/", filepath.Join(hide, "own")); err != nil {
		return err
	}
	var err error
	if j.Began, err = startTime(os.Getpid()); err != nil {
		return err
	}
	if err := writeJournal(hide, j.at(leaving)); err != nil {
		return err
	}
	if err := putAside(dir, "", filepath.Join(hide, "own"), s, move); err != nil {
		return err
	}
	return writeJournal(hide, j.at(ours))
}

// putAside moves the entries of the directory name into into, with mv.
func putAside(dir, name, into string, at *spot, mv mover) error {
	st, _, err := lstat(dir + "/" + name)
	if err != nil {
		return err
	}
	names, err := list(dir + "/" + name)
	if err != nil {
		return err
	}
	for _, n := range names {
		from, to, s := dir+"/"+join(name, n), into+"/"+n, at.below[n]
		switch {
		case s == nil:
			err = mv(from, to)
		case !s.alone():
			if err = makeLike(from, to); err == nil {
				err = putAside(dir, join(name, n), to, s, mv)
			}
			if err == nil {
				err = plainAttributes(from)
			}
		}
		if err != nil {
			return err
		}
	}
	return setTimes(into, st)
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// sweep takes away, with discard, what is in the directory name but for spots.
func sweep(dir, name string, at *spot, discard func(p string) error) error {
	names, err := list(dir + "/" + name)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil // a command removed what should be left alone
	}
	if err != nil {
		return err
	}
	for _, n := range names {
		full, s := join(name, n), at.below[n]
		switch {
		case s == nil:
			err = discard(dir + "/" + full)
		case !s.kept:
			if err = sweep(dir, full, s, discard); err == nil {
				if st, there, _ := lstat(dir + "/" + full); there && isDir(st) {
					err = plainAttributes(dir + "/" + full)
				}
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// leave gives the directory back: what is ours goes, what was its own returns.
// ends says that what goes need not be deleted: but for what is large, as the end of the
// container would wait until that is written to disk.
func leave(dir, hide string, s *spot, ends bool) error {
	j, ok, err := readJournal(hide)
	if err != nil {
		return fmt.Errorf("give back %s/: %w", dir, err)
	}
	remove := func() error { return os.RemoveAll(hide) }
	if ends {
		remove = func() error { dropLarge(filepath.Join(hide, "gone")); return nil }
	}
	if !ok {
		return remove()
	}
	wrap := func(err error) error {
		return fmt.Errorf("give back %s/, whose files are in %s/own: %w", dir, hide, err)
	}
	if j.Phase == ours {
		if err := restoreFiles(hide); err != nil {
			return wrap(err)
		}
		n := time.Now().UnixNano()
		discard := func(p string) error {
			n++
			return move(p, filepath.Join(hide, "gone", strconv.FormatInt(n, 36)))
		}
		if err := sweep(dir, "", s, discard); err != nil {
			return wrap(err)
		}
		if err := writeJournal(hide, j.at(returning)); err != nil {
			return wrap(err)
		}
	}
	if err := bringBack(filepath.Join(hide, "own"), dir+"/", move); err != nil {
		return wrap(err)
	}
	// The journal goes last but the folder itself: all that is left is rubbish.
	if err := os.Remove(filepath.Join(hide, phaseFile)); err != nil {
		return wrap(err)
	}
	return keepTime(dir+"/", remove)
}

const largeFile = 1 << 20 // bytes

// dropLarge deletes the large files below dir, as far as it can.
func dropLarge(dir string) {
	_ = filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil
		}
		if st, err := e.Info(); err == nil && st.Size() >= largeFile {
			_ = os.Remove(p)
		}
		return nil
	})
}

// bringBack moves what is in from back into to, with mv, and gives to the attributes of
// from. Directories that are on both sides were left in place, or had not been
// moved as a whole.
func bringBack(from, to string, mv mover) error {
	names, err := list(from)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	kept, _, err := lstat(from)
	if err != nil {
		return err
	}
	for _, n := range names {
		a, b := from+"/"+n, filepath.Join(to, n)
		if n == unfinished {
			if err := os.Remove(a); err != nil {
				return err
			}
			continue
		}
		st, _, err := lstat(a)
		if err != nil {
			return err
		}
		old, there, err := lstat(b)
		if err != nil {
			return err
		}
		if there && isDir(st) && isDir(old) {
			if err := bringBack(a, b, mv); err != nil {
				return err
			}
			if err := os.Remove(a); err != nil {
				return err
			}
			continue
		}
		if err := mv(a, b); err != nil {
			return err
		}
	}
	if err := copyAttributes(from, to); err != nil {
		return err
	}
	return setTimes(to, kept)
}

// Recover gives the directory back if a build was killed that used it: what it
// left running ends, its files go, the container's own return. It does nothing
// if there is nothing to do. keep are paths that are left alone beside those that
// the killed build left alone. The caller holds the lock of the directory.
func Recover(o Options) error {
	if _, there, err := lstat(o.Hide); err != nil || !there {
		return err
	}
	j, _, err := readJournal(o.Hide)
	if err != nil {
		return fmt.Errorf("read what a killed build noted: %w", err)
	}
	if err := endSession(o.Hide); err != nil {
		return err
	}
	j.Keep, j.Ignore = append(j.Keep, o.Keep...), append(j.Ignore, o.Hide)
	s, err := spots(o.Dir, j)
	if err != nil {
		return err
	}
	if j.Phase == ours && o.Dir == "/" {
		if err := endDaemons(o.Hide, s, j.Began); err != nil {
			return err
		}
	}
	return leave(prefix(o.Dir), o.Hide, s, o.Ends)
}

// RecoverIdle is Recover unless somebody uses the directory. It needs no lock.
func RecoverIdle(o Options) error {
	if _, there, err := lstat(o.Hide); err != nil || !there {
		return err
	}
	f, err := tryLock(o.Dir)
	if err != nil || f == nil {
		return err
	}
	defer f.Close()
	return Recover(o)
}

// Lock waits for the right to use dir as a root. waiting is called once if
// another process has it. The lock ends when the file is closed here and in
// every process that was given it.
func Lock(ctx context.Context, dir string, waiting func()) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		if waiting != nil {
			waiting()
			waiting = nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			f.Close()
			return nil, context.Cause(ctx)
		}
	}
}

const sessionFile = "session"

// Running notes the process that leads the session of a command, so that all
// of it can be ended if we are killed.
func (r *Root) Running(pid int) error {
	start, err := startTime(pid)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.hide, sessionFile), []byte(fmt.Sprintf("%d %d", pid, start)), 0o600)
}

// endSession kills what a command left running whose build was killed.
func endSession(hide string) error {
	b, err := os.ReadFile(filepath.Join(hide, sessionFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var leader int
	var start uint64
	if n, _ := fmt.Sscan(string(b), &leader, &start); n != 2 {
		return nil
	}
	if now, err := startTime(leader); err == nil && now != start {
		return nil // the number is another process's now
	}
	for {
		pids, err := living(fieldSession, leader)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			if err := end(pid, func() bool { return true }); err != nil {
				return err
			}
		}
	}
}

// Fields of /proc/PID/stat, from the state on (proc_pid_stat(5)).
const (
	fieldState   = 0
	fieldParent  = 1
	fieldSession = 3
)

// living are the processes that are not dead and have a value in a field.
func living(field, value int) ([]int, error) {
	names, err := list("/proc")
	if err != nil {
		return nil, err
	}
	var out []int
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil {
			continue
		}
		f, err := statFields(pid)
		if err == nil && f[field] == strconv.Itoa(value) && f[fieldState] != "Z" && f[fieldState] != "X" {
			out = append(out, pid)
		}
	}
	return out, nil
}

// statFields are the fields of /proc/PID/stat from the state on.
func statFields(pid int) ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 20 {
		return nil, fmt.Errorf("read /proc/%d/stat: %q", pid, b)
	}
	return f, nil
}

func startTime(pid int) (uint64, error) {
	f, err := statFields(pid)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(f[19], 10, 64)
}
