package inplace

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// loan is a spot that the stack has to itself while commands run that would look
// for its files there: a mount, most often, or a context. What the directory has
// of its own is put aside in it, as nothing can be renamed out of a mount.
//
//	        M/                       M/.kaniko-build-aside/
//	lend    own files ─────────────> own/      phase: leaving, then ours
//	        layers ── copy ────────> M/
//	Yield   the stack's ───────────> image/    phase: returning, then home
//	        own/ ──────────────────> M/
//	resume  own files ─────────────> own/      phase: leaving, then ours
//	        image/ ────────────────> M/
//	Close   own/ ──────────────────> M/        and nothing is left of it
//
// The phase is a file, as that of a root, and lies in the directory itself: so
// whoever mounts it next, in whatever container, can give it back (RecoverLoan).
type loan struct {
	name  string // of the spot
	dir   string // M
	hide  string
	spot  *spot
	was   spot     // before
	lock  *os.File // of M
	notes journal
	home  bool // M has its own files
	n     int  // names in gone/
	moved []Moved
	links map[[2]uint64]string // where a linked file of the layer that is placed now lies
}

// AsideName is the folder of a directory that is lent where it keeps its own files.
const AsideName = ".kaniko-build-aside"

// rubbish is the name of that folder while it is made, and when it goes: nothing of
// the directory's own is in it.
const rubbish = AsideName + ".new"

// home is the phase of a loan whose directory has its own files; ours means the
// stack's, and the others are those of a root.
const home phase = "home"

// Moved is a file of a directory that was lent, which a rename gave another
// change time. It is otherwise what it was.
type Moved struct {
	Dev, Ino      uint64
	Before, After time.Time // st_ctime
}

const asideText = `A build has this directory to itself for a moment; the directory's own files are
in own/. They come back at its end. If it was killed, they come back when the next
build begins that has this directory as a mount or as its context. To do it by
hand: remove everything beside this folder, and move what is in own/ up.
`

// lendable tells why a spot cannot be lent; nil if it can.
func (r *Root) lendable(name string, at *spot) error {
	dir := r.dir + "/" + name
	st, there, err := lstat(dir)
	switch {
	case err != nil:
		return err
	case name == "" || at.mute || !there || !isDir(st):
		return errors.New("it is no directory")
	}
	for _, p := range append([]string{r.hide}, r.opts.Keep...) {
		if !r.lent(p) && (p == dir || strings.HasPrefix(p, dir+"/") || strings.HasPrefix(dir, p+"/")) {
			return fmt.Errorf("%s is needed meanwhile", p)
		}
	}
	if err := unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK, unix.AT_EACCESS); err != nil {
		return fmt.Errorf("it cannot be written to: %w", err)
	}
	return nil
}

// lent tells whether p is one of Options.Lent.
func (r *Root) lent(p string) bool { return slices.Contains(r.opts.Lent, p) }

// lend gives a spot to the stack, empty.
func (r *Root) lend(name string, at *spot) (err error) {
	if err := r.lendable(name, at); err != nil {
		return err
	}
	l := &loan{name: name, dir: r.dir + "/" + name, spot: at, was: *at}
	l.hide = l.dir + "/" + AsideName
	if l.lock, err = tryLock(l.dir); err != nil {
		return err
	}
	if l.lock == nil {
		return errors.New("another build has it to itself")
	}
	inner := at.mounted()
	l.notes = journal{Dir: l.dir, Keep: inner.paths(l.dir)}
	inner.keep(AsideName, true)
	if err := l.begin(inner); err != nil {
		return errors.Join(err, l.lock.Close())
	}
	at.kept, at.full, at.below = false, false, inner.below
	r.loans, r.snap = append(r.loans, l), nil
	if at.there {
		err = l.look(at.stat)
	} else {
		err = plainAttributes(l.dir)
	}
	r.lendBelow(name, at)
	return err
}

// lendBelow lends the mounts below a directory that is lent, as far as that can be: a
// command that works above them should not meet their files either.
func (r *Root) lendBelow(name string, at *spot) {
	for n, b := range at.below {
		full := join(name, n)
		if b.kept {
			b.why = r.lend(full, b)
		} else {
			r.lendBelow(full, b)
		}
	}
}

