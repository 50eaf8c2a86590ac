package index

import (
	"errors"
	"iter"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/tree"
)

// The limits of one index. They bound the memory of a scan to about 100 MB.
const (
	maxNames   = 400_000
	maxMembers = 4_000_000 // of a tar; later ones replace earlier ones
	maxText    = 32 << 20  // bytes of names, links, attributes and contents together
	maxName    = 255       // bytes
	maxPath    = 4095      // bytes, of links too
	maxContent = 256 << 10 // bytes of one file whose content is kept
)

// ErrTooLarge is a layer beyond the limits of an index.
var ErrTooLarge = errors.New("layer is too large for an index")

// Index is what one layer says about its names. It does not change.
type Index struct {
	nodes   []node // breadth first; the names in a directory lie side by side, sorted
	files   []file
	outside bool
}

// node is a name.
type node struct {
	name     string
	file     int32 // in Index.files; -1 is a whiteout
	first, n int32 // of a directory: its names in Index.nodes
	mark     mark
}

type mark uint8

const (
	opaque mark = 1 << iota
	implicit
)

// file is what a name, or several, stand for.
type file struct {
	mode, uid, gid uint32
	names          uint32
	size           int64
	sec            int64
	nsec           int32 // -1: the time is that of the unpacking
	rdev           uint64
	link           string
	xattrs         map[string][]byte
	content        []byte // nil: not kept
}

// Entry is what a layer says about one name.
type Entry struct {
	// Entry has no Dev; its Ino is that of the other names of the file, and 0
	// when there are none. ModTime is zero when the layer does not say.
	tree.Entry
	Whiteout bool // the name is gone from the layers below; nothing else is set
	Opaque   bool // a directory that hides what is below it
	Implicit bool // a directory that looks as below, and 0755 root where nothing is
}

// Len is the number of names.
func (x *Index) Len() int { return len(x.nodes) }

// Outside tells whether the layer has hard links to files of layers below.
// What those become is not in the index.
func (x *Index) Outside() bool { return x.outside }

// Lookup finds a name, "" for the root; its parents are directories in the
// layer, and no link is followed.
func (x *Index) Lookup(name string) (Entry, bool) {
	i, ok := x.find(name)
	if !ok {
		return Entry{}, false
	}
	return x.entry(i), true
}

// Names lists a directory by name, whiteouts too; nil if it is none.
func (x *Index) Names(name string) []string {
	i, ok := x.find(name)
	if !ok {
		return nil
	}
	d := x.nodes[i]
	out := make([]string, d.n)
	for k, n := range x.nodes[d.first : d.first+d.n] {
		out[k] = n.name
	}
	return out
}

// Xattrs are the extended attributes of a name. They are not to be changed.
func (x *Index) Xattrs(name string) map[string][]byte {
	if i, ok := x.find(name); ok && x.nodes[i].file >= 0 {
		return x.files[x.nodes[i].file].xattrs
	}
	return nil
}

// Content is what is in a regular file, if the index has it.
func (x *Index) Content(name string) (content []byte, ok bool) {
	i, ok := x.find(name)
	if !ok || x.nodes[i].file < 0 {
		return nil, false
	}
	f := &x.files[x.nodes[i].file]
	if f.mode&unix.S_IFMT != unix.S_IFREG || f.content == nil && f.size > 0 {
		return nil, false
	}
	return f.content, true
}

// Moments lists the names whose time is known within a second, directories before what
// is in them, with that time.
func (x *Index) Moments() iter.Seq2[string, time.Time] {
	return func(yield func(string, time.Time) bool) {
		paths := make([]string, len(x.nodes))
		for i, n := range x.nodes {
			if n.file < 0 {
				continue
			}
			f := &x.files[n.file]
			for k := n.first; k < n.first+n.n; k++ {
				if paths[k] = x.nodes[k].name; i > 0 {
					paths[k] = paths[i] + "/" + paths[k]
				}
			}
			if i > 0 && f.nsec > 0 && !yield(paths[i], time.Unix(f.sec, int64(f.nsec))) {
				return
			}
		}
	}
}

func (x *Index) find(name string) (int32, bool) {
	at := int32(0)
	if name == "" {
		return at, true
	}
	for part := range strings.SplitSeq(name, "/") {
		d := x.nodes[at]
		i, ok := slices.BinarySearchFunc(x.nodes[d.first:d.first+d.n], part, func(n node, s string) int { return strings.Compare(n.name, s) })
		if !ok {
			return 0, false
		}
		at = d.first + int32(i)
	}
	return at, true
}

func (x *Index) entry(i int32) Entry {
	n := x.nodes[i]
	if n.file < 0 {
		return Entry{Entry: tree.Entry{Name: n.name}, Whiteout: true}
	}
	f := &x.files[n.file]
	e := Entry{
		Entry:  tree.Entry{Name: n.name, Mode: f.mode, UID: f.uid, GID: f.gid, Size: f.size, Rdev: f.rdev, Link: f.link, Nlink: uint64(f.names)},
		Opaque: n.mark&opaque != 0, Implicit: n.mark&implicit != 0,
	}
	if f.nsec >= 0 {
		e.ModTime = time.Unix(f.sec, int64(f.nsec))
	}
	if f.names > 1 {
		e.Ino = uint64(n.file) + 1
	}
	if e.IsLink() {
		e.Size = int64(len(f.link))
	}
	return e
}
