package copier

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/tree"
	"kaniko-build/schema/diag"
)

// MaxUnpacked bounds the bytes that one archive may unpack to.
const MaxUnpacked = 1 << 40

const paxXattr = "SCHILY.xattr."

// Unpack puts the members of an archive below p.Dest in upper, as ADD does.
// The root of the archive is the destination: no name or link of it leads out.
// Directories that are there are merged, with the owner and mode of the
// archive if it has an entry for them other than ".", and everything else is
// replaced. Chmod has no effect.
func Unpack(ctx context.Context, r io.Reader, base tree.Tree, upper string, p Placement) error {
	u, err := openUpper(ctx, base, upper, p.Make, p.Owners)
	if err != nil {
		return err
	}
	defer u.Close()
	return u.unpack(ctx, r, p)
}

func (u *upper) unpack(ctx context.Context, r io.Reader, p Placement) error {
	top, err := u.resolve(ctx, p.Dest)
	if err != nil {
		return err
	}
	if err := u.mkdirAll(ctx, top, 0o755, p.Owner, nil); err != nil {
		return err
	}
	d, err := decompress(ctxReader{ctx, r})
	if err != nil {
		return err
	}
	defer d.Close()
	a := &unpacker{upper: u, owner: p.Owner, top: top, left: MaxUnpacked}
	defer a.close()
	tr := tar.NewReader(d)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return a.finish(ctx)
		}
		if err != nil {
			return err
		}
		if err := a.member(ctx, h, tr); err != nil {
			return err
		}
	}
}

// unpacker unpacks one archive.
type unpacker struct {
	*upper
	owner *[2]uint32
	top   string // the destination, resolved: the archive's root
	left  int64  // bytes that may still come
	times []dirTime
	// The parent of the last member, by its name in the archive, while no
	// directory or link was replaced.
	last     *dir
	lastName string
}

type dirTime struct {
	name string // in the archive
	t    time.Time
}

func (a *unpacker) close() {
	if a.last != nil {
		a.last.release()
	}
	a.last = nil
}

// resolve follows the links of a name in the archive's root.
func (a *unpacker) resolve(ctx context.Context, name string) (string, error) {
	p, err := tree.Resolve(ctx, links{u: a.upper, top: a.top}, name)
	return path.Join(a.top, p), err
}

func (a *unpacker) member(ctx context.Context, h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	clean := path.Clean(h.Name)
	full := path.Join("/", clean)
	if clean == "." {
		return nil // the destination is there, and keeps what it has
	}
	if full == "/" {
		if h.Typeflag != tar.TypeDir {
			return &diag.Problem{What: fmt.Sprintf("archive member %q would replace the destination", h.Name)}
		}
		return a.rootMember(ctx, h)
	}
	d, err := a.parent(ctx, path.Dir(full))
	if err != nil {
		return err
	}
	name := path.Base(full)
	e, at, err := a.lookup(ctx, d, name)
	if err != nil {
		return err
	}
	covers := false
	merge := at != nowhere && e.IsDir() && h.Typeflag == tar.TypeDir
	if !merge {
		if at != nowhere && (e.IsDir() || e.IsLink()) {
			d.hold()
			defer d.release()
			a.close()
		}
		if covers, err = a.remove(ctx, d, name, e, at); err != nil {
			return err
		}
	}
	return a.put(ctx, d, name, h, r, merge, covers)
}

// parent opens the directory that a member goes into; what is missing of it
// belongs to root.
func (a *unpacker) parent(ctx context.Context, name string) (*dir, error) {
	if a.last != nil && a.lastName == name {
		return a.last, nil
	}
	real, err := a.resolve(ctx, name)
	if err != nil {
		return nil, err
	}
	if _, err := a.Lstat(ctx, real); missing(err) {
		if err := a.dangling(ctx, name); err != nil {
			return nil, err
		}
	}
	if err := a.mkdirAll(ctx, real, 0o755, &[2]uint32{}, nil); err != nil {
		return nil, err
	}
	d, err := a.open(ctx, real)
	if err != nil {
		return nil, err
	}
	a.close()
	a.last, a.lastName = d, name
	return d, nil
}

