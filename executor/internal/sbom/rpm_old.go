package sbom

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ndbBlobs calls f with each header of a database of rpm's own (rpm's
// lib/backend/ndb/rpmpkg.c): after a head of 32 bytes, slots of 16 (magic, number of
// the package, place in units of 16, length in those), then blobs with a head of 16
// (magic, number, generation, length).
func ndbBlobs(b []byte, f func([]byte) error) error {
	le := binary.LittleEndian
	if len(b) < 32 {
		return errors.New("it is cut")
	}
	if v := le.Uint32(b[4:]); v != 0 {
		return fmt.Errorf("it has the unknown version %d", v)
	}
	slots := int64(le.Uint32(b[12:])) * 4096
	if slots > int64(len(b)) {
		return errors.New("it is cut in its slots")
	}
	left := int64(len(b)) // headers do not lie over each other: together they are no more than the file
	for at := int64(32); at+16 <= slots; at += 16 {
		s := b[at:]
		if string(s[:4]) != "Slot" {
			return errors.New("a slot is damaged")
		}
		if le.Uint32(s[4:]) == 0 {
			continue // free
		}
		off := int64(le.Uint32(s[8:])) * 16
		if off+16 > int64(len(b)) || string(b[off:off+4]) != "BlbS" || le.Uint32(b[off+4:]) != le.Uint32(s[4:]) {
			return errors.New("a package is not where it is said to be")
		}
		size := int64(le.Uint32(b[off+12:]))
		if left -= size; off+16+size > int64(len(b)) || left < 0 {
			return errors.New("a package is cut")
		}
		if err := f(b[off+16 : off+16+size]); err != nil {
			return err
		}
	}
	return nil
}

// The pages of Berkeley DB's hash that matter, and what is in them.
const (
	bdbMagic    = 0x061561
	bdbHead     = 26 // bytes of a page's head
	bdbUnsorted = 2
	bdbOverflow = 7
	bdbHash     = 13
	bdbOffPage  = 3
)

// bdbBlobs calls f with each header of a hash of Berkeley DB: pages with pairs of key
// and value, of which a value that is a header lies in a chain of other pages.
func bdbBlobs(b []byte, f func([]byte) error) error {
	if len(b) < 72 {
		return errors.New("it is no database of rpm that is known")
	}
	var e binary.ByteOrder = binary.LittleEndian
	if e.Uint32(b[12:]) != bdbMagic {
		if e = binary.BigEndian; e.Uint32(b[12:]) != bdbMagic {
			return errors.New("it is no database of rpm that is known")
		}
	}
	size := int64(e.Uint32(b[20:]))
	if size < 512 || size > 65536 || size&(size-1) != 0 {
		return fmt.Errorf("it has pages of %d bytes", size)
	}
	seen := map[uint32]bool{}
	page := func(n uint32) []byte {
		if off := int64(n) * size; off+size <= int64(len(b)) {
			return b[off : off+size]
		}
		return nil
	}
	for n := uint32(1); int64(n) < int64(len(b))/size; n++ {
		p := page(n)
		if kind := p[25]; kind != bdbHash && kind != bdbUnsorted {
			continue
		}
		entries := int64(e.Uint16(p[20:]))
		if bdbHead+2*entries > size {
			return errors.New("a page is damaged")
		}
		for i := int64(1); i < entries; i += 2 {
			at := int64(e.Uint16(p[bdbHead+2*i:]))
			if at+12 > size || p[at] != bdbOffPage {
				continue // small: no header
			}
			next, whole := e.Uint32(p[at+4:]), int64(e.Uint32(p[at+8:]))
			if whole > int64(len(b)) {
				return errors.New("a package is larger than the file")
			}
			var out []byte
			for next != 0 && int64(len(out)) < whole {
				o := page(next)
				if o == nil || seen[next] || o[25] != bdbOverflow {
					return errors.New("the pages of a package are damaged")
				}
				seen[next] = true
				n := int64(e.Uint16(o[22:]))
				if bdbHead+n > size {
					return errors.New("a page is damaged")
				}
				out = append(out, o[bdbHead:bdbHead+n]...)
				next = e.Uint32(o[16:])
			}
			if int64(len(out)) < whole {
				return errors.New("a package is cut")
			}
			if err := f(out[:whole]); err != nil {
				return err
			}
		}
	}
	return nil
}
