package index

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"path"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/tree"
)

const (
	whPrefix = ".wh."
	whMeta   = ".wh..wh."
	whOpaque = ".wh..wh..opq"
	paxXattr = "SCHILY.xattr."
)

// kept are the files whose content an index has.
var kept = []string{"etc/group", "etc/passwd"}

// Scan makes the index of a layer from its uncompressed tar, which it reads to
// the end. The rules are those of layer.Unpack, entry by entry; the caller
// hashes the stream.
func Scan(ctx context.Context, r io.Reader) (*Index, error) {
	s := newScanner(ctx)
	in := bufio.NewReaderSize(r, 64<<10)
	if err := s.stream(in); err != nil {
		return nil, fmt.Errorf("index layer: %w", err)
	}
	return s.flatten(), nil
}

// Writer is Scan for a stream that goes by: a tar is written to it, and Index
// ends it. A write never fails.
type Writer struct {
	pipe  *io.PipeWriter
	index func() (*Index, error)
}

// NewWriter begins an index. Index must be called in any case.
func NewWriter(ctx context.Context) *Writer {
	r, w := io.Pipe()
	var x *Index
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		x, err = Scan(ctx, r)
		_, _ = io.Copy(io.Discard, r) // what comes after an error
	}()
	return &Writer{pipe: w, index: sync.OnceValues(func() (*Index, error) {
		w.Close()
		<-done
		return x, err
	})}
}

func (w *Writer) Write(p []byte) (int, error) { return w.pipe.Write(p) }

// Index says that the tar is complete and gives the index of it.
func (w *Writer) Index() (*Index, error) { return w.index() }

// Builder is Scan for entries that somebody knows before they are in a tar.
type Builder struct {
	s   *scanner
	err error // the first
}

// NewBuilder begins an index.
func NewBuilder(ctx context.Context) *Builder { return &Builder{s: newScanner(ctx)} }

// Add adds an entry as the next member of a tar. content is that of a regular
// file; it may be left out of those that an index does not keep.
func (b *Builder) Add(h *tar.Header, content []byte) {
	if b.err == nil {
		b.err = b.s.entry(h, bytes.NewReader(content))
	}
}

// Index gives the index of what was added.
func (b *Builder) Index() (*Index, error) {
	if b.err == nil {
		b.err = b.s.retryLinks()
	}
	if b.err != nil {
		return nil, fmt.Errorf("index layer: %w", b.err)
	}
	return b.s.flatten(), nil
}

// name is a name while the tree grows; without a file it is a whiteout.
type name struct {
	file *inode
	kids map[string]*name
	mark mark
}

type inode struct {
	file
	number int32 // in Index.files, while flattened; 0 is none yet
}

func (n *name) typ() uint32 {
	if n.file == nil {
		return unix.S_IFCHR // as on disk
	}
	return n.file.mode & unix.S_IFMT
}

func (n *name) isDir() bool { return n.typ() == unix.S_IFDIR }

func (n *name) put(base string, kid *name) {
	if n.kids == nil {
		n.kids = map[string]*name{}
	}
	n.kids[base] = kid
}

type scanner struct {
	ctx     context.Context // of the one call of Scan, or of a Builder
	root    *name
	names   int
	text    int
	pending []hardLink // without a target so far
	outside bool
}

func newScanner(ctx context.Context) *scanner {
	return &scanner{ctx: ctx, root: &name{file: &inode{file: file{mode: unix.S_IFDIR | 0o755, nsec: -1}}}}
}

// hardLink is a further name of a file, with what its own header says of it.
type hardLink struct {
	path, target string
	h            attributes
}

type attributes struct {
	perm, uid, gid uint32
	sec            int64
	nsec           int32
	xattrs         map[string][]byte
}

func (s *scanner) stream(in io.Reader) error {
	tr := tar.NewReader(in)
	for members := 1; ; members++ {
		if err := context.Cause(s.ctx); err != nil {
			return err
		}
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil && !(errors.Is(err, tar.ErrInsecurePath) && h != nil) {
			return fmt.Errorf("read tar: %w", err)
		}
		if members > maxMembers {
			return fmt.Errorf("more than %d entries: %w", maxMembers, ErrTooLarge)
		}
		if err := s.entry(h, tr); err != nil {
			return fmt.Errorf("%q: %w", h.Name, err)
		}
	}
	if err := s.retryLinks(); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return fmt.Errorf("read tar: %w", err)
	}
	return nil
}

