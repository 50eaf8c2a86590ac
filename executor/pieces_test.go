package executor

import (
	"bytes"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/executor/internal/store"
)

// A blob is made of pieces of the last one only as far as those are whole, and with the
// same settings.
func TestPiecesAreCheckedBeforeTheyAreUsed(t *testing.T) {
	st, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	rnd := rand.New(rand.NewPCG(1, 1))
	data := make([]byte, 5<<20)
	for i := range data {
		data[i] = byte(rnd.Uint32())
	}
	c := &core{store: st, job: job{Pieces: "node"}}
	step := &jobStep{Step: dockerfile.Step{Copy: &dockerfile.Copy{}, Text: "COPY . /"}}
	encode := func(form Compression) (blob string, reused, all int) {
		t.Helper()
		p, err := encodeParams(form, nil)
		if err != nil {
			t.Fatal(err)
		}
		x := c.piecesOf(&jobStage{}, step, p)
		defer x.close()
		d, _, err := encodeTar(st, p, func(w io.Writer) error {
			_, err := io.Copy(w, bytes.NewReader(data))
			return err
		}, nil, x)
		if err != nil {
			t.Fatal(err)
		}
		return filepath.Join(st.Dir(), "blobs/sha256", d.Digest.Encoded()), x.reused, len(x.record.List)
	}
	first, reused, all := encode(Compression{})
	if reused != 0 || all < 5 {
		t.Fatalf("%d of %d blocks are from nowhere", reused, all)
	}
	data[0] ^= 1
	second, reused, _ := encode(Compression{})
	if reused != all-1 {
		t.Errorf("%d of %d blocks were used again after the first one changed", reused, all)
	}
	if _, reused, _ := encode(Compression{Level: 6}); reused != 0 {
		t.Errorf("%d blocks of another level were used", reused)
	}
	if _, reused, _ := encode(Compression{}); reused != 0 {
		t.Errorf("%d blocks of another level were used", reused) // the last blob is that of level 6
	}
	b, err := os.ReadFile(second)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	b[len(b)/2] ^= 1
	if err := os.WriteFile(second, b, 0o600); err != nil {
		t.Fatal(err)
	}
	third, reused, _ := encode(Compression{})
	if reused != all-1 {
		t.Errorf("%d of %d blocks of a damaged blob were used", reused, all)
	}
	if b, err := os.ReadFile(third); err != nil || sha256.Sum256(b) != sum || third != second {
		t.Errorf("what was made of a damaged blob is another: %v", err)
	}
	if err := os.Remove(second); err != nil {
		t.Fatal(err)
	}
	if _, reused, _ := encode(Compression{}); reused != 0 {
		t.Errorf("%d blocks of a blob that is gone were used", reused)
	}
	if _, err := os.Stat(first); err != nil {
		t.Error(err)
	}
}
