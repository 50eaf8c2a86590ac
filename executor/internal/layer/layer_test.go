package layer_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"

	"kaniko-build/executor/internal/layer"
	"kaniko-build/executor/internal/tree"
)

func openTree(t testing.TB, dir string) *tree.Dir {
	t.Helper()
	d, err := tree.OpenDir(dir, tree.DirOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// entries prints a tar, one line a member.
func entries(t testing.TB, r io.Reader) []string {
	t.Helper()
	var out []string
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("%c %s %o %d:%d", h.Typeflag, h.Name, h.Mode, h.Uid, h.Gid)
		if h.Linkname != "" {
			line += " -> " + h.Linkname
		}
		out = append(out, line)
	}
}

func pack(t testing.TB, upper string, base tree.Tree) []byte {
	t.Helper()
	var b bytes.Buffer
	s, err := layer.Pack(t.Context(), &b, upper, base, layer.PackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if s.Size != int64(b.Len()) {
		t.Errorf("Stats.Size = %d, want %d", s.Size, b.Len())
	}
	return b.Bytes()
}

func sample(size int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	for b.Len() < size {
		fmt.Fprintf(&b, "line %d of %x\n", b.Len(), r.Uint32())
	}
	return b.Bytes()[:size]
}

func TestCompressIsTheSameForAnyNumberOfCPUs(t *testing.T) {
	data := sample(5 << 20)
	for _, c := range []layer.Compression{{}, {Type: layer.Gzip, Level: 1}, {Type: layer.Zstd}, {Type: layer.Zstd, Level: 7}, {Type: layer.None}} {
		var want []byte
		for i, cpus := range []int{1, 2, 5, 16} {
			old := runtime.GOMAXPROCS(cpus)
			var b bytes.Buffer
			w, err := layer.Compress(&b, c)
			if err != nil {
				t.Fatal(err)
			}
			for rest := data; len(rest) > 0; { // in odd pieces
				n := min(len(rest), 1+i*77777)
				if i == 0 {
					n = min(len(rest), 1<<20)
				}
				if _, err := w.Write(rest[:n]); err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			runtime.GOMAXPROCS(old)
			if want == nil {
				want = b.Bytes()
			} else if !bytes.Equal(want, b.Bytes()) {
				t.Errorf("%v with %d CPUs: other bytes than with 1", c, cpus)
			}
		}
		r, kind, err := layer.Decompress(bytes.NewReader(want))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%v: does not read back: %v", c, err)
		}
		if n, _ := c.Normal(); n.Type != kind {
			t.Errorf("%v was read as %s", c, kind)
		}
		r.Close()
		for _, n := range []int{len(want) / 2, len(want) - 1} {
			if c.Type == layer.None {
				break
			}
			r, _, err := layer.Decompress(bytes.NewReader(want[:n]))
			if err != nil {
				continue
			}
			if _, err := io.ReadAll(r); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%v cut to %d of %d: %v, want an unexpected end", c, n, len(want), err)
			}
			r.Close()
		}
	}
}

func TestDecompressReadsConcatenatedMembers(t *testing.T) {
	var b bytes.Buffer
	for _, s := range []string{"one ", "", "two"} {
		w := gzip.NewWriter(&b)
		io.WriteString(w, s)
		w.Close()
	}
	r, _, err := layer.Decompress(&b)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != "one two" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, s := range []string{"", "abc", "\x1f"} {
		r, kind, err := layer.Decompress(strings.NewReader(s))
		if err != nil || kind != layer.None {
			t.Fatal(kind, err)
		}
		if got, _ := io.ReadAll(r); string(got) != s {
			t.Errorf("got %q, want %q", got, s)
		}
	}
	if _, _, err := layer.Decompress(strings.NewReader("\x1f\x8b\x08")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("three bytes of gzip: %v", err)
	}
}

// BenchmarkCompress is how DefaultGzipLevel was chosen. COMPRESS_SAMPLE names
// a tar; without it, /usr/bin is packed.
func BenchmarkCompress(b *testing.B) {
	var data []byte
	if p := os.Getenv("COMPRESS_SAMPLE"); p != "" {
		var err error
		if data, err = os.ReadFile(p); err != nil {
			b.Fatal(err)
		}
	} else {
		data = pack(b, "/usr/bin", nil)
	}
	run := func(c layer.Compression) {
		b.Run(fmt.Sprintf("%s-%d", c.Type, c.Level), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			var n int64
			for b.Loop() {
				var out writeCounter
				w, err := layer.Compress(&out, c)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := w.Write(data); err != nil {
					b.Fatal(err)
				}
				if err := w.Close(); err != nil {
					b.Fatal(err)
				}
				n = int64(out)
			}
			b.ReportMetric(float64(n)/float64(len(data))*100, "%size")
		})
	}
	for level := 1; level <= 9; level++ {
		run(layer.Compression{Type: layer.Gzip, Level: level})
	}
	for _, level := range []int{1, 3, 9} {
		run(layer.Compression{Type: layer.Zstd, Level: level})
	}
}

type writeCounter int64

func (w *writeCounter) Write(p []byte) (int, error) {
	*w += writeCounter(len(p))
	return len(p), nil
}
