package store

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"kaniko-build/schema/diag"
)

// Format is the version of the layout that this package reads and writes.
const Format = 1

// The directories of a store.
const (
	dirBlobs    = "blobs/sha256"
	dirKeys     = "keys"
	dirLayers   = "layers"
	dirVariants = "variants"
	dirFiles    = "files"
	dirImages   = "images"
	dirBases    = "bases"
	dirLocks    = "locks"
	dirTemp     = "tmp"
	dirMounts   = "mounts"
	dirCaches   = "caches"
	dirPast     = "past"
	dirIndexes  = "indexes"
	dirReleases = "releases"

	fileSizes = "sizes"

	// Isolation is a file in which a runner remembers what the machine gives.
	Isolation = "isolation"
)

// shared are the directories that nodes write, parents first. Names of images,
// what registries said and the cache of file hashes belong to the outer process
// alone.
var shared = []string{"blobs", dirBlobs, dirKeys, dirLayers, dirVariants, dirLocks, dirTemp, dirMounts, dirCaches, dirIndexes}

// tops are all names that a store of this format has at its top.
var tops = []string{"blobs", dirKeys, dirLayers, dirVariants, dirFiles, dirImages, dirBases, dirLocks, dirTemp, dirMounts, dirCaches, dirPast, dirIndexes, dirReleases, fileSizes, Isolation}

// ErrMiss is matched by every Miss.
var ErrMiss = errors.New("not in the store")

// Miss says why something cannot be had from the store. Making it anew is the
// answer to all of them.
type Miss struct {
	What   string // "blob sha256:…", "key …", "image …"
	Reason string // "" when it was never there
}

func (m *Miss) Error() string {
	if m.Reason == "" {
		return m.What + " is not in the store"
	}
	return m.What + " cannot be used: " + m.Reason
}

// Is makes every Miss match ErrMiss.
func (m *Miss) Is(target error) bool { return target == ErrMiss }

// Options says who uses a store.
type Options struct {
	Owner     int     // uid that the directory must belong to
	NodeOwner *[2]int // uid and gid that nodes write as, where these are not the owner's own
	Holder    string  // how others see us in locks; "" is the pid and the program
	Sync      bool    // flush the file system at Close
}

// Store is an open store. Its methods may be called from several goroutines.
type Store struct {
	dir    string
	root   *os.Root
	top    *os.File // the same directory, for openat2
	holder string
	give   *[2]int // owner of what we make in shared directories; nil leaves it
	sync   bool
	since  atomic.Int64 // Unix nanoseconds: marks of use after that are good, see fresh
	gate   gate

	mu      sync.Mutex
	session *session // made by the first write
	closed  bool
}

// Open opens the store in dir, which is made if it is absent. A directory of
// somebody else, one that others may enter, one with other things in it and one
// of a later format are errors that say what to do.
func Open(dir string, o Options) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, unwritable(fmt.Errorf("make store: %w", err))
	}
	if err := claim(dir, o); err != nil {
		return nil, err
	}
	s, err := open(dir, o)
	if err != nil {
		return nil, err
	}
	if err := s.prepare(o); err != nil {
		return nil, errors.Join(err, s.root.Close(), s.top.Close())
	}
	return s, nil
}

// Attach opens the store that lies at dir from inside a node. Owners are those
// of another user namespace there and are not looked at; the directories exist.
func Attach(dir string, o Options) (*Store, error) {
	o.NodeOwner = nil
	s, err := open(dir, o)
	if err != nil {
		return nil, err
	}
	if _, err := s.format(); err != nil {
		return nil, errors.Join(err, s.root.Close(), s.top.Close())
	}
	return s, nil
}

// unwritable is a store that is in no place for one.
func unwritable(err error) error {
	return &diag.Problem{What: err.Error(), Hint: "set KANIKO_BUILD_STATE to a directory that you may write to"}
}

func open(dir string, o Options) (*Store, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	top, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open store: %w", err), root.Close())
	}
	s := &Store{dir: dir, root: root, top: top, holder: o.Holder, give: o.NodeOwner, sync: o.Sync}
	s.since.Store(time.Now().UnixNano())
	if s.holder == "" {
		s.holder = fmt.Sprintf("pid %d (%s)", os.Getpid(), filepath.Base(os.Args[0]))
	}
	return s, nil
}

