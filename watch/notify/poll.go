package notify

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// print is what tells a changed file without reading it.
type print struct {
	dev, ino     uint64
	mode         uint32
	size         int64
	mtime, ctime unix.Timespec
}

func printOf(name string) (print, bool) {
	var st unix.Stat_t
	if unix.Lstat(name, &st) != nil {
		return print{}, false
	}
	p := print{dev: st.Dev, ino: st.Ino, mode: st.Mode, size: st.Size, mtime: st.Mtim, ctime: st.Ctim}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR { // what is in it is looked at by itself
		p.size, p.mtime, p.ctime = 0, unix.Timespec{}, unix.Timespec{}
	}
	return p, true
}

// poller compares files with what they were at the last look.
type poller struct {
	seen map[string]print
}

// look adds what has changed since the last look to s, and remembers what there is
// now. The first look finds nothing.
func (p *poller) look(i *Interest, s *Set) {
	now := make(map[string]print, len(p.seen))
	see := func(name string) (dir bool) {
		pr, ok := printOf(name)
		if !ok {
			return false
		}
		now[name] = pr
		return pr.mode&unix.S_IFMT == unix.S_IFDIR
	}
	var walk func(dir string)
	walk = func(dir string) {
		list, err := os.ReadDir(dir)
		if err != nil {
			return // it is gone, or nobody can read it
		}
		for _, e := range list {
			name := filepath.Join(dir, e.Name())
			if e.IsDir() && !i.enters(name) {
				continue
			}
			if see(name) {
				walk(name)
			}
		}
	}
	for _, f := range i.Files {
		see(f)
	}
	walked := map[string]bool{}
	for _, t := range i.Trees {
		if !walked[t] && see(t) {
			walked[t] = true
			walk(t)
		}
	}
	if p.seen != nil {
		for name, pr := range now {
			if old, ok := p.seen[name]; !ok || old != pr {
				s.Add(name, false)
			}
		}
		for name := range p.seen {
			if _, ok := now[name]; !ok {
				s.Add(name, false)
			}
		}
	}
	p.seen = now
}