// begin puts what is in the directory aside, but for what inner keeps.
func (l *loan) begin(inner *spot) error {
	st, _, err := lstat(l.dir)
	if err != nil {
		return err
	}
	l.notes.Ino = st.Ino
	if _, there, err := lstat(l.hide); err != nil || there {
		return errors.Join(err, &os.PathError{Op: "make", Path: l.hide, Err: os.ErrExist})
	}
	// The time of the directory is put right after each name that comes and goes in it: a
	// kill in between would lose it.
	made := filepath.Join(l.dir, rubbish)
	if err := keepTime(l.dir, func() error { return os.Mkdir(made, 0o700) }); err != nil {
		return err
	}
	if err := l.fillFolder(made, st); err != nil {
		return errors.Join(err, keepTime(l.dir, func() error { return os.RemoveAll(made) }))
	}
	if err := keepTime(l.dir, func() error { return os.Rename(made, l.hide) }); err != nil {
		return err
	}
	if err := l.take(inner); err != nil {
		return errors.Join(err, endLoan(l.dir, l.hide, inner, move))
	}
	return nil
}

// fillFolder makes what is in the folder for what is put aside, which the owner of the
// directory gets, so that he can put things right by hand.
func (l *loan) fillFolder(made string, st unix.Stat_t) error {
	if err := unix.Lchown(made, int(st.Uid), int(st.Gid)); err != nil {
		return &os.PathError{Op: "chown", Path: made, Err: err}
	}
	for _, d := range []string{"own", "image", "gone"} {
		if err := os.Mkdir(filepath.Join(made, d), 0o700); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(made, "README"), []byte(asideText), 0o644); err != nil {
		return err
	}
	return writeJournal(made, l.notes.at(home))
}

// take puts the directory's own files aside.
func (l *loan) take(at *spot) error {
	own := filepath.Join(l.hide, "own")
	if err := copyAttributes(l.dir, own); err != nil {
		return err
	}
	if err := writeJournal(l.hide, l.notes.at(leaving)); err != nil {
		return err
	}
	if err := putAside(l.dir, "", own, at, l.move); err != nil {
		return err
	}
	l.home = false
	return writeJournal(l.hide, l.notes.at(ours))
}

// look gives the directory the attributes of the stack's.
func (l *loan) look(st unix.Stat_t) error {
	if err := plainAttributes(l.dir); err != nil {
		return err
	}
	if err := unix.Lchown(l.dir, int(st.Uid), int(st.Gid)); err != nil {
		return &os.PathError{Op: "chown", Path: l.dir, Err: err}
	}
	if err := unix.Chmod(l.dir, st.Mode&0o7777); err != nil {
		return &os.PathError{Op: "chmod", Path: l.dir, Err: err}
	}
	return setTimes(l.dir, st)
}

// yield gives the directory its own files back for a while.
func (l *loan) yield() error {
	image := filepath.Join(l.hide, "image")
	if err := copyAttributes(l.dir, image); err != nil {
		return err
	}
	if err := putAside(l.dir, "", image, l.spot, move); err != nil {
		return err
	}
	if err := writeJournal(l.hide, l.notes.at(returning)); err != nil {
		return err
	}
	if err := bringBack(filepath.Join(l.hide, "own"), l.dir, l.move); err != nil {
		return err
	}
	l.home, l.spot.kept = true, true
	return writeJournal(l.hide, l.notes.at(home))
}

// resume undoes yield.
func (l *loan) resume() error {
	l.spot.kept = false
	if err := l.take(l.spot); err != nil {
		return err
	}
	return bringBack(filepath.Join(l.hide, "image"), l.dir, move)
}

// discard takes something of the stack's away.
func (l *loan) discard(p string) error {
	l.n++
	return move(p, filepath.Join(l.hide, "gone", strconv.Itoa(l.n)))
}

