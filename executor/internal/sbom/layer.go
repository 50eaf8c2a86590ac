package sbom

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha1" //nolint:gosec // SPDX asks for it
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// Scheme changes when the same layer would give other findings.
const Scheme = "1"

// Layer is what one layer says of packages.
type Layer struct {
	Files  []File   // sorted by path
	Gone   []string // whiteouts: names of layers below, sorted
	Opaque []string // directories that hide what is below them, sorted
	Names  []uint64 // hashes of all names, sorted: see hashName
	Notes  []string // what was left out, and why
}

// File is evidence, or os-release.
type File struct {
	Path     string    `json:"path"` // without a leading slash
	SHA1     string    `json:"sha1"`
	Packages []Package `json:"packages,omitempty"` // sorted
	Release  *Release  `json:"release,omitempty"`
}

// The limits of a layer. They bound its memory to some 100 MB, whatever it says.
const (
	maxNames    = 4_000_000
	maxHidden   = 32 << 20 // bytes of whiteouts and links
	maxFindings = 16 << 20 // bytes of packages, and of what goes with them
	maxNotes    = 100
	maxPath     = 4096 // bytes
)

// ErrTooLarge is a layer beyond the limits.
var ErrTooLarge = errors.New("layer has too many names for a list of its packages: leave sbom out for this image")

const (
	whiteout = ".wh."
	aufs     = ".wh..wh." // begins names of things that aufs keeps for itself
	opaque   = ".wh..wh..opq"
	maxLinks = 255 // in one name
)

// Scan finds what the uncompressed tar of a layer says of packages. It reads to the
// end; an error is one of the archive, of r or of ctx.
func Scan(ctx context.Context, r io.Reader) (Layer, error) {
	s := &scan{files: map[string]File{}, links: map[string]string{}}
	r = ctxReader{ctx, r}
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Layer{}, fmt.Errorf("scan layer: %w", err)
		}
		if err := s.entry(ctx, h, t); err != nil {
			return Layer{}, fmt.Errorf("scan layer: %.200q: %w", h.Name, err)
		}
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return Layer{}, fmt.Errorf("scan layer: %w", err)
	}
	return s.layer(), nil
}

