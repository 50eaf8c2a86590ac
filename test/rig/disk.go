package rig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Disk makes a file system of its own, an ext4 with a journal of size bytes, in a
// sparse file in dir, and mounts it there. stop takes both away. It needs root.
//
// Measurements want it: ext4 without a journal, which some virtual machines have,
// does not use an inode again for one to five minutes after its file was removed,
// and steps over all of those for each new file (recently_deleted in the kernel's
// fs/ext4/ialloc.c). What one build removed then makes the next one up to ten times
// slower, whichever tool it is of.
func Disk(dir string, size int64) (mounted string, stop func() error, err error) {
	file, mounted := filepath.Join(dir, "disk.img"), filepath.Join(dir, "disk")
	if err := errors.Join(os.Mkdir(mounted, 0o755), os.WriteFile(file, nil, 0o600), os.Truncate(file, size)); err != nil {
		return "", nil, err
	}
	for _, args := range [][]string{
		{"mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", file},
		{"mount", "-o", "loop", file, mounted},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return "", nil, errors.Join(fmt.Errorf("%q: %w\n%s", args, err, out), os.Remove(file), os.Remove(mounted))
		}
	}
	return mounted, func() error {
		if out, err := exec.Command("umount", mounted).CombinedOutput(); err != nil {
			return fmt.Errorf("umount %s: %w\n%s", mounted, err, out)
		}
		return errors.Join(os.Remove(file), os.Remove(mounted))
	}, nil
}