// claim checks that dir is ours and sets its mode.
func claim(dir string, o Options) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fmt.Errorf("open store: stat %s: %w", dir, err)
	}
	if int(st.Uid) != o.Owner {
		return &diag.Problem{
			What: fmt.Sprintf("the store %s belongs to uid %d, and this is uid %d", dir, st.Uid, o.Owner),
			Hint: fmt.Sprintf("set KANIKO_BUILD_STATE to a directory of your own, or `chown -R %d %s`", o.Owner, dir),
		}
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	ours := false
	for _, e := range names {
		name := e.Name()
		if name == "format" {
			ours = true
		}
		// A store without a format is being made at this moment, or its maker died.
		if name != "lost+found" && !strings.HasPrefix(name, "format") && !slices.Contains(tops, name) {
			return &diag.Problem{
				What: fmt.Sprintf("%s holds other files, such as %q, and is no store", dir, name),
				Hint: "set KANIKO_BUILD_STATE to an empty directory, or one that does not exist yet",
			}
		}
	}
	mode := st.Mode & 0o7777
	if ours && mode&0o022 != 0 {
		return &diag.Problem{
			What: fmt.Sprintf("others may write into the store %s (mode %04o)", dir, mode),
			Hint: fmt.Sprintf("if you trust what is in it: `chmod 700 %s`; if not, remove it", dir),
		}
	}
	want := uint32(0o700)
	switch {
	case o.NodeOwner != nil:
		want = 0o750
		if int(st.Gid) != o.NodeOwner[1] {
			if err := os.Chown(dir, -1, o.NodeOwner[1]); err != nil {
				return fmt.Errorf("open store: let nodes in: %w", err)
			}
		}
	case o.Owner == 0 && mode == 0o750 && st.Gid >= 1<<16:
		want = mode // nodes may be at work
	}
	if mode != want {
		if err := os.Chmod(dir, fs.FileMode(want)); err != nil {
			return unwritable(fmt.Errorf("open store: %w", err))
		}
	}
	return nil
}

func (s *Store) prepare(o Options) error {
	switch known, err := s.format(); {
	case err != nil:
		return err
	case !known:
		for _, d := range append([]string{dirFiles, dirImages, dirBases}, shared...) {
			if err := s.mkdir(d); err != nil {
				return err
			}
		}
		tmp := "format." + random()
		if err := s.root.WriteFile(tmp, []byte(strconv.Itoa(Format)+"\n"), 0o644); err != nil {
			return fmt.Errorf("make store: %w", err)
		}
		if err := s.root.Chmod(tmp, 0o644); err != nil { // the umask may have taken bits
			return fmt.Errorf("make store: %w", err)
		}
		if err := s.root.Rename(tmp, "format"); err != nil {
			return fmt.Errorf("make store: %w", err)
		}
	}
	if o.NodeOwner == nil {
		return s.inheritOwner(o)
	}
	for _, d := range shared {
		if err := s.handOver(d); err != nil {
			return fmt.Errorf("open store: give %s to the nodes: %w", d, err)
		}
	}
	return nil
}

// inheritOwner lets root, opening a store for something that starts no nodes,
// make directories that nodes can use later.
func (s *Store) inheritOwner(o Options) error {
	if o.Owner != 0 {
		return nil
	}
	st, err := s.root.Lstat(dirKeys)
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	if sys, ok := st.Sys().(*unixStat); ok && sys.Uid != 0 {
		s.give = &[2]int{int(sys.Uid), int(sys.Gid)}
	}
	return nil
}

// handOver gives a shared directory to the nodes, with the directories in it
// that hold records; layers are owned by ids of their own.
func (s *Store) handOver(name string) error {
	st, err := s.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) { // the store is older than its use
		return s.mkdir(name)
	}
	if err != nil {
		return err
	}
	if sys, ok := st.Sys().(*unixStat); ok && int(sys.Uid) == s.give[0] && int(sys.Gid) == s.give[1] {
		return nil
	}
	if name == dirKeys || name == dirVariants {
		list, err := fs.ReadDir(s.root.FS(), name)
		if err != nil {
			return err
		}
		for _, e := range list {
			if err := s.root.Lchown(path.Join(name, e.Name()), s.give[0], s.give[1]); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return s.root.Lchown(name, s.give[0], s.give[1])
}

// format reads the version; known is false in a new store.
func (s *Store) format() (known bool, err error) {
	b, err := s.root.ReadFile("format")
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open store: %w", err)
	}
	v, err := strconv.Atoi(strings.TrimSpace(string(b)))
	switch {
	case err != nil:
		return false, &diag.Problem{
			What: fmt.Sprintf("the store %s has a damaged format file", s.dir),
			Hint: "remove the directory; what was in it is built again",
		}
	case v > Format:
		return false, &diag.Problem{
			What: fmt.Sprintf("the store %s has format %d, and this program knows formats up to %d", s.dir, v, Format),
			Hint: "use a later kaniko-build, or set KANIKO_BUILD_STATE to another directory",
		}
	}
	return true, nil
}