func (s *scanner) entry(h *tar.Header, body io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if strings.IndexByte(h.Name, 0) >= 0 {
		return errors.New("name holds a zero byte")
	}
	if len(h.Name) > maxPath {
		return fmt.Errorf("name of %d bytes: %w", len(h.Name), unix.ENAMETOOLONG)
	}
	clean := tree.Clean(h.Name)
	if clean == "" {
		return nil
	}
	up, base := split(clean)
	d, up, err := s.dir(up)
	if err != nil {
		return err
	}
	if base == whOpaque {
		d.mark |= opaque
		return nil
	}
	if strings.HasPrefix(base, whMeta) {
		return nil
	}
	if hidden, ok := strings.CutPrefix(base, whPrefix); ok {
		if hidden == "" || hidden == "." || hidden == ".." {
			return errors.New("whiteout of no name")
		}
		return s.whiteout(d, hidden)
	}
	return s.make(h, body, d, path.Join(up, base), base)
}

// split is path.Split without the slash.
func split(p string) (dir, base string) {
	dir, base = path.Split(p)
	return strings.TrimSuffix(dir, "/"), base
}

// walk finds the name p, following no link.
func (s *scanner) walk(p string) (*name, error) {
	n := s.root
	if p == "" {
		return n, nil
	}
	for part := range strings.SplitSeq(p, "/") {
		if !n.isDir() {
			return nil, unix.ENOTDIR
		}
		if n = n.kids[part]; n == nil {
			return nil, fs.ErrNotExist
		}
	}
	return n, nil
}

// look is the tree so far, as far as resolving a name needs it.
type look struct {
	tree.Tree
	s *scanner
}

func (l look) Lstat(_ context.Context, p string) (tree.Entry, error) {
	n, err := l.s.walk(tree.Clean(p))
	if err != nil {
		return tree.Entry{}, err
	}
	e := tree.Entry{Mode: n.typ()}
	if n.file != nil {
		e.Link = n.file.link
	}
	return e, nil
}

// dir finds the directory at p, following links, and makes what is missing. It
// returns the path without links.
func (s *scanner) dir(p string) (*name, string, error) {
	n, err := s.walk(p)
	if err == nil && n.isDir() {
		return n, p, nil
	}
	if !errors.Is(err, fs.ErrNotExist) { // perhaps a link on the way
		real, err := tree.Resolve(s.ctx, look{s: s}, p)
		if err != nil {
			return nil, "", err
		}
		if real != p {
			return s.dir(real)
		}
	}
	n = s.root
	for part := range strings.SplitSeq(p, "/") {
		kid := n.kids[part]
		switch {
		case kid == nil:
			kid = &name{file: &inode{file: file{mode: unix.S_IFDIR | 0o755, nsec: -1}}, mark: implicit}
			if err := s.add(n, part, kid); err != nil {
				return nil, "", err
			}
		case kid.file == nil: // the name is removed from the layers below and made anew here
			kid.file, kid.mark = &inode{file: file{mode: unix.S_IFDIR | 0o755, nsec: -1}}, opaque
		case !kid.isDir():
			return nil, "", fmt.Errorf("%s in %s is no directory: %w", part, p, unix.ENOTDIR)
		}
		n = kid
	}
	return n, p, nil
}

// add puts a new name into a directory, in the place of an old one.
func (s *scanner) add(d *name, base string, n *name) error {
	if len(base) > maxName {
		return fmt.Errorf("name of %d bytes: %w", len(base), unix.ENAMETOOLONG)
	}
	if s.names++; s.names > maxNames {
		return fmt.Errorf("more than %d names: %w", maxNames, ErrTooLarge)
	}
	if err := s.keep(len(base)); err != nil {
		return err
	}
	d.put(base, n)
	return nil
}

