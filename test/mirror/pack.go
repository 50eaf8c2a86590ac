package mirror

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/pgzip"
	"golang.org/x/sys/unix"
)

// blob is a finished layer in a file.
type blob struct {
	file           string
	digest, diffID v1.Hash
	size           int64
}

func (b *blob) Digest() (v1.Hash, error)             { return b.digest, nil }
func (b *blob) DiffID() (v1.Hash, error)             { return b.diffID, nil }
func (b *blob) Size() (int64, error)                 { return b.size, nil }
func (b *blob) MediaType() (types.MediaType, error)  { return types.OCILayer, nil }
func (b *blob) Compressed() (io.ReadCloser, error)   { return os.Open(b.file) }
func (b *blob) Uncompressed() (io.ReadCloser, error) { return nil, errors.New("not needed") }

// layerWriter writes a tar into a compressed file and hashes both.
type layerWriter struct {
	*tar.Writer
	file        *os.File
	gz          *pgzip.Writer
	plain, pack hash.Hash
	links       map[[2]uint64]string
}

func newLayer(file string) (*layerWriter, error) {
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	l := &layerWriter{file: f, plain: sha256.New(), pack: sha256.New(), links: map[[2]uint64]string{}}
	if l.gz, err = pgzip.NewWriterLevel(io.MultiWriter(f, l.pack), 5); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	l.Writer = tar.NewWriter(io.MultiWriter(l.gz, l.plain))
	return l, nil
}

func (l *layerWriter) finish() (*blob, error) {
	if err := errors.Join(l.Close(), l.gz.Close()); err != nil {
		return nil, errors.Join(err, l.file.Close())
	}
	st, err := l.file.Stat()
	if err := errors.Join(err, l.file.Close()); err != nil {
		return nil, err
	}
	sum := func(h hash.Hash) v1.Hash {
		return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}
	}
	return &blob{file: l.file.Name(), digest: sum(l.pack), diffID: sum(l.plain), size: st.Size()}, nil
}

// put writes an entry with content; the time is the image's unless h has one.
func (l *layerWriter) put(h *tar.Header, body []byte) error {
	h.Format, h.Size = tar.FormatPAX, int64(len(body))
	if h.ModTime.IsZero() {
		h.ModTime = stamp
	}
	if err := l.WriteHeader(h); err != nil {
		return err
	}
	_, err := l.Write(body)
	return err
}

// add writes the file at p as name.
func (l *layerWriter) add(name, p string, mapOwner bool) error {
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return err
	}
	h := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: clamp(time.Unix(st.Mtim.Unix())), Format: tar.FormatPAX,
	}
	if mapOwner {
		h.Uid, h.Gid = 0, 0
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
	case unix.S_IFLNK:
		target, err := os.Readlink(p)
		if err != nil {
			return err
		}
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, target, 0o777
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
		id := [2]uint64{uint64(st.Dev), st.Ino}
		if first, ok := l.links[id]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return l.WriteHeader(h)
		}
		if st.Nlink > 1 {
			l.links[id] = name
		}
		if c, err := getCapability(p); err == nil {
			h.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": c}
		}
		if err := l.WriteHeader(h); err != nil {
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		_, err = io.Copy(l, f)
		return errors.Join(err, f.Close())
	default:
		return nil // devices and pipes are a container's own
	}
	return l.WriteHeader(h)
}

func getCapability(p string) (string, error) {
	b := make([]byte, 64)
	n, err := unix.Lgetxattr(p, "security.capability", b)
	if err != nil {
		return "", err
	}
	return string(b[:n]), nil
}

// clamp takes seconds only, and nothing younger than the image.
func clamp(t time.Time) time.Time {
	if t.After(stamp) {
		return stamp
	}
	return t.Truncate(time.Second).UTC()
}

// state is what snapshot remembers of a file.
type state struct {
	mode     uint32
	size     int64
	mtim     unix.Timespec
	ino      uint64
	uid, gid uint32
}

// snapshot remembers a tree, to find what changed in it.
func snapshot(root string) (map[string]state, error) {
	seen := map[string]state{}
	return seen, filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		seen[p], err = stateOf(p)
		return err
	})
}

func stateOf(p string) (state, error) {
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return state{}, err
	}
	s := state{mode: st.Mode, size: st.Size, mtim: st.Mtim, ino: st.Ino, uid: st.Uid, gid: st.Gid}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		s.size, s.mtim = 0, unix.Timespec{}
	}
	return s, nil
}

