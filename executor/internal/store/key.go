package store

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/opencontainers/go-digest"
)

// Key is the hash of everything that a step's result depends on.
type Key [32]byte

func (k Key) String() string { return hex.EncodeToString(k[:]) }

// MarshalText makes a Key a hexadecimal string in JSON.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (k *Key) UnmarshalText(b []byte) error {
	if len(b) != 2*len(k) {
		return fmt.Errorf("a key has %d hexadecimal digits, not %d", 2*len(k), len(b))
	}
	_, err := hex.Decode(k[:], b)
	return err
}

// KeyOf hashes lines, each framed by its length, so that no two lists give the
// same bytes.
func KeyOf(lines []string) Key {
	h := sha256.New()
	var n [8]byte
	for _, l := range lines {
		binary.BigEndian.PutUint64(n[:], uint64(len(l)))
		h.Write(n[:])
		h.Write([]byte(l))
	}
	return Key(h.Sum(nil))
}

// Entry says what a step made.
type Entry struct {
	DiffID  digest.Digest `json:"diffID"`            // sha256 of the uncompressed tar; "" if the step changed nothing
	Layer   string        `json:"layer,omitempty"`   // id of the unpacked layer, for LayerDir
	Content digest.Digest `json:"content,omitempty"` // of the files whatever their times
	Size    int64         `json:"size"`              // bytes of the uncompressed tar
	Created time.Time     `json:"created"`
	Full    bool          `json:"full"` // made with a full range of ids, not with a single one
	Lines   []string      `json:"lines,omitempty"`
	// ByContent is the other key of the step, of an entry by definition: what
	// was made is found by that too.
	ByContent *Key `json:"byContent,omitempty"`
}

// record is an Entry on disk. The key is in it so that a file that was copied
// or truncated to something still readable is seen.
type record struct {
	Key Key `json:"key"`
	Entry
}

// keyPath: what was made with a single id lies beside what was made with all,
// and neither takes the place of the other.
func keyPath(k Key, full bool) string {
	h := k.String()
	if !full {
		h += ".single"
	}
	return dirKeys + "/" + h[:2] + "/" + h
}

// GetKey finds what was made for k. Absent, damaged and not usable entries are a
// Miss. With full it answers only with entries that are Full, else it prefers
// them.
func (s *Store) GetKey(k Key, full bool) (Entry, error) {
	e, err := s.getKey(k, true)
	if err == nil || full {
		return e, err
	}
	single, err2 := s.getKey(k, false)
	if err2 == nil {
		return single, nil
	}
	var m *Miss
	if errors.As(err, &m) && m.Reason != "" {
		return Entry{}, err
	}
	return Entry{}, err2
}

func (s *Store) getKey(k Key, full bool) (Entry, error) {
	what := "key " + k.String()
	var r record
	if err := s.getJSON(keyPath(k, full), what, &r); err != nil {
		return Entry{}, err
	}
	bad := ""
	switch {
	case r.Key != k:
		bad = "its record is that of another key, " + r.Key.String()
	case r.Full != full:
		bad = "its record lies in the wrong place"
	case r.DiffID != "" && r.DiffID.Validate() != nil:
		bad = fmt.Sprintf("its record has a bad diffID %q", r.DiffID)
	case r.Content != "" && r.Content.Validate() != nil:
		bad = fmt.Sprintf("its record has a bad content digest %q", r.Content)
	case r.Size < 0:
		bad = "its record has a negative size"
	}
	if bad != "" {
		return Entry{}, &Miss{What: what, Reason: bad}
	}
	return r.Entry, nil
}

// PutKey records what was made for k. An older entry of the same kind is
// replaced.
func (s *Store) PutKey(k Key, e Entry) error {
	if err := s.putJSON(keyPath(k, e.Full), record{k, e}); err != nil {
		return fmt.Errorf("record key %s: %w", k, err)
	}
	return nil
}

// RemoveKey forgets both entries of k; absent ones are fine.
func (s *Store) RemoveKey(k Key) error {
	for _, full := range []bool{true, false} {
		if err := s.root.Remove(keyPath(k, full)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget key %s: %w", k, err)
		}
	}
	return nil
}

// Keys are those of all entries that are Full, sorted.
func (s *Store) Keys() ([]Key, error) {
	dirs, err := fs.ReadDir(s.root.FS(), dirKeys)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the keys: %w", err)
	}
	var out []Key
	for _, d := range dirs {
		list, err := fs.ReadDir(s.root.FS(), dirKeys+"/"+d.Name())
		if err != nil {
			return nil, fmt.Errorf("list the keys: %w", err)
		}
		for _, e := range list {
			var k Key
			if k.UnmarshalText([]byte(e.Name())) == nil { // else of a single id
				out = append(out, k)
			}
		}
	}
	return out, nil
}
