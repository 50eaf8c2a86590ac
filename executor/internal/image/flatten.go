package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"kaniko-build/executor/internal/layer"
)

// Flattening reads the layers twice. The first time it keeps, of every file,
// what is said about it and where its bytes are: that gives the tree as it is in
// the end. The second time the bytes that belong to that tree are handed to a
// sink as they stream by. So no byte is held, no byte that a later layer hides is
// written, and a hard link whose first name is gone still has its bytes.

// meta is what a tar says about a file, without its name and bytes.
type meta struct {
	typeflag     byte
	mode         int64
	uid, gid     int
	mtime        time.Time
	link         string // target of a symbolic link
	major, minor int64
	xattrs       map[string]string
}

// inode is a file that may have several names.
type inode struct {
	meta
	layer, entry int // where the bytes are
	size         int64
	names        []string // in the final tree, sorted
}

// node is a name in the tree: a directory if children is not nil, else an inode,
// or neither.
type node struct {
	children map[string]*node
	dir      meta // of a directory
	inode    *inode
	layer    int  // that wrote this entry last
	made     bool // a directory without an entry of its own
	// What is to be said about layers below those that are read, if they are kept:
	gone   bool // what they have of this name is gone
	opaque bool // a directory that shows nothing of theirs
}

// sink takes a tree: directories first, parents before children; then files,
// links right behind their file; then what has no bytes.
type sink interface {
	mkdir(name string, m meta) error
	file(name string, m meta, size int64, r io.Reader) error
	link(name, target string, m meta) error
	special(name string, m meta) error // symbolic link, device, fifo
}

const (
	whiteout   = ".wh."
	opaque     = ".wh..wh..opq"
	maxLinks   = 255
	xattrPAX   = "SCHILY.xattr."
	maxEntries = 10_000_000 // names in an image; each costs some 200 bytes of memory
	maxFile    = 256 << 30  // bytes of one file: a sparse one may say anything and costs nothing to send
)

// flatten hands the files of an image to s.
func flatten(ctx context.Context, src Source, layers []Layer, epoch *time.Time, s sink) error {
	return merge(ctx, src, layers, false, epoch, s)
}

// merge hands to s what layers make together. part says that there are other
// layers below them: then it is one layer, with whiteouts.
func merge(ctx context.Context, src Source, layers []Layer, part bool, epoch *time.Time, s sink) error {
	root, err := readTree(ctx, src, layers, part)
	if err != nil {
		return err
	}
	wanted := make([]map[int]*inode, len(layers))
	var specials []*inode
	clamp := func(m meta) meta {
		if epoch != nil && m.mtime.After(*epoch) {
			m.mtime = *epoch
		}
		return m
	}
	var walk func(name string, n *node) error
	walk = func(name string, n *node) error {
		for _, base := range slices.Sorted(maps.Keys(n.children)) {
			c, dir := n.children[base], name
			name := path.Join(dir, base)
			switch {
			case c.gone:
				if err := mark(s, path.Join(dir, whiteout+base)); err != nil {
					return err
				}
				continue
			case c.children != nil:
				if !part || !c.made {
					if err := s.mkdir(name, clamp(c.dir)); err != nil {
						return err
					}
				}
				if c.opaque {
					if err := mark(s, path.Join(name, opaque)); err != nil {
						return err
					}
				}
				if err := walk(name, c); err != nil {
					return err
				}
				continue
			case len(c.inode.names) > 0:
			case c.inode.typeflag != tar.TypeReg:
				specials = append(specials, c.inode)
			default:
				if wanted[c.inode.layer] == nil {
					wanted[c.inode.layer] = map[int]*inode{}
				}
				wanted[c.inode.layer][c.inode.entry] = c.inode
			}
			c.inode.names = append(c.inode.names, name)
		}
		return nil
	}
	if err := walk("", root); err != nil {
		return err
	}
	links := func(i *inode) error {
		for _, other := range i.names[1:] {
			if err := s.link(other, i.names[0], clamp(i.meta)); err != nil {
				return err
			}
		}
		return nil
	}
	for i, l := range layers {
		if wanted[i] == nil {
			continue
		}
		err := eachEntry(ctx, src, l, func(entry int, h *tar.Header, r io.Reader) error {
			f := wanted[i][entry]
			if f == nil {
				return nil
			}
			if err := s.file(f.names[0], clamp(f.meta), h.Size, r); err != nil {
				return fmt.Errorf("%s: %w", f.names[0], err)
			}
			return links(f)
		})
		if err != nil {
			return err
		}
	}
	for _, i := range specials {
		if err := s.special(i.names[0], clamp(i.meta)); err != nil {
			return err
		}
		if err := links(i); err != nil {
			return err
		}
	}
	return nil
}

