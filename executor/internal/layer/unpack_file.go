package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/tree"
)

type times struct{ atime, mtime time.Time }

func (u *unpacker) make(h *tar.Header, body io.Reader, dirf int, name, base string) error {
	uid, err := id32(h.Uid)
	if err != nil {
		return err
	}
	gid, err := id32(h.Gid)
	if err != nil {
		return err
	}
	perm := uint32(h.Mode & 0o7777)
	xattrs, err := u.xattrs(h)
	if err != nil {
		return err
	}
	if h.Typeflag == tar.TypeLink {
		return u.link(dirf, base, Outside{
			Path: name, Target: h.Linkname, Mode: perm, UID: uid, GID: gid, Mtime: h.ModTime, Atime: h.AccessTime, Xattrs: xattrs,
		})
	}
	create, typ, err := u.creator(h, body, dirf, base, perm, uid, gid)
	if err != nil {
		return err
	}
	merged, hidden := false, false
	if err := create(); errors.Is(err, unix.EEXIST) {
		st, err := statAt(dirf, base)
		if err != nil {
			return err
		}
		if merged = typ == unix.S_IFDIR && st.Mode&unix.S_IFMT == unix.S_IFDIR; !merged {
			gone, err := whiteoutAt(dirf, base, st)
			if err != nil {
				return err
			}
			if err := u.remove(dirf, name, base, st); err != nil {
				return err
			}
			if err := create(); err != nil {
				return err
			}
			hidden = typ == unix.S_IFDIR && gone
		}
	} else if err != nil {
		return err
	}
	delete(u.out.Owners, name)
	if typ != unix.S_IFCHR && typ != unix.S_IFBLK { // devices have it all from their maker
		own := u.opts.Make.Own
		if merged {
			own = u.opts.Make.Change
		}
		kept, err := own(dirf, base, typ|perm, uid, gid)
		if err != nil {
			return err
		}
		if !kept {
			u.out.Owners[name] = [2]uint32{uid, gid}
		}
	}
	if err := u.setXattrs(at(dirf, base), xattrs); err != nil {
		return err
	}
	if typ != unix.S_IFDIR {
		return setTimes(dirf, base, times{h.AccessTime, h.ModTime})
	}
	delete(u.implicit, name)
	u.times[name] = times{h.AccessTime, h.ModTime}
	if hidden {
		sub, _, err := u.dir(name)
		if err != nil {
			return err
		}
		return u.mark(sub)
	}
	return nil
}

// creator returns a function that makes the file of an entry, EEXIST if the
// name is taken.
func (u *unpacker) creator(h *tar.Header, body io.Reader, dirf int, base string, perm, uid, gid uint32) (func() error, uint32, error) {
	switch h.Typeflag {
	case tar.TypeDir:
		return func() error { return unix.Mkdirat(dirf, base, 0o700) }, unix.S_IFDIR, nil
	case tar.TypeReg, tar.TypeRegA, tar.TypeGNUSparse, tar.TypeCont: //nolint:staticcheck // old archives have TypeRegA
		if h.Size < 0 || h.Size > u.opts.MaxSize-u.out.Size {
			return nil, 0, fmt.Errorf("more than %d bytes: %w", u.opts.MaxSize, ErrTooLarge)
		}
		return func() error { return u.write(dirf, base, body, h.Size) }, unix.S_IFREG, nil
	case tar.TypeSymlink:
		return func() error { return unix.Symlinkat(h.Linkname, dirf, base) }, unix.S_IFLNK, nil
	case tar.TypeFifo:
		return func() error { return unix.Mknodat(dirf, base, unix.S_IFIFO|0o600, 0) }, unix.S_IFIFO, nil
	case tar.TypeChar, tar.TypeBlock:
		if h.Devmajor < 0 || h.Devmajor > math.MaxUint32 || h.Devminor < 0 || h.Devminor > math.MaxUint32 {
			return nil, 0, fmt.Errorf("device number %d:%d is out of range", h.Devmajor, h.Devminor)
		}
		typ := uint32(unix.S_IFCHR)
		if h.Typeflag == tar.TypeBlock {
			typ = unix.S_IFBLK
		}
		rdev := unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
		u.out.Devices = true
		return func() error { return u.opts.Make.Device(dirf, base, typ|perm, uid, gid, rdev) }, typ, nil
	default:
		return nil, 0, fmt.Errorf("entry of unknown type %q", h.Typeflag)
	}
}

