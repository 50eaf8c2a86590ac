package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// Kind is a kind of thing that a store holds.
type Kind string

// The kinds, those that refer to others before those.
const (
	KindImage   Kind = "images"   // a name for an image
	KindBase    Kind = "bases"    // what a registry said a name is
	KindKey     Kind = "keys"     // what a step made
	KindVariant Kind = "variants" // which blob encodes a layer
	KindBlob    Kind = "blobs"    // a compressed layer, config or manifest
	KindLayer   Kind = "layers"   // an unpacked layer
	KindIndex   Kind = "indexes"  // the names in a layer
	KindCache   Kind = "caches"   // the folder of a cache mount
	KindFiles   Kind = "files"    // hashes of the files of a context
	KindFetched Kind = "fetched"  // what ADD got from elsewhere
	KindPast    Kind = "past"     // what was built last, for explanations
	KindRelease Kind = "releases" // which tags a release that did not end moves
	KindTemp    Kind = "temp"     // of processes that run, or were killed
)

// Kinds are all of them, in the order in which they may go: what refers to
// something goes before it.
var Kinds = []Kind{KindImage, KindBase, KindKey, KindVariant, KindBlob, KindLayer, KindIndex, KindCache, KindFiles, KindFetched, KindPast, KindRelease, KindTemp}

// Thing is one thing in a store, whole.
type Thing struct {
	Kind  Kind
	Name  string // for people: a digest, a key, the name of an image
	Path  string // below the store
	Mark  string // the file whose time is the last use, if not that at Path
	Bytes int64  // that it takes on disk; -1 when a part of it cannot be read here
	Used  time.Time
	Refs  []string // paths of things that it is worth nothing without
}

// Removal is the removal of a thing as it was seen.
func (t Thing) Removal() Removal { return Removal{Path: t.Path, Mark: t.Mark, Used: t.Used} }

// Things lists what is in the store but for this session's own files, in no
// order, without marking any of it as used. What comes and goes meanwhile may be missing. sizes may hold sizes of
// layers that a call before has learnt (by path); they are believed, as a layer
// never changes, and completed.
func (s *Store) Things(ctx context.Context, sizes map[string]int64) ([]Thing, error) {
	l := &lister{s: s, ctx: ctx, sizes: sizes, seen: map[[2]uint64]bool{}, variants: map[string][]string{}, blobs: map[string]bool{}, layers: map[string][]string{}}
	for _, step := range []func() error{l.listBlobs, l.listVariants, l.listLayers, l.listKeys, l.listImages, l.listBases, l.listIndexes, l.listCaches, l.listFiles, l.listPast, l.listReleases, l.listTemp} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("list the store: %w", err)
		}
	}
	return l.out, nil
}

// Sizes are what earlier listings have learnt, for Things. They only save time.
func (s *Store) Sizes() map[string]int64 {
	l := &lister{s: s}
	sizes := map[string]int64{}
	l.record(fileSizes, &sizes)
	if sizes == nil { // "null"
		sizes = map[string]int64{}
	}
	return sizes
}

// PutSizes keeps the sizes of layers that are among things.
func (s *Store) PutSizes(sizes map[string]int64, things []Thing) error {
	keep := map[string]int64{}
	for _, t := range things {
		if n, ok := sizes[t.Path]; ok {
			keep[t.Path] = n
		}
	}
	return s.putJSON(fileSizes, keep)
}

// Measure is the bytes that the directory or file at path takes on disk, hard
// links once.
func (s *Store) Measure(ctx context.Context, path string) (int64, error) {
	l := &lister{s: s, ctx: ctx, seen: map[[2]uint64]bool{}}
	return l.measure(path)
}

type lister struct {
	s        *Store
	ctx      context.Context // of the whole listing
	sizes    map[string]int64
	seen     map[[2]uint64]bool  // inodes with several names
	variants map[string][]string // paths of the usable ones, by diffID in hex
	blobs    map[string]bool     // paths
	layers   map[string][]string // paths, by name
	out      []Thing
}

