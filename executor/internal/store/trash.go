package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Removal is a thing that is to go.
type Removal struct {
	Path string    // below the store
	Mark string    // the file whose time is the last use; "" is Path itself
	Used time.Time // the last use that the decision stands on
}

func (r Removal) mark() string {
	if r.Mark != "" {
		return r.Mark
	}
	return r.Path
}

// Trash takes things out of a store while others use it. A thing is whole until
// it is gone from its place, at once. What a live session has used since it
// began stays.
type Trash struct {
	s      *Store
	top    *os.File // the store's directory, for the gate
	queue  *os.File // and that for temporary files, for the queue at it
	wait   time.Duration
	name   string
	unlock func()
	n      int
	spare  string               // name of a session that holds nothing
	live   map[string]time.Time // others, with their begin
}

// Trash makes an empty one. What the session spare has used may go: it is that
// of whoever decides, who looks at everything.
func (s *Store) Trash(spare string) (*Trash, error) {
	name, unlock, err := s.tempSession()
	if err != nil {
		return nil, fmt.Errorf("make a place for what goes: %w", err)
	}
	top, err := s.root.Open(".")
	if err != nil {
		unlock()
		return nil, fmt.Errorf("make a place for what goes: %w", err)
	}
	queue, err := s.root.Open(dirTemp)
	if err != nil {
		unlock()
		return nil, errors.Join(fmt.Errorf("make a place for what goes: %w", err), top.Close())
	}
	return &Trash{s: s, top: top, queue: queue, wait: gatePatience, name: name, unlock: unlock, spare: spare, live: map[string]time.Time{}}, nil
}

// Close gives what was taken to the next Sweep.
func (t *Trash) Close() {
	t.unlock()
	t.top.Close()
	t.queue.Close()
}

// HeldSince is when the oldest live session began that counts. What was used
// since then, by anybody, stays.
func (t *Trash) HeldSince() (time.Time, error) {
	list, err := fs.ReadDir(t.s.root.FS(), dirTemp)
	if err != nil {
		return time.Time{}, fmt.Errorf("look for sessions: %w", err)
	}
	for _, e := range list {
		name := dirTemp + "/" + strings.TrimSuffix(e.Name(), Guard)
		if _, known := t.live[name]; known || !strings.HasSuffix(e.Name(), Guard) || name == t.name || name == t.spare {
			continue
		}
		unlock, _, err := t.s.tryLock(name+Guard, false, unix.LOCK_EX)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it ended
			continue
		case err != nil:
			return time.Time{}, fmt.Errorf("look for sessions: %w", err)
		case unlock != nil: // nobody's; its maker, if it is just being made, takes another name or looks again
			unlock()
			continue
		}
		st, err := t.s.root.Lstat(name + Guard)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return time.Time{}, fmt.Errorf("look for sessions: %w", err)
		}
		t.live[name] = st.ModTime()
	}
	since := never
	for _, begin := range t.live {
		if begin.Before(since) {
			since = begin
		}
	}
	return since, nil
}

// never is later than every mark.
var never = time.Unix(1<<40, 0)

// Take moves a thing away, unless it is held or was used after r.Used. One that
// is absent is not taken, nor one while others have the gate for long: who has it may be
// stopped, so the next call does not wait for them again.
func (t *Trash) Take(r Removal) (bool, error) {
	open, ok := shut(t.top, t.queue, t.wait)
	if !ok {
		t.wait = 0
		return false, nil
	}
	defer open()
	t.wait = gatePatience
	if held, err := t.held(r, r.mark()); held || err != nil {
		return false, err
	}
	t.n++
	to := fmt.Sprintf("%s/%d", t.name, t.n)
	err := t.s.root.Rename(r.Path, to)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("take %s away: %w", r.Path, err)
	}
	// Whoever found it before it went has marked it, and has begun a session
	// before that: now both are to be seen.
	mark := to
	if r.Mark != "" {
		mark = r.Mark
	}
	held, err := t.held(r, mark)
	if held || err != nil {
		return false, errors.Join(err, t.giveBack(to, r.Path))
	}
	return true, nil
}

func (t *Trash) held(r Removal, mark string) (bool, error) {
	since, err := t.HeldSince()
	if err != nil {
		return false, err
	}
	st, err := t.s.root.Lstat(mark)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // no mark at all; or Rename says that the thing is gone
	}
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", mark, err)
	}
	return !st.ModTime().Before(since) || st.ModTime().After(r.Used), nil
}

// giveBack puts a thing where it was, unless somebody has made it anew.
func (t *Trash) giveBack(from, to string) error {
	st, err := t.s.root.Lstat(from)
	if err == nil && st.IsDir() {
		err = t.s.root.Rename(from, to) // not over a directory with something in it
	} else if err == nil {
		err = t.s.root.Link(from, to)
	}
	switch {
	case err == nil || errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, fs.ErrNotExist): // the directory of it went meanwhile
		if err := t.s.mkdir(path.Dir(to)); err != nil {
			return err
		}
		return t.s.root.Rename(from, to)
	}
	return fmt.Errorf("put %s back: %w", to, err)
}