func (u *unpacker) write(dirf int, base string, body io.Reader, size int64) error {
	fd, err := unix.Openat(dirf, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var at int64
	hole := false // the end is a hole
	sum := u.opts.Contents.sum()
	for at < size {
		if err := context.Cause(u.ctx); err != nil {
			return err
		}
		n, err := io.ReadFull(body, u.buf[:min(int64(len(u.buf)), size-at)])
		if err != nil {
			return fmt.Errorf("%d of %d bytes: %w", at+int64(n), size, unexpected(err))
		}
		at += int64(n)
		sum.write(u.buf[:n])
		if hole = bytes.Equal(u.buf[:n], u.zeros); hole { // a whole piece of them
			continue
		}
		for b := u.buf[:n]; len(b) > 0; {
			w, err := unix.Pwrite(fd, b, at-int64(len(b)))
			if err != nil && err != unix.EINTR {
				return fmt.Errorf("write: %w", err)
			}
			b = b[max(w, 0):]
		}
	}
	if hole {
		if err := unix.Ftruncate(fd, size); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	u.out.Size += size
	return sum.of(fd)
}

// remove takes away what an entry replaces.
func (u *unpacker) remove(dirf int, name, base string, st unix.Stat_t) error {
	delete(u.implicit, name)
	delete(u.out.Owners, name)
	delete(u.times, name)
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if err := unix.Unlinkat(dirf, base, 0); err != nil {
			return fmt.Errorf("replace: %w", err)
		}
		return nil
	}
	for d, f := range u.dirs { // those at or below the name; the caller's directory is above
		if d == name || strings.HasPrefix(d, name+"/") {
			f.Close()
			delete(u.dirs, d)
		}
	}
	if err := os.RemoveAll(at(dirf, base)); err != nil {
		return fmt.Errorf("replace: %w", err)
	}
	return nil
}

func (u *unpacker) setTimes() error {
	for name, t := range u.times {
		f, err := u.tree.OpenFile(name, unix.O_RDONLY|unix.O_DIRECTORY)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			continue // replaced since
		}
		if err != nil {
			return err
		}
		err = setTimes(int(f.Fd()), "", t)
		f.Close()
		if err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	return nil
}

func setTimes(dirf int, base string, t times) error {
	if t.atime.Before(t.mtime) {
		t.atime = t.mtime
	}
	ts := []unix.Timespec{timespec(t.atime), timespec(t.mtime)}
	flags := unix.AT_SYMLINK_NOFOLLOW
	if base == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if err := unix.UtimesNanoAt(dirf, base, ts, flags); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

// timespec keeps times before 1970 and beyond 2262, which the tar header can
// say and the file system clamps as it must.
func timespec(t time.Time) unix.Timespec {
	if t.IsZero() {
		return unix.Timespec{}
	}
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

func (u *unpacker) xattrs(h *tar.Header) (map[string][]byte, error) {
	var out map[string][]byte
	size := 0
	for key, val := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, paxXattr)
		if !ok {
			continue
		}
		if tree.HiddenXattr(name) || strings.HasPrefix(name, "trusted.") {
			u.out.Ignored++
			continue
		}
		if size += len(name) + len(val); size > maxRecords {
			return nil, fmt.Errorf("extended attributes of more than %d bytes: %w", maxRecords, ErrTooLarge)
		}
		if out == nil {
			out = map[string][]byte{}
		}
		out[name] = []byte(val)
	}
	return out, nil
}

func (u *unpacker) setXattrs(p string, xattrs map[string][]byte) error {
	for name, val := range xattrs {
		err := unix.Lsetxattr(p, name, val, 0)
		switch {
		case errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EACCES), errors.Is(err, unix.EINVAL):
			u.out.Ignored++ // a name space or value that is not for us to set
		case err != nil:
			return fmt.Errorf("set extended attribute %q of %d bytes: %w", name, len(val), err)
		case name == capability:
			if err := u.opts.Contents.capableAt(p, val); err != nil {
				return err
			}
		}
	}
	return nil
}
