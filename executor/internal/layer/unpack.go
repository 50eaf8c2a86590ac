package layer

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/tree"
)

// UnpackOptions say how a layer is unpacked.
type UnpackOptions struct {
	Make Maker
	// MaxSize bounds the bytes of all files together, holes included, and
	// MaxEntries the number of entries; 0 is DefaultMaxSize and
	// DefaultMaxEntries. A stream beyond them is ErrTooLarge.
	MaxSize    int64
	MaxEntries int
	// Contents, if set, remembers what the files hold.
	Contents *Contents
}

const (
	DefaultMaxSize    = 1 << 40
	DefaultMaxEntries = 20_000_000

	maxRecords = 1 << 20 // bytes of extended attributes of one entry; the tar reader keeps to it too
)

// ErrTooLarge is a layer beyond the limits of UnpackOptions.
var ErrTooLarge = errors.New("layer is too large")

// Unpacked tells what Unpack did.
type Unpacked struct {
	Entries int
	Size    int64 // bytes of file content
	// Outside lists what the layer says about things that are not in it,
	// in the order in which Finish must complete it.
	Outside []Outside
	// Owners are those of links and fifos that could not be given them.
	Owners map[string][2]uint32
	// Opaque says that the layer hides everything below it.
	Opaque bool
	// Hides says that the directory holds whiteouts, or marks of opaque directories.
	Hides bool
	// Devices tells that the layer has devices, which may be substitutes.
	Devices bool
	// Ignored counts extended attributes that could not be set here.
	Ignored int
}

// Outside is a reference out of a layer. It survives JSON.
type Outside struct {
	Path string // in the layer, links resolved
	// Target is a file of the layers below that Path is a hard link to; ""
	// when Path is a directory without an entry, which is to look as below.
	Target string            `json:",omitempty"`
	Mode   uint32            `json:",omitempty"` // permissions, of a hard link's own header
	UID    uint32            `json:",omitempty"`
	GID    uint32            `json:",omitempty"`
	Mtime  time.Time         `json:",omitzero"`
	Atime  time.Time         `json:",omitzero"`
	Xattrs map[string][]byte `json:",omitempty"`
}

const (
	whPrefix = ".wh."
	whMeta   = ".wh..wh."
	whOpaque = ".wh..wh..opq"
	paxXattr = "SCHILY.xattr."
)

// Unpack reads an uncompressed tar stream to its end and puts its entries into
// dir, an empty directory, in the form of an overlay's lower (userxattr). Names
// stay below dir: "../x" and "/x" are x, a link of the layer in the middle of a
// name is followed inside it. A later entry replaces an earlier one of the same
// name. An error leaves dir half done. The caller hashes the stream.
func Unpack(ctx context.Context, r io.Reader, dir string, o UnpackOptions) (Unpacked, error) {
	u, err := newUnpacker(ctx, dir, o)
	if err != nil {
		return Unpacked{}, err
	}
	defer u.close()
	if err := u.stream(r); err != nil {
		return u.out, fmt.Errorf("unpack layer: %w", err)
	}
	return u.out, nil
}

// Finish completes what Unpack could not know: directories without an entry
// look as they do below, but for their time (a link there is followed, as BuildKit does), and files
// of the layers below get their further names by being copied up.
func Finish(ctx context.Context, dir string, below tree.Tree, done *Unpacked, o UnpackOptions) error {
	u, err := newUnpacker(ctx, dir, o)
	if err != nil {
		return err
	}
	defer u.close()
	u.out = *done
	if u.out.Owners == nil {
		u.out.Owners = map[string][2]uint32{}
	}
	for _, ref := range done.Outside {
		if ref.Target != "" {
			if err := u.linkBelow(below, ref); err != nil {
				return fmt.Errorf("finish layer: hard link %s to %s: %w", ref.Path, ref.Target, err)
			}
		} else if err := u.parentBelow(below, ref.Path); err != nil {
			return fmt.Errorf("finish layer: directory %s: %w", ref.Path, err)
		}
	}
	// Copied-up targets may have brought more directories.
	for _, name := range u.implicitDirs() {
		if err := u.parentBelow(below, name); err != nil {
			return fmt.Errorf("finish layer: directory %s: %w", name, err)
		}
	}
	u.out.Outside = nil
	*done = u.out
	return nil
}

