package inplace

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/tree"
)

// Mount is what a command is to find at Target, by the means there are without
// mounting: a directory or file in its place.
type Mount struct {
	Target string // absolute; links are followed in the root

	// Source is a path of the file system of the root that is moved to the
	// target, and back afterwards with what was written; a link leads to it from
	// further targets. "" is a new directory, or a file with Data.
	Source string
	Data   []byte // not nil: a file
	// Secret data never touch the disk: the target is a link to a file in memory.
	Secret bool
	// Mode and owner of what is made. Mode 0 gives a directory that of the one
	// in its place, or 1777.
	Mode     uint32
	UID, GID uint32
}

func (m *Mount) isNewDir() bool { return m.Source == "" && m.Data == nil }

// Mounts are those of one command.
type Mounts struct {
	root   *Root
	undo   []func() error    // in the order in which things were done
	fresh  []string          // see Mount
	moved  map[string]string // of each Source that was moved: its target in the root
	memory string            // folder of secrets
}

// memoryPlace is a memory file system that every container has.
const memoryPlace = "/dev/shm"

// Mount puts list in place, in its order. On error nothing of it is left. fresh
// are directories of the root that were made for the command before, each below
// those ahead of it: one on the way to a target goes with it if it stays empty.
func (r *Root) Mount(ctx context.Context, list []Mount, fresh ...string) (*Mounts, error) {
	m := &Mounts{root: r, fresh: fresh, moved: map[string]string{}}
	for i := range list {
		if err := m.add(ctx, &list[i]); err != nil {
			return nil, errors.Join(fmt.Errorf("put something in place of a mount at %s: %w", list[i].Target, err), m.Close())
		}
	}
	return m, nil
}

// Close takes the mounts away and puts back what was there. A repeat is harmless.
func (m *Mounts) Close() error {
	var errs []error
	for _, f := range slices.Backward(m.undo) {
		errs = append(errs, f())
	}
	m.undo = nil
	return errors.Join(errs...)
}

func (m *Mounts) add(ctx context.Context, mt *Mount) error {
	name, err := tree.Resolve(ctx, m.root.Tree(), mt.Target)
	if err != nil {
		return err
	}
	if name == "" {
		return errors.New("it is the root")
	}
	real := m.root.dir + "/" + name
	at := m.root.spots.find(name)
	if at != nil && at.alone() {
		return m.inSpot(real, mt)
	}
	if l := m.root.loan(real + "/"); l != nil && l.dir == real && mt.Data == nil {
		return m.onLoan(l, mt)
	}
	if at != nil && at.above() {
		return errors.New("the container has a mount of its own below it")
	}
	for _, d := range m.fresh {
		if strings.HasPrefix(name, d+"/") {
			m.passing(m.root.dir + "/" + d)
		}
	}
	if err := m.parents(path.Dir(real)); err != nil {
		return err
	}
	return keepTime(path.Dir(real), func() error { return m.put(real, mt) })
}

// parents makes the directories above a target that are missing, and takes
// them away again if nothing else came into them.
func (m *Mounts) parents(dir string) error {
	st, there, err := lstat(dir)
	if err != nil {
		return err
	}
	if there {
		if !isDir(st) {
			return &os.PathError{Op: "make", Path: dir, Err: unix.ENOTDIR}
		}
		return nil
	}
	up := path.Dir(dir)
	if err := m.parents(up); err != nil {
		return err
	}
	if err := keepTime(up, func() error { return makeDir(dir, 0o755, 0, 0) }); err != nil {
		return err
	}
	m.passing(dir)
	return nil
}

// passing sees to it that a directory goes if it is empty in the end.
func (m *Mounts) passing(dir string) {
	m.undo = append(m.undo, func() error {
		return keepTime(path.Dir(dir), func() error {
			err := unix.Rmdir(dir)
			if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
				return nil // the command made it its own, or it is gone
			}
			return err
		})
	})
}

