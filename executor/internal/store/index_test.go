package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestIndexes(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{Owner: os.Getuid()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	id := digest.FromString("layer")
	if _, err := s.GetIndex(id, 100); !errors.Is(err, ErrMiss) || s.HasIndex(id) {
		t.Errorf("absent: %v", err)
	}
	if err := s.PutIndex(id, []byte("names")); err != nil {
		t.Fatal(err)
	}
	if b, err := s.GetIndex(id, 5); err != nil || string(b) != "names" || !s.HasIndex(id) {
		t.Errorf("got %q, %v", b, err)
	}
	if _, err := s.GetIndex(id, 4); !errors.Is(err, ErrMiss) {
		t.Errorf("larger than allowed: %v", err)
	}
	for range 2 {
		if err := s.RemoveIndex(id); err != nil || s.HasIndex(id) {
			t.Errorf("removed: %v", err)
		}
	}
	for _, bad := range []digest.Digest{"", "sha256:../../format", "sha512:00"} {
		if err := s.PutIndex(bad, nil); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	// A store from before there were indexes gets the directory.
	if err := os.Remove(filepath.Join(dir, dirIndexes)); err != nil {
		t.Fatal(err)
	}
	again, err := Open(dir, Options{Owner: os.Getuid(), NodeOwner: &[2]int{os.Getuid(), os.Getgid()}})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.PutIndex(id, []byte("names")); err != nil {
		t.Error(err)
	}
}
