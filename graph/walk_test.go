package graph_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kaniko-build/graph"
)

// show prints an outcome: "a" succeeded, "b!" failed, "c~b" skipped because of b,
// "d^" cancelled, "e-" not started.
func show(o graph.Outcome) string {
	var words []string
	for _, r := range o {
		switch r.State {
		case graph.Succeeded:
			words = append(words, string(r.ID))
		case graph.Failed:
			words = append(words, string(r.ID)+"!")
		case graph.Skipped:
			words = append(words, string(r.ID)+"~"+string(r.Cause))
		case graph.Cancelled:
			words = append(words, string(r.ID)+"^")
		case graph.NotStarted:
			words = append(words, string(r.ID)+"-")
		}
	}
	return strings.Join(words, " ")
}

var errBroken = errors.New("broken")

// failing runs everything at once and fails the named nodes.
func failing(names ...graph.ID) func(context.Context, graph.ID) error {
	return func(_ context.Context, id graph.ID) error {
		if slices.Contains(names, id) {
			return errBroken
		}
		return nil
	}
}

func TestWalkSkipsOnlyDependents(t *testing.T) {
	for _, c := range []struct {
		name, text string
		fail       []graph.ID
		options    graph.Options
		want       string
	}{
		{"nothing to do", "", nil, graph.Options{}, ""},
		{"all succeed", "a>b b>c d", nil, graph.Options{}, "c b a d"},
		{"dependents are skipped", "a b>a c>b d", []graph.ID{"a"}, graph.Options{Jobs: 1, KeepGoing: true}, "a! b~a c~a d"},
		{"others are not started", "a b>a c>b d e>d", []graph.ID{"a"}, graph.Options{Jobs: 1}, "a! b~a c~a d- e-"},
		{"what ran before stays", "a b>a c>b d", []graph.ID{"b"}, graph.Options{Jobs: 1}, "a b! c~b d-"},
		{"the first cause counts", "a b c>a c>b", []graph.ID{"a", "b"}, graph.Options{Jobs: 1, KeepGoing: true}, "a! b! c~a"},
		{"one need failed is enough", "a b c>a c>b d>b", []graph.ID{"a"}, graph.Options{Jobs: 1, KeepGoing: true}, "a! b c~a d"},
		{"a skipped node never runs", "a b c>a c>b d>c", []graph.ID{"a"}, graph.Options{KeepGoing: true}, "a! b c~a d~a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := mustParse(t, c.text).Walk(t.Context(), c.options, failing(c.fail...))
			if show(got) != c.want {
				t.Errorf("got  %s\nwant %s", show(got), c.want)
			}
			if (got.Err() == nil) != (len(c.fail) == 0) || len(c.fail) > 0 && !errors.Is(got.Err(), errBroken) {
				t.Errorf("error is %v", got.Err())
			}
		})
	}
	err := mustParse(t, "a b").Walk(t.Context(), graph.Options{KeepGoing: true}, failing("a", "b")).Err()
	if err == nil || err.Error() != "a: broken\nb: broken" {
		t.Errorf("two failures print as %v", err)
	}
}

// trace notes when nodes start and end, in seconds of the bubble's clock.
type trace struct {
	began time.Time

	mu    sync.Mutex // guards lines
	lines []string
}

func (r *trace) note(what string, id graph.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, fmt.Sprintf("%d%s%s", int(time.Since(r.began).Seconds()), what, id))
}

// String is what was noted; within a second in the order of names.
func (r *trace) String() string {
	slices.SortStableFunc(r.lines, func(a, b string) int {
		return strings.Compare(strings.TrimRight(a, "+-abcdefgh"), strings.TrimRight(b, "+-abcdefgh"))
	})
	return strings.Join(r.lines, " ")
}

// takes runs nodes for as many seconds as their name says, "b3" three, and fails
// those whose name ends in "x".
func (r *trace) takes(ctx context.Context, id graph.ID) error {
	r.note("+", id[:1])
	select {
	case <-time.After(time.Duration(id[1]-'0') * time.Second):
	case <-ctx.Done():
		time.Sleep(time.Second) // tidying up takes its time
		r.note("-", id[:1])
		return context.Cause(ctx)
	}
	r.note("-", id[:1])
	if strings.HasSuffix(string(id), "x") {
		return errBroken
	}
	return nil
}