// Close ends the session: what is left of its temporary files is removed.
// Writers and locks must have been closed.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	var err error
	if s.session != nil {
		err = s.session.end(s)
		if s.sync {
			err = errors.Join(err, s.flush())
		}
	}
	return errors.Join(err, s.closeGate(), s.root.Close(), s.top.Close())
}

func (s *Store) flush() error {
	if err := unix.Syncfs(int(s.top.Fd())); err != nil {
		return fmt.Errorf("flush store: %w", err)
	}
	return nil
}

// Dir is the directory of the store.
func (s *Store) Dir() string { return s.dir }

// LayerDir is where the unpacked layer id lies under the id map idmap, whether
// or not it exists.
func (s *Store) LayerDir(idmap, id string) string {
	return filepath.Join(s.dir, dirLayers, escape(idmap), escape(id))
}

// FilesDir is where the content hashes of files of a context are kept.
func (s *Store) FilesDir(context string) string {
	return filepath.Join(s.dir, dirFiles, escape(context))
}

// CacheDir is where the folder of the cache mount id lies under the id map
// idmap, whether or not it exists.
func (s *Store) CacheDir(idmap, id string) string { return filepath.Join(s.dir, dirCaches, idmap, id) }

// MountsDir is an empty directory for mount points.
func (s *Store) MountsDir() string { return filepath.Join(s.dir, dirMounts) }

// Warnings says what about the place of the store may lead to trouble.
func (s *Store) Warnings() []string {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return nil
	}
	name, remote := networkFS[uint32(st.Type)]
	if !remote {
		return nil
	}
	return []string{fmt.Sprintf("the store %s lies on %s, where locks and renames between machines are not reliable: set KANIKO_BUILD_STATE to a local directory", s.dir, name)}
}

var networkFS = map[uint32]string{
	unix.NFS_SUPER_MAGIC:  "NFS",
	unix.SMB_SUPER_MAGIC:  "SMB",
	unix.SMB2_SUPER_MAGIC: "SMB",
	unix.CIFS_SUPER_MAGIC: "SMB",
	unix.AFS_SUPER_MAGIC:  "AFS",
	unix.CODA_SUPER_MAGIC: "Coda",
	unix.CEPH_SUPER_MAGIC: "Ceph",
}

// mkdir makes a directory and hands it to the nodes if it is one of theirs.
// One that exists is fine.
func (s *Store) mkdir(name string) error {
	if err := s.root.Mkdir(name, 0o755); err != nil {
		switch {
		case errors.Is(err, fs.ErrExist):
			return nil
		case errors.Is(err, fs.ErrNotExist) && path.Dir(name) != ".":
			if err := s.mkdir(path.Dir(name)); err != nil {
				return err
			}
			return s.mkdir(name)
		}
		return fmt.Errorf("make directory in store: %w", err)
	}
	if err := s.root.Chmod(name, 0o755); err != nil { // the umask may have taken bits
		return fmt.Errorf("make directory in store: %w", err)
	}
	return s.share(name)
}

// share gives what was made in a shared directory to the nodes.
func (s *Store) share(name string) error {
	if s.give == nil || !isShared(name) {
		return nil
	}
	if err := s.root.Lchown(name, s.give[0], s.give[1]); err != nil {
		return fmt.Errorf("give %s to the nodes: %w", name, err)
	}
	return nil
}

func isShared(name string) bool {
	top, _, _ := strings.Cut(name, "/")
	return top != dirFiles && top != dirImages && top != dirBases && top != dirPast && top != fileSizes
}

// create makes a temporary file. Its name is good for rename until Close.
func (s *Store) create(kind string) (f *os.File, name string, err error) {
	name, err = s.tempName(kind)
	if err != nil {
		return nil, "", err
	}
	f, err = s.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, "", fmt.Errorf("make temporary file: %w", err)
	}
	if err := f.Chmod(0o644); err != nil { // the umask may have taken bits
		return nil, "", errors.Join(fmt.Errorf("make temporary file: %w", err), f.Close(), s.root.Remove(name))
	}
	return f, name, nil
}

