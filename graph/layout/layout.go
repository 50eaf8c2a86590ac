package layout

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Node is a box to place.
type Node struct {
	Width, Height float64
	Lane          int  // from 0
	Apart         bool // it is not put into a block
}

// Edge says that To needs From; both are indexes of nodes. The edges have no
// cycle.
type Edge struct{ From, To int }

// Point is a place; y grows downwards.
type Point struct{ X, Y float64 }

// Rect is a box.
type Rect struct{ X, Y, Width, Height float64 }

// Picture is where things are. Its upper left corner is 0, 0.
type Picture struct {
	Width, Height float64
	Nodes         []Rect // as given
	Lanes         []Rect // as numbered, over the full width; those without nodes are empty
	Blocks        []Block
	Lines         []Line
}

// Block is the frame around nodes that are placed as a table.
type Block struct {
	Rect
	Nodes []int
}

// Line is the way of one edge, or of all edges between the same two of a node or
// a block. It is straight from the first point to the second, a curve to the
// third, straight to the fourth, and so on; it ends with a straight part.
type Line struct {
	Points []Point
	Edges  []int // as given
}

// Distances, in the unit of the nodes.
const (
	margin      = 16.0 // around the picture and inside lanes and blocks
	nodeGap     = 10.0 // between boxes of a column
	laneGap     = 12.0
	blockMargin = 8.0
	cellGap     = 8.0
	track       = 6.0 // the height of a track
	minGap      = 56.0
	maxGap      = 160.0
)

// minBlock is how many nodes with the same neighbours make a block.
const minBlock = 5

// item is what stands in a column: a node, a block, or the track of a line.
type item struct {
	nodes   []int // one, or those of a block; none for a track
	columns int   // of a block
	width   float64
	height  float64
	lane    int
	rank    int
	y       float64 // of the middle
	next    []int   // items of the next column that a line leads to
	prev    []int
}

// Make places nodes in lanes; label is the width that is kept free at the left of
// each lane.
func Make(nodes []Node, edges []Edge, lanes int, label float64) Picture {
	l := &layout{nodes: nodes, edges: edges, lanes: lanes}
	l.blocks()
	l.rank()
	l.laneOrder()
	l.tracks()
	l.order()
	return l.place(label)
}

type layout struct {
	nodes []Node
	edges []Edge
	lanes int

	items    []item
	of       []int    // by node: its item
	pairs    [][2]int // of items between which a line is, each once, sorted
	along    [][]int  // by pair: its edges
	routes   [][]int  // by pair: its items from end to end
	standing []int    // by lane: where it stands, from the top
	cols     [][]int  // by rank: items from the top down
	ranks    int
}

// blocks makes items of nodes, and pairs of edges.
func (l *layout) blocks() {
	needs, dependents := make([][]int, len(l.nodes)), make([][]int, len(l.nodes))
	for _, e := range l.edges {
		needs[e.To] = append(needs[e.To], e.From)
		dependents[e.From] = append(dependents[e.From], e.To)
	}
	alike := map[string][]int{}
	key := make([]string, len(l.nodes))
	for i, n := range l.nodes {
		slices.Sort(needs[i])
		slices.Sort(dependents[i])
		key[i] = fmt.Sprint(n.Lane, slices.Compact(needs[i]), slices.Compact(dependents[i]))
		if n.Apart {
			key[i] = fmt.Sprint("apart ", i)
		}
		alike[key[i]] = append(alike[key[i]], i)
	}
	l.of = make([]int, len(l.nodes))
	made := map[string]int{}
	for i, n := range l.nodes {
		same := alike[key[i]]
		if len(same) < minBlock {
			l.of[i] = len(l.items)
			l.items = append(l.items, item{nodes: []int{i}, width: n.Width, height: n.Height, lane: n.Lane})
			continue
		}
		at, ok := made[key[i]]
		if !ok {
			at = len(l.items)
			made[key[i]] = at
			l.items = append(l.items, l.block(same))
		}
		l.of[i] = at
	}
	byPair := map[[2]int][]int{}
	for i, e := range l.edges {
		p := [2]int{l.of[e.From], l.of[e.To]}
		if byPair[p] == nil {
			l.pairs = append(l.pairs, p)
		}
		byPair[p] = append(byPair[p], i)
	}
	slices.SortFunc(l.pairs, func(a, b [2]int) int { return cmp.Or(a[0]-b[0], a[1]-b[1]) })
	for _, p := range l.pairs {
		l.along = append(l.along, byPair[p])
	}
}

