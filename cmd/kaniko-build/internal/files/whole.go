package files

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Whole writes a file that is complete or as it was, and makes the directories above
// it. A link stays one, and what it leads to is written; a file that is there keeps its
// mode. Devices, pipes and what this process has open (/dev/stdout) are written in place:
// a rename would put a file where the device was.
func Whole(name string, write func(io.Writer) error) error {
	if err := whole(name, write); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func whole(name string, write func(io.Writer) error) error {
	mode := fs.FileMode(0o644)
	st, err := os.Stat(name)
	switch {
	case err == nil && st.IsDir():
		return &KindError{"a directory"}
	case err == nil && (given(name) || !st.Mode().IsRegular()):
		return inPlace(name, write)
	case err == nil:
		mode = st.Mode().Perm()
		if name, err = filepath.EvalSymlinks(name); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".tmp-*")
	if err != nil {
		return Pathless(err)
	}
	err = write(f)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(withoutTemp(err, f.Name()), os.Remove(f.Name()))
	}
	return nil
}

func inPlace(name string, write func(io.Writer) error) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return Pathless(err)
	}
	return withoutTemp(errors.Join(write(f), f.Close()), name)
}

// Pathless is what the system says of a file that the caller names.
func Pathless(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// withoutTemp is an error without the name of the temporary file, which the user never gave.
func withoutTemp(err error, temp string) error {
	var at *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &at) && at.Path == temp:
		return at.Err
	case errors.As(err, &link) && link.Old == temp:
		return link.Err
	}
	return err
}
