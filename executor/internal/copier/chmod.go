package copier

import (
	"fmt"
	"os"
	"strconv"

	mode "github.com/tonistiigi/dchapes-mode"
	"golang.org/x/sys/unix"

	"kaniko-build/schema/diag"
)

// Chmod is what --chmod does to modes. The zero value leaves them.
type Chmod struct {
	octal  bool
	bits   uint32
	change *mode.Set
}

// ParseChmod reads an octal number or a symbolic mode as chmod(1) has it;
// "" is no change.
func ParseChmod(s string) (Chmod, error) {
	if s == "" {
		return Chmod{}, nil
	}
	if n, err := strconv.ParseUint(s, 8, 32); err == nil {
		if n > 0o7777 {
			return Chmod{}, badChmod(s)
		}
		return Chmod{octal: true, bits: uint32(n)}, nil
	}
	if s[0] >= '0' && s[0] <= '9' {
		return Chmod{}, badChmod(s)
	}
	set, err := mode.ParseWithUmask(s, 0)
	if err != nil {
		return Chmod{}, &diag.Problem{What: fmt.Sprintf("invalid chmod parameter %q: %v", s, err), Hint: "write it in octal, as 0644, or as chmod does, as u=rw,go=r"}
	}
	return Chmod{change: &set}, nil
}

func badChmod(s string) error {
	return &diag.Problem{What: fmt.Sprintf("invalid chmod parameter: '%s'. it should be octal string and between 0 and 07777", s)}
}

// apply is the st_mode that a copy of a file with mode m gets.
func (c Chmod) apply(m uint32) uint32 {
	typ := m & unix.S_IFMT
	switch {
	case typ == unix.S_IFLNK:
		return m
	case c.octal:
		return typ | c.bits
	case c.change == nil:
		return m
	}
	fm := os.FileMode(m & 0o777)
	for _, b := range modeBits {
		if m&b.unix != 0 {
			fm |= b.file
		}
	}
	if typ == unix.S_IFDIR {
		fm |= os.ModeDir
	}
	fm = c.change.Apply(fm)
	out := typ | uint32(fm.Perm())
	for _, b := range modeBits {
		if fm&b.file != 0 {
			out |= b.unix
		}
	}
	return out
}

var modeBits = []struct {
	unix uint32
	file os.FileMode
}{{unix.S_ISUID, os.ModeSetuid}, {unix.S_ISGID, os.ModeSetgid}, {unix.S_ISVTX, os.ModeSticky}}

// parents is the mode of directories that are made on the way: an octal mode
// without its special bits, else 0755.
func (c Chmod) parents() uint32 {
	if c.octal {
		return c.bits & 0o777
	}
	return 0o755
}