// mark writes an entry that stands for what is not there.
func mark(s sink, name string) error {
	return s.file(name, meta{typeflag: tar.TypeReg, mode: 0o600, mtime: time.Unix(0, 0)}, 0, strings.NewReader(""))
}

// eachEntry calls fn for every entry of a layer, whose bytes are checked to the
// end.
func eachEntry(ctx context.Context, src Source, l Layer, fn func(entry int, h *tar.Header, r io.Reader) error) error {
	fail := func(err error) error { return fmt.Errorf("layer %s: %w", l.Descriptor.Digest, err) }
	blob, err := src.Open(ctx, l.Descriptor)
	if err != nil {
		return fail(err)
	}
	defer blob.Close()
	in, _, err := layer.Decompress(ctxReader{ctx, blob})
	if err != nil {
		return fail(err)
	}
	defer in.Close()
	t := tar.NewReader(in)
	for entry := 0; ; entry++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fail(err)
		}
		if err := fn(entry, h, t); err != nil {
			return fail(err)
		}
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return fail(err)
	}
	if _, err := io.Copy(io.Discard, blob); err != nil { // to where the digest is checked
		return fail(err)
	}
	return nil
}

// filesystem is the tree while layers are laid over it.
type filesystem struct {
	root  *node
	layer int
	part  bool // there are layers below
	count int
}

