package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"kaniko-build/schema/diag"
)

// beside makes a temporary directory next to dest, on the same file system.
func beside(dest string) (string, error) {
	if err := os.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
		return "", err
	}
	return os.MkdirTemp(filepath.Dir(dest), "."+filepath.Base(dest)+".kaniko-build-")
}

// vacant tells whether dest can be taken over as a whole: it is absent or an
// empty directory.
func vacant(dest string) (bool, error) {
	list, err := os.ReadDir(dest)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return len(list) == 0, err
}

// WriteOCIDir writes an OCI image layout as the directory dest. An existing
// layout keeps its images; names that are given again move.
func WriteOCIDir(ctx context.Context, dest string, src Source, exports ...Export) (err error) {
	dest, err = filepath.Abs(dest)
	if err != nil {
		return fmt.Errorf("write oci layout: %w", err)
	}
	blobs, err := closure(ctx, src, exports)
	if err != nil {
		return fmt.Errorf("write oci layout: %w", err)
	}
	list := entries(exports)
	empty, err := vacant(dest)
	if err != nil {
		return fmt.Errorf("write oci layout: %w", err)
	}
	dir := dest
	if empty {
		if dir, err = beside(dest); err != nil {
			return fmt.Errorf("write oci layout: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		if err := os.Chmod(dir, 0o755); err != nil {
			return fmt.Errorf("write oci layout: %w", err)
		}
	} else {
		l, err := OpenLayout(dest)
		if err != nil {
			return &diag.Problem{
				What: fmt.Sprintf("cannot write an OCI layout into %s: it holds something else", dest),
				Hint: "give a directory that is empty or does not exist yet",
			}
		}
		old := slices.DeleteFunc(l.index.Manifests, func(d ocispec.Descriptor) bool { return replaced(d, list) })
		list = append(old, list...)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("write oci layout: %w", err)
	}
	defer root.Close()
	if err := root.MkdirAll("blobs/sha256", 0o755); err != nil {
		return fmt.Errorf("write oci layout: %w", err)
	}
	for _, d := range blobs {
		if st, err := root.Lstat(blobName(d.Digest)); err == nil && st.Size() == d.Size {
			continue
		}
		if err := copyBlob(ctx, root, src, d); err != nil {
			return fmt.Errorf("write oci layout: blob %s: %w", d.Digest, err)
		}
	}
	if err := writeIndex(root, list); err != nil {
		return fmt.Errorf("write oci layout: %w", err)
	}
	if !empty {
		return nil
	}
	return takePlace(dir, dest)
}

// KeepOnly takes every entry but those of exports out of the index of the
// layout dest. The blobs stay.
func KeepOnly(dest string, exports ...Export) error {
	root, err := os.OpenRoot(dest)
	if err != nil {
		return fmt.Errorf("write oci layout: %w", err)
	}
	defer root.Close()
	if err := writeIndex(root, entries(exports)); err != nil {
		return fmt.Errorf("write oci layout: %w", err)
	}
	return nil
}

func writeIndex(root *os.Root, list []ocispec.Descriptor) error {
	index, err := layoutIndex(list)
	if err != nil {
		return err
	}
	for name, b := range map[string][]byte{ocispec.ImageLayoutFile: []byte(layoutVersion), ocispec.ImageIndexFile: index} {
		if err := root.WriteFile(name+".new", b, 0o644); err != nil {
			return err
		}
		if err := root.Rename(name+".new", name); err != nil {
			return err
		}
	}
	return nil
}

func takePlace(dir, dest string) error {
	if err := os.Remove(dest); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // it has been filled since
	}
	return os.Rename(dir, dest)
}

// replaced tells whether an entry of an index is superseded by one of list.
func replaced(old ocispec.Descriptor, list []ocispec.Descriptor) bool {
	return slices.ContainsFunc(list, func(d ocispec.Descriptor) bool {
		if d.Annotations[annotationName] == "" && old.Annotations[annotationName] == "" {
			return d.Digest == old.Digest
		}
		return d.Annotations[annotationName] == old.Annotations[annotationName] && d.Annotations[annotationRef] == old.Annotations[annotationRef]
	})
}

func copyBlob(ctx context.Context, root *os.Root, src Source, d ocispec.Descriptor) (err error) {
	r, err := src.Open(ctx, d)
	if err != nil {
		return err
	}
	defer r.Close()
	name := blobName(d.Digest)
	f, err := root.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	if err := errors.Join(copyAll(ctx, f, r, make([]byte, copySize)), f.Close()); err != nil {
		return errors.Join(err, root.Remove(name+".new"))
	}
	return root.Rename(name+".new", name)
}