// keep counts text that is kept.
func (s *scanner) keep(n int) error {
	if s.text += n; s.text > maxText {
		return fmt.Errorf("more than %d bytes of names: %w", maxText, ErrTooLarge)
	}
	return nil
}

func (s *scanner) whiteout(d *name, base string) error {
	switch kid := d.kids[base]; {
	case kid == nil:
		return s.add(d, base, &name{})
	case kid.isDir(): // what is below the layer is gone, what is in it stays
		kid.mark = opaque
	}
	return nil
}

func (s *scanner) make(h *tar.Header, body io.Reader, d *name, p, base string) error {
	a, err := s.attributes(h)
	if err != nil {
		return err
	}
	if h.Typeflag == tar.TypeLink {
		link := hardLink{path: p, target: h.Linkname, h: a}
		ok, err := s.tryLink(d, base, link)
		if err == nil && !ok {
			link.target = tree.Clean(link.target)
			s.pending = append(s.pending, link)
			err = s.keep(len(p) + len(link.target))
		}
		return err
	}
	f, err := s.file(h, body, p)
	if err != nil {
		return err
	}
	isDir := f.mode&unix.S_IFMT == unix.S_IFDIR
	old := d.kids[base]
	if isDir && old != nil && old.isDir() {
		old.mark &^= implicit
		old.file.relabel(a)
		return nil
	}
	n := &name{file: &inode{file: f}}
	if isDir && old != nil && old.file == nil {
		n.mark = opaque
	}
	n.file.relabel(a)
	return s.add(d, base, n)
}

// file is the kind of file that an entry makes, without its attributes.
func (s *scanner) file(h *tar.Header, body io.Reader, p string) (file, error) {
	switch h.Typeflag {
	case tar.TypeDir:
		return file{mode: unix.S_IFDIR}, nil
	case tar.TypeReg, tar.TypeRegA, tar.TypeGNUSparse, tar.TypeCont: //nolint:staticcheck // old archives have TypeRegA
		f := file{mode: unix.S_IFREG, size: h.Size}
		if h.Size < 0 {
			return f, fmt.Errorf("file of %d bytes", h.Size)
		}
		if h.Size == 0 || h.Size > maxContent || !slices.Contains(kept, p) {
			return f, nil
		}
		f.content = make([]byte, h.Size)
		if _, err := io.ReadFull(body, f.content); err != nil {
			return f, fmt.Errorf("read content: %w", err)
		}
		return f, s.keep(len(f.content))
	case tar.TypeSymlink:
		if h.Linkname == "" || len(h.Linkname) > maxPath || strings.IndexByte(h.Linkname, 0) >= 0 {
			return file{}, fmt.Errorf("link to %q", h.Linkname)
		}
		return file{mode: unix.S_IFLNK | 0o777, link: h.Linkname}, s.keep(len(h.Linkname))
	case tar.TypeFifo:
		return file{mode: unix.S_IFIFO}, nil
	case tar.TypeChar, tar.TypeBlock:
		if h.Devmajor < 0 || h.Devmajor > math.MaxUint32 || h.Devminor < 0 || h.Devminor > math.MaxUint32 {
			return file{}, fmt.Errorf("device number %d:%d is out of range", h.Devmajor, h.Devminor)
		}
		rdev := unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
		switch {
		case h.Typeflag == tar.TypeBlock:
			return file{mode: unix.S_IFBLK, rdev: rdev}, nil
		case rdev == 0: // overlays take it for a whiteout; it becomes an empty file
			return file{mode: unix.S_IFREG}, nil
		}
		return file{mode: unix.S_IFCHR, rdev: rdev}, nil
	default:
		return file{}, fmt.Errorf("entry of unknown type %q", h.Typeflag)
	}
}

func (s *scanner) attributes(h *tar.Header) (attributes, error) {
	a := attributes{perm: uint32(h.Mode & 0o7777)}
	var err error
	if a.uid, err = id32(h.Uid); err != nil {
		return a, err
	}
	if a.gid, err = id32(h.Gid); err != nil {
		return a, err
	}
	if !h.ModTime.IsZero() {
		a.sec, a.nsec = h.ModTime.Unix(), int32(h.ModTime.Nanosecond())
	}
	for key, val := range h.PAXRecords {
		attr, ok := strings.CutPrefix(key, paxXattr)
		if !ok || !settable(attr, len(val)) {
			continue
		}
		if a.xattrs == nil {
			a.xattrs = map[string][]byte{}
		}
		a.xattrs[attr] = []byte(val)
		if err := s.keep(len(attr) + len(val)); err != nil {
			return a, err
		}
	}
	return a, nil
}

