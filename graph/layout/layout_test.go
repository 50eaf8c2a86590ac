package layout_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"kaniko-build/graph/layout"
)

// random is a graph of n nodes in some lanes, with names of some lengths.
func random(r *rand.Rand, n, lanes int) ([]layout.Node, []layout.Edge) {
	var nodes []layout.Node
	var edges []layout.Edge
	for i := range n {
		nodes = append(nodes, layout.Node{Width: 60 + float64(r.IntN(150)), Height: 30 + float64(r.IntN(2)*16), Lane: r.IntN(lanes), Apart: r.IntN(10) == 0})
		if i == 0 {
			continue
		}
		for range r.IntN(4) {
			edges = append(edges, layout.Edge{From: r.IntN(i), To: i})
		}
	}
	return nodes, edges
}

// monorepo is n images: a few bases, toolchains on them, and services on these.
func monorepo(n int) ([]layout.Node, []layout.Edge) {
	var nodes []layout.Node
	var edges []layout.Edge
	for i := range n {
		nodes = append(nodes, layout.Node{Width: 120, Height: 32, Lane: i % 4})
		switch {
		case i >= 10:
			edges = append(edges, layout.Edge{From: 2 + i%8, To: i}, layout.Edge{From: 2 + (i/8)%3, To: i})
		case i >= 2:
			edges = append(edges, layout.Edge{From: i % 2, To: i})
		}
	}
	return nodes, edges
}

func overlap(a, b layout.Rect) bool {
	return a.X < b.X+b.Width && b.X < a.X+a.Width && a.Y < b.Y+b.Height && b.Y < a.Y+a.Height
}

func inside(a, b layout.Rect) bool {
	return a.X >= b.X && a.Y >= b.Y && a.X+a.Width <= b.X+b.Width && a.Y+a.Height <= b.Y+b.Height
}

const label = 90

// check finds what is wrong with a picture.
func check(t *testing.T, what string, nodes []layout.Node, edges []layout.Edge, lanes int, p layout.Picture) {
	t.Helper()
	all := layout.Rect{Width: p.Width, Height: p.Height}
	block := map[int]int{}
	for b, bl := range p.Blocks {
		for _, n := range bl.Nodes {
			block[n] = b + 1
			if !inside(p.Nodes[n], bl.Rect) {
				t.Fatalf("%s: node %d is outside of its block", what, n)
			}
			if nodes[n].Apart {
				t.Fatalf("%s: node %d is not apart", what, n)
			}
		}
	}
	for i, r := range p.Nodes {
		if !inside(r, all) || r.X < label {
			t.Fatalf("%s: node %d is at %v, the picture is %v", what, i, r, all)
		}
		if r.Width < nodes[i].Width || r.Height < nodes[i].Height {
			t.Fatalf("%s: node %d has no room: %v", what, i, r)
		}
		if !inside(r, p.Lanes[nodes[i].Lane]) {
			t.Fatalf("%s: node %d at %v is outside of its lane %v", what, i, r, p.Lanes[nodes[i].Lane])
		}
		for k := range i {
			if overlap(r, p.Nodes[k]) {
				t.Fatalf("%s: nodes %d and %d overlap: %v %v", what, i, k, r, p.Nodes[k])
			}
		}
		for b, bl := range p.Blocks {
			if block[i] != b+1 && overlap(r, bl.Rect) {
				t.Fatalf("%s: node %d overlaps a block of others", what, i)
			}
		}
	}
	for i := range lanes {
		for k := range i {
			if overlap(p.Lanes[i], p.Lanes[k]) {
				t.Fatalf("%s: lanes %d and %d overlap", what, i, k)
			}
		}
	}
	drawn := map[int]bool{}
	for _, line := range p.Lines {
		for _, e := range line.Edges {
			if drawn[e] {
				t.Fatalf("%s: edge %d is drawn twice", what, e)
			}
			drawn[e] = true
			from, to := p.Nodes[edges[e].From], p.Nodes[edges[e].To]
			if from.X+from.Width > to.X {
				t.Fatalf("%s: what is needed is not to the left: %v %v", what, from, to)
			}
		}
		e := edges[line.Edges[0]]
		ends := map[int]bool{block[e.From]: true, block[e.To]: true}
		for _, at := range points(line) {
			for n, r := range p.Nodes {
				if n == e.From || n == e.To || block[n] > 0 && ends[block[n]] {
					continue
				}
				if at.X > r.X && at.X < r.X+r.Width && at.Y > r.Y && at.Y < r.Y+r.Height {
					t.Fatalf("%s: the line of %v passes through node %d", what, e, n)
				}
			}
		}
	}
	for e := range edges {
		if !drawn[e] {
			t.Fatalf("%s: edge %d is not drawn", what, e)
		}
	}
}