// WriteLocal writes the files of an image into the directory dest. One that
// exists keeps its other files, as with `docker build -o`; nothing of it changes
// before all files are there. Who is not root gets files that are their own, and
// no devices: notes says what was left out.
func WriteLocal(ctx context.Context, dest string, src Source, layers []Layer, epoch *time.Time) (notes []string, err error) {
	dest, err = filepath.Abs(dest)
	if err != nil {
		return nil, fmt.Errorf("write files: %w", err)
	}
	empty, err := vacant(dest)
	if err != nil {
		return nil, fmt.Errorf("write files: %w", err)
	}
	dir, err := beside(dest)
	if err != nil {
		return nil, fmt.Errorf("write files: %w", err)
	}
	defer func() {
		if rerr := removeAll(dir); rerr != nil {
			err = errors.Join(err, rerr)
		}
	}()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("write files: %w", err)
	}
	defer root.Close()
	s := &dirSink{ctx: ctx, buf: make([]byte, copySize), root: root, owners: os.Geteuid() == 0}
	if err := flatten(ctx, src, layers, epoch, s); err != nil {
		return nil, fmt.Errorf("write files: %w", err)
	}
	if !empty {
		to, err := os.OpenRoot(dest)
		if err != nil {
			return nil, fmt.Errorf("write files: %w", err)
		}
		defer to.Close()
		if err := s.merge(to); err != nil {
			return nil, fmt.Errorf("write files: %w", err)
		}
		return s.notes(), nil
	}
	if err := s.finish(root); err != nil {
		return nil, fmt.Errorf("write files: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, fmt.Errorf("write files: %w", err)
	}
	if err := takePlace(dir, dest); err != nil {
		return nil, fmt.Errorf("write files: %w", err)
	}
	return s.notes(), nil
}

