package snapshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/tree"
)

// Snapshot is what a directory held at one time.
type Snapshot struct {
	Root   File // a directory; its Name is ""
	Looked int  // how many files were looked at
}

// File is the metadata of one name.
type File struct {
	Name     string
	Mode     uint32 // st_mode
	UID, GID uint32
	young    bool  // written so late that a later write could not be told by its time
	Size     int64 // bytes, of regular files and links
	Rdev     uint64
	Dev, Ino uint64
	Nlink    uint64
	Mtime    Time
	Ctime    Time
	Link     string // target of a symbolic link
	Files    []File // of a directory, by name
}

// Time is a time of a file, half the size of a time.Time.
type Time struct {
	Sec  int64
	Nsec int32
}

func (f *File) isDir() bool { return f.Mode&unix.S_IFMT == unix.S_IFDIR }

// Entry is f as a tree tells it.
func (f *File) Entry() tree.Entry {
	return tree.Entry{
		Name: f.Name, Mode: f.Mode, UID: f.UID, GID: f.GID, Size: f.Size, Rdev: f.Rdev, Dev: f.Dev, Ino: f.Ino, Nlink: f.Nlink, Link: f.Link,
		ModTime: time.Unix(f.Mtime.Sec, int64(f.Mtime.Nsec)), Change: time.Unix(f.Ctime.Sec, int64(f.Ctime.Nsec)),
	}
}

// Skip says what Take leaves out. It is called from many goroutines, with
// paths relative to the directory.
type Skip func(name string) Verdict

// Verdict is an answer of Skip.
type Verdict int

// The answers of Skip.
const (
	Look   Verdict = iota // it counts
	Ignore                // neither it nor what is below it counts
	Hollow                // a directory that counts only if something in it does
)

// Take looks at everything below dir. skip may be nil. The snapshot costs about
// 130 bytes of memory a file.
func Take(ctx context.Context, dir string, skip Skip) (*Snapshot, error) {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("take a snapshot of %s: %w", dir, err)
	}
	defer unix.Close(root)
	if skip == nil {
		skip = func(string) Verdict { return Look }
	}
	w := &walker{ctx: ctx, root: root, skip: skip, old: threshold()}
	w.more = sync.NewCond(&w.mu)
	s := &Snapshot{}
	if _, err := w.stat(root, "", &s.Root); err != nil {
		return nil, fmt.Errorf("take a snapshot of %s: %w", dir, err)
	}
	w.push(task{&s.Root, ""})
	var wg sync.WaitGroup
	for range max(2, runtime.GOMAXPROCS(0)) {
		wg.Go(w.work)
	}
	wg.Wait()
	if w.err != nil {
		return nil, fmt.Errorf("take a snapshot of %s: %w", dir, w.err)
	}
	s.Looked = w.looked + 1
	s.prune(w.hollow)
	return s, nil
}

// threshold is the time from which on a file is young: another write could
// have given it the time that it has. Times of files come from a clock that
// moves once a tick, of 10 ms at most; twice that is allowed for.
func threshold() Time {
	t := time.Now().Add(-20 * time.Millisecond)
	return Time{t.Unix(), int32(t.Nanosecond())}
}

func (t Time) before(o Time) bool { return t.Sec < o.Sec || t.Sec == o.Sec && t.Nsec < o.Nsec }

// walker reads directories with several goroutines, which share a stack of
// those that are still to be read.
type walker struct {
	ctx  context.Context
	root int // descriptor
	skip Skip
	old  Time

	mu      sync.Mutex
	more    *sync.Cond // the stack grew, or all is done
	stack   []task
	pending int // directories that are on the stack or being read
	hollow  []string
	looked  int // at files below the root
	err     error
}

type task struct {
	dir  *File
	name string
}

func (w *walker) push(t task) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stack = append(w.stack, t)
	w.pending++
	w.more.Signal()
}