// points samples a line.
func points(l layout.Line) []layout.Point {
	var out []layout.Point
	for i := 1; i < len(l.Points); i++ {
		a, b := l.Points[i-1], l.Points[i]
		for s := range 20 {
			u := float64(s) / 20
			if i%2 == 0 { // the curve's ends are level, its control points in the middle
				m := (a.X + b.X) / 2
				v := 1 - u
				out = append(out, layout.Point{X: v*v*v*a.X + 3*v*v*u*m + 3*v*u*u*m + u*u*u*b.X, Y: v*v*v*a.Y + 3*v*v*u*a.Y + 3*v*u*u*b.Y + u*u*u*b.Y})
				continue
			}
			out = append(out, layout.Point{X: a.X + (b.X-a.X)*u, Y: a.Y + (b.Y-a.Y)*u})
		}
	}
	return out
}

func TestNothingOverlaps(t *testing.T) {
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 2))
		lanes := 1 + r.IntN(6)
		nodes, edges := random(r, r.IntN(70), lanes)
		p := layout.Make(nodes, edges, lanes, label)
		check(t, fmt.Sprintf("seed %d", seed), nodes, edges, lanes, p)
		if again := layout.Make(nodes, edges, lanes, label); !reflect.DeepEqual(p, again) {
			t.Fatalf("seed %d: a second picture differs", seed)
		}
	}
	for _, n := range []int{1, 2, 10, 60, 200} {
		nodes, edges := monorepo(n)
		check(t, fmt.Sprintf("monorepo of %d", n), nodes, edges, 4, layout.Make(nodes, edges, 4, label))
	}
}

func TestNodesWithTheSameNeighboursAreATable(t *testing.T) {
	nodes := []layout.Node{{Width: 100, Height: 30}}
	var edges []layout.Edge
	for i := range 41 {
		nodes = append(nodes, layout.Node{Width: 100, Height: 30, Apart: i == 7})
		edges = append(edges, layout.Edge{From: 0, To: i + 1})
	}
	p := layout.Make(nodes, edges, 1, label)
	check(t, "star", nodes, edges, 1, p)
	if len(p.Blocks) != 1 || len(p.Blocks[0].Nodes) != 40 || len(p.Lines) != 2 {
		t.Errorf("%d blocks, %d lines", len(p.Blocks), len(p.Lines))
	}
	if b := p.Blocks[0]; b.Width > 3*b.Height || b.Height > 2*b.Width {
		t.Errorf("the table is %v", b.Rect)
	}
}

func TestALargeGraphIsQuick(t *testing.T) {
	nodes, edges := monorepo(2000)
	begun := time.Now()
	p := layout.Make(nodes, edges, 4, label)
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("2,000 nodes take %v", took)
	}
	t.Logf("%d lines, %.0fx%.0f, %v", len(p.Lines), p.Width, p.Height, time.Since(begun))
}

func BenchmarkMake(b *testing.B) {
	nodes, edges := monorepo(1000)
	for b.Loop() {
		layout.Make(nodes, edges, 4, label)
	}
}