// packDir packs the tree at root, or what changed in it since before, with its
// parents, and whiteouts for what is gone. What is below /dev, /proc and /sys
// is left out.
func packDir(file, root string, before map[string]state) (*blob, error) {
	l, err := newLayer(file)
	if err != nil {
		return nil, err
	}
	var changed, all []string
	need := map[string]bool{}
	err = filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if p == root {
			return nil
		}
		all = append(all, p)
		if before != nil {
			now, err := stateOf(p)
			if err != nil {
				return err
			}
			if old, ok := before[p]; ok && old == now {
				delete(before, p)
				return nil
			}
			delete(before, p)
		}
		changed = append(changed, p)
		switch filepath.Base(p) {
		case "dev", "proc", "sys":
			if filepath.Dir(p) == root {
				return filepath.SkipDir
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	delete(before, root)
	for p := range before { // what is left is gone
		if strings.HasPrefix(p, filepath.Join(root, "dev")+"/") || strings.HasPrefix(p, filepath.Join(root, "proc")+"/") || strings.HasPrefix(p, filepath.Join(root, "sys")+"/") {
			continue
		}
		if _, err := os.Lstat(filepath.Dir(p)); err == nil {
			return nil, fmt.Errorf("%s is gone; whiteouts are not made here", p)
		}
	}
	for _, p := range changed {
		for ; p != root; p = filepath.Dir(p) {
			need[p] = true
		}
	}
	for _, p := range all { // in the order of the walk, parents first
		if !need[p] {
			continue
		}
		if err := l.add(strings.TrimPrefix(p, root+"/"), p, false); err != nil {
			return nil, err
		}
	}
	return l.finish()
}

// packGo packs a Go tree as /usr/local/go, and an empty GOPATH.
func packGo(file, goroot string) (*blob, error) {
	l, err := newLayer(file)
	if err != nil {
		return nil, err
	}
	for _, d := range []struct {
		name string
		mode int64
	}{{"go/", 0o1777}, {"go/bin/", 0o1777}, {"go/src/", 0o1777}, {"usr/", 0o755}, {"usr/local/", 0o755}} {
		if err := l.put(&tar.Header{Typeflag: tar.TypeDir, Name: d.name, Mode: d.mode}, nil); err != nil {
			return nil, err
		}
	}
	err = filepath.WalkDir(goroot, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(goroot, p)
		if err != nil {
			return err
		}
		if rel == "test" { // the compiler's own tests
			return filepath.SkipDir
		}
		return l.add(path.Join("usr/local/go", rel), p, true)
	})
	if err != nil {
		return nil, err
	}
	return l.finish()
}

const busyboxPath = "/bin/busybox"

const passwd = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
sync:x:4:100:sync:/bin:/bin/sync
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:Operator:/var:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
`

const group = `root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
lp:x:7:
mail:x:8:
wheel:x:10:root
www-data:x:33:
operator:x:37:
utmp:x:43:
staff:x:50:
users:x:100:
nogroup:x:65534:
`

// busybox packs the static program with a link for each of its applets.
func (m *maker) busybox(ctx context.Context, tmp string) (v1.Image, error) {
	program, err := os.ReadFile(busyboxPath)
	if err != nil {
		return nil, err
	}
	list, err := exec.CommandContext(ctx, busyboxPath, "--list").Output()
	if err != nil {
		return nil, err
	}
	l, err := newLayer(filepath.Join(tmp, "busybox.tar.gz"))
	if err != nil {
		return nil, err
	}
	var failed error
	put := func(kind byte, name string, mode int64, body, target string, owner ...int) {
		h := &tar.Header{Typeflag: kind, Name: name, Mode: mode, Linkname: target}
		if len(owner) == 2 {
			h.Uid, h.Gid = owner[0], owner[1]
		}
		failed = errors.Join(failed, l.put(h, []byte(body)))
	}
	dir := func(name string, mode int64, owner ...int) { put(tar.TypeDir, name+"/", mode, "", "", owner...) }
	dir("bin", 0o755)
	put(tar.TypeReg, "bin/busybox", 0o755, string(program), "")
	for _, a := range strings.Fields(string(bytes.TrimSpace(list))) {
		if a != "busybox" {
			put(tar.TypeLink, "bin/"+a, 0o755, "", "bin/busybox")
		}
	}
	dir("dev", 0o755)
	dir("etc", 0o755)
	put(tar.TypeReg, "etc/group", 0o644, group, "")
	put(tar.TypeReg, "etc/passwd", 0o644, passwd, "")
	put(tar.TypeReg, "etc/shadow", 0o600, "root:*::0:::::\n", "")
	dir("home", 0o755, 65534, 65534)
	dir("root", 0o700)
	dir("tmp", 0o1777)
	dir("usr", 0o755)
	dir("usr/bin", 0o755)
	put(tar.TypeSymlink, "usr/bin/env", 0o777, "", "../../bin/env")
	dir("usr/sbin", 0o755, 1, 1)
	dir("var", 0o755)
	dir("var/spool", 0o755)
	dir("var/spool/mail", 0o755, 8, 8)
	dir("var/www", 0o755, 33, 33)
	if failed != nil {
		return nil, failed
	}
	b, err := l.finish()
	if err != nil {
		return nil, err
	}
	return build(v1.Config{
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Cmd: []string{"sh"},
	}, b)
}
