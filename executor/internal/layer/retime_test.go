package layer_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"kaniko-build/executor/internal/layer"
)

func TestRetime(t *testing.T) {
	epoch := time.Unix(1_000_000, 0)
	in := archive(t,
		dir("d").time(time.Unix(2_000_000, 5)), file("d/new", "content").time(time.Unix(1_000_000, 1)).xattr("security.capability", "cap"),
		file("d/old", "x").time(time.Unix(999_999, 7)), file("d/ancient", "").time(time.Unix(-5, 0)), file("d/.wh.gone", "").time(time.Unix(0, 0)),
		hard("d/link", "d/new").time(time.Unix(3_000_000, 0)), link("l", "d").own(1<<22, 7))
	var out, again bytes.Buffer
	if err := layer.Retime(t.Context(), &out, bytes.NewReader(in), epoch); err != nil {
		t.Fatal(err)
	}
	a, b := tar.NewReader(bytes.NewReader(in)), tar.NewReader(bytes.NewReader(out.Bytes()))
	for {
		old, err := a.Next()
		got, err2 := b.Next()
		if err == io.EOF && err2 == io.EOF {
			break
		}
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		want := old.ModTime
		if want.After(epoch) {
			want = epoch
		}
		if !got.ModTime.Equal(want) {
			t.Errorf("%s: %v, want %v", got.Name, got.ModTime, want)
		}
		if got.Name != old.Name || got.Typeflag != old.Typeflag || got.Mode != old.Mode || got.Uid != old.Uid || got.Gid != old.Gid || got.Linkname != old.Linkname ||
			got.PAXRecords["SCHILY.xattr.security.capability"] != old.PAXRecords["SCHILY.xattr.security.capability"] {
			t.Errorf("got %+v, want %+v", got, old)
		}
		x, _ := io.ReadAll(a)
		y, _ := io.ReadAll(b)
		if !bytes.Equal(x, y) {
			t.Errorf("%s: other content", got.Name)
		}
	}
	if err := layer.Retime(t.Context(), &again, bytes.NewReader(out.Bytes()), epoch); err != nil || !bytes.Equal(out.Bytes(), again.Bytes()) {
		t.Errorf("a second time it changes: %v", err)
	}
	if err := layer.Retime(t.Context(), io.Discard, bytes.NewReader(in[:700]), epoch); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut: %v", err)
	}
}

func TestDiffIDIsOfTheTar(t *testing.T) {
	in := archive(t, file("a", "1"))
	var ids []string
	for _, c := range []layer.Compression{{}, {Type: layer.Zstd}, {Type: layer.None}} {
		var b bytes.Buffer
		w, err := layer.Compress(&b, c)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(in)
		w.Close()
		id, n, err := layer.DiffID(&b)
		if err != nil || n != int64(len(in)) {
			t.Errorf("%v: %d bytes, %v", c, n, err)
		}
		ids = append(ids, id.String())
	}
	if ids[0] != ids[1] || ids[1] != ids[2] {
		t.Errorf("digests %q", ids)
	}
}

func TestCompressionIsChecked(t *testing.T) {
	for _, c := range []layer.Compression{{Type: "lz4"}, {Level: 10}, {Type: layer.Zstd, Level: 23}, {Type: layer.None, Level: 1}, {Level: -1}} {
		if _, err := layer.Compress(io.Discard, c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestCompressReportsFailedWrites(t *testing.T) {
	data := sample(12 << 20)
	for _, c := range []layer.Compression{{Level: 1}, {Type: layer.Zstd, Level: 1}} {
		w, err := layer.Compress(failing{}, c)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Write(data)
		if err := errors.Join(err, w.Close()); err == nil {
			t.Errorf("%v: a failed write went unnoticed", c)
		}
	}
}
