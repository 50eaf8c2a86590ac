package graph

import (
	"container/heap"
	"fmt"
	"slices"
	"strings"
)

// ID names a node.
type ID string

// Edge says that Node runs only after Needs.
type Edge struct {
	Node   ID
	Needs  ID
	Reason string // why, for people; may be empty
}

// Graph is nodes and what they need. New makes it.
type Graph struct {
	ids        []ID       // plan order
	index      map[ID]int // of ids
	edges      []Edge     // as given, repeats between the same two nodes included
	needs      [][]int    // by node: each once, in plan order
	dependents [][]int    // by node: each once, in plan order
	order      []int      // topological
	rank       []int      // of each node in order
}

// CycleError says that nodes need each other in a circle.
type CycleError struct {
	Edges []Edge // each one's Needs is the next one's Node, and the last one's is the first's
}

// Error prints the circle: a -> b -> a.
func (e *CycleError) Error() string {
	var b strings.Builder
	b.WriteString("nodes need each other: ")
	for _, edge := range e.Edges {
		b.WriteString(string(edge.Node) + " -> ")
	}
	return b.String() + string(e.Edges[0].Node)
}

// New makes a graph. It returns a *CycleError if nodes need each other in a
// circle (a node that needs itself is one), the shortest circle there is; and
// another error for a node given twice or an edge to a node that was not given.
func New(nodes []ID, edges []Edge) (*Graph, error) {
	g := &Graph{
		ids:        slices.Clone(nodes),
		index:      make(map[ID]int, len(nodes)),
		edges:      slices.Clone(edges),
		needs:      make([][]int, len(nodes)),
		dependents: make([][]int, len(nodes)),
	}
	for i, id := range nodes {
		if _, twice := g.index[id]; twice {
			return nil, fmt.Errorf("internal error: node %q is given twice", id)
		}
		g.index[id] = i
	}
	for _, e := range edges {
		node, ok := g.index[e.Node]
		if !ok {
			return nil, fmt.Errorf("internal error: edge of unknown node %q", e.Node)
		}
		needs, ok := g.index[e.Needs]
		if !ok {
			return nil, fmt.Errorf("internal error: node %q needs unknown node %q", e.Node, e.Needs)
		}
		g.needs[node] = append(g.needs[node], needs)
		g.dependents[needs] = append(g.dependents[needs], node)
	}
	for i := range nodes {
		g.needs[i] = once(g.needs[i])
		g.dependents[i] = once(g.dependents[i])
	}
	g.sort()
	if len(g.order) < len(nodes) {
		return nil, &CycleError{Edges: g.cycle()}
	}
	return g, nil
}

// once sorts and leaves out repeats.
func once(list []int) []int {
	slices.Sort(list)
	return slices.Compact(list)
}

// sort fills order and rank: of the nodes whose needs are met, the first in plan
// order comes next. Nodes on or behind a cycle stay out.
func (g *Graph) sort() {
	missing := make([]int, len(g.ids))
	var ready intHeap
	for i := range g.ids {
		if missing[i] = len(g.needs[i]); missing[i] == 0 {
			heap.Push(&ready, i)
		}
	}
	g.rank = make([]int, len(g.ids))
	for ready.Len() > 0 {
		i := heap.Pop(&ready).(int)
		g.rank[i] = len(g.order)
		g.order = append(g.order, i)
		for _, d := range g.dependents[i] {
			if missing[d]--; missing[d] == 0 {
				heap.Push(&ready, d)
			}
		}
	}
}

// cycle is the shortest circle; of several the one met first in plan order.
func (g *Graph) cycle() []Edge {
	sorted := make([]bool, len(g.ids))
	for _, i := range g.order {
		sorted[i] = true
	}
	var best []int
	for i := range g.ids {
		if sorted[i] {
			continue
		}
		if path := g.circle(i); path != nil && (best == nil || len(path) < len(best)) {
			best = path
		}
	}
	out := make([]Edge, len(best))
	for i, node := range best {
		out[i] = g.edge(node, best[(i+1)%len(best)])
	}
	return out
}

// circle is the shortest way from a node back to it by needs, or nil.
func (g *Graph) circle(start int) []int {
	from := make([]int, len(g.ids)) // the node before it on the way, plus 1; 0 is not met
	queue := []int{start}
	for len(queue) > 0 {
		i := queue[0]
		queue = queue[1:]
		for _, n := range g.needs[i] {
			if n == start {
				path := []int{i}
				for i != start {
					i = from[i] - 1
					path = append(path, i)
				}
				slices.Reverse(path)
				return path
			}
			if from[n] == 0 {
				from[n] = i + 1
				queue = append(queue, n)
			}
		}
	}
	return nil
}

