package layer

import (
	"archive/tar"
	"fmt"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/tree"
)

// Header describes a file as tar has it: its type, permissions, owner, time, size
// or target and device, not what Nlink and extended attributes say. A socket, for
// which tar has no form, is an error.
func Header(name string, e tree.Entry) (*tar.Header, error) {
	h := &tar.Header{Name: name, Mode: int64(e.Perm()), Uid: int(e.UID), Gid: int(e.GID), ModTime: e.ModTime, Format: tar.FormatPAX}
	switch e.Type() {
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, e.Size
	case unix.S_IFLNK:
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.Link
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if e.Type() == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(e.Rdev)), int64(unix.Minor(e.Rdev))
	default:
		return nil, fmt.Errorf("%s: file of unknown type %o", name, e.Type())
	}
	return h, nil
}

// AddXattrs puts extended attributes into a header.
func AddXattrs(h *tar.Header, x map[string][]byte) {
	if h.PAXRecords == nil && len(x) > 0 {
		h.PAXRecords = map[string]string{}
	}
	for k, v := range x {
		h.PAXRecords[paxXattr+k] = string(v)
	}
}
