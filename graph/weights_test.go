package graph_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kaniko-build/graph"
)

// seconds is the cost of a node that is named as for trace.takes.
func seconds(id graph.ID) float64 { return float64(id[1] - '0') }

func TestWalkByCostAndWeight(t *testing.T) {
	weights := map[graph.ID]int64{"a1": 2, "b1": 1, "c1": 1, "d1": 1, "a2": 3, "b2": 3, "c2": 9}
	for _, c := range []struct {
		name, text string
		options    graph.Options
		trace      string
	}{
		{"the longest way to the end starts first", "a2 b1 c1>b1 d2>c1 e3", graph.Options{Jobs: 1, Cost: seconds},
			"0+b 1-b 1+c 2-c 2+e 5-e 5+a 7-a 7+d 9-d"},
		{"weights are not exceeded, what fits goes first", "a2 b2 b1 c1", graph.Options{Capacity: 4},
			"0+a 0+b 1-b 1+c 2-a 2-c 2+b 4-b"},
		{"who wants more than there is runs alone", "c2 a1 b1", graph.Options{Capacity: 4},
			"0+c 2-c 2+a 2+b 3-a 3-b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.options.Weight = func(id graph.ID) int64 { return weights[id] }
			if c.options.Capacity == 0 {
				c.options.Weight = nil
			}
			g := mustParse(t, c.text)
			synctest.Test(t, func(t *testing.T) {
				r := &trace{began: time.Now()}
				if err := g.Walk(t.Context(), c.options, r.takes).Err(); err != nil {
					t.Error(err)
				}
				if want, s := sorted(c.trace), sorted(r.String()); s != want {
					t.Errorf("trace\ngot  %s\nwant %s", s, want)
				}
			})
		})
	}
}

// TestWalkRandomWeights walks graphs with costs and weights that nobody thought of:
// together nodes never weigh more than there is, with one job the longest way goes
// first, all get their turn, and a cancel ends it.
func TestWalkRandomWeights(t *testing.T) {
	stop := errors.New("interrupted")
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 3))
		nodes, edges := random(r)
		g, err := graph.New(nodes, edges)
		if err != nil {
			t.Fatal(err)
		}
		weight, cost := map[graph.ID]int64{}, map[graph.ID]float64{}
		for _, id := range nodes {
			weight[id], cost[id] = int64(r.IntN(12)), float64(r.IntN(5))
		}
		options := graph.Options{
			Jobs: r.IntN(4), Capacity: int64(1 + r.IntN(10)),
			Cost: func(id graph.ID) float64 { return cost[id] }, Weight: func(id graph.ID) int64 { return weight[id] },
		}
		way := g.Remaining(options.Cost)
		cancelAt := time.Duration(0)
		if r.IntN(4) == 0 {
			cancelAt = time.Duration(r.IntN(20)) * time.Second
		}
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			if cancelAt > 0 {
				time.AfterFunc(cancelAt, func() { cancel(stop) })
			}
			var mu sync.Mutex
			running, used := 0, int64(0)
			done := map[graph.ID]bool{}
			began := map[graph.ID]bool{}
			ready := func(id graph.ID) bool {
				for _, need := range g.Needs(id) {
					if !done[need] {
						return false
					}
				}
				return !began[id]
			}
			got := g.Walk(ctx, options, func(ctx context.Context, id graph.ID) error {
				share := min(weight[id], options.Capacity)
				mu.Lock()
				if options.Jobs == 1 { // all fits then
					for _, other := range nodes {
						if other != id && ready(other) && way[other] > way[id] {
							t.Errorf("seed %d: %s, %v from the end, runs before %s, %v", seed, id, way[id], other, way[other])
						}
					}
				}
				began[id] = true
				running, used = running+1, used+share
				if used > options.Capacity {
					t.Errorf("seed %d: %d of %d in use", seed, used, options.Capacity)
				}
				mu.Unlock()
				defer func() {
					mu.Lock()
					defer mu.Unlock()
					running, used, done[id] = running-1, used-share, ctx.Err() == nil
				}()
				select {
				case <-time.After(time.Duration(cost[id]) * time.Second):
					return nil
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			})
			if running != 0 || used != 0 {
				t.Errorf("seed %d: %d run, %d in use at the end", seed, running, used)
			}
			if err := got.Err(); err != nil && (ctx.Err() == nil || !errors.Is(err, stop) && !errors.Is(err, context.Canceled)) {
				t.Errorf("seed %d: %v", seed, err)
			}
			if ctx.Err() == nil && len(done) != len(nodes) {
				t.Errorf("seed %d: %d of %d nodes ran", seed, len(done), len(nodes))
			}
		})
	}
}

func BenchmarkWalk1000Weights(b *testing.B) {
	var nodes []graph.ID
	var edges []graph.Edge
	for i := range 1000 {
		nodes = append(nodes, graph.ID(string(rune('a'+i%26))+string(rune('0'+i/26))))
		if i > 0 {
			edges = append(edges, graph.Edge{Node: nodes[i], Needs: nodes[i/30]})
		}
	}
	g, err := graph.New(nodes, edges)
	if err != nil {
		b.Fatal(err)
	}
	o := graph.Options{Jobs: 6, Cost: func(id graph.ID) float64 { return float64(id[0]) }, Weight: func(id graph.ID) int64 { return int64(id[0]) }, Capacity: 300}
	for b.Loop() {
		g.Walk(b.Context(), o, func(context.Context, graph.ID) error { return nil })
	}
}
