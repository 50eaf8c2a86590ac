package executor

import (
	"crypto/sha256"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"

	"kaniko-build/executor/internal/layer"
	"kaniko-build/executor/internal/store"
)

// The layer of a copy of many files is compressed again when one of them was saved.
// What is remembered of its last blob says which blocks were compressed there, so that
// only those are compressed in which something changed. The blob is the same to the
// byte: a block is found by the hash of what is in it, and what was read from the old
// blob by the hash of that.

// piecesScheme is another whenever a block may be compressed to other bytes.
const piecesScheme = "pieces 1"

// pieceRecord is what is remembered of a step's last blob.
type pieceRecord struct {
	Scheme string
	Params store.Params
	Blob   digest.Digest
	List   []piece
}

type piece struct {
	Sum, Packed []byte // SHA-256
	At          int64
	Size        int
}

// pieces are those of the blobs of one step. They are a layer.Pieces.
type pieces struct {
	store *store.Store
	id    string
	old   map[[sha256.Size]byte]piece
	blob  *os.File // the old one

	mu     sync.Mutex
	record pieceRecord
	reused int
}

// piecesOf is what is remembered for a step; nil if nothing is to be.
func (c *core) piecesOf(st *jobStage, s *jobStep, p store.Params) *pieces {
	if c.job.Pieces == "" || s.Copy == nil || p.Compression == string(layer.None) {
		return nil
	}
	x := &pieces{store: c.store, id: "pieces " + c.job.Pieces + " " + stepName(st.Title, s.Text), record: pieceRecord{Scheme: piecesScheme, Params: p}}
	var then pieceRecord
	if c.store.GetPast(x.id, &then) != nil || then.Scheme != piecesScheme || !sameForm(then.Params, p) {
		return x
	}
	f, _, err := c.store.File(then.Blob)
	if err != nil {
		return x
	}
	x.blob, x.old = f, make(map[[sha256.Size]byte]piece, len(then.List))
	for _, one := range then.List {
		if len(one.Sum) == sha256.Size {
			x.old[[sha256.Size]byte(one.Sum)] = one
		}
	}
	return x
}

// sameForm tells whether blobs are compressed alike.
func sameForm(a, b store.Params) bool {
	return a.MediaType == b.MediaType && a.Compression == b.Compression && a.Level == b.Level
}

// maxPiece is more than any compressed block has, in bytes.
const maxPiece = 4 << 20

// Find is that of layer.Pieces.
func (x *pieces) Find(b []byte, sum [sha256.Size]byte) ([]byte, bool) {
	one, ok := x.old[sum]
	if !ok || one.Size < 0 || one.Size > maxPiece {
		return b, false
	}
	at := len(b)
	b = append(b, make([]byte, one.Size)...)
	if _, err := x.blob.ReadAt(b[at:], one.At); err != nil {
		return b[:at], false
	}
	if got := sha256.Sum256(b[at:]); string(got[:]) != string(one.Packed) { // the blob is damaged
		return b[:at], false
	}
	x.mu.Lock()
	x.reused++
	x.mu.Unlock()
	return b, true
}

// Made is that of layer.Pieces.
func (x *pieces) Made(sum, packed [sha256.Size]byte, at int64, size int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.record.List = append(x.record.List, piece{sum[:], packed[:], at, size})
}

// keep remembers the pieces of a blob that is whole. That they cannot be is no failure
// of a build.
func (x *pieces) keep(blob digest.Digest) {
	if x == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.record.Blob = blob; len(x.record.List) > 1 { // of a single one nothing would be left as it was
		_ = x.store.PutPast(x.id, "", x.record)
	}
}

// asPieces keeps a nil one nil.
func (x *pieces) asPieces() layer.Pieces {
	if x == nil {
		return nil
	}
	return x
}

func (x *pieces) close() {
	if x != nil && x.blob != nil {
		x.blob.Close()
	}
}
