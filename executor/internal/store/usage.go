package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Use is how much one part of a store holds.
type Use struct {
	Files int64 // of any type, without directories
	Bytes int64 // that the disk gave to them; files with several names count once
}

// Usage measures the parts of the store by name ("blobs", "layers", …). What
// may not be read is left out.
func (s *Store) Usage(ctx context.Context) (map[string]Use, error) {
	out := map[string]Use{}
	for _, part := range []string{"blobs", dirKeys, dirLayers, dirVariants, dirFiles, dirImages, dirIndexes, dirLocks, dirTemp} {
		var u Use
		type inode struct{ dev, ino uint64 }
		many := map[inode]bool{}
		err := filepath.WalkDir(filepath.Join(s.dir, part), func(_ string, e fs.DirEntry, err error) error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
				return nil
			}
			if err != nil {
				return err
			}
			st, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			sys, ok := st.Sys().(*unixStat)
			if !ok {
				return nil
			}
			if !e.IsDir() {
				u.Files++
			}
			if id := (inode{uint64(sys.Dev), sys.Ino}); sys.Nlink > 1 && !e.IsDir() {
				if many[id] {
					return nil
				}
				many[id] = true
			}
			u.Bytes += sys.Blocks * 512
			return nil
		})
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		out[part] = u
	}
	return out, nil
}
