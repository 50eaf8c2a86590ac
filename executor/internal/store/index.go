package store

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/opencontainers/go-digest"
)

func indexPath(diffID digest.Digest) (string, error) {
	if diffID.Validate() != nil || diffID.Algorithm() != digest.SHA256 {
		return "", fmt.Errorf("%q is no sha256 diffID", diffID)
	}
	return dirIndexes + "/" + diffID.Encoded(), nil
}

// PutIndex keeps the index of the layer diffID, in whatever form the caller has it.
func (s *Store) PutIndex(diffID digest.Digest, b []byte) error {
	name, err := indexPath(diffID)
	if err != nil {
		return err
	}
	f, tmp, err := s.create("index")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("write index: %w", err), s.root.Remove(tmp))
	}
	if err := s.rename(tmp, name); err != nil {
		return errors.Join(err, s.root.Remove(tmp))
	}
	return nil
}

// GetIndex is the index of a layer; one that is absent or has more than limit
// bytes is a Miss. The bytes are not checked.
func (s *Store) GetIndex(diffID digest.Digest, limit int64) ([]byte, error) {
	name, err := indexPath(diffID)
	if err != nil {
		return nil, err
	}
	b, err := s.read(name, limit)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &Miss{What: "index of " + diffID.String()}
	case err != nil:
		return nil, &Miss{What: "index of " + diffID.String(), Reason: err.Error()}
	}
	return b, nil
}

// HasIndex tells whether there is an index of the layer, and marks it as used. It
// does not look into it.
func (s *Store) HasIndex(diffID digest.Digest) bool {
	name, err := indexPath(diffID)
	if err != nil {
		return false
	}
	st, err := s.root.Lstat(name)
	return err == nil && st.Mode().IsRegular() && (s.fresh(st.ModTime()) || s.use(name))
}

// RemoveIndex removes the index of a layer; one that is absent is fine.
func (s *Store) RemoveIndex(diffID digest.Digest) error {
	name, err := indexPath(diffID)
	if err != nil {
		return err
	}
	if err := s.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove index: %w", err)
	}
	return nil
}
