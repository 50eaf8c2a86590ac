package sandbox

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// Rung is a kind of isolation, strongest first in Rungs.
type Rung string

const (
	// Userns: user namespaces with a range of ids.
	Userns Rung = "userns"
	// UsernsSingle: user namespaces with one id; a supervisor plays the others.
	UsernsSingle Rung = "userns-single"
	// InPlace: root in a container that allows no namespace. A node and its RUNs
	// are plain processes, and the root of the container is theirs.
	InPlace Rung = "inplace"
)

// Rungs lists what Probe tries, best first.
var Rungs = []Rung{Userns, UsernsSingle, InPlace}

// Ids is how many ids a container has: 0 to 65535.
const Ids = 65536

// Range maps Count ids from Inside on to those from Outside on.
type Range struct{ Inside, Outside, Count uint32 }

// IDMap says which id of the host stands behind an id inside. Ranges do not
// overlap and are sorted by Inside.
type IDMap struct{ UIDs, GIDs []Range }

// SingleMap maps 0, and nothing else, to the caller's own ids.
func SingleMap(uid, gid uint32) IDMap {
	return IDMap{UIDs: []Range{{0, uid, 1}}, GIDs: []Range{{0, gid, 1}}}
}

// SameMap has all ids as they are.
func SameMap() IDMap { return ownMap(nil, nil) }

// ownMap is the map of a process that stays in its namespace: its ids as they are.
func ownMap(uids, gids []Range) IDMap {
	same := func(own []Range) []Range {
		if own == nil {
			return []Range{{0, 0, 1<<32 - 1}}
		}
		out := make([]Range, len(own))
		for i, r := range own {
			out[i] = Range{r.Inside, r.Inside, r.Count}
		}
		return out
	}
	return IDMap{UIDs: same(uids), GIDs: same(gids)}
}

// Mapped tells whether id can own files, as user and as group.
func (m IDMap) Mapped(id uint32) bool { return m.Contains(id, id) }

// Contains tells whether files can be owned by user id uid and group id gid.
func (m IDMap) Contains(uid, gid uint32) bool {
	return m.ContainsUID(uid) && m.ContainsGID(gid)
}

// ContainsUID tells whether uid can own files.
func (m IDMap) ContainsUID(uid uint32) bool { _, ok := find(m.UIDs, uid); return ok }

// ContainsGID tells whether gid can be the group of files.
func (m IDMap) ContainsGID(gid uint32) bool { _, ok := find(m.GIDs, gid); return ok }

// HostUID is the user id outside; false if there is none.
func (m IDMap) HostUID(uid uint32) (uint32, bool) { return find(m.UIDs, uid) }

// HostGID is the group id outside; false if there is none.
func (m IDMap) HostGID(gid uint32) (uint32, bool) { return find(m.GIDs, gid) }

// Single tells whether there is only one user id.
func (m IDMap) Single() bool { return len(m.UIDs) == 1 && m.UIDs[0].Count == 1 }

// String names the map as a folder can be named. Equal maps have equal names.
func (m IDMap) String() string {
	u, g := text(m.UIDs, "."), text(m.GIDs, ".")
	name := "u" + u
	if g != u {
		name += "_g" + g
	}
	if len(name) > 60 {
		sum := sha256.Sum256([]byte(name))
		name = "u" + text(m.UIDs[:1], ".") + "_" + hex.EncodeToString(sum[:8])
	}
	return name
}

// lines is the content of /proc/PID/uid_map.
func lines(ranges []Range) string {
	var b strings.Builder
	for _, r := range ranges {
		fmt.Fprintf(&b, "%d %d %d\n", r.Inside, r.Outside, r.Count)
	}
	return b.String()
}

func text(ranges []Range, sep string) string {
	var parts []string
	for _, r := range ranges {
		parts = append(parts, fmt.Sprintf("%d%s%d%s%d", r.Inside, sep, r.Outside, sep, r.Count))
	}
	return strings.Join(parts, "_")
}

func find(ranges []Range, id uint32) (uint32, bool) {
	for _, r := range ranges {
		if id >= r.Inside && id-r.Inside < r.Count {
			return r.Outside + (id - r.Inside), true
		}
	}
	return 0, false
}

// free finds 65536 ids that nobody uses, for root. It starts at 0x70000000:
// above what systemd gives to its containers (up to 0x6fffffff) and below
// 0x7fffffff, where tools that keep ids in signed numbers end. used lists
// ranges in use (Outside, Count) and must all be avoided; own is what the
// calling process itself can map, nil for everything.
//
// The first free one in a fixed order is taken, so that two runs agree.
func free(used, own []Range) (Range, bool) {
	const first, last = 0x70000000, 0x7fff0000 - Ids
	for base := uint32(first); base <= last; base += Ids {
		r := Range{Inside: 0, Outside: base, Count: Ids}
		if !overlapsAny(r, used) && (own == nil || covers(own, r)) {
			return r, true
		}
	}
	return Range{}, false
}

func overlapsAny(r Range, used []Range) bool {
	for _, u := range used {
		if uint64(r.Outside) < uint64(u.Outside)+uint64(u.Count) && uint64(u.Outside) < uint64(r.Outside)+uint64(r.Count) {
			return true
		}
	}
	return false
}

// covers tells whether r's outside ids all are inside ids of one range of own.
func covers(own []Range, r Range) bool {
	for _, o := range own {
		if r.Outside >= o.Inside && uint64(r.Outside)+uint64(r.Count) <= uint64(o.Inside)+uint64(o.Count) {
			return true
		}
	}
	return false
}

// lay maps id 0 to own and the next ones to the given ranges, 65536 in all.
func lay(own uint32, sub []Range) []Range {
	out := []Range{{0, own, 1}}
	next := uint32(1)
	for _, s := range sub {
		if next >= Ids {
			break
		}
		if s.Count == 0 || overlapsAny(Range{0, own, 1}, []Range{s}) {
			continue
		}
		n := min(s.Count, Ids-next)
		out = append(out, Range{next, s.Outside, n})
		next += n
	}
	return out
}
