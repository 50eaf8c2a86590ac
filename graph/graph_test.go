package graph_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"kaniko-build/graph"
)

var update = flag.Bool("update", false, "rewrite golden files")

// parse reads "a>b" as a needs b, and a lone word as a node; nodes are in the
// order of their first mention.
func parse(text string) ([]graph.ID, []graph.Edge) {
	var nodes []graph.ID
	var edges []graph.Edge
	node := func(name string) graph.ID {
		if !slices.Contains(nodes, graph.ID(name)) {
			nodes = append(nodes, graph.ID(name))
		}
		return graph.ID(name)
	}
	for _, word := range strings.Fields(text) {
		a, b, ok := strings.Cut(word, ">")
		from := node(a)
		if ok {
			edges = append(edges, graph.Edge{Node: from, Needs: node(b), Reason: word})
		}
	}
	return nodes, edges
}

func mustParse(t testing.TB, text string) *graph.Graph {
	t.Helper()
	g, err := graph.New(parse(text))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func join(ids []graph.ID) string {
	words := make([]string, len(ids))
	for i, id := range ids {
		words[i] = string(id)
	}
	return strings.Join(words, " ")
}

func TestOrderLevelsAndCriticalPath(t *testing.T) {
	for _, c := range []struct{ text, order, levels, critical string }{
		{"", "", "[]", ""},
		{"a", "a", "[[a]]", "a"},
		{"a b c", "a b c", "[[a b c]]", "a"},
		{"a>b b>c", "c b a", "[[c] [b] [a]]", "c b a"},
		{"a>z b>z c", "z a b c", "[[z c] [a b]]", "z a"},
		{"a b>a c>a d>b d>c", "a b c d", "[[a] [b c] [d]]", "a b d"},
		{"d c>d b a>b a>c", "d c b a", "[[d b] [c] [a]]", "d c a"},
		{"a>b a>b a>c", "b c a", "[[b c] [a]]", "b a"},
	} {
		g := mustParse(t, c.text)
		if got := join(g.Order()); got != c.order {
			t.Errorf("%q: order is %s, want %s", c.text, got, c.order)
		}
		if got := fmt.Sprint(g.Levels()); got != c.levels {
			t.Errorf("%q: levels are %s, want %s", c.text, got, c.levels)
		}
		if got := join(g.CriticalPath(nil)); got != c.critical {
			t.Errorf("%q: critical path is %s, want %s", c.text, got, c.critical)
		}
	}
	g := mustParse(t, "a b>a c>a d>b d>c")
	cost := func(id graph.ID) float64 { return map[graph.ID]float64{"a": 1, "b": 2, "c": 5, "d": 1}[id] }
	if got := join(g.CriticalPath(cost)); got != "a c d" {
		t.Errorf("the costly way is %s, want a c d", got)
	}
}

func TestNewAnswersACycleWithItsEdges(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"a>a", "a>a"},
		{"a>b b>a", "a>b b>a"},
		{"x>a a>b b>c c>a c>y", "a>b b>c c>a"},
		{"a>b b>c c>d d>a c>b", "b>c c>b"},
		{"z>y y>z a>a", "a>a"},
		{"c>d d>c a>b b>a", "c>d d>c"},
	} {
		_, err := graph.New(parse(c.text))
		var circle *graph.CycleError
		if !errors.As(err, &circle) {
			t.Errorf("%q: no cycle but %v", c.text, err)
			continue
		}
		var got []string
		for _, e := range circle.Edges {
			got = append(got, e.Reason)
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%q: got %s, want %s", c.text, s, c.want)
		}
	}
	_, err := graph.New(parse("a>b b>a"))
	if err.Error() != "nodes need each other: a -> b -> a" {
		t.Errorf("prints as %q", err)
	}
}

