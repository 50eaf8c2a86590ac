package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"path"
	"sort"
	"strings"
	"unicode/utf8"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/zstd"
)

// inode is one file object; hard links share it.
type inode struct {
	typ      string
	mode     int64
	uid, gid int
	size     int64
	sum      string
	text     string
	target   string
	major    int64
	minor    int64
	xattrs   map[string]string
	mtime    int64
	hasTime  bool
	kids     map[string]*inode // directories only
	layer    int
}

func newDir(layer int) *inode {
	return &inode{typ: "dir", mode: 0o755, kids: map[string]*inode{}, layer: layer}
}

// tree is a root file system put together from layers.
type tree struct {
	root *inode
}

func newTree() *tree {
	r := newDir(-1)
	return &tree{root: r}
}

const maxLinks = 40

// parent walks to the directory that holds p's last element and makes missing
// directories. Like containerd, which unpacks a layer into an empty directory
// for overlayfs, it follows symlinks of the same layer only: an entry below a
// symlink of a lower layer turns that into a directory.
func (t *tree) parent(p string, layer int, make bool, missing *[]string) (*inode, string, error) {
	dir, base := path.Split(strings.TrimPrefix(path.Clean("/"+p), "/"))
	d, err := t.walk(strings.Split(strings.Trim(dir, "/"), "/"), layer, make, missing)
	return d, base, err
}

func (t *tree) walk(elems []string, layer int, mk bool, missing *[]string) (*inode, error) {
	type step struct {
		n    *inode
		name string
	}
	stack := []step{{t.root, ""}}
	links := 0
	for len(elems) > 0 {
		e := elems[0]
		elems = elems[1:]
		switch e {
		case "", ".":
			continue
		case "..":
			if len(stack) > 1 {
				stack = stack[:len(stack)-1]
			}
			continue
		}
		cur := stack[len(stack)-1].n
		k, ok := cur.kids[e]
		if ok && k.typ == "symlink" && (k.layer == layer || !mk) {
			if links++; links > maxLinks {
				return nil, fmt.Errorf("too many symlinks at %s", e)
			}
			if strings.HasPrefix(k.target, "/") {
				stack = stack[:1]
			}
			elems = append(strings.Split(k.target, "/"), elems...)
			continue
		}
		if !ok || k.typ != "dir" {
			if !mk {
				return nil, nil
			}
			k = newDir(layer)
			cur.kids[e] = k
			var full []string
			for _, s := range stack[1:] {
				full = append(full, s.name)
			}
			*missing = append(*missing, "/"+path.Join(append(full, e)...))
		}
		stack = append(stack, step{k, e})
	}
	return stack[len(stack)-1].n, nil
}

// maxText is the size up to which a description holds the text of a file.
const maxText = 1000

// limited keeps the first n bytes of what is written to it.
type limited struct {
	w *bytes.Buffer
	n int
}

func (l *limited) Write(p []byte) (int, error) {
	l.w.Write(p[:min(len(p), max(0, l.n-l.w.Len()))])
	return len(p), nil
}

func isText(b []byte) bool {
	return utf8.Valid(b) && !bytes.ContainsFunc(b, func(r rune) bool {
		return r < ' ' && r != '\n' && r != '\t' || r == 0x7f
	})
}

func removeLower(d *inode, layer int) {
	for n, k := range d.kids {
		if k.layer < layer {
			delete(d.kids, n)
		} else if k.typ == "dir" {
			removeLower(k, layer)
		}
	}
}

