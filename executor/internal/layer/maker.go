package layer

import (
	"errors"
	"fmt"
	"math"
	"strconv"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/tree"
)

// IDs tells which user and group ids a file can be given here.
type IDs interface{ Mapped(id uint32) bool }

// IDRange is the IDs from 0 up to it, exclusive: 1 where only root is mapped.
type IDRange uint32

// Mapped tells whether id is below the range's end.
func (r IDRange) Mapped(id uint32) bool { return id < uint32(r) }

// Maker gives files their owner and makes device nodes: for real where the id
// map and the kernel allow it, else as a record (tree.OverrideXattr).
// The zero value has every id and makes no real device.
type Maker struct {
	IDs     IDs  // nil: every id is mapped
	Devices bool // make real device nodes; else always substitutes
}

func (m Maker) mapped(uid, gid uint32) bool {
	return m.IDs == nil || m.IDs.Mapped(uid) && m.IDs.Mapped(gid)
}

// Own gives a new file, name in the directory dirfd, its owner and mode; mode
// has the type, which must be that of the file. kept is false when the owner
// could be neither set nor recorded, as on links: the caller keeps it elsewhere.
func (m Maker) Own(dirfd int, name string, mode, uid, gid uint32) (kept bool, err error) {
	real := m.mapped(uid, gid)
	if real {
		err = unix.Fchownat(dirfd, name, int(uid), int(gid), unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) { // outside the map after all
			real = false
		}
	}
	if !real {
		err = unix.Fchownat(dirfd, name, 0, 0, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil {
		return false, fmt.Errorf("change owner to %d:%d: %w", uid, gid, err)
	}
	typ := mode & unix.S_IFMT
	carries := typ == unix.S_IFREG || typ == unix.S_IFDIR
	if carries && !real {
		if err := record(at(dirfd, name), mode, uid, gid, 0); err != nil {
			return false, err
		}
	}
	if typ != unix.S_IFLNK { // after the owner, whose change takes setuid away
		if err := unix.Fchmodat(dirfd, name, mode&0o7777, 0); err != nil {
			return false, fmt.Errorf("change mode: %w", err)
		}
	}
	return real || carries, nil
}

// Change is Own for a file that exists and may have a record; the type of mode
// is not looked at.
func (m Maker) Change(dirfd int, name string, mode, uid, gid uint32) (kept bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, fmt.Errorf("stat: %w", err)
	}
	p := at(dirfd, name)
	old, err := Recorded(p, tree.Entry{Name: name, Mode: st.Mode, UID: st.Uid, GID: st.Gid, Rdev: st.Rdev})
	if err != nil {
		return false, err
	}
	if old.Type() != st.Mode&unix.S_IFMT { // a substitute stays one
		err := record(p, old.Type()|mode&0o7777, uid, gid, old.Rdev)
		return err == nil, err
	}
	if old.IsRegular() || old.IsDir() {
		err := unix.Lremovexattr(p, tree.OverrideXattr)
		if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP) {
			return false, fmt.Errorf("remove record: %w", err)
		}
	}
	return m.Own(dirfd, name, old.Type()|mode&0o7777, uid, gid)
}

// Device makes a device node, or an empty file of root's with a record that
// stands for one. Of a character device 0:0, which overlay takes for a whiteout,
// only the empty file is made.
func (m Maker) Device(dirfd int, name string, mode, uid, gid uint32, rdev uint64) error {
	none := mode&unix.S_IFMT == unix.S_IFCHR && rdev == 0
	if m.Devices && rdev != 0 && m.mapped(uid, gid) {
		err := unix.Mknodat(dirfd, name, mode, int(rdev))
		if err == nil {
			_, err = m.Own(dirfd, name, mode, uid, gid)
			return err
		}
		if !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("make device: %w", err)
		}
	}
	fd, err := unix.Openat(dirfd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, tree.SubstituteMode)
	if err != nil {
		return fmt.Errorf("make a substitute for a device: %w", err)
	}
	defer unix.Close(fd)
	if none {
		_, err := m.Own(dirfd, name, unix.S_IFREG|mode&0o7777, uid, gid)
		return err
	}
	// A directory may give its group to what is made in it.
	if err := errors.Join(unix.Fchown(fd, 0, 0), unix.Fchmod(fd, tree.SubstituteMode)); err != nil {
		return fmt.Errorf("make a substitute for a device: %w", err)
	}
	return record(at(dirfd, name), mode, uid, gid, rdev)
}

