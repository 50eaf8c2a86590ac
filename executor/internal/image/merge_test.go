package image

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"testing"
)

func TestMerge(t *testing.T) {
	for _, c := range []struct {
		name   string
		layers [][]file
		want   map[string]string
	}{
		{
			"whiteouts stay, unless something came back",
			[][]file{{reg("a", "1"), reg("b", "1"), reg("c", "1")}, {reg(".wh.a", ""), reg(".wh.b", ""), reg(".wh.x", "")}, {reg("b", "3")}},
			map[string]string{".wh.a": "0600 ", "b": "0644 3", "c": "0644 1", ".wh.x": "0600 "},
		},
		{
			"a directory that is new shows nothing of what was there before",
			[][]file{{reg(".wh.d", ""), reg("f", "1")}, {dir("d", 0o700), reg("d/x", "2"), dir("f", 0o700)}},
			map[string]string{"d": "5700 ", "d/.wh..wh..opq": "0600 ", "d/x": "0644 2", "f": "5700 ", "f/.wh..wh..opq": "0600 "},
		},
		{
			"an opaque directory needs no whiteouts",
			[][]file{{dir("d", 0o755), reg("d/x", "1"), reg("d/y", "1")}, {dir("d", 0o755), reg("d/.wh..wh..opq", "")}, {dir("d", 0o755), reg("d/.wh.y", ""), reg("d/z", "3")}},
			map[string]string{"d": "5755 ", "d/.wh..wh..opq": "0600 ", "d/z": "0644 3"},
		},
		{
			"a whiteout above others is enough",
			[][]file{{dir("d", 0o755), reg("d/.wh.x", ""), reg("d/y", "1")}, {reg(".wh.d", "")}},
			map[string]string{".wh.d": "0600 "},
		},
		{
			"a hard link outlives its first name",
			[][]file{{reg("a", "data"), hard("b", "a"), hard("c", "a")}, {reg("a", "new")}},
			map[string]string{"a": "0644 new", "b": "0644 data", "c": "= b"},
		},
	} {
		s := newStore(t)
		var layers []Layer
		for _, l := range c.layers {
			layers = append(layers, makeLayer(t, s, false, l...))
		}
		var b bytes.Buffer
		if err := Merge(t.Context(), &b, FromStore(s), layers); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := files(t, b.Bytes()); !maps.Equal(got, c.want) {
			t.Errorf("%s:\ngot  %q\nwant %q", c.name, got, c.want)
		}
	}
}

// One layer does what several do, over any layers below.
func TestMergedLayersDoTheSame(t *testing.T) {
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := newStore(t)
		var all []Layer
		for range 5 {
			all = append(all, makeLayer(t, s, false, randomLayer(r)...))
		}
		below := all[:r.IntN(4)]
		var several, one, merged bytes.Buffer
		if err := WriteTar(t.Context(), &several, FromStore(s), all, nil); err != nil {
			t.Fatal(err)
		}
		if err := Merge(t.Context(), &merged, FromStore(s), all[len(below):]); err != nil {
			t.Fatal(err)
		}
		d, err := s.PutBlob(merged.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		l := all[0]
		l.Descriptor.Digest, l.Descriptor.Size, l.DiffID = d, int64(merged.Len()), d
		if err := WriteTar(t.Context(), &one, FromStore(s), append(slices.Clone(below), l), nil); err != nil {
			t.Fatal(err)
		}
		if got, want := files(t, one.Bytes()), files(t, several.Bytes()); !maps.Equal(got, want) {
			t.Fatalf("seed %d: %d layers and one merged of the rest give\n%q\nall give\n%q\nmerged: %q", seed, len(below), got, want, files(t, merged.Bytes()))
		}
	}
}

// randomLayer is what packing could make: directories before what is in them.
func randomLayer(r *rand.Rand) []file {
	var out []file
	taken := map[string]bool{}
	var fill func(at string, depth int)
	fill = func(at string, depth int) {
		if depth > 0 && r.IntN(6) == 0 {
			out = append(out, reg(path.Join(at, opaque), ""))
		}
		for _, base := range []string{"a", "b", "c"} {
			name := path.Join(at, base)
			gone := reg(path.Join(at, whiteout+base), "")
			text := string(rune('0' + r.IntN(10)))
			switch k := r.IntN(10); {
			case k == 0:
				out = append(out, gone)
			case k == 1:
				out = append(out, reg(name, text))
				taken[name] = true
			case k == 2:
				out = append(out, sym(name, text))
			case k == 3 && len(taken) > 0:
				out = append(out, hard(name, slices.Sorted(maps.Keys(taken))[0]))
			case k >= 4 && k <= 6 && depth < 3:
				if k == 4 {
					out = append(out, gone)
				}
				out = append(out, dir(name, 0o700+int64(r.IntN(8))))
				fill(name, depth+1)
			}
		}
	}
	fill("", 0)
	return out
}
