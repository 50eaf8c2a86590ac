package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"

	"kaniko-build/executor"
)

// verifyAsked is what --verify-cache asks for; "" is nothing.
type verifyAsked struct {
	all    bool
	sample string // the seed
}

// parseVerify reads the value of --verify-cache: all, sample or sample:SEED. A
// sample without a seed gets one of chance.
func parseVerify(s string) (*verifyAsked, error) {
	kind, seed, named := strings.Cut(s, ":")
	switch {
	case s == "":
		return nil, nil
	case s == "all":
		return &verifyAsked{all: true}, nil
	case kind == "sample" && named == (seed != ""):
		if seed == "" {
			var b [4]byte
			_, _ = rand.Read(b[:]) // never fails
			seed = hex.EncodeToString(b[:])
		}
		return &verifyAsked{sample: seed}, nil
	}
	return nil, usageError{fmt.Errorf("--verify-cache=%s: choose all, sample or sample:SEED", s)}
}

// pick chooses of nodes: all, or a quarter, which the seed decides alone.
func (v verifyAsked) pick(nodes []string) map[string]bool {
	place := func(n string) []byte {
		sum := sha256.Sum256([]byte(v.sample + "\x00" + n))
		return sum[:]
	}
	nodes = slices.Clone(nodes)
	slices.SortFunc(nodes, func(a, b string) int { return bytes.Compare(place(a), place(b)) })
	if !v.all {
		nodes = nodes[:(len(nodes)+3)/4]
	}
	out := map[string]bool{}
	for _, n := range nodes {
		out[n] = true
	}
	return out
}

// verifyError ends a run whose results are not what the same input makes anew.
type verifyError struct {
	wrong    int // ways in which a result differs from every build that knows nothing
	unsteady int // in which those differ from each other too
}

func (e *verifyError) Error() string {
	if e.wrong > 0 {
		return fmt.Sprintf("the cache gave a wrong result: %d differences from a build without it\n  hint: prune --all --kind keys forgets what steps made; please report it with the lines above", e.wrong)
	}
	return fmt.Sprintf("some steps make something else each time: %d differences between two builds without the cache", e.unsteady)
}

// verify builds nodes again without the cache and reports how results differ.
func (r *run) verify(ctx context.Context, w io.Writer) error {
	var names []string
	var nodes []*executor.Node
	for _, id := range r.order {
		nodes = append(nodes, r.nodes[id])
		names = append(names, id)
	}
	asked := *r.verifyAsked
	picked := asked.pick(names)
	v, err := r.x.Verify(ctx, nodes, func(n string) bool { return picked[n] })
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\nverified %d of %d images, %d steps, by building them again without the cache", len(v.Nodes), len(names), v.Steps)
	if !asked.all {
		fmt.Fprintf(w, "; --verify-cache=sample:%s chooses the same", asked.sample)
	}
	fmt.Fprintln(w)
	out := &verifyError{}
	last := ""
	for _, d := range v.Discrepancies {
		verdict := "wrong"
		if d.Unsteady {
			verdict = "not deterministic"
			out.unsteady++
		} else {
			out.wrong++
		}
		at := d.Node + " " + verdict + ": "
		if d.Step > 0 {
			at += fmt.Sprintf("[%s] %s (%s)", strings.TrimSpace(fmt.Sprintf("%s %d", d.Stage, d.Step)), oneLine(d.Text), r.places.pos(d.Pos))
		} else {
			at += "the image's config"
		}
		if at != last {
			fmt.Fprintln(w, printable(at))
			last = at
		}
		fmt.Fprintf(w, "  %s\n", printable(strings.TrimSpace(d.Path+" "+d.What)))
	}
	if out.wrong+out.unsteady == 0 {
		return nil
	}
	return out
}