func (w *walker) work() {
	for {
		w.mu.Lock()
		for len(w.stack) == 0 && w.pending > 0 {
			w.more.Wait()
		}
		if w.pending == 0 {
			w.mu.Unlock()
			return
		}
		t := w.stack[len(w.stack)-1]
		w.stack = w.stack[:len(w.stack)-1]
		failed := w.err != nil
		w.mu.Unlock()
		var err error
		if !failed {
			if err = context.Cause(w.ctx); err == nil {
				err = w.read(t)
			}
		}
		w.mu.Lock()
		if err != nil && w.err == nil {
			w.err = err
		}
		w.pending--
		if w.pending == 0 {
			w.more.Broadcast()
		}
		w.mu.Unlock()
	}
}

// read lists one directory. The path has no link in it: nothing changes.
func (w *walker) read(t task) error {
	at := t.name
	if at == "" {
		at = "."
	}
	fd, err := unix.Openat(w.root, at, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: t.name, Err: err}
	}
	f := os.NewFile(uintptr(fd), t.name)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	files := make([]File, 0, len(names))
	for _, n := range names {
		full := path.Join(t.name, n)
		switch w.skip(full) {
		case Ignore:
			continue
		case Hollow:
			w.mu.Lock()
			w.hollow = append(w.hollow, full)
			w.mu.Unlock()
		}
		files = files[:len(files)+1]
		last := &files[len(files)-1]
		there, err := w.stat(fd, n, last)
		if err != nil {
			return &os.PathError{Op: "stat", Path: full, Err: err}
		}
		if !there {
			files = files[:len(files)-1]
		}
	}
	t.dir.Files = files
	w.mu.Lock()
	w.looked += len(files)
	w.mu.Unlock()
	for i := range files {
		if files[i].isDir() {
			w.push(task{&files[i], path.Join(t.name, files[i].Name)})
		}
	}
	return nil
}

// stat fills f; it is false when nothing of that name is there any more.
func (w *walker) stat(dir int, name string, f *File) (bool, error) {
	var st unix.Stat_t
	flags := unix.AT_SYMLINK_NOFOLLOW
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if err := unix.Fstatat(dir, name, &st, flags); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return false, nil
		}
		return false, err
	}
	*f = File{
		Name: name, Mode: st.Mode, UID: st.Uid, GID: st.Gid, Rdev: st.Rdev, Dev: st.Dev, Ino: st.Ino, Nlink: uint64(st.Nlink),
		Mtime: Time{st.Mtim.Sec, int32(st.Mtim.Nsec)}, Ctime: Time{st.Ctim.Sec, int32(st.Ctim.Nsec)},
	}
	limit := w.old
	if f.Ctime.Nsec == 0 { // perhaps a file system that counts in (two) seconds
		limit.Sec -= 2
	}
	f.young = !f.Ctime.before(limit)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		f.Size = st.Size
	case unix.S_IFLNK:
		f.Size = st.Size
		buf := make([]byte, st.Size+1)
		n, err := unix.Readlinkat(dir, name, buf)
		if err != nil {
			return false, err
		}
		f.Link = string(buf[:n])
	}
	return true, nil
}

// prune takes out hollow directories with nothing in them, the deepest first.
func (s *Snapshot) prune(hollow []string) {
	slices.SortFunc(hollow, func(a, b string) int { return cmp.Compare(b, a) }) // what is below a name comes before it
	for _, name := range hollow {
		if f := s.Find(name); f != nil && f.isDir() && len(f.Files) == 0 {
			dir := s.Find(strings.TrimSuffix(path.Dir("/" + name)[1:], "/"))
			dir.Files = slices.DeleteFunc(dir.Files, func(f File) bool { return f.Name == path.Base(name) })
		}
	}
}

// Find is the file of that name; nil if there is none.
func (s *Snapshot) Find(name string) *File {
	at := &s.Root
	for part := range parts(name) {
		i, ok := slices.BinarySearchFunc(at.Files, part, func(f File, n string) int { return cmp.Compare(f.Name, n) })
		if !ok {
			return nil
		}
		at = &at.Files[i]
	}
	return at
}
