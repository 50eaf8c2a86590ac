package inplace

import (
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/snapshot"
	"kaniko-build/executor/internal/tree"
)

// spot is a name that is left alone, or a directory above one or that stays.
type spot struct {
	kept  bool             // it, and all that is in it
	below map[string]*spot // of a directory above spots
	// there says that the stack has a directory here; without it a directory above
	// spots counts only if something is in it.
	there bool
	// blocked says that the stack has something else than a directory here,
	// which cannot be placed: what is below is left alone meanwhile.
	blocked bool
	// full says that the stack has files here, which a command cannot see; mute that
	// nobody minds.
	full, mute bool
	mount      bool        // nothing can be renamed out of it
	stat       unix.Stat_t // of the stack's directory, if it is there
	why        error       // it cannot be lent
}

// add is the spot at name, which is made with those above it.
func (s *spot) add(name string) *spot {
	at := s
	for part := range strings.SplitSeq(name, "/") {
		if part == "" {
			continue
		}
		if at.below == nil {
			at.below = map[string]*spot{}
		}
		next := at.below[part]
		if next == nil {
			next = &spot{}
			at.below[part] = next
		}
		at = next
	}
	return at
}

// keep leaves name alone.
func (s *spot) keep(name string, mute bool) {
	if at := s.add(name); at != s { // never the root itself
		at.kept = true
		at.mute = at.mute || mute
	}
}

// mounted are the mount points below it, which stay when it is lent, and what is to
// be ignored.
func (s *spot) mounted() *spot {
	out := &spot{kept: s.kept && (s.mount || s.mute), mute: s.mute, mount: s.mount}
	for n, b := range s.below {
		if m := b.mounted(); m.kept || len(m.below) > 0 {
			if out.below == nil {
				out.below = map[string]*spot{}
			}
			out.below[n] = m
		}
	}
	return out
}

// paths are the kept ones below it, which is at dir.
func (s *spot) paths(dir string) []string {
	var out []string
	for n, b := range s.below {
		if b.kept {
			out = append(out, dir+"/"+n)
		}
		out = append(out, b.paths(dir+"/"+n)...)
	}
	return out
}

// find is the spot at name, or the kept one above it; nil if there is none.
func (s *spot) find(name string) *spot {
	at := s
	for part := range strings.SplitSeq(name, "/") {
		if part == "" {
			continue
		}
		if at.alone() {
			return at
		}
		if at = at.below[part]; at == nil {
			return nil
		}
	}
	return at
}

// above tells whether something that is kept is below it.
func (s *spot) above() bool {
	for _, b := range s.below {
		if b.kept || b.above() {
			return true
		}
	}
	return false
}

func (s *spot) alone() bool { return s.kept || s.blocked }

// empty forgets what a stack had.
func (s *spot) empty() {
	s.there, s.blocked, s.full = false, false, false
	for _, b := range s.below {
		b.empty()
	}
}

func (s *spot) verdict(name string) snapshot.Verdict {
	switch at := s.find(name); {
	case at == nil:
		return snapshot.Look
	case at.alone():
		return snapshot.Ignore
	case at.there:
		return snapshot.Look
	}
	return snapshot.Hollow
}

// spots are the paths to leave alone below dir: mount points, those of ignore,
// and those of keep that are there; and the directories of stay.
func spots(dir string, j journal) (*spot, error) {
	mounts, err := mountPoints()
	if err != nil {
		return nil, err
	}
	s := &spot{}
	for _, p := range mounts {
		if name, ok := below(dir, p); ok && name != "" {
			s.add(name).mount = true
		}
	}
	for _, p := range j.Keep {
		if _, there, err := lstat(p); err != nil {
			return nil, err
		} else if there {
			mounts = append(mounts, p)
		}
	}
	for _, p := range mounts {
		if name, ok := below(dir, p); ok {
			s.keep(name, common(name))
		}
	}
	for _, p := range j.Ignore {
		if name, ok := below(dir, p); ok {
			s.keep(name, true)
		}
	}
	for _, p := range j.Stay {
		st, there, err := lstat(p)
		if err != nil {
			return nil, err
		}
		if name, ok := below(dir, p); ok && there && isDir(st) {
			s.add(name)
		}
	}
	return s, nil
}

// common tells whether every container has something of its own there, whatever
// is in its image.
func common(name string) bool {
	first, _, _ := strings.Cut(name, "/")
	return slices.Contains([]string{"dev", "proc", "sys"}, first) || slices.Contains([]string{"etc/hosts", "etc/resolv.conf", "etc/hostname"}, name)
}

// hidden is a spot where a command would not see files of the stack, or where it
// would work beside them: with its path relative to the root; nil if there is none.
func (s *spot) hidden(name, workdir string) (string, *spot) {
	if s.kept && !s.mute && (s.full || workdir == name || strings.HasPrefix(workdir, name+"/")) {
		return name, s
	}
	for _, n := range slices.Sorted(maps.Keys(s.below)) {
		if found, at := s.below[n].hidden(join(name, n), workdir); at != nil {
			return found, at
		}
	}
	return "", nil
}

// below is the path p relative to dir, if it is in it.
func below(dir, p string) (string, bool) {
	dir, p = path.Clean(dir), path.Clean(p)
	if dir == "/" {
		return tree.Clean(p), true
	}
	rest, ok := strings.CutPrefix(p, dir+"/")
	return rest, ok
}

// mountPoints are all of this process's mount namespace, below its root.
func mountPoints() ([]string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mount points: %w", err)
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		out = append(out, unescape(f[4]))
	}
	return out, nil
}

// unescape undoes what the kernel does to blanks, tabs, line ends and backslashes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