// block is a table of nodes, somewhat wider than high.
func (l *layout) block(nodes []int) item {
	w, h := l.cell(nodes)
	columns := 1
	for columns < len(nodes) && float64((len(nodes)+columns-1)/columns)*h*1.3 > float64(columns)*w {
		columns++
	}
	rows := (len(nodes) + columns - 1) / columns
	columns = (len(nodes) + rows - 1) / rows
	return item{
		nodes: nodes, columns: columns, lane: l.nodes[nodes[0]].Lane,
		width: float64(columns)*w - cellGap + 2*blockMargin, height: float64(rows)*h - cellGap + 2*blockMargin,
	}
}

// cell is the size of a cell of a block, its gap included.
func (l *layout) cell(nodes []int) (w, h float64) {
	for _, n := range nodes {
		w, h = max(w, l.nodes[n].Width), max(h, l.nodes[n].Height)
	}
	return w + cellGap, h + cellGap
}

// rank gives each item the length of the longest way to it; what needs nothing
// moves right, next to the first that needs it.
func (l *layout) rank() {
	in, out := make([]int, len(l.items)), make([][]int, len(l.items))
	for _, p := range l.pairs {
		in[p[1]]++
		out[p[0]] = append(out[p[0]], p[1])
	}
	waits := slices.Clone(in)
	var order []int
	for i := range l.items {
		if waits[i] == 0 {
			order = append(order, i)
		}
	}
	for at := 0; at < len(order); at++ {
		i := order[at]
		l.ranks = max(l.ranks, l.items[i].rank+1)
		for _, o := range out[i] {
			l.items[o].rank = max(l.items[o].rank, l.items[i].rank+1)
			if waits[o]--; waits[o] == 0 {
				order = append(order, o)
			}
		}
	}
	for i := range l.items {
		if in[i] > 0 || len(out[i]) == 0 {
			continue
		}
		first := l.ranks
		for _, o := range out[i] {
			first = min(first, l.items[o].rank)
		}
		l.items[i].rank = first - 1
	}
}

// laneOrder puts lanes with lines between them near each other: neighbours are
// swapped as long as that makes the lines shorter.
func (l *layout) laneOrder() {
	lines := make([][]int, l.lanes)
	for i := range lines {
		lines[i] = make([]int, l.lanes)
	}
	for _, p := range l.pairs {
		a, b := l.items[p[0]].lane, l.items[p[1]].lane
		lines[a][b]++
		lines[b][a]++
	}
	order := make([]int, l.lanes)
	for i := range order {
		order[i] = i
	}
	length := func() int {
		sum := 0
		for i := range order {
			for k := range i {
				sum += lines[order[i]][order[k]] * (i - k)
			}
		}
		return sum
	}
	for best, better := length(), true; better; {
		better = false
		for i := range max(l.lanes-1, 0) {
			order[i], order[i+1] = order[i+1], order[i]
			if n := length(); n < best {
				best, better = n, true
				continue
			}
			order[i], order[i+1] = order[i+1], order[i]
		}
	}
	l.standing = make([]int, l.lanes)
	for at, lane := range order {
		l.standing[lane] = at
	}
}

// tracks gives lines that pass columns an item in each. Lines from one item into
// one lane share them as far as they go together.
func (l *layout) tracks() {
	shared := map[[3]int]int{} // from, lane, rank -> track
	for _, p := range l.pairs {
		route := []int{p[0]}
		lane := l.items[p[1]].lane
		for r := l.items[p[0]].rank + 1; r < l.items[p[1]].rank; r++ {
			key := [3]int{p[0], lane, r}
			at, ok := shared[key]
			if !ok {
				at = len(l.items)
				shared[key] = at
				l.items = append(l.items, item{height: track, lane: lane, rank: r})
			}
			route = append(route, at)
		}
		route = append(route, p[1])
		for i := range len(route) - 1 {
			from, to := route[i], route[i+1]
			if !slices.Contains(l.items[from].next, to) {
				l.items[from].next = append(l.items[from].next, to)
				l.items[to].prev = append(l.items[to].prev, from)
			}
		}
		l.routes = append(l.routes, route)
	}
}

