package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// MaxSize is the length of the longest encoding that Decode takes, in bytes.
const MaxSize = 64 << 20

// maxPlain bounds what an encoding may grow to, in bytes.
const maxPlain = 96 << 20

// magic begins every index; the number changes whenever the form or the meaning
// of it does.
const magic = "kaniko-build index 1 "

// The kinds of names in an encoding. The type of a file is one of them; the bits
// above it say what else there is.
const (
	kindWhiteout = iota
	kindAgain    // a further name of a file
	kindDir
	kindRegular
	kindLink
	kindFifo
	kindChar
	kindBlock
	kindMask = 1<<3 - 1

	hasOpaque   = 1 << 3
	hasImplicit = 1 << 4
	hasXattrs   = 1 << 5
	hasContent  = 1 << 6
	hasNoTime   = 1 << 7
)

var types = map[byte]uint32{
	kindDir: unix.S_IFDIR, kindRegular: unix.S_IFREG, kindLink: unix.S_IFLNK,
	kindFifo: unix.S_IFIFO, kindChar: unix.S_IFCHR, kindBlock: unix.S_IFBLK,
}

func kindOf(mode uint32) byte {
	for k, t := range types {
		if t == mode&unix.S_IFMT {
			return k
		}
	}
	panic("index: internal error: file of no type")
}

// Encode gives the bytes of the index of layer id:
//
//	magic, id, newline        as text
//	zstd frame, with its checksum, of
//	  1 if there are links to layers below, else 0; the number of names
//	  each name, breadth first: its kind; the name; for a further name of
//	  a file the number of that, else its attributes; for a directory how
//	  many names are in it
//
// All numbers are varints, all texts have their length before them.
func (x *Index) Encode(id digest.Digest) []byte {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic("index: internal error: " + err.Error()) // of the options only
	}
	defer enc.Close()
	return enc.EncodeAll(x.plain(), []byte(magic+id.String()+"\n"))
}

// plain is what the frame of an encoding holds.
func (x *Index) plain() []byte {
	b := make([]byte, 0, 32*len(x.nodes))
	flag := uint64(0)
	if x.outside {
		flag = 1
	}
	b = binary.AppendUvarint(b, flag)
	b = binary.AppendUvarint(b, uint64(len(x.nodes)))
	files, before := int32(0), int64(0)
	for _, n := range x.nodes {
		if n.file < 0 {
			b = appendText(append(b, kindWhiteout), n.name)
			continue
		}
		if n.file < files {
			b = appendText(append(b, kindAgain), n.name)
			b = binary.AppendUvarint(b, uint64(n.file))
			continue
		}
		files++
		f := &x.files[n.file]
		b = appendText(append(b, kindBits(n, f)), n.name)
		b = appendFile(b, f, &before)
		if f.mode&unix.S_IFMT == unix.S_IFDIR {
			b = binary.AppendUvarint(b, uint64(n.n))
		}
	}
	return b
}

func kindBits(n node, f *file) byte {
	k := kindOf(f.mode)
	set := func(ok bool, bit byte) {
		if ok {
			k |= bit
		}
	}
	set(n.mark&opaque != 0, hasOpaque)
	set(n.mark&implicit != 0, hasImplicit)
	set(len(f.xattrs) > 0, hasXattrs)
	set(f.content != nil, hasContent)
	set(f.nsec < 0, hasNoTime)
	return k
}

func appendFile(b []byte, f *file, before *int64) []byte {
	b = binary.AppendUvarint(b, uint64(f.mode&0o7777))
	b = binary.AppendUvarint(b, uint64(f.uid))
	b = binary.AppendUvarint(b, uint64(f.gid))
	if f.nsec >= 0 {
		b = binary.AppendVarint(b, f.sec-*before)
		b = binary.AppendUvarint(b, uint64(f.nsec))
		*before = f.sec
	}
	switch f.mode & unix.S_IFMT {
	case unix.S_IFREG:
		b = binary.AppendUvarint(b, uint64(f.size))
	case unix.S_IFLNK:
		b = appendText(b, f.link)
	case unix.S_IFCHR, unix.S_IFBLK:
		b = binary.AppendUvarint(b, f.rdev)
	}
	if len(f.xattrs) > 0 {
		b = binary.AppendUvarint(b, uint64(len(f.xattrs)))
		for _, k := range slices.Sorted(maps.Keys(f.xattrs)) {
			b = appendText(appendText(b, k), string(f.xattrs[k]))
		}
	}
	if f.content != nil {
		b = append(b, f.content...) // as long as the file
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// Decode reads what Encode wrote for layer id.
func Decode(b []byte, id digest.Digest) (*Index, error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("index of %d bytes, more than the %d allowed", len(b), MaxSize)
	}
	head, _, ok := strings.Cut(string(b[:min(len(b), 256)]), "\n")
	if !ok || !strings.HasPrefix(head, magic) {
		return nil, errors.New("it is no index of this version")
	}
	if of := head[len(magic):]; of != id.String() {
		return nil, fmt.Errorf("it is the index of %q", of)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxPlain), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	plain, err := dec.DecodeAll(b[len(head)+1:], nil)
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	r := &reader{s: string(plain)}
	x, err := r.index()
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	return x, nil
}

var errShort = errors.New("it ends too early")

// reader reads an encoding. The first thing that is wrong stays as err, and all
// later values are zero.
type reader struct {
	s    string
	err  error
	last int64 // time of the file before, in seconds
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err, r.s = fmt.Errorf(format, args...), ""
	}
}

