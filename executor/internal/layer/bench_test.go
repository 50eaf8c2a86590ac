package layer_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"kaniko-build/executor/internal/layer"
)

// tarball is like a layer of a distribution: many small files, a few large.
func tarball(b *testing.B, files int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	var m []member
	for d := range files / 50 {
		m = append(m, dir(fmt.Sprintf("usr/share/d%d", d)))
		for f := range 50 {
			size := 200 + r.IntN(8000)
			if r.IntN(100) == 0 {
				size = 400_000
			}
			m = append(m, file(fmt.Sprintf("usr/share/d%d/f%d", d, f), string(sample(size))))
		}
	}
	return archive(b, m...)
}

func BenchmarkUnpack(b *testing.B) {
	data := tarball(b, 10_000)
	b.SetBytes(int64(len(data)))
	i := 0
	top := b.TempDir()
	for b.Loop() {
		dir := filepath.Join(top, fmt.Sprint(i))
		i++
		os.Mkdir(dir, 0o755)
		if _, err := layer.Unpack(b.Context(), bytes.NewReader(data), dir, layer.UnpackOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPack(b *testing.B) {
	data := tarball(b, 10_000)
	dir := b.TempDir()
	if _, err := layer.Unpack(b.Context(), bytes.NewReader(data), dir, layer.UnpackOptions{}); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := layer.Pack(b.Context(), io.Discard, dir, nil, layer.PackOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

// Whatever the number of CPUs, compression holds less than 64 MB.
func TestCompressHoldsLittle(t *testing.T) {
	piece := sample(1 << 20)
	old := runtime.GOMAXPROCS(32)
	defer runtime.GOMAXPROCS(old)
	for _, c := range []layer.Compression{{}, {Type: layer.Gzip, Level: 9}, {Type: layer.Zstd}, {Type: layer.Zstd, Level: 6}} {
		runtime.GC()
		var before, now runtime.MemStats
		runtime.ReadMemStats(&before)
		var peak atomic.Uint64
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-stop:
					return
				case <-tick.C:
					runtime.ReadMemStats(&now)
					peak.Store(max(peak.Load(), now.HeapInuse))
				}
			}
		}()
		w, err := layer.Compress(io.Discard, c)
		if err != nil {
			t.Fatal(err)
		}
		for range 24 {
			if _, err := w.Write(piece); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		close(stop)
		<-done
		held := (int64(peak.Load()) - int64(before.HeapInuse)) >> 20
		t.Logf("%v: %d MB", c, held)
		if held > 64 {
			t.Errorf("%v held %d MB", c, held)
		}
	}
}
