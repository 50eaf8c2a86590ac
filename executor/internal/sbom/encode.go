package sbom

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A layer is kept as lines without line breaks: a letter, a space, and JSON; or, of
// names, their hashes in hex.
//
//	f {"path":"var/lib/dpkg/status",…}   g "gone"   o "opaque"   w "note"   n 00ab… 01cd…

const hashesInLine = 512

// Lines is the layer as text, which ParseLines reads.
func (l Layer) Lines() ([]string, error) {
	var out []string
	add := func(letter string, v any) error {
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("encode packages of a layer: %w", err)
		}
		out = append(out, letter+" "+string(b))
		return nil
	}
	for _, f := range l.Files {
		if err := add("f", f); err != nil {
			return nil, err
		}
	}
	for letter, list := range map[string][]string{"g": l.Gone, "o": l.Opaque, "w": l.Notes} {
		for _, s := range list {
			if err := add(letter, []byte(s)); err != nil { // names are bytes
				return nil, err
			}
		}
	}
	for part := range slices.Chunk(l.Names, hashesInLine) {
		var b strings.Builder
		b.WriteString("n")
		for _, n := range part {
			fmt.Fprintf(&b, " %016x", n)
		}
		out = append(out, b.String())
	}
	slices.SortStableFunc(out, func(a, b string) int { return strings.Compare(a[:1], b[:1]) })
	return append(out, "end"), nil
}

// ParseLines reads what Lines made; lines that are cut or damaged are an error.
func ParseLines(lines []string) (Layer, error) {
	var l Layer
	if len(lines) == 0 || lines[len(lines)-1] != "end" {
		return l, errors.New("packages of a layer: the end is missing")
	}
	for _, line := range lines[:len(lines)-1] {
		kind, rest, _ := strings.Cut(line, " ")
		var err error
		switch kind {
		case "f":
			var f File
			if err = json.Unmarshal([]byte(rest), &f); err == nil {
				l.Files = append(l.Files, f)
			}
		case "g", "o", "w":
			var s []byte
			err = json.Unmarshal([]byte(rest), &s)
			to := map[string]*[]string{"g": &l.Gone, "o": &l.Opaque, "w": &l.Notes}[kind]
			*to = append(*to, string(s))
		case "n":
			for hash := range strings.SplitSeq(rest, " ") {
				var n uint64
				if n, err = strconv.ParseUint(hash, 16, 64); err != nil {
					break
				}
				l.Names = append(l.Names, n)
			}
		default:
			err = errors.New("unknown kind")
		}
		if err != nil {
			return Layer{}, fmt.Errorf("packages of a layer: line %.40q: %w", line, err)
		}
	}
	if !slices.IsSorted(l.Names) || !slices.IsSorted(l.Gone) || !slices.IsSorted(l.Opaque) {
		return Layer{}, errors.New("packages of a layer: not sorted")
	}
	return l, nil
}