// maxXattr is what the kernel takes, in bytes.
const maxXattr = 64 << 10

// settable tells whether unpacking would set an extended attribute.
func settable(name string, size int) bool {
	return name != "" && len(name) <= maxName && strings.IndexByte(name, 0) < 0 && size <= maxXattr &&
		!tree.HiddenXattr(name) && !strings.HasPrefix(name, "trusted.")
}

func id32(v int) (uint32, error) {
	if v < 0 || int64(v) > math.MaxUint32-1 {
		return 0, fmt.Errorf("id %d is out of range", v)
	}
	return uint32(v), nil
}

// relabel gives a file the attributes of a header; those that are there already
// and that it does not name stay.
func (f *inode) relabel(a attributes) {
	f.uid, f.gid, f.sec, f.nsec = a.uid, a.gid, a.sec, a.nsec
	typ := f.mode & unix.S_IFMT
	if typ != unix.S_IFLNK {
		f.mode = typ | a.perm
	}
	for k, v := range a.xattrs {
		if strings.HasPrefix(k, "user.") && (typ == unix.S_IFLNK || typ == unix.S_IFIFO) {
			continue // the kernel has none there
		}
		if f.xattrs == nil {
			f.xattrs = map[string][]byte{}
		}
		f.xattrs[k] = v
	}
}

// tryLink makes a hard link; false if this layer has no such target (yet).
func (s *scanner) tryLink(d *name, base string, l hardLink) (bool, error) {
	real, err := tree.ResolveParent(s.ctx, look{s: s}, l.target)
	if err != nil {
		return false, err
	}
	if real == "" {
		return false, errors.New("hard link to the root")
	}
	n, err := s.walk(real)
	if err != nil || n.file == nil {
		return false, nil //nolint:nilerr // nothing there
	}
	if n.isDir() { // unpacking takes one to itself; that may be left to it
		return false, fmt.Errorf("hard link to directory %s", real)
	}
	if old := d.kids[base]; old == nil || old.file != n.file {
		if old != nil && old.isDir() && strings.HasPrefix(real, l.path+"/") {
			return false, fmt.Errorf("hard link to %s replaces its own directory", real)
		}
		if err := s.add(d, base, &name{file: n.file}); err != nil {
			return false, err
		}
	}
	n.file.relabel(l.h)
	return true, nil
}

// retryLinks makes the links whose targets came after them.
func (s *scanner) retryLinks() error {
	for _, l := range s.pending {
		up, base := split(l.path)
		d, _, err := s.dir(up)
		if err != nil {
			return fmt.Errorf("%q: %w", l.path, err)
		}
		if old := d.kids[base]; old != nil && old.file != nil {
			continue // some later entry took the name
		}
		ok, err := s.tryLink(d, base, l)
		if err != nil {
			return fmt.Errorf("%q: %w", l.path, err)
		}
		s.outside = s.outside || !ok
	}
	return nil
}

// flatten lays the tree out breadth first.
func (s *scanner) flatten() *Index {
	x := &Index{outside: s.outside}
	queue := []*name{s.root}
	x.nodes = append(x.nodes, node{})
	for i := 0; i < len(queue); i++ {
		n := queue[i]
		out := &x.nodes[i]
		out.mark, out.file = n.mark, -1
		if n.file != nil {
			if n.file.number == 0 {
				x.files = append(x.files, n.file.file)
				n.file.number = int32(len(x.files))
			}
			out.file = n.file.number - 1
			x.files[out.file].names++
		}
		out.first, out.n = int32(len(x.nodes)), int32(len(n.kids))
		for _, base := range slices.Sorted(maps.Keys(n.kids)) {
			queue = append(queue, n.kids[base])
			x.nodes = append(x.nodes, node{name: base})
		}
	}
	return x
}
