package layer

import (
	"context"
	"fmt"
	"hash/maphash"
	"io"
	"sync"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/tree"
)

// Contents remembers what regular files hold, by inode, so that one whose
// times tell nothing can be compared with what it was, when that is no longer
// there: by a hash of 64 bits with a key that nobody outside knows, which costs
// next to nothing beside reading the file. Nil remembers nothing. It may be
// used from many goroutines.
type Contents struct {
	seed maphash.Seed

	mu   sync.Mutex
	sums map[inode]uint64
	caps map[inode]string // security.capability, of files that have it
}

// NewContents remembers nothing yet.
func NewContents() *Contents {
	return &Contents{seed: maphash.MakeSeed(), sums: map[inode]uint64{}, caps: map[inode]string{}}
}

// summing is a content on its way; nil is for nobody.
type summing struct {
	c *Contents
	h maphash.Hash
}

func (c *Contents) sum() *summing {
	if c == nil {
		return nil
	}
	s := &summing{c: c}
	s.h.SetSeed(c.seed)
	return s
}

func (s *summing) write(p []byte) {
	if s != nil {
		s.h.Write(p) //nolint:errcheck // it has none
	}
}

// of says whose content it was: the open file's.
func (s *summing) of(fd int) error {
	if s == nil {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	s.is(inode{st.Dev, st.Ino})
	return nil
}

// is says whose content it was.
func (s *summing) is(id inode) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.sums[id] = s.h.Sum64()
}

// capable notes the capabilities of a file.
func (c *Contents) capable(id inode, caps []byte) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(caps) == 0 {
		delete(c.caps, id)
	} else {
		c.caps[id] = string(caps)
	}
}

// capableAt is capable for the file at the real path p.
func (c *Contents) capableAt(p string, caps []byte) error {
	if c == nil {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	c.capable(inode{st.Dev, st.Ino}, caps)
	return nil
}

// Copied says that the file at to is a copy of the one at from: what is known of
// the one is known of the other.
func (c *Contents) Copied(from, to string) error {
	if c == nil {
		return nil
	}
	var a, b unix.Stat_t
	if err := unix.Lstat(from, &a); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	if err := unix.Lstat(to, &b); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if sum, ok := c.sums[inode{a.Dev, a.Ino}]; ok {
		c.sums[inode{b.Dev, b.Ino}] = sum
	}
	if caps, ok := c.caps[inode{a.Dev, a.Ino}]; ok {
		c.caps[inode{b.Dev, b.Ino}] = caps
	}
	return nil
}

// Equal tells whether the file name in dir, of the same size and time as
// before, is what it was when it was the inode of old: by BuildKit's rule the
// content counts only if the time has no fraction of a second. A file of
// which nothing is known is not equal.
func (c *Contents) Equal(ctx context.Context, dir *tree.Dir, name string, old, now tree.Entry) (bool, error) {
	c.mu.Lock()
	want, known := c.sums[inode{old.Dev, old.Ino}]
	caps := c.caps[inode{old.Dev, old.Ino}]
	c.mu.Unlock()
	x, err := dir.Xattrs(ctx, name)
	if err != nil || string(x[capability]) != caps {
		return false, err
	}
	if !now.IsRegular() || now.Size == 0 || now.ModTime.Nanosecond() != 0 {
		return true, nil
	}
	if !known {
		return false, nil
	}
	f, err := dir.OpenRegular(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	s := c.sum()
	if _, err := io.Copy(&s.h, f); err != nil {
		return false, fmt.Errorf("read %s: %w", name, err)
	}
	if s.h.Sum64() != want {
		return false, nil
	}
	c.capable(inode{now.Dev, now.Ino}, []byte(caps))
	return true, s.of(int(f.Fd()))
}
