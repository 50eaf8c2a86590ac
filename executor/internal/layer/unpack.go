package layer

import (
	"archive/tar"
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
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

func statAt(dirf int, base string) (unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dirf, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return st, fmt.Errorf("stat: %w", err)
	}
	return st, nil
}