// order sorts each column, lane by lane: items go where the mean of their
// neighbours is, from the left and from the right in turn, and the order with
// the fewest crossings is kept.
func (l *layout) order() {
	l.cols = make([][]int, l.ranks)
	for i, it := range l.items {
		l.cols[it.rank] = append(l.cols[it.rank], i)
	}
	byLane := func(a, b int) int { return l.standing[l.items[a].lane] - l.standing[l.items[b].lane] }
	for _, c := range l.cols {
		slices.SortStableFunc(c, byLane)
	}
	best, fewest := l.copyOrder(), l.crossings()
	pos := make([]float64, len(l.items))
	rememberColumn := func(c []int) {
		for at, i := range c {
			pos[i] = float64(at)
		}
	}
	for round := range 24 {
		if fewest == 0 {
			break
		}
		for _, c := range l.cols {
			rememberColumn(c)
		}
		for n := range l.cols {
			c := l.cols[n]
			if round%2 == 1 {
				c = l.cols[len(l.cols)-1-n]
			}
			mean := map[int]float64{}
			for _, i := range c {
				near := l.items[i].prev
				if round%2 == 1 {
					near = l.items[i].next
				}
				mean[i] = pos[i]
				if len(near) > 0 {
					mean[i] = 0
					for _, k := range near {
						mean[i] += pos[k] / float64(len(near))
					}
				}
			}
			slices.SortStableFunc(c, func(a, b int) int { return cmp.Or(byLane(a, b), cmp.Compare(mean[a], mean[b])) })
			rememberColumn(c)
		}
		if n := l.crossings(); n < fewest {
			best, fewest = l.copyOrder(), n
		}
	}
	l.cols = best
}

func (l *layout) copyOrder() [][]int {
	out := make([][]int, len(l.cols))
	for i, c := range l.cols {
		out[i] = slices.Clone(c)
	}
	return out
}

// crossings counts the pairs of lines between two columns that cross, by a tree
// of sums.
func (l *layout) crossings() int {
	at := make([]int, len(l.items))
	total := 0
	for r := range max(l.ranks-1, 0) {
		for n, i := range l.cols[r+1] {
			at[i] = n
		}
		sums := make([]int, len(l.cols[r+1])+1)
		met := 0
		for _, i := range l.cols[r] {
			ends := make([]int, 0, len(l.items[i].next))
			for _, n := range l.items[i].next {
				ends = append(ends, at[n])
			}
			slices.Sort(ends)
			for _, e := range ends { // lines before that end above or at e
				below := met
				for k := e + 1; k > 0; k -= k & -k {
					below -= sums[k]
				}
				total += below
			}
			for _, e := range ends {
				met++
				for k := e + 1; k < len(sums); k += k & -k {
					sums[k]++
				}
			}
		}
	}
	return total
}

// place computes coordinates.
func (l *layout) place(label float64) Picture {
	p := Picture{Nodes: make([]Rect, len(l.nodes)), Lanes: make([]Rect, l.lanes)}
	tops, bottoms := l.laneHeights()
	l.heights(tops, bottoms)

	// Columns from left to right, with gaps that lines need to turn.
	left, right := make([]float64, l.ranks), make([]float64, l.ranks)
	x := margin + label
	for r := range l.ranks {
		left[r] = x
		far := 0.0
		for _, i := range l.cols[r] {
			x = max(x, left[r]+l.items[i].width)
			for _, n := range l.items[i].next {
				far = max(far, max(l.items[n].y-l.items[i].y, l.items[i].y-l.items[n].y))
			}
		}
		right[r] = x
		x += min(max(minGap, far/6), maxGap)
	}
	if l.ranks > 0 {
		x = right[l.ranks-1]
	}
	p.Width = x + margin
	for lane := range l.lanes {
		at := l.standing[lane]
		if bottoms[at] > tops[at] {
			p.Lanes[lane] = Rect{0, tops[at] - margin, p.Width, bottoms[at] - tops[at] + 2*margin}
			p.Height = max(p.Height, bottoms[at]+margin)
		}
	}
	for i := range l.items {
		it := &l.items[i]
		switch top := it.y - it.height/2; {
		case len(it.nodes) == 1:
			p.Nodes[it.nodes[0]] = Rect{left[it.rank], top, it.width, it.height}
		case len(it.nodes) > 1:
			b := Block{Rect: Rect{left[it.rank], top, it.width, it.height}, Nodes: it.nodes}
			w, h := l.cell(it.nodes)
			for n, node := range it.nodes {
				p.Nodes[node] = Rect{b.X + blockMargin + float64(n%it.columns)*w, top + blockMargin + float64(n/it.columns)*h, w - cellGap, h - cellGap}
			}
			p.Blocks = append(p.Blocks, b)
		}
	}
	for n, route := range l.routes {
		from, to := l.items[route[0]], l.items[route[len(route)-1]]
		line := Line{Edges: l.along[n], Points: []Point{{left[from.rank] + from.width, from.y}, {right[from.rank], from.y}}}
		for _, i := range route[1 : len(route)-1] {
			t := l.items[i]
			line.Points = append(line.Points, Point{left[t.rank], t.y}, Point{right[t.rank], t.y})
		}
		y := l.port(route[len(route)-1], route[len(route)-2])
		line.Points = append(line.Points, Point{left[to.rank] - 2, y}, Point{left[to.rank], y})
		p.Lines = append(p.Lines, line)
	}
	return p
}