type unpacker struct {
	ctx   context.Context
	opts  UnpackOptions
	tree  *tree.Dir
	root  int // descriptor
	out   Unpacked
	buf   []byte
	zeros []byte // as long as buf

	dirs     map[string]*os.File // open directories by resolved path; "" is the root
	implicit map[string]bool     // directories made without an entry
	pending  []Outside           // hard links without a target so far
	times    map[string]times    // of directories, set last
}

type times struct{ atime, mtime time.Time }

const maxOpenDirs = 64

func newUnpacker(ctx context.Context, dir string, o UnpackOptions) (*unpacker, error) {
	o.MaxSize = cmp.Or(o.MaxSize, DefaultMaxSize)
	o.MaxEntries = cmp.Or(o.MaxEntries, DefaultMaxEntries)
	t, err := tree.OpenDir(dir, tree.DirOptions{})
	if err != nil {
		return nil, err
	}
	root, err := t.OpenFile("", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return &unpacker{
		ctx: ctx, opts: o, tree: t, root: int(root.Fd()), buf: make([]byte, 128<<10), zeros: make([]byte, 128<<10),
		out:  Unpacked{Owners: map[string][2]uint32{}},
		dirs: map[string]*os.File{"": root}, implicit: map[string]bool{}, times: map[string]times{},
	}, nil
}

func (u *unpacker) close() {
	for _, f := range u.dirs {
		f.Close()
	}
	u.tree.Close()
}

func (u *unpacker) stream(r io.Reader) error {
	in := &blocks{r: bufio.NewReaderSize(r, 64<<10)} // headers are read in small pieces
	tr := tar.NewReader(in)
	for {
		if err := context.Cause(u.ctx); err != nil {
			return err
		}
		h, err := in.next(tr)
		if err == io.EOF {
			break
		}
		if err != nil && !(errors.Is(err, tar.ErrInsecurePath) && h != nil) { // we confine names ourselves
			return fmt.Errorf("read tar: %w", unexpected(err))
		}
		if u.out.Entries++; u.out.Entries > u.opts.MaxEntries {
			return fmt.Errorf("more than %d entries: %w", u.opts.MaxEntries, ErrTooLarge)
		}
		if err := u.entry(h, tr); err != nil {
			return fmt.Errorf("%q: %w", h.Name, err)
		}
	}
	if err := u.retryLinks(); err != nil {
		return err
	}
	if err := u.setTimes(); err != nil {
		return err
	}
	for _, name := range u.implicitDirs() {
		u.out.Outside = append(u.out.Outside, Outside{Path: name})
	}
	// What follows the end mark belongs to the stream that the caller hashes.
	if _, err := io.CopyBuffer(io.Discard, in, u.buf); err != nil {
		return fmt.Errorf("read tar: %w", err)
	}
	return nil
}

// blocks counts what a tar reader reads, which takes an end in the middle of a
// block for the end of the archive.
type blocks struct {
	r io.Reader
	n int64
}

func (b *blocks) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.n += int64(n)
	return n, err
}