// edge is the first edge that was given between two nodes.
func (g *Graph) edge(node, needs int) Edge {
	i := slices.IndexFunc(g.edges, func(e Edge) bool { return e.Node == g.ids[node] && e.Needs == g.ids[needs] })
	return g.edges[i]
}

// names turns indexes into IDs.
func (g *Graph) names(list []int) []ID {
	out := make([]ID, len(list))
	for i, n := range list {
		out[i] = g.ids[n]
	}
	return out
}

// Nodes is every node in plan order.
func (g *Graph) Nodes() []ID { return slices.Clone(g.ids) }

// Edges is every edge as it was given.
func (g *Graph) Edges() []Edge { return slices.Clone(g.edges) }

// Needs is what a node needs itself, in plan order; nothing for an unknown node.
func (g *Graph) Needs(id ID) []ID { return g.neighbours(id, g.needs) }

// Dependents is who needs a node itself, in plan order; nothing for an unknown one.
func (g *Graph) Dependents(id ID) []ID { return g.neighbours(id, g.dependents) }

func (g *Graph) neighbours(id ID, of [][]int) []ID {
	i, ok := g.index[id]
	if !ok {
		return nil
	}
	return g.names(of[i])
}

// Order is every node after all it needs, in plan order where that leaves a choice.
func (g *Graph) Order() []ID { return g.names(g.order) }

// Levels is the nodes by the longest way below them: level 0 needs nothing, a
// node of level n needs one of level n-1. Each level is in plan order.
func (g *Graph) Levels() [][]ID {
	level := make([]int, len(g.ids))
	deepest := -1
	for _, i := range g.order {
		for _, n := range g.needs[i] {
			level[i] = max(level[i], level[n]+1)
		}
		deepest = max(deepest, level[i])
	}
	out := make([][]ID, deepest+1)
	for i, id := range g.ids {
		out[level[i]] = append(out[level[i]], id)
	}
	return out
}

// CriticalPath is the chain of nodes that costs most, in the order they run: no
// number of jobs makes a walk faster than it. Costs are not negative; nil counts
// each node as 1. It is empty for an empty graph.
func (g *Graph) CriticalPath(cost func(ID) float64) []ID {
	if cost == nil {
		cost = func(ID) float64 { return 1 }
	}
	total := make([]float64, len(g.ids))
	before := make([]int, len(g.ids))
	last := -1
	for _, i := range g.order {
		before[i] = -1
		for _, n := range g.needs[i] {
			if before[i] < 0 || total[n] > total[before[i]] {
				before[i] = n
			}
		}
		total[i] = cost(g.ids[i])
		if before[i] >= 0 {
			total[i] += total[before[i]]
		}
		if last < 0 || total[i] > total[last] {
			last = i
		}
	}
	var path []int
	for i := last; i >= 0; i = before[i] {
		path = append(path, i)
	}
	slices.Reverse(path)
	return g.names(path)
}

// remaining is the longest way from the start of each node to the end of a walk, the
// node itself and those that need it, by what they cost.
func (g *Graph) remaining(cost func(ID) float64) []float64 {
	way := make([]float64, len(g.ids))
	for k := len(g.order) - 1; k >= 0; k-- {
		i := g.order[k]
		for _, d := range g.dependents[i] {
			way[i] = max(way[i], way[d])
		}
		way[i] += cost(g.ids[i])
	}
	return way
}

// Remaining is the longest way from the start of each node to the end of a walk:
// what the node and those that need it cost. Who has the longest is on the critical
// path of what is left. Costs are as for CriticalPath.
func (g *Graph) Remaining(cost func(ID) float64) map[ID]float64 {
	if cost == nil {
		cost = func(ID) float64 { return 1 }
	}
	out := make(map[ID]float64, len(g.ids))
	for i, way := range g.remaining(cost) {
		out[g.ids[i]] = way
	}
	return out
}

// intHeap gives the smallest number first.
type intHeap []int

func (h intHeap) Len() int           { return len(h) }
func (h intHeap) Less(i, j int) bool { return h[i] < h[j] }
func (h intHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *intHeap) Push(x any)        { *h = append(*h, x.(int)) }
func (h *intHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}
