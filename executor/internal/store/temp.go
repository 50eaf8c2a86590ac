package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// session is a directory in tmp for one open Store, guarded by a lock that
// dies with the process. The lock is taken before the directory is made and
// given back after it is gone: a directory whose lock is free is garbage.
type session struct {
	name   string // "tmp/<random>"
	unlock func()
	n      atomic.Uint64
}

// Guard follows the name of a directory in the folder for temporary files: the
// flock of the file of that name tells Sweep that the directory is in use.
const Guard = ".lock"

func (s *Store) tempName(kind string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.begin(); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s/%s-%d", s.session.name, escape(kind), s.session.n.Add(1)), nil
}

// begin begins the session if there is none. s.mu is held.
func (s *Store) begin() error {
	if s.closed {
		return fmt.Errorf("use of a closed store: %w", fs.ErrClosed)
	}
	if s.session != nil {
		return nil
	}
	name, unlock, err := s.tempSession()
	if err != nil {
		return fmt.Errorf("begin session: %w", err)
	}
	s.session = &session{name: name, unlock: unlock}
	s.since.Store(time.Now().UnixNano()) // after the lock file was written, whose time others look at
	return nil
}

// tempSession makes a directory in tmp with its lock.
func (s *Store) tempSession() (name string, unlock func(), err error) {
	for unlock == nil {
		name = dirTemp + "/" + random()
		if unlock, _, err = s.tryLock(name+Guard, true, unix.LOCK_EX); err != nil { // nil without an error: a Sweep looks at it
			return "", nil, err
		}
	}
	if err := s.mkdir(name); err != nil {
		unlock()
		return "", nil, err
	}
	return name, unlock, nil
}

func (e *session) end(s *Store) error {
	err := s.root.RemoveAll(e.name)
	if err != nil {
		// Files of mapped ids: the next Sweep that has a remover for them finds
		// a directory without a live owner.
		err = fmt.Errorf("remove temporary files: %w", err)
	}
	e.unlock()
	return err
}

// Temp is a directory of our own on the store's file system. It goes away with
// Remove, with Close of the store, or at the next Sweep after a crash.
type Temp struct {
	Path string
	s    *Store
}

// TempDir makes an empty directory (0755). kind is for people who look into tmp.
func (s *Store) TempDir(kind string) (*Temp, error) {
	name, err := s.tempName(kind)
	if err != nil {
		return nil, err
	}
	if err := s.mkdir(name); err != nil {
		return nil, err
	}
	return &Temp{filepath.Join(s.dir, filepath.FromSlash(name)), s}, nil
}

// Remove removes the directory and what is in it. It may be called again, and
// after Publish.
func (t *Temp) Remove() error {
	if err := os.RemoveAll(t.Path); err != nil {
		return fmt.Errorf("remove temporary files: %w", err)
	}
	return nil
}

// Discard gives the directory to the next Sweep, for what only a node can remove.
func (t *Temp) Discard() error {
	name, unlock, err := t.s.tempSession()
	if err != nil {
		return fmt.Errorf("give temporary files away: %w", err)
	}
	defer unlock()
	if err := os.Rename(t.Path, filepath.Join(t.s.dir, filepath.FromSlash(name), "gone")); err != nil {
		return fmt.Errorf("give temporary files away: %w", err)
	}
	return nil
}

// Publish moves the directory to dest, a path in the same store such as that of
// LayerDir, whose parent is made. When dest exists already it stays as it is, ours
// is removed, and won is false.
func (t *Temp) Publish(dest string) (won bool, err error) {
	defer t.s.pass()()
	now := t.s.now()
	_ = os.Chtimes(t.Path, now, now) // else its mark is from when the last file was made
	err = os.Rename(t.Path, dest)
	if errors.Is(err, fs.ErrNotExist) {
		parent, rerr := filepath.Rel(t.s.dir, filepath.Dir(dest))
		if rerr != nil {
			return false, fmt.Errorf("publish %s: %w", dest, rerr)
		}
		if err := t.s.mkdir(filepath.ToSlash(parent)); err != nil {
			return false, fmt.Errorf("publish %s: %w", dest, err)
		}
		err = os.Rename(t.Path, dest)
	}
	if errors.Is(err, fs.ErrExist) { // ENOTEMPTY counts as that
		return false, t.Remove()
	}
	if err != nil {
		return false, fmt.Errorf("publish %s: %w", dest, err)
	}
	return true, nil
}

// TempFile makes an empty file to read and write (0644). The caller closes it,
// and removes it or leaves that to Close of the store.
func (s *Store) TempFile(kind string) (*os.File, error) {
	f, name, err := s.create(kind)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(s.dir, filepath.FromSlash(name))
	g, err := os.OpenFile(path, os.O_RDWR, 0) // a file that knows its whole name
	return g, errors.Join(err, f.Close())
}

// Sweep removes what crashed processes left: temporary files whose session is
// dead, and lock files that nobody holds. remove takes a path away with all that
// is below it; nil is os.RemoveAll, which cannot remove files of ids that only a
// node has. What could not be removed is in left and stays for the next Sweep.
func (s *Store) Sweep(ctx context.Context, remove func(ctx context.Context, path string) error) (removed int, left []string, err error) {
	if remove == nil {
		remove = func(_ context.Context, p string) error { return os.RemoveAll(p) }
	}
	seen := map[string]bool{}
	list, err := fs.ReadDir(s.root.FS(), dirTemp)
	if err != nil {
		return 0, nil, fmt.Errorf("sweep: %w", err)
	}
	for _, e := range list {
		name := dirTemp + "/" + strings.TrimSuffix(e.Name(), Guard)
		if seen[name] {
			continue
		}
		seen[name] = true
		if err := context.Cause(ctx); err != nil {
			return removed, left, err
		}
		unlock, _, err := s.tryLock(name+Guard, true, unix.LOCK_EX)
		if err != nil {
			return removed, left, fmt.Errorf("sweep: %w", err)
		}
		if unlock == nil {
			continue // alive
		}
		if _, err := s.root.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			unlock()
			continue
		}
		path := filepath.Join(s.dir, filepath.FromSlash(name))
		if err := remove(ctx, path); err != nil {
			left = append(left, path)
		} else {
			removed++
		}
		unlock()
	}
	list, err = fs.ReadDir(s.root.FS(), dirLocks)
	if err != nil {
		return removed, left, fmt.Errorf("sweep: %w", err)
	}
	for _, e := range list {
		unlock, _, err := s.tryLock(dirLocks+"/"+e.Name(), false, unix.LOCK_EX)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return removed, left, fmt.Errorf("sweep: %w", err)
		}
		if unlock != nil {
			unlock()
		}
	}
	return removed, left, nil
}