// port is where on the left side of an item a line ends: lines come in the order
// of what they come from, spread over the middle.
func (l *layout) port(to, from int) float64 {
	it := l.items[to]
	prev := slices.Clone(it.prev)
	slices.SortStableFunc(prev, func(a, b int) int { return cmp.Compare(l.items[a].y, l.items[b].y) })
	room := min(it.height*0.6, float64(len(prev)-1)*8)
	if len(prev) < 2 {
		return it.y
	}
	return it.y - room/2 + room*float64(slices.Index(prev, from))/float64(len(prev)-1)
}

// laneHeights gives each lane, by its place from the top, the height that its
// fullest column takes.
func (l *layout) laneHeights() (tops, bottoms []float64) {
	need := make([]float64, l.lanes)
	for _, c := range l.cols {
		height := make([]float64, l.lanes)
		for at, i := range c {
			lane := l.standing[l.items[i].lane]
			if at > 0 && l.items[c[at-1]].lane == l.items[i].lane {
				height[lane] += nodeGap
			}
			height[lane] += l.items[i].height
		}
		for lane, h := range height {
			need[lane] = max(need[lane], h)
		}
	}
	tops, bottoms = make([]float64, l.lanes), make([]float64, l.lanes)
	y := margin
	for lane, h := range need {
		tops[lane], bottoms[lane] = y, y+h
		if h > 0 {
			y += h + 2*margin + laneGap
		}
	}
	return tops, bottoms
}

// heights gives each item its place in its column, near the mean of its
// neighbours, within its lane.
func (l *layout) heights(tops, bottoms []float64) {
	for _, c := range l.cols { // at first from the top
		for begin := 0; begin < len(c); {
			lane := l.standing[l.items[c[begin]].lane]
			y := tops[lane]
			end := begin
			for ; end < len(c) && l.standing[l.items[c[end]].lane] == lane; end++ {
				it := &l.items[c[end]]
				it.y = y + it.height/2
				y += it.height + nodeGap
			}
			begin = end
		}
	}
	for round := range 12 {
		for n := range l.cols {
			c := l.cols[n]
			if round%2 == 1 {
				c = l.cols[len(l.cols)-1-n]
			}
			for begin := 0; begin < len(c); {
				lane := l.standing[l.items[c[begin]].lane]
				end := begin
				for end < len(c) && l.standing[l.items[c[end]].lane] == lane {
					end++
				}
				l.settle(c[begin:end], tops[lane], bottoms[lane], round)
				begin = end
			}
		}
	}
}

// settle moves the items of one column and lane to where the sum of squares of
// the distances to where they want to be is least, in their order and without
// touching: a monotone regression, by pooling those that get in each other's way.
func (l *layout) settle(items []int, top, bottom float64, round int) {
	type pool struct {
		sum, weight float64
		count       int
	}
	var pools []pool
	offset := make([]float64, len(items)) // of the middle, if all were packed to the top
	y := 0.0
	for at, i := range items {
		it := l.items[i]
		offset[at] = y + it.height/2
		y += it.height + nodeGap
		near := slices.Concat(it.prev, it.next)
		switch {
		case round%4 == 0 && len(it.prev) > 0:
			near = it.prev
		case round%4 == 1 && len(it.next) > 0:
			near = it.next
		}
		want := it.y
		if len(near) > 0 {
			want = 0
			for _, k := range near {
				want += l.items[k].y / float64(len(near))
			}
		}
		weight := 1.0
		if len(it.nodes) == 0 {
			weight = 4 // straight lines first
		}
		pools = append(pools, pool{(want - offset[at]) * weight, weight, 1})
		for len(pools) > 1 {
			a, b := pools[len(pools)-2], pools[len(pools)-1]
			if a.sum/a.weight <= b.sum/b.weight {
				break
			}
			pools = append(pools[:len(pools)-2], pool{a.sum + b.sum, a.weight + b.weight, a.count + b.count})
		}
	}
	free := bottom - top - (y - nodeGap)
	at := 0
	for _, p := range pools {
		shift := top + min(max(p.sum/p.weight-top, 0), max(free, 0))
		for range p.count {
			l.items[items[at]].y = shift + offset[at]
			at++
		}
	}
}

// SVG is the line as the data of an SVG path.
func (l Line) SVG() string {
	var b strings.Builder
	for i, p := range l.Points {
		switch {
		case i == 0:
			fmt.Fprintf(&b, "M%.1f %.1f", p.X, p.Y)
		case i%2 == 1:
			fmt.Fprintf(&b, "H%.1f", p.X)
		default:
			from := l.Points[i-1]
			middle := (from.X + p.X) / 2
			fmt.Fprintf(&b, "C%.1f %.1f %.1f %.1f %.1f %.1f", middle, from.Y, middle, p.Y, p.X, p.Y)
		}
	}
	return b.String()
}