func TestNewRefusesWhatIsNoGraph(t *testing.T) {
	for _, c := range []struct {
		nodes []graph.ID
		edges []graph.Edge
		want  string
	}{
		{[]graph.ID{"a", "a"}, nil, `node "a" is given twice`},
		{[]graph.ID{"a"}, []graph.Edge{{Node: "a", Needs: "b"}}, `node "a" needs unknown node "b"`},
		{[]graph.ID{"a"}, []graph.Edge{{Node: "b", Needs: "a"}}, `edge of unknown node "b"`},
	} {
		if _, err := graph.New(c.nodes, c.edges); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}

// TestAnswersBelongToTheCaller changes what a graph was made of and gave away.
func TestAnswersBelongToTheCaller(t *testing.T) {
	nodes, edges := parse("a>b")
	g, err := graph.New(nodes, edges)
	if err != nil {
		t.Fatal(err)
	}
	nodes[0], edges[0].Reason = "x", "changed"
	g.Nodes()[0], g.Order()[0], g.Edges()[0].Node = "x", "x", "x"
	if join(g.Nodes()) != "a b" || join(g.Order()) != "b a" || g.Edges()[0] != (graph.Edge{Node: "a", Needs: "b", Reason: "a>b"}) {
		t.Errorf("the graph has changed: %v %v %v", g.Nodes(), g.Order(), g.Edges())
	}
	if join(g.Needs("a")) != "b" || join(g.Dependents("b")) != "a" || g.Needs("x") != nil {
		t.Errorf("neighbours are %v %v %v", g.Needs("a"), g.Dependents("b"), g.Needs("x"))
	}
}

// random is a graph without cycles: edges lead from later to earlier numbers of a
// shuffled list.
func random(r *rand.Rand) ([]graph.ID, []graph.Edge) {
	n := 1 + r.IntN(30)
	nodes := make([]graph.ID, n)
	for i := range nodes {
		nodes[i] = graph.ID(fmt.Sprintf("n%d", i))
	}
	var edges []graph.Edge
	for range r.IntN(3 * n) {
		a, b := r.IntN(n), r.IntN(n)
		if a != b {
			edges = append(edges, graph.Edge{Node: nodes[max(a, b)], Needs: nodes[min(a, b)]})
		}
	}
	r.Shuffle(n, func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	return nodes, edges
}

func TestRandomGraphs(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 1))
		nodes, edges := random(r)
		g, err := graph.New(nodes, edges)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		order := g.Order()
		place := map[graph.ID]int{}
		for i, id := range order {
			place[id] = i
		}
		if len(place) != len(nodes) {
			t.Fatalf("seed %d: order %v of %v", seed, order, nodes)
		}
		level := map[graph.ID]int{}
		for n, ids := range g.Levels() {
			for _, id := range ids {
				level[id] = n
			}
		}
		for _, e := range edges {
			if place[e.Needs] >= place[e.Node] || level[e.Needs] >= level[e.Node] {
				t.Fatalf("seed %d: %s runs before %s", seed, e.Node, e.Needs)
			}
		}
		if path := g.CriticalPath(nil); len(path) != len(g.Levels()) {
			t.Fatalf("seed %d: critical path %v, %d levels", seed, path, len(g.Levels()))
		}
		again, err := graph.New(nodes, edges)
		if err != nil || !slices.Equal(again.Order(), order) {
			t.Fatalf("seed %d: a second order differs: %v", seed, err)
		}
		// One edge against the order closes a circle, and it is in the answer.
		a, b := order[0], order[len(order)-1]
		back := append(slices.Clone(edges), graph.Edge{Node: b, Needs: a}, graph.Edge{Node: a, Needs: b})
		_, err = graph.New(nodes, back)
		var circle *graph.CycleError
		if !errors.As(err, &circle) {
			t.Fatalf("seed %d: no cycle but %v", seed, err)
		}
		for i, e := range circle.Edges {
			if next := circle.Edges[(i+1)%len(circle.Edges)]; e.Needs != next.Node || !slices.Contains(back, e) {
				t.Fatalf("seed %d: %v is no circle", seed, circle.Edges)
			}
		}
	}
}

func TestDrawings(t *testing.T) {
	hostile := graph.ID("a\"]; x --> y <script>alert(1)</script>\x1b[31m\n`b`|\\N#quot;&amp;\u202e\xff")
	nodes := []graph.ID{"base", "api", "web", hostile}
	edges := []graph.Edge{
		{Node: "api", Needs: "base", Reason: "FROM shop/base"},
		{Node: "web", Needs: "api"},
		{Node: hostile, Needs: "base", Reason: string(hostile)},
	}
	g, err := graph.New(nodes, edges)
	if err != nil {
		t.Fatal(err)
	}
	look := graph.Look{Group: func(id graph.ID) string {
		return map[graph.ID]string{"api": "backend", "web": "front \"end\"", hostile: "backend"}[id]
	}, Class: func(id graph.ID) string {
		return map[graph.ID]string{"api": "cached", "web": "affected", hostile: "\"><script>"}[id]
	}, Critical: []graph.ID{"base", "api", "web"}}
	for file, draw := range map[string]func(*bytes.Buffer, graph.Look) error{
		"testdata/dot.want":     func(b *bytes.Buffer, l graph.Look) error { return g.DOT(b, l) },
		"testdata/mermaid.want": func(b *bytes.Buffer, l graph.Look) error { return g.Mermaid(b, l) },
		"testdata/svg.want":     func(b *bytes.Buffer, l graph.Look) error { return g.SVG(b, l) },
		"testdata/json.want":    func(b *bytes.Buffer, l graph.Look) error { return g.JSON(b, l) },
	} {
		var plain, got bytes.Buffer
		if err := errors.Join(draw(&plain, graph.Look{}), draw(&got, look)); err != nil {
			t.Fatal(err)
		}
		golden(t, file, got.String())
		if plain.Len() == 0 || bytes.ContainsAny(plain.Bytes(), "\x1b\x00") {
			t.Errorf("%s: without a look it is %q", file, plain.String())
		}
	}
	var empty, b bytes.Buffer
	none := mustParse(t, "")
	if err := errors.Join(none.DOT(&b, graph.Look{}), none.Mermaid(&b, graph.Look{}), none.JSON(&empty, graph.Look{})); err != nil {
		t.Fatal(err)
	}
	if !json.Valid(empty.Bytes()) || strings.Contains(empty.String(), "null") {
		t.Errorf("an empty graph is %s", empty.String())
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s\ngot\n%s\nwant\n%s", file, got, want)
	}
}

func ExampleGraph_Order() {
	g, err := graph.New([]graph.ID{"web", "api", "base"}, []graph.Edge{
		{Node: "web", Needs: "base"},
		{Node: "api", Needs: "base"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(g.Order())
	fmt.Println(g.Levels())
	// Output:
	// [base web api]
	// [[base] [web api]]
}

func BenchmarkNew1000(b *testing.B) {
	var nodes []graph.ID
	var edges []graph.Edge
	for i := range 1000 {
		nodes = append(nodes, graph.ID(fmt.Sprintf("n%d", i)))
		for j := 1; j <= 3 && i-j*7 >= 0; j++ {
			edges = append(edges, graph.Edge{Node: nodes[i], Needs: nodes[i-j*7]})
		}
	}
	for b.Loop() {
		if _, err := graph.New(nodes, edges); err != nil {
			b.Fatal(err)
		}
	}
}
