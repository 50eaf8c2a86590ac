package store

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/opencontainers/go-digest"
)

// Move is what a release does to one tag.
type Move struct {
	Name  string        `json:"name"`            // in full, with registry and tag
	Prior digest.Digest `json:"prior,omitempty"` // "" when the tag did not exist
	Next  digest.Digest `json:"next"`
}

// Release is the journal of a release: the tags that it moves, and what they
// stood for. It is written before the first of them moves, and is there until all
// have moved or are as they were.
type Release struct {
	ID    string `json:"-"`
	Moves []Move `json:"moves"`
}

func releasePath(id string) string { return dirReleases + "/" + escape(id) }

func releaseLock(id string) string { return "release " + id }

// BeginRelease writes a journal, and holds it as long as this process lives, or
// until end is called; whole says that it is needed no more. With whole false
// moves takes the place of what was written.
func (s *Store) BeginRelease(moves []Move) (end func(whole bool, moves []Move) error, err error) {
	id := random()
	unlock, ok, err := s.TryLock(releaseLock(id))
	if err != nil || !ok {
		return nil, fmt.Errorf("begin release: lock its journal: %w", err)
	}
	if err := s.putJSON(releasePath(id), Release{Moves: moves}); err != nil {
		unlock()
		return nil, fmt.Errorf("begin release: %w", err)
	}
	return func(whole bool, moves []Move) error {
		defer unlock()
		if whole {
			return s.EndRelease(id)
		}
		if err := s.putJSON(releasePath(id), Release{Moves: moves}); err != nil {
			return fmt.Errorf("record release: %w", err)
		}
		return nil
	}, nil
}

// BrokenReleases are the journals of those that did not end and that nobody
// works at, in no order. A journal that cannot be read is left out.
func (s *Store) BrokenReleases() ([]Release, error) {
	list, err := fs.ReadDir(s.root.FS(), dirReleases)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list releases: %w", err)
	}
	var out []Release
	for _, e := range list {
		unlock, ok, err := s.TryLock(releaseLock(e.Name()))
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		r := Release{ID: e.Name()}
		if err := s.getJSON(releasePath(r.ID), "release", &r); err == nil {
			out = append(out, r)
		}
		unlock()
	}
	return out, nil
}

// EndRelease removes a journal; one that is gone is fine.
func (s *Store) EndRelease(id string) error {
	if err := s.root.Remove(releasePath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("end release: %w", err)
	}
	return nil
}