// dangling is an error if a missing directory is missing because a link on the
// way leads nowhere: nothing is made there.
func (a *unpacker) dangling(ctx context.Context, name string) error {
	for p := name; p != "/"; p = path.Dir(p) {
		up, err := a.resolve(ctx, path.Dir(p))
		if err != nil {
			return err
		}
		if e, err := a.Lstat(ctx, path.Join(up, path.Base(p))); err == nil && e.IsLink() {
			if to, err := a.resolve(ctx, p); err != nil {
				return err
			} else if _, err := a.Lstat(ctx, to); missing(err) {
				return &diag.Problem{What: (&os.PathError{Op: "open", Path: p, Err: unix.ENOENT}).Error(), Hint: "an entry of the archive lies below a symbolic link that leads nowhere"}
			}
		}
	}
	return nil
}

// put makes one member, for which room was made.
func (a *unpacker) put(ctx context.Context, d *dir, name string, h *tar.Header, r io.Reader, merge, covers bool) error {
	uid, gid := uint32(h.Uid), uint32(h.Gid)
	if a.owner != nil {
		uid, gid = a.owner[0], a.owner[1]
	}
	perm := uint32(h.Mode) & 0o7777
	p := d.join(name)
	if h.Typeflag != tar.TypeDir {
		if err := a.unmark(d, name); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return a.putDir(ctx, d, name, h, perm, uid, gid, merge, covers)
	case tar.TypeReg:
		if h.Size > a.left {
			return &diag.Problem{What: fmt.Sprintf("archive unpacks to more than %d bytes", int64(MaxUnpacked))}
		}
		a.left -= h.Size
		w, err := d.create(name)
		if err != nil {
			return err
		}
		if err := errors.Join(copyData(ctx, w, r, h.Size), w.Close()); err != nil {
			return fmt.Errorf("write /%s: %w", p, err)
		}
		if err := a.own(d, name, unix.S_IFREG|perm, uid, gid); err != nil {
			return err
		}
	case tar.TypeLink:
		return a.putLink(ctx, d, name, h, perm, uid, gid)
	case tar.TypeSymlink, tar.TypeFifo, tar.TypeChar, tar.TypeBlock:
		typ := map[byte]uint32{tar.TypeSymlink: unix.S_IFLNK, tar.TypeFifo: unix.S_IFIFO, tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK}[h.Typeflag]
		if typ == unix.S_IFLNK {
			perm = 0o777
		}
		e := tree.Entry{Link: h.Linkname, Rdev: unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))}
		if err := a.special(d, name, e, typ|perm, uid, gid); err != nil {
			return err
		}
	default:
		return &diag.Problem{What: fmt.Sprintf("unhandled tar header type %d", h.Typeflag), Hint: "pack the archive without sparse or other special members"}
	}
	if err := a.memberXattrs(d, name, h); err != nil {
		return err
	}
	return setTime(d, name, bound(h.ModTime))
}

func (a *unpacker) putDir(ctx context.Context, d *dir, name string, h *tar.Header, perm, uid, gid uint32, merge, covers bool) error {
	var n *dir
	var err error
	if merge {
		n, err = a.openIn(ctx, d, name)
	} else {
		n, err = a.mkdir(ctx, d, name, perm, uid, gid, covers)
	}
	if err != nil {
		return err
	}
	n.release()
	if merge {
		if _, err := a.make.Change(d.fd(), name, unix.S_IFDIR|perm, uid, gid); err != nil {
			return fmt.Errorf("/%s: %w", d.join(name), err)
		}
	}
	a.times = append(a.times, dirTime{path.Join("/", path.Clean(h.Name)), bound(h.ModTime)})
	if err := a.memberXattrs(d, name, h); err != nil {
		return err
	}
	return setTime(d, name, bound(h.ModTime))
}