func record(p string, mode, uid, gid uint32, rdev uint64) error {
	err := unix.Lsetxattr(p, tree.OverrideXattr, tree.FormatOverride(mode, uid, gid, rdev), 0)
	if errors.Is(err, unix.ENOTSUP) {
		return fmt.Errorf("record owner %d:%d: the file system of the store has no user extended attributes: put the store on ext4, xfs or btrfs: %w", uid, gid, err)
	}
	if err != nil {
		return fmt.Errorf("record owner %d:%d: %w", uid, gid, err)
	}
	return nil
}

// Recorded applies the record at the real path p to e, the entry that stat
// gave for it: see tree.Entry.Override.
func Recorded(p string, e tree.Entry) (tree.Entry, error) {
	if !e.IsRegular() && !e.IsDir() {
		return e, nil
	}
	var buf [128]byte
	n, err := unix.Lgetxattr(p, tree.OverrideXattr, buf[:])
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EPERM), errors.Is(err, unix.ERANGE):
		return e, nil // ERANGE: too long for one of ours
	case err != nil:
		return e, fmt.Errorf("read record of %s: %w", e.Name, err)
	}
	return e.Override(buf[:n]), nil
}

// WhiteoutXattr marks an empty file of root's that nobody may open, which stands
// for a removed name: where the kernel makes no device 0:0, as on a container's
// own root, which is an overlay itself.
const WhiteoutXattr = "user.overlay.whiteout"

// Whiteout tells whether an entry of a directory on disk, without any record
// applied, is a mark for a removed name: overlay's, or ours. p is its real path.
func Whiteout(p string, e tree.Entry) (bool, error) {
	if e.Type() == unix.S_IFCHR && e.Rdev == 0 {
		return true, nil
	}
	if !e.IsRegular() || e.Size != 0 || e.Perm() != 0 || e.UID != 0 {
		return false, nil
	}
	var buf [8]byte
	n, err := unix.Lgetxattr(p, WhiteoutXattr, buf[:])
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EPERM), errors.Is(err, unix.ERANGE):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read whiteout mark: %w", err)
	}
	return n == 1 && buf[0] == 'y', nil
}

// whiteoutAt is Whiteout for a file of which the caller has the metadata.
func whiteoutAt(dirfd int, name string, st unix.Stat_t) (bool, error) {
	return Whiteout(at(dirfd, name), tree.Entry{Mode: st.Mode, UID: st.Uid, Size: st.Size, Rdev: st.Rdev})
}

// makeWhiteout makes the mark for a removed name; EEXIST if the name is taken.
func makeWhiteout(dirfd int, name string) error {
	err := unix.Mknodat(dirfd, name, unix.S_IFCHR, 0)
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	fd, err := unix.Openat(dirfd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Fchown(fd, 0, 0), unix.Fchmod(fd, 0)); err != nil {
		return err
	}
	return unix.Fsetxattr(fd, WhiteoutXattr, []byte("y"), 0)
}

// OpaqueXattr marks a directory that hides what is below it.
const OpaqueXattr = "user.overlay.opaque"

// Opaque tells whether the directory at the real path p is marked opaque.
func Opaque(p string) (bool, error) {
	var buf [8]byte
	n, err := unix.Lgetxattr(p, OpaqueXattr, buf[:])
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EPERM), errors.Is(err, unix.ERANGE):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read opaque mark: %w", err)
	}
	return n == 1 && buf[0] == 'y', nil
}

// at is a path for calls that know no directory descriptor; "" is the
// directory. It follows no link but the descriptor's own, which is ours.
func at(dirfd int, name string) string {
	if name == "" {
		name = "."
	}
	return "/proc/self/fd/" + strconv.Itoa(dirfd) + "/" + name
}

func id32(v int) (uint32, error) {
	if v < 0 || int64(v) > math.MaxUint32-1 {
		return 0, fmt.Errorf("id %d is out of range", v)
	}
	return uint32(v), nil
}