// move is the function move, and notes which files got another change time.
func (l *loan) move(from, to string) error {
	before, _, err := lstat(from)
	if err != nil {
		return err
	}
	if !isDir(before) {
		if err := move(from, to); err != nil {
			return err
		}
		after, _, err := lstat(to)
		l.moved = append(l.moved, Moved{before.Dev, before.Ino, time.Unix(before.Ctim.Unix()), time.Unix(after.Ctim.Unix())})
		return err
	}
	if err := unix.Rename(from, to); !errors.Is(err, unix.EXDEV) {
		if err != nil {
			err = &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
		}
		return err
	}
	return moveEntries(from, to, before, l.move)
}

// close gives the directory back for good.
func (l *loan) close() error {
	err := endLoan(l.dir, l.hide, l.spot, l.move)
	*l.spot = l.was
	return errors.Join(err, l.lock.Close())
}

// endLoan removes what is the stack's in dir, and brings what is its own back.
func endLoan(dir, hide string, at *spot, mv mover) error {
	j, ok, err := readJournal(hide)
	if err != nil || !ok {
		return err
	}
	wrap := func(err error) error {
		return fmt.Errorf("give back %s, whose files are in %s/own: %w", dir, hide, err)
	}
	if j.Phase == ours {
		n := time.Now().UnixNano()
		err := sweep(dir, "", at, func(p string) error {
			n++
			return move(p, filepath.Join(hide, "gone", strconv.FormatInt(n, 36)))
		})
		if err != nil {
			return wrap(err)
		}
		if err := writeJournal(hide, j.at(returning)); err != nil {
			return wrap(err)
		}
	}
	if j.Phase != home {
		if err := bringBack(filepath.Join(hide, "own"), dir, mv); err != nil {
			return wrap(err)
		}
		if err := writeJournal(hide, j.at(home)); err != nil {
			return wrap(err)
		}
	}
	for _, d := range []string{"image", "gone"} { // what takes long, while the time of dir is what it was
		if err := os.RemoveAll(filepath.Join(hide, d)); err != nil {
			return wrap(err)
		}
	}
	gone := filepath.Join(dir, rubbish)
	if err := keepTime(dir, func() error { return os.Rename(hide, gone) }); err != nil {
		return err
	}
	return keepTime(dir, func() error { return os.RemoveAll(gone) })
}

// Yield gives directories that are lent their own files back, until the next Bring
// or Run, so that others can read them. It tells which files were moved meanwhile
// that have other change times now.
func (r *Root) Yield() ([]Moved, error) {
	var out []Moved
	for _, l := range slices.Backward(r.loans) { // those in others first
		if !l.home {
			if err := l.yield(); err != nil {
				return nil, fmt.Errorf("give %s its own files for a while: %w", l.dir, err)
			}
		}
		out, l.moved = append(out, l.moved...), nil
	}
	return out, nil
}

// resume undoes Yield.
func (r *Root) resume() error {
	for _, l := range r.loans {
		if !l.home {
			continue
		}
		if err := l.resume(); err != nil {
			return fmt.Errorf("put the files of %s aside: %w", l.dir, err)
		}
		r.snap = nil // renamed files look as if they had changed
	}
	return nil
}

// loan is the innermost that p, a path of the file system, lies in; nil if none.
func (r *Root) loan(p string) (found *loan) {
	for _, l := range r.loans {
		if strings.HasPrefix(p, l.dir+"/") && (found == nil || len(l.dir) > len(found.dir)) {
			found = l
		}
	}
	return found
}

// carry moves what a layer has into the root, into a directory that is lent by
// copying it. What is known of its content is known of the copy.
func (r *Root) carry(from, to string) error {
	l := r.loan(to)
	if l == nil {
		return move(from, to)
	}
	if err := unix.Rename(from, to); !errors.Is(err, unix.EXDEV) {
		if err != nil {
			err = &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
		}
		return err
	}
	st, _, err := lstat(from)
	if err != nil {
		return err
	}
	if isDir(st) {
		return moveEntries(from, to, st, r.carry)
	}
	if _, there, err := lstat(to); err != nil {
		return err
	} else if there {
		if err := os.Remove(to); err != nil {
			return err
		}
	}
	id := [2]uint64{st.Dev, st.Ino}
	if first, ok := l.links[id]; ok && os.Link(first, to) == nil {
		return os.Remove(from)
	}
	if st.Nlink > 1 { // others of its names come later
		if l.links == nil {
			l.links = map[[2]uint64]string{}
		}
		l.links[id] = to
	}
	if err := copyFile(from, to, st); err != nil {
		return err
	}
	if err := r.contents.Copied(from, to); err != nil {
		return err
	}
	return os.Remove(from)
}