// rootMember is a name such as "/" or "..": the destination itself.
func (a *unpacker) rootMember(ctx context.Context, h *tar.Header) error {
	uid, gid := uint32(h.Uid), uint32(h.Gid)
	if a.owner != nil {
		uid, gid = a.owner[0], a.owner[1]
	}
	a.times = append(a.times, dirTime{"/", bound(h.ModTime)})
	if a.top == "" {
		return nil // owner and mode of the root are not exported
	}
	d, err := a.open(ctx, parentOf(a.top))
	if err != nil {
		return err
	}
	defer d.release()
	n, err := a.openIn(ctx, d, path.Base(a.top))
	if err != nil {
		return err
	}
	n.release()
	if _, err := a.make.Change(d.fd(), path.Base(a.top), unix.S_IFDIR|uint32(h.Mode)&0o7777, uid, gid); err != nil {
		return fmt.Errorf("/%s: %w", a.top, err)
	}
	return a.memberXattrs(d, path.Base(a.top), h)
}

// putLink makes a hard link. A file of the base is copied up for it. The
// entry's owner, mode and time are those of the file from now on.
func (a *unpacker) putLink(ctx context.Context, d *dir, name string, h *tar.Header, perm, uid, gid uint32) error {
	target := path.Join("/", h.Linkname)
	fail := func(err error) error {
		return &diag.Problem{What: (&os.LinkError{Op: "link", Old: target, New: "/" + d.join(name), Err: err}).Error()}
	}
	if target == "/" {
		return fail(unix.EPERM)
	}
	real, err := a.resolve(ctx, path.Dir(target))
	if err != nil {
		return err
	}
	if _, err := a.Lstat(ctx, path.Join(real, path.Base(target))); missing(err) {
		return fail(unix.ENOENT)
	} else if err != nil {
		return err
	}
	from, err := a.open(ctx, real)
	if err != nil {
		return err
	}
	defer from.release()
	e, at, err := a.lookup(ctx, from, path.Base(target))
	if err != nil {
		return err
	}
	switch {
	case at == nowhere:
		return fail(unix.ENOENT)
	case e.IsDir():
		return fail(unix.EPERM)
	case at == inBase:
		if err := a.copyUpFile(ctx, from, path.Base(target), e); err != nil {
			return err
		}
	}
	if err := unix.Linkat(from.fd(), path.Base(target), d.fd(), name, 0); err != nil {
		return fail(err)
	}
	if e.IsLink() {
		if err := a.own(d, name, unix.S_IFLNK|0o777, uid, gid); err != nil {
			return err
		}
		return a.memberXattrs(d, name, h)
	}
	if _, err := a.make.Change(d.fd(), name, perm, uid, gid); err != nil {
		return fmt.Errorf("/%s: %w", d.join(name), err)
	}
	if err := a.memberXattrs(d, name, h); err != nil {
		return err
	}
	return setTime(d, name, bound(h.ModTime))
}

// finish sets the times of directories, now that all is in them.
func (a *unpacker) finish(ctx context.Context) error {
	for _, t := range a.times {
		real, err := a.resolve(ctx, t.name)
		if err != nil {
			return err
		}
		if e, err := a.Lstat(ctx, real); err != nil || !e.IsDir() {
			continue // it was replaced by a later member
		}
		d, err := a.open(ctx, real)
		if err != nil {
			return err
		}
		err = d.setTime(t.t)
		d.release()
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *unpacker) memberXattrs(d *dir, name string, h *tar.Header) error {
	for k, v := range h.PAXRecords {
		key, ok := strings.CutPrefix(k, paxXattr)
		if !ok || tree.HiddenXattr(key) {
			continue
		}
		err := unix.Lsetxattr(d.at(name), key, []byte(v), 0)
		if err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EPERM) {
			return &os.PathError{Op: "set " + key, Path: "/" + d.join(name), Err: err}
		}
	}
	return nil
}

// bound keeps the time of a member where BuildKit has it: not before 1970 and
// not after the year 2262.
func bound(t time.Time) time.Time {
	if t.Before(time.Unix(0, 0)) || t.After(time.Unix(0, 1<<63-1)) {
		return time.Unix(0, 0)
	}
	return t
}

// parentOf is the directory of a path in a tree, "" for the root.
func parentOf(name string) string { return path.Dir("/" + name)[1:] }