func makeDir(p string, mode, uid, gid uint32) error {
	if err := unix.Mkdir(p, 0o700); err != nil {
		return &os.PathError{Op: "make", Path: p, Err: err}
	}
	return errors.Join(unix.Lchown(p, int(uid), int(gid)), unix.Chmod(p, mode))
}

// put places one mount at real, with what is there moved aside.
func (m *Mounts) put(real string, mt *Mount) error {
	st, there, err := lstat(real)
	if err != nil {
		return err
	}
	if there {
		if mt.Mode == 0 && mt.isNewDir() {
			mt.Mode = st.Mode & 0o7777
		}
		m.root.n++
		aside := filepath.Join(m.root.hide, "aside", strconv.Itoa(m.root.n))
		if err := move(real, aside); err != nil {
			return err
		}
		m.undo = append(m.undo, func() error {
			if _, taken, err := lstat(real); err != nil || taken { // the command put something there after all
				return errors.Join(err, move(aside, filepath.Join(m.root.hide, "gone", path.Base(aside))))
			}
			return keepTime(path.Dir(real), func() error { return move(aside, real) })
		})
	}
	first, again := m.moved[mt.Source]
	if mt.Source != "" && !again {
		if err := move(mt.Source, real); err != nil {
			return fmt.Errorf("%w: is the store on another file system than the root?", err)
		}
		m.moved[mt.Source] = "/" + strings.TrimPrefix(strings.TrimPrefix(real, m.root.dir), "/")
		placed, _, err := lstat(real)
		if err != nil {
			return err
		}
		m.undo = append(m.undo, func() error {
			return keepTime(path.Dir(real), func() error {
				if now, there, err := lstat(real); err != nil || !there || now.Ino != placed.Ino {
					return err // the command took it away
				}
				return move(real, mt.Source)
			})
		})
		return nil
	}
	if again {
		err = os.Symlink(first, real)
	} else {
		err = m.make(real, mt)
	}
	if err != nil {
		return err
	}
	placed, _, err := lstat(real)
	if err != nil {
		return err
	}
	m.undo = append(m.undo, func() error {
		return keepTime(path.Dir(real), func() error {
			if now, there, err := lstat(real); err != nil || !there || now.Ino != placed.Ino {
				return err
			}
			return m.root.discard(real)
		})
	})
	return nil
}

func (m *Mounts) make(real string, mt *Mount) error {
	switch {
	case mt.isNewDir():
		return makeDir(real, cmp.Or(mt.Mode, 0o1777), mt.UID, mt.GID)
	case mt.Secret:
		p, err := m.secret(mt)
		if err != nil {
			return err
		}
		return os.Symlink(p, real)
	}
	return makeFile(real, mt)
}