func (r *reader) byte() byte {
	if len(r.s) == 0 {
		r.fail("%w", errShort)
		return 0
	}
	b := r.s[0]
	r.s = r.s[1:]
	return b
}

func (r *reader) number(limit uint64) uint64 {
	v := uint64(0)
	for shift := 0; ; shift += 7 {
		b := r.byte()
		if r.err != nil {
			return 0
		}
		if shift == 63 && b > 1 {
			r.fail("a number is too large")
			return 0
		}
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			break
		}
	}
	if v > limit {
		r.fail("the number %d is larger than %d", v, limit)
		return 0
	}
	return v
}

func (r *reader) text(limit int) string {
	n := int(r.number(uint64(limit)))
	if n > len(r.s) {
		r.fail("%w", errShort)
		return ""
	}
	t := r.s[:n]
	r.s = r.s[n:]
	return t
}

func (r *reader) index() (*Index, error) {
	x := &Index{outside: r.number(1) == 1}
	total := int(r.number(maxNames + 1))
	if total > len(r.s) { // each has several bytes
		r.fail("%w", errShort)
	}
	if r.err != nil {
		return nil, r.err
	}
	x.nodes = make([]node, 0, total)
	x.files = make([]file, 0, total)
	next := 1 // the first node that is in no directory yet
	parent := 0
	for i := range total {
		if i >= next {
			return nil, errors.New("a name is in no directory")
		}
		for i > 0 && i >= int(x.nodes[parent].first+x.nodes[parent].n) {
			parent++
		}
		n := r.node(x)
		if r.err != nil {
			return nil, r.err
		}
		switch {
		case i == 0 && (n.name != "" || n.file != 0 || x.files[0].mode&unix.S_IFMT != unix.S_IFDIR || n.mark&implicit != 0):
			return nil, errors.New("it has no root")
		case i > 0 && !isName(n.name):
			return nil, fmt.Errorf("%q is no name", n.name)
		case i > 0 && i > int(x.nodes[parent].first) && n.name <= x.nodes[i-1].name:
			return nil, fmt.Errorf("the name %q is out of order", n.name)
		}
		n.first = int32(next)
		if next += int(n.n); next > total {
			return nil, errors.New("a directory has more names than there are")
		}
		x.nodes = append(x.nodes, n)
	}
	if next != total || r.s != "" {
		return nil, errors.New("something is left at its end")
	}
	return x, nil
}

func isName(s string) bool {
	return s != "" && s != "." && s != ".." && strings.IndexByte(s, '/') < 0 && strings.IndexByte(s, 0) < 0
}

// node reads a name, and its file if it is the first of it.
func (r *reader) node(x *Index) node {
	kind := r.byte()
	n := node{name: r.text(maxName), file: -1}
	switch kind {
	case kindWhiteout:
		return n
	case kindAgain:
		n.file = int32(r.number(math.MaxInt32))
		if r.err == nil && (int(n.file) >= len(x.files) || x.files[n.file].mode&unix.S_IFMT == unix.S_IFDIR) {
			r.fail("%q is a name of no file", n.name)
		}
		if r.err == nil {
			x.files[n.file].names++
		}
		return n
	}
	f := r.file(kind)
	if kind&kindMask == kindDir {
		n.n = int32(r.number(maxNames))
		if kind&hasOpaque != 0 {
			n.mark |= opaque
		}
		if kind&hasImplicit != 0 {
			n.mark |= implicit
		}
	} else if kind&(hasOpaque|hasImplicit) != 0 {
		r.fail("%q is marked as a directory", n.name)
	}
	n.file = int32(len(x.files))
	x.files = append(x.files, f)
	return n
}

func (r *reader) file(kind byte) file {
	f := file{names: 1, nsec: -1}
	typ, ok := types[kind&kindMask]
	if !ok {
		r.fail("there is no kind %d", kind)
		return f
	}
	f.mode = typ | uint32(r.number(0o7777))
	f.uid, f.gid = uint32(r.number(math.MaxUint32-1)), uint32(r.number(math.MaxUint32-1))
	if kind&hasNoTime == 0 {
		step := r.number(math.MaxUint64) // zigzag, as binary.AppendVarint
		r.last += int64(step>>1) ^ -int64(step&1)
		f.sec, f.nsec = r.last, int32(r.number(999_999_999))
	}
	switch typ {
	case unix.S_IFREG:
		f.size = int64(r.number(math.MaxInt64))
	case unix.S_IFLNK:
		if f.link = r.text(maxPath); f.link == "" || strings.IndexByte(f.link, 0) >= 0 {
			r.fail("link to %q", f.link)
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		f.rdev = r.number(math.MaxUint64)
		if typ == unix.S_IFCHR && f.rdev == 0 {
			r.fail("a device is the mark of a removed file")
		}
	}
	if kind&hasXattrs != 0 {
		n := int(r.number(1 << 16))
		f.xattrs = map[string][]byte{}
		for range n {
			k, v := r.text(maxName), r.text(maxXattr)
			if r.err != nil {
				break
			}
			if !settable(k, len(v)) {
				r.fail("extended attribute %q", k)
			}
			f.xattrs[k] = []byte(v)
		}
	}
	if kind&hasContent != 0 {
		if typ != unix.S_IFREG || f.size > maxContent || int64(len(r.s)) < f.size {
			r.fail("content of %d bytes", f.size)
			return f
		}
		f.content, r.s = []byte(r.s[:f.size]), r.s[f.size:]
	}
	return f
}
