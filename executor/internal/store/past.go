package store

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// What was built last is kept to explain what is built next. Nothing depends on
// it: a record that is gone makes an explanation poorer, never a build wrong.
//
//	past/nodes/<id>     the last build of a node: a line that tells it apart, then JSON
//	past/files/<name>   the lines of many files, which a key names by their hash

const (
	dirPastNodes = dirPast + "/nodes"
	dirPastFiles = dirPast + "/files"

	maxListing  = 256 << 20 // bytes of one listing, uncompressed
	maxListings = 64 << 20  // bytes of all, compressed; the oldest go first
	maxStamp    = 128       // bytes of the line before a record
)

// PutPast records the last build of a node, in place of the one before. stamp is
// one line of at most 128 bytes.
func (s *Store) PutPast(id, stamp string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode the last build of %s: %w", id, err)
	}
	if err := s.putBytes(dirPastNodes+"/"+escape(id), append([]byte(stamp+"\n"), b...)); err != nil {
		return fmt.Errorf("record the last build of %s: %w", id, err)
	}
	return nil
}

// PastStamp is the line that PutPast was given for a node; "" if there is none.
func (s *Store) PastStamp(id string) string {
	b, err := s.head(dirPastNodes+"/"+escape(id), maxStamp+1)
	if err != nil {
		return ""
	}
	stamp, _, _ := bytes.Cut(b, []byte("\n"))
	return string(stamp)
}

// GetPast reads what PutPast recorded; it is a Miss if there is nothing, or
// nothing whole.
func (s *Store) GetPast(id string, v any) error {
	what := "the last build of " + id
	b, err := s.read(dirPastNodes+"/"+escape(id), maxRecord)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &Miss{What: what}
	case err != nil:
		return &Miss{What: what, Reason: err.Error()}
	}
	_, b, _ = bytes.Cut(b, []byte("\n"))
	if err := json.Unmarshal(b, v); err != nil {
		return &Miss{What: what, Reason: "its record is damaged: " + err.Error()}
	}
	return nil
}

// TouchListing marks a listing as used; false says that it is not there.
func (s *Store) TouchListing(name string) bool {
	now := time.Now()
	return s.root.Chtimes(dirPastFiles+"/"+escape(name), now, now) == nil
}

// PutListing keeps lines, none with a line break in it, under a name that
// stands for exactly them.
func (s *Store) PutListing(name string, lines []string) error {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		return fmt.Errorf("keep listing %s: %w", name, err)
	}
	for _, l := range lines {
		_, err = io.WriteString(z, l+"\n")
		if err != nil {
			break
		}
	}
	if err := errors.Join(err, z.Close()); err != nil {
		return fmt.Errorf("keep listing %s: %w", name, err)
	}
	if err := s.putBytes(dirPastFiles+"/"+escape(name), b.Bytes()); err != nil {
		return fmt.Errorf("keep listing %s: %w", name, err)
	}
	return nil
}

// GetListing reads what PutListing kept; it is a Miss if there is nothing, or
// nothing whole.
func (s *Store) GetListing(name string) ([]string, error) {
	what := "listing " + name
	b, err := s.read(dirPastFiles+"/"+escape(name), maxListings)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &Miss{What: what}
		}
		return nil, &Miss{What: what, Reason: err.Error()}
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, &Miss{What: what, Reason: err.Error()}
	}
	text, err := io.ReadAll(io.LimitReader(z, maxListing+1))
	switch {
	case err != nil:
		return nil, &Miss{What: what, Reason: err.Error()}
	case len(text) > maxListing:
		return nil, &Miss{What: what, Reason: fmt.Sprintf("it has more than %d bytes", maxListing)}
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n"), nil
}

// TrimListings removes the listings that were used longest ago, until the rest
// fits. It is cheap, but no thing to do for each listing.
func (s *Store) TrimListings(ctx context.Context) error {
	list, err := fs.ReadDir(s.root.FS(), dirPastFiles)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("list listings: %w", err)
	}
	var files []fs.FileInfo
	var total int64
	for _, e := range list {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if fi, err := e.Info(); err == nil { // else another process removed it
			files = append(files, fi)
			total += fi.Size()
		}
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for _, fi := range files {
		if total <= maxListings {
			return nil
		}
		total -= fi.Size()
		if err := s.root.Remove(path.Join(dirPastFiles, fi.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove listing: %w", err)
		}
	}
	return nil
}