func (b *blocks) next(tr *tar.Reader) (*tar.Header, error) {
	h, err := tr.Next()
	if err == io.EOF && b.n%512 != 0 {
		err = io.ErrUnexpectedEOF
	}
	return h, err
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (u *unpacker) entry(h *tar.Header, body io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if n := strings.IndexByte(h.Name, 0); n >= 0 {
		return errors.New("name holds a zero byte")
	}
	name := tree.Clean(h.Name)
	if name == "" {
		return nil // the root's mode and owner are no part of a layer
	}
	dir, base := path.Split(name)
	dirf, dir, err := u.dir(strings.TrimSuffix(dir, "/"))
	if err != nil {
		return err
	}
	if base == whOpaque {
		return u.opaque(dirf, dir)
	}
	if strings.HasPrefix(base, whMeta) {
		return nil // aufs keeps its own things under such names
	}
	if hidden, ok := strings.CutPrefix(base, whPrefix); ok {
		if hidden == "" || hidden == "." || hidden == ".." {
			return errors.New("whiteout of no name")
		}
		return u.whiteout(dirf, path.Join(dir, hidden), hidden)
	}
	return u.make(h, body, dirf, path.Join(dir, base), base)
}

// dir opens the directory at name, following links inside the root, and makes
// what is missing. It returns the path without links.
func (u *unpacker) dir(name string) (int, string, error) {
	if f, ok := u.dirs[name]; ok {
		return int(f.Fd()), name, nil
	}
	f, err := u.tree.OpenFile(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err == nil {
		return u.keep(name, f), name, nil
	}
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
		return 0, "", err
	}
	real := name
	if errors.Is(err, unix.ENOTDIR) { // perhaps a link on the way
		if real, err = tree.Resolve(u.ctx, u.tree, name); err != nil {
			return 0, "", err
		}
		if real != name {
			return u.dir(real)
		}
	}
	// Parents first; no part of real is a link.
	up, base := path.Split(real)
	updirf, up, err := u.dir(strings.TrimSuffix(up, "/"))
	if err != nil {
		return 0, "", err
	}
	real = path.Join(up, base)
	hidden := false
	if err := unix.Mkdirat(updirf, base, 0o755); errors.Is(err, unix.EEXIST) {
		st, err := statAt(updirf, base)
		if err != nil {
			return 0, "", err
		}
		if gone, err := whiteoutAt(updirf, base, st); err != nil {
			return 0, "", err
		} else if !gone {
			return 0, "", fmt.Errorf("%s is no directory: %w", real, unix.ENOTDIR)
		}
		// The name is removed from the layers below and made anew here.
		if err := unix.Unlinkat(updirf, base, 0); err != nil {
			return 0, "", fmt.Errorf("replace whiteout: %w", err)
		}
		if err := unix.Mkdirat(updirf, base, 0o755); err != nil {
			return 0, "", fmt.Errorf("make directory %s: %w", real, err)
		}
		hidden = true
	} else if err != nil {
		return 0, "", fmt.Errorf("make directory %s: %w", real, err)
	}
	if _, err := u.opts.Make.Own(updirf, base, unix.S_IFDIR|0o755, 0, 0); err != nil {
		return 0, "", fmt.Errorf("directory %s: %w", real, err)
	}
	f, err = u.tree.OpenFile(real, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return 0, "", err
	}
	fd := u.keep(real, f)
	if hidden {
		return fd, real, u.mark(fd)
	}
	u.implicit[real] = true
	return fd, real, nil
}

func (u *unpacker) keep(name string, f *os.File) int {
	if len(u.dirs) >= maxOpenDirs {
		u.forget()
	}
	u.dirs[name] = f
	return int(f.Fd())
}

// forget closes all directories but the root: there are too many, or one of
// them is no longer what its name says.
func (u *unpacker) forget() {
	for name, f := range u.dirs {
		if name != "" {
			f.Close()
			delete(u.dirs, name)
		}
	}
}

func (u *unpacker) opaque(dirf int, dir string) error {
	if dir == "" {
		u.out.Opaque = true
	}
	return u.mark(dirf)
}

func (u *unpacker) mark(dirf int) error {
	u.out.Hides = true
	if err := unix.Setxattr(at(dirf, ""), OpaqueXattr, []byte("y"), 0); err != nil {
		return fmt.Errorf("mark directory opaque: %w", err)
	}
	return nil
}

func (u *unpacker) whiteout(dirf int, name, base string) error {
	u.out.Hides = true
	err := makeWhiteout(dirf, base)
	if !errors.Is(err, unix.EEXIST) {
		if err != nil {
			return fmt.Errorf("make whiteout: %w", err)
		}
		return nil
	}
	// A whiteout removes what is below the layer, not what is in it.
	st, err := statAt(dirf, base)
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	delete(u.implicit, name)
	sub, _, err := u.dir(name)
	if err != nil {
		return err
	}
	return u.mark(sub)
}

func (u *unpacker) make(h *tar.Header, body io.Reader, dirf int, name, base string) error {
	uid, err := id32(h.Uid)
	if err != nil {
		return err
	}
	gid, err := id32(h.Gid)
	if err != nil {
		return err
	}
	perm := uint32(h.Mode & 0o7777)
	xattrs, err := u.xattrs(h)
	if err != nil {
		return err
	}
	if h.Typeflag == tar.TypeLink {
		return u.link(dirf, base, Outside{
			Path: name, Target: h.Linkname, Mode: perm, UID: uid, GID: gid, Mtime: h.ModTime, Atime: h.AccessTime, Xattrs: xattrs,
		})
	}
	create, typ, err := u.creator(h, body, dirf, base, perm, uid, gid)
	if err != nil {
		return err
	}
	merged, hidden := false, false
	if err := create(); errors.Is(err, unix.EEXIST) {
		st, err := statAt(dirf, base)
		if err != nil {
			return err
		}
		if merged = typ == unix.S_IFDIR && st.Mode&unix.S_IFMT == unix.S_IFDIR; !merged {
			gone, err := whiteoutAt(dirf, base, st)
			if err != nil {
				return err
			}
			if err := u.remove(dirf, name, base, st); err != nil {
				return err
			}
			if err := create(); err != nil {
				return err
			}
			hidden = typ == unix.S_IFDIR && gone
		}
	} else if err != nil {
		return err
	}
	delete(u.out.Owners, name)
	if typ != unix.S_IFCHR && typ != unix.S_IFBLK { // devices have it all from their maker
		own := u.opts.Make.Own
		if merged {
			own = u.opts.Make.Change
		}
		kept, err := own(dirf, base, typ|perm, uid, gid)
		if err != nil {
			return err
		}
		if !kept {
			u.out.Owners[name] = [2]uint32{uid, gid}
		}
	}
	if err := u.setXattrs(at(dirf, base), xattrs); err != nil {
		return err
	}
	if typ != unix.S_IFDIR {
		return setTimes(dirf, base, times{h.AccessTime, h.ModTime})
	}
	delete(u.implicit, name)
	u.times[name] = times{h.AccessTime, h.ModTime}
	if hidden {
		sub, _, err := u.dir(name)
		if err != nil {
			return err
		}
		return u.mark(sub)
	}
	return nil
}

// creator returns a function that makes the file of an entry, EEXIST if the
// name is taken.
func (u *unpacker) creator(h *tar.Header, body io.Reader, dirf int, base string, perm, uid, gid uint32) (func() error, uint32, error) {
	switch h.Typeflag {
	case tar.TypeDir:
		return func() error { return unix.Mkdirat(dirf, base, 0o700) }, unix.S_IFDIR, nil
	case tar.TypeReg, tar.TypeRegA, tar.TypeGNUSparse, tar.TypeCont: //nolint:staticcheck // old archives have TypeRegA
		if h.Size < 0 || h.Size > u.opts.MaxSize-u.out.Size {
			return nil, 0, fmt.Errorf("more than %d bytes: %w", u.opts.MaxSize, ErrTooLarge)
		}
		return func() error { return u.write(dirf, base, body, h.Size) }, unix.S_IFREG, nil
	case tar.TypeSymlink:
		return func() error { return unix.Symlinkat(h.Linkname, dirf, base) }, unix.S_IFLNK, nil
	case tar.TypeFifo:
		return func() error { return unix.Mknodat(dirf, base, unix.S_IFIFO|0o600, 0) }, unix.S_IFIFO, nil
	case tar.TypeChar, tar.TypeBlock:
		if h.Devmajor < 0 || h.Devmajor > math.MaxUint32 || h.Devminor < 0 || h.Devminor > math.MaxUint32 {
			return nil, 0, fmt.Errorf("device number %d:%d is out of range", h.Devmajor, h.Devminor)
		}
		typ := uint32(unix.S_IFCHR)
		if h.Typeflag == tar.TypeBlock {
			typ = unix.S_IFBLK
		}
		rdev := unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
		u.out.Devices = true
		return func() error { return u.opts.Make.Device(dirf, base, typ|perm, uid, gid, rdev) }, typ, nil
	default:
		return nil, 0, fmt.Errorf("entry of unknown type %q", h.Typeflag)
	}
}

func (u *unpacker) write(dirf int, base string, body io.Reader, size int64) error {
	fd, err := unix.Openat(dirf, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var at int64
	hole := false // the end is a hole
	sum := u.opts.Contents.sum()
	for at < size {
		if err := context.Cause(u.ctx); err != nil {
			return err
		}
		n, err := io.ReadFull(body, u.buf[:min(int64(len(u.buf)), size-at)])
		if err != nil {
			return fmt.Errorf("%d of %d bytes: %w", at+int64(n), size, unexpected(err))
		}
		at += int64(n)
		sum.write(u.buf[:n])
		if hole = bytes.Equal(u.buf[:n], u.zeros); hole { // a whole piece of them
			continue
		}
		for b := u.buf[:n]; len(b) > 0; {
			w, err := unix.Pwrite(fd, b, at-int64(len(b)))
			if err != nil && err != unix.EINTR {
				return fmt.Errorf("write: %w", err)
			}
			b = b[max(w, 0):]
		}
	}
	if hole {
		if err := unix.Ftruncate(fd, size); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	u.out.Size += size
	return sum.of(fd)
}

// remove takes away what an entry replaces.
func (u *unpacker) remove(dirf int, name, base string, st unix.Stat_t) error {
	delete(u.implicit, name)
	delete(u.out.Owners, name)
	delete(u.times, name)
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if err := unix.Unlinkat(dirf, base, 0); err != nil {
			return fmt.Errorf("replace: %w", err)
		}
		return nil
	}
	for d, f := range u.dirs { // those at or below the name; the caller's directory is above
		if d == name || strings.HasPrefix(d, name+"/") {
			f.Close()
			delete(u.dirs, d)
		}
	}
	if err := os.RemoveAll(at(dirf, base)); err != nil {
		return fmt.Errorf("replace: %w", err)
	}
	return nil
}

// link makes a hard link, or puts it down as pending if this layer has no
// such target (yet).
func (u *unpacker) link(dirf int, base string, ref Outside) error {
	ok, err := u.tryLink(dirf, base, ref)
	if err == nil && !ok {
		ref.Target = tree.Clean(ref.Target)
		u.pending = append(u.pending, ref)
	}
	return err
}

func (u *unpacker) tryLink(dirf int, base string, ref Outside) (bool, error) {
	target, st, err := u.target(ref.Target)
	if err != nil || target == "" {
		return false, err
	}
	if target == ref.Path {
		return true, u.relabel(dirf, base, ref)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return false, fmt.Errorf("hard link to directory %s", target)
	}
	if old, err := statAt(dirf, base); err == nil {
		if old.Ino == st.Ino && old.Dev == st.Dev {
			return true, u.relabel(dirf, base, ref)
		}
		if old.Mode&unix.S_IFMT == unix.S_IFDIR && strings.HasPrefix(target, ref.Path+"/") {
			return false, fmt.Errorf("hard link to %s replaces its own directory", target)
		}
		if err := u.remove(dirf, ref.Path, base, old); err != nil {
			return false, err
		}
	} else if !errors.Is(err, unix.ENOENT) {
		return false, err
	}
	delete(u.out.Owners, ref.Path)
	// The target's directory is opened beneath the root, without links.
	tdir, tbase := path.Split(target)
	f, err := u.tree.OpenFile(strings.TrimSuffix(tdir, "/"), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if err := unix.Linkat(int(f.Fd()), tbase, dirf, base, 0); err != nil {
		return false, fmt.Errorf("hard link to %s: %w", target, err)
	}
	return true, u.relabel(dirf, base, ref)
}

// target finds a hard link's target in this layer: links on the way are
// followed, one at the end is not. "" is none.
func (u *unpacker) target(name string) (string, unix.Stat_t, error) {
	real, err := tree.ResolveParent(u.ctx, u.tree, name)
	if err != nil {
		return "", unix.Stat_t{}, err
	}
	if real == "" {
		return "", unix.Stat_t{}, errors.New("hard link to the root")
	}
	f, err := u.tree.OpenFile(real, unix.O_PATH)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return "", unix.Stat_t{}, nil
	}
	if err != nil {
		return "", unix.Stat_t{}, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", st, fmt.Errorf("stat %s: %w", real, err)
	}
	dir, base := path.Split(real)
	parent, err := u.tree.OpenFile(strings.TrimSuffix(dir, "/"), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return "", st, err
	}
	defer parent.Close()
	if gone, err := whiteoutAt(int(parent.Fd()), base, st); err != nil || gone {
		return "", st, err
	}
	return real, st, nil
}

// relabel gives a file the attributes of a further name's own header, as
// containerd does.
func (u *unpacker) relabel(dirf int, base string, ref Outside) error {
	kept, err := u.opts.Make.Change(dirf, base, ref.Mode, ref.UID, ref.GID)
	if err != nil {
		return err
	}
	if !kept {
		u.out.Owners[ref.Path] = [2]uint32{ref.UID, ref.GID}
	}
	if err := u.setXattrs(at(dirf, base), ref.Xattrs); err != nil {
		return err
	}
	return setTimes(dirf, base, times{ref.Atime, ref.Mtime})
}

// retryLinks makes the links whose targets came after them; the others are
// left to Finish. A name that some later entry took is no longer a link.
func (u *unpacker) retryLinks() error {
	for _, ref := range u.pending {
		dir, base := path.Split(ref.Path)
		dirf, _, err := u.dir(strings.TrimSuffix(dir, "/"))
		if err != nil {
			return fmt.Errorf("%q: %w", ref.Path, err)
		}
		if st, err := statAt(dirf, base); err == nil {
			gone, err := whiteoutAt(dirf, base, st)
			if err != nil {
				return fmt.Errorf("%q: %w", ref.Path, err)
			}
			if !gone {
				continue
			}
		}
		ok, err := u.tryLink(dirf, base, ref)
		if err != nil {
			return fmt.Errorf("%q: %w", ref.Path, err)
		}
		if !ok {
			u.out.Outside = append(u.out.Outside, ref)
		}
	}
	return nil
}

func (u *unpacker) implicitDirs() []string {
	var out []string
	for name := range u.implicit {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func (u *unpacker) setTimes() error {
	for name, t := range u.times {
		f, err := u.tree.OpenFile(name, unix.O_RDONLY|unix.O_DIRECTORY)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			continue // replaced since
		}
		if err != nil {
			return err
		}
		err = setTimes(int(f.Fd()), "", t)
		f.Close()
		if err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	return nil
}

func setTimes(dirf int, base string, t times) error {
	if t.atime.Before(t.mtime) {
		t.atime = t.mtime
	}
	ts := []unix.Timespec{timespec(t.atime), timespec(t.mtime)}
	flags := unix.AT_SYMLINK_NOFOLLOW
	if base == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if err := unix.UtimesNanoAt(dirf, base, ts, flags); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

// timespec keeps times before 1970 and beyond 2262, which the tar header can
// say and the file system clamps as it must.
func timespec(t time.Time) unix.Timespec {
	if t.IsZero() {
		return unix.Timespec{}
	}
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

func (u *unpacker) xattrs(h *tar.Header) (map[string][]byte, error) {
	var out map[string][]byte
	size := 0
	for key, val := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, paxXattr)
		if !ok {
			continue
		}
		if tree.HiddenXattr(name) || strings.HasPrefix(name, "trusted.") {
			u.out.Ignored++
			continue
		}
		if size += len(name) + len(val); size > maxRecords {
			return nil, fmt.Errorf("extended attributes of more than %d bytes: %w", maxRecords, ErrTooLarge)
		}
		if out == nil {
			out = map[string][]byte{}
		}
		out[name] = []byte(val)
	}
	return out, nil
}

func (u *unpacker) setXattrs(p string, xattrs map[string][]byte) error {
	for name, val := range xattrs {
		err := unix.Lsetxattr(p, name, val, 0)
		switch {
		case errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EACCES), errors.Is(err, unix.EINVAL):
			u.out.Ignored++ // a name space or value that is not for us to set
		case err != nil:
			return fmt.Errorf("set extended attribute %q of %d bytes: %w", name, len(val), err)
		case name == capability:
			if err := u.opts.Contents.capableAt(p, val); err != nil {
				return err
			}
		}
	}
	return nil
}

// parentBelow makes the directory at name, which has no entry, look as it
// does in the layers below.
func (u *unpacker) parentBelow(below tree.Tree, name string) error {
	f, err := u.tree.OpenFile(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	real, err := tree.Resolve(u.ctx, below, name)
	if errors.Is(err, tree.ErrLoop) {
		return nil
	}
	if err != nil {
		return err
	}
	e, err := below.Lstat(u.ctx, real)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || err == nil && !e.IsDir() {
		return nil // new: as it was made
	}
	if err != nil {
		return err
	}
	return u.copyMeta(below, real, e, int(f.Fd()))
}

func (u *unpacker) copyMeta(below tree.Tree, name string, e tree.Entry, dirf int) error {
	if _, err := u.opts.Make.Change(dirf, ".", e.Mode, e.UID, e.GID); err != nil {
		return err
	}
	x, err := below.Xattrs(u.ctx, name)
	if err != nil {
		return err
	}
	return u.setXattrs(at(dirf, ""), x) // its time is that of the unpacking, as with BuildKit: something came into it
}

// linkBelow copies a file up from the layers below and gives it another name.
func (u *unpacker) linkBelow(below tree.Tree, ref Outside) error {
	if real, _, err := u.target(ref.Target); err != nil {
		return err
	} else if real == "" {
		if ref.Target, err = u.copyUp(below, ref.Target); err != nil {
			return err
		}
	}
	dir, base := path.Split(ref.Path)
	dirf, dir, err := u.dir(strings.TrimSuffix(dir, "/"))
	if err != nil {
		return err
	}
	return u.keepTimes(dir, func() error {
		ok, err := u.tryLink(dirf, base, ref)
		if err == nil && !ok {
			err = errors.New("the target is in no layer")
		}
		return err
	})
}

// copyUp copies a file, not a directory, from the layers below to its place
// in this one, as an overlay does before it links, and returns that place.
func (u *unpacker) copyUp(below tree.Tree, name string) (string, error) {
	real, err := tree.ResolveParent(u.ctx, below, name)
	if err != nil {
		return "", err
	}
	e, err := below.Lstat(u.ctx, real)
	if err != nil {
		return "", fmt.Errorf("the target is in no layer: %w", err)
	}
	if e.IsDir() {
		return "", errors.New("the target is a directory")
	}
	dir, base := path.Split(real)
	dirf, dir, err := u.dir(strings.TrimSuffix(dir, "/"))
	if err != nil {
		return "", err
	}
	if st, err := statAt(dirf, base); err == nil {
		if gone, err := whiteoutAt(dirf, base, st); err != nil {
			return "", err
		} else if gone {
			return "", errors.New("the target is removed by this layer")
		}
	}
	real = path.Join(dir, base)
	return real, u.keepTimes(dir, func() error {
		h, err := Header(real, e)
		if err != nil || e.IsDir() {
			return fmt.Errorf("the target is of type %o", e.Type())
		}
		var body io.Reader
		if e.IsRegular() {
			f, err := below.Open(u.ctx, real)
			if err != nil {
				return err
			}
			defer f.Close()
			body = f
		}
		x, err := below.Xattrs(u.ctx, real)
		if err != nil {
			return err
		}
		AddXattrs(h, x)
		return u.make(h, body, dirf, real, base)
	})
}

// keepTimes runs fn, which makes files in dir, and gives dir its time again.
func (u *unpacker) keepTimes(dir string, fn func() error) error {
	e, err := u.tree.Lstat(u.ctx, dir)
	if err != nil {
		return err
	}
	if err := fn(); err != nil {
		return err
	}
	f, err := u.tree.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer f.Close()
	return setTimes(int(f.Fd()), "", times{e.ModTime, e.ModTime})
}

func statAt(dirf int, base string) (unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dirf, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return st, fmt.Errorf("stat: %w", err)
	}
	return st, nil
}
