package files

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// Read reads a file of at most limit bytes. Pipes and devices are refused before they
// are opened, as that could wait for ever or have no end; those that the shell has
// opened for this process (/dev/stdin, /dev/fd/63 of <(...)) are read.
func Read(name string, limit int64) ([]byte, error) {
	if err := Check(name); err != nil {
		return nil, err
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = &SizeError{limit}
	}
	return b, err
}

// SizeError is a file that is too large.
type SizeError struct{ Limit int64 } // bytes

func (e *SizeError) Error() string { return fmt.Sprintf("it has more than %d bytes", e.Limit) }

// KindError is something that is there and is no file.
type KindError struct{ Kind string } // "a directory"

func (e *KindError) Error() string { return "it is " + e.Kind + ", no file" }

// Check tells whether Read would take name: the error is a *KindError for what is no
// file, and that of stat for what cannot be looked at.
func Check(name string) error {
	st, err := os.Stat(name)
	if err != nil {
		return err
	}
	mode := st.Mode()
	switch {
	case mode.IsDir():
		return &KindError{"a directory"}
	case mode.IsRegular() || given(name) || name == os.DevNull:
		return nil
	case mode&fs.ModeNamedPipe != 0:
		return &KindError{"a named pipe"}
	case mode&fs.ModeSocket != 0:
		return &KindError{"a socket"}
	}
	return &KindError{"a device"}
}

// given tells whether name stands for what this process has open already.
func given(name string) bool {
	return name == "/dev/stdin" || name == "/dev/stdout" || name == "/dev/stderr" ||
		strings.HasPrefix(name, "/dev/fd/") || strings.HasPrefix(name, "/proc/self/fd/")
}