func readTree(ctx context.Context, src Source, layers []Layer, part bool) (*node, error) {
	f := &filesystem{root: newDir(-1), part: part}
	for i, l := range layers {
		f.layer = i
		err := eachEntry(ctx, src, l, func(entry int, h *tar.Header, _ io.Reader) error {
			if f.count++; f.count > maxEntries {
				return fmt.Errorf("more than %d files", maxEntries)
			}
			if err := f.add(entry, h); err != nil {
				return fmt.Errorf("%q: %w", h.Name, err)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return f.root, nil
}

func newDir(layer int) *node {
	return &node{children: map[string]*node{}, layer: layer, made: true, dir: meta{typeflag: tar.TypeDir, mode: 0o755, mtime: time.Unix(0, 0)}}
}

func (f *filesystem) add(entry int, h *tar.Header) error {
	name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
	if h.Size > maxFile {
		return fmt.Errorf("it says it has %d bytes; up to %d are allowed", h.Size, int64(maxFile))
	}
	if name == "" {
		if h.Typeflag == tar.TypeDir {
			f.root.dir, f.root.layer = metaOf(h), f.layer
		}
		return nil
	}
	parent, base := path.Split(name)
	if strings.HasPrefix(base, whiteout) {
		return f.whiteout(parent, base)
	}
	dir, err := f.dir(parent)
	if err != nil {
		return err
	}
	old := dir.children[base]
	switch h.Typeflag {
	case tar.TypeDir:
		if old == nil || old.children == nil {
			old = f.replace(dir, base)
		}
		old.dir, old.layer, old.made = metaOf(h), f.layer, false
	case tar.TypeLink:
		target, err := f.find(h.Linkname)
		if err != nil {
			return err
		}
		if target == nil || target.inode == nil {
			return fmt.Errorf("hard link to %q, which is no file of the image", h.Linkname)
		}
		if i := target.inode; i.typeflag == tar.TypeReg { // a link's header speaks for the file
			m := metaOf(h)
			m.typeflag, m.xattrs = tar.TypeReg, i.xattrs
			i.meta = m
		}
		dir.children[base] = &node{inode: target.inode, layer: f.layer}
	case tar.TypeReg, tar.TypeRegA, tar.TypeCont, tar.TypeGNUSparse: //nolint:staticcheck // TypeRegA is in old archives
		i := &inode{meta: metaOf(h), layer: f.layer, entry: entry, size: h.Size}
		i.typeflag = tar.TypeReg
		dir.children[base] = &node{inode: i, layer: f.layer}
	case tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		dir.children[base] = &node{inode: &inode{meta: metaOf(h), layer: f.layer, entry: entry}, layer: f.layer}
	case tar.TypeXGlobalHeader:
	default:
		return fmt.Errorf("unknown type %q of entry", h.Typeflag)
	}
	return nil
}

// replace makes a directory in the place of what is no directory. If that hid
// something of layers below, the directory does.
func (f *filesystem) replace(dir *node, base string) *node {
	n := newDir(f.layer)
	n.opaque = f.part && dir.children[base] != nil
	dir.children[base] = n
	return n
}

// whiteout removes what lower layers have; entries of its own layer stay,
// wherever they stand in the archive.
func (f *filesystem) whiteout(parent, base string) error {
	if base == opaque {
		dir, err := f.dir(parent)
		if err != nil {
			return err
		}
		for name, c := range dir.children {
			if f.older(c) {
				delete(dir.children, name)
			}
		}
		dir.opaque = f.part
		return nil
	}
	dir, ok, err := f.walk(parent, f.part)
	if err != nil || !ok {
		return err
	}
	name := strings.TrimPrefix(base, whiteout)
	c := dir.children[name]
	switch {
	case c != nil && !f.older(c):
		c.opaque = f.part && c.children != nil // what is there is of this layer
	case f.part && !dir.opaque:
		dir.children[name] = &node{gone: true, layer: f.layer}
	default:
		delete(dir.children, name)
	}
	return nil
}

// older removes what is older than this layer in n, and tells whether n itself
// may go.
func (f *filesystem) older(n *node) bool {
	for name, c := range n.children {
		if f.older(c) {
			delete(n.children, name)
		}
	}
	return n.layer < f.layer && len(n.children) == 0
}

// dir is the directory name, made if it is absent. A link on the way is followed
// if this layer has it, and gives way to a directory if it is older.
func (f *filesystem) dir(name string) (*node, error) {
	n, _, err := f.walk(name, true)
	return n, err
}

// find is the entry name, nil if it is absent. Links on the way to it are
// followed inside the tree, the last one is not.
func (f *filesystem) find(name string) (*node, error) {
	parent, base := path.Split(strings.TrimPrefix(path.Clean("/"+name), "/"))
	if base == "" {
		return f.root, nil
	}
	dir, ok, err := f.walk(parent, false)
	if err != nil || !ok {
		return nil, err
	}
	return dir.children[base], nil
}

func (f *filesystem) walk(name string, make bool) (_ *node, ok bool, err error) {
	parts := strings.Split(name, "/")
	at := []*node{f.root}
	for links := 0; len(parts) > 0; {
		p := parts[0]
		parts = parts[1:]
		switch p {
		case "", ".":
			continue
		case "..":
			at = at[:max(1, len(at)-1)]
			continue
		}
		dir := at[len(at)-1]
		c := dir.children[p]
		if c != nil && c.inode != nil && c.inode.typeflag == tar.TypeSymlink && (!make || c.layer == f.layer) {
			if links++; links > maxLinks {
				return nil, false, errors.New("too many symbolic links")
			}
			if strings.HasPrefix(c.inode.link, "/") {
				at = at[:1]
			}
			parts = append(strings.Split(c.inode.link, "/"), parts...)
			continue
		}
		if c == nil || c.children == nil {
			if !make {
				return nil, false, nil
			}
			c = f.replace(dir, p)
		}
		at = append(at, c)
	}
	return at[len(at)-1], true, nil
}

func metaOf(h *tar.Header) meta {
	m := meta{typeflag: h.Typeflag, mode: h.Mode & 0o7777, uid: h.Uid, gid: h.Gid, mtime: h.ModTime, link: h.Linkname, major: h.Devmajor, minor: h.Devminor}
	for k, v := range h.PAXRecords {
		name, ok := strings.CutPrefix(k, xattrPAX)
		if !ok || hidden(name) {
			continue
		}
		if m.xattrs == nil {
			m.xattrs = map[string]string{}
		}
		m.xattrs[name] = v
	}
	return m
}

// hidden are attributes that steer overlayfs or are records of ours.
func hidden(xattr string) bool {
	for _, p := range []string{"user.overlay.", "trusted.overlay.", "user.kaniko-build."} {
		if strings.HasPrefix(xattr, p) {
			return true
		}
	}
	return false
}

// Merge writes one layer, as a tar, that does what layers do, the lowest first,
// over whatever is below them.
func Merge(ctx context.Context, w io.Writer, src Source, layers []Layer) error {
	t := tar.NewWriter(w)
	if err := merge(ctx, src, layers, true, nil, tarSink{ctx, t, make([]byte, copySize)}); err != nil {
		return fmt.Errorf("merge layers: %w", err)
	}
	if err := t.Close(); err != nil {
		return fmt.Errorf("merge layers: %w", err)
	}
	return nil
}

// WriteTar writes the files of an image as one tar. Times later than epoch, if
// it is not nil, become that.
func WriteTar(ctx context.Context, w io.Writer, src Source, layers []Layer, epoch *time.Time) error {
	t := tar.NewWriter(w)
	if err := flatten(ctx, src, layers, epoch, tarSink{ctx, t, make([]byte, copySize)}); err != nil {
		return fmt.Errorf("write tar: %w", err)
	}
	if err := t.Close(); err != nil {
		return fmt.Errorf("write tar: %w", err)
	}
	return nil
}

type tarSink struct {
	ctx context.Context // of the whole writing
	t   *tar.Writer
	buf []byte
}

func (s tarSink) header(name string, m meta) *tar.Header {
	h := &tar.Header{
		Typeflag: m.typeflag, Name: name, Mode: m.mode, Uid: m.uid, Gid: m.gid,
		ModTime: m.mtime, Linkname: m.link, Devmajor: m.major, Devminor: m.minor,
	}
	for k, v := range m.xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[xattrPAX+k] = v
	}
	if m.mtime.Nanosecond() != 0 || h.PAXRecords != nil {
		h.Format = tar.FormatPAX
	}
	return h
}

func (s tarSink) mkdir(name string, m meta) error {
	h := s.header(name+"/", m)
	h.Linkname = ""
	return s.t.WriteHeader(h)
}

func (s tarSink) file(name string, m meta, size int64, r io.Reader) error {
	h := s.header(name, m)
	h.Size, h.Linkname = size, ""
	if err := s.t.WriteHeader(h); err != nil {
		return err
	}
	return copyAll(s.ctx, s.t, r, s.buf)
}

func (s tarSink) link(name, target string, m meta) error {
	h := s.header(name, m)
	h.Typeflag, h.Linkname, h.PAXRecords = tar.TypeLink, target, nil
	return s.t.WriteHeader(h)
}

func (s tarSink) special(name string, m meta) error { return s.t.WriteHeader(s.header(name, m)) }
