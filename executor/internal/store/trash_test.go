package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// age sets the last use of everything in the store back.
func age(t *testing.T, s *Store, by time.Duration) {
	t.Helper()
	then := time.Now().Add(-by)
	for _, thing := range things(t, s) {
		if thing.Kind == KindTemp {
			continue
		}
		if err := os.Chtimes(filepath.Join(s.Dir(), thing.Removal().mark()), then, then); err != nil {
			t.Fatal(err)
		}
	}
}

func things(t *testing.T, s *Store) []Thing {
	t.Helper()
	list, err := s.Things(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// empty takes all that is not held.
func empty(t *testing.T, s *Store) {
	t.Helper()
	trash, err := s.Trash("")
	if err != nil {
		t.Fatal(err)
	}
	defer trash.Close()
	for _, thing := range things(t, s) {
		if thing.Kind == KindTemp {
			continue
		}
		if _, err := trash.Take(thing.Removal()); err != nil {
			t.Error(err)
		}
	}
}

// What a session finds stays while it lives, however old it is; what it did not
// look at goes.
func TestTrashLeavesWhatALiveSessionHasFound(t *testing.T) {
	dir := t.TempDir()
	s := testOpen(t, dir)
	layer := s.LayerDir("map", "one")
	for _, name := range []string{"used", "other"} {
		d, err := s.PutBlob([]byte(name))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.PutKey(KeyOf([]string{name}), Entry{DiffID: d, Full: true}); err != nil {
			t.Fatal(err)
		}
		if err := s.PutVariant(Variant{DiffID: d, Descriptor: descriptor(d, int64(len(name)))}); err != nil {
			t.Fatal(err)
		}
		if err := s.PutImage(Image{Name: "x/" + name + ":1", Descriptor: descriptor(d, int64(len(name)))}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(layer, "fs"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(s.CacheDir("map", "c"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.UseCache("map", "c", "id"); err != nil {
		t.Fatal(err)
	}
	age(t, s, 48*time.Hour)

	build, err := Open(dir, Options{Owner: os.Getuid()})
	if err != nil {
		t.Fatal(err)
	}
	if err := build.Hold(); err != nil {
		t.Fatal(err)
	}
	d := digest.FromString("used")
	look := func(b *Store) error {
		_, err := b.GetKey(KeyOf([]string{"used"}), true)
		if _, ok := b.GetVariant(d, Params{}); !ok {
			err = errors.Join(err, errors.New("no variant"))
		}
		if _, ok := b.Has(d); !ok {
			err = errors.Join(err, errors.New("no blob"))
		}
		_, err2 := b.GetImage("x/used:1")
		if !b.Use(layer) {
			err2 = errors.Join(err2, errors.New("no layer"))
		}
		return errors.Join(err, err2, b.UseCache("map", "c", "id"))
	}
	if err := look(build); err != nil {
		t.Fatal(err)
	}
	empty(t, s)
	if err := look(build); err != nil {
		t.Errorf("a live session lost what it had found: %v", err)
	}
	if _, err := os.Stat(s.CacheDir("map", "c")); err != nil {
		t.Error(err)
	}
	if _, err := build.GetKey(KeyOf([]string{"other"}), true); !errors.Is(err, ErrMiss) {
		t.Errorf("what nobody looked at: %v", err)
	}
	if _, ok := build.Has(digest.FromString("other")); ok {
		t.Error("a blob that nobody looked at is there")
	}
	if err := build.Close(); err != nil {
		t.Fatal(err)
	}
	age(t, s, 48*time.Hour)
	empty(t, s)
	age(t, s, 48*time.Hour)
	empty(t, s) // the mark of the cache's folder
	for _, thing := range things(t, s) {
		if thing.Kind != KindTemp {
			t.Errorf("%s stays after the session has ended", thing.Path)
		}
	}
	if n, left, err := s.Sweep(t.Context(), nil); n == 0 || len(left) > 0 || err != nil {
		t.Errorf("sweep: %d, %q, %v", n, left, err)
	}
}

// A decision is about a thing as it was seen: one that was used or made anew
// since then stays, though nobody holds it.
func TestTrashLeavesWhatWasUsedSince(t *testing.T) {
	s := testOpen(t, t.TempDir())
	d, err := s.PutBlob([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	age(t, s, time.Hour*2)
	seen := things(t, s)
	if _, ok := s.Has(d); !ok {
		t.Fatal("no blob")
	}
	trash, err := s.Trash("")
	if err != nil {
		t.Fatal(err)
	}
	defer trash.Close()
	for _, thing := range seen {
		if ok, err := trash.Take(thing.Removal()); ok || err != nil {
			t.Errorf("%s: taken %v, %v", thing.Path, ok, err)
		}
	}
	if ok, err := trash.Take(Removal{Path: "blobs/sha256/none", Used: time.Now()}); ok || err != nil {
		t.Errorf("what is absent: %v, %v", ok, err)
	}
	if err := trash.giveBack("tmp/none", "blobs/none"); err == nil {
		t.Error("something was put back from nothing")
	}
}

// Whoever waits at the gate passes before it is shut again, however soon that is.
func TestTheGateIsShutAfterThoseWhoWait(t *testing.T) {
	s := testOpen(t, t.TempDir())
	trash, err := s.Trash("")
	if err != nil {
		t.Fatal(err)
	}
	defer trash.Close()
	again := func() (open func()) {
		t.Helper()
		open, ok := shut(trash.top, trash.queue, time.Minute)
		if !ok {
			t.Fatal("the gate cannot be shut")
		}
		return open
	}
	for range 20 {
		open := again()
		var passed atomic.Bool
		done := make(chan struct{})
		go func() {
			defer close(done)
			out := s.pass()
			passed.Store(true)
			out()
		}()
		for deadline := time.Now().Add(10 * time.Second); flock(trash.queue, unix.LOCK_EX) == nil; { // until it waits
			_ = unix.Flock(int(trash.queue.Fd()), unix.LOCK_UN)
			if time.Now().After(deadline) {
				t.Fatal("nobody waits at a gate that is shut")
			}
		}
		open()
		open = again()
		if !passed.Load() {
			t.Error("the gate was shut again before those who waited")
		}
		open()
		<-done
	}
}

// What cannot be looked at alone stays, and is not waited for twice.
func TestTrashLeavesWhatItCannotLookAtAlone(t *testing.T) {
	s := testOpen(t, t.TempDir())
	if _, err := s.PutBlob([]byte("x")); err != nil {
		t.Fatal(err)
	}
	age(t, s, 2*time.Hour)
	thing := things(t, s)[0]
	trash, err := s.Trash("")
	if err != nil {
		t.Fatal(err)
	}
	defer trash.Close()
	out := s.pass()
	trash.wait = time.Millisecond
	if ok, err := trash.Take(thing.Removal()); ok || err != nil || trash.wait != 0 {
		t.Errorf("while somebody is in the gate: taken %v, %v; waits %v the next time", ok, err, trash.wait)
	}
	out()
	if ok, err := trash.Take(thing.Removal()); !ok || err != nil || trash.wait != gatePatience {
		t.Errorf("after that: taken %v, %v; waits %v the next time", ok, err, trash.wait)
	}
}

// builder finds or makes things, and reads them later: as builds do. What it
// found has to be there until it is done.
func builder(dir string, seed uint64, rounds int) error {
	rnd := rand.New(rand.NewPCG(seed, 1))
	hits := 0
	for range rounds {
		s, err := Open(dir, Options{Owner: os.Getuid()})
		if err != nil {
			return err
		}
		if err := s.Hold(); err != nil {
			return err
		}
		found := map[int]bool{}
		for range 12 {
			i := rnd.IntN(60)
			text := fmt.Sprint("thing ", i)
			d, k := digest.FromString(text), KeyOf([]string{text})
			layer := s.LayerDir("map", d.Encoded())
			_, keyErr := s.GetKey(k, true)
			_, variant := s.GetVariant(d, Params{})
			unpacked := s.Use(layer)
			if keyErr == nil && variant && unpacked {
				found[i] = true
				hits++
				continue
			}
			if found[i] {
				return fmt.Errorf("%s was found, and now it is gone: key %v, variant %v, layer %v", text, keyErr, variant, unpacked)
			}
			t, err := s.TempDir("layer")
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(t.Path, "f"), []byte(text), 0o644); err != nil {
				return err
			}
			for {
				if won, err := t.Publish(layer); err != nil {
					return err
				} else if won || s.Use(layer) {
					break
				}
				if t, err = s.TempDir("layer"); err != nil {
					return err
				}
				if err := os.WriteFile(filepath.Join(t.Path, "f"), []byte(text), 0o644); err != nil {
					return err
				}
			}
			if _, err := s.PutBlob([]byte(text)); err != nil {
				return err
			}
			if err := errors.Join(s.PutVariant(Variant{DiffID: d, Descriptor: descriptor(d, int64(len(text)))}), s.PutKey(k, Entry{DiffID: d, Full: true})); err != nil {
				return err
			}
			found[i] = true
		}
		for i := range found {
			text := fmt.Sprint("thing ", i)
			d := digest.FromString(text)
			if b, err := s.ReadBlob(d, 100); err != nil || string(b) != text {
				return fmt.Errorf("the blob of %s, which was found: %q, %w", text, b, err)
			}
			if b, err := os.ReadFile(filepath.Join(s.LayerDir("map", d.Encoded()), "f")); err != nil || string(b) != text {
				return fmt.Errorf("the layer of %s, which was found: %q, %w", text, b, err)
			}
		}
		if err := s.Close(); err != nil {
			return err
		}
	}
	fmt.Println("hits", hits)
	return nil
}

// Builds run while others empty the store all the time: what a build has found
// stays for it, and the store is emptied all the same.
func TestTrashWhileBuildsRun(t *testing.T) {
	dir := t.TempDir()
	s := testOpen(t, dir)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan string, 3)
	for range 3 {
		p := start(t, "builder", dir, os.Getuid())
		go func() {
			var out bytes.Buffer
			_, _ = out.ReadFrom(p.out)
			if err := p.cmd.Wait(); err != nil {
				done <- err.Error() + ": " + out.String()
				return
			}
			done <- out.String()
		}()
	}
	var texts []string
	go func() {
		for range 3 {
			texts = append(texts, <-done)
		}
		stop()
	}()
	taken, gone := 0, 0
	for ctx.Err() == nil {
		trash, err := s.Trash("")
		if err != nil {
			t.Fatal(err)
		}
		list, err := s.Things(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, thing := range list {
			if thing.Kind == KindTemp {
				continue
			}
			ok, err := trash.Take(thing.Removal())
			if err != nil {
				t.Fatal(err)
			}
			if ok {
				taken++
			}
		}
		trash.Close()
		n, _, err := s.Sweep(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		gone += n
	}
	for _, text := range texts {
		if !strings.HasPrefix(text, "hits ") {
			t.Errorf("a build failed: %s", text)
		}
	}
	if taken < 50 || gone == 0 { // builds go first: how many there are depends on how busy they are
		t.Errorf("%d things taken, %d swept: nothing was tried", taken, gone)
	}
	t.Logf("%d things taken while builds ran; %s", taken, strings.ReplaceAll(strings.Join(texts, ""), "\n", " "))
}

// Every name at the top of a store is listed by Things, or known to hold
// nothing: who adds a directory tells du and prune of it.
func TestThingsKnowEveryDirectory(t *testing.T) {
	listed := []string{"blobs", dirKeys, dirLayers, dirVariants, dirFiles, dirImages, dirBases, dirTemp, dirCaches, dirPast, dirIndexes, dirReleases}
	nothing := []string{dirLocks, dirMounts, fileSizes, Isolation}
	for _, top := range tops {
		if !slices.Contains(listed, top) && !slices.Contains(nothing, top) {
			t.Errorf("%s: Things does not list it", top)
		}
	}
}

func TestThingsTellsWhatNeedsWhat(t *testing.T) {
	s := testOpen(t, t.TempDir())
	put := func(text string) digest.Digest {
		d, err := s.PutBlob([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	layer, config := put("layer"), put("config")
	manifest := fmt.Sprintf(`{"config":{"digest":%q},"layers":[{"digest":%q},{"digest":%q}]}`, config, layer, digest.FromString("of the base"))
	m := put(manifest)
	index := fmt.Sprintf(`{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q}]}`, m)
	ix := put(index)
	diffID := digest.FromString("tar")
	loose := digest.FromString("another tar")
	if err := errors.Join(
		s.PutVariant(Variant{DiffID: diffID, Descriptor: descriptor(layer, 5)}),
		s.PutKey(KeyOf([]string{"a"}), Entry{DiffID: diffID, Layer: "chain-a", Full: true}),
		s.PutKey(KeyOf([]string{"b"}), Entry{DiffID: loose, Layer: "chain-b", Full: true}),
		s.PutImage(Image{Name: "x/y:1", Descriptor: descriptor(ix, int64(len(index)))}),
		s.PutBase(Base{Name: "x/base:1", Descriptor: descriptor(m, int64(len(manifest)))}),
		os.MkdirAll(filepath.Join(s.LayerDir("map", "chain-a"), "fs"), 0o755),
		os.MkdirAll(filepath.Join(s.LayerDir("map", "chain-b"), "fs"), 0o755),
		os.WriteFile(filepath.Join(s.LayerDir("map", "chain-b"), "fs", "f"), make([]byte, 100_000), 0o644),
		os.Link(filepath.Join(s.LayerDir("map", "chain-b"), "fs", "f"), filepath.Join(s.LayerDir("map", "chain-b"), "fs", "g")),
	); err != nil {
		t.Fatal(err)
	}
	blob := func(d digest.Digest) string { return dirBlobs + "/" + d.Encoded() }
	want := map[string][]string{
		"images x/y:1":                          {blob(ix), blob(m), blob(config), blob(layer)},
		"bases x/base:1":                        {blob(m), blob(config), blob(layer)},
		"layers chain-a":                        nil,
		"layers chain-b":                        nil,
		"keys " + KeyOf([]string{"b"}).String(): {dirLayers + "/map/chain-b"},
	}
	sizes := map[string]int64{}
	list, err := s.Things(t.Context(), sizes)
	if err != nil {
		t.Fatal(err)
	}
	for _, thing := range list {
		name := string(thing.Kind) + " " + thing.Name
		if refs, ok := want[name]; ok {
			if !slices.Equal(thing.Refs, refs) {
				t.Errorf("%s refers to %q, want %q", name, thing.Refs, refs)
			}
			delete(want, name)
		}
		if thing.Name == "chain-b" && (thing.Bytes < 100_000 || thing.Bytes > 150_000) {
			t.Errorf("chain-b takes %d bytes, want those of its file once", thing.Bytes)
		}
		if thing.Kind == KindKey && thing.Name == KeyOf([]string{"a"}).String() && (len(thing.Refs) != 1 || !strings.HasPrefix(thing.Refs[0], dirVariants)) {
			t.Errorf("the key of a layer that has a blob refers to %q", thing.Refs)
		}
	}
	for name := range want {
		t.Errorf("%s is not listed", name)
	}
	if len(sizes) != 2 {
		t.Errorf("sizes learnt: %v", sizes)
	}
	if err := s.PutSizes(sizes, list); err != nil || len(s.Sizes()) != 2 {
		t.Errorf("sizes kept: %v, %v", s.Sizes(), err)
	}
}

func descriptor(d digest.Digest, size int64) ocispec.Descriptor {
	return ocispec.Descriptor{Digest: d, Size: size}
}
