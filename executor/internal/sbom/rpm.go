package sbom

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// rpm keeps a header of each package in a database of one of three kinds: SQLite
// (Fedora, and RHEL from 9 on), its own ndb (SUSE), and Berkeley DB (before). All three
// are read here, as far as rpm uses them, from memory.

var (
	rpmDirs  = []string{"var/lib/rpm", "usr/lib/sysimage/rpm", "usr/share/rpm"}
	rpmFiles = []string{"rpmdb.sqlite", "Packages.db", "Packages"}
)

// readRpm reads a database of rpm.
func readRpm(b []byte, f *File) error {
	left := len(b)
	each := func(header []byte) error {
		if left -= len(header) + 1; left < 0 { // else one may be read again and again
			return errors.New("its headers have more bytes than itself")
		}
		p, err := rpmHeader(header)
		if err != nil || p.Name == "gpg-pubkey" { // a key, kept as if it were a package
			return err
		}
		return f.add(p)
	}
	switch {
	case len(b) == 0:
		return nil
	case strings.HasPrefix(string(b[:min(16, len(b))]), "SQLite format 3"):
		return sqliteBlobs(b, "Packages", each)
	case strings.HasPrefix(string(b[:min(4, len(b))]), "RpmP"):
		return ndbBlobs(b, each)
	}
	return bdbBlobs(b, each)
}

// The tags and types of a header that are read (rpm's lib/rpmtag.h).
const (
	tagName    = 1000
	tagVersion = 1001
	tagRelease = 1002
	tagEpoch   = 1003
	tagLicense = 1014
	tagArch    = 1022
	tagSource  = 1044

	typeInt32  = 4
	typeString = 6
	typeI18N   = 9
)

// rpmHeader reads a header: the numbers of entries and of bytes, entries of 16 bytes
// (tag, type, offset, count), and the bytes.
func rpmHeader(b []byte) (Package, error) {
	p := Package{Kind: Rpm}
	if len(b) < 8 {
		return p, errors.New("a header is cut")
	}
	n, size := int64(binary.BigEndian.Uint32(b)), int64(binary.BigEndian.Uint32(b[4:]))
	if 8+16*n+size > int64(len(b)) {
		return p, fmt.Errorf("a header of %d bytes says it has %d entries and %d bytes", len(b), n, size)
	}
	data := b[8+16*n : 8+16*n+size]
	release := ""
	fields := map[uint32]*string{tagName: &p.Name, tagVersion: &p.Version, tagRelease: &release, tagLicense: &p.License, tagArch: &p.Arch, tagSource: &p.Source}
	for i := range n {
		e := b[8+16*i:]
		tag, kind, off := binary.BigEndian.Uint32(e), binary.BigEndian.Uint32(e[4:]), int64(binary.BigEndian.Uint32(e[8:]))
		if off > int64(len(data)) {
			continue
		}
		at := data[off:]
		if tag == tagEpoch && kind == typeInt32 && len(at) >= 4 {
			p.Epoch = int(binary.BigEndian.Uint32(at))
		}
		if to := fields[tag]; to != nil && (kind == typeString || kind == typeI18N) {
			*to, _, _ = strings.Cut(string(at[:min(len(at), 4*maxText)]), "\x00")
		}
	}
	if release != "" {
		p.Version += "-" + release
	}
	return p, nil
}