// apply reads one uncompressed layer tar on top of the tree. It returns the
// names the layer holds and complaints about its form.
func (t *tree) apply(r io.Reader, layer int) (entries []string, problems []string, err error) {
	type rec struct {
		h    *tar.Header
		sum  string
		text string
	}
	var recs []rec
	seen := map[string]bool{}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		p := path.Clean("/" + h.Name)
		if seen[p] {
			problems = append(problems, fmt.Sprintf("entry %q appears twice", p))
		}
		seen[p] = true
		sum, text := "", ""
		if h.Typeflag == tar.TypeReg {
			d := sha256.New()
			var head bytes.Buffer
			n, err := io.Copy(io.MultiWriter(d, &limited{&head, maxText + 1}), tr)
			if err != nil {
				return nil, nil, err
			}
			if n != h.Size {
				problems = append(problems, fmt.Sprintf("entry %q: header says %d bytes, body has %d", p, h.Size, n))
			}
			sum = hex.EncodeToString(d.Sum(nil))
			if n <= maxText && isText(head.Bytes()) {
				text = head.String()
			}
		}
		recs = append(recs, rec{h, sum, text})
	}
	kinds := map[string]byte{}
	for _, rc := range recs {
		kinds[path.Clean("/"+rc.h.Name)] = rc.h.Typeflag
	}
	// Whiteouts speak of lower layers only, so they go first.
	for _, rc := range recs {
		p := path.Clean("/" + rc.h.Name)
		dir, base := path.Split(p)
		if !strings.HasPrefix(base, ".wh.") {
			continue
		}
		if at := t.notDir(path.Clean(dir), kinds); at != "" {
			problems = append(problems, fmt.Sprintf("whiteout %q is below %q, which is no directory", p, at))
		}
		var none []string
		d, err := t.walk(strings.Split(strings.Trim(dir, "/"), "/"), layer, false, &none)
		if err != nil {
			return nil, nil, err
		}
		if base == ".wh..wh..opq" {
			entries = append(entries, "-"+path.Clean(dir)+"/*")
			if d != nil {
				removeLower(d, layer)
			}
			continue
		}
		victim := strings.TrimPrefix(base, ".wh.")
		entries = append(entries, "-"+path.Join(dir, victim))
		if seen[path.Join(dir, victim)] {
			problems = append(problems, fmt.Sprintf("both an entry and a whiteout for %q", path.Join(dir, victim)))
		}
		if d == nil || d.kids[victim] == nil {
			continue // a needless whiteout does no harm
		}
		delete(d.kids, victim)
	}
	for _, rc := range recs {
		h := rc.h
		p := path.Clean("/" + h.Name)
		if strings.HasPrefix(path.Base(p), ".wh.") {
			continue
		}
		n := &inode{
			mode: h.Mode & 0o7777, uid: h.Uid, gid: h.Gid,
			mtime: h.ModTime.Unix(), hasTime: true, layer: layer,
		}
		for k, v := range h.PAXRecords {
			if x, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
				if n.xattrs == nil {
					n.xattrs = map[string]string{}
				}
				n.xattrs[x] = hex.EncodeToString([]byte(v))
			}
		}
		label := p
		switch h.Typeflag {
		case tar.TypeReg:
			n.typ, n.size, n.sum, n.text = "file", h.Size, rc.sum, rc.text
		case tar.TypeDir:
			n.typ, n.kids = "dir", map[string]*inode{}
			if p != "/" {
				label += "/"
			}
		case tar.TypeSymlink:
			n.typ, n.target, n.mode = "symlink", h.Linkname, 0o777
		case tar.TypeChar:
			n.typ, n.major, n.minor = "char", h.Devmajor, h.Devminor
		case tar.TypeBlock:
			n.typ, n.major, n.minor = "block", h.Devmajor, h.Devminor
		case tar.TypeFifo:
			n.typ = "fifo"
		case tar.TypeLink:
			var none []string
			d, base, err := t.parent(h.Linkname, layer, false, &none)
			if err != nil {
				return nil, nil, err
			}
			if d == nil || d.kids[base] == nil {
				problems = append(problems, fmt.Sprintf("hard link %q: target %q does not exist", p, h.Linkname))
				continue
			}
			n = d.kids[base]
			if n.layer != layer {
				problems = append(problems, fmt.Sprintf("hard link %q: target %q is in a lower layer, which containerd cannot unpack", p, h.Linkname))
			}
		default:
			problems = append(problems, fmt.Sprintf("entry %q has the unexpected tar type %q", p, h.Typeflag))
			continue
		}
		entries = append(entries, label)
		if p == "/" {
			n.kids = t.root.kids
			t.root = n
			continue
		}
		var missing []string
		d, base, err := t.parent(p, layer, true, &missing)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", p, err)
		}
		for _, m := range missing {
			problems = append(problems, fmt.Sprintf("entry %q comes before or without its parent directory %q", p, m))
		}
		if old := d.kids[base]; old != nil && old.typ == "dir" && n.typ == "dir" {
			n.kids = old.kids
		}
		d.kids[base] = n
	}
	sort.Strings(entries)
	return entries, problems, nil
}

// notDir returns the first part of dir that is something else than a directory
// in the layer whose entries are kinds or, if it has none there, in the tree
// below it; "" if there is none. What exists in neither does no harm.
func (t *tree) notDir(dir string, kinds map[string]byte) string {
	n, at := t.root, ""
	for _, e := range strings.Split(strings.Trim(dir, "/"), "/") {
		if e == "" {
			break
		}
		at += "/" + e
		if n != nil {
			n = n.kids[e]
		}
		kind, ok := kinds[at]
		if ok && kind != tar.TypeDir || !ok && n != nil && n.typ != "dir" {
			return at
		}
	}
	return ""
}

// decompress recognises the compression by its first bytes.
func decompress(r io.Reader) (io.Reader, func(), error) {
	br := bufio.NewReader(r)
	head, _ := br.Peek(4)
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(br)
		return z, func() {}, err
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}
	return br, func() {}, nil
}

type layerInfo struct {
	diffID   string
	media    string
	entries  []string
	problems []string
}

// readLayer applies layer l to t and returns what it holds.
func readLayer(t *tree, l v1.Layer, n int) (li layerInfo, err error) {
	mt, err := l.MediaType()
	if err != nil {
		return li, err
	}
	li.media = string(mt)
	rc, err := l.Compressed()
	if err != nil {
		return li, err
	}
	defer rc.Close()
	plain, done, err := decompress(rc)
	if err != nil {
		return li, err
	}
	defer done()
	sum := sha256.New()
	tee := io.TeeReader(plain, sum)
	li.entries, li.problems, err = t.apply(tee, n)
	if err != nil {
		return li, err
	}
	if _, err := io.Copy(io.Discard, tee); err != nil {
		return li, err
	}
	li.diffID = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	return li, nil
}