func TestWalkInTime(t *testing.T) {
	for _, c := range []struct {
		name, text string
		options    graph.Options
		cancel     time.Duration
		trace      string
		want       string
	}{
		{"a node starts as soon as its needs are met", "a1 b3 c1>a1 d1>b3 d1>c1", graph.Options{}, 0,
			"0+a 0+b 1-a 1+c 2-c 3-b 3+d 4-d", "a1 b3 c1 d1"},
		{"jobs limit how many run", "a1 b1 c1 d1", graph.Options{Jobs: 2}, 0,
			"0+a 0+b 1-a 1-b 1+c 1+d 2-c 2-d", "a1 b1 c1 d1"},
		{"plan order decides who is next", "a2 b1 c1 d1>b1", graph.Options{Jobs: 2}, 0,
			"0+a 0+b 1-b 1+c 2-a 2-c 2+d 3-d", "a2 b1 c1 d1"},
		{"after a failure running nodes end, none starts", "a1x b3 c1 d1>b3", graph.Options{Jobs: 2}, 0,
			"0+a 0+b 1-a 3-b", "a1x! b3 c1- d1-"},
		{"keep going runs the others", "a1x b3 c1 d1>b3 e1>a1x", graph.Options{Jobs: 2, KeepGoing: true}, 0,
			"0+a 0+b 1-a 1+c 2-c 3-b 3+d 4-d", "a1x! b3 c1 d1 e1~a1x"},
		{"cancel reaches those that run", "a5 b5 c1>a5", graph.Options{}, 2 * time.Second,
			"0+a 0+b 3-a 3-b", "a5^ b5^ c1-"},
		{"cancel starts nothing, even while keeping going", "a1 b5 c1>b5 d1>a1", graph.Options{KeepGoing: true, Jobs: 1}, 3 * time.Second,
			"0+a 1-a 1+b 4-b", "a1 b5^ c1- d1-"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := mustParse(t, c.text)
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				stop := errors.New("interrupted")
				if c.cancel > 0 {
					time.AfterFunc(c.cancel, func() { cancel(stop) })
				}
				defer cancel(nil)
				r := &trace{began: time.Now()}
				got := g.Walk(ctx, c.options, r.takes)
				if show(got) != c.want {
					t.Errorf("outcome\ngot  %s\nwant %s", show(got), c.want)
				}
				if c.cancel > 0 && !errors.Is(got.Err(), stop) {
					t.Errorf("the cause of the cancel is lost: %v", got.Err())
				}
				if want, s := sorted(c.trace), sorted(r.String()); s != want {
					t.Errorf("trace\ngot  %s\nwant %s", s, want)
				}
			})
		})
	}
}

// sorted puts what happened in the same second into one order.
func sorted(trace string) string {
	words := strings.Fields(trace)
	slices.Sort(words)
	return strings.Join(words, " ")
}

func TestWalkOfACancelledContextStartsNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	got := mustParse(t, "a b>a").Walk(ctx, graph.Options{}, func(context.Context, graph.ID) error {
		t.Error("a node ran")
		return nil
	})
	if show(got) != "a- b-" || !errors.Is(got.Err(), context.Canceled) {
		t.Errorf("got %s, %v", show(got), got.Err())
	}
}

// TestWalkTellsFailureFromCancel fails a node for its own reason after a cancel.
func TestWalkTellsFailureFromCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	got := mustParse(t, "a b>a").Walk(ctx, graph.Options{}, func(context.Context, graph.ID) error {
		cancel()
		return errBroken
	})
	if show(got) != "a! b~a" {
		t.Errorf("got %s", show(got))
	}
}

// TestWalkRandomGraphs checks the rules on graphs and failures nobody thought of.
func TestWalkRandomGraphs(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		nodes, edges := random(r)
		g, err := graph.New(nodes, edges)
		if err != nil {
			t.Fatal(err)
		}
		options := graph.Options{Jobs: r.IntN(4), KeepGoing: r.IntN(2) == 0}
		fails := map[graph.ID]bool{}
		length := map[graph.ID]time.Duration{}
		for _, id := range nodes {
			fails[id] = r.IntN(8) == 0
			length[id] = time.Duration(r.IntN(5)) * time.Second
		}
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			running, most := 0, 0
			state := map[graph.ID]string{}
			failed := false
			got := g.Walk(t.Context(), options, func(_ context.Context, id graph.ID) error {
				mu.Lock()
				if state[id] != "" {
					t.Errorf("seed %d: %s runs twice", seed, id)
				}
				for _, need := range g.Needs(id) {
					if state[need] != "succeeded" {
						t.Errorf("seed %d: %s runs while %s is %q", seed, id, need, state[need])
					}
				}
				state[id] = "running"
				running++
				most = max(most, running)
				mu.Unlock()
				time.Sleep(length[id])
				mu.Lock()
				defer mu.Unlock()
				running--
				if fails[id] {
					state[id], failed = "failed", true
					return errBroken
				}
				state[id] = "succeeded"
				return nil
			})
			if running != 0 || options.Jobs > 0 && most > options.Jobs {
				t.Errorf("seed %d: %d left running, at most %d of %d", seed, running, most, options.Jobs)
			}
			if len(got) != len(nodes) {
				t.Fatalf("seed %d: %d results for %d nodes", seed, len(got), len(nodes))
			}
			for _, res := range got {
				switch ran := state[res.ID]; {
				case ran != "" && ran != string(res.State):
					t.Errorf("seed %d: %s %s but is told as %s", seed, res.ID, ran, res.State)
				case ran == "" && res.State == graph.NotStarted && (options.KeepGoing || !failed):
					t.Errorf("seed %d: %s was not started", seed, res.ID)
				case res.State == graph.Skipped && (state[res.Cause] != "failed" || !needs(g, res.ID, res.Cause)):
					t.Errorf("seed %d: %s is skipped because of %s", seed, res.ID, res.Cause)
				case ran == "" && res.State != graph.Skipped && res.State != graph.NotStarted:
					t.Errorf("seed %d: %s never ran but is told as %s", seed, res.ID, res.State)
				}
			}
		})
	}
}

// needs tells whether a node needs another, maybe through others.
func needs(g *graph.Graph, id, other graph.ID) bool {
	for _, need := range g.Needs(id) {
		if need == other || needs(g, need, other) {
			return true
		}
	}
	return false
}
