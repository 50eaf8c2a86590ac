package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// How often a waiter looks again. Waiting is for steps that take seconds; asking
// costs two system calls.
const (
	firstPoll = time.Millisecond
	lastPoll  = 25 * time.Millisecond
)

// Lock waits until it alone, over all processes and goroutines, holds name.
// While another has it, onWait (if not nil) is called with who that is, again
// when that changes; it runs in the caller's goroutine. A holder that dies loses
// the lock. unlock may be called again. The error is that of ctx, or of the file
// system.
func (s *Store) Lock(ctx context.Context, name string, onWait func(holder string)) (unlock func(), err error) {
	told := false
	last := ""
	poll := firstPoll
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		unlock, holder, err := s.tryLock(dirLocks+"/"+escape(name), true, unix.LOCK_EX)
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		if unlock != nil {
			return unlock, nil
		}
		if onWait != nil && (!told || holder != last) && (holder != "" || poll > firstPoll) {
			told, last = true, holder
			onWait(holder)
		}
		timer.Reset(poll)
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-timer.C:
		}
		poll = min(2*poll, lastPoll)
	}
}

// TryLock is Lock without waiting: ok is false when another holds name.
func (s *Store) TryLock(name string) (unlock func(), ok bool, err error) {
	unlock, _, err = s.tryLock(dirLocks+"/"+escape(name), true, unix.LOCK_EX)
	if err != nil {
		return nil, false, fmt.Errorf("lock %s: %w", name, err)
	}
	return unlock, unlock != nil, nil
}

// TryShare is TryLock for holders that do not mind each other: ok is false while one
// of Lock or TryLock holds name, and those wait for all of these.
func (s *Store) TryShare(name string) (unlock func(), ok bool, err error) {
	unlock, _, err = s.tryLock(dirLocks+"/"+escape(name), true, unix.LOCK_SH)
	if err != nil {
		return nil, false, fmt.Errorf("lock %s: %w", name, err)
	}
	return unlock, unlock != nil, nil
}

// tryLock gives unlock or, if somebody else has the lock, what they wrote about
// themselves (empty while they are writing it). Without make a lock file that
// does not exist is fs.ErrNotExist. how is LOCK_EX or LOCK_SH.
//
// The file is removed by its holder, the last one of a shared lock. So between our open and our flock it may
// have become another file, or none: then what we locked is worth nothing, and
// we start again.
func (s *Store) tryLock(file string, make bool, how int) (unlock func(), holder string, err error) {
	for range 1000 {
		f, err := s.openLock(file, make)
		if err != nil {
			return nil, "", err
		}
		switch err := flock(f, how); {
		case errors.Is(err, unix.EWOULDBLOCK):
			b := [256]byte{}
			n, _ := f.ReadAt(b[:], 0)
			f.Close()
			return nil, strings.TrimSpace(string(b[:n])), nil
		case err != nil:
			f.Close()
			return nil, "", err
		}
		mine, err1 := f.Stat()
		there, err2 := s.root.Lstat(file)
		if err1 != nil || err2 != nil || !os.SameFile(mine, there) {
			f.Close()
			if err := errors.Join(err1, err2); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, "", err
			}
			continue
		}
		_ = f.Truncate(0) // a file that is not ours to write says nothing, and locks as well
		_, _ = f.WriteAt([]byte(s.holder), 0)
		var once sync.Once
		return func() {
			once.Do(func() {
				if how == unix.LOCK_EX || flock(f, unix.LOCK_EX) == nil {
					_ = s.root.Remove(file) // while held; if it stays it is only an empty file
				}
				f.Close()
			})
		}, "", nil
	}
	return nil, "", errors.New("its file is replaced faster than it can be locked")
}

func (s *Store) openLock(file string, create bool) (*os.File, error) {
	f, err := s.root.OpenFile(file, os.O_RDWR|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if create && errors.Is(err, fs.ErrNotExist) {
		f, err = s.root.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, fs.ErrExist) {
			return s.openLock(file, create)
		}
		if err == nil {
			_ = f.Chmod(0o644)
			if err := s.share(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
				f.Close()
				return nil, err
			}
		}
	}
	if errors.Is(err, fs.ErrPermission) {
		f, err = s.root.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	}
	return f, err
}

// flock takes the lock or says EWOULDBLOCK; signals do not disturb it.
func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