// ctxReader ends with its context: an entry may be of any size.
type ctxReader struct {
	ctx context.Context // of one scan
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

type scan struct {
	files  map[string]File
	links  map[string]string // symbolic links of the layer
	out    Layer
	hidden int // bytes of whiteouts and links
	found  int // bytes of packages
	left   int // files that there was no room for
	first  string

	in    *bufio.Reader // of each file that may be a program
	block []byte        // of a program
}

func (s *scan) layer() Layer {
	if s.left > 0 {
		s.note("%q and %d files more are left out: the layer tells of more packages than layers do", s.first, s.left-1)
	}
	for _, f := range s.files {
		s.out.Files = append(s.out.Files, f)
	}
	slices.SortFunc(s.out.Files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	slices.Sort(s.out.Gone)
	slices.Sort(s.out.Opaque)
	slices.Sort(s.out.Names)
	s.out.Gone, s.out.Opaque, s.out.Names = slices.Compact(s.out.Gone), slices.Compact(s.out.Opaque), slices.Compact(s.out.Names)
	return s.out
}

// Size is about the memory that the layer takes, in bytes.
func (l Layer) Size() int {
	n := 8 * len(l.Names)
	for _, list := range [][]string{l.Gone, l.Opaque, l.Notes} {
		for _, s := range list {
			n += len(s) + 16
		}
	}
	for _, f := range l.Files {
		n += f.size()
	}
	return n
}

// size is about the memory that a file takes, in bytes.
func (f File) size() int {
	n := len(f.Path) + 200
	for _, p := range f.Packages {
		n += len(p.Name) + len(p.Version) + len(p.Arch) + len(p.Source) + len(p.License) + 150
	}
	return n
}

func (s *scan) note(format string, args ...any) {
	if len(s.out.Notes) < maxNotes {
		s.out.Notes = append(s.out.Notes, fmt.Sprintf(format, args...))
	}
}

func (s *scan) entry(ctx context.Context, h *tar.Header, r io.Reader) error {
	name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
	if name == "" || h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if len(name) > maxPath {
		return fmt.Errorf("its name has %d bytes", len(name))
	}
	if len(s.out.Names) >= maxNames || s.hidden > maxHidden {
		return ErrTooLarge
	}
	name, err := s.follow(name)
	if err != nil {
		return err
	}
	if dir, base := path.Split(name); strings.HasPrefix(base, whiteout) {
		dir = strings.TrimSuffix(dir, "/")
		s.hidden += len(name) + 50
		switch hidden := strings.TrimPrefix(base, whiteout); {
		case base == opaque:
			s.out.Opaque = append(s.out.Opaque, dir)
		case strings.HasPrefix(base, aufs):
		case hidden == "" || hidden == "." || hidden == "..":
			return errors.New("whiteout of no name")
		default:
			s.out.Gone = append(s.out.Gone, path.Join(dir, hidden))
		}
		return nil
	}
	s.out.Names = append(s.out.Names, hashName(name, h.Typeflag == tar.TypeDir))
	delete(s.files, name) // a later entry is what counts
	delete(s.links, name)
	switch h.Typeflag {
	case tar.TypeSymlink:
		s.hidden += len(name) + len(h.Linkname) + 50
		s.links[name] = h.Linkname
	case tar.TypeLink: // another name of a program
		target, err := s.follow(strings.TrimPrefix(path.Clean("/"+h.Linkname), "/"))
		if err != nil {
			return err
		}
		if find, _ := finder(name); find == nil && s.files[target].Path != "" {
			f := s.files[target]
			s.keep(name, f.SHA1, f)
		}
	}
	if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeRegA { //nolint:staticcheck // TypeRegA is in old archives
		return nil
	}
	if sparse(h) { // of any size at no cost
		return nil
	}
	find, limit := finder(name)
	if find == nil {
		if s.in == nil {
			s.in = bufio.NewReaderSize(nil, 64<<10)
		}
		s.in.Reset(r)
		if magic, _ := s.in.Peek(4); string(magic) != "\x7fELF" {
			return nil
		}
		return s.program(ctx, name)
	}
	if h.Size > limit {
		s.note("%q is not read: it has %d bytes, and up to %d are usual", name, h.Size, limit)
		return nil
	}
	b := bytes.NewBuffer(make([]byte, 0, h.Size+bytes.MinRead))
	if _, err := b.ReadFrom(io.LimitReader(r, limit)); err != nil {
		return err
	}
	f := File{}
	s.guard(name, func() error { return find(b.Bytes(), &f) })
	sum := sha1.Sum(b.Bytes()) //nolint:gosec // SPDX asks for it
	s.keep(name, hex.EncodeToString(sum[:]), f)
	return nil
}

// follow is a name without links of the layer in the middle of it, as unpacking
// follows them.
func (s *scan) follow(name string) (string, error) {
	if len(s.links) == 0 {
		return name, nil
	}
	for links, at := 0, 0; ; {
		i := strings.IndexByte(name[at:], '/')
		if i < 0 {
			return name, nil
		}
		at += i
		to, ok := s.links[name[:at]]
		if !ok {
			at++
			continue
		}
		if links++; links > maxLinks || len(to)+len(name) > 2*maxPath {
			return "", errors.New("too many symbolic links")
		}
		if !strings.HasPrefix(to, "/") {
			to = path.Join("/", path.Dir(name[:at]), to)
		}
		name, at = strings.TrimPrefix(path.Clean("/"+to+name[at:]), "/"), 0
	}
}

// sparse tells whether a file says that it has holes.
func sparse(h *tar.Header) bool {
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// guard calls a parser of what somebody else wrote. Whatever becomes of it is a note.
func (s *scan) guard(name string, f func() error) {
	defer func() {
		if r := recover(); r != nil {
			s.note("%q is not read: internal error: %v", name, r)
		}
	}()
	if err := f(); err != nil {
		s.note("%q is not read whole: %v", name, err)
	}
}

// keep keeps what was found in a file, if it was something.
func (s *scan) keep(name, sum string, f File) {
	ok := f.Packages[:0:0]
	for _, p := range f.Packages {
		if err := p.check(); err != nil {
			s.note("%q: %v", name, err)
			continue
		}
		if (Package{Name: "x", Version: p.License}).check() != nil {
			p.License = ""
		}
		ok = append(ok, p)
	}
	slices.SortFunc(ok, compare)
	f.Packages = slices.Compact(ok)
	if len(f.Packages) == 0 && f.Release == nil {
		return
	}
	f.Path, f.SHA1 = name, sum
	if s.found += f.size(); s.found > maxFindings {
		if s.left == 0 {
			s.first = name
		}
		s.left++
		s.found -= f.size()
		return
	}
	s.files[name] = f
}

// program looks for the build information in a program.
func (s *scan) program(ctx context.Context, name string) error {
	if s.block == nil {
		s.block = make([]byte, 0, infoBlock+maxInfo)
	}
	sum := sha1.New() //nolint:gosec // SPDX asks for it
	info, err := findBuildInfo(ctx, io.TeeReader(s.in, sum), s.block)
	if err != nil || info == nil {
		return err
	}
	f := File{}
	s.guard(name, func() error { return goPackages(info, &f) })
	s.keep(name, hex.EncodeToString(sum.Sum(nil)), f)
	return nil
}

// finder is what reads a file of that name, and how large such a file may be.
func finder(name string) (find func([]byte, *File) error, limit int64) {
	dir, base := path.Split(name)
	dir = strings.TrimSuffix(dir, "/")
	const text, database = 32 << 20, 128 << 20 // bytes; the largest that were seen have a tenth
	switch {
	case name == "etc/os-release" || name == "usr/lib/os-release":
		return readRelease, 64 << 10
	case name == "var/lib/dpkg/status":
		return readDpkg, text
	case dir == "var/lib/dpkg/status.d" && !strings.HasSuffix(base, ".md5sums"):
		return readDpkg, 1 << 20
	case name == "lib/apk/db/installed" || name == "usr/lib/apk/db/installed":
		return readApk, text
	case slices.Contains(rpmDirs, dir) && slices.Contains(rpmFiles, base):
		return readRpm, database
	case base == "METADATA" && strings.HasSuffix(dir, ".dist-info"),
		base == "PKG-INFO" && strings.HasSuffix(dir, ".egg-info"), strings.HasSuffix(base, ".egg-info"):
		return readPython, 4 << 20
	case base == "package.json" && inNodeModules(dir):
		return readNpm, 4 << 20
	case base == "package-lock.json" && !strings.Contains("/"+dir+"/", "/node_modules/"), base == ".package-lock.json" && path.Base(dir) == "node_modules":
		return readNpmLock, 16 << 20
	}
	return nil, 0
}

// hashName tells names apart: that of a file, or of whatever is no directory, from
// that of a directory.
func hashName(name string, dir bool) uint64 {
	if dir {
		name += "/"
	}
	sum := sha256.Sum256([]byte(name))
	return binary.BigEndian.Uint64(sum[:])
}

// eachLine calls f for lines without their end. A line beyond the limit is an error.
func eachLine(b []byte, f func(line string) error) error {
	const limit = 1 << 20
	for len(b) > 0 {
		line, rest, _ := bytes.Cut(b, []byte("\n"))
		if b = rest; len(line) > limit {
			return fmt.Errorf("a line has %d bytes", len(line))
		}
		if err := f(strings.TrimSuffix(string(line), "\r")); err != nil {
			return err
		}
	}
	return nil
}