// onLoan places a mount of a directory on one that is lent, which cannot be moved aside
// itself: by what is in the two.
func (m *Mounts) onLoan(l *loan, mt *Mount) error {
	m.root.n++
	aside := filepath.Join(l.hide, "aside-"+strconv.Itoa(m.root.n))
	if err := os.Mkdir(aside, 0o700); err != nil {
		return err
	}
	if err := copyAttributes(l.dir, aside); err != nil {
		return err
	}
	m.undo = append(m.undo, func() error { return errors.Join(bringBack(aside, l.dir, move), os.RemoveAll(aside)) })
	if err := putAside(l.dir, "", aside, l.spot, move); err != nil {
		return err
	}
	m.undo = append(m.undo, func() error {
		return sweep(l.dir, "", l.spot, func(p string) error {
			if mt.Source == "" {
				return l.discard(p)
			}
			return move(p, mt.Source+strings.TrimPrefix(p, l.dir))
		})
	})
	if mt.Source == "" {
		if mt.Mode != 0 {
			return errors.Join(unix.Lchown(l.dir, int(mt.UID), int(mt.GID)), unix.Chmod(l.dir, mt.Mode))
		}
		return nil
	}
	names, err := list(mt.Source)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := move(mt.Source+"/"+n, l.dir+"/"+n); err != nil {
			return err
		}
	}
	return copyAttributes(mt.Source, l.dir)
}

// IsLent tells whether dir is away, lent to a build that runs or was killed.
func IsLent(dir string) bool {
	_, ok := readLoan(dir)
	return ok
}

// readLoan reads the journal of a loan of dir, if it is one: a directory that came
// from elsewhere with such a folder in it is not.
func readLoan(dir string) (j journal, ok bool) {
	hide := dir + "/" + AsideName
	for _, d := range []string{hide, hide + "/own"} {
		if st, there, err := lstat(d); d == hide && (err != nil || !there) || there && !isDir(st) {
			return j, false
		}
	}
	st, _, err := lstat(dir)
	if err != nil {
		return j, false
	}
	j, ok, err = readJournal(hide)
	return j, ok && err == nil && j.Ino == st.Ino
}

// RecoverLoan gives a directory its files back that a killed build has lent. It
// does nothing while a build has it, and where there is nothing to do.
func RecoverLoan(dir string) error {
	dir = prefix(dir)
	st, left, err := lstat(filepath.Join(dir, rubbish))
	if err != nil {
		return err
	}
	left = left && isDir(st)
	if !left && !IsLent(dir) {
		return nil
	}
	lock, err := tryLock(dir)
	if err != nil || lock == nil {
		return err
	}
	defer lock.Close()
	if left {
		if err := keepTime(dir, func() error { return os.RemoveAll(filepath.Join(dir, rubbish)) }); err != nil {
			return err
		}
	}
	j, ok := readLoan(dir)
	if !ok {
		return nil
	}
	for i, p := range j.Keep { // the directory may lie elsewhere now
		if rest, ok := strings.CutPrefix(p, j.Dir+"/"); ok {
			j.Keep[i] = dir + "/" + rest
		}
	}
	s, err := spots(dir, journal{Keep: j.Keep, Ignore: []string{dir + "/" + AsideName}})
	if err != nil {
		return err
	}
	return endLoan(dir, dir+"/"+AsideName, s, move)
}

// RecoverLoans is RecoverLoan for every mount point of this container, and dirs.
func RecoverLoans(dirs ...string) error {
	mounts, err := mountPoints()
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range append(mounts, dirs...) {
		if dir := filepath.Clean(m); dir != "/" {
			errs = append(errs, RecoverLoan(dir))
		}
	}
	return errors.Join(errs...)
}

// tryLock locks a directory; nil when another process has it.
func tryLock(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, nil
	}
	return nil, fmt.Errorf("lock %s: %w", dir, err)
}