// each calls f for what is in a directory; an absent one is empty.
func (l *lister) each(dir string, f func(name string, st fs.FileInfo) error) error {
	if err := context.Cause(l.ctx); err != nil {
		return err
	}
	list, err := fs.ReadDir(l.s.root.FS(), dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range list {
		st, err := l.s.root.Lstat(path.Join(dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := f(e.Name(), st); err != nil {
			return err
		}
	}
	return nil
}

func (l *lister) add(k Kind, name, at string, st fs.FileInfo, refs ...string) {
	l.out = append(l.out, Thing{Kind: k, Name: name, Path: at, Bytes: allocated(st), Used: st.ModTime(), Refs: refs})
}

func allocated(st fs.FileInfo) int64 {
	if sys, ok := st.Sys().(*unixStat); ok {
		return sys.Blocks * 512
	}
	return st.Size()
}

// record reads a record without marking it; what is damaged stays zero.
func (l *lister) record(name string, v any) {
	f, err := l.s.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() > maxRecord {
		return
	}
	_ = json.NewDecoder(f).Decode(v) // a record that is worth nothing refers to nothing
}

func (l *lister) listBlobs() error {
	return l.each(dirBlobs, func(name string, st fs.FileInfo) error {
		at := dirBlobs + "/" + name
		l.blobs[at] = true
		l.add(KindBlob, "sha256:"+name, at, st)
		return nil
	})
}

func (l *lister) listVariants() error {
	return l.each(dirVariants, func(diffID string, _ fs.FileInfo) error {
		dir := dirVariants + "/" + diffID
		return l.each(dir, func(name string, st fs.FileInfo) error {
			at := dir + "/" + name
			var v Variant
			l.record(at, &v)
			blob, err := blobPath(v.Descriptor.Digest)
			if err != nil {
				blob = dirBlobs + "/none"
			}
			if l.blobs[blob] {
				l.variants[diffID] = append(l.variants[diffID], at)
			}
			about := fmt.Sprintf("sha256:%.12s %s", diffID, v.Params.Compression)
			if v.Params.Level != 0 {
				about += fmt.Sprintf(" level %d", v.Params.Level)
			}
			l.add(KindVariant, about, at, st, blob)
			return nil
		})
	})
}

func (l *lister) listLayers() error {
	return l.each(dirLayers, func(idmap string, _ fs.FileInfo) error {
		dir := dirLayers + "/" + idmap
		return l.each(dir, func(name string, st fs.FileInfo) error {
			if strings.HasPrefix(name, ".") {
				return nil // locks and layers in the making: rootfs sweeps them
			}
			at := dir + "/" + name
			n := allocated(st)
			if st.IsDir() {
				l.layers[name] = append(l.layers[name], at)
				var err error
				if n, err = l.layer(at); err != nil {
					return err
				}
			}
			l.add(KindLayer, name, at, st)
			l.out[len(l.out)-1].Bytes = n
			return nil
		})
	})
}

func (l *lister) layer(at string) (int64, error) {
	if n, ok := l.sizes[at]; ok {
		return n, nil
	}
	n, err := l.measure(at)
	if err == nil && n >= 0 && l.sizes != nil {
		l.sizes[at] = n
	}
	return n, err
}

// listKeys: a key is worth nothing without its layer. Where a blob has the layer
// too, the unpacked one is a matter of time only.
func (l *lister) listKeys() error {
	return l.each(dirKeys, func(two string, _ fs.FileInfo) error {
		dir := dirKeys + "/" + two
		return l.each(dir, func(name string, st fs.FileInfo) error {
			var r record
			l.record(dir+"/"+name, &r)
			var refs []string
			if id := r.DiffID; id.Validate() == nil {
				refs = slices.Clone(l.variants[id.Encoded()])
				if len(refs) == 0 {
					refs = append(slices.Clone(l.layers[r.Layer]), l.layers[id.Encoded()]...)
				}
				if len(refs) == 0 {
					refs = []string{dirLayers + "/none"}
				}
			}
			l.add(KindKey, strings.TrimSpace(name+" "+about(r.Lines)), dir+"/"+name, st, refs...)
			return nil
		})
	})
}

// about is what a step does, for people: what of its lines names it, on one line.
func about(lines []string) string {
	var words []string
	for _, line := range lines {
		for _, p := range []string{"argv ", "dest ", "workdir "} {
			if rest, ok := strings.CutPrefix(line, p); ok {
				words = append(words, strings.TrimSpace(strings.TrimPrefix(p, "argv ")+strings.Join(strings.Fields(rest), " ")))
			}
		}
	}
	text := strings.Join(words, " ")
	if r := []rune(text); len(r) > 60 {
		text = string(r[:60]) + "…"
	}
	return text
}

func (l *lister) listImages() error {
	return l.each(dirImages, func(name string, st fs.FileInfo) error {
		var img Image
		at := dirImages + "/" + name
		l.record(at, &img)
		l.add(KindImage, img.Name, at, st, l.manifest(img.Descriptor)...)
		return nil
	})
}

func (l *lister) listBases() error {
	return l.each(dirBases, func(name string, st fs.FileInfo) error {
		var b Base
		at := dirBases + "/" + name
		l.record(at, &b)
		l.add(KindBase, b.Name, at, st, l.manifest(b.Descriptor)...)
		return nil
	})
}

// manifest is the blobs of a manifest or an index, as far as they are here: a
// base's layers need not be. The manifest itself is always among them.
func (l *lister) manifest(d ocispec.Descriptor) []string {
	out := []string{}
	var walk func(d ocispec.Descriptor, depth int)
	walk = func(d ocispec.Descriptor, depth int) {
		at, err := blobPath(d.Digest)
		if err != nil || depth > 3 {
			return
		}
		if !l.blobs[at] && depth > 0 {
			return
		}
		out = append(out, at)
		var m struct { // of an index or a manifest
			Manifests []ocispec.Descriptor `json:"manifests"`
			Config    ocispec.Descriptor   `json:"config"`
			Layers    []ocispec.Descriptor `json:"layers"`
		}
		if depth > 0 && !strings.Contains(d.MediaType, "manifest") && !strings.Contains(d.MediaType, "index") {
			return
		}
		l.record(at, &m)
		for _, child := range slices.Concat(m.Manifests, []ocispec.Descriptor{m.Config}, m.Layers) {
			walk(child, depth+1)
		}
	}
	walk(d, 0)
	if len(out) == 0 {
		return []string{dirBlobs + "/none"}
	}
	return out
}

func (l *lister) listCaches() error {
	return l.each(dirCaches, func(idmap string, _ fs.FileInfo) error {
		dir := dirCaches + "/" + idmap
		return l.each(dir, func(name string, st fs.FileInfo) error {
			at := dir + "/" + name
			if folder, ok := strings.CutSuffix(at, CacheMark); ok {
				if _, err := l.s.root.Lstat(folder); errors.Is(err, fs.ErrNotExist) {
					l.add(KindCache, name, at, st) // its folder went
				}
				return nil
			}
			n, err := l.measure(at)
			if err != nil {
				return err
			}
			t := Thing{Kind: KindCache, Name: name, Path: at, Bytes: n, Used: st.ModTime()}
			if mark, err := l.s.root.Lstat(at + CacheMark); err == nil {
				var about string
				l.record(at+CacheMark, &about)
				t.Name, t.Mark, t.Used = strings.TrimSpace(about+" "+name), at+CacheMark, mark.ModTime()
			}
			l.out = append(l.out, t)
			return nil
		})
	})
}

// The folder in files for what was fetched, and those in it.
const fetchedDir = "fetched"

func (l *lister) listFiles() error {
	return l.each(dirFiles, func(name string, st fs.FileInfo) error {
		at := dirFiles + "/" + name
		if name != fetchedDir {
			n, err := l.measure(at)
			l.add(KindFiles, name, at, st)
			l.out[len(l.out)-1].Bytes = n
			return err
		}
		return l.each(at, func(kind string, _ fs.FileInfo) error {
			dir := at + "/" + kind
			return l.each(dir, func(name string, st fs.FileInfo) error {
				n, err := l.measure(dir + "/" + name)
				var about struct {
					URL    string `json:"url"`
					Digest string `json:"digest"`
				}
				k, refs := KindFetched, []string(nil)
				switch {
				case strings.HasPrefix(name, "."):
					k = KindTemp
				case strings.HasSuffix(name, ".json"):
					l.record(dir+"/"+name, &about)
					refs = []string{dir + "/" + strings.ReplaceAll(about.Digest, ":", "-")}
				}
				l.add(k, strings.TrimSpace(kind+" "+name), dir+"/"+name, st, refs...)
				l.out[len(l.out)-1].Bytes = n
				return err
			})
		})
	})
}

func (l *lister) listIndexes() error {
	return l.each(dirIndexes, func(name string, st fs.FileInfo) error {
		l.add(KindIndex, "sha256:"+name, dirIndexes+"/"+name, st)
		return nil
	})
}

func (l *lister) listReleases() error {
	return l.each(dirReleases, func(name string, st fs.FileInfo) error {
		l.add(KindRelease, name, dirReleases+"/"+name, st)
		return nil
	})
}

func (l *lister) listPast() error {
	for _, dir := range []string{dirPastNodes, dirPastFiles} {
		err := l.each(dir, func(name string, st fs.FileInfo) error {
			l.add(KindPast, strings.TrimPrefix(dir, dirPast+"/")+" "+name, dir+"/"+name, st)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// listTemp lists sessions; what dead ones left is for Sweep.
func (l *lister) listTemp() error {
	own := l.s.Session()
	return l.each(dirTemp, func(name string, st fs.FileInfo) error {
		at := dirTemp + "/" + name
		if own != "" && strings.TrimSuffix(at, Guard) == own {
			return nil
		}
		n, err := l.measure(at)
		l.add(KindTemp, name, at, st)
		l.out[len(l.out)-1].Bytes = n
		return err
	})
}

// measure is -1 when something below at cannot be read.
func (l *lister) measure(at string) (int64, error) {
	var sum int64
	st, err := l.s.root.Lstat(at)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	sys, ok := st.Sys().(*unixStat)
	if ok && !st.IsDir() && sys.Nlink > 1 {
		id := [2]uint64{uint64(sys.Dev), sys.Ino}
		if l.seen[id] {
			return 0, nil
		}
		l.seen[id] = true
	}
	sum = allocated(st)
	if !st.IsDir() {
		return sum, nil
	}
	if err := context.Cause(l.ctx); err != nil {
		return 0, err
	}
	d, err := l.s.root.OpenFile(at, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, nil
	case errors.Is(err, fs.ErrPermission):
		return -1, nil
	case err != nil:
		return 0, err
	}
	defer d.Close()
	return l.below(d, sum)
}

// below adds what lies in an open directory: from descriptor to descriptor, as a
// path below a root costs an open for each of its elements.
func (l *lister) below(d *os.File, sum int64) (int64, error) {
	for {
		names, err := d.Readdirnames(1024)
		for _, name := range names {
			var st unix.Stat_t
			if unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
				continue // it went
			}
			dir := st.Mode&unix.S_IFMT == unix.S_IFDIR
			if !dir && st.Nlink > 1 {
				id := [2]uint64{st.Dev, st.Ino}
				if l.seen[id] {
					continue
				}
				l.seen[id] = true
			}
			sum += st.Blocks * 512
			if !dir {
				continue
			}
			if err := context.Cause(l.ctx); err != nil {
				return 0, err
			}
			fd, err := unix.Openat(int(d.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
			if errors.Is(err, unix.EACCES) {
				return -1, nil
			}
			if err != nil {
				continue
			}
			child := os.NewFile(uintptr(fd), name)
			sum, err = l.below(child, sum)
			child.Close()
			if err != nil || sum < 0 {
				return sum, err
			}
		}
		if len(names) == 0 || err != nil {
			return sum, nil // the end, or a directory that went
		}
	}
}