func makeFile(p string, mt *Mount) error {
	f, err := os.OpenFile(p, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(mt.Data)
	return errors.Join(err, unix.Fchown(int(f.Fd()), int(mt.UID), int(mt.GID)), unix.Fchmod(int(f.Fd()), mt.Mode), f.Close())
}

const memoryFile = "memory"

// secret puts data into a file in memory.
func (m *Mounts) secret(mt *Mount) (string, error) {
	if m.memory == "" {
		dir := fmt.Sprintf("%s/kaniko-build-%d", memoryPlace, os.Getpid())
		note := filepath.Join(m.root.hide, memoryFile)
		if err := os.WriteFile(note, []byte(dir), 0o600); err != nil { // first, so that it is found
			return "", err
		}
		if err := errors.Join(os.RemoveAll(dir), makeDir(dir, 0o711, 0, 0)); err != nil {
			return "", fmt.Errorf("keep a secret in memory: %w", err)
		}
		m.memory = dir
		m.undo = append(m.undo, func() error { return errors.Join(os.RemoveAll(dir), os.Remove(note)) })
	}
	m.root.n++
	p := filepath.Join(m.memory, strconv.Itoa(m.root.n))
	return p, makeFile(p, mt)
}

// inSpot handles a target in what is left alone: a file that is there gets the
// data for as long as the command runs, as /etc/hosts; in a file system of the
// container, as /dev, something new can be made.
func (m *Mounts) inSpot(real string, mt *Mount) error {
	st, there, err := lstat(real)
	if err != nil {
		return err
	}
	if !there && mt.Source == "" {
		first, err := firstMissing(real)
		if err != nil {
			return err
		}
		m.root.n++
		note := filepath.Join(m.root.hide, madePrefix+strconv.Itoa(m.root.n))
		if err := os.WriteFile(note, []byte(first), 0o600); err != nil {
			return err
		}
		m.undo = append(m.undo, func() error { return unmake(note) })
		if err := os.MkdirAll(path.Dir(real), 0o755); err != nil {
			return err
		}
		return m.make(real, mt)
	}
	if !there || st.Mode&unix.S_IFMT != unix.S_IFREG || mt.Data == nil || mt.Secret {
		return errors.New("it lies in what the container itself needs there")
	}
	was, err := os.ReadFile(real)
	if err != nil || string(was) == string(mt.Data) {
		return err
	}
	m.root.n++
	note := filepath.Join(m.root.hide, savedPrefix+strconv.Itoa(m.root.n))
	b, err := json.Marshal(saved{Path: real, Data: was, Times: [2]int64{st.Mtim.Sec, int64(st.Mtim.Nsec)}})
	if err != nil {
		return err
	}
	if err := errors.Join(os.WriteFile(note+".new", b, 0o600), os.Rename(note+".new", note)); err != nil {
		return err
	}
	m.undo = append(m.undo, func() error { return restore(note) })
	return rewrite(real, mt.Data)
}

// firstMissing is the path nearest to the root, at or above p, that is not there.
func firstMissing(p string) (string, error) {
	for {
		up := path.Dir(p)
		st, there, err := lstat(up)
		switch {
		case err != nil:
			return "", err
		case there && !isDir(st):
			return "", &os.PathError{Op: "make", Path: up, Err: unix.ENOTDIR}
		case there:
			return p, nil
		}
		p = up
	}
}

const madePrefix = "made-"

// unmake removes what a note says was made in what is left alone.
func unmake(note string) error {
	p, err := os.ReadFile(note)
	if err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(string(p)), os.Remove(note))
}

const savedPrefix = "saved-"

// saved is what a file of the container held.
type saved struct {
	Path  string
	Data  []byte
	Times [2]int64 // mtime: seconds and nanoseconds
}

// rewrite changes a file in place: it is a mount, and cannot be replaced.
func rewrite(p string, data []byte) error {
	f, err := os.OpenFile(p, os.O_WRONLY|os.O_TRUNC|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) {
		return nil // the container's own has to do
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

func restore(note string) error {
	b, err := os.ReadFile(note)
	if err != nil {
		return err
	}
	var s saved
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	err = rewrite(s.Path, s.Data)
	if err == nil {
		ts := unix.Timespec{Sec: s.Times[0], Nsec: s.Times[1]}
		err = unix.UtimesNanoAt(unix.AT_FDCWD, s.Path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.EROFS) {
			err = nil
		}
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("restore %s: %w", s.Path, err)
	}
	return os.Remove(note)
}

// restoreFiles undoes what mounts of a killed build did outside the root.
func restoreFiles(hide string) error {
	names, err := list(hide)
	if err != nil {
		return err
	}
	for _, n := range names {
		switch {
		case n == memoryFile:
			b, err := os.ReadFile(filepath.Join(hide, n))
			if err != nil {
				return err
			}
			if p := path.Clean(string(b)); strings.HasPrefix(p, memoryPlace+"/kaniko-build-") {
				err = os.RemoveAll(p)
			}
			if err != nil {
				return err
			}
		case strings.HasPrefix(n, madePrefix):
			if err := unmake(filepath.Join(hide, n)); err != nil {
				return err
			}
		case strings.HasPrefix(n, savedPrefix) && !strings.HasSuffix(n, ".new"):
			if err := restore(filepath.Join(hide, n)); err != nil {
				return err
			}
		}
	}
	return nil
}
