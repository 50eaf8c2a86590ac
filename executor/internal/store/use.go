package store

import (
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// When a thing was last used is the modification time of its file or directory:
// the time of the last access is off on many machines. Whoever finds a thing sets
// it, unless it is later than the begin of this store's session and less than
// useTick old. That makes it also a sign that is cheap to give: what was used
// since the oldest live session began may be held by that, and a Trash leaves it
// alone.
//
// Marking and taking away exclude each other (gate). Besides, whoever marks a thing looks
// afterwards whether it is still there, and a Trash that has moved a thing away looks at
// the mark afterwards and puts it back. So one of the two sees the other, whatever the
// order: found is held.

// useTick is how old a mark may get during one session.
const useTick = time.Hour

// Hold begins the session. Until Close no Trash of any process takes away what
// is found through this store, or put into it, from now on.
func (s *Store) Hold() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begin()
}

// Session names the session of Hold, for Trash; "" before it has begun.
func (s *Store) Session() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session == nil {
		return ""
	}
	return s.session.name
}

// Use marks a directory or file of the store as used: one that LayerDir or
// FilesDir gave, or below. It is false when nothing is there (any more).
func (s *Store) Use(path string) bool {
	name, err := filepath.Rel(s.dir, path)
	return err == nil && s.use(filepath.ToSlash(name))
}

// use marks what is at name.
func (s *Store) use(name string) bool {
	fd, err := s.openat(name)
	if err != nil { // what belongs to another id may be kept from us
		_, err := s.root.Lstat(name)
		return err == nil
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return false
	}
	return s.fresh(time.Unix(st.Mtim.Unix())) || s.mark(fd, name)
}

// fresh tells whether a mark is as good as one set now.
func (s *Store) fresh(mark time.Time) bool {
	return mark.UnixNano() >= s.since.Load() && time.Since(mark) < useTick
}

// now is the mark of what is used now, also after the clock was set back.
func (s *Store) now() time.Time {
	return time.Unix(0, max(time.Now().UnixNano(), s.since.Load()))
}

// mark sets the mark of an open file or directory, and tells whether it is still
// at name. What belongs to another id keeps its mark.
func (s *Store) mark(fd int, name string) bool {
	defer s.pass()()
	at := unix.NsecToTimespec(s.now().UnixNano())
	if unix.UtimesNanoAt(fd, "", []unix.Timespec{{Nsec: unix.UTIME_OMIT}, at}, unix.AT_EMPTY_PATH) != nil {
		return true
	}
	var mine, there unix.Stat_t
	if unix.Fstat(fd, &mine) != nil || unix.Fstatat(int(s.top.Fd()), name, &there, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return false
	}
	return mine.Dev == there.Dev && mine.Ino == there.Ino
}

// CacheMark is the file beside the folder of a cache mount whose time is the
// last use: that of the folder belongs to those who write into it.
const CacheMark = ".used"

// UseCache marks the cache mount id as used, whether or not its folder exists;
// about is for people. It comes before the look at the folder.
func (s *Store) UseCache(idmap, id, about string) error {
	name := dirCaches + "/" + idmap + "/" + id + CacheMark
	if s.use(name) {
		return nil
	}
	return s.putJSON(name, about)
}