// removeAll removes a tree whose directories may not be writable.
func removeAll(dir string) error {
	if err := os.RemoveAll(dir); err == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	_ = filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			_ = os.Chmod(p, 0o700) // as far as it goes; RemoveAll reports
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// dirSink makes a tree below root. Directories get their modes and times last.
type dirSink struct {
	ctx     context.Context // of the whole writing
	buf     []byte
	root    *os.Root
	owners  bool
	dirs    []made
	foreign int // files that belong to somebody else
	devices int
}

type made struct {
	name string
	meta meta
}

func (s *dirSink) mkdir(name string, m meta) error {
	if err := s.root.Mkdir(name, 0o700); err != nil {
		return err
	}
	s.dirs = append(s.dirs, made{name, m})
	return nil
}

func (s *dirSink) file(name string, m meta, _ int64, r io.Reader) (err error) {
	f, err := s.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := copyAll(s.ctx, f, r, s.buf); err != nil {
		return err
	}
	if err := s.own(s.root, name, m); err != nil {
		return err
	}
	if err := f.Chmod(fileMode(m.mode)); err != nil {
		return err
	}
	if v, ok := m.xattrs["security.capability"]; ok && s.owners {
		if err := unix.Fsetxattr(int(f.Fd()), "security.capability", []byte(v), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("set capabilities: %w", err)
		}
	}
	return s.root.Chtimes(name, m.mtime, m.mtime)
}

func (s *dirSink) link(name, target string, _ meta) error {
	if _, err := s.root.Lstat(target); errors.Is(err, fs.ErrNotExist) {
		return nil // a device that was left out
	}
	return s.root.Link(target, name)
}

func (s *dirSink) special(name string, m meta) error {
	if m.typeflag == tar.TypeSymlink {
		if err := s.root.Symlink(m.link, name); err != nil {
			return err
		}
		if err := s.own(s.root, name, m); err != nil {
			return err
		}
		return s.parent(name, func(dir int, base string) error {
			t := unix.NsecToTimespec(m.mtime.UnixNano())
			return unix.UtimesNanoAt(dir, base, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
		})
	}
	mode := map[byte]uint32{tar.TypeFifo: unix.S_IFIFO, tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK}[m.typeflag]
	if mode != unix.S_IFIFO && !s.owners {
		s.devices++
		return nil
	}
	err := s.parent(name, func(dir int, base string) error {
		return unix.Mknodat(dir, base, mode|uint32(m.mode&0o777), int(unix.Mkdev(uint32(m.major), uint32(m.minor))))
	})
	if errors.Is(err, unix.EPERM) {
		s.devices++
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.own(s.root, name, m); err != nil {
		return err
	}
	if err := s.root.Chmod(name, fileMode(m.mode)); err != nil {
		return err
	}
	return s.root.Chtimes(name, m.mtime, m.mtime)
}

// parent calls fn with the directory of name, open, and the base name.
func (s *dirSink) parent(name string, fn func(dir int, base string) error) error {
	d, err := s.root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer d.Close()
	if err := fn(int(d.Fd()), path.Base(name)); err != nil {
		return &fs.PathError{Op: "make", Path: name, Err: err}
	}
	return nil
}

func (s *dirSink) own(root *os.Root, name string, m meta) error {
	if !s.owners {
		if m.uid != os.Geteuid() || m.gid != os.Getegid() {
			s.foreign++
		}
		return nil
	}
	return root.Lchown(name, m.uid, m.gid)
}

func fileMode(mode int64) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	for bit, to := range map[int64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if mode&bit != 0 {
			m |= to
		}
	}
	return m
}

// finish gives the directories, which lie below root, what they are to have.
func (s *dirSink) finish(root *os.Root) error {
	for _, d := range slices.Backward(s.dirs) {
		if err := s.own(root, d.name, d.meta); err != nil {
			return err
		}
		if err := root.Chmod(d.name, fileMode(d.meta.mode)); err != nil {
			return err
		}
		if err := root.Chtimes(d.name, d.meta.mtime, d.meta.mtime); err != nil {
			return err
		}
	}
	return nil
}

// merge moves what was made into to, over what is there.
func (s *dirSink) merge(to *os.Root) error {
	for _, d := range s.dirs {
		st, err := to.Lstat(d.name)
		if err == nil && !st.IsDir() {
			err = errors.Join(to.Remove(d.name), fs.ErrNotExist)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			err = to.Mkdir(d.name, 0o700)
		case err == nil && st.Mode()&0o300 != 0o300:
			err = to.Chmod(d.name, 0o700) // until finish
		}
		if err != nil {
			return err
		}
	}
	for _, name := range append([]string{"."}, names(s.dirs)...) {
		if err := moveFiles(s.root, to, name); err != nil {
			return err
		}
	}
	return s.finish(to)
}

func names(dirs []made) []string {
	out := make([]string, len(dirs))
	for i, d := range dirs {
		out[i] = d.name
	}
	return out
}

// moveFiles moves all but directories from the directory name to the one of the
// same name.
func moveFiles(from, to *os.Root, name string) error {
	src, err := from.Open(name)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := to.Open(name)
	if err != nil {
		return err
	}
	defer dst.Close()
	list, err := src.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range list {
		if e.IsDir() {
			continue
		}
		err := unix.Renameat(int(src.Fd()), e.Name(), int(dst.Fd()), e.Name())
		if errors.Is(err, unix.EISDIR) {
			if err = to.RemoveAll(path.Join(name, e.Name())); err == nil {
				err = unix.Renameat(int(src.Fd()), e.Name(), int(dst.Fd()), e.Name())
			}
		}
		if err != nil {
			return &fs.PathError{Op: "move", Path: path.Join(name, e.Name()), Err: err}
		}
	}
	return nil
}

func (s *dirSink) notes() []string {
	var out []string
	if s.foreign > 0 {
		out = append(out, fmt.Sprintf("%d files belong to you and not to their owners in the image: only root can set those", s.foreign))
	}
	if s.devices > 0 {
		out = append(out, fmt.Sprintf("%d device nodes were left out: only root can make them", s.devices))
	}
	return out
}

// Layout is an OCI image layout in a directory. It is a Source.
type Layout struct {
	dir   string
	index ocispec.Index
}

// OpenLayout reads the index of the layout in dir.
func OpenLayout(dir string) (*Layout, error) {
	l := &Layout{dir: dir}
	for name, v := range map[string]any{ocispec.ImageLayoutFile: &ocispec.ImageLayout{}, ocispec.ImageIndexFile: &l.index} {
		b, err := l.read(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &diag.Problem{
				What: fmt.Sprintf("%s is no OCI image layout: it has no file %s", dir, name),
				Hint: "name the directory that holds oci-layout, index.json and blobs",
			}
		}
		if err != nil {
			return nil, fmt.Errorf("open oci layout: %w", err)
		}
		if err := json.Unmarshal(b, v); err != nil {
			return nil, fmt.Errorf("open oci layout: read %s: %w", filepath.Join(dir, name), err)
		}
	}
	return l, nil
}

func (l *Layout) read(name string) ([]byte, error) {
	f, err := l.file(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxManifest+1))
	if err == nil && len(b) > MaxManifest {
		err = fmt.Errorf("%s has more than %d bytes", name, MaxManifest)
	}
	return b, err
}

// file opens a regular file of the layout, which may come from anywhere.
func (l *Layout) file(name string) (*os.File, error) {
	root, err := os.OpenRoot(l.dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a fifo does not block us
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", name)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Open reads a blob of the layout and checks it.
func (l *Layout) Open(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("digest %q: %w", d.Digest, err)
	}
	f, err := l.file(blobName(d.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has no blob %s: %w", l.dir, d.Digest, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	return Verify(f, d), nil
}

// Size is how many bytes the file of a blob has.
func (l *Layout) Size(d digest.Digest) (int64, error) {
	if err := d.Validate(); err != nil {
		return 0, fmt.Errorf("digest %q: %w", d, err)
	}
	f, err := l.file(blobName(d))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("%s has no blob %s: %w", l.dir, d, ErrNotFound)
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// Manifests are the entries of the layout's index.
func (l *Layout) Manifests() []ocispec.Descriptor { return slices.Clone(l.index.Manifests) }

// Find picks an entry: by digest, by tag (an org.opencontainers.image.ref.name
// or the whole name), or the only one there is.
func (l *Layout) Find(tag, digest string) (ocispec.Descriptor, error) {
	var known []string
	var fit []ocispec.Descriptor
	for _, d := range l.index.Manifests {
		ref, name := d.Annotations[annotationRef], d.Annotations[annotationName]
		known = append(known, ref)
		switch {
		case digest != "":
			if d.Digest.String() == digest {
				return d, nil
			}
		case tag == "" || tag == ref || tag == name:
			fit = append(fit, d)
		}
	}
	if tag == "" && several(fit) {
		fit = slices.DeleteFunc(fit, func(d ocispec.Descriptor) bool { return d.Annotations[annotationRef] != "latest" })
	}
	if len(fit) > 0 && !several(fit) {
		return fit[0], nil
	}
	what := "no image"
	switch {
	case digest != "":
		what = "no image " + digest
	case tag != "" && len(fit) == 0:
		what = fmt.Sprintf("no image %q", tag)
	case len(fit) > 1:
		what = "several images of that name"
	case len(l.index.Manifests) > 1:
		what = "several images, none of them with the tag latest"
	}
	hint := "the layout is empty"
	if len(known) > 0 {
		slices.Sort(known)
		hint = "it has the tags " + strings.Join(slices.Compact(known), ", ") + "; write oci-layout://DIR:TAG or oci-layout://DIR@DIGEST"
	}
	return ocispec.Descriptor{}, &diag.Problem{What: fmt.Sprintf("the OCI layout %s has %s", l.dir, what), Hint: hint}
}

func several(list []ocispec.Descriptor) bool {
	return slices.ContainsFunc(list, func(d ocispec.Descriptor) bool { return d.Digest != list[0].Digest })
}

// ParseLayout splits oci-layout://DIR[:TAG][@DIGEST]; ok is false for anything
// else.
func ParseLayout(ref string) (dir, tag, digest string, ok bool) {
	rest, ok := strings.CutPrefix(ref, "oci-layout://")
	if !ok {
		return "", "", "", false
	}
	rest, digest, _ = strings.Cut(rest, "@sha256:")
	if digest != "" {
		digest = "sha256:" + digest
	}
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
		rest, tag = rest[:i], rest[i+1:]
	}
	return rest, tag, digest, rest != ""
}

// ResolveLayout reads oci-layout://DIR[:TAG][@DIGEST] for platform p. A relative
// DIR is taken as the process has it; callers make it absolute.
func ResolveLayout(ctx context.Context, ref string, p ocispec.Platform) (Resolved, *Layout, error) {
	dir, tag, digest, ok := ParseLayout(ref)
	if !ok {
		return Resolved{}, nil, &diag.Problem{What: fmt.Sprintf("%q is no OCI layout", ref), Hint: "write oci-layout://DIR[:TAG][@DIGEST]"}
	}
	l, err := OpenLayout(dir)
	if err != nil {
		return Resolved{}, nil, err
	}
	d, err := l.Find(tag, digest)
	if err != nil {
		return Resolved{}, nil, err
	}
	r, err := Resolve(ctx, l, ref, d, p)
	if err != nil {
		return Resolved{}, nil, fmt.Errorf("resolve %s: %w", ref, err)
	}
	return r, l, nil
}