// rename moves a finished file to its place and makes the directory of that. What was
// there may have been found by a session that began after the file was written: the
// file is marked as it was.
func (s *Store) rename(from, to string) error {
	defer s.pass()()
	now := s.now()
	err := s.root.Chtimes(from, now, now)
	if err == nil || errors.Is(err, fs.ErrPermission) { // of another id
		err = s.root.Rename(from, to)
	}
	if errors.Is(err, fs.ErrNotExist) {
		if err := s.mkdir(path.Dir(to)); err != nil {
			return err
		}
		err = s.root.Rename(from, to)
	}
	if err != nil {
		return fmt.Errorf("move into place in store: %w", err)
	}
	return nil
}

// putJSON writes a record.
func (s *Store) putJSON(name string, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	return s.putBytes(name, b.Bytes())
}

// putBytes writes a small file, whole or not at all.
func (s *Store) putBytes(name string, b []byte) error {
	f, tmp, err := s.create("record")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("write record: %w", err), s.root.Remove(tmp))
	}
	if err := s.rename(tmp, name); err != nil {
		return errors.Join(err, s.root.Remove(tmp))
	}
	return nil
}

const maxRecord = 16 << 20 // bytes; a RUN may hold a large heredoc

// getJSON reads a record into v. What is absent or unreadable is a Miss about
// what; a damaged file stays until it is overwritten.
func (s *Store) getJSON(name, what string, v any) error {
	b, err := s.read(name, maxRecord)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &Miss{What: what}
	case err != nil:
		return &Miss{What: what, Reason: err.Error()}
	}
	if err := json.Unmarshal(b, v); err != nil {
		return &Miss{What: what, Reason: "its record is damaged: " + err.Error()}
	}
	return nil
}

// openFile opens a regular file to read, and marks it as used. What a node put
// there instead of one is refused, and a fifo does not block us.
func (s *Store) openFile(name string) (*os.File, int64, error) {
	fd, size, err := s.openFD(name)
	if err != nil {
		return nil, 0, err
	}
	return os.NewFile(uintptr(fd), filepath.Join(s.dir, name)), size, nil
}

// openFD is openFile for who reads at once: a lookup of a key is mostly the
// opening of its file, and one openat2 costs a third of what os.Root needs to
// walk the path.
func (s *Store) openFD(name string) (fd int, size int64, err error) {
	fd, err = s.openat(name)
	if err != nil {
		return -1, 0, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, 0, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return -1, 0, fmt.Errorf("%s is no regular file", name)
	}
	if !s.fresh(time.Unix(st.Mtim.Unix())) && !s.mark(fd, name) {
		unix.Close(fd)
		return -1, 0, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return fd, st.Size, nil
}

// openat opens what is at name, below the store and through no link.
func (s *Store) openat(name string) (fd int, err error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err = unix.Openat2(int(s.top.Fd()), name, &how)
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) { // EAGAIN: a rename elsewhere
			break
		}
	}
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) { // an old kernel, or a filter that does not know it
		fd, err = s.openSlow(name)
	}
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

func (s *Store) openSlow(name string) (int, error) {
	f, err := s.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, err
	}
	defer f.Close()
	return unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
}

func (s *Store) read(name string, limit int64) ([]byte, error) {
	fd, size, err := s.openFD(name)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if size > limit {
		return nil, fmt.Errorf("%s has %d bytes, more than the %d allowed", name, size, limit)
	}
	b := make([]byte, size)
	for n := 0; n < len(b); {
		m, err := unix.Pread(fd, b[n:], int64(n))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, &fs.PathError{Op: "read", Path: name, Err: err}
		case m == 0:
			return b[:n], nil
		default:
			n += m
		}
	}
	return b, nil
}

// head reads at most the first n bytes of a file.
func (s *Store) head(name string, n int) ([]byte, error) {
	fd, _, err := s.openFD(name)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	b := make([]byte, n)
	for {
		m, err := unix.Pread(fd, b, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "read", Path: name, Err: err}
		}
		return b[:m], nil
	}
}

// escape makes one path element of any text: what is not plain becomes %XX,
// and what would be too long its hash.
func escape(name string) string {
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_',
			c == '.' && i > 0, c == ':' && i > 0, c == '@':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	if b.Len() == 0 || b.Len() > 200 {
		sum := sha256.Sum256([]byte(name))
		return "%" + hex.EncodeToString(sum[:])
	}
	return b.String()
}

func random() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
